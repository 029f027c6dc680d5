//! The store is away, or silent, and comes back; and what is in the local folder rots.

use std::{
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::common::{
    fixtures::zip,
    ftp_proxy::{FtpProxy, Mishap},
    ftp_server::{FtpServer, Options},
    numbered::{folders, on_ftp, printing},
    server::{PATIENCE, Server},
};

/// What "within seconds" means, on a machine that has much else to do.
const SECONDS: Duration = Duration::from_secs(15);
/// Of a server that gives its store little time.
const HURRIED: &str = "timeout_seconds = 1\nretries = 1\nrefresh_seconds = 1";

async fn push(server: &Server, name: &str, lane: &str, text: &str) -> String {
    let query = format!("functionName={name}&type=exe&lane={lane}");
    let (status, body) = server.push_zip(&query, printing(text)).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    body["version"].as_str().expect("a version").to_owned()
}

async fn call(server: &Server, name: &str, version: &str) -> (StatusCode, Value) {
    server.run_with(json!({ "functionName": name, "lane": "dev", "version": version })).await
}

async fn gives(server: &Server, name: &str, version: &str, text: &str) {
    let (status, body) = call(server, name, version).await;
    assert_eq!((status, &body["result"]), (StatusCode::OK, &json!(text)), "{name} {version}: {body}");
}

/// The answer, once it stands as `wanted` says.
async fn until<T: std::fmt::Debug>(ask: impl AsyncFn() -> T, wanted: impl Fn(&T) -> bool) -> T {
    let began = Instant::now();
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(began.elapsed() < PATIENCE, "{answer:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Fills the store by another server, and loads some of it into `server`.
async fn prepare(ftp: &FtpServer, server: &Server) {
    let other = Server::start(&on_ftp(ftp.address, ""));
    for text in ["one", "two"] {
        push(&other, "loaded", "dev", text).await;
    }
    push(&other, "elsewhere", "dev", "three").await;
    until(|| server.get("/api/functions/elsewhere"), |(status, _)| *status == StatusCode::OK).await;
    gives(server, "loaded", "1.0", "one").await;
    until(|| call(server, "loaded", ""), |(_, body)| body["result"] == "two").await;
    assert_eq!(server.get("/readyz").await.0, StatusCode::OK);
}

/// What must hold while the store does not answer.
async fn goes_on_without(server: &Server) {
    for round in 0..3 {
        let began = Instant::now();
        gives(server, "loaded", "", "two").await;
        gives(server, "loaded", "1.0", "one").await;
        gives(server, "loaded", "1", "two").await;
        assert!(began.elapsed() < SECONDS, "round {round}: {:?}", began.elapsed());
        for (name, version) in [("elsewhere", ""), ("elsewhere", "1.0"), ("unknown", ""), ("loaded", "1.7")] {
            is_unavailable(server, name, version).await;
        }
        let began = Instant::now();
        let (status, body) = server.push_zip("functionName=loaded&type=exe&lane=dev", printing("lost")).await;
        assert_eq!((status.as_u16(), &body["code"]), (503, &json!("store_unavailable")), "{body}");
        assert!(began.elapsed() < SECONDS, "a push took {:?}", began.elapsed());
    }
    let began = Instant::now();
    let ready = until(|| server.get("/readyz"), |(status, _)| *status != StatusCode::OK).await;
    assert!(began.elapsed() < SECONDS, "{:?}", began.elapsed());
    assert_eq!(ready.0, StatusCode::SERVICE_UNAVAILABLE);
    let checks = &ready.1["checks"];
    assert_eq!((&checks["store"], &checks["database"]), (&json!("unavailable"), &json!("ok")));
    assert_eq!(server.get("/healthz").await.0, StatusCode::OK);

    // Many at once do not wait for one another.
    let (began, mut calls) = (Instant::now(), JoinSet::new());
    for number in 0..60 {
        let (client, url) = (server.client.clone(), server.url("/api/function/runfunction"));
        let (name, expected) = if number % 2 == 0 { ("loaded", 200) } else { ("elsewhere", 503) };
        calls.spawn(async move {
            let fields = json!({ "functionName": name, "lane": "dev" });
            let response = client.post(url).json(&fields).send().await.expect("an answer");
            assert_eq!(response.status().as_u16(), expected, "{name}");
        });
    }
    while let Some(called) = calls.join_next().await {
        called.expect("it answers as it should");
    }
    assert!(began.elapsed() < SECONDS, "many took {:?}", began.elapsed());
}

async fn is_unavailable(server: &Server, name: &str, version: &str) {
    let began = Instant::now();
    let fields = json!({ "functionName": name, "lane": "dev", "version": version });
    let response = server.client.post(server.url("/api/function/runfunction")).json(&fields).send();
    let response = response.await.expect("an answer");
    assert!(began.elapsed() < SECONDS, "{name} {version} took {:?}", began.elapsed());
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{name} {version}");
    assert!(response.headers().contains_key("retry-after"));
    let body: Value = response.json().await.expect("JSON");
    assert_eq!(body["code"], "store_unavailable", "{body}");
    assert!(!body["detail"].to_string().contains("127.0.0.1"), "{body}");
}

/// What must hold when the store is back, with no restart.
async fn all_is_well(server: &Server) {
    let began = Instant::now();
    let (status, body) = until(|| call(server, "elsewhere", ""), |(status, _)| *status == StatusCode::OK).await;
    assert_eq!((status, &body["result"]), (StatusCode::OK, &json!("three")));
    until(|| server.get("/readyz"), |(status, _)| *status == StatusCode::OK).await;
    assert!(began.elapsed() < SECONDS, "{:?}", began.elapsed());
    assert_eq!(push(server, "loaded", "dev", "four").await, "1.2");
    gives(server, "loaded", "", "four").await;
    // A step that began while it was silent may time out only now; that is noted, for a moment.
    for (name, version, code) in [("unknown", "", "function_not_found"), ("loaded", "1.7", "version_not_found")] {
        let (_, body) = until(|| call(server, name, version), |(_, body)| body["code"] != "store_unavailable").await;
        assert_eq!(body["code"], code, "{body}");
    }
    assert!(began.elapsed() < 2 * SECONDS, "{:?}", began.elapsed());
}

#[tokio::test]
async fn the_store_stops_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let mut ftp = FtpServer::start(folder.path(), Options::default());
    let mut server = Server::start(&on_ftp(ftp.address, HURRIED));
    prepare(&ftp, &server).await;
    ftp.kill();
    goes_on_without(&server).await;
    ftp.restart();
    all_is_well(&server).await;

    // And it starts without its store, and finds it later.
    ftp.kill();
    server.kill();
    server.restart();
    gives(&server, "loaded", "1.0", "one").await;
    gives(&server, "loaded", "", "four").await;
    assert_eq!(server.get("/readyz").await.0, StatusCode::SERVICE_UNAVAILABLE);
    ftp.restart();
    until(|| server.get("/readyz"), |(status, _)| *status == StatusCode::OK).await;
    assert_eq!(push(&server, "loaded", "dev", "five").await, "1.3");
}

#[tokio::test]
async fn the_store_takes_connections_and_never_answers() {
    let folder = tempfile::tempdir().unwrap();
    let ftp = FtpServer::start(folder.path(), Options::default());
    let proxy = FtpProxy::start(ftp.address).await;
    let server = Server::start(&on_ftp(proxy.address, HURRIED));
    prepare(&ftp, &server).await;
    proxy.add(Mishap::Silent);
    goes_on_without(&server).await;
    proxy.mend();
    all_is_well(&server).await;
}

#[tokio::test]
async fn what_another_server_pushed_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let ftp = FtpServer::start(folder.path(), Options::default());
    let config = on_ftp(ftp.address, "refresh_seconds = 1");
    let (one, other) = (Server::start(&config), Server::start(&config));
    for minor in 0..5 {
        let text = format!("number {minor}");
        let version = push(&one, "shared", "dev", &text).await;
        assert_eq!(version, format!("1.{minor}"));
        // By its number at once, although the other has just looked for what is newest.
        gives(&other, "shared", &version, &text).await;
        let began = Instant::now();
        let (_, newest) = until(|| call(&other, "shared", ""), |(_, body)| body["version"] == *version).await;
        assert_eq!(newest["result"], *text);
        assert!(began.elapsed() < SECONDS, "{:?}", began.elapsed());
    }
    // Of one that is not called by its number, the newest is found all the same.
    for minor in 0..3 {
        let text = format!("unseen {minor}");
        let version = push(&one, "unseen", "dev", &text).await;
        let began = Instant::now();
        until(|| call(&other, "unseen", ""), |(_, body)| body["version"] == *version).await;
        assert!(began.elapsed() < SECONDS, "{:?}", began.elapsed());
    }
}

#[tokio::test]
async fn a_server_with_an_empty_database_finds_everything() {
    let folder = tempfile::tempdir().unwrap();
    let ftp = FtpServer::start(folder.path(), Options::default());
    let config = on_ftp(ftp.address, "");
    let mut first = Server::start(&config);
    let mut all = Vec::new();
    for (name, lane, count) in [("alpha", "dev", 5), ("alpha", "production", 2), ("beta", "dev", 3), ("gamma", "qa", 1)]
    {
        for number in 0..count {
            let text = format!("{name} {lane} {number}");
            all.push((name, lane, push(&first, name, lane, &text).await, text));
        }
    }
    let complete = async |server: &Server| {
        for name in ["alpha", "beta", "gamma"] {
            let expected = all.iter().filter(|it| it.0 == name).count();
            let path = format!("/api/functions/{name}");
            until(
                || server.get(&path),
                |(_, body)| body["versions"].as_array().is_some_and(|versions| versions.len() == expected),
            )
            .await;
        }
    };
    // Another server, at once, before it can have looked through the store; and when it has.
    let second = Server::start(&config);
    for walked in [false, true] {
        for (name, lane, version, text) in &all {
            let fields = json!({ "functionName": name, "lane": lane, "version": version });
            let (status, body) = second.run_with(fields).await;
            assert_eq!((status, &body["result"]), (StatusCode::OK, &json!(text)), "walked: {walked}: {body}");
        }
        gives(&second, "alpha", "", "alpha dev 4").await;
        complete(&second).await;
    }
    // The same server, whose database is lost.
    first.stop();
    for name in ["sharpfaas.db", "sharpfaas.db-wal", "sharpfaas.db-shm"] {
        let removed = std::fs::remove_file(first.path(name));
        assert!(removed.is_ok() || name != "sharpfaas.db", "{removed:?}");
    }
    first.restart();
    gives(&first, "alpha", "", "alpha dev 4").await;
    complete(&first).await;
    assert_eq!(push(&first, "alpha", "dev", "next").await, "1.5");
}

fn files_below(path: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for (_, path) in folders(path) {
        if path.is_dir() { found.extend(files_below(&path)) } else { found.push(path) }
    }
    found
}

/// Changes one byte in the middle; gives what was there.
fn corrupt(path: &Path) -> Vec<u8> {
    let whole = std::fs::read(path).unwrap();
    let mut bytes = whole.clone();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(path, bytes).unwrap();
    whole
}

#[tokio::test]
async fn what_rots_in_the_local_folder_is_made_again() {
    let folder = tempfile::tempdir().unwrap();
    let ftp = FtpServer::start(folder.path(), Options::default());
    let mut server = Server::start(&on_ftp(ftp.address, ""));
    server.push("echo.wasm").await;
    let script = "#!/bin/sh\ncat \"$(dirname \"$0\")/part.txt\"\n";
    let program = zip(&[("run.sh", script.as_bytes()), ("part.txt", b"\"a part of it\"\n")]);
    let (status, body) = server.push_zip("functionName=parts&type=exe&lane=dev&entryFileName=run.sh", program).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let both_work = async |server: &Server| {
        let (status, body) = server.run("echo", json!({ "n": 1 })).await;
        assert_eq!((status, &body["result"]), (StatusCode::OK, &json!({ "n": 1 })), "{body}");
        gives(server, "parts", "", "a part of it").await;
    };
    both_work(&server).await;

    let kinds = [".cwasm", ".seal", "echo.wasm", "run.sh", "part.txt", "index"];
    for (kind, change) in kinds.iter().flat_map(|kind| [(kind, "byte"), (kind, "gone"), (kind, "cut")]) {
        server.stop();
        let files = files_below(&server.path("artifacts"));
        let files: Vec<_> =
            files.iter().filter(|path| path.to_str().is_some_and(|path| path.ends_with(kind))).collect();
        assert!(!files.is_empty(), "{kind}");
        let whole: Vec<_> = files.iter().map(|path| (path, std::fs::read(path).unwrap())).collect();
        for (path, bytes) in &whole {
            match change {
                "byte" => _ = corrupt(path),
                "gone" => std::fs::remove_file(path).unwrap(),
                _ => std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
            }
        }
        server.restart();
        both_work(&server).await;
        for (path, bytes) in whole {
            let now = std::fs::read(path).unwrap();
            // Compilations need not give the same bytes twice.
            assert!(now == bytes || [".cwasm", ".seal"].contains(kind), "{kind} {change}: {}", path.display());
        }
        let log = server.log.lock().unwrap().clone();
        assert!(log.contains("dropping the") || change == "gone" && *kind == ".cwasm", "{kind} {change}: {log}");
    }
}
