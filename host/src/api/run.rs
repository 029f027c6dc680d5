//! `POST /api/function/runfunction`: a call.

use actix_multipart::Multipart;
use actix_web::{
    HttpRequest, HttpResponse,
    error::PayloadError,
    http::header::{self, HeaderMap},
    web,
};
use futures_util::{StreamExt, stream};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::{
    Problem, Services,
    body::{self, Pace},
    call::{self, BESIDE_PAYLOAD},
    caller::Caller,
    error::ProblemDocument,
    fields::Fields,
    view::{InvocationView, ResultValue, millis},
};
use crate::{
    function::{CallerId, ErrorCode, FunctionType, OutputLine, Status},
    invoke::{Live, sealed, turn},
};

/// A call that succeeded.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunResponse<'a> {
    /// The call's id, for history.
    invocation_id: Uuid,
    /// Who called, where they said.
    caller_id: Option<&'a str>,
    /// What was run.
    function_name: &'a str,
    /// From which lane.
    lane: &'a str,
    /// The exact version.
    #[schema(value_type = String)]
    version: Option<String>,
    /// The function's type.
    #[serde(rename = "type")]
    kind: Option<FunctionType>,
    /// `succeeded`.
    status: Status,
    /// What it returned: a JSON value, or a string.
    #[schema(value_type = serde_json::Value)]
    result: ResultValue<'a>,
    /// The last of what it printed.
    #[schema(value_type = Vec<OutputLine>)]
    output: &'a [std::sync::Arc<OutputLine>],
    /// Whether it printed more than that.
    output_truncated: bool,
    /// How long it was at work, in milliseconds.
    elapsed_ms: f64,
}

/// Runs a function. The fields may stand in a JSON object, in a form, or in the query with the body as
/// the payload. Parameters that are not the server's go to the function's context.
#[utoipa::path(
    post,
    path = "/api/function/runfunction",
    tag = "functions",
    params(
        ("functionName" = String, Query, description = "The function's name"),
        ("lane" = String, Query, description = "The lane to run it from"),
        ("version" = Option<String>, Query, description = "`1.3`, `1` for the newest 1.x, or `latest` (default)"),
        ("callerId" = Option<String>, Query, description = "Who calls, for history and logs"),
        ("type" = Option<FunctionType>, Query, description = "The type that the caller expects"),
        ("entryFileName" = Option<String>, Query, description = "Another entry of the same package"),
        ("payload" = Option<String>, Query, description = "The payload, where it is not the body"),
        ("payloadEncrypted" = Option<bool>, Query, description = "Whether the payload is encrypted: a JWE in compact form, `alg: dir`, `enc: A256GCM`"),
        ("encryptResult" = Option<bool>, Query, description = "Whether the result and the output are to come encrypted, under the payload's key"),
        ("deadlineMs" = Option<u64>, Query, description = "A shorter deadline than the server's, in milliseconds"),
        ("Prefer" = Option<String>, Header, description = "`respond-async`: answer at once with 202 and a Location"),
    ),
    request_body(content = serde_json::Value, description = "The payload, or a JSON object or form of the fields above"),
    responses(
        (status = 200, description = "The function succeeded", body = RunResponse),
        (status = 202, description = "Accepted (`Prefer: respond-async`)", body = InvocationView),
        (status = "4XX", description = "The call is not valid", body = ProblemDocument, content_type = "application/problem+json"),
        (status = "5XX", description = "The function, or the server, failed", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn run(
    request: HttpRequest,
    body: web::Payload,
    services: Services,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    // The web server looks for the body once this waits: then all of it may be there, and no clock need run for it.
    turn().await;
    let (fields, payload) = fields(&request, body, &services).await?;
    let invocation = call::invocation(fields, payload, &services, &caller).await?;
    if !wants_async(request.headers()) {
        return ended(&*services.invoker().call(invocation).await);
    }
    let invoker = services.invoker().clone();
    let live = services.spawn(async move { invoker.start_detached(invocation).await }).await??;
    let row = live.row(services.invoker().node());
    Ok(HttpResponse::Accepted()
        .insert_header((header::LOCATION, format!("/api/invocations/{}", live.id)))
        .insert_header(("Preference-Applied", "respond-async"))
        .json(InvocationView::whole(&row)))
}

fn ended(live: &Live) -> Result<HttpResponse, Problem> {
    let Some(end) = live.ended() else {
        return Err(Problem::new(ErrorCode::Internal, "the call has not ended").of(live.id));
    };
    let result = match &end.result {
        Ok(result) => result,
        Err(error) => return Err(Problem::new(error.code(), live.detail_for_caller(error)).of(live.id)),
    };
    let seal = live.seal(true);
    let encrypted = seal.map(|seal| seal.seal(result));
    let (output, skipped) = live.console.tail();
    let output = sealed(output, seal);
    Ok(HttpResponse::Ok().json(RunResponse {
        invocation_id: live.id.0,
        caller_id: live.caller_id.as_ref().map(CallerId::as_str),
        function_name: live.name.as_str(),
        lane: live.lane.as_str(),
        version: live.version().map(|version| version.to_string()),
        kind: live.kind(),
        status: Status::Succeeded,
        result: ResultValue(encrypted.as_deref().unwrap_or(result)),
        output: &output,
        output_truncated: skipped > 0,
        elapsed_ms: millis(u64::try_from(end.elapsed.as_micros()).unwrap_or(u64::MAX)),
    }))
}

/// RFC 7240, section 4.1.
fn wants_async(headers: &HeaderMap) -> bool {
    headers.get_all("Prefer").filter_map(|value| value.to_str().ok()).any(|value| {
        value.split(',').any(|preference| {
            preference.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("respond-async"))
        })
    })
}

/// The fields of a call, and its payload, wherever in the request they are.
pub(super) async fn fields(
    request: &HttpRequest,
    body: web::Payload,
    services: &Services,
) -> Result<(Fields, String), Problem> {
    let query = Fields::of_form(request.query_string().as_bytes())?;
    let body = body::read(
        request,
        body,
        services.limits().payload_bytes.saturating_add(BESIDE_PAYLOAD),
        Pace::new(services.config().server.read_seconds),
    )
    .await?;
    let media = media_type(request);
    let (mut fields, body) = if media.eq_ignore_ascii_case("application/x-www-form-urlencoded") {
        // curl --data sends this type without being asked: with the function in the query it is a payload.
        if query.has("functionName") {
            (query, body)
        } else {
            (query.and(Fields::of_form(&body)?)?, Default::default())
        }
    } else if media.eq_ignore_ascii_case("multipart/form-data") && !query.has("functionName") {
        (query.and(multipart(request, body).await?)?, Default::default())
    } else if query.has("functionName") || body.is_empty() {
        (query, body)
    } else if media.is_empty() || media.eq_ignore_ascii_case("application/json") || media.ends_with("+json") {
        (query.and(Fields::of_json(&body)?)?, Default::default())
    } else {
        return Err(Problem::invalid(format!(
            "'functionName' is missing: give it in the query, or send a JSON object or a form instead of {media:?}"
        )));
    };
    let payload = match (fields.take_any("payload")?, body.is_empty()) {
        (given, true) => given.unwrap_or_default(),
        (None, false) => String::from_utf8(body.into())
            .map_err(|_| Problem::new(ErrorCode::InvalidPayload, "the payload must be UTF-8 text"))?,
        (Some(_), false) => {
            return Err(Problem::invalid("the payload is given twice, in the query and as the body"));
        }
    };
    Ok((fields, payload))
}

/// The fields of a form that was sent in parts.
async fn multipart(request: &HttpRequest, body: bytes::Bytes) -> Result<Fields, Problem> {
    let invalid = |error: &dyn std::fmt::Display| Problem::invalid(format!("the form cannot be read: {error}"));
    let mut parts = Multipart::new(request.headers(), stream::iter([Ok::<_, PayloadError>(body)]));
    let mut fields = Fields::default();
    while let Some(part) = parts.next().await {
        let mut part = part.map_err(|error| invalid(&error))?;
        let name = part.name().unwrap_or_default().to_owned();
        let mut value = Vec::new();
        while let Some(bytes) = part.next().await {
            value.extend_from_slice(&bytes.map_err(|error| invalid(&error))?);
        }
        let value =
            String::from_utf8(value).map_err(|_| Problem::invalid(format!("field {name:?} must be UTF-8 text")))?;
        fields.push(name, value)?;
    }
    Ok(fields)
}

/// The media type of the body, without its parameters.
fn media_type(request: &HttpRequest) -> &str {
    let value = request.headers().get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    value.split(';').next().unwrap_or_default().trim()
}
