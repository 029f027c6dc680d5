//! Writing rows of the history: many at once, with as little work as can be, since every call has one.

use std::sync::{Arc, OnceLock};

use sea_orm::{
    ConnectionTrait, DbBackend, DbErr, ExprTrait, Statement, TransactionTrait, Value,
    sea_query::{Expr, OnConflict, PostgresQueryBuilder, Query, SqliteQueryBuilder},
};

use super::{AT_WORK, InvocationRow};
use crate::{
    database::{Database, DatabaseError, entities::invocation, micros, signed},
    function::OutputLine,
};

use invocation::Column;

/// How much text goes into one transaction, in bytes, unless a single row holds more.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// What a line of output takes beside its text, in bytes.
const LINE_BYTES: usize = 64;

/// How many rows a statement may hold. There are only these statements, so that the database parses each
/// once; and 64 rows stay below SQLite's bound of 32,766 values.
const SIZES: [usize; 3] = [64, 8, 1];

/// What is written of a row, in the order of [`values`].
const COLUMNS: [Column; 22] = [
    Column::Id,
    Column::CallerId,
    Column::Token,
    Column::FunctionName,
    Column::Lane,
    Column::Selector,
    Column::CancelRequested,
    Column::CreatedAt,
    Column::Version,
    Column::Kind,
    Column::Status,
    Column::ErrorCode,
    Column::Detail,
    Column::Result,
    Column::Output,
    Column::OutputSkipped,
    Column::Node,
    Column::StartedAt,
    Column::EndedAt,
    Column::ElapsedUs,
    Column::MemoryPeakBytes,
    Column::CpuUs,
];

/// How many of [`COLUMNS`] are as they are from the first write on.
const FIXED: usize = 8;

/// The statements that write rows, one for each of [`SIZES`], made when they are first used.
#[derive(Debug, Default)]
pub struct Upserts([OnceLock<String>; SIZES.len()]);

impl Upserts {
    fn of(&self, at: usize, backend: DbBackend) -> String {
        let (Some(made), Some(rows)) = (self.0.get(at), SIZES.get(at)) else { return String::new() };
        made.get_or_init(|| upsert(*rows, backend)).clone()
    }
}

impl Database {
    /// Writes rows. One that the database has as ended stays as it is. One that the database refuses by
    /// itself is logged and passed over, so that it can't hold up the others for ever.
    ///
    /// # Errors
    /// When the database is unavailable; some of them may be written then, and all may be written again.
    pub async fn save(&self, rows: &[InvocationRow]) -> Result<(), DatabaseError> {
        let mut group = Vec::with_capacity(rows.len());
        let mut bytes = 0;
        for row in super::last_of_each(rows) {
            let size = text_bytes(row);
            if !group.is_empty() && bytes + size > GROUP_BYTES {
                self.save_group(&std::mem::take(&mut group)).await?;
                bytes = 0;
            }
            bytes += size;
            group.push(row);
        }
        if group.is_empty() { Ok(()) } else { self.save_group(&group).await }
    }

    async fn save_group(&self, rows: &[&InvocationRow]) -> Result<(), DatabaseError> {
        match self.bounded(self.upsert(rows)).await {
            Err(DatabaseError::Query(_)) => {}
            done_or_unavailable => return done_or_unavailable,
        }
        for row in rows {
            match self.bounded(self.upsert(&[row])).await {
                Err(DatabaseError::Query(error)) => {
                    tracing::error!(invocation = %row.id, %error, "a row of the history was refused");
                }
                done_or_unavailable => done_or_unavailable?,
            }
        }
        Ok(())
    }

    async fn upsert(&self, rows: &[&InvocationRow]) -> Result<(), DbErr> {
        let backend = self.connection.get_database_backend();
        // One transaction is one write of the disk, and one look at the pages that many rows share.
        let transaction = self.connection.begin().await?;
        let mut left = rows;
        for (at, size) in SIZES.into_iter().enumerate() {
            while let Some((chunk, rest)) = left.split_at_checked(size) {
                let values = chunk.iter().flat_map(|row| values(row)).chain(AT_WORK.map(Value::from));
                let statement = Statement::from_sql_and_values(backend, self.upserts.of(at, backend), values);
                transaction.execute_raw(statement).await?;
                left = rest;
            }
        }
        transaction.commit().await
    }
}

/// What is written of a row, in the order of [`COLUMNS`].
fn values(row: &InvocationRow) -> [Value; COLUMNS.len()] {
    let text = |text: Option<&str>| match text {
        Some(text) if text.contains('\0') => text.replace('\0', "\u{fffd}").into(),
        text => Value::from(text.map(ToOwned::to_owned)),
    };
    let lines: Vec<&OutputLine> = row.output.iter().map(Arc::as_ref).collect();
    let output = serde_json::to_string(&lines).unwrap_or_else(|_| "[]".into());
    [
        row.id.0.into(),
        row.caller_id.as_ref().map(ToString::to_string).into(),
        row.token.as_ref().map(ToString::to_string).into(),
        row.name.as_str().into(),
        row.lane.as_str().into(),
        row.selector.to_string().into(),
        row.cancel_requested.into(),
        micros(row.created_at).into(),
        row.version.as_ref().map(ToString::to_string).into(),
        row.kind.map(|kind| kind.as_str().to_owned()).into(),
        row.status.as_str().into(),
        row.error_code.clone().into(),
        text(row.detail.as_deref()),
        text(row.result.as_deref()),
        output.into(),
        signed(row.output_skipped).into(),
        row.node.as_str().into(),
        row.started_at.map(micros).into(),
        row.ended_at.map(micros).into(),
        row.elapsed_us.map(signed).into(),
        row.usage.memory_peak_bytes.map(signed).into(),
        row.usage.cpu_us.map(signed).into(),
    ]
}

/// About how much text a row holds, in bytes.
fn text_bytes(row: &InvocationRow) -> usize {
    let texts = [row.result.as_deref(), row.detail.as_deref()].into_iter().flatten().map(str::len).sum::<usize>();
    row.output.iter().map(|line| line.line.len() + LINE_BYTES).sum::<usize>() + texts
}

fn upsert(rows: usize, backend: DbBackend) -> String {
    let changing = COLUMNS.iter().skip(FIXED).copied();
    let unless_ended = OnConflict::column(Column::Id)
        .update_columns(changing)
        .action_and_where(Expr::col((invocation::Entity, Column::Status)).is_in(AT_WORK))
        .to_owned();
    let mut insert = Query::insert();
    insert.into_table(invocation::Entity).columns(COLUMNS).on_conflict(unless_ended);
    for _ in 0..rows {
        // Only their number counts here: the values come with each use.
        insert.values_from_panic([COLUMNS.map(|_| Expr::value(0))]);
    }
    match backend {
        DbBackend::Postgres => insert.build(PostgresQueryBuilder).0,
        _ => insert.build(SqliteQueryBuilder).0,
    }
}
