//! What the catalog has in memory: answers, bounded in number, the longest unused out first.
//!
//! A version never changes, so an exact answer is good for as long as it is kept. "The newest" is good
//! for [`Settings::fresh`](super::Settings::fresh) and never goes back: versions are only ever added.

use std::{
    hash::Hash,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use equivalent::Equivalent;
use moka::{ops::compute::Op, policy::EvictionPolicy, sync::Cache};

use super::{CatalogError, Settings};
use crate::function::{FunctionName, FunctionRef, Lane, Selector, Version};

/// A function in a lane: a line of versions.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Line {
    pub(super) name: FunctionName,
    pub(super) lane: Lane,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    pub(super) line: Line,
    pub(super) selector: Selector,
}

impl Key {
    pub(super) fn new(name: &FunctionName, lane: &Lane, selector: Selector) -> Self {
        Self { line: Line { name: name.clone(), lane: lane.clone() }, selector }
    }
}

/// A [`Key`] that is only looked up: it hashes as one.
#[derive(Debug, Hash)]
struct LineRef<'a> {
    name: &'a FunctionName,
    lane: &'a Lane,
}

#[derive(Debug, Hash)]
struct KeyRef<'a> {
    line: LineRef<'a>,
    selector: Selector,
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.line.name == key.line.name && *self.line.lane == key.line.lane && self.selector == key.selector
    }
}

/// An answer.
#[derive(Debug)]
struct Entry {
    function: Arc<FunctionRef>,
    /// When it was known to be the newest, in microseconds of the memory's clock.
    checked: AtomicU64,
}

/// What memory says.
#[derive(Debug)]
pub(super) enum Answer {
    /// This.
    Fresh(Arc<FunctionRef>),
    /// This, as far as was known a while ago.
    Stale(Arc<FunctionRef>),
    /// Nothing, as was found a moment ago.
    Missing(CatalogError),
    Unknown,
}

/// What the last look into the store for a line came to.
#[derive(Debug, Clone)]
pub(super) struct Probe {
    at: u64,
    pub(super) newest: Option<Arc<FunctionRef>>,
}

#[derive(Debug)]
pub(super) struct Memory {
    found: Cache<Key, Arc<Entry>>,
    missing: Cache<Key, CatalogError>,
    /// Of a line, and of a major of it.
    probes: Cache<(Line, Option<u32>), Probe>,
    /// Lines of which an exact version was read from the store a moment ago, without a search before.
    reads: Cache<Line, ()>,
    clock: Instant,
    fresh: u64,
}

fn bounded<K, V>(entries: u64) -> moka::sync::CacheBuilder<K, V, Cache<K, V>>
where
    K: Eq + Hash + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    // A new answer must be kept even where an old one was asked for more often, or a version that was just
    // pushed would not be seen.
    Cache::builder().max_capacity(entries).eviction_policy(EvictionPolicy::lru())
}

impl Memory {
    pub(super) fn new(settings: &Settings) -> Self {
        Self {
            found: bounded(settings.entries).build(),
            missing: bounded(settings.entries).time_to_live(settings.missing).build(),
            probes: bounded(settings.entries).build(),
            reads: bounded(settings.entries).time_to_live(settings.missing).build(),
            clock: Instant::now(),
            fresh: micros(settings.fresh),
        }
    }

    fn now(&self) -> u64 {
        micros(self.clock.elapsed())
    }

    /// The hot path: no allocation, no lock that a writer of another answer holds.
    pub(super) fn answer(&self, name: &FunctionName, lane: &Lane, selector: Selector) -> Answer {
        let key = KeyRef { line: LineRef { name, lane }, selector };
        if let Some(entry) = self.found.get(&key) {
            let fresh = match selector {
                Selector::Exact(_) => true,
                Selector::Latest | Selector::Major(_) => {
                    self.now().saturating_sub(entry.checked.load(Ordering::Relaxed)) < self.fresh
                }
            };
            let function = entry.function.clone();
            return if fresh { Answer::Fresh(function) } else { Answer::Stale(function) };
        }
        self.missing.get(&key).map_or(Answer::Unknown, Answer::Missing)
    }

    /// What is in memory, fresh or not.
    pub(super) fn any(&self, key: &Key) -> Option<Arc<FunctionRef>> {
        self.found.get(key).map(|entry| entry.function.clone())
    }

    /// A version that exists.
    pub(super) fn remember(&self, function: &Arc<FunctionRef>) {
        let at = &function.location;
        let key = Key::new(&at.name, &at.lane, Selector::Exact(at.version));
        self.found.insert(key, Arc::new(Entry { function: function.clone(), checked: AtomicU64::new(0) }));
        self.raise(function);
    }

    /// A version that exists: where an older one is kept as the newest, it is that no longer.
    pub(super) fn raise(&self, function: &Arc<FunctionRef>) {
        let at = &function.location;
        for selector in [Selector::Latest, Selector::Major(at.version.major)] {
            let key = Key::new(&at.name, &at.lane, selector);
            self.found.entry(key).and_compute_with(|kept| match kept.map(moka::Entry::into_value) {
                Some(kept) if kept.function.location.version < at.version => {
                    let checked = AtomicU64::new(kept.checked.load(Ordering::Relaxed));
                    Op::Put(Arc::new(Entry { function: function.clone(), checked }))
                }
                _ => Op::Nop,
            });
        }
    }

    /// The answer to `key` as it is now. Where a newer one is kept, that stays. Gives what is kept then.
    pub(super) fn confirm(&self, key: Key, function: &Arc<FunctionRef>) -> Arc<FunctionRef> {
        let now = self.now();
        let entry = self.found.entry(key).and_compute_with(|kept| match kept.map(moka::Entry::into_value) {
            Some(kept) if supersedes(&kept.function, function) => {
                kept.checked.store(now, Ordering::Relaxed);
                Op::Nop
            }
            _ => Op::Put(Arc::new(Entry { function: function.clone(), checked: AtomicU64::new(now) })),
        });
        entry.into_entry().map_or_else(|| function.clone(), |entry| entry.into_value().function.clone())
    }

    /// There was no answer to `key`. One that came meanwhile stays, and is looked for first.
    pub(super) fn miss(&self, key: Key, error: CatalogError) {
        self.missing.insert(key, error);
    }

    /// The last look into the store for the line, if it is younger than `age`.
    pub(super) fn probe(&self, line: &Line, major: Option<u32>, age: Duration) -> Option<Probe> {
        let probe = self.probes.get(&(line.clone(), major))?;
        (self.now().saturating_sub(probe.at) < micros(age)).then_some(probe)
    }

    /// Whether nobody else read an exact version of the line a moment ago. One read is less than a search;
    /// many of them, for versions that are not there, are more.
    pub(super) fn first_read(&self, line: &Line) -> bool {
        self.reads.entry_by_ref(line).or_insert(()).is_fresh()
    }

    pub(super) fn probed(&self, line: Line, major: Option<u32>, newest: Option<Arc<FunctionRef>>) {
        let at = self.now();
        self.probes.insert((line, major), Probe { at, newest });
    }

    /// The newest version of the line, or of a major of it, that memory holds.
    pub(super) fn newest(&self, line: &Line, major: Option<u32>) -> Option<Arc<FunctionRef>> {
        let selector = major.map_or(Selector::Latest, Selector::Major);
        let found = self.any(&Key { line: line.clone(), selector });
        let probed = self.probes.get(&(line.clone(), major)).and_then(|probe| probe.newest);
        newer(found, probed)
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}

/// Whether `kept` stays although `new` was just found: it is newer, or the same.
fn supersedes(kept: &FunctionRef, new: &FunctionRef) -> bool {
    let (kept_version, new_version): (Version, Version) = (kept.location.version, new.location.version);
    kept_version > new_version || (kept_version == new_version && kept.push_id == new.push_id)
}

/// The newer of two.
pub(super) fn newer(a: Option<Arc<FunctionRef>>, b: Option<Arc<FunctionRef>>) -> Option<Arc<FunctionRef>> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.location.version > a.location.version { b } else { a }),
        (a, b) => a.or(b),
    }
}
