//! Servers that share nothing but the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use reqwest::StatusCode;
use serde_json::json;
use tokio::{sync::Semaphore, task::JoinSet};

use crate::common::{
    ftp_server::{FtpServer, Options},
    numbered::{consecutive, on_ftp, packages, printing},
    server::{PATIENCE, Server},
};

/// How many pushes each server gets at once.
const PUSHES: usize = 50;
/// How many calls the test has under way at once.
const CALLS: usize = 8;

fn two_servers(ftp: &FtpServer, more: &str) -> [Arc<Server>; 2] {
    let config = on_ftp(ftp.address, &format!("refresh_seconds = 1\n{more}\n[limits]\npushes = 64"));
    [Arc::new(Server::start(&config)), Arc::new(Server::start(&config))]
}

/// Pushes everything at once, half of it to each server, and again what found the store away. Gives what
/// each version must print, and tells `done` of each.
async fn push_all(servers: &[Arc<Server>; 2], done: Arc<AtomicUsize>) -> (BTreeMap<String, String>, usize) {
    let mut pushes = JoinSet::new();
    let again = Arc::new(AtomicUsize::new(0));
    for (which, server) in servers.iter().enumerate() {
        for number in 0..PUSHES {
            let (server, done, again) = (server.clone(), done.clone(), again.clone());
            pushes.spawn(async move {
                let text = format!("push {number} to server {which}");
                let zip = printing(&text);
                let began = Instant::now();
                loop {
                    let (status, body) = server.push_zip("functionName=counted&type=exe&lane=dev", zip.clone()).await;
                    if status == StatusCode::CREATED {
                        done.fetch_add(1, Ordering::Relaxed);
                        return (body["version"].as_str().expect("a version").to_owned(), text);
                    }
                    assert_eq!((status.as_u16(), &body["code"]), (503, &json!("store_unavailable")), "{body}");
                    assert!(began.elapsed() < PATIENCE, "{body}");
                    again.fetch_add(1, Ordering::Relaxed);
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            });
        }
    }
    let mut texts = BTreeMap::new();
    while let Some(pushed) = pushes.join_next().await {
        let (version, text) = pushed.expect("the push is seen through");
        if let Some(other) = texts.insert(version.clone(), text.clone()) {
            panic!("version {version} was given to '{other}' and to '{text}'");
        }
    }
    (texts, again.load(Ordering::Relaxed))
}

/// All versions are there, each of them whole, and each gives on either server what was pushed as it.
async fn all_is_well(servers: &[Arc<Server>; 2], root: &Path, texts: &BTreeMap<String, String>) {
    let expected: BTreeSet<_> = consecutive(1, 2 * PUSHES).into_iter().collect();
    assert_eq!(texts.keys().cloned().collect::<BTreeSet<_>>(), expected);
    let stored = packages(root, "counted");
    assert_eq!(stored.keys().cloned().collect::<BTreeSet<_>>(), expected);
    for (version, text) in texts {
        assert!(stored[version] == printing(text), "the bytes of {version}");
    }
    let (places, mut calls) = (Arc::new(Semaphore::new(CALLS)), JoinSet::new());
    for server in servers {
        for (version, text) in texts.clone() {
            let (server, places) = (server.clone(), places.clone());
            calls.spawn(async move {
                let _place = places.acquire().await;
                let fields = json!({ "functionName": "counted", "lane": "dev", "version": version });
                let (status, body) = server.run_with(fields).await;
                assert_eq!((status, &body["result"]), (StatusCode::OK, &json!(text)), "{version}: {body}");
            });
        }
    }
    while let Some(called) = calls.join_next().await {
        called.expect("the call gives what was pushed");
    }
    let newest = format!("1.{}", 2 * PUSHES - 1);
    for server in servers {
        let began = Instant::now();
        loop {
            let (_, body) = server.run_with(json!({ "functionName": "counted", "lane": "dev" })).await;
            if body["version"] == *newest {
                assert_eq!(body["result"], *texts[&newest]);
                break;
            }
            assert!(began.elapsed() < PATIENCE, "{body}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

#[tokio::test]
async fn a_hundred_pushes_to_two_servers_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let ftp = FtpServer::start(folder.path(), Options::default());
    let servers = two_servers(&ftp, "");
    let (texts, again) = push_all(&servers, Arc::default()).await;
    assert_eq!(again, 0, "the store was there all the time");
    all_is_well(&servers, &folder.path().join("functionstore"), &texts).await;
    assert_eq!(staged(folder.path()), 0);
}

#[tokio::test]
async fn a_hundred_pushes_while_the_store_comes_and_goes() {
    let folder = tempfile::tempdir().unwrap();
    let mut ftp = FtpServer::start(folder.path(), Options::default());
    let servers = two_servers(&ftp, "timeout_seconds = 5");
    let done = Arc::new(AtomicUsize::new(0));
    let progress = done.clone();
    // It is killed when every sixth push has come through, so while the others are under way.
    let killer = tokio::task::spawn_blocking(move || {
        let (began, mut random, mut kills) = (Instant::now(), fastrand::Rng::with_seed(7), 0);
        for mark in (0..2 * PUSHES).step_by(6) {
            while progress.load(Ordering::Relaxed) < mark {
                assert!(began.elapsed() < PATIENCE, "{} pushes came through", progress.load(Ordering::Relaxed));
                std::thread::sleep(Duration::from_millis(1));
            }
            std::thread::sleep(Duration::from_millis(random.u64(0..60)));
            ftp.kill();
            kills += 1;
            std::thread::sleep(Duration::from_millis(random.u64(0..150)));
            ftp.restart();
        }
        (ftp, kills)
    });
    let (texts, again) = push_all(&servers, done).await;
    let (_ftp, kills) = killer.await.expect("the store is back");
    println!("{kills} kills, {again} pushes again");
    all_is_well(&servers, &folder.path().join("functionstore"), &texts).await;
}

fn staged(root: &Path) -> usize {
    std::fs::read_dir(root.join("functionstore/.staging")).map_or(0, Iterator::count)
}
