//! The schema of the sharpfaas database, step by step, for SQLite and PostgreSQL.
//!
//! A migration is a file; once released it never changes, the next change is the next file. Servers
//! migrate when they start, so [`migrate`] lets one of any number of them do the work at a time.

use sea_orm_migration::{
    async_trait,
    prelude::*,
    sea_orm::{DatabaseConnection, DbBackend, SqliteTransactionMode, Statement, TransactionOptions, TransactionTrait},
};

mod m0001_catalog;
mod m0002_invocations;
mod m0004_security;
mod m0005_jobs;
mod m0006_usage;
mod m0007_history_indexes;
mod m0008_shapes;
mod m0009_key_values;

/// All migrations, in their order.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m0001_catalog::Migration),
            Box::new(m0002_invocations::Migration),
            Box::new(m0004_security::Migration),
            Box::new(m0005_jobs::Migration),
            Box::new(m0006_usage::Migration),
            Box::new(m0007_history_indexes::Migration),
            Box::new(m0008_shapes::Migration),
            Box::new(m0009_key_values::Migration),
        ]
    }
}

/// The advisory lock that migrating servers take: any number, the same for all of them.
const LOCK: i64 = 0x0073_6861_7270_6661;

/// Brings the schema to the newest step. Any number of servers may do it on one database at once: all
/// steps run in one transaction, whose first statement waits for the others' (PostgreSQL: an advisory
/// lock; SQLite: the write lock, for as long as the connection's `busy_timeout`).
///
/// # Errors
/// When the database can't be reached, or knows a later step than this program does.
pub async fn migrate(database: &DatabaseConnection) -> Result<(), DbErr> {
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..TransactionOptions::default()
    };
    let transaction = database.begin_with_options(options).await?;
    if transaction.get_database_backend() == DbBackend::Postgres {
        // Waiting for the lock, and building an index, may take longer than a call's statement may.
        transaction.execute_unprepared("SET LOCAL statement_timeout = 0").await?;
        let lock =
            Statement::from_sql_and_values(DbBackend::Postgres, "SELECT pg_advisory_xact_lock($1)", [LOCK.into()]);
        transaction.execute_raw(lock).await?;
    }
    Migrator::up(&transaction, None).await?;
    transaction.commit().await
}
