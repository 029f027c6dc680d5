//! `/openapi.json`: the description of all this, made from the code.

use actix_web::HttpResponse;
use utoipa::OpenApi;

use super::{functions, health, invocations, output, push, run};

#[derive(OpenApi)]
#[openapi(
    info(title = "sharpfaas", description = "A function host: push functions as zips, run them on call."),
    paths(
        push::push,
        run::run,
        functions::list,
        functions::one,
        functions::version,
        invocations::list,
        invocations::one,
        invocations::cancel,
        output::output,
        health::healthz,
        health::readyz,
    )
)]
struct Api;

/// The OpenAPI 3.1 document.
pub async fn document() -> HttpResponse {
    HttpResponse::Ok().json(Api::openapi())
}
