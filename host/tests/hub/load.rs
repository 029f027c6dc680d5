//! Floods and many listeners.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::{sync::Barrier, task::JoinSet};

use crate::common::{
    raw::{Dialect, Raw},
    server::Server,
    websocket::{SignalR, Socket},
};

const MIB: u64 = 1024 * 1024;

/// How long ago the line says it was printed.
fn age(line: &str) -> Duration {
    let printed: u64 = line.split_once(' ').and_then(|(_, micros)| micros.parse().ok()).expect("a time");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after the epoch");
    now.saturating_sub(Duration::from_micros(printed))
}

/// How late a line may be.
const SOON: Duration = Duration::from_millis(50);

/// Whoever shares the machine may hold up a line; so that each is in time has to be seen once in a few tries.
#[tokio::test]
async fn a_line_reaches_every_kind_of_listener_at_once() {
    let server = Arc::new(Server::start(""));
    server.push("ticks.wasm").await;
    server.push("exe-ticks").await;
    for name in ["ticks", "exe-ticks"] {
        let mut tries = 0;
        loop {
            tries += 1;
            let late = late(&server, name).await;
            if late.is_empty() {
                break;
            }
            assert!(tries < 5, "{late:?}");
        }
    }
}

/// Those dialects in which a line of a call was late, and how much.
async fn late(server: &Arc<Server>, name: &'static str) -> Vec<(&'static str, Duration)> {
    let payload = json!({ "count": 30, "everyMs": 100 });
    let mut listeners = JoinSet::new();
    let mut signalr = SignalR::connect(server).await;
    signalr.stream("1", json!([name, "dev", "", payload])).await;
    listeners.spawn(async move {
        let mut ages = Vec::new();
        while let Some(line) = signalr.message().await["item"].as_str() {
            ages.push(age(line));
        }
        ("SignalR", ages)
    });
    let mut plain = Socket::connect(server, "/functions").await;
    plain.send_json(json!({ "functionName": name, "lane": "dev", "payload": payload })).await;
    listeners.spawn(async move { ("plain", ages(plain).await) });
    let id = server.start_call(name, payload).await;
    let tail = Socket::connect(server, &format!("/api/invocations/{id}/tail")).await;
    listeners.spawn(async move { ("tail", ages(tail).await) });
    for (dialect, accept) in [("server-sent events", "text/event-stream"), ("plain text", "text/plain")] {
        let output = server.client.get(server.url(&format!("/api/invocations/{id}/output")));
        let mut output = output.header("Accept", accept).send().await.expect("an answer").bytes_stream();
        listeners.spawn(async move {
            let mut ages = Vec::new();
            while let Some(part) = output.next().await {
                let part = String::from_utf8(part.expect("a part").into()).expect("text");
                if accept == "text/plain" {
                    ages.extend(part.lines().map(age));
                    continue;
                }
                for data in part.lines().filter_map(|line| line.strip_prefix("data: ")) {
                    let data: Value = serde_json::from_str(data).expect("JSON");
                    ages.extend(data["line"].as_str().map(age));
                }
            }
            (dialect, ages)
        });
    }
    let mut late = Vec::new();
    while let Some(listener) = listeners.join_next().await {
        let (dialect, mut ages) = listener.expect("it listens");
        assert_eq!(ages.len(), 30, "{name}, {dialect}");
        ages.sort();
        println!("{name}, {dialect}: median {:?}, last {:?}", ages[15], ages[29]);
        late.extend((ages[29] > SOON).then_some((dialect, ages[29])));
    }
    late
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

/// What is printed in a flood: by default some MB, many times what may be held; as many lines as the variable
/// `SHARPFAAS_TEST_FLOOD_LINES` says for who has the time (of 100 bytes each).
fn flood_lines() -> u64 {
    std::env::var("SHARPFAAS_TEST_FLOOD_LINES").ok().and_then(|lines| lines.parse().ok()).unwrap_or(200_000)
}

/// Memory stays where it was, and who reads slowly is told what it missed and hears the end.
#[tokio::test]
async fn a_flood_is_bounded_however_many_listen() {
    let server = Arc::new(Server::start("[limits]\ndeadline_seconds = 1000"));
    server.push("flood-output.wasm").await;
    server.push("exe-flood").await;
    // What a program prints is its result, which has a bound of its own.
    for (name, ends) in [("flood-output", "succeeded"), ("exe-flood", "failed")] {
        server.run(name, json!(1000)).await;
        let idle = server.resident();
        for listeners in [0, 1, 100] {
            flood(&server, name, ends, listeners, idle).await;
        }
    }
}

async fn flood(server: &Arc<Server>, name: &str, ends: &str, listeners: usize, idle: u64) {
    let lines = flood_lines();
    let started = Instant::now();
    let id = server.start_call(name, json!(lines)).await;
    let ended = Arc::new(AtomicBool::new(false));
    let mut slow = JoinSet::new();
    for dialect in Dialect::FOLLOWERS.into_iter().cycle().take(listeners) {
        let listener = Raw::listen(server, dialect, &id, ("", Value::Null)).await;
        slow.spawn(read_slowly(listener, dialect, ended.clone()));
    }
    let mut peak = 0;
    let took = loop {
        peak = peak.max(server.resident());
        let (_, page) = server.get("/api/invocations?status=running").await;
        if page["invocations"].as_array().is_some_and(Vec::is_empty) {
            break started.elapsed();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert_eq!(server.ended(&id).await["status"], ends);
    ended.store(true, Ordering::Relaxed);
    let mut missed = 0;
    while let Some(heard) = slow.join_next().await {
        let heard = heard.expect("it reads");
        peak = peak.max(server.resident());
        assert_eq!(heard.lines + heard.skipped, lines, "{heard:?}");
        missed += u64::from(heard.skipped > 0);
    }
    // None of them could keep up.
    assert_eq!(missed, listeners as u64);
    let grown = peak.saturating_sub(idle) / MIB;
    println!("{name}, {lines} lines, {listeners} listeners: {took:.1?}, {} MiB idle, {grown} MiB more", idle / MIB);
    assert!(grown < 50, "{name}, {listeners} listeners: {grown} MiB more than {}", idle / MIB);
}

/// What a listener was told of a flood.
#[derive(Debug, Default)]
struct Told {
    /// How many lines it got.
    lines: u64,
    /// How many it was told that it missed.
    skipped: u64,
}

/// Reads some 40 KB a second until the call has ended, and then the rest.
async fn read_slowly(mut listener: Raw, dialect: Dialect, ended: Arc<AtomicBool>) -> Told {
    let end = if dialect == Dialect::Tail { b'}' } else { b'\n' };
    let (mut told, mut unread) = (Told::default(), Vec::new());
    while listener.read(8 * 1024, &mut unread).await {
        let whole = unread.iter().rposition(|byte| *byte == end).map_or(0, |at| at + 1);
        for unit in unread.drain(..whole).as_slice().split(|byte| *byte == end) {
            told.hear(unit);
        }
        if !ended.load(Ordering::Relaxed) {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
    told
}

impl Told {
    /// Looks at what may be a line, or word of lines that were skipped: no line may be out of its place.
    fn hear(&mut self, unit: &[u8]) {
        let unit = String::from_utf8_lossy(unit);
        let number_after = |text: &str| {
            let (_, rest) = unit.split_once(text)?;
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse::<u64>().ok()
        };
        if let Some(line) = unit.split(|c: char| !c.is_ascii_digit()).find(|digits| digits.len() == 99) {
            assert_eq!(line.parse(), Ok(self.lines + self.skipped));
            self.lines += 1;
        } else if unit.contains(" lines skipped]") {
            self.skipped += number_after("[").expect("how many");
        } else if unit.contains("skipped") || unit.contains("\"lines\":") {
            self.skipped += number_after("\"lines\":").unwrap_or(0);
        }
    }
}

/// A result may have megabytes, and is told to all who follow the call: the server has it once, and not once for each.
#[tokio::test]
async fn a_long_result_is_held_once_however_many_are_told_of_it() {
    let server = Server::start("");
    server.push("exe-flood").await;
    let lines = 40_000;
    let id = server.start_call("exe-flood", json!(lines)).await;
    let call = server.ended(&id).await;
    let result = call["result"].as_str().expect("text");
    assert!(result.len() >= lines * 99 && call["status"] == "succeeded", "{}", result.len());
    let idle = server.resident();
    let mut listeners = Vec::new();
    for _ in 0..50 {
        for dialect in [Dialect::Tail, Dialect::Events] {
            let mut listener = Raw::listen(&server, dialect, &id, ("", Value::Null)).await;
            listener.read_until("completed").await;
            listeners.push(listener);
        }
    }
    let grown = server.resident().saturating_sub(idle) / MIB;
    println!("{} listeners to a result of {} MB: {grown} MiB more", listeners.len(), result.len() / 1_000_000);
    assert!(grown < 50, "{grown} MiB more than {}", idle / MIB);
    drop(listeners);
    // And all of it comes, in one message and in one event.
    let last = Socket::connect(&server, &format!("/api/invocations/{id}/tail")).await.events().await.pop();
    assert_eq!(last.expect("an end")["result"], call["result"]);
    let output = server.client.get(server.url(&format!("/api/invocations/{id}/output")));
    let events = output.header("Accept", "text/event-stream").send().await.expect("an answer");
    let events = events.text().await.expect("text");
    let last: Value =
        events.trim_end().rsplit_once("\ndata: ").and_then(|(_, data)| serde_json::from_str(data).ok()).expect("JSON");
    assert_eq!(last["result"], call["result"]);
}

/// More than a thousand are only what this process can hold open.
#[tokio::test]
async fn thousands_of_tails_hear_every_line() {
    let listeners = std::env::var("SHARPFAAS_TEST_TAILS").ok().and_then(|n| n.parse().ok()).unwrap_or(1000);
    raise_descriptors();
    let server = Arc::new(Server::start(""));
    server.push("ticks.wasm").await;
    // All are there before the second line.
    let id = server.start_call("ticks", json!({ "count": 101, "everyMs": 20, "pauseMs": 15_000 })).await;
    let before = server.resident();
    let ready = Arc::new(Barrier::new(listeners));
    let (connected, mut connections) = tokio::sync::mpsc::channel(listeners);
    let mut tails = JoinSet::new();
    for _ in 0..listeners {
        let mut socket = Socket::connect(&server, &format!("/api/invocations/{id}/tail")).await;
        let (ready, connected) = (ready.clone(), connected.clone());
        tails.spawn(async move {
            let first = socket.json().await;
            connected.send(()).await.expect("somebody waits");
            ready.wait().await;
            let mut numbers: Vec<_> = first["number"].as_u64().into_iter().collect();
            loop {
                let event = socket.json().await;
                match event["event"].as_str() {
                    Some("output") => numbers.extend(event["number"].as_u64()),
                    Some("completed") => return numbers,
                    _ => panic!("{event}"),
                }
            }
        });
    }
    for _ in 0..listeners {
        connections.recv().await.expect("it connects");
    }
    let each = server.resident().saturating_sub(before) / listeners as u64;
    let started = Instant::now();
    while let Some(numbers) = tails.join_next().await {
        assert_eq!(numbers.expect("it listens"), (0..101).collect::<Vec<_>>());
    }
    println!("{listeners} idle tails: {each} bytes each; they had all after {:?}", started.elapsed());
}

/// As many as the system lets this process have.
fn raise_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum });
}

/// Whatever soft limit it was started with, as from a shell.
#[test]
fn the_server_may_open_as_much_as_the_system_lets_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Command::new("sh")
        .args(["-c", "ulimit -S -n 200; exec \"$0\" serve --listen 127.0.0.1:0 --data \"$1\""])
        .args([env!("CARGO_BIN_EXE_sharpfaas").as_ref(), folder.path().as_os_str()])
        .current_dir(&folder)
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    let lines = BufReader::new(server.stderr.take().expect("its log")).lines().map_while(Result::ok);
    let mut log: Vec<String> = Vec::new();
    for line in lines {
        let listens = line.contains("listening on");
        log.push(line);
        if listens {
            break;
        }
    }
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", server.id())).expect("it runs");
    server.kill().expect("killed");
    server.wait().expect("it ends");
    let limit = limits.lines().find(|line| line.starts_with("Max open files")).expect("a limit");
    let numbers: Vec<&str> = limit.split_whitespace().skip(3).take(2).collect();
    assert!(numbers[0] == numbers[1] && numbers[0] != "200", "{limit}");
    assert!(log.iter().any(|line| line.contains("may be open, and not only 200")), "{log:?}");
}
