//! Starting programs: the thread that forks, and what happens between fork and exec.
//!
//! All programs are started by one thread that lives as long as its owner, because the kernel sends
//! the death signal of a parent when the *thread* that forked ends, and a thread of a pool may end
//! while its program runs.

use std::{
    io,
    os::{
        fd::OwnedFd,
        unix::{fs::PermissionsExt, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use rustix::process::{Pid, Resource, Rlimit, Signal};
use tokio::sync::oneshot;

use self::image::Image;
use super::procfs;

mod image;

/// How many files a program may have open.
const OPEN_FILES: u64 = 256;

/// How large a file may become that a program writes, in bytes.
pub const FILE_BYTES: u64 = 256 * 1024 * 1024;

/// The stack of a program's first thread, and by default of each other, in bytes.
pub const STACK_BYTES: u64 = 8 * 1024 * 1024;

/// How many processes and threads the server's user may have while a program makes more. The kernel
/// counts by user, not by program, and does not bind root: it stops what would stop the machine.
const USER_PROCESSES: u64 = 8192;

/// What a program may map above its memory limit, in bytes. The kernel counts here what is mapped and
/// not what is used, and each thread maps a stack that it hardly touches; what is used is measured by
/// the [keeper](super::keeper), and this bounds what it can miss between two looks.
const DATA_HEADROOM: u64 = 64 * 1024 * 1024;

/// How often a program is tried again that another process has open for writing, and after what time.
/// While a package is unpacked, any child that is forked at that moment holds its files open until
/// its own exec, which is soon.
const BUSY: (u32, Duration) = (50, Duration::from_millis(2));

/// A program to start.
#[derive(Debug)]
pub struct Spec {
    /// The folder of its package.
    pub package: PathBuf,
    /// The file to run: an absolute path.
    pub program: PathBuf,
    /// The one argument.
    pub argument: String,
    /// The whole environment.
    pub variables: Vec<(&'static str, String)>,
    /// Its working folder.
    pub folder: PathBuf,
    /// How much memory it may take, in bytes.
    pub memory_bytes: u64,
}

/// A program that was started.
#[derive(Debug)]
pub struct Spawned {
    /// Its process, which leads a session and a process group of its own.
    pub main: Pid,
    /// Readable when the process has ended.
    pub ended: OwnedFd,
    /// Its standard input.
    pub stdin: OwnedFd,
    /// Its standard output.
    pub stdout: OwnedFd,
    /// Its standard error.
    pub stderr: OwnedFd,
    /// The resident memory of this server when it forked, in bytes. The kernel counts it into the peak
    /// of the program, so a peak tells something only above it.
    pub baseline: u64,
}

/// Why a program did not start.
#[derive(Debug, thiserror::Error)]
pub enum SpawnError {
    /// The program is at fault; the text is for the caller.
    #[error("{0}")]
    Program(String),
    /// Its package is gone.
    #[error("the package folder {} is gone", .0.display())]
    Package(PathBuf),
    /// The machine has no room for another process.
    #[error("no process could be made: {0}")]
    Exhausted(io::Error),
    /// Anything else.
    #[error("the program could not be started: {0}")]
    Host(io::Error),
}

type Reply = oneshot::Sender<Result<Spawned, SpawnError>>;

/// The thread that starts programs. It ends when this is dropped, after which every program that it
/// started is killed by the kernel.
#[derive(Debug)]
pub struct Spawner {
    requests: mpsc::Sender<(Spec, Reply)>,
}

impl Spawner {
    /// Starts the thread.
    ///
    /// # Errors
    /// When there can be no more threads.
    pub fn start() -> io::Result<Self> {
        let (requests, queue) = mpsc::channel::<(Spec, Reply)>();
        thread::Builder::new().name("native-spawner".into()).spawn(move || {
            for (spec, reply) in queue {
                if let Err(Ok(unwanted)) = reply.send(spawn(&spec)) {
                    // The one who asked is gone, which happens only when all is torn down.
                    let _ = rustix::process::kill_process_group(unwanted.main, Signal::KILL);
                    let _ = rustix::process::waitpid(Some(unwanted.main), rustix::process::WaitOptions::empty());
                }
            }
        })?;
        Ok(Self { requests })
    }

    /// Starts a program. Not to be dropped half way: the program would be killed unseen.
    ///
    /// # Errors
    /// As [`SpawnError`] says.
    pub async fn spawn(&self, spec: Spec) -> Result<Spawned, SpawnError> {
        let (reply, answer) = oneshot::channel();
        let gone = || SpawnError::Host(io::Error::other("the spawner thread has ended"));
        self.requests.send((spec, reply)).map_err(|_| gone())?;
        answer.await.map_err(|_| gone())?
    }
}

fn spawn(spec: &Spec) -> Result<Spawned, SpawnError> {
    check(spec)?;
    let mut command = command(spec)?;
    let mut tries = 0;
    let mut child = loop {
        match command.spawn() {
            Ok(child) => break child,
            Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) && tries < BUSY.0 => {
                tries += 1;
                thread::sleep(BUSY.1);
            }
            Err(error) => return Err(refusal(spec, error)),
        }
    };
    let main = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let pipes = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let (Some(main), (Some(stdin), Some(stdout), Some(stderr))) = (main, pipes) else {
        return Err(SpawnError::Host(io::Error::other("a child without a number or pipes")));
    };
    let baseline = procfs::process(rustix::process::getpid()).map_or(0, |server| procfs::resident(&server));
    match rustix::process::pidfd_open(main, rustix::process::PidfdFlags::empty()) {
        Ok(ended) => {
            Ok(Spawned { main, ended, stdin: stdin.into(), stdout: stdout.into(), stderr: stderr.into(), baseline })
        }
        Err(error) => {
            let _ = child.kill();
            let _ = child.wait();
            Err(SpawnError::Exhausted(error.into()))
        }
    }
}

/// What exec would say with less words.
fn check(spec: &Spec) -> Result<(), SpawnError> {
    if !spec.package.is_dir() {
        return Err(SpawnError::Package(spec.package.clone()));
    }
    let problem = match std::fs::metadata(&spec.program) {
        Err(_) => "is not in the package",
        Ok(file) if !file.is_file() => "is not a file",
        Ok(file) if file.permissions().mode() & 0o111 == 0 => "is not executable",
        Ok(_) => return Ok(()),
    };
    Err(SpawnError::Program(format!("the entry '{}' {problem}", entry(spec))))
}

fn entry(spec: &Spec) -> String {
    spec.program.strip_prefix(&spec.package).unwrap_or(Path::new("?")).display().to_string()
}

fn refusal(spec: &Spec, error: io::Error) -> SpawnError {
    let why = match error.raw_os_error() {
        Some(libc::ENOENT) => "names an interpreter that is not on this server".to_owned(),
        Some(libc::ENOEXEC | libc::ELIBBAD | libc::EINVAL) => format!(
            "is not a program for this server: it must be an executable for Linux on {}, or begin with '#!'",
            std::env::consts::ARCH
        ),
        Some(libc::EACCES | libc::EPERM | libc::EISDIR | libc::ENOTDIR) => {
            "may not be executed, or names an interpreter that may not".to_owned()
        }
        Some(libc::ELOOP | libc::ENAMETOOLONG) => "names an interpreter that leads nowhere".to_owned(),
        Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ETXTBSY) => {
            return SpawnError::Exhausted(error);
        }
        _ => return SpawnError::Host(error),
    };
    SpawnError::Program(format!("the entry '{}' {why}", entry(spec)))
}

fn command(spec: &Spec) -> Result<Command, SpawnError> {
    let image = Image::new(spec.program.as_os_str(), &spec.argument, &spec.variables)
        .map_err(|error| SpawnError::Host(error.into()))?;
    let limits = limits(spec.memory_bytes);
    let server = rustix::process::getpid();
    let mut command = Command::new(&spec.program);
    command.current_dir(&spec.folder).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    // SAFETY: between fork and exec only system calls may be made, since another thread may hold any
    // lock at the moment of the fork. `confine` and `exec` make system calls and allocate nothing.
    unsafe { command.pre_exec(move || confine(&limits, server).and_then(|()| Err(image.exec()))) };
    Ok(command)
}

/// The limits of a program, none above what the server itself may set.
fn limits(memory_bytes: u64) -> [(Resource, Rlimit); 6] {
    [
        (Resource::Core, 0),
        (Resource::Data, memory_bytes.saturating_add(DATA_HEADROOM)),
        (Resource::Fsize, FILE_BYTES),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Nproc, USER_PROCESSES),
        (Resource::Stack, STACK_BYTES),
    ]
    .map(|(resource, wanted)| {
        let allowed = rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
        let limit = Some(wanted.min(allowed));
        (resource, Rlimit { current: limit, maximum: limit })
    })
}

/// Runs in the child, between fork and exec: whatever confines a program begins here. Makes system
/// calls only. The standard library has emptied the signal mask and reset SIGPIPE before.
fn confine(limits: &[(Resource, Rlimit)], server: Pid) -> io::Result<()> {
    rustix::process::setsid()?;
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The server may have died before the line above.
    if rustix::process::getppid() != Some(server) {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    rustix::thread::set_no_new_privs(true)?;
    for (resource, limit) in limits {
        rustix::process::setrlimit(*resource, *limit)?;
    }
    default_signals();
    close_on_exec()
}

/// What the server ignores, because of how it was itself started, a program must not ignore too.
fn default_signals() {
    // Zeros are SIG_DFL with no flags and an empty mask, in the kernel's layout on every architecture;
    // that of libc keeps some numbers for itself and would leave those ignored.
    let action = [0_u64; 8];
    for signal in 1..=64_i32 {
        // SAFETY: the kernel reads a struct that is smaller than `action`, and writes nothing. Numbers that
        // can't be set (SIGKILL and SIGSTOP) are refused, which is no harm.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), std::ptr::null_mut::<u64>(), 8_usize) };
    }
}

/// Closes at exec whatever is open beyond the three standard descriptors, whoever opened it.
fn close_on_exec() -> io::Result<()> {
    // SAFETY: a system call on plain numbers, which touches no memory.
    let done = unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
