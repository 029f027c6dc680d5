//! Jobs as the database keeps them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::{DbErr, QueryResult};
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

use crate::{
    database::{damaged, signed, storable, time, unsigned, versions::parse},
    function::{
        CallerId, ContinueOn, EntryName, FunctionName, FunctionType, InvocationId, JobId, JobState, Lane, QueueName,
        Selector, TokenName, Version,
    },
};

use super::dialect::Type;

/// A job that is to be written down.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct NewJob {
    /// Its id, made when it was accepted.
    pub id: JobId,
    /// `Enqueued`, or `Scheduled` where it waits for a time. Where it goes on after another one, that decides.
    pub state: JobState,
    /// From when on it may run, where it is `Scheduled`.
    pub run_at: Option<DateTime<Utc>>,
    /// In which queue it waits for a worker.
    pub queue: QueueName,
    /// Higher ones run first.
    pub priority: i64,
    /// What to run.
    pub name: FunctionName,
    /// From which lane.
    pub lane: Lane,
    /// At which version; the first attempt makes it an exact one.
    pub selector: Selector,
    /// The type that its caller expects.
    pub kind: Option<FunctionType>,
    /// Another entry of the package.
    pub entry: Option<EntryName>,
    /// Who handed it in, where they said.
    pub caller_id: Option<CallerId>,
    /// The token that it was handed in with.
    pub token: Option<TokenName>,
    /// What the function gets.
    pub payload: String,
    /// Parameters for the function's context.
    pub parameters: Vec<(String, String)>,
    /// A shorter deadline than the server's, for each attempt.
    pub deadline: Option<Duration>,
    /// How many attempts it has.
    pub max_attempts: u32,
    /// The delays between them, in seconds, where they are not the usual ones.
    pub delays: Option<Vec<u64>>,
    /// Where it ends when its last attempt fails: `Failed` or `Deleted`.
    pub at_end: JobState,
    /// At most so many jobs with this key run at once, on all servers together.
    pub mutex: Option<(String, u32)>,
    /// The job or batch that must have ended before it, and how.
    pub after: Option<(JobId, ContinueOn)>,
    /// The batch that it is of.
    pub batch: Option<JobId>,
    /// The schedule that made it.
    pub schedule: Option<String>,
    /// The tick of the schedule that it is; none where it was triggered.
    pub tick: Option<DateTime<Utc>>,
    /// Another job with this key is this job.
    pub idempotency_key: Option<String>,
}

/// The fields of a record that is a new job.
pub(super) const NEW: [(&str, Type); 28] = [
    ("id", Type::Id),
    ("state", Type::Text),
    ("run_at", Type::Number),
    ("queue", Type::Text),
    ("priority", Type::Number),
    ("function_name", Type::Text),
    ("lane", Type::Text),
    ("selector", Type::Text),
    ("kind", Type::Text),
    ("entry", Type::Text),
    ("caller_id", Type::Text),
    ("token", Type::Text),
    ("payload", Type::Text),
    ("parameters", Type::Text),
    ("deadline_ms", Type::Number),
    ("max_attempts", Type::Number),
    ("delays", Type::Text),
    ("at_end", Type::Text),
    ("mutex_key", Type::Text),
    ("mutex_limit", Type::Number),
    ("after_id", Type::Id),
    ("continue_on", Type::Text),
    ("batch_id", Type::Id),
    ("schedule_id", Type::Text),
    ("tick", Type::Number),
    ("idempotency_key", Type::Text),
    ("history", Type::Text),
    ("expires_in", Type::Number),
];

impl NewJob {
    /// The record, with what its history begins with behind the time.
    pub(super) fn record(&self, node: &str, reason: Option<&str>, expires_in: Option<i64>) -> serde_json::Value {
        let parameters = (!self.parameters.is_empty()).then(|| json!(self.parameters).to_string());
        json!({
            "id": self.id,
            "state": self.state,
            "run_at": self.run_at.map(|at| at.timestamp_micros()),
            "queue": self.queue,
            "priority": self.priority,
            "function_name": self.name,
            "lane": self.lane,
            "selector": self.selector.to_string(),
            "kind": self.kind.map(FunctionType::as_str),
            "entry": self.entry,
            "caller_id": self.caller_id,
            "token": self.token.as_ref().map(TokenName::as_str),
            "payload": storable(&self.payload),
            "parameters": parameters,
            "deadline_ms": self.deadline.map(|it| signed(u64::try_from(it.as_millis()).unwrap_or(u64::MAX))),
            "max_attempts": self.max_attempts,
            "delays": self.delays.as_ref().map(|delays| json!(delays).to_string()),
            "at_end": self.at_end,
            "mutex_key": self.mutex.as_ref().map(|(key, _)| key),
            "mutex_limit": self.mutex.as_ref().map(|(_, limit)| limit),
            "after_id": self.after.map(|(id, _)| id),
            "continue_on": self.after.map(|(_, on)| on),
            "batch_id": self.batch,
            "schedule_id": self.schedule,
            "tick": self.tick.map(|at| at.timestamp_micros()),
            "idempotency_key": self.idempotency_key,
            "history": entry(self.state, node, reason, None),
            "expires_in": expires_in,
        })
    }
}

/// A step of a job's life, as its history keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HistoryEntry {
    /// When, in microseconds.
    pub at: i64,
    /// The state that it came to.
    pub state: JobState,
    /// The server that did it.
    pub node: String,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// The attempt that began, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub invocation: Option<InvocationId>,
}

/// The most that is kept of a reason, in characters.
const REASON: usize = 1000;

/// An entry without its beginning, `{"at":` and the time, which the database puts in front of it.
pub(super) fn entry(state: JobState, node: &str, reason: Option<&str>, invocation: Option<&str>) -> String {
    let mut text = format!(",\"state\":{},\"node\":{}", json!(state), json!(storable(node)));
    if let Some(reason) = reason {
        let reason: String = reason.chars().take(REASON).collect();
        text += &format!(",\"reason\":{}", json!(storable(&reason)));
    }
    if let Some(invocation) = invocation {
        text += &format!(",\"invocation\":{}", json!(invocation));
    }
    text + "}"
}

/// A job as it stands.
#[derive(Debug, Clone)]
pub struct JobRow {
    /// What was handed in.
    pub job: NewJob,
    /// When its state began.
    pub since: DateTime<Utc>,
    /// The version of its attempts; none before the first.
    pub version: Option<Version>,
    /// How many attempts it has had, the one that runs among them.
    pub attempt: u32,
    /// How often it was claimed: with the server, this names one attempt.
    pub claim: i64,
    /// The last attempt.
    pub invocation: Option<InvocationId>,
    /// When it is removed, where it is to be.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was handed in.
    pub created_at: DateTime<Utc>,
    /// Why its last attempt failed.
    pub error: Option<String>,
    /// Every step so far, oldest first.
    pub history: Vec<HistoryEntry>,
}

/// What [`JobRow::read`] wants selected.
pub(super) const ROW: &str = "CAST(id AS TEXT) AS id, state, since, queue, priority, function_name, lane, selector, \
     version, kind, entry, caller_id, token, payload, parameters, deadline_ms, max_attempts, delays, at_end, attempt, claim, \
     CAST(invocation_id AS TEXT) AS invocation_id, mutex_key, mutex_limit, run_at, expires_at, created_at, \
     CAST(after_id AS TEXT) AS after_id, continue_on, CAST(batch_id AS TEXT) AS batch_id, schedule_id, tick, \
     idempotency_key, error, history";

impl JobRow {
    pub(super) fn read(row: &QueryResult) -> Result<Self, DbErr> {
        let history: String = get(row, "history")?;
        let history = format!("[{history}]");
        let mutex = get::<Option<String>>(row, "mutex_key")?.zip(get::<Option<i64>>(row, "mutex_limit")?);
        let after = optional_id(row, "after_id")?.map(JobId).zip(word(row, "continue_on")?);
        let job = NewJob {
            id: JobId(id(row, "id")?),
            state: state(row)?,
            run_at: get::<Option<i64>>(row, "run_at")?.map(time).transpose()?,
            queue: parsed(row, "queue")?,
            priority: get(row, "priority")?,
            name: parsed(row, "function_name")?,
            lane: parsed(row, "lane")?,
            selector: parsed(row, "selector")?,
            kind: word(row, "kind")?,
            entry: word(row, "entry")?,
            caller_id: word(row, "caller_id")?,
            token: word(row, "token")?,
            payload: get(row, "payload")?,
            parameters: json_of(row, "parameters")?.unwrap_or_default(),
            deadline: get::<Option<i64>>(row, "deadline_ms")?
                .map(|ms| unsigned("deadline", ms).map(Duration::from_millis))
                .transpose()?,
            max_attempts: unsigned("attempts", get(row, "max_attempts")?)?,
            delays: json_of(row, "delays")?,
            at_end: parsed(row, "at_end")?,
            mutex: mutex.map(|(key, limit)| unsigned("limit", limit).map(|limit| (key, limit))).transpose()?,
            after,
            batch: optional_id(row, "batch_id")?.map(JobId),
            schedule: get(row, "schedule_id")?,
            tick: get::<Option<i64>>(row, "tick")?.map(time).transpose()?,
            idempotency_key: get(row, "idempotency_key")?,
        };
        Ok(Self {
            job,
            since: time(get(row, "since")?)?,
            version: word(row, "version")?,
            attempt: unsigned("attempt", get(row, "attempt")?)?,
            claim: get(row, "claim")?,
            invocation: optional_id(row, "invocation_id")?.map(InvocationId),
            expires_at: get::<Option<i64>>(row, "expires_at")?.map(time).transpose()?,
            created_at: time(get(row, "created_at")?)?,
            error: get(row, "error")?,
            history: serde_json::from_str(&history).map_err(|error| damaged("history", error))?,
        })
    }
}

/// A batch as it stands.
#[derive(Debug, Clone)]
pub struct BatchRow {
    /// Its id.
    pub id: JobId,
    /// `Processing` while a job of it has not ended; then `Succeeded` where all did, `Failed` where one
    /// failed, else `Deleted`.
    pub state: JobState,
    /// When it was handed in.
    pub created_at: DateTime<Utc>,
    /// When its last job ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// How many of its jobs stand where.
    pub counts: Vec<(JobState, u64)>,
}

pub(super) fn get<T: sea_orm::TryGetable>(row: &QueryResult, column: &str) -> Result<T, DbErr> {
    row.try_get("", column)
}

pub(super) fn id(row: &QueryResult, column: &str) -> Result<Uuid, DbErr> {
    let text: String = get(row, column)?;
    Uuid::parse_str(&text).map_err(|_| damaged(column, text))
}

pub(super) fn optional_id(row: &QueryResult, column: &str) -> Result<Option<Uuid>, DbErr> {
    get::<Option<String>>(row, column)?
        .map(|text| Uuid::parse_str(&text).map_err(|_| damaged(column, text)))
        .transpose()
}

pub(super) fn parsed<T: std::str::FromStr>(row: &QueryResult, column: &str) -> Result<T, DbErr> {
    parse(column, &get::<String>(row, column)?)
}

pub(super) fn word<T: std::str::FromStr>(row: &QueryResult, column: &str) -> Result<Option<T>, DbErr> {
    get::<Option<String>>(row, column)?.map(|text| parse(column, &text)).transpose()
}

pub(super) fn state(row: &QueryResult) -> Result<JobState, DbErr> {
    parsed(row, "state")
}

fn json_of<T: serde::de::DeserializeOwned>(row: &QueryResult, column: &str) -> Result<Option<T>, DbErr> {
    get::<Option<String>>(row, column)?
        .map(|text| serde_json::from_str(&text).map_err(|error| damaged(column, error)))
        .transpose()
}
