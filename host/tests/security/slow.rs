//! A thousand senders that take their time, a thousand connections that do nothing, and everybody else.

use std::time::{Duration, Instant};

use serde_json::json;
use tokio::{io::AsyncWriteExt as _, net::TcpStream, task::JoinSet};

use crate::common::server::{PATIENCE, Server};

/// How many calls are measured.
const CALLS: usize = 500;
/// Of each kind.
const CROWD: u64 = 1000;

/// How long one call in a hundred takes at least.
async fn p99(server: &Server) -> Duration {
    let mut times = Vec::new();
    for number in 0..CALLS {
        let started = Instant::now();
        let (status, ran) = server.run("echo", json!(number)).await;
        times.push(started.elapsed());
        assert_eq!((status.as_u16(), &ran["result"]), (200, &json!(number)), "{ran}");
    }
    times.sort();
    times[CALLS - CALLS / 100]
}

/// How many connections the server has.
async fn connections(server: &Server) -> u64 {
    let text = server.client.get(server.url("/metrics")).send().await.expect("it").text().await.expect("text");
    let open = text.lines().find_map(|line| line.strip_prefix("sharpfaas_connections "));
    open.expect("it is counted").parse().expect("a number")
}

async fn connect(address: &str) -> TcpStream {
    tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await.expect("in time").expect("a connection")
}

#[tokio::test]
async fn slow_senders_and_idle_connections_hold_up_nobody() {
    let server = Server::start("[server]\nread_seconds = 600\n");
    server.push("echo.wasm").await;
    let address = server.url.trim_start_matches("http://").to_owned();
    p99(&server).await;
    // Other things go on on a machine: in one of a few rounds it must hold.
    let mut seen = Vec::new();
    for _ in 0..5 {
        let quiet = p99(&server).await;
        let mut crowd = JoinSet::new();
        for number in 0..CROWD {
            let (mut slow, idle) = (connect(&address).await, connect(&address).await);
            crowd.spawn(async move {
                let head = "POST /api/runfunction?functionName=echo&lane=dev HTTP/1.1\r\nHost: localhost\r\n";
                // Half of them are slow with the head, and half with the body.
                let length = if number % 2 == 0 { "Content-Length: 100000\r\n\r\n" } else { "" };
                slow.write_all(format!("{head}{length}").as_bytes()).await.expect("the head is sent");
                while slow.write_all(if number % 2 == 0 { b"x" } else { b"X-A: b\r\n" }).await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(1000 + number % 100)).await;
                }
                drop(idle);
            });
        }
        let started = Instant::now();
        while connections(&server).await < 2 * CROWD {
            assert!(started.elapsed() < PATIENCE, "{} connections", connections(&server).await);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let crowded = p99(&server).await;
        crowd.abort_all();
        while crowd.join_next().await.is_some() {}
        println!("p99 of {CALLS} calls: {quiet:?} alone, {crowded:?} with {} connections", 2 * CROWD);
        seen.push((quiet, crowded));
        if crowded <= quiet * 2 {
            return;
        }
    }
    panic!("{seen:?}");
}
