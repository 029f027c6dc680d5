//! Tokens, and how each server of the database comes to know that they changed.
//!
//! Every change counts up one revision, in the same transaction. A server tells the database which revision it
//! knows, so that whoever changes tokens can wait until all servers know; PostgreSQL also wakes the servers at
//! the moment of the change.

use std::collections::HashSet;

use chrono::{DateTime, TimeDelta, Utc};
use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, EntityTrait, ExprTrait, QueryFilter,
    QuerySelect, SqliteTransactionMode, TransactionOptions, TransactionTrait,
    sea_query::{Expr, OnConflict, Query},
    sqlx::postgres::{PgListener, PgPoolOptions},
};
use uuid::Uuid;

use super::{
    AuditEntry, Database, DatabaseError, audit, damaged,
    entities::{token, token_node, token_revision},
    micros, time,
    versions::parse,
};
use crate::function::TokenName;

/// What PostgreSQL calls the news.
const CHANNEL: &str = "sharpfaas_tokens";
/// The one row that counts.
const COUNTER: i64 = 1;
/// Rows of servers that were not seen for so long are removed.
const FORGET: TimeDelta = TimeDelta::days(1);

/// A token as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRow {
    /// Its id, which is a part of its text.
    pub id: Uuid,
    /// Its name, which no other has.
    pub name: TokenName,
    /// SHA-256 of its secret.
    pub digest: Vec<u8>,
    /// What it may do, as JSON.
    pub scopes: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// The token that made it.
    pub created_by: Option<String>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
}

/// What became of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenChange {
    /// Done, as this revision.
    Done(i64),
    /// Another token has the name; or there is none of that name.
    Name,
    /// As many tokens as there may be are there.
    Full,
    /// It is not as `allowed` would have it.
    Refused,
}

impl Database {
    /// All tokens, and the revision that they are at least of.
    ///
    /// # Errors
    /// When the database fails, or holds a row that nothing of ours wrote.
    pub async fn tokens(&self) -> Result<(i64, Vec<TokenRow>), DatabaseError> {
        let revision = self.token_revision().await?;
        let rows = self.bounded(token::Entity::find().all(&self.connection)).await?;
        Ok((revision, rows.into_iter().map(from_model).collect::<Result<_, _>>()?))
    }

    /// How often the tokens have changed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn token_revision(&self) -> Result<i64, DatabaseError> {
        let row = token_revision::Entity::find_by_id(COUNTER).one(&self.connection);
        self.bounded(async { Ok(row.await?.map_or(0, |row| row.revision)) }).await
    }

    /// Keeps a new token, one of `most` at most, if `allowed` says so of those that are there; and the change's
    /// entry in the audit with it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn insert_token(
        &self,
        row: &TokenRow,
        most: usize,
        entry: AuditEntry,
        allowed: impl Fn(&[TokenRow]) -> bool,
    ) -> Result<TokenChange, DatabaseError> {
        self.bounded(async {
            let (transaction, there) = self.change_tokens().await?;
            if there.iter().any(|token| token.name == row.name) {
                return Ok(TokenChange::Name);
            }
            if there.len() >= most {
                return Ok(TokenChange::Full);
            }
            if !allowed(&there) {
                return Ok(TokenChange::Refused);
            }
            let model = token::ActiveModel {
                id: Set(row.id),
                name: Set(row.name.to_string()),
                digest: Set(row.digest.clone()),
                scopes: Set(row.scopes.clone()),
                created_at: Set(micros(row.created_at)),
                created_by: Set(row.created_by.clone()),
                expires_at: Set(row.expires_at.map(micros)),
            };
            token::Entity::insert(model).exec_without_returning(&transaction).await?;
            finish(transaction, entry).await
        })
        .await
    }

    /// Removes the token of that name, if `allowed` says so of those that would be left; and keeps the change's
    /// entry in the audit with it.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_token(
        &self,
        name: &TokenName,
        entry: AuditEntry,
        allowed: impl Fn(&[TokenRow]) -> bool,
    ) -> Result<TokenChange, DatabaseError> {
        self.bounded(async {
            let (transaction, mut there) = self.change_tokens().await?;
            let Some(at) = there.iter().position(|token| token.name == *name) else { return Ok(TokenChange::Name) };
            let token = there.remove(at);
            if !allowed(&there) {
                return Ok(TokenChange::Refused);
            }
            token::Entity::delete_by_id(token.id).exec(&transaction).await?;
            finish(transaction, entry).await
        })
        .await
    }

    /// A transaction in which nobody else changes tokens, and the tokens.
    async fn change_tokens(&self) -> Result<(DatabaseTransaction, Vec<TokenRow>), DbErr> {
        let options = TransactionOptions {
            sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
            ..TransactionOptions::default()
        };
        let transaction = self.connection.begin_with_options(options).await?;
        // Locks the row, so that others wait here.
        token_revision::Entity::update_many()
            .col_expr(token_revision::Column::Revision, Expr::col(token_revision::Column::Revision).add(1))
            .filter(token_revision::Column::Id.eq(COUNTER))
            .exec(&transaction)
            .await?;
        let rows = token::Entity::find().all(&transaction).await?;
        let rows = rows.into_iter().map(from_model).collect::<Result<_, _>>()?;
        Ok((transaction, rows))
    }

    /// Whether several servers may share this database.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.connection.get_database_backend() == DbBackend::Postgres
    }

    /// Tells that the server `node` is there and knows the tokens of that revision.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn knows_tokens(&self, node: &str, revision: i64) -> Result<(), DatabaseError> {
        use token_node::Column;
        let insert = Query::insert()
            .into_table(token_node::Entity)
            .columns([Column::Node, Column::Revision, Column::SeenAt])
            .values_panic([Expr::value(node), Expr::value(revision), database_time()])
            .on_conflict(OnConflict::column(Column::Node).update_columns([Column::Revision, Column::SeenAt]).to_owned())
            .to_owned();
        self.bounded(self.connection.execute(&insert)).await.map(drop)
    }

    /// The servers that were seen within `within`, but know less than that revision.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn behind_on_tokens(&self, revision: i64, within: TimeDelta) -> Result<HashSet<String>, DatabaseError> {
        use token_node::Column;
        let micros = within.num_microseconds().unwrap_or(i64::MAX);
        let query = token_node::Entity::find()
            .select_only()
            .column(Column::Node)
            .filter(Column::Revision.lt(revision))
            .filter(Expr::col(Column::SeenAt).gt(database_time().sub(micros)))
            .into_tuple::<String>();
        Ok(self.bounded(query.all(&self.connection)).await?.into_iter().collect())
    }

    /// Removes the server `node`, which stops, and those that have not been seen for long.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_node(&self, node: &str) -> Result<(), DatabaseError> {
        use token_node::Column;
        let long_ago = database_time().sub(FORGET.num_microseconds().unwrap_or(i64::MAX));
        let delete =
            token_node::Entity::delete_many().filter(Column::Node.eq(node).or(Expr::col(Column::SeenAt).lt(long_ago)));
        self.bounded(delete.exec(&self.connection)).await.map(drop)
    }

    /// What tells at once that tokens changed, where the database can.
    #[must_use]
    pub fn token_news(&self) -> TokenNews {
        TokenNews { database: self.clone(), listener: None }
    }
}

/// Microseconds since the epoch by PostgreSQL's clock: those of the servers may differ.
fn database_time() -> Expr {
    Expr::cust("(EXTRACT(EPOCH FROM clock_timestamp()) * 1000000)::bigint")
}

async fn finish(transaction: DatabaseTransaction, entry: AuditEntry) -> Result<TokenChange, DbErr> {
    audit::insert(entry, &transaction).await?;
    let row = token_revision::Entity::find_by_id(COUNTER).one(&transaction).await?;
    let revision = row.ok_or_else(|| damaged("revision", "none"))?.revision;
    if transaction.get_database_backend() == DbBackend::Postgres {
        // Delivered when the transaction is committed.
        transaction.execute_unprepared(&format!("NOTIFY {CHANNEL}")).await?;
    }
    transaction.commit().await?;
    Ok(TokenChange::Done(revision))
}

/// News of changes of tokens.
#[derive(Debug)]
pub struct TokenNews {
    database: Database,
    listener: Option<PgListener>,
}

impl TokenNews {
    /// Waits until tokens may have changed. With SQLite, whose one server makes all changes itself, it never
    /// ends. Safe to drop at any point.
    ///
    /// # Errors
    /// When the connection is lost; the next call makes another.
    pub async fn next(&mut self) -> Result<(), DatabaseError> {
        if !self.database.is_shared() {
            return std::future::pending().await;
        }
        if self.listener.is_none() {
            self.listener = Some(self.database.bounded(self.listen()).await?);
            // What happened before is news too.
            return Ok(());
        }
        let Some(listener) = &mut self.listener else { return Ok(()) };
        match listener.try_recv().await {
            Ok(Some(_)) => Ok(()),
            lost => {
                self.listener = None;
                let why = lost.err().map_or_else(|| "closed".to_owned(), |error| error.to_string());
                Err(DatabaseError::Unavailable(why))
            }
        }
    }

    /// On a connection of its own, which nobody waits for.
    async fn listen(&self) -> Result<PgListener, DbErr> {
        let options = self.database.connection.get_postgres_connection_pool().connect_options();
        let pool = PgPoolOptions::new().max_connections(1).connect_lazy_with((*options).clone());
        let failed = |error: sea_orm::sqlx::Error| DbErr::Conn(sea_orm::RuntimeErr::SqlxError(error.into()));
        let mut listener = PgListener::connect_with(&pool).await.map_err(failed)?;
        listener.listen(CHANNEL).await.map_err(failed)?;
        Ok(listener)
    }
}

fn from_model(row: token::Model) -> Result<TokenRow, DbErr> {
    Ok(TokenRow {
        id: row.id,
        name: parse("token", &row.name)?,
        digest: row.digest,
        scopes: row.scopes,
        created_at: time(row.created_at)?,
        created_by: row.created_by,
        expires_at: row.expires_at.map(time).transpose()?,
    })
}
