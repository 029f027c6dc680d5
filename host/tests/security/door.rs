//! What the door refuses before anyone is asked for a token.

use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::{guarded, make, scopes};
use crate::common::{
    server::{Server, client, client_with},
    websocket::Socket,
};

#[tokio::test]
async fn others_reach_no_server_without_tokens() {
    let refusal = Server::refusal_at("0.0.0.0:0", "");
    assert!(refusal.contains("without tokens") && refusal.contains("--admin-token FILE"), "{refusal}");
    let weak = Server::refusal("[security]\nadmin_token_env = \"PATH\"\nadmin_token_file = \"x\"\n");
    assert!(weak.contains("admin_token_file and admin_token_env"), "{weak}");
}

async fn code(request: reqwest::RequestBuilder) -> (StatusCode, String) {
    let response = request.send().await.expect("an answer");
    let status = response.status();
    let body = response.json::<Value>().await.unwrap_or_default();
    (status, body["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn pages_of_other_sites_and_rebound_names_are_refused() {
    let server = Server::start("[security]\norigins = [\"https://app.example\"]\nhosts = [\"faas.example\"]\n");
    server.push("echo.wasm").await;
    let run = || {
        let url = server.url("/api/function/runfunction?functionName=echo&lane=dev");
        server.client.post(url).header("content-type", "text/plain").body("1")
    };
    let forbidden = (StatusCode::FORBIDDEN, "forbidden".to_owned());
    assert_eq!(code(run()).await.0, 200);
    for origin in ["https://evil.example", "null", "http://localhost:1"] {
        assert_eq!(code(run().header("origin", origin)).await, forbidden, "{origin}");
    }
    let own = server.url.clone();
    assert_eq!(code(run().header("origin", &own)).await.0, 200);
    for host in ["evil.example", "127.0.0.1.evil.example"] {
        assert_eq!(code(run().header("host", host)).await, forbidden, "{host}");
    }
    for host in ["localhost", "faas.example", "[::1]:99"] {
        assert_eq!(code(run().header("host", host)).await.0, 200, "{host}");
    }

    // A page that is named may ask, and is told so; and no other.
    let answer = run().header("origin", "https://app.example").send().await.expect("an answer");
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["access-control-allow-origin"], "https://app.example");
    let preflight = |origin: &'static str| {
        server
            .client
            .request(Method::OPTIONS, server.url("/api/function/runfunction"))
            .header("origin", origin)
            .header("access-control-request-method", "POST")
            .header("access-control-request-headers", "authorization, content-type")
    };
    let allowed = preflight("https://app.example").send().await.expect("an answer");
    assert_eq!(allowed.status(), 204);
    assert_eq!(allowed.headers()["access-control-allow-headers"], "authorization, content-type");
    let refused = preflight("https://evil.example").send().await.expect("an answer");
    assert_eq!(refused.status(), 403);
    assert!(refused.headers().get("access-control-allow-origin").is_none());

    // WebSockets, which browsers let every page open.
    assert!(Socket::with_header(&server, "/functions", "origin", "https://evil.example").await.is_err());
    assert!(Socket::with_header(&server, "/functions", "origin", "https://app.example").await.is_ok());
    assert!(Socket::with_header(&server, "/functions", "host", "evil.example").await.is_err());
}

/// The value of a metric.
async fn metric(server: &Server, name: &str) -> u64 {
    let text = server.client.get(server.url("/metrics")).send().await.expect("an answer").text().await.expect("text");
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name}: {text}")).parse().expect("a number")
}

#[tokio::test]
async fn who_comes_too_often_is_told_so() {
    let server = guarded("[security]\ntoken_rate = 20\n");
    server.push("echo.wasm").await;
    let token = make(&server, scopes("eager", &["run"], "dev")).await;
    let other = make(&server, scopes("calm", &["run"], "dev")).await;
    let ask = async |token: &str| {
        let url = server.url("/api/function/runfunction?functionName=echo&lane=dev");
        let response = client_with(token).post(url).body("1").send().await.expect("an answer");
        (response.status(), response.headers().contains_key("retry-after"))
    };
    let mut refused = 0;
    while refused == 0 {
        for answer in futures_util::future::join_all((0..60).map(|_| ask(&token))).await {
            match answer {
                (StatusCode::OK, _) => {}
                (StatusCode::TOO_MANY_REQUESTS, true) => refused += 1,
                other => panic!("{other:?}"),
            }
        }
    }
    assert_eq!(ask(&other).await.0, 200, "another token is not held up");
    assert!(metric(&server, "sharpfaas_too_many_requests_total").await >= refused);

    // Calls on an open connection count, too.
    let mut socket = Socket::connect(&server, &format!("/functions?access_token={other}")).await;
    let mut codes = Vec::new();
    let has = |codes: &[String], wanted: &str| codes.iter().any(|code| code == wanted);
    while !has(&codes, "too_many_requests") || !has(&codes, "none") {
        for _ in 0..60 {
            socket.send_json(json!({ "functionName": "echo", "lane": "dev", "payload": 1 })).await;
        }
        codes.clear();
        while codes.len() < 60 {
            let event = socket.json().await;
            if event["event"] == "completed" || event["event"] == "failed" {
                codes.push(event["code"].as_str().unwrap_or("none").to_owned());
            }
        }
    }
}

#[tokio::test]
async fn an_address_has_so_many_connections_and_requests() {
    let server = Server::start("[security]\naddress_connections = 3\n");
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(Socket::connect(&server, "/functions").await);
    }
    assert!(Socket::try_connect(&server, "/functions").await.is_err());
    drop(held.pop());
    let started = std::time::Instant::now();
    while Socket::try_connect(&server, "/functions").await.is_err() {
        assert!(started.elapsed() < crate::common::server::PATIENCE, "the place is not given back");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    drop(held);
    let server = Server::start("[security]\naddress_rate = 10\n");
    let ask = async || client().get(server.url("/healthz")).send().await.expect("an answer").status().as_u16();
    let mut statuses = Vec::new();
    while !statuses.contains(&200) || !statuses.contains(&429) {
        statuses.extend(futures_util::future::join_all((0..40).map(|_| ask())).await);
    }
}

#[tokio::test]
async fn what_is_counted_can_be_scraped() {
    let server = Server::start("");
    server.push("echo.wasm").await;
    server.push("return-error.wasm").await;
    for payload in 0..3 {
        server.run("echo", json!(payload)).await;
    }
    server.run("return-error", json!("no")).await;
    for (name, expected) in [
        ("sharpfaas_invocations_total{status=\"succeeded\"}", 3),
        ("sharpfaas_invocations_total{status=\"failed\"}", 1),
        ("sharpfaas_invocation_seconds_count", 4),
        ("sharpfaas_invocation_seconds_bucket{le=\"+Inf\"}", 4),
        ("sharpfaas_requests_total{status=\"5xx\"}", 1),
        ("sharpfaas_invocations_running", 0),
    ] {
        assert_eq!(metric(&server, name).await, expected, "{name}");
    }
    assert!(metric(&server, "sharpfaas_connections").await >= 1);
    assert!(metric(&server, "process_resident_memory_bytes").await > 1_000_000);
}
