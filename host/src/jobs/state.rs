//! What becomes of a job: pure decisions, without clock, chance or database of their own.

use std::time::Duration;

use crate::function::{ContinueOn, JobState};

/// How long a job waits that found no room on its server.
const BUSY_PAUSE: Duration = Duration::from_secs(5);

/// The most attempts that a job may have.
pub const MOST_ATTEMPTS: u32 = 100;

/// How often a job is tried, and what happens when that was in vain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// How many attempts it has, at least 1.
    pub max_attempts: u32,
    /// The delays after the first, second, … failed attempt, in seconds; the last one stands for all after
    /// it. None: by [`retry_delay`].
    pub delays: Option<Vec<u64>>,
    /// Where it ends when its last attempt failed: `Failed` or `Deleted`.
    pub at_end: JobState,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum End {
    /// With a result.
    Succeeded,
    /// Without, for this reason.
    Failed(String),
    /// The server that ran it is gone.
    Lost,
    /// The server stops, and it had not begun.
    HandedBack,
    /// It had not begun, as the jobs before it took longer than their like before.
    Overtaken,
    /// The server stops, and it did not end in time.
    Interrupted,
    /// There was no room for it.
    Busy,
    /// Somebody ended the attempt.
    Cancelled,
}

/// What a job goes on to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Next {
    /// Its state.
    pub state: JobState,
    /// How long it waits there, where that is `Scheduled`.
    pub delay: Option<Duration>,
    /// Whether the attempt counts.
    pub counts: bool,
    /// Why, in words.
    pub reason: Option<String>,
}

impl Next {
    fn to(state: JobState, reason: impl Into<Option<&'static str>>) -> Self {
        Self { state, delay: None, counts: true, reason: reason.into().map(Into::into) }
    }
}

/// Where a job goes whose attempt number `attempt` (the first is 1) ended so. `random` gives a number
/// from 0 to 29.
pub fn after(attempt: u32, policy: &Policy, end: End, random: impl FnOnce() -> u64) -> Next {
    let used_up = attempt >= policy.max_attempts;
    match end {
        End::Succeeded => Next::to(JobState::Succeeded, None),
        End::Cancelled => Next::to(JobState::Deleted, "its attempt was cancelled"),
        End::HandedBack => Next { counts: false, ..Next::to(JobState::Enqueued, "its server stopped before it began") },
        End::Overtaken => {
            Next { counts: false, ..Next::to(JobState::Enqueued, "its server took longer for the jobs before it") }
        }
        End::Busy => Next {
            counts: false,
            delay: Some(BUSY_PAUSE),
            ..Next::to(JobState::Scheduled, "its server had no room for it")
        },
        End::Lost if used_up => Next::to(policy.at_end, "its server was lost, and this was its last attempt"),
        End::Lost => Next::to(JobState::Enqueued, "its server was lost"),
        End::Interrupted if used_up => Next::to(policy.at_end, "its server stopped, and this was its last attempt"),
        End::Interrupted => Next::to(JobState::Enqueued, "its server stopped before it ended"),
        End::Failed(reason) if used_up => Next { reason: Some(reason), ..Next::to(policy.at_end, None) },
        End::Failed(reason) => {
            let given = policy.delays.as_deref().and_then(|delays| {
                let at = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
                delays.get(at).or_else(|| delays.last()).copied()
            });
            let delay = given.unwrap_or_else(|| retry_delay(attempt, random()));
            let state = if delay == 0 { JobState::Enqueued } else { JobState::Scheduled };
            let delay = (delay > 0).then(|| Duration::from_secs(delay));
            Next { delay, reason: Some(reason), ..Next::to(state, None) }
        }
    }
}

/// How many seconds to wait after attempt `n` (the first is 1) failed, with a random number from 0 to 29:
/// `(n − 1)⁴ + 15 + random · n`.
#[must_use]
pub fn retry_delay(n: u32, random: u64) -> u64 {
    let n = u64::from(n.max(1));
    (n - 1).saturating_pow(4).saturating_add(15).saturating_add(random.min(29).saturating_mul(n))
}

/// Where a job stands that is to go on after another one (or a batch) in that state; `first` is where it
/// begins when it need not wait.
#[must_use]
pub fn continuation(before: JobState, on: ContinueOn, first: JobState) -> JobState {
    match (before, on) {
        (JobState::Succeeded, _) | (JobState::Failed | JobState::Deleted, ContinueOn::Ended) => first,
        (JobState::Deleted, ContinueOn::Succeeded) => JobState::Deleted,
        // One that failed may be requeued and succeed yet.
        _ => JobState::Awaiting,
    }
}

/// Whether somebody may put a job back into its queue.
#[must_use]
pub fn may_requeue(from: JobState) -> bool {
    !matches!(from, JobState::Processing | JobState::Enqueued)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn policy(max_attempts: u32) -> Policy {
        Policy { max_attempts, delays: None, at_end: JobState::Failed }
    }

    fn failed() -> End {
        End::Failed("because".into())
    }

    #[test]
    fn delays_are_those_of_the_formula() {
        assert_eq!(retry_delay(1, 0), 15);
        assert_eq!(retry_delay(1, 29), 44);
        assert_eq!(retry_delay(3, 10), 16 + 15 + 30);
        assert_eq!(retry_delay(10, 29), 6561 + 15 + 290);
    }

    #[test]
    fn given_delays_stand_instead_and_the_last_goes_on() {
        let policy = Policy { delays: Some(vec![0, 7]), ..policy(5) };
        let at = |attempt| after(attempt, &policy, failed(), || 0);
        assert_eq!((at(1).state, at(1).delay), (JobState::Enqueued, None));
        for attempt in 2..5 {
            assert_eq!((at(attempt).state, at(attempt).delay), (JobState::Scheduled, Some(Duration::from_secs(7))));
        }
        assert_eq!(at(5).state, JobState::Failed);
    }

    #[test]
    fn a_job_that_kills_its_workers_ends() {
        let mut attempt = 1;
        let policy = Policy { at_end: JobState::Deleted, ..policy(3) };
        loop {
            let next = after(attempt, &policy, End::Lost, || 0);
            if next.state.is_end() {
                assert_eq!((attempt, next.state), (3, JobState::Deleted));
                break;
            }
            assert_eq!((next.state, next.counts), (JobState::Enqueued, true));
            attempt += 1;
        }
    }

    #[test]
    fn what_is_not_the_jobs_fault_costs_it_nothing() {
        for end in [End::HandedBack, End::Busy] {
            let next = after(10, &policy(10), end, || 0);
            assert!(!next.counts && !next.state.is_end());
        }
    }

    #[test]
    fn continuations_wait_go_or_are_given_up() {
        use JobState::{Awaiting, Deleted, Enqueued, Failed, Processing, Scheduled, Succeeded};
        let on = |before, on| continuation(before, on, Enqueued);
        for open in [Scheduled, Enqueued, Processing, Awaiting] {
            assert_eq!(on(open, ContinueOn::Succeeded), Awaiting);
            assert_eq!(on(open, ContinueOn::Ended), Awaiting);
        }
        assert_eq!(on(Succeeded, ContinueOn::Succeeded), Enqueued);
        assert_eq!(on(Failed, ContinueOn::Succeeded), Awaiting);
        assert_eq!(on(Deleted, ContinueOn::Succeeded), Deleted);
        for end in [Succeeded, Failed, Deleted] {
            assert_eq!(on(end, ContinueOn::Ended), Enqueued);
        }
    }

    fn ends() -> impl Strategy<Value = End> {
        prop_oneof![
            Just(End::Succeeded),
            Just(failed()),
            Just(End::Lost),
            Just(End::HandedBack),
            Just(End::Interrupted),
            Just(End::Busy),
            Just(End::Cancelled)
        ]
    }

    proptest! {
        /// Whatever happens to it, a job has no more counted attempts than it may, and none after its end.
        #[test]
        fn no_job_goes_in_a_circle(max in 1..=MOST_ATTEMPTS, ends in prop::collection::vec(ends(), 1..300), random in 0_u64..30) {
            let policy = policy(max);
            let mut counted = 0;
            for end in ends {
                let next = after(counted + 1, &policy, end, || random);
                counted += u32::from(next.counts);
                prop_assert!(counted <= max);
                prop_assert_eq!(next.delay.is_some(), next.state == JobState::Scheduled);
                prop_assert!(next.state != JobState::Processing && next.state != JobState::Awaiting);
                if next.state.is_end() {
                    break;
                }
                prop_assert!(counted < max, "it goes on with no attempt left");
            }
        }

        #[test]
        fn delays_stay_within_their_bounds(n in 1..=MOST_ATTEMPTS, random in 0_u64..30) {
            let base = u64::from(n - 1).pow(4) + 15;
            let delay = retry_delay(n, random);
            prop_assert!((base..=base + 29 * u64::from(n)).contains(&delay));
        }
    }
}
