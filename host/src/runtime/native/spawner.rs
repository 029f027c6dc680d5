//! Starting programs: the threads that do, and what a program is confined by when it begins.
//!
//! Programs are started by threads that live as long as their owner, because the kernel sends
//! the death signal of a parent when the *thread* that forked ends, and a thread of a pool may end
//! while its program runs. What all programs of a thread have in common (namespaces, filters, no new
//! privileges, an empty bounding set) is put on the thread itself, once, and inherited.

use std::{
    cell::RefCell,
    ffi::CString,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{MetadataExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use rustix::{
    pipe::PipeFlags,
    process::{Pid, Resource, Rlimit},
    thread::{Gid, Uid, UnshareFlags},
};
use seccompiler::BpfProgram;
use tokio::runtime;
use tokio_util::sync::CancellationToken;

use self::{child::Plan, image::Image};
use super::sandbox::{
    groups::Group,
    landlock::{self, Beneath, Files, Id, Rules},
    syscalls::Filters,
};

mod child;
mod clone;
mod image;

pub use child::{Cradle, landlock_version};

/// How many files a program may have open.
const OPEN_FILES: u64 = 256;

/// The stack of a program's first thread, and by default of each other, in bytes.
pub const STACK_BYTES: u64 = 8 * 1024 * 1024;

/// How many processes and threads a user may have while a program makes more. The kernel
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

/// A program to start. Paths are as the thread sees them that starts it.
#[derive(Debug)]
pub struct Spec {
    /// The folder of its package.
    pub package: PathBuf,
    /// The file to run: an absolute path.
    pub program: PathBuf,
    /// The one argument.
    pub argument: String,
    /// The whole environment.
    pub variables: Vec<(String, String)>,
    /// Its working folder.
    pub folder: PathBuf,
    /// How much memory it may take, in bytes.
    pub memory_bytes: u64,
    /// How large a file may become that it writes, in bytes.
    pub file_bytes: u64,
    /// How long it may run.
    pub time: Duration,
    /// The user and group that it runs as; none: the server's.
    pub user: Option<u32>,
    /// The control group that it begins in.
    pub group: Option<Arc<Group>>,
    /// What it may read beside its own.
    pub read: Vec<Arc<[Beneath]>>,
    /// Whether it was granted the network.
    pub network: bool,
}

/// What all programs of a spawner have in common.
#[derive(Debug, Default)]
pub struct Profile {
    /// The files that every program may use; none: all.
    pub files: Option<Arc<Files>>,
    /// The folders of all packages and of all calls; none where they may use any.
    pub folders: Option<(PathBuf, PathBuf)>,
    /// What any program was granted.
    pub granted: Vec<Arc<[Beneath]>>,
    /// Filters of system calls.
    pub filters: Filters,
    /// Whether programs are born in control groups, which their thread needs clone3(2) for.
    pub born: bool,
    /// Whether they are in a network of their own, with nothing in it.
    pub private_network: bool,
    /// Whether they are confined at all.
    pub confined: bool,
    /// Whether they see all of `/proc`, which then shows each its own.
    pub staged: bool,
    /// Whether they may use the network that they are in.
    pub network: bool,
}

impl Profile {
    /// Puts on this thread what its children are to inherit.
    fn put_on(&self) -> io::Result<()> {
        if self.private_network {
            // SAFETY: sockets that are open stay in the network that they were made in.
            unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
        }
        if !self.confined {
            return Ok(());
        }
        // Capabilities that no kernel has yet are refused, and end the list.
        (0..64_u64)
            .map_while(|number| {
                let capability = rustix::thread::CapabilitySet::from_bits_retain(1 << number);
                rustix::thread::remove_capability_from_bounding_set(capability).ok()
            })
            .for_each(drop);
        let _ = rustix::thread::clear_ambient_capability_set();
        rustix::thread::set_no_new_privs(true)?;
        if self.staged {
            // Programs become another user, who is in no other group than its own.
            rustix::thread::set_thread_groups(&[])?;
        }
        if let (Some(_), Some((packages, calls))) = (&self.files, &self.folders) {
            let own = [Beneath::read(packages)?, Beneath::write(calls)?];
            let granted = self.granted.iter().flat_map(|granted| granted.iter());
            landlock::put_on(&own.iter().chain(granted).collect::<Vec<_>>(), self.network)?;
        }
        let filters = self.filters.most.iter().chain(self.filters.clone3.as_ref().filter(|_| !self.born));
        filters.map(Vec::as_slice).try_for_each(seccompiler::apply_filter).map_err(io::Error::other)
    }

    /// The filter that each program is under besides.
    fn own_filter(&self) -> Option<&BpfProgram> {
        self.filters.clone3.as_ref().filter(|_| self.born)
    }
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
    /// The other ends of both, which the program has too.
    pub held: [OwnedFd; 2],
    /// The peak of this server's own memory when it started it, in bytes. The kernel counts it into the peak
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

/// The most threads that start programs of one profile.
const THREADS: usize = 4;

/// How long the end of a thread waits for work that can't be dropped half way.
const SHUTDOWN: Duration = Duration::from_secs(3);

/// Threads that start programs and follow them, each with a reactor of its own: whatever is one program's is done on
/// one of them, since to wake another thread costs more than most of what there is to do. They end when this is
/// dropped, after which every program that they started is killed by the kernel.
#[derive(Debug)]
pub struct Spawner {
    handles: Vec<runtime::Handle>,
    /// Whose turn it is.
    turn: AtomicUsize,
    threads: Mutex<Vec<thread::JoinHandle<()>>>,
    end: CancellationToken,
}

/// What starts programs, on a thread that does.
struct Here {
    profile: Arc<Profile>,
    cradle: Cradle,
}

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

impl Spawner {
    /// What its threads start programs with: as many as there are cores, since one waits until its child is another
    /// program. To be made before much else is opened.
    ///
    /// # Errors
    /// When there is no room for it.
    pub fn cradles() -> io::Result<Vec<Cradle>> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        Cradle::make(cores.min(THREADS))
    }

    /// Starts the threads, which are in the namespaces of the one that calls this.
    ///
    /// # Errors
    /// When there can be no more threads, or the profile can't be put on them.
    pub fn start(profile: Profile, cradles: Vec<Cradle>) -> io::Result<Self> {
        // Made here: what they open might not be allowed under the profile.
        let make = |cradle| Ok((runtime::Builder::new_current_thread().enable_all().build()?, cradle));
        let mut makings = cradles.into_iter().map(make).collect::<io::Result<Vec<_>>>()?;
        let handles = makings.iter().map(|(runtime, _)| runtime.handle().clone()).collect();
        let Some((runtime, cradle)) = makings.pop() else { return Err(io::Error::other("no thread starts programs")) };
        let (profile, end) = (Arc::new(profile), CancellationToken::new());
        let (told, ready) = mpsc::channel();
        let until = end.clone();
        let first = named().spawn(move || {
            // What the first one puts on, the others inherit.
            let started = profile.put_on().and_then(|()| {
                let start = |(runtime, cradle)| {
                    let (profile, until) = (profile.clone(), until.clone());
                    named().spawn(move || work(runtime, Here { profile, cradle }, &until))
                };
                makings.into_iter().map(start).collect::<io::Result<Vec<_>>>()
            });
            let good = started.is_ok();
            if told.send(started).is_ok() && good {
                work(runtime, Here { profile, cradle }, &until);
            }
        })?;
        let others = ready.recv().map_err(|_| io::Error::other("the thread that starts programs has ended"))??;
        let threads = Mutex::new(others.into_iter().chain([first]).collect());
        Ok(Self { handles, turn: AtomicUsize::new(0), threads, end })
    }

    /// The thread for the next program: all of what is its is to be done there.
    #[must_use]
    pub fn thread(&self) -> Option<&runtime::Handle> {
        self.handles.get(self.turn.fetch_add(1, Ordering::Relaxed) % self.handles.len())
    }

    /// How many tasks the threads have.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.handles.iter().map(|thread| thread.metrics().num_alive_tasks()).sum()
    }

    /// Ends the threads, and waits for that. To be called by none of them.
    pub fn end(&self) {
        self.end.cancel();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        threads.into_iter().for_each(|thread| drop(thread.join()));
    }
}

impl Drop for Spawner {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

fn named() -> thread::Builder {
    thread::Builder::new().name("native".into())
}

/// Does what it is given until the end.
fn work(runtime: runtime::Runtime, here: Here, end: &CancellationToken) {
    HERE.set(Some(here));
    runtime.block_on(end.cancelled());
    runtime.shutdown_timeout(SHUTDOWN);
}

/// Starts a program, on a thread of a [`Spawner`]. `rules` are those that the program before it had in the same folder,
/// and become its own.
///
/// # Errors
/// As [`SpawnError`] says.
pub async fn spawn(spec: &Spec, rules: &mut Option<Rules>) -> Result<Spawned, SpawnError> {
    let package = match std::fs::metadata(&spec.package) {
        Ok(found) if found.is_dir() => Id(found.dev(), found.ino()),
        _ => return Err(SpawnError::Package(spec.package.clone())),
    };
    rules.take_if(|rules| !rules.are_for(package, &spec.read, spec.network));
    for _ in 0..BUSY.0 {
        match here(spec, rules) {
            Err(Tried::Busy) => tokio::time::sleep(BUSY.1).await,
            Err(Tried::Failed(error)) => return Err(error),
            Ok(spawned) => return Ok(spawned),
        }
    }
    Err(refusal(spec, io::Error::from_raw_os_error(libc::ETXTBSY)))
}

/// Why a try did not start a program.
enum Tried {
    /// Another process has it open for writing.
    Busy,
    Failed(SpawnError),
}

impl From<io::Error> for Tried {
    fn from(error: io::Error) -> Self {
        Self::Failed(SpawnError::Host(error))
    }
}

fn here(spec: &Spec, rules: &mut Option<Rules>) -> Result<Spawned, Tried> {
    HERE.with_borrow_mut(|here| match here {
        // Which it is follows from the same grants; this is what would go wrong unseen.
        Some(Here { profile, cradle }) if profile.network == spec.network => try_spawn(profile, spec, cradle, rules),
        _ => Err(io::Error::other("no thread for this program").into()),
    })
}

fn try_spawn(profile: &Profile, spec: &Spec, cradle: &mut Cradle, rules: &mut Option<Rules>) -> Result<Spawned, Tried> {
    let image = Image::new(spec.program.as_os_str(), &spec.argument, &spec.variables).map_err(io::Error::from)?;
    let folder = CString::new(spec.folder.as_os_str().as_bytes()).map_err(io::Error::from)?;
    let pipe = || {
        let made = rustix::pipe::pipe_with(PipeFlags::CLOEXEC);
        made.map_err(|error| Tried::Failed(SpawnError::Exhausted(error.into())))
    };
    let ((input, stdin), (stdout, output), (stderr, errors)) = (pipe()?, pipe()?, pipe()?);
    let user = spec.user.map(|id| (Uid::from_raw(id), Gid::from_raw(id)));
    if let Some((uid, gid)) = user {
        // So that it can open them anew, as by /dev/stderr.
        for stream in [&input, &output, &errors] {
            rustix::fs::fchown(stream, Some(uid), Some(gid)).map_err(io::Error::from)?;
        }
    }
    if let (Some(files), None) = (&profile.files, &rules) {
        *rules = files.rules(&spec.package, &spec.folder, &spec.read, profile.network)?;
    }
    let limits = limits(spec);
    let plan = Plan {
        image: &image,
        folder: &folder,
        streams: [input.as_fd(), output.as_fd(), errors.as_fd()],
        limits: &limits,
        server: rustix::process::getpid(),
        groups: spec.group.as_ref().map_or(&[], |group| group.joins()),
        birthplace: spec.group.as_ref().and_then(|group| group.birthplace()),
        user,
        rules: rules.as_ref().map(AsFd::as_fd),
        own_proc: !profile.staged,
        filter: profile.own_filter(),
        confined: profile.confined,
    };
    match cradle.spawn(&plan) {
        Ok((main, ended)) => {
            let held = [output, errors];
            Ok(Spawned { main, ended, stdin, stdout, stderr, held, baseline: child::own_peak() })
        }
        Err(error) if error.raw_os_error() == Some(libc::ETXTBSY) => Err(Tried::Busy),
        Err(error) => Err(Tried::Failed(refusal(spec, error))),
    }
}

/// What exec says with less words.
fn problem(spec: &Spec) -> Option<&'static str> {
    match std::fs::metadata(&spec.program) {
        Err(_) => Some("is not in the package"),
        Ok(file) if !file.is_file() => Some("is not a file"),
        Ok(file) if file.permissions().mode() & 0o111 == 0 => Some("is not executable"),
        Ok(_) => None,
    }
}

fn entry(spec: &Spec) -> String {
    spec.program.strip_prefix(&spec.package).unwrap_or(Path::new("?")).display().to_string()
}

fn refusal(spec: &Spec, error: io::Error) -> SpawnError {
    if let Some(problem) = problem(spec) {
        return SpawnError::Program(format!("the entry '{}' {problem}", entry(spec)));
    }
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

/// The limits of a program, none above what the server itself may set.
fn limits(spec: &Spec) -> [(Resource, Rlimit); 10] {
    static CORES: OnceLock<u64> = OnceLock::new();
    static ALLOWED: OnceLock<[u64; 10]> = OnceLock::new();
    // It reads files to find out.
    let cores = *CORES.get_or_init(|| thread::available_parallelism().map_or(1, |cores| cores.get() as u64));
    let wanted = [
        (Resource::Core, 0),
        // One that runs on after its deadline is not this limit's to end, only one that nobody sees.
        (Resource::Cpu, spec.time.as_secs().saturating_add(10).saturating_mul(cores)),
        (Resource::Data, spec.memory_bytes.saturating_add(DATA_HEADROOM)),
        (Resource::Fsize, spec.file_bytes),
        (Resource::Memlock, 0),
        (Resource::Msgqueue, 0),
        (Resource::Nofile, OPEN_FILES),
        (Resource::Nproc, USER_PROCESSES),
        (Resource::Rtprio, 0),
        (Resource::Stack, STACK_BYTES),
    ];
    let allowed = |(resource, _)| rustix::process::getrlimit(resource).maximum.unwrap_or(u64::MAX);
    let mut allowed = ALLOWED.get_or_init(|| wanted.map(allowed)).iter();
    wanted.map(|(resource, wanted)| {
        let limit = Some(allowed.next().map_or(wanted, |allowed| wanted.min(*allowed)));
        (resource, Rlimit { current: limit, maximum: limit })
    })
}
