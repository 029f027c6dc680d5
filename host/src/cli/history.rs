//! `sharpfaas history`

use chrono::{DateTime, Utc};
use clap::{Args, ValueEnum};
use reqwest::Method;
use serde::Deserialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use super::{Client, Failure, Terminal, client::ClientArgs, functions::heading, run::text, terminal};
use crate::function::{CallerId, FunctionName, Lane, Status};

/// `history`
#[derive(Debug, Args)]
pub struct HistoryArgs {
    /// Show all of this call, its output and its result.
    #[arg(conflicts_with_all = ["function", "lane", "caller_id", "status"])]
    pub id: Option<Uuid>,
    /// Only calls of this function.
    #[arg(long, value_name = "NAME")]
    pub function: Option<FunctionName>,
    /// Only calls in this lane.
    #[arg(long)]
    pub lane: Option<Lane>,
    /// Only calls by this caller.
    #[arg(long, value_name = "TEXT")]
    pub caller_id: Option<CallerId>,
    /// Only calls in this state.
    #[arg(long)]
    pub status: Option<StatusArg>,
    /// At most this many, the newest first.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
    pub limit: u16,
    #[command(flatten)]
    pub client: ClientArgs,
}

/// The states, for the command line.
#[derive(Debug, Clone, Copy, ValueEnum)]
#[value(rename_all = "camelCase")]
pub enum StatusArg {
    /// Waiting for a place.
    Queued,
    /// At work.
    Running,
    /// Ended with a result.
    Succeeded,
    /// Ended with an error.
    Failed,
    /// Ended by its deadline.
    TimedOut,
    /// Ended by request.
    Cancelled,
}

impl From<StatusArg> for Status {
    fn from(status: StatusArg) -> Self {
        match status {
            StatusArg::Queued => Self::Queued,
            StatusArg::Running => Self::Running,
            StatusArg::Succeeded => Self::Succeeded,
            StatusArg::Failed => Self::Failed,
            StatusArg::TimedOut => Self::TimedOut,
            StatusArg::Cancelled => Self::Cancelled,
        }
    }
}

#[derive(Debug, Deserialize)]
struct Page {
    invocations: Vec<Call>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Call {
    invocation_id: Uuid,
    caller_id: Option<String>,
    function_name: String,
    lane: String,
    version: Option<String>,
    status: String,
    result: Option<Box<RawValue>>,
    error: Option<CallError>,
    #[serde(default)]
    output: Vec<Line>,
    #[serde(default)]
    output_truncated: bool,
    elapsed_ms: Option<f64>,
    created_at: DateTime<Utc>,
}

#[derive(Debug, Deserialize)]
struct CallError {
    code: String,
    detail: String,
}

#[derive(Debug, Deserialize)]
struct Line {
    stream: String,
    line: String,
}

impl Call {
    fn elapsed(&self) -> String {
        self.elapsed_ms.map_or_else(|| "-".into(), |elapsed| format!("{elapsed:.1} ms"))
    }
}

/// Lists calls, or shows one.
pub async fn history(args: HistoryArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    if let Some(id) = args.id {
        let request = client.request(Method::GET, &["api", "invocations", &id.to_string()]);
        let (document, call) = client.fetch::<Call>(request).await?;
        return if args.client.json { terminal.print(&document) } else { show(&call, terminal) };
    }
    let mut query = vec![("limit", args.limit.to_string())];
    query.extend(args.function.map(|name| ("function", name.to_string())));
    query.extend(args.lane.map(|lane| ("lane", lane.to_string())));
    query.extend(args.caller_id.map(|caller| ("callerId", caller.to_string())));
    query.extend(args.status.map(|status| ("status", Status::from(status).as_str().to_owned())));
    let request = client.request(Method::GET, &["api", "invocations"]).query(&query);
    let (document, page) = client.fetch::<Page>(request).await?;
    if args.client.json {
        return terminal.print(&document);
    }
    let mut rows = vec![heading(&["STARTED", "STATUS", "FUNCTION", "VERSION", "LANE", "TOOK", "CALLER", "ID"])];
    rows.extend(page.invocations.into_iter().map(|call| {
        vec![
            terminal::time(call.created_at),
            call.status.clone(),
            call.function_name.clone(),
            call.version.clone().unwrap_or_else(|| "-".into()),
            call.lane.clone(),
            call.elapsed(),
            call.caller_id.clone().unwrap_or_else(|| "-".into()),
            call.invocation_id.to_string(),
        ]
    }));
    terminal.table(&rows)
}

/// The call on standard error, as `run` shows it, and its result on standard output.
fn show(call: &Call, terminal: &mut Terminal) -> Result<(), Failure> {
    terminal.note(&format!(
        "{} {} in {}: {}, begun {}, took {}, called by {}",
        call.function_name,
        call.version.as_deref().unwrap_or("of a version that is not known"),
        call.lane,
        call.status,
        terminal::time(call.created_at),
        call.elapsed(),
        call.caller_id.as_deref().unwrap_or("somebody"),
    ));
    if call.output_truncated {
        terminal.note("its output began earlier; this is the end of it:");
    }
    for line in &call.output {
        terminal.console_line(&line.line, line.stream == "stderr");
    }
    if let Some(error) = &call.error {
        terminal.note(&format!("it ended with: {} ({})", error.detail, error.code));
    }
    if call.status == Status::Succeeded.as_str() { terminal.print(&text(call.result.as_deref())) } else { Ok(()) }
}
