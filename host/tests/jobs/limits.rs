//! Who may run when: priorities, queues, limits and keys.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::each;
use crate::common::server::{PATIENCE, Server};

/// The time between which a job's only attempt ran, in microseconds.
async fn span(server: &Server, id: &str) -> (i64, i64) {
    let job = server.job_when(id, "succeeded").await;
    let call = server.ended(job["invocationId"].as_str().expect("an attempt")).await;
    let at = |name: &str| {
        let text = call[name].as_str().expect("a time");
        chrono::DateTime::parse_from_rfc3339(text).expect("a time").timestamp_micros()
    };
    (at("startedAt"), at("endedAt"))
}

/// The most of these that ran at once.
fn most_at_once(spans: &[(i64, i64)]) -> usize {
    spans
        .iter()
        .map(|(start, _)| spans.iter().filter(|(from, to)| from <= start && start < to).count())
        .max()
        .unwrap_or(0)
}

#[tokio::test]
async fn higher_priorities_go_first_and_then_the_order_of_arrival() {
    let server = Server::start("[jobs]\nworkers = 1\n[jobs.queues.urgent]\npriority = 5");
    server.push("sleep.wasm").await;
    let held = server.enqueue("sleep", json!(700), json!({})).await;
    server.job_when(&held, "processing").await;
    let mut ids = Vec::new();
    for more in [json!({}), json!({ "priority": 3 }), json!({}), json!({ "queue": "urgent" }), json!({ "priority": 3 })]
    {
        ids.push(server.enqueue("sleep", json!(1), more).await);
    }
    let mut starts = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        starts.push((span(&server, id).await.0, n));
    }
    starts.sort_unstable();
    assert_eq!(starts.iter().map(|(_, n)| *n).collect::<Vec<_>>(), [3, 1, 4, 0, 2]);
}

#[tokio::test]
async fn a_key_lets_so_many_run_and_holds_no_worker() {
    let server = Server::start("[jobs]\nworkers = 4");
    server.push("sleep.wasm").await;
    let mut keyed = Vec::new();
    for _ in 0..6 {
        keyed.push(server.enqueue("sleep", json!(150), json!({ "mutexKey": "printer", "mutexLimit": 2 })).await);
    }
    let free = server.enqueue("sleep", json!(1), json!({})).await;
    let (_, free_ended) = span(&server, &free).await;
    let mut spans = Vec::new();
    for id in &keyed {
        spans.push(span(&server, id).await);
    }
    assert_eq!(most_at_once(&spans), 2, "{spans:?}");
    let last = spans.iter().map(|(_, to)| *to).max().expect("spans");
    assert!(free_ended < last, "it did not wait for those with the key");
}

#[tokio::test]
async fn limits_of_queues_and_functions_hold_no_worker() {
    let server =
        Server::start("[jobs]\nworkers = 8\n[jobs.queues.narrow]\nlimit = 2\n[jobs.functions.sleep]\nlimit = 3");
    server.push("sleep.wasm").await;
    server.push("ticks.wasm").await;
    server.push("echo.wasm").await;
    let (mut narrow, mut sleeps) = (Vec::new(), Vec::new());
    for _ in 0..6 {
        narrow.push(server.enqueue("ticks", json!({ "count": 2, "everyMs": 100 }), json!({ "queue": "narrow" })).await);
        sleeps.push(server.enqueue("sleep", json!(100), json!({})).await);
        let both = server.enqueue("sleep", json!(100), json!({ "queue": "narrow" })).await;
        narrow.push(both.clone());
        sleeps.push(both);
    }
    let free = server.enqueue("echo", json!(1), json!({})).await;
    let (_, free_ended) = span(&server, &free).await;
    for (ids, limit) in [(narrow, 2), (sleeps, 3)] {
        let mut spans = Vec::new();
        for id in &ids {
            spans.push(span(&server, id).await);
        }
        assert!((1..=limit).contains(&most_at_once(&spans)), "{limit}: {spans:?}");
        assert!(free_ended < spans.iter().map(|(_, to)| *to).max().expect("spans"));
    }
}

#[tokio::test]
async fn a_server_serves_the_queues_it_is_to() {
    let server = Server::start("[jobs]\nserve = [\"mine\"]");
    server.push("echo.wasm").await;
    let other = server.enqueue("echo", json!(1), json!({ "queue": "other" })).await;
    let mine = server.enqueue("echo", json!(1), json!({ "queue": "mine" })).await;
    server.job_when(&mine, "succeeded").await;
    assert_eq!(server.job(&other).await["state"], "enqueued");
    let (_, servers) = server.get("/api/servers").await;
    assert_eq!(servers["servers"][0]["queues"], json!(["mine"]));
}

#[tokio::test]
async fn shutdown_waits_for_what_runs_and_leaves_the_rest() {
    let mut server = Server::start("[jobs]\nworkers = 2");
    server.push("sleep.wasm").await;
    let mut ids = Vec::new();
    for _ in 0..6 {
        ids.push(server.enqueue("sleep", json!(500), json!({})).await);
    }
    server.job_when(&ids[1], "processing").await;
    let took = server.stop();
    assert!(took < Duration::from_secs(10), "{took:?}");
    server.restart();
    for id in &ids {
        let job = server.job_when(id, "succeeded").await;
        assert_eq!(job["attempt"], 1, "{job}");
        assert_eq!(each(&job["history"], "state"), ["enqueued", "processing", "succeeded"]);
    }
}

#[tokio::test]
async fn shutdown_interrupts_what_takes_too_long_and_it_runs_again() {
    let mut server = Server::start("[server]\nshutdown_seconds = 1");
    server.push("loop-forever.wasm").await;
    server.push("sleep.wasm").await;
    let id = server.enqueue("loop-forever", json!(null), json!({ "maxAttempts": 2, "deadlineMs": 4000 })).await;
    server.job_when(&id, "processing").await;
    server.stop();
    server.restart();
    let started = Instant::now();
    let job = loop {
        let job = server.job(&id).await;
        if job["state"] == "failed" {
            break job;
        }
        assert!(started.elapsed() < PATIENCE, "{job}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(
        each(&job["history"], "state"),
        ["enqueued", "processing", "enqueued", "processing", "failed"],
        "{job:#}"
    );
    assert_ne!(job["error"], Value::Null);
}
