//! `invocations`

use sea_orm::entity::prelude::*;

#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "invocations")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    #[sea_orm(column_type = "Text", nullable)]
    pub caller_id: Option<String>,
    #[sea_orm(column_type = "Text")]
    pub function_name: String,
    #[sea_orm(column_type = "Text")]
    pub lane: String,
    #[sea_orm(column_type = "Text")]
    pub selector: String,
    #[sea_orm(column_type = "Text", nullable)]
    pub version: Option<String>,
    #[sea_orm(column_type = "Text", nullable)]
    pub kind: Option<String>,
    #[sea_orm(column_type = "Text")]
    pub status: String,
    #[sea_orm(column_type = "Text", nullable)]
    pub error_code: Option<String>,
    #[sea_orm(column_type = "Text", nullable)]
    pub detail: Option<String>,
    #[sea_orm(column_type = "Text", nullable)]
    pub result: Option<String>,
    /// A JSON list of lines.
    #[sea_orm(column_type = "Text")]
    pub output: String,
    pub output_skipped: i64,
    #[sea_orm(column_type = "Text")]
    pub node: String,
    pub cancel_requested: bool,
    /// Changes each time that somebody on another server asks for what the call prints.
    #[sea_orm(nullable)]
    pub watched_at: Option<i64>,
    /// Microseconds since the epoch, as the other times.
    pub created_at: i64,
    #[sea_orm(nullable)]
    pub started_at: Option<i64>,
    #[sea_orm(nullable)]
    pub ended_at: Option<i64>,
    #[sea_orm(nullable)]
    pub elapsed_us: Option<i64>,
    #[sea_orm(nullable)]
    pub memory_peak_bytes: Option<i64>,
    #[sea_orm(nullable)]
    pub cpu_us: Option<i64>,
    /// The name of the token that the call was made with.
    #[sea_orm(column_type = "Text", nullable)]
    pub token: Option<String>,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
