//! Claiming jobs and running them.
//!
//! As many are claimed at once as there are places, and of short jobs as many ahead as keep the workers at work for a
//! moment (see [`ahead`](super::ahead)): what waits for longer, waits in the database, where every server sees it. A
//! claim is only made while there is a place, and begins with what is first in line, so that what can't be claimed
//! ahead has its turn. A queue, function or key that is at its limit is left out of the claim, so its jobs hold no
//! place while they wait.

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use super::{
    Attempt, Shared,
    ahead::{Pace, Waiting},
    buckets::{buckets, may_wait},
    completer,
    state::End,
};
use crate::{
    config::seconds,
    database::{
        DatabaseError,
        jobs::{Claim, Claimed, Pin},
    },
    function::{ErrorCode, FunctionName, Invocation, Lane, Selector, Status, Version},
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
    let mut pace = Pace::new(Instant::now());
    let closing = shared.closing.clone();
    while !closing.is_cancelled() {
        if shared.ahead.hand_back_late(Instant::now()) {
            pace.forget();
        }
        let ahead = pace.ahead(Instant::now(), shared.done.load(Ordering::Relaxed)).min(MOST);
        let free = shared.free(ahead).min(MOST);
        let free = free - go_on(&shared, free);
        if free == 0 {
            closing.run_until_cancelled(freed(&shared)).await;
            continue;
        }
        let asked_with_mutexes = mutexes;
        let claimed = claim_some(&shared, free, ahead, &mut known, &mut mutexes).await;
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

/// Waits for a place, or for the time at which what waits for one goes back.
async fn freed(shared: &Shared) {
    match shared.ahead.limit() {
        Some(limit) => drop(tokio::time::timeout_at(limit.into(), shared.freed.notified()).await),
        None => shared.freed.notified().await,
    }
}

/// Gives the places that are free to those that wait for one; how many.
fn go_on(shared: &Arc<Shared>, free: usize) -> usize {
    let mut taken = 0;
    while taken < free
        && let Some(next) = shared.ahead.next()
    {
        work(shared, next);
        taken += 1;
    }
    taken
}

async fn claim_some(
    shared: &Arc<Shared>,
    free: usize,
    ahead: usize,
    known: &mut Known,
    mutexes: &mut bool,
) -> Result<usize, DatabaseError> {
    let server = shared.server();
    let buckets = buckets(shared, free, ahead);
    if buckets.is_empty() {
        return Ok(0);
    }
    let pins = pins(shared, known).await;
    let most = free + ahead;
    let claim =
        Claim { server, node: &shared.node, places: free, most, buckets: &buckets, pins: &pins, mutexes: *mutexes };
    let (claimed, mutexed) = shared.database.claim(&claim).await?;
    *mutexes = mutexed;
    let count = claimed.len();
    if count == 0 {
        return Ok(0);
    }
    let versions = resolve(shared, &claimed, known).await;
    let mut waiting = Vec::new();
    let mut places = free;
    for (job, version) in claimed.into_iter().zip(versions) {
        // From now on it counts for limits.
        let (name, queue) = (job.name.clone(), job.queue.clone());
        let (claim, invocation) = (job.claim, job.invocation);
        let attempt = Attempt { server, claim, invocation, name, queue, live: None, ended: false };
        shared.attempts().insert(job.id, attempt);
        let it = Waiting { server, job, version };
        if may_wait(shared, &it.job) {
            waiting.push(it);
        } else {
            places = places.saturating_sub(1);
            work(shared, it);
        }
    }
    for it in waiting {
        if places > 0 {
            places -= 1;
            work(shared, it);
        } else {
            shared.ahead.keep(it, Instant::now());
        }
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

/// Takes a place, and runs this attempt and then those that wait for a place.
fn work(shared: &Arc<Shared>, first: Waiting) {
    shared.busy.fetch_add(1, Ordering::AcqRel);
    let shared = shared.clone();
    let tasks = shared.tasks.clone();
    tasks.spawn(async move {
        let mut next = Some(first);
        while let Some(it) = next {
            run(&shared, it).await;
            next = shared.ahead.next();
        }
        shared.busy.fetch_sub(1, Ordering::AcqRel);
        shared.freed.notify_one();
    });
}

/// Runs an attempt.
async fn run(shared: &Shared, it: Waiting) {
    let Waiting { server, job, version } = it;
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
    let live = shared.invoker.start(invocation);
    if let Some(attempt) = shared.attempts().get_mut(&job.id) {
        attempt.live = Some(live.clone());
    }
    if shared.closing.is_cancelled() && live.status() == Status::Queued {
        live.cancel.cancel();
    }
    live.wait().await;
    let end = end(shared, &live);
    if let Some(attempt) = shared.attempts().get_mut(&job.id) {
        attempt.ended = true;
    }
    shared.done.fetch_add(1, Ordering::Relaxed);
    let ended = completer::Ended { server, version: live.version(), job, end };
    // Nobody takes it where the server has stopped: then others take the job over.
    let _ = shared.ended.send(ended);
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
