//! Writing rows of the history: many at once, with as little work as can be, since every call has one.

use std::{
    fmt::Write as _,
    slice,
    sync::{Arc, OnceLock},
};

use sea_orm::{
    DbBackend, DbErr, ExprTrait, RuntimeErr,
    sea_query::{Expr, OnConflict, PostgresQueryBuilder, Query, SqliteQueryBuilder},
    sqlx::{
        self, Arguments, AssertSqlSafe, Executor, IntoArguments, Pool, postgres::PgArguments, sqlite::SqliteArguments,
    },
};
use serde::Serializer as _;
use uuid::Uuid;

use super::{AT_WORK, InvocationRow};
use crate::{
    database::{Database, DatabaseError, entities::invocation, micros, signed, storable},
    function::{CallerId, TokenName},
};

use invocation::Column;

/// How much text goes into one transaction, in bytes, unless a single row holds more.
const GROUP_BYTES: usize = 4 * 1024 * 1024;

/// What a line of output takes beside its text, in bytes.
const LINE_BYTES: usize = 64;

/// How many rows a statement may hold. There are only these statements, so that the database parses each
/// once; and 64 rows stay below SQLite's bound of 32,766 values.
const SIZES: [usize; 3] = [64, 8, 1];

/// What is written of a row, in the order of [`bind`].
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
pub struct Upserts([OnceLock<Arc<str>>; SIZES.len()]);

impl Upserts {
    fn of(&self, at: usize, backend: DbBackend) -> Arc<str> {
        let (Some(made), Some(rows)) = (self.0.get(at), SIZES.get(at)) else { return "".into() };
        made.get_or_init(|| upsert(*rows, backend).into()).clone()
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
        match self.connection.get_database_backend() {
            DbBackend::Postgres => self.upsert_on(self.connection.get_postgres_connection_pool(), rows).await,
            _ => self.upsert_on(self.connection.get_sqlite_connection_pool(), rows).await,
        }
        .map_err(|error| DbErr::Exec(RuntimeErr::SqlxError(Arc::new(error))))
    }

    /// By sqlx itself, which takes values as they are: each copy of a text that is not made is one less for every call.
    async fn upsert_on<D: sqlx::Database>(&self, pool: &Pool<D>, rows: &[&InvocationRow]) -> Result<(), sqlx::Error>
    where
        D::Arguments: Values + IntoArguments<D>,
        for<'a> &'a mut D::Connection: Executor<'a, Database = D>,
    {
        let backend = self.connection.get_database_backend();
        // One transaction is one write of the disk, and one look at the pages that many rows share.
        let mut transaction = pool.begin().await?;
        let mut left = rows;
        let mut binder = Binder::default();
        for (at, size) in SIZES.into_iter().enumerate() {
            while let Some((chunk, rest)) = left.split_at_checked(size) {
                let mut arguments = D::Arguments::default();
                arguments.room(size * COLUMNS.len() + AT_WORK.len());
                let bound = chunk.iter().try_for_each(|row| binder.bind(row, &mut arguments));
                let bound =
                    bound.and_then(|()| AT_WORK.iter().try_for_each(|status| arguments.text(Some((*status).into()))));
                bound.map_err(sqlx::Error::Encode)?;
                let statement = AssertSqlSafe(self.upserts.of(at, backend));
                sqlx::query_with(statement, arguments).execute(&mut *transaction).await?;
                left = rest;
            }
        }
        transaction.commit().await
    }
}

/// The values of a statement, of either database.
trait Values: Default {
    fn room(&mut self, values: usize);
    fn id(&mut self, id: Uuid) -> Bound;
    fn text(&mut self, text: Option<Arc<str>>) -> Bound;
    fn number(&mut self, number: Option<i64>) -> Bound;
    fn flag(&mut self, flag: bool) -> Bound;
}

type Bound = Result<(), sqlx::error::BoxDynError>;

macro_rules! values_of {
    ($($arguments:ty),*) => {$(
        impl Values for $arguments {
            fn room(&mut self, values: usize) {
                self.reserve(values, 0);
            }
            fn id(&mut self, id: Uuid) -> Bound {
                Arguments::add(self, id)
            }
            fn text(&mut self, text: Option<Arc<str>>) -> Bound {
                Arguments::add(self, text)
            }
            fn number(&mut self, number: Option<i64>) -> Bound {
                Arguments::add(self, number)
            }
            fn flag(&mut self, flag: bool) -> Bound {
                Arguments::add(self, flag)
            }
        }
    )*};
}

values_of!(PgArguments, SqliteArguments);

/// Makes values of rows, each with the room of the one before.
#[derive(Default)]
struct Binder {
    /// The texts of the last row: most of them are those of the next one, too.
    texts: [Option<Arc<str>>; COLUMNS.len()],
    written: String,
    output: Vec<u8>,
}

impl Binder {
    /// Adds what is written of a row, in the order of [`COLUMNS`].
    fn bind(&mut self, row: &InvocationRow, to: &mut impl Values) -> Bound {
        let Self { texts, written, output } = self;
        let mut texts = Texts(texts.iter_mut());
        to.id(row.id.0)?;
        to.text(texts.next(row.caller_id.as_ref().map(CallerId::as_str)))?;
        to.text(texts.next(row.token.as_ref().map(TokenName::as_str)))?;
        to.text(texts.next(Some(row.name.as_str())))?;
        to.text(texts.next(Some(row.lane.as_str())))?;
        written.clear();
        write!(written, "{}", row.selector)?;
        to.text(texts.next(Some(written)))?;
        to.flag(row.cancel_requested)?;
        to.number(Some(micros(row.created_at)))?;
        written.clear();
        row.version.iter().try_for_each(|version| write!(written, "{version}"))?;
        to.text(texts.next(row.version.is_some().then_some(written)))?;
        to.text(texts.next(row.kind.map(|kind| kind.as_str())))?;
        to.text(texts.next(Some(row.status.as_str())))?;
        to.text(texts.next(row.error_code.as_deref()))?;
        to.text(texts.next(row.detail.as_deref().map(storable).as_deref()))?;
        to.text(texts.next(row.result.as_deref().map(storable).as_deref()))?;
        output.clear();
        let lines = row.output.iter().map(Arc::as_ref);
        serde_json::Serializer::new(&mut *output).collect_seq(lines)?;
        to.text(texts.next(Some(std::str::from_utf8(output)?)))?;
        to.number(Some(signed(row.output_skipped)))?;
        to.text(texts.next(Some(&row.node)))?;
        to.number(row.started_at.map(micros))?;
        to.number(row.ended_at.map(micros))?;
        to.number(row.elapsed_us.map(signed))?;
        to.number(row.usage.memory_peak_bytes.map(signed))?;
        to.number(row.usage.cpu_us.map(signed))
    }
}

/// The texts of a row, one after another, each in the place of the same one of the last row.
struct Texts<'a>(slice::IterMut<'a, Option<Arc<str>>>);

impl Texts<'_> {
    fn next(&mut self, text: Option<&str>) -> Option<Arc<str>> {
        let last = self.0.next();
        let text = text?;
        match last {
            Some(Some(last)) if **last == *text => Some(last.clone()),
            Some(last) => Some(last.insert(text.into()).clone()),
            None => Some(text.into()),
        }
    }
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
