//! `sharpfaas functions`

use chrono::{DateTime, Utc};
use clap::Args;
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Client, Failure, Terminal, client::ClientArgs, terminal};
use crate::function::{FunctionName, Lane, Selector};

/// How many functions are asked for at once.
const PAGE: &str = "1000";
/// How much of a digest is shown in lists: enough to tell versions apart.
const SHOWN_DIGEST: usize = 12;

/// `functions`
#[derive(Debug, Args)]
pub struct FunctionsArgs {
    /// Show the versions of this function.
    pub name: Option<FunctionName>,
    /// Only those in this lane.
    #[arg(requires = "name")]
    pub lane: Option<Lane>,
    /// Show all of this version: 1.3, 1 for the newest 1.x, or latest.
    #[arg(requires = "lane")]
    pub version: Option<Selector>,
    #[command(flatten)]
    pub client: ClientArgs,
}

#[derive(Debug, Deserialize)]
struct Page {
    functions: Vec<Box<RawValue>>,
    next: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Function {
    function_name: String,
    #[serde(rename = "type")]
    kind: String,
    lanes: Vec<LaneOf>,
    #[serde(default)]
    versions: Vec<Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
struct LaneOf {
    lane: String,
    newest: String,
    versions: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Version {
    function_name: String,
    lane: String,
    version: String,
    #[serde(rename = "type")]
    kind: String,
    entry: String,
    shape: Option<String>,
    #[serde(default)]
    asks: Option<serde_json::Value>,
    #[serde(default)]
    granted: Option<serde_json::Value>,
    sha256: String,
    size: u64,
    pushed_at: DateTime<Utc>,
    pushed_by: Option<String>,
}

/// Lists what is in the store.
pub async fn functions(args: FunctionsArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let json = args.client.json;
    match (&args.name, &args.lane, &args.version) {
        (None, _, _) => all(&client, json, terminal).await,
        (Some(name), Some(lane), Some(version)) => one(&client, name, lane, *version, json, terminal).await,
        (Some(name), lane, _) => versions(&client, name, lane.as_ref(), json, terminal).await,
    }
}

async fn all(client: &Client, json: bool, terminal: &mut Terminal) -> Result<(), Failure> {
    let mut functions: Vec<Box<RawValue>> = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let mut request = client.request(Method::GET, &["api", "functions"]).query(&[("limit", PAGE)]);
        if let Some(after) = &after {
            request = request.query(&[("after", after)]);
        }
        let (_, page) = client.fetch::<Page>(request).await?;
        functions.extend(page.functions);
        match page.next {
            Some(next) if after.as_ref() != Some(&next) => after = Some(next),
            _ => break,
        }
    }
    if json {
        return print_json(&serde_json::json!({ "functions": functions }), terminal);
    }
    let mut rows = vec![heading(&["FUNCTION", "TYPE", "LANE", "NEWEST", "VERSIONS"])];
    for function in &functions {
        let Function { function_name, kind, lanes, .. } = client.read(function.get())?;
        for LaneOf { lane, newest, versions } in lanes {
            rows.push(vec![function_name.clone(), kind.clone(), lane, newest, versions.to_string()]);
        }
    }
    terminal.table(&rows)
}

async fn versions(
    client: &Client,
    name: &FunctionName,
    lane: Option<&Lane>,
    json: bool,
    terminal: &mut Terminal,
) -> Result<(), Failure> {
    let request = client.request(Method::GET, &["api", "functions", name.as_str()]);
    let (text, function) = client.fetch::<Function>(request).await?;
    let lanes: Vec<&str> = function.lanes.iter().map(|of| of.lane.as_str()).collect();
    if let Some(lane) = lane.filter(|lane| !lanes.contains(&lane.as_str())) {
        return Err(Failure::Other(format!("{name} is not in lane {lane}, but in {}", lanes.join(", "))));
    }
    if json && lane.is_none() {
        return terminal.print(&text);
    }
    let mut rows = vec![heading(&["LANE", "VERSION", "SIZE", "PUSHED", "BY", "ENTRY", "SHAPE", "SHA256"])];
    let mut shown = Vec::new();
    for raw in &function.versions {
        let version: Version = client.read(raw.get())?;
        if lane.is_some_and(|lane| lane.as_str() != version.lane) {
            continue;
        }
        shown.push(raw);
        rows.push(vec![
            version.lane,
            version.version,
            terminal::size(version.size),
            terminal::time(version.pushed_at),
            version.pushed_by.unwrap_or_else(|| "-".into()),
            version.entry,
            version.shape.unwrap_or_else(|| "-".into()),
            version.sha256.chars().take(SHOWN_DIGEST).collect(),
        ]);
    }
    if json {
        let document = serde_json::json!({
            "functionName": function.function_name, "type": function.kind, "versions": shown,
        });
        return print_json(&document, terminal);
    }
    terminal.table(&rows)
}

async fn one(
    client: &Client,
    name: &FunctionName,
    lane: &Lane,
    version: Selector,
    json: bool,
    terminal: &mut Terminal,
) -> Result<(), Failure> {
    let version = version.to_string();
    let request = client.request(Method::GET, &["api", "functions", name.as_str(), lane.as_str(), &version]);
    let (text, version) = client.fetch::<Version>(request).await?;
    if json {
        return terminal.print(&text);
    }
    let row = |name: &str, value: String| vec![name.to_owned(), value];
    terminal.table(&[
        row("function", version.function_name),
        row("lane", version.lane),
        row("version", version.version),
        row("type", version.kind),
        row("entry", version.entry),
        row("shape", version.shape.unwrap_or_else(|| "-".into())),
        row("asks for", named(version.asks.as_ref())),
        row("granted", named(version.granted.as_ref())),
        row("size", format!("{} ({} bytes)", terminal::size(version.size), version.size)),
        row("sha256", version.sha256),
        row("pushed", terminal::time(version.pushed_at)),
        row("by", version.pushed_by.unwrap_or_else(|| "-".into())),
    ])
}

/// What is asked for or granted, by its kinds.
pub fn named(what: Option<&serde_json::Value>) -> String {
    let kinds = what.and_then(serde_json::Value::as_object).into_iter().flatten();
    let named: Vec<String> = kinds
        .filter_map(|(kind, what)| match what {
            serde_json::Value::Array(names) if names.is_empty() => None,
            serde_json::Value::Object(limits) if limits.is_empty() => None,
            serde_json::Value::Array(names) => {
                let names: Vec<_> = names.iter().filter_map(serde_json::Value::as_str).collect();
                Some(format!("{kind} {}", names.join(", ")))
            }
            other => Some(format!("{kind} {other}")),
        })
        .collect();
    if named.is_empty() { "-".into() } else { named.join("; ") }
}

/// The first row of a table.
pub fn heading(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Prints a document that this program put together.
pub fn print_json(document: &serde_json::Value, terminal: &mut Terminal) -> Result<(), Failure> {
    terminal.print(&document.to_string())
}
