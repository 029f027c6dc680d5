//! Looking at jobs.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use sea_orm::{DbErr, Value};

use crate::{
    database::{Database, DatabaseError, signed, time, unsigned},
    function::{CallerId, FunctionName, JobId, JobState, Lane, QueueName},
};

use super::{
    dialect::{Dialect, all},
    rows::{BatchRow, JobRow, ROW, get, id, parsed, state},
};

/// Which jobs are meant. The default is all of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct JobFilter {
    /// In this state.
    pub state: Option<JobState>,
    /// Of this function.
    pub function: Option<FunctionName>,
    /// Of this lane.
    pub lane: Option<Lane>,
    /// Of this queue.
    pub queue: Option<QueueName>,
    /// Of this caller.
    pub caller_id: Option<CallerId>,
    /// Made by this schedule.
    pub schedule: Option<String>,
    /// Of this batch.
    pub batch: Option<JobId>,
    /// Handed in at this time or later.
    pub since: Option<DateTime<Utc>>,
    /// Handed in before this time.
    pub until: Option<DateTime<Utc>>,
    /// With this text in the payload or the error.
    pub text: Option<String>,
}

/// A page of jobs, newest first.
#[derive(Debug, Clone, Default)]
pub struct JobQuery {
    /// Of these.
    pub filter: JobFilter,
    /// Older than this one: the last of the page before.
    pub before: Option<JobId>,
    /// At most so many.
    pub limit: u64,
}

/// How many jobs of a queue stand where, without those that succeeded or are deleted.
#[derive(Debug, Clone)]
pub struct QueueCounts {
    /// The queue.
    pub queue: QueueName,
    /// How many stand where.
    pub counts: Vec<(JobState, u64)>,
}

impl JobFilter {
    /// The condition, and the values for it.
    fn condition(&self, dialect: Dialect, before: Option<JobId>) -> (String, Vec<Value>) {
        let (mut parts, mut values) = (vec!["TRUE".to_owned()], Vec::new());
        let mut put = |value: Value, part: &dyn Fn(&str) -> String| {
            values.push(value);
            parts.push(part(&format!("${}", values.len())));
        };
        let mut same = |column: &'static str, value: Option<String>| {
            if let Some(value) = value {
                put(value.into(), &|it| format!("{column} = {it}"));
            }
        };
        same("function_name", self.function.as_ref().map(ToString::to_string));
        same("lane", self.lane.as_ref().map(ToString::to_string));
        same("queue", self.queue.as_ref().map(ToString::to_string));
        same("caller_id", self.caller_id.as_ref().map(ToString::to_string));
        same("schedule_id", self.schedule.clone());
        if let Some(batch) = self.batch {
            put(batch.to_string().into(), &|it| format!("batch_id = {}", dialect.id(it)));
        }
        if let Some(since) = self.since {
            put(since.timestamp_micros().into(), &|it| format!("created_at >= {it}"));
        }
        if let Some(until) = self.until {
            put(until.timestamp_micros().into(), &|it| format!("created_at < {it}"));
        }
        if let Some(text) = &self.text {
            put(text.as_str().into(), &|it| {
                format!("({} OR {})", dialect.contains("payload", it), dialect.contains("error", it))
            });
        }
        if let Some(before) = before {
            put(before.to_string().into(), &|it| format!("id < {}", dialect.id(it)));
        }
        if let Some(state) = self.state {
            // Not a value, so that the index of that state can be used: the words are ours.
            parts.push(format!("state = '{}'", state.as_str()));
        }
        (parts.join(" AND "), values)
    }
}

impl Database {
    /// One job.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn job(&self, job: JobId) -> Result<Option<JobRow>, DatabaseError> {
        let sql = format!("SELECT {ROW} FROM jobs WHERE id = {}", self.dialect().id("$1"));
        let rows = self.bounded(all(&self.connection, sql, [job.to_string().into()])).await?;
        Ok(rows.first().map(JobRow::read).transpose()?)
    }

    /// A page of jobs.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn jobs(&self, query: &JobQuery) -> Result<Vec<JobRow>, DatabaseError> {
        let (condition, mut values) = query.filter.condition(self.dialect(), query.before);
        values.push(signed(query.limit).into());
        let sql = format!("SELECT {ROW} FROM jobs WHERE {condition} ORDER BY jobs.id DESC LIMIT ${}", values.len());
        let rows = self.bounded(all(&self.connection, sql, values)).await?;
        Ok(rows.iter().map(JobRow::read).collect::<Result<_, _>>()?)
    }

    /// Ids and states of jobs older than `before`, newest first, at most `limit`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn job_states(
        &self,
        filter: &JobFilter,
        before: Option<JobId>,
        limit: u64,
    ) -> Result<Vec<(JobId, JobState)>, DatabaseError> {
        let (condition, mut values) = filter.condition(self.dialect(), before);
        values.push(signed(limit).into());
        let sql = format!(
            "SELECT CAST(id AS TEXT) AS job, state FROM jobs WHERE {condition} ORDER BY jobs.id DESC LIMIT ${}",
            values.len()
        );
        let rows = self.bounded(all(&self.connection, sql, values)).await?;
        let read = |row: &sea_orm::QueryResult| Ok::<_, DbErr>((JobId(id(row, "job")?), state(row)?));
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// A batch.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn batch(&self, batch: JobId) -> Result<Option<BatchRow>, DatabaseError> {
        let key = self.dialect().id("$1");
        let values = || [Value::from(batch.to_string())];
        let row = format!("SELECT state, created_at, ended_at FROM job_batches WHERE id = {key}");
        let counts = format!(
            "SELECT state, count(*) AS jobs FROM jobs WHERE batch_id = {key} AND batch_id IS NOT NULL GROUP BY state"
        );
        let work = async {
            let Some(row) = all(&self.connection, row, values()).await?.pop() else { return Ok(None) };
            let counts = all(&self.connection, counts, values()).await?;
            let count =
                |row: &sea_orm::QueryResult| Ok::<_, DbErr>((state(row)?, unsigned("count", get(row, "jobs")?)?));
            Ok(Some(BatchRow {
                id: batch,
                state: state(&row)?,
                created_at: time(get(&row, "created_at")?)?,
                ended_at: get::<Option<i64>>(&row, "ended_at")?.map(time).transpose()?,
                counts: counts.iter().map(count).collect::<Result<_, _>>()?,
            }))
        };
        self.bounded(work).await
    }

    /// The queues that hold jobs.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn queues(&self) -> Result<Vec<QueueCounts>, DatabaseError> {
        // A part for each state, so that each is read from its own index.
        let parts: Vec<_> = ["enqueued", "processing", "scheduled", "awaiting", "failed"]
            .map(|state| {
                format!("SELECT queue, state, count(*) AS jobs FROM jobs WHERE state = '{state}' GROUP BY queue, state")
            })
            .into();
        let rows = self.bounded(all(&self.connection, parts.join(" UNION ALL "), [])).await?;
        let mut queues: BTreeMap<QueueName, Vec<(JobState, u64)>> = BTreeMap::new();
        for row in &rows {
            queues.entry(parsed(row, "queue")?).or_default().push((state(row)?, unsigned("count", get(row, "jobs")?)?));
        }
        Ok(queues.into_iter().map(|(queue, counts)| QueueCounts { queue, counts }).collect())
    }
}
