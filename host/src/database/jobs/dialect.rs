//! Where the two databases' SQL differs.

use sea_orm::{
    ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, QueryResult, SqliteTransactionMode, Statement,
    TransactionOptions, TransactionTrait, Value,
};

use crate::database::Database;

/// The SQL of one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

impl Dialect {
    pub(super) fn of(connection: &impl ConnectionTrait) -> Self {
        if connection.get_database_backend() == DbBackend::Postgres { Self::Postgres } else { Self::Sqlite }
    }

    /// The clock, in microseconds.
    pub(super) fn now(self) -> &'static str {
        match self {
            Self::Sqlite => "CAST(unixepoch('subsec') * 1000000 AS INTEGER)",
            Self::Postgres => "CAST(extract(epoch FROM clock_timestamp()) * 1000000 AS BIGINT)",
        }
    }

    /// A parameter that is an id.
    pub(super) fn id(self, parameter: &str) -> String {
        match self {
            Self::Sqlite => parameter.to_owned(),
            Self::Postgres => format!("CAST({parameter} AS UUID)"),
        }
    }

    /// Behind a selection that no other server is to have: what others hold is passed over.
    pub(super) fn skip_locked(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE SKIP LOCKED",
        }
    }

    /// Behind a selection that is waited for.
    pub(super) fn lock(self) -> &'static str {
        match self {
            Self::Sqlite => "",
            Self::Postgres => " FOR UPDATE",
        }
    }

    /// The records of a JSON list of objects, as a table `alias`.
    pub(super) fn records(self, parameter: &str, alias: &str, columns: &[(&str, Type)]) -> String {
        match self {
            Self::Sqlite => {
                let columns: Vec<_> =
                    columns.iter().map(|(name, _)| format!("value ->> '$.{name}' AS {name}")).collect();
                format!("(SELECT {} FROM json_each({parameter})) AS {alias}", columns.join(", "))
            }
            Self::Postgres => {
                let columns: Vec<_> = columns.iter().map(|(name, kind)| format!("{name} {}", kind.as_str())).collect();
                format!("jsonb_to_recordset(CAST({parameter} AS JSONB)) AS {alias}({})", columns.join(", "))
            }
        }
    }

    /// That the id `column` is one of those of `table`, beside a join that says the same. PostgreSQL can't know how few
    /// the records of a parameter are, and would rather read all of `column`'s table than ask its index for each.
    pub(super) fn among(self, column: &str, table: &str) -> String {
        match self {
            Self::Sqlite => String::new(),
            Self::Postgres => format!(" AND {column} = ANY(ARRAY(SELECT id FROM {table}))"),
        }
    }

    /// A limit that PostgreSQL does not see before it runs the statement, and so takes for a small part of the rows.
    /// It then reads an index in its order; else, as it takes what waits for few, it would sort all of that each time.
    pub(super) fn few(self, parameter: &str) -> String {
        match self {
            Self::Sqlite => parameter.to_owned(),
            Self::Postgres => format!("(SELECT CAST({parameter} AS BIGINT))"),
        }
    }

    /// That `column` is null, as it mostly is. PostgreSQL takes that for rare until it has looked at the table, and would
    /// then rather sort the few that it expects than read an index in its order.
    pub(super) fn null(self, column: &str) -> String {
        match self {
            Self::Sqlite => format!("{column} IS NULL"),
            Self::Postgres => format!("CASE WHEN {column} IS NULL THEN TRUE ELSE FALSE END"),
        }
    }

    /// Whether the text `column` holds that of `parameter`, whatever the case of its letters.
    pub(super) fn contains(self, column: &str, parameter: &str) -> String {
        let find = if self == Self::Sqlite { "instr" } else { "strpos" };
        format!("{find}(lower(COALESCE({column}, '')), lower({parameter})) > 0")
    }

    /// Tells every server of the database.
    pub(super) async fn tell(self, connection: &impl ConnectionTrait, what: &str) -> Result<(), DbErr> {
        if self == Self::Postgres {
            // One statement's rows must be read, or the next one on this connection waits for them.
            all(connection, "SELECT CAST(pg_notify('sharpfaas_jobs', $1) AS TEXT)", [what.into()]).await?;
        }
        Ok(())
    }
}

/// The type of a record's field.
#[derive(Debug, Clone, Copy)]
pub(super) enum Type {
    Id,
    Text,
    Number,
    Flag,
}

impl Type {
    fn as_str(self) -> &'static str {
        match self {
            Self::Id => "UUID",
            Self::Text => "TEXT",
            Self::Number => "BIGINT",
            Self::Flag => "BOOLEAN",
        }
    }
}

/// The rows that a statement gives.
pub(super) async fn all(
    connection: &impl ConnectionTrait,
    sql: impl Into<String>,
    values: impl IntoIterator<Item = Value>,
) -> Result<Vec<QueryResult>, DbErr> {
    connection.query_all_raw(Statement::from_sql_and_values(connection.get_database_backend(), sql, values)).await
}

/// Runs a statement; how many rows it wrote.
pub(super) async fn run(
    connection: &impl ConnectionTrait,
    sql: impl Into<String>,
    values: impl IntoIterator<Item = Value>,
) -> Result<u64, DbErr> {
    let statement = Statement::from_sql_and_values(connection.get_database_backend(), sql, values);
    Ok(connection.execute_raw(statement).await?.rows_affected())
}

impl Database {
    pub(super) fn dialect(&self) -> Dialect {
        Dialect::of(&self.connection)
    }

    /// A transaction that writes: with SQLite it has the file from the start, so it is never turned back later.
    pub(in crate::database) async fn begin(&self) -> Result<DatabaseTransaction, DbErr> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        self.connection.begin_with_options(options).await
    }
}
