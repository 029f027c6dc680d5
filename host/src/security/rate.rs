//! How often somebody may come: a bucket of tokens that fills steadily, kept as one number (the generic cell rate
//! algorithm: the time at which the bucket would be full again), without a lock.

use std::{
    fmt,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

/// How many numbers are kept for all addresses together. Two that share one share its rate; which do is not to be
/// foreseen, and seldom while few are busy.
const ADDRESSES: usize = 16_384;

/// A rate: so many a second, and as many again at once.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// What one costs, in nanoseconds; 0: nothing, and there is no bound.
    cost: u64,
    /// How far ahead of the clock the bucket may be, in nanoseconds.
    burst: u64,
    started: Instant,
}

/// When a bucket is full again, in nanoseconds since the rate began.
#[derive(Debug, Default)]
pub struct Bucket(AtomicU64);

impl Rate {
    /// That many a second; 0: any number.
    #[must_use]
    pub fn new(a_second: u64) -> Self {
        let second = 1_000_000_000_u64;
        Self { cost: second.checked_div(a_second).unwrap_or(0), burst: second, started: Instant::now() }
    }

    /// Whether there is a bound.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.cost > 0
    }

    /// Takes one out of the bucket, if it holds one.
    #[must_use]
    pub fn take(&self, bucket: &Bucket) -> bool {
        let now = u64::try_from(self.started.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.take_at(bucket, now)
    }

    fn take_at(&self, bucket: &Bucket, now: u64) -> bool {
        let taken = bucket.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |full| {
            let next = full.max(now).saturating_add(self.cost);
            (next <= now.saturating_add(self.burst)).then_some(next)
        });
        !self.is_bounded() || taken.is_ok()
    }
}

/// The buckets of all addresses, in memory that does not grow.
pub struct Addresses {
    rate: Rate,
    buckets: Box<[Bucket]>,
    hasher: RandomState,
}

impl fmt::Debug for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Addresses").field("rate", &self.rate).finish_non_exhaustive()
    }
}

impl Addresses {
    /// Each of which may come that often in a second; 0: as often as it likes.
    #[must_use]
    pub fn new(a_second: u64) -> Self {
        let rate = Rate::new(a_second);
        let buckets = if rate.is_bounded() { ADDRESSES } else { 0 };
        Self { rate, buckets: (0..buckets).map(|_| Bucket::default()).collect(), hasher: RandomState::new() }
    }

    /// Whether that address may come once more.
    #[must_use]
    pub fn take(&self, address: IpAddr) -> bool {
        if self.buckets.is_empty() {
            return true;
        }
        let at = usize::try_from(self.hasher.hash_one(network(address))).unwrap_or(0) % self.buckets.len();
        self.buckets.get(at).is_none_or(|bucket| self.rate.take(bucket))
    }
}

/// Whom an address stands for: with IPv6 a household or a machine has 2^64 of them.
#[must_use]
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => IpAddr::V6((u128::from(address) >> 64 << 64).into()),
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_empties_at_once_and_fills_steadily() {
        let (rate, bucket) = (Rate::new(10), Bucket::default());
        let taken = |now: u64| (0..100).filter(|_| rate.take_at(&bucket, now)).count();
        assert_eq!(taken(0), 10);
        assert_eq!(taken(99_999_999), 0);
        assert_eq!(taken(100_000_000), 1);
        assert_eq!(taken(450_000_000), 3);
        assert_eq!(taken(60_000_000_000), 10, "no more than is in a bucket");
        let (none, bucket) = (Rate::new(0), Bucket::default());
        assert!((0..10_000).all(|_| none.take(&bucket)));
    }

    #[test]
    fn each_address_has_its_own() {
        let addresses = Addresses::new(5);
        let taken = |address: &str| (0..20).filter(|_| addresses.take(address.parse().expect("an address"))).count();
        assert!(taken("10.0.0.1") >= 5 && taken("10.0.0.1") < 3);
        assert!(taken("10.0.0.2") >= 5);
        assert!(taken("2001:db8::1") >= 5 && taken("2001:db8::ffff:1") < 3, "of one network");
        assert!(taken("2001:db8:0:1::1") >= 5);
    }
}
