//! Every endpoint and method × no token, one of another lane, one for other verbs, one that has expired, one that
//! was revoked, and the right one: the right answer each.

use std::collections::BTreeSet;

use reqwest::{Method, multipart};
use serde_json::{Value, json};

use super::{guarded, known, make, revoke, scopes};
use crate::common::{
    fixtures::zipped,
    process::eventually,
    server::{Server, client},
};

const VERBS: [&str; 4] = ["push", "run", "read", "manage"];

/// An endpoint, and what it answers.
struct Row {
    method: Method,
    /// As the description of the API has it, and as it is asked.
    path: &'static str,
    asked: String,
    /// The verb that it takes; none: any token's.
    verb: Option<&'static str>,
    /// Whether that verb must cover everything.
    all: bool,
    /// For the right token, for one of another lane, and for one with all other verbs.
    answers: [u16; 3],
    /// Whether the answers to the wrong ones must not name the function.
    silent: bool,
}

fn row(method: Method, path: &'static str, verb: Option<&'static str>, answers: [u16; 3]) -> Row {
    Row { method, path, asked: path.to_owned(), verb, all: false, answers, silent: false }
}

impl Row {
    fn asked(self, asked: impl Into<String>) -> Self {
        Self { asked: asked.into(), ..self }
    }

    fn all(self) -> Self {
        Self { all: true, ..self }
    }

    fn silent(self) -> Self {
        Self { silent: true, ..self }
    }
}

fn rows(call: &str, job: &str) -> Vec<Row> {
    let (get, post, delete) = (Method::GET, Method::POST, Method::DELETE);
    let of_call = |path: &'static str| path.replace("{id}", call);
    let push = "?functionName=echo&lane=dev";
    let run = "?functionName=echo&lane=dev&payload=1";
    vec![
        row(post.clone(), "/api/function/pushfunction", Some("push"), [201, 403, 403])
            .asked(format!("/api/function/pushfunction{push}")),
        row(post.clone(), "/api/pushfunction", Some("push"), [201, 403, 403]).asked(format!("/api/pushfunction{push}")),
        row(post.clone(), "/api/function/runfunction", Some("run"), [200, 403, 403])
            .asked(format!("/api/function/runfunction{run}")),
        row(post.clone(), "/api/runfunction", Some("run"), [200, 403, 403]).asked(format!("/api/runfunction{run}")),
        row(post.clone(), "/fn/{lane}/{function}", Some("run"), [200, 403, 403]).asked("/fn/dev/echo"),
        row(get.clone(), "/api/functions", Some("read"), [200, 200, 403]).silent(),
        row(get.clone(), "/api/functions/{name}", Some("read"), [200, 404, 403]).asked("/api/functions/echo"),
        row(get.clone(), "/api/functions/{name}/{lane}/{version}", Some("read"), [200, 403, 403])
            .asked("/api/functions/echo/dev/latest"),
        row(get.clone(), "/api/invocations", Some("read"), [200, 200, 200]).silent(),
        row(get.clone(), "/api/invocations/{id}", Some("read"), [200, 403, 403])
            .asked(of_call("/api/invocations/{id}")),
        row(delete.clone(), "/api/invocations/{id}", Some("manage"), [200, 403, 403])
            .asked(of_call("/api/invocations/{id}")),
        row(get.clone(), "/api/invocations/{id}/output", Some("read"), [200, 403, 403])
            .asked(of_call("/api/invocations/{id}/output")),
        // Asked without an upgrade: whoever may come in is told that it needs one.
        row(get.clone(), "/api/invocations/{id}/tail", Some("read"), [400, 403, 403])
            .asked(of_call("/api/invocations/{id}/tail")),
        row(get.clone(), "/functions", None, [400, 400, 400]),
        row(post.clone(), "/functions/negotiate", None, [200, 200, 200]),
        row(get.clone(), "/api/tokens", Some("manage"), [200, 403, 403]).all(),
        row(post.clone(), "/api/tokens", Some("manage"), [201, 403, 403]).all(),
        row(delete.clone(), "/api/tokens/{name}", Some("manage"), [404, 403, 403]).all().asked("/api/tokens/nobody"),
        row(get.clone(), "/api/audit", Some("manage"), [200, 403, 403]).all(),
        row(get.clone(), "/metrics", Some("read"), [200, 403, 403]).all(),
        row(get, "/nothing", None, [404, 404, 404]),
    ]
    .into_iter()
    .chain(job_rows(job))
    .collect()
}

/// Jobs and schedules.
fn job_rows(job: &str) -> Vec<Row> {
    let (get, post, put, delete) = (Method::GET, Method::POST, Method::PUT, Method::DELETE);
    let of_job = |path: &'static str| path.replace("{id}", job);
    let batch = || "/api/batches/019ba000-0000-7000-8000-000000000000";
    vec![
        row(post.clone(), "/api/jobs", Some("run"), [202, 403, 403])
            .asked("/api/jobs?functionName=echo&lane=dev&payload=1"),
        row(post.clone(), "/api/batches", Some("run"), [202, 403, 403])
            .asked("/api/batches?jobs=[{\"functionName\":\"echo\",\"lane\":\"dev\"}]"),
        row(get.clone(), "/api/jobs", Some("read"), [200, 200, 403]).silent(),
        row(get.clone(), "/api/jobs/{id}", Some("read"), [200, 403, 403]).asked(of_job("/api/jobs/{id}")),
        row(delete.clone(), "/api/jobs/{id}", Some("manage"), [200, 403, 403]).asked(of_job("/api/jobs/{id}")),
        row(post.clone(), "/api/jobs/{id}/requeue", Some("manage"), [202, 403, 403])
            .asked(of_job("/api/jobs/{id}/requeue")),
        row(post.clone(), "/api/jobs/requeue", Some("manage"), [200, 403, 403])
            .all()
            .asked("/api/jobs/requeue?queue=none"),
        row(delete.clone(), "/api/jobs", Some("manage"), [200, 403, 403]).all().asked("/api/jobs?queue=none"),
        row(get.clone(), "/api/batches/{id}", Some("read"), [404, 403, 403]).all().asked(batch()),
        row(delete.clone(), "/api/batches/{id}", Some("manage"), [404, 403, 403]).all().asked(batch()),
        row(get.clone(), "/api/schedules", Some("read"), [200, 200, 403]).silent(),
        row(get.clone(), "/api/schedules/{id}", Some("read"), [200, 403, 403]).asked("/api/schedules/yearly"),
        // It takes two verbs, to run and to manage, so a token for one of them is a wrong one.
        row(put, "/api/schedules/{id}", Some("manage"), [403, 403, 403])
            .asked("/api/schedules/yearly?functionName=echo&lane=dev&cron=0%200%201%201%20*"),
        row(post.clone(), "/api/schedules/{id}/pause", Some("manage"), [200, 403, 403])
            .asked("/api/schedules/yearly/pause"),
        row(post.clone(), "/api/schedules/{id}/resume", Some("manage"), [200, 403, 403])
            .asked("/api/schedules/yearly/resume"),
        row(post, "/api/schedules/{id}/trigger", Some("manage"), [202, 403, 403])
            .asked("/api/schedules/yearly/trigger"),
        row(delete, "/api/schedules/{id}", Some("manage"), [204, 403, 403]).asked("/api/schedules/yearly"),
        row(get.clone(), "/api/queues", Some("read"), [200, 200, 403]),
        row(get, "/api/servers", Some("read"), [200, 200, 403]),
    ]
}

/// The paths that need no token.
const PUBLIC: [&str; 3] = ["/healthz", "/readyz", "/openapi.json"];

async fn ask(server: &Server, row: &Row, token: Option<&str>, fresh: &str) -> (u16, String) {
    let mut request = client().request(row.method.clone(), server.url(&row.asked));
    if row.asked.contains("pushfunction") {
        let part = multipart::Part::bytes(zipped("echo.wasm")).file_name("package.zip");
        request = request.multipart(multipart::Form::new().part("file", part));
    } else if row.path == "/api/tokens" && row.method == Method::POST {
        request = request.json(&json!({ "name": fresh, "run": ["dev"] }));
    }
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    if status == 401 {
        assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"sharpfaas\"", "{}", row.path);
    }
    (status, response.text().await.expect("text"))
}

#[tokio::test]
async fn every_endpoint_asks_for_the_right_token() {
    let server = guarded("");
    server.push("echo.wasm").await;
    let (_, ran) = server.run("echo", json!(1)).await;
    let call = ran["invocationId"].as_str().expect("an id").to_owned();
    server.ended(&call).await;
    let job = server.enqueue("echo", json!(1), json!({})).await;
    server.job_when(&job, "succeeded").await;
    let yearly = json!({ "functionName": "echo", "lane": "dev", "cron": "0 0 1 1 *" });
    assert_eq!(server.send("PUT", "/api/schedules/yearly", yearly).await.0, 201);

    let expired = make(&server, json!({ "name": "expired", "manage": ["*"], "run": ["*"], "expiresSeconds": 1 })).await;
    let revoked = make(&server, scopes("revoked", &VERBS, "*")).await;
    revoke(&server, "revoked").await;
    let elsewhere = make(&server, scopes("elsewhere", &VERBS, "production")).await;
    while known(&server, &expired).await != 401 {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }

    let rows = rows(&call, &job);
    let described: Value =
        client().get(server.url("/openapi.json")).send().await.expect("it").json().await.expect("it");
    for (path, methods) in described["paths"].as_object().expect("paths") {
        for method in methods.as_object().expect("methods").keys() {
            let there = rows.iter().any(|row| row.path == path && row.method.as_str().eq_ignore_ascii_case(method));
            assert!(there || PUBLIC.contains(&path.as_str()), "{method} {path} is in no row");
        }
    }
    for path in PUBLIC {
        assert_eq!(client().get(server.url(path)).send().await.expect("an answer").status(), 200, "{path}");
    }

    for (number, row) in rows.iter().enumerate() {
        let (what, lane) = (format!("{} {}", row.method, row.path), if row.all { "*" } else { "dev" });
        let others: Vec<&str> = VERBS.into_iter().filter(|verb| Some(*verb) != row.verb).collect();
        let right = make(&server, scopes(&format!("right-{number}"), &[row.verb.unwrap_or("run")], lane)).await;
        let wrong = make(&server, scopes(&format!("wrong-{number}"), &others, lane)).await;
        let fresh = format!("fresh-{number}");
        for (whose, token) in [("no", None), ("an expired", Some(&expired)), ("a revoked", Some(&revoked))] {
            let (status, text) = ask(&server, row, token.map(String::as_str), &fresh).await;
            assert_eq!(status, 401, "{what} with {whose} token: {text}");
            let problem: Value = serde_json::from_str(&text).expect("JSON");
            assert_eq!(problem["code"], "unauthorized", "{what} with {whose} token: {text}");
        }
        let [as_right, as_elsewhere, as_wrong] = row.answers;
        for (whose, token, expected) in
            [("another lane's", &elsewhere, as_elsewhere), ("another verb's", &wrong, as_wrong)]
        {
            let (status, text) = ask(&server, row, Some(token), &fresh).await;
            assert_eq!(status, expected, "{what} with {whose} token: {text}");
            assert!(status != 403 || text.contains("\"forbidden\""), "{what} with {whose} token: {text}");
            assert!(!row.silent || !text.contains("echo"), "{what} with {whose} token: {text}");
        }
        let (status, text) = ask(&server, row, Some(&right), &fresh).await;
        assert_eq!(status, as_right, "{what} with the right token: {text}");
        assert!(!row.silent || text.contains("echo"), "{what} with the right token: {text}");
    }

    // What they may not was written down, each with who tried it.
    let actors = async || -> BTreeSet<String> {
        let (_, page) = server.get("/api/audit?action=denied&limit=500").await;
        let entries = page["entries"].as_array().expect("entries").clone();
        entries.iter().map(|entry| entry["actor"].as_str().expect("a token").to_owned()).collect()
    };
    let started = std::time::Instant::now();
    while !actors().await.contains("wrong-18") {
        assert!(started.elapsed() < crate::common::server::PATIENCE, "{:?}", actors().await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(actors().await.contains("elsewhere"));
    eventually("the log has it", || {
        let log = server.log.lock().expect("the log");
        if log.contains("sharpfaas::audit") { Ok(()) } else { Err(log.clone()) }
    })
    .await;
}
