//! `/metrics`, for Prometheus.

use actix_web::{HttpResponse, http::header};

use super::{Problem, Services, caller::Caller};
use crate::{
    function::Status,
    metrics::{self, value},
    security::Verb,
};

/// What the server counts, in Prometheus' text format; for tokens that may read everything.
#[utoipa::path(
    get,
    path = "/metrics",
    tag = "server",
    responses(
        (status = 200, body = String, content_type = "text/plain"),
        (status = "default", body = super::error::ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn metrics(services: Services, caller: Caller) -> Result<HttpResponse, Problem> {
    caller.may_all(Verb::Read)?;
    let mut text = metrics::render();
    let live = services.invoker().all_live();
    let count = |status: Status| live.iter().filter(|live| live.status() == status).count();
    value(&mut text, "sharpfaas_invocations_running", "Calls at work.", "gauge", count(Status::Running));
    value(&mut text, "sharpfaas_invocations_queued", "Calls that wait.", "gauge", count(Status::Queued));
    let tasks = services.invoker().tasks();
    value(&mut text, "sharpfaas_tasks", "Tasks beside those of connections and listeners.", "gauge", tasks);
    let tokens = services.tokens().list().len();
    value(&mut text, "sharpfaas_tokens", "Tokens that are known.", "gauge", tokens);
    if let Some((resident, descriptors)) = process() {
        value(&mut text, "process_resident_memory_bytes", "Memory that is in use.", "gauge", resident);
        value(&mut text, "process_open_fds", "Open files and sockets.", "gauge", descriptors);
    }
    let name = concat!("sharpfaas_info{version=\"", env!("CARGO_PKG_VERSION"), "\"}");
    value(&mut text, name, "Which version runs.", "gauge", 1);
    Ok(HttpResponse::Ok().insert_header((header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")).body(text))
}

/// Memory in bytes and open descriptors of this process.
fn process() -> Option<(u64, usize)> {
    let pages: u64 = std::fs::read_to_string("/proc/self/statm").ok()?.split_whitespace().nth(1)?.parse().ok()?;
    let page = u64::try_from(rustix::param::page_size()).ok()?;
    Some((pages * page, std::fs::read_dir("/proc/self/fd").ok()?.count()))
}
