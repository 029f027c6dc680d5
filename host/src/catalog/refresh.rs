//! Keeping up with the store, and with partners that were away.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, atomic::Ordering},
};

use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::{Catalog, CatalogError, Inner, shelf};
use crate::{
    database::DatabaseError,
    function::{FunctionRef, Lane, Location, Version},
};

/// How many folders are listed at once, and how many manifests are read at once: together not all the
/// connections that the store may have, as calls need some too.
const LISTINGS: usize = 2;
const MANIFESTS: usize = 4;
/// How many versions are inserted at once.
const BATCH: usize = 200;

impl Catalog {
    /// Walks the whole store and inserts what the database does not know. Gives the number of versions
    /// that are new. A walk that is under way is waited for first.
    ///
    /// # Errors
    /// When the store or the database fails; what was found before that is kept.
    pub async fn refresh(&self) -> Result<u64, CatalogError> {
        self.inner.walk().await
    }
}

impl Inner {
    async fn walk(&self) -> Result<u64, CatalogError> {
        let _one = self.walking.lock().await;
        let walked = self.walk_store().await;
        match &walked {
            Ok(new) => {
                self.walked.store(true, Ordering::Relaxed);
                tracing::debug!(new, "the store was walked");
            }
            Err(CatalogError::Store(error)) => self.store_failed(error),
            Err(_) => {}
        }
        walked
    }

    async fn walk_store(&self) -> Result<u64, CatalogError> {
        let mut new = 0;
        for lane in self.shelf.store.lanes().await? {
            let versions = self.shelf.store.versions(&lane).await?;
            let lane = &lane;
            let unknown = stream::iter(versions)
                .map(|version| self.unknown_in(lane, version))
                .buffer_unordered(LISTINGS)
                .map_ok(|places| stream::iter(places.into_iter().map(Ok)))
                .try_flatten();
            let read = unknown
                .map_ok(|at| async move { Ok(self.shelf.read(&at).await?) })
                .try_buffer_unordered(MANIFESTS)
                .try_filter_map(|found| async move {
                    Ok(match found {
                        shelf::Found::Version(function) => Some(function),
                        shelf::Found::Nothing | shelf::Found::Damaged => None,
                    })
                });
            let mut batches = std::pin::pin!(read.try_chunks(BATCH));
            while let Some(batch) = batches.next().await {
                // What was read before a failure is kept.
                let (batch, failure) = match batch {
                    Ok(batch) => (batch, None),
                    Err(stream::TryChunksError(batch, error)) => (batch, Some(error)),
                };
                new += self.insert(&batch).await?;
                if let Some(error) = failure {
                    return Err(error);
                }
            }
        }
        Ok(new)
    }

    /// The places in one version folder that the database does not know.
    async fn unknown_in(&self, lane: &Lane, version: Version) -> Result<Vec<Location>, CatalogError> {
        let there = self.shelf.store.functions(lane, version).await?;
        if there.is_empty() {
            return Ok(Vec::new());
        }
        let known = self.ask(self.database.known(lane, version)).await?;
        let unknown = there.into_iter().filter(|name| !known.contains(name));
        Ok(unknown
            .map(|name| Location { lane: lane.clone(), version, name })
            .filter(|at| !self.shelf.is_damaged(at))
            .collect())
    }

    async fn insert(&self, versions: &[Arc<FunctionRef>]) -> Result<u64, CatalogError> {
        if versions.is_empty() {
            return Ok(0);
        }
        self.ask(self.database.insert_versions(versions.iter().map(Arc::as_ref))).await?;
        // Memory is for what is called: it learns only what is newer than an answer it has.
        for version in versions {
            self.memory.raise(version);
        }
        Ok(versions.len() as u64)
    }

    /// Walks the store at start, again soon where that failed, and then from time to time.
    pub(super) async fn keep_fresh(self: Arc<Self>) {
        let mut logged = false;
        while let Err(error) = self.walk().await {
            if !std::mem::replace(&mut logged, true) {
                tracing::warn!(%error, "the store could not be walked; it will be tried again until it can");
            }
            sleep(self.settings.retry).await;
        }
        let Some(period) = self.settings.refresh else { return };
        let mut times = interval(period);
        times.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // The first tick is now.
        times.tick().await;
        loop {
            times.tick().await;
            if let Err(error) = self.walk().await {
                tracing::warn!(%error, "the store could not be walked");
            }
        }
    }

    /// Asks partners that are away whether they are back, and inserts what waited for the database.
    pub(super) async fn keep_mended(self: Arc<Self>) {
        loop {
            self.mend.notified().await;
            while !self.mended().await {
                sleep(self.settings.retry).await;
            }
        }
    }

    /// Whether nothing is away and nothing waits.
    pub(super) async fn mended(&self) -> bool {
        let store = async {
            if self.store_health.away().is_some() && self.shelf.store.ping().await.is_ok() {
                self.store_health.answered();
            }
        };
        let database = async {
            if self.database_health.away().is_some() && self.database.ping().await.is_ok() {
                self.database_health.answered();
            }
            self.insert_waiting().await
        };
        let ((), inserted) = tokio::join!(store, database);
        inserted && self.store_health.away().is_none() && self.database_health.away().is_none()
    }

    async fn insert_waiting(&self) -> bool {
        let waiting: HashMap<Location, Arc<FunctionRef>> =
            self.waiting.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if waiting.is_empty() {
            return true;
        }
        let inserted = self.ask(self.database.insert_versions(waiting.values().map(Arc::as_ref))).await;
        if let Err(CatalogError::Database(DatabaseError::Unavailable(_))) = inserted {
            return false;
        }
        // What the database refuses is not offered again and again; `ask` has logged it.
        // What came meanwhile goes on waiting.
        let mut left = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        left.retain(|at, version| waiting.get(at).is_none_or(|inserted| inserted.push_id != version.push_id));
        left.is_empty()
    }
}
