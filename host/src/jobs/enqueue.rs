//! Taking jobs in. What comes at the same time is written in one statement.

use std::sync::Arc;

use tokio::sync::{mpsc::Receiver, oneshot};

use super::{JobError, Jobs, Shared, state};
use crate::{
    database::{
        DatabaseError,
        jobs::{Enqueued, NewJob},
    },
    function::{ContinueOn, JobId, JobState},
};

/// How many may wait to be written; those after them wait to wait.
pub(super) const WAITING: usize = 1024;
/// How many go into one statement.
const MOST: usize = 500;
/// How much text goes into one statement, in bytes, unless a single job holds more.
const MOST_BYTES: usize = 4 * 1024 * 1024;

/// A job on its way, and who waits for it.
#[derive(Debug)]
pub(super) struct Entering {
    job: NewJob,
    done: oneshot::Sender<Result<Enqueued, DatabaseError>>,
}

impl Jobs {
    /// Takes a job in. When this returns, it is in the database.
    ///
    /// # Errors
    /// When the database fails, or the job to go on after is not there.
    pub async fn enqueue(&self, job: NewJob) -> Result<Enqueued, JobError> {
        if job.after.is_some() {
            let mut written = self.enqueue_all(None, vec![job]).await?;
            return written.pop().ok_or(JobError::Stopping);
        }
        let (done, written) = oneshot::channel();
        self.shared.entering.send(Entering { job, done }).await.map_err(|_| JobError::Stopping)?;
        Ok(written.await.map_err(|_| JobError::Stopping)??)
    }

    /// Takes jobs in, all or none of them; with a `batch`, as that batch.
    ///
    /// # Errors
    /// As [`enqueue`](Self::enqueue).
    pub async fn enqueue_all(&self, batch: Option<JobId>, jobs: Vec<NewJob>) -> Result<Vec<Enqueued>, JobError> {
        let shared = &self.shared;
        let decide = |job: &NewJob, before: JobState| {
            let on = job.after.map_or(ContinueOn::Ended, |(_, on)| on);
            state::continuation(before, on, job.state)
        };
        let jobs: Vec<_> = jobs.into_iter().map(|job| NewJob { batch, ..job }).collect();
        let written = if batch.is_none() && jobs.iter().all(|job| job.after.is_none()) {
            shared.database.enqueue(&shared.node, &jobs).await?
        } else {
            shared.database.enqueue_after(&shared.node, batch, jobs, decide).await?
        };
        shared.wake(&written);
        Ok(written)
    }
}

impl Shared {
    /// Tells this server's own loops, which need not wait for the database to do it.
    pub(super) fn wake(&self, written: &[Enqueued]) {
        if written.iter().any(|it| it.state == JobState::Enqueued) {
            self.ready.notify_one();
        }
        if written.iter().any(|it| it.state == JobState::Scheduled) {
            self.later.notify_one();
        }
    }
}

/// Writes what comes, until dropped.
pub(super) async fn write(shared: Arc<Shared>, mut entries: Receiver<Entering>) {
    let (mut batch, mut next) = (Vec::new(), None);
    loop {
        if batch.is_empty() {
            match next.take() {
                Some(entry) => batch.push(entry),
                None => match entries.recv().await {
                    Some(entry) => batch.push(entry),
                    None => return,
                },
            }
        }
        let weight = |entry: &Entering| entry.job.payload.len();
        let mut bytes: usize = batch.iter().map(weight).sum();
        while batch.len() < MOST
            && let Ok(entry) = entries.try_recv()
        {
            bytes += weight(&entry);
            if bytes > MOST_BYTES {
                next = Some(entry);
                break;
            }
            batch.push(entry);
        }
        save(&shared, std::mem::take(&mut batch)).await;
    }
}

async fn save(shared: &Shared, batch: Vec<Entering>) {
    let (jobs, waiting): (Vec<_>, Vec<_>) = batch.into_iter().map(|entry| (entry.job, entry.done)).unzip();
    let written = match shared.database.enqueue(&shared.node, &jobs).await {
        Ok(written) => written.into_iter().map(Ok).collect(),
        // One of them is refused, and only that one's caller is to read it.
        Err(DatabaseError::Query(_)) if jobs.len() > 1 => {
            let mut written = Vec::with_capacity(jobs.len());
            for job in &jobs {
                let one = shared.database.enqueue(&shared.node, std::slice::from_ref(job)).await;
                written.push(one.and_then(|mut one| one.pop().ok_or_else(|| DatabaseError::Query("no row".into()))));
            }
            written
        }
        Err(error) => vec![Err(error); jobs.len()],
    };
    let done: Vec<_> = written.iter().filter_map(|it| it.as_ref().ok().copied()).collect();
    shared.wake(&done);
    for (waiting, written) in waiting.into_iter().zip(written) {
        // Whoever asked may be gone; the job stays.
        let _ = waiting.send(written);
    }
}
