//! The HTTP API: the table of routes.
//!
//! An endpoint, or a resource, is a file: it parses its request and acts on it there. Every error becomes
//! a problem document, in [`error`] and nowhere else.

use actix_web::{
    HttpRequest, HttpResponse, Resource,
    dev::ServiceResponse,
    http::{StatusCode, header},
    web,
};

use crate::{function::ErrorCode, state::State};

mod audit;
mod body;
pub mod call;
mod caller;
pub mod connection;
mod door;
mod error;
mod fields;
mod forwarded;
mod functions;
mod grants;
mod health;
mod invocations;
mod jobs;
pub mod line;
mod metrics;
mod openapi;
mod output;
mod push;
mod queues;
mod requests;
mod route;
mod run;
mod schedules;
mod servers;
mod tokens;
mod trailers;
mod view;

pub use body::hold;
pub use caller::Caller;
pub use door::{ClientToken, admit, count};
pub use error::{Problem, ProblemDocument};
pub use fields::Fields;
pub use invocations::{id, may_see, not_found};
pub use trailers::Followed;
pub use view::{millis, with_result};

/// Puts the route of calls into an app: the first that is looked at, as nearly every request is one.
pub fn calls(app: &mut web::ServiceConfig) {
    for path in ["/api/function/runfunction", "/api/runfunction"] {
        app.service(at(path).route(web::post().to(run::run)));
    }
}

/// Puts every other route into an app.
pub fn routes(app: &mut web::ServiceConfig) {
    app.service(
        web::scope("/api")
            .service(at("/function/pushfunction").route(web::post().to(push::push)))
            .service(at("/pushfunction").route(web::post().to(push::push)))
            .service(at("/functions").route(web::get().to(functions::list)))
            .service(at("/functions/{name}").route(web::get().to(functions::one)))
            .service(at("/functions/{name}/{lane}/{version}").route(web::get().to(functions::version)))
            .service(at("/invocations").route(web::get().to(invocations::list)))
            .service(
                at("/invocations/{id}")
                    .route(web::get().to(invocations::one))
                    .route(web::delete().to(invocations::cancel)),
            )
            .service(at("/invocations/{id}/output").route(web::get().to(output::output)))
            .service(at("/tokens").route(web::get().to(tokens::list)).route(web::post().to(tokens::create)))
            .service(at("/tokens/{name}").route(web::delete().to(tokens::revoke)))
            .service(at("/audit").route(web::get().to(audit::list)))
            .configure(jobs::routes)
            .configure(schedules::routes)
            .service(at("/queues").route(web::get().to(queues::list)))
            .service(at("/servers").route(web::get().to(servers::list))),
    )
    .service(at("/fn/{target:.*}").route(web::to(route::route)))
    .service(at("/healthz").route(web::get().to(health::healthz)))
    .service(at("/readyz").route(web::get().to(health::readyz)))
    .service(at("/metrics").route(web::get().to(metrics::metrics)))
    .service(at("/openapi.json").route(web::get().to(openapi::document)))
    .default_service(web::to(nothing));
}

/// A resource. What it answers to methods that it does not have is made by [`describe`].
pub fn at(path: &str) -> Resource {
    web::resource(path)
}

/// The answer as it goes out: a method that a resource does not have is refused with a problem document, too,
/// and with the methods that it has (RFC 9110, section 15.5.6).
pub fn describe(response: ServiceResponse) -> ServiceResponse {
    // A function's answer is its own.
    if response.status() != StatusCode::METHOD_NOT_ALLOWED || response.request().path().starts_with(route::PREFIX) {
        return response;
    }
    let request = response.request();
    let detail = format!("{} does not take {}", request.path(), request.method());
    let mut problem = Problem::new(ErrorCode::MethodNotAllowed, detail).response();
    if let Some(allowed) = response.headers().get(header::ALLOW) {
        problem.headers_mut().insert(header::ALLOW, allowed.clone());
    }
    response.into_response(problem)
}

async fn nothing(request: HttpRequest) -> HttpResponse {
    Problem::new(ErrorCode::NotFound, format!("there is nothing at {}", request.path())).response()
}

/// The services that every handler works with.
pub type Services = web::Data<State>;
