//! Listeners that are gone, or as good as gone.

use std::time::Instant;

use serde_json::{Value, json};

use crate::common::{
    raw::{Dialect, Raw},
    server::{PATIENCE, Server},
};

/// How a listener vanishes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Its process ends, and its kernel says so.
    Killed,
    /// Nothing comes from it any more, and nobody says so.
    HalfOpen,
    /// It is there, and reads nothing.
    NeverReads,
}

/// What the server holds.
#[derive(Debug, PartialEq, PartialOrd)]
struct Held {
    connections: u64,
    listeners: u64,
    tasks: u64,
    descriptors: usize,
    threads: usize,
}

impl Held {
    async fn by(server: &Server) -> Self {
        let metrics = server.client.get(server.url("/metrics")).send().await.expect("an answer");
        let metrics = metrics.text().await.expect("text");
        let of = |name: &str| -> u64 {
            let value = metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name}: {metrics}"))
        };
        let count = |what: &str| std::fs::read_dir(format!("/proc/{}/{what}", server.pid())).expect("it runs").count();
        Self {
            connections: of("sharpfaas_connections"),
            listeners: of("sharpfaas_listeners"),
            tasks: of("sharpfaas_tasks"),
            descriptors: count("fd"),
            threads: count("task"),
        }
    }

    fn is_within(&self, before: &Self) -> bool {
        self.connections <= before.connections
            && self.listeners <= before.listeners
            && self.tasks <= before.tasks
            && self.descriptors <= before.descriptors
            && self.threads <= before.threads
    }
}

/// While the calls go on that they followed, and with an end to those that they made.
#[tokio::test]
async fn listeners_that_vanish_leave_nothing_behind() {
    let server = Server::start("[hub]\nping_seconds = 1\ntimeout_seconds = 2\n[limits]\ndeadline_seconds = 1000");
    server.push("flood-output.wasm").await;
    server.push("sleep.wasm").await;
    server.push("ticks.wasm").await;
    let flood = server.start_call("flood-output", Value::Null).await;
    let quiet = server.start_call("sleep", json!(900_000)).await;
    let running = async || {
        let (_, page) = server.get("/api/invocations?status=running").await;
        page["invocations"].as_array().map(Vec::len)
    };
    // Once for what is made with the first.
    for dialect in Dialect::ALL {
        let id = server.start_call("ticks", json!({ "count": 3, "everyMs": 1 })).await;
        Raw::listen(&server, dialect, &id, ("ticks", json!({ "count": 3, "everyMs": 1 }))).await.read_until("2 ").await;
        server.ended(&id).await;
    }
    let started = Instant::now();
    while Held::by(&server).await.listeners > 0 || running().await != Some(2) {
        assert!(started.elapsed() < PATIENCE, "{:?}", Held::by(&server).await);
    }
    let before = Held::by(&server).await;
    println!("before: {before:?}");
    for way in [Way::Killed, Way::HalfOpen, Way::NeverReads] {
        let mut kept = Vec::new();
        for dialect in Dialect::ALL {
            for (id, name, payload, first) in
                [(&flood, "flood-output", Value::Null, "0000"), (&quiet, "sleep", json!(900_000), "asleep")]
            {
                let mut listener = Raw::listen(&server, dialect, id, (name, payload)).await;
                if way != Way::NeverReads {
                    listener.read_until(first).await;
                } else if name == "sleep" && matches!(dialect, Dialect::Events | Dialect::Text) {
                    // All that it has not read is in its kernel, which answers for it: to the server it is there.
                    continue;
                }
                if way == Way::HalfOpen {
                    listener.go_dark();
                }
                kept.push(listener);
            }
        }
        let most = Held::by(&server).await;
        assert!(most.listeners > 0 && most.connections > before.connections, "{way:?}: {most:?}");
        if way == Way::Killed {
            kept.clear();
        }
        let gone = Instant::now();
        let held = loop {
            let held = Held::by(&server).await;
            if held.is_within(&before) && running().await == Some(2) {
                break held;
            }
            assert!(gone.elapsed() < PATIENCE, "{way:?}: {held:?}, and {before:?} before");
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        };
        println!("{way:?}: {most:?}, and after {:.1?} {held:?}", gone.elapsed());
        drop(kept);
    }
    for id in [&flood, &quiet] {
        server.client.delete(server.url(&format!("/api/invocations/{id}"))).send().await.expect("an answer");
        server.ended(id).await;
    }
    // The one, and in each way those of two dialects. A call of `ticks` may have ended before its caller was gone.
    for name in ["flood-output", "sleep"] {
        let (_, page) = server.get(&format!("/api/invocations?function={name}&status=cancelled&limit=100")).await;
        assert_eq!(page["invocations"].as_array().map(Vec::len), Some(1 + 3 * 2), "{name}: {page}");
    }
}
