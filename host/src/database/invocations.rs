//! The history of calls, and what runs now.
//!
//! A row is written when a call is accepted, or only when it has ended; each write carries the whole row.
//! Writes may come twice or out of order, so a row that has ended stays as it is.

use std::sync::Arc;

use chrono::{DateTime, Utc};
use sea_orm::{
    ColumnTrait, Condition, DbErr, EntityTrait, ExprTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{Expr, Order, Query},
};

use super::{Database, DatabaseError, damaged, entities::invocation, micros, time, unsigned, versions::parse};
use crate::function::{
    CallerId, FunctionName, FunctionType, InvocationId, Lane, OutputLine, ResultText, Selector, Status, TokenName,
    Usage, Version,
};

mod write;

pub use write::Upserts;

/// The states of a call that has not ended.
const AT_WORK: [&str; 2] = [Status::Queued.as_str(), Status::Running.as_str()];

/// One call as history keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvocationRow {
    /// The call.
    pub id: InvocationId,
    /// Who called, where they said.
    pub caller_id: Option<CallerId>,
    /// What was to be run.
    pub name: FunctionName,
    /// From which lane.
    pub lane: Lane,
    /// Which version was asked for.
    pub selector: Selector,
    /// Which version that came to; none while it is not known.
    pub version: Option<Version>,
    /// The function's type; none while it is not known.
    pub kind: Option<FunctionType>,
    /// Where it stands.
    pub status: Status,
    /// The code of the error table, where it did not succeed.
    pub error_code: Option<String>,
    /// What went wrong, in words its caller may read.
    pub detail: Option<String>,
    /// What the function returned. U+0000 in it, and in `detail`, is kept as U+FFFD, as PostgreSQL's text
    /// can't hold it.
    pub result: Option<ResultText>,
    /// The last of what it printed.
    pub output: Vec<Arc<OutputLine>>,
    /// How many lines it had printed before those: the number of the first of them.
    pub output_skipped: u64,
    /// The server that runs it.
    pub node: Arc<str>,
    /// Whether somebody asked for its end. Writing a row that exists leaves this as it is:
    /// [`Database::request_cancel`] sets it.
    pub cancel_requested: bool,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When it got its place.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: Option<DateTime<Utc>>,
    /// How long it was at work, in microseconds.
    pub elapsed_us: Option<u64>,
    /// What it took, as far as that is measured.
    pub usage: Usage,
    /// The token that it was made with; none where the server asked for none.
    pub token: Option<TokenName>,
}

/// Which rows [`Database::invocations`] gives. The default is all of them, and none for `limit`.
#[derive(Debug, Clone, Default)]
pub struct InvocationQuery {
    /// Of this function only.
    pub function: Option<FunctionName>,
    /// Of this lane only.
    pub lane: Option<Lane>,
    /// Of this caller only.
    pub caller_id: Option<CallerId>,
    /// In this state only.
    pub status: Option<Status>,
    /// Older than this call: the last one of the page before.
    pub before: Option<InvocationId>,
    /// At most this many.
    pub limit: u64,
}

/// What other servers ask of the one that runs a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Request {
    /// The call.
    pub id: InvocationId,
    /// To end it.
    pub cancel: bool,
    /// To show what it prints: a mark that is another one each time it is asked for.
    pub watched: Option<i64>,
}

impl Database {
    /// One call.
    ///
    /// # Errors
    /// When the database fails, or holds a row that nothing of ours wrote.
    pub async fn invocation(&self, id: InvocationId) -> Result<Option<InvocationRow>, DatabaseError> {
        let query = invocation::Entity::find_by_id(id.0);
        self.bounded(async { query.one(&self.connection).await?.map(from_model).transpose() }).await
    }

    /// A page of calls, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn invocations(&self, wanted: &InvocationQuery) -> Result<Vec<InvocationRow>, DatabaseError> {
        use invocation::Column;
        let condition = Condition::all()
            .add_option(wanted.function.as_ref().map(|name| Column::FunctionName.eq(name.as_str())))
            .add_option(wanted.lane.as_ref().map(|lane| Column::Lane.eq(lane.as_str())))
            .add_option(wanted.caller_id.as_ref().map(|caller| Column::CallerId.eq(caller.as_str())))
            .add_option(wanted.status.map(with_status))
            .add_option(wanted.before.map(|before| Column::Id.lt(before.0)));
        let query = invocation::Entity::find().filter(condition).order_by_desc(Column::Id).limit(wanted.limit);
        let rows = self.bounded(query.all(&self.connection)).await?;
        let readable = rows.into_iter().filter_map(|row| {
            let id = row.id;
            from_model(row)
                .inspect_err(|error| tracing::warn!(invocation = %id, %error, "a row of the history can't be read"))
                .ok()
        });
        Ok(readable.collect())
    }

    /// Deletes at most `at_most` calls that ended before `time`, and such as never ended but were accepted
    /// before it. Gives their number.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_ended_before(&self, time: DateTime<Utc>, at_most: u64) -> Result<u64, DatabaseError> {
        use invocation::Column;
        let old = Query::select()
            .column(Column::Id)
            .from(invocation::Entity)
            // Accepted before it: ids begin with their time, and so the oldest come first.
            .and_where(Column::Id.lt(InvocationId::first_at(time).0))
            .cond_where(Condition::any().add(Column::EndedAt.lt(micros(time))).add(Column::EndedAt.is_null()))
            .order_by(Column::Id, Order::Asc)
            .limit(at_most)
            .to_owned();
        let delete = invocation::Entity::delete_many().filter(Column::Id.in_subquery(old));
        Ok(self.bounded(delete.exec(&self.connection)).await?.rows_affected)
    }

    /// Ends the rows of calls that were at work on `node` in an earlier life of it. Gives their number.
    /// To be called before the node takes calls.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn abandon(&self, node: &str) -> Result<u64, DatabaseError> {
        use invocation::Column;
        let update = invocation::Entity::update_many()
            .col_expr(Column::Status, Expr::value(Status::Failed.as_str()))
            .col_expr(Column::ErrorCode, Expr::value("internal"))
            .col_expr(Column::Detail, Expr::value("the server stopped while it ran"))
            .col_expr(Column::EndedAt, Expr::value(micros(Utc::now())))
            .filter(Column::Node.eq(node))
            .filter(at_work());
        Ok(self.bounded(update.exec(&self.connection)).await?.rows_affected)
    }

    /// Asks whichever server runs the call to end it. `false`: there is no such call, or it has ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn request_cancel(&self, id: InvocationId) -> Result<bool, DatabaseError> {
        use invocation::Column;
        let update = invocation::Entity::update_many()
            .col_expr(Column::CancelRequested, Expr::value(true))
            .filter(Column::Id.eq(id.0))
            .filter(at_work());
        Ok(self.bounded(update.exec(&self.connection)).await?.rows_affected > 0)
    }

    /// Asks whichever server runs the call to keep its row up with what it prints, for the next moments.
    /// Nothing happens where there is no such call, or it has ended.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn watch(&self, id: InvocationId) -> Result<(), DatabaseError> {
        use invocation::Column;
        let update = invocation::Entity::update_many()
            .col_expr(Column::WatchedAt, Expr::value(micros(Utc::now())))
            .filter(Column::Id.eq(id.0))
            .filter(at_work());
        self.bounded(update.exec(&self.connection)).await.map(drop)
    }

    /// What was asked of the calls at work on `node`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn requests(&self, node: &str) -> Result<Vec<Request>, DatabaseError> {
        use invocation::Column;
        let query = invocation::Entity::find()
            .select_only()
            .columns([Column::Id, Column::CancelRequested, Column::WatchedAt])
            .filter(at_work())
            .filter(Column::Node.eq(node))
            .filter(Condition::any().add(Column::CancelRequested.eq(true)).add(Column::WatchedAt.is_not_null()))
            .into_tuple::<(uuid::Uuid, bool, Option<i64>)>();
        let rows = self.bounded(query.all(&self.connection)).await?;
        Ok(rows.into_iter().map(|(id, cancel, watched)| Request { id: InvocationId(id), cancel, watched }).collect())
    }
}

/// What is in a state. All but one have an index, which SQLite uses only where its condition is repeated.
fn with_status(status: Status) -> Condition {
    let condition = Condition::all().add(invocation::Column::Status.eq(status.as_str()));
    if status == Status::Succeeded { condition } else { condition.add(not_succeeded()) }
}

/// What has not ended.
fn at_work() -> Condition {
    Condition::all().add(invocation::Column::Status.is_in(AT_WORK)).add(not_succeeded())
}

/// The condition of the index of states. A bound value would not be taken for it.
fn not_succeeded() -> Expr {
    ExprTrait::ne(invocation::Column::Status.into_expr(), Expr::cust("'succeeded'"))
}

/// Each call once, as a statement may not touch a row twice: its end, or else its last row.
fn last_of_each(rows: &[InvocationRow]) -> Vec<&InvocationRow> {
    let mut last: Vec<_> = rows.iter().collect();
    // In one order everywhere, so that writers don't wait for each other in a circle. As they come they are almost in it.
    last.sort_by_key(|row| row.id);
    last.dedup_by(|next, kept| {
        let is_same = next.id == kept.id;
        if is_same && !kept.status.is_end() {
            *kept = next;
        }
        is_same
    });
    last
}

fn from_model(row: invocation::Model) -> Result<InvocationRow, DbErr> {
    let output: Vec<OutputLine> = serde_json::from_str(&row.output).map_err(|error| damaged("output", error))?;
    Ok(InvocationRow {
        id: InvocationId(row.id),
        caller_id: row.caller_id.map(|caller| parse("caller", &caller)).transpose()?,
        name: parse("name", &row.function_name)?,
        lane: parse("lane", &row.lane)?,
        selector: parse("selector", &row.selector)?,
        version: row.version.map(|version| parse("version", &version)).transpose()?,
        kind: row.kind.map(|kind| parse("type", &kind)).transpose()?,
        status: Status::from_name(&row.status).ok_or_else(|| damaged("status", &row.status))?,
        error_code: row.error_code,
        detail: row.detail,
        result: row.result.map(Into::into),
        output: output.into_iter().map(Arc::new).collect(),
        output_skipped: unsigned("skipped", row.output_skipped)?,
        node: row.node.into(),
        cancel_requested: row.cancel_requested,
        created_at: time(row.created_at)?,
        started_at: row.started_at.map(time).transpose()?,
        ended_at: row.ended_at.map(time).transpose()?,
        elapsed_us: row.elapsed_us.map(|elapsed| unsigned("elapsed", elapsed)).transpose()?,
        usage: Usage {
            memory_peak_bytes: row.memory_peak_bytes.map(|bytes| unsigned("memory peak", bytes)).transpose()?,
            cpu_us: row.cpu_us.map(|time| unsigned("processor time", time)).transpose()?,
        },
        token: row.token.map(|token| parse("token", &token)).transpose()?,
    })
}
