//! `/api/schedules…`: jobs that are made again and again.

use actix_web::{HttpRequest, HttpResponse, web};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Caller, Problem, Services, at,
    error::ProblemDocument,
    fields::Fields,
    jobs::{JobAnswer, accepted, job, known_fields},
    requests::ScheduleRequest,
    run,
};
use crate::{
    database::jobs::{NewSchedule, ScheduleRow},
    function::{Misfire, Overlap},
    jobs::ScheduleError,
    security::Verb,
};

/// The largest page.
const MAX_PAGE: u64 = 1000;
/// The page where none is asked for.
const PAGE: u64 = 100;
/// The longest id and expression, in bytes.
const MAX_TEXT: usize = 128;

/// Its routes.
pub fn routes(app: &mut web::ServiceConfig) {
    app.service(at("/schedules").route(web::get().to(list)))
        .service(
            at("/schedules/{id}").route(web::get().to(one)).route(web::put().to(put)).route(web::delete().to(delete)),
        )
        .service(at("/schedules/{id}/trigger").route(web::post().to(trigger)))
        .service(at("/schedules/{id}/pause").route(web::post().to(pause)))
        .service(at("/schedules/{id}/resume").route(web::post().to(resume)));
}

/// A page of schedules, by id.
#[derive(Debug, Serialize, ToSchema)]
pub struct SchedulesPage {
    schedules: Vec<ScheduleView>,
    /// Give this as `after` to get the next page; none: there is none.
    next: Option<String>,
}

/// A schedule.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ScheduleView {
    schedule_id: String,
    cron: String,
    time_zone: String,
    misfire: Misfire,
    overlap: Overlap,
    paused: bool,
    function_name: String,
    lane: String,
    /// Which version its jobs ask for.
    version: String,
    payload: String,
    queue: String,
    priority: i64,
    max_attempts: u32,
    /// Its next tick; none while it is paused.
    next_run_at: Option<DateTime<Utc>>,
    /// Its last run, by tick or trigger.
    last_run_at: Option<DateTime<Utc>>,
    /// The job of it.
    last_job_id: Option<Uuid>,
    /// How many ticks were passed over because an earlier job had not ended.
    skipped: u64,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

impl From<ScheduleRow> for ScheduleView {
    fn from(row: ScheduleRow) -> Self {
        let NewSchedule { id, cron, time_zone, misfire, overlap, job, paused, next_at } = row.schedule;
        Self {
            schedule_id: id,
            cron,
            time_zone,
            misfire,
            overlap,
            paused,
            function_name: job.name.to_string(),
            lane: job.lane.to_string(),
            version: job.selector.to_string(),
            payload: job.payload,
            queue: job.queue.to_string(),
            priority: job.priority,
            max_attempts: job.max_attempts,
            next_run_at: next_at.filter(|_| !paused),
            last_run_at: row.last_at,
            last_job_id: row.last_job.map(|id| id.0),
            skipped: row.skipped,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// The id of a schedule.
///
/// # Errors
/// When it can be none.
pub fn id(text: &str) -> Result<String, Problem> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    if text.is_empty() || text.len() > MAX_TEXT || !text.chars().all(plain) {
        return Err(Problem::invalid(format!(
            "a schedule's id must be 1 to {MAX_TEXT} letters, digits, '_', '.' or '-'"
        )));
    }
    Ok(text.to_owned())
}

/// Whether the caller may change that schedule.
async fn may_manage(id: &str, services: &Services, caller: &Caller) -> Result<(), Problem> {
    let (handle, id) = (services.jobs().clone(), id.to_owned());
    let row = services.spawn(async move { handle.schedule(&id).await }).await??;
    caller.may(Verb::Manage, &row.schedule.job.lane, &row.schedule.job.name)
}

/// Lists schedules.
#[utoipa::path(
    get,
    path = "/api/schedules",
    tag = "schedules",
    params(
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 1000, description = "At most this many, 1 to 1000; 100 where none is given"),
        ("after" = Option<String>, Query, description = "Those after this id: `next` of the page before"),
    ),
    responses(
        (status = 200, body = SchedulesPage),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn list(request: HttpRequest, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    let mut fields = Fields::of_form(request.query_string().as_bytes())?;
    let limit = fields.number("limit", 1, MAX_PAGE)?.unwrap_or(PAGE);
    let after = fields.filter("after", id)?.unwrap_or_default();
    fields.done("'limit' and 'after'")?;
    caller.may_some(Verb::Read, None, None)?;
    let handle = services.jobs().clone();
    let mut rows = services.spawn(async move { handle.schedules(&after, limit + 1).await }).await??;
    let more = rows.len() as u64 > limit;
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = rows.last().filter(|_| more).map(|last| last.schedule.id.clone());
    rows.retain(|row| caller.can(Verb::Read, &row.schedule.job.lane, &row.schedule.job.name));
    Ok(HttpResponse::Ok().json(SchedulesPage { schedules: rows.into_iter().map(Into::into).collect(), next }))
}

/// Makes a schedule, or makes the one of this id so.
#[utoipa::path(
    put,
    path = "/api/schedules/{id}",
    tag = "schedules",
    params(("id" = String, Path, description = "Its id: letters, digits, `_`, `.`, `-`, at most 128")),
    request_body = ScheduleRequest,
    responses(
        (status = 200, description = "There was one, and it is so now", body = ScheduleView),
        (status = 201, description = "It is new", body = ScheduleView),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn put(
    path: web::Path<String>,
    request: HttpRequest,
    body: web::Payload,
    services: Services,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    let id = id(&path)?;
    let (mut fields, payload) = run::fields(&request, body, &services).await?;
    let cron = fields.take("cron")?.ok_or_else(|| Problem::invalid("'cron' is missing"))?;
    if cron.len() > MAX_TEXT {
        return Err(Problem::invalid(format!("'cron' may have {MAX_TEXT} bytes")));
    }
    let time_zone = fields.take("timeZone")?.unwrap_or_else(|| "UTC".into());
    let misfire = fields.parse::<Misfire>("misfire")?.unwrap_or(Misfire::One);
    let overlap = fields.parse::<Overlap>("overlap")?.unwrap_or(Overlap::Allow);
    let paused = fields.flag("paused")?;
    for field in ["runAt", "delaySeconds", "continueAfter", "continueOn", "idempotencyKey"] {
        if fields.has(field) {
            return Err(Problem::invalid(format!("a schedule has no '{field}': there are {}", known_fields())));
        }
    }
    let job = job(fields, payload, &services, &caller).await?;
    // Whoever makes a schedule must be able to undo it, and may take none away from others.
    caller.may(Verb::Manage, &job.lane, &job.name)?;
    let (handle, known) = (services.jobs().clone(), id.clone());
    match services.spawn(async move { handle.schedule(&known).await }).await? {
        Ok(row) => caller.may(Verb::Manage, &row.schedule.job.lane, &row.schedule.job.name)?,
        Err(ScheduleError::NotFound(_)) => {}
        Err(error) => return Err(error.into()),
    }
    let schedule = NewSchedule { id: id.clone(), cron, time_zone, misfire, overlap, job, paused, next_at: None };
    let handle = services.jobs().clone();
    let (created, row) = services
        .spawn(async move {
            let created = handle.put_schedule(schedule).await?;
            Ok::<_, ScheduleError>((created, handle.schedule(&id).await?))
        })
        .await??;
    let mut response = if created { HttpResponse::Created() } else { HttpResponse::Ok() };
    Ok(response.json(ScheduleView::from(row)))
}

/// Shows a schedule.
#[utoipa::path(
    get,
    path = "/api/schedules/{id}",
    tag = "schedules",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, body = ScheduleView),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn one(path: web::Path<String>, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    let handle = services.jobs().clone();
    let row = services.spawn(async move { handle.schedule(&path).await }).await??;
    caller.may(Verb::Read, &row.schedule.job.lane, &row.schedule.job.name)?;
    Ok(HttpResponse::Ok().json(ScheduleView::from(row)))
}

/// Removes a schedule. The jobs that it made stay.
#[utoipa::path(
    delete,
    path = "/api/schedules/{id}",
    tag = "schedules",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 204, description = "It is gone"),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn delete(path: web::Path<String>, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    may_manage(&path, &services, &caller).await?;
    let handle = services.jobs().clone();
    services.spawn(async move { handle.delete_schedule(&path).await }).await??;
    Ok(HttpResponse::NoContent().finish())
}

/// Makes a job of a schedule now.
#[utoipa::path(
    post,
    path = "/api/schedules/{id}/trigger",
    tag = "schedules",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 202, body = JobAnswer),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn trigger(path: web::Path<String>, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    may_manage(&path, &services, &caller).await?;
    let handle = services.jobs().clone();
    let written = services.spawn(async move { handle.trigger(&path).await }).await??;
    Ok(accepted(&written))
}

/// Lets a schedule make no jobs for now.
#[utoipa::path(
    post,
    path = "/api/schedules/{id}/pause",
    tag = "schedules",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, body = ScheduleView),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn pause(path: web::Path<String>, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    paused(path, services, caller, true).await
}

/// Lets a schedule go on. Ticks while it was paused are passed over.
#[utoipa::path(
    post,
    path = "/api/schedules/{id}/resume",
    tag = "schedules",
    params(("id" = String, Path, description = "Its id")),
    responses(
        (status = 200, body = ScheduleView),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn resume(path: web::Path<String>, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    paused(path, services, caller, false).await
}

async fn paused(
    path: web::Path<String>,
    services: Services,
    caller: Caller,
    paused: bool,
) -> Result<HttpResponse, Problem> {
    may_manage(&path, &services, &caller).await?;
    let handle = services.jobs().clone();
    let row = services.spawn(async move { handle.pause_schedule(&path, paused).await }).await??;
    Ok(HttpResponse::Ok().json(ScheduleView::from(row)))
}
