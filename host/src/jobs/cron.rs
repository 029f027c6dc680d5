//! When a schedule is due: a cron expression in a time zone, right over daylight-saving changes.
//!
//! An expression that names its time of day (no `*` in seconds, minutes and hours) is due exactly once at
//! each of them: where the clock jumps over it, at the first moment after the gap; where the clock runs
//! through it twice, the first time. Any other one is due whenever the clock on the wall shows what it says:
//! nothing in the gap, and both times where an hour comes twice.

use chrono::{DateTime, Duration, FixedOffset, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds};

/// How far ahead a tick is looked for: two leap years can be eight years apart.
const HORIZON: Duration = Duration::days(9 * 366);

/// Why an expression or time zone was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Not a cron expression.
    #[error("cron {text:?} is not valid: {cause}")]
    Expression {
        /// What was given, its beginning.
        text: String,
        /// What is wrong with it.
        cause: String,
    },
    /// It is never due.
    #[error("cron {0:?} is never due")]
    Never(String),
    /// No such time zone.
    #[error("timeZone {0:?} is not known: give a name of the IANA database, as in Europe/Zurich")]
    TimeZone(String),
}

/// An expression in a time zone.
#[derive(Debug, Clone)]
pub struct Cron {
    cron: croner::Cron,
    zone: Tz,
    names_time_of_day: bool,
}

impl Cron {
    /// Parses both: five fields, or six with the seconds first.
    ///
    /// # Errors
    /// When one of them is not valid.
    pub fn parse(text: &str, zone: &str) -> Result<Self, CronError> {
        let short = || text.chars().take(80).collect::<String>();
        let zone = zone.parse().map_err(|_| CronError::TimeZone(zone.chars().take(80).collect()))?;
        let cron = CronParser::builder()
            .seconds(Seconds::Optional)
            .build()
            .parse(text)
            .map_err(|error| CronError::Expression { text: short(), cause: error.to_string() })?;
        Ok(Self { cron, zone, names_time_of_day: names_time_of_day(text) })
    }

    fn offset(&self, at: DateTime<Utc>) -> FixedOffset {
        self.zone.offset_from_utc_datetime(&at.naive_utc()).fix()
    }

    /// The first tick after `after`; none where none comes within nine years.
    #[must_use]
    pub fn next(&self, after: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let end = after + HORIZON;
        // The last whole second, so that the next one is the first that can be a tick.
        let mut from = DateTime::from_timestamp(after.timestamp(), 0)?;
        let mut inclusive = false;
        loop {
            // Between two changes of the clock the zone is a fixed offset, where the search is plain.
            let offset = self.offset(from);
            let found = self.cron.find_next_occurrence(&from.with_timezone(&offset), inclusive).ok()?.to_utc();
            let Some(change) = self.first_change(from, found.min(end)) else {
                if found > end {
                    return None;
                }
                if self.names_time_of_day && self.is_second_pass(found) {
                    (from, inclusive) = (found, false);
                    continue;
                }
                return Some(found);
            };
            let gap = i64::from(self.offset(change).local_minus_utc() - offset.local_minus_utc());
            if self.names_time_of_day && found < change + Duration::seconds(gap) {
                return Some(change);
            }
            (from, inclusive) = (change, true);
        }
    }

    /// The first moment in `(from, to]` at which the zone has another offset than at `from`.
    fn first_change(&self, from: DateTime<Utc>, to: DateTime<Utc>) -> Option<DateTime<Utc>> {
        let offset = self.offset(from);
        let (mut same, mut other) = (from, from);
        while self.offset(other) == offset {
            if other >= to {
                return None;
            }
            same = other;
            other = (other + Duration::days(1)).min(to);
        }
        while other - same > Duration::seconds(1) {
            let middle = DateTime::from_timestamp(same.timestamp().midpoint(other.timestamp()), 0)?;
            if self.offset(middle) == offset { same = middle } else { other = middle }
        }
        Some(other)
    }

    /// Whether the wall showed this time once before.
    fn is_second_pass(&self, at: DateTime<Utc>) -> bool {
        let local = at.with_timezone(&self.zone).naive_local();
        self.zone.from_local_datetime(&local).earliest().is_some_and(|first| first.to_utc() < at)
    }
}

/// Whether no part of the time of day is open.
fn names_time_of_day(text: &str) -> bool {
    let fields: Vec<&str> = text.split_whitespace().collect();
    match fields.as_slice() {
        [nickname] => !nickname.eq_ignore_ascii_case("@hourly"),
        [minute, hour, _, _, _] => ![minute, hour].iter().any(|field| field.contains(['*', '?'])),
        [second, minute, hour, ..] => ![second, minute, hour].iter().any(|field| field.contains(['*', '?'])),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).expect("a time").to_utc()
    }

    /// The ticks after `from`, as the wall shows them.
    fn ticks(cron: &str, zone: &str, from: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(cron, zone).expect("parses");
        let first = cron.next(at(from));
        std::iter::successors(first, |tick| cron.next(*tick))
            .take(count)
            .map(|tick| tick.with_timezone(&cron.zone).to_rfc3339())
            .collect()
    }

    #[test]
    fn a_named_time_in_the_gap_comes_after_it_once() {
        let days = ticks("30 2 * * *", "Europe/Zurich", "2026-03-28T00:00:00Z", 3);
        assert_eq!(days, ["2026-03-28T02:30:00+01:00", "2026-03-29T03:00:00+02:00", "2026-03-30T02:30:00+02:00"]);
    }

    #[test]
    fn a_named_time_that_comes_twice_is_due_once() {
        let days = ticks("30 2 * * *", "Europe/Zurich", "2026-10-24T12:00:00Z", 2);
        assert_eq!(days, ["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]);
        let days = ticks("0 30 1,2 * * *", "Europe/Zurich", "2026-10-24T12:00:00Z", 3);
        assert_eq!(days, ["2026-10-25T01:30:00+02:00", "2026-10-25T02:30:00+02:00", "2026-10-26T01:30:00+01:00"]);
    }

    #[test]
    fn an_interval_follows_the_wall_through_both_changes() {
        let spring = ticks("*/30 * * * *", "Europe/Zurich", "2026-03-29T00:00:00Z", 4);
        assert_eq!(
            spring,
            [
                "2026-03-29T01:30:00+01:00",
                "2026-03-29T03:00:00+02:00",
                "2026-03-29T03:30:00+02:00",
                "2026-03-29T04:00:00+02:00"
            ]
        );
        let autumn = ticks("*/30 * * * *", "Europe/Zurich", "2026-10-24T23:45:00Z", 6);
        assert_eq!(
            autumn,
            [
                "2026-10-25T02:00:00+02:00",
                "2026-10-25T02:30:00+02:00",
                "2026-10-25T02:00:00+01:00",
                "2026-10-25T02:30:00+01:00",
                "2026-10-25T03:00:00+01:00",
                "2026-10-25T03:30:00+01:00"
            ]
        );
    }

    #[test]
    fn half_hour_changes_and_far_ticks_are_found() {
        let island = ticks("15 2 * * *", "Australia/Lord_Howe", "2026-10-03T00:00:00Z", 2);
        assert_eq!(island, ["2026-10-04T02:30:00+11:00", "2026-10-05T02:15:00+11:00"]);
        assert_eq!(ticks("0 0 29 2 *", "UTC", "2096-03-01T00:00:00Z", 1), ["2104-02-29T00:00:00+00:00"]);
        assert_eq!(Cron::parse("0 0 30 2 *", "UTC").expect("parses").next(at("2026-01-01T00:00:00Z")), None);
    }

    #[test]
    fn seconds_are_optional_and_ticks_are_whole() {
        let every_second = Cron::parse("* * * * * *", "UTC").expect("parses");
        assert_eq!(every_second.next(at("2026-01-01T00:00:00.25Z")), Some(at("2026-01-01T00:00:01Z")));
        assert_eq!(every_second.next(at("2026-01-01T00:00:01Z")), Some(at("2026-01-01T00:00:02Z")));
        assert_eq!(ticks("@daily", "UTC", "2026-01-01T00:00:00Z", 1), ["2026-01-02T00:00:00+00:00"]);
    }

    #[test]
    fn what_is_not_valid_is_named() {
        assert!(Cron::parse("61 * * * *", "UTC").expect_err("no such minute").to_string().contains("61"));
        assert!(Cron::parse("* * * * *", "Mars/Olympus").expect_err("no such zone").to_string().contains("IANA"));
    }

    proptest! {
        /// Ticks go forward, and with every minute none is left out, whatever the clock does.
        #[test]
        fn every_minute_is_every_minute(start in 1_700_000_000_i64..1_900_000_000, zone in 0_usize..4) {
            let zone = ["Europe/Zurich", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kolkata"][zone];
            let cron = Cron::parse("* * * * *", zone).expect("parses");
            let mut tick = DateTime::from_timestamp(start, 0).expect("a time");
            for _ in 0..10 {
                let next = cron.next(tick).expect("there is one");
                prop_assert!(next > tick && next - tick <= Duration::minutes(1));
                prop_assert_eq!(next.timestamp() % 60, 0);
                tick = next;
            }
        }

        /// A daily time is due once a day.
        #[test]
        fn once_a_day_is_once_a_day(start in 1_700_000_000_i64..1_900_000_000, minute in 0_u32..1440, zone in 0_usize..3) {
            let zone = ["Europe/Zurich", "America/New_York", "Australia/Lord_Howe"][zone];
            let cron = Cron::parse(&format!("{} {} * * *", minute % 60, minute / 60), zone).expect("parses");
            let mut tick = cron.next(DateTime::from_timestamp(start, 0).expect("a time")).expect("there is one");
            for _ in 0..5 {
                let next = cron.next(tick).expect("there is one");
                let days = |at: DateTime<Utc>| at.with_timezone(&cron.zone).date_naive();
                prop_assert_eq!(days(next) - days(tick), Duration::days(1));
                tick = next;
            }
        }
    }
}
