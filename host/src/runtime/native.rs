//! Native programs: each call a subprocess in a session of its own.
//!
//! The way of a call: a fresh folder and what else confines it ([`sandbox`]), a process ([`spawner`]), its
//! payload in and its output out ([`capture`]) until it ends, its time is over, somebody cancels it or it
//! takes too much; then whatever is left of its processes is ended ([`keeper`]), the folder removed, and
//! the way it ended made an outcome ([`ending`]).
//!
//! All of that happens in a task on one of the threads that start programs, so that a program which floods its output
//! slows no component, and so that it is seen through to the end when the caller goes away.
//!
//! What a program gets: the payload as its argument and on standard input (where it came encrypted,
//! on standard input alone); in the environment `PATH`, `HOME`
//! and `TMPDIR` (both its working folder), `LANG`, and the `SHARPFAAS_…` variables of [`Call::variables`],
//! and what it was granted, nothing else. What it gives: its standard output is the result when it ends with code 0.
//!
//! Linux 5.9 or later: close_range(2).

use std::{
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::{io::Interest, io::unix::AsyncFd, net::unix::pipe, runtime, sync::oneshot, time};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{
    capture::Capture,
    ending::{Cause, Ended},
    folders::Root,
    keeper::{Excess, Keeper},
    sandbox::{Place, Seat},
    spawner::{SpawnError, Spawned},
};
use super::{Call, ProgramPath, RuntimeError};
use crate::{
    config::{Grant, RuntimeConfig, SandboxConfig},
    function::{Failure, FailureKind, Outcome, Stream},
};

mod capture;
mod ending;
mod folders;
mod keeper;
mod procfs;
mod sandbox;
mod spawner;
#[cfg(test)]
mod tests;

pub use sandbox::Sandbox;

/// What a program finds other programs by.
const SEARCH_PATH: &str = "/usr/local/bin:/usr/bin:/bin";

/// How long an outcome waits for the removal of the folder, which goes on after it.
const REMOVAL: Duration = Duration::from_millis(20);

/// How long the end of the runtime waits for calls that it ended.
const SHUTDOWN: Duration = Duration::from_secs(3);

/// A program ready to run.
#[derive(Debug, Clone)]
pub struct Executable {
    package: PathBuf,
    program: PathBuf,
}

impl Executable {
    /// The program that stands there. Whether it can run shows when it does.
    #[must_use]
    pub fn new(path: ProgramPath) -> Self {
        // Its working folder is another one, so a relative path would lead elsewhere; and a link may lead out.
        let package = std::fs::canonicalize(&path.package).unwrap_or(path.package);
        Self { program: package.join(path.entry), package }
    }
}

/// Runs native programs. Dropping it ends all of them.
#[derive(Debug)]
pub struct NativeRuntime {
    inner: Arc<Inner>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

/// What [`NativeRuntime`] is made for.
#[derive(Debug, Clone, Copy)]
pub struct Settings<'a> {
    /// How programs are confined.
    pub sandbox: &'a SandboxConfig,
    /// What some of them may do.
    pub grants: &'a [Grant],
    /// The folder that all packages are in.
    pub packages: &'a Path,
    /// How many programs run at once.
    pub places: u64,
}

#[derive(Debug)]
struct Inner {
    sandbox: Sandbox,
    keeper: Arc<Keeper>,
    grace: Duration,
}

impl NativeRuntime {
    /// Makes this process the reaper of its orphaned descendants, starts the threads, makes the sandbox and the
    /// root of temporary folders, and removes what earlier lives of a server left.
    ///
    /// # Errors
    /// When one of these can't be done. A sandbox that falls short is no error.
    pub fn new(config: &RuntimeConfig, settings: &Settings<'_>) -> Result<Self, RuntimeError> {
        let host = |what: &str, error: std::io::Error| RuntimeError::Host(format!("{what}: {error}"));
        let parent = config.temp_dir.clone().unwrap_or_else(std::env::temp_dir);
        let root = Root::create(&parent)
            .map_err(|error| host(&format!("temporary folder for programs in {}", parent.display()), error))?;
        let inner = Inner {
            keeper: Keeper::shared().map_err(|error| host("keeper of processes", error))?,
            sandbox: Sandbox::new(settings, root)?,
            grace: Duration::from_millis(config.kill_grace_ms),
        };
        Ok(Self { inner: Arc::new(inner), tasks: TaskTracker::new(), closing: CancellationToken::new() })
    }

    /// How many tasks its threads have.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.inner.sandbox.tasks()
    }

    /// What confines programs.
    #[must_use]
    pub fn sandbox(&self) -> &Sandbox {
        &self.inner.sandbox
    }

    /// Runs a program once. Ends, with all its processes, at the call's deadline at the latest; when the
    /// future is dropped, it is ended and cleaned up behind it.
    ///
    /// # Errors
    /// When the host is at fault; what the program does wrong is its outcome.
    pub async fn run(&self, program: &Executable, call: &Call) -> Result<Outcome, RuntimeError> {
        let gone = || RuntimeError::Host("the runtime of native programs has ended".into());
        let thread = self.inner.sandbox.thread(call).ok_or_else(gone)?.clone();
        let cancel = call.cancel.child_token();
        // Dropped with this future.
        let _guard = cancel.clone().drop_guard();
        let call = Call { cancel, ..call.clone() };
        let seat = self.inner.sandbox.seat().map_err(|error| no_place(&error))?;
        let course = course(self.inner.clone(), seat, program.clone(), call, self.closing.clone());
        self.tasks.spawn_on(course, &thread).await.map_err(|_| gone())?
    }
}

impl Drop for NativeRuntime {
    fn drop(&mut self) {
        self.closing.cancel();
        self.tasks.close();
        let (tasks, inner) = (self.tasks.clone(), self.inner.clone());
        // On a thread of its own, since this one may be at work for another runtime.
        let waiter = thread::spawn(move || {
            if let Ok(runtime) = runtime::Builder::new_current_thread().enable_time().build() {
                let _ = runtime.block_on(async { time::timeout(SHUTDOWN, tasks.wait()).await });
            }
            inner.sandbox.end();
        });
        let _ = waiter.join();
    }
}

fn no_place(error: &std::io::Error) -> RuntimeError {
    // Its caller is told to come again; why, is for whoever runs the server.
    tracing::warn!(%error, "no place for a program");
    RuntimeError::Exhausted(format!("a place for a program: {error}"))
}

/// The whole course of a call. Never dropped half way.
async fn course(
    inner: Arc<Inner>,
    seat: Seat,
    program: Executable,
    call: Call,
    closing: CancellationToken,
) -> Result<Outcome, RuntimeError> {
    if call.cancel.is_cancelled() || closing.is_cancelled() {
        return Ok(Err(Failure::new(FailureKind::Cancelled, "the call was cancelled before it began")));
    }
    if call.deadline <= Instant::now() {
        return Ok(Err(Failure::new(FailureKind::DeadlineExceeded, "the deadline passed before the program began")));
    }
    if let Some(why) = inner.sandbox.refusal() {
        return Err(RuntimeError::Unconfined(why.to_owned()));
    }
    let place = inner.sandbox.place(seat, &program, &call).await;
    let mut place = place.map_err(|error| no_place(&error))?;
    let (outcome, gone) = in_place(&inner, &mut place, &call, &closing).await;
    let _ = time::timeout(REMOVAL, inner.sandbox.clear(place, gone)).await;
    outcome
}

/// Also, whether all processes of the call are known to be gone.
async fn in_place(
    inner: &Inner,
    place: &mut Place,
    call: &Call,
    closing: &CancellationToken,
) -> (Result<Outcome, RuntimeError>, bool) {
    let argument = call.argument().to_owned();
    let excess = inner.keeper.expect(call.id, call.memory_bytes, place.seat.group().cloned());
    let time = call.deadline.saturating_duration_since(Instant::now());
    let variables = variables(place, call);
    match inner.sandbox.spawn(place, argument, variables, call.memory_bytes, time).await {
        Ok(spawned) => {
            inner.keeper.started(call.id, spawned.main);
            follow(inner, spawned, place, excess, call, closing).await
        }
        Err(error) => {
            inner.keeper.forget(call.id);
            let outcome = match error {
                SpawnError::Program(detail) => Ok(Err(Failure::new(FailureKind::Failed, detail))),
                SpawnError::Package(_) => Err(RuntimeError::Damaged(error.to_string())),
                SpawnError::Exhausted(_) => Err(RuntimeError::Exhausted(error.to_string())),
                SpawnError::Host(_) => Err(RuntimeError::Host(error.to_string())),
            };
            (outcome, false)
        }
    }
}

/// The whole environment of a program.
fn variables(place: &Place, call: &Call) -> Vec<(String, String)> {
    let text = |path: &Path| path.display().to_string();
    let mut variables = call.variables();
    let own = [
        ("HOME", text(&place.folder)),
        ("TMPDIR", text(&place.folder)),
        // Where its other files are.
        ("SHARPFAAS_PACKAGE", text(&place.package)),
    ];
    variables.extend(own.map(|(name, value)| (name.to_owned(), value)));
    variables.extend(place.environment.iter().cloned());
    for (name, value) in [("PATH", SEARCH_PATH), ("LANG", "C.UTF-8")] {
        if !place.environment.iter().any(|(granted, _)| granted == name) {
            variables.push((name.to_owned(), value.to_owned()));
        }
    }
    variables
}

/// Follows a program to its end, and ends it where that is needed.
async fn follow(
    inner: &Inner,
    spawned: Spawned,
    place: &Place,
    mut excess: oneshot::Receiver<Excess>,
    call: &Call,
    closing: &CancellationToken,
) -> (Result<Outcome, RuntimeError>, bool) {
    let capture = Capture::new(call.result_bytes);
    let (main, baseline) = (spawned.main, spawned.baseline);
    let mut pipes = match Pipes::open(spawned, call.payload.as_bytes()) {
        Ok(pipes) => pipes,
        Err(error) => {
            let _ = inner.keeper.end(call.id, Duration::ZERO).await;
            return (Err(RuntimeError::Exhausted(format!("pipes of a program: {error}"))), false);
        }
    };
    let (cause, remains) = {
        let Pipes { ended, input, stdout, stderr, .. } = &mut pipes;
        let mut streams = pin!(async {
            tokio::join!(
                capture::feed(input.take(), call.payload.as_bytes()),
                capture.read(stdout, Stream::Stdout, &call.console),
                capture.read(stderr, Stream::Stderr, &call.console),
            );
        });
        let mut full = pin!(inner.sandbox.full(place));
        let mut open = true;
        let cause = loop {
            // In order: a deadline that passed is one, whatever the program printed since.
            tokio::select! {
                biased;
                () = call.cancel.cancelled() => break Cause::Cancelled,
                () = closing.cancelled() => break Cause::Cancelled,
                () = time::sleep_until(call.deadline.into()) => break Cause::Deadline,
                Ok(what) = &mut excess => break Cause::Excess(what),
                () = &mut full => break Cause::Excess(Excess::Folder),
                _ = ended.readable() => break Cause::Ended,
                () = &mut streams, if open => open = false,
            }
        };
        let in_peace = place.seat.group().filter(|_| cause == Cause::Ended);
        let remains = match in_peace.and_then(|group| inner.keeper.reap(call.id, main, group)) {
            Some(remains) => remains,
            None => {
                // What takes more than it may is not asked: meanwhile it would go on taking.
                let grace = if matches!(cause, Cause::Excess(_)) { Duration::ZERO } else { inner.grace };
                let mut remains = inner.keeper.end(call.id, grace);
                loop {
                    tokio::select! {
                        biased;
                        remains = &mut remains => break remains.unwrap_or_default(),
                        () = &mut streams, if open => open = false,
                    }
                }
            }
        };
        (cause, remains)
    };
    for (pipe, stream) in [(&pipes.stdout, Stream::Stdout), (&pipes.stderr, Stream::Stderr)] {
        capture.rest(pipe, stream, &call.console);
    }
    let _ = call.usage.set(remains.usage());
    let ended = Ended { remains, baseline, file_bytes: inner.sandbox.folder_bytes() };
    (Ok(ending::outcome(cause, &ended, &capture, call)), remains.gone)
}

/// A program's ends, in the hands of tokio.
struct Pipes {
    ended: AsyncFd<OwnedFd>,
    input: Option<capture::Rest>,
    stdout: pipe::Receiver,
    stderr: pipe::Receiver,
    /// The program's own ends of its output. While they are open, it wakes nobody by closing them on its way to its end,
    /// which tells the same.
    _held: [OwnedFd; 2],
}

impl Pipes {
    fn open(spawned: Spawned, payload: &[u8]) -> std::io::Result<Self> {
        // SAFETY: the descriptor is owned, so it stays open and the same until the `AsyncFd` is dropped.
        let ended = unsafe { AsyncFd::register_with_interest(spawned.ended, Interest::READABLE) }?;
        Ok(Self {
            ended,
            input: capture::begin(spawned.stdin, payload)?,
            stdout: capture::listen(spawned.stdout)?,
            stderr: capture::listen(spawned.stderr)?,
            _held: spawned.held,
        })
    }
}
