//! Control groups: bounds on what all processes of a call take together, and the way to all of them at once.
//!
//! cgroups(7) of the first version, a hierarchy for each controller, of the second, or both beside each other:
//! from each is taken what it has. Below the server's own groups it makes one, `sharpfaas-…`, and in that
//! one for each seat, which the calls of the seat use one after the other. What there is of it depends on where
//! the server may write; [`Groups::lacks`] says what is missing.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use rustix::{
    fs::{Mode, OFlags},
    process::{Pid, Signal},
};

use self::{
    control::Control,
    hierarchy::{Hierarchy, Kind},
};
use crate::runtime::native::procfs;

mod control;
mod hierarchy;

/// What is asked of the kernel for all groups.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Processes and threads at one time.
    pub processes: u64,
    /// Processor time in percent of one core; 0: any.
    pub cpu_percent: u64,
}

/// The server's groups; removed when dropped.
#[derive(Debug)]
pub struct Groups {
    hierarchies: Vec<Hierarchy>,
    bounds: Bounds,
}

impl Groups {
    /// Makes the server's groups, wherever it may, and removes those of servers that are gone, with the processes
    /// in them. `None` where it may nowhere.
    #[must_use]
    pub fn make(bounds: Bounds) -> Option<Self> {
        let hierarchies = hierarchy::make_all();
        (!hierarchies.is_empty()).then_some(Self { hierarchies, bounds })
    }

    /// What can't be bound or done here, in words.
    #[must_use]
    pub fn lacks(&self) -> Vec<&'static str> {
        let has = |kind| self.hierarchies.iter().any(|hierarchy| hierarchy.has(kind));
        [(Kind::Memory, "memory"), (Kind::Processes, "processes"), (Kind::Cpu, "processor time")]
            .into_iter()
            .filter_map(|(kind, name)| (!has(kind)).then_some(name))
            .collect()
    }

    /// Whether its groups have a [birthplace](Group::birthplace).
    #[must_use]
    pub fn has_birthplaces(&self) -> bool {
        self.hierarchies.iter().any(|hierarchy| hierarchy.unified)
    }

    /// The group of a seat. Not to be made on a thread that starts programs: its rules let it write nothing here but
    /// what was opened before.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn group(&self, seat: u32) -> io::Result<Arc<Group>> {
        let mut group = Group { most_processes: self.bounds.processes, ..Group::default() };
        for hierarchy in &self.hierarchies {
            let folder = hierarchy.folder.join(format!("seat-{seat}"));
            match fs::create_dir(&folder) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            let members = folder.join("cgroup.procs");
            let open = |path: &Path, access| rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty());
            // The one thread that a process begins with is all of it. Moving a thread that is the one who asks takes
            // no lock that all forks on the machine hold, so a program that forks without end delays no other's
            // start; moving a process does, and waits for all processors besides.
            if hierarchy.unified {
                group.unified = Some(Unified {
                    folder: open(&folder, OFlags::PATH | OFlags::DIRECTORY)?,
                    join: open(&members, OFlags::WRONLY)?,
                    path: folder.clone(),
                    struck: AtomicBool::new(false),
                });
            } else {
                group.joins.push(open(&folder.join("tasks"), OFlags::WRONLY)?);
            }
            if hierarchy.has(Kind::Processes) {
                let most = Control::write(&folder.join("pids.max"))?;
                bound_processes(&most, self.bounds.processes)?;
                let now = Control::read(&folder.join("pids.current"))?;
                group.processes =
                    Some(Processes { most, now, events: Control::read(&folder.join("pids.events")).ok() });
            }
            if hierarchy.has(Kind::Memory) {
                group.memory = Some(Memory::open(&folder, hierarchy.unified)?);
            }
            if hierarchy.has(Kind::Cpu) {
                self.bound_cpu(&folder, hierarchy.unified)?;
            }
            if hierarchy.unified || hierarchy.has(Kind::Accounting) {
                let name = if hierarchy.unified { "cpu.stat" } else { "cpuacct.usage" };
                group.time = Some((Control::read(&folder.join(name))?, hierarchy.unified));
            }
            let server = hierarchy.folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            group.path = format!("/{server}/seat-{seat}");
            group.members.get_or_insert(members);
        }
        group.seen_cpu.store(group.cpu_now(), Ordering::Relaxed);
        Ok(Arc::new(group))
    }

    fn bound_cpu(&self, folder: &Path, unified: bool) -> io::Result<()> {
        // Short: one that has many threads takes all it may on all cores at once, and meanwhile the others wait.
        const PERIOD_US: u64 = 10_000;
        let cores = std::thread::available_parallelism().map_or(1, |cores| cores.get() as u64);
        // Something is left to end it with.
        let quota = self.bounds.cpu_percent.min(cores * 100 - 10).saturating_mul(PERIOD_US / 100);
        match (quota, unified) {
            (0, _) => Ok(()),
            (_, true) => fs::write(folder.join("cpu.max"), format!("{quota} {PERIOD_US}")),
            (_, false) => {
                fs::write(folder.join("cpu.cfs_period_us"), PERIOD_US.to_string())?;
                fs::write(folder.join("cpu.cfs_quota_us"), quota.to_string())
            }
        }
    }
}

impl Drop for Groups {
    fn drop(&mut self) {
        self.hierarchies.iter().for_each(|hierarchy| hierarchy::remove(&hierarchy.folder));
    }
}

/// The group of a seat, in every hierarchy.
#[derive(Debug, Default)]
pub struct Group {
    joins: Vec<OwnedFd>,
    members: Option<PathBuf>,
    /// The end of its path, which no other group has: `/`, the server's, `/`, its own.
    path: String,
    memory: Option<Memory>,
    processes: Option<Processes>,
    /// Where processor time is counted, and whether it is of the second version.
    time: Option<(Control, bool)>,
    unified: Option<Unified>,
    /// Whether it may have no more processes, because those in it are being ended.
    closed: AtomicBool,
    /// How many it had been refused by then: those after it say nothing of the call.
    refused: AtomicU64,
    /// What counters stood at when the call before this one had ended.
    seen_cpu: AtomicU64,
    seen_kills: AtomicU64,
    seen_refusals: AtomicU64,
    seen_memory: AtomicU64,
    /// The limit that is set, in bytes.
    limit: AtomicU64,
    most_processes: u64,
}

/// A group of the second version, which a process can be born in (`CLONE_INTO_CGROUP`, Linux 5.7).
#[derive(Debug, Clone, Copy)]
pub struct Birthplace<'a> {
    /// Its folder; none where the kernel would end whoever is born there.
    pub folder: Option<BorrowedFd<'a>>,
    /// The file that a process writes itself into where it was born elsewhere. That takes 15 ms and more of a machine
    /// that has not done so just before: the kernel lets every processor pass a point where none is forking.
    pub join: BorrowedFd<'a>,
}

/// What is of the second version.
#[derive(Debug)]
struct Unified {
    path: PathBuf,
    folder: OwnedFd,
    join: OwnedFd,
    /// Whether all in it were ended at one stroke. Of those who are born there afterwards some kernels (6.18 among them)
    /// end each at once: they compare how often that was done there with how often where the parent is.
    struck: AtomicBool,
}

/// Where memory is bound and counted.
#[derive(Debug)]
struct Memory {
    limit: Control,
    /// The limit of memory and swap together, which the first version has where it counts swap.
    both: Option<Control>,
    now: Control,
    /// Can be set back; the second version's since Linux 6.12, which refuses to open it for writing before.
    peak: Option<Control>,
    /// Where it is counted that the kernel ended a process.
    events: Control,
}

impl Memory {
    fn open(folder: &Path, unified: bool) -> io::Result<Self> {
        let file = |name: &str| folder.join(name);
        if unified {
            // A kernel without swap has no such file.
            let _ = fs::write(file("memory.swap.max"), "0");
            let _ = fs::write(file("memory.oom.group"), "1");
            return Ok(Self {
                limit: Control::write(&file("memory.max"))?,
                both: None,
                now: Control::read(&file("memory.current"))?,
                peak: Control::write(&file("memory.peak")).ok(),
                events: Control::read(&file("memory.events"))?,
            });
        }
        Ok(Self {
            limit: Control::write(&file("memory.limit_in_bytes"))?,
            both: Control::write(&file("memory.memsw.limit_in_bytes")).ok(),
            now: Control::read(&file("memory.usage_in_bytes"))?,
            peak: Control::write(&file("memory.max_usage_in_bytes")).ok(),
            events: Control::read(&file("memory.oom_control"))?,
        })
    }

    fn bound(&self, bytes: u64) -> io::Result<()> {
        let limit = bytes.to_string();
        // Both together may never be less than memory.
        self.both.iter().for_each(|both| drop(both.set("-1")));
        self.limit.set(&limit)?;
        self.both.iter().for_each(|both| drop(both.set(&limit)));
        Ok(())
    }
}

/// Where processes are bound.
#[derive(Debug)]
struct Processes {
    most: Control,
    /// How many there are, those that ended and were not reaped among them.
    now: Control,
    /// Where it is counted how often another one was refused.
    events: Option<Control>,
}

impl Processes {
    fn refusals(&self) -> u64 {
        self.events.as_ref().map_or(0, |events| events.field("max"))
    }
}

/// What a call took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    /// The most memory at one time, in bytes, with what the kernel kept of files for it; none where it is not
    /// counted.
    pub memory_peak: Option<u64>,
    /// Processor time in microseconds; none where it is not counted.
    pub cpu_us: Option<u64>,
    /// Whether the kernel ended a process of it for want of memory.
    pub starved: bool,
    /// Whether it was refused another process.
    pub crowded: bool,
}

impl Group {
    /// The files that a process writes itself into, beside the [birthplace](Self::birthplace).
    #[must_use]
    pub fn joins(&self) -> &[OwnedFd] {
        &self.joins
    }

    /// The group that a process is to be born in.
    #[must_use]
    pub fn birthplace(&self) -> Option<Birthplace<'_>> {
        self.unified.as_ref().map(|unified| {
            let folder = (!unified.struck.load(Ordering::Relaxed)).then(|| unified.folder.as_fd());
            Birthplace { folder, join: unified.join.as_fd() }
        })
    }

    /// Begins a call in it.
    ///
    /// # Errors
    /// When its limit can't be set.
    pub fn begin(&self, memory_bytes: u64) -> io::Result<()> {
        if let Some(processes) = self.processes.as_ref().filter(|_| self.closed.load(Ordering::Relaxed)) {
            bound_processes(&processes.most, self.most_processes)?;
            self.closed.store(false, Ordering::Relaxed);
        }
        let Some(memory) = &self.memory else { return Ok(()) };
        if self.limit.swap(memory_bytes, Ordering::Relaxed) != memory_bytes {
            memory.bound(memory_bytes).inspect_err(|_| self.limit.store(0, Ordering::Relaxed))?;
        }
        // What is left from the call before is what the kernel keeps of files.
        if let Some(peak) = &memory.peak {
            let _ = peak.set("0");
        }
        self.seen_memory.store(memory.now.number().unwrap_or_default(), Ordering::Relaxed);
        Ok(())
    }

    /// What the call took that has just ended in it.
    #[must_use]
    pub fn taken(&self) -> Taken {
        let since = |seen: &AtomicU64, now: u64| now.saturating_sub(seen.swap(now, Ordering::Relaxed));
        let mut taken = Taken::default();
        if let Some(memory) = &self.memory {
            let peak = memory.peak.as_ref().and_then(Control::number);
            taken.memory_peak = peak.map(|peak| peak.saturating_sub(self.seen_memory.load(Ordering::Relaxed)));
            taken.starved = since(&self.seen_kills, memory.events.field("oom_kill")) > 0;
        }
        if let Some(processes) = &self.processes {
            let now = processes.refusals();
            let counted = if self.closed.load(Ordering::Relaxed) { self.refused.load(Ordering::Relaxed) } else { now };
            taken.crowded = counted > self.seen_refusals.swap(now, Ordering::Relaxed);
        }
        if self.time.is_some() {
            taken.cpu_us = Some(since(&self.seen_cpu, self.cpu_now()));
        }
        taken
    }

    fn cpu_now(&self) -> u64 {
        match &self.time {
            None => 0,
            Some((file, true)) => file.field("usage_usec"),
            Some((file, false)) => file.number().unwrap_or_default() / 1000,
        }
    }

    /// Whether it is among the groups of a process, as `/proc/PID/cgroup` lists them.
    #[must_use]
    pub fn is_in(&self, groups: &str) -> bool {
        !self.path.is_empty() && groups.lines().any(|line| line.ends_with(&self.path))
    }

    /// The processes in it that have not ended. Not for a thread that starts programs, whose rules let it see none.
    #[must_use]
    pub fn members(&self) -> Vec<Pid> {
        self.members.as_deref().map(procfs::listed).unwrap_or_default()
    }

    /// Whether all that is left in it is one process, ended and not reaped or not, which has given back its memory; and
    /// it has counted what all of them took. Where it can't tell, that is not so.
    #[must_use]
    pub fn is_down_to_one(&self) -> bool {
        let (Some(memory), Some(processes), Some(_)) = (&self.memory, &self.processes, &self.time) else {
            return false;
        };
        // Somebody who looks at the memory of a process, as the keeper does, holds it for a moment after its end; the
        // next program would begin without room.
        let given_back = || memory.now.number().is_some_and(|now| now < self.limit.load(Ordering::Relaxed) / 4);
        memory.peak.is_some() && processes.now.number() == Some(1) && given_back()
    }

    /// Ends all of them: one by one, while there can be no more of them; where those can't be bound, at one stroke if the
    /// kernel can (Linux 5.14).
    pub fn kill(&self) {
        match (&self.processes, &self.unified) {
            (Some(processes), _) => {
                if !self.closed.swap(true, Ordering::Relaxed) {
                    self.refused.store(processes.refusals(), Ordering::Relaxed);
                    let _ = bound_processes(&processes.most, 0);
                }
            }
            (None, Some(unified)) => {
                unified.struck.store(true, Ordering::Relaxed);
                if fs::write(unified.path.join("cgroup.kill"), "1").is_ok() {
                    return;
                }
            }
            (None, None) => {}
        }
        for member in self.members() {
            let _ = rustix::process::kill_process(member, Signal::KILL);
        }
    }
}

fn bound_processes(file: &Control, most: u64) -> io::Result<()> {
    file.set(&most.to_string())
}
