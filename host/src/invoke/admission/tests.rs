use super::*;
use crate::function::{FunctionName, InvocationId, Lane, Selector};

fn limits(concurrency: u64, queue: u64, queue_seconds: u64) -> Limits {
    Limits { concurrency, processes: 1, queue, queue_seconds, function_share_percent: 100, ..Limits::default() }
}

fn call(lane: &str, name: &str) -> Invocation {
    Invocation {
        id: InvocationId::generate(),
        caller_id: None,
        name: FunctionName::parse(name).expect("a name"),
        lane: Lane::parse(lane).expect("a lane"),
        selector: Selector::Latest,
        kind: None,
        entry: None,
        payload: String::new(),
        parameters: Vec::new(),
        deadline: None,
        token: None,
        confidential: None,
    }
}

/// Waits for a place in the background, already in the queue when this comes back.
async fn waiter(admission: &Arc<Admission>, name: &'static str) -> tokio::task::JoinHandle<Result<Permit, AtCapacity>> {
    let queued = admission.components.places().queued();
    let own = admission.clone();
    let task = tokio::spawn(async move { own.acquire(&call("dev", name)).await });
    while admission.components.places().queued() == queued && !task.is_finished() {
        tokio::task::yield_now().await;
    }
    task
}

#[tokio::test]
async fn refuses_at_once_beyond_the_queue() {
    let admission = Admission::new(&limits(1, 0, 60));
    let held = admission.acquire(&call("dev", "a")).await.expect("a free place");
    assert!(admission.acquire(&call("dev", "a")).await.is_err());
    drop(held);
    assert!(admission.acquire(&call("dev", "a")).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn waits_for_a_place_as_long_as_it_may() {
    let admission = Arc::new(Admission::new(&limits(1, 1, 5)));
    let held = admission.acquire(&call("dev", "a")).await.expect("a free place");
    let first = waiter(&admission, "a").await;
    assert!(admission.acquire(&call("dev", "a")).await.is_err(), "the queue is full");
    drop(held);
    let _held = first.await.expect("it ends").expect("its place");

    let before = tokio::time::Instant::now();
    assert!(admission.acquire(&call("dev", "a")).await.is_err());
    assert_eq!(before.elapsed(), Duration::from_secs(5));
    assert_eq!(admission.components.places().counts(), (1, 0));
}

#[tokio::test]
async fn programs_have_places_of_their_own() {
    let admission = Admission::new(&limits(1, 0, 1));
    let permit = admission.acquire(&call("dev", "a")).await.expect("a free place");
    let _process = admission.exchange(permit).await.expect("a process's place");
    let component = admission.acquire(&call("dev", "a")).await.expect("the component's place is free again");
    assert!(admission.exchange(component).await.is_err());
}

#[tokio::test]
async fn no_function_and_no_lane_takes_more_than_its_share() {
    let shares = Limits { function_share_percent: 50, lane_share_percent: 75, ..limits(4, 0, 1) };
    let admission = Admission::new(&shares);
    let mut held = Vec::new();
    for (lane, name, fits) in [
        ("dev", "a", true),
        ("dev", "a", true),
        ("dev", "a", false),
        ("dev", "b", true),
        ("dev", "b", false),
        ("production", "a", true),
        ("production", "b", false),
    ] {
        let place = admission.acquire(&call(lane, name)).await;
        assert_eq!(place.is_ok(), fits, "{lane}/{name}");
        held.extend(place);
    }
    held.remove(0);
    assert!(admission.acquire(&call("dev", "a")).await.is_ok());
    held.clear();
    assert_eq!(admission.components.places().counts(), (0, 0));
}

#[tokio::test]
async fn those_who_wait_take_turns_by_function() {
    let admission = Arc::new(Admission::new(&limits(1, 10, 60)));
    let mut held = admission.acquire(&call("dev", "flood")).await.expect("a free place");
    let mut waiting = Vec::new();
    for name in ["flood", "flood", "flood", "other", "third", "other"] {
        waiting.push((name, waiter(&admission, name).await));
    }
    let mut served = Vec::new();
    while !waiting.is_empty() {
        drop(held);
        let next = loop {
            match waiting.iter().position(|(_, task)| task.is_finished()) {
                Some(next) => break next,
                None => tokio::task::yield_now().await,
            }
        };
        let (name, task) = waiting.remove(next);
        held = task.await.expect("it ends").expect("its place");
        served.push(name);
    }
    assert_eq!(served, ["flood", "other", "third", "flood", "other", "flood"]);
}

#[tokio::test]
async fn where_queues_are_full_the_longest_gives_way() {
    let admission = Arc::new(Admission::new(&limits(1, 3, 60)));
    let held = admission.acquire(&call("dev", "flood")).await.expect("a free place");
    let mut flood = Vec::new();
    for _ in 0..3 {
        flood.push(waiter(&admission, "flood").await);
    }
    assert!(admission.acquire(&call("dev", "flood")).await.is_err(), "a flood makes no room for itself");
    let other = waiter(&admission, "other").await;
    assert!(flood.pop().expect("the newest").await.expect("it ends").is_err());
    assert_eq!(admission.components.places().counts(), (1, 3));
    // Two and one: nobody is pushed out for a queue that would then be the longest.
    let another = waiter(&admission, "other").await;
    assert!(another.await.expect("it ends").is_err());

    // One who gives up leaves no trace.
    flood.pop().expect("a waiter").abort();
    drop(held);
    let first = flood.pop().expect("a waiter").await.expect("it ends").expect("its place");
    drop(first);
    drop(other.await.expect("it ends").expect("its place"));
    while admission.components.places().counts() != (0, 0) {
        tokio::task::yield_now().await;
    }
}
