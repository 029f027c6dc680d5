//! Jobs that are claimed ahead of the workers.

use reqwest::StatusCode;
use serde_json::json;

use super::{each, fields};
use crate::common::server::Server;

#[tokio::test]
async fn what_was_claimed_ahead_goes_back_when_jobs_become_long() {
    let server = Server::start("[jobs]\nworkers = 4");
    server.push("sleep.wasm").await;
    // Short ones, so that some are claimed ahead, and behind them such as hold the workers for longer than those wait.
    let jobs: Vec<_> =
        (0..320).map(|n| fields("sleep", json!(if n < 300 { 0 } else { 400 }), json!({ "maxAttempts": 2 }))).collect();
    let (status, body) = server.send("POST", "/api/jobs", json!({ "jobs": jobs })).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let mut back = 0;
    for id in each(&body["jobs"], "jobId") {
        let job = server.job_when(id, "succeeded").await;
        assert_eq!(job["attempt"], 1, "what goes back has lost no attempt: {job}");
        let reasons = each(&job["history"], "reason");
        back += usize::from(reasons.iter().any(|it| it.contains("took longer")));
    }
    // Where a machine is so busy that even these take long, none is claimed ahead; how many are is tested with the pace.
    println!("{back} of the long ones were claimed ahead and went back");
}

#[tokio::test]
async fn what_was_claimed_ahead_is_handed_back_when_the_server_stops() {
    let mut server = Server::start("[jobs]\nworkers = 4");
    server.push("sleep.wasm").await;
    let jobs: Vec<_> = (0..500).map(|_| fields("sleep", json!(1), json!({}))).collect();
    let (status, body) = server.send("POST", "/api/jobs", json!({ "jobs": jobs })).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{body}");
    let ids = each(&body["jobs"], "jobId");
    // In the middle of them.
    server.job_when(ids[100], "succeeded").await;
    server.stop();
    server.restart();
    for id in ids {
        let job = server.job_when(id, "succeeded").await;
        assert_eq!(job["attempt"], 1, "none was lost with the server: {job}");
        let states = each(&job["history"], "state");
        let back = ["enqueued", "processing", "enqueued", "processing", "succeeded"];
        assert!(states == back || states == ["enqueued", "processing", "succeeded"], "{job}");
    }
}
