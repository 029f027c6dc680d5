//! Taking the next number, and giving up what took none.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::time::Instant;

use super::{PublishError, Publisher, Push};
use crate::{
    catalog::Catalog,
    function::{FunctionName, FunctionRef, Lane, Location, Manifest, PushId, Version},
    store::{Commit, FunctionStore, StoreError},
};

/// How long a commit is asked for again whose answer did not come, beside what the store takes for it by
/// itself.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// How many numbers in a row a push may lose to others before it gives up.
pub(super) const MOST_LOST: u32 = 1000;
/// How long to wait before the same is asked again of a store that failed: at first, and at most.
const WAIT: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));
/// How long to wait before what is staged is tried to be removed again; twice as long each time.
pub(super) const UNDO_WAIT: Duration = Duration::from_secs(2);
/// How long what is staged is tried to be removed while the store is away; later, its sweep does it.
const UNDOING: Duration = Duration::from_secs(600);

/// A push that took no number, as far as is known.
pub(super) struct Failed {
    pub(super) error: PublishError,
    /// Where it may stand all the same, because an answer got lost.
    pub(super) maybe: Option<FunctionRef>,
}

impl<E: Into<PublishError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self { error: error.into(), maybe: None }
    }
}

type Turn = tokio::sync::Mutex<()>;
/// A function in a lane.
type Line = (FunctionName, Lane);

/// The pushes of one server wait for one another where they would only race for the same number.
#[derive(Debug, Default)]
pub(super) struct Queues(Mutex<HashMap<Line, Weak<Turn>>>);

impl Queues {
    fn of(&self, push: &Push) -> Arc<Turn> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (push.name.clone(), push.lane.clone());
        if let Some(queue) = queues.get(&key).and_then(Weak::upgrade) {
            return queue;
        }
        queues.retain(|_, queue| queue.strong_count() > 0);
        let queue = Arc::<Turn>::default();
        queues.insert(key, Arc::downgrade(&queue));
        queue
    }
}

impl Publisher {
    /// Commits what is staged as the next number, and the one after it where others took that.
    pub(super) async fn commit(&self, push: &Push, manifest: Manifest) -> Result<Arc<FunctionRef>, Failed> {
        let queue = self.queues.of(push);
        // Only to spare the store useless races: when it takes long, they are raced.
        let _turn = tokio::time::timeout(self.patience, queue.lock()).await;
        let newest = self.catalog.newest(&push.name, &push.lane).await.map_err(PublishError::from)?;
        let mut version = Version::after(newest, push.new_version);
        for _ in 0..MOST_LOST {
            // The last moment to give up.
            if push.cancel.is_cancelled() {
                return Err(PublishError::GivenUp.into());
            }
            let function = FunctionRef::from_manifest(manifest.clone(), version);
            match self.commit_as(manifest.push_id, &function.location).await {
                Ok(Commit::Done) => return Ok(self.catalog.record(function).await),
                Ok(Commit::Taken) => {}
                Err(error) => {
                    return Err(Failed { error: PublishError::Store(error), maybe: Some(function) });
                }
            }
            // Who took it may have pushed another type, or begun the next major.
            let newest = self.catalog.newest(&push.name, &push.lane).await.map_err(PublishError::from)?;
            self.catalog.check_push(&push.name, &push.lane, push.kind).await.map_err(PublishError::from)?;
            let beyond = if push.new_version { version.next_major() } else { version.next_minor() };
            version = Version::after(newest, push.new_version).max(beyond);
        }
        Err(PublishError::Outrun(push.name.clone()).into())
    }

    /// Commits as one number. An error says nothing about whether it was done, so the same is asked
    /// again for a while: it is better to know.
    async fn commit_as(&self, push: PushId, at: &Location) -> Result<Commit, StoreError> {
        let until = Instant::now() + self.patience;
        let mut wait = WAIT.0;
        loop {
            match self.store.commit(push, at).await {
                Err(error @ StoreError::Unavailable(_)) if Instant::now() + wait < until => {
                    tracing::warn!(%push, "committing {at}: {error}; asking again");
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(WAIT.1);
                }
                answer => return answer,
            }
        }
    }

    /// Removes what is staged of a push; where the store is away, later. Where an answer got lost, the
    /// push may turn out to be published: then the catalog is told, and the version given. If that shows
    /// only later, the pusher was told otherwise.
    pub(super) async fn undo(&self, push: PushId, maybe: Option<FunctionRef>) -> Option<Arc<FunctionRef>> {
        let undo = Undo { catalog: self.catalog.clone(), store: self.store.clone(), push, maybe };
        match undo.once().await {
            Ok(published) => published,
            Err(error) => {
                tracing::warn!(%push, "what is staged of a push is removed later: {error}");
                tokio::spawn(self.end.clone().run_until_cancelled_owned(undo.later(self.undo_wait)));
                None
            }
        }
    }
}

/// What is left to undo of a push.
struct Undo {
    catalog: Arc<Catalog>,
    store: Arc<dyn FunctionStore>,
    push: PushId,
    maybe: Option<FunctionRef>,
}

impl Undo {
    async fn later(self, mut wait: Duration) {
        let until = Instant::now() + UNDOING;
        while Instant::now() < until {
            tokio::time::sleep(wait).await;
            wait *= 2;
            match self.once().await {
                Ok(_) => return,
                Err(error) => tracing::debug!(push = %self.push, "what is staged of a push is still there: {error}"),
            }
        }
        tracing::warn!(push = %self.push, "what is staged of a push is left for the sweep");
    }

    /// Gives the version that the push turns out to be.
    async fn once(&self) -> Result<Option<Arc<FunctionRef>>, StoreError> {
        // After this nothing can be committed any more, so what is seen then is how it stays.
        self.store.discard(self.push).await?;
        let Some(function) = &self.maybe else { return Ok(None) };
        let Some(found) = self.store.manifest(&function.location).await? else { return Ok(None) };
        if !serde_json::from_slice::<Manifest>(&found).is_ok_and(|found| found.push_id == self.push) {
            return Ok(None);
        }
        tracing::warn!("published {} after all: the store's answer had got lost", function.location);
        Ok(Some(self.catalog.record(function.clone()).await))
    }
}
