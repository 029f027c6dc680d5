//! `/api/jobs…`: calls for later.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::{
    Caller, Problem, Services, at,
    error::ProblemDocument,
    fields::Fields,
    requests::{JobFilters, JobOrJobs},
    run, schedules,
};
use crate::{
    database::jobs::{Enqueued, JobFilter, JobQuery, JobRow, NewJob},
    function::{CallerId, FunctionName, JobId, JobState, Lane, QueueName},
    security::Verb,
};

pub mod batches;
mod parse;
mod view;

pub use parse::{job, known_fields};
use view::JobView;
pub use view::{BatchView, JobAnswer};

/// The largest page.
const MAX_PAGE: u64 = 500;
/// The page where none is asked for.
const PAGE: u64 = 50;
/// How many jobs one request may hand in.
const MAX_JOBS: usize = 10_000;

/// Its routes.
pub fn routes(app: &mut web::ServiceConfig) {
    app.service(
        at("/jobs").route(web::post().to(create)).route(web::get().to(list)).route(web::delete().to(delete_all)),
    )
    .service(at("/jobs/requeue").route(web::post().to(requeue_all)))
    .service(at("/jobs/{id}").route(web::get().to(one)).route(web::delete().to(delete)))
    .service(at("/jobs/{id}/requeue").route(web::post().to(requeue)))
    .service(at("/batches").route(web::post().to(batches::create)))
    .service(at("/batches/{id}").route(web::get().to(batches::one)).route(web::delete().to(batches::delete)));
}

/// A page of jobs, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobsPage<'a> {
    jobs: Vec<JobView<'a>>,
    /// Give this as `before` to get the next page; none: there is none.
    next: Option<String>,
}

/// Many jobs that were taken in.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobAnswers {
    jobs: Vec<JobAnswer>,
}

/// What became of a request.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
pub enum Accepted {
    /// That held one job.
    Job(JobAnswer),
    /// That held a list.
    Jobs(JobAnswers),
}

/// How many jobs a command reached.
#[derive(Debug, Serialize, ToSchema)]
pub struct JobCount {
    count: u64,
}

/// The id in a path.
fn id(text: &str) -> Result<JobId, Problem> {
    text.parse().map_err(|_| {
        let text: String = text.chars().take(80).collect();
        Problem::invalid(format!("job id {text:?} is not valid: it must be a UUID"))
    })
}

/// Takes in a job, or with `jobs` a list of them: all or none. The fields are those of `runfunction`, where
/// they may stand as they do there, and beside them when, where and how often the job is to run.
#[utoipa::path(
    post,
    path = "/api/jobs",
    tag = "jobs",
    request_body(content = JobOrJobs, description = "A job: the fields of `runfunction` and those that say when, where and how often; or a list of them"),
    responses(
        (status = 202, description = "It is in the database", body = Accepted),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn create(
    request: HttpRequest,
    body: web::Payload,
    services: Services,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    let (mut fields, payload) = run::fields(&request, body, &services).await?;
    if let Some(list) = fields.take("jobs")? {
        fields.done("'jobs'")?;
        let jobs = many(&list, &services, &caller).await?;
        let handle = services.jobs().clone();
        let written = services.spawn(async move { handle.enqueue_all(None, jobs).await }).await??;
        return Ok(HttpResponse::Accepted().json(Accepted::Jobs(JobAnswers { jobs: answers_of(&written) })));
    }
    let job = job(fields, payload, &services, &caller).await?;
    let handle = services.jobs().clone();
    let written = services.spawn(async move { handle.enqueue(job).await }).await??;
    Ok(accepted(&written))
}

/// The jobs of a JSON list.
async fn many(list: &str, services: &Services, caller: &Caller) -> Result<Vec<NewJob>, Problem> {
    let list: Vec<Box<RawValue>> = serde_json::from_str(list)
        .map_err(|_| Problem::invalid("'jobs' must be a JSON list of objects, each the fields of a job"))?;
    if list.is_empty() || list.len() > MAX_JOBS {
        return Err(Problem::invalid(format!("'jobs' holds {} jobs: it must be 1 to {MAX_JOBS}", list.len())));
    }
    let mut jobs = Vec::with_capacity(list.len());
    for it in list {
        let mut fields = Fields::of_json(it.get().as_bytes())?;
        let payload = fields.take_any("payload")?.unwrap_or_default();
        jobs.push(job(fields, payload, services, caller).await?);
    }
    Ok(jobs)
}

fn answers_of(written: &[Enqueued]) -> Vec<JobAnswer> {
    written.iter().map(|it| JobAnswer { job_id: it.id.0, state: it.state }).collect()
}

/// The answer to whoever handed a job in.
pub fn accepted(written: &Enqueued) -> HttpResponse {
    HttpResponse::Accepted()
        .insert_header((header::LOCATION, format!("/api/jobs/{}", written.id)))
        .json(Accepted::Job(JobAnswer { job_id: written.id.0, state: written.state }))
}

/// Whether the caller handed that job in.
fn has_made(caller: &Caller, row: &JobRow) -> bool {
    caller.name().is_some() && caller.name() == row.job.token.as_ref()
}

/// Whether the caller may step in with that job: because it manages the function, or has handed the job in.
async fn may_manage(id: JobId, services: &Services, caller: &Caller) -> Result<(), Problem> {
    let handle = services.jobs().clone();
    let row = services.spawn(async move { handle.job(id).await }).await??;
    if has_made(caller, &row) { Ok(()) } else { caller.may(Verb::Manage, &row.job.lane, &row.job.name) }
}

/// Which jobs a request means.
fn filter(fields: &mut Fields) -> Result<JobFilter, Problem> {
    Ok(JobFilter {
        since: fields.filter("since", |text| parse::time("since", text))?,
        until: fields.filter("until", |text| parse::time("until", text))?,
        state: fields.filter("state", |text| Ok(text.parse::<JobState>()?))?,
        function: fields.filter("function", |text| Ok(text.parse::<FunctionName>()?))?,
        lane: fields.filter("lane", |text| Ok(text.parse::<Lane>()?))?,
        queue: fields.filter("queue", |text| Ok(text.parse::<QueueName>()?))?,
        caller_id: fields.filter("callerId", |text| Ok(text.parse::<CallerId>()?))?,
        schedule: fields.filter("scheduleId", schedules::id)?,
        batch: fields.filter("batchId", id)?,
        text: fields.filter("text", |text| Ok(text.to_owned()))?,
    })
}

/// What a filter is made of, for messages.
const FILTER: &str =
    "'state', 'function', 'lane', 'queue', 'callerId', 'scheduleId', 'batchId', 'since', 'until' and 'text'";

/// The filter of a bulk command, which must say something: `all=true` means all.
fn bulk(request: &HttpRequest, caller: &Caller) -> Result<JobFilter, Problem> {
    let mut fields = Fields::of_form(request.query_string().as_bytes())?;
    let all = fields.flag("all")?;
    let filter = filter(&mut fields)?;
    fields.done(&format!("{FILTER} and 'all'"))?;
    match (all, filter == JobFilter::default()) {
        (false, true) => return Err(Problem::invalid(format!("say which jobs: with {FILTER}, or with 'all=true'"))),
        (true, false) => return Err(Problem::invalid("'all=true' means every job: give it, or a filter")),
        _ => {}
    }
    match (&filter.lane, &filter.function) {
        (Some(lane), Some(function)) => caller.may(Verb::Manage, lane, function)?,
        _ => caller.may_all(Verb::Manage)?,
    }
    Ok(filter)
}

/// Lists jobs, newest first.
#[utoipa::path(
    get,
    path = "/api/jobs",
    tag = "jobs",
    params(
        JobFilters,
        ("limit" = Option<u64>, Query, minimum = 1, maximum = 500, description = "At most this many, 1 to 500; 50 where none is given"),
        ("before" = Option<Uuid>, Query, description = "Older than this: `next` of the page before"),
    ),
    responses(
        (status = 200, body = JobsPage),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn list(request: HttpRequest, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    let mut fields = Fields::of_form(request.query_string().as_bytes())?;
    let limit = fields.number("limit", 1, MAX_PAGE)?.unwrap_or(PAGE);
    let before = fields.filter("before", id)?;
    // One more than asked for tells whether there is a next page.
    let query = JobQuery { filter: filter(&mut fields)?, before, limit: limit + 1 };
    fields.done(&format!("{FILTER}, 'limit' and 'before'"))?;
    caller.may_some(Verb::Read, query.filter.lane.as_ref(), query.filter.function.as_ref())?;
    let handle = services.jobs().clone();
    let mut rows = services.spawn(async move { handle.jobs(&query).await }).await??;
    let more = rows.len() as u64 > limit;
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let next = rows.last().filter(|_| more).map(|last| last.job.id.to_string());
    // A page may so hold fewer than asked for, and there may be more after it all the same.
    rows.retain(|row| has_made(&caller, row) || caller.can(Verb::Read, &row.job.lane, &row.job.name));
    Ok(HttpResponse::Ok().json(JobsPage { jobs: rows.iter().map(JobView::line).collect(), next }))
}

/// Shows a job with its history, and its attempts, which are invocations.
#[utoipa::path(
    get,
    path = "/api/jobs/{id}",
    tag = "jobs",
    params(("id" = Uuid, Path, description = "The job's id")),
    responses(
        (status = 200, body = JobView),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn one(path: web::Path<String>, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    let id = id(&path)?;
    let (handle, invoker) = (services.jobs().clone(), services.invoker().clone());
    let (row, attempts) = services
        .spawn(async move {
            let row = handle.job(id).await?;
            let attempts = view::attempts(&row, &invoker).await?;
            Ok::<_, crate::jobs::JobError>((row, attempts))
        })
        .await??;
    if !has_made(&caller, &row) {
        caller.may(Verb::Read, &row.job.lane, &row.job.name)?;
    }
    Ok(HttpResponse::Ok().json(JobView::whole(&row, &attempts)))
}

/// Puts a job back into its queue, as if it had never been tried: with its selector's newest version.
#[utoipa::path(
    post,
    path = "/api/jobs/{id}/requeue",
    tag = "jobs",
    params(("id" = Uuid, Path, description = "The job's id")),
    responses(
        (status = 202, body = JobAnswer),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn requeue(path: web::Path<String>, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    let id = id(&path)?;
    let handle = services.jobs().clone();
    may_manage(id, &services, &caller).await?;
    let state = services.spawn(async move { handle.requeue(id, "requeued on request").await }).await??;
    Ok(HttpResponse::Accepted().json(JobAnswer { job_id: id.0, state }))
}

/// Gives a job up. One that runs is ended, wherever it does.
#[utoipa::path(
    delete,
    path = "/api/jobs/{id}",
    tag = "jobs",
    params(("id" = Uuid, Path, description = "The job's id")),
    responses(
        (status = 200, body = JobAnswer),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn delete(path: web::Path<String>, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    let id = id(&path)?;
    let handle = services.jobs().clone();
    may_manage(id, &services, &caller).await?;
    let state = services.spawn(async move { handle.delete(id, "deleted on request").await }).await??;
    Ok(HttpResponse::Ok().json(JobAnswer { job_id: id.0, state }))
}

/// Requeues every job that fits the filter, which is that of the list.
#[utoipa::path(
    post,
    path = "/api/jobs/requeue",
    tag = "jobs",
    params(
        JobFilters,
        ("all" = Option<bool>, Query, description = "`true`: every job. Either this or a filter must be given"),
    ),
    responses(
        (status = 200, body = JobCount),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn requeue_all(request: HttpRequest, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    let filter = bulk(&request, &caller)?;
    let handle = services.jobs().clone();
    let count = services.spawn(async move { handle.requeue_all(&filter, "requeued on request").await }).await??;
    Ok(HttpResponse::Ok().json(JobCount { count }))
}

/// Deletes every job that fits the filter, which is that of the list.
#[utoipa::path(
    delete,
    path = "/api/jobs",
    tag = "jobs",
    params(
        JobFilters,
        ("all" = Option<bool>, Query, description = "`true`: every job. Either this or a filter must be given"),
    ),
    responses(
        (status = 200, body = JobCount),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn delete_all(request: HttpRequest, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    let filter = bulk(&request, &caller)?;
    let handle = services.jobs().clone();
    let count = services.spawn(async move { handle.delete_all(&filter, "deleted on request").await }).await??;
    Ok(HttpResponse::Ok().json(JobCount { count }))
}
