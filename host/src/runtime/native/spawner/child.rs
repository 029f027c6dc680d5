//! Between clone and exec.
//!
//! The child is made as by vfork(2): it shares the server's memory until it is another program, and the
//! thread that made it waits. So nothing of a large address space is copied; and the child may do nothing but
//! system calls on what was laid out for it, since any lock may be held by another thread. What it is
//! confined by belongs to it alone: credentials, rules and limits are a process's own even where memory is shared.
//!
//! It shares the server's descriptors too, of which there may be many, and takes only the lowest of them along: those
//! that its streams are put to for it. To copy all of them, and to close the copies, is what a start would spend most of
//! its time with.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr,
    sync::{Arc, OnceLock},
};

use rustix::{
    fs::{Mode, OFlags},
    io::{DupFlags, Errno},
    process::{Pid, Resource, Rlimit, Signal},
    thread::{Gid, Uid},
};
use seccompiler::BpfProgram;

use super::{
    clone::{self, Stack},
    image::Image,
};
use crate::runtime::native::sandbox::groups::Birthplace;

/// The stack of a child until it is another program, in bytes. What it calls is not deep.
const STACK_BYTES: usize = 256 * 1024;

/// How a child becomes the program. Nothing here may allocate or take a lock when it is used.
pub struct Plan<'a> {
    /// The program.
    pub image: &'a Image,
    /// Its working folder.
    pub folder: &'a CStr,
    /// Its standard input, output and error.
    pub streams: [BorrowedFd<'a>; 3],
    /// Its limits.
    pub limits: &'a [(Resource, Rlimit)],
    /// The process that it is a child of.
    pub server: Pid,
    /// The files of the groups that it joins, by which it does.
    pub groups: &'a [OwnedFd],
    /// The group that it is born in.
    pub birthplace: Option<Birthplace<'a>>,
    /// The user and group that it becomes.
    pub user: Option<(Uid, Gid)>,
    /// The rules that it is under.
    pub rules: Option<BorrowedFd<'a>>,
    /// Whether those are to let it read its own folder in `/proc`.
    pub own_proc: bool,
    /// A filter of system calls that it is under and its thread is not.
    pub filter: Option<&'a BpfProgram>,
    /// Whether it gives up all capabilities.
    pub confined: bool,
}

/// What is known of a child that did not become the program.
struct Attempt<'a> {
    plan: &'a Plan<'a>,
    /// Where its streams are.
    streams: [libc::c_int; 3],
    /// Signals that may be handled otherwise than by default, a bit for each.
    signals: u64,
    /// The file of the group that it is to be in and was not born in.
    join: Option<BorrowedFd<'a>>,
    /// Set by the child.
    problem: Option<Errno>,
}

/// What children begin with, one at a time.
pub struct Cradle {
    /// Their stack.
    bottom: *mut libc::c_void,
    /// Descriptors that are nothing's between two starts.
    slots: [OwnedFd; 3],
    /// What they then are.
    nothing: Arc<OwnedFd>,
    signals: u64,
}

// SAFETY: the memory is this value's own and is used only by who holds it exclusively.
unsafe impl Send for Cradle {}

impl Cradle {
    /// Makes so many. Each takes descriptors as low as there are, and a start copies what is below them.
    ///
    /// # Errors
    /// When there is no memory, or no descriptors.
    pub fn make(count: usize) -> io::Result<Vec<Self>> {
        let open = || rustix::fs::open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
        let nothing = Arc::new(open()?);
        let signals = signals();
        let make = |_| {
            let slots = [open()?, open()?, open()?];
            Ok(Self { bottom: Self::stack()?, slots, nothing: nothing.clone(), signals })
        };
        (0..count).map(make).collect()
    }

    fn stack() -> io::Result<*mut libc::c_void> {
        // SAFETY: a fresh private mapping, which aliases nothing.
        let bottom = unsafe {
            libc::mmap(
                ptr::null_mut(),
                STACK_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if bottom == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the lowest page of the mapping just made: whoever runs over the end faults there.
        unsafe { libc::mprotect(bottom, rustix::param::page_size(), libc::PROT_NONE) };
        Ok(bottom)
    }

    /// Puts these into the slots.
    fn put(&mut self, ends: [BorrowedFd<'_>; 3]) -> io::Result<()> {
        for (slot, end) in self.slots.iter_mut().zip(ends) {
            rustix::io::dup3(end, slot, DupFlags::CLOEXEC)?;
        }
        Ok(())
    }

    /// Starts the program; gives it, and a descriptor of it that is readable when it has ended.
    ///
    /// # Errors
    /// When there can be no process, or it could not become the program.
    pub fn spawn(&mut self, plan: &Plan<'_>) -> io::Result<(Pid, OwnedFd)> {
        self.put(plan.streams)?;
        let streams = self.slots.each_ref().map(AsRawFd::as_raw_fd);
        let mut attempt = Attempt { plan, streams, signals: self.signals, join: None, problem: None };
        let stack = Stack { bottom: self.bottom, bytes: STACK_BYTES };
        let blocked = Blocked::all();
        let with = (&raw mut attempt).cast();
        // SAFETY: the stack is valid and ours; `attempt` outlives the child's use of it, as the kernel holds this
        // thread until the child has left this memory. Signals are blocked, so no handler of the server runs in
        // the child on the server's memory.
        let born = |folder| unsafe { clone::child_in(folder, &stack, begin, with) };
        let made = plan.birthplace.and_then(|birthplace| birthplace.folder).and_then(born).unwrap_or_else(|| {
            attempt.join = plan.birthplace.map(|birthplace| birthplace.join);
            // SAFETY: as above.
            unsafe { clone::child(&stack, begin, (&raw mut attempt).cast()) }
        });
        drop(blocked);
        let nothing = self.nothing.clone();
        // Or the pipes would stay open. It can't fail: all of them are open.
        let _ = self.put([nothing.as_fd(); 3]);
        let (pid, handle) = made?;
        let Some(problem) = attempt.problem else { return Ok((pid, handle)) };
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
        Err(problem.into())
    }
}

impl Drop for Cradle {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this size, and no child is on it.
        unsafe { libc::munmap(self.bottom, STACK_BYTES) };
    }
}

/// All signals of this thread, kept back as long as this lives.
struct Blocked(libc::sigset_t);

impl Blocked {
    fn all() -> Self {
        // SAFETY: both sets are ours, and an all-zero one is valid.
        unsafe {
            let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
            libc::sigfillset(&raw mut all);
            libc::pthread_sigmask(libc::SIG_BLOCK, &raw const all, &raw mut before);
            Self(before)
        }
    }
}

impl Drop for Blocked {
    fn drop(&mut self) {
        // SAFETY: the set that was there before.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

/// Where the child begins, and where it ends if it does not become the program.
extern "C" fn begin(attempt: *mut libc::c_void) -> libc::c_int {
    // SAFETY: what `spawn` passed, whose thread waits.
    let attempt = unsafe { &mut *attempt.cast::<Attempt<'_>>() };
    let Err(problem) = become_program(attempt);
    attempt.problem = Some(problem);
    // SAFETY: ends this process alone, with nothing of the server's run.
    unsafe { libc::_exit(127) }
}

/// What never is: the program goes on instead.
enum Never {}

fn become_program(attempt: &Attempt<'_>) -> Result<Never, Errno> {
    let Attempt { plan, streams, signals, join, .. } = *attempt;
    default_signals(signals);
    rustix::process::setsid()?;
    for group in plan.groups.iter().map(AsFd::as_fd).chain(join) {
        // Zero is whoever writes.
        rustix::io::write(group, b"0")?;
    }
    // Before the limit of open files, which the server may be above.
    if let Some(rules) = plan.rules.filter(|_| plan.own_proc) {
        allow_own_proc(rules)?;
    }
    rustix::process::chdir(plan.folder)?;
    for (resource, limit) in plan.limits {
        rustix::process::setrlimit(*resource, *limit)?;
    }
    if let Some((uid, gid)) = plan.user {
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    }
    // After the change of user, which takes it back.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    // The server may have died before the line above.
    if rustix::process::getppid() != Some(plan.server) {
        return Err(Errno::SRCH);
    }
    rustix::thread::set_no_new_privs(true)?;
    if plan.confined {
        drop_capabilities()?;
    }
    if let Some(rules) = plan.rules {
        restrict(rules)?;
    }
    take_descriptors(streams)?;
    if let Some(filter) = plan.filter {
        // Where it fails it has asked the kernel for just that.
        seccompiler::apply_filter(filter).map_err(|_| errno())?;
    }
    unblock_signals();
    Err(plan.image.exec())
}

fn errno() -> Errno {
    Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::IO)
}

fn done(result: libc::c_long) -> Result<(), Errno> {
    if result == 0 { Ok(()) } else { Err(errno()) }
}

/// The signals that this process may not leave to their defaults: all standard ones, with those that C libraries keep
/// for themselves; and of the others, which it never handles, what it was started to ignore.
fn signals() -> u64 {
    const STANDARD: u64 = (1 << 34) - 1;
    static OTHERS: OnceLock<u64> = OnceLock::new();
    let uncatchable = [libc::SIGKILL, libc::SIGSTOP].map(bit).into_iter().fold(0, std::ops::BitOr::bitor);
    let others = OTHERS.get_or_init(|| (35..=64).filter(|signal| !is_default(*signal)).map(bit).sum());
    STANDARD & !uncatchable | others
}

fn bit(signal: libc::c_int) -> u64 {
    1 << (signal - 1)
}

fn is_default(signal: libc::c_int) -> bool {
    // The kernel's layout begins with what handles it, on every architecture of ours.
    let mut action = [0_u64; 8];
    // SAFETY: the kernel writes a struct that is smaller than `action`, and reads nothing.
    let asked =
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, ptr::null::<u64>(), action.as_mut_ptr(), 8_usize) };
    asked == 0 && action.first() == Some(&0)
}

/// What the server ignores, because of how it was itself started, a program must not ignore too; and what it
/// handles must not be handled in the child.
fn default_signals(signals: u64) {
    // Zeros are SIG_DFL with no flags and an empty mask, in the kernel's layout on every architecture;
    // that of libc keeps some numbers for itself and would leave those ignored.
    let action = [0_u64; 8];
    for signal in (1..=64_i32).filter(|signal| signals & bit(*signal) != 0) {
        // SAFETY: the kernel reads a struct that is smaller than `action`, and writes nothing.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, action.as_ptr(), ptr::null_mut::<u64>(), 8_usize) };
    }
}

fn unblock_signals() {
    let none = 0_u64;
    // SAFETY: the kernel reads a set of 64 bits.
    unsafe {
        libc::syscall(libc::SYS_rt_sigprocmask, libc::SIG_SETMASK, &raw const none, ptr::null_mut::<u64>(), 8_usize)
    };
}

fn drop_capabilities() -> Result<(), Errno> {
    // `_LINUX_CAPABILITY_VERSION_3`, and this process; then three empty sets, in two halves each.
    let (header, sets) = ([0x2008_0522_u32, 0], [0_u32; 6]);
    // SAFETY: both arrays have the layout and size that this version has, and are only read.
    done(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) })
}

/// The kernel's `struct landlock_path_beneath_attr`.
#[repr(C, packed)]
struct PathBeneath {
    allowed_access: u64,
    parent_fd: i32,
}

/// Lets the process that it is read what `/proc` tells of it; only here is known which folder that is.
fn allow_own_proc(rules: BorrowedFd<'_>) -> Result<(), Errno> {
    const PATH_BENEATH: libc::c_int = 1;
    const READ_FILE_AND_FOLDER: u64 = (1 << 2) | (1 << 3);
    let own = rustix::fs::open(c"/proc/self", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let rule = PathBeneath { allowed_access: READ_FILE_AND_FOLDER, parent_fd: own.as_raw_fd() };
    // SAFETY: the rule has the kernel's layout, and is only read.
    done(unsafe { libc::syscall(libc::SYS_landlock_add_rule, rules.as_raw_fd(), PATH_BENEATH, &raw const rule, 0_u32) })
}

fn restrict(rules: BorrowedFd<'_>) -> Result<(), Errno> {
    // SAFETY: a system call on plain numbers.
    done(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, rules.as_raw_fd(), 0_u32) })
}

/// Gives this process descriptors of its own: its streams, and nothing else of what is open in the server, whoever
/// opened it.
fn take_descriptors(streams: [libc::c_int; 3]) -> Result<(), Errno> {
    let [input, output, errors] = streams;
    let first = input.max(output).max(errors) + 1;
    // What is below is copied and the rest is not, which the server goes on with.
    // SAFETY: a system call on plain numbers, which touches no memory.
    done(unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, libc::CLOSE_RANGE_UNSHARE) })?;
    for (stream, number) in streams.into_iter().zip(0..) {
        // SAFETY: the descriptors are this process's alone from here on.
        if unsafe { libc::dup2(stream, number) } < 0 {
            return Err(errno());
        }
    }
    // SAFETY: as above.
    done(unsafe { libc::syscall(libc::SYS_close_range, 3, first, 0) })
}

/// The version of Landlock that the kernel has; 0 where it has none.
pub fn landlock_version() -> u32 {
    const VERSION: u32 = 1;
    // SAFETY: asked so, the kernel reads no memory.
    let found = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, ptr::null::<u8>(), 0_usize, VERSION) };
    u32::try_from(found).unwrap_or_default()
}

/// The peak of this process's resident memory, in bytes.
pub fn own_peak() -> u64 {
    // SAFETY: an all-zero rusage is a valid one: it holds numbers only; the kernel fills it.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        // The peak is the process's all the same, and the time of its other threads is not added up.
        libc::getrusage(libc::RUSAGE_THREAD, &raw mut usage);
        usage
    };
    u64::try_from(usage.ru_maxrss).unwrap_or_default().saturating_mul(1024)
}
