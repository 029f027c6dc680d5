//! Making a process that shares this one's memory and descriptors until it is another program.
//!
//! By clone3(2) into a control group, which nothing else can; the C library has no function for it. Else by clone(2).

use std::{
    ffi::{c_int, c_long, c_void},
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    ptr,
};

use rustix::process::Pid;

/// What a child begins in, and is to leave only by its end or by exec.
pub type Begin = extern "C" fn(*mut c_void) -> c_int;

/// A child, and a descriptor of it that is readable when it has ended.
pub type Made = io::Result<(Pid, OwnedFd)>;

/// The stack of a child.
pub struct Stack {
    /// Its lowest byte.
    pub bottom: *mut c_void,
    /// Its size in bytes; with `bottom` a multiple of 16.
    pub bytes: usize,
}

/// The thread that asks waits until the child has left this memory.
const FLAGS: c_int = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_VFORK | libc::CLONE_PIDFD;

/// Makes a child that begins in `begin` with `with`, and in this control group of the second version. `None` where that
/// can't be: for the want of clone3(2), which sandboxes around this server may refuse, or of such groups in it.
///
/// # Safety
/// The stack is valid, and nobody else's until the child has left this memory. `begin` may be called with `with`, on this
/// process's memory while all its other threads go on, and never returns. No handler of a signal may be called in the child.
#[cfg(target_arch = "x86_64")]
pub unsafe fn child_in(group: BorrowedFd<'_>, stack: &Stack, begin: Begin, with: *mut c_void) -> Option<Made> {
    // What the C library's headers say does not fit the type that they say it has.
    const INTO_CGROUP: u64 = 0x2_0000_0000;
    let mut handle: c_int = -1;
    // SAFETY: zeros are a valid one: it holds numbers only.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.flags = u64::from(FLAGS.cast_unsigned()) | INTO_CGROUP;
    arguments.pidfd = (&raw mut handle).addr() as u64;
    arguments.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    arguments.stack = stack.bottom.addr() as u64;
    arguments.stack_size = stack.bytes as u64;
    arguments.cgroup = group.as_raw_fd().cast_unsigned().into();
    let result: c_long;
    // SAFETY: the kernel reads the arguments and writes the handle, and both live here. To this thread it is a system call,
    // which changes no registers but these. The child goes on with the same registers at the end of its own stack, which
    // is aligned as a call wants it, and stays in `begin`.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            // No frame is above this one.
            "xor ebp, ebp",
            "mov rdi, r13",
            "call r12",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw mut arguments,
            in("rsi") size_of_val(&arguments),
            in("r12") begin,
            in("r13") with,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    if result < 0 {
        let error = io::Error::from_raw_os_error(i32::try_from(-result).unwrap_or(libc::EINVAL));
        let unknown = matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM | libc::EINVAL | libc::EACCES));
        return if unknown { None } else { Some(Err(error)) };
    }
    // SAFETY: the kernel has just opened it for us.
    Some(unsafe { made(result, handle) })
}

/// As where there is no clone3(2).
///
/// # Safety
/// None needed.
#[cfg(not(target_arch = "x86_64"))]
pub unsafe fn child_in(_: BorrowedFd<'_>, _: &Stack, _: Begin, _: *mut c_void) -> Option<Made> {
    None
}

/// Makes a child that begins in `begin` with `with`, in the control groups of this process.
///
/// # Safety
/// As for [`child_in`].
pub unsafe fn child(stack: &Stack, begin: Begin, with: *mut c_void) -> Made {
    let mut handle: c_int = -1;
    let (flags, nothing) = (FLAGS | libc::SIGCHLD, ptr::null_mut::<c_void>());
    // SAFETY: the caller's promise; the stack grows down from its end, and the handle lives here.
    let pid = unsafe {
        libc::clone(begin, stack.bottom.byte_add(stack.bytes), flags, with, &raw mut handle, nothing, nothing)
    };
    if pid < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just opened it for us.
    unsafe { made(pid.into(), handle) }
}

/// # Safety
/// The handle is open, and nobody else's.
unsafe fn made(pid: c_long, handle: c_int) -> Made {
    // SAFETY: the caller's promise.
    let handle = unsafe { OwnedFd::from_raw_fd(handle) };
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    Ok((pid.ok_or_else(|| io::Error::other("a process without a number"))?, handle))
}

#[cfg(test)]
mod tests {
    use std::{fs, os::fd::AsFd, path::PathBuf};

    use rustix::{
        fs::{Mode, OFlags},
        process::WaitOptions,
    };

    use super::*;

    /// Puts the groups that it is in where the parent finds them, which is in the same memory.
    extern "C" fn tell(told: *mut c_void) -> c_int {
        // SAFETY: the parent waits, and passed one of these.
        let told = unsafe { &mut *told.cast::<([u8; 4096], usize)>() };
        let file = rustix::fs::open(c"/proc/self/cgroup", OFlags::RDONLY, Mode::empty());
        told.1 = file.and_then(|file| rustix::io::read(file, &mut told.0)).unwrap_or(0);
        // SAFETY: ends this process alone.
        unsafe { libc::_exit(7) }
    }

    fn child_tells(make: impl FnOnce(&Stack, *mut c_void) -> Made) -> String {
        let mut space = vec![0_u128; 4096];
        let stack = Stack { bottom: space.as_mut_ptr().cast(), bytes: size_of_val(space.as_slice()) };
        let mut told = ([0_u8; 4096], 0_usize);
        let (child, handle) = make(&stack, (&raw mut told).cast()).expect("a child");
        let (_, status) = rustix::process::waitpid(Some(child), WaitOptions::empty()).expect("waited").expect("ended");
        assert_eq!(status.exit_status(), Some(7));
        drop(handle);
        String::from_utf8_lossy(&told.0[..told.1]).into_owned()
    }

    /// Where groups of the second version are.
    fn unified() -> Option<PathBuf> {
        let mounts = fs::read_to_string("/proc/mounts").expect("mounts");
        mounts.lines().find_map(|line| {
            let fields: Vec<_> = line.split(' ').collect();
            (fields.get(2) == Some(&"cgroup2")).then(|| PathBuf::from(fields[1]))
        })
    }

    #[test]
    fn a_child_is_where_it_was_born_and_tells_by_the_same_memory() {
        let ours = fs::read_to_string("/proc/self/cgroup").expect("our groups");
        // SAFETY: the stack is the child's alone while its parent waits, and `tell` does not return.
        assert_eq!(child_tells(|stack, with| unsafe { child(stack, tell, with) }), ours);
        if !cfg!(target_arch = "x86_64") {
            return;
        }
        let made = unified().map(|root| root.join(format!("born-{}", std::process::id())));
        let Some(folder) = made.filter(|folder| fs::create_dir(folder).is_ok()) else {
            // There are no such groups here, or this may make none.
            return;
        };
        let group = rustix::fs::open(&folder, OFlags::PATH | OFlags::DIRECTORY, Mode::empty()).expect("the group");
        // SAFETY: as above.
        let born = |stack: &Stack, with| unsafe { child_in(group.as_fd(), stack, tell, with) }.expect("Linux 5.7");
        let told = child_tells(born);
        drop(group);
        fs::remove_dir(&folder).expect("nobody is left in it");
        assert!(told.contains(&format!("0::/born-{}\n", std::process::id())), "{told}");
    }
}
