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

/// What a name, a lane and so on must look like.
const FUNCTION: &str = "[A-Za-z0-9][A-Za-z0-9_.-]{0,63}";
const LANE: &str = "[A-Za-z0-9][A-Za-z0-9_-]{0,31}";
const SELECTOR: &str = "latest|0|[1-9][0-9]{0,3}(\\.[0-9]{1,4})?";
/// In any language a shorter one, since its bytes are counted.
const CALLER: &str = "[ -~]{1,128}|[^\\x00-\\x1f\\x7f-\\x9f]{1,32}";
const KEY: &str = "[ -~]{0,200}|[^\\x00-\\x1f\\x7f-\\x9f]{0,50}";
const ENTRY: &str = "[^./\\\\:\\x00-\\x1f\\x7f-\\x9f][^/\\\\:\\x00-\\x1f\\x7f-\\x9f]*";
const SCHEDULE: &str = "[A-Za-z0-9_.-]{1,128}";
/// A text that is looked for, which the database can hold.
const SOUGHT: &str = "[^\\x00]+";

/// The OpenAPI 3.1 document, of this server as it is: while it asks for no token, none is needed.
pub async fn document(services: Services) -> HttpResponse {
    let mut api = Api::openapi();
    if !services.tokens().required() {
        api.security = None;
    }
    match serde_json::to_value(&api) {
        Ok(mut api) => {
            parameters(&mut api);
            bodies(&mut api);
            HttpResponse::Ok().json(api)
        }
        Err(_) => HttpResponse::Ok().json(api),
    }
}

/// Bodies whose fields have the names of parameters.
const BODIES: [&str; 5] = ["CallFields", "WorkFields", "JobRequest", "ScheduleRequest", "NewToken"];

/// Says of every parameter what it may hold.
fn parameters(api: &mut Value) {
    let paths = api.get_mut("paths").and_then(Value::as_object_mut).into_iter().flatten();
    for (path, operations) in paths {
        let operations = operations.as_object_mut().into_iter().flat_map(|operations| operations.values_mut());
        let lists = operations.filter_map(|operation| operation.get_mut("parameters")?.as_array_mut());
        for parameter in lists.flatten() {
            let name = parameter.get("name").and_then(Value::as_str).unwrap_or_default().to_owned();
            // The same word in several resources.
            let name = match (path.as_str(), name.as_str()) {
                (path, "id") if path.starts_with("/api/schedules") => "scheduleId",
                ("/api/schedules", "after") => "scheduleId",
                (path, "name") if path.starts_with("/api/functions") => "functionName",
                ("/api/functions", "after") => "functionName",
                (_, name) => name,
            };
            let more = holds(name);
            if let Some(schema) = parameter.get_mut("schema").and_then(Value::as_object_mut) {
                schema.extend(more);
                // One that is not needed is left out; there is no way to write that it is null.
                if let Some(types) = schema.get_mut("type").filter(|types| types.is_array()) {
                    let first = types.get(0).cloned().unwrap_or_default();
                    *types = first;
                }
            }
        }
    }
}

/// Says the same of the fields of bodies.
fn bodies(api: &mut Value) {
    for body in BODIES {
        // Fields that are part of another's stand below `allOf`.
        let mut whole = api.pointer_mut(&format!("/components/schemas/{body}"));
        let parts = whole.as_mut().and_then(|whole| whole.get_mut("allOf")).and_then(Value::as_array_mut);
        match parts {
            Some(parts) => parts.iter_mut().for_each(fields),
            None => whole.into_iter().for_each(fields),
        }
    }
}

fn fields(schema: &mut Value) {
    let fields = schema.get_mut("properties").and_then(Value::as_object_mut);
    for (name, schema) in fields.into_iter().flatten() {
        if let Some(schema) = schema.as_object_mut() {
            schema.extend(holds(name));
        }
    }
}

/// What a field of that name may hold, in the words of JSON Schema.
fn holds(name: &str) -> serde_json::Map<String, Value> {
    let pattern = |text: &str| json!({ "pattern": format!("^({text})$") });
    let number = |least: i64, most: i64| json!({ "minimum": least, "maximum": most });
    let more = match name {
        "functionName" | "function" | "queue" | "name" => pattern(FUNCTION),
        "lane" => pattern(LANE),
        "version" => pattern(SELECTOR),
        "callerId" => pattern(CALLER),
        "entryFileName" => json!({ "pattern": format!("^{ENTRY}(/{ENTRY})*$"), "maxLength": 63 }),
        "scheduleId" => pattern(SCHEDULE),
        "mutexKey" | "idempotencyKey" => pattern(KEY),
        "actor" | "action" | "text" => pattern(SOUGHT),
        "deadlineMs" => number(1, 86_400_000),
        "delaySeconds" => number(0, 315_360_000),
        "priority" => number(-1000, 1000),
        "maxAttempts" => number(1, 100),
        "mutexLimit" => number(1, 100_000),
        "expiresSeconds" => number(1, 3_155_760_000),
        _ => json!({}),
    };
    match more {
        Value::Object(more) => more,
        _ => serde_json::Map::new(),
    }
}
