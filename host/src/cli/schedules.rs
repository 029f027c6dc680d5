//! `sharpfaas schedules`

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::{Client, Failure, Terminal, client::ClientArgs, functions::heading, terminal};
use crate::function::{FunctionName, Lane, Misfire, Overlap, QueueName, Selector};

/// `schedules`
#[derive(Debug, Args)]
pub struct SchedulesArgs {
    #[command(subcommand)]
    command: SchedulesCommand,
}

#[derive(Debug, Subcommand)]
enum SchedulesCommand {
    /// Make a schedule, or make the one of this id so.
    Put(Box<PutArgs>),
    /// List schedules, with their next and last run.
    List(ListArgs),
    /// Show a schedule.
    Show(OneArgs),
    /// Remove a schedule. The jobs that it made stay.
    Delete(OneArgs),
    /// Make a job of a schedule now; prints the job's id.
    Trigger(OneArgs),
    /// Let a schedule make no jobs for now.
    Pause(OneArgs),
    /// Let a schedule go on with its next tick.
    Resume(OneArgs),
}

/// `schedules put`
#[derive(Debug, Args)]
struct PutArgs {
    /// Its id.
    id: String,
    /// When it is due: five fields, or six with the seconds first, as in '0 3 * * *'.
    cron: String,
    /// The function.
    name: FunctionName,
    /// What it gets: JSON text, as a rule.
    #[arg(default_value = "")]
    payload: String,
    /// The lane to run it from.
    #[arg(long, default_value = "dev")]
    lane: Lane,
    /// 1.3, 1 for the newest 1.x, or latest.
    #[arg(long, default_value = "latest")]
    version: Selector,
    /// A name of the IANA database, as in Europe/Zurich.
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    time_zone: String,
    /// What becomes of ticks that were missed: one run for all of them, all, or none.
    #[arg(long, default_value = "one")]
    misfire: Misfire,
    /// What a tick does while an earlier job has not ended: allow or skip.
    #[arg(long, default_value = "allow")]
    overlap: Overlap,
    /// The queue.
    #[arg(long)]
    queue: Option<QueueName>,
    #[command(flatten)]
    client: ClientArgs,
}

/// `schedules list`
#[derive(Debug, Args)]
struct ListArgs {
    #[command(flatten)]
    client: ClientArgs,
}

/// A verb on one schedule.
#[derive(Debug, Args)]
struct OneArgs {
    /// The schedule.
    id: String,
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Deserialize)]
struct Page {
    schedules: Vec<Schedule>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Schedule {
    schedule_id: String,
    cron: String,
    time_zone: String,
    paused: bool,
    function_name: String,
    lane: String,
    next_run_at: Option<DateTime<Utc>>,
    last_run_at: Option<DateTime<Utc>>,
    last_job_id: Option<Uuid>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    job_id: Uuid,
}

/// Does what was asked with schedules.
pub async fn schedules(args: SchedulesArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    match args.command {
        SchedulesCommand::Put(args) => put(*args, terminal).await,
        SchedulesCommand::List(args) => list(args, terminal).await,
        SchedulesCommand::Show(args) => one(args, Method::GET, &[], terminal).await,
        SchedulesCommand::Pause(args) => one(args, Method::POST, &["pause"], terminal).await,
        SchedulesCommand::Resume(args) => one(args, Method::POST, &["resume"], terminal).await,
        SchedulesCommand::Delete(args) => {
            let client = Client::new(&args.client)?;
            client.send(client.request(Method::DELETE, &["api", "schedules", &args.id])).await.map(drop)
        }
        SchedulesCommand::Trigger(args) => {
            let client = Client::new(&args.client)?;
            let request = client.request(Method::POST, &["api", "schedules", &args.id, "trigger"]);
            let (document, answer) = client.fetch::<Answer>(request).await?;
            if args.client.json { terminal.print(&document) } else { terminal.print(&answer.job_id.to_string()) }
        }
    }
}

async fn put(args: PutArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let body = json!({
        "cron": args.cron,
        "timeZone": args.time_zone,
        "misfire": args.misfire,
        "overlap": args.overlap,
        "functionName": args.name,
        "lane": args.lane,
        "version": args.version.to_string(),
        "payload": args.payload,
        "queue": args.queue,
    });
    let request = client.request(Method::PUT, &["api", "schedules", &args.id]).json(&body);
    let (document, schedule) = client.fetch::<Schedule>(request).await?;
    if args.client.json { terminal.print(&document) } else { terminal.table(&rows(vec![schedule])) }
}

async fn list(args: ListArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let request = client.request(Method::GET, &["api", "schedules"]).query(&[("limit", "1000")]);
    let (document, page) = client.fetch::<Page>(request).await?;
    if args.client.json { terminal.print(&document) } else { terminal.table(&rows(page.schedules)) }
}

async fn one(args: OneArgs, method: Method, verb: &[&str], terminal: &mut Terminal) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let path: Vec<&str> = ["api", "schedules", &args.id].into_iter().chain(verb.iter().copied()).collect();
    let (document, schedule) = client.fetch::<Schedule>(client.request(method, &path)).await?;
    if args.client.json { terminal.print(&document) } else { terminal.table(&rows(vec![schedule])) }
}

fn rows(schedules: Vec<Schedule>) -> Vec<Vec<String>> {
    let at = |time: Option<DateTime<Utc>>| time.map_or_else(|| "-".into(), terminal::time);
    let mut rows = vec![heading(&["SCHEDULE", "CRON", "TIME ZONE", "FUNCTION", "LANE", "NEXT", "LAST", "LAST JOB"])];
    rows.extend(schedules.into_iter().map(|it| {
        vec![
            it.schedule_id,
            it.cron,
            it.time_zone,
            it.function_name,
            it.lane,
            if it.paused { "paused".into() } else { at(it.next_run_at) },
            at(it.last_run_at),
            it.last_job_id.map_or_else(|| "-".into(), |id| id.to_string()),
        ]
    }));
    rows
}
