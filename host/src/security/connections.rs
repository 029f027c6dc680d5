//! How many connections an address has.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use super::rate::network;
use crate::metrics;

type Counts = HashMap<IpAddr, u64>;

/// The connections of all addresses: as much memory as there are addresses with one. A clone is another hand on the
/// same.
#[derive(Debug, Clone)]
pub struct Connections {
    most: u64,
    counts: Arc<Mutex<Counts>>,
}

/// A connection; given back when dropped.
#[derive(Debug)]
pub struct Connection {
    address: IpAddr,
    counts: Arc<Mutex<Counts>>,
}

impl Connections {
    /// So many for each address; 0: any number.
    #[must_use]
    pub fn new(most: u64) -> Self {
        Self { most, counts: Arc::default() }
    }

    /// Another connection of that address; `None` where it has as many as it may.
    #[must_use]
    pub fn open(&self, address: IpAddr) -> Option<Connection> {
        let address = network(address);
        let mut counts = lock(&self.counts);
        let count = counts.entry(address).or_default();
        if self.most > 0 && *count >= self.most {
            metrics::CONNECTIONS_REFUSED.count();
            return None;
        }
        *count += 1;
        metrics::CONNECTIONS.up();
        Some(Connection { address, counts: self.counts.clone() })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        metrics::CONNECTIONS.down();
        let mut counts = lock(&self.counts);
        if let Some(count) = counts.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.address);
            }
        }
    }
}

/// Numbers are whole, whatever panicked.
fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_has_so_many_and_no_more() {
        let connections = Connections::new(2);
        let (one, other) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let held = (connections.open(one), connections.open(one));
        assert!(held.0.is_some() && held.1.is_some() && connections.open(one).is_none());
        assert!(connections.open(other).is_some());
        drop(held);
        assert!(lock(&connections.counts).is_empty());
        assert!(connections.open(one).is_some());
    }
}
