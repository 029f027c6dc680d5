//! What of the files a program may use, by landlock(7): its own package, its own folder, and the system's
//! programs and libraries; nothing else, whoever owns it.
//!
//! In two layers, of which both must allow what is done. The first has a rule for each of the system's files that
//! programs may use, and the folders of all packages and of all calls; the threads that start programs are
//! under it, and so it costs a start nothing. The second is each program's own, and short: its package and its folder,
//! and of the system as much as contains what the first allows.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, PathBeneath, Ruleset, RulesetAttr,
    RulesetCreated, RulesetCreatedAttr, Scope,
};
use rustix::fs::{FileType, Mode, OFlags};

/// What the crate is asked for; a kernel with less gives what it has.
const NEWEST: ABI = ABI::V7;

/// Programs, libraries, and what they look up. Of `/etc` only what holds no secrets by its purpose.
const READ: &[&str] = &[
    "/bin",
    "/lib",
    "/lib32",
    "/lib64",
    "/libx32",
    "/nix/store",
    "/sbin",
    "/usr",
    "/etc/alternatives",
    "/etc/bash.bashrc",
    "/etc/ca-certificates.conf",
    "/etc/crypto-policies",
    "/etc/debian_version",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/inputrc",
    "/etc/ld.so.cache",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/locale.alias",
    "/etc/localtime",
    "/etc/magic",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/os-release",
    "/etc/passwd",
    "/etc/perl",
    "/etc/pki/tls/certs",
    "/etc/profile",
    "/etc/protocols",
    "/etc/python3",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl/certs",
    "/etc/ssl/openssl.cnf",
    "/etc/terminfo",
    "/etc/timezone",
    "/sys/devices/system/cpu",
];

/// What a program asks of the machine, where it does not see all of `/proc`.
const PROC: &[&str] = &[
    "/proc/cpuinfo",
    "/proc/filesystems",
    "/proc/loadavg",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/sys/kernel/ngroups_max",
    "/proc/sys/kernel/osrelease",
    "/proc/sys/kernel/pid_max",
    "/proc/sys/vm/overcommit_memory",
    "/proc/uptime",
    "/proc/version",
];

const DEVICES: &[&str] = &["/dev/full", "/dev/null", "/dev/random", "/dev/urandom", "/dev/zero"];

/// A file or folder with all below it, and what may be done there.
#[derive(Debug)]
pub struct Beneath {
    place: OwnedFd,
    id: Id,
    access: BitFlags<AccessFs>,
}

/// Which file or folder it is: its file system and its number there, which no other has while it is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Id(pub u64, pub u64);

impl Beneath {
    /// To read and to run.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn read(path: &Path) -> io::Result<Self> {
        Self::open(path, AccessFs::from_read(NEWEST))
    }

    /// To do as it likes, but for devices.
    ///
    /// # Errors
    /// When it can't be opened.
    pub fn write(path: &Path) -> io::Result<Self> {
        let devices = AccessFs::MakeChar | AccessFs::MakeBlock | AccessFs::IoctlDev;
        Self::open(path, AccessFs::from_all(NEWEST) & !devices)
    }

    fn open(path: &Path, access: BitFlags<AccessFs>) -> io::Result<Self> {
        let place = rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let found = rustix::fs::fstat(&place)?;
        let folder = FileType::from_raw_mode(found.st_mode) == FileType::Directory;
        let access = if folder { access } else { access & AccessFs::from_file(NEWEST) };
        Ok(Self { place, id: Id(found.st_dev, found.st_ino), access })
    }
}

/// A device may be written to, and is no place for anything else.
fn device() -> BitFlags<AccessFs> {
    AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate
}

/// What contains all that programs may use of the system, for their second layers: opened once.
#[derive(Debug)]
pub struct Files {
    around: Vec<Beneath>,
}

/// The second layer of a program. The next one may have it too, if it may use the same: it is not changed by that.
#[derive(Debug)]
pub struct Rules {
    made: OwnedFd,
    /// Its package, which stays what it is, since the rules hold it.
    package: Id,
    granted: Vec<Arc<[Beneath]>>,
    network: bool,
}

impl Rules {
    /// Whether they are what a program of this package, with this granted to it, is to be under.
    #[must_use]
    pub fn are_for(&self, package: Id, granted: &[Arc<[Beneath]>], network: bool) -> bool {
        let same = |(one, other): (&Arc<[Beneath]>, &Arc<[Beneath]>)| Arc::ptr_eq(one, other);
        (self.package, self.network) == (package, network)
            && self.granted.len() == granted.len()
            && self.granted.iter().zip(granted).all(same)
    }
}

impl AsFd for Rules {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.made.as_fd()
    }
}

impl Files {
    /// What there is on this machine. `proc`: all of it, which must be an instance where each sees only its own.
    #[must_use]
    pub fn open(proc: bool) -> Self {
        let read = |path: &Path| Beneath::read(path);
        let write = |path: &Path| Beneath::open(path, AccessFs::from_read(NEWEST) | device());
        let above = READ.iter().filter_map(|path| top(path)).collect::<BTreeSet<_>>();
        let around = above.iter().map(|path| read(path));
        let seen = if proc { &["/proc"] } else { PROC };
        let around = around.chain([write(Path::new("/dev"))]).chain(seen.iter().map(|path| read(Path::new(path))));
        // What is not there needs no rule.
        Self { around: around.flatten().collect() }
    }

    /// The second layer of a program with this package, which writes to this folder.
    ///
    /// # Errors
    /// When one of both can't be opened, or the kernel refuses it.
    pub fn rules(
        &self,
        package: &Path,
        folder: &Path,
        granted: &[Arc<[Beneath]>],
        network: bool,
    ) -> io::Result<Option<Rules>> {
        let (package, folder) = (Beneath::read(package)?, Beneath::write(folder)?);
        let granted_too = granted.iter().flat_map(|granted| granted.iter());
        let all = self.around.iter().chain([&package, &folder]).chain(granted_too);
        let made = ruleset(all, network).map_err(io::Error::other)?;
        let made: Option<OwnedFd> = made.into();
        Ok(made.map(|made| Rules { made, package: package.id, granted: granted.to_vec(), network }))
    }
}

/// Puts this thread, and all that it starts, under the first layer. `own` are the folders of all packages and
/// calls, and what any program was granted.
///
/// # Errors
/// When the kernel refuses it.
pub fn put_on(own: &[&Beneath], network: bool) -> io::Result<()> {
    // A program may read its own folder in `/proc`, which only the second layer can tell from others'.
    let each = READ.iter().chain(&["/proc"]).map(|path| Beneath::read(Path::new(path)));
    let devices = DEVICES.iter().map(|path| Beneath::open(Path::new(path), device()));
    let system: Vec<_> = each.chain(devices).flatten().collect();
    let rules = ruleset(system.iter().chain(own.iter().copied()), network).map_err(io::Error::other)?;
    rules.restrict_self().map(drop).map_err(io::Error::other)
}

fn ruleset<'a>(
    all: impl Iterator<Item = &'a Beneath>,
    network: bool,
) -> Result<RulesetCreated, landlock::RulesetError> {
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?;
    if !network {
        rules = rules.handle_access(AccessNet::from_all(NEWEST))?;
    }
    let beneath = all.map(|Beneath { place, access, .. }| {
        Ok::<PathBeneath<BorrowedFd<'_>>, landlock::RulesetError>(PathBeneath::new(place.as_fd(), *access))
    });
    rules.create()?.add_rules(beneath)
}

/// The folder at the root that contains the file; none where that is a link, and so names another.
fn top(path: &str) -> Option<PathBuf> {
    let top: PathBuf = Path::new(path).components().take(2).collect();
    let kind = std::fs::symlink_metadata(&top).ok()?.file_type();
    (!kind.is_symlink()).then_some(top)
}
