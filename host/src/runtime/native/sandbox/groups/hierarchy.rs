//! Where the hierarchies of control groups are, and the server's group in each.

use std::{
    fs, io,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal};

use crate::runtime::native::procfs;

const PREFIX: &str = "sharpfaas-";

/// How long the kernel may take to let processes go that were killed.
const PATIENCE: Duration = Duration::from_secs(2);

/// What a controller bounds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Memory,
    Processes,
    Cpu,
    /// Processor time is counted: a controller of its own in the first version, part of any group in the second.
    Accounting,
}

const CONTROLLERS: [(&str, Kind); 4] =
    [("memory", Kind::Memory), ("pids", Kind::Processes), ("cpu", Kind::Cpu), ("cpuacct", Kind::Accounting)];

/// One hierarchy, and the server's group in it.
#[derive(Debug)]
pub struct Hierarchy {
    /// The server's group: a folder.
    pub folder: PathBuf,
    /// Whether it is the one of the second version.
    pub unified: bool,
    kinds: Vec<Kind>,
}

impl Hierarchy {
    /// Whether it has that controller.
    pub fn has(&self, kind: Kind) -> bool {
        self.kinds.contains(&kind)
    }
}

/// A place where a group could be made: the one that the server is in.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    folder: PathBuf,
    unified: bool,
    controllers: Vec<String>,
}

/// Makes the server's group in each hierarchy where it may and that is of use.
pub fn make_all() -> Vec<Hierarchy> {
    let read = |path| fs::read_to_string(path).unwrap_or_default();
    let mut made = Vec::new();
    let mut places = places(&read("/proc/self/mountinfo"), &read("/proc/self/cgroup"));
    places.sort_by_key(|place| place.unified);
    for place in places {
        remove_leftovers(&place.folder);
        match make(&place, made.is_empty()) {
            Ok(Some(hierarchy)) => made.push(hierarchy),
            Ok(None) => {}
            Err(error) => tracing::debug!(folder = %place.folder.display(), %error, "no control group here"),
        }
    }
    made
}

/// The second version's, without controllers, lists processes and ends them, which is of use where it is `alone`:
/// beside others it would cost each start a wait for all forks on the machine.
fn make(place: &Place, alone: bool) -> io::Result<Option<Hierarchy>> {
    let controllers = if place.unified { delegate(&place.folder)? } else { place.controllers.clone() };
    let kinds: Vec<Kind> = CONTROLLERS
        .into_iter()
        .filter_map(|(name, kind)| controllers.iter().any(|found| found == name).then_some(kind))
        .collect();
    if kinds.is_empty() && !(place.unified && alone) {
        return Ok(None);
    }
    let folder = place.folder.join(name_of(rustix::process::getpid())?);
    fs::create_dir(&folder)?;
    let prepared = prepare(&folder, place.unified, &controllers);
    if let Err(error) = prepared {
        remove(&folder);
        return Err(error);
    }
    Ok(Some(Hierarchy { folder, unified: place.unified, kinds }))
}

/// All programs together count as one process beside the server's own threads, which are one together where the
/// scheduler groups processes by session.
fn prepare(folder: &Path, unified: bool, controllers: &[String]) -> io::Result<()> {
    let weighs = controllers.iter().any(|name| name == "cpu");
    if unified {
        let enabled: Vec<String> = controllers.iter().map(|name| format!("+{name}")).collect();
        fs::write(folder.join("cgroup.subtree_control"), enabled.join(" "))?;
        if weighs {
            fs::write(folder.join("cpu.weight"), "100")?;
        }
    } else if weighs {
        fs::write(folder.join("cpu.shares"), "1024")?;
    }
    Ok(())
}

/// Has the group that the server is in hand its controllers on; gives which it does. The second version allows
/// that only to groups without processes of their own, so the server moves to one beside, if it is alone.
fn delegate(folder: &Path) -> io::Result<Vec<String>> {
    let listed = |name: &str| -> io::Result<Vec<String>> {
        Ok(fs::read_to_string(folder.join(name))?.split_whitespace().map(str::to_owned).collect())
    };
    let wanted: Vec<String> = listed("cgroup.controllers")?
        .into_iter()
        .filter(|name| CONTROLLERS.iter().any(|(known, _)| known == name))
        .collect();
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    let enable = || {
        let words: Vec<String> = wanted.iter().map(|name| format!("+{name}")).collect();
        fs::write(folder.join("cgroup.subtree_control"), words.join(" "))
    };
    let enabled = enable().or_else(|error| {
        if error.raw_os_error() != Some(libc::EBUSY) {
            return Err(error);
        }
        let beside = folder.join("sharpfaas.server");
        match fs::create_dir(&beside) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            _ => fs::write(beside.join("cgroup.procs"), "0")?,
        }
        enable().inspect_err(|_| drop(fs::write(folder.join("cgroup.procs"), "0")))
    });
    match enabled {
        Ok(()) => listed("cgroup.subtree_control"),
        Err(error) => {
            tracing::debug!(folder = %folder.display(), %error, "its controllers are not handed on");
            Ok(Vec::new())
        }
    }
}

/// Where this process is, from what the kernel says of mounts (proc_pid_mountinfo(5)) and of its groups.
fn places(mounts: &str, groups: &str) -> Vec<Place> {
    mounts
        .lines()
        .filter_map(|line| {
            let (mount, system) = line.split_once(" - ")?;
            let mut fields = mount.split(' ').skip(3);
            let (root, at) = (fields.next()?, fields.next()?);
            let mut system = system.split(' ');
            let unified = match system.next()? {
                "cgroup2" => true,
                "cgroup" => false,
                _ => return None,
            };
            let controllers: Vec<String> = match unified {
                true => Vec::new(),
                false => system.nth(1)?.split(',').map(str::to_owned).collect(),
            };
            let own = groups.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (names, path) = (parts.next()?, parts.next()?);
                let this = if unified {
                    names.is_empty()
                } else {
                    !names.is_empty() && names.split(',').all(|name| controllers.iter().any(|found| found == name))
                };
                this.then_some(path)
            })?;
            let below = own.strip_prefix(root.trim_end_matches('/'))?.trim_start_matches('/');
            // A group above the mount's root is not to be seen here.
            if below.split('/').any(|part| part == "..") {
                return None;
            }
            Some(Place { folder: Path::new(at).join(below), unified, controllers })
        })
        .collect()
}

/// A name that tells whose it is: the PID namespace, the number in it, and when that process began.
fn name_of(server: Pid) -> io::Result<String> {
    let process = procfs::process(server).ok_or(io::ErrorKind::NotFound)?;
    Ok(format!("{PREFIX}{}-{server}-{}", namespace()?, process.started))
}

fn namespace() -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    Ok(fs::metadata("/proc/self/ns/pid")?.ino())
}

/// Removes groups of servers that are gone.
fn remove_leftovers(parent: &Path) {
    let (Ok(entries), Ok(space)) = (fs::read_dir(parent), namespace()) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let parts = name.to_str().and_then(|name| name.strip_prefix(PREFIX)).map(|rest| rest.split('-'));
        let Some(Ok(numbers)) = parts.map(|parts| parts.map(str::parse::<u64>).collect::<Result<Vec<_>, _>>()) else {
            continue;
        };
        let [of, pid, started] = *numbers.as_slice() else { continue };
        let server = i32::try_from(pid).ok().and_then(Pid::from_raw).and_then(procfs::process);
        if of == space && server.is_none_or(|server| server.started != started) {
            tracing::info!(group = %entry.path().display(), "removing the control groups of a server that is gone");
            remove(&entry.path());
        }
    }
}

/// Removes a group, those in it, and the processes in those.
pub fn remove(folder: &Path) {
    let began = Instant::now();
    let groups = || {
        let inner = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
        inner.filter(|path| path.is_dir()).chain([folder.to_owned()])
    };
    loop {
        let left = groups().filter(|group| fs::remove_dir(group).is_err()).collect::<Vec<_>>();
        if left.is_empty() || !folder.exists() {
            return;
        }
        if began.elapsed() > PATIENCE {
            tracing::warn!(group = %folder.display(), "a control group is left behind");
            return;
        }
        for group in left {
            let members = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
            for member in members.lines().filter_map(procfs::number) {
                let _ = rustix::process::kill_process(member, Signal::KILL);
            }
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_where_it_is_in_both_versions_beside_each_other() {
        let mounts = "22 27 0:21 / /proc rw - proc proc rw\n\
            35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
            36 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
            40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
            41 31 0:38 /box /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate";
        let groups = "4:memory:/a/b\n3:cpu,cpuacct:/\n1:name=systemd:/x\n0::/box/in";
        let found = places(mounts, groups);
        let place = |folder: &str, unified, controllers: &[&str]| Place {
            folder: folder.into(),
            unified,
            controllers: controllers.iter().map(|name| (*name).to_owned()).collect(),
        };
        assert!(found.contains(&place("/sys/fs/cgroup/memory/a/b", false, &["rw", "memory"])), "{found:?}");
        assert!(found.contains(&place("/sys/fs/cgroup/cpu,cpuacct", false, &["rw", "cpu", "cpuacct"])), "{found:?}");
        assert!(found.contains(&place("/sys/fs/cgroup/unified/in", true, &[])), "{found:?}");
        assert_eq!(places(mounts, "0::/../above"), []);
    }
}
