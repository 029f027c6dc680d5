//! Whether a server grows: a million calls of all sorts and a push every few seconds, over an hour; each hundred
//! thousand calls a row with its memory, descriptors, threads and temporary files.
//!
//! `make soak` runs it. `SHARPFAAS_SOAK_SECONDS` is another time, `SHARPFAAS_SOAK_CALLS` another number of calls, and
//! `SHARPFAAS_BENCH_SERVER` another server than the one built with this.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

#[path = "common/client.rs"]
mod client;
mod common;
#[path = "common/memory.rs"]
mod memory;
#[path = "common/variant.rs"]
mod variant;

use client::{Client, Request};
use common::{Failure, Served, fixture, push};
use variant::variant;

/// How many call at once.
const CALLERS: u64 = 4;
/// How often a new version is pushed.
const PUSH_EVERY: Duration = Duration::from_secs(5);
/// How many rows there are in all.
const ROWS: u64 = 10;
/// Versions are let go early, so that pushes alone can't look like growth.
const CONFIG: &str = "[artifacts]\nloaded = 16\nmax_bytes = 104857600\n";

/// What is called, how often in a hundred calls, and how it ends.
const CALLS: [(&str, u64, &str, u16); 9] = [
    ("echo", 58, r#"{"name":"Ada"}"#, 200),
    ("print-lines", 20, "null", 200),
    ("return-error", 5, r#""as it was told to""#, 500),
    ("trap", 3, "null", 500),
    ("panic", 3, r#""as it was told to""#, 500),
    ("eat-memory", 1, "8", 200),
    ("big-result", 4, "200000", 200),
    ("sleep", 4, "5", 200),
    ("exe-echo", 2, "{}", 200),
];

fn main() -> Result<(), Failure> {
    let number = |name: &str, otherwise: u64| std::env::var(name).map_or(Ok(otherwise), |text| text.parse());
    let seconds = number("SHARPFAAS_SOAK_SECONDS", 3600)?;
    let calls = number("SHARPFAAS_SOAK_CALLS", 1_000_000)?;
    let folder = tempfile::tempdir()?;
    let temporary = folder.path().join("tmp");
    fs::create_dir(&temporary)?;
    fs::write(folder.path().join("config.toml"), CONFIG)?;
    let server = Served::sharpfaas_with(&[], &["--config", "config.toml"], folder.path(), &[("TMPDIR", &temporary)])?;
    for (name, ..) in CALLS {
        push(&server, name, &guest(name)?)?;
    }
    println!(
        "\n| calls | pushes | memory | descriptors | threads | temporary files | processes |\n|---|---|---|---|---|---|---|"
    );
    let (done, pushes, over) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS)
            .map(|caller| {
                scope.spawn({
                    let (server, done) = (&server, &done);
                    move || call(server, caller, calls, seconds, done)
                })
            })
            .collect();
        let pusher = scope.spawn(|| push_on(&server, folder.path(), &pushes, &over));
        let mut told = 0;
        while callers.iter().any(|caller| !caller.is_finished()) {
            thread::sleep(Duration::from_millis(200));
            let now = done.load(Ordering::Relaxed);
            if now >= (told + 1) * calls / ROWS {
                told += 1;
                row(&server, folder.path(), now, pushes.load(Ordering::Relaxed))?;
            }
        }
        over.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.join().map_err(|_| "a caller panicked")??;
        }
        pusher.join().map_err(|_| "the pusher panicked")?
    })
}

fn guest(name: &str) -> Result<PathBuf, Failure> {
    match name {
        "echo" => common::echo_component(),
        name if name.starts_with("exe-") => fixture(name),
        name => fixture(&format!("{name}.wasm")),
    }
}

/// A caller's share of the calls, evenly over the time.
fn call(server: &Served, caller: u64, calls: u64, seconds: u64, done: &AtomicU64) -> Result<(), Failure> {
    let mut client = Client::connect(&server.address)?;
    let (mine, began) = (calls / CALLERS, Instant::now());
    let each = Duration::from_secs(seconds).div_f64(mine as f64);
    for number in 0..mine {
        thread::sleep((began + each.mul_f64(number as f64)).saturating_duration_since(Instant::now()));
        // Seven is prime to a hundred: each hundred calls are all of them, well mixed.
        let mut at = ((number + caller * 25) * 7) % 100;
        let (name, _, payload, status) = CALLS
            .into_iter()
            .find(|(_, times, ..)| at.checked_sub(*times).map(|left| at = left).is_none())
            .ok_or("the calls are not a hundred")?;
        client.send(&Request { function: name, payload, status })?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

fn push_on(server: &Served, folder: &Path, pushes: &AtomicU64, over: &AtomicBool) -> Result<(), Failure> {
    let component = folder.join("variant.wasm");
    let mut next = Instant::now();
    while !over.load(Ordering::Relaxed) {
        if Instant::now() >= next {
            next += PUSH_EVERY;
            let number = pushes.fetch_add(1, Ordering::Relaxed);
            variant(usize::try_from(number)?, &component)?;
            push(server, "echo", &component)?;
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn row(server: &Served, folder: &Path, calls: u64, pushes: u64) -> Result<(), Failure> {
    let pid = server.process.id();
    let count = |path: PathBuf| fs::read_dir(path).map(Iterator::count);
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let resident = memory::resident(pid).ok_or("the server has ended")?;
    let files = count(folder.join("tmp"))? + count(folder.join("data/artifacts/tmp"))?;
    println!(
        "| {calls} | {pushes} | {:.2} MB | {} | {} | {files} | {} |",
        resident as f64 / 1e6,
        count(proc.join("fd"))?,
        count(proc.join("task"))?,
        memory::children(pid).len(),
    );
    Ok(())
}
