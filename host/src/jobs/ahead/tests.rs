use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::*;
use crate::function::{JobState, Selector};

fn waiting(priority: i64) -> Waiting {
    let job = Claimed {
        id: JobId::generate(),
        claim: 1,
        attempt: 1,
        invocation: InvocationId::generate(),
        queue: "default".parse().expect("a queue"),
        name: "hello".parse().expect("a name"),
        lane: "dev".parse().expect("a lane"),
        selector: Selector::Latest,
        version: None,
        kind: None,
        entry: None,
        caller_id: None,
        token: None,
        payload: "null".into(),
        parameters: Vec::new(),
        deadline: None,
        max_attempts: 10,
        delays: None,
        at_end: JobState::Failed,
        priority,
        keyed: false,
    };
    Waiting { server: Uuid::nil(), job, version: None }
}

struct Fixture {
    ahead: Ahead,
    closing: CancellationToken,
    ended: UnboundedReceiver<Ended>,
    now: Instant,
}

impl Fixture {
    fn new() -> Self {
        let closing = CancellationToken::new();
        let (sender, ended) = unbounded_channel();
        Self { ahead: Ahead::new(closing.clone(), sender), closing, ended, now: Instant::now() }
    }

    /// Keeps one since so many milliseconds; its job.
    fn keep(&self, priority: i64, ms: u64) -> Claimed {
        let it = waiting(priority);
        let job = it.job.clone();
        self.ahead.keep(it, self.now + Duration::from_millis(ms));
        job
    }

    /// What was given back since the last time.
    fn back(&mut self) -> Vec<(JobId, End)> {
        std::iter::from_fn(|| self.ended.try_recv().ok()).map(|it| (it.job.id, it.end)).collect()
    }

    fn next(&self) -> Option<JobId> {
        self.ahead.next().map(|it| it.job.id)
    }
}

#[test]
fn what_waits_runs_by_priority_and_then_by_age() {
    let mut fixture = Fixture::new();
    let [first, second, urgent] = [(0, 0), (0, 1), (5, 2)].map(|(priority, ms)| fixture.keep(priority, ms).id);
    assert_eq!(fixture.ahead.len(), 3);
    let order: Vec<_> = std::iter::from_fn(|| fixture.next()).collect();
    assert_eq!(order, [urgent, first, second]);
    assert_eq!((fixture.ahead.len(), fixture.back()), (0, Vec::new()));
}

#[test]
fn what_waits_goes_back_when_the_server_stops() {
    let mut fixture = Fixture::new();
    let waited = fixture.keep(0, 0).id;
    fixture.closing.cancel();
    assert_eq!(fixture.next(), None, "nothing begins any more");
    fixture.ahead.hand_back_all();
    // One that was being claimed meanwhile.
    let late = fixture.keep(0, 0).id;
    assert_eq!(fixture.back(), [(waited, End::HandedBack), (late, End::HandedBack)]);
    assert_eq!(fixture.ahead.len(), 0);
}

#[test]
fn what_waits_for_too_long_goes_back() {
    let mut fixture = Fixture::new();
    let (old, young) = (fixture.keep(0, 0).id, fixture.keep(9, 10).id);
    assert_eq!(fixture.ahead.limit(), Some(fixture.now + HOLD));
    assert!(!fixture.ahead.hand_back_late(fixture.now + HOLD - Duration::from_millis(1)));
    assert!(fixture.ahead.hand_back_late(fixture.now + HOLD + Duration::from_millis(1)));
    assert_eq!(fixture.back(), [(old, End::Overtaken)]);
    assert_eq!((fixture.next(), fixture.ahead.limit()), (Some(young), None));
}

#[test]
fn what_was_given_up_is_not_heard_of_again() {
    let mut fixture = Fixture::new();
    let (given_up, other, others) = (fixture.keep(0, 0), fixture.keep(0, 0), fixture.keep(0, 0));
    assert_eq!(fixture.ahead.remove(given_up.invocation), Some(given_up.id));
    assert_eq!(fixture.ahead.remove(given_up.invocation), None);
    assert_eq!(fixture.next(), Some(other.id));
    assert_eq!(fixture.ahead.clear(), [others.id]);
    assert_eq!((fixture.next(), fixture.back()), (None, Vec::new()));
}

#[test]
fn as_many_are_claimed_ahead_as_end_in_a_moment() {
    let start = Instant::now();
    let mut pace = Pace::new(start);
    let at = |ms: u64| start + Duration::from_millis(ms);
    assert_eq!(pace.ahead(at(0), 0), 0, "nothing is known yet");
    assert_eq!(pace.ahead(at(2), 32), 0, "too short a time to tell");
    // 8,000 a second, of which half is believed at first.
    assert_eq!(pace.ahead(at(10), 80), 100);
    assert_eq!(pace.ahead(at(20), 160), 150);
    assert_eq!(pace.ahead(at(25), 160), 75, "none ended in five milliseconds");
    pace.forget();
    assert_eq!(pace.ahead(at(26), 160), 0);
    // Jobs of a second on 32 workers: none; and a silence is believed at once.
    assert_eq!(Pace::new(start).ahead(at(1000), 32), 0);
    assert_eq!(pace.ahead(at(36), 240), 90);
    assert_eq!(pace.ahead(at(60_000), 240), 0);
}
