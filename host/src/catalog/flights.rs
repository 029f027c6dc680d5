//! Single flight: however many callers want the same at once, one task works for it.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use tokio_util::sync::CancellationToken;

/// What callers wait for; `None` when the work ended early. To stop waiting leaves the work be.
pub(super) type Flight<V> = Shared<BoxFuture<'static, Option<V>>>;

/// The work under way, by what it is for.
#[derive(Debug)]
pub(super) struct Flights<K, V>(Mutex<HashMap<K, Flight<V>>>);

impl<K, V> Default for Flights<K, V> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K, V> Flights<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn under_way(&self) -> MutexGuard<'_, HashMap<K, Flight<V>>> {
        // Whole after any insert or remove.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the work for `key` that is under way, or else starts `work` in a task of its own, which
    /// ends early when `end` fires.
    pub(super) fn join<F>(self: &Arc<Self>, key: K, end: &CancellationToken, work: impl FnOnce() -> F) -> Flight<V>
    where
        F: Future<Output = V> + Send + 'static,
    {
        let mut under_way = self.under_way();
        if let Some(flight) = under_way.get(&key) {
            return flight.clone();
        }
        let landing = Landing { flights: self.clone(), key: key.clone() };
        let work = work();
        let task = async move {
            let _landing = landing;
            work.await
        };
        let task = tokio::spawn(end.clone().run_until_cancelled_owned(task));
        let flight = task.map(|ended| ended.ok().flatten()).boxed().shared();
        under_way.insert(key, flight.clone());
        flight
    }
}

/// Takes a flight off the list when its work ends, in whatever way.
struct Landing<K: Clone + Eq + Hash + Send + 'static, V: Clone + Send + Sync + 'static> {
    flights: Arc<Flights<K, V>>,
    key: K,
}

impl<K, V> Drop for Landing<K, V>
where
    K: Clone + Eq + Hash + Send + 'static,
    V: Clone + Send + Sync + 'static,
{
    fn drop(&mut self) {
        self.flights.under_way().remove(&self.key);
    }
}
