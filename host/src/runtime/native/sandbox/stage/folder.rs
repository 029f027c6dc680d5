//! The folder of a call, in memory. One that nobody has touched is as good as a new one, and kept for the next call of
//! its seat: mounting and unmounting is a good part of what a start costs, and most programs need no folder.

use std::{
    io,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::OnceLock,
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, StatxFlags},
    mount::{MountFlags, UnmountFlags},
};

use crate::runtime::native::{folders::MOST_FILES, sandbox::landlock::Rules};

/// Linux 6.13: a file's time of change is then another one after each change that follows a look at it. Before, two
/// changes within some milliseconds can have the same.
const FINE_TIMES: (u32, u32) = (6, 13);

/// A folder with a file system of its own, as it was made.
#[derive(Debug)]
pub struct Folder {
    path: PathBuf,
    user: u32,
    bytes: u64,
    /// None where it can't be told whether it was touched.
    fresh: Option<Fresh>,
    /// What the last program was under that had it: no other folder may be written to by those.
    pub rules: Option<Rules>,
}

/// How its top stood before anybody could touch it.
#[derive(Debug)]
struct Fresh {
    /// The top itself: good for asking, and for nothing else.
    top: OwnedFd,
    stamp: Stamp,
}

/// What says whether anything was done in a folder. Whatever is made, renamed or removed in its top, and every change
/// of the top's own mode, owner and attributes, changes its time of change, which nobody can set. The rest says the
/// same once more, and that nothing is left of files that never had a name.
#[derive(Debug, PartialEq, Eq)]
struct Stamp {
    changed: (i64, u32),
    modified: (i64, u32),
    links: u32,
    mode: u16,
    owner: (u32, u32),
    size: u64,
    free_files: u64,
    free_blocks: u64,
}

impl Folder {
    /// Makes one for this user alone. To be called inside.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn make(path: &Path, user: u32, bytes: u64) -> io::Result<Self> {
        std::fs::create_dir(path)?;
        let options = format!("mode=0700,uid={user},gid={user},size={bytes},nr_inodes={MOST_FILES}");
        // Without times of access: whether the call before this one looked into it is nobody's business either.
        let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOATIME;
        super::mount("tmpfs", path, flags, &options).inspect_err(|_| drop(std::fs::remove_dir(path)))?;
        let fresh = if has_fine_times() { Fresh::look(path).ok() } else { None };
        Ok(Self { path: path.to_owned(), user, bytes, fresh, rules: None })
    }

    /// Where it is, seen from inside.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is what [`make`](Self::make) would make for these.
    #[must_use]
    pub fn fits(&self, user: u32, bytes: u64) -> bool {
        (self.user, self.bytes) == (user, bytes)
    }

    /// Whether nothing was ever done in it. Only to be believed when all who could are gone.
    #[must_use]
    pub fn is_untouched(&self) -> bool {
        self.fresh.as_ref().is_some_and(|fresh| Stamp::of(&fresh.top).is_ok_and(|now| now == fresh.stamp))
    }

    /// Removes it, with all in it. To be called inside.
    pub fn remove(self) {
        drop((self.fresh, self.rules));
        // Whoever still has a file of it open holds that alone, and nobody finds it any more.
        let gone = rustix::mount::unmount(&self.path, UnmountFlags::DETACH).map_err(io::Error::from);
        if let Err(error) = gone.and_then(|()| std::fs::remove_dir(&self.path)) {
            tracing::warn!(folder = %self.path.display(), %error, "temporary folder left behind");
        }
    }
}

impl Fresh {
    fn look(path: &Path) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let top = rustix::fs::openat(CWD, path, flags, Mode::empty())?;
        let stamp = Stamp::of(&top)?;
        Ok(Self { top, stamp })
    }
}

impl Stamp {
    fn of(top: impl AsFd) -> io::Result<Self> {
        let it = rustix::fs::statx(&top, c"", AtFlags::EMPTY_PATH, StatxFlags::BASIC_STATS)?;
        let room = rustix::fs::fstatfs(&top)?;
        Ok(Self {
            changed: (it.stx_ctime.tv_sec, it.stx_ctime.tv_nsec),
            modified: (it.stx_mtime.tv_sec, it.stx_mtime.tv_nsec),
            links: it.stx_nlink,
            mode: it.stx_mode,
            owner: (it.stx_uid, it.stx_gid),
            size: it.stx_size,
            free_files: room.f_ffree,
            free_blocks: room.f_bfree,
        })
    }
}

fn has_fine_times() -> bool {
    static FINE: OnceLock<bool> = OnceLock::new();
    *FINE.get_or_init(|| {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let mut numbers = release.trim().split(['.', '-']).map(str::parse::<u32>);
        match (numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= FINE_TIMES,
            _ => false,
        }
    })
}

#[cfg(test)]
mod tests;
