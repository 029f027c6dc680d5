//! More than a server can carry, and as much as it must hold.

use super::*;

/// Calls begun at a steady rate, whatever becomes of them: what an hour of rush looks like to a server.
async fn offered(server: &Arc<Server>, name: &'static str, payload: Value, calls: usize, over: Duration) -> Offered {
    let mut under_way = JoinSet::new();
    let begun = Instant::now();
    for at in 0..calls {
        let due = over.mul_f64(at as f64 / calls as f64);
        tokio::time::sleep_until((begun + due).into()).await;
        let (server, payload) = (server.clone(), payload.clone());
        under_way.spawn(async move {
            let begun = Instant::now();
            let (status, body) = server.run(name, payload).await;
            (status, body["code"].clone(), begun.elapsed())
        });
    }
    let (mut served, mut refused) = (Vec::new(), Vec::new());
    while let Some(ended) = under_way.join_next().await {
        let (status, code, took) = ended.expect("it ends");
        if status == StatusCode::OK {
            served.push(took);
        } else {
            assert_eq!((status, &code), (StatusCode::SERVICE_UNAVAILABLE, &json!("at_capacity")));
            refused.push(took);
        }
    }
    Offered { rate: served.len() as f64 / begun.elapsed().as_secs_f64(), served, refused }
}

struct Offered {
    /// Calls served, a second.
    rate: f64,
    served: Vec<Duration>,
    refused: Vec<Duration>,
}

/// Each call waits 400 ms and 10 may run: 25 a second is all that the server can carry, on any machine.
const NARROW: &str = "
[limits]
concurrency = 10
function_share_percent = 100
queue = 20
queue_seconds = 5
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_five_times_what_it_can_carry_a_server_does_as_much_and_refuses_the_rest_at_once() {
    let server = warm(NARROW).await;
    server.push("sleep.wasm").await;
    server.run("sleep", json!(1)).await;
    let seconds = Duration::from_secs(6);
    let peak = offered(&server, "sleep", json!(400), 150, seconds).await;
    let rush = offered(&server, "sleep", json!(400), 750, seconds).await;
    let (served, refused) = (Times::of(rush.served), Times::of(rush.refused));
    println!(
        "peak {:.0} calls/s; at 5 times the load {:.0}, p99 {:.0?}; {} refused, p50 {:.1?}, p99 {:.1?}",
        peak.rate,
        rush.rate,
        served.quantile(990),
        refused.0.len(),
        refused.quantile(500),
        refused.quantile(990)
    );
    assert!(rush.rate >= peak.rate * 0.9, "{} of {}", rush.rate, peak.rate);
    // Thirty before it and itself, ten at a time: 1.6 s, and the machine's part.
    assert!(served.quantile(990) < Duration::from_millis(2500), "{:?}", served.quantile(990));
    assert!(refused.quantile(500) < Duration::from_millis(50), "{:?}", refused.quantile(500));
    // And it is as good as before.
    let after = offered(&server, "sleep", json!(400), 75, seconds / 2).await;
    assert!(after.rate >= peak.rate * 0.9, "{} of {}", after.rate, peak.rate);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_function_that_takes_all_it_can_leaves_room_for_others() {
    let server = warm("[limits]\nconcurrency = 20\nqueue = 40\nqueue_seconds = 2").await;
    server.push("sleep.wasm").await;
    server.run("sleep", json!(1)).await;
    let flood = offered(&server, "sleep", json!(1000), 400, Duration::from_secs(4));
    let others = async {
        // Not before the flood has filled what it can.
        loop {
            let (_, page) = server.get("/api/invocations?function=sleep&status=queued&limit=50").await;
            if page["invocations"].as_array().is_some_and(|calls| calls.len() >= 30) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Neighbours::during(&server, Duration::from_secs(2)).await
    };
    let (flood, others) = tokio::join!(flood, others);
    println!(
        "beside a flood of {} served and {} refused: p50 {:.1?}, p99 {:.1?}",
        flood.served.len(),
        flood.refused.len(),
        others.quantile(500),
        others.quantile(990)
    );
    // Waiting behind the flood would take a second at the least.
    assert!(others.quantile(990) < Duration::from_millis(500), "{:?}", others.quantile(990));
    assert!(!flood.refused.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_waiting_calls_take_little_memory_each() {
    const CALLS: usize = 1000;
    let limits = "[limits]\nconcurrency = 1200\nfunction_share_percent = 100\noutput_bytes = 65536";
    let server = warm(limits).await;
    server.push("sleep.wasm").await;
    server.run("sleep", json!(1)).await;
    let before = server.resident();
    let mut ids = Vec::new();
    for _ in 0..CALLS {
        ids.push(server.start_call("sleep", json!(60_000)).await);
    }
    for id in &ids {
        server.call_when(id, |call| call["status"] == "running").await;
    }
    let each = server.resident().saturating_sub(before) / CALLS as u64;
    println!("a waiting call: {} KiB", each >> 10);
    assert!(each < 200 * 1024, "{each} bytes each");
    for id in &ids {
        let gone = server.client.delete(server.url(&format!("/api/invocations/{id}"))).send().await;
        assert_eq!(gone.expect("an answer").status(), StatusCode::ACCEPTED);
    }
}
