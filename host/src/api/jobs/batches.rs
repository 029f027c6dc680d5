//! `/api/batches…`: jobs that are one unit.

use actix_web::{HttpRequest, HttpResponse, http::header, web};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    super::{Caller, Problem, Services, error::ProblemDocument, requests::Jobs, run},
    BatchView, JobAnswer, JobCount,
};
use crate::{
    database::jobs::{JobFilter, JobQuery},
    function::JobId,
    security::Verb,
};

/// A batch that was taken in.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct BatchAnswer {
    batch_id: Uuid,
    jobs: Vec<JobAnswer>,
}

/// Takes in jobs that are one unit: another job can continue after all of them, and they are given up together.
#[utoipa::path(
    post,
    path = "/api/batches",
    tag = "jobs",
    request_body = Jobs,
    responses(
        (status = 202, description = "All of them are in the database", body = BatchAnswer),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn create(
    request: HttpRequest,
    body: web::Payload,
    services: Services,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    let (mut fields, _) = run::fields(&request, body, &services).await?;
    let list = fields.take("jobs")?.ok_or_else(|| Problem::invalid("'jobs' is missing: a JSON list of jobs"))?;
    fields.done("'jobs'")?;
    let jobs = super::many(&list, &services, &caller).await?;
    if jobs.iter().any(|job| job.idempotency_key.is_some()) {
        return Err(Problem::invalid("a job of a batch has no 'idempotencyKey': it may be a job that is not of it"));
    }
    let (handle, batch) = (services.jobs().clone(), JobId::generate());
    let written = services.spawn(async move { handle.enqueue_all(Some(batch), jobs).await }).await??;
    Ok(HttpResponse::Accepted()
        .insert_header((header::LOCATION, format!("/api/batches/{batch}")))
        .json(BatchAnswer { batch_id: batch.0, jobs: super::answers_of(&written) }))
}

/// Whether the caller may do that with a batch: because it handed it in, or may do it with everything. All jobs
/// of a batch come with one token.
async fn allowed(id: JobId, services: &Services, caller: &Caller, verb: Verb) -> Result<(), Problem> {
    let handle = services.jobs().clone();
    let query = JobQuery { filter: JobFilter { batch: Some(id), ..JobFilter::default() }, before: None, limit: 1 };
    let jobs = services.spawn(async move { handle.jobs(&query).await }).await??;
    if jobs.first().is_some_and(|row| super::has_made(caller, row)) { Ok(()) } else { caller.may_all(verb) }
}

/// Shows a batch.
#[utoipa::path(
    get,
    path = "/api/batches/{id}",
    tag = "jobs",
    params(("id" = Uuid, Path, description = "The batch's id")),
    responses(
        (status = 200, body = BatchView),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn one(path: web::Path<String>, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    let id = super::id(&path)?;
    let handle = services.jobs().clone();
    allowed(id, &services, &caller, Verb::Read).await?;
    let row = services.spawn(async move { handle.batch(id).await }).await??;
    Ok(HttpResponse::Ok().json(BatchView::from(&row)))
}

/// Gives up every job of a batch that has not ended.
#[utoipa::path(
    delete,
    path = "/api/batches/{id}",
    tag = "jobs",
    params(("id" = Uuid, Path, description = "The batch's id")),
    responses(
        (status = 200, description = "How many there were", body = JobCount),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn delete(path: web::Path<String>, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    let id = super::id(&path)?;
    allowed(id, &services, &caller, Verb::Manage).await?;
    let handle = services.jobs().clone();
    let count = services
        .spawn(async move {
            handle.batch(id).await?;
            let filter = JobFilter { batch: Some(id), ..JobFilter::default() };
            handle.delete_open(&filter, "its batch was deleted on request").await
        })
        .await??;
    Ok(HttpResponse::Ok().json(JobCount { count }))
}
