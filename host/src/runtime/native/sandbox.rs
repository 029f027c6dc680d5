//! What confines programs: found out and made ready once, at start, and put on each program as it is started.
//!
//! | layer | what it takes | keeps a program from |
//! |---|---|---|
//! | no new privileges, no capabilities, closed descriptors, limits, a session of its own | | rights that it was not given |
//! | [`syscalls`] | seccomp(2) | what acts on the machine or outlives the call; sockets |
//! | [`landlock`] | Linux 6.2 | every file but its own and the system's |
//! | [`stage`], and a user id of its own | root | other processes, the network, filling the disk |
//! | [`groups`] | control groups that it may write | taking its neighbours' memory and time |
//!
//! The first three are required. Without the fourth programs are the server's user, which takes Linux 6.12: there
//! Landlock keeps them from sending signals and from other processes' sockets. What is missing is
//! in [`Sandbox::shortfalls`], never passed over.

use std::{
    io,
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use tokio::runtime;

use self::{
    groups::{Bounds, Groups},
    landlock::{Beneath, Files},
    seats::Seats,
    stage::{Folder, Stage},
    syscalls::{Allowed, Filters},
};
use super::{
    Call, Executable, Settings,
    folders::{self, Root},
    keeper::MAX_PROCESSES,
    spawner::{self, Profile, SpawnError, Spawned, Spawner, Spec},
};
use crate::{
    config::{Grant, SandboxConfig, Strictness},
    runtime::RuntimeError,
};

pub mod groups;
pub mod landlock;
mod seats;
pub mod stage;
pub mod syscalls;

pub use seats::Seat;

/// Landlock that knows of truncating files, in Linux 6.2: before, a program could empty those that it may not write.
const LANDLOCK: u32 = 3;
/// Landlock that keeps signals and abstract sockets in, in Linux 6.12.
const LANDLOCK_SCOPES: u32 = 6;

/// How often a folder is looked at that is not bounded by what it is made of.
const LOOK: Duration = Duration::from_millis(250);

/// The sandbox of all programs.
#[derive(Debug)]
pub struct Sandbox {
    shortfalls: Vec<String>,
    /// Why no program may run.
    refusal: Option<String>,
    confined: bool,
    grants: Vec<Granted>,
    seats: Arc<Seats>,
    folder_bytes: u64,
    root: Root,
    /// For calls without network, and for those with.
    spawners: [Spawner; 2],
    /// After the spawners, whose threads are in it.
    stage: Option<Arc<Stage>>,
}

#[derive(Debug)]
struct Granted {
    grant: Grant,
    read: Arc<[Beneath]>,
}

/// A place for one call: its folder and its seat.
#[derive(Debug)]
pub struct Place {
    /// The folder, as the program sees it.
    pub folder: PathBuf,
    /// The folder of its package, as the program sees it.
    pub package: PathBuf,
    /// The program itself.
    pub program: PathBuf,
    /// Further variables.
    pub environment: Vec<(String, String)>,
    /// What it has for itself.
    pub seat: Seat,
    user: Option<u32>,
    network: bool,
    read: Vec<Arc<[Beneath]>>,
    /// The folder, where it is in memory.
    memory: Option<Folder>,
}

impl Sandbox {
    /// Finds out what the kernel has, and makes it ready.
    ///
    /// # Errors
    /// When the machine has no threads for it, or a grant names what is not there.
    pub fn new(settings: &Settings<'_>, root: Root) -> Result<Self, RuntimeError> {
        let Settings { sandbox: config, grants, packages, places } = *settings;
        let host = |error: io::Error| RuntimeError::Host(format!("sandbox of programs: {error}"));
        let cradles = [Spawner::cradles().map_err(host)?, Spawner::cradles().map_err(host)?];
        let confined = config.programs != Strictness::Off;
        let mut found = Found::default();
        let users = if config.user_ids == 0 { places } else { config.user_ids };
        let users = config.first_user_id..config.first_user_id.saturating_add(users.max(1));
        let stage = if confined { found.stage(packages, &root, &users) } else { None };
        let same_user = stage.is_none();
        let grants: Vec<_> = grants.iter().map(|grant| Granted::open(grant, !same_user)).collect::<Result<_, _>>()?;
        let (files, filters) =
            if confined { found.kernel(stage.as_deref(), same_user).map_err(host)? } else { Default::default() };
        let groups = if confined { found.groups(config) } else { None };
        if !confined {
            found.shortfalls.push("programs are not confined: sandbox.programs is \"off\"".into());
        }
        let born = groups.as_ref().is_some_and(Groups::has_birthplaces);
        let seats = Seats::new(stage.as_ref().map(|_| users), groups);
        let missing = found.missing;
        let refusal = (config.programs == Strictness::Required && !missing.is_empty()).then(|| missing.join("; "));
        found.shortfalls.extend(missing);
        let [offline, online] = filters;
        let folders = match &stage {
            Some(stage) => stage.folders(),
            None => (packages.canonicalize().map_err(host)?, root.path().to_owned()),
        };
        let granted: Vec<_> = grants.iter().map(|granted: &Granted| granted.read.clone()).collect();
        let profile = |filters, network: bool| Profile {
            files: files.clone(),
            folders: Some(folders.clone()),
            granted: granted.clone(),
            filters,
            born,
            private_network: stage.is_some() && !network,
            confined,
            staged: stage.is_some(),
            network,
        };
        let start = |profile, cradles| match &stage {
            Some(stage) => stage.inside(move || Spawner::start(profile, cradles)).flatten(),
            None => Spawner::start(profile, cradles),
        };
        let [first, second] = cradles;
        let spawners =
            [start(profile(offline, false), first).map_err(host)?, start(profile(online, true), second).map_err(host)?];
        for shortfall in &found.shortfalls {
            tracing::warn!("native programs: {shortfall}");
        }
        if let Some(why) = &refusal {
            tracing::error!("native programs do not run: {why}; sandbox.programs = \"best-effort\" would run them so");
        }
        Ok(Self {
            shortfalls: found.shortfalls,
            refusal,
            confined,
            grants,
            seats,
            folder_bytes: config.folder_bytes,
            root,
            spawners,
            stage,
        })
    }

    /// What is not as it should be, in words for whoever runs the server.
    #[must_use]
    pub fn shortfalls(&self) -> &[String] {
        &self.shortfalls
    }

    /// Why no program may run, where none may.
    #[must_use]
    pub fn refusal(&self) -> Option<&str> {
        self.refusal.as_deref()
    }

    /// How programs are confined, in a word.
    #[must_use]
    pub fn word(&self) -> &'static str {
        match (self.refusal.is_some(), self.confined, self.shortfalls.is_empty()) {
            (true, ..) => "refused",
            (_, false, _) => "unconfined",
            (_, _, false) => "partly_confined",
            (_, _, true) => "confined",
        }
    }

    /// How much a call may keep in its folder, in bytes.
    #[must_use]
    pub fn folder_bytes(&self) -> u64 {
        self.folder_bytes
    }

    /// Takes a seat for a call, before it comes to its [thread](Self::thread): there it could not be made any more.
    ///
    /// # Errors
    /// When there can be none that confines it.
    pub fn seat(&self) -> io::Result<Seat> {
        self.seats.take()
    }

    /// Makes a place for a call, with its seat.
    ///
    /// # Errors
    /// When there can be none.
    pub async fn place(&self, mut seat: Seat, program: &Executable, call: &Call) -> io::Result<Place> {
        let granted = || self.granted(call);
        let user = granted().filter_map(|granted| granted.grant.user_id).next_back().or(seat.user());
        let user = user.filter(|_| self.stage.is_some());
        if let Some(group) = seat.group() {
            group.begin(call.memory_bytes.saturating_add(self.folder_bytes))?;
        }
        let (folder, memory, package) = match &self.stage {
            None => (self.root.folder()?, None, program.package.clone()),
            Some(stage) => {
                let outside = || io::Error::other("the program is not in the folder of packages");
                let package = stage.package(&program.package).ok_or_else(outside)?;
                let memory = self.folder(stage, &mut seat, user.unwrap_or_default()).await?;
                (memory.path().to_owned(), Some(memory), package)
            }
        };
        let entry = program.program.strip_prefix(&program.package).unwrap_or(Path::new(""));
        Ok(Place {
            program: package.join(entry),
            folder,
            package,
            environment: granted().flat_map(|granted| granted.grant.environment.clone()).collect(),
            seat,
            user,
            network: granted().any(|granted| granted.grant.network),
            read: granted().map(|granted| granted.read.clone()).collect(),
            memory,
        })
    }

    /// A folder in memory for a user: the one of the seat, or a new one.
    async fn folder(&self, stage: &Stage, seat: &mut Seat, user: u32) -> io::Result<Folder> {
        let bytes = self.folder_bytes;
        match seat.take_folder() {
            // Looked at once more: meanwhile another program of the same user may have found it.
            Some(left) if left.fits(user, bytes) && left.is_untouched() => return Ok(left),
            Some(left) => stage.post(|| left.remove()),
            None => {}
        }
        let (reply, made) = tokio::sync::oneshot::channel();
        let path = stage.folder(&folders::name());
        stage.post(move || drop(reply.send(Folder::make(&path, user, bytes))));
        made.await.map_err(io::Error::other)?
    }

    /// Starts the program, on the [thread](Self::thread) of its call.
    ///
    /// # Errors
    /// As [`SpawnError`] says.
    pub async fn spawn(
        &self,
        place: &mut Place,
        argument: String,
        variables: Vec<(String, String)>,
        memory_bytes: u64,
        time: Duration,
    ) -> Result<Spawned, SpawnError> {
        let spec = Spec {
            package: place.package.clone(),
            program: place.program.clone(),
            argument,
            variables,
            folder: place.folder.clone(),
            memory_bytes,
            file_bytes: self.folder_bytes,
            time,
            user: place.user,
            group: place.seat.group().cloned(),
            read: place.read.clone(),
            network: place.network,
        };
        // Of a folder that is this call's alone there is nothing to keep.
        let mut own = None;
        spawner::spawn(&spec, place.memory.as_mut().map_or(&mut own, |folder| &mut folder.rules)).await
    }

    /// The thread on which all that is a call's is to be done.
    #[must_use]
    pub fn thread(&self, call: &Call) -> Option<&runtime::Handle> {
        let [offline, online] = &self.spawners;
        if self.granted(call).any(|granted| granted.grant.network) { online } else { offline }.thread()
    }

    /// How many tasks the threads of programs have.
    #[must_use]
    pub fn tasks(&self) -> usize {
        self.spawners.iter().map(Spawner::tasks).sum()
    }

    /// Ends the threads of programs; what they still do is dropped.
    pub fn end(&self) {
        self.spawners.iter().for_each(Spawner::end);
    }

    fn granted(&self, call: &Call) -> impl DoubleEndedIterator<Item = &Granted> {
        self.grants.iter().filter(|granted| granted.grant.fits(&call.lane, &call.name))
    }

    /// Gives the seat of a call free, and removes its folder, unless it was not touched. `gone`: all its processes are;
    /// where that is not certain, the folder is not used again, whatever it looks like, and the seat only when they are.
    pub fn clear(&self, place: Place, gone: bool) -> impl Future<Output = ()> + Send + 'static {
        let (reply, cleared) = tokio::sync::oneshot::channel();
        let Place { mut seat, memory, folder, .. } = place;
        if !gone {
            seat.doubt();
        }
        let clear = move |seat| {
            // The seat's memory is the folder's too, where that is in memory.
            drop(seat);
            let _ = reply.send(());
        };
        match (&self.stage, memory) {
            (_, Some(memory)) if gone && memory.is_untouched() => {
                seat.leave_folder(memory);
                clear(seat);
            }
            (Some(stage), Some(memory)) => stage.post(move || {
                memory.remove();
                clear(seat);
            }),
            _ => drop(tokio::task::spawn_blocking(move || {
                if let Err(error) = folders::remove(&folder) {
                    tracing::warn!(folder = %folder.display(), %error, "temporary folder left behind");
                }
                clear(seat);
            })),
        }
        async move { drop(cleared.await) }
    }

    /// The folders of calls that are there; those that wait for a call are not.
    #[cfg(test)]
    pub fn folders(&self) -> Vec<PathBuf> {
        let entries = |path: PathBuf| {
            std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path()).collect::<Vec<_>>()
        };
        match &self.stage {
            Some(stage) => {
                let calls = stage.folder("");
                let free = self.seats.folders();
                let there = stage.inside(move || entries(calls)).unwrap_or_default();
                there.into_iter().filter(|folder| !free.contains(folder)).collect()
            }
            None => entries(self.root.path().to_owned()),
        }
    }

    /// Waits until the folder of a call holds more than it may; for ever, where it can't.
    pub async fn full(&self, place: &Place) {
        if self.stage.is_some() || !self.confined {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(LOOK).await;
            let (folder, bytes) = (place.folder.clone(), self.folder_bytes);
            let looked = tokio::task::spawn_blocking(move || folders::exceeds(&folder, bytes)).await;
            if matches!(looked, Ok(Ok(true))) {
                return;
            }
        }
    }
}

impl Granted {
    fn open(grant: &Grant, staged: bool) -> Result<Self, RuntimeError> {
        let open = |path: &PathBuf| {
            Beneath::read(path)
                .map_err(|error| RuntimeError::Host(format!("[[grants]] read '{}': {error}", path.display())))
        };
        if grant.user_id.is_some() && !staged {
            let why =
                "[[grants]] user_id: only a server that runs as root, and may mount, can run programs as another user";
            return Err(RuntimeError::Host(why.into()));
        }
        Ok(Self { read: grant.read.iter().map(open).collect::<Result<_, _>>()?, grant: grant.clone() })
    }
}

/// Whether the user namespace has all of these ids, of users and groups: in a container it may not.
fn are_mapped(ids: &Range<u64>) -> bool {
    ["/proc/self/uid_map", "/proc/self/gid_map"].iter().all(|map| {
        let text = std::fs::read_to_string(map).unwrap_or_default();
        text.lines().any(|line| {
            let mut numbers = line.split_whitespace().map(|number| number.parse::<u64>().unwrap_or_default());
            let (first, count) = (numbers.next().unwrap_or_default(), numbers.nth(1).unwrap_or_default());
            first <= ids.start && ids.end <= first + count
        })
    })
}

/// What was found out about the machine.
#[derive(Debug, Default)]
struct Found {
    /// What is required and not there.
    missing: Vec<String>,
    /// What is not there and can be done without.
    shortfalls: Vec<String>,
}

impl Found {
    fn stage(&mut self, packages: &Path, root: &Root, users: &Range<u64>) -> Option<Arc<Stage>> {
        let why = if rustix::process::geteuid().is_root() && !are_mapped(users) {
            format!("has no users {} to {} to give: sandbox.first_user_id names others", users.start, users.end - 1)
        } else if rustix::process::geteuid().is_root() {
            match Stage::build(packages, root.name()) {
                Ok(stage) => return Some(Arc::new(stage)),
                Err(error) => format!("may not mount ({error})"),
            }
        } else {
            "does not run as root".into()
        };
        self.shortfalls.push(format!(
            "the server {why}: programs run as its own user, in its own network namespace, which they may not \
             use; their folders are on disk, and are looked at for their size"
        ));
        None
    }

    fn kernel(&mut self, stage: Option<&Stage>, same_user: bool) -> io::Result<(Option<Arc<Files>>, [Filters; 2])> {
        let version = super::spawner::landlock_version();
        let files = if version == 0 {
            self.missing.push("the kernel has no Landlock, or it is not enabled".into());
            None
        } else {
            if version < LANDLOCK {
                self.missing
                    .push(format!("the kernel's Landlock is of version {version}, before {LANDLOCK} (Linux 6.2)"));
            } else if same_user && version < LANDLOCK_SCOPES {
                self.missing.push(format!(
                    "the kernel's Landlock is of version {version}, before {LANDLOCK_SCOPES} (Linux 6.12): programs \
                     could send signals to the server, as whose user they run"
                ));
            }
            // `/proc` as those see it who are inside.
            Some(Arc::new(match stage {
                Some(stage) => stage.inside(|| Files::open(true))?,
                None => Files::open(false),
            }))
        };
        let filters = |network| syscalls::filters(Allowed { network, ownership: !same_user });
        let filters = match (filters(false), filters(true)) {
            (Ok(offline), Ok(online)) => [offline, online],
            (Err(error), _) | (_, Err(error)) => {
                self.missing.push(format!("no filter of system calls: {error}"));
                Default::default()
            }
        };
        Ok((files, filters))
    }

    fn groups(&mut self, config: &SandboxConfig) -> Option<Groups> {
        let groups = Groups::make(Bounds { processes: MAX_PROCESSES as u64, cpu_percent: config.cpu_percent });
        let lacks = groups.as_ref().map_or(vec!["memory", "processes", "processor time"], Groups::lacks);
        if !lacks.is_empty() {
            self.shortfalls.push(format!(
                "no control groups that the server may write bound {}: what programs take is looked at from time to \
                 time instead",
                lacks.join(", ")
            ));
        }
        groups
    }
}
