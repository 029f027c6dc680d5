//! What of the files a program may use, by landlock(7): its own package, its own folder, and the system's
//! programs and libraries; nothing else, whoever owns it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
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
    all: Vec<Beneath>,
}

impl Files {
    /// What there is on this machine. `proc`: all of it, which must be an instance where each sees only its own.
    #[must_use]
    pub fn open(proc: bool) -> Self {
        let read = READ.iter().chain(if proc { &["/proc"] } else { PROC });
        let all = read.map(|path| Beneath::read(Path::new(path)));
        let devices = AccessFs::ReadFile | AccessFs::WriteFile | AccessFs::Truncate;
        let devices = DEVICES.iter().map(|path| Beneath::open(Path::new(path), devices));
        // What is not there needs no rule.
        Self { all: all.chain(devices).flatten().collect() }
    }

    /// The rules of a program.
    ///
    /// # Errors
    /// When the kernel refuses them.
    pub fn rules<'a>(&'a self, own: impl Iterator<Item = &'a Beneath>, network: bool) -> io::Result<Option<OwnedFd>> {
        self.ruleset(own, network).map(Into::into).map_err(io::Error::other)
    }

    fn ruleset<'a>(
        &'a self,
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
        let beneath = self.all.iter().chain(own).map(|Beneath { place, access }| {
            Ok::<PathBeneath<BorrowedFd<'_>>, landlock::RulesetError>(PathBeneath::new(place.as_fd(), *access))
        });
        rules.create()?.add_rules(beneath)
    }
}
