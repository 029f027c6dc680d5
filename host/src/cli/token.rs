//! `sharpfaas token`

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;

use super::{Client, Failure, Terminal, client::ClientArgs, functions::heading, terminal};
use crate::{function::TokenName, security::Scope};

/// `token`
#[derive(Debug, Args)]
pub struct TokenArgs {
    #[command(subcommand)]
    command: TokenCommand,
}

#[derive(Debug, Subcommand)]
enum TokenCommand {
    /// Make a token and print it, this once. The first must have --manage '*'; from then on the server asks
    /// everyone for a token.
    Create(CreateArgs),
    /// List the tokens.
    List(ListArgs),
    /// Revoke a token: when this returns, no server of the database takes it any more.
    Revoke(RevokeArgs),
}

/// `token create`
#[derive(Debug, Args)]
struct CreateArgs {
    /// Its name, which history and audit show.
    #[arg(long)]
    name: TokenName,
    /// Where it may push: LANE or LANE/FUNCTION, with '*' for any number of characters; several with commas.
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    push: Vec<Scope>,
    /// What it may run, as for --push.
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    run: Vec<Scope>,
    /// Of what it may see versions, calls and output, as for --push.
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    read: Vec<Scope>,
    /// Of what it may end calls, as for --push; with '*', it manages tokens and sees the audit too.
    #[arg(long, value_name = "SCOPES", value_delimiter = ',')]
    manage: Vec<Scope>,
    /// How long it is good for, as in 90d, 12h or 30m; without it, until it is revoked.
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    expires: Option<u64>,
    #[command(flatten)]
    client: ClientArgs,
}

/// `token list`
#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// `token revoke`
#[derive(Debug, Args)]
struct RevokeArgs {
    /// Its name.
    name: TokenName,
    #[command(flatten)]
    client: ClientArgs,
}

/// A time with its unit, in seconds.
pub fn lifetime(text: &str) -> Result<u64, String> {
    let rule = "it must be a number of days, hours, minutes or seconds, as in 90d, 12h, 30m or 60s";
    let unit = match text.bytes().last() {
        Some(b'd') => 86_400,
        Some(b'h') => 3600,
        Some(b'm') => 60,
        Some(b's') => 1,
        _ => return Err(rule.into()),
    };
    let number = text.get(..text.len() - 1).and_then(|number| number.parse::<u64>().ok());
    number.filter(|number| *number > 0).and_then(|number| number.checked_mul(unit)).ok_or_else(|| rule.into())
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Made {
    token: String,
    servers_behind: u64,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Revoked {
    servers_behind: u64,
}

#[derive(Debug, Deserialize)]
struct Page {
    tokens: Vec<Token>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Token {
    name: String,
    push: Vec<String>,
    run: Vec<String>,
    read: Vec<String>,
    manage: Vec<String>,
    created_at: DateTime<Utc>,
    expires_at: Option<DateTime<Utc>>,
    expired: bool,
}

/// Makes, lists or revokes tokens.
pub async fn token(args: TokenArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    match args.command {
        TokenCommand::Create(args) => create(args, terminal).await,
        TokenCommand::List(args) => list(args, terminal).await,
        TokenCommand::Revoke(args) => revoke(args, terminal).await,
    }
}

async fn create(args: CreateArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let CreateArgs { name, push, run, read, manage, expires, client: shared } = args;
    let client = Client::new(&shared)?;
    let mut wanted = json!({ "name": name, "push": push, "run": run, "read": read, "manage": manage });
    if let (Some(expires), Some(wanted)) = (expires, wanted.as_object_mut()) {
        wanted.insert("expiresSeconds".into(), expires.into());
    }
    let request = client.request(Method::POST, &["api", "tokens"]).json(&wanted);
    let (document, made) = client.fetch::<Made>(request).await?;
    if shared.json {
        return terminal.print(&document);
    }
    behind(made.servers_behind, "don't know it yet", terminal);
    terminal.note("keep it well: it is shown this once");
    terminal.print(&made.token)
}

async fn list(args: ListArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let (document, page) = client.fetch::<Page>(client.request(Method::GET, &["api", "tokens"])).await?;
    if args.client.json {
        return terminal.print(&document);
    }
    let mut rows = vec![heading(&["NAME", "PUSH", "RUN", "READ", "MANAGE", "MADE", "EXPIRES"])];
    let scopes = |scopes: &[String]| if scopes.is_empty() { "-".to_owned() } else { scopes.join(",") };
    rows.extend(page.tokens.into_iter().map(|token| {
        vec![
            token.name.clone(),
            scopes(&token.push),
            scopes(&token.run),
            scopes(&token.read),
            scopes(&token.manage),
            terminal::time(token.created_at),
            match token.expires_at {
                Some(_) if token.expired => "expired".into(),
                Some(at) => terminal::time(at),
                None => "never".into(),
            },
        ]
    }));
    terminal.table(&rows)
}

async fn revoke(args: RevokeArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let request = client.request(Method::DELETE, &["api", "tokens", args.name.as_str()]);
    let (document, revoked) = client.fetch::<Revoked>(request).await?;
    if args.client.json {
        return terminal.print(&document);
    }
    behind(revoked.servers_behind, "are cut off, and take it a little longer", terminal);
    terminal.print(&format!("{} is revoked", args.name))
}

fn behind(servers: u64, what: &str, terminal: &mut Terminal) {
    if servers > 0 {
        terminal.note(&format!("{servers} servers {what}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_have_units() {
        assert_eq!(lifetime("90d"), Ok(7_776_000));
        assert_eq!((lifetime("12h"), lifetime("5m"), lifetime("1s")), (Ok(43_200), Ok(300), Ok(1)));
        for bad in ["", "d", "90", "0d", "-1d", "1.5h", "1w", "99999999999999999999d", "9999999999999999999d", "é"] {
            assert!(lifetime(bad).is_err(), "{bad}");
        }
    }
}
