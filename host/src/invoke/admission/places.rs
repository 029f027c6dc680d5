//! The book of places: who holds how many, and who waits. Bookkeeping alone, without waiting or waking.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    hash::Hash,
};

use crate::function::{FunctionName, Invocation, Lane, TokenName};

/// Who a place is for. All calls of one tenant are alike to admission.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Tenant {
    function: (Lane, FunctionName),
    /// The name of the token that the call came with.
    token: Option<TokenName>,
}

impl Tenant {
    pub(super) fn of(invocation: &Invocation) -> Self {
        Self { function: (invocation.lane.clone(), invocation.name.clone()), token: invocation.token.clone() }
    }
}

/// How much there is, and how much of it for each.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bounds {
    pub(super) places: u64,
    pub(super) of_function: u64,
    pub(super) of_lane: u64,
    pub(super) of_token: u64,
    /// How many may wait.
    pub(super) queue: usize,
}

/// Tells one who waits from the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// The places of one kind, and a `W` for each who waits for one.
#[derive(Debug)]
pub(super) struct Places<W> {
    bounds: Bounds,
    taken: u64,
    functions: Counts<(Lane, FunctionName)>,
    lanes: Counts<Lane>,
    tokens: Counts<TokenName>,
    queues: HashMap<Tenant, VecDeque<(Ticket, W)>>,
    /// Those who have a queue, in the order of their turns.
    turns: VecDeque<Tenant>,
    waiting: usize,
    tickets: u64,
}

impl<W> Places<W> {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self {
            taken: 0,
            functions: Counts::new(bounds.of_function, bounds.places),
            lanes: Counts::new(bounds.of_lane, bounds.places),
            tokens: Counts::new(bounds.of_token, bounds.places),
            queues: HashMap::new(),
            turns: VecDeque::new(),
            waiting: 0,
            tickets: 0,
            bounds,
        }
    }

    /// How many hold a place, and how many wait for one.
    #[cfg(test)]
    pub(super) fn counts(&self) -> (u64, usize) {
        (self.taken, self.waiting)
    }

    /// How many have ever begun to wait.
    #[cfg(test)]
    pub(super) fn queued(&self) -> u64 {
        self.tickets
    }

    /// Takes a place, where there is one and nobody of the same tenant came before.
    pub(super) fn take(&mut self, tenant: &Tenant) -> bool {
        if !self.is_free_for(tenant) || (self.waiting > 0 && self.queues.contains_key(tenant)) {
            return false;
        }
        self.hold(tenant);
        true
    }

    fn is_free_for(&self, tenant: &Tenant) -> bool {
        self.taken < self.bounds.places
            && self.functions.has_room(&tenant.function)
            && self.lanes.has_room(&tenant.function.0)
            && tenant.token.as_ref().is_none_or(|token| self.tokens.has_room(token))
    }

    fn hold(&mut self, tenant: &Tenant) {
        self.taken += 1;
        self.functions.add(&tenant.function);
        self.lanes.add(&tenant.function.0);
        if let Some(token) = &tenant.token {
            self.tokens.add(token);
        }
    }

    pub(super) fn give_back(&mut self, tenant: &Tenant) {
        self.taken = self.taken.saturating_sub(1);
        self.functions.remove(&tenant.function);
        self.lanes.remove(&tenant.function.0);
        if let Some(token) = &tenant.token {
            self.tokens.remove(token);
        }
    }

    /// Lets one wait. Where the queues are full it takes the place of the newest of the longest one, which is
    /// given back to be told; or gets none, where its own is as long. `None`: it may not wait.
    pub(super) fn enqueue(&mut self, tenant: &Tenant, waiter: W) -> Option<(Ticket, Option<W>)> {
        let mut pushed_out = None;
        if self.waiting >= self.bounds.queue {
            pushed_out = Some(self.push_out(tenant)?);
        }
        let ticket = Ticket(self.tickets);
        self.tickets += 1;
        self.waiting += 1;
        match self.queues.entry(tenant.clone()) {
            Entry::Occupied(mut queue) => queue.get_mut().push_back((ticket, waiter)),
            Entry::Vacant(none) => {
                none.insert(VecDeque::from([(ticket, waiter)]));
                self.turns.push_back(tenant.clone());
            }
        }
        Some((ticket, pushed_out))
    }

    /// The newest of the longest queue, where that is longer than `tenant`'s would be.
    fn push_out(&mut self, tenant: &Tenant) -> Option<W> {
        let own = self.queues.get(tenant).map_or(0, VecDeque::len);
        // Most of a flood ends here, before a look at all the queues: it is no shorter than the average.
        if own.saturating_mul(self.queues.len()) >= self.waiting {
            return None;
        }
        let (longest, length) = self.queues.iter().map(|(of, queue)| (of, queue.len())).max_by_key(|(_, n)| *n)?;
        if length <= own + 1 {
            return None;
        }
        let longest = longest.clone();
        let (_, newest) = self.queues.get_mut(&longest)?.pop_back()?;
        self.waiting -= 1;
        Some(newest)
    }

    /// Takes a place for the next of those who wait, each tenant in turn, where there is one for any.
    pub(super) fn next(&mut self) -> Option<(Tenant, W)> {
        if self.taken >= self.bounds.places {
            return None;
        }
        let at = self.turns.iter().position(|tenant| self.is_free_for(tenant))?;
        let tenant = self.turns.remove(at)?;
        let queue = self.queues.get_mut(&tenant)?;
        let (_, waiter) = queue.pop_front()?;
        self.waiting -= 1;
        if queue.is_empty() {
            self.queues.remove(&tenant);
        } else {
            self.turns.push_back(tenant.clone());
        }
        self.hold(&tenant);
        Some((tenant, waiter))
    }

    /// Takes one out who waits no longer; `None` where it has got its place, or was pushed out.
    pub(super) fn leave(&mut self, tenant: &Tenant, ticket: Ticket) -> Option<W> {
        let queue = self.queues.get_mut(tenant)?;
        let at = queue.iter().position(|(of, _)| *of == ticket)?;
        let (_, waiter) = queue.remove(at)?;
        self.waiting -= 1;
        if queue.is_empty() {
            self.queues.remove(tenant);
            self.turns.retain(|other| other != tenant);
        }
        Some(waiter)
    }
}

/// How many places each holds; nothing is counted where the bound can't be met.
#[derive(Debug)]
struct Counts<K> {
    of: HashMap<K, u64>,
    most: Option<u64>,
}

impl<K: Clone + Eq + Hash> Counts<K> {
    fn new(most: u64, places: u64) -> Self {
        Self { of: HashMap::new(), most: (most < places).then_some(most) }
    }

    fn has_room(&self, key: &K) -> bool {
        self.most.is_none_or(|most| self.of.get(key).is_none_or(|held| *held < most))
    }

    fn add(&mut self, key: &K) {
        if self.most.is_none() {
            return;
        }
        match self.of.get_mut(key) {
            Some(held) => *held += 1,
            None => drop(self.of.insert(key.clone(), 1)),
        }
    }

    fn remove(&mut self, key: &K) {
        if let Some(held) = self.of.get_mut(key) {
            *held -= 1;
            if *held == 0 {
                self.of.remove(key);
            }
        }
    }
}
