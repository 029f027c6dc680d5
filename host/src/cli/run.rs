//! `sharpfaas run`

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use clap::Args;
use reqwest::{Method, Response, header};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap as _};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{
    Client, Failure, Terminal,
    client::ClientArgs,
    events::{Event, Events},
    failure::is_of_function,
};
use crate::function::{CallerId, EntryName, FunctionName, FunctionType, Lane, Selector};

/// How often a connection that was lost while the function runs is made again.
const RECONNECTS: u32 = 10;
/// How long to wait before that; each time as long again.
const RECONNECT_AFTER: Duration = Duration::from_millis(200);
/// The fields of a call, which can't be parameters.
const FIELDS: [&str; 10] = [
    "functionName",
    "lane",
    "version",
    "payload",
    "payloadEncrypted",
    "type",
    "entryFileName",
    "callerId",
    "deadlineMs",
    "parameters",
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

/// The call, as the server takes it.
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

/// An object that keeps the order, and a name that is given twice.
fn members<S: Serializer>(pairs: &[(String, String)], serializer: S) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(pairs.len()))?;
    for (name, value) in pairs {
        map.serialize_entry(name, value)?;
    }
    map.end()
}

/// What is needed of a call as the server shows it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    invocation_id: Uuid,
    status: String,
    #[serde(rename = "type")]
    kind: Option<FunctionType>,
    result: Option<Box<RawValue>>,
    error: Option<ShownError>,
}

#[derive(Debug, Deserialize)]
struct ShownError {
    code: String,
    detail: String,
}

#[derive(Debug, Deserialize)]
struct OutputLine {
    stream: String,
    line: String,
}

#[derive(Debug, Deserialize)]
struct Skipped {
    lines: u64,
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
    let request =
        client.request(Method::POST, &["api", "function", "runfunction"]).header("Prefer", "respond-async").json(&call);
    let (_, started) = client.fetch::<Shown>(request).await?;
    let document = follow(&client, started.invocation_id, args.client.json, terminal).await?;
    finish(&client, &document, args.client.json, terminal)
}

fn read(file: &Path) -> Result<String, Failure> {
    let usage = |error: &dyn std::fmt::Display| Failure::Usage(format!("--payload-file {}: {error}", file.display()));
    let mut bytes = Vec::new();
    if file == Path::new("-") {
        std::io::stdin().lock().read_to_end(&mut bytes).map_err(|error| usage(&error))?;
    } else {
        bytes = std::fs::read(file).map_err(|error| usage(&error))?;
    }
    String::from_utf8(bytes).map_err(|_| usage(&"a payload must be UTF-8 text"))
}

/// Shows the console of a call until it ends, and gives the call as it ended. The first ctrl-c cancels
/// the call, whose end is then waited for; the second is left to the system.
async fn follow(client: &Client, id: Uuid, silent: bool, terminal: &mut Terminal) -> Result<String, Failure> {
    let mut events = Events::default();
    let mut lost = 0;
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    let mut cancelled = false;
    loop {
        let following = listen(client, id, &mut events, silent, terminal);
        let outcome = tokio::select! {
            outcome = following => outcome,
            _ = &mut interrupted, if !cancelled => {
                cancelled = true;
                terminal.note("cancelling; once more to leave it alone");
                exit_on_ctrl_c();
                client.send(client.request(Method::DELETE, &["api", "invocations", &id.to_string()])).await?;
                events.reconnect();
                continue;
            }
        };
        match outcome {
            Ok(document) => return Ok(document),
            Err(Lost::Refused(failure)) => return Err(failure),
            Err(Lost::Connection(failure)) if lost >= RECONNECTS => return Err(failure),
            Err(Lost::Connection(_)) => {
                lost += 1;
                events.reconnect();
                tokio::time::sleep(RECONNECT_AFTER * lost).await;
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

/// Why listening ended before the call did.
enum Lost {
    /// The connection broke: another may do.
    Connection(Failure),
    /// The server said no.
    Refused(Failure),
}

async fn listen(
    client: &Client,
    id: Uuid,
    events: &mut Events,
    silent: bool,
    terminal: &mut Terminal,
) -> Result<String, Lost> {
    let mut request = client
        .request(Method::GET, &["api", "invocations", &id.to_string(), "output"])
        .header(header::ACCEPT, "text/event-stream");
    if let Some(last) = events.last_id() {
        request = request.header("Last-Event-ID", last);
    }
    let mut response: Response = client.send(request).await.map_err(|failure| match failure {
        Failure::Other(_) => Lost::Connection(failure),
        other => Lost::Refused(other),
    })?;
    loop {
        while let Some(event) = events.next() {
            if event.name == "completed" {
                return Ok(event.data);
            }
            if !silent {
                show(client, &event, terminal).map_err(Lost::Refused)?;
            }
        }
        match response.chunk().await {
            Ok(Some(bytes)) => events.push(&bytes),
            Ok(None) => {
                let text = "the server ended the connection before the function ended".to_owned();
                return Err(Lost::Connection(Failure::Other(text)));
            }
            Err(error) => return Err(Lost::Connection(client.unreachable(&error))),
        }
    }
}

fn show(client: &Client, event: &Event, terminal: &mut Terminal) -> Result<(), Failure> {
    match event.name.as_str() {
        "output" => {
            let line: OutputLine = client.read(&event.data)?;
            terminal.console_line(&line.line, line.stream == "stderr");
        }
        "skipped" => {
            let skipped: Skipped = client.read(&event.data)?;
            terminal.console_line(&format!("[{} lines skipped]", skipped.lines), true);
        }
        // Later servers may send others.
        _ => {}
    }
    Ok(())
}

/// Prints the result, or tells why there is none.
fn finish(client: &Client, document: &str, json: bool, terminal: &mut Terminal) -> Result<(), Failure> {
    let Shown { status, kind, result, error, .. } = client.read(document)?;
    if json {
        terminal.print(document)?;
    }
    if status == "succeeded" {
        // What a program prints is its result: whoever watches has just seen it.
        let seen = kind == Some(FunctionType::Exe) && terminal.is_watched();
        return if json || seen { Ok(()) } else { terminal.print(&text(result.as_deref())) };
    }
    let error = error.unwrap_or_else(|| ShownError { code: status.clone(), detail: format!("the call {status}") });
    let text = format!("{} ({})", error.detail, error.code);
    Err(if is_of_function(&error.code) { Failure::Function(text) } else { Failure::Other(text) })
}

/// The result of a call that succeeded, for people and pipes: a string is its text, anything else its JSON
/// as the function wrote it.
pub fn text(result: Option<&RawValue>) -> String {
    // A member that is `null` reads as none.
    let json = result.map_or("null", RawValue::get);
    serde_json::from_str(json).unwrap_or_else(|_| json.to_owned())
}
