//! Jobs and schedules, on one server with SQLite.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::common::server::{PATIENCE, Server};

mod ahead;
mod command_line;
mod limits;
mod schedules;
mod survival;

impl Server {
    /// Hands a job of lane dev in; its id.
    pub async fn enqueue(&self, name: &str, payload: Value, more: Value) -> String {
        let (status, body) = self.enqueue_with(name, payload, more).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        body["jobId"].as_str().expect("an id").to_owned()
    }

    pub async fn enqueue_with(&self, name: &str, payload: Value, more: Value) -> (StatusCode, Value) {
        self.send("POST", "/api/jobs", fields(name, payload, more)).await
    }

    /// Sends JSON; the status and the body.
    pub async fn send(&self, method: &str, path: &str, body: Value) -> (StatusCode, Value) {
        let method = method.parse().expect("a method");
        let mut request = self.client.request(method, self.url(path));
        if !body.is_null() {
            request = request.json(&body);
        }
        let response = request.send().await.expect("an answer");
        let status = response.status();
        let text = response.text().await.expect("text");
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }

    pub async fn job(&self, id: &str) -> Value {
        let (status, body) = self.get(&format!("/api/jobs/{id}")).await;
        assert_eq!(status, StatusCode::OK, "{body}");
        body
    }

    /// The job, once it is in that state.
    pub async fn job_when(&self, id: &str, state: &str) -> Value {
        let started = Instant::now();
        loop {
            let job = self.job(id).await;
            if job["state"] == state {
                return job;
            }
            assert!(started.elapsed() < PATIENCE, "not {state}: {job:#}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// How many jobs of a queue stand in that state.
    pub async fn in_queue(&self, queue: &str, state: &str) -> u64 {
        let (_, body) = self.get("/api/queues").await;
        let queues = body["queues"].as_array().expect("queues");
        let found = queues.iter().find(|it| it["queue"] == queue);
        found.and_then(|it| it["jobs"][state].as_u64()).unwrap_or(0)
    }
}

/// The fields of a job of lane dev.
pub fn fields(name: &str, payload: Value, more: Value) -> Value {
    let mut fields = json!({ "functionName": name, "lane": "dev", "payload": payload });
    let more = more.as_object().cloned().unwrap_or_default();
    fields.as_object_mut().expect("an object").extend(more);
    fields
}

/// What a list of objects says under a key.
pub fn each<'a>(list: &'a Value, key: &str) -> Vec<&'a str> {
    list.as_array().expect("a list").iter().map(|it| it[key].as_str().unwrap_or("-")).collect()
}

#[tokio::test]
async fn a_job_is_an_invocation_with_history_and_output() {
    let server = Server::start("");
    server.push("print-lines.wasm").await;
    server.push("echo.wasm").await;
    let id = server.enqueue("echo", json!({ "a": [1] }), json!({ "callerId": "me", "priority": -3 })).await;
    let job = server.job_when(&id, "succeeded").await;
    assert_eq!(each(&job["history"], "state"), ["enqueued", "processing", "succeeded"]);
    assert_eq!(job["result"], json!({ "a": [1] }));
    assert_eq!(
        (&job["version"], &job["attempt"], &job["queue"], &job["priority"], &job["callerId"]),
        (&json!("1.0"), &json!(1), &json!("default"), &json!(-3), &json!("me"))
    );
    assert!(job["expiresAt"].is_string(), "{job}");
    let attempt = job["attempts"][0]["invocationId"].as_str().expect("an attempt");
    assert_eq!(job["invocationId"], attempt);
    let call = server.ended(attempt).await;
    assert_eq!((&call["status"], &call["callerId"]), (&json!("succeeded"), &json!("me")));
    let (_, servers) = server.get("/api/servers").await;
    assert_eq!(servers["servers"][0]["node"], job["history"][1]["node"], "{servers}");
}

#[tokio::test]
async fn a_running_job_is_tailed_as_any_call() {
    let server = Server::start("");
    server.push("ticks.wasm").await;
    let id = server.enqueue("ticks", json!({ "count": 20, "everyMs": 50 }), json!({})).await;
    let job = server.job_when(&id, "processing").await;
    let attempt = job["invocationId"].as_str().expect("an attempt");
    let url = server.url(&format!("/api/invocations/{attempt}/output"));
    let text = server.client.get(url).send().await.expect("an answer").text().await.expect("text");
    assert_eq!(text.lines().count(), 20, "{text}");
    assert_eq!(server.job_when(&id, "succeeded").await["result"], 20);
}

#[tokio::test]
async fn jobs_wait_for_their_time() {
    let server = Server::start("");
    server.push("echo.wasm").await;
    let at = chrono::Utc::now() + chrono::TimeDelta::milliseconds(1500);
    let (status, body) = server.enqueue_with("echo", json!(1), json!({ "runAt": at.to_rfc3339() })).await;
    assert_eq!((status, &body["state"]), (StatusCode::ACCEPTED, &json!("scheduled")));
    let far = server.enqueue("echo", json!(2), json!({ "delaySeconds": 3600 })).await;
    let job = server.job_when(body["jobId"].as_str().expect("an id"), "succeeded").await;
    assert_eq!(each(&job["history"], "state"), ["scheduled", "enqueued", "processing", "succeeded"]);
    let began = job["attempts"][0]["startedAt"].as_str().expect("a time");
    let late = chrono::DateTime::parse_from_rfc3339(began).expect("a time").to_utc() - at;
    assert!((0..1000).contains(&late.num_milliseconds()), "{late}");
    // Requeued, it does not wait.
    assert_eq!(server.job(&far).await["state"], "scheduled");
    assert_eq!(server.send("POST", &format!("/api/jobs/{far}/requeue"), Value::Null).await.0, StatusCode::ACCEPTED);
    server.job_when(&far, "succeeded").await;
}

#[tokio::test]
async fn a_job_that_fails_is_tried_again_at_the_version_it_began_with() {
    let server = Server::start("");
    server.push("return-error.wasm").await;
    let more = json!({ "maxAttempts": 3, "retryDelays": [1, 0] });
    let id = server.enqueue("return-error", json!("no"), more).await;
    server.job_when(&id, "scheduled").await;
    assert_eq!(server.push("return-error.wasm").await, "1.1");
    let job = server.job_when(&id, "failed").await;
    let states = each(&job["history"], "state");
    assert_eq!(
        states,
        ["enqueued", "processing", "scheduled", "enqueued", "processing", "enqueued", "processing", "failed"]
    );
    assert_eq!((&job["attempt"], &job["version"]), (&json!(3), &json!("1.0")));
    assert!(job["error"].as_str().is_some_and(|text| text.starts_with("function_failed")), "{job}");
    assert!(job["expiresAt"].is_null());
    for attempt in job["attempts"].as_array().expect("attempts") {
        let call = server.ended(attempt["invocationId"].as_str().expect("an id")).await;
        assert_eq!((&call["version"], &call["status"]), (&json!("1.0"), &json!("failed")));
    }
    // Requeued, it begins anew, with what is newest now.
    server.send("POST", &format!("/api/jobs/{id}/requeue"), Value::Null).await;
    let started = Instant::now();
    loop {
        let job = server.job(&id).await;
        if job["attempts"].as_array().is_some_and(|attempts| attempts.len() == 6) && job["state"] == "failed" {
            assert_eq!((&job["attempt"], &job["version"]), (&json!(3), &json!("1.1")));
            break;
        }
        assert!(started.elapsed() < PATIENCE, "{job}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let gone = server.enqueue("return-error", json!(""), json!({ "maxAttempts": 1, "onExhausted": "deleted" })).await;
    assert!(server.job_when(&gone, "deleted").await["expiresAt"].is_string());
}

#[tokio::test]
async fn the_usual_delay_is_that_of_the_formula() {
    let server = Server::start("");
    server.push("return-error.wasm").await;
    let id = server.enqueue("return-error", json!(""), json!({})).await;
    let job = server.job_when(&id, "scheduled").await;
    let time = |value: &Value| chrono::DateTime::parse_from_rfc3339(value.as_str().expect("a time")).expect("a time");
    let delay = (time(&job["runAt"]) - time(&job["stateSince"])).num_seconds();
    assert!((15..=44).contains(&delay), "{job}");
}

#[tokio::test]
async fn a_job_goes_on_after_another_one() {
    let server = Server::start("");
    server.push("echo.wasm").await;
    server.push("return-error.wasm").await;
    let first = server.enqueue("echo", json!(1), json!({ "delaySeconds": 1 })).await;
    let after = |id: &str, on: &str| json!({ "continueAfter": id, "continueOn": on });
    let second = server.enqueue("echo", json!(2), after(&first, "succeeded")).await;
    let third = server.enqueue("echo", json!(3), after(&second, "ended")).await;
    assert_eq!(server.job(&third).await["state"], "awaiting");
    let third = server.job_when(&third, "succeeded").await;
    let second = server.job(&second).await;
    assert_eq!(each(&second["history"], "state"), ["awaiting", "enqueued", "processing", "succeeded"]);
    assert!(third["attempts"][0]["startedAt"].as_str() > second["attempts"][0]["startedAt"].as_str());
    // After one that has ended, at once; after one that failed, only on any end.
    let failed = server.enqueue("return-error", json!(""), json!({ "maxAttempts": 1 })).await;
    server.job_when(&failed, "failed").await;
    let waits = server.enqueue("echo", json!(4), after(&failed, "succeeded")).await;
    let goes = server.enqueue("echo", json!(5), after(&failed, "ended")).await;
    server.job_when(&goes, "succeeded").await;
    assert_eq!(server.job(&waits).await["state"], "awaiting");
    // Given up with the one before, as far down as the line goes.
    let last = server.enqueue("echo", json!(6), after(&waits, "succeeded")).await;
    server.send("DELETE", &format!("/api/jobs/{failed}"), Value::Null).await;
    server.job_when(&waits, "deleted").await;
    server.job_when(&last, "deleted").await;
    let (status, body) = server.enqueue_with("echo", json!(7), after(&uuid::Uuid::now_v7().to_string(), "ended")).await;
    assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &json!("job_not_found")));
}

#[tokio::test]
async fn a_batch_is_one_unit() {
    let server = Server::start("");
    server.push("echo.wasm").await;
    server.push("return-error.wasm").await;
    let jobs: Vec<_> = (0..20).map(|n| fields("echo", json!(n), json!({}))).collect();
    let (status, batch) = server.send("POST", "/api/batches", json!({ "jobs": jobs })).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{batch}");
    let id = batch["batchId"].as_str().expect("an id");
    let next = server.enqueue("echo", json!("next"), json!({ "continueAfter": id })).await;
    let next = server.job_when(&next, "succeeded").await;
    let (_, batch) = server.get(&format!("/api/batches/{id}")).await;
    assert_eq!((&batch["state"], &batch["jobs"]), (&json!("succeeded"), &json!({ "succeeded": 20 })));
    let began = next["attempts"][0]["startedAt"].as_str();
    assert!(began > batch["endedAt"].as_str() || next["history"][0]["state"] == "enqueued", "{next}");

    // One that failed holds up what waits for success, until it succeeds or is given up.
    let mut jobs: Vec<_> = (0..3).map(|n| fields("echo", json!(n), json!({}))).collect();
    jobs.push(fields("return-error", json!(""), json!({ "maxAttempts": 1 })));
    let (_, batch) = server.send("POST", "/api/batches", json!({ "jobs": jobs })).await;
    let id = batch["batchId"].as_str().expect("an id").to_owned();
    let failed = batch["jobs"][3]["jobId"].as_str().expect("an id");
    let any = server.enqueue("echo", json!(1), json!({ "continueAfter": id, "continueOn": "ended" })).await;
    let good = server.enqueue("echo", json!(2), json!({ "continueAfter": id })).await;
    server.job_when(&any, "succeeded").await;
    assert_eq!(server.get(&format!("/api/batches/{id}")).await.1["state"], "failed");
    assert_eq!(server.job(&good).await["state"], "awaiting");
    server.send("DELETE", &format!("/api/jobs/{failed}"), Value::Null).await;
    server.job_when(&good, "deleted").await;

    // Given up as one.
    let jobs: Vec<_> = (0..50).map(|n| fields("echo", json!(n), json!({ "delaySeconds": 3600 }))).collect();
    let (_, batch) = server.send("POST", "/api/batches", json!({ "jobs": jobs })).await;
    let path = format!("/api/batches/{}", batch["batchId"].as_str().expect("an id"));
    assert_eq!(server.send("DELETE", &path, Value::Null).await.1["count"], 50);
    let (_, batch) = server.get(&path).await;
    assert_eq!((&batch["state"], &batch["jobs"]), (&json!("deleted"), &json!({ "deleted": 50 })));
}

#[tokio::test]
async fn the_same_key_is_the_same_job() {
    let server = std::sync::Arc::new(Server::start(""));
    server.push("echo.wasm").await;
    let mut calls = tokio::task::JoinSet::new();
    for n in 0..20 {
        let server = server.clone();
        calls.spawn(async move { server.enqueue("echo", json!(n), json!({ "idempotencyKey": "order 17" })).await });
    }
    let ids: std::collections::HashSet<_> = calls.join_all().await.into_iter().collect();
    assert_eq!(ids.len(), 1, "{ids:?}");
    let other = server.enqueue("echo", json!(1), json!({ "idempotencyKey": "order 18" })).await;
    assert!(!ids.contains(&other));
}

#[tokio::test]
async fn deleting_ends_what_runs() {
    let server = Server::start("");
    server.push("loop-forever.wasm").await;
    let id = server.enqueue("loop-forever", json!(null), json!({})).await;
    let job = server.job_when(&id, "processing").await;
    let (status, body) = server.send("DELETE", &format!("/api/jobs/{id}"), Value::Null).await;
    assert_eq!((status, &body["state"]), (StatusCode::OK, &json!("deleted")));
    let call = server.ended(job["invocationId"].as_str().expect("an attempt")).await;
    assert_eq!(call["status"], "cancelled");
    let job = server.job(&id).await;
    assert_eq!(each(&job["history"], "state"), ["enqueued", "processing", "deleted"], "the late end changes nothing");
    // Ending the attempt gives the job up as well.
    let id = server.enqueue("loop-forever", json!(null), json!({})).await;
    let job = server.job_when(&id, "processing").await;
    let attempt = job["invocationId"].as_str().expect("an attempt");
    server.send("DELETE", &format!("/api/invocations/{attempt}"), Value::Null).await;
    server.job_when(&id, "deleted").await;
}

#[tokio::test]
async fn jobs_are_found_and_moved_by_filters() {
    let server = Server::start("[jobs]\nattempts = 1");
    server.push("echo.wasm").await;
    server.push("return-error.wasm").await;
    let jobs: Vec<_> = (0..30)
        .map(|n| {
            let name = if n % 3 == 0 { "return-error" } else { "echo" };
            fields(name, json!(format!("needle {n}")), json!({ "queue": "hay", "callerId": format!("c{}", n % 2) }))
        })
        .collect();
    let (status, body) = server.send("POST", "/api/jobs", json!({ "jobs": jobs })).await;
    assert_eq!((status, body["jobs"].as_array().map(Vec::len)), (StatusCode::ACCEPTED, Some(30)), "{body}");
    for job in body["jobs"].as_array().expect("jobs") {
        let started = Instant::now();
        let id = job["jobId"].as_str().expect("an id");
        while !matches!(server.job(id).await["state"].as_str(), Some("succeeded" | "failed")) {
            assert!(started.elapsed() < PATIENCE);
        }
    }
    let count = async |query: &str| {
        let (status, page) = server.get(&format!("/api/jobs?limit=500&{query}")).await;
        assert_eq!(status, StatusCode::OK, "{page}");
        page["jobs"].as_array().expect("jobs").len()
    };
    assert_eq!(count("queue=hay").await, 30);
    assert_eq!(count("state=failed").await, 10);
    assert_eq!(count("function=echo&callerId=c1").await, 10);
    assert_eq!(count("text=NEEDLE%207").await, 1);
    assert_eq!(count("text=function_failed").await, 10);
    assert_eq!(count("since=2100-01-01T00:00:00Z").await, 0);
    assert_eq!(count("lane=nowhere").await, 0);
    let mut seen = Vec::new();
    let mut before = String::new();
    loop {
        let (_, page) = server.get(&format!("/api/jobs?limit=7&queue=hay{before}")).await;
        seen.extend(each(&page["jobs"], "jobId").into_iter().map(ToOwned::to_owned));
        let Some(next) = page["next"].as_str() else { break };
        before = format!("&before={next}");
    }
    let given: Vec<_> = each(&body["jobs"], "jobId").into_iter().rev().map(ToOwned::to_owned).collect();
    assert_eq!(seen, given);
    assert_eq!(server.in_queue("hay", "failed").await, 10);
    assert_eq!(server.send("POST", "/api/jobs/requeue", Value::Null).await.0, StatusCode::BAD_REQUEST);
    assert_eq!(server.send("POST", "/api/jobs/requeue?state=failed", Value::Null).await.1["count"], 10);
    let started = Instant::now();
    while server.in_queue("hay", "failed").await != 10 {
        assert!(started.elapsed() < PATIENCE);
    }
    assert_eq!(server.send("DELETE", "/api/jobs?state=failed", Value::Null).await.1["count"], 10);
    assert_eq!(count("state=failed").await, 0);
    assert_eq!(count("state=deleted").await, 10);
    // An unset variable of a script, or half a thought, is not every job.
    for (query, word) in [
        ("", "all=true"),
        ("?all=false", "all=true"),
        ("?state=", "state"),
        ("?all=true&queue=", "queue"),
        ("?all=true&queue=hay", "every"),
    ] {
        let (status, problem) = server.send("DELETE", &format!("/api/jobs{query}"), Value::Null).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{query}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(word)), "{query}: {problem}");
    }
    assert_eq!(count("state=succeeded").await, 20);
    assert_eq!(server.send("DELETE", "/api/jobs?all=true", Value::Null).await.1["count"], 20);
    assert_eq!(count("state=deleted").await, 30);
}

#[tokio::test]
async fn what_is_not_valid_is_refused_by_name() {
    let server = Server::start("");
    for (more, word) in [
        (json!({ "runAt": "tomorrow" }), "runAt"),
        (json!({ "runAt": "2026-01-01T00:00:00Z", "delaySeconds": 1 }), "delaySeconds"),
        (json!({ "priority": 1001 }), "priority"),
        (json!({ "maxAttempts": 0 }), "maxAttempts"),
        (json!({ "retryDelays": "x" }), "retryDelays"),
        (json!({ "onExhausted": "succeeded" }), "onExhausted"),
        (json!({ "queue": "a b" }), "queue"),
        (json!({ "continueOn": "ended" }), "continueAfter"),
        (json!({ "continueAfter": "x" }), "job id"),
        (json!({ "mutexLimit": 2 }), "mutexKey"),
        (json!({ "jobs": [] }), "jobs"),
    ] {
        let (status, body) = server.enqueue_with("echo", json!(1), more.clone()).await;
        let detail = body["detail"].as_str().unwrap_or_default();
        assert!(status == StatusCode::BAD_REQUEST && detail.contains(word), "{more}: {body}");
    }
    let id = uuid::Uuid::now_v7();
    for (method, path) in [("GET", ""), ("DELETE", ""), ("POST", "/requeue")] {
        let (status, body) = server.send(method, &format!("/api/jobs/{id}{path}"), Value::Null).await;
        assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &json!("job_not_found")));
    }
}
