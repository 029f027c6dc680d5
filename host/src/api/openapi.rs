//! `/openapi.json`: the description of all this, made from the code.

use actix_web::HttpResponse;
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use super::{
    audit, functions, health, invocations, jobs, metrics, output, push, queues, run, schedules, servers, tokens,
};

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
        jobs::create,
        jobs::list,
        jobs::one,
        jobs::requeue,
        jobs::delete,
        jobs::requeue_all,
        jobs::delete_all,
        jobs::batches::create,
        jobs::batches::one,
        jobs::batches::delete,
        schedules::list,
        schedules::put,
        schedules::one,
        schedules::delete,
        schedules::trigger,
        schedules::pause,
        schedules::resume,
        queues::list,
        servers::list,
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
