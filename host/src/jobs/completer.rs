//! Writing what came of attempts: whatever ended since the last time, in one transaction.

use std::{collections::HashSet, sync::Arc, time::Duration};

use tokio::sync::mpsc::UnboundedReceiver;
use uuid::Uuid;

use super::{
    Shared,
    state::{self, End, Policy},
};
use crate::{
    database::{
        DatabaseError,
        jobs::{Change, Claimed, From, Success},
    },
    function::{JobId, JobState, Version},
};

/// The most that is written at once.
const MOST: usize = 500;
/// The pauses between tries while the database is away.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));

/// An attempt that ended.
#[derive(Debug)]
pub(super) struct Ended {
    pub(super) server: Uuid,
    pub(super) job: Claimed,
    pub(super) version: Option<Version>,
    pub(super) end: End,
}

/// Writes until dropped. There are never more than there are workers, as nothing is claimed while nothing
/// can be written.
pub(super) async fn write(shared: Arc<Shared>, mut endings: UnboundedReceiver<Ended>) {
    let config = &shared.config;
    let limited = config.queues.values().any(|queue| queue.limit.is_some())
        || config.functions.values().any(|function| function.limit.is_some());
    let mut batch = Vec::new();
    while endings.recv_many(&mut batch, MOST).await > 0 {
        let done = succeed(&shared, &batch).await;
        let changes: Vec<_> = batch.iter().filter(|ended| !done.contains(&ended.job.id)).map(change).collect();
        if !changes.is_empty() {
            save(&shared, &changes).await;
        }
        let mut attempts = shared.attempts();
        for ended in batch.drain(..) {
            if attempts.get(&ended.job.id).is_some_and(|attempt| attempt.claim == ended.job.claim) {
                attempts.remove(&ended.job.id);
            }
        }
        drop(attempts);
        shared.freed.notify_one();
        // A limit or a key may have been what held others up, or they waited for these; what has a key, or others that
        // wait for it, is among the changes.
        if limited || !changes.is_empty() {
            shared.ready.notify_one();
        }
    }
}

/// Writes those that succeeded and that nothing follows from; which those were. It is tried once: what it leaves is
/// written as any other change.
async fn succeed(shared: &Shared, batch: &[Ended]) -> HashSet<JobId> {
    let attempts: Vec<_> = batch
        .iter()
        .filter(|ended| ended.end == End::Succeeded)
        .map(|ended| Success { id: ended.job.id, server: ended.server, claim: ended.job.claim, version: ended.version })
        .collect();
    shared.database.succeed(&shared.node, shared.keep(), &attempts).await.unwrap_or_else(|error| {
        tracing::debug!(%error, jobs = attempts.len(), "the success of jobs cannot be written now");
        HashSet::new()
    })
}

fn change(ended: &Ended) -> Change {
    let Ended { server, job, version, end } = ended;
    let policy = Policy { max_attempts: job.max_attempts, delays: job.delays.clone(), at_end: job.at_end };
    let next = state::after(job.attempt, &policy, end.clone(), || fastrand::u64(0..30));
    let error = match end {
        End::Failed(reason) => Some(reason.clone()),
        _ => None,
    };
    Change {
        delay: next.delay,
        attempt: (!next.counts).then(|| job.attempt.saturating_sub(1)),
        version: *version,
        reason: next.reason,
        error,
        ..Change::new(job.id, From::Attempt { server: *server, claim: job.claim }, next.state)
    }
}

/// Writes these, however long it takes. One that the database refuses by itself holds up no other.
pub(super) async fn save(shared: &Shared, changes: &[Change]) {
    let mut pause = PAUSES.0;
    loop {
        match shared.database.change(&shared.node, shared.keep(), changes, state::continuation).await {
            Ok(applied) => {
                let late = changes.len() - applied.len();
                if late > 0 {
                    tracing::info!(late, "attempts ended that were no longer this server's; that changes nothing");
                }
                if applied.iter().any(|it| it.state == JobState::Scheduled) {
                    shared.later.notify_one();
                }
                return;
            }
            Err(DatabaseError::Unavailable(error)) => {
                tracing::debug!(error, jobs = changes.len(), "what came of jobs cannot be written now; it waits");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(PAUSES.1);
            }
            Err(DatabaseError::Query(error)) if changes.len() == 1 => {
                tracing::error!(error, job = ?changes.first().map(|it| it.id), "what came of a job was refused");
                return;
            }
            Err(DatabaseError::Query(_)) => {
                for change in changes {
                    Box::pin(save(shared, std::slice::from_ref(change))).await;
                }
                return;
            }
        }
    }
}
