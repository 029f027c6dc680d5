//! `/openapi.json`: the description of all this, made from the code.

use actix_web::HttpResponse;
use serde_json::{Value, json};
use utoipa::{
    Modify, OpenApi,
    openapi::security::{Http, HttpAuthScheme, SecurityScheme},
};

use super::{
    Services, audit, functions, health, invocations, jobs, metrics, output, push, queues, run, schedules, servers,
    tokens,
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

/// What names must look like; where one is not needed, it may be empty too.
const FUNCTION: &str = "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}";
const LANE: &str = "[A-Za-z0-9][A-Za-z0-9_-]{0,31}";
const SELECTOR: &str = "latest|0|[1-9][0-9]{0,3}(\\.[0-9]{1,4})?";

/// The OpenAPI 3.1 document, of this server as it is: while it asks for no token, none is needed.
pub async fn document(services: Services) -> HttpResponse {
    let mut api = Api::openapi();
    if !services.tokens().required() {
        api.security = None;
    }
    match serde_json::to_value(&api) {
        Ok(mut api) => {
            parameters(&mut api);
            HttpResponse::Ok().json(api)
        }
        Err(_) => HttpResponse::Ok().json(api),
    }
}

/// Says of every parameter what it may hold.
fn parameters(api: &mut Value) {
    let paths = api.get_mut("paths").and_then(Value::as_object_mut).into_iter().flat_map(|paths| paths.values_mut());
    let operations = paths.filter_map(Value::as_object_mut).flat_map(|path| path.values_mut());
    let lists = operations.filter_map(|operation| operation.get_mut("parameters")?.as_array_mut());
    for parameter in lists.flatten() {
        let needed = parameter.get("required").and_then(Value::as_bool).unwrap_or(false);
        let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
        let pattern = |text: &str| json!({ "pattern": format!("^({text}){}$", if needed { "" } else { "?" }) });
        let more = match name.as_str() {
            "functionName" | "function" => pattern(FUNCTION),
            "lane" => pattern(LANE),
            "version" => pattern(SELECTOR),
            "deadlineMs" => json!({ "minimum": 1, "maximum": 86_400_000 }),
            "actor" | "action" => json!({ "pattern": "^[^\\x00]*$" }),
            _ => json!({}),
        };
        let schema = parameter.get_mut("schema").and_then(Value::as_object_mut);
        if let (Some(schema), Value::Object(more)) = (schema, more) {
            schema.extend(more);
            // One that is not needed is left out; there is no way to write that it is null.
            if let Some(types) = schema.get_mut("type").filter(|types| types.is_array()) {
                let first = types.get(0).cloned().unwrap_or_default();
                *types = first;
            }
        }
    }
}
