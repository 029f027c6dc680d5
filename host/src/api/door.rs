//! The door: what every request passes before its handler.
//!
//! In this order: the name that it asks for, the page that it comes from, and its token. What comes past has a
//! [`Caller`]; what it may do is for the handlers to ask.

use std::net::IpAddr;

use actix_web::{
    HttpMessage, HttpResponse,
    dev::{ServiceRequest, ServiceResponse},
    http::{
        Method, StatusCode, Uri,
        header::{self, HeaderMap, HeaderName, HeaderValue},
        uri::PathAndQuery,
    },
};

use super::{Problem, Services, caller::Caller};
use crate::{
    function::ErrorCode,
    metrics,
    security::{origin::Foreign, tokens::Unverified},
    state::State,
};

/// What can be asked without a token.
const PUBLIC: [&str; 3] = ["/healthz", "/readyz", "/openapi.json"];
/// The query parameter for clients that can't send headers: browsers' WebSockets and `EventSource`.
const ACCESS_TOKEN: &str = "access_token";

/// What a page of another site must be told.
#[derive(Debug, Default)]
pub struct Admitted(Option<HeaderValue>);

/// Lets a request in.
///
/// # Errors
/// The answer of one that may not come in, or needs no handler.
pub fn admit(request: &mut ServiceRequest) -> Result<Admitted, Box<HttpResponse>> {
    let refused = |problem: Problem| Box::new(problem.response());
    let Some(services) = request.app_data::<Services>().cloned() else {
        return Err(refused(Problem::new(ErrorCode::Internal, "the server is not ready")));
    };
    // Whatever becomes of the request, its token goes no further.
    let in_query = take_access_token(request).map_err(refused)?;
    comes_from(address(request), &services).map_err(refused)?;
    let admitted = foreign(request, &services).map_err(|foreign| refused(foreign.into()))?;
    if admitted.0.is_some() && is_preflight(request) {
        return Err(Box::new(preflight(request, admitted)));
    }
    match verify(request, in_query, &services) {
        Ok(caller) => {
            request.extensions_mut().insert(caller);
            Ok(admitted)
        }
        Err(problem) => Err(Box::new(admitted.onto(problem.response()))),
    }
}

impl Admitted {
    fn onto(self, mut response: HttpResponse) -> HttpResponse {
        self.put(response.headers_mut());
        response
    }

    /// Tells it with the answer.
    pub fn with(self, mut response: ServiceResponse) -> ServiceResponse {
        self.put(response.headers_mut());
        response
    }

    fn put(self, headers: &mut HeaderMap) {
        let Some(origin) = self.0 else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        // There are no cookies here; clients of SignalR ask for it all the same.
        headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
        let exposed = HeaderValue::from_static("Location, Retry-After, Preference-Applied");
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, exposed);
    }
}

fn foreign(request: &ServiceRequest, services: &State) -> Result<Admitted, Foreign> {
    let text = |name: HeaderName| request.headers().get(name).and_then(|value| value.to_str().ok());
    // In absolute form, and with HTTP/2, it stands in the URI.
    let host = request.uri().authority().map(|authority| authority.as_str()).or_else(|| text(header::HOST));
    let host = host.unwrap_or_default();
    services.origins().check_host(host)?;
    let Some(origin) = request.headers().get(header::ORIGIN) else { return Ok(Admitted(None)) };
    let told = services.origins().check_origin(origin.to_str().unwrap_or("?"), host)?;
    Ok(Admitted(told.then(|| origin.clone())))
}

impl From<Foreign> for Problem {
    fn from(foreign: Foreign) -> Self {
        metrics::FOREIGN.count();
        Self::new(ErrorCode::Forbidden, foreign.to_string())
    }
}

fn is_preflight(request: &ServiceRequest) -> bool {
    request.method() == Method::OPTIONS && request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// The answer to a page of a known site that asks what it may send: what it asks for.
fn preflight(request: &ServiceRequest, admitted: Admitted) -> HttpResponse {
    let mut response = HttpResponse::NoContent();
    response.insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PUT, DELETE"));
    response.insert_header((header::ACCESS_CONTROL_MAX_AGE, "600"));
    if let Some(wanted) = request.headers().get(header::ACCESS_CONTROL_REQUEST_HEADERS) {
        response.insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, wanted.clone()));
    }
    admitted.onto(response.finish())
}

fn verify(request: &ServiceRequest, in_query: Option<String>, services: &Services) -> Result<Caller, Problem> {
    let in_header = request.headers().get(header::AUTHORIZATION).map(bearer).transpose()?;
    let given = match (in_header, &in_query) {
        (Some(token), _) => Some(token),
        (None, Some(token)) if takes_access_token(request.path()) => Some(token.as_str()),
        (None, Some(_)) => {
            let detail =
                format!("'{ACCESS_TOKEN}' is for WebSockets and event streams: use 'Authorization: Bearer TOKEN'");
            return Err(Problem::new(ErrorCode::Unauthorized, detail));
        }
        (None, None) => None,
    };
    let verified = match (given, request.conn_data::<ClientToken>()) {
        (None, Some(ClientToken(name))) if services.tokens().required() => services.tokens().named(name).map(Some),
        (given, _) => services.tokens().verify(given),
    };
    let token = match verified {
        Ok(token) => token,
        Err(_) if PUBLIC.contains(&request.path()) => None,
        Err(error) => {
            metrics::UNAUTHORIZED.count();
            return Err(error.into());
        }
    };
    let caller = Caller::new(token, address(request), services.clone());
    caller.comes()?;
    Ok(caller)
}

fn address(request: &ServiceRequest) -> Option<IpAddr> {
    request.peer_addr().map(|address| address.ip())
}

/// Whether somebody may come once more from that address.
///
/// # Errors
/// When they come too often.
pub(super) fn comes_from(address: Option<IpAddr>, services: &State) -> Result<(), Problem> {
    if address.is_none_or(|address| services.addresses().take(address)) {
        return Ok(());
    }
    metrics::TOO_MANY.count();
    Err(Problem::new(ErrorCode::TooManyRequests, "too many requests come from this address; try again later"))
}

/// Counts an answer.
pub fn count(status: StatusCode) {
    let counter = match status.as_u16() {
        ..400 => &metrics::ANSWERED,
        400..500 => &metrics::REFUSED,
        500.. => &metrics::FAILED,
    };
    counter.count();
}

/// The name of the token that the certificate of a connection's client stands for.
#[derive(Debug, Clone)]
pub struct ClientToken(pub String);

impl From<Unverified> for Problem {
    fn from(error: Unverified) -> Self {
        let code = match error {
            Unverified::Missing | Unverified::Wrong => ErrorCode::Unauthorized,
            Unverified::Stale => ErrorCode::DatabaseUnavailable,
        };
        Self::new(code, error.to_string())
    }
}

/// The token of an `Authorization` header (RFC 6750, section 2.1).
fn bearer(value: &HeaderValue) -> Result<&str, Problem> {
    let token = value.to_str().ok().and_then(|text| text.split_once(' '));
    match token {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => Ok(token.trim()),
        _ => Err(Problem::new(ErrorCode::Unauthorized, "the Authorization header must be 'Bearer TOKEN'")),
    }
}

/// Whether clients that can't send headers come here.
fn takes_access_token(path: &str) -> bool {
    path == "/functions"
        || path == "/functions/negotiate"
        || (path.starts_with("/api/invocations/") && (path.ends_with("/tail") || path.ends_with("/output")))
}

/// Takes the token out of the query, so that neither functions nor logs see it.
fn take_access_token(request: &mut ServiceRequest) -> Result<Option<String>, Problem> {
    let Some(query) = request.uri().query() else { return Ok(None) };
    let (mut taken, mut left) = (None, Vec::new());
    for pair in query.split('&') {
        let parsed = url::form_urlencoded::parse(pair.as_bytes()).next();
        match parsed {
            Some((name, value)) if name.eq_ignore_ascii_case(ACCESS_TOKEN) => taken = Some(value.into_owned()),
            _ => left.push(pair),
        }
    }
    if taken.is_none() {
        return Ok(None);
    }
    let path = request.uri().path();
    let path_and_query = if left.is_empty() { path.to_owned() } else { format!("{path}?{}", left.join("&")) };
    let mut parts = request.uri().clone().into_parts();
    let failed = |_| Problem::invalid("the address is not valid");
    parts.path_and_query = Some(PathAndQuery::try_from(path_and_query).map_err(|error| failed(error.to_string()))?);
    let uri = Uri::from_parts(parts).map_err(|error| failed(error.to_string()))?;
    request.match_info_mut().get_mut().update(&uri);
    request.head_mut().uri = uri;
    Ok(taken)
}
