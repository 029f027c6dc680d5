//! Which versions there are.
//!
//! The store is the truth, and slow to ask. The database is its index, shared by some servers or by none.
//! Memory is in front of both:
//!
//! ```text
//! resolve → memory ─ fresh → answer
//!             └ stale or unknown → one look-up, however many ask
//!                                    → database → answer; a look past it into the store, in the background
//!                                    → store, where the database knows nothing or is away
//! ```
//!
//! * An exact version never changes and is kept as long as there is room. "The newest" is asked of the
//!   database again after [`Settings::fresh`]; what this server pushed is known at once.
//! * Versions are consecutive, so the store is searched without walking it: the newest of a function is
//!   found in steps that double, and nothing new costs two reads. What another server with another database
//!   pushed is found so, by and by, and by [`Catalog::refresh`], which walks the whole store.
//! * What is not there is looked for once a second at most: unknown names in one listing for all of them,
//!   versions beyond the newest in one search. A flood of them costs no more than one of them.
//! * While the database is away, memory and the store answer, and what is pushed waits to be inserted.
//!   While the store is away, memory and the database answer.
//!
//! Its tasks end when the catalog is dropped.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::{
    config::{StoreConfig, seconds},
    database::{Database, DatabaseError, FunctionSummary},
    function::{FunctionName, FunctionRef, Lane, Location, Selector},
    store::{FunctionStore, StoreError},
};

mod error;
mod flights;
mod health;
mod lookup;
mod memory;
mod probe;
mod push;
mod refresh;
mod shelf;
#[cfg(test)]
mod tests;

pub use error::CatalogError;

use flights::Flights;
use health::Health;
use memory::{Answer, Key, Line, Memory};
use shelf::Shelf;

/// How the catalog weighs news against work.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How long "the newest" is good for.
    pub fresh: Duration,
    /// How long "there is none" is good for.
    pub missing: Duration,
    /// How long a call waits for the database when it has an answer that is not fresh; then that is given.
    pub patience: Duration,
    /// How often the store is looked through for what other servers pushed, more than nothing; none: at
    /// start only.
    pub refresh: Option<Duration>,
    /// How often a partner that is away is asked whether it is back.
    pub retry: Duration,
    /// How many answers are kept, of each kind: found, not found, searched. One takes about 500 bytes.
    pub entries: u64,
    /// How many look-ups may be at work in the database at once, and in the store.
    pub lookups: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            fresh: seconds(1),
            missing: seconds(1),
            patience: Duration::from_millis(500),
            refresh: Some(seconds(60)),
            retry: seconds(1),
            entries: 65_536,
            lookups: 4,
        }
    }
}

impl From<&StoreConfig> for Settings {
    fn from(config: &StoreConfig) -> Self {
        let refresh = (config.refresh_seconds > 0).then(|| seconds(config.refresh_seconds));
        Self { refresh, ..Self::default() }
    }
}

type Found = Result<Arc<FunctionRef>, CatalogError>;
type Newest = Result<Option<Arc<FunctionRef>>, CatalogError>;

/// The catalog. One a server.
#[derive(Debug)]
pub struct Catalog {
    inner: Arc<Inner>,
    /// Ends the tasks.
    _end: DropGuard,
}

#[derive(Debug)]
struct Inner {
    database: Database,
    shelf: Shelf,
    settings: Settings,
    memory: Memory,
    lookups: Arc<Flights<Key, Found>>,
    probes: Arc<Flights<(Line, Option<u32>), Newest>>,
    /// Look-ups that may ask the database at once: not all of its connections.
    questions: Semaphore,
    /// Look-ups that may go to the store at once: not all of its connections.
    permits: Semaphore,
    database_health: Health<DatabaseError>,
    store_health: Health<StoreError>,
    /// Versions that are in the store and not in the database yet, as it was away.
    waiting: Mutex<HashMap<Location, Arc<FunctionRef>>>,
    /// Wakes the mender: something is away, or waits.
    mend: Notify,
    /// Whether the whole store was walked since the start, so that the database knows its past.
    walked: AtomicBool,
    /// One walk at a time.
    walking: tokio::sync::Mutex<()>,
    end: CancellationToken,
}

impl Catalog {
    /// The catalog of `store`, indexed in `database`. Starts to walk the store in the background, so that
    /// a database that is empty or behind catches up. To be called in a tokio runtime.
    #[must_use]
    pub fn new(database: Database, store: Arc<dyn FunctionStore>, settings: Settings) -> Self {
        let catalog = Self::idle(database, store, settings);
        let inner = &catalog.inner;
        tokio::spawn(inner.end.clone().run_until_cancelled_owned(inner.clone().keep_fresh()));
        tokio::spawn(inner.end.clone().run_until_cancelled_owned(inner.clone().keep_mended()));
        catalog
    }

    /// One without its tasks.
    fn idle(database: Database, store: Arc<dyn FunctionStore>, settings: Settings) -> Self {
        let end = CancellationToken::new();
        let inner = Arc::new(Inner {
            database,
            shelf: Shelf::new(store, settings.missing),
            memory: Memory::new(&settings),
            lookups: Arc::default(),
            probes: Arc::default(),
            questions: Semaphore::new(settings.lookups),
            permits: Semaphore::new(settings.lookups),
            database_health: Health::new("database"),
            store_health: Health::new("store"),
            waiting: Mutex::default(),
            mend: Notify::new(),
            walked: AtomicBool::new(false),
            walking: tokio::sync::Mutex::default(),
            end: end.clone(),
            settings,
        });
        Self { inner, _end: end.drop_guard() }
    }

    /// The version that a call means, where that is known without asking anyone.
    #[must_use]
    pub fn at_hand(&self, name: &FunctionName, lane: &Lane, selector: Selector) -> Option<Found> {
        match self.inner.memory.answer(name, lane, selector) {
            Answer::Fresh(function) => Some(Ok(function)),
            Answer::Missing(error) => Some(Err(error)),
            Answer::Stale(_) | Answer::Unknown => None,
        }
    }

    /// The version that a call means.
    ///
    /// # Errors
    /// When there is none, or neither the database nor the store can say.
    pub async fn resolve(&self, name: &FunctionName, lane: &Lane, selector: Selector) -> Found {
        match self.inner.memory.answer(name, lane, selector) {
            Answer::Fresh(function) => Ok(function),
            Answer::Missing(error) => Err(error),
            Answer::Stale(stale) => self.inner.renew(Key::new(name, lane, selector), stale).await,
            Answer::Unknown => {
                let flight = self.inner.join_lookup(Key::new(name, lane, selector));
                flight.await.unwrap_or(Err(CatalogError::Ended))
            }
        }
    }

    /// The functions whose names come after `after`, at most `limit` of them, with their lanes.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn functions(
        &self,
        after: Option<&FunctionName>,
        limit: u64,
    ) -> Result<Vec<FunctionSummary>, CatalogError> {
        self.inner.ask(self.inner.database.functions(after, limit)).await
    }

    /// One function with its lanes, and its versions by lane and newest first, at most `limit` of them.
    ///
    /// # Errors
    /// When there is none, or the database fails.
    pub async fn function(
        &self,
        name: &FunctionName,
        limit: u64,
    ) -> Result<(FunctionSummary, Vec<FunctionRef>), CatalogError> {
        let summary = self.inner.ask(self.inner.database.function(name)).await?;
        let Some(summary) = summary else {
            return Err(CatalogError::FunctionNotFound { name: name.clone(), lane: None, elsewhere: Vec::new() });
        };
        let versions = self.inner.ask(self.inner.database.versions_of(name, None, limit)).await?;
        Ok((summary, versions))
    }

    /// Whether the whole store was walked since the start: the database knows all that was pushed before.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.inner.walked.load(Ordering::Relaxed)
    }

    /// Whether the database or the store was away when it was last asked, or versions wait for the database.
    #[must_use]
    pub fn is_impaired(&self) -> bool {
        let inner = &self.inner;
        let waiting = !inner.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty();
        waiting || inner.database_health.away().is_some() || inner.store_health.away().is_some()
    }
}
