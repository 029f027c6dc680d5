//! The ids of encrypted payloads that have been used: each may be used once, on all servers of the database.

use chrono::{DateTime, Utc};
use sea_orm::{ActiveValue::Set, ColumnTrait, EntityTrait, QueryFilter, sea_query::OnConflict};

use super::{Database, DatabaseError, entities::payload_id, micros};

impl Database {
    /// Takes the id with that digest, which is remembered until `expires_at`. `false`: it was taken before.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn take_payload_id(&self, digest: &[u8], expires_at: DateTime<Utc>) -> Result<bool, DatabaseError> {
        let row = payload_id::ActiveModel { digest: Set(digest.to_vec()), expires_at: Set(micros(expires_at)) };
        let insert = payload_id::Entity::insert(row)
            .on_conflict(OnConflict::column(payload_id::Column::Digest).do_nothing().to_owned());
        let inserted = self.bounded(insert.exec_without_returning(&self.connection)).await?;
        Ok(inserted > 0)
    }

    /// Forgets the ids of payloads that have expired.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget_payload_ids(&self, before: DateTime<Utc>) -> Result<u64, DatabaseError> {
        let delete = payload_id::Entity::delete_many().filter(payload_id::Column::ExpiresAt.lt(micros(before)));
        Ok(self.bounded(delete.exec(&self.connection)).await?.rows_affected)
    }
}
