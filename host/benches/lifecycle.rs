//! What whoever runs servers waits for: a start with many versions, and the push of a large component.
//!
//! `make bench` runs it.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

mod common;
#[path = "common/large.rs"]
mod large;

use common::{Failure, Served, echo_component, push};

/// How many versions the store holds at the measured start.
const VERSIONS: usize = 1000;
/// About the size of the large component: half of it code, half of it data.
const LARGE_BYTES: usize = 18 * 1024 * 1024;

fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    println!("\n| measured | figure |\n|---|---|");
    start(folder.path())?;
    large_push(folder.path())
}

/// From the start of the process to the first answer of a function that is in the local folder.
fn start(folder: &Path) -> Result<(), Failure> {
    let script = folder.join("small.sh");
    fs::write(&script, "#!/bin/sh\necho 1\n")?;
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755))?;
    {
        let server = Served::sharpfaas(&[], folder)?;
        push(&server, "echo", &echo_component()?)?;
        for _ in 1..VERSIONS {
            push(&server, "small", &script)?;
        }
        call(&server)?;
    }
    let mut best = Duration::MAX;
    for _ in 0..5 {
        let started = Instant::now();
        let server = Served::sharpfaas(&[], folder)?;
        call(&server)?;
        best = best.min(started.elapsed());
    }
    println!("| start to first answer, {VERSIONS} versions in the store, warm local folder | {best:.1?} |");
    Ok(())
}

fn call(server: &Served) -> Result<(), Failure> {
    let url = format!("http://{}/api/function/runfunction?functionName=echo&lane=bench", server.address);
    let called =
        Command::new("curl").args(["--silent", "--fail", "--output", "/dev/null", "--data", "{}"]).arg(url).status()?;
    if called.success() { Ok(()) } else { Err("the call failed".into()) }
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
    thread: std::thread::JoinHandle<()>,
}

impl Peak {
    fn watch(pid: u32) -> Self {
        let (highest, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (seen, stopped) = (highest.clone(), stop.clone());
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                for child in children(pid) {
                    seen.fetch_max(high_water(child).unwrap_or(0), Ordering::Relaxed);
                }
                std::thread::sleep(Duration::from_millis(5));
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

fn children(pid: u32) -> Vec<u32> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists.flat_map(|list| list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()).collect()
}

fn high_water(pid: u32) -> Option<u64> {
    let status = fs::read_to_string(PathBuf::from(format!("/proc/{pid}/status"))).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
