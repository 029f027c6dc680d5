//! The slow path: the database, and then the store.

use std::{future::Future, sync::Arc, sync::atomic::Ordering};

use tokio::time::timeout;

use super::{
    CatalogError, Found, Inner,
    flights::Flight,
    memory::{Key, Line},
    shelf,
};
use crate::{
    database::DatabaseError,
    function::{FunctionRef, Lane, Location, Selector, Version},
    store::StoreError,
};

impl Inner {
    pub(super) fn join_lookup(self: &Arc<Self>, key: Key) -> Flight<Found> {
        self.lookups.join(key.clone(), &self.end, || self.clone().look_up(key))
    }

    /// A fresh answer where one comes in time, or else the stale one.
    pub(super) async fn renew(self: &Arc<Self>, key: Key, stale: Arc<FunctionRef>) -> Found {
        if self.database_health.away().is_some() {
            self.look_ahead(&key);
            return Ok(stale);
        }
        match timeout(self.settings.patience, self.join_lookup(key)).await {
            Ok(Some(Ok(function))) => Ok(function),
            Ok(Some(Err(error))) if error.is_answer() => Err(error),
            Ok(_) => Ok(stale),
            Err(_) => {
                // So that the next callers don't wait as long, each of them.
                let text = format!("it took longer than {} ms", self.settings.patience.as_millis());
                self.database_failed(DatabaseError::Unavailable(text));
                Ok(stale)
            }
        }
    }

    async fn look_up(self: Arc<Self>, key: Key) -> Found {
        let Line { name, lane } = &key.line;
        let permit = self.questions.acquire().await.map_err(|_| CatalogError::Ended)?;
        let known = match key.selector {
            Selector::Exact(version) => {
                let at = Location { lane: lane.clone(), version, name: name.clone() };
                self.ask(self.database.version(&at)).await
            }
            Selector::Latest => self.ask(self.database.newest(name, lane, None)).await,
            Selector::Major(major) => self.ask(self.database.newest(name, lane, Some(major))).await,
        };
        drop(permit);
        match (known, self.memory.any(&key)) {
            (Ok(Some(function)), _) => Ok(self.found(key, Arc::new(function)).await),
            (Err(_), Some(stale)) => Ok(stale),
            // The database knows nothing, or can't say: the store does.
            (Ok(None) | Err(_), _) => {
                let found = self.search(&key).await;
                match &found {
                    Ok(function) => {
                        self.memory.remember(function);
                        if !matches!(key.selector, Selector::Exact(_)) {
                            return Ok(self.memory.confirm(key, function));
                        }
                    }
                    Err(error) if error.is_answer() => self.memory.miss(key, error.clone()),
                    Err(_) => {}
                }
                found
            }
        }
    }

    /// What the database said, and what the store may add to it.
    async fn found(self: &Arc<Self>, key: Key, function: Arc<FunctionRef>) -> Arc<FunctionRef> {
        self.memory.remember(&function);
        let Some(major) = scope(key.selector) else { return function };
        let never = self.memory.probe(&key.line, major, std::time::Duration::MAX).is_none();
        if never && !self.walked.load(Ordering::Relaxed) && self.store_health.away().is_none() {
            // After a start the database may be behind the store by any number of versions.
            let flight = self.join_probe(key.line.clone(), major);
            if let Ok(Some(Ok(Some(newest)))) = timeout(self.settings.patience / 2, flight).await {
                return self.memory.confirm(key, &newest);
            }
        } else {
            self.look_ahead(&key);
        }
        self.memory.confirm(key, &function)
    }

    /// Looks in the background whether the store has something newer, if it is time to.
    fn look_ahead(self: &Arc<Self>, key: &Key) {
        let (Some(age), Some(major)) = (self.settings.refresh, scope(key.selector)) else { return };
        if self.store_health.away().is_none() && self.memory.probe(&key.line, major, age).is_none() {
            drop(self.join_probe(key.line.clone(), major));
        }
    }

    /// Looks into the store for what the database does not know.
    async fn search(self: &Arc<Self>, key: &Key) -> Found {
        let _permit = self.permits.acquire().await.map_err(|_| CatalogError::Ended)?;
        if let Some(error) = self.store_health.away() {
            return Err(CatalogError::Store(error));
        }
        let found = self.search_store(key).await;
        if let Err(CatalogError::Store(error)) = &found {
            self.store_failed(error);
        }
        found
    }

    async fn search_store(self: &Arc<Self>, key: &Key) -> Found {
        let Line { name, lane } = &key.line;
        let database = match key.selector {
            // That was asked just now.
            Selector::Latest => None,
            Selector::Major(_) | Selector::Exact(_) => {
                self.ask(self.database.newest(name, lane, None)).await.ok().flatten()
            }
        };
        if database.is_none() && self.memory.newest(&key.line, None).is_none() {
            if !self.shelf.lanes().await?.contains(lane) {
                let mut there: Vec<_> = self.shelf.lanes().await?.iter().cloned().collect();
                there.sort_unstable();
                return Err(CatalogError::LaneNotFound { lane: lane.clone(), there });
            }
            if !self.shelf.names(lane).await?.contains(name) {
                return Err(self.not_in_lane(&key.line).await);
            }
        }
        let known = database.map(|it| it.location.version);
        let known = known.max(self.memory.newest(&key.line, None).map(|it| it.location.version));
        // One that would come soon is read however short a while ago the line was looked at: whoever asks
        // for it may just have pushed it elsewhere.
        if let Selector::Exact(version) = key.selector
            && (is_near(version, known) || self.memory.first_read(&key.line))
            && let shelf::Found::Version(function) = self.read(&key.line, version).await?
        {
            self.keep(vec![function.clone()]).await;
            return Ok(function);
        }
        // There is nothing beyond the newest, so nothing is read there, whatever is asked for.
        let newest = self.newest_in_store(&key.line, None).await?;
        let none = || CatalogError::VersionNotFound {
            name: name.clone(),
            lane: lane.clone(),
            selector: key.selector,
            newest: newest.as_ref().map(|newest| newest.location.version),
        };
        let Some(top) = newest.as_ref().map(|newest| newest.location.version) else { return Err(none()) };
        match key.selector {
            Selector::Latest => newest.clone().ok_or_else(none),
            Selector::Major(major) if major > top.major || major == 0 => Err(none()),
            Selector::Major(major) => self.newest_in_store(&key.line, Some(major)).await?.ok_or_else(none),
            Selector::Exact(version) if version > top => Err(none()),
            Selector::Exact(version) => {
                let top = self.newest_in_store(&key.line, Some(version.major)).await?;
                if top.is_none_or(|top| version > top.location.version) {
                    return Err(none());
                }
                match self.read(&key.line, version).await? {
                    shelf::Found::Version(function) => {
                        self.keep(vec![function.clone()]).await;
                        Ok(function)
                    }
                    shelf::Found::Nothing | shelf::Found::Damaged => Err(none()),
                }
            }
        }
    }

    async fn not_in_lane(&self, line: &Line) -> CatalogError {
        let elsewhere = self.ask(self.database.function(&line.name)).await.ok().flatten();
        let elsewhere: Vec<Lane> =
            elsewhere.map_or_else(Vec::new, |function| function.lanes.into_iter().map(|it| it.lane).collect());
        CatalogError::FunctionNotFound { name: line.name.clone(), lane: Some(line.lane.clone()), elsewhere }
    }

    pub(super) async fn read(&self, line: &Line, version: Version) -> Result<shelf::Found, StoreError> {
        let at = Location { lane: line.lane.clone(), version, name: line.name.clone() };
        self.shelf.read(&at).await
    }

    /// Keeps versions that were found in the store: in memory, and in the database now or later.
    pub(super) async fn keep(&self, found: Vec<Arc<FunctionRef>>) {
        if found.is_empty() {
            return;
        }
        for function in &found {
            self.memory.remember(function);
        }
        let inserted = self.ask(self.database.insert_versions(found.iter().map(Arc::as_ref))).await;
        if let Err(CatalogError::Database(DatabaseError::Unavailable(_))) = inserted {
            self.wait(found);
        }
    }

    /// Asks the database, unless it is away, and notes when it is.
    pub(super) async fn ask<T>(
        &self,
        question: impl Future<Output = Result<T, DatabaseError>>,
    ) -> Result<T, CatalogError> {
        if let Some(error) = self.database_health.away() {
            return Err(CatalogError::Database((*error).clone()));
        }
        match question.await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                match &error {
                    DatabaseError::Unavailable(_) => self.database_failed(error.clone()),
                    DatabaseError::Query(_) => tracing::error!(%error, "the catalog's query failed"),
                }
                Err(CatalogError::Database(error))
            }
        }
    }

    fn database_failed(&self, error: DatabaseError) {
        self.database_health.failed(Arc::new(error));
        self.mend.notify_one();
    }

    pub(super) fn store_failed(&self, error: &Arc<StoreError>) {
        if matches!(**error, StoreError::Unavailable(_)) {
            self.store_health.failed(error.clone());
            self.mend.notify_one();
        }
    }
}

/// How many versions that are not known here somebody may have pushed elsewhere a moment ago. A version
/// further on is looked for once a second, so that a flood of numbers is no flood of reads.
const NEAR: u32 = 8;

/// Whether the version may be one of the first that come after `newest`.
fn is_near(version: Version, newest: Option<Version>) -> bool {
    [false, true].into_iter().any(|new_major| {
        let next = Version::after(newest, new_major);
        version.major == next.major && (next.minor..next.minor.saturating_add(NEAR)).contains(&version.minor)
    })
}

/// Which newest the selector asks for: of a major, or of all; none for an exact version.
fn scope(selector: Selector) -> Option<Option<u32>> {
    match selector {
        Selector::Latest => Some(None),
        Selector::Major(major) => Some(Some(major)),
        Selector::Exact(_) => None,
    }
}
