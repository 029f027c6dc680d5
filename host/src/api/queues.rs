//! `GET /api/queues`: what waits and runs where.

use std::collections::BTreeMap;

use actix_web::{HttpRequest, HttpResponse};
use serde::Serialize;
use utoipa::ToSchema;

use super::{Caller, Problem, Services, error::ProblemDocument, fields::Fields};

/// The queues that hold jobs.
#[derive(Debug, Serialize, ToSchema)]
pub struct Queues {
    queues: Vec<QueueView>,
}

/// A queue.
#[derive(Debug, Serialize, ToSchema)]
pub struct QueueView {
    queue: String,
    /// How many of its jobs stand where, without those that succeeded or were deleted.
    jobs: BTreeMap<&'static str, u64>,
}

/// Lists the queues that hold jobs.
#[utoipa::path(
    get,
    path = "/api/queues",
    tag = "jobs",
    responses(
        (status = 200, body = Queues),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn list(request: HttpRequest, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    Fields::of_form(request.query_string().as_bytes())?.done("none")?;
    caller.may_some(crate::security::Verb::Read, None, None)?;
    let handle = services.jobs().clone();
    let queues = services.spawn(async move { handle.queues().await }).await??;
    let view = |queue: crate::database::jobs::QueueCounts| QueueView {
        queue: queue.queue.to_string(),
        jobs: queue.counts.into_iter().map(|(state, count)| (state.as_str(), count)).collect(),
    };
    Ok(HttpResponse::Ok().json(Queues { queues: queues.into_iter().map(view).collect() }))
}
