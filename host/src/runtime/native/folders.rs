//! The temporary folders that programs work in.
//!
//! Each life of a server has a root of its own, `sharpfaas-run-…`, for its user alone, and keeps a lock
//! (flock(2)) on it, which the kernel drops when the process ends, however it ends. A root whose lock is
//! free is a leftover: whoever starts removes it, and ends the processes that still work in it.

use std::{
    ffi::CString,
    io,
    os::{
        fd::OwnedFd,
        unix::fs::{DirBuilderExt, MetadataExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Dir, FileType, FlockOperation, Mode, OFlags},
    io::Errno,
};
use uuid::Uuid;

use super::procfs;

const PREFIX: &str = "sharpfaas-run-";

/// The root of this life's folders; removed when it is dropped.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    /// Holds the lock.
    _locked: OwnedFd,
}

impl Root {
    /// Makes a root below `parent`, which is made where it is missing, and removes what earlier lives left.
    ///
    /// # Errors
    /// When no root can be made. Leftovers that can't be removed are logged.
    pub fn create(parent: &Path) -> io::Result<Self> {
        let parent = std::path::absolute(parent)?;
        std::fs::create_dir_all(&parent)?;
        remove_leftovers(&parent);
        loop {
            let path = parent.join(format!("{PREFIX}{}", Uuid::now_v7().simple()));
            std::fs::DirBuilder::new().mode(0o700).create(&path)?;
            // Another server that starts may have taken it for a leftover, before it was locked.
            if let Some(locked) = lock(&path)? {
                return Ok(Self { path, _locked: locked });
            }
        }
    }

    /// Makes a new, empty folder.
    ///
    /// # Errors
    /// When it can't be made.
    pub fn folder(&self) -> io::Result<PathBuf> {
        let path = self.path.join(name());
        std::fs::DirBuilder::new().mode(0o700).create(&path)?;
        Ok(path)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its name, which no other has.
    #[must_use]
    pub fn name(&self) -> &str {
        self.path.file_name().and_then(std::ffi::OsStr::to_str).unwrap_or(PREFIX)
    }
}

impl Drop for Root {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::warn!(folder = %self.path.display(), %error, "temporary folder left behind");
        }
    }
}

/// A name for a folder that no other has.
#[must_use]
pub fn name() -> String {
    Uuid::now_v7().simple().to_string()
}

/// Locks the folder; `None` when another has it, or has removed it meanwhile.
fn lock(path: &Path) -> io::Result<Option<OwnedFd>> {
    let folder = match rustix::fs::open(path, folder_flags(), Mode::empty()) {
        Ok(folder) => folder,
        Err(Errno::NOENT) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(None),
        Err(error) => return Err(error.into()),
    }
    let opened = rustix::fs::fstat(&folder)?;
    let there =
        std::fs::symlink_metadata(path).is_ok_and(|now| (now.dev(), now.ino()) == (opened.st_dev, opened.st_ino));
    Ok(there.then_some(folder))
}

fn folder_flags() -> OFlags {
    OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC
}

fn remove_leftovers(parent: &Path) {
    let Ok(entries) = std::fs::read_dir(parent) else { return };
    let me = rustix::process::geteuid().as_raw();
    for entry in entries.flatten() {
        let path = entry.path();
        let ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX))
            && std::fs::symlink_metadata(&path).is_ok_and(|found| found.is_dir() && found.uid() == me);
        if !ours {
            continue;
        }
        match lock(&path) {
            Ok(None) => {}
            Ok(Some(_locked)) => {
                tracing::info!(folder = %path.display(), "removing what an earlier life left");
                end_workers(&path);
                if let Err(error) = remove(&path) {
                    tracing::warn!(folder = %path.display(), %error, "leftover temporary folder");
                }
            }
            Err(error) => tracing::warn!(folder = %path.display(), %error, "leftover temporary folder"),
        }
    }
}

/// Kills the processes whose home is below `root`, or a folder of its name: programs whose server was killed
/// before it could.
fn end_workers(root: &Path) {
    let works_there = |pid| {
        let home = procfs::variable(pid, "HOME");
        home.is_some_and(|home| Path::new(&home).parent().and_then(Path::file_name) == root.file_name())
    };
    for pid in procfs::everyone() {
        if works_there(pid)
            && let Ok(handle) = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty())
            && works_there(pid)
        {
            let _ = rustix::process::pidfd_send_signal(handle, rustix::process::Signal::KILL);
        }
    }
}

/// Removes a folder and all in it, whatever a program made of it: folders without permissions, links,
/// which are not followed, and folders in folders deeper than a path or the stack may be. For that, a
/// folder that is not empty is moved up to the top before it is looked into: no recursion, and two
/// descriptors in all. Nobody may be at work in it.
///
/// # Errors
/// When something can't be removed; the rest is, as far as it can.
pub fn remove(path: &Path) -> io::Result<()> {
    let top = match rustix::fs::open(path, folder_flags(), Mode::empty()) {
        Err(Errno::ACCESS) => {
            rustix::fs::chmod(path, Mode::RWXU)?;
            rustix::fs::open(path, folder_flags(), Mode::empty())?
        }
        other => other?,
    };
    rustix::fs::fchmod(&top, Mode::RWXU)?;
    let mut problem = None;
    let mut waiting = clear(&top, None, &mut problem)?;
    while let Some(name) = waiting.pop() {
        match rustix::fs::openat(&top, &name, folder_flags(), Mode::empty()) {
            Ok(folder) => match clear(&folder, Some(&top), &mut problem) {
                Ok(more) => waiting.extend(more),
                Err(error) => problem = Some(error),
            },
            Err(error) => problem = Some(error),
        }
        if let Err(error) = rustix::fs::unlinkat(&top, &name, AtFlags::REMOVEDIR) {
            problem = Some(error);
        }
    }
    drop(top);
    match (problem, std::fs::remove_dir(path)) {
        (None, done) => done,
        (Some(error), _) => Err(error.into()),
    }
}

/// Removes what is in `folder`. Folders in it that are not empty are moved to `top`, where there is one,
/// and stay where they are in the top itself. Gives their names in the top.
fn clear(folder: &OwnedFd, top: Option<&OwnedFd>, problem: &mut Option<Errno>) -> Result<Vec<CString>, Errno> {
    let mut full = Vec::new();
    for entry in Dir::read_from(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        if rustix::fs::unlinkat(folder, name, AtFlags::empty()).is_ok()
            || rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR).is_ok()
        {
            continue;
        }
        // A folder must be writable itself to be emptied, and to get another parent.
        let mut done = rustix::fs::chmodat(folder, name, Mode::RWXU, AtFlags::empty());
        let mut name = name.to_owned();
        if let (Ok(()), Some(top)) = (done, top) {
            let unique = CString::new(Uuid::now_v7().simple().to_string()).unwrap_or_default();
            done = rustix::fs::renameat(folder, &name, top, &unique);
            name = unique;
        }
        match done {
            Ok(()) => full.push(name),
            Err(error) => *problem = Some(error),
        }
    }
    Ok(full)
}

/// Folders in folders deeper than this are not looked into: too much, by any count.
const DEEPEST: usize = 64;
/// How many files and folders a call may have in its folder.
pub const MOST_FILES: u64 = 16_384;

/// Whether more than `bytes` are in a folder that a program is at work in, or more files than anybody needs.
///
/// # Errors
/// When it can't be looked at, as when it is gone.
pub fn exceeds(path: &Path, bytes: u64) -> io::Result<bool> {
    let mut open = vec![rustix::fs::open(path, folder_flags(), Mode::empty())?];
    let mut waiting: Vec<Vec<CString>> = Vec::new();
    let (mut taken, mut files) = (0_u64, 0_u64);
    while let Some(folder) = open.last() {
        if waiting.len() < open.len() {
            let mut inner = Vec::new();
            for entry in Dir::read_from(folder)?.flatten() {
                let name = entry.file_name();
                // What is gone meanwhile takes nothing.
                let Ok(found) = rustix::fs::statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
                if matches!(name.to_bytes(), b"." | b"..") {
                    continue;
                }
                files += 1;
                taken = taken.saturating_add(u64::try_from(found.st_blocks).unwrap_or_default().saturating_mul(512));
                if FileType::from_raw_mode(found.st_mode) == FileType::Directory {
                    inner.push(name.to_owned());
                }
            }
            waiting.push(inner);
        }
        if taken > bytes || files > MOST_FILES || open.len() > DEEPEST {
            return Ok(true);
        }
        match waiting.last_mut().and_then(Vec::pop) {
            Some(name) => open.extend(rustix::fs::openat(folder, name, folder_flags(), Mode::empty()).ok()),
            None => {
                open.pop();
                waiting.pop();
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn roots(parent: &Path) -> Vec<PathBuf> {
        std::fs::read_dir(parent).expect("a folder").map(|entry| entry.expect("an entry").path()).collect()
    }

    #[test]
    fn removes_what_nobody_could_walk() {
        let parent = tempfile::tempdir().expect("a folder");
        let outside = parent.path().join("outside");
        std::fs::write(&outside, "stays").expect("written");
        let path = parent.path().join("work");
        std::fs::create_dir(&path).expect("made");
        // 3000 folders deep: longer than any path, deeper than there are descriptors.
        let mut folder = rustix::fs::open(&path, folder_flags(), Mode::empty()).expect("open");
        for _ in 0..3000 {
            rustix::fs::mkdirat(&folder, "d", Mode::RWXU).expect("made");
            folder = rustix::fs::openat(&folder, "d", folder_flags(), Mode::empty()).expect("open");
        }
        symlink(&outside, path.join("link")).expect("linked");
        symlink(parent.path(), path.join("up")).expect("linked");
        std::fs::create_dir_all(path.join("locked/in")).expect("made");
        std::fs::write(path.join("locked/in/file"), "x").expect("written");
        for locked in ["locked/in", "locked", ""] {
            std::fs::set_permissions(path.join(locked), std::fs::Permissions::from_mode(0o000)).expect("set");
        }
        remove(&path).expect("removed");
        assert!(!path.exists());
        assert_eq!(std::fs::read_to_string(&outside).expect("read"), "stays");
    }

    #[test]
    fn sees_what_is_too_much() {
        let folder = tempfile::tempdir().expect("a folder");
        let exceeds = |bytes| exceeds(folder.path(), bytes).expect("looked at");
        std::fs::create_dir_all(folder.path().join("a/b")).expect("made");
        for name in ["one", "a/two", "a/b/three"] {
            std::fs::write(folder.path().join(name), vec![1; 100 << 10]).expect("written");
        }
        // A link to it all counts for itself.
        symlink("/", folder.path().join("a/link")).expect("linked");
        assert!(!exceeds(400 << 10) && exceeds(290 << 10));
        std::fs::create_dir_all(folder.path().join("d/".repeat(70))).expect("made");
        assert!(exceeds(1 << 30), "too deep");
    }

    #[test]
    fn a_root_is_private_and_goes_with_its_owner() {
        let parent = tempfile::tempdir().expect("a folder");
        let root = Root::create(&parent.path().join("new")).expect("made");
        let folder = root.folder().expect("made");
        for private in [&root.path, &folder] {
            let mode = std::fs::metadata(private).expect("there").permissions().mode();
            assert_eq!(mode & 0o777, 0o700, "{}", private.display());
        }
        drop(root);
        assert_eq!(roots(&parent.path().join("new")), Vec::<PathBuf>::new());
    }

    #[test]
    fn removes_leftovers_and_nothing_of_the_living() {
        let parent = tempfile::tempdir().expect("a folder");
        let living = Root::create(parent.path()).expect("made");
        let left = parent.path().join(format!("{PREFIX}0"));
        std::fs::create_dir_all(left.join("a/b")).expect("made");
        let other = parent.path().join("other");
        std::fs::create_dir(&other).expect("made");
        let link = parent.path().join(format!("{PREFIX}link"));
        symlink(&other, &link).expect("linked");
        let next = Root::create(parent.path()).expect("made");
        let mut there = roots(parent.path());
        let mut expected = vec![living.path.clone(), next.path.clone(), other, link];
        there.sort();
        expected.sort();
        assert_eq!(there, expected);
    }

    #[test]
    fn ends_what_still_works_in_a_leftover() {
        let parent = tempfile::tempdir().expect("a folder");
        let living = Root::create(parent.path()).expect("made");
        let left = parent.path().join(format!("{PREFIX}0/call"));
        std::fs::create_dir_all(&left).expect("made");
        let sleep = |home: &Path| {
            std::process::Command::new("sleep").arg("60").env("HOME", home).spawn().expect("sleep starts")
        };
        let (mut stays, mut goes) = (sleep(&living.folder().expect("made")), sleep(&left));
        Root::create(parent.path()).expect("made");
        assert_eq!(goes.wait().expect("it ends").code(), None, "by a signal");
        assert!(stays.try_wait().expect("it is ours").is_none());
        stays.kill().expect("it is there");
        stays.wait().expect("it ends");
    }
}
