//! `versions`

use sea_orm::entity::prelude::*;

#[derive(Debug, Clone, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "versions")]
pub struct Model {
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub function_name: String,
    #[sea_orm(primary_key, auto_increment = false, column_type = "Text")]
    pub lane: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub major: i64,
    #[sea_orm(primary_key, auto_increment = false)]
    pub minor: i64,
    #[sea_orm(column_type = "Text")]
    pub kind: String,
    #[sea_orm(column_type = "Text")]
    pub entry: String,
    /// In hexadecimal.
    #[sea_orm(column_type = "Text")]
    pub sha256: String,
    /// Bytes.
    pub size: i64,
    pub push_id: Uuid,
    /// Microseconds since the epoch.
    pub pushed_at: i64,
    #[sea_orm(column_type = "Text", nullable)]
    pub pushed_by: Option<String>,
    /// Of components; none where an older server wrote the row.
    #[sea_orm(column_type = "Text", nullable)]
    pub shape: Option<String>,
    /// JSON; none where it asks for nothing.
    #[sea_orm(column_type = "Text", nullable)]
    pub asks: Option<String>,
}

#[derive(Debug, Clone, Copy, EnumIter, DeriveRelation)]
pub enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
