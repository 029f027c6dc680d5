//! `GET /api/servers`: who runs jobs.

use actix_web::{HttpRequest, HttpResponse};
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{Caller, Problem, Services, error::ProblemDocument, fields::Fields};
use crate::database::jobs::ServerRow;

/// The servers that run jobs.
#[derive(Debug, Serialize, ToSchema)]
pub struct Servers {
    servers: Vec<ServerView>,
}

/// A server.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServerView {
    /// New with each start.
    server_id: Uuid,
    /// Its name in history.
    node: String,
    started_at: DateTime<Utc>,
    heartbeat_at: DateTime<Utc>,
    /// Until when its jobs are its own, unless it shows itself again.
    lease_until: DateTime<Utc>,
    /// How many jobs it runs at once.
    workers: u64,
    /// How many it runs now.
    running: u64,
    /// The queues that it serves; none: all.
    queues: Vec<String>,
}

impl From<ServerRow> for ServerView {
    fn from(row: ServerRow) -> Self {
        Self {
            server_id: row.id,
            node: row.node,
            started_at: row.started_at,
            heartbeat_at: row.heartbeat_at,
            lease_until: row.lease_until,
            workers: row.workers,
            running: row.running,
            queues: row.queues,
        }
    }
}

/// Lists the servers that run jobs.
#[utoipa::path(
    get,
    path = "/api/servers",
    tag = "jobs",
    responses(
        (status = 200, body = Servers),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn list(request: HttpRequest, services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    Fields::of_form(request.query_string().as_bytes())?.done("none")?;
    caller.may_some(crate::security::Verb::Read, None, None)?;
    let handle = services.jobs().clone();
    let servers = services.spawn(async move { handle.servers().await }).await??;
    Ok(HttpResponse::Ok().json(Servers { servers: servers.into_iter().map(Into::into).collect() }))
}
