//! A store in a folder of this machine.
//!
//! A version that was reported as published survives a power failure: files and folders are synced
//! before the rename that publishes them, and the folder that gets the new name is synced after it.
//! The file system's work is done on tokio's blocking threads and goes on when a caller goes away,
//! which is the same to everyone as an answer that got lost.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use rustix::fs::OFlags;

use super::{
    Commit, FunctionStore, GONE, MANIFEST, PACKAGE, STAGING, StoreError, is_older, local::NewFile, push_of, staged_push,
};
use crate::function::{FunctionName, Lane, Location, PushId, Version, manifest::MAX_MANIFEST_BYTES};

/// A store in a folder.
#[derive(Debug, Clone)]
pub struct DirStore {
    root: PathBuf,
    /// One call at a time works at a push, also when the caller of an earlier one went away; which of
    /// the locks is a push's is told by its id.
    locks: Arc<[Mutex<()>; 64]>,
}

/// Does blocking work on a thread that may block.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => Err(StoreError::Unavailable(format!("its work was stopped: {error}"))),
    }
}

/// What an error of the store's file system means.
fn failed(what: &str, path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let text = format!("cannot {what} {}", path.display());
    move |error| match error.kind() {
        ErrorKind::StorageFull
        | ErrorKind::QuotaExceeded
        | ErrorKind::ReadOnlyFilesystem
        | ErrorKind::PermissionDenied
        | ErrorKind::NotADirectory => StoreError::Unusable(format!("{text}: {error}")),
        _ => StoreError::Unavailable(format!("{text}: {error}")),
    }
}

impl DirStore {
    /// The store below `root`, which is made when something is first put into it.
    #[must_use]
    pub fn new(root: &Path) -> Self {
        Self { root: root.into(), locks: Arc::new([const { Mutex::new(()) }; 64]) }
    }

    fn lock(&self, push: PushId) -> Option<MutexGuard<'_, ()>> {
        // The last byte of the id is random.
        let [.., last] = push.0.as_bytes();
        let lock = self.locks.get(usize::from(*last) % self.locks.len());
        lock.map(|lock| lock.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn staged(&self, push: PushId) -> PathBuf {
        self.root.join(STAGING).join(push.to_string())
    }

    fn gone(&self, push: PushId) -> PathBuf {
        self.root.join(STAGING).join(format!("{push}{GONE}"))
    }

    fn version(&self, at: &Location) -> PathBuf {
        self.lane(&at.lane).join(at.version.to_string()).join(at.name.as_str())
    }

    fn lane(&self, lane: &Lane) -> PathBuf {
        self.root.join(lane.as_str())
    }

    /// A fresh staging folder.
    fn make_staged(&self, push: PushId) -> Result<PathBuf, StoreError> {
        let folder = self.staged(push);
        make_folders(&self.root.join(STAGING))?;
        if fs::symlink_metadata(&folder).is_ok() {
            self.clear(push)?;
        }
        fs::create_dir(&folder).map_err(failed("make the folder", &folder))?;
        Ok(folder)
    }

    fn stage(&self, push: PushId, package: &Path, manifest: &[u8]) -> Result<(), StoreError> {
        let _lock = self.lock(push);
        let mut source = File::open(package)?;
        let size = source.metadata()?.len();
        let folder = self.make_staged(push)?;
        let path = folder.join(PACKAGE);
        let mut target = create(&path)?;
        let copied = io::copy(&mut source, &mut target).map_err(failed("write", &path))?;
        target.sync_all().map_err(failed("sync", &path))?;
        if copied != size {
            return Err(io::Error::other("the package changed while it was pushed").into());
        }
        write_new(&folder.join(MANIFEST), manifest)?;
        sync_folder(&folder)
    }

    fn commit(&self, push: PushId, at: &Location) -> Result<Commit, StoreError> {
        let _lock = self.lock(push);
        let (from, to) = (self.staged(push), self.version(at));
        let parent = self.lane(&at.lane).join(at.version.to_string());
        make_folders(&parent)?;
        if let Err(error) = fs::rename(&from, &to) {
            // Whatever the reason given, what is there decides.
            match read_bounded(&to.join(MANIFEST))?.as_deref().map(push_of) {
                Some(found) if found == Some(push) => {}
                Some(_) => return Ok(Commit::Taken),
                None if fs::symlink_metadata(&from).is_err() => {
                    return Err(StoreError::Damaged(format!("staged push {push}")));
                }
                None if fs::symlink_metadata(&to).is_ok() => return Ok(Commit::Taken),
                None => return Err(failed("publish", &to)(error)),
            }
        }
        // All of them: who else made a folder on the way may not have synced the one above it yet.
        for folder in [&parent, &self.lane(&at.lane), &self.root, &self.root.join(STAGING)] {
            sync_folder(folder)?;
        }
        Ok(Commit::Done)
    }

    /// Removes what is staged of a push.
    fn clear(&self, push: PushId) -> Result<(), StoreError> {
        let (staged, gone) = (self.staged(push), self.gone(push));
        remove_folder(&gone)?;
        match fs::rename(&staged, &gone) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("remove", &staged)(error)),
            Ok(()) => remove_folder(&gone),
        }
    }

    fn discard(&self, push: PushId) -> Result<(), StoreError> {
        let _lock = self.lock(push);
        self.clear(push)
    }

    fn fetch(&self, at: &Location, size: u64, to: &Path) -> Result<(), StoreError> {
        let damaged = || StoreError::Damaged(format!("package of {at}: it must have {size} bytes"));
        let path = self.version(at).join(PACKAGE);
        let source = open_file(&path)?.ok_or_else(damaged)?;
        if source.metadata().map_err(failed("read", &path))?.len() != size {
            return Err(damaged());
        }
        let mut target = NewFile::create(to)?;
        // Both sides are ours here: an error of either has the same text.
        if io::copy(&mut source.take(size), target.file())? != size {
            return Err(damaged());
        }
        target.keep();
        Ok(())
    }

    fn probe(&self) -> Result<(), StoreError> {
        let [a, b, target] = [(); 3].map(|()| PushId::generate());
        let result = self.probe_with(a, b, target);
        for push in [a, b, target] {
            self.clear(push)?;
        }
        result
    }

    fn probe_with(&self, a: PushId, b: PushId, target: PushId) -> Result<(), StoreError> {
        for push in [a, b] {
            write_new(&self.make_staged(push)?.join(MANIFEST), push.to_string().as_bytes())?;
        }
        let to = self.staged(target);
        fs::rename(self.staged(a), &to).map_err(failed("rename a folder to", &to))?;
        let second = fs::rename(self.staged(b), &to);
        let kept = read_bounded(&to.join(MANIFEST))?.is_some_and(|bytes| bytes == a.to_string().as_bytes());
        if second.is_ok() || !kept {
            return Err(StoreError::Unusable(format!("in {} a rename replaces a folder", self.root.display())));
        }
        sync_folder(&self.root.join(STAGING))
    }

    fn sweep(&self, grace: Duration) -> Result<usize, StoreError> {
        let mut pushes: Vec<_> = folders(&self.root.join(STAGING), staged_push)?;
        pushes.dedup();
        pushes.retain(|push| is_older(*push, grace));
        pushes.iter().try_for_each(|push| self.discard(*push))?;
        Ok(pushes.len())
    }
}

#[async_trait]
impl FunctionStore for DirStore {
    async fn stage(&self, push: PushId, package: &Path, manifest: &[u8]) -> Result<(), StoreError> {
        let (store, package, manifest) = (self.clone(), package.to_owned(), manifest.to_owned());
        blocking(move || store.stage(push, &package, &manifest)).await
    }

    async fn commit(&self, push: PushId, at: &Location) -> Result<Commit, StoreError> {
        let (store, at) = (self.clone(), at.clone());
        blocking(move || store.commit(push, &at)).await
    }

    async fn discard(&self, push: PushId) -> Result<(), StoreError> {
        let store = self.clone();
        blocking(move || store.discard(push)).await
    }

    async fn manifest(&self, at: &Location) -> Result<Option<Vec<u8>>, StoreError> {
        let path = self.version(at).join(MANIFEST);
        blocking(move || read_bounded(&path)).await
    }

    async fn fetch(&self, at: &Location, size: u64, to: &Path) -> Result<(), StoreError> {
        let (store, at, to) = (self.clone(), at.clone(), to.to_owned());
        blocking(move || store.fetch(&at, size, &to)).await
    }

    async fn lanes(&self) -> Result<Vec<Lane>, StoreError> {
        let path = self.root.clone();
        blocking(move || folders(&path, |name| Lane::parse(name).ok())).await
    }

    async fn versions(&self, lane: &Lane) -> Result<Vec<Version>, StoreError> {
        let path = self.lane(lane);
        blocking(move || folders(&path, |name| name.parse().ok())).await
    }

    async fn functions(&self, lane: &Lane, version: Version) -> Result<Vec<FunctionName>, StoreError> {
        let path = self.lane(lane).join(version.to_string());
        blocking(move || folders(&path, |name| FunctionName::parse(name).ok())).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        let store = self.clone();
        blocking(move || store.probe()).await
    }

    async fn sweep(&self, grace: Duration) -> Result<usize, StoreError> {
        let store = self.clone();
        blocking(move || store.sweep(grace)).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        let path = self.root.clone();
        blocking(move || make_folders(&path)).await
    }
}

/// Makes a folder and those above it, and syncs every folder that got a new entry.
fn make_folders(path: &Path) -> Result<(), StoreError> {
    match fs::create_dir(path) {
        Ok(()) => sync_folder(parent(path)),
        Err(error) if error.kind() == ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) if error.kind() == ErrorKind::NotFound && parent(path) != path => {
            make_folders(parent(path))?;
            match fs::create_dir(path) {
                Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(failed("make the folder", path)(error)),
                _ => sync_folder(parent(path)),
            }
        }
        Err(error) => Err(failed("make the folder", path)(error)),
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

fn sync_folder(path: &Path) -> Result<(), StoreError> {
    File::open(path).and_then(|folder| folder.sync_all()).map_err(failed("sync", path))
}

fn create(path: &Path) -> Result<File, StoreError> {
    OpenOptions::new().write(true).create_new(true).open(path).map_err(failed("make", path))
}

fn write_new(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let mut file = create(path)?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(failed("write", path))
}

/// Opens a plain file, and nothing that would block or lead elsewhere; `None` when it is not there.
fn open_file(path: &Path) -> Result<Option<File>, StoreError> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    match opened {
        Ok(file) if file.metadata().is_ok_and(|data| data.is_file()) => Ok(Some(file)),
        Ok(_) => Ok(None),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(failed("read", path)(error)),
    }
}

/// The bytes of a manifest.
fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(file) = open_file(path)? else { return Ok(None) };
    let mut bytes = Vec::new();
    file.take(MAX_MANIFEST_BYTES as u64 + 1).read_to_end(&mut bytes).map_err(failed("read", path))?;
    if bytes.len() > MAX_MANIFEST_BYTES {
        return Err(StoreError::Damaged(format!("{}: it is over {MAX_MANIFEST_BYTES} bytes", path.display())));
    }
    Ok(Some(bytes))
}

/// The folders in a folder whose names `parse` takes, in order. A folder that is not there holds none.
fn folders<T: Ord>(path: &Path, parse: impl Fn(&str) -> Option<T>) -> Result<Vec<T>, StoreError> {
    let entries = match fs::read_dir(path) {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => return Ok(Vec::new()),
        entries => entries.map_err(failed("list", path))?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let entry = entry.map_err(failed("list", path))?;
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(entry.file_name().to_str().and_then(&parse));
        }
    }
    found.sort_unstable();
    Ok(found)
}

fn remove_folder(path: &Path) -> Result<(), StoreError> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(failed("remove", path)(error)),
        _ => Ok(()),
    }
}
