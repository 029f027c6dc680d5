//! What is in the store: functions and their versions.

use sea_orm_migration::{async_trait, prelude::*, schema::*};

#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Functions {
    Table,
    Name,
    FoldedName,
    Kind,
    CreatedAt,
}

#[derive(DeriveIden)]
enum Versions {
    Table,
    FunctionName,
    Lane,
    Major,
    Minor,
    Kind,
    Entry,
    Sha256,
    Size,
    PushId,
    PushedAt,
    PushedBy,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let functions = Table::create()
            .table(Functions::Table)
            .col(text(Functions::Name).primary_key())
            .col(text(Functions::FoldedName))
            .col(text(Functions::Kind))
            .col(big_integer(Functions::CreatedAt))
            .take();
        manager.create_table(functions).await?;
        // Not unique: two names that differ in case alone are refused when they are pushed, but where
        // two servers took one each at the same moment, both are in the store and both can be called.
        let folded =
            Index::create().name("functions_folded_name").table(Functions::Table).col(Functions::FoldedName).take();
        manager.create_index(folded).await?;

        let versions = Table::create()
            .table(Versions::Table)
            .col(text(Versions::FunctionName))
            .col(text(Versions::Lane))
            .col(big_integer(Versions::Major))
            .col(big_integer(Versions::Minor))
            .col(text(Versions::Kind))
            .col(text(Versions::Entry))
            .col(text(Versions::Sha256))
            .col(big_integer(Versions::Size))
            .col(uuid(Versions::PushId))
            .col(big_integer(Versions::PushedAt))
            .col(text_null(Versions::PushedBy))
            // Read backwards, it gives the newest of a function and lane, and of a major, without a sort.
            .primary_key(
                Index::create()
                    .col(Versions::FunctionName)
                    .col(Versions::Lane)
                    .col(Versions::Major)
                    .col(Versions::Minor),
            )
            .foreign_key(
                ForeignKey::create()
                    .name("versions_function_name")
                    .from(Versions::Table, Versions::FunctionName)
                    .to(Functions::Table, Functions::Name),
            )
            .take();
        manager.create_table(versions).await?;
        // What is known of one version folder of the store.
        let folder = Index::create()
            .name("versions_folder")
            .table(Versions::Table)
            .col(Versions::Lane)
            .col(Versions::Major)
            .col(Versions::Minor)
            .take();
        manager.create_index(folder).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table(Versions::Table).take()).await?;
        manager.drop_table(Table::drop().table(Functions::Table).take()).await
    }
}
