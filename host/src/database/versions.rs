//! What is known of the store: functions and their versions.
//!
//! The store is the truth: what is inserted came from a manifest there, so it replaces what a row said
//! before, and inserting the same again changes nothing.

use std::collections::{BTreeMap, HashSet};

use sea_orm::{
    ActiveValue::Set,
    ColumnTrait, DbErr, EntityTrait, ExprTrait, FromQueryResult, PaginatorTrait, QueryFilter, QueryOrder, QuerySelect,
    sea_query::{Expr, OnConflict},
};

use super::{
    Database, DatabaseError, damaged,
    entities::{function, version},
    micros, signed, time, unsigned,
};
use crate::function::{
    Digest, EntryName, FunctionName, FunctionRef, FunctionType, Lane, Location, PushId, Shape, Version,
    reference::shape_of,
};

/// How many rows go into one statement: 13 values each, below SQLite's 32,766 and PostgreSQL's 65,535.
const CHUNK: usize = 500;

/// A function and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FunctionSummary {
    /// Its name.
    pub name: FunctionName,
    /// Its type.
    pub kind: FunctionType,
    /// In the order of their names.
    pub lanes: Vec<LaneSummary>,
}

/// What one lane holds of a function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LaneSummary {
    /// The lane.
    pub lane: Lane,
    /// The newest version there.
    pub newest: Version,
    /// How many there are.
    pub versions: u64,
}

/// One row of the summary query: a major of a function in a lane.
#[derive(Debug, FromQueryResult)]
struct MajorRow {
    function_name: String,
    lane: String,
    major: i64,
    newest_minor: i64,
    versions: i64,
}

impl Database {
    /// Keeps versions; those that are kept already are no error.
    ///
    /// # Errors
    /// When the database fails; some of them may be kept then.
    pub async fn insert_versions<'a>(
        &self,
        versions: impl IntoIterator<Item = &'a FunctionRef>,
    ) -> Result<(), DatabaseError> {
        // Each place once, as a statement may not touch a row twice; and in one order everywhere, so that
        // servers that insert the same at once don't wait for each other in a circle.
        let versions: BTreeMap<&Location, &FunctionRef> = versions.into_iter().map(|it| (&it.location, it)).collect();
        let versions: Vec<&FunctionRef> = versions.into_values().collect();
        for chunk in versions.chunks(CHUNK) {
            self.bounded(self.insert_chunk(chunk)).await?;
        }
        Ok(())
    }

    async fn insert_chunk(&self, versions: &[&FunctionRef]) -> Result<(), DbErr> {
        let names: BTreeMap<&FunctionName, &FunctionRef> =
            versions.iter().rev().map(|it| (&it.location.name, *it)).collect();
        let functions = names.into_values().map(|it| function::ActiveModel {
            name: Set(it.location.name.to_string()),
            folded_name: Set(it.location.name.folded()),
            kind: Set(it.kind.as_str().into()),
            created_at: Set(micros(it.pushed_at)),
        });
        function::Entity::insert_many(functions)
            .on_conflict_do_nothing_on([function::Column::Name])
            .exec_without_returning(&self.connection)
            .await?;

        let key =
            [version::Column::FunctionName, version::Column::Lane, version::Column::Major, version::Column::Minor];
        let values = [
            version::Column::Kind,
            version::Column::Entry,
            version::Column::Sha256,
            version::Column::Size,
            version::Column::PushId,
            version::Column::PushedAt,
            version::Column::PushedBy,
            version::Column::Shape,
            version::Column::Asks,
        ];
        let replace_another_push = OnConflict::columns(key)
            .update_columns(values)
            .action_and_where(
                Expr::col((version::Entity, version::Column::PushId))
                    .ne(Expr::col(("excluded", version::Column::PushId))),
            )
            .to_owned();
        version::Entity::insert_many(versions.iter().map(|it| to_row(it)))
            .on_conflict(replace_another_push)
            .exec_without_returning(&self.connection)
            .await?;
        Ok(())
    }

    /// One version.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn version(&self, at: &Location) -> Result<Option<FunctionRef>, DatabaseError> {
        let key = (at.name.to_string(), at.lane.to_string(), i64::from(at.version.major), i64::from(at.version.minor));
        self.bounded(async { version::Entity::find_by_id(key).one(&self.connection).await?.map(from_row).transpose() })
            .await
    }

    /// The newest version of a function in a lane, of one major where it is given.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn newest(
        &self,
        name: &FunctionName,
        lane: &Lane,
        major: Option<u32>,
    ) -> Result<Option<FunctionRef>, DatabaseError> {
        let mut query = version::Entity::find()
            .filter(version::Column::FunctionName.eq(name.as_str()))
            .filter(version::Column::Lane.eq(lane.as_str()));
        if let Some(major) = major {
            query = query.filter(version::Column::Major.eq(i64::from(major)));
        }
        query = query.order_by_desc(version::Column::Major).order_by_desc(version::Column::Minor);
        self.bounded(async { query.one(&self.connection).await?.map(from_row).transpose() }).await
    }

    /// The versions of a function, of one lane where it is given, by lane and then newest first, at most
    /// `limit` of them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn versions_of(
        &self,
        name: &FunctionName,
        lane: Option<&Lane>,
        limit: u64,
    ) -> Result<Vec<FunctionRef>, DatabaseError> {
        let mut query = version::Entity::find().filter(version::Column::FunctionName.eq(name.as_str()));
        if let Some(lane) = lane {
            query = query.filter(version::Column::Lane.eq(lane.as_str()));
        }
        query = query
            .order_by_asc(version::Column::Lane)
            .order_by_desc(version::Column::Major)
            .order_by_desc(version::Column::Minor)
            .limit(limit);
        self.bounded(async { query.all(&self.connection).await?.into_iter().map(from_row).collect() }).await
    }

    /// The functions whose names come after `after`, in their order, at most `limit` of them.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn functions(
        &self,
        after: Option<&FunctionName>,
        limit: u64,
    ) -> Result<Vec<FunctionSummary>, DatabaseError> {
        let mut query = function::Entity::find().order_by_asc(function::Column::Name).limit(limit);
        if let Some(after) = after {
            query = query.filter(function::Column::Name.gt(after.as_str()));
        }
        self.bounded(async { self.summaries(query.all(&self.connection).await?).await }).await
    }

    /// One function and the lanes it is in.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn function(&self, name: &FunctionName) -> Result<Option<FunctionSummary>, DatabaseError> {
        let query = function::Entity::find_by_id(name.as_str());
        self.bounded(async { Ok(self.summaries(query.all(&self.connection).await?).await?.pop()) }).await
    }

    async fn summaries(&self, functions: Vec<function::Model>) -> Result<Vec<FunctionSummary>, DbErr> {
        let names = functions.iter().map(|function| function.name.as_str());
        let rows: Vec<MajorRow> = version::Entity::find()
            .select_only()
            .columns([version::Column::FunctionName, version::Column::Lane, version::Column::Major])
            .column_as(version::Column::Minor.max(), "newest_minor")
            .column_as(version::Column::Minor.count(), "versions")
            .filter(version::Column::FunctionName.is_in(names))
            .group_by(version::Column::FunctionName)
            .group_by(version::Column::Lane)
            .group_by(version::Column::Major)
            .into_model()
            .all(&self.connection)
            .await?;
        let mut lanes: BTreeMap<String, BTreeMap<Lane, LaneSummary>> = BTreeMap::new();
        for row in rows {
            let lane = parse::<Lane>("lane", &row.lane)?;
            let newest = Version { major: unsigned("major", row.major)?, minor: unsigned("minor", row.newest_minor)? };
            let summary = lanes.entry(row.function_name).or_default().entry(lane.clone()).or_insert(LaneSummary {
                lane,
                newest,
                versions: 0,
            });
            summary.newest = summary.newest.max(newest);
            summary.versions += unsigned::<u64>("count", row.versions)?;
        }
        functions
            .into_iter()
            .map(|function| {
                Ok(FunctionSummary {
                    lanes: lanes.remove(&function.name).unwrap_or_default().into_values().collect(),
                    name: parse("name", &function.name)?,
                    kind: parse("type", &function.kind)?,
                })
            })
            .collect()
    }

    /// The functions whose names are this one or differ from it in case alone, with their types.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn namesakes(&self, name: &FunctionName) -> Result<Vec<(FunctionName, FunctionType)>, DatabaseError> {
        let query = function::Entity::find().filter(function::Column::FoldedName.eq(name.folded()));
        self.bounded(async {
            let rows = query.all(&self.connection).await?;
            rows.iter().map(|row| Ok((parse("name", &row.name)?, parse("type", &row.kind)?))).collect()
        })
        .await
    }

    /// Every lane that holds a version, in order.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn lanes(&self) -> Result<Vec<Lane>, DatabaseError> {
        let query = version::Entity::find()
            .select_only()
            .column(version::Column::Lane)
            .distinct()
            .order_by_asc(version::Column::Lane)
            .into_tuple::<String>();
        self.bounded(async { query.all(&self.connection).await?.iter().map(|lane| parse("lane", lane)).collect() })
            .await
    }

    /// How many versions are known.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_versions(&self) -> Result<u64, DatabaseError> {
        self.bounded(version::Entity::find().count(&self.connection)).await
    }

    /// Which functions are known to have this version in this lane: what is known of one folder of the store.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn known(&self, lane: &Lane, version: Version) -> Result<HashSet<FunctionName>, DatabaseError> {
        let query = version::Entity::find()
            .select_only()
            .column(version::Column::FunctionName)
            .filter(version::Column::Lane.eq(lane.as_str()))
            .filter(version::Column::Major.eq(i64::from(version.major)))
            .filter(version::Column::Minor.eq(i64::from(version.minor)))
            .into_tuple::<String>();
        self.bounded(async { query.all(&self.connection).await?.iter().map(|name| parse("name", name)).collect() })
            .await
    }
}

fn to_row(it: &FunctionRef) -> version::ActiveModel {
    version::ActiveModel {
        function_name: Set(it.location.name.to_string()),
        lane: Set(it.location.lane.to_string()),
        major: Set(i64::from(it.location.version.major)),
        minor: Set(i64::from(it.location.version.minor)),
        kind: Set(it.kind.as_str().into()),
        entry: Set(it.entry.to_string()),
        sha256: Set(it.sha256.to_string()),
        size: Set(signed(it.size)),
        push_id: Set(it.push_id.0),
        pushed_at: Set(micros(it.pushed_at)),
        // PostgreSQL's text holds no U+0000.
        pushed_by: Set(it.pushed_by.as_ref().map(|who| who.replace('\0', "\u{fffd}"))),
        shape: Set(it.shape.map(|shape| shape.as_str().into())),
        // Plain lists of texts always have a JSON form.
        asks: Set(it.asks.as_ref().and_then(|asks| serde_json::to_string(asks).ok())),
    }
}

fn from_row(row: version::Model) -> Result<FunctionRef, DbErr> {
    let kind = parse::<FunctionType>("type", &row.kind)?;
    let shape = row.shape.map(|shape| Shape::from_name(&shape).ok_or_else(|| damaged("shape", &shape))).transpose()?;
    let asks = row.asks.map(|asks| serde_json::from_str(&asks).map_err(|_| damaged("what a version asks for", &asks)));
    Ok(FunctionRef {
        location: Location {
            lane: parse("lane", &row.lane)?,
            version: Version { major: unsigned("major", row.major)?, minor: unsigned("minor", row.minor)? },
            name: parse("name", &row.function_name)?,
        },
        kind,
        shape: shape_of(kind, shape),
        asks: asks.transpose()?,
        entry: parse::<EntryName>("entry", &row.entry)?,
        sha256: parse::<Digest>("digest", &row.sha256)?,
        size: unsigned("size", row.size)?,
        push_id: PushId(row.push_id),
        pushed_at: time(row.pushed_at)?,
        pushed_by: row.pushed_by,
    })
}

pub(super) fn parse<T: std::str::FromStr>(what: &str, value: &str) -> Result<T, DbErr> {
    value.parse().map_err(|_| damaged(what, value))
}
