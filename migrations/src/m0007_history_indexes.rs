//! Fewer indexes on the history, since each call pays for every one of them.

use sea_orm_migration::{async_trait, prelude::*};

#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Invocations {
    Table,
    Id,
    CallerId,
    Status,
    EndedAt,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        // Ids are ordered by time, and so say what is old enough to go.
        for name in ["invocations_ended", "invocations_status", "invocations_caller"] {
            manager.drop_index(Index::drop().name(name).table(Invocations::Table).to_owned()).await?;
        }
        // Most calls succeed: whoever looks for those finds them anywhere.
        let status = page("invocations_status", Invocations::Status)
            .and_where(Expr::col(Invocations::Status).ne("succeeded"))
            .take();
        manager.create_index(status).await?;
        // Many say nothing of their caller.
        let caller = page("invocations_caller", Invocations::CallerId)
            .and_where(Expr::col(Invocations::CallerId).is_not_null())
            .take();
        manager.create_index(caller).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for (name, column) in
            [("invocations_status", Invocations::Status), ("invocations_caller", Invocations::CallerId)]
        {
            manager.drop_index(Index::drop().name(name).table(Invocations::Table).to_owned()).await?;
            manager.create_index(page(name, column)).await?;
        }
        let ended =
            Index::create().name("invocations_ended").table(Invocations::Table).col(Invocations::EndedAt).take();
        manager.create_index(ended).await
    }
}

/// Gives a page of history, newest first, without a sort.
fn page(name: &str, column: Invocations) -> IndexCreateStatement {
    Index::create().name(name).table(Invocations::Table).col(column).col(Invocations::Id).take()
}
