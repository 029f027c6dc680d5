//! What calls took: memory and processor time.

use sea_orm_migration::{async_trait, prelude::*};

#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

/// SQLite adds one column at a time.
const COLUMNS: [&str; 2] = ["memory_peak_bytes", "cpu_us"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in COLUMNS {
            let sql = format!("ALTER TABLE invocations ADD COLUMN {column} BIGINT");
            manager.get_connection().execute_unprepared(&sql).await?;
        }
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for column in COLUMNS {
            let sql = format!("ALTER TABLE invocations DROP COLUMN {column}");
            manager.get_connection().execute_unprepared(&sql).await?;
        }
        Ok(())
    }
}
