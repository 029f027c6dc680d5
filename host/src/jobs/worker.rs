//! Claiming jobs and running them.
//!
//! As many are claimed at once as there are places, and none ahead: what waits, waits in the database, where
//! every server sees it. A queue, function or key that is at its limit is left out of the claim, so its
//! jobs hold no place while they wait.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::{Attempt, Shared, completer, state::End};
use crate::{
    config::seconds,
    database::{
        DatabaseError,
        jobs::{Bucket, Claim, Claimed, Pin},
    },
    function::{ErrorCode, FunctionName, Invocation, Lane, QueueName, Selector, Status, Version},
    invoke::{InvokeError, Live},
};

/// The most that are claimed at once.
const MOST: usize = 500;
/// How long places gather before the next claim, while there is more to run than places.
const GATHER: Duration = Duration::from_millis(1);
/// How long the claimer waits when the database is away.
const PAUSE: Duration = Duration::from_millis(500);
/// For how many functions the newest version is given with a claim.
const PINS: usize = 64;

/// The functions whose jobs were claimed last.
type Known = Vec<(FunctionName, Lane, Selector)>;

/// Claims and starts jobs until the server closes.
pub(super) async fn claim(shared: Arc<Shared>) {
    let (mut known, mut mutexes) = (Known::new(), false);
    let closing = shared.closing.clone();
    while !closing.is_cancelled() {
        let free = shared.free().min(MOST);
        if free == 0 {
            closing.run_until_cancelled(shared.freed.notified()).await;
            continue;
        }
        let asked_with_mutexes = mutexes;
        let claimed = claim_some(&shared, free, &mut known, &mut mutexes).await;
        match claimed {
            // There may be more.
            Ok(count) if count >= free => tokio::time::sleep(GATHER).await,
            Ok(0) if mutexes && !asked_with_mutexes => {}
            Ok(_) => {
                let told = tokio::time::timeout(seconds(shared.config.poll_seconds), shared.ready.notified());
                closing.run_until_cancelled(told).await;
            }
            Err(error) => {
                tracing::warn!(%error, "jobs cannot be claimed now");
                closing.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
            }
        }
    }
}

async fn claim_some(
    shared: &Arc<Shared>,
    free: usize,
    known: &mut Known,
    mutexes: &mut bool,
) -> Result<usize, DatabaseError> {
    let server = shared.server();
    let buckets = buckets(shared, free);
    if buckets.is_empty() {
        return Ok(0);
    }
    let pins = pins(shared, known).await;
    let claim = Claim { server, node: &shared.node, most: free, buckets: &buckets, pins: &pins, mutexes: *mutexes };
    let (claimed, mutexed) = shared.database.claim(&claim).await?;
    *mutexes = mutexed;
    let count = claimed.len();
    if count == 0 {
        return Ok(0);
    }
    let versions = resolve(shared, &claimed, known).await;
    for (job, version) in claimed.into_iter().zip(versions) {
        start(shared, server, job, version);
    }
    Ok(count)
}

/// The newest versions of functions that were run lately; from memory.
async fn pins(shared: &Shared, known: &mut Known) -> Vec<Pin> {
    let mut pins = Vec::with_capacity(known.len());
    let mut kept = Known::with_capacity(known.len());
    for (name, lane, selector) in known.drain(..) {
        if let Ok(found) = shared.catalog.resolve(&name, &lane, selector).await {
            pins.push(Pin { name: name.clone(), lane: lane.clone(), selector, version: found.location.version });
            kept.push((name, lane, selector));
        }
    }
    *known = kept;
    pins
}

/// The version of each job; those that are new to it are fixed in the database before any of them runs.
async fn resolve(shared: &Shared, claimed: &[Claimed], known: &mut Known) -> Vec<Option<Version>> {
    let (mut versions, mut fixed) = (Vec::with_capacity(claimed.len()), Vec::new());
    for job in claimed {
        let mut version = job.version;
        if version.is_none() {
            // Where it can't be found, the call itself says why.
            let found = shared.catalog.resolve(&job.name, &job.lane, job.selector).await.ok();
            version = found.map(|found| found.location.version);
            fixed.extend(version.map(|version| (job.id, job.claim, version)));
            let key = (job.name.clone(), job.lane.clone(), job.selector);
            if version.is_some() && !known.contains(&key) {
                if known.len() == PINS {
                    known.remove(0);
                }
                known.push(key);
            }
        }
        versions.push(version);
    }
    if !fixed.is_empty()
        && let Err(error) = shared.database.pin(shared.server(), &fixed).await
    {
        // Then the end of the attempt does.
        tracing::debug!(%error, "the versions of jobs cannot be fixed now");
    }
    versions
}

/// The parts of the waiting jobs that there is room for.
fn buckets(shared: &Shared, free: usize) -> Vec<Bucket> {
    let config = &shared.config;
    let serve = (!config.serve.is_empty()).then(|| config.serve.clone());
    let limited_queues: Vec<(&QueueName, u64)> =
        config.queues.iter().filter_map(|(name, queue)| Some((name, queue.limit?))).collect();
    let limited_functions: Vec<(&FunctionName, u64)> =
        config.functions.iter().filter_map(|(name, function)| Some((name, function.limit?))).collect();
    if limited_queues.is_empty() && limited_functions.is_empty() {
        return vec![Bucket { queues: serve, most: free, ..Bucket::default() }];
    }
    let (mut queues, mut functions) = (HashMap::<_, u64>::new(), HashMap::<_, u64>::new());
    for attempt in shared.running() {
        *queues.entry(attempt.queue.clone()).or_default() += 1;
        *functions.entry(attempt.name.clone()).or_default() += 1;
    }
    let room = |limit: u64, held: Option<&u64>| {
        usize::try_from(limit.saturating_sub(held.copied().unwrap_or(0))).unwrap_or(usize::MAX).min(free)
    };
    let except_queues: Vec<_> = limited_queues.iter().map(|(name, _)| (*name).clone()).collect();
    let except_functions: Vec<_> = limited_functions.iter().map(|(name, _)| (*name).clone()).collect();
    // All that has no limit; each limited queue and function by itself; and one of each, where only one of the
    // pairs may go at a time, so that together they stay below both limits.
    let mut buckets = vec![Bucket {
        queues: serve.clone(),
        except_queues: except_queues.clone(),
        function: None,
        except_functions: except_functions.clone(),
        most: free,
    }];
    let mut queue_room: Vec<_> =
        limited_queues.iter().map(|(name, limit)| ((*name).clone(), room(*limit, queues.get(*name)))).collect();
    queue_room.retain(|(name, _)| serve.as_ref().is_none_or(|serve| serve.contains(name)));
    let mut function_room: Vec<_> =
        limited_functions.iter().map(|(name, limit)| ((*name).clone(), room(*limit, functions.get(*name)))).collect();
    // What both a limited queue and a limited function hold comes first, and from both.
    for (queue, queue_left) in &mut queue_room {
        for (function, function_left) in &mut function_room {
            let most = (*queue_left / 2 + *queue_left % 2).min(*function_left / 2 + *function_left % 2);
            *queue_left -= most;
            *function_left -= most;
            buckets.push(Bucket {
                queues: Some(vec![queue.clone()]),
                function: Some(function.clone()),
                most,
                ..Bucket::default()
            });
        }
    }
    buckets.extend(queue_room.into_iter().map(|(queue, most)| Bucket {
        queues: Some(vec![queue]),
        except_functions: except_functions.clone(),
        most,
        ..Bucket::default()
    }));
    buckets.extend(function_room.into_iter().map(|(function, most)| Bucket {
        queues: serve.clone(),
        except_queues: except_queues.clone(),
        function: Some(function),
        most,
        ..Bucket::default()
    }));
    buckets.retain(|bucket| bucket.most > 0);
    buckets
}

/// Starts an attempt.
fn start(shared: &Arc<Shared>, server: uuid::Uuid, job: Claimed, version: Option<Version>) {
    let invocation = Invocation {
        id: job.invocation,
        caller_id: job.caller_id.clone(),
        token: job.token.clone(),
        name: job.name.clone(),
        lane: job.lane.clone(),
        selector: version.map_or(job.selector, Selector::Exact),
        kind: job.kind,
        entry: job.entry.clone(),
        payload: job.payload.clone(),
        parameters: job.parameters.clone(),
        confidential: None,
        deadline: job.deadline,
    };
    shared.busy.fetch_add(1, Ordering::AcqRel);
    // From now on it counts for limits.
    let (name, queue) = (job.name.clone(), job.queue.clone());
    let attempt = Attempt { server, claim: job.claim, name, queue, live: None, ended: false };
    shared.attempts().insert(job.id, attempt);
    let shared = shared.clone();
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        let live = shared.invoker.start(invocation);
        if let Some(attempt) = shared.attempts().get_mut(&job.id) {
            attempt.live = Some(live.clone());
        }
        if shared.closing.is_cancelled() && live.status() == Status::Queued {
            live.cancel.cancel();
        }
        live.wait().await;
        let end = end(&shared, &live);
        if let Some(attempt) = shared.attempts().get_mut(&job.id) {
            attempt.ended = true;
        }
        shared.busy.fetch_sub(1, Ordering::AcqRel);
        shared.freed.notify_one();
        let ended = completer::Ended { server, version: live.version(), job, end };
        // Nobody takes it where the server has stopped: then others take the job over.
        let _ = shared.ended.send(ended);
    });
}

/// What an attempt came to.
fn end(shared: &Shared, live: &Live) -> End {
    let Some(ended) = live.ended() else { return End::Lost };
    match &ended.result {
        Ok(_) => End::Succeeded,
        Err(InvokeError::AtCapacity(_)) => End::Busy,
        Err(error) if error.code() == ErrorCode::Cancelled => {
            let began = live.version().is_some();
            match (shared.closing.is_cancelled(), began) {
                (true, false) => End::HandedBack,
                (true, true) if shared.over.load(Ordering::Relaxed) => End::Interrupted,
                _ => End::Cancelled,
            }
        }
        Err(error) => End::Failed(format!("{}: {}", error.code().as_str(), error.detail())),
    }
}
