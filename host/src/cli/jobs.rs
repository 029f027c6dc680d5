//! `sharpfaas jobs`

use chrono::{DateTime, Utc};
use clap::{Args, Subcommand};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::{Client, Failure, Terminal, client::ClientArgs, functions::heading, terminal};
use crate::function::{CallerId, FunctionName, JobState, Lane, QueueName, Selector};

/// `jobs`
#[derive(Debug, Args)]
pub struct JobsArgs {
    #[command(subcommand)]
    command: JobsCommand,
}

#[derive(Debug, Subcommand)]
enum JobsCommand {
    /// Hand in a run for later, or for as soon as there is a worker; prints the job's id.
    Enqueue(Box<EnqueueArgs>),
    /// List jobs, the newest first.
    List(ListArgs),
    /// Show all of a job: its history, its attempts and its result.
    Show(OneArgs),
    /// Put a job back into its queue, as if it had never been tried.
    Requeue(OneArgs),
    /// Give a job up; one that runs is ended, wherever it does.
    Delete(OneArgs),
    /// List the queues, and how many of their jobs stand where.
    Queues(PlainArgs),
    /// List the servers that run jobs.
    Servers(PlainArgs),
}

/// `jobs enqueue`
#[derive(Debug, Args)]
struct EnqueueArgs {
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
    /// Not before this time, as in 2026-01-31T12:00:00Z.
    #[arg(long, value_name = "TIME", conflicts_with = "delay")]
    at: Option<DateTime<Utc>>,
    /// Not before so long from now, as in 90s, 30m, 12h or 2d.
    #[arg(long, value_name = "TIME", value_parser = super::token::lifetime)]
    delay: Option<u64>,
    /// The queue.
    #[arg(long)]
    queue: Option<QueueName>,
    /// Higher ones run first.
    #[arg(long, allow_hyphen_values = true, value_parser = clap::value_parser!(i64).range(-1000..=1000))]
    priority: Option<i64>,
    /// How often it is tried.
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..=100))]
    attempts: Option<u32>,
    /// Another job with this key is this job.
    #[arg(long, value_name = "TEXT")]
    idempotency_key: Option<String>,
    /// The job or batch that must have succeeded before.
    #[arg(long, value_name = "ID")]
    after: Option<Uuid>,
    /// Jobs of one key don't run at once, on any server.
    #[arg(long, value_name = "TEXT")]
    mutex_key: Option<String>,
    /// Who calls, for history and logs.
    #[arg(long, value_name = "TEXT")]
    caller_id: Option<CallerId>,
    #[command(flatten)]
    client: ClientArgs,
}

/// `jobs list`
#[derive(Debug, Args)]
struct ListArgs {
    /// Only jobs in this state: scheduled, enqueued, processing, awaiting, succeeded, failed or deleted.
    #[arg(long)]
    state: Option<JobState>,
    /// Only jobs of this function.
    #[arg(long, value_name = "NAME")]
    function: Option<FunctionName>,
    /// Only jobs in this lane.
    #[arg(long)]
    lane: Option<Lane>,
    /// Only jobs in this queue.
    #[arg(long)]
    queue: Option<QueueName>,
    /// Only jobs that this schedule made.
    #[arg(long, value_name = "ID")]
    schedule: Option<String>,
    /// Only jobs with this text in the payload or the error.
    #[arg(long)]
    text: Option<String>,
    /// At most this many.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=500))]
    limit: u16,
    #[command(flatten)]
    client: ClientArgs,
}

/// A verb on one job.
#[derive(Debug, Args)]
struct OneArgs {
    /// The job.
    id: Uuid,
    #[command(flatten)]
    client: ClientArgs,
}

/// A list without filters.
#[derive(Debug, Args)]
struct PlainArgs {
    #[command(flatten)]
    client: ClientArgs,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    job_id: Uuid,
    state: String,
}

#[derive(Debug, Deserialize)]
struct Page {
    jobs: Vec<Job>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Job {
    job_id: Uuid,
    state: String,
    state_since: DateTime<Utc>,
    function_name: String,
    lane: String,
    version: Option<String>,
    queue: String,
    attempt: u32,
    max_attempts: u32,
    error: Option<String>,
    #[serde(default)]
    history: Vec<Step>,
    result: Option<Box<serde_json::value::RawValue>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Step {
    at: DateTime<Utc>,
    state: String,
    node: String,
    reason: Option<String>,
    invocation_id: Option<Uuid>,
}

#[derive(Debug, Deserialize)]
struct Queues {
    queues: Vec<Queue>,
}

#[derive(Debug, Deserialize)]
struct Queue {
    queue: String,
    jobs: std::collections::BTreeMap<String, u64>,
}

#[derive(Debug, Deserialize)]
struct Servers {
    servers: Vec<Server>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Server {
    node: String,
    started_at: DateTime<Utc>,
    heartbeat_at: DateTime<Utc>,
    workers: u64,
    running: u64,
    queues: Vec<String>,
}

/// Does what was asked with jobs.
pub async fn jobs(args: JobsArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    match args.command {
        JobsCommand::Enqueue(args) => enqueue(*args, terminal).await,
        JobsCommand::List(args) => list(args, terminal).await,
        JobsCommand::Show(args) => show(args, terminal).await,
        JobsCommand::Requeue(args) => step(args, Method::POST, &["requeue"], terminal).await,
        JobsCommand::Delete(args) => step(args, Method::DELETE, &[], terminal).await,
        JobsCommand::Queues(args) => queues(args, terminal).await,
        JobsCommand::Servers(args) => servers(args, terminal).await,
    }
}

async fn enqueue(args: EnqueueArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let body = json!({
        "functionName": args.name,
        "lane": args.lane,
        "version": args.version.to_string(),
        "payload": args.payload,
        "runAt": args.at,
        "delaySeconds": args.delay,
        "queue": args.queue,
        "priority": args.priority,
        "maxAttempts": args.attempts,
        "idempotencyKey": args.idempotency_key,
        "continueAfter": args.after,
        "mutexKey": args.mutex_key,
        "callerId": args.caller_id,
    });
    let request = client.request(Method::POST, &["api", "jobs"]).json(&body);
    let (document, answer) = client.fetch::<Answer>(request).await?;
    if args.client.json {
        return terminal.print(&document);
    }
    terminal.note(&format!("the job is {}", answer.state));
    terminal.print(&answer.job_id.to_string())
}

async fn list(args: ListArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let mut query = vec![("limit", args.limit.to_string())];
    query.extend(args.state.map(|state| ("state", state.to_string())));
    query.extend(args.function.map(|name| ("function", name.to_string())));
    query.extend(args.lane.map(|lane| ("lane", lane.to_string())));
    query.extend(args.queue.map(|queue| ("queue", queue.to_string())));
    query.extend(args.schedule.map(|id| ("scheduleId", id)));
    query.extend(args.text.map(|text| ("text", text)));
    let request = client.request(Method::GET, &["api", "jobs"]).query(&query);
    let (document, page) = client.fetch::<Page>(request).await?;
    if args.client.json {
        return terminal.print(&document);
    }
    let mut rows = vec![heading(&["SINCE", "STATE", "FUNCTION", "VERSION", "LANE", "QUEUE", "ATTEMPT", "ID"])];
    rows.extend(page.jobs.into_iter().map(|job| {
        vec![
            terminal::time(job.state_since),
            job.state,
            job.function_name,
            job.version.unwrap_or_else(|| "-".into()),
            job.lane,
            job.queue,
            format!("{}/{}", job.attempt, job.max_attempts),
            job.job_id.to_string(),
        ]
    }));
    terminal.table(&rows)
}

async fn show(args: OneArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let request = client.request(Method::GET, &["api", "jobs", &args.id.to_string()]);
    let (document, job) = client.fetch::<Job>(request).await?;
    if args.client.json {
        return terminal.print(&document);
    }
    terminal.note(&format!(
        "{} {} in {}, queue {}: {}, attempt {} of {}",
        job.function_name,
        job.version.as_deref().unwrap_or("of a version that is not known yet"),
        job.lane,
        job.queue,
        job.state,
        job.attempt,
        job.max_attempts,
    ));
    for step in &job.history {
        let mut line = format!("{} {} by {}", terminal::time(step.at), step.state, step.node);
        line += &step.invocation_id.map_or_else(String::new, |id| format!(", invocation {id}"));
        line += &step.reason.as_ref().map_or_else(String::new, |reason| format!(": {reason}"));
        terminal.note(&line);
    }
    if let Some(error) = &job.error {
        terminal.note(&format!("its last attempt failed: {error}"));
    }
    match &job.result {
        Some(result) => terminal.print(&super::run::text(Some(result))),
        None => Ok(()),
    }
}

async fn step(args: OneArgs, method: Method, verb: &[&str], terminal: &mut Terminal) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let id = args.id.to_string();
    let path: Vec<&str> = ["api", "jobs", &id].into_iter().chain(verb.iter().copied()).collect();
    let (document, answer) = client.fetch::<Answer>(client.request(method, &path)).await?;
    if args.client.json { terminal.print(&document) } else { terminal.print(&answer.state) }
}

async fn queues(args: PlainArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let (document, page) = client.fetch::<Queues>(client.request(Method::GET, &["api", "queues"])).await?;
    if args.client.json {
        return terminal.print(&document);
    }
    let states = ["enqueued", "processing", "scheduled", "awaiting", "failed"];
    let mut rows = vec![heading(&["QUEUE", "ENQUEUED", "PROCESSING", "SCHEDULED", "AWAITING", "FAILED"])];
    rows.extend(page.queues.into_iter().map(|queue| {
        let count = |state: &&str| queue.jobs.get(*state).copied().unwrap_or(0).to_string();
        std::iter::once(queue.queue.clone()).chain(states.iter().map(count)).collect()
    }));
    terminal.table(&rows)
}

async fn servers(args: PlainArgs, terminal: &mut Terminal) -> Result<(), Failure> {
    let client = Client::new(&args.client)?;
    let (document, page) = client.fetch::<Servers>(client.request(Method::GET, &["api", "servers"])).await?;
    if args.client.json {
        return terminal.print(&document);
    }
    let mut rows = vec![heading(&["NODE", "STARTED", "LAST SEEN", "RUNNING", "WORKERS", "QUEUES"])];
    rows.extend(page.servers.into_iter().map(|server| {
        vec![
            server.node,
            terminal::time(server.started_at),
            terminal::time(server.heartbeat_at),
            server.running.to_string(),
            server.workers.to_string(),
            if server.queues.is_empty() { "all".into() } else { server.queues.join(", ") },
        ]
    }));
    terminal.table(&rows)
}
