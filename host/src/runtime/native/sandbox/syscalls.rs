//! The system calls that no program needs, by seccomp(2): refused with EPERM.
//!
//! A list of what is refused, not of what is allowed: programs are anybody's, and a call that is refused
//! where a library counts on it is a failure that nobody understands. What is refused acts on the machine, on
//! other processes, or on objects of the kernel that would outlive the call.
//!
//! The filters are put on the thread that starts programs, which needs none of this itself, and cost a start
//! nothing, as children inherit them. But clone3(2) is what a program is born in a control group by, where those are
//! of the second version.

use std::collections::BTreeMap;

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch, sock_filter,
};

/// Namespaces in the flags of clone(2).
const NAMESPACES: [i32; 7] = [
    libc::CLONE_NEWNS,
    libc::CLONE_NEWUTS,
    libc::CLONE_NEWIPC,
    libc::CLONE_NEWUSER,
    libc::CLONE_NEWPID,
    libc::CLONE_NEWNET,
    libc::CLONE_NEWCGROUP,
];

const REFUSED: &[i64] = &[
    // The machine: clocks, modules, power, accounting, swap, quotas, the log.
    libc::SYS_acct,
    libc::SYS_adjtimex,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_finit_module,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_lookup_dcookie,
    libc::SYS_nfsservctl,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_reboot,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    // Mounts and namespaces.
    libc::SYS_chroot,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
    libc::SYS_unshare,
    // Files past their paths.
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    // Other processes.
    libc::SYS_kcmp,
    libc::SYS_migrate_pages,
    libc::SYS_move_pages,
    libc::SYS_pidfd_getfd,
    libc::SYS_process_madvise,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_ptrace,
    // What outlives its process: keyrings, System V's objects, POSIX message queues.
    libc::SYS_add_key,
    libc::SYS_keyctl,
    libc::SYS_request_key,
    libc::SYS_mq_getsetattr,
    libc::SYS_mq_notify,
    libc::SYS_mq_open,
    libc::SYS_mq_timedreceive,
    libc::SYS_mq_timedsend,
    libc::SYS_mq_unlink,
    libc::SYS_msgctl,
    libc::SYS_msgget,
    libc::SYS_msgrcv,
    libc::SYS_msgsnd,
    libc::SYS_semctl,
    libc::SYS_semget,
    libc::SYS_semop,
    libc::SYS_semtimedop,
    libc::SYS_shmat,
    libc::SYS_shmctl,
    libc::SYS_shmdt,
    libc::SYS_shmget,
    // Large and seldom used parts of the kernel. io_uring would also make sockets past this filter.
    libc::SYS_bpf,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
];

#[cfg(target_arch = "x86_64")]
const REFUSED_HERE: &[i64] =
    &[libc::SYS_ioperm, libc::SYS_iopl, libc::SYS_modify_ldt, libc::SYS_sysfs, libc::SYS_uselib, libc::SYS_ustat];
#[cfg(not(target_arch = "x86_64"))]
const REFUSED_HERE: &[i64] = &[];

/// What Landlock does not see to, and only the owner of a file may do: its mode, its owner, its times and its
/// attributes, by its path. Refused where programs are the server's user. By number those that are newer than
/// the C library's list, the same everywhere: setxattrat, removexattrat, open_tree_attr and file_setattr.
const OF_OWNERS: &[i64] = &[
    libc::SYS_fchmodat,
    libc::SYS_fchmodat2,
    libc::SYS_fchownat,
    libc::SYS_lremovexattr,
    libc::SYS_lsetxattr,
    libc::SYS_removexattr,
    libc::SYS_setxattr,
    463,
    466,
    467,
    469,
];
#[cfg(target_arch = "x86_64")]
const OF_OWNERS_HERE: &[i64] =
    &[libc::SYS_chmod, libc::SYS_chown, libc::SYS_futimesat, libc::SYS_lchown, libc::SYS_utime, libc::SYS_utimes];
#[cfg(not(target_arch = "x86_64"))]
const OF_OWNERS_HERE: &[i64] = &[];

/// What a process may set of others of its user, by their number, which is this argument; 0 is itself.
const OF_PROCESSES: &[(i64, u8)] = &[
    (libc::SYS_ioprio_set, 1),
    (libc::SYS_sched_setaffinity, 0),
    (libc::SYS_sched_setattr, 0),
    (libc::SYS_sched_setparam, 0),
    (libc::SYS_sched_setscheduler, 0),
    (libc::SYS_setpriority, 1),
];

/// What programs of a thread may use beyond what all may.
#[derive(Debug, Clone, Copy)]
pub struct Allowed {
    /// The network.
    pub network: bool,
    /// To change what only owners may: they own nothing of others'.
    pub ownership: bool,
}

/// Filters, to be installed one after the other.
#[derive(Debug, Default, Clone)]
pub struct Filters {
    /// All but one.
    pub most: Vec<BpfProgram>,
    /// The one against clone3(2).
    pub clone3: Option<BpfProgram>,
}

/// The filters. A call of another architecture ends its process.
///
/// # Errors
/// When the library knows no filters for this machine, or would not compile them.
pub fn filters(allowed: Allowed) -> Result<Filters, seccompiler::Error> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = |rules, errno: i32| -> Result<BpfProgram, seccompiler::Error> {
        let refuse = SeccompAction::Errno(errno.unsigned_abs());
        Ok(SeccompFilter::new(rules, SeccompAction::Allow, refuse, arch)?.try_into()?)
    };
    // Its flags are in memory, where no filter looks: C libraries take clone(2) then.
    let unknown = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let mut most = vec![filter(refused(allowed)?, libc::EPERM)?];
    if cfg!(target_arch = "x86_64") {
        most.push(without_x32());
    }
    Ok(Filters { most, clone3: Some(filter(unknown, libc::ENOSYS)?) })
}

fn refused(allowed: Allowed) -> Result<BTreeMap<i64, Vec<SeccompRule>>, seccompiler::BackendError> {
    let word = |argument, operator, value| SeccompCondition::new(argument, SeccompCmpArgLen::Dword, operator, value);
    let has = |argument, bits: u64| word(argument, SeccompCmpOp::MaskedEq(bits), bits);
    let is_not = |argument, value: i32| word(argument, SeccompCmpOp::Ne, u64::from(value.unsigned_abs()));
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> =
        REFUSED.iter().chain(REFUSED_HERE).map(|call| (*call, Vec::new())).collect();
    let spaces = NAMESPACES.map(|space| SeccompRule::new(vec![has(0, u64::from(space.unsigned_abs()))?]));
    rules.insert(libc::SYS_clone, spaces.into_iter().collect::<Result<_, _>>()?);
    // A pair of sockets is a pipe with two ends; any other socket leads out.
    rules.insert(libc::SYS_socketpair, vec![SeccompRule::new(vec![is_not(0, libc::AF_UNIX)?])?]);
    let families = [libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let others = families.map(|family| is_not(0, family)).into_iter().collect::<Result<Vec<_>, _>>()?;
    // Of netlink only what tells of addresses and routes, by which names are resolved.
    let netlink = vec![word(0, SeccompCmpOp::Eq, libc::AF_NETLINK as u64)?, is_not(2, libc::NETLINK_ROUTE)?];
    let raw = vec![word(1, SeccompCmpOp::MaskedEq(0xf), libc::SOCK_RAW as u64)?, is_not(0, libc::AF_NETLINK)?];
    let sockets = vec![SeccompRule::new(others)?, SeccompRule::new(netlink)?, SeccompRule::new(raw)?];
    rules.insert(libc::SYS_socket, if allowed.network { sockets } else { Vec::new() });
    rules.insert(libc::SYS_prlimit64, vec![SeccompRule::new(vec![is_not(0, 0)?])?]);
    if !allowed.ownership {
        rules.extend(OF_OWNERS.iter().chain(OF_OWNERS_HERE).map(|call| (*call, Vec::new())));
        // Without a path it is for what is open.
        let path = SeccompCondition::new(1, SeccompCmpArgLen::Qword, SeccompCmpOp::Ne, 0)?;
        rules.insert(libc::SYS_utimensat, vec![SeccompRule::new(vec![path])?]);
        for (call, whose) in OF_PROCESSES {
            rules.insert(*call, vec![SeccompRule::new(vec![is_not(*whose, 0)?])?]);
        }
    }
    Ok(rules)
}

/// Ends who calls by the numbers of the x32 interface, which lie above [`X32`] under the same architecture and
/// so pass by every other filter.
fn without_x32() -> BpfProgram {
    const X32: u32 = 0x4000_0000;
    let instruction = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    vec![
        // The number is the first field of what a filter is given.
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 0, 1, X32),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_KILL_PROCESS),
        instruction(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_takes_no_longer_filters_than_these() {
        for (network, ownership) in [(false, false), (false, true), (true, false), (true, true)] {
            let Filters { most, clone3 } = filters(Allowed { network, ownership }).expect("they compile");
            assert!(clone3.is_some());
            assert!(most.iter().chain(&clone3).all(|filter| (1..4096).contains(&filter.len())), "BPF_MAXINSNS");
        }
    }
}
