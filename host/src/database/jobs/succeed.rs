//! The good end of attempts that nothing follows from: most of them, and so one statement for any number.

use std::{collections::HashSet, time::Duration};

use serde_json::json;
use uuid::Uuid;

use crate::{
    database::{Database, DatabaseError, signed},
    function::{JobId, JobState, Version},
};

use super::{
    dialect::{Type, all},
    rows::{entry, id},
};

/// An attempt that succeeded.
#[derive(Debug, Clone, Copy)]
pub struct Success {
    /// The job.
    pub id: JobId,
    /// The server that had it.
    pub server: Uuid,
    /// Under this claim.
    pub claim: i64,
    /// What it ran, where that is known.
    pub version: Option<Version>,
}

const FIELDS: [(&str, Type); 4] =
    [("id", Type::Id), ("server_id", Type::Id), ("claim", Type::Number), ("version", Type::Text)];

impl Database {
    /// Ends these jobs `Succeeded`, to be kept for `keep`, where nothing follows from that: no other job waits for it,
    /// and it has neither a batch nor a key. Gives those that it ended; what is left goes through [`Database::change`],
    /// which also finds out that an attempt is no longer the job's.
    ///
    /// # Errors
    /// When the database fails; then none of them has ended, or all that could.
    pub async fn succeed(
        &self,
        node: &str,
        keep: Duration,
        attempts: &[Success],
    ) -> Result<HashSet<JobId>, DatabaseError> {
        if attempts.is_empty() {
            return Ok(HashSet::new());
        }
        let dialect = self.dialect();
        let list = serde_json::Value::from_iter(attempts.iter().map(|it| {
            let version = it.version.map(|version| version.to_string());
            json!({ "id": it.id, "server_id": it.server, "claim": it.claim, "version": version })
        }));
        let (now, records) = (dialect.now(), dialect.records("$1", "it", &FIELDS));
        // It has a server while it is in an attempt, and no longer.
        let sql = format!(
            "WITH d AS MATERIALIZED (SELECT * FROM {records}) \
             UPDATE jobs SET state = 'succeeded', since = {now}, run_at = NULL, server_id = NULL, \
             version = COALESCE(jobs.version, d.version), expires_at = {now} + $2, \
             history = jobs.history || ',{{\"at\":' || {now} || CAST($3 AS TEXT) \
             FROM d WHERE jobs.id = d.id{} AND jobs.claim = d.claim AND jobs.server_id = d.server_id \
             AND NOT jobs.waiters AND jobs.batch_id IS NULL AND jobs.mutex_key IS NULL \
             RETURNING CAST(jobs.id AS TEXT) AS id",
            dialect.among("jobs.id", "d")
        );
        let keep = signed(u64::try_from(keep.as_micros()).unwrap_or(u64::MAX));
        let values = [list.to_string().into(), keep.into(), entry(JobState::Succeeded, node, None, None).into()];
        let rows = self.bounded(all(&self.connection, sql, values)).await?;
        Ok(rows.iter().map(|row| id(row, "id").map(JobId)).collect::<Result<_, _>>()?)
    }
}
