//! The hub: WebSockets on which calls are made and followed.
//!
//! `/functions` speaks two dialects, told apart by the client's first message: [`signalr`] for the public
//! SignalR clients, [`plain`] for everyone else. `/api/invocations/{id}/tail` follows a call that somebody
//! made. All of them read a call's console at the pace of their client, who is told what it missed; none
//! holds up the function, and each holds little memory. A client that goes away cancels what it started
//! here, and nothing else.

use actix_web::{HttpRequest, HttpResponse, rt, web};
use serde::Serialize;
use uuid::Uuid;

use crate::api::{self, Caller, Fields, Problem, Services};

mod frames;
mod plain;
mod session;
mod signalr;
mod socket;

/// Puts the hub's routes into an app; before those of the API, which answer for all of `/api`.
pub fn routes(app: &mut web::ServiceConfig) {
    app.service(api::at("/functions").route(web::get().to(connect)))
        .service(api::at("/functions/negotiate").route(web::post().to(negotiate)))
        .service(api::at("/api/invocations/{id}/tail").route(web::get().to(tail)));
}

/// What a SignalR client asks for first. Any server takes the connection that follows, whichever answered.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Negotiation {
    negotiate_version: u64,
    connection_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    connection_token: Option<Uuid>,
    available_transports: [Transport; 1],
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Transport {
    transport: &'static str,
    transfer_formats: [&'static str; 1],
}

async fn negotiate(request: HttpRequest) -> Result<HttpResponse, Problem> {
    let mut fields = Fields::of_form(request.query_string().as_bytes())?;
    // Version 0 has no token; later ones are answered with the newest that is spoken here.
    let version = fields.number("negotiateVersion", 0, u64::MAX)?.unwrap_or(0).min(1);
    Ok(HttpResponse::Ok().json(Negotiation {
        negotiate_version: version,
        connection_id: Uuid::now_v7(),
        connection_token: (version > 0).then(Uuid::now_v7),
        available_transports: [Transport { transport: "WebSockets", transfer_formats: ["Text"] }],
    }))
}

/// The largest message: a payload and what stands beside it, as for a request's body.
fn max_message(services: &Services) -> usize {
    let max = services.limits().payload_bytes.saturating_add(api::call::BESIDE_PAYLOAD);
    usize::try_from(max).unwrap_or(usize::MAX)
}

async fn connect(
    request: HttpRequest,
    payload: web::Payload,
    services: Services,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    let max = max_message(&services);
    let (response, sender, receiver) = socket::open(&request, payload, max, &services.config().hub)?;
    rt::spawn(session::serve(sender, receiver, services, caller, max));
    Ok(response)
}

async fn tail(
    request: HttpRequest,
    path: web::Path<String>,
    payload: web::Payload,
    services: Services,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    let id = api::id(&path)?;
    let mut fields = Fields::of_form(request.query_string().as_bytes())?;
    let from = fields.number("from", 0, u64::MAX)?.unwrap_or(0);
    fields.done("'from'")?;
    api::may_see(&services, &caller, id).await?;
    let tail = services.invoker().follow(id, from).await?.ok_or_else(|| api::not_found(id))?;
    let (response, sender, receiver) = socket::open(&request, payload, 1024, &services.config().hub)?;
    rt::spawn(session::follow(sender, receiver, services, caller, tail, plain::EventVoice::of(id)));
    Ok(response)
}

/// How often what may come is tried: a few times at every run, and as often as `PROPTEST_CASES` says for who
/// has the time.
#[cfg(test)]
fn fuzzed() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(5000)
}
