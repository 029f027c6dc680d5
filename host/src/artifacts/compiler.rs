//! Compiling components in a child process with limits.
//!
//! A hostile component can make the compiler take long and much memory, or crash it. So it runs in a
//! process of its own, this very binary with the subcommand [`SUBCOMMAND`]: its memory and processor
//! time are bounded by the kernel, its wall time by us, and it ends when we do. Where it ends by one of
//! these, or crashes, that is the component's fault and said to whoever pushed it.

use std::{
    ffi::OsString,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    process::{Child, Command},
    sync::Semaphore,
};

use super::ArtifactError;
use crate::{
    config::ArtifactsConfig,
    runtime::wasm::{self, Abi, CompileError},
};

/// The hidden subcommand that compiles one component: memory in bytes, processor time in seconds,
/// input, output.
pub const SUBCOMMAND: &str = "compile-component";

/// How the child ends when what it compiled is for the async ABI; for the other one it is 0.
const COMPILED_ASYNC: u8 = 69;
/// How the child ends when it did not compile. Other programs' codes for wrong usage are not among them.
const INVALID: u8 = 70;
const UNSUITABLE: u8 = 71;
const HOST: u8 = 72;

/// How much of what the child says is kept, in bytes.
const MAX_SAID: u64 = 16 * 1024;

/// Starts compiling children.
#[derive(Debug, Clone)]
pub struct Compiler {
    program: PathBuf,
    memory_bytes: u64,
    time: Duration,
    /// One place for each that may run at once; those beyond wait, as many as there are packages
    /// being prepared.
    places: Arc<Semaphore>,
}

/// How a child ended.
enum Ended {
    Exited(ExitStatus, String),
    OutOfTime,
}

impl Compiler {
    /// A compiler that runs this process's own binary.
    ///
    /// # Errors
    /// When the system does not say which file that is.
    pub fn new(config: &ArtifactsConfig) -> Result<Self, ArtifactError> {
        let program = std::env::current_exe().map_err(ArtifactError::local("finding the server's own binary"))?;
        Ok(Self::with_program(config, program))
    }

    /// A compiler that runs another binary which knows [`SUBCOMMAND`].
    #[must_use]
    pub fn with_program(config: &ArtifactsConfig, program: PathBuf) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let places = match usize::try_from(config.compilers) {
            Ok(0) => (cores / 2).max(1),
            Ok(places) => places.min(Semaphore::MAX_PERMITS),
            Err(_) => Semaphore::MAX_PERMITS,
        };
        Self {
            program,
            memory_bytes: config.compile_memory_bytes,
            time: Duration::from_secs(config.compile_seconds),
            places: Arc::new(Semaphore::new(places)),
        }
    }

    /// Gives each compilation another time than the configuration's.
    #[cfg(test)]
    pub(super) fn within(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// Compiles the component in the file `input` into machine code in the new file `output`, and gives the ABI that
    /// it is for. Dropped midway, the child is killed.
    ///
    /// # Errors
    /// [`ArtifactError::Component`] when the component can't be compiled or can't run here.
    pub async fn compile(&self, input: &Path, output: &Path) -> Result<Abi, ArtifactError> {
        let failed = |what: &str| ArtifactError::Compiler(what.into());
        let _place = self.places.acquire().await.map_err(|_| failed("it is closed"))?;
        let started = std::time::Instant::now();
        // Processor time is summed over its threads, and is a second bound behind the wall time.
        let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
        let cpu_seconds = self.time.as_secs().saturating_add(1).saturating_mul(cores);
        let child = Command::new(&self.program)
            .arg(SUBCOMMAND)
            .arg(self.memory_bytes.to_string())
            .arg(cpu_seconds.to_string())
            .arg(input)
            .arg(output)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(&format!("cannot start {}: {error}", self.program.display())))?;
        let ended = watch(child, self.time).await.map_err(|error| failed(&format!("cannot watch it: {error}")))?;
        let verdict = self.verdict(ended);
        let elapsed_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
        match &verdict {
            Ok(_) => tracing::info!(elapsed_ms, "compiled {}", input.display()),
            Err(error) => tracing::warn!(elapsed_ms, "did not compile {}: {error}", input.display()),
        }
        verdict
    }

    fn verdict(&self, ended: Ended) -> Result<Abi, ArtifactError> {
        let refused = |text: String| Err(ArtifactError::Component(text.into()));
        let out_of_time = || {
            refused(format!(
                "the component needs more time to compile than the {} seconds it may take",
                self.time.as_secs()
            ))
        };
        let out_of_memory = || {
            let mib = self.memory_bytes / (1024 * 1024);
            refused(format!("the component needs more memory to compile than the {mib} MiB it may take"))
        };
        let (status, said) = match ended {
            Ended::OutOfTime => return out_of_time(),
            Ended::Exited(status, said) => (status, said),
        };
        if status.success() {
            return Ok(Abi::Sync);
        }
        if status.code() == Some(COMPILED_ASYNC.into()) {
            return Ok(Abi::Async);
        }
        if let Some(code @ (INVALID | UNSUITABLE)) = status.code().and_then(|code| u8::try_from(code).ok()) {
            tracing::debug!(code, "refused: {said}");
            return refused(said);
        }
        // How Rust's allocator, the system, and the library say it.
        const NO_MEMORY: [&str; 3] = ["memory allocation of", "Cannot allocate memory", "out of memory"];
        if NO_MEMORY.iter().any(|words| said.contains(words)) {
            return out_of_memory();
        }
        match (status.signal(), status.code()) {
            (Some(signal), _) if signal == Signal::XCPU.as_raw() => out_of_time(),
            // By nobody of ours: the kernel, in want of memory.
            (Some(signal), _) if signal == Signal::KILL.as_raw() => out_of_memory(),
            (Some(signal), _) => {
                tracing::error!("the compiler ended by signal {signal}: {said}");
                refused(format!("the compiler crashed on the component (signal {signal})"))
            }
            // A panic: a bug that this component brought out.
            (None, Some(101)) => {
                tracing::error!("the compiler panicked: {said}");
                refused("the compiler crashed on the component".into())
            }
            (None, code) => {
                let code = code.unwrap_or_default();
                Err(ArtifactError::Compiler(format!("it ended with code {code}: {said}").into()))
            }
        }
    }
}

/// Waits for the end of the child and of what it says, but not longer than `time`.
async fn watch(mut child: Child, time: Duration) -> std::io::Result<Ended> {
    let group = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    let said = child.stderr.take();
    let ended = tokio::time::timeout(time, async { tokio::join!(child.wait(), listen(said)) }).await;
    match ended {
        Ok((status, said)) => Ok(Ended::Exited(status?, said)),
        Err(_) => {
            // Not waited for yet, so the number is still its own.
            if let (Some(group), Ok(None)) = (group, child.try_wait()) {
                // The one failure there is: all of it ended by itself meanwhile.
                let _ = rustix::process::kill_process_group(group, Signal::KILL);
            }
            child.kill().await?;
            Ok(Ended::OutOfTime)
        }
    }
}

/// The beginning of what the child says; the rest is read and dropped, so that it never waits for us.
async fn listen(said: Option<impl AsyncRead + Unpin>) -> String {
    let mut kept = Vec::new();
    if let Some(mut said) = said {
        // A pipe that breaks ends what there is to hear.
        let _ = (&mut said).take(MAX_SAID).read_to_end(&mut kept).await;
        let _ = tokio::io::copy(&mut said, &mut tokio::io::sink()).await;
    }
    String::from_utf8_lossy(&kept).trim().chars().filter(|c| !c.is_control() || *c == '\n').collect()
}

/// What the child does: `arguments` are those after [`SUBCOMMAND`]. Gives the code to exit with; what is
/// wrong goes to standard error.
#[must_use]
pub fn compile_in_child(arguments: impl IntoIterator<Item = OsString>) -> u8 {
    let (code, text) = match in_child(arguments) {
        Ok(Abi::Sync) => return 0,
        Ok(Abi::Async) => return COMPILED_ASYNC,
        Err(error @ CompileError::Invalid(_)) => (INVALID, error.to_string()),
        Err(error @ CompileError::Unsuitable(_)) => (UNSUITABLE, error.to_string()),
        Err(error @ CompileError::Host(_)) => (HOST, error.to_string()),
    };
    eprintln!("{text}");
    code
}

fn in_child(arguments: impl IntoIterator<Item = OsString>) -> Result<Abi, CompileError> {
    let host = |text: String| CompileError::Host(text);
    let usage = || host(format!("usage: {SUBCOMMAND} MEMORY_BYTES CPU_SECONDS INPUT OUTPUT"));
    let mut arguments = arguments.into_iter();
    let mut number = || -> Option<u64> { arguments.next()?.to_str()?.parse().ok() };
    let (memory, cpu) = (number().ok_or_else(usage)?, number().ok_or_else(usage)?);
    let (input, output) = (arguments.next().ok_or_else(usage)?, arguments.next().ok_or_else(usage)?);

    // The server watches; without it nobody would.
    let death = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
    death.map_err(|error| host(format!("cannot be tied to its parent: {error}")))?;
    // Of what it really writes to, not of address space that it only reserves.
    for (resource, bound) in [(Resource::Data, memory), (Resource::Cpu, cpu), (Resource::Core, 0)] {
        let limit = Rlimit { current: Some(bound), maximum: Some(bound) };
        rustix::process::setrlimit(resource, limit)
            .map_err(|error| host(format!("cannot limit {resource:?} to {bound}: {error}")))?;
    }
    // Calls go first; it does not matter where that is not allowed.
    let _ = rustix::process::nice(10);
    wasm::compile(Path::new(&input), Path::new(&output))
}
