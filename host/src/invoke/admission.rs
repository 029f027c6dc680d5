//! Who may run now, who waits, and who is sent away.
//!
//! At most `concurrency` components and `processes` programs run at once, and of those no function, lane or
//! caller holds more than its share. Beyond that at most `queue` calls wait, for at most `queue_seconds`.
//! They wait in a queue for each function and caller, which take turns, so that the one that floods waits
//! behind itself alone. Where all queues together are full a call is refused at once: the newest of the
//! longest queue, or the one that comes.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::oneshot;

use crate::{
    config::{Limits, seconds},
    function::Invocation,
};

mod places;

use places::{Bounds, Places, Tenant, Ticket};

/// There is no place, and none came free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many calls are running and waiting as this server takes")]
pub struct AtCapacity;

/// The places of a server.
#[derive(Debug)]
pub struct Admission {
    components: Arc<Pool>,
    processes: Arc<Pool>,
}

/// A place; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    pool: Arc<Pool>,
    tenant: Tenant,
}

#[derive(Debug)]
struct Pool {
    /// Held for some map look-ups at a time, and never while a permit is dropped.
    places: Mutex<Places<oneshot::Sender<Permit>>>,
    patience: Duration,
}

impl Admission {
    /// As many places as `limits` says.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let pool = |places: u64| {
            let share = |percent: u64| places.saturating_mul(percent).div_ceil(100).max(1);
            let bounds = Bounds {
                places,
                of_function: share(limits.function_share_percent),
                of_lane: share(limits.lane_share_percent),
                of_token: share(limits.token_share_percent),
                queue: usize::try_from(limits.queue).unwrap_or(usize::MAX),
            };
            Arc::new(Pool { places: Mutex::new(Places::new(bounds)), patience: seconds(limits.queue_seconds) })
        };
        Self { components: pool(limits.concurrency), processes: pool(limits.processes) }
    }

    /// A place for a call whose type is not known yet, or is a component's.
    ///
    /// # Errors
    /// When there is none, and none came free in time.
    pub async fn acquire(&self, invocation: &Invocation) -> Result<Permit, AtCapacity> {
        self.components.acquire(Tenant::of(invocation)).await
    }

    /// The place of a native program, for the one that the call has: so programs that wait hold no
    /// place of a component.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub async fn exchange(&self, permit: Permit) -> Result<Permit, AtCapacity> {
        let tenant = permit.tenant.clone();
        drop(permit);
        self.processes.acquire(tenant).await
    }
}

impl Pool {
    fn places(&self) -> MutexGuard<'_, Places<oneshot::Sender<Permit>>> {
        // Nothing panics while it holds the lock.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn acquire(self: &Arc<Self>, tenant: Tenant) -> Result<Permit, AtCapacity> {
        if self.places().take(&tenant) {
            return Ok(Permit { pool: self.clone(), tenant });
        }
        let (granted, grant) = oneshot::channel();
        let queued = self.places().enqueue(&tenant, granted);
        let Some((ticket, pushed_out)) = queued else { return Err(AtCapacity) };
        // Its waiter hears that nothing will come.
        drop(pushed_out);
        let _leaving = Leaving { pool: self, tenant: &tenant, ticket };
        match tokio::time::timeout(self.patience, grant).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) | Err(_) => Err(AtCapacity),
        }
    }

    fn give_back(self: &Arc<Self>, tenant: &Tenant) {
        let mut places = self.places();
        places.give_back(tenant);
        // One place came free, but a share may have too: whoever waited for either may go.
        let mut going = Vec::new();
        while let Some(next) = places.next() {
            going.push(next);
        }
        drop(places);
        for (tenant, granted) in going {
            // One who has just gone away gives it back at once.
            drop(granted.send(Permit { pool: self.clone(), tenant }));
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.pool.give_back(&self.tenant);
    }
}

/// Leaves the queue when dropped, also when the caller gave up.
struct Leaving<'a> {
    pool: &'a Pool,
    tenant: &'a Tenant,
    ticket: Ticket,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        let left = self.pool.places().leave(self.tenant, self.ticket);
        drop(left);
    }
}

#[cfg(test)]
mod tests;
