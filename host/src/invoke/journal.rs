//! The history of calls on its way into the database: in batches, off the hot path.
//!
//! An ended call is handed over and written within moments with whatever else came. While the database
//! is away rows wait, bounded in number and bytes; beyond that the oldest are dropped, which is logged.
//! Until a call's last row is written it stays in the register of live calls, so it can be asked for at
//! any time. Calls that take longer than a moment are written as running too, so that every server of
//! the database sees them, and can ask for their end, or for what they print.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use chrono::{TimeDelta, Utc};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    InvokeError,
    live::{Live, Register},
};
use crate::{
    config::HistoryConfig,
    database::{Database, DatabaseError, InvocationRow},
    function::InvocationId,
};

/// How long rows gather before they are written.
const GATHER: Duration = Duration::from_millis(50);
/// How many rows are written at once, and about how many bytes.
const BATCH: usize = 2000;
const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// The longest pause between two tries while the database is away.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often calls under way are looked through: written as running, and cancelled where another server
/// was asked to.
const LOOK: Duration = Duration::from_secs(1);
/// How often the output of a call that somebody follows on another server is written.
const SHOW: Duration = Duration::from_millis(200);
/// How long a call is watched after it was last asked for.
const WATCHED_FOR: Duration = Duration::from_secs(5);
/// How often old rows are deleted.
const EXPIRE: Duration = Duration::from_secs(600);
/// How many rows one deletion takes.
const EXPIRE_ROWS: u64 = 1000;
/// How many bytes of results and output may wait while the database is away.
const WAITING_BYTES: usize = 256 * 1024 * 1024;

/// The rows that wait, and those who write them.
#[derive(Debug)]
pub(super) struct Journal {
    database: Database,
    register: Arc<Register>,
    node: Arc<str>,
    keep: TimeDelta,
    most: usize,
    waiting: Mutex<Waiting>,
    /// Something waits.
    came: Notify,
    /// Something was written.
    went: Notify,
}

/// The calls of this server that somebody follows on another one.
type Watched = HashMap<InvocationId, Watch>;

#[derive(Debug)]
struct Watch {
    /// The mark that it was last asked for with.
    mark: i64,
    until: Instant,
    /// How many lines it had printed when its row was last written.
    shown: Option<u64>,
}

#[derive(Debug, Default)]
struct Waiting {
    /// Each with its weight, so that nobody looks into calls while they hold the lock.
    calls: VecDeque<(Arc<Live>, usize)>,
    bytes: usize,
    /// Of `calls`, being written now.
    writing: usize,
    dropped: u64,
}

/// What is written at once.
struct Batch {
    calls: Vec<Arc<Live>>,
    /// Whether more waits that did not fit.
    full: bool,
}

/// What a waiting call weighs, in bytes, roughly.
fn weight(live: &Live) -> usize {
    let result = live.ended().map_or(0, |end| match &end.result {
        Ok(text) => text.len(),
        Err(InvokeError::Guest(failure)) => failure.detail.len(),
        Err(_) => 256,
    });
    512 + result + live.console.held()
}

impl Journal {
    pub(super) fn new(database: Database, register: Arc<Register>, node: Arc<str>, config: &HistoryConfig) -> Self {
        Self {
            database,
            register,
            node,
            keep: TimeDelta::days(i64::try_from(config.keep_days).unwrap_or(36_500)),
            most: usize::try_from(config.waiting).unwrap_or(usize::MAX),
            waiting: Mutex::default(),
            came: Notify::new(),
            went: Notify::new(),
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes an ended call, to be written soon.
    pub(super) fn record(&self, live: Arc<Live>) {
        let bytes = weight(&live);
        let mut waiting = self.waiting();
        waiting.bytes += bytes;
        waiting.calls.push_back((live, bytes));
        while waiting.calls.len() > self.most || waiting.bytes > WAITING_BYTES {
            // Those being written now are on their way; the next after them goes.
            let next = waiting.writing;
            let Some((oldest, bytes)) = waiting.calls.remove(next) else { break };
            waiting.bytes = waiting.bytes.saturating_sub(bytes);
            waiting.dropped += 1;
            crate::metrics::HISTORY_LOST.count();
            self.register.remove(oldest.id);
        }
        drop(waiting);
        self.came.notify_one();
    }

    /// Writes what waits until `stop`, and then the rest.
    pub(super) async fn write(&self, stop: CancellationToken) {
        let mut pause = GATHER;
        loop {
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.came.notified() => tokio::time::sleep(GATHER).await,
            }
            while let Some(Batch { calls: batch, full }) = self.take() {
                match self.save(&batch).await {
                    Ok(()) => {
                        pause = GATHER;
                        self.written(&batch);
                        if !full && !stop.is_cancelled() {
                            // What comes meanwhile gathers, too: a write costs much beside what a row does.
                            break;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(rows = batch.len(), %error, "history cannot be written; it waits");
                        self.waiting().writing = 0;
                        if stop.is_cancelled() && pause >= LONGEST_PAUSE {
                            return;
                        }
                        tokio::time::sleep(pause).await;
                        pause = (pause * 2).min(LONGEST_PAUSE);
                    }
                }
            }
            if stop.is_cancelled() {
                return;
            }
        }
    }

    fn take(&self) -> Option<Batch> {
        let mut waiting = self.waiting();
        let dropped = std::mem::take(&mut waiting.dropped);
        let mut bytes = 0;
        let fitting = waiting.calls.iter().take(BATCH).take_while(|(_, weight)| {
            let fits = bytes < BATCH_BYTES;
            bytes += weight;
            fits
        });
        let calls: Vec<_> = fitting.map(|(live, _)| live.clone()).collect();
        let full = calls.len() < waiting.calls.len();
        waiting.writing = calls.len();
        drop(waiting);
        if dropped > 0 {
            tracing::error!(dropped, "more history waited for the database than may wait; the oldest is lost");
        }
        (!calls.is_empty()).then_some(Batch { calls, full })
    }

    async fn save(&self, batch: &[Arc<Live>]) -> Result<(), DatabaseError> {
        let rows: Vec<InvocationRow> = batch.iter().map(|live| live.row(&self.node)).collect();
        self.database.save(&rows).await
    }

    fn written(&self, batch: &[Arc<Live>]) {
        let mut waiting = self.waiting();
        for _ in batch {
            let Some((_, bytes)) = waiting.calls.pop_front() else { break };
            waiting.bytes = waiting.bytes.saturating_sub(bytes);
        }
        waiting.writing = 0;
        drop(waiting);
        for live in batch {
            self.register.remove(live.id);
        }
        self.went.notify_waiters();
    }

    /// Writes a call that has only been accepted, so that it can be asked for wherever the caller asks.
    pub(super) async fn announce(&self, live: &Live) -> Result<(), DatabaseError> {
        self.database.save(&[live.row(&self.node)]).await
    }

    /// Looks after calls under way, and deletes old rows, until dropped.
    pub(super) async fn look_after(&self) {
        let mut expired = None::<Instant>;
        let mut watched = Watched::default();
        let mut looked = Instant::now();
        loop {
            tokio::time::sleep(if watched.is_empty() { LOOK } else { SHOW }).await;
            let done = if looked.elapsed() >= LOOK {
                looked = Instant::now();
                self.look(&mut watched).await
            } else {
                self.show(&mut watched).await
            };
            if let Err(error) = done {
                tracing::debug!(%error, "calls under way cannot be looked after now");
            }
            if expired.is_none_or(|at| at.elapsed() >= EXPIRE) {
                expired = Some(Instant::now());
                self.expire().await;
            }
        }
    }

    async fn look(&self, watched: &mut Watched) -> Result<(), DatabaseError> {
        watched.retain(|_, watch| watch.until > Instant::now());
        let old = Utc::now() - TimeDelta::from_std(LOOK).unwrap_or(TimeDelta::zero());
        let under_way: Vec<_> =
            self.register.all().into_iter().filter(|live| live.ended().is_none() && live.created_at < old).collect();
        if under_way.is_empty() {
            watched.clear();
            return Ok(());
        }
        let row = |live: &Arc<Live>| match watched.get(&live.id) {
            Some(_) => live.row_so_far(&self.node),
            None => live.row(&self.node),
        };
        self.database.save(&under_way.iter().map(row).collect::<Vec<_>>()).await?;
        for request in self.database.requests(&self.node).await? {
            let Some(live) = self.register.get(request.id) else { continue };
            if request.cancel {
                live.cancel.cancel();
            }
            let Some(mark) = request.watched else { continue };
            let until = Instant::now() + WATCHED_FOR;
            let watch = watched.entry(request.id).or_insert(Watch { mark: 0, until, shown: None });
            if watch.mark != mark {
                (watch.mark, watch.until) = (mark, until);
            }
        }
        self.show(watched).await
    }

    /// Writes what watched calls have printed since the last time.
    async fn show(&self, watched: &mut Watched) -> Result<(), DatabaseError> {
        let mut rows = Vec::new();
        for (id, watch) in watched.iter_mut().filter(|(_, watch)| watch.until > Instant::now()) {
            let live = self.register.get(*id).filter(|live| live.ended().is_none());
            let printed = live.as_ref().map(|live| live.console.printed());
            if let Some(live) = live.filter(|_| watch.shown != printed) {
                watch.shown = printed;
                rows.push(live.row_so_far(&self.node));
            }
        }
        self.database.save(&rows).await
    }

    async fn expire(&self) {
        let before = Utc::now() - self.keep;
        loop {
            match self.database.delete_ended_before(before, EXPIRE_ROWS).await {
                Ok(EXPIRE_ROWS) => {}
                Ok(_) => return,
                Err(error) => {
                    tracing::warn!(%error, "old history cannot be deleted now");
                    return;
                }
            }
        }
    }

    /// Waits until nothing waits, or `limit` has passed; gives how many rows still wait.
    pub(super) async fn flushed(&self, limit: Duration) -> usize {
        let wait = async {
            loop {
                let mut went = std::pin::pin!(self.went.notified());
                went.as_mut().enable();
                if self.waiting().calls.is_empty() {
                    return;
                }
                went.await;
            }
        };
        // Past the limit the count below says what is left.
        drop(tokio::time::timeout(limit, wait).await);
        self.waiting().calls.len()
    }
}
