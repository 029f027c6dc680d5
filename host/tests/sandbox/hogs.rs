//! Programs that take all they can get of one thing.

use std::time::Instant;

use super::*;

/// What the slowest of a hundred neighbours may take more than twice its quiet figure.
const MORE: Duration = Duration::from_millis(20);
/// How often that is looked at again: the machine may have been at something else.
const TRIES: usize = 4;

const LIMITS: &str = "
[limits]
memory_bytes = 67108864
deadline_seconds = 20
[sandbox]
folder_bytes = 33554432
";

#[tokio::test]
async fn a_folder_that_is_full_hurts_its_call_alone() {
    for server in servers(LIMITS) {
        server.push("exe-hog").await;
        server.push("exe-reach").await;
        let before = Holdings::of(&server);
        let neighbour = server.start_call("exe-hog", json!({ "of": "time", "threads": 1, "seconds": 2 })).await;
        for _ in 0..2 {
            let staged = staged(&server).await;
            let (status, body) = server.run("exe-hog", json!({ "of": "folder", "seconds": 1 })).await;
            if staged {
                let text = body["result"].as_str().unwrap_or_default();
                let (bytes, error) = text.split_once(' ').unwrap_or_default();
                let bytes: u64 = bytes.parse().unwrap_or_default();
                assert!((31 << 20..=32 << 20).contains(&bytes) && error == "ENOSPC", "{body}");
                let files = result(&server, "exe-hog", json!({ "of": "files" })).await;
                assert!(files.as_str().is_some_and(|text| text.ends_with(" ENOSPC")), "{files}");
            } else {
                assert_ne!(status, StatusCode::OK, "{body}");
                assert!(body["detail"].as_str().is_some_and(|detail| detail.contains("folder")), "{body}");
            }
            let found = result(&server, "exe-reach", json!({ "write": ["mine"] })).await;
            assert_eq!(found["write mine"], "done: ");
        }
        assert_eq!(server.ended(&neighbour).await["status"], "succeeded");
        given_back(&server, &before).await;
    }
}

#[tokio::test]
async fn memory_and_descriptors_have_an_end() {
    for server in servers(LIMITS) {
        server.push("exe-hog").await;
        for _ in 0..3 {
            let (status, body) = server.run("exe-hog", json!({ "of": "memory" })).await;
            assert_eq!(
                (status, &body["code"]),
                (StatusCode::INTERNAL_SERVER_ERROR, &json!("memory_exceeded")),
                "{body}"
            );
        }
        let found = result(&server, "exe-hog", json!({ "of": "descriptors" })).await;
        assert_eq!(found, json!("253 EMFILE"));
        let (_, page) = server.get("/api/invocations?function=exe-hog").await;
        for call in page["invocations"].as_array().expect("calls") {
            let peak = call["memoryPeakBytes"].as_u64().expect("it is told");
            let all = call["errorCode"] == "memory_exceeded" || call["error"]["code"] == "memory_exceeded";
            assert!(if all { peak > 50 << 20 } else { peak < 20 << 20 }, "{call}");
            assert!(call["cpuMs"].as_f64().is_some_and(|time| time > 0.0), "{call}");
        }
        // It was the kernel that bound it, wherever it lets the server have groups.
        for group in groups(&server) {
            let inner = fs::read_dir(&group).expect("a folder").flatten().filter(|entry| entry.path().is_dir());
            assert_eq!(inner.map(|entry| entry.file_name()).collect::<Vec<_>>(), ["seat-0"], "{}", group.display());
        }
    }
}

#[tokio::test]
async fn codes_signals_and_time_are_told_apart() {
    let server = Server::start("");
    for name in ["exe-fail", "exe-crash", "exe-hog"] {
        server.push(name).await;
    }
    let (_, body) = server.run("exe-fail", json!({ "code": 3 })).await;
    assert_eq!(body["code"], "function_failed", "{body}");
    assert!(body["detail"].as_str().is_some_and(|text| text.starts_with("exited with code 3")), "{body}");
    let (_, body) = server.run("exe-crash", Value::Null).await;
    assert_eq!(body["code"], "function_trapped", "{body}");
    assert!(body["detail"].as_str().is_some_and(|text| text.starts_with("ended by signal")), "{body}");
    let id = server.start_call("exe-hog", json!({ "of": "time", "threads": 2, "seconds": 1 })).await;
    let call = server.ended(&id).await;
    let (cpu, elapsed) = (call["cpuMs"].as_f64().expect("told"), call["elapsedMs"].as_f64().expect("told"));
    assert!(elapsed >= 1000.0 && cpu > 100.0 && cpu < 2.5 * elapsed, "{call}");
}

/// How long the slowest of a hundred calls takes.
async fn slowest(server: &Server) -> Duration {
    let mut times = Vec::new();
    for _ in 0..100 {
        let started = Instant::now();
        assert_eq!(result(server, "exe-echo", json!("still here")).await, json!("still here"));
        times.push(started.elapsed());
    }
    times.sort();
    times[98]
}

#[tokio::test]
async fn bombs_and_hogs_are_contained_and_neighbours_hardly_notice() {
    let server = Server::start("[limits]\nmemory_bytes = 67108864\n");
    server.push("exe-hog").await;
    server.push("exe-echo").await;
    slowest(&server).await;
    let before = Holdings::of(&server);
    for payload in [
        json!({ "of": "processes" }),
        json!({ "of": "threads", "seconds": 60 }),
        json!({ "of": "time", "threads": 8, "seconds": 60 }),
    ] {
        let mut seen = Vec::new();
        for _ in 0..TRIES {
            let quiet = slowest(&server).await;
            let attack = server.start_call("exe-hog", payload.clone()).await;
            server.call_when(&attack, |call| call["status"] != "queued").await;
            let busy = slowest(&server).await;
            let _ = server.client.delete(server.url(&format!("/api/invocations/{attack}"))).send().await;
            let ended = server.ended(&attack).await;
            assert_ne!(ended["status"], "succeeded", "{ended}");
            seen.push((quiet, busy));
            if busy <= 2 * quiet + MORE {
                break;
            }
        }
        println!("{payload}: quiet and busy p99 {seen:?}");
        assert!(seen.last().is_some_and(|(quiet, busy)| *busy <= 2 * *quiet + MORE), "{payload}: {seen:?}");
        given_back(&server, &before).await;
    }
    let members =
        groups(&server).into_iter().flat_map(|group| files(&group)).filter(|path| path.ends_with("cgroup.procs"));
    assert_eq!(members.filter(|path| !fs::read_to_string(path).unwrap_or_default().is_empty()).count(), 0);
}
