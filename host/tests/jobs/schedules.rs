//! Schedules, as a user sees them.

use std::time::{Duration, Instant};

use reqwest::StatusCode;
use serde_json::{Value, json};

use super::{each, fields};
use crate::common::server::{PATIENCE, Server};

async fn jobs_of(server: &Server, schedule: &str) -> Vec<Value> {
    let (_, page) = server.get(&format!("/api/jobs?limit=500&scheduleId={schedule}")).await;
    page["jobs"].as_array().expect("jobs").clone()
}

async fn until_jobs(server: &Server, schedule: &str, count: usize) -> Vec<Value> {
    let started = Instant::now();
    loop {
        let jobs = jobs_of(server, schedule).await;
        if jobs.len() >= count {
            return jobs;
        }
        assert!(started.elapsed() < PATIENCE, "{jobs:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_schedule_is_made_changed_paused_triggered_and_removed() {
    let server = Server::start("");
    server.push("echo.wasm").await;
    let every =
        fields("echo", json!("tick"), json!({ "cron": "* * * * * *", "timeZone": "Europe/Zurich", "queue": "q" }));
    let (status, made) = server.send("PUT", "/api/schedules/beat", every.clone()).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert!(made["nextRunAt"].is_string());
    let jobs = until_jobs(&server, "beat", 3).await;
    let mut ticks = each(&json!(jobs), "scheduledFor").into_iter().map(ToOwned::to_owned).collect::<Vec<_>>();
    ticks.sort_unstable();
    ticks.dedup();
    assert_eq!(ticks.len(), jobs.len(), "one a tick");
    assert_eq!((&jobs[0]["scheduleId"], &jobs[0]["queue"]), (&json!("beat"), &json!("q")));

    let (status, paused) = server.send("POST", "/api/schedules/beat/pause", Value::Null).await;
    assert_eq!((status, &paused["paused"], &paused["nextRunAt"]), (StatusCode::OK, &json!(true), &Value::Null));
    let before = jobs_of(&server, "beat").await.len();
    tokio::time::sleep(Duration::from_millis(2500)).await;
    assert_eq!(jobs_of(&server, "beat").await.len(), before);
    let (status, triggered) = server.send("POST", "/api/schedules/beat/trigger", Value::Null).await;
    assert_eq!(status, StatusCode::ACCEPTED);
    let job = server.job_when(triggered["jobId"].as_str().expect("an id"), "succeeded").await;
    assert_eq!((&job["scheduleId"], job["scheduledFor"].is_null()), (&json!("beat"), true));
    let (_, row) = server.get("/api/schedules/beat").await;
    assert_eq!(row["lastJobId"], triggered["jobId"]);
    server.send("POST", "/api/schedules/beat/resume", Value::Null).await;
    let jobs = until_jobs(&server, "beat", before + 2).await;
    assert!(jobs.len() <= before + 4, "what was missed while it was paused is not made up for");

    let yearly = fields("echo", json!(1), json!({ "cron": "0 0 1 1 *" }));
    let (status, changed) = server.send("PUT", "/api/schedules/beat", yearly).await;
    assert_eq!((status, &changed["cron"], &changed["timeZone"]), (StatusCode::OK, &json!("0 0 1 1 *"), &json!("UTC")));
    let (_, list) = server.get("/api/schedules").await;
    assert_eq!(each(&list["schedules"], "scheduleId"), ["beat"]);
    assert_eq!(server.send("DELETE", "/api/schedules/beat", Value::Null).await.0, StatusCode::NO_CONTENT);
    for (method, path) in [("GET", ""), ("DELETE", ""), ("POST", "/trigger"), ("POST", "/pause")] {
        let (status, body) = server.send(method, &format!("/api/schedules/beat{path}"), Value::Null).await;
        assert_eq!((status, &body["code"]), (StatusCode::NOT_FOUND, &json!("schedule_not_found")));
    }
}

#[tokio::test]
async fn a_tick_is_passed_over_while_an_earlier_job_runs() {
    let server = Server::start("");
    server.push("sleep.wasm").await;
    let skip = fields("sleep", json!(2500), json!({ "cron": "* * * * * *", "overlap": "skip" }));
    server.send("PUT", "/api/schedules/slow", skip).await;
    let jobs = until_jobs(&server, "slow", 2).await;
    let (_, row) = server.get("/api/schedules/slow").await;
    assert!(row["skipped"].as_u64().is_some_and(|skipped| skipped >= 1), "{row}");
    assert!(jobs.iter().filter(|job| job["state"] == "processing").count() <= 1, "{jobs:?}");
}

#[tokio::test]
async fn ticks_that_no_server_was_there_for_are_made_up_for_as_asked() {
    let mut server = Server::start("[jobs]\nmisfire_seconds = 1");
    server.push("echo.wasm").await;
    for misfire in ["one", "all", "none"] {
        let schedule = fields("echo", json!(1), json!({ "cron": "* * * * * *", "misfire": misfire }));
        assert_eq!(server.send("PUT", &format!("/api/schedules/{misfire}"), schedule).await.0, StatusCode::CREATED);
    }
    until_jobs(&server, "none", 1).await;
    server.kill();
    tokio::time::sleep(Duration::from_secs(6)).await;
    server.restart();
    until_jobs(&server, "all", 8).await;
    for misfire in ["one", "all", "none"] {
        server.send("POST", &format!("/api/schedules/{misfire}/pause"), Value::Null).await;
    }
    let mut ticks = std::collections::HashMap::new();
    for misfire in ["one", "all", "none"] {
        let jobs = json!(jobs_of(&server, misfire).await);
        let mut times: Vec<i64> = each(&jobs, "scheduledFor")
            .iter()
            .map(|text| chrono::DateTime::parse_from_rfc3339(text).expect("a time").timestamp())
            .collect();
        times.sort_unstable();
        ticks.insert(misfire, times);
    }
    let holes = |times: &[i64]| times.windows(2).map(|pair| pair[1] - pair[0] - 1).sum::<i64>();
    assert_eq!(holes(&ticks["all"]), 0, "{ticks:?}");
    let (one, none) = (holes(&ticks["one"]), holes(&ticks["none"]));
    assert!(one >= 3 && none >= one, "{ticks:?}");
}

#[tokio::test]
async fn schedules_that_make_no_sense_are_refused() {
    let server = Server::start("");
    for (more, word) in [
        (json!({}), "cron"),
        (json!({ "cron": "61 * * * *" }), "61"),
        (json!({ "cron": "0 0 30 2 *" }), "never"),
        (json!({ "cron": "* * * * *", "timeZone": "Moon" }), "IANA"),
        (json!({ "cron": "* * * * *", "misfire": "some" }), "one, all, none"),
        (json!({ "cron": "* * * * *", "delaySeconds": 1 }), "delaySeconds"),
    ] {
        let (status, body) = server.send("PUT", "/api/schedules/bad", fields("echo", json!(1), more.clone())).await;
        let detail = body["detail"].as_str().unwrap_or_default();
        assert!(status == StatusCode::BAD_REQUEST && detail.contains(word), "{more}: {body}");
    }
    let (status, _) = server.send("PUT", "/api/schedules/a%20b", fields("echo", json!(1), json!({}))).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}
