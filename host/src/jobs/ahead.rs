//! Jobs that are claimed ahead of the workers: about as many as end here in [`AHEAD`], so that one claim feeds the
//! workers for that long, and where jobs are not that short, none.
//!
//! They are this server's like those that run, and no worker's yet. A worker that is done goes on with the first of
//! them. What waits here holds nobody up: it has no key, is of no queue and no function with a limit, and has
//! attempts left should this server be lost. What does not begin within [`HOLD`], because jobs became longer all of a
//! sudden, goes back into its queue; so does all of it when the server stops.

use std::{
    cmp::Reverse,
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::UnboundedSender;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{completer::Ended, state::End};
use crate::{
    database::jobs::Claimed,
    function::{InvocationId, JobId, Version},
};

/// For how long what is claimed ahead keeps the workers at work.
const AHEAD: Duration = Duration::from_millis(25);
/// For how long one may wait for a worker.
const HOLD: Duration = Duration::from_millis(250);
/// The shortest time over which the pace is measured.
const SAMPLE: Duration = Duration::from_millis(5);

/// After so long nothing is left of what the pace was before.
const FORGOTTEN: Duration = Duration::from_millis(100);

/// A claimed job before its attempt begins.
#[derive(Debug)]
pub(super) struct Waiting {
    pub(super) server: Uuid,
    pub(super) job: Claimed,
    pub(super) version: Option<Version>,
}

/// In the order in which they are to run, each with the time by which it must have begun.
type Line = BTreeMap<(Reverse<i64>, JobId), (Waiting, Instant)>;

/// Those that wait.
#[derive(Debug)]
pub(super) struct Ahead {
    waiting: Mutex<Line>,
    /// Set when the server stops. Whoever sets it calls [`hand_back_all`](Self::hand_back_all) then.
    closing: CancellationToken,
    /// Where those go that do not begin here.
    ended: UnboundedSender<Ended>,
}

impl Ahead {
    pub(super) fn new(closing: CancellationToken, ended: UnboundedSender<Ended>) -> Self {
        Self { waiting: Mutex::default(), closing, ended }
    }

    fn waiting(&self) -> MutexGuard<'_, Line> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting().len()
    }

    /// When the one that has waited longest must have begun.
    pub(super) fn limit(&self) -> Option<Instant> {
        self.waiting().values().map(|(_, limit)| *limit).min()
    }

    /// Keeps a job for the next worker that is free; it goes back at once when the server stops.
    pub(super) fn keep(&self, it: Waiting, now: Instant) {
        let mut waiting = self.waiting();
        // Under the lock: whoever closes empties this afterwards.
        if self.closing.is_cancelled() {
            drop(waiting);
            self.hand_back(it, End::HandedBack);
        } else {
            waiting.insert((Reverse(it.job.priority), it.job.id), (it, now + HOLD));
        }
    }

    /// The next job for a worker; none when the server stops.
    pub(super) fn next(&self) -> Option<Waiting> {
        let mut waiting = self.waiting();
        if self.closing.is_cancelled() {
            return None;
        }
        waiting.pop_first().map(|(_, (it, _))| it)
    }

    /// Takes out the one with this attempt, where it is here: nobody is to hear of its end.
    pub(super) fn remove(&self, invocation: InvocationId) -> Option<JobId> {
        let mut waiting = self.waiting();
        let key = *waiting.iter().find(|(_, (it, _))| it.job.invocation == invocation)?.0;
        waiting.remove(&key).map(|(it, _)| it.job.id)
    }

    /// Takes out all of them; as [`remove`](Self::remove).
    pub(super) fn clear(&self) -> Vec<JobId> {
        self.take_if(|_| true).into_iter().map(|it| it.job.id).collect()
    }

    /// Gives back all that wait: the server stops.
    pub(super) fn hand_back_all(&self) {
        self.take_if(|_| true).into_iter().for_each(|it| self.hand_back(it, End::HandedBack));
    }

    /// Gives back those that should have begun by now; whether there were any.
    pub(super) fn hand_back_late(&self, now: Instant) -> bool {
        let late = self.take_if(|limit| limit <= now);
        let any = !late.is_empty();
        late.into_iter().for_each(|it| self.hand_back(it, End::Overtaken));
        any
    }

    fn take_if(&self, which: impl Fn(Instant) -> bool) -> Vec<Waiting> {
        self.waiting().extract_if(.., |_, (_, limit)| which(*limit)).map(|(_, (it, _))| it).collect()
    }

    fn hand_back(&self, it: Waiting, end: End) {
        // Nobody takes it where the server has stopped: then others take the job over.
        let _ = self.ended.send(Ended { server: it.server, version: it.version, job: it.job, end });
    }
}

/// How many attempts end here in a second, as the claimer sees it.
#[derive(Debug)]
pub(super) struct Pace {
    at: Instant,
    ended: u64,
    per_second: f64,
}

impl Pace {
    pub(super) fn new(now: Instant) -> Self {
        Self { at: now, ended: 0, per_second: 0.0 }
    }

    /// How many may be claimed ahead now, when so many have ended.
    pub(super) fn ahead(&mut self, now: Instant, ended: u64) -> usize {
        let passed = now.saturating_duration_since(self.at);
        if passed >= SAMPLE {
            #[expect(clippy::cast_precision_loss, reason = "a pace")]
            let now_per_second = ended.saturating_sub(self.ended) as f64 / passed.as_secs_f64();
            // Half of it is what was before, so that one claim's luck is not taken for the pace.
            let before = if passed < FORGOTTEN { self.per_second } else { now_per_second };
            self.per_second = f64::midpoint(before, now_per_second);
            (self.at, self.ended) = (now, ended);
        }
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small, and not negative")]
        let ahead = (self.per_second * AHEAD.as_secs_f64()) as usize;
        ahead
    }

    /// Jobs have become longer than they were.
    pub(super) fn forget(&mut self) {
        self.per_second = 0.0;
    }
}

#[cfg(test)]
mod tests;
