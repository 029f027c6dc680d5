//! A view of the machine for programs: namespaces in which a thread of the server lives, with all that it
//! starts. They are made once, and cost a start nothing.
//!
//! - Its own mounts, below [`BASE`]: the packages, read-only, which elsewhere lie in a folder that only the
//!   server may enter; and for each call a [folder in memory](Folder), of a bounded size, which takes all in it
//!   along when it is unmounted, and is used again only where nobody has touched it. `/proc` shows each user its own processes alone.
//! - Its own System V objects and, but for those who are granted the server's, its own network: none.
//!
//! Takes a server that runs as root and may mount.

use std::{
    io,
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use rustix::{
    mount::{MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags},
    thread::UnshareFlags,
};

mod folder;

pub use folder::Folder;

/// Where programs find their packages and folders. An empty folder to everyone else.
const BASE: &str = "/run/sharpfaas";

type Work = Box<dyn FnOnce() + Send>;

/// The thread in the namespaces. They end with it, and with the last process in them.
#[derive(Debug)]
pub struct Stage {
    work: mpsc::Sender<Work>,
    /// The folder of packages outside, with no links in it.
    packages: PathBuf,
    /// The folder of this server's folders of calls, inside.
    calls: PathBuf,
}

impl Stage {
    /// Makes the namespaces. `life` is a name that no other server has.
    ///
    /// # Errors
    /// When the server may not, which leaves nothing behind.
    pub fn build(packages: &Path, life: &str) -> io::Result<Self> {
        let packages = std::fs::canonicalize(packages)?;
        let calls = Path::new(BASE).join(life);
        let (work, queue) = mpsc::channel::<Work>();
        let (told, built) = mpsc::channel();
        let (from, to) = (packages.clone(), calls.clone());
        thread::Builder::new().name("native-stage".into()).spawn(move || {
            let set = set_up(&from, &to);
            let good = set.is_ok();
            if told.send(set).is_ok() && good {
                queue.into_iter().for_each(|work| work());
            }
        })?;
        built.recv().map_err(|_| io::Error::other("the thread has ended"))??;
        Ok(Self { work, packages, calls })
    }

    /// Does something inside, and waits for it. Threads that it starts are inside too.
    ///
    /// # Errors
    /// When the thread has ended.
    pub fn inside<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (reply, answer) = mpsc::channel();
        self.post(move || drop(reply.send(work())));
        answer.recv().map_err(|_| io::Error::other("the stage's thread has ended"))
    }

    /// Does something inside, soon.
    pub fn post(&self, work: impl FnOnce() + Send + 'static) {
        // The thread ends only when this end of the queue is dropped.
        let _ = self.work.send(Box::new(work));
    }

    /// Where all packages and all folders of calls are, seen from inside.
    #[must_use]
    pub fn folders(&self) -> (PathBuf, PathBuf) {
        (Path::new(BASE).join("packages"), self.calls.clone())
    }

    /// Where a place in a package is, seen from inside; `None` where it is in no package.
    #[must_use]
    pub fn package(&self, outside: &Path) -> Option<PathBuf> {
        Some(Path::new(BASE).join("packages").join(outside.strip_prefix(&self.packages).ok()?))
    }

    /// Where the folder of a call of that name is, seen from inside.
    #[must_use]
    pub fn folder(&self, name: &str) -> PathBuf {
        self.calls.join(name)
    }
}

fn mount(kind: &str, at: &Path, flags: MountFlags, options: &str) -> io::Result<()> {
    let options = std::ffi::CString::new(options)?;
    Ok(rustix::mount::mount(kind, at, kind, flags, options.as_c_str())?)
}

fn set_up(packages: &Path, calls: &Path) -> io::Result<()> {
    let spaces = UnshareFlags::NEWNS | UnshareFlags::NEWIPC;
    // SAFETY: of what it takes apart, this thread shares only its working folder with others, and that goes
    // on as a copy; descriptors stay shared.
    unsafe { rustix::thread::unshare_unsafe(spaces) }?;
    // What is mounted or unmounted outside later is so here too, and nothing the other way round.
    rustix::mount::mount_change("/", MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC)?;
    let none = MountFlags::NOSUID | MountFlags::NODEV;
    // A clone of the mount, before anything here may cover it.
    let clone = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(rustix::fs::CWD, packages, clone)?;
    let base = Path::new(BASE);
    std::fs::create_dir_all(base)?;
    mount("tmpfs", base, none, "mode=0711,size=4m")?;
    let inside = base.join("packages");
    std::fs::create_dir(&inside)?;
    rustix::mount::move_mount(&tree, "", rustix::fs::CWD, &inside, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?;
    rustix::mount::mount_remount(&inside, MountFlags::BIND | MountFlags::RDONLY | none, c"")?;
    std::fs::create_dir(calls)?;
    for open in [base, calls] {
        std::fs::set_permissions(open, std::os::unix::fs::PermissionsExt::from_mode(0o711))?;
    }
    mount("proc", Path::new("/proc"), none | MountFlags::NOEXEC, "hidepid=invisible")
}
