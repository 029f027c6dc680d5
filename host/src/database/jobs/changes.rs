//! Taking jobs from one state to the next.

use std::{collections::BTreeMap, time::Duration};

use sea_orm::{ConnectionTrait, DbErr};
use serde_json::json;
use uuid::Uuid;

use crate::{
    database::{Database, DatabaseError, signed, storable},
    function::{ContinueOn, JobId, JobState, Version},
};

use super::{
    dialect::{Dialect, Type, all, run},
    rows::{entry, get, id, optional_id, parsed, state},
};

/// Where a job must stand for a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// In this state.
    State(JobState),
    /// In this attempt: claimed by that server, for the so-manieth time.
    Attempt {
        /// The server.
        server: Uuid,
        /// The claim.
        claim: i64,
    },
}

/// A step of one job.
#[derive(Debug, Clone)]
pub struct Change {
    /// The job.
    pub id: JobId,
    /// Where it must stand; else nothing changes.
    pub from: From,
    /// Where it goes.
    pub to: JobState,
    /// How long it waits there, where that is `Scheduled`.
    pub delay: Option<Duration>,
    /// How many attempts it has had then; none: as before.
    pub attempt: Option<u32>,
    /// The version that its attempts run from now on, where none is fixed yet.
    pub version: Option<Version>,
    /// Begins anew: its attempts, its version and its error are forgotten.
    pub anew: bool,
    /// Why its attempt failed.
    pub error: Option<String>,
    /// Why, for its history.
    pub reason: Option<String>,
}

impl Change {
    /// A step with nothing else to say.
    #[must_use]
    pub fn new(id: JobId, from: From, to: JobState) -> Self {
        Self { id, from, to, delay: None, attempt: None, version: None, anew: false, error: None, reason: None }
    }
}

/// A step that was done.
#[derive(Debug, Clone, Copy)]
pub struct Applied {
    /// The job.
    pub id: JobId,
    /// Where it is now.
    pub state: JobState,
    /// The attempt that it was in, where it was in one.
    pub invocation: Option<Uuid>,
    waiters: bool,
    mutexed: bool,
    batch: Option<Uuid>,
}

/// What becomes of a job that waited for another one in that state.
pub(super) type Decide = fn(JobState, ContinueOn, JobState) -> JobState;

const FIELDS: [(&str, Type); 12] = [
    ("id", Type::Id),
    ("from_state", Type::Text),
    ("server_id", Type::Id),
    ("claim", Type::Number),
    ("state", Type::Text),
    ("delay", Type::Number),
    ("attempt", Type::Number),
    ("version", Type::Text),
    ("anew", Type::Flag),
    ("error", Type::Text),
    ("expires_in", Type::Number),
    ("entry", Type::Text),
];

impl Database {
    /// Takes these steps, and those that follow from them for jobs and batches that wait: all in one
    /// transaction. What succeeds or is deleted is kept for `keep`. Gives those that were done.
    ///
    /// # Errors
    /// When the database fails; then none of them is done.
    pub async fn change(
        &self,
        node: &str,
        keep: Duration,
        changes: &[Change],
        decide: fn(JobState, ContinueOn, JobState) -> JobState,
    ) -> Result<Vec<Applied>, DatabaseError> {
        if changes.is_empty() {
            return Ok(Vec::new());
        }
        let dialect = self.dialect();
        let work = async {
            let transaction = self.begin().await?;
            let applied = apply(&transaction, dialect, node, keep, changes).await?;
            let woken = settle(&transaction, dialect, node, keep, &applied, decide).await?;
            if woken || applied.iter().any(|it| it.mutexed || it.state == JobState::Enqueued) {
                dialect.tell(&transaction, "ready").await?;
            }
            if applied.iter().any(|it| it.state == JobState::Scheduled) {
                dialect.tell(&transaction, "later").await?;
            }
            for lost in applied.iter().filter(|it| it.state == JobState::Deleted) {
                if let Some(invocation) = lost.invocation {
                    dialect.tell(&transaction, &format!("cancel {invocation}")).await?;
                }
            }
            transaction.commit().await?;
            Ok(applied)
        };
        self.bounded(work).await
    }
}

pub(super) async fn apply(
    connection: &impl ConnectionTrait,
    dialect: Dialect,
    node: &str,
    keep: Duration,
    changes: &[Change],
) -> Result<Vec<Applied>, DbErr> {
    let keep = signed(u64::try_from(keep.as_micros()).unwrap_or(u64::MAX));
    let list = serde_json::Value::from_iter(changes.iter().map(|change| {
        let (from, server, claim) = match change.from {
            From::State(state) => (state, None, None),
            From::Attempt { server, claim } => (JobState::Processing, Some(server), Some(claim)),
        };
        let expires = matches!(change.to, JobState::Succeeded | JobState::Deleted);
        json!({
            "id": change.id,
            "from_state": from,
            "server_id": server,
            "claim": claim,
            "state": change.to,
            "delay": change.delay.map(|delay| signed(u64::try_from(delay.as_micros()).unwrap_or(u64::MAX))),
            "attempt": change.attempt,
            "version": change.version.map(|version| version.to_string()),
            "anew": change.anew,
            "error": change.error.as_deref().map(storable),
            "expires_in": expires.then_some(keep),
            "entry": entry(change.to, node, change.reason.as_deref(), None),
        })
    }));
    let (now, records) = (dialect.now(), dialect.records("$1", "it", &FIELDS));
    let among = dialect.among("jobs.id", "d");
    let sql = format!(
        "WITH d AS MATERIALIZED (SELECT * FROM {records}) \
         UPDATE jobs SET state = d.state, since = {now}, run_at = {now} + d.delay, server_id = NULL, \
         attempt = COALESCE(d.attempt, jobs.attempt), \
         version = CASE WHEN d.anew THEN NULL ELSE COALESCE(jobs.version, d.version) END, \
         error = CASE WHEN d.anew THEN NULL ELSE COALESCE(d.error, jobs.error) END, \
         expires_at = {now} + d.expires_in, history = jobs.history || ',{{\"at\":' || {now} || d.entry \
         FROM d WHERE jobs.id = d.id{among} AND jobs.state = d.from_state \
         AND (d.claim IS NULL OR (jobs.claim = d.claim AND jobs.server_id = d.server_id)) \
         RETURNING CAST(jobs.id AS TEXT) AS id, jobs.state AS state, jobs.waiters AS waiters, jobs.mutex_key IS NOT NULL AS mutexed, \
         CAST(jobs.batch_id AS TEXT) AS batch_id, CAST(jobs.invocation_id AS TEXT) AS invocation_id"
    );
    let rows = all(connection, sql, [list.to_string().into()]).await?;
    rows.iter()
        .map(|row| {
            Ok(Applied {
                id: JobId(id(row, "id")?),
                state: state(row)?,
                invocation: optional_id(row, "invocation_id")?,
                waiters: get(row, "waiters")?,
                mutexed: get(row, "mutexed")?,
                batch: optional_id(row, "batch_id")?,
            })
        })
        .collect()
}

/// What follows for batches that these are of, and for all that waits for one of them. Whether a job was
/// enqueued by it.
pub(super) async fn settle(
    connection: &impl ConnectionTrait,
    dialect: Dialect,
    node: &str,
    keep: Duration,
    applied: &[Applied],
    decide: Decide,
) -> Result<bool, DbErr> {
    let mut woken = false;
    let mut last = applied.to_vec();
    loop {
        let ended = last.iter().filter(|it| it.waiters && it.state.is_end());
        let mut parents: BTreeMap<Uuid, JobState> = ended.map(|it| (it.id.0, it.state)).collect();
        let batches: BTreeMap<Uuid, bool> =
            last.iter().filter_map(|it| it.batch.map(|batch| (batch, it.state.is_end()))).collect();
        if !batches.is_empty() {
            parents.extend(settle_batches(connection, dialect, &batches).await?);
        }
        if parents.is_empty() {
            return Ok(woken);
        }
        let list = serde_json::Value::from_iter(parents.keys().map(|id| json!({ "id": id })));
        let records = dialect.records("$1", "d", &[("id", Type::Id)]);
        let sql = format!(
            "SELECT CAST(id AS TEXT) AS id, CAST(after_id AS TEXT) AS after_id, continue_on FROM jobs \
             WHERE state = 'awaiting' AND after_id IN (SELECT id FROM {records}) ORDER BY id{}",
            dialect.lock()
        );
        let mut changes = Vec::new();
        for row in all(connection, sql, [list.to_string().into()]).await? {
            let before = id(&row, "after_id")?;
            let Some(state) = parents.get(&before) else { continue };
            let next = decide(*state, parsed(&row, "continue_on")?, JobState::Enqueued);
            if next != JobState::Awaiting {
                let change = Change::new(JobId(id(&row, "id")?), From::State(JobState::Awaiting), next);
                changes.push(Change { reason: Some(format!("{before} is {state}")), ..change });
            }
        }
        if changes.is_empty() {
            return Ok(woken);
        }
        last = apply(connection, dialect, node, keep, &changes).await?;
        woken |= last.iter().any(|it| it.state == JobState::Enqueued);
    }
}

/// Looks whether these batches have ended, or go on again; those that have just ended, and how.
async fn settle_batches(
    connection: &impl ConnectionTrait,
    dialect: Dialect,
    batches: &BTreeMap<Uuid, bool>,
) -> Result<Vec<(Uuid, JobState)>, DbErr> {
    let (now, mut ended) = (dialect.now(), Vec::new());
    for (batch, last_ended) in batches {
        let key = dialect.id("$1");
        let values = || [sea_orm::Value::from(batch.to_string())];
        // Of servers that end the last jobs of a batch at once, the second sees what the first did.
        let held = format!("SELECT state FROM job_batches WHERE id = {key}{}", dialect.lock());
        let Some(before) = all(connection, held, values()).await?.first().map(state).transpose()? else { continue };
        let open = format!(
            "SELECT CAST(id AS TEXT) AS id FROM jobs WHERE batch_id = {key} AND batch_id IS NOT NULL \
             AND state NOT IN ('succeeded', 'failed', 'deleted') LIMIT 1"
        );
        if !all(connection, open, values()).await?.is_empty() {
            if before.is_end() && !last_ended {
                let again = format!("UPDATE job_batches SET state = 'processing', ended_at = NULL WHERE id = {key}");
                run(connection, again, values()).await?;
            }
            continue;
        }
        let counts = format!("SELECT DISTINCT state FROM jobs WHERE batch_id = {key} AND batch_id IS NOT NULL");
        let states = all(connection, counts, values()).await?;
        let states: Vec<JobState> = states.iter().map(state).collect::<Result<_, _>>()?;
        let has = |state| states.contains(&state);
        let state = match (has(JobState::Failed), has(JobState::Deleted)) {
            (true, _) => JobState::Failed,
            (false, true) => JobState::Deleted,
            (false, false) => JobState::Succeeded,
        };
        if state != before {
            let end = format!("UPDATE job_batches SET state = $2, ended_at = {now} WHERE id = {key}");
            run(connection, end, [batch.to_string().into(), state.as_str().into()]).await?;
            ended.push((*batch, state));
        }
    }
    Ok(ended)
}
