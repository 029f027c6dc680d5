//! What a running server holds of the machine, as /proc tells it.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::server::{PATIENCE, Server};

/// What a call or a request must give back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holdings {
    /// Open descriptors, by what they are, without those of the database's own pool, of components that are kept
    /// loaded, and of control groups, folders and their rules that are kept for other calls.
    pub descriptors: BTreeMap<String, usize>,
    /// Threads by name, without those of the database's own pool.
    pub threads: BTreeMap<String, usize>,
    /// Processes that the server is the parent of, zombies among them.
    pub children: Vec<u32>,
}

impl Holdings {
    /// What the server holds now.
    pub fn of(server: &Server) -> Self {
        let own = format!("/proc/{}", server.pid());
        let mut descriptors = BTreeMap::new();
        for entry in fs::read_dir(format!("{own}/fd")).expect("it runs").flatten() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let target = target.display().to_string();
            let kept = ["sharpfaas.db", ".cwasm", "/seat-", "/run/sharpfaas/", "[landlock-ruleset]"];
            if !kept.iter().any(|kept| target.contains(kept)) {
                // Sockets and pipes have numbers of their own: those of one kind are alike.
                let kind = target.split(":[").next().unwrap_or_default().to_owned();
                *descriptors.entry(kind).or_default() += 1;
            }
        }
        let mut threads = BTreeMap::new();
        for entry in fs::read_dir(format!("{own}/task")).expect("it runs").flatten() {
            let name = fs::read_to_string(entry.path().join("comm")).unwrap_or_default().trim().to_owned();
            if !name.is_empty() && !name.starts_with("sqlx-") {
                *threads.entry(name).or_default() += 1;
            }
        }
        Self { descriptors, threads, children: children(server.pid()) }
    }

    /// Whether nothing is held here that was not held there.
    fn within(&self, before: &Self) -> bool {
        let fits = |now: &BTreeMap<String, usize>, then: &BTreeMap<String, usize>| {
            now.iter().all(|(name, count)| then.get(name).is_some_and(|before| count <= before))
        };
        fits(&self.descriptors, &before.descriptors) && fits(&self.threads, &before.threads) && self.children.is_empty()
    }
}

/// Waits until the server holds no more than it did. Idle threads of its pools end after ten seconds.
pub async fn given_back(server: &Server, before: &Holdings) {
    eventually("all is given back", || {
        let now = Holdings::of(server);
        if now.within(before) { Ok(()) } else { Err(format!("before {before:?}, now {now:?}")) }
    })
    .await;
}

/// Waits until it holds, and fails with what it last said when it never does.
pub async fn eventually(what: &str, holds: impl Fn() -> Result<(), String>) {
    let started = Instant::now();
    while let Err(how) = holds() {
        assert!(started.elapsed() < PATIENCE, "not so: {what}: {how}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The server's peak of resident memory, in bytes.
pub fn peak(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).expect("it runs");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("it has memory");
    let kib: u64 = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number");
    kib * 1024
}

/// The numbers of processes that a call has printed, as `pid N`.
pub fn printed_pids(call: &Value) -> Vec<u32> {
    let lines = call["output"].as_array().expect("lines").iter().filter_map(|line| line["line"].as_str());
    lines.filter_map(|line| line.strip_prefix("pid ")?.parse().ok()).collect()
}

/// Whether a process of that number runs; a zombie does not.
pub fn alive(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state != 'Z' && state != 'X')
}

/// How many entries a folder has; none where it is not there.
pub fn entries(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

fn children(parent: u32) -> Vec<u32> {
    let pids = fs::read_dir("/proc").expect("there is /proc").flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| stat(*pid).is_some_and(|(_, of)| of == parent)).collect()
}

/// The state of a process and its parent.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in parentheses and may hold anything.
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}
