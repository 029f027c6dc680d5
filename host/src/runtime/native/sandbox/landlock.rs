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
    access: BitFlags<AccessFs>,
}

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
        let folder = FileType::from_raw_mode(rustix::fs::fstat(&place)?.st_mode) == FileType::Directory;
        let access = if folder { access } else { access & AccessFs::from_file(NEWEST) };
        Ok(Self { place, access })
    }
}

/// What all programs may use, opened once.
#[derive(Debug)]
pub struct Files {
    /// Each by itself, for the first layer.
    each: Vec<Beneath>,
    /// What contains them, for the second.
    around: Vec<Beneath>,
}

impl Files {
    /// What there is on this machine. `proc`: all of it, which must be an instance where each sees only its own.
    #[must_use]
    pub fn open(proc: bool) -> Self {
        let device = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
        let read = |path: &Path| Beneath::read(path);
        let write = |path: &Path| Beneath::open(path, AccessFs::from_read(NEWEST) | device);
        // A program may read its own folder in `/proc`, which only the second layer can tell from others'.
        let each = READ.iter().chain(&["/proc"]).map(|path| read(Path::new(path)));
        let devices = DEVICES.iter().map(|path| Beneath::open(Path::new(path), device));
        let above = READ.iter().filter_map(|path| top(path)).collect::<BTreeSet<_>>();
        let around = above.iter().map(|path| read(path));
        let seen = if proc { &["/proc"] } else { PROC };
        let around = around.chain([write(Path::new("/dev"))]).chain(seen.iter().map(|path| read(Path::new(path))));
        // What is not there needs no rule.
        Self { each: each.chain(devices).flatten().collect(), around: around.flatten().collect() }
    }

    /// Puts this thread, and all that it starts, under the first layer. `own` are the folders of all packages and
    /// calls, and what any program was granted.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn put_on<'a>(&'a self, own: impl Iterator<Item = &'a Beneath>, network: bool) -> io::Result<()> {
        let rules = Self::ruleset(&self.each, own, network).map_err(io::Error::other)?;
        rules.restrict_self().map(drop).map_err(io::Error::other)
    }

    /// The second layer.
    ///
    /// # Errors
    /// When the kernel refuses it.
    pub fn rules<'a>(&'a self, own: impl Iterator<Item = &'a Beneath>, network: bool) -> io::Result<Option<OwnedFd>> {
        Self::ruleset(&self.around, own, network).map(Into::into).map_err(io::Error::other)
    }

    fn ruleset<'a>(
        system: &'a [Beneath],
        own: impl Iterator<Item = &'a Beneath>,
        network: bool,
    ) -> Result<RulesetCreated, landlock::RulesetError> {
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(NEWEST))?
            .scope(Scope::from_all(NEWEST))?;
        if !network {
            rules = rules.handle_access(AccessNet::from_all(NEWEST))?;
        }
        let beneath = system.iter().chain(own).map(|Beneath { place, access }| {
            Ok::<PathBeneath<BorrowedFd<'_>>, landlock::RulesetError>(PathBeneath::new(place.as_fd(), *access))
        });
        rules.create()?.add_rules(beneath)
    }
}

/// The folder at the root that contains the file; none where that is a link, and so names another.
fn top(path: &str) -> Option<PathBuf> {
    let top: PathBuf = Path::new(path).components().take(2).collect();
    let kind = std::fs::symlink_metadata(&top).ok()?.file_type();
    (!kind.is_symlink()).then_some(top)
}
