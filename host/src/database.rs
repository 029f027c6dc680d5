//! The SQL database: what is in the store, and the history of calls.
//!
//! A [`Database`] is a pool of connections, SQLite's or PostgreSQL's, made once at start, when the schema
//! is brought to its newest step too. Every call has an end within the configured time: it answers, or is
//! [`DatabaseError::Unavailable`]. An outage needs no restart: the pool tests a connection that was idle
//! before it gives it out, and opens new ones when the database is back.
//!
//! Nothing above this module writes SQL, and no value is ever spliced into a statement.

use std::{borrow::Cow, future::Future, path::Path, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use sea_orm::{
    ConnectOptions, DatabaseConnection, DbErr, RuntimeErr,
    sqlx::{
        self, ConnectOptions as _,
        sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
    },
};

use crate::{
    config::{DatabaseConfig, Secret, seconds},
    function::ErrorCode,
};

mod audit;
mod entities;
mod invocations;
pub mod jobs;
mod key_values;
mod payload_ids;
mod tokens;
mod versions;

pub use audit::{AuditEntry, AuditQuery};
pub use invocations::{InvocationQuery, InvocationRow, Request};
pub use key_values::{Kept, StoreBounds, StoreKey};
pub use tokens::{TokenChange, TokenNews, TokenRow};
pub use versions::{FunctionSummary, LaneSummary};

/// How long the schema may take to be brought up to date, in seconds: waiting for another server that is
/// at it, and building indexes over what there is.
const MIGRATION_SECONDS: u64 = 300;

/// After so long without work a connection of PostgreSQL is tested before it is given out. No server is stopped and
/// started again in less, and one that has just been given back was tested then.
const IDLE: Duration = Duration::from_millis(10);

/// How long a start waits before it tries again to open a SQLite file that is locked.
const LOCKED_PAUSE: Duration = Duration::from_millis(10);

/// What went wrong with the database. Texts are for the log: they may hold addresses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseError {
    /// It can't be reached, did not answer in time, or can't work now; another try later may succeed.
    #[error("the database is unavailable: {0}")]
    Unavailable(String),
    /// It answered, but not with what was asked for; another try gives the same.
    #[error("the database did not do as asked: {0}")]
    Query(String),
}

impl DatabaseError {
    /// Its code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Unavailable(_) => ErrorCode::DatabaseUnavailable,
            Self::Query(_) => ErrorCode::Internal,
        }
    }
}

impl From<DbErr> for DatabaseError {
    fn from(error: DbErr) -> Self {
        let passing = match &error {
            DbErr::ConnectionAcquire(_) | DbErr::Conn(_) => true,
            DbErr::Exec(RuntimeErr::SqlxError(cause)) | DbErr::Query(RuntimeErr::SqlxError(cause)) => will_pass(cause),
            _ => false,
        };
        if passing { Self::Unavailable(error.to_string()) } else { Self::Query(error.to_string()) }
    }
}

/// Whether the same statement may succeed later.
fn will_pass(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        sqlx::Error::Database(error) => error.code().is_some_and(|code| code_will_pass(&code)),
        _ => false,
    }
}

fn code_will_pass(code: &str) -> bool {
    match code.len() {
        // SQLSTATE (PostgreSQL documentation, appendix A): connection, authorisation, serialisation and
        // deadlock, resources, operator intervention (with statement timeouts), system; and a standby's
        // "read-only transaction".
        5 => ["08", "28", "40", "53", "57", "58"].iter().any(|class| code.starts_with(class)) || code == "25006",
        // SQLite result codes, of which the low byte is the primary one: BUSY, LOCKED, NOMEM, READONLY,
        // IOERR, FULL, CANTOPEN, PROTOCOL.
        _ => code.parse::<u32>().is_ok_and(|code| matches!(code & 0xff, 5 | 6 | 7 | 8 | 10 | 13 | 14 | 15)),
    }
}

/// The database, connected. A clone is another handle of the same pool.
#[derive(Debug, Clone)]
pub struct Database {
    connection: DatabaseConnection,
    /// How long a call may take, from waiting for a connection to the last row.
    limit: Duration,
    upserts: Arc<invocations::Upserts>,
}

impl Database {
    /// Connects, makes the SQLite file where there is none, and brings the schema to its newest step.
    ///
    /// # Errors
    /// When the database can't be reached within the configured time, or its schema is of a later program.
    pub async fn connect(config: &DatabaseConfig, password: Option<Secret>) -> Result<Self, DatabaseError> {
        let limit = seconds(config.timeout_seconds);
        let connection = tokio::time::timeout(limit, open(options(config, password, limit)?))
            .await
            .map_err(|_| "it did not answer in time".to_owned())
            .and_then(|connected| connected.map_err(|error| error.to_string()))
            .map_err(|cause| DatabaseError::Unavailable(format!("cannot open {}: {cause}", config.url)))?;
        tokio::time::timeout(seconds(MIGRATION_SECONDS), migrations::migrate(&connection))
            .await
            .map_err(|_| DatabaseError::Unavailable(format!("the schema of {} stayed locked", config.url)))??;
        Ok(Self { connection, limit, upserts: Arc::default() })
    }

    /// Whether it can be reached now.
    ///
    /// # Errors
    /// When it can't.
    pub async fn ping(&self) -> Result<(), DatabaseError> {
        self.bounded(self.connection.ping()).await
    }

    /// Closes every connection, waiting for the calls that have one. Calls after it are
    /// [`DatabaseError::Unavailable`]. With SQLite, this is what folds the write-ahead log into the file.
    pub async fn close(&self) {
        if tokio::time::timeout(self.limit, self.connection.close_by_ref()).await.is_err() {
            tracing::warn!("the database's connections did not close in time");
        }
    }

    /// Runs a query under the time limit.
    async fn bounded<T>(&self, query: impl Future<Output = Result<T, DbErr>>) -> Result<T, DatabaseError> {
        match tokio::time::timeout(self.limit, query).await {
            Ok(answer) => Ok(answer?),
            Err(_) => Err(DatabaseError::Unavailable(format!("no answer within {} s", self.limit.as_secs()))),
        }
    }
}

/// Opens the pool. A SQLite file that others make or close at this moment is locked, and turning on its
/// write-ahead log then fails at once whatever the busy time-out is: it is tried until it is free.
async fn open(options: ConnectOptions) -> Result<DatabaseConnection, DbErr> {
    loop {
        match sea_orm::Database::connect(options.clone()).await {
            Err(DbErr::Conn(RuntimeErr::SqlxError(cause))) if is_locked(&cause) => {
                tokio::time::sleep(LOCKED_PAUSE).await
            }
            opened => return opened,
        }
    }
}

/// Whether it is SQLite's `SQLITE_BUSY`, of whichever kind: the low byte of its code.
fn is_locked(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code()?.parse::<u32>().ok());
    code.is_some_and(|code| code & 0xff == 5)
}

fn options(
    config: &DatabaseConfig,
    password: Option<Secret>,
    limit: Duration,
) -> Result<ConnectOptions, DatabaseError> {
    let sqlite = config.url.strip_prefix("sqlite:").map(|path| path.strip_prefix("//").unwrap_or(path));
    // A path is not a URL: with SQLite, the URL only says which driver it is, and the closure below which file.
    let mut options = ConnectOptions::new(if sqlite.is_some() { "sqlite:" } else { config.url.as_str() });
    options
        .max_connections(u32::try_from(config.connections).unwrap_or(u32::MAX))
        .acquire_timeout(limit)
        .statement_timeout(limit)
        .set_application_name("sharpfaas")
        .sqlx_logging(false)
        .record_stmt_in_spans(false);
    if let Some(path) = sqlite {
        let sqlite = sqlite_options(path, limit)?;
        // A file can't go away as a server can, so its connections are not tested each time.
        options.test_before_acquire(false).map_sqlx_sqlite_opts(move |_| sqlite.clone());
    } else {
        options.test_before_acquire_if_idle_for(IDLE).map_sqlx_postgres_opts(move |options| match &password {
            Some(password) => options.password(password.expose()),
            None => options,
        });
    }
    Ok(options)
}

fn sqlite_options(path: &str, limit: Duration) -> Result<SqliteConnectOptions, DatabaseError> {
    if path.is_empty() || path == ":memory:" {
        let text = "a sqlite: database needs a file, as in 'sqlite:data/sharpfaas.db'";
        return Err(DatabaseError::Unavailable(text.into()));
    }
    if let Some(folder) = Path::new(path).parent() {
        std::fs::create_dir_all(folder).map_err(|error| {
            DatabaseError::Unavailable(format!("cannot make the folder {}: {error}", folder.display()))
        })?;
    }
    Ok(SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .foreign_keys(true)
        .busy_timeout(limit)
        .journal_mode(SqliteJournalMode::Wal)
        // With a write-ahead log nothing breaks at a power cut; at most the last rows are lost.
        .synchronous(SqliteSynchronous::Normal)
        .disable_statement_logging())
}

/// A time as it is kept: whole microseconds since the epoch, UTC.
fn micros(time: DateTime<Utc>) -> i64 {
    time.timestamp_micros()
}

/// Text that both databases can hold: PostgreSQL's has no U+0000.
fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

/// A kept time.
fn time(micros: i64) -> Result<DateTime<Utc>, DbErr> {
    DateTime::from_timestamp_micros(micros).ok_or_else(|| damaged("time", micros))
}

/// A kept value that nothing of ours wrote.
fn damaged(what: &str, value: impl std::fmt::Display) -> DbErr {
    DbErr::Type(format!("{what} '{value}' of a row is not valid"))
}

/// A number as it is kept; SQL has no unsigned ones.
fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// A kept number.
fn unsigned<T: TryFrom<i64>>(what: &str, value: i64) -> Result<T, DbErr> {
    T::try_from(value).map_err(|_| damaged(what, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_that_pass_are_told_from_those_that_do_not() {
        for code in ["08006", "57P01", "57014", "53300", "40P01", "25006", "5", "517", "10", "13", "8458"] {
            assert!(code_will_pass(code), "{code}");
        }
        for code in ["23505", "42P01", "22021", "1", "19", "1555", "2067"] {
            assert!(!code_will_pass(code), "{code}");
        }
    }
}
