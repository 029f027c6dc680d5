//! `/api/invocations…`: what ran, and what runs now.

use actix_web::{HttpRequest, HttpResponse, web};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Problem, Services, error::ProblemDocument, fields::Fields, view::InvocationView};
use crate::{
    database::{InvocationQuery, InvocationRow},
    function::{CallerId, ErrorCode, FunctionName, InvocationId, Lane, Status},
    invoke::Found,
};

/// The largest page.
const MAX_PAGE: u64 = 500;
/// The page where none is asked for.
const PAGE: u64 = 50;

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
        ("limit" = Option<u64>, Query, description = "At most this many, 1 to 500; 50 where none is given"),
        ("before" = Option<String>, Query, description = "Older than this: `next` of the page before"),
    ),
    responses(
        (status = 200, body = InvocationsPage),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn list(request: HttpRequest, services: Services) -> Result<HttpResponse, Problem> {
    let mut fields = Fields::of_form(request.query_string().as_bytes())?;
    let limit = fields.number("limit", 1, MAX_PAGE)?.unwrap_or(PAGE);
    let status = match fields.take("status")? {
        None => None,
        Some(name) => Some(Status::from_name(&name).ok_or_else(|| {
            Problem::invalid(
                "status must be one of queued, running, succeeded, failed, timedOut and cancelled".to_owned(),
            )
        })?),
    };
    let wanted = InvocationQuery {
        function: fields.parse::<FunctionName>("function")?,
        lane: fields.parse::<Lane>("lane")?,
        caller_id: fields.parse::<CallerId>("callerId")?,
        status,
        before: fields.take("before")?.map(|text| id(&text)).transpose()?,
        limit: limit + 1,
    };
    fields.done("'function', 'lane', 'callerId', 'status', 'limit' and 'before'")?;

    let node = services.invoker().node();
    let here: Vec<InvocationRow> =
        services.invoker().all_live().iter().map(|live| live.row(node)).filter(|row| fits(row, &wanted)).collect();
    let (database, query) = (services.database().clone(), wanted.clone());
    let kept = services.spawn(async move { database.invocations(&query).await }).await??;
    let (page, more) = merge(here, kept, &wanted, limit);
    let next = page.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(HttpResponse::Ok().json(InvocationsPage { invocations: page.iter().map(InvocationView::line).collect(), next }))
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
    params(("id" = String, Path, description = "The call's id")),
    responses(
        (status = 200, body = InvocationView),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn one(path: web::Path<String>, services: Services) -> Result<HttpResponse, Problem> {
    let row = match find(&services, id(&path)?).await? {
        Found::Live(live) => live.row(services.invoker().node()),
        Found::Row(row) => *row,
    };
    Ok(HttpResponse::Ok().json(InvocationView::whole(&row)))
}

/// Ends a call, on whichever server it runs. One that has ended stays as it is.
#[utoipa::path(
    delete,
    path = "/api/invocations/{id}",
    tag = "invocations",
    params(("id" = String, Path, description = "The call's id")),
    responses(
        (status = 200, description = "It had ended", body = InvocationView),
        (status = 202, description = "It is being ended", body = InvocationView),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn cancel(path: web::Path<String>, services: Services) -> Result<HttpResponse, Problem> {
    let id = id(&path)?;
    let (row, asked) = match find(&services, id).await? {
        Found::Live(live) => {
            let running = live.ended().is_none();
            live.cancel.cancel();
            (live.row(services.invoker().node()), running)
        }
        Found::Row(row) if row.status.is_end() => (*row, false),
        Found::Row(row) => {
            let database = services.database().clone();
            let asked = services.spawn(async move { database.request_cancel(id).await }).await??;
            (*row, asked)
        }
    };
    let mut response = if asked { HttpResponse::Accepted() } else { HttpResponse::Ok() };
    Ok(response.json(InvocationView::whole(&row)))
}
