//! `/api/invocations…`: what ran, and what runs now.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Problem, Services, caller::Caller, error::ProblemDocument, fields::Fields, view::InvocationView};
use crate::{
    database::{InvocationQuery, InvocationRow},
    function::{CallerId, ErrorCode, FunctionName, InvocationId, Lane, Status},
    invoke::Found,
    security::Verb,
};

/// The largest page.
const MAX_PAGE: u64 = 500;
/// The page where none is asked for.
const PAGE: u64 = 50;
/// How many pages of the database are looked through for calls that a caller may see.
const MAX_LOOKS: usize = 20;

/// A page of calls, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct InvocationsPage<'a> {
    invocations: Vec<InvocationView<'a>>,
    /// Give this as `before` to get the next page; none: there is none.
    next: Option<String>,
}

/// The id in a path.
pub fn id(text: &str) -> Result<InvocationId, Problem> {
    text.parse().map_err(|_| {
        let text: String = text.chars().take(80).collect();
        Problem::invalid(format!("invocation id {text:?} is not valid: it must be a UUID"))
    })
}

/// The problem of an id that nothing has.
pub fn not_found(id: InvocationId) -> Problem {
    Problem::new(ErrorCode::InvocationNotFound, format!("there is no invocation {id}, or its history has expired"))
}

/// Finds a call, here or in the database.
async fn find(services: &Services, id: InvocationId) -> Result<Found, Problem> {
    services.invoker().find(id).await?.ok_or_else(|| not_found(id))
}

/// Whether a call may be seen and followed by that caller.
///
/// # Errors
/// When it may not, or there is none.
pub async fn may_see(services: &Services, caller: &Caller, id: InvocationId) -> Result<(), Problem> {
    caller.may_see(&row(services, &find(services, id).await?))
}

/// A call as it stands.
fn row(services: &Services, found: &Found) -> InvocationRow {
    match found {
        Found::Live(live) => live.row(services.invoker().node()),
        Found::Row(row) => (**row).clone(),
    }
}

/// Lists calls, newest first.
#[utoipa::path(
    get,
    path = "/api/invocations",
    tag = "invocations",
    params(
        ("function" = Option<String>, Query, description = "Of this function only"),
        ("lane" = Option<String>, Query, description = "Of this lane only"),
        ("callerId" = Option<String>, Query, description = "Of this caller only"),
        ("status" = Option<Status>, Query, description = "In this state only"),
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 500, description = "At most this many, 1 to 500; 50 where none is given"),
        ("before" = Option<Uuid>, Query, description = "Older than this: `next` of the page before"),
    ),
    responses(
        (status = 200, body = InvocationsPage),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn list(request: HttpRequest, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    let mut fields = Fields::of_form(request.query_string().as_bytes())?;
    let limit = fields.number("limit", 1, MAX_PAGE)?.unwrap_or(PAGE);
    let status = |name: &str| {
        Status::from_name(name).ok_or_else(|| {
            Problem::invalid("status must be one of queued, running, succeeded, failed, timedOut and cancelled")
        })
    };
    let wanted = InvocationQuery {
        function: fields.filter("function", |text| Ok(text.parse::<FunctionName>()?))?,
        lane: fields.filter("lane", |text| Ok(text.parse::<Lane>()?))?,
        caller_id: fields.filter("callerId", |text| Ok(text.parse::<CallerId>()?))?,
        status: fields.filter("status", status)?,
        before: fields.filter("before", id)?,
        limit: limit + 1,
    };
    fields.done("'function', 'lane', 'callerId', 'status', 'limit' and 'before'")?;

    let node = services.invoker().node();
    let here: Vec<InvocationRow> =
        services.invoker().all_live().iter().map(|live| live.row(node)).filter(|row| fits(row, &wanted)).collect();
    let here: Vec<InvocationRow> = here.into_iter().filter(|row| caller.can_see(row)).collect();
    let (kept, goes_on) = visible(&services, &caller, &wanted).await?;
    let (page, more) = merge(here, kept, &wanted, limit);
    let next = match (page.last().filter(|_| more), goes_on) {
        (Some(last), _) => Some(last.id.to_string()),
        (None, goes_on) => goes_on.map(|last| last.to_string()),
    };
    Ok(HttpResponse::Ok().json(InvocationsPage { invocations: page.iter().map(InvocationView::line).collect(), next }))
}

/// The kept calls that the caller may see; and the last that was looked at, where there was no time for more.
async fn visible(
    services: &Services,
    caller: &Caller,
    wanted: &InvocationQuery,
) -> Result<(Vec<InvocationRow>, Option<InvocationId>), Problem> {
    let all = caller.can_all(Verb::Read);
    let mut query = InvocationQuery { limit: if all { wanted.limit } else { MAX_PAGE }, ..wanted.clone() };
    let mut seen = Vec::new();
    for _ in 0..MAX_LOOKS {
        let (database, asked) = (services.database().clone(), query.clone());
        let rows = services.spawn(async move { database.invocations(&asked).await }).await??;
        let (whole, last) = (rows.len() as u64 == query.limit, rows.last().map(|row| row.id));
        seen.extend(rows.into_iter().filter(|row| all || caller.can_see(row)));
        if all || !whole || seen.len() as u64 >= wanted.limit {
            return Ok((seen, None));
        }
        query.before = last;
    }
    Ok((seen, query.before))
}

/// What the database's condition is for rows, for a call that is not there yet.
fn fits(row: &InvocationRow, wanted: &InvocationQuery) -> bool {
    wanted.function.as_ref().is_none_or(|function| *function == row.name)
        && wanted.lane.as_ref().is_none_or(|lane| *lane == row.lane)
        && wanted.caller_id.as_ref().is_none_or(|caller| row.caller_id.as_ref() == Some(caller))
        && wanted.status.is_none_or(|status| status == row.status)
        && wanted.before.is_none_or(|before| row.id < before)
}

/// A page of both, newest first; what this server knows of a call is newer than its row.
fn merge(
    here: Vec<InvocationRow>,
    kept: Vec<InvocationRow>,
    wanted: &InvocationQuery,
    limit: u64,
) -> (Vec<InvocationRow>, bool) {
    let mut page = here;
    let known: std::collections::HashSet<_> = page.iter().map(|row| row.id).collect();
    page.extend(kept.into_iter().filter(|row| !known.contains(&row.id) && fits(row, wanted)));
    page.sort_by_key(|row| std::cmp::Reverse(row.id));
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = page.len() > limit;
    page.truncate(limit);
    (page, more)
}

/// Shows a call.
#[utoipa::path(
    get,
    path = "/api/invocations/{id}",
    tag = "invocations",
    params(("id" = Uuid, Path, description = "The call's id")),
    responses(
        (status = 200, body = InvocationView),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn one(path: web::Path<String>, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    let row = row(&services, &find(&services, id(&path)?).await?);
    caller.may_see(&row)?;
    Ok(HttpResponse::Ok().json(InvocationView::whole(&row)))
}

/// Ends a call, on whichever server it runs. One that has ended stays as it is.
#[utoipa::path(
    delete,
    path = "/api/invocations/{id}",
    tag = "invocations",
    params(("id" = Uuid, Path, description = "The call's id")),
    responses(
        (status = 200, description = "It had ended", body = InvocationView),
        (status = 202, description = "It is being ended", body = InvocationView),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn cancel(path: web::Path<String>, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    let id = id(&path)?;
    let found = find(&services, id).await?;
    let row = row(&services, &found);
    caller.may_end(&row)?;
    let (row, asked) = match found {
        Found::Live(live) => {
            let running = live.ended().is_none();
            live.cancel.cancel();
            (live.row(services.invoker().node()), running)
        }
        Found::Row(_) if row.status.is_end() => (row, false),
        Found::Row(_) => {
            let database = services.database().clone();
            let asked = services.spawn(async move { database.request_cancel(id).await }).await??;
            (row, asked)
        }
    };
    if asked {
        caller.record(caller.entry("invocation.cancel", format!("{}/{} {id}", row.lane, row.name)));
    }
    let mut response = if asked { HttpResponse::Accepted() } else { HttpResponse::Ok() };
    Ok(response.json(InvocationView::whole(&row)))
}
