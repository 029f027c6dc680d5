//! Native programs started and ended a second: as calls of the server, confined, beside bare fork and exec of the same
//! program by this process. Everything on the same cores, in turn: what counts is how the figures stand to each other.
//!
//! `make bench` runs it.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::{
    path::Path,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

#[path = "common/client.rs"]
mod client;
mod common;

use client::Client;
use common::{Failure, Served, push};

/// It does nothing, so that its start is all there is.
const PROGRAM: &str = "/bin/true";
/// What the client sends, which is the program's argument.
const PAYLOAD: &str = "{}";
/// How long each measurement takes, and how often each is made.
const TIME: Duration = Duration::from_secs(3);
const ROUNDS: usize = 3;
/// How many start programs at once, each one after the other.
const CALLERS: [usize; 2] = [1, 4];

fn main() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    // As a package's: a file of its own, with no name that the system treats specially.
    let program = folder.path().join("nothing");
    std::fs::copy(PROGRAM, &program)?;
    let [confined, open] = ["required", "off"].map(|programs| serve(folder.path(), &program, programs));
    let (confined, open) = (confined?, open?);
    println!("\n| programs/s, best of {ROUNDS} | {} | {} |", callers(CALLERS[0]), callers(CALLERS[1]));
    println!("|---|---|---|");
    let mut table = [[0.0_f64; CALLERS.len()]; 3];
    for _ in 0..ROUNDS {
        for (at, callers) in CALLERS.into_iter().enumerate() {
            let rates = [
                rate(callers, || Ok(|| bare(&program)))?,
                rate(callers, || called(&open))?,
                rate(callers, || called(&confined))?,
            ];
            for (row, rate) in table.iter_mut().zip(rates) {
                if let Some(best) = row.get_mut(at) {
                    *best = best.max(rate);
                }
            }
        }
    }
    let [bare, ..] = table;
    for (name, row) in ["bare fork and exec", "called, not confined", "called, confined"].into_iter().zip(table) {
        let cells: Vec<_> =
            row.iter().zip(bare).map(|(rate, bare)| format!("{rate:.0} ({:.2} of bare)", rate / bare)).collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
    Ok(())
}

fn callers(count: usize) -> String {
    if count == 1 { "one caller".into() } else { format!("{count} callers") }
}

/// A server that confines programs so, with the program.
fn serve(folder: &Path, program: &Path, programs: &str) -> Result<Served, Failure> {
    let home = folder.join(programs);
    std::fs::create_dir(&home)?;
    std::fs::write(home.join("config.toml"), format!("[sandbox]\nprograms = \"{programs}\"\n"))?;
    let server = Served::sharpfaas_with(&[], &["--config", "config.toml"], &home, &[])?;
    push(&server, "nothing", program)?;
    Ok(server)
}

/// How many a second end, when so many callers do one after the other.
fn rate<F: FnMut() -> Result<(), Failure>>(
    callers: usize,
    make: impl Fn() -> Result<F, Failure> + Sync,
) -> Result<f64, Failure> {
    let (ended, over) = (AtomicU64::new(0), AtomicBool::new(false));
    let began = Instant::now();
    thread::scope(|scope| {
        let work = || {
            let mut once = make()?;
            while !over.load(Ordering::Relaxed) {
                once()?;
                ended.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<_, Failure>(())
        };
        let threads: Vec<_> = (0..callers).map(|_| scope.spawn(work)).collect();
        thread::sleep(TIME);
        over.store(true, Ordering::Relaxed);
        threads.into_iter().try_for_each(|thread| thread.join().map_err(|_| "a caller panicked")?)
    })?;
    Ok(ended.into_inner() as f64 / began.elapsed().as_secs_f64())
}

/// With the argument and in the environment of a call, both of which make this program do more: it loads a locale.
fn bare(program: &Path) -> Result<(), Failure> {
    let mut command = Command::new(program);
    command.arg(PAYLOAD).env_clear().envs([("PATH", "/usr/local/bin:/usr/bin:/bin"), ("LANG", "C.UTF-8")]);
    let ended = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    if ended.success() { Ok(()) } else { Err(ended.to_string().into()) }
}

fn called(server: &Served) -> Result<impl FnMut() -> Result<(), Failure> + use<>, Failure> {
    let mut client = Client::connect(&server.address)?;
    Ok(move || client.call("nothing").map(drop))
}
