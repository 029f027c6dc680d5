//! `GET /api/functions…`: what is in the store.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Problem, Services, caller::Caller, error::ProblemDocument, fields::Fields, grants::Reach};
use crate::{
    config::Grant,
    database::FunctionSummary,
    function::{ErrorCode, FunctionName, FunctionRef, FunctionType, Lane, Selector, Shape},
    security::Verb,
};

/// The largest page.
const MAX_PAGE: u64 = 1000;
/// How many versions of one function are listed.
const MAX_VERSIONS: u64 = 10_000;
/// The page where none is asked for.
const PAGE: u64 = 100;

/// A page of functions, in the order of their names.
#[derive(Debug, Serialize, ToSchema)]
pub struct FunctionsPage {
    functions: Vec<FunctionView>,
    /// Give this as `after` to get the next page; none: there is none.
    next: Option<String>,
}

/// A function.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FunctionView {
    function_name: String,
    #[serde(rename = "type")]
    kind: FunctionType,
    lanes: Vec<LaneView>,
    /// All versions, newest first in each lane; only where one function is asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    versions: Option<Vec<VersionView>>,
}

/// What a lane holds of a function.
#[derive(Debug, Serialize, ToSchema)]
pub struct LaneView {
    lane: String,
    /// The newest version.
    newest: String,
    /// How many versions there are.
    versions: u64,
}

/// One version.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionView {
    function_name: String,
    lane: String,
    version: String,
    #[serde(rename = "type")]
    kind: FunctionType,
    /// The file that runs.
    entry: String,
    /// How it is run, of a component.
    #[serde(skip_serializing_if = "Option::is_none")]
    shape: Option<Shape>,
    #[serde(flatten)]
    reach: Reach,
    /// Of the package.
    sha256: String,
    /// Of the package, in bytes.
    size: u64,
    pushed_at: DateTime<Utc>,
    /// Who pushed it, where known.
    pushed_by: Option<String>,
}

impl From<FunctionSummary> for FunctionView {
    fn from(summary: FunctionSummary) -> Self {
        let lanes = summary.lanes.into_iter().map(|lane| LaneView {
            lane: lane.lane.to_string(),
            newest: lane.newest.to_string(),
            versions: lane.versions,
        });
        Self { function_name: summary.name.to_string(), kind: summary.kind, lanes: lanes.collect(), versions: None }
    }
}

impl VersionView {
    fn of(function: &FunctionRef, grants: &[Grant]) -> Self {
        Self {
            function_name: function.location.name.to_string(),
            lane: function.location.lane.to_string(),
            version: function.location.version.to_string(),
            kind: function.kind,
            entry: function.entry.to_string(),
            shape: function.shape,
            reach: Reach::of(function, grants),
            sha256: function.sha256.to_string(),
            size: function.size,
            pushed_at: function.pushed_at,
            pushed_by: function.pushed_by.clone(),
        }
    }
}

/// Lists functions.
#[utoipa::path(
    get,
    path = "/api/functions",
    tag = "functions",
    params(
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "At most this many, 1 to 1000; 100 where none is given"),
        ("after" = Option<String>, Query, description = "Those after this name: `next` of the page before"),
    ),
    responses(
        (status = 200, body = FunctionsPage),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn list(request: HttpRequest, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    let mut fields = Fields::of_form(request.query_string().as_bytes())?;
    let limit = fields.number("limit", 1, MAX_PAGE)?.unwrap_or(PAGE);
    let after = fields.filter("after", |text| Ok(text.parse::<FunctionName>()?))?;
    fields.done("'limit' and 'after'")?;
    caller.may_some(Verb::Read, None, None)?;
    let mut found = visible(&services, &caller, after, limit + 1).await?;
    let more = found.len() as u64 > limit;
    found.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = found.last().filter(|_| more).map(|last| last.name.to_string());
    Ok(HttpResponse::Ok().json(FunctionsPage { functions: found.into_iter().map(Into::into).collect(), next }))
}

/// The next functions that the caller may see, each with the lanes that it may see. One more than a page tells
/// whether there is a next.
async fn visible(
    services: &Services,
    caller: &Caller,
    mut after: Option<FunctionName>,
    limit: u64,
) -> Result<Vec<FunctionSummary>, Problem> {
    let all = caller.can_all(Verb::Read);
    let chunk = if all { limit } else { MAX_PAGE };
    let mut seen = Vec::new();
    loop {
        let (database, from) = (services.database().clone(), after.take());
        let found = services.spawn(async move { database.functions(from.as_ref(), chunk).await }).await??;
        let whole = found.len() as u64 == chunk;
        after = found.last().map(|last| last.name.clone());
        seen.extend(found.into_iter().filter_map(|summary| shown(summary, caller)));
        if all || !whole || seen.len() as u64 >= limit {
            return Ok(seen);
        }
    }
}

/// What the caller may see of a function.
fn shown(mut summary: FunctionSummary, caller: &Caller) -> Option<FunctionSummary> {
    summary.lanes.retain(|lane| caller.can(Verb::Read, &lane.lane, &summary.name));
    (!summary.lanes.is_empty()).then_some(summary)
}

/// Shows a function with all its lanes and versions.
#[utoipa::path(
    get,
    path = "/api/functions/{name}",
    tag = "functions",
    params(("name" = String, Path, description = "The function's name")),
    responses(
        (status = 200, body = FunctionView),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn one(path: web::Path<String>, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    let name: FunctionName = path.parse()?;
    caller.may_some(Verb::Read, None, Some(&name))?;
    let (database, wanted) = (services.database().clone(), name.clone());
    let (summary, versions) = services
        .spawn(async move {
            let summary = database.function(&wanted).await?;
            Ok::<_, crate::database::DatabaseError>((summary, database.versions_of(&wanted, None, MAX_VERSIONS).await?))
        })
        .await??;
    let summary = summary.and_then(|summary| shown(summary, &caller));
    let summary =
        summary.ok_or_else(|| Problem::new(ErrorCode::FunctionNotFound, format!("there is no function {name}")))?;
    let view = FunctionView {
        versions: Some(
            versions
                .iter()
                .filter(|version| caller.can(Verb::Read, &version.location.lane, &name))
                .map(|version| VersionView::of(version, &services.config().grants))
                .collect(),
        ),
        ..FunctionView::from(summary)
    };
    Ok(HttpResponse::Ok().json(view))
}

/// Shows one version; the version may be a selector, such as `latest`.
#[utoipa::path(
    get,
    path = "/api/functions/{name}/{lane}/{version}",
    tag = "functions",
    params(
        ("name" = String, Path, description = "The function's name"),
        ("lane" = String, Path, description = "The lane"),
        ("version" = String, Path, description = "`1.3`, `1`, or `latest`"),
    ),
    responses(
        (status = 200, body = VersionView),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn version(
    path: web::Path<(String, String, String)>,
    services: Services,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    let (name, lane, selector) = path.into_inner();
    let (name, lane): (FunctionName, Lane) = (name.parse()?, lane.parse()?);
    let selector: Selector = selector.parse()?;
    caller.may(Verb::Read, &lane, &name)?;
    let catalog = services.catalog().clone();
    let function = services.spawn(async move { catalog.resolve(&name, &lane, selector).await }).await??;
    Ok(HttpResponse::Ok().json(VersionView::of(&function, &services.config().grants)))
}
