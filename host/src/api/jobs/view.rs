//! Jobs as the API shows them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::super::view::{ResultValue, millis};
use crate::{
    database::jobs::{BatchRow, HistoryEntry, JobRow},
    database::{DatabaseError, InvocationRow},
    function::{CallerId, ContinueOn, FunctionType, InvocationId, JobState, Status},
    invoke::{Found, Invoker},
};

/// How many attempts are looked up.
const ATTEMPTS: usize = 100;

/// A job that was taken in, or changed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobAnswer {
    /// Its id.
    pub job_id: Uuid,
    /// Where it stands.
    pub state: JobState,
}

/// A batch of jobs.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchView {
    batch_id: Uuid,
    /// `processing` while one of its jobs has not ended; then `succeeded` where all did, `failed` where one
    /// failed, else `deleted`.
    state: JobState,
    created_at: DateTime<Utc>,
    ended_at: Option<DateTime<Utc>>,
    /// How many of its jobs stand where.
    jobs: std::collections::BTreeMap<&'static str, u64>,
}

impl From<&BatchRow> for BatchView {
    fn from(row: &BatchRow) -> Self {
        Self {
            batch_id: row.id.0,
            state: row.state,
            created_at: row.created_at,
            ended_at: row.ended_at,
            jobs: row.counts.iter().map(|(state, count)| (state.as_str(), *count)).collect(),
        }
    }
}

/// A step of a job's life.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepView<'a> {
    state: JobState,
    at: Option<DateTime<Utc>>,
    /// The server that took it.
    node: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    /// The attempt that began with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    invocation_id: Option<Uuid>,
}

/// An attempt: an invocation, whose output is at `/api/invocations/{id}/output`.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptView<'a> {
    invocation_id: Uuid,
    started_at: Option<DateTime<Utc>>,
    node: &'a str,
    /// None where its server was lost before it was known, or its history has expired.
    status: Option<Status>,
    elapsed_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
}

/// A job.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct JobView<'a> {
    job_id: Uuid,
    state: JobState,
    /// Since when.
    state_since: DateTime<Utc>,
    function_name: &'a str,
    lane: &'a str,
    /// The version that was asked for.
    version_selector: String,
    /// The version that all its attempts run; none before the first.
    version: Option<String>,
    #[serde(rename = "type")]
    kind: Option<FunctionType>,
    caller_id: Option<&'a str>,
    queue: &'a str,
    priority: i64,
    /// How many attempts it has had, the one that runs among them.
    attempt: u32,
    max_attempts: u32,
    created_at: DateTime<Utc>,
    /// When it is enqueued, where it is scheduled.
    run_at: Option<DateTime<Utc>>,
    /// When it is removed, where it is to be.
    expires_at: Option<DateTime<Utc>>,
    /// Why its last attempt failed.
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schedule_id: Option<&'a str>,
    /// The tick of the schedule that it is; none where it was triggered.
    #[serde(skip_serializing_if = "Option::is_none")]
    scheduled_for: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    continue_after: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    continue_on: Option<ContinueOn>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mutex_key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mutex_limit: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<&'a str>,
    /// The last attempt.
    invocation_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    /// What it returned, where it succeeded and history still has it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<serde_json::Value>)]
    result: Option<ResultValue<'a>>,
    /// Every step so far, oldest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    history: Option<Vec<StepView<'a>>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    attempts: Option<Vec<AttemptView<'a>>>,
}

/// The rows of a job's attempts, as far as history has them.
pub async fn attempts(row: &JobRow, invoker: &Invoker) -> Result<Vec<InvocationRow>, DatabaseError> {
    let mut rows = Vec::new();
    let ids: Vec<InvocationId> = row.history.iter().filter_map(|step| step.invocation).collect();
    for id in ids.into_iter().rev().take(ATTEMPTS) {
        match invoker.find(id).await? {
            Some(Found::Live(live)) => rows.push(live.row(invoker.node())),
            Some(Found::Row(row)) => rows.push(*row),
            None => {}
        }
    }
    Ok(rows)
}

impl<'a> JobView<'a> {
    /// With all that is known of it.
    pub fn whole(row: &'a JobRow, attempts: &'a [InvocationRow]) -> Self {
        let last = attempts.iter().find(|attempt| Some(attempt.id) == row.invocation);
        let result = last.filter(|_| row.job.state == JobState::Succeeded).and_then(|last| last.result.as_deref());
        let begun = row.history.iter().filter_map(|step| step.invocation.map(|id| (step, id)));
        Self {
            payload: Some(&row.job.payload),
            result: result.map(ResultValue),
            history: Some(row.history.iter().map(step).collect()),
            attempts: Some(
                begun.map(|(step, id)| attempt(step, id, attempts.iter().find(|row| row.id == id))).collect(),
            ),
            ..Self::line(row)
        }
    }

    /// For lists.
    pub fn line(row: &'a JobRow) -> Self {
        let job = &row.job;
        Self {
            job_id: job.id.0,
            state: job.state,
            state_since: row.since,
            function_name: job.name.as_str(),
            lane: job.lane.as_str(),
            version_selector: job.selector.to_string(),
            version: row.version.map(|version| version.to_string()),
            kind: job.kind,
            caller_id: job.caller_id.as_ref().map(CallerId::as_str),
            queue: job.queue.as_str(),
            priority: job.priority,
            attempt: row.attempt,
            max_attempts: job.max_attempts,
            created_at: row.created_at,
            run_at: job.run_at.filter(|_| job.state == JobState::Scheduled),
            expires_at: row.expires_at,
            error: row.error.as_deref(),
            schedule_id: job.schedule.as_deref(),
            scheduled_for: job.tick,
            batch_id: job.batch.map(|batch| batch.0),
            continue_after: job.after.map(|(id, _)| id.0),
            continue_on: job.after.map(|(_, on)| on),
            mutex_key: job.mutex.as_ref().map(|(key, _)| key.as_str()),
            mutex_limit: job.mutex.as_ref().map(|(_, limit)| *limit),
            idempotency_key: job.idempotency_key.as_deref(),
            invocation_id: row.invocation.map(|id| id.0),
            payload: None,
            result: None,
            history: None,
            attempts: None,
        }
    }
}

fn step(step: &HistoryEntry) -> StepView<'_> {
    StepView {
        state: step.state,
        at: DateTime::from_timestamp_micros(step.at),
        node: &step.node,
        reason: step.reason.as_deref(),
        invocation_id: step.invocation.map(|id| id.0),
    }
}

fn attempt<'a>(step: &'a HistoryEntry, id: InvocationId, row: Option<&'a InvocationRow>) -> AttemptView<'a> {
    AttemptView {
        invocation_id: id.0,
        started_at: DateTime::from_timestamp_micros(step.at),
        node: &step.node,
        status: row.map(|row| row.status),
        elapsed_ms: row.and_then(|row| row.elapsed_us).map(millis),
        error: row.and_then(|row| row.detail.as_deref()),
    }
}
