//! The history of calls.

use sea_orm_migration::{async_trait, prelude::*, schema::*};

#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Invocations {
    Table,
    Id,
    CallerId,
    FunctionName,
    Lane,
    Selector,
    Version,
    Kind,
    Status,
    ErrorCode,
    Detail,
    Result,
    Output,
    OutputSkipped,
    Node,
    CancelRequested,
    WatchedAt,
    CreatedAt,
    StartedAt,
    EndedAt,
    ElapsedUs,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let invocations = Table::create()
            .table(Invocations::Table)
            .col(uuid(Invocations::Id).primary_key())
            .col(text_null(Invocations::CallerId))
            .col(text(Invocations::FunctionName))
            .col(text(Invocations::Lane))
            .col(text(Invocations::Selector))
            .col(text_null(Invocations::Version))
            .col(text_null(Invocations::Kind))
            .col(text(Invocations::Status))
            .col(text_null(Invocations::ErrorCode))
            .col(text_null(Invocations::Detail))
            .col(text_null(Invocations::Result))
            .col(text(Invocations::Output))
            .col(big_integer(Invocations::OutputSkipped))
            .col(text(Invocations::Node))
            .col(boolean(Invocations::CancelRequested))
            .col(big_integer_null(Invocations::WatchedAt))
            .col(big_integer(Invocations::CreatedAt))
            .col(big_integer_null(Invocations::StartedAt))
            .col(big_integer_null(Invocations::EndedAt))
            .col(big_integer_null(Invocations::ElapsedUs))
            .take();
        manager.create_table(invocations).await?;

        // Ids are ordered by time, so each of these gives a page of history, newest first, without a sort.
        let pages = [
            ("invocations_function", Invocations::FunctionName),
            ("invocations_lane", Invocations::Lane),
            ("invocations_caller", Invocations::CallerId),
            ("invocations_status", Invocations::Status),
        ];
        for (name, column) in pages {
            let index = Index::create().name(name).table(Invocations::Table).col(column).col(Invocations::Id).take();
            manager.create_index(index).await?;
        }
        // What is old enough to go.
        let ended =
            Index::create().name("invocations_ended").table(Invocations::Table).col(Invocations::EndedAt).take();
        manager.create_index(ended).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.drop_table(Table::drop().table(Invocations::Table).take()).await
    }
}
