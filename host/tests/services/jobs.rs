//! Jobs and schedules of several servers on one PostgreSQL.
//!
//! `SHARPFAAS_TEST_JOBS`, `SHARPFAAS_TEST_SCHEDULES` and `SHARPFAAS_TEST_SECONDS` make them as large as they are
//! to be once in a while: 10000, 200 and 60.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;
use uuid::Uuid;

use super::postgres::Own;
use crate::{
    common::server::{PATIENCE, Server, create_database},
    jobs::{each, fields},
};

fn number(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Servers of one store and one new database; `None` where there is no PostgreSQL.
fn fleet(count: usize, more: &str) -> Option<(Vec<Server>, TempDir)> {
    let Ok(postgres) = std::env::var("SHARPFAAS_TEST_POSTGRES") else {
        eprintln!("not run: SHARPFAAS_TEST_POSTGRES is not set");
        return None;
    };
    let password = std::env::var("SHARPFAAS_TEST_POSTGRES_PASSWORD").unwrap_or_default();
    Some(fleet_on(&postgres, &password, count, more))
}

fn fleet_on(postgres: &str, password: &str, count: usize, more: &str) -> (Vec<Server>, TempDir) {
    let store = tempfile::tempdir().expect("a folder");
    let url = create_database(postgres, &Uuid::now_v7().simple().to_string());
    let config = format!(
        "[store]\nurl = \"file:{}\"\n[database]\nurl = \"{url}\"\npassword_env = \"PASSWORD\"\n{more}",
        store.path().display()
    );
    let start = |_| {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Server::start_in(folder, &config, &[("PASSWORD", password)])
    };
    ((0..count).map(start).collect(), store)
}

/// Hands in so many jobs, in bulk; their ids.
async fn enqueue_many(server: &Server, name: &str, payload: &Value, count: u64) -> Vec<String> {
    let mut ids = Vec::new();
    while (ids.len() as u64) < count {
        let some = (count - ids.len() as u64).min(1000);
        let jobs: Vec<_> = (0..some).map(|_| fields(name, payload.clone(), json!({}))).collect();
        let (status, body) = server.send("POST", "/api/jobs", json!({ "jobs": jobs })).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{body}");
        ids.extend(each(&body["jobs"], "jobId").into_iter().map(ToOwned::to_owned));
    }
    ids
}

/// How many have not ended, as the first server that answers says.
async fn open(server: &Server) -> Option<u64> {
    let response = server.client.get(server.url("/api/queues")).send().await.ok()?;
    let body: Value = response.json().await.ok()?;
    let queues = body["queues"].as_array()?;
    let count = |queue: &Value| {
        let jobs = queue["jobs"].as_object().into_iter().flatten();
        jobs.filter(|(state, _)| *state != "failed").filter_map(|(_, count)| count.as_u64()).sum::<u64>()
    };
    Some(queues.iter().map(count).sum())
}

/// Every job of the fleet, by id, page after page.
async fn all_jobs(server: &Server) -> HashMap<String, Value> {
    let (mut jobs, mut before) = (HashMap::new(), String::new());
    loop {
        let (_, page) = server.get(&format!("/api/jobs?limit=500{before}")).await;
        for job in page["jobs"].as_array().expect("jobs") {
            jobs.insert(job["jobId"].as_str().expect("an id").to_owned(), job.clone());
        }
        match page["next"].as_str() {
            Some(next) => before = format!("&before={next}"),
            None => return jobs,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_servers_killed_at_random_lose_no_job() {
    let workers = 8;
    let Some((mut servers, _store)) = fleet(3, &format!("[jobs]\nworkers = {workers}\nlease_seconds = 3\n")) else {
        return;
    };
    servers[0].push("sleep.wasm").await;
    let count = number("SHARPFAAS_TEST_JOBS", 600);
    let ids = enqueue_many(&servers[0], "sleep", &json!(10), count).await;
    let (mut random, mut kills, started) = (fastrand::Rng::with_seed(3), 0_u64, Instant::now());
    let patience = PATIENCE + Duration::from_millis(60 * count);
    loop {
        tokio::time::sleep(Duration::from_millis(random.u64(200..800))).await;
        if open(&servers[0]).await == Some(0) {
            break;
        }
        let victim = random.usize(0..servers.len());
        servers[victim].kill();
        kills += 1;
        // Now and then one stays away for longer than its lease, and others take its jobs over.
        tokio::time::sleep(Duration::from_millis(if kills % 5 == 0 { 4500 } else { random.u64(0..300) })).await;
        servers[victim].restart();
        assert!(started.elapsed() < patience, "{:?} are open", open(&servers[0]).await);
    }
    let jobs = all_jobs(&servers[0]).await;
    let (mut again, mut unexplained) = (0, Vec::new());
    for id in &ids {
        let job = &jobs[id];
        assert_eq!(job["state"], "succeeded", "{job}");
        if job["attempt"] != 1 {
            again += 1;
            let whole = servers[0].job(id).await;
            // Lost with a server, or claimed ahead and given back.
            let reasons = each(&whole["history"], "reason");
            let explained = reasons.iter().filter(|it| it.contains("lost") || it.contains("took longer")).count();
            if explained + 1 != whole["attempts"].as_array().expect("attempts").len() {
                unexplained.push(whole);
            }
        }
    }
    let took = started.elapsed();
    println!("{count} jobs, {kills} kills in {took:?}: all succeeded, {again} ran more than once");
    assert!(kills > 0 && unexplained.is_empty(), "{kills} kills, {unexplained:#?}");
    // At ten milliseconds each, a server is through with `ahead` in the time that is claimed ahead for.
    let ahead = workers * 25 / 10;
    assert!(
        again <= kills * (2 * workers + ahead),
        "only what was at work at a kill, was to be next, or had just ended"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_job_a_tick_on_three_servers() {
    let Some((servers, _store)) = fleet(3, "[jobs]\nworkers = 32\n") else { return };
    servers[0].push("echo.wasm").await;
    let (count, seconds) = (number("SHARPFAAS_TEST_SCHEDULES", 20), number("SHARPFAAS_TEST_SECONDS", 10));
    for n in 0..count {
        let body = fields("echo", json!(n), json!({ "cron": "* * * * * *", "paused": true }));
        let (status, body) = servers[0].send("PUT", &format!("/api/schedules/s{n}"), body).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }
    for n in 0..count {
        servers[n as usize % 3].send("POST", &format!("/api/schedules/s{n}/resume"), Value::Null).await;
    }
    // From one whole second on, for so many.
    let from = chrono::Utc::now().timestamp() + 2;
    let to = from + i64::try_from(seconds).expect("some");
    let late = Instant::now() + Duration::from_secs(seconds + 4);
    tokio::time::sleep_until(late.into()).await;
    for n in 0..count {
        servers[1].send("POST", &format!("/api/schedules/s{n}/pause"), Value::Null).await;
    }
    let started = Instant::now();
    while open(&servers[2]).await != Some(0) {
        assert!(started.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let mut runs: HashMap<(String, i64), u64> = HashMap::new();
    for job in all_jobs(&servers[0]).await.values() {
        assert_eq!((&job["state"], &job["attempt"]), (&json!("succeeded"), &json!(1)), "{job}");
        let tick = job["scheduledFor"].as_str().expect("a tick");
        let tick = chrono::DateTime::parse_from_rfc3339(tick).expect("a time").timestamp();
        if (from..to).contains(&tick) {
            *runs.entry((job["scheduleId"].as_str().expect("a schedule").to_owned(), tick)).or_default() += 1;
        }
    }
    let doubled = runs.values().filter(|times| **times > 1).count();
    println!(
        "{count} schedules for {seconds} s on three servers: {} ticks were run, {doubled} of them twice",
        runs.len()
    );
    assert_eq!((runs.len() as u64, doubled), (count * seconds, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_of_the_database_loses_nothing() {
    if std::env::var("SHARPFAAS_TEST_POSTGRES").is_err() {
        return;
    }
    let own = Own::start();
    let (servers, _store) =
        fleet_on(&own.server.url, &own.server.password, 2, "[jobs]\nworkers = 8\nlease_seconds = 3\n");
    servers[0].push("sleep.wasm").await;
    let count = number("SHARPFAAS_TEST_JOBS", 600);
    let ids = enqueue_many(&servers[0], "sleep", &json!(20), count).await;
    let started = Instant::now();
    while open(&servers[0]).await.is_none_or(|open| open > count * 3 / 4) {
        assert!(started.elapsed() < PATIENCE);
    }
    own.tell("stop");
    tokio::time::sleep(Duration::from_secs(number("SHARPFAAS_TEST_SECONDS", 5).min(20))).await;
    own.tell("start");
    let back = Instant::now();
    while open(&servers[1]).await != Some(0) {
        assert!(back.elapsed() < PATIENCE + Duration::from_millis(20 * count), "{:?}", open(&servers[1]).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let jobs = all_jobs(&servers[0]).await;
    let again = ids.iter().filter(|id| jobs[*id]["attempt"] != 1).count();
    assert!(ids.iter().all(|id| jobs[id]["state"] == "succeeded"));
    println!(
        "{count} jobs over an outage: all succeeded, {again} ran more than once, done {:?} after it",
        back.elapsed()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_holds_on_all_servers_and_deleting_reaches_them() {
    let Some((servers, _store)) = fleet(2, "[jobs]\nworkers = 4\n") else { return };
    servers[0].push("sleep.wasm").await;
    servers[0].push("loop-forever.wasm").await;
    let mut ids = Vec::new();
    for n in 0..8 {
        ids.push(servers[n % 2].enqueue("sleep", json!(100), json!({ "mutexKey": "one" })).await);
    }
    let mut spans = Vec::new();
    for id in &ids {
        let job = servers[0].job_when(id, "succeeded").await;
        let at = |n: usize| job["history"][n]["at"].as_str().expect("a time").to_owned();
        spans.push((at(1), at(2)));
    }
    spans.sort_unstable();
    for pair in spans.windows(2) {
        assert!(pair[0].1 <= pair[1].0, "{spans:?}");
    }
    let id = servers[0].enqueue("loop-forever", json!(null), json!({})).await;
    let job = servers[0].job_when(&id, "processing").await;
    for server in &servers {
        server.send("DELETE", &format!("/api/jobs/{id}"), Value::Null).await;
    }
    // Its row comes a moment after its end.
    let attempt = job["invocationId"].as_str().expect("an attempt");
    servers[1].call_when(attempt, |call| call["status"] == "cancelled").await;
}
