//! Tokens, the servers that know them, the ids of encrypted payloads, and the audit.

use sea_orm_migration::{
    async_trait,
    prelude::*,
    schema::*,
    sea_orm::{ConnectionTrait, DbBackend},
};

#[derive(Debug, DeriveMigrationName)]
pub(crate) struct Migration;

#[derive(DeriveIden)]
enum Tokens {
    Table,
    Id,
    Name,
    Digest,
    Scopes,
    CreatedAt,
    CreatedBy,
    ExpiresAt,
}

/// One row: how often the tokens have changed.
#[derive(DeriveIden)]
enum TokenRevisions {
    Table,
    Id,
    Revision,
}

/// The servers, and which revision of the tokens each of them knows.
#[derive(DeriveIden)]
enum TokenNodes {
    Table,
    Node,
    Revision,
    SeenAt,
}

#[derive(DeriveIden)]
enum PayloadIds {
    Table,
    Digest,
    ExpiresAt,
}

#[derive(DeriveIden)]
enum Audit {
    Table,
    Id,
    At,
    Actor,
    Address,
    Action,
    Target,
    Detail,
}

#[derive(DeriveIden)]
enum Invocations {
    Table,
    Token,
}

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let tokens = Table::create()
            .table(Tokens::Table)
            .col(uuid(Tokens::Id).primary_key())
            .col(text_uniq(Tokens::Name))
            .col(binary(Tokens::Digest))
            .col(text(Tokens::Scopes))
            .col(big_integer(Tokens::CreatedAt))
            .col(text_null(Tokens::CreatedBy))
            .col(big_integer_null(Tokens::ExpiresAt))
            .take();
        let revisions = Table::create()
            .table(TokenRevisions::Table)
            .col(big_integer(TokenRevisions::Id).primary_key())
            .col(big_integer(TokenRevisions::Revision))
            .take();
        let nodes = Table::create()
            .table(TokenNodes::Table)
            .col(text(TokenNodes::Node).primary_key())
            .col(big_integer(TokenNodes::Revision))
            .col(big_integer(TokenNodes::SeenAt))
            .take();
        let payload_ids = Table::create()
            .table(PayloadIds::Table)
            .col(binary(PayloadIds::Digest).primary_key())
            .col(big_integer(PayloadIds::ExpiresAt))
            .take();
        let audit = Table::create()
            .table(Audit::Table)
            .col(uuid(Audit::Id).primary_key())
            .col(big_integer(Audit::At))
            .col(text_null(Audit::Actor))
            .col(text_null(Audit::Address))
            .col(text(Audit::Action))
            .col(text(Audit::Target))
            .col(text_null(Audit::Detail))
            .take();
        for table in [tokens, revisions, nodes, payload_ids, audit] {
            manager.create_table(table).await?;
        }
        let first = Query::insert()
            .into_table(TokenRevisions::Table)
            .columns([TokenRevisions::Id, TokenRevisions::Revision])
            .values_panic([1.into(), 0.into()])
            .take();
        manager.execute(first).await?;
        let expired =
            Index::create().name("payload_ids_expires").table(PayloadIds::Table).col(PayloadIds::ExpiresAt).take();
        manager.create_index(expired).await?;
        let token = Table::alter().table(Invocations::Table).add_column(text_null(Invocations::Token)).take();
        manager.alter_table(token).await?;
        append_only(manager).await
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.alter_table(Table::alter().table(Invocations::Table).drop_column(Invocations::Token).take()).await?;
        for table in [
            Table::drop().table(Audit::Table).take(),
            Table::drop().table(PayloadIds::Table).take(),
            Table::drop().table(TokenNodes::Table).take(),
            Table::drop().table(TokenRevisions::Table).take(),
            Table::drop().table(Tokens::Table).take(),
        ] {
            manager.drop_table(table).await?;
        }
        Ok(())
    }
}

/// Rows of the audit are written once: the database itself refuses to change or remove one.
async fn append_only(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let database = manager.get_connection();
    let statements: &[&str] = if database.get_database_backend() == DbBackend::Postgres {
        &[
            "CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS \
             $$ BEGIN RAISE EXCEPTION 'the audit is append-only'; END $$",
            "CREATE TRIGGER audit_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit \
             FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only()",
        ]
    } else {
        &[
            "CREATE TRIGGER audit_no_update BEFORE UPDATE ON audit \
             BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END",
            "CREATE TRIGGER audit_no_delete BEFORE DELETE ON audit \
             BEGIN SELECT RAISE(ABORT, 'the audit is append-only'); END",
        ]
    };
    for statement in statements {
        database.execute_unprepared(statement).await?;
    }
    Ok(())
}
