//! `sharpfaas audit`

use chrono::{DateTime, Utc};
use clap::Args;
use reqwest::Method;
use serde::Deserialize;

use super::{Client, Failure, Terminal, client::ClientArgs, functions::heading, terminal};

/// `audit`
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Only what this token did.
    #[arg(long, value_name = "TOKEN")]
    actor: Option<String>,
    /// Only this: push, denied, invocation.cancel, token.create or token.revoke.
    #[arg(long)]
    action: Option<String>,
    /// At most this many, the newest first.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Deserialize)]
struct Page {
    entries: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
struct Entry {
    at: DateTime<Utc>,
    actor: Option<String>,
    address: Option<String>,
    action: String,
    target: String,
    detail: Option<String>,
}

/// Lists entries of the audit.
pub async fn audit(args: AuditArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let mut query = vec![("limit", args.limit.to_string())];
    query.extend(args.actor.map(|actor| ("actor", actor)));
    query.extend(args.action.map(|action| ("action", action)));
    let request = client.request(Method::GET, &["api", "audit"]).query(&query);
    let (document, page) = client.fetch::<Page>(request).await?;
    if args.client.json {
        return terminal.print(&document);
    }
    let mut rows = vec![heading(&["AT", "TOKEN", "ADDRESS", "ACTION", "TARGET", "DETAIL"])];
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    rows.extend(page.entries.into_iter().map(|entry| {
        vec![
            terminal::time(entry.at),
            or_dash(entry.actor),
            or_dash(entry.address),
            entry.action,
            entry.target,
            or_dash(entry.detail),
        ]
    }));
    terminal.table(&rows)
}
