//! What publishing asks the catalog, and tells it.

use std::sync::{Arc, PoisonError};

use chrono::SubsecRound;

use super::{
    Catalog, CatalogError, Inner,
    memory::{Key, Line},
    shelf,
};
use crate::function::{FunctionName, FunctionRef, FunctionType, Lane, Location, Selector, Version};

/// How many versions wait at most for a database that is away. Those beyond it are found again by the
/// next walk through the store.
const WAITING: usize = 10_000;

impl Catalog {
    /// The newest version of a function in a lane: what the next one comes after. Looks past what the
    /// database knows into the store; while the database is away, the store alone is asked.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn newest(&self, name: &FunctionName, lane: &Lane) -> Result<Option<Version>, CatalogError> {
        let line = Line { name: name.clone(), lane: lane.clone() };
        let newest = self.inner.join_probe(line, None).await.unwrap_or(Err(CatalogError::Ended))?;
        Ok(newest.map(|newest| newest.location.version))
    }

    /// Whether a function of that name and type may be pushed to the lane.
    ///
    /// # Errors
    /// When the name is of the other type, or differs from another's in case alone; and when the store
    /// would have to be asked, and fails.
    pub async fn check_push(&self, name: &FunctionName, lane: &Lane, kind: FunctionType) -> Result<(), CatalogError> {
        let inner = &self.inner;
        let known = inner.ask(inner.database.namesakes(name)).await.unwrap_or_default();
        if let Some((_, is)) = known.iter().find(|(there, _)| there == name) {
            return same_kind(name, *is, kind);
        }
        if let Some((there, _)) = known.into_iter().next() {
            return Err(CatalogError::CaseConflict { name: name.clone(), there });
        }
        let line = Line { name: name.clone(), lane: lane.clone() };
        if let Some(newest) = inner.memory.newest(&line, None) {
            return same_kind(name, newest.kind, kind);
        }
        let checked = inner.check_store(name, kind).await;
        if let Err(CatalogError::Store(error)) = &checked {
            inner.store_failed(error);
        }
        checked
    }

    /// Tells the catalog of a version that was just committed to the store. It is resolved from now on;
    /// the database has it now or, where it is away, when it is back.
    pub async fn record(&self, mut function: FunctionRef) -> Arc<FunctionRef> {
        function.pushed_at = function.pushed_at.trunc_subsecs(6);
        let function = Arc::new(function);
        let at = &function.location;
        self.inner.memory.remember(&function);
        // It was the newest when it was committed, so it is as good an answer as one read just now.
        for selector in [Selector::Latest, Selector::Major(at.version.major)] {
            self.inner.memory.confirm(Key::new(&at.name, &at.lane, selector), &function);
        }
        self.inner.keep(vec![function.clone()]).await;
        function
    }
}

fn same_kind(name: &FunctionName, is: FunctionType, wanted: FunctionType) -> Result<(), CatalogError> {
    if is == wanted { Ok(()) } else { Err(CatalogError::TypeConflict { name: name.clone(), is, wanted }) }
}

impl Inner {
    /// Looks for the name in every lane: each function has a first version in each of its lanes.
    async fn check_store(&self, name: &FunctionName, kind: FunctionType) -> Result<(), CatalogError> {
        let folded = name.folded();
        for lane in self.shelf.store.lanes().await? {
            for there in self.shelf.store.functions(&lane, Version::FIRST).await? {
                if there.as_str() == name.as_str() {
                    let at = Location { lane: lane.clone(), version: Version::FIRST, name: there };
                    if let shelf::Found::Version(first) = self.shelf.read(&at).await? {
                        same_kind(name, first.kind, kind)?;
                    }
                } else if there.folded() == folded {
                    return Err(CatalogError::CaseConflict { name: name.clone(), there });
                }
            }
        }
        Ok(())
    }

    /// Keeps versions for when the database is back.
    pub(super) fn wait(&self, versions: Vec<Arc<FunctionRef>>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        for version in versions {
            if waiting.len() >= WAITING && !waiting.contains_key(&version.location) {
                tracing::warn!(at = %version.location, "too many versions wait for the database; the next walk will find it");
            } else {
                waiting.insert(version.location.clone(), version);
            }
        }
        drop(waiting);
        self.mend.notify_one();
    }
}
