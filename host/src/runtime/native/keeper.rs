//! Keeping the processes of calls together: measuring them while they run, and leaving none behind.
//!
//! A program may fork, leave its session, and let its parents end, so that neither its process group
//! nor its parentage shows whose it is. This process is therefore a child subreaper (prctl(2)): what
//! loses its parents below us becomes our child, and nothing that descends from a call can get away
//! from us. One thread looks after all calls: at those that run every [`SAMPLE`] (more often at first), at those that end
//! every [`PASS`] until a look finds none of their processes.
//!
//! An adopted process belongs to the call that it was seen in before, or whose session or control group it is in, or
//! whose id stands in its environment. One that nothing of this holds for, in another session than the
//! server's and without the right to new privileges, can only be a program's that hides; it is killed at
//! once, but for one that is just becoming another program and has no environment: it is looked at again.
//! Hence a rule for all of the server: **its own helpers stay in its session**.
//!
//! There is one keeper in a process, since adoption is a matter of the whole process. It is shared by
//! those who hold it, and ends, with all it keeps, when the last of them lets go.

use std::{
    collections::HashMap,
    io,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, Mutex, PoisonError, Weak},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::process::Pid;
use tokio::sync::oneshot;

use self::{queue::Queue, tree::Tree};
use super::{
    procfs::{self, Family, Process},
    sandbox::groups::Group,
};
use crate::function::InvocationId;

mod queue;
mod tree;

pub use tree::{Excess, MAX_PROCESSES, Remains, nearly};

/// How often the memory of a running call is measured.
const SAMPLE: Duration = Duration::from_millis(50);

/// How often that of one that has just begun is: what takes all it can get does so at once, and may be gone
/// before a longer time has passed.
const FIRST_SAMPLE: Duration = Duration::from_millis(5);

/// How often an ending call is looked at.
const PASS: Duration = Duration::from_millis(2);

/// How long a process may be without an environment. While one becomes another program it has none, which takes as
/// long as it takes the machine to come round to it.
const NAMELESS: Duration = Duration::from_millis(20);

/// Tells an adopted process's call.
pub use crate::runtime::INVOCATION_VARIABLE;

static SHARED: Mutex<Weak<Keeper>> = Mutex::new(Weak::new());

/// The thread that keeps the processes of all calls.
#[derive(Debug)]
pub struct Keeper {
    commands: Arc<Queue<Command>>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
enum Command {
    /// A program is about to be started.
    Expect(InvocationId, u64, Option<Arc<Group>>, oneshot::Sender<Excess>),
    /// It was, then.
    Started(InvocationId, Pid, Instant),
    /// It was not, or is no more.
    Forget(InvocationId),
    /// It is to end, or has, and what is left of it must.
    End(InvocationId, Duration, oneshot::Sender<Remains>),
}

impl Keeper {
    /// The keeper of this process, which from now on adopts its orphaned descendants.
    ///
    /// # Errors
    /// When the kernel refuses, or there can be no more threads.
    pub fn shared() -> io::Result<Arc<Self>> {
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(keeper) = shared.upgrade() {
            return Ok(keeper);
        }
        rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
        let commands = Arc::new(Queue::default());
        let queue = commands.clone();
        let thread = thread::Builder::new().name("native-keeper".into()).spawn(move || Watch::new().run(&queue))?;
        let keeper = Arc::new(Self { commands, thread: Some(thread) });
        *shared = Arc::downgrade(&keeper);
        Ok(keeper)
    }

    /// Makes a call known before its program is started, so that nothing it does is too early. The
    /// receiver hears when it takes more than it may. The group, where there is one, holds all its processes.
    pub fn expect(&self, id: InvocationId, memory_bytes: u64, group: Option<Arc<Group>>) -> oneshot::Receiver<Excess> {
        let (excess, told) = oneshot::channel();
        // It is read before the next look at processes, whenever that is.
        self.commands.put(Command::Expect(id, memory_bytes, group, excess), None);
        told
    }

    /// The call's program is this child of ours, which from now on is reaped by [`reap`](Self::reap) or the keeper's
    /// thread, and nobody else.
    pub fn started(&self, id: InvocationId, main: Pid) {
        let now = Instant::now();
        self.commands.put(Command::Started(id, main, now), Some(now + FIRST_SAMPLE));
    }

    /// The call's program was not started, or is no more.
    pub fn forget(&self, id: InvocationId) {
        self.commands.put(Command::Forget(id), None);
    }

    /// Reaps a call's program that has ended, where its control group shows that nothing else is left of the call and
    /// has counted what it took: one that ends in peace need not wait for the keeper. `None`: it is to be
    /// [ended](Self::end).
    pub fn reap(&self, id: InvocationId, main: Pid, group: &Group) -> Option<Remains> {
        if !group.is_down_to_one() {
            return None;
        }
        let reaped = tree::reap_with_usage(main)?;
        self.forget(id);
        Some(Remains { taken: group.taken(), ..reaped })
    }

    /// Ends all processes of a call: SIGTERM to each, and SIGKILL after `grace`. Answers when none is left,
    /// or when the kernel lets some of them not go, which are ended as soon as it does.
    pub fn end(&self, id: InvocationId, grace: Duration) -> oneshot::Receiver<Remains> {
        let (reply, remains) = oneshot::channel();
        self.commands.put(Command::End(id, grace, reply), Some(Instant::now()));
        remains
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.commands.close();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What the thread holds.
#[derive(Debug)]
struct Watch {
    /// The server's own.
    session: Option<Pid>,
    trees: Vec<Tree>,
    /// When to look again at processes that belong to no call.
    strays: Option<Instant>,
    /// Those without an environment, by number and start, and when they were first seen so.
    nameless: HashMap<(Pid, u64), Instant>,
}

impl Watch {
    fn new() -> Self {
        let session = procfs::process(rustix::process::getpid()).and_then(|server| server.session);
        Self { session, trees: Vec::new(), strays: None, nameless: HashMap::new() }
    }

    fn run(mut self, queue: &Queue<Command>) {
        let mut open = true;
        while open || !self.trees.is_empty() {
            let taken = queue.take(self.due());
            open = taken.open;
            taken.items.into_iter().for_each(|command| self.apply(command));
            if !open {
                self.trees.iter_mut().for_each(|tree| tree.end(Duration::ZERO, None));
                // What the kernel does not let go is left to it.
                self.trees.retain(|tree| tree.main().is_some() && !tree.stuck());
            }
            let now = Instant::now();
            if self.due().is_some_and(|due| due <= now) {
                // Without this thread nothing ends what programs leave behind: whatever goes wrong in one look, there is
                // another. The panic's hook has told of it.
                if panic::catch_unwind(AssertUnwindSafe(|| self.pass(now))).is_err() {
                    thread::sleep(PASS);
                }
            }
        }
    }

    fn due(&self) -> Option<Instant> {
        self.trees.iter().filter_map(Tree::due).chain(self.strays).min()
    }

    fn apply(&mut self, command: Command) {
        match command {
            Command::Expect(id, memory_bytes, group, excess) => {
                self.trees.push(Tree::new(id, memory_bytes, group, excess));
            }
            Command::Started(id, main, at) => self.of(id, |tree| tree.started(main, at)),
            Command::Forget(id) => self.trees.retain(|tree| tree.id() != id),
            Command::End(id, grace, reply) => self.of(id, |tree| tree.end(grace, Some(reply))),
        }
    }

    fn of(&mut self, id: InvocationId, act: impl FnOnce(&mut Tree)) {
        if let Some(tree) = self.trees.iter_mut().find(|tree| tree.id() == id) {
            act(tree);
        }
    }

    /// One look at every call whose time it is.
    fn pass(&mut self, now: Instant) {
        self.strays = None;
        self.nameless.retain(|_, first| now.saturating_duration_since(*first) < 2 * NAMELESS);
        let family = Family::now();
        for tree in &mut self.trees {
            tree.look(now, &family);
        }
        // After the trees, never before: what loses its parents in between is then found here.
        for orphan in family.orphans() {
            self.adopt(orphan, now, &family);
        }
        self.trees.retain_mut(|tree| !tree.attend(now));
    }

    fn adopt(&mut self, pid: Pid, now: Instant, family: &Family) {
        if self.trees.iter().any(|tree| tree.main() == Some(pid)) {
            return;
        }
        let Some(process) = procfs::process(pid) else { return };
        // The server's own helpers. Both are none where the session began outside of our PID namespace.
        if process.session == self.session {
            return;
        }
        // Where the kernel lists no children by thread, a program that is being started shows here too.
        let starting = matches!(family, Family::Scanned(_)) && self.trees.iter().any(|tree| tree.main().is_none());
        if process.zombie && !starting {
            // Whosever it was, nobody else waits for it; and while it is there, it is looked at again and again.
            tree::reap(pid);
            return;
        }
        let known = self.trees.iter().position(|tree| tree.knows(&process));
        let grouped = || {
            procfs::record(format!("/proc/{pid}/cgroup"), |text| self.trees.iter().position(|tree| tree.holds(text)))
        };
        let owner = known.or_else(grouped).or_else(|| {
            let id = procfs::variable(pid, INVOCATION_VARIABLE)?;
            self.trees.iter().position(|tree| tree.id().to_string() == id)
        });
        match owner.and_then(|index| self.trees.get_mut(index)) {
            Some(tree) => tree.adopt(process, now, family),
            None if !starting && procfs::no_new_privileges(pid) => {
                let first = *self.nameless.entry((pid, process.started)).or_insert(now);
                if !procfs::has_environment(pid) && now.saturating_duration_since(first) < NAMELESS {
                    self.strays = Some(now + PASS);
                    return;
                }
                tracing::warn!(%pid, "ended a process of a native program that hid whose it is");
                put_down(&process, family);
                self.strays = Some(Instant::now() + PASS);
            }
            None => {}
        }
    }
}

/// Ends an adopted process and all that descends from it.
fn put_down(process: &Process, family: &Family) {
    let _ = rustix::process::kill_process(process.pid, rustix::process::Signal::KILL);
    for descendant in family.descendants(process, tree::MAX_PROCESSES) {
        tree::send(&descendant, rustix::process::Signal::KILL);
    }
}
