//! Following a call: what it prints, line by line, and how it ended.
//!
//! A call of this server is followed at its own console. One that runs on another server, or has ended, is
//! followed at a [`Mirror`]: a console that is kept up from the call's row in the database, one for all
//! who follow the call here. So a follower never knows, and never waits for a database by itself.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak},
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use super::{Live, live::sealed};
use crate::{
    database::{Database, DatabaseError, InvocationRow},
    function::InvocationId,
    runtime::console::{Batch, Console},
};

/// How often the row of a call on another server is read.
const LOOK: Duration = Duration::from_millis(200);
/// How often its server is asked to keep the row up.
const ASK: Duration = Duration::from_secs(1);

/// How soon after a follower had all that was printed it may be given more: a guest that prints line upon line
/// wakes nobody for each of them, and what comes is sent together. A line after a silence goes at once.
const BREATH: Duration = Duration::from_millis(1);

/// A follower's place in the output of one call.
#[derive(Debug)]
pub struct Tail {
    source: Source,
    next: u64,
    node: Arc<str>,
    /// When it had all there was.
    had_all: Option<Instant>,
}

#[derive(Debug)]
enum Source {
    /// With whether the caller follows it.
    Live(Arc<Live>, bool),
    Mirror(Arc<Mirror>),
}

/// What a follower hears.
#[derive(Debug)]
pub struct Heard {
    /// Lines, and how many came too early for the follower.
    pub batch: Batch,
    /// The call, when it has ended and no line comes any more. What it printed is not always in it.
    pub end: Option<Arc<InvocationRow>>,
}

/// The call's row was deleted while it was followed.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the history of the call has expired")]
pub struct Expired;

impl Tail {
    pub(super) fn live(live: Arc<Live>, for_caller: bool, next: u64, node: Arc<str>) -> Self {
        Self { source: Source::Live(live, for_caller), next, node, had_all: None }
    }

    pub(super) fn mirror(mirror: Arc<Mirror>, next: u64, node: Arc<str>) -> Self {
        Self { source: Source::Mirror(mirror), next, node, had_all: None }
    }

    /// Whether the call is one of this server.
    #[must_use]
    pub fn is_here(&self) -> bool {
        matches!(self.source, Source::Live(..))
    }

    fn console(&self) -> &Console {
        match &self.source {
            Source::Live(live, _) => &live.console,
            Source::Mirror(mirror) => &mirror.console,
        }
    }

    /// Whether the call has ended, with fewer lines than the follower says that it has had.
    #[must_use]
    pub fn is_past_end(&self) -> bool {
        let console = self.console();
        console.read(self.next, 0).ended && self.next > console.printed()
    }

    /// Waits for the next lines, about `max` bytes of them at most, or for the end. Safe to drop at any
    /// point.
    ///
    /// # Errors
    /// When nothing is known of the call any more.
    pub async fn next(&mut self, max: usize) -> Result<Heard, Expired> {
        let console = self.console();
        let mut batch = console.next(self.next, max).await;
        let breath = self.had_all.map_or(Duration::ZERO, |at| BREATH.saturating_sub(at.elapsed()));
        if batch.all && !batch.ended && !breath.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(breath) => {}
                () = console.over() => {}
            }
            batch = console.read(self.next, max);
        }
        if let Source::Live(live, for_caller) = &self.source {
            batch.lines = sealed(batch.lines, live.seal(*for_caller));
        }
        let end = match (&self.source, batch.ended) {
            (_, false) => None,
            (Source::Live(live, for_caller), true) => {
                live.wait().await;
                Some(Arc::new(live.row_without_output(&self.node, *for_caller)))
            }
            (Source::Mirror(mirror), true) => Some(mirror.end().await.ok_or(Expired)?),
        };
        self.next = batch.next();
        self.had_all = batch.all.then(Instant::now);
        Ok(Heard { batch, end })
    }
}

/// The console of a call that is not of this server, or not any more.
#[derive(Debug)]
pub(super) struct Mirror {
    console: Console,
    /// `None` in it: the row is gone.
    end: OnceLock<Option<Arc<InvocationRow>>>,
    ended: Notify,
}

impl Mirror {
    fn new(keep: usize) -> Self {
        Self { console: Console::new(keep), end: OnceLock::new(), ended: Notify::new() }
    }

    /// Takes what a row says; whether that is the last of it.
    fn show(&self, row: Option<InvocationRow>) -> bool {
        let end = match row {
            Some(row) => {
                self.console.put(row.output_skipped, &row.output);
                if !row.status.is_end() {
                    return false;
                }
                Some(Arc::new(row))
            }
            None => None,
        };
        self.end.get_or_init(|| end);
        self.console.end();
        self.ended.notify_waiters();
        true
    }

    async fn end(&self) -> Option<Arc<InvocationRow>> {
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if let Some(end) = self.end.get() {
                return end.clone();
            }
            ended.await;
        }
    }
}

/// The mirrors that somebody follows now.
#[derive(Debug, Default)]
pub(super) struct Mirrors(Mutex<HashMap<InvocationId, Weak<Mirror>>>);

impl Mirrors {
    fn map(&self) -> MutexGuard<'_, HashMap<InvocationId, Weak<Mirror>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The one that is there.
    pub(super) fn get(&self, id: InvocationId) -> Option<Arc<Mirror>> {
        self.map().get(&id)?.upgrade()
    }

    /// One for a row, which holds about `keep` bytes of output, and at least those of the row. While the
    /// call runs a task of `services` keeps it up, until nobody follows it any more.
    pub(super) fn make(
        self: &Arc<Self>,
        row: InvocationRow,
        keep: usize,
        database: &Database,
        services: &tokio::runtime::Handle,
    ) -> Arc<Mirror> {
        let mut map = self.map();
        let id = row.id;
        if let Some(there) = map.get(&id).and_then(Weak::upgrade) {
            return there;
        }
        map.retain(|_, mirror| mirror.strong_count() > 0);
        let mirror = Arc::new(Mirror::new(keep.max(Console::room_for(&row.output))));
        map.insert(id, Arc::downgrade(&mirror));
        drop(map);
        if !mirror.show(Some(row)) {
            services.spawn(keep_up(Arc::downgrade(&mirror), id, database.clone()));
        }
        mirror
    }
}

async fn keep_up(mirror: Weak<Mirror>, id: InvocationId, database: Database) {
    let mut asked = None::<Instant>;
    while mirror.strong_count() > 0 {
        match read(&database, id, &mut asked).await {
            Ok(row) => {
                if mirror.upgrade().is_none_or(|mirror| mirror.show(row)) {
                    return;
                }
            }
            Err(error) => tracing::debug!(invocation = %id, %error, "a call on another server cannot be followed now"),
        }
        tokio::time::sleep(LOOK).await;
    }
}

async fn read(
    database: &Database,
    id: InvocationId,
    asked: &mut Option<Instant>,
) -> Result<Option<InvocationRow>, DatabaseError> {
    if asked.is_none_or(|at| at.elapsed() >= ASK) {
        database.watch(id).await?;
        *asked = Some(Instant::now());
    }
    database.invocation(id).await
}
