//! Whether the database or the store is away.
//!
//! The first failure is noted and logged; while it stands, nobody waits for a partner that does not
//! answer. The catalog's mender asks it now and then, and takes the note back.

use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug)]
pub(super) struct Health<E> {
    what: &'static str,
    /// Why it is away.
    away: Mutex<Option<Arc<E>>>,
}

impl<E: std::fmt::Display> Health<E> {
    pub(super) fn new(what: &'static str) -> Self {
        Self { what, away: Mutex::new(None) }
    }

    /// Why it is away, if it is.
    pub(super) fn away(&self) -> Option<Arc<E>> {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// It failed.
    pub(super) fn failed(&self, error: Arc<E>) {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        if away.is_none() {
            tracing::warn!(%error, "the catalog goes on without the {}", self.what);
        }
        *away = Some(error);
    }

    /// It answered.
    pub(super) fn answered(&self) {
        if self.away.lock().unwrap_or_else(PoisonError::into_inner).take().is_some() {
            tracing::info!("the {} is back", self.what);
        }
    }
}
