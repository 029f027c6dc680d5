//! `/healthz` and `/readyz`.

use actix_web::HttpResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::Services;
use crate::state::Reachable;

/// Whether the server can do its work.
#[derive(Debug, Serialize, ToSchema)]
pub struct Health {
    /// `ok`, or `unavailable`.
    status: &'static str,
    /// Each part that it stands on.
    #[serde(skip_serializing_if = "Option::is_none")]
    checks: Option<Checks>,
}

/// The parts.
#[derive(Debug, Serialize, ToSchema)]
pub struct Checks {
    /// Where packages live.
    store: &'static str,
    /// The SQL database.
    database: &'static str,
    /// Native programs: `confined`, `partly_confined`, `unconfined`, or `refused` where they have to be confined and
    /// can't be. Components run all the same.
    programs: &'static str,
    /// What confinement of programs falls short of, in words.
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    shortfalls: Vec<String>,
}

fn word(reachable: bool) -> &'static str {
    if reachable { "ok" } else { "unavailable" }
}

/// Whether the process is alive.
#[utoipa::path(get, path = "/healthz", tag = "server", security(()), responses((status = 200, body = Health)))]
pub async fn healthz() -> HttpResponse {
    HttpResponse::Ok().json(Health { status: "ok", checks: None })
}

/// Whether store and database can be reached, and how programs are confined.
#[utoipa::path(
    get,
    path = "/readyz",
    tag = "server",
    security(()),
    responses((status = 200, body = Health), (status = 503, description = "One of them cannot be reached", body = Health)),
)]
pub async fn readyz(services: Services) -> HttpResponse {
    let Reachable { store, database } = services.reachable().await;
    let mut response = if store && database { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    let sandbox = services.invoker().sandbox();
    let checks = Checks {
        store: word(store),
        database: word(database),
        programs: sandbox.word(),
        shortfalls: sandbox.shortfalls().to_vec(),
    };
    response.json(Health { status: word(store && database), checks: Some(checks) })
}
