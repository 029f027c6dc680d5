//! Running functions: components in wasmtime, programs as subprocesses.
//!
//! A [`Program`] is what an artifact holds ready to run; a [`Call`] is one run of it. The guest's end,
//! good or bad, is an [`Outcome`]; what goes wrong on the host's side is a [`RuntimeError`].

use std::{
    future::poll_fn,
    path::{Path, PathBuf},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::Poll,
    time::Instant,
};

use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use crate::{
    config::Config,
    function::{CallerId, Failure, FailureKind, FunctionName, InvocationId, Lane, Outcome, Usage, Version},
};

mod capture;
pub mod console;
pub mod exchange;
pub mod key_values;
pub mod native;
pub mod wasm;

use console::Console;
use exchange::Exchange;
use key_values::KeyValues;

/// The host could not run the guest. Texts are for the log.
#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    /// No place left in the pool of instances, or no process could be made.
    #[error("no resources to run the function: {0}")]
    Exhausted(String),
    /// The artifact is not as it was prepared: to be dropped and prepared again.
    #[error("the artifact is damaged: {0}")]
    Damaged(String),
    /// The component can't be run as its package says. The text is for whoever pushed it.
    #[error("{0}")]
    Unsuitable(String),
    /// The kernel can't confine programs, and they must be.
    #[error("programs do not run here: {0}")]
    Unconfined(String),
    /// Anything else; a bug or a broken machine.
    #[error("the function could not be run: {0}")]
    Host(String),
}

/// One run of a program.
#[derive(Debug, Clone)]
pub struct Call {
    /// Its invocation.
    pub id: InvocationId,
    /// Who calls, where they said.
    pub caller_id: Option<CallerId>,
    /// The function's name, for its context.
    pub name: FunctionName,
    /// The lane, for its context.
    pub lane: Lane,
    /// The exact version, for its context.
    pub version: Version,
    /// What it gets.
    pub payload: String,
    /// Whether nobody else may see it, as the arguments of a process can be seen by all.
    pub confidential: bool,
    /// The caller's own query parameters.
    pub parameters: Vec<(String, String)>,
    /// When it must have ended.
    pub deadline: Instant,
    /// Fires when somebody wants it to end.
    pub cancel: CancellationToken,
    /// How much memory it may take, in bytes.
    pub memory_bytes: u64,
    /// How large its result or error may be, in bytes.
    pub result_bytes: u64,
    /// Where its output goes.
    pub console: Arc<Console>,
    /// The request that it answers, where it came as one to a component that answers those.
    pub exchange: Option<Arc<Exchange>>,
    /// Where what it took is told, of a native program.
    pub usage: Arc<OnceLock<Usage>>,
}

/// The variable of a program's environment that names its call.
pub const INVOCATION_VARIABLE: &str = "SHARPFAAS_INVOCATION_ID";

/// The longest text that one argument of a process can hold, in bytes: `MAX_ARG_STRLEN`, 32 pages of
/// 4 KiB, less the NUL at its end (execve(2)). Components that are commands have the same.
const MAX_ARGUMENT_BYTES: usize = 131_071;

impl Call {
    /// The payload as the argument of a command line; `-` where it can't be one, or others might see it: then it is
    /// on standard input alone.
    #[must_use]
    pub fn argument(&self) -> &str {
        let on_input_alone =
            self.confidential || self.payload.len() > MAX_ARGUMENT_BYTES || self.payload.contains('\0');
        if on_input_alone { "-" } else { &self.payload }
    }

    /// What the environment of a program tells it of its call.
    #[must_use]
    pub fn variables(&self) -> Vec<(String, String)> {
        let left = self.deadline.saturating_duration_since(Instant::now()).as_millis();
        let variables = [
            (INVOCATION_VARIABLE, self.id.to_string()),
            ("SHARPFAAS_FUNCTION", self.name.to_string()),
            ("SHARPFAAS_LANE", self.lane.to_string()),
            ("SHARPFAAS_VERSION", self.version.to_string()),
            // How many milliseconds are left when it starts.
            ("SHARPFAAS_DEADLINE_MS", left.to_string()),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value)).into_iter();
        // Absent where the caller said nothing.
        let caller = self.caller_id.as_ref().map(|caller| ("SHARPFAAS_CALLER_ID".to_owned(), caller.to_string()));
        variables.chain(caller).collect()
    }
}

/// What an artifact holds ready to run.
#[derive(Debug)]
pub enum Program {
    /// A component, compiled and linked.
    Wasm(wasm::Component),
    /// A native program in its unpacked package.
    Native(native::Executable),
}

/// Where a native program stands, for [`native::Executable`].
#[derive(Debug, Clone)]
pub struct ProgramPath {
    /// The folder of the unpacked package.
    pub package: PathBuf,
    /// The file that runs, below it.
    pub entry: PathBuf,
}

/// Runs programs of both types.
#[derive(Debug)]
pub struct Runtime {
    wasm: Arc<wasm::Engine>,
    native: native::NativeRuntime,
    threads: GuestThreads,
}

impl Runtime {
    /// A runtime with threads of its own for guests that take their time. `packages` is the folder that native
    /// programs run from, `stores` what components may keep values in.
    ///
    /// # Errors
    /// When the machine has no threads or folders for it, or can't run wasmtime.
    pub fn new(config: &Config, packages: &Path, stores: Arc<dyn KeyValues>) -> Result<Self, RuntimeError> {
        let limits = &config.limits;
        let sizes = wasm::Sizes { concurrency: limits.concurrency, memory_bytes: limits.memory_bytes };
        let wasm = wasm::Engine::new(sizes)?.offering(&config.grants, stores)?;
        let wasm = if config.runtime.async_abi { wasm } else { wasm.without_async() };
        let programs =
            native::Settings { sandbox: &config.sandbox, grants: &config.grants, packages, places: limits.processes };
        Ok(Self {
            wasm: Arc::new(wasm),
            native: native::NativeRuntime::new(&config.runtime, &programs)?,
            threads: GuestThreads::start(config.runtime.threads)?,
        })
    }

    /// What confines native programs.
    #[must_use]
    pub fn sandbox(&self) -> &native::Sandbox {
        self.native.sandbox()
    }

    /// The engine that components are loaded into.
    #[must_use]
    pub fn wasm(&self) -> &Arc<wasm::Engine> {
        &self.wasm
    }

    /// How many tasks its threads have, of components and of programs.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.threads.runtime.as_ref().map_or(0, |threads| threads.metrics().num_alive_tasks()) + self.native.tasks()
    }

    /// Runs one call to its end. The first slice of a component, at most two of [`wasm::TICK`], runs on the
    /// caller's thread, which is all that most calls take; the rest on the guests' threads, so that no
    /// guest can hold a thread that others wait for. A component whose last call took longer begins there.
    /// Deadline and cancellation are seen to on the caller's side, which does not wait for the guest's turn
    /// among many; the guest is dropped when that comes.
    ///
    /// # Errors
    /// When the host could not run it; whatever the guest does is an [`Outcome`].
    pub async fn execute<P>(&self, program: &Arc<P>, call: &Arc<Call>) -> Result<Outcome, RuntimeError>
    where
        P: AsRef<Program> + Send + Sync + 'static,
    {
        let component = match (**program).as_ref() {
            Program::Native(executable) => return self.native.run(executable, call).await,
            Program::Wasm(component) => component,
        };
        let (wasm, own, run) = (self.wasm.clone(), program.clone(), call.clone());
        let mut run = Box::pin(async move {
            match (*own).as_ref() {
                Program::Wasm(component) => wasm.execute(component, &run).await,
                Program::Native(_) => Err(RuntimeError::Host("a native program in the component's place".into())),
            }
        });
        let begun_here = !component.is_long();
        if begun_here && let Some(outcome) = first_slice(run.as_mut()).await {
            return outcome;
        }
        let own = program.clone();
        let rest = async move {
            let begun = Instant::now();
            let whole = first_slice(run.as_mut()).await;
            if let Program::Wasm(component) = (*own).as_ref() {
                component.took_long(begun_here || whole.is_none() || begun.elapsed() > wasm::TICK);
            }
            match whole {
                Some(outcome) => outcome,
                None => run.await,
            }
        };
        tokio::select! {
            biased;
            outcome = self.threads.run(rest) => outcome,
            () = call.cancel.cancelled() => {
                Ok(Err(Failure::new(FailureKind::Cancelled, "the call was cancelled")))
            }
            () = tokio::time::sleep_until(call.deadline.into()) => Ok(Err(Failure::new(
                FailureKind::DeadlineExceeded,
                "the function did not end before its deadline",
            ))),
        }
    }
}

/// Polls once.
async fn first_slice<F: Future>(mut work: Pin<&mut F>) -> Option<F::Output> {
    poll_fn(|context| match work.as_mut().poll(context) {
        Poll::Ready(done) => Poll::Ready(Some(done)),
        Poll::Pending => Poll::Ready(None),
    })
    .await
}

/// The threads on which long guests run, at a lower priority than those that answer requests.
#[derive(Debug)]
struct GuestThreads {
    /// Always there until the drop, which must not wait for guests.
    runtime: Option<tokio::runtime::Runtime>,
}

/// How much lower: the nice value of guests' threads.
const GUEST_NICE: i32 = 10;

impl GuestThreads {
    fn start(threads: u64) -> Result<Self, RuntimeError> {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let threads = usize::try_from(threads).ok().filter(|threads| *threads > 0).unwrap_or(cores);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(threads)
            .thread_name("guest")
            // A poll may take a whole tick: timers and wake-ups must not wait for dozens of them.
            .event_interval(1)
            .global_queue_interval(1)
            .on_thread_start(|| {
                // On Linux this is the thread's own; where it is refused guests merely run at par.
                let _ = rustix::process::nice(GUEST_NICE);
            })
            .enable_all()
            .build()
            .map_err(|error| RuntimeError::Host(format!("cannot start the guests' threads: {error}")))?;
        Ok(Self { runtime: Some(runtime) })
    }

    async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, RuntimeError>> + Send + 'static,
    ) -> Result<T, RuntimeError> {
        let Some(runtime) = &self.runtime else {
            return Err(RuntimeError::Host("the guests' threads have ended".into()));
        };
        match AbortOnDropHandle::new(runtime.spawn(work)).await {
            Ok(done) => done,
            Err(error) => Err(RuntimeError::Host(format!("the guest's task ended: {error}"))),
        }
    }
}

impl Drop for GuestThreads {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}
