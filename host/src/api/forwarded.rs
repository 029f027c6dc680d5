//! What passes between who asks and a function that handles HTTP: no header that is for one connection alone, no
//! token, and who asked for what.

use actix_web::{
    HttpRequest,
    http::header::{self as from, HeaderMap as FromMap, HeaderName as FromName, HeaderValue as FromValue},
};
use http::{
    HeaderMap, HeaderValue, Method, Request, Uri,
    header::{self, HeaderName},
};

use super::Problem;

/// The headers that are for one connection alone (RFC 9110, section 7.6.1), and those that the web server makes.
const OF_CONNECTION: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "transfer-encoding",
    "upgrade",
];
/// The lists of who forwarded a request: RFC 7239's, and the older one.
const FORWARDED: &str = "forwarded";
const FORWARDED_FOR: &str = "x-forwarded-for";

/// The request as the function gets it. `prefix` is what stands in front of its own path.
///
/// # Errors
/// When it is not one that can be passed on.
pub fn request(request: &HttpRequest, prefix: &str, path: &str, secure: bool) -> Result<Request<()>, Problem> {
    let invalid = |what: &str| Problem::invalid(format!("the request's {what} cannot be passed on"));
    let target = match request.uri().query() {
        Some(query) => format!("{path}?{query}"),
        None => path.to_owned(),
    };
    let mut passed = Request::new(());
    *passed.method_mut() = Method::from_bytes(request.method().as_str().as_bytes()).map_err(|_| invalid("method"))?;
    *passed.uri_mut() = Uri::try_from(target).map_err(|_| invalid("path"))?;
    let headers = passed.headers_mut();
    let own = named_in_connection(request.headers());
    for (name, value) in request.headers() {
        let name = name.as_str();
        // The token is between who asks and the server.
        if is_of_connection(name, &own) || name == "authorization" {
            continue;
        }
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| invalid("headers"))?;
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).map_err(|_| invalid("headers"))?);
    }
    let text = |name: FromName| request.headers().get(name).and_then(|value| value.to_str().ok());
    // In absolute form it stands in the URI.
    let host = request.uri().authority().map(|authority| authority.as_str()).or_else(|| text(from::HOST));
    let host = host.unwrap_or("localhost").to_owned();
    headers.insert(header::HOST, HeaderValue::from_str(&host).map_err(|_| invalid("host"))?);
    let peer = request.peer_addr().map(|address| address.ip());
    let peer = peer.map_or_else(|| "unknown".to_owned(), |address| address.to_canonical().to_string());
    let node = if peer.contains(':') { format!("\"[{peer}]\"") } else { peer.clone() };
    let proto = if secure { "https" } else { "http" };
    let plain = host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._:[]".contains(&b));
    let said = if plain { format!(";host=\"{host}\"") } else { String::new() };
    append(headers, FORWARDED, &format!("for={node};proto={proto}{said}"));
    append(headers, FORWARDED_FOR, &peer);
    // What this server knows, and nobody who asks can say otherwise.
    for (name, value) in [("x-forwarded-proto", proto), ("x-forwarded-host", &host), ("x-forwarded-prefix", prefix)] {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Ok(passed)
}

/// Adds to the end of a list, which may stand in several headers.
fn append(headers: &mut HeaderMap, name: &'static str, value: &str) {
    let before = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
    let list = before.chain([value]).collect::<Vec<_>>().join(", ");
    if let Ok(list) = HeaderValue::from_str(&list) {
        headers.insert(HeaderName::from_static(name), list);
    }
}

/// Whether a header is for one connection alone, where its sender names these of them.
pub fn is_of_connection(name: &str, own: &[String]) -> bool {
    OF_CONNECTION.contains(&name) || own.iter().any(|own| own == name)
}

/// Whether a header says who forwarded a request, and what was asked for then.
pub fn is_forwarded(name: &str) -> bool {
    name == FORWARDED || name.starts_with("x-forwarded-")
}

/// The headers that the sender says are for the connection alone.
pub fn named_in_connection(headers: &FromMap) -> Vec<String> {
    let values = headers.get_all(from::CONNECTION).filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

/// The headers of the function's answer, as they go out.
pub fn answer(given: &HeaderMap, headers: &mut FromMap) {
    let own: Vec<String> = given
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(|name| name.trim().to_ascii_lowercase())
        .collect();
    for (name, value) in given {
        let name = name.as_str();
        // The web server writes the length, by the body's.
        if is_of_connection(name, &own) || name == "content-length" {
            continue;
        }
        if let (Ok(name), Ok(value)) = (FromName::from_bytes(name.as_bytes()), FromValue::from_bytes(value.as_bytes()))
        {
            headers.append(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    fn passed(request_: TestRequest) -> Request<()> {
        request(&request_.to_http_request(), "/fn/dev/f", "/a", false).expect("it is passed on")
    }

    #[test]
    fn headers_of_the_connection_and_tokens_go_no_further() {
        let asked = TestRequest::get()
            .uri("/fn/dev/f/a?b=%20c")
            .insert_header(("Connection", "close, X-Mine"))
            .insert_header(("X-Mine", "1"))
            .insert_header(("TE", "trailers"))
            .insert_header(("Authorization", "Bearer secret"))
            .insert_header(("X-Kept", "2"));
        let passed = passed(asked);
        assert_eq!(passed.uri(), "/a?b=%20c");
        let names: Vec<_> = passed.headers().keys().map(HeaderName::as_str).collect();
        for gone in ["connection", "x-mine", "te", "authorization"] {
            assert!(!names.contains(&gone), "{names:?}");
        }
        assert_eq!(passed.headers()["x-kept"], "2");
    }

    #[test]
    fn who_asked_stands_at_the_end_of_what_was_said_before() {
        let asked = TestRequest::get()
            .peer_addr("[2001:db8::7]:9".parse().expect("an address"))
            .insert_header(("Host", "f.example:8080"))
            .insert_header(("X-Forwarded-For", "192.0.2.1"))
            .insert_header(("X-Forwarded-Proto", "gopher"))
            .insert_header(("Forwarded", "for=192.0.2.1"));
        let passed = passed(asked);
        let headers = passed.headers();
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1, 2001:db8::7");
        assert_eq!(headers["forwarded"], "for=192.0.2.1, for=\"[2001:db8::7]\";proto=http;host=\"f.example:8080\"");
        for (name, expected) in [
            ("x-forwarded-proto", "http"),
            ("x-forwarded-prefix", "/fn/dev/f"),
            ("x-forwarded-host", "f.example:8080"),
            ("host", "f.example:8080"),
        ] {
            assert_eq!(headers[name], expected, "{name}");
        }
    }

    #[test]
    fn answers_keep_what_is_theirs() {
        let mut given = HeaderMap::new();
        for (name, value) in [("x-many", "1"), ("x-many", "2"), ("connection", "x-gone"), ("x-gone", "3")] {
            given.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        given.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        let mut headers = FromMap::new();
        answer(&given, &mut headers);
        let told: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
        assert_eq!(told, [("x-many", "1"), ("x-many", "2")]);
    }
}
