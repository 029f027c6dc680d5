//! Jobs: calls that are handed in for later and forgotten. The server promises that they happen.
//!
//! ```text
//! enqueue     a row: Scheduled, Enqueued, or Awaiting another job's end
//! timer       schedules make jobs when they are due; Scheduled ones are Enqueued when their time has come
//! worker      claims Enqueued jobs, as many as it has places for, and calls the Invoker with each
//! ahead       some more of them, where they are short: they wait here for a place
//! completer   writes what came of them: Succeeded, Scheduled for another attempt, Failed, …
//! keeper      renews this server's lease, and takes over the jobs of servers that are gone
//! ```
//! [`state`], [`cron`] and [`ticks`] decide, and know neither clock nor database. The rows are what is true:
//! what is told to other servers only makes them look sooner than they would. A job's attempt belongs to
//! the server's registration and the claim's number, and whatever comes of an attempt that is no longer
//! the job's changes nothing. So a job runs at least once, and twice only where its server was lost in
//! between, or could not be heard for the length of a lease.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::{Notify, mpsc};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    catalog::Catalog,
    config::{JobsConfig, seconds},
    database::{Database, DatabaseError, jobs::EnqueueError},
    function::{ErrorCode, FunctionName, InvocationId, JobId, JobState, QueueName, Status},
    invoke::{Invoker, Live},
};

mod ahead;
mod buckets;
mod completer;
pub mod cron;
mod enqueue;
mod keeper;
mod manage;
mod schedules;
pub mod state;
pub mod ticks;
mod timer;
mod worker;

pub use schedules::ScheduleError;

/// Why something could not be done with jobs.
#[derive(Debug, Clone, thiserror::Error)]
pub enum JobError {
    /// The database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// There is no such job.
    #[error("there is no job {0}, or it has expired")]
    NotFound(JobId),
    /// There is no such batch.
    #[error("there is no batch {0}, or it has expired")]
    NoBatch(JobId),
    /// It is in a state where this can't be done.
    #[error("job {0} is {1}: {2}")]
    Conflict(JobId, JobState, &'static str),
    /// It runs or waits for a worker.
    #[error("job {0} runs, or waits for a worker: wait for its end, or delete it, before it is requeued")]
    AtWork(JobId),
    /// The server stops.
    #[error("the server stops")]
    Stopping,
}

impl JobError {
    /// Its code.
    #[must_use]
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Database(error) => error.code(),
            Self::NotFound(_) | Self::NoBatch(_) => ErrorCode::JobNotFound,
            Self::Conflict(..) | Self::AtWork(_) => ErrorCode::JobConflict,
            Self::Stopping => ErrorCode::AtCapacity,
        }
    }
}

impl From<EnqueueError> for JobError {
    fn from(error: EnqueueError) -> Self {
        match error {
            EnqueueError::Database(error) => Self::Database(error),
            EnqueueError::NoSuchJob(id) => Self::NotFound(id),
        }
    }
}

/// Takes jobs in and runs them. One a server; a clone is another handle of the same.
#[derive(Debug, Clone)]
pub struct Jobs {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    database: Database,
    invoker: Invoker,
    catalog: Arc<Catalog>,
    config: JobsConfig,
    node: Arc<str>,
    workers: usize,
    /// This server's registration: another one when it was away for longer than a lease.
    server: Mutex<Uuid>,
    /// The attempts of this server, until what came of them is written.
    attempts: Mutex<HashMap<JobId, Attempt>>,
    /// How many of them run.
    busy: AtomicUsize,
    /// Those that wait for a worker here.
    ahead: ahead::Ahead,
    /// How many attempts have ended so far.
    done: AtomicU64,
    /// One that ran no longer does.
    freed: Notify,
    /// There may be jobs to run.
    ready: Notify,
    /// Something may have a time to wait for.
    later: Notify,
    ended: mpsc::UnboundedSender<completer::Ended>,
    entering: mpsc::Sender<enqueue::Entering>,
    /// The server stops: nothing is claimed any more.
    closing: CancellationToken,
    /// What runs is being cancelled because the time for it is over.
    over: AtomicBool,
    /// Ends the tasks below.
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// An attempt of this server.
#[derive(Debug, Clone)]
struct Attempt {
    server: Uuid,
    claim: i64,
    invocation: InvocationId,
    name: FunctionName,
    queue: QueueName,
    /// Its call; none in the moment before that begins.
    live: Option<Arc<Live>>,
    /// It has ended, and what came of it is on its way into the database.
    ended: bool,
}

impl Attempt {
    fn cancel(&self) {
        if let Some(live) = &self.live {
            live.cancel.cancel();
        }
    }
}

impl Jobs {
    /// Registers this server and begins to run jobs, until `closing`. Called on the services' runtime.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn start(
        database: Database,
        invoker: Invoker,
        catalog: Arc<Catalog>,
        config: &JobsConfig,
        closing: CancellationToken,
    ) -> Result<Self, DatabaseError> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers = match usize::try_from(config.workers) {
            Ok(0) => 16 * cores,
            workers => workers.unwrap_or(usize::MAX),
        };
        let (ended, endings) = mpsc::unbounded_channel();
        let (entering, entries) = mpsc::channel(enqueue::WAITING);
        let shared = Arc::new(Shared {
            node: invoker.node().clone(),
            database,
            invoker,
            catalog,
            config: config.clone(),
            workers,
            server: Mutex::new(Uuid::now_v7()),
            attempts: Mutex::default(),
            busy: AtomicUsize::new(0),
            ahead: ahead::Ahead::new(closing.clone(), ended.clone()),
            done: AtomicU64::new(0),
            freed: Notify::new(),
            ready: Notify::new(),
            later: Notify::new(),
            ended,
            entering,
            closing,
            over: AtomicBool::new(false),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        });
        let spawn = |task: std::pin::Pin<Box<dyn Future<Output = ()> + Send>>| {
            let stop = shared.stop.clone();
            shared.tasks.spawn(async move { stop.run_until_cancelled(task).await });
        };
        spawn(Box::pin(enqueue::write(shared.clone(), entries)));
        if config.run {
            keeper::register(&shared).await?;
            spawn(Box::pin(completer::write(shared.clone(), endings)));
            spawn(Box::pin(keeper::keep(shared.clone())));
            spawn(Box::pin(keeper::sweep(shared.clone())));
            spawn(Box::pin(timer::listen(shared.clone())));
            spawn(Box::pin(timer::keep_time(shared.clone())));
            spawn(Box::pin(worker::claim(shared.clone())));
        }
        Ok(Self { shared })
    }

    /// Hands back what has not begun, waits at most `limit` for what has, interrupts the rest, and sees
    /// written what came of it. To be called after `closing`, and before the invoker is shut down.
    pub async fn shutdown(&self, limit: Duration) {
        let shared = &self.shared;
        shared.closing.cancel();
        shared.ahead.hand_back_all();
        for attempt in shared.running() {
            if attempt.live.as_ref().is_none_or(|live| live.status() == Status::Queued) {
                attempt.cancel();
            }
        }
        if tokio::time::timeout(limit, shared.idle()).await.is_err() {
            shared.over.store(true, Ordering::Relaxed);
            let left = shared.running();
            tracing::warn!(jobs = left.len(), "jobs still run at the end of the shutdown; others will run them again");
            left.iter().for_each(Attempt::cancel);
            // Every run ends when it is cancelled.
            drop(tokio::time::timeout(Duration::from_secs(10), shared.idle()).await);
        }
        let written = async {
            while !shared.attempts().is_empty() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(Duration::from_secs(10), written).await.is_err() {
            tracing::error!(
                "the database was away until the end; others will find what this server's jobs came to unknown"
            );
        }
        shared.stop.cancel();
        shared.tasks.close();
        drop(tokio::time::timeout(Duration::from_secs(1), shared.tasks.wait()).await);
        if shared.config.run
            && let Err(error) = shared.database.leave(shared.server()).await
        {
            tracing::warn!(%error, "this server could not be struck out; others do it when its lease is over");
        }
    }

    /// The name of this server in history.
    #[must_use]
    pub fn database(&self) -> &Database {
        &self.shared.database
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &JobsConfig {
        &self.shared.config
    }
}

impl Shared {
    fn server(&self) -> Uuid {
        *self.server.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn attempts(&self) -> MutexGuard<'_, HashMap<JobId, Attempt>> {
        self.attempts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The attempts that run now.
    fn running(&self) -> Vec<Attempt> {
        self.attempts().values().filter(|attempt| !attempt.ended).cloned().collect()
    }

    /// How many more may be claimed to run at once. Those that have ended and are not written yet count where they are
    /// more than there are workers, or than end in the moment that is claimed for: what could run twice after a
    /// crash has a bound.
    fn free(&self, ahead: usize) -> usize {
        let running = self.busy.load(Ordering::Acquire);
        let open = self.attempts().len().saturating_sub(self.ahead.len());
        let most = self.workers.saturating_add(self.workers.max(ahead));
        self.workers.saturating_sub(running).min(most.saturating_sub(open))
    }

    /// Waits until none runs.
    async fn idle(&self) {
        while self.busy.load(Ordering::Acquire) > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn keep(&self) -> Duration {
        seconds(self.config.keep_hours.saturating_mul(3600))
    }

    fn lease(&self) -> Duration {
        seconds(self.config.lease_seconds)
    }

    /// Ends this attempt, where it is one of this server. One that waits for a worker is forgotten: its job is what it
    /// is without it.
    fn cancel(&self, invocation: InvocationId) {
        if let Some(id) = self.ahead.remove(invocation) {
            self.attempts().remove(&id);
        } else if let Some(live) = self.invoker.live(invocation) {
            live.cancel.cancel();
        }
    }
}
