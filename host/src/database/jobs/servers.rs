//! The servers that run jobs, and what keeps time among them.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sea_orm::DbErr;
use uuid::Uuid;

use crate::{
    database::{Database, DatabaseError, signed, time, unsigned},
    function::{JobId, JobState},
};

use super::{
    dialect::{all, run},
    rows::{entry, get, id, parsed},
};

/// A server that runs jobs.
#[derive(Debug, Clone)]
pub struct ServerRow {
    /// Its id, new with each start.
    pub id: Uuid,
    /// Its name in history.
    pub node: String,
    /// When it started.
    pub started_at: DateTime<Utc>,
    /// When it last showed that it lives.
    pub heartbeat_at: DateTime<Utc>,
    /// Until when its jobs are its own, unless it shows itself again.
    pub lease_until: DateTime<Utc>,
    /// How many jobs it runs at once.
    pub workers: u64,
    /// The queues that it serves; empty: all.
    pub queues: Vec<String>,
    /// How many it runs now.
    pub running: u64,
}

/// A job whose server is gone.
#[derive(Debug, Clone)]
pub struct Orphan {
    /// The job.
    pub id: JobId,
    /// The server that had it.
    pub server: Uuid,
    /// Under this claim.
    pub claim: i64,
    /// In this attempt.
    pub attempt: u32,
    /// Of so many.
    pub max_attempts: u32,
    /// Where it ends with its last one.
    pub at_end: JobState,
}

/// When there is something to do next.
#[derive(Debug, Clone, Copy)]
pub struct Upcoming {
    /// The database's clock.
    pub now: DateTime<Utc>,
    /// The first time that a job or a schedule waits for.
    pub next: Option<DateTime<Utc>>,
}

fn micros(time: Duration) -> i64 {
    signed(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

impl Database {
    /// Registers a server for the length of a lease. What an earlier life of the same node had is no
    /// longer its own.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn register_server(
        &self,
        server: Uuid,
        node: &str,
        lease: Duration,
        workers: usize,
        queues: &[String],
    ) -> Result<(), DatabaseError> {
        let (dialect, now) = (self.dialect(), self.dialect().now());
        let work = async {
            let transaction = self.begin().await?;
            run(&transaction, "DELETE FROM job_servers WHERE node = $1", [node.into()]).await?;
            let sql = format!(
                "INSERT INTO job_servers (id, node, started_at, heartbeat_at, lease_until, workers, queues) \
                 VALUES ({}, $2, {now}, {now}, {now} + $3, $4, $5)",
                dialect.id("$1")
            );
            let queues = serde_json::Value::from(queues.to_vec()).to_string();
            let workers = i64::try_from(workers).unwrap_or(i64::MAX);
            let values = [server.to_string().into(), node.into(), micros(lease).into(), workers.into(), queues.into()];
            run(&transaction, sql, values).await?;
            transaction.commit().await
        };
        self.bounded(work).await
    }

    /// Renews a server's lease. `false`: it had none any more, and its jobs may be others' by now.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn renew_lease(&self, server: Uuid, lease: Duration) -> Result<bool, DatabaseError> {
        let (dialect, now) = (self.dialect(), self.dialect().now());
        let sql = format!(
            "UPDATE job_servers SET heartbeat_at = {now}, lease_until = {now} + $2 WHERE id = {}",
            dialect.id("$1")
        );
        let values = [server.to_string().into(), micros(lease).into()];
        Ok(self.bounded(run(&self.connection, sql, values)).await? > 0)
    }

    /// Strikes out servers whose lease is over; how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn strike_servers(&self) -> Result<u64, DatabaseError> {
        let sql = format!("DELETE FROM job_servers WHERE lease_until < {}", self.dialect().now());
        self.bounded(run(&self.connection, sql, [])).await
    }

    /// Strikes out this one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn leave(&self, server: Uuid) -> Result<(), DatabaseError> {
        let sql = format!("DELETE FROM job_servers WHERE id = {}", self.dialect().id("$1"));
        self.bounded(run(&self.connection, sql, [server.to_string().into()])).await.map(drop)
    }

    /// Jobs in an attempt of a server that is not registered, at most `most`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn orphans(&self, most: u64) -> Result<Vec<Orphan>, DatabaseError> {
        let sql = "SELECT CAST(id AS TEXT) AS id, CAST(server_id AS TEXT) AS server_id, claim, attempt, max_attempts, \
             at_end FROM jobs WHERE state = 'processing' \
             AND NOT EXISTS (SELECT 1 FROM job_servers WHERE job_servers.id = jobs.server_id) LIMIT $1";
        let rows = self.bounded(all(&self.connection, sql, [signed(most).into()])).await?;
        let read = |row: &sea_orm::QueryResult| {
            Ok::<_, DbErr>(Orphan {
                id: JobId(id(row, "id")?),
                server: id(row, "server_id")?,
                claim: get(row, "claim")?,
                attempt: unsigned("attempt", get(row, "attempt")?)?,
                max_attempts: unsigned("attempts", get(row, "max_attempts")?)?,
                at_end: parsed(row, "at_end")?,
            })
        };
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// The attempts that are this server's: job and claim.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn held(&self, server: Uuid) -> Result<Vec<(JobId, i64)>, DatabaseError> {
        let sql = format!(
            "SELECT CAST(id AS TEXT) AS id, claim FROM jobs WHERE state = 'processing' AND server_id = {}",
            self.dialect().id("$1")
        );
        let rows = self.bounded(all(&self.connection, sql, [server.to_string().into()])).await?;
        let read = |row: &sea_orm::QueryResult| Ok::<_, DbErr>((JobId(id(row, "id")?), get(row, "claim")?));
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// The servers that run jobs.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn job_servers(&self) -> Result<Vec<ServerRow>, DatabaseError> {
        let sql = "SELECT CAST(id AS TEXT) AS id, node, started_at, heartbeat_at, lease_until, workers, queues, \
             (SELECT count(*) FROM jobs WHERE state = 'processing' AND server_id = job_servers.id) AS running \
             FROM job_servers ORDER BY started_at, id";
        let rows = self.bounded(all(&self.connection, sql, [])).await?;
        let read = |row: &sea_orm::QueryResult| {
            let queues: String = get(row, "queues")?;
            Ok::<_, DbErr>(ServerRow {
                id: id(row, "id")?,
                node: get(row, "node")?,
                started_at: time(get(row, "started_at")?)?,
                heartbeat_at: time(get(row, "heartbeat_at")?)?,
                lease_until: time(get(row, "lease_until")?)?,
                workers: unsigned("workers", get(row, "workers")?)?,
                queues: serde_json::from_str(&queues).map_err(|error| crate::database::damaged("queues", error))?,
                running: unsigned("count", get(row, "running")?)?,
            })
        };
        Ok(rows.iter().map(read).collect::<Result<_, _>>()?)
    }

    /// Enqueues scheduled jobs whose time has come, at most `most`; how many.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn enqueue_due(&self, node: &str, most: u64) -> Result<u64, DatabaseError> {
        let (dialect, now) = (self.dialect(), self.dialect().now());
        let entry = entry(JobState::Enqueued, node, Some("its time has come"), None);
        let sql = format!(
            "UPDATE jobs SET state = 'enqueued', since = {now}, \
             history = history || ',{{\"at\":' || {now} || CAST($1 AS TEXT) \
             WHERE state = 'scheduled' AND id IN (SELECT id FROM jobs WHERE state = 'scheduled' AND run_at <= {now} \
             ORDER BY run_at LIMIT $2{})",
            dialect.skip_locked()
        );
        let work = async {
            let moved = run(&self.connection, sql, [entry.into(), signed(most).into()]).await?;
            if moved > 0 {
                dialect.tell(&self.connection, "ready").await?;
            }
            Ok(moved)
        };
        self.bounded(work).await
    }

    /// When there is something to do next.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn upcoming(&self) -> Result<Upcoming, DatabaseError> {
        let sql = format!(
            "SELECT {} AS now, (SELECT min(run_at) FROM jobs WHERE state = 'scheduled') AS job, \
             (SELECT min(next_at) FROM job_schedules WHERE NOT paused) AS tick",
            self.dialect().now()
        );
        let rows = self.bounded(all(&self.connection, sql, [])).await?;
        let row = rows.first().ok_or_else(|| DatabaseError::Query("no row".into()))?;
        let read = || {
            let (job, tick): (Option<i64>, Option<i64>) = (get(row, "job")?, get(row, "tick")?);
            let next = job.into_iter().chain(tick).min().map(time).transpose()?;
            Ok::<_, DbErr>(Upcoming { now: time(get(row, "now")?)?, next })
        };
        Ok(read()?)
    }

    /// Removes jobs that have been kept for long enough, at most `most`, and batches with none left; how
    /// many jobs.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn expire_jobs(&self, most: u64, keep: Duration) -> Result<u64, DatabaseError> {
        let (dialect, now) = (self.dialect(), self.dialect().now());
        let jobs = format!(
            "DELETE FROM jobs WHERE id IN (SELECT id FROM jobs WHERE expires_at IS NOT NULL AND expires_at < {now} \
             LIMIT $1{})",
            dialect.skip_locked()
        );
        let batches = format!(
            "DELETE FROM job_batches WHERE ended_at < {now} - $1 \
             AND NOT EXISTS (SELECT 1 FROM jobs WHERE batch_id = job_batches.id AND batch_id IS NOT NULL)"
        );
        let work = async {
            let removed = run(&self.connection, jobs, [signed(most).into()]).await?;
            run(&self.connection, batches, [micros(keep).into()]).await?;
            Ok(removed)
        };
        self.bounded(work).await
    }
}
