//! What bodies may hold, for the description of the API: the code reads fields by name, whatever they came in
//! ([`fields`](super::fields)).

#![expect(dead_code, reason = "only their description is used")]

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::function::{ContinueOn, FunctionType, JobState, Misfire, Overlap};

/// What is to be run. Names that are not known go to the function as its parameters.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CallFields {
    /// The function's name.
    function_name: String,
    /// The lane to run it from.
    lane: String,
    /// `1.3`, `1` for the newest 1.x, or `latest` (default).
    version: Option<String>,
    /// Who calls, for history and logs.
    caller_id: Option<String>,
    /// The type that the caller expects.
    #[serde(rename = "type")]
    kind: Option<FunctionType>,
    /// Another entry of the same package.
    entry_file_name: Option<String>,
    /// What the function gets: a string as it is, anything else as its JSON.
    payload: Option<Value>,
    /// A shorter deadline than the server's, in milliseconds.
    deadline_ms: Option<u64>,
    /// The function's own parameters.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Value>,
}

/// How a job is run.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WorkFields {
    /// The queue; `default` where none is given.
    queue: Option<String>,
    /// Higher ones run first; the queue's where none is given.
    priority: Option<i64>,
    /// How often it is tried; the server's where none is given.
    max_attempts: Option<u32>,
    /// Seconds after the first, second, … failed attempt; the last goes on.
    #[schema(min_items = 1, max_items = 100)]
    retry_delays: Option<Vec<u64>>,
    /// Where it ends when no attempt succeeded: `failed` (default), where it stays, or `deleted`, where it is
    /// forgotten after a time.
    #[schema(pattern = "^(failed|deleted)$")]
    on_exhausted: Option<String>,
    /// Jobs of one key don't run at once, on any server.
    mutex_key: Option<String>,
    /// How many of them may all the same; 1 where none is given.
    mutex_limit: Option<u32>,
}

/// A call for later. Its first attempt settles the version for all.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobRequest {
    #[serde(flatten)]
    call: CallFields,
    #[serde(flatten)]
    work: WorkFields,
    /// Not before this time.
    run_at: Option<DateTime<Utc>>,
    /// Not before so many seconds from now.
    delay_seconds: Option<u64>,
    /// Another job with this key is this job.
    idempotency_key: Option<String>,
    /// The job or batch that must have ended before.
    continue_after: Option<Uuid>,
    /// After which end of it; `succeeded` where nothing is given.
    continue_on: Option<ContinueOn>,
}

/// Jobs that are taken in together, all or none.
#[derive(Serialize, ToSchema)]
pub struct Jobs {
    /// The jobs.
    #[schema(min_items = 1, max_items = 10000)]
    jobs: Vec<JobRequest>,
}

/// A job, or a list of them.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
pub enum JobOrJobs {
    /// One.
    Job(Box<JobRequest>),
    /// Many.
    Jobs(Jobs),
}

/// Jobs that are made again and again.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleRequest {
    /// Five fields, or six with the seconds first, as cron(8) has them.
    #[schema(max_length = 128)]
    cron: String,
    /// A name of the IANA database; `UTC` where none is given.
    time_zone: Option<String>,
    /// What becomes of ticks that were missed; `one` where nothing is given.
    misfire: Option<Misfire>,
    /// What a tick does while an earlier job has not ended; `allow` where nothing is given.
    overlap: Option<Overlap>,
    /// Whether it makes no jobs for now.
    paused: Option<bool>,
    #[serde(flatten)]
    call: CallFields,
    #[serde(flatten)]
    work: WorkFields,
}

/// Which jobs are meant.
#[derive(Serialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub struct JobFilters {
    /// In this state only.
    state: Option<JobState>,
    /// Of this function only.
    function: Option<String>,
    /// Of this lane only.
    lane: Option<String>,
    /// Of this queue only.
    queue: Option<String>,
    /// Of this caller only.
    caller_id: Option<String>,
    /// Made by this schedule only.
    schedule_id: Option<String>,
    /// Of this batch only.
    batch_id: Option<Uuid>,
    /// Handed in at this time or later.
    since: Option<DateTime<Utc>>,
    /// Handed in before this time.
    until: Option<DateTime<Utc>>,
    /// With this text in the payload or the error.
    text: Option<String>,
}
