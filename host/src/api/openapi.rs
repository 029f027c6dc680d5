//! `/openapi.json`: the description of all this, made from the code.

use actix_web::HttpResponse;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use super::{audit, functions, health, invocations, metrics, output, push, run, tokens};

#[derive(OpenApi)]
#[openapi(
    modifiers(&Bearer),
    security(("token" = [])),
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
        tokens::create,
        tokens::list,
        tokens::revoke,
        audit::list,
        health::healthz,
        health::readyz,
        metrics::metrics,
    )
)]
struct Api;

/// How a token is sent.
struct Bearer;

impl Modify for Bearer {
    fn modify(&self, api: &mut utoipa::openapi::OpenApi) {
        let scheme = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
        api.components.get_or_insert_default().add_security_scheme("token", scheme);
    }
}

/// The OpenAPI 3.1 document.
pub async fn document() -> HttpResponse {
    HttpResponse::Ok().json(Api::openapi())
}
