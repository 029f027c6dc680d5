//! What is held, what it takes, and what goes when it takes too much.
//!
//! Whoever prepares or runs a thing of the local folder holds a [`Pin`] on it from before the first look
//! on the disk, and nothing pinned is ever dropped. A pin is also the lock under which a thing is made.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT, utimensat};

use super::{
    ArtifactError,
    folder::{Folder, Item, disk_bytes},
};

/// Who holds what, and what it takes on disk.
#[derive(Debug)]
pub(super) struct Usage {
    folder: Arc<Folder>,
    /// Those of machine code that can be loaded; a component has it under one of them.
    compatibilities: [String; 2],
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    slots: HashMap<Item, Slot>,
    /// What each thing takes on disk, in bytes; filled when it is first asked for.
    sizes: Option<HashMap<Item, u64>>,
}

/// A thing that somebody holds.
#[derive(Debug)]
struct Slot {
    holders: usize,
    /// Made by a push that may still be refused.
    fresh: bool,
    /// Somebody wants it, whatever becomes of that push.
    kept: bool,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// When it was last used, in milliseconds since 1970.
    used: AtomicU64,
    making: tokio::sync::Mutex<()>,
}

/// Holds a thing of the folder in its place.
#[derive(Debug)]
pub(super) struct Pin {
    usage: Arc<Usage>,
    item: Item,
    shared: Arc<Shared>,
}

impl Usage {
    pub(super) fn new(folder: Arc<Folder>, compatibilities: [String; 2]) -> Arc<Self> {
        Arc::new(Self { folder, compatibilities, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and every change of the state is one step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Holds the thing, whether it is there already or is to be made. One that is not `keep` is dropped
    /// with its last holder, if it was made meanwhile and nobody kept it.
    pub(super) fn pin(self: &Arc<Self>, item: Item, keep: bool) -> Pin {
        let mut state = self.state();
        let slot = state.slots.entry(item).or_insert_with(|| Slot {
            holders: 0,
            fresh: false,
            kept: false,
            shared: Arc::new(Shared { used: AtomicU64::new(now()), making: tokio::sync::Mutex::default() }),
        });
        slot.holders += 1;
        slot.kept |= keep;
        Pin { usage: self.clone(), item, shared: slot.shared.clone() }
    }

    /// The files or folders of a thing; the first is the one whose time tells when it was last used.
    fn paths(&self, item: &Item) -> Vec<PathBuf> {
        match item {
            Item::Package(zip) => vec![self.folder.package(zip)],
            Item::Code(component) => {
                let code = |compatibility: &String| self.folder.code(component, compatibility);
                let [first, second] = self.compatibilities.each_ref().map(code);
                let (code, seal) = if second.0.exists() { second } else { first };
                vec![code, seal]
            }
        }
    }

    /// What everything takes on disk, in bytes.
    pub(super) fn total(&self) -> Result<u64, ArtifactError> {
        if let Some(sizes) = &self.state().sizes {
            return Ok(sizes.values().sum());
        }
        // Outside of the lock; whatever is made meanwhile is held by its maker, and measured again below.
        let mut found = self.look_through()?;
        let mut state = self.state();
        found.extend(state.slots.keys().map(|item| (*item, self.measure(item))));
        let sizes = state.sizes.get_or_insert(found);
        Ok(sizes.values().sum())
    }

    fn measure(&self, item: &Item) -> u64 {
        self.paths(item).iter().map(|path| disk_bytes(path).unwrap_or_default()).sum()
    }

    fn look_through(&self) -> Result<HashMap<Item, u64>, ArtifactError> {
        let failed = || ArtifactError::local("looking through the folder");
        let mut sizes = HashMap::new();
        for path in self.folder.list("packages").map_err(failed())? {
            match name(&path).parse() {
                Ok(digest) => _ = sizes.insert(Item::Package(digest), disk_bytes(&path).unwrap_or_default()),
                Err(_) => tracing::warn!("{} is not one of ours", path.display()),
            }
        }
        for path in self.folder.list("code").map_err(failed())? {
            // What an engine of another version left can never be loaded again.
            let ours = name(&path).split_once('-').and_then(|(digest, rest)| {
                let compatibility = rest.strip_suffix(".cwasm").or(rest.strip_suffix(".seal"))?;
                digest.parse().ok().filter(|_| self.compatibilities.iter().any(|ours| ours == compatibility))
            });
            match ours {
                Some(digest) => {
                    *sizes.entry(Item::Code(digest)).or_default() += disk_bytes(&path).unwrap_or_default();
                }
                None => super::folder::remove(&path).map_err(failed())?,
            }
        }
        Ok(sizes)
    }

    /// All things that could go, those that were not used for longest first.
    pub(super) fn oldest_first(&self) -> Vec<Item> {
        let state = self.state();
        let mut items: Vec<_> = state.sizes.iter().flatten().map(|(item, _)| *item).collect();
        items.sort_by_cached_key(|item| match state.slots.get(item) {
            Some(slot) => UNIX_EPOCH + Duration::from_millis(slot.shared.used.load(Ordering::Relaxed)),
            None => self
                .paths(item)
                .first()
                .and_then(|path| path.symlink_metadata().ok())
                .and_then(|metadata| metadata.modified().ok())
                .unwrap_or(UNIX_EPOCH),
        });
        items
    }

    /// Drops the thing, unless somebody holds it. Gives whether it is gone.
    pub(super) fn drop_unheld(&self, item: &Item) -> Result<bool, ArtifactError> {
        let mut state = self.state();
        if state.slots.contains_key(item) {
            return Ok(false);
        }
        let gone = self.take_away(item)?;
        if let Some(sizes) = &mut state.sizes {
            sizes.remove(item);
        }
        drop(state);
        drop(gone);
        Ok(true)
    }

    /// Moves a thing out of its place in one step; what is given removes it when dropped.
    fn take_away(&self, item: &Item) -> Result<tempfile::TempDir, ArtifactError> {
        let gone = self.folder.workshop()?;
        for (at, path) in self.paths(item).iter().enumerate() {
            match std::fs::rename(path, gone.path().join(at.to_string())) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(ArtifactError::local("dropping what is not used")(error));
                }
                Ok(()) | Err(_) => {}
            }
        }
        Ok(gone)
    }
}

impl Pin {
    pub(super) fn item(&self) -> Item {
        self.item
    }

    /// Waits until nobody else is making this thing.
    pub(super) async fn making(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.shared.making.lock().await
    }

    /// Notes that the thing was made just now.
    pub(super) fn made(&self) {
        let bytes = self.usage.measure(&self.item);
        let mut state = self.usage.state();
        if let Some(sizes) = &mut state.sizes {
            sizes.insert(self.item, bytes);
        }
        if let Some(slot) = state.slots.get_mut(&self.item) {
            slot.fresh = true;
        }
    }

    /// Keeps the thing, whatever becomes of the push that made it.
    pub(super) fn keep(&self) {
        if let Some(slot) = self.usage.state().slots.get_mut(&self.item) {
            slot.kept = true;
        }
    }

    /// Notes that the thing is used now.
    pub(super) fn touch(&self) {
        self.shared.used.store(now(), Ordering::Relaxed);
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut state = self.usage.state();
        let Some(slot) = state.slots.get_mut(&self.item) else { return };
        slot.holders = slot.holders.saturating_sub(1);
        if slot.holders > 0 {
            return;
        }
        let unwanted = slot.fresh && !slot.kept;
        state.slots.remove(&self.item);
        if !unwanted {
            if let Some(path) = self.usage.paths(&self.item).first() {
                note_use(path, self.shared.used.load(Ordering::Relaxed));
            }
            return;
        }
        match self.usage.take_away(&self.item) {
            Ok(gone) => {
                if let Some(sizes) = &mut state.sizes {
                    sizes.remove(&self.item);
                }
                drop(state);
                drop(gone);
            }
            Err(error) => tracing::warn!("what a refused push left stays until it is the oldest: {error}"),
        }
    }
}

/// The time of last use outlives the server as the file's own.
fn note_use(path: &Path, used: u64) {
    let used = Duration::from_millis(used);
    let time =
        Timespec { tv_sec: i64::try_from(used.as_secs()).unwrap_or(i64::MAX), tv_nsec: i64::from(used.subsec_nanos()) };
    let times = Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification: time };
    // What is not there any more has no time of use.
    let _ = utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW);
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}
