//! Secrets are nowhere to be found: not in logs, history, files or the list of processes.

use std::{fs, path::Path, sync::Arc};

use serde_json::json;

use super::payloads::{KEY, keys};
use crate::common::{
    fixtures::zip,
    server::{Server, client_with},
    websocket::Socket,
};

/// A text that is nowhere else.
const CANARY: &str = "canary-5f0c1d7e92";
const ADMIN: &str = "an-admin-token-that-was-chosen-by-hand-8841";

/// Every file below a folder that holds one of these texts.
fn files_with(folder: &Path, texts: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(files_with(&entry.path(), texts));
            continue;
        }
        let bytes = fs::read(entry.path()).unwrap_or_default();
        let held = texts.iter().filter(|text| bytes.windows(text.len()).any(|window| window == text.as_bytes()));
        found.extend(held.map(|text| format!("{} in {}", text, entry.path().display())));
    }
    found
}

/// Every process, ours but for this one, that shows one of these texts in its arguments.
fn processes_with(texts: &[&str]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc").expect("Linux").flatten() {
        if entry.file_name().to_string_lossy() == std::process::id().to_string() {
            continue;
        }
        let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        let arguments = String::from_utf8_lossy(&arguments).into_owned();
        found.extend(texts.iter().filter(|text| arguments.contains(**text)).map(|text| format!("{text}: {arguments}")));
    }
    found
}

#[tokio::test]
async fn no_secret_is_left_anywhere() {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let config = "[server]\nlog_filter = \"trace\"\n[security]\nadmin_token_env = \"ADMIN\"\n\
                  [[security.payload_keys]]\nkid = \"new\"\nkey_env = \"KEY\"\n";
    let mut server = Server::start_in(folder.clone(), config, &[("ADMIN", ADMIN), ("KEY", KEY)]);
    server.client = client_with(ADMIN);
    let token = super::make(&server, json!({ "name": "user", "run": ["*"], "read": ["*"] })).await;
    for fixture in ["echo.wasm", "return-error.wasm", "exe-echo", "print-lines.wasm"] {
        server.push(fixture).await;
    }
    let slow =
        b"#!/bin/sh\nread -r line\necho \"$line\"\necho \"$line\" >&2\nwhile [ ! -e \"$2\" ]; do sleep 0.05; done\n";
    assert_eq!(server.push_zip("functionName=slow&type=exe&lane=dev", zip(&[("run.sh", slow)])).await.0, 201);

    let payload = json!(CANARY).to_string();
    let sealed = || keys().seal("new", &Default::default(), &payload).expect("sealed");
    let user = client_with(&token);
    for name in ["echo", "return-error", "exe-echo"] {
        for answer in [true, false] {
            let fields = json!({
                "functionName": name, "lane": "dev", "payload": sealed(), "payloadEncrypted": true,
                "encryptResult": answer, "deadlineMs": 20_000
            });
            let request = user.post(server.url("/api/function/runfunction")).json(&fields);
            let text = request.send().await.expect("an answer").text().await.expect("text");
            assert_eq!(text.contains(CANARY), !answer, "{name}: {text}");
        }
    }
    let mut socket = Socket::connect(&server, &format!("/functions?access_token={token}")).await;
    let call = json!({
        "functionName": "slow", "lane": "dev", "payload": sealed(), "payloadEncrypted": true
    });
    socket.send_json(call).await;
    let id = socket.json().await["invocationId"].as_str().expect("an id").to_owned();
    assert_eq!(socket.json().await["line"], json!(payload), "it has read its payload");
    let secrets = [CANARY, ADMIN, &token, KEY];
    assert_eq!(processes_with(&secrets), Vec::<String>::new());
    // Whoever follows it here, and what is kept of it while it runs.
    let (_, running) = server.get(&format!("/api/invocations/{id}")).await;
    assert!(!running.to_string().contains(CANARY), "{running}");
    let mut tail = Socket::connect(&server, &format!("/api/invocations/{id}/tail?access_token={token}")).await;
    assert!(!tail.text().await.expect("a line").contains(CANARY));
    socket.send_json(json!({ "cancel": id })).await;
    server.ended(&id).await;
    // A refused one is not told in the log either.
    let mut broken = sealed();
    broken.pop();
    let refused = json!({ "functionName": "echo", "lane": "dev", "payload": broken, "payloadEncrypted": true });
    assert_eq!(server.run_with(refused).await.0, 400);
    let wrong = format!("{}x", &token[..token.len() - 1]);
    assert_eq!(super::known(&server, &wrong).await, 401);

    server.stop();
    assert_eq!(files_with(folder.path(), &secrets), Vec::<String>::new());
    let log = server.log.lock().expect("the log").clone();
    assert!(log.len() > 10_000, "the log is at its fullest");
    for secret in [CANARY, ADMIN, &token, KEY, &wrong, broken.split('.').next_back().expect("its tag")] {
        assert!(
            !log.contains(secret),
            "{secret} is in the log: {}",
            log.lines().find(|l| l.contains(secret)).unwrap_or("")
        );
    }
}
