//! Which ticks of a schedule are to be run now. Pure, as [`state`](super::state) is.

use chrono::{DateTime, Duration, Utc};

use super::cron::Cron;
use crate::function::Misfire;

/// How many ticks of one schedule are run at once; the rest comes with the next look.
const MOST: usize = 500;

/// What is to be done for a schedule.
#[derive(Debug, PartialEq, Eq)]
pub struct Due {
    /// The ticks to run, oldest first.
    pub ticks: Vec<DateTime<Utc>>,
    /// When to look next; none: never.
    pub next: Option<DateTime<Utc>>,
}

/// The ticks of `cron` from `next`, the first that was not looked at, to `now`. Those that are late by no
/// more than `grace` are run in any case; what becomes of older ones is for `misfire` to say.
#[must_use]
pub fn due(cron: &Cron, next: DateTime<Utc>, now: DateTime<Utc>, grace: Duration, misfire: Misfire) -> Due {
    let on_time = now - grace;
    let mut ticks = Vec::new();
    let mut at = Some(next);
    if next < on_time {
        match misfire {
            Misfire::All => {}
            Misfire::One => ticks.push(next),
            Misfire::None => {}
        }
        if misfire != Misfire::All {
            // The first that is not late: ticks are whole seconds, and the search leaves out where it starts.
            at = cron.next(on_time - Duration::nanoseconds(1) - Duration::seconds(1));
            while let Some(tick) = at
                && tick < on_time
            {
                at = cron.next(tick);
            }
        }
    }
    while let Some(tick) = at
        && tick <= now
        && ticks.len() < MOST
    {
        ticks.push(tick);
        at = cron.next(tick);
    }
    Due { ticks, next: at }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(1_800_000_000 + seconds, 0).expect("a time")
    }

    fn run(misfire: Misfire, next: i64, now: i64) -> (Vec<i64>, i64) {
        let cron = Cron::parse("*/10 * * * * *", "UTC").expect("parses");
        let due = due(&cron, at(next), at(now), Duration::seconds(60), misfire);
        let seconds = |at: &DateTime<Utc>| at.timestamp() - 1_800_000_000;
        (due.ticks.iter().map(seconds).collect(), due.next.as_ref().map(seconds).expect("there is a next"))
    }

    #[test]
    fn ticks_on_time_are_run_whatever_the_policy() {
        for misfire in [Misfire::One, Misfire::All, Misfire::None] {
            assert_eq!(run(misfire, 10, 9), (vec![], 10));
            assert_eq!(run(misfire, 10, 10), (vec![10], 20));
            assert_eq!(run(misfire, 10, 35), (vec![10, 20, 30], 40));
        }
    }

    #[test]
    fn late_ticks_are_made_up_for_as_the_policy_says() {
        assert_eq!(run(Misfire::None, 10, 200), (vec![140, 150, 160, 170, 180, 190, 200], 210));
        assert_eq!(run(Misfire::One, 10, 200), (vec![10, 140, 150, 160, 170, 180, 190, 200], 210));
        assert_eq!(run(Misfire::All, 10, 200), ((1..=20).map(|n| n * 10).collect(), 210));
    }

    #[test]
    fn a_clock_that_goes_back_runs_nothing_again() {
        let (ticks, next) = run(Misfire::All, 100, 105);
        assert_eq!((ticks, next), (vec![100], 110));
        assert_eq!(run(Misfire::All, 110, 50), (vec![], 110));
    }

    proptest! {
        /// However the looks fall, every tick is run once and in order.
        #[test]
        fn every_one_means_every_one(steps in prop::collection::vec(0_i64..5000, 1..30)) {
            let cron = Cron::parse("*/10 * * * * *", "UTC").expect("parses");
            let (mut next, mut now, mut seen) = (at(0), 0, Vec::new());
            for step in steps {
                now += step;
                loop {
                    let due = due(&cron, next, at(now), Duration::seconds(30), Misfire::All);
                    next = due.next.expect("there is a next");
                    let none = due.ticks.is_empty();
                    seen.extend(due.ticks);
                    if none { break }
                }
            }
            let expected: Vec<_> = (0..=now / 10).map(|n| at(n * 10)).collect();
            prop_assert_eq!(seen, expected);
        }
    }
}
