//! The processes of one call.

use std::{
    collections::HashSet,
    mem,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions, WaitOptions},
    time::ClockId,
};
use tokio::sync::oneshot;

use super::{FIRST_SAMPLE, PASS, SAMPLE};
use crate::{
    function::{InvocationId, Usage},
    runtime::native::{
        procfs::{self, Family, Process},
        sandbox::groups::{Group, Taken},
    },
};

/// How many processes and threads a call may have at one time.
pub const MAX_PROCESSES: usize = 256;

/// How long after SIGKILL a process may take to go. Beyond it, it hangs in the kernel (in the state `D`), and
/// the call is told to wait no longer.
const STUCK: Duration = Duration::from_secs(1);

/// How many times as long as it took to look at a call, it is then let alone: one with many processes must not
/// take the keeper from all others.
const REST: u32 = 8;

/// What a call took too much of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// Memory.
    Memory,
    /// Processes and threads.
    Processes,
    /// Room in its folder.
    Folder,
}

/// What is known of a call after its processes are gone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Remains {
    /// How its program ended; `None` when it hangs in the kernel, or was reaped behind our back.
    pub status: Option<ExitStatus>,
    /// Whether all processes of the call are known to be gone.
    pub gone: bool,
    /// The most memory that all its processes were seen to take at one time, in bytes.
    pub sampled_peak: u64,
    /// The most memory that one of them took, as the kernel counts: with what the server itself had
    /// when it forked, and with files that were mapped. In bytes.
    pub counted_peak: u64,
    /// Processor time of the program and of those of its descendants that were reaped below it, in microseconds.
    pub reaped_cpu_us: u64,
    /// What its control group counted.
    pub taken: Taken,
}

impl Remains {
    /// What all processes of the call took together.
    pub fn usage(&self) -> Usage {
        Usage {
            memory_peak_bytes: Some(self.taken.memory_peak.unwrap_or_default().max(self.sampled_peak)),
            cpu_us: Some(self.taken.cpu_us.unwrap_or(self.reaped_cpu_us)),
        }
    }
}

#[derive(Debug)]
pub struct Tree {
    id: InvocationId,
    main: Option<Pid>,
    memory_bytes: u64,
    group: Option<Arc<Group>>,
    excess: Option<oneshot::Sender<Excess>>,
    peak: u64,
    /// Processes that the last look at the running call, and each look at the ending one, found: with
    /// their starts, since numbers are given anew.
    seen: HashSet<(Pid, u64)>,
    sessions: HashSet<Pid>,
    /// What the look at hand found: the program, what descends from it, and then what we adopted.
    program: Option<Process>,
    found: Vec<Process>,
    began: Instant,
    /// How much work the look at hand has been so far.
    took: Duration,
    next: Option<Instant>,
    ending: Option<Ending>,
}

#[derive(Debug)]
struct Ending {
    kill_at: Instant,
    reply: Option<oneshot::Sender<Remains>>,
    /// Those who have got their SIGTERM.
    asked: HashSet<(Pid, u64)>,
}

impl Tree {
    pub fn new(
        id: InvocationId,
        memory_bytes: u64,
        group: Option<Arc<Group>>,
        excess: oneshot::Sender<Excess>,
    ) -> Self {
        Self {
            id,
            main: None,
            memory_bytes,
            group,
            excess: Some(excess),
            peak: 0,
            seen: HashSet::new(),
            sessions: HashSet::new(),
            program: None,
            found: Vec::new(),
            began: Instant::now(),
            took: Duration::ZERO,
            next: None,
            ending: None,
        }
    }

    pub fn id(&self) -> InvocationId {
        self.id
    }

    pub fn main(&self) -> Option<Pid> {
        self.main
    }

    pub fn started(&mut self, main: Pid, at: Instant) {
        self.main = Some(main);
        self.sessions.insert(main);
        self.began = at;
        self.next = Some(self.began + FIRST_SAMPLE);
    }

    /// From now on the processes are ended. A second call changes nothing but who is told.
    pub fn end(&mut self, grace: Duration, reply: Option<oneshot::Sender<Remains>>) {
        if let Some(ending) = &mut self.ending {
            if reply.is_some() {
                ending.reply = reply;
            }
            return;
        }
        let now = Instant::now();
        self.ending = Some(Ending { kill_at: now + grace, reply, asked: HashSet::new() });
        self.next = Some(now);
    }

    /// When it is to be looked at.
    pub fn due(&self) -> Option<Instant> {
        self.next
    }

    /// Whether its processes don't go, whatever we do.
    pub fn stuck(&self) -> bool {
        self.ending.as_ref().is_some_and(|ending| ending.kill_at.elapsed() > STUCK)
    }

    /// Whether the process was seen in this call, or is in a session of it.
    pub fn knows(&self, process: &Process) -> bool {
        self.seen.contains(&(process.pid, process.started))
            || process.session.is_some_and(|session| self.sessions.contains(&session))
    }

    /// Whether a process is in the call's control group, of which the kernel says this (cgroups(7), `/proc/PID/cgroup`).
    pub fn holds(&self, groups: &str) -> bool {
        self.group.as_ref().is_some_and(|group| group.is_in(groups))
    }

    fn is_due(&self, now: Instant) -> bool {
        self.next.is_some_and(|next| next <= now)
    }

    /// Begins a look, if it is time: finds what descends from the program.
    pub fn look(&mut self, now: Instant, family: &Family) {
        self.found.clear();
        if let Some(main) = self.main.filter(|_| self.is_due(now)) {
            let before = worked();
            self.program = procfs::process(main);
            self.found = self.program.map(|program| family.descendants(&program, MAX_PROCESSES)).unwrap_or_default();
            self.took = worked().saturating_sub(before);
        }
    }

    /// Takes an orphan and what descends from it into the look, if it is time for one.
    pub fn adopt(&mut self, orphan: Process, now: Instant, family: &Family) {
        if !self.is_due(now) {
            return;
        }
        self.found.push(orphan);
        let room = MAX_PROCESSES.saturating_sub(self.found.len());
        self.found.extend(family.descendants(&orphan, room));
    }

    /// Ends the look: measures a running call, ends the processes of an ending one. True when the
    /// call is over and done with.
    pub fn attend(&mut self, now: Instant) -> bool {
        let (Some(main), true) = (self.main, self.is_due(now)) else { return false };
        let before = worked();
        self.remember();
        match self.ending.take() {
            None => {
                self.measure();
                let age = now.saturating_duration_since(self.began);
                self.next = Some(self.rested(before) + (age / 8).clamp(FIRST_SAMPLE, SAMPLE));
                false
            }
            Some(ending) => {
                let over = self.finish(main, ending);
                self.next = Some(self.rested(before) + PASS);
                over
            }
        }
    }

    /// When it has been let alone for long enough after this look, before whose second part the keeper had worked for
    /// so long.
    fn rested(&self, before: Duration) -> Instant {
        Instant::now() + (self.took + worked().saturating_sub(before)) * REST
    }

    fn remember(&mut self) {
        if self.ending.is_none() {
            self.seen.clear();
            self.sessions.clear();
            self.sessions.extend(self.main);
        }
        self.seen.extend(self.found.iter().map(|process| (process.pid, process.started)));
        self.sessions.extend(self.found.iter().filter_map(|process| process.session));
    }

    fn measure(&mut self) {
        self.found.extend(self.program);
        let threads: u64 = self.found.iter().map(|process| process.threads).sum();
        // The cheap number is never too little, so most looks need no other.
        let mut taken: u64 = self.found.iter().map(procfs::resident).sum();
        if taken > nearly(self.memory_bytes) {
            let exact = |process: &Process| procfs::proportional(process).unwrap_or_else(|| procfs::resident(process));
            taken = self.found.iter().map(exact).sum();
        }
        self.peak = self.peak.max(taken);
        let excess = if taken > self.memory_bytes {
            Excess::Memory
        } else if threads > MAX_PROCESSES as u64 || self.found.len() >= MAX_PROCESSES {
            Excess::Processes
        } else {
            return;
        };
        if let Some(told) = self.excess.take() {
            let _ = told.send(excess);
        }
    }

    fn finish(&mut self, main: Pid, mut ending: Ending) -> bool {
        // What the family does not show may be in its group: it has been forked since.
        let hidden = self.found.is_empty().then(|| self.group.as_ref().map(|group| group.members())).flatten();
        let hidden: Vec<Pid> = hidden.unwrap_or_default().into_iter().filter(|pid| *pid != main).collect();
        // The program's number, and with it that of its group, stays taken until it is reaped, and so it is
        // reaped last.
        if self.found.is_empty()
            && hidden.is_empty()
            && let Some(reaped) = reap_with_usage(main)
        {
            if let Some(reply) = ending.reply {
                let taken = self.group.as_ref().map(|group| group.taken()).unwrap_or_default();
                let _ = reply.send(Remains { sampled_peak: self.peak, taken, ..reaped });
            }
            return true;
        }
        let kill = Instant::now() >= ending.kill_at;
        if kill {
            // At one stroke, so that one that forks can't outrun it.
            let _ = rustix::process::kill_process_group(main, Signal::KILL);
            if let Some(group) = &self.group {
                group.kill();
            }
        } else if ending.asked.insert((main, 0)) {
            let _ = rustix::process::kill_process(main, Signal::TERM);
        }
        for process in mem::take(&mut self.found).iter().filter(|process| !process.zombie) {
            if kill {
                send(process, Signal::KILL);
            } else if ending.asked.insert((process.pid, process.started)) {
                send(process, Signal::TERM);
            }
        }
        if ending.kill_at.elapsed() > STUCK
            && let Some(reply) = ending.reply.take()
        {
            tracing::error!(invocation = %self.id, program = %main, "the kernel does not let a killed process go");
            let _ = reply.send(Remains { status: status(main), sampled_peak: self.peak, ..Remains::default() });
        }
        self.ending = Some(ending);
        false
    }
}

/// The processor time of the keeper so far. What it waits for a processor says nothing of the work that a call is, and on
/// a busy machine it would let calls alone for too long.
fn worked() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(time).unwrap_or_default()
}

/// Nine tenths: what an allocation failed at is rarely the last byte.
pub fn nearly(limit: u64) -> u64 {
    limit / 10 * 9
}

/// Sends a signal to the process that was found, and to no other that has its number since.
pub fn send(found: &Process, signal: Signal) {
    let Ok(handle) = rustix::process::pidfd_open(found.pid, PidfdFlags::empty()) else { return };
    if procfs::process(found.pid).is_some_and(|now| now.started == found.started) {
        // It may have ended in between.
        let _ = rustix::process::pidfd_send_signal(&handle, signal);
    }
}

/// Reaps an adopted process that has ended.
pub fn reap(pid: Pid) {
    let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
}

/// How a child has ended that is not to be reaped yet; `None` while it runs.
fn status(child: Pid) -> Option<ExitStatus> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let ended = rustix::process::waitid(WaitId::Pid(child), options).ok()??;
    // As wait(2) has them.
    let raw = ended.exit_status().map_or_else(|| ended.terminating_signal(), |code| Some((code & 0xff) << 8))?;
    Some(ExitStatus::from_raw(raw))
}

/// Reaps a child that has ended: its status, and what it took. `None` while it runs; no status when it is no
/// child of ours any more.
pub fn reap_with_usage(pid: Pid) -> Option<Remains> {
    let mut status = 0;
    // SAFETY: an all-zero rusage is a valid one: it holds numbers only.
    let mut usage: libc::rusage = unsafe { mem::zeroed() };
    // SAFETY: both pointers are to live variables of the right types, and the call keeps neither.
    let reaped = unsafe { libc::wait4(pid.as_raw_nonzero().get(), &raw mut status, libc::WNOHANG, &raw mut usage) };
    let number = |number: libc::c_long| u64::try_from(number).unwrap_or_default();
    let microseconds = |time: libc::timeval| number(time.tv_sec) * 1_000_000 + number(time.tv_usec);
    match reaped {
        0 => None,
        _ if reaped < 0 => Some(Remains::default()),
        _ => Some(Remains {
            status: Some(ExitStatus::from_raw(status)),
            gone: true,
            counted_peak: number(usage.ru_maxrss).saturating_mul(1024),
            reaped_cpu_us: microseconds(usage.ru_utime) + microseconds(usage.ru_stime),
            ..Remains::default()
        }),
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn how_a_child_ended_can_be_known_before_it_is_reaped() {
        for (script, code, signal) in
            [("exit 0", Some(0), None), ("exit 77", Some(77), None), ("kill -9 $$", None, Some(9))]
        {
            let mut child = Command::new("/bin/sh").args(["-c", script]).spawn().expect("a shell");
            let pid = Pid::from_child(&child);
            rustix::process::waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).expect("it ends");
            let before = status(pid).expect("it has ended");
            assert_eq!((before.code(), before.signal()), (code, signal), "{script}");
            let reaped = reap_with_usage(pid).expect("it has ended");
            assert!(reaped.gone);
            assert_eq!(reaped.status, Some(before), "{script}");
            assert!(child.wait().is_err(), "it is reaped");
        }
        let mut running = Command::new("/bin/sleep").arg("60").spawn().expect("sleep");
        assert_eq!(status(Pid::from_child(&running)), None);
        running.kill().expect("ours");
        running.wait().expect("ended");
    }
}
