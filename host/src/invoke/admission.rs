//! Who may run now, who waits, and who is sent away.
//!
//! At most `concurrency` components and `processes` programs run at once. Beyond that at most `queue`
//! calls wait, in the order they came and for at most `queue_seconds`; every further one is refused at
//! once, so a flood costs it little and the others nothing.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore, TryAcquireError};

use crate::config::{Limits, seconds};

/// There is no place, and none came free in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("as many calls are running and waiting as this server takes")]
pub struct AtCapacity;

/// A place; given back when dropped.
#[derive(Debug)]
pub struct Permit {
    _place: OwnedSemaphorePermit,
}

/// The places of a server.
#[derive(Debug)]
pub struct Admission {
    components: Arc<Semaphore>,
    processes: Arc<Semaphore>,
    waiting: AtomicU64,
    queue: u64,
    patience: Duration,
}

impl Admission {
    /// As many places as `limits` says.
    #[must_use]
    pub fn new(limits: &Limits) -> Self {
        let places = |count: u64| Arc::new(Semaphore::new(usize::try_from(count).unwrap_or(Semaphore::MAX_PERMITS)));
        Self {
            components: places(limits.concurrency),
            processes: places(limits.processes),
            waiting: AtomicU64::new(0),
            queue: limits.queue,
            patience: seconds(limits.queue_seconds),
        }
    }

    /// A place for a call whose type is not known yet, or is a component's.
    ///
    /// # Errors
    /// When there is none, and none came free in time.
    pub async fn acquire(&self) -> Result<Permit, AtCapacity> {
        self.place(&self.components).await
    }

    /// The place of a native program, for the one that the call has: so programs that wait hold no
    /// place of a component.
    ///
    /// # Errors
    /// As [`acquire`](Self::acquire).
    pub async fn exchange(&self, permit: Permit) -> Result<Permit, AtCapacity> {
        drop(permit);
        self.place(&self.processes).await
    }

    async fn place(&self, places: &Arc<Semaphore>) -> Result<Permit, AtCapacity> {
        match places.clone().try_acquire_owned() {
            Ok(place) => return Ok(Permit { _place: place }),
            Err(TryAcquireError::Closed) => return Err(AtCapacity),
            Err(TryAcquireError::NoPermits) => {}
        }
        let _waiting = Waiting::enter(&self.waiting, self.queue).ok_or(AtCapacity)?;
        match tokio::time::timeout(self.patience, places.clone().acquire_owned()).await {
            Ok(Ok(place)) => Ok(Permit { _place: place }),
            Ok(Err(_)) | Err(_) => Err(AtCapacity),
        }
    }
}

/// A place in the queue; left when dropped, also when the caller gave up.
struct Waiting<'a>(&'a AtomicU64);

impl<'a> Waiting<'a> {
    fn enter(count: &'a AtomicU64, most: u64) -> Option<Self> {
        let entered = count.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |now| (now < most).then_some(now + 1));
        entered.ok().map(|_| Self(count))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admission(concurrency: u64, queue: u64, queue_seconds: u64) -> Admission {
        Admission::new(&Limits { concurrency, processes: 1, queue, queue_seconds, ..Limits::default() })
    }

    #[tokio::test]
    async fn refuses_at_once_beyond_the_queue() {
        let admission = admission(1, 0, 60);
        let held = admission.acquire().await.expect("a free place");
        assert!(admission.acquire().await.is_err());
        drop(held);
        assert!(admission.acquire().await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn waits_for_a_place_as_long_as_it_may() {
        let admission = Arc::new(admission(1, 1, 5));
        let held = admission.acquire().await.expect("a free place");
        let waiter = tokio::spawn({
            let admission = admission.clone();
            async move { admission.acquire().await.map(drop) }
        });
        tokio::task::yield_now().await;
        assert!(admission.acquire().await.is_err(), "the queue is full");
        drop(held);
        assert!(waiter.await.expect("it ends").is_ok());

        let _held = admission.acquire().await.expect("free again");
        let before = tokio::time::Instant::now();
        assert!(admission.acquire().await.is_err());
        assert_eq!(before.elapsed(), Duration::from_secs(5));
        assert_eq!(admission.waiting.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn programs_have_places_of_their_own() {
        let admission = admission(1, 0, 1);
        let permit = admission.acquire().await.expect("a free place");
        let _process = admission.exchange(permit).await.expect("a process's place");
        let component = admission.acquire().await.expect("the component's place is free again");
        assert!(admission.exchange(component).await.is_err());
    }
}
