//! What the server counts, as `/metrics` shows it: Prometheus' text format, version 0.0.4.
//!
//! Counting is one addition to a number of its own, without a lock and without a look-up. There are no labels with
//! names that come from outside, so the set is as large as this file says. Anything may count; nothing is read here
//! but by the scrape.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicI64, AtomicU64, Ordering},
    time::Duration,
};

/// A number that only grows.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    /// Counts one.
    pub fn count(&self) {
        self.add(1);
    }

    /// Counts several.
    pub fn add(&self, several: u64) {
        self.0.fetch_add(several, Ordering::Relaxed);
    }

    /// What was counted.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// A number that goes up and down.
#[derive(Debug, Default)]
pub struct Gauge(AtomicI64);

impl Gauge {
    const fn new() -> Self {
        Self(AtomicI64::new(0))
    }

    /// One more.
    pub fn up(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// One less.
    pub fn down(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// One more, until what is given is dropped.
    #[must_use]
    pub fn hold(&'static self) -> Held {
        self.up();
        Held(self)
    }
}

/// One of those that a gauge counts.
#[derive(Debug)]
pub struct Held(&'static Gauge);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.down();
    }
}

/// The bounds of a histogram's buckets, in microseconds.
const BOUNDS: [u64; 12] =
    [1000, 2500, 5000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 2_500_000, 10_000_000, 60_000_000];

/// How long things took.
#[derive(Debug)]
pub struct Histogram {
    buckets: [Counter; BOUNDS.len()],
    count: Counter,
    micros: Counter,
}

impl Histogram {
    const fn new() -> Self {
        Self { buckets: [const { Counter::new() }; BOUNDS.len()], count: Counter::new(), micros: Counter::new() }
    }

    /// Counts something that took so long.
    pub fn record(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        if let Some((_, bucket)) = BOUNDS.iter().zip(&self.buckets).find(|(bound, _)| micros <= **bound) {
            bucket.count();
        }
        self.count.count();
        self.micros.add(micros);
    }
}

macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $name:ident: $kind:ident = $text:literal;)*) => {
        $($(#[doc = $help])+ pub static $name: $kind = $kind::new();)*

        /// All of them.
        fn each(text: &mut String) {
            $($name.write($text, concat!($($help),+).trim(), text);)*
        }
    };
}

metrics! {
    /// Requests that were answered with 1xx to 3xx.
    ANSWERED: Counter = "sharpfaas_requests_total{status=\"ok\"}";
    /// Requests that were answered with 4xx.
    REFUSED: Counter = "sharpfaas_requests_total{status=\"4xx\"}";
    /// Requests that were answered with 5xx.
    FAILED: Counter = "sharpfaas_requests_total{status=\"5xx\"}";
    /// Requests without a token that is good.
    UNAUTHORIZED: Counter = "sharpfaas_unauthorized_total";
    /// What tokens tried that they may not.
    DENIED: Counter = "sharpfaas_denied_total";
    /// Requests for another host, or from pages of other sites.
    FOREIGN: Counter = "sharpfaas_foreign_total";
    /// Requests and calls beyond the rate of their token or address.
    TOO_MANY: Counter = "sharpfaas_too_many_requests_total";
    /// Bodies that came too slowly.
    SLOW_BODIES: Counter = "sharpfaas_slow_bodies_total";
    /// Bodies that were larger than they may be.
    LARGE_BODIES: Counter = "sharpfaas_large_bodies_total";
    /// Encrypted payloads that could not be used.
    PAYLOADS_REFUSED: Counter = "sharpfaas_payloads_refused_total";
    /// Connections that are open.
    CONNECTIONS: Gauge = "sharpfaas_connections";
    /// Connections beyond the number of their address.
    CONNECTIONS_REFUSED: Counter = "sharpfaas_connections_refused_total";
    /// Conversations on the hub, tails and streams of output that are open.
    LISTENERS: Gauge = "sharpfaas_listeners";
    /// Calls that succeeded.
    CALLS_SUCCEEDED: Counter = "sharpfaas_invocations_total{status=\"succeeded\"}";
    /// Calls that failed.
    CALLS_FAILED: Counter = "sharpfaas_invocations_total{status=\"failed\"}";
    /// Calls that took too long.
    CALLS_TIMED_OUT: Counter = "sharpfaas_invocations_total{status=\"timedOut\"}";
    /// Calls that somebody ended.
    CALLS_CANCELLED: Counter = "sharpfaas_invocations_total{status=\"cancelled\"}";
    /// Calls for which there was no place.
    CALLS_TURNED_AWAY: Counter = "sharpfaas_invocations_turned_away_total";
    /// How long calls were at work.
    CALL_TIME: Histogram = "sharpfaas_invocation_seconds";
    /// Rows of history that were lost while the database was away.
    HISTORY_LOST: Counter = "sharpfaas_history_lost_total";
    /// Entries of the audit that are in the log alone.
    AUDIT_LOST: Counter = "sharpfaas_audit_lost_total";
}

/// Writes the lines of a metric.
trait Show {
    fn write(&self, name: &str, help: &str, text: &mut String);
}

impl Show for Counter {
    fn write(&self, name: &str, help: &str, text: &mut String) {
        value(text, name, help, "counter", self.get());
    }
}

impl Show for Gauge {
    fn write(&self, name: &str, help: &str, text: &mut String) {
        value(text, name, help, "gauge", self.0.load(Ordering::Relaxed));
    }
}

impl Show for Histogram {
    fn write(&self, name: &str, help: &str, text: &mut String) {
        head(text, name, help, "histogram");
        let mut below = 0;
        for (bound, bucket) in BOUNDS.iter().zip(&self.buckets) {
            below += bucket.get();
            let _ = writeln!(text, "{name}_bucket{{le=\"{}\"}} {below}", *bound as f64 / 1e6);
        }
        // Counted after its bucket, so it is never less than what they hold.
        let count = self.count.get().max(below);
        let _ = writeln!(text, "{name}_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(text, "{name}_sum {}\n{name}_count {count}", self.micros.get() as f64 / 1e6);
    }
}

/// Adds a value that somebody else knows.
pub fn value(text: &mut String, name: &str, help: &str, kind: &str, value: impl std::fmt::Display) {
    head(text, name, help, kind);
    // Writing to a string does not fail.
    let _ = writeln!(text, "{name} {value}");
}

/// The head of a family; those that differ in a label alone have one together.
fn head(text: &mut String, name: &str, help: &str, kind: &str) {
    let family = name.split('{').next().unwrap_or(name);
    let head = format!("# TYPE {family} {kind}\n");
    if !text.contains(&head) {
        let help = if family == name { help } else { "By how they ended." };
        let _ = write!(text, "# HELP {family} {help}\n{head}");
    }
}

/// All that is counted.
#[must_use]
pub fn render() -> String {
    let mut text = String::with_capacity(8192);
    each(&mut text);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_as_prometheus_reads_it() {
        CALL_TIME.record(Duration::from_millis(3));
        CALL_TIME.record(Duration::from_secs(600));
        CALLS_FAILED.count();
        let text = render();
        assert_eq!(text.matches("# TYPE sharpfaas_invocations_total counter\n").count(), 1, "{text}");
        assert!(text.contains("sharpfaas_invocations_total{status=\"failed\"} "), "{text}");
        let bucket = |le: &str| -> u64 {
            let start = format!("sharpfaas_invocation_seconds_bucket{{le=\"{le}\"}} ");
            let line = text.lines().find_map(|line| line.strip_prefix(&start));
            line.and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("{le}: {text}"))
        };
        assert!(bucket("0.005") >= 1 && bucket("60") >= bucket("0.005") && bucket("+Inf") > bucket("60"));
        for line in text.lines() {
            let fields: Vec<&str> = line.splitn(2, ' ').collect();
            assert!(line.starts_with("# ") || fields[1].parse::<f64>().is_ok(), "{line}");
        }
    }
}
