//! `sharpfaas run`

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use serde::{Serialize, Serializer, ser::SerializeMap as _};
use serde_json::value::RawValue;

use super::{
    Client, Failure, Terminal,
    client::ClientArgs,
    hub::{Event, Hub},
};
use crate::function::{CallerId, EntryName, FunctionName, FunctionType, Lane, Selector};

/// The fields of a call, which can't be parameters.
const FIELDS: [&str; 13] = [
    "functionName",
    "lane",
    "version",
    "payload",
    "payloadEncrypted",
    "encryptResult",
    "type",
    "entryFileName",
    "callerId",
    "deadlineMs",
    "parameters",
    "requestId",
    "cancel",
];

/// `run`
#[derive(Debug, Args)]
pub struct RunArgs {
    /// The function's name.
    pub name: FunctionName,
    /// What it gets, JSON as a rule; nothing where none is given.
    #[arg(conflicts_with = "payload_file")]
    pub payload: Option<String>,
    /// Read the payload from a file, or with '-' from standard input.
    #[arg(long, value_name = "FILE")]
    pub payload_file: Option<PathBuf>,
    /// The lane to run it from.
    #[arg(long, default_value = "dev")]
    pub lane: Lane,
    /// 1.3 for that version, 1 for the newest 1.x, latest for the newest of all.
    #[arg(long, default_value = "latest")]
    pub version: Selector,
    /// The type that the function must have: dll or exe.
    #[arg(long = "type", value_name = "TYPE")]
    pub kind: Option<FunctionType>,
    /// Another entry of the same package.
    #[arg(long, value_name = "FILE")]
    pub entry: Option<EntryName>,
    /// Who calls, for history and logs.
    #[arg(long, value_name = "TEXT")]
    pub caller_id: Option<CallerId>,
    /// End the function after this many seconds, where the server does not do so sooner.
    #[arg(long, value_name = "SECONDS", value_parser = seconds)]
    pub timeout: Option<Duration>,
    /// A parameter for the function's context; may be repeated.
    #[arg(long = "param", value_name = "NAME=VALUE", value_parser = parameter)]
    pub parameters: Vec<(String, String)>,
    #[command(flatten)]
    pub client: ClientArgs,
}

fn seconds(text: &str) -> Result<Duration, String> {
    let rule = "it must be a number of seconds from 0.001 to 86400";
    let seconds: f64 = text.parse().map_err(|_| rule)?;
    if (0.001..=86_400.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(rule.into()) }
}

fn parameter(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty()).ok_or("it must be NAME=VALUE")?;
    if FIELDS.iter().any(|field| field.eq_ignore_ascii_case(name)) {
        return Err(format!("'{name}' is the server's own"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

/// The call, as the hub takes it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Call<'a> {
    function_name: &'a FunctionName,
    lane: &'a Lane,
    version: String,
    payload: &'a str,
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    kind: Option<FunctionType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    entry_file_name: Option<&'a EntryName>,
    #[serde(skip_serializing_if = "Option::is_none")]
    caller_id: Option<&'a CallerId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deadline_ms: Option<u128>,
    #[serde(serialize_with = "members", skip_serializing_if = "<[_]>::is_empty")]
    parameters: &'a [(String, String)],
}

impl Call<'_> {
    fn message(&self) -> Result<String, Failure> {
        serde_json::to_string(self).map_err(|error| Failure::local(error.to_string()))
    }
}

/// The call of one version with nothing else said, as the hub takes it.
pub fn message(name: &FunctionName, lane: &Lane, version: &str, payload: &str) -> Result<String, Failure> {
    let call = Call {
        function_name: name,
        lane,
        version: version.to_owned(),
        payload,
        kind: None,
        entry_file_name: None,
        caller_id: None,
        deadline_ms: None,
        parameters: &[],
    };
    call.message()
}

/// An object that keeps the order, and a name that is given twice.
fn members<S: Serializer>(pairs: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (name, value) in pairs {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

/// Starts the call, shows what it prints while it does so, and prints its result.
pub async fn run(args: RunArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let payload = match (args.payload, &args.payload_file) {
        (Some(payload), _) => payload,
        (None, Some(file)) => read(file)?,
        (None, None) => String::new(),
    };
    let call = Call {
        function_name: &args.name,
        lane: &args.lane,
        version: args.version.to_string(),
        payload: &payload,
        kind: args.kind,
        entry_file_name: args.entry.as_ref(),
        caller_id: args.caller_id.as_ref(),
        deadline_ms: args.timeout.map(|timeout| timeout.as_millis()),
        parameters: &args.parameters,
    };
    let client = Client::new(&args.client)?;
    let mut hub = Hub::connect(&client, &["functions"], "").await?;
    hub.send(call.message()?).await?;
    follow(&mut hub, args.client.json, terminal).await
}

/// The text of a file, or with `-` of standard input.
pub fn read(file: &Path) -> Result<String, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::Usage(format!("--payload-file {}: {error}", file.display()));
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes).map_err(|error| usage(&error))?;
    } else {
        bytes = std::fs::read(file).map_err(|error| usage(&error))?;
    }
    String::from_utf8(bytes).map_err(|_| usage(&"a payload must be UTF-8 text"))
}

/// Shows the console of the call until it ends, and then its result. The first ctrl-c cancels the call,
/// whose end is then waited for; the second is left to the system. So is a lost connection: the server
/// cancels what was started on it.
async fn follow(hub: &mut Hub<'_>, json: bool, terminal: &mut Terminal) -> Result<(), Failure> {
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let (mut id, mut cancelled) = (None, false);
    loop {
        let (text, event) = tokio::select! {
            heard = hub.next() => heard?,
            _ = &mut interrupted, if !cancelled => {
                cancelled = true;
                exit_on_ctrl_c();
                let Some(id) = id else { return Err(Failure::Function("cancelled before it began".into())) };
                terminal.note("cancelling; once more to leave at once");
                hub.send(serde_json::json!({ "cancel": id }).to_string()).await?;
                continue;
            }
        };
        if json {
            terminal.print(&text)?;
        }
        match event {
            Event::Started(invocation) => id = Some(invocation),
            Event::Completed(_) if json => return Ok(()),
            Event::Output(_) | Event::Skipped(_) if json => {}
            event => {
                if let Some(end) = event.show(terminal) {
                    return end;
                }
            }
        }
    }
}

/// From now on ctrl-c ends this process, as it does where nobody listens for it.
fn exit_on_ctrl_c() {
    tokio::spawn(async {
        if tokio::signal::ctrl_c().await.is_ok() {
            // What a shell shows for a process that SIGINT ended.
            std::process::exit(130);
        }
    });
}

/// The result of a call that succeeded, for people and pipes: a string is its text, anything else its JSON
/// as the function wrote it.
pub fn text(result: Option<&RawValue>) -> String {
    // A member that is `null` reads as none.
    let json = result.map_or("null", RawValue::get);
    serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())
}
