//! Looking at jobs, and stepping in.

use super::{JobError, Jobs, Shared, state};
use crate::{
    database::jobs::{Applied, BatchRow, Change, From, JobFilter, JobQuery, JobRow, QueueCounts, ServerRow},
    function::{InvocationId, JobId, JobState},
};

/// How many jobs a bulk command takes in one transaction.
const CHUNK: u64 = 500;

/// How often a change is tried when the job moves meanwhile.
const TRIES: u32 = 5;

impl Jobs {
    /// A job.
    ///
    /// # Errors
    /// When the database fails, or there is none.
    pub async fn job(&self, id: JobId) -> Result<JobRow, JobError> {
        self.shared.database.job(id).await?.ok_or(JobError::NotFound(id))
    }

    /// A page of jobs, newest first.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn jobs(&self, query: &JobQuery) -> Result<Vec<JobRow>, JobError> {
        Ok(self.shared.database.jobs(query).await?)
    }

    /// A batch.
    ///
    /// # Errors
    /// When the database fails, or there is none.
    pub async fn batch(&self, id: JobId) -> Result<BatchRow, JobError> {
        self.shared.database.batch(id).await?.ok_or(JobError::NoBatch(id))
    }

    /// The queues that hold jobs.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn queues(&self) -> Result<Vec<QueueCounts>, JobError> {
        Ok(self.shared.database.queues().await?)
    }

    /// The servers that run jobs.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn servers(&self) -> Result<Vec<ServerRow>, JobError> {
        Ok(self.shared.database.job_servers().await?)
    }

    /// Puts a job back into its queue, as if it had never been tried.
    ///
    /// # Errors
    /// When the database fails, there is no such job, or it runs or waits for a worker already.
    pub async fn requeue(&self, id: JobId, reason: &str) -> Result<JobState, JobError> {
        let done = self.step(id, |state| state::may_requeue(state).then(|| requeued(id, state, reason))).await?;
        done.ok_or(JobError::AtWork(id))
    }

    /// Gives a job up; one that runs is ended, wherever it does.
    ///
    /// # Errors
    /// When the database fails, or there is no such job.
    pub async fn delete(&self, id: JobId, reason: &str) -> Result<JobState, JobError> {
        let done = self.step(id, |state| (state != JobState::Deleted).then(|| deleted(id, state, reason))).await?;
        Ok(done.unwrap_or(JobState::Deleted))
    }

    /// Takes one step from wherever the job stands; none where `change` says that there is none from there.
    async fn step(&self, id: JobId, change: impl Fn(JobState) -> Option<Change>) -> Result<Option<JobState>, JobError> {
        for _ in 0..TRIES {
            let state = self.job(id).await?.job.state;
            let Some(change) = change(state) else { return Ok(None) };
            if let Some(applied) = self.shared.apply(&[change]).await?.first() {
                return Ok(Some(applied.state));
            }
        }
        let state = self.job(id).await?.job.state;
        Err(JobError::Conflict(id, state, "it changes too fast; try again"))
    }

    /// Requeues every job that fits and is not at work or in its queue; how many.
    ///
    /// # Errors
    /// When the database fails; those before it are requeued then.
    pub async fn requeue_all(&self, filter: &JobFilter, reason: &str) -> Result<u64, JobError> {
        self.each(filter, |id, state| state::may_requeue(state).then(|| requeued(id, state, reason))).await
    }

    /// Deletes every job that fits; how many.
    ///
    /// # Errors
    /// When the database fails; those before it are deleted then.
    pub async fn delete_all(&self, filter: &JobFilter, reason: &str) -> Result<u64, JobError> {
        self.each(filter, |id, state| (state != JobState::Deleted).then(|| deleted(id, state, reason))).await
    }

    /// Deletes every job that fits and has not ended; how many.
    ///
    /// # Errors
    /// As [`delete_all`](Self::delete_all).
    pub async fn delete_open(&self, filter: &JobFilter, reason: &str) -> Result<u64, JobError> {
        self.each(filter, |id, state| (!state.is_end()).then(|| deleted(id, state, reason))).await
    }

    async fn each(
        &self,
        filter: &JobFilter,
        change: impl Fn(JobId, JobState) -> Option<Change>,
    ) -> Result<u64, JobError> {
        let (mut before, mut count) = (None, 0);
        loop {
            let found = self.shared.database.job_states(filter, before, CHUNK).await?;
            let changes: Vec<_> = found.iter().filter_map(|(id, state)| change(*id, *state)).collect();
            count += self.shared.apply(&changes).await?.len() as u64;
            match found.last() {
                Some((last, _)) if found.len() as u64 == CHUNK => before = Some(*last),
                _ => return Ok(count),
            }
        }
    }
}

fn requeued(id: JobId, from: JobState, reason: &str) -> Change {
    Change {
        anew: true,
        attempt: Some(0),
        reason: Some(reason.to_owned()),
        ..Change::new(id, From::State(from), JobState::Enqueued)
    }
}

fn deleted(id: JobId, from: JobState, reason: &str) -> Change {
    Change { reason: Some(reason.to_owned()), ..Change::new(id, From::State(from), JobState::Deleted) }
}

impl Shared {
    /// Takes these steps, and does here what they ask of this server.
    async fn apply(&self, changes: &[Change]) -> Result<Vec<Applied>, JobError> {
        let applied = self.database.change(&self.node, self.keep(), changes, state::continuation).await?;
        for it in applied.iter().filter(|it| it.state == JobState::Deleted) {
            if let Some(invocation) = it.invocation {
                self.cancel(InvocationId(invocation));
            }
        }
        self.ready.notify_one();
        Ok(applied)
    }
}
