//! What the keeper is told. Most of it can wait until it looks at processes anyhow: to wake a thread for each thing
//! that it is told would cost each call more than what it then does.

use std::{
    mem,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// After it was told something, it comes back this often for a while, whether it is woken or not.
const PAUSE: Duration = Duration::from_millis(5);
/// For how long.
const AWAKE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub struct Queue<T> {
    state: Mutex<State<T>>,
    woken: Condvar,
}

#[derive(Debug)]
struct State<T> {
    items: Vec<T>,
    open: bool,
    /// Whether the one who takes from it sleeps, and until when; for ever, where it does not say.
    sleeps: Option<Option<Instant>>,
    /// When something was last taken.
    last: Option<Instant>,
}

/// What there was.
#[derive(Debug)]
pub struct Taken<T> {
    pub items: Vec<T>,
    /// Whether more may come.
    pub open: bool,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        let state = State { items: Vec::new(), open: true, sleeps: None, last: None };
        Self { state: Mutex::new(state), woken: Condvar::new() }
    }
}

impl<T> Queue<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds something that must be taken by then; or, where it does not say, with what must.
    pub fn put(&self, item: T, by: Option<Instant>) {
        let mut state = self.state();
        state.items.push(item);
        if by.is_some_and(|by| state.sleeps.is_some_and(|until| until.is_none_or(|until| until > by))) {
            // Once is enough.
            state.sleeps = None;
            drop(state);
            self.woken.notify_one();
        }
    }

    /// Nothing more comes.
    pub fn close(&self) {
        self.state().open = false;
        self.woken.notify_one();
    }

    /// Takes all that there is; where there is nothing, it waits, until then at the latest. It may come back with
    /// nothing before that.
    pub fn take(&self, until: Option<Instant>) -> Taken<T> {
        let mut state = self.state();
        let now = Instant::now();
        if state.items.is_empty() && (state.open || until.is_some()) {
            let awake = state.last.filter(|last| *last + AWAKE > now).map(|_| now + PAUSE);
            let until = until.into_iter().chain(awake).min();
            state.sleeps = Some(until);
            state = match until {
                None => self.woken.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(until) => {
                    let waited = self.woken.wait_timeout(state, until.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
            state.sleeps = None;
        }
        if !state.items.is_empty() {
            state.last = Some(Instant::now());
        }
        Taken { items: mem::take(&mut state.items), open: state.open }
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::Arc, thread};

    use super::*;

    /// Long enough that a test which waits for it fails.
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_can_wait_comes_with_what_can_not() {
        let queue = Arc::new(Queue::default());
        let (taker, began) = (queue.clone(), Instant::now());
        let taken = thread::spawn(move || {
            let mut all = Vec::new();
            while all.len() < 2 {
                all.extend(taker.take(Some(Instant::now() + LONG)).items);
            }
            all
        });
        queue.put(1, None);
        queue.put(2, Some(Instant::now()));
        assert_eq!(taken.join().expect("it ends"), [1, 2]);
        assert!(began.elapsed() < LONG);
    }

    #[test]
    fn one_that_was_busy_comes_back_soon_by_itself() {
        let queue = Queue::default();
        queue.put(1, None);
        assert_eq!(queue.take(None).items, [1]);
        let began = Instant::now();
        // Nobody wakes it.
        assert!(queue.take(None).items.is_empty());
        assert!(began.elapsed() < LONG);
    }

    #[test]
    fn the_end_wakes_too() {
        let queue = Arc::new(Queue::<()>::default());
        let taker = queue.clone();
        let taken = thread::spawn(move || taker.take(None).open);
        queue.close();
        assert!(!taken.join().expect("it ends"));
        assert!(!queue.take(None).open);
    }
}
