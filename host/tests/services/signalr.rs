//! The public SignalR clients, as they come: run where `SHARPFAAS_TEST_CLIENTS` names the folder that `clients.sh`
//! filled. What they do stands in `host/tests/clients`.

use std::process::Stdio;

use tokio::{process::Command, time::timeout};

use crate::common::server::{PATIENCE, Server};

/// Runs a client of that folder to its end.
async fn client(program: &str, script: &str) {
    let Ok(clients) = std::env::var("SHARPFAAS_TEST_CLIENTS") else {
        eprintln!("not run: SHARPFAAS_TEST_CLIENTS is not set");
        return;
    };
    let server = Server::start("");
    for fixture in ["ticks.wasm", "exe-ticks", "return-error.wasm", "sleep.wasm"] {
        server.push(fixture).await;
    }
    let run = Command::new(program.replace("CLIENTS", &clients))
        .arg(format!("{clients}/{script}"))
        .arg(&server.url)
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PATIENCE, run).await.expect("in time").expect("it can be run");
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {}\n{said}", output.status);
    // What was given up has ended.
    server.call_when_of("sleep", "cancelled").await;
}

#[tokio::test]
async fn node() {
    client("node", "signalr_node.mjs").await;
}

#[tokio::test]
async fn a_browser() {
    client("node", "signalr_browser.mjs").await;
}

#[tokio::test]
async fn python() {
    client("CLIENTS/venv/bin/python", "signalr_client.py").await;
}
