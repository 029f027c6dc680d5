//! The connections: at most so many at once, kept for a while when they are not used.
//!
//! A [`Lease`] that is dropped closes its connection; only [`Lease::give_back`] returns it, which is
//! called where the protocol is in a known state. So a future that is dropped in the middle of a step,
//! a time limit and an error all end a connection, without a line of code for each.

use std::{
    ops::{Deref, DerefMut},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::{Duration, Instant},
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
};

use super::{
    connection::{Connection, Endpoint},
    fault::Fault,
};

/// A connection that was not used for longer is asked whether it still lives before it is used again.
const TRUSTED: Duration = Duration::from_secs(1);

/// The connections to one server.
pub(super) struct Pool {
    endpoint: Endpoint,
    places: Arc<Semaphore>,
    keep: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Unused connections and since when, the longest unused first.
    idle: Vec<(Connection, Instant)>,
    /// Closes them in time; ended with the pool.
    reaper: Option<AbortHandle>,
    /// When a connect last timed out, and how.
    unanswered: Option<(Instant, String)>,
}

/// A connection for one use.
pub(super) struct Lease {
    connection: Connection,
    pool: Arc<Pool>,
    _place: OwnedSemaphorePermit,
}

impl Pool {
    /// A pool of at most `size` connections, each closed when it was not used for `keep`.
    pub(super) fn new(endpoint: Endpoint, size: usize, keep: Duration) -> Arc<Self> {
        Arc::new(Self { endpoint, places: Arc::new(Semaphore::new(size)), keep, state: Mutex::default() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it holds the lock, and every state in between is a whole one.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection: an unused one that still answers, or a new one. Waits for a place when all are in
    /// use, which each is for a bounded time.
    pub(super) async fn get(self: &Arc<Self>) -> Result<Lease, Fault> {
        let began = Instant::now();
        let place = self.places.clone().acquire_owned().await.map_err(|_| Fault::Lost("the pool is closed".into()))?;
        let connection = match self.unused().await {
            Some(connection) => connection,
            None => self.connect(began).await?,
        };
        Ok(Lease { connection, pool: self.clone(), _place: place })
    }

    async fn unused(&self) -> Option<Connection> {
        loop {
            let (mut connection, since) = self.state().idle.pop()?;
            let unused = since.elapsed();
            if unused < TRUSTED || (unused < self.keep && connection.noop().await.is_ok()) {
                return Some(connection);
            }
            // The others were not used for even longer.
            self.forget();
        }
    }

    async fn connect(&self, began: Instant) -> Result<Connection, Fault> {
        // Who waited for its place while the server did not answer another does not wait for that once
        // more: with a queue it would not end.
        if let Some((at, text)) = &self.state().unanswered
            && *at > began
        {
            return Err(Fault::Slow(text.clone()));
        }
        let result = self.endpoint.connect().await;
        if let Err(Fault::Slow(text)) = &result {
            self.state().unanswered = Some((Instant::now(), text.clone()));
        }
        result
    }

    /// Closes the unused connections: something told that they are probably dead.
    pub(super) fn forget(&self) {
        self.state().idle.clear();
    }

    /// Closes those that were not used for too long, and says when to look again.
    fn reap(&self) -> Option<Duration> {
        let mut state = self.state();
        state.idle.retain(|(_, since)| since.elapsed() < self.keep);
        let oldest = state.idle.first().map(|(_, since)| self.keep.saturating_sub(since.elapsed()));
        if oldest.is_none() {
            state.reaper = None;
        }
        oldest
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        if let Some(reaper) = self.state().reaper.take() {
            reaper.abort();
        }
    }
}

impl Lease {
    /// Returns the connection, whose protocol state is known, for the next use; and hands on what was
    /// done with it.
    pub(super) fn give_back<T>(self, done: T) -> Result<T, Fault> {
        let Self { connection, pool, _place } = self;
        let mut state = pool.state();
        state.idle.push((connection, Instant::now()));
        if state.reaper.is_none() {
            state.reaper = Some(tokio::spawn(reap(Arc::downgrade(&pool), pool.keep)).abort_handle());
        }
        drop(state);
        Ok(done)
    }
}

impl Deref for Lease {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl DerefMut for Lease {
    fn deref_mut(&mut self) -> &mut Connection {
        &mut self.connection
    }
}

/// Closes unused connections in time, as long as there are some.
async fn reap(pool: Weak<Pool>, mut wait: Duration) {
    loop {
        tokio::time::sleep(wait).await;
        let Some(next) = pool.upgrade().and_then(|pool| pool.reap()) else { return };
        wait = next;
    }
}
