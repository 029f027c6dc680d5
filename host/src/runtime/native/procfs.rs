//! What `/proc` tells of processes (proc(5)).
//!
//! A process may be gone at any moment, so everything here gives an `Option` or an empty list; only
//! [`Origin`] holds an identity that outlives the number.

use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read,
    sync::OnceLock,
};

use rustix::{
    fs::{Mode, OFlags},
    path::Arg,
    process::Pid,
};

/// How much of an environment is read, in bytes: the kernel lets one grow to a quarter of the stack
/// limit, which is a quarter of [`STACK_BYTES`](super::spawner::STACK_BYTES) here.
const ENVIRONMENT_BYTES: u64 = 4 * 1024 * 1024;

/// A process as one look found it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    /// Its number.
    pub pid: Pid,
    /// Its session; `None` for kernel threads.
    pub session: Option<Pid>,
    /// When it was started, in clock ticks since boot: with the number, an identity.
    pub started: u64,
    /// It has ended and waits to be reaped. A process whose first thread alone has ended has not.
    pub zombie: bool,
    /// Threads of it.
    pub threads: u64,
}

/// The longest record that is read, in bytes: a stat has some 50 numbers and a name.
const RECORD_BYTES: usize = 4096;

/// Hands on what a small file of the kernel's holds, which gives all of it at one read; `None` where there is none.
pub fn record<T>(path: impl Arg, parse: impl FnOnce(&str) -> Option<T>) -> Option<T> {
    let mut buffer = [0; RECORD_BYTES];
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let read = rustix::io::read(&file, &mut buffer).ok()?;
    parse(std::str::from_utf8(buffer.get(..read)?).ok()?)
}

/// The numbers of processes in a file of the kernel's.
pub fn listed(path: impl Arg) -> Vec<Pid> {
    let mut text = Vec::new();
    let Ok(file) = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()) else { return Vec::new() };
    let mut buffer = [0; RECORD_BYTES];
    while let Ok(read @ 1..) = rustix::io::read(&file, &mut buffer) {
        text.extend_from_slice(buffer.get(..read).unwrap_or_default());
    }
    let text = std::str::from_utf8(&text).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(number).collect()
}

/// The number of a process. The kernel writes 0 for one outside of our PID namespace, and -1 where it has none,
/// as for the session of a process that is just being reaped (`do_task_stat` in fs/proc/array.c).
pub fn number(text: &str) -> Option<Pid> {
    text.parse().ok().filter(|raw| *raw > 0).and_then(Pid::from_raw)
}

/// The process of that number, where there is one.
pub fn process(pid: Pid) -> Option<Process> {
    record(format!("/proc/{pid}/stat"), |stat| parse_stat(pid, stat)).map(|(process, _)| process)
}

/// Also gives the parent's number. The name of a program stands in brackets and may hold anything,
/// brackets too; the fields after the last one are numbers.
fn parse_stat(pid: Pid, stat: &str) -> Option<(Process, Option<Pid>)> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = number(fields.next()?);
    let session = number(fields.nth(1)?);
    let threads = fields.nth(13)?.parse().ok()?;
    let started = fields.nth(1)?.parse().ok()?;
    let zombie = matches!(state, "Z" | "X") && threads <= 1;
    Some((Process { pid, session, started, zombie, threads }, parent))
}

/// Who begot whom. Where the kernel lists the children of each thread (`CONFIG_PROC_CHILDREN`), the
/// lists are read when they are asked for; elsewhere all of `/proc` is read once.
#[derive(Debug)]
pub enum Family {
    /// By `/proc/PID/task/TID/children`.
    Listed,
    /// By the parents that all processes have named.
    Scanned(HashMap<Pid, Vec<Pid>>),
}

impl Family {
    /// The family as it is now.
    pub fn now() -> Self {
        static LISTED: OnceLock<bool> = OnceLock::new();
        let me = rustix::process::getpid();
        let listed = LISTED.get_or_init(|| fs::metadata(format!("/proc/{me}/task/{me}/children")).is_ok());
        if *listed { Self::Listed } else { Self::scan() }
    }

    fn scan() -> Self {
        let mut children: HashMap<Pid, Vec<Pid>> = HashMap::new();
        for pid in numbers("/proc") {
            if let Some((_, Some(parent))) = record(format!("/proc/{pid}/stat"), |stat| parse_stat(pid, stat)) {
                children.entry(parent).or_default().push(pid);
            }
        }
        Self::Scanned(children)
    }

    /// The children of a process.
    pub fn children(&self, pid: Pid) -> Vec<Pid> {
        match self {
            Self::Listed => numbers(&format!("/proc/{pid}/task"))
                .into_iter()
                .flat_map(|thread| listed(format!("/proc/{pid}/task/{thread}/children")))
                .collect(),
            Self::Scanned(children) => children.get(&pid).cloned().unwrap_or_default(),
        }
    }

    /// As [`children`](Self::children), of a process of which more is known.
    fn children_of(&self, process: &Process) -> Vec<Pid> {
        let pid = process.pid;
        match self {
            Self::Listed if process.zombie => Vec::new(),
            Self::Listed if process.threads == 1 => listed(format!("/proc/{pid}/task/{pid}/children")),
            _ => self.children(pid),
        }
    }

    /// Children of this process among which all adopted ones are. The kernel gives orphans to the
    /// first living thread of the reaper (`find_new_reaper` in kernel/exit.c), which is the main one.
    pub fn orphans(&self) -> Vec<Pid> {
        let me = rustix::process::getpid();
        match self {
            Self::Listed => listed(format!("/proc/{me}/task/{me}/children")),
            Self::Scanned(_) => self.children(me),
        }
    }

    /// All that descend from `root`, without it; parents before their children, at most `max`.
    pub fn descendants(&self, root: &Process, max: usize) -> Vec<Process> {
        let mut found: Vec<Process> = Vec::new();
        let mut next = self.children_of(root);
        while let Some(pid) = next.pop() {
            if found.len() >= max {
                break;
            }
            // A number that was given anew while we looked can make a ring.
            if found.iter().any(|known| known.pid == pid) {
                continue;
            }
            if let Some(process) = process(pid) {
                found.push(process);
                next.extend(self.children_of(&process));
            }
        }
        found
    }
}

fn numbers(folder: &str) -> Vec<Pid> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().filter_map(|entry| number(entry.file_name().to_str()?)).collect()
}

/// The resident memory of a process in bytes, with all that it shares: cheap, and never too little.
pub fn resident(process: &Process) -> u64 {
    let pages = |text: &str| text.split_ascii_whitespace().nth(1)?.parse::<u64>().ok();
    let bytes = |path: String| record(path, pages)?.checked_mul(rustix::param::page_size() as u64);
    let pid = process.pid;
    match bytes(format!("/proc/{pid}/statm")) {
        // Its first thread has ended, and with it its own sight of the memory that the others hold.
        Some(0) if process.threads > 1 => numbers(&format!("/proc/{pid}/task"))
            .into_iter()
            .filter_map(|thread| bytes(format!("/proc/{pid}/task/{thread}/statm")))
            .max()
            .unwrap_or_default(),
        found => found.unwrap_or_default(),
    }
}

/// What a process takes for itself in bytes: its part of what it shares with others, and nothing that
/// the kernel could drop and read again from a file. Takes the kernel a walk over the page tables.
pub fn proportional(process: &Process) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{}/smaps_rollup", process.pid)).ok()?;
    let kilobytes: Vec<u64> = text
        .lines()
        .filter_map(|line| line.split_once(':'))
        .filter(|(key, _)| matches!(*key, "Pss_Anon" | "Pss_Shmem" | "SwapPss"))
        .filter_map(|(_, value)| value.split_ascii_whitespace().next()?.parse().ok())
        .collect();
    if kilobytes.is_empty() { None } else { Some(kilobytes.iter().sum::<u64>().saturating_mul(1024)) }
}

/// The value of a variable in the environment that a process was started with.
pub fn variable(pid: Pid, name: &str) -> Option<String> {
    let mut bytes = Vec::new();
    File::open(format!("/proc/{pid}/environ")).ok()?.take(ENVIRONMENT_BYTES).read_to_end(&mut bytes).ok()?;
    bytes
        .split(|byte| *byte == 0)
        .filter_map(|entry| std::str::from_utf8(entry).ok()?.split_once('='))
        .find_map(|(key, value)| (key == name).then(|| value.to_owned()))
}

/// Whether a process has any environment. One that is becoming another program has none for a moment.
pub fn has_environment(pid: Pid) -> bool {
    File::open(format!("/proc/{pid}/environ")).and_then(|mut file| file.read(&mut [0])).is_ok_and(|read| read > 0)
}

/// Whether a process, or one that it descends from, gave up gaining privileges (`PR_SET_NO_NEW_PRIVS`),
/// which can't be taken back.
pub fn no_new_privileges(pid: Pid) -> bool {
    fs::read_to_string(format!("/proc/{pid}/status"))
        .is_ok_and(|text| text.lines().any(|line| line.split_ascii_whitespace().eq(["NoNewPrivs:", "1"])))
}

/// Every process there is.
pub fn everyone() -> Vec<Pid> {
    numbers("/proc")
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command, Stdio};

    use super::*;

    fn pid(raw: u32) -> Pid {
        Pid::from_raw(raw as i32).expect("a pid is not 0")
    }

    #[test]
    fn reads_a_stat_whose_name_has_brackets_and_spaces() {
        let tail = "7 8 9 0 -1 4194304 1 0 0 0 0 0 0 0 20 0 3 0 123456 0 0";
        let (found, parent) = parse_stat(pid(42), &format!("42 (a) Z (b c) S {tail}")).expect("a stat");
        assert_eq!((found.threads, found.started, found.zombie), (3, 123_456, false));
        assert_eq!((parent, found.session), (Some(pid(7)), Some(pid(9))));
        // The first thread has ended and others live on.
        assert!(!parse_stat(pid(42), &format!("42 (x) Z {tail}")).expect("a stat").0.zombie);
        // Just being reaped.
        let (reaped, parent) = parse_stat(pid(42), &format!("42 (x) X 0 -1 -1 {}", &tail[6..])).expect("a stat");
        assert_eq!((parent, reaped.session), (None, None));
        assert!(parse_stat(pid(42), "42 (x) S 1").is_none() && parse_stat(pid(42), "").is_none());
    }

    /// `sh` with a child that sleeps.
    fn parent_and_child() -> (Child, Pid) {
        use std::io::BufRead;
        let mut child = Command::new("sh")
            .args(["-c", "sleep 60 & echo $!; wait"])
            .stdout(Stdio::piped())
            .spawn()
            .expect("sh starts");
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        (child, pid(line.trim().parse().expect("a number")))
    }

    #[test]
    fn both_ways_find_the_same_family() {
        let (mut parent, child) = parent_and_child();
        let root = process(pid(parent.id())).expect("it is there");
        let me = process(rustix::process::getpid()).expect("we are");
        for family in [Family::Listed, Family::scan()] {
            assert_eq!(family.children(root.pid), [child], "{family:?}");
            let found = family.descendants(&root, 10);
            assert_eq!(found.iter().map(|process| process.pid).collect::<Vec<_>>(), [child]);
            assert!(family.descendants(&me, 10).iter().any(|process| process.pid == child));
            assert!(family.descendants(&root, 0).is_empty());
        }
        rustix::process::kill_process(child, rustix::process::Signal::KILL).expect("it is there");
        parent.wait().expect("it ends");
    }

    #[test]
    fn knows_its_own_memory_and_privileges() {
        let me = process(rustix::process::getpid()).expect("we are");
        let (all, own) = (resident(&me), proportional(&me).expect("a kernel of 5.4 or later"));
        assert!(own > 0 && own <= all, "{own} of {all}");
        assert!(!no_new_privileges(me.pid));
        assert_eq!(variable(me.pid, "PATH"), std::env::var("PATH").ok());
    }
}
