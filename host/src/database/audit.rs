//! The audit: who did what to the server, in rows that are written once. The database refuses to change them.

use std::net::IpAddr;

use chrono::{DateTime, Utc};
use sea_orm::{
    ActiveValue::Set, ColumnTrait, Condition, ConnectionTrait, DbErr, EntityTrait, QueryFilter, QueryOrder, QuerySelect,
};
use serde::Serialize;
use uuid::Uuid;

use super::{Database, DatabaseError, entities::audit, micros, time};

/// Something that somebody did, or tried to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// Ordered by time.
    pub id: Uuid,
    /// When.
    pub at: DateTime<Utc>,
    /// The token; none where the server asked for none.
    pub actor: Option<String>,
    /// From where.
    pub address: Option<String>,
    /// What: `push`, `denied`, `token.create`, …
    pub action: String,
    /// To what.
    pub target: String,
    /// What else is to be known.
    pub detail: Option<String>,
}

impl AuditEntry {
    /// An entry of this moment.
    #[must_use]
    pub fn new(actor: Option<&str>, address: Option<IpAddr>, action: &str, target: impl Into<String>) -> Self {
        Self {
            id: Uuid::now_v7(),
            at: Utc::now(),
            actor: actor.map(str::to_owned),
            address: address.map(|address| address.to_string()),
            action: action.to_owned(),
            target: target.into(),
            detail: None,
        }
    }

    /// With what else is to be known.
    #[must_use]
    pub fn with(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }
}

/// Which entries [`Database::audit`] gives.
#[derive(Debug, Clone, Default)]
pub struct AuditQuery {
    /// Of this token only.
    pub actor: Option<String>,
    /// Of this kind only.
    pub action: Option<String>,
    /// Older than this entry.
    pub before: Option<Uuid>,
    /// At most this many.
    pub limit: u64,
}

impl Database {
    /// Writes entries.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audited(&self, entries: Vec<AuditEntry>) -> Result<(), DatabaseError> {
        let rows = audit::Entity::insert_many(entries.into_iter().map(to_model));
        self.bounded(rows.exec_without_returning(&self.connection)).await.map(drop)
    }

    /// A page of entries, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn audit(&self, wanted: &AuditQuery) -> Result<Vec<AuditEntry>, DatabaseError> {
        use audit::Column;
        let condition = Condition::all()
            .add_option(wanted.actor.as_deref().map(|actor| Column::Actor.eq(actor)))
            .add_option(wanted.action.as_deref().map(|action| Column::Action.eq(action)))
            .add_option(wanted.before.map(|before| Column::Id.lt(before)));
        let query = audit::Entity::find().filter(condition).order_by_desc(Column::Id).limit(wanted.limit);
        let rows = self.bounded(query.all(&self.connection)).await?;
        Ok(rows.into_iter().map(from_model).collect::<Result<_, _>>()?)
    }
}

pub(super) async fn insert(entry: AuditEntry, connection: &impl ConnectionTrait) -> Result<(), DbErr> {
    audit::Entity::insert(to_model(entry)).exec_without_returning(connection).await.map(drop)
}

fn to_model(entry: AuditEntry) -> audit::ActiveModel {
    audit::ActiveModel {
        id: Set(entry.id),
        at: Set(micros(entry.at)),
        actor: Set(entry.actor),
        address: Set(entry.address),
        action: Set(entry.action),
        target: Set(entry.target),
        detail: Set(entry.detail),
    }
}

fn from_model(row: audit::Model) -> Result<AuditEntry, DbErr> {
    Ok(AuditEntry {
        id: row.id,
        at: time(row.at)?,
        actor: row.actor,
        address: row.address,
        action: row.action,
        target: row.target,
        detail: row.detail,
    })
}
