//! Live output: what gets from a guest to those who listen, how soon, and what a listener costs that waits.
//!
//! `make bench` runs it; it needs `taskset`, and the guests of the tests built.

#![allow(clippy::indexing_slicing, reason = "a measurement that goes wrong ends")]
#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::{
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

#[path = "../common/mod.rs"]
mod common;
mod listener;

use common::{Failure, Served, fixture, push};
use listener::{Dialect, Listener};

/// The lines of a flood, with their ends.
const LINE_BYTES: f64 = 100.0;
/// How long a flood goes on until it is counted, and how long it is.
const WARM_UP: Duration = Duration::from_millis(300);
const COUNTED: Duration = Duration::from_millis(1500);
/// A line each so many milliseconds, so many times.
const TICKS: &str = r#"{"count":80,"everyMs":20}"#;
/// How many listeners wait.
const IDLE: u32 = 5000;

fn main() -> Result<(), Failure> {
    // The listeners have this core, the server the other.
    let mut cores = rustix::thread::CpuSet::new();
    cores.set(1);
    rustix::thread::sched_setaffinity(None, &cores)?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure())
}

async fn measure() -> Result<(), Failure> {
    let only = std::env::var("SHARPFAAS_BENCH_ONLY").unwrap_or_default();
    let folder = tempfile::tempdir()?;
    let server = Served::sharpfaas(&["taskset", "-c", "0"], folder.path())?;
    for (name, file) in [
        ("flood", "flood-output.wasm"),
        ("ticks", "ticks.wasm"),
        ("sleep", "sleep.wasm"),
        ("exe-flood", "exe-flood"),
        ("exe-ticks", "exe-ticks"),
    ] {
        push(&server, name, &fixture(file)?)?;
    }
    if only.is_empty() || only.contains("throughput") {
        println!(
            "\n| a flood of lines of 99 characters, guests and server on one core | listeners | lines/s in all | MB/s in all |"
        );
        println!("|---|---|---|---|");
        for guest in ["flood", "exe-flood"] {
            for dialect in Dialect::ALL.into_iter().filter(|dialect| guest == "flood" || *dialect == Dialect::Tail) {
                for listeners in [1, 100] {
                    let rate = flood(&server, guest, dialect, listeners).await?;
                    let name = if guest == "flood" { "component" } else { "program" };
                    println!(
                        "| {name}, {} | {listeners} | {rate:.0} | {:.1} |",
                        dialect.name(),
                        rate * LINE_BYTES / 1e6
                    );
                }
            }
        }
    }
    if only.is_empty() || only.contains("latency") {
        println!("\n| a line each 20 ms, from its printing to its receipt | listeners | p50 | p99 |");
        println!("|---|---|---|---|");
        for dialect in Dialect::ALL {
            for listeners in [1, 100] {
                let ages = latency(&server, dialect, listeners).await?;
                let at = |part: f64| ages[((ages.len() - 1) as f64 * part) as usize];
                println!("| {} | {listeners} | {:.2?} | {:.2?} |", dialect.name(), at(0.5), at(0.99));
            }
        }
    }
    if only.is_empty() || only.contains("memory") {
        println!("\n| {IDLE} listeners that wait | memory of the server for each |");
        println!("|---|---|");
        for dialect in Dialect::ALL {
            let bytes = idle(folder.path(), dialect).await?;
            println!("| {} | {:.1} KiB |", dialect.name(), bytes / 1024.0);
        }
    }
    Ok(())
}

/// Opens listeners; of the dialects that follow a call, one call for all of them.
async fn open(
    server: &Served,
    dialect: Dialect,
    listeners: u32,
    what: (&str, &str),
) -> Result<(Vec<Listener>, Option<String>), Failure> {
    let id = if dialect.calls() { None } else { Some(start(server, what)?) };
    let mut opened = Vec::new();
    for _ in 0..listeners {
        opened.push(Listener::open(&server.address, dialect, id.as_deref().unwrap_or_default(), what).await?);
    }
    Ok((opened, id))
}

/// Lines that listeners get in a second, of a guest that prints as fast as it can.
async fn flood(server: &Served, guest: &str, dialect: Dialect, listeners: u32) -> Result<f64, Failure> {
    let (opened, id) = open(server, dialect, listeners, (guest, "null")).await?;
    let begun = Instant::now();
    let mut tasks = JoinSet::new();
    for mut listener in opened {
        tasks.spawn(async move {
            let mut counted_from = None;
            loop {
                let since = begun.elapsed();
                if since >= WARM_UP && counted_from.is_none() {
                    counted_from = Some((listener.lines, since));
                }
                if since >= WARM_UP + COUNTED {
                    let (lines, from) = counted_from.unwrap_or_default();
                    return (listener.lines - lines) as f64 / (since - from).as_secs_f64();
                }
                if !listener.more().await.unwrap_or(false) {
                    return f64::NAN;
                }
            }
        });
    }
    let mut rate = 0.0;
    while let Some(of_one) = tasks.join_next().await {
        rate += of_one?;
    }
    if let Some(id) = id {
        cancel(server, &id)?;
    }
    // What was called over the hub is cancelled by the server.
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok(rate)
}

/// How long after their printing lines come, in order.
async fn latency(server: &Served, dialect: Dialect, listeners: u32) -> Result<Vec<Duration>, Failure> {
    let (opened, _) = open(server, dialect, listeners, ("ticks", TICKS)).await?;
    let mut tasks = JoinSet::new();
    for mut listener in opened {
        tasks.spawn(async move {
            // The first lines of a call may have been printed before the listener was there.
            let mut ages = Vec::new();
            while listener.lines < 80 {
                listener.ages = Some(Vec::new());
                if !listener.more().await.unwrap_or(false) {
                    break;
                }
                let late = listener.lines <= 10;
                ages.extend(listener.ages.take().filter(|_| !late).unwrap_or_default());
            }
            ages
        });
    }
    let mut ages = Vec::new();
    while let Some(of_one) = tasks.join_next().await {
        ages.extend(of_one?);
    }
    ages.sort();
    if ages.is_empty() { Err("no line came".into()) } else { Ok(ages) }
}

/// Bytes of a new server's memory for each of many listeners to a call that prints nothing.
async fn idle(folder: &Path, dialect: Dialect) -> Result<f64, Failure> {
    let folder = tempfile::tempdir_in(folder)?;
    let server = Served::sharpfaas(&["taskset", "-c", "0"], folder.path())?;
    push(&server, "sleep", &fixture("sleep.wasm")?)?;
    let id = start(&server, ("sleep", "25000"))?;
    let mut kept = vec![waiting(&server, dialect, &id).await?];
    let before = resident(server.process.id()).ok_or("no memory")?;
    for _ in 0..IDLE {
        kept.push(waiting(&server, dialect, &id).await?);
    }
    let after = resident(server.process.id()).ok_or("no memory")?;
    Ok(after.saturating_sub(before) as f64 / f64::from(IDLE))
}

/// A listener that has had the one line there is, or the answer to its first message.
async fn waiting(server: &Served, dialect: Dialect, id: &str) -> Result<Listener, Failure> {
    let mut listener = Listener::open(&server.address, dialect, id, ("", "")).await?;
    if !listener.has_some() {
        listener.more().await?;
    }
    Ok(listener)
}

/// Starts a call; its id.
fn start(server: &Served, (name, payload): (&str, &str)) -> Result<String, Failure> {
    let body = format!("{{\"functionName\":\"{name}\",\"lane\":\"bench\",\"payload\":{payload}}}");
    let url = format!("http://{}/api/function/runfunction", server.address);
    let answer = curl(&[
        "--data",
        &body,
        "--header",
        "Content-Type: application/json",
        "--header",
        "Prefer: respond-async",
        &url,
    ])?;
    let answer: serde_json::Value = serde_json::from_str(&answer)?;
    Ok(answer["invocationId"].as_str().ok_or("no id")?.to_owned())
}

fn cancel(server: &Served, id: &str) -> Result<(), Failure> {
    let url = format!("http://{}/api/invocations/{id}", server.address);
    curl(&["--request", "DELETE", &url]).map(drop)
}

/// What a server answers.
fn curl(arguments: &[&str]) -> Result<String, Failure> {
    let output =
        Command::new("curl").args(["--silent", "--show-error", "--fail-with-body"]).args(arguments).output()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() { Ok(text) } else { Err(format!("{arguments:?}: {text}").into()) }
}

/// The resident memory of a process, in bytes.
fn resident(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
