//! Floods and many listeners.

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::{sync::Barrier, task::JoinSet};

use crate::common::{
    server::Server,
    websocket::{SignalR, Socket, lines},
};

const MIB: u64 = 1024 * 1024;

/// How long ago the line says it was printed.
fn age(line: &str) -> Duration {
    let printed: u64 = line.split_once(' ').and_then(|(_, micros)| micros.parse().ok()).expect("a time");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after the epoch");
    now.saturating_sub(Duration::from_micros(printed))
}

/// Most lines come at once. A machine that is busy with other things may hold up some, so the bound for all
/// of them is a generous one.
fn check(dialect: &str, mut ages: Vec<Duration>) {
    assert_eq!(ages.len(), 30, "{dialect}");
    ages.sort();
    println!("{dialect}: median {:?}, last {:?}", ages[15], ages[29]);
    assert!(ages[15] < Duration::from_millis(50) && ages[29] < Duration::from_secs(2), "{dialect}: {ages:?}");
}

#[tokio::test]
async fn a_line_reaches_every_kind_of_listener_at_once() {
    let server = Arc::new(Server::start(""));
    server.push("ticks.wasm").await;
    server.push("exe-ticks").await;
    for name in ["ticks", "exe-ticks"] {
        let payload = json!({ "count": 30, "everyMs": 100 });
        let mut listeners = JoinSet::new();
        let mut signalr = SignalR::connect(&server).await;
        signalr.stream("1", json!([name, "dev", "", payload])).await;
        listeners.spawn(async move {
            let mut ages = Vec::new();
            while let Some(line) = signalr.message().await["item"].as_str() {
                ages.push(age(line));
            }
            ("SignalR", ages)
        });
        let mut plain = Socket::connect(&server, "/functions").await;
        plain.send_json(json!({ "functionName": name, "lane": "dev", "payload": payload })).await;
        listeners.spawn(async move { ("plain", ages(plain).await) });
        let id = server.start_call(name, payload).await;
        let tail = Socket::connect(&server, &format!("/api/invocations/{id}/tail")).await;
        listeners.spawn(async move { ("tail", ages(tail).await) });
        let events = server.client.get(server.url(&format!("/api/invocations/{id}/output")));
        let mut events = events.header("Accept", "text/event-stream").send().await.expect("an answer").bytes_stream();
        listeners.spawn(async move {
            let mut ages = Vec::new();
            while let Some(part) = events.next().await {
                let part = String::from_utf8(part.expect("a part").into()).expect("text");
                for data in part.lines().filter_map(|line| line.strip_prefix("data: ")) {
                    let data: Value = serde_json::from_str(data).expect("JSON");
                    ages.extend(data["line"].as_str().map(age));
                }
            }
            ("server-sent events", ages)
        });
        while let Some(listener) = listeners.join_next().await {
            let (dialect, ages) = listener.expect("it listens");
            check(&format!("{name}, {dialect}"), ages);
        }
    }
}

async fn ages(mut socket: Socket) -> Vec<Duration> {
    let mut ages = Vec::new();
    loop {
        let event = socket.json().await;
        match event["event"].as_str() {
            Some("output") => ages.push(age(event["line"].as_str().expect("text"))),
            Some("completed") => return ages,
            _ => {}
        }
    }
}

/// Memory stays where it was, and who reads slowly is told what it missed and hears the end.
#[tokio::test]
async fn a_flood_is_bounded_however_many_listen() {
    let server = Arc::new(Server::start("[limits]\ndeadline_seconds = 100"));
    server.push("flood-output.wasm").await;
    server.push("exe-flood").await;
    // What a program prints is its result, which has a bound of its own.
    for (name, ends) in [("flood-output", "succeeded"), ("exe-flood", "failed")] {
        server.run(name, json!(1000)).await;
        let idle = server.resident();
        for listeners in [0, 1, 100] {
            // 50 MB, many times what may be held.
            let id = server.start_call(name, json!(500_000)).await;
            let mut slow = Vec::new();
            for _ in 0..listeners {
                slow.push(Socket::connect(&server, &format!("/api/invocations/{id}/tail")).await);
            }
            let mut peak = 0;
            loop {
                peak = peak.max(server.resident());
                let (_, call) = server.get(&format!("/api/invocations/{id}")).await;
                if call["status"] != "running" && call["status"] != "queued" {
                    assert_eq!(call["status"], ends, "{}", call["error"]);
                    break;
                }
                // Each reads a message now and then.
                for socket in &mut slow {
                    socket.text().await;
                }
            }
            for mut socket in slow {
                let events = socket.events().await;
                assert!(events.iter().any(|event| event["event"] == "skipped"));
                assert_eq!(lines(&events).last(), Some(&&*format!("{:099}", 499_999)));
            }
            let grown = peak.saturating_sub(idle) / MIB;
            println!("{name}, {listeners} listeners: {} MiB idle, {grown} MiB more", idle / MIB);
            assert!(grown < 50, "{name}, {listeners} listeners: {grown} MiB more than {}", idle / MIB);
        }
    }
}

#[tokio::test]
async fn hundreds_of_tails_hear_every_line() {
    const LISTENERS: usize = 500;
    let server = Arc::new(Server::start(""));
    server.push("ticks.wasm").await;
    // Begins to print when all are there.
    let id = server.start_call("ticks", json!({ "count": 101, "everyMs": 20 })).await;
    let ready = Arc::new(Barrier::new(LISTENERS));
    let mut listeners = JoinSet::new();
    for _ in 0..LISTENERS {
        let (server, id, ready) = (server.clone(), id.clone(), ready.clone());
        listeners.spawn(async move {
            let mut socket = Socket::connect(&server, &format!("/api/invocations/{id}/tail")).await;
            ready.wait().await;
            socket.events().await
        });
    }
    let started = Instant::now();
    while let Some(events) = listeners.join_next().await {
        let events = events.expect("it listens");
        let numbers: Vec<_> = events.iter().filter_map(|event| event["number"].as_u64()).collect();
        assert_eq!(numbers, (0..101).collect::<Vec<_>>());
        assert!(events.iter().all(|event| event["event"] != "skipped"));
    }
    println!("{LISTENERS} listeners had it after {:?}", started.elapsed());
}
