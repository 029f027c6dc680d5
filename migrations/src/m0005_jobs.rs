//! Jobs, batches of them, schedules that make them, and the servers that run them.
//!
//! Written in SQL, because most of the indexes are partial: a job's row is written three times in a good
//! life, and each index that a row is not in costs nothing then.

use sea_orm_migration::{async_trait, prelude::*, sea_orm::DbBackend};

#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

/// What SQLite keeps as text, because all comes to it as JSON.
const UUID: &str = "UUID";

const TABLES: [&str; 4] = [
    "CREATE TABLE jobs (
        id UUID NOT NULL PRIMARY KEY,
        state TEXT NOT NULL,
        since BIGINT NOT NULL,
        queue TEXT NOT NULL,
        priority BIGINT NOT NULL,
        function_name TEXT NOT NULL,
        lane TEXT NOT NULL,
        selector TEXT NOT NULL,
        version TEXT,
        kind TEXT,
        entry TEXT,
        caller_id TEXT,
        token TEXT,
        payload TEXT NOT NULL,
        parameters TEXT,
        deadline_ms BIGINT,
        max_attempts BIGINT NOT NULL,
        delays TEXT,
        at_end TEXT NOT NULL,
        attempt BIGINT NOT NULL,
        claim BIGINT NOT NULL,
        server_id UUID,
        invocation_id UUID,
        mutex_key TEXT,
        mutex_limit BIGINT,
        run_at BIGINT,
        expires_at BIGINT,
        created_at BIGINT NOT NULL,
        after_id UUID,
        continue_on TEXT,
        waiters BOOLEAN NOT NULL,
        batch_id UUID,
        schedule_id TEXT,
        tick BIGINT,
        idempotency_key TEXT,
        error TEXT,
        history TEXT NOT NULL
    )",
    "CREATE TABLE job_batches (
        id UUID NOT NULL PRIMARY KEY,
        state TEXT NOT NULL,
        created_at BIGINT NOT NULL,
        ended_at BIGINT
    )",
    "CREATE TABLE job_schedules (
        id TEXT NOT NULL PRIMARY KEY,
        cron TEXT NOT NULL,
        time_zone TEXT NOT NULL,
        misfire TEXT NOT NULL,
        overlap TEXT NOT NULL,
        paused BOOLEAN NOT NULL,
        job TEXT NOT NULL,
        revision BIGINT NOT NULL,
        next_at BIGINT,
        last_at BIGINT,
        last_job UUID,
        skipped BIGINT NOT NULL,
        created_at BIGINT NOT NULL,
        updated_at BIGINT NOT NULL
    )",
    "CREATE TABLE job_servers (
        id UUID NOT NULL PRIMARY KEY,
        node TEXT NOT NULL,
        started_at BIGINT NOT NULL,
        heartbeat_at BIGINT NOT NULL,
        lease_until BIGINT NOT NULL,
        workers BIGINT NOT NULL,
        queues TEXT NOT NULL
    )",
];

const INDEXES: [&str; 13] = [
    // What to run next, in order.
    "CREATE INDEX jobs_ready ON jobs (priority DESC, id) WHERE state = 'enqueued'",
    // The same of one queue, where queues have limits, or a server does not serve them all.
    "CREATE INDEX jobs_queue ON jobs (queue, priority DESC, id) WHERE state = 'enqueued'",
    "CREATE INDEX jobs_mutex ON jobs (mutex_key, priority DESC, id) WHERE state = 'enqueued' AND mutex_key IS NOT NULL",
    "CREATE INDEX jobs_due ON jobs (run_at) WHERE state = 'scheduled'",
    "CREATE INDEX jobs_running ON jobs (server_id) WHERE state = 'processing'",
    "CREATE INDEX jobs_failed ON jobs (id) WHERE state = 'failed'",
    "CREATE INDEX jobs_waiting ON jobs (after_id) WHERE state = 'awaiting'",
    "CREATE INDEX jobs_expiring ON jobs (expires_at) WHERE expires_at IS NOT NULL",
    "CREATE INDEX jobs_batch ON jobs (batch_id) WHERE batch_id IS NOT NULL",
    "CREATE INDEX jobs_batch_open ON jobs (batch_id) \
     WHERE batch_id IS NOT NULL AND state NOT IN ('succeeded', 'failed', 'deleted')",
    // One job a tick, however many servers there are.
    "CREATE UNIQUE INDEX jobs_tick ON jobs (schedule_id, tick) WHERE schedule_id IS NOT NULL AND tick IS NOT NULL",
    "CREATE INDEX jobs_of_schedule ON jobs (schedule_id) \
     WHERE schedule_id IS NOT NULL AND state NOT IN ('succeeded', 'failed', 'deleted')",
    "CREATE UNIQUE INDEX jobs_idempotency ON jobs (idempotency_key) WHERE idempotency_key IS NOT NULL",
];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let connection = manager.get_connection();
        let sqlite = manager.get_database_backend() == DbBackend::Sqlite;
        for table in TABLES {
            let table = if sqlite { table.replace(UUID, "TEXT") } else { table.to_owned() };
            connection.execute_unprepared(&table).await?;
        }
        for index in INDEXES {
            connection.execute_unprepared(index).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["jobs", "job_batches", "job_schedules", "job_servers"] {
            manager.drop_table(Table::drop().table(Alias::new(table)).take()).await?;
        }
        Ok(())
    }
}
