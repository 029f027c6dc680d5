//! Who is alive: this server's lease, and the jobs of those that are not.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError},
    time::{Duration, Instant},
};

use uuid::Uuid;

use super::{
    Shared,
    completer::save,
    state::{self, End, Policy},
};
use crate::{
    database::{
        DatabaseError,
        jobs::{Change, From, Orphan},
    },
    function::{JobId, JobState, QueueName},
};

/// How many jobs are taken over at once.
const MOST: u64 = 500;
/// How often what has been kept for long enough is removed.
const SWEEP: Duration = Duration::from_secs(60);
/// How many jobs go with one statement.
const SWEEP_ROWS: u64 = 1000;

/// Registers this server. What an earlier life of it left is taken over at the first look.
pub(super) async fn register(shared: &Shared) -> Result<(), DatabaseError> {
    let queues: Vec<String> = shared.config.serve.iter().map(QueueName::to_string).collect();
    shared.database.register_server(shared.server(), &shared.node, shared.lease(), shared.workers, &queues).await
}

/// Renews the lease and looks after jobs without a server, until dropped.
pub(super) async fn keep(shared: Arc<Shared>) {
    let every = shared.lease() / 3;
    // Since when this server has shown itself without a gap. Only then does the silence of another one
    // mean something: after an outage of the database, everybody's lease is over.
    let mut steady = Instant::now();
    let mut renewed = Instant::now();
    let mut unknown = HashSet::new();
    loop {
        if renewed.elapsed() > shared.lease() {
            steady = Instant::now();
        }
        match look(&shared, steady.elapsed() > shared.lease(), &mut unknown).await {
            Ok(()) => renewed = Instant::now(),
            Err(error) => {
                tracing::warn!(%error, "the lease of this server cannot be renewed now");
                steady = Instant::now();
            }
        }
        tokio::time::sleep(every).await;
    }
}

async fn look(shared: &Shared, may_strike: bool, unknown: &mut HashSet<(JobId, i64)>) -> Result<(), DatabaseError> {
    if !shared.database.renew_lease(shared.server(), shared.lease()).await? {
        begin_again(shared).await?;
    }
    if may_strike {
        let struck = shared.database.strike_servers().await?;
        if struck > 0 {
            tracing::warn!(
                servers = struck,
                "servers were not heard of for the length of a lease; their jobs go to others"
            );
        }
    }
    loop {
        let orphans = shared.database.orphans(MOST).await?;
        let changes: Vec<_> = orphans.iter().map(take_over).collect();
        if !changes.is_empty() {
            tracing::info!(jobs = changes.len(), "jobs of servers that are gone are taken over");
            save(shared, &changes).await;
            shared.ready.notify_one();
        }
        if (orphans.len() as u64) < MOST {
            break;
        }
    }
    compare(shared, unknown).await
}

/// The lease was over, and others have this server's jobs: it ends them and is another server from now on.
async fn begin_again(shared: &Shared) -> Result<(), DatabaseError> {
    tracing::warn!("this server was not heard of for the length of a lease; it gives up its jobs and begins again");
    *shared.server.lock().unwrap_or_else(PoisonError::into_inner) = Uuid::now_v7();
    for lost in shared.ahead.clear() {
        shared.attempts().remove(&lost);
    }
    shared.running().iter().for_each(super::Attempt::cancel);
    register(shared).await?;
    shared.ready.notify_one();
    Ok(())
}

fn take_over(orphan: &Orphan) -> Change {
    // A lost server is no failure of the job: there is no delay to be had from it.
    let policy = Policy { max_attempts: orphan.max_attempts, delays: None, at_end: orphan.at_end };
    let next = state::after(orphan.attempt, &policy, End::Lost, || 0);
    let from = From::Attempt { server: orphan.server, claim: orphan.claim };
    let error = (next.state != JobState::Enqueued).then(|| next.reason.clone()).flatten();
    Change { reason: next.reason, error, ..Change::new(orphan.id, from, next.state) }
}

/// Compares what the database says that this server runs with what it does run. What it runs and should not,
/// it ends; what it should and does not know twice in a row (the answer to a claim was lost) goes back.
async fn compare(shared: &Shared, unknown: &mut HashSet<(JobId, i64)>) -> Result<(), DatabaseError> {
    let server = shared.server();
    let before: Vec<_> = {
        let attempts = shared.attempts();
        attempts.iter().filter(|(_, it)| !it.ended && it.server == server).map(|(id, it)| (*id, it.clone())).collect()
    };
    let held: HashSet<_> = shared.database.held(server).await?.into_iter().collect();
    for (id, attempt) in before {
        if !held.contains(&(id, attempt.claim)) {
            shared.cancel(attempt.invocation);
        }
    }
    let now_unknown: HashSet<_> = {
        let attempts = shared.attempts();
        held.into_iter().filter(|(id, claim)| attempts.get(id).is_none_or(|it| it.claim != *claim)).collect()
    };
    let lost: Vec<_> = now_unknown.intersection(unknown).copied().collect();
    *unknown = now_unknown;
    if !lost.is_empty() {
        let back = |(id, claim)| Change {
            reason: Some("its server did not hear that it had it".into()),
            ..Change::new(id, From::Attempt { server, claim }, JobState::Enqueued)
        };
        save(shared, &lost.into_iter().map(back).collect::<Vec<_>>()).await;
        shared.ready.notify_one();
    }
    Ok(())
}

/// Removes what has been kept for long enough, until dropped.
pub(super) async fn sweep(shared: Arc<Shared>) {
    loop {
        loop {
            match shared.database.expire_jobs(SWEEP_ROWS, shared.keep()).await {
                Ok(SWEEP_ROWS) => {}
                Ok(_) => break,
                Err(error) => {
                    tracing::debug!(%error, "old jobs cannot be removed now");
                    break;
                }
            }
        }
        tokio::time::sleep(SWEEP).await;
    }
}
