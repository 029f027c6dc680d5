//! The engine under hostile and heavy guests: each ends at its limit, and its neighbours hardly notice.
//!
//! These tests measure, so each has the machine to itself: `.config/nextest.toml` sees to that.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::{task::JoinSet, time::MissedTickBehavior};

use crate::common::{fixtures, server::Server};

mod capacity;
mod containment;

/// How often a neighbour calls.
const EVERY: Duration = Duration::from_millis(5);

/// How long calls took, sorted.
struct Times(Vec<Duration>);

impl Times {
    fn of(mut times: Vec<Duration>) -> Self {
        assert!(!times.is_empty());
        times.sort();
        Self(times)
    }

    /// The time that so many in a thousand stay below.
    fn quantile(&self, per_mille: usize) -> Duration {
        self.0[(self.0.len() - 1) * per_mille / 1000]
    }
}

/// A steady stream of small calls, begun one after the other whether or not those before have ended.
struct Neighbours {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Times>,
}

impl Neighbours {
    fn begin(server: &Arc<Server>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (server, stopped) = (server.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let mut clock = tokio::time::interval(EVERY);
            clock.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut calls = JoinSet::new();
            while !stopped.load(Ordering::Relaxed) {
                clock.tick().await;
                let server = server.clone();
                calls.spawn(async move {
                    let begun = Instant::now();
                    let (status, body) = server.run("echo", json!("hello")).await;
                    assert_eq!((status, &body["result"]), (StatusCode::OK, &json!("hello")), "{body}");
                    begun.elapsed()
                });
            }
            Times::of(calls.join_all().await)
        });
        Self { stop, task }
    }

    /// The stream for so long.
    async fn during(server: &Arc<Server>, time: Duration) -> Times {
        let stream = Self::begin(server);
        tokio::time::sleep(time).await;
        stream.end().await
    }

    async fn end(self) -> Times {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the neighbours are well")
    }
}

/// A server with the example `echo` pushed and called, of which memory and caches are warm.
async fn warm(config: &str) -> Arc<Server> {
    let server = Server::start(config);
    server.push("echo.wasm").await;
    for _ in 0..200 {
        server.run("echo", json!("warm")).await;
    }
    Arc::new(server)
}

/// Pushes a component that is written as text.
async fn push_text(server: &Server, name: &str, text: &str) -> (StatusCode, Value) {
    let component = wat::parse_str(text).expect("the test's text is right");
    let package = fixtures::zip(&[(&format!("{name}.wasm"), component.as_slice())]);
    server.push_zip(&format!("functionName={name}&lane=dev"), package).await
}
