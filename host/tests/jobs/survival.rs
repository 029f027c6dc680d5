//! Servers that die, and jobs that take longer than a lease.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{each, fields};
use crate::common::server::{PATIENCE, Server};

#[tokio::test]
async fn a_job_longer_than_its_lease_runs_once() {
    let server = Server::start("[jobs]\nlease_seconds = 2");
    server.push("sleep.wasm").await;
    let id = server.enqueue("sleep", json!(7000), json!({})).await;
    let job = server.job_when(&id, "succeeded").await;
    assert_eq!(each(&job["history"], "state"), ["enqueued", "processing", "succeeded"], "{job:#}");
}

#[tokio::test]
async fn kill_9_in_the_middle_of_a_thousand_jobs() {
    let mut server = Server::start("[jobs]\nworkers = 16");
    server.push("sleep.wasm").await;
    let jobs: Vec<_> = (0..1000).map(|_| fields("sleep", json!(5), json!({}))).collect();
    let (_, body) = server.send("POST", "/api/jobs", json!({ "jobs": jobs })).await;
    let ids: Vec<String> = each(&body["jobs"], "jobId").into_iter().map(ToOwned::to_owned).collect();
    for left in [700, 300] {
        let started = Instant::now();
        while server.in_queue("default", "enqueued").await > left {
            assert!(started.elapsed() < PATIENCE);
        }
        server.kill();
        server.restart();
    }
    let started = Instant::now();
    while server.in_queue("default", "enqueued").await + server.in_queue("default", "processing").await > 0 {
        assert!(started.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (mut again, mut lost) = (0, 0);
    for id in ids {
        let job = server.job(&id).await;
        assert_eq!(job["state"], "succeeded", "{job}");
        let reasons = each(&job["history"], "reason");
        lost += reasons.iter().filter(|reason| reason.contains("lost")).count();
        // What was claimed ahead and went back did not run.
        let back = reasons.iter().filter(|reason| reason.contains("took longer")).count();
        again += usize::from(job["attempts"].as_array().expect("attempts").len() > back + 1);
    }
    println!("{again} of 1000 jobs ran more than once, {lost} attempts were lost");
    assert_eq!(again, lost, "none ran again but those that were at work");
    // At five milliseconds each, 16 workers are through with 80 in the time that is claimed ahead for.
    assert!(lost <= 2 * (2 * 16 + 80), "at most what was at work at a kill, was to be next, or had just ended");
}

#[tokio::test]
async fn a_job_that_kills_its_server_ends_failed() {
    let mut server = Server::start("");
    server.push("sleep.wasm").await;
    let id = server.enqueue("sleep", json!(20_000), json!({ "maxAttempts": 3 })).await;
    for attempts in 1..=3 {
        let started = Instant::now();
        while server.job(&id).await["attempts"].as_array().map(Vec::len) != Some(attempts) {
            assert!(started.elapsed() < PATIENCE);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        server.kill();
        server.restart();
    }
    let job = server.job_when(&id, "failed").await;
    assert_eq!((&job["attempt"], job["attempts"].as_array().map(Vec::len)), (&json!(3), Some(3)), "{job}");
    assert_ne!(job["error"], Value::Null);
}
