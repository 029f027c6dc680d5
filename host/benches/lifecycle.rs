//! What whoever runs servers waits for: a start with many versions, and the push of a large component.
//!
//! `make bench` runs it.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::{
    fs,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use chrono::Utc;
use sharpfaas_host::{
    config::DatabaseConfig,
    database::Database,
    function::{Digest, FunctionRef, FunctionType, Location, PushId, Shape, Version},
};

#[path = "common/client.rs"]
mod client;
mod common;
#[path = "common/large.rs"]
mod large;
#[path = "common/memory.rs"]
mod memory;
#[path = "common/variant.rs"]
mod variant;

use client::Client;
use common::{Failure, Served, echo_component, push};
use memory::{children, high_water, resident};
use variant::variant;

/// How many versions the catalog holds at the measured start.
const VERSIONS: usize = 10_000;
/// How many functions are called for the first time; fewer than are kept loaded. `SHARPFAAS_BENCH_FUNCTIONS` is another
/// number.
const FUNCTIONS: usize = 200;
/// About the size of the large component: half of it code, half of it data.
const LARGE_BYTES: usize = 18 * 1024 * 1024;

fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    println!("\n| measured | figure |\n|---|---|");
    start(folder.path())?;
    many(folder.path())?;
    large_push(folder.path())
}

/// From the start of the process to the first answer of a function that is in the local folder.
fn start(folder: &Path) -> Result<(), Failure> {
    push(&Served::sharpfaas(&[], folder)?, "echo", &echo_component()?)?;
    let others: Vec<_> = (1..VERSIONS).map(other).collect::<Result<_, Failure>>()?;
    tokio::runtime::Runtime::new()?.block_on(async {
        let url = format!("sqlite:{}", folder.join("data/sharpfaas.db").display());
        let database = Database::connect(&DatabaseConfig { url, ..DatabaseConfig::default() }, None).await?;
        database.insert_versions(&others).await?;
        database.close().await;
        Ok::<_, Failure>(())
    })?;
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        let server = Served::sharpfaas(&[], folder)?;
        Client::connect(&server.address)?.call("echo")?;
        best = best.min(started.elapsed());
    }
    println!("| start to first answer, {VERSIONS} versions in the catalog, warm local folder | {best:.1?} |");
    Ok(())
}

/// A version that the catalog knows of, as if another server had pushed it.
fn other(number: usize) -> Result<FunctionRef, Failure> {
    Ok(FunctionRef {
        location: Location {
            lane: "bench".parse()?,
            version: Version::FIRST,
            name: format!("function-{number}").parse()?,
        },
        push_id: PushId::generate(),
        kind: FunctionType::Dll,
        entry: "function.wasm".parse()?,
        shape: Some(Shape::Execute),
        asks: None,
        sha256: Digest::of(&number.to_ne_bytes()),
        size: 1000,
        pushed_at: Utc::now(),
        pushed_by: None,
    })
}

/// What a function costs that has not run since the server started, and many of them.
fn many(folder: &Path) -> Result<(), Failure> {
    let functions = std::env::var("SHARPFAAS_BENCH_FUNCTIONS").map_or(Ok(FUNCTIONS), |number| number.parse())?;
    let name = |number: usize| format!("variant-{number}");
    {
        let server = Served::sharpfaas(&[], folder)?;
        let pushers = thread::available_parallelism().map_or(1, usize::from);
        let pushed = |first: usize| -> Result<(), Failure> {
            (first..functions).step_by(pushers).try_for_each(|number| {
                let component = folder.join(format!("variant-{first}.wasm"));
                variant(number, &component)?;
                push(&server, &name(number), &component)
            })
        };
        thread::scope(|scope| {
            let threads: Vec<_> = (0..pushers).map(|first| scope.spawn(move || pushed(first))).collect();
            threads.into_iter().try_for_each(|thread| thread.join().unwrap_or_else(|_| Err("a push panicked".into())))
        })?;
    }
    let server = Served::sharpfaas(&[], folder)?;
    let mut client = Client::connect(&server.address)?;
    for _ in 0..200 {
        client.call("echo")?;
    }
    let before = resident(server.process.id()).unwrap_or(0);
    let (mut cold, mut warm) = (Vec::new(), Vec::new());
    for number in 0..functions {
        cold.push(client.call(&name(number))?);
        warm.push(client.call(&name(number))?);
    }
    cold.sort();
    warm.sort();
    let middle = |times: &[Duration]| times.get(times.len() / 2).copied().unwrap_or_default();
    let (cold, warm) = (middle(&cold), middle(&warm));
    println!("| first call of a function whose machine code is in the local folder, median | {cold:.2?} |");
    println!("| the call after it | {warm:.0?} |");
    let after = resident(server.process.id()).unwrap_or(0);
    println!(
        "| memory of the server before, and after {functions} of them | {} and {} MiB |",
        before >> 20,
        after >> 20
    );
    if functions == FUNCTIONS {
        let each = after.saturating_sub(before) / FUNCTIONS as u64;
        println!("| memory of the server for each function that is loaded | {} KiB |", each / 1024);
    }
    Ok(())
}

/// The push of a large component, compiled on the way.
fn large_push(folder: &Path) -> Result<(), Failure> {
    let component = folder.join("large.wasm");
    fs::write(&component, wat::parse_str(large::component(LARGE_BYTES, 0))?)?;
    let size = fs::metadata(&component)?.len();
    let server = Served::sharpfaas(&[], folder)?;
    let peak = Peak::watch(server.process.id());
    let started = Instant::now();
    push(&server, "large", &component)?;
    let (took, children) = (started.elapsed(), peak.end());
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    println!("| push of a component of {:.1} MB, to the answer | {took:.1?} |", size as f64 / 1e6);
    println!("| peak memory of the server in it | {:.0} MiB |", mib(high_water(server.process.id()).unwrap_or(0)));
    println!("| peak memory of the compiling child | {:.0} MiB |", mib(children));
    Ok(())
}

/// The highest resident memory of a server's children, looked at every few milliseconds.
struct Peak {
    highest: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    thread: thread::JoinHandle<()>,
}

impl Peak {
    fn watch(pid: u32) -> Self {
        let (highest, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, stopped) = (highest.clone(), stop.clone());
        let thread = thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for child in children(pid) {
                    seen.fetch_max(high_water(child).unwrap_or(0), Ordering::Relaxed);
                }
                thread::sleep(Duration::from_millis(5));
            }
        });
        Self { highest, stop, thread }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        drop(self.thread.join());
        self.highest.load(Ordering::Relaxed)
    }
}
