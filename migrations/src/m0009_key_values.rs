//! What functions keep between calls, and what versions ask for.

use sea_orm_migration::{async_trait, prelude::*, schema::*};

#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum KeyValues {
    Table,
    FunctionName,
    Lane,
    Store,
    Key,
    Value,
}

/// How much each store holds, so that its bound need not be counted.
#[derive(DeriveIden)]
enum KeyValueStores {
    Table,
    FunctionName,
    Lane,
    Store,
    Bytes,
    Keys,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let values = Table::create()
            .table(KeyValues::Table)
            .col(text(KeyValues::FunctionName))
            .col(text(KeyValues::Lane))
            .col(text(KeyValues::Store))
            // As bytes, since a key may hold any character, and so that they have one order everywhere.
            .col(blob(KeyValues::Key))
            .col(blob(KeyValues::Value))
            .primary_key(
                Index::create()
                    .col(KeyValues::FunctionName)
                    .col(KeyValues::Lane)
                    .col(KeyValues::Store)
                    .col(KeyValues::Key),
            )
            .take();
        manager.create_table(values).await?;
        let stores = Table::create()
            .table(KeyValueStores::Table)
            .col(text(KeyValueStores::FunctionName))
            .col(text(KeyValueStores::Lane))
            .col(text(KeyValueStores::Store))
            .col(big_integer(KeyValueStores::Bytes))
            .col(big_integer(KeyValueStores::Keys))
            .primary_key(
                Index::create().col(KeyValueStores::FunctionName).col(KeyValueStores::Lane).col(KeyValueStores::Store),
            )
            .take();
        manager.create_table(stores).await?;
        manager.get_connection().execute_unprepared("ALTER TABLE versions ADD COLUMN asks TEXT").await?;
        Ok(())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared("ALTER TABLE versions DROP COLUMN asks").await?;
        manager.drop_table(Table::drop().table(KeyValueStores::Table).take()).await?;
        manager.drop_table(Table::drop().table(KeyValues::Table).take()).await
    }
}
