//! Guests that misbehave: each ends as its code in the table says, in its time, and leaves nothing behind.

use std::{
    collections::HashMap,
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::common::{
    process::{Holdings, alive, entries, eventually, given_back, printed_pids},
    server::{PATIENCE, Server},
};

/// How much later than its deadline a call may end.
const LATE: Duration = Duration::from_millis(100);
/// How often a call that was late is made again: the machine may have been at something else.
const TRIES: usize = 3;
/// How much more memory the server may have after hundreds of failed calls than after the first ones.
const GROWTH: u64 = 32 << 20;

const LIMITS: &str = "
[limits]
memory_bytes = 67108864
result_bytes = 1000000
output_bytes = 65536
[runtime]
temp_dir = \"DATA/temp\"
";

/// A guest, its payload, the deadline of the call in milliseconds, and how it ends where not by that: the code,
/// and what the detail tells.
type Fault = (&'static str, Value, u64, Option<(&'static str, &'static str)>);

/// For those that end by themselves.
const LONG: u64 = 20_000;

fn components() -> Vec<Fault> {
    vec![
        ("loop-forever", json!(null), 250, None),
        ("sleep", json!(60_000), 250, None),
        ("flood-output", json!(null), 250, None),
        ("eat-memory", json!(null), LONG, Some(("memory_exceeded", "64 MiB"))),
        ("trap", json!(null), LONG, Some(("function_trapped", "unreachable"))),
        ("panic", json!("\"on purpose\""), LONG, Some(("function_trapped", "unreachable"))),
        ("deep-recursion", json!(null), LONG, Some(("function_trapped", "stack"))),
        ("return-error", json!("\"on purpose\""), LONG, Some(("function_failed", "on purpose"))),
        ("big-result", json!(1_000_001), LONG, Some(("function_failed", "1000001 bytes"))),
        ("exit", json!(3), LONG, Some(("function_failed", "exited with code"))),
    ]
}

fn programs() -> Vec<Fault> {
    vec![
        ("exe-sleep", json!(60_000), 300, None),
        ("exe-flood", json!(null), 300, None),
        ("exe-flood", json!(20_000), LONG, Some(("function_failed", "1000000 bytes"))),
        ("exe-eat-memory", json!(null), LONG, Some(("memory_exceeded", "67108864 bytes"))),
        (
            "exe-fail",
            json!({ "code": 3, "message": "on purpose" }),
            LONG,
            Some(("function_failed", "code 3: on purpose")),
        ),
        ("exe-crash", json!(null), LONG, Some(("function_trapped", "SIGABRT"))),
    ]
}

async fn push_all(server: &Server, faults: &[Fault]) {
    let mut names: Vec<_> = faults.iter().map(|fault| fault.0).collect();
    names.dedup();
    for name in names {
        let file = if name.starts_with("exe-") { name.to_owned() } else { format!("{name}.wasm") };
        server.push(&file).await;
    }
}

/// Makes the call; the code that it ended with, and how long it took by the server's clock.
async fn fail(server: &Server, (name, payload, deadline, _): &Fault) -> (String, Duration, Value) {
    let fields = json!({ "functionName": name, "lane": "dev", "payload": payload, "deadlineMs": deadline });
    let (status, body) = server.run_with(fields).await;
    let id = body["invocationId"].as_str().unwrap_or_else(|| panic!("{name}: {status} {body}"));
    let call = server.ended(id).await;
    let code = body["code"].as_str().unwrap_or_else(|| panic!("{name} succeeded: {body}")).to_owned();
    assert_eq!(call["error"]["code"], code.as_str(), "{name}: {call}");
    let expected = if code == "deadline_exceeded" { 504 } else { 500 };
    assert_eq!((status.as_u16(), &body["status"]), (expected, &json!(expected)), "{name}: {body}");
    let elapsed = Duration::from_secs_f64(call["elapsedMs"].as_f64().expect("a time") / 1000.0);
    (code, elapsed, body)
}

/// Makes a call that must end with its deadline, again where the machine was late; gives how late it was.
async fn ends_in_time(server: &Server, fault: &Fault) -> Duration {
    let deadline = Duration::from_millis(fault.2);
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let (code, elapsed, body) = fail(server, fault).await;
        assert_eq!(code, "deadline_exceeded", "{}: {body}", fault.0);
        assert!(elapsed >= deadline, "{} ended {elapsed:?} after its beginning, too early", fault.0);
        if elapsed <= deadline + LATE {
            return elapsed - deadline;
        }
        seen.push(elapsed);
    }
    panic!("{} took {seen:?}, and had {deadline:?}", fault.0);
}

async fn each_ends_as_it_must(server: &Server, faults: &[Fault]) {
    for fault in faults {
        // The first call of a component loads it, too.
        let first = fail(server, fault).await;
        match fault.3 {
            Some((code, detail)) => {
                assert_eq!(first.0, code, "{}: {}", fault.0, first.2);
                assert!(first.2["detail"].to_string().contains(detail), "{}: {}", fault.0, first.2);
            }
            None => {
                let late = ends_in_time(server, fault).await;
                println!("{}: {} ms after its deadline", fault.0, late.as_millis());
            }
        }
    }
}

/// Two hundred calls, eight at once; what they took of the machine must come back.
async fn leaves_nothing(server: &Server, faults: &[Fault], before: &Holdings) {
    let resident = server.resident();
    let one_by_one = |lane: usize| async move {
        for i in 0..25 {
            let fault = &faults[(lane + i) % faults.len()];
            let (code, _, body) = fail(server, fault).await;
            assert_eq!(code, fault.3.map_or("deadline_exceeded", |(code, _)| code), "{}: {body}", fault.0);
        }
    };
    futures_util::future::join_all((0..8).map(one_by_one)).await;
    given_back(server, before).await;
    eventually("temporary folders are removed", || {
        let left: usize = std::fs::read_dir(server.path("temp"))
            .map_err(|error| error.to_string())?
            .flatten()
            .map(|root| entries(&root.path()))
            .sum();
        if left == 0 { Ok(()) } else { Err(format!("{left} are there")) }
    })
    .await;
    let grown = server.resident().saturating_sub(resident);
    println!("resident: {} KiB before, {} KiB more after 200 calls", resident >> 10, grown >> 10);
    assert!(grown < GROWTH, "{resident} bytes before, {grown} more after");
}

/// A server whose clients keep no connection, so that each one counted is held by the server.
fn server(config: &str) -> Server {
    let mut server = Server::start(config);
    server.client = Client::builder().pool_max_idle_per_host(0).timeout(PATIENCE).build().expect("a client");
    server
}

#[tokio::test]
async fn components_that_misbehave_end_as_their_codes_say_and_leave_nothing() {
    let server = server(LIMITS);
    let faults = components();
    let before = Holdings::of(&server);
    push_all(&server, &faults).await;
    each_ends_as_it_must(&server, &faults).await;
    leaves_nothing(&server, &faults, &before).await;
}

#[tokio::test]
async fn programs_that_misbehave_end_as_their_codes_say_and_leave_nothing() {
    let server = server(LIMITS);
    let faults = programs();
    let before = Holdings::of(&server);
    push_all(&server, &faults).await;
    each_ends_as_it_must(&server, &faults).await;
    leaves_nothing(&server, &faults, &before).await;
}

#[tokio::test]
async fn at_the_deadline_the_whole_tree_of_processes_is_gone() {
    let server = server(LIMITS);
    server.push("exe-fork-ignore-term").await;
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let payload = json!({ "children": 5 });
        let (code, elapsed, body) = fail(&server, &("exe-fork-ignore-term", payload, 1000, None)).await;
        let call = server.ended(body["invocationId"].as_str().expect("an id")).await;
        let pids = printed_pids(&call);
        // Once the answer is there nobody is left, however late the machine was.
        let left: Vec<_> = pids.iter().filter(|pid| alive(**pid)).collect();
        assert!(left.is_empty(), "{left:?} of {pids:?} are alive");
        assert_eq!(code, "deadline_exceeded", "{body}");
        // Five children, one that fled into a session of its own, and the parent.
        if pids.len() == 7 && elapsed <= Duration::from_millis(1000) + LATE {
            return;
        }
        seen.push((pids.len(), elapsed));
    }
    panic!("processes begun and time taken: {seen:?}");
}

#[tokio::test]
async fn while_guests_loop_others_are_answered() {
    /// The slowest but one of a hundred answers, on a machine whose every core has a loop to run.
    const SLOWEST: Duration = Duration::from_millis(250);
    let server = Server::start("");
    server.push("loop-forever.wasm").await;
    server.push("echo.wasm").await;
    server.run("echo", json!("first")).await;
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let mut loops = Vec::new();
        for _ in 0..4 {
            let id = server.start_call("loop-forever", Value::Null).await;
            server.call_when(&id, |call| call["status"] == "running").await;
            loops.push(id);
        }
        let mut times = Vec::new();
        for i in 0..200 {
            let started = Instant::now();
            let (status, body) = server.run("echo", json!(i)).await;
            times.push(started.elapsed());
            assert_eq!((status, &body["result"]), (StatusCode::OK, &json!(i)), "{body}");
        }
        for id in &loops {
            let (_, call) = server.get(&format!("/api/invocations/{id}")).await;
            assert_eq!(call["status"], "running", "it ran all the while: {call}");
            let gone = server.client.delete(server.url(&format!("/api/invocations/{id}"))).send().await;
            assert_eq!(gone.expect("an answer").status(), StatusCode::ACCEPTED);
            assert_eq!(server.ended(id).await["status"], "cancelled");
        }
        times.sort();
        let (middle, slow) = (times[100], times[197]);
        println!("beside 4 loops: p50 {middle:?}, p99 {slow:?}");
        if slow < SLOWEST {
            return;
        }
        seen.push(slow);
    }
    panic!("p99 beside 4 loops: {seen:?}, and may be {SLOWEST:?}");
}

#[tokio::test]
async fn calls_see_nothing_of_one_another_and_of_the_server() {
    let server = Server::start("");
    for guest in ["count-calls.wasm", "wants-files.wasm", "exe-echo", "exe-environment"] {
        server.push(guest).await;
    }
    let count = |_| async {
        for _ in 0..10 {
            let (_, body) = server.run("count-calls", Value::Null).await;
            assert_eq!(body["result"], 1, "{body}");
        }
    };
    futures_util::future::join_all((0..8).map(count)).await;

    let (_, told) = server.run("wants-files", Value::Null).await;
    let told: HashMap<String, String> = serde_json::from_value(told["result"].clone()).expect("what it tried");
    assert!(told.len() >= 12, "{told:?}");
    for (what, came) in &told {
        assert!(came.starts_with("refused: "), "{what}: {came}");
    }

    // Beyond what one argument can hold it comes by standard input, to the last byte.
    for size in [131_071, 131_072, 1_000_000] {
        let payload: String = (0..size).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
        let (status, body) = server.run("exe-echo", json!(payload)).await;
        assert_eq!(status, StatusCode::OK, "{size}");
        assert!(body["result"] == json!(payload), "{size}");
    }
    let (_, found) = server.run("exe-environment", json!("x".repeat(131_072))).await;
    let found = &found["result"];
    assert_eq!((&found["arguments"][1], &found["stdinBytes"]), (&json!("-"), &json!(131_072)), "{found}");
    assert_eq!((&found["files"], &found["process"]), (&json!([]), &found["session"]), "{found}");
    assert_eq!(found["descriptors"].as_object().expect("descriptors").len(), 3, "{found}");
}

#[tokio::test]
async fn of_a_flood_the_end_is_kept() {
    let server = Server::start(LIMITS);
    for (guest, name) in [("flood-output.wasm", "flood-output"), ("exe-flood", "exe-flood")] {
        server.push(guest).await;
        let (status, body) = server.run(name, json!(5_000)).await;
        assert_eq!((status, &body["outputTruncated"]), (StatusCode::OK, &json!(true)), "{name}");
        let lines: Vec<_> =
            body["output"].as_array().expect("lines").iter().map(|line| line["line"].as_str().expect("text")).collect();
        let kept = lines.iter().map(|line| line.len()).sum::<usize>();
        assert!((20_000..=65_536).contains(&kept), "{name}: {kept}");
        for (line, number) in lines.iter().rev().zip((0..5_000_u32).rev()) {
            assert_eq!(*line, format!("{number:099}"), "{name}");
        }
        let (_, few) = server.run(name, json!(3)).await;
        assert_eq!((&few["outputTruncated"], few["output"].as_array().map(Vec::len)), (&json!(false), Some(3)));
    }
}

#[tokio::test]
async fn a_listener_that_is_slow_is_told_what_it_missed() {
    /// More than fits into the ring and the sockets on the way.
    const LINES: u64 = 300_000;
    let server = Server::start(LIMITS);
    server.push("exe-flood").await;
    // Waits for the listener, then floods.
    let script = format!(
        "#!/bin/sh\necho begun\nwhile [ ! -e {0} ]; do sleep 0.02; done\nexec \"$SHARPFAAS_PACKAGE/exe-flood\" {LINES}\n",
        server.path("go").display()
    );
    let package = crate::common::fixtures::zip(&[
        ("run.sh", script.as_bytes()),
        ("exe-flood", &crate::common::fixtures::fixture("exe-flood")),
    ]);
    let query = "functionName=flood&lane=dev&type=exe&entryFileName=run.sh";
    let (status, body) = server.push_zip(query, package).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let id = server.start_call("flood", Value::Null).await;
    server.call_when(&id, |call| call["status"] == "running").await;

    let mut listener = TcpStream::connect(server.url.trim_start_matches("http://")).expect("a connection");
    listener.set_read_timeout(Some(PATIENCE)).expect("it is set");
    let request =
        format!("GET /api/invocations/{id}/output HTTP/1.0\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n");
    listener.write_all(request.as_bytes()).expect("it is sent");
    let mut text = vec![0; 64];
    listener.read_exact(&mut text).expect("it begins");
    let before = server.resident();
    std::fs::write(server.path("go"), "").expect("written");
    // It does not read again before the call is over.
    let call = server.ended(&id).await;
    assert_eq!(call["error"]["code"], "function_failed", "its result is too large: {call}");
    let grown = server.resident().saturating_sub(before);
    assert!(grown < GROWTH, "{grown} bytes more for a listener that does not read");

    listener.read_to_end(&mut text).expect("the rest comes");
    let text = String::from_utf8(text).expect("text");
    let (mut heard, mut missed, mut event) = (0, 0, "");
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("event: ") {
            event = name;
        } else if let (Some(data), "skipped") = (line.strip_prefix("data: "), event) {
            let data: Value = serde_json::from_str(data).expect("JSON");
            missed += data["lines"].as_u64().expect("a number");
        } else if line.starts_with("data: ") && event == "output" {
            heard += 1;
        }
    }
    println!("a slow listener heard {heard} lines and was told of {missed} more; the server took {} KiB", grown >> 10);
    assert_eq!(event, "completed");
    assert!(missed > 0);
    assert_eq!(heard + missed, LINES + 1);
}
