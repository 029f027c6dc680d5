//! Writing new jobs down.

use sea_orm::{ConnectionTrait, DbErr};
use serde_json::json;

use crate::{
    database::{Database, DatabaseError},
    function::{JobId, JobState},
};

use super::{
    dialect::{Dialect, Type, all, run},
    rows::{NEW, NewJob, id, state},
};

/// A job that the database has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// Its id; that of the earlier job, where there is one with the same idempotency key.
    pub id: JobId,
    /// Where it stands.
    pub state: JobState,
    /// Whether it was there before.
    pub existed: bool,
}

/// Why jobs were not written down.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EnqueueError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// The job to go on after is not there.
    #[error("there is no job or batch {0} to continue after, or it has expired")]
    NoSuchJob(JobId),
}

impl Database {
    /// Writes jobs down that wait for no other; what each of them is then, in their order.
    ///
    /// # Errors
    /// When the database fails; then none of them is written.
    pub async fn enqueue(&self, node: &str, jobs: &[NewJob]) -> Result<Vec<Enqueued>, DatabaseError> {
        self.bounded(insert(&self.connection, self.dialect(), node, jobs)).await
    }

    /// Writes jobs down that go on after others: `decide` says where a job begins, from the state that the
    /// one before it is in, and when it is to be forgotten again. With a `batch`, they are that batch.
    ///
    /// # Errors
    /// When the database fails, or has no such job; then none of them is written.
    pub async fn enqueue_after(
        &self,
        node: &str,
        batch: Option<JobId>,
        mut jobs: Vec<NewJob>,
        decide: impl Fn(&NewJob, JobState) -> JobState,
    ) -> Result<Vec<Enqueued>, EnqueueError> {
        let dialect = self.dialect();
        let write = async {
            let transaction = self.begin().await?;
            if let Some(batch) = batch {
                let now = dialect.now();
                let key = dialect.id("$1");
                let sql =
                    format!("INSERT INTO job_batches (id, state, created_at) VALUES ({key}, 'processing', {now})");
                run(&transaction, sql, [batch.to_string().into()]).await?;
            }
            for job in &mut jobs {
                let Some((before, _)) = job.after else { continue };
                // From now on whoever ends that one looks for us; and it can't end before we are written.
                let Some(found) = mark(&transaction, dialect, before).await? else { return Ok(Err(before)) };
                job.state = decide(job, found);
            }
            let written = insert(&transaction, dialect, node, &jobs).await?;
            transaction.commit().await?;
            Ok(Ok(written))
        };
        self.bounded(write).await?.map_err(EnqueueError::NoSuchJob)
    }
}

/// Holds the job or batch until the transaction's end, and notes that others wait for it; its state.
async fn mark(connection: &impl ConnectionTrait, dialect: Dialect, before: JobId) -> Result<Option<JobState>, DbErr> {
    let key = dialect.id("$1");
    for sql in [
        format!("UPDATE jobs SET waiters = TRUE WHERE id = {key} RETURNING state"),
        format!("UPDATE job_batches SET state = state WHERE id = {key} RETURNING state"),
    ] {
        if let Some(row) = all(connection, sql, [before.to_string().into()]).await?.first() {
            return state(row).map(Some);
        }
    }
    Ok(None)
}

pub(super) async fn insert(
    connection: &impl ConnectionTrait,
    dialect: Dialect,
    node: &str,
    jobs: &[NewJob],
) -> Result<Vec<Enqueued>, DbErr> {
    if jobs.is_empty() {
        return Ok(Vec::new());
    }
    let (now, records) = (dialect.now(), dialect.records("$1", "d", &NEW));
    let tell = match dialect {
        Dialect::Postgres => {
            ", CAST(pg_notify('sharpfaas_jobs', CASE WHEN state = 'enqueued' THEN 'ready' ELSE 'later' END) AS TEXT)"
        }
        Dialect::Sqlite => "",
    };
    let sql = format!(
        "INSERT INTO jobs (id, state, since, queue, priority, function_name, lane, selector, kind, entry, caller_id, \
         token, payload, parameters, deadline_ms, max_attempts, delays, at_end, attempt, claim, mutex_key, \
         mutex_limit, run_at, expires_at, created_at, after_id, continue_on, waiters, batch_id, schedule_id, tick, \
         idempotency_key, history) \
         SELECT id, state, {now}, queue, priority, function_name, lane, selector, kind, entry, caller_id, token, \
         payload, parameters, deadline_ms, max_attempts, delays, at_end, 0, 0, mutex_key, mutex_limit, run_at, \
         {now} + expires_in, {now}, after_id, continue_on, FALSE, batch_id, schedule_id, tick, idempotency_key, \
         '{{\"at\":' || {now} || history \
         FROM {records} WHERE TRUE ON CONFLICT DO NOTHING RETURNING CAST(id AS TEXT) AS id{tell}"
    );
    let list = serde_json::Value::from_iter(jobs.iter().map(|job| {
        let reason = job.tick.map(|tick| format!("due at {}", tick.to_rfc3339()));
        // One that is given up at its birth is kept for as long as the sweep takes to come by.
        let expires_in = (job.state == JobState::Deleted).then_some(0);
        job.record(node, reason.as_deref(), expires_in)
    }));
    let rows = all(connection, sql, [list.to_string().into()]).await?;
    let written: std::collections::HashSet<_> = rows.iter().map(|row| id(row, "id")).collect::<Result<_, _>>()?;
    let keys: Vec<&str> = jobs
        .iter()
        .filter(|job| !written.contains(&job.id.0))
        .filter_map(|job| job.idempotency_key.as_deref())
        .collect();
    let mut earlier = std::collections::HashMap::new();
    if !keys.is_empty() {
        let keys = json!(keys.iter().map(|key| json!({ "key": key })).collect::<Vec<_>>()).to_string();
        let records = dialect.records("$1", "d", &[("key", Type::Text)]);
        let sql = format!(
            "SELECT CAST(jobs.id AS TEXT) AS id, state, idempotency_key FROM jobs JOIN {records} \
             ON jobs.idempotency_key = d.key"
        );
        for row in all(connection, sql, [keys.into()]).await? {
            let key: String = super::rows::get(&row, "idempotency_key")?;
            earlier.insert(key, (JobId(id(&row, "id")?), state(&row)?));
        }
    }
    Ok(jobs
        .iter()
        .map(|job| match job.idempotency_key.as_ref().and_then(|key| earlier.get(key)) {
            Some((id, state)) => Enqueued { id: *id, state: *state, existed: *id != job.id },
            None => Enqueued { id: job.id, state: job.state, existed: !written.contains(&job.id.0) },
        })
        .collect())
}
