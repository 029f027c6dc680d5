//! Guests that would take everything.

use super::*;

#[path = "../../benches/common/large.rs"]
mod large;

/// How much later than its deadline a call may end.
const LATE: Duration = Duration::from_millis(50);
/// What the slowest of a hundred neighbours may take more than twice its quiet figure.
const MORE: Duration = Duration::from_millis(20);
/// How long a menace that has ended stays away.
const PAUSE: Duration = Duration::from_millis(100);
/// How often that is looked at again: the machine may have been at something else.
const TRIES: usize = 4;
/// How much more memory the server may hold after all of it.
const GROWTH: u64 = 48 << 20;

const LIMITS: &str = "
[limits]
memory_bytes = 67108864
result_bytes = 1000000
output_bytes = 65536
";

/// A guest that would take everything.
struct Menace {
    name: &'static str,
    payload: Value,
    /// How many of it at once.
    calls: usize,
    /// When it is ended, in milliseconds.
    deadline: u64,
    /// How it ends.
    code: &'static str,
}

fn menace(name: &'static str, payload: Value, calls: usize, deadline: u64, code: &'static str) -> Menace {
    Menace { name, payload, calls, deadline, code }
}

fn menaces() -> Vec<Menace> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    const LONG: u64 = 20_000;
    vec![
        menace("loop-forever", Value::Null, cores, 1500, "deadline_exceeded"),
        menace("loop-forever", Value::Null, 10 * cores, 1500, "deadline_exceeded"),
        menace("flood-output", Value::Null, cores, 1500, "deadline_exceeded"),
        menace("eat-memory", Value::Null, 8, LONG, "memory_exceeded"),
        menace("deep-recursion", Value::Null, 8, LONG, "function_trapped"),
        menace("huge-table", Value::Null, 8, LONG, "function_trapped"),
        menace("hoard-handles", Value::Null, 8, LONG, "function_trapped"),
        menace("big-result", json!(2_000_000), 8, LONG, "function_failed"),
        menace("big-result", json!(1_000_000_000), 8, LONG, "memory_exceeded"),
        menace("big-error", json!(2_000_000), 8, LONG, "function_failed"),
    ]
}

/// Grows a table without end, and traps when it is refused.
const HUGE_TABLE: &str = r#"(component
    (core module $m
        (table 10 funcref)
        (memory (export "memory") 1)
        (func (export "realloc") (param i32 i32 i32 i32) (result i32) (i32.const 1024))
        (func (export "run") (param i32 i32) (result i32)
            (loop $more
                (br_if $more (i32.ne (table.grow (ref.null func) (i32.const 10000)) (i32.const -1))))
            (unreachable)))
    (core instance $i (instantiate $m))
    (alias core export $i "memory" (core memory $memory))
    (alias core export $i "realloc" (core func $realloc))
    (alias core export $i "run" (core func $run))
    (func (export "execute") (param "payload" string) (result (result string (error string)))
        (canon lift (core func $run) (memory $memory) (realloc $realloc))))"#;

/// Makes all calls of a menace at once; how much later than its deadline the last of those ended that had to.
async fn attack(server: &Arc<Server>, menace: &Menace) -> Duration {
    let mut calls = JoinSet::new();
    for _ in 0..menace.calls {
        let fields = json!({
            "functionName": menace.name, "lane": "dev", "payload": menace.payload, "deadlineMs": menace.deadline,
        });
        let (server, code) = (server.clone(), menace.code);
        let deadline = Duration::from_millis(menace.deadline);
        calls.spawn(async move {
            let (_, body) = server.run_with(fields).await;
            assert_eq!(body["code"], code, "{body}");
            let call = server.ended(body["invocationId"].as_str().expect("an id")).await;
            let elapsed = Duration::from_secs_f64(call["elapsedMs"].as_f64().expect("a time") / 1000.0);
            if code == "deadline_exceeded" {
                assert!(elapsed >= deadline, "{call}");
            }
            elapsed.saturating_sub(deadline)
        });
    }
    calls.join_all().await.into_iter().max().expect("some calls")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_a_guest_does_its_neighbours_hardly_notice() {
    let server = warm(LIMITS).await;
    for name in
        ["loop-forever", "flood-output", "eat-memory", "deep-recursion", "hoard-handles", "big-result", "big-error"]
    {
        server.push(&format!("{name}.wasm")).await;
    }
    let (status, body) = push_text(&server, "huge-table", HUGE_TABLE).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let menaces = menaces();
    // Each is loaded before anything is measured.
    for menace in &menaces {
        attack(&server, &Menace { calls: 1, payload: menace.payload.clone(), ..*menace }).await;
    }
    let resident = server.resident();
    let mut unharmed = 0;
    for menace in &menaces {
        let mut seen = Vec::new();
        for _ in 0..TRIES {
            let quiet = Neighbours::during(&server, Duration::from_millis(800)).await.quantile(990);
            let stream = Neighbours::begin(&server);
            let begun = Instant::now();
            let mut late = Duration::ZERO;
            while begun.elapsed() < Duration::from_millis(800) {
                late = late.max(attack(&server, menace).await);
                // What ends at once comes again and again, but does not fill the machine by its number.
                tokio::time::sleep(PAUSE).await;
            }
            let beside = stream.end().await.quantile(990);
            seen.push(format!("p99 {beside:.1?} beside it, {quiet:.1?} without; {late:.1?} late"));
            if beside <= quiet * 2 + MORE && late <= LATE {
                unharmed += 1;
                break;
            }
        }
        println!("{} × {} {}: {}", menace.calls, menace.name, menace.payload, seen.join(" · "));
    }
    assert_eq!(unharmed, menaces.len(), "neighbours suffered, or an end was late");
    let grown = server.resident().saturating_sub(resident);
    println!("resident: {} MiB before, {} KiB more after", resident >> 20, grown >> 10);
    assert!(grown < GROWTH, "{grown} bytes more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_large_component_is_compiled_others_are_answered() {
    let server = warm("").await;
    let mut seen = Vec::new();
    for _ in 0..TRIES {
        let quiet = Neighbours::during(&server, Duration::from_secs(1)).await.quantile(990);
        let seed = seen.len();
        let text = tokio::task::spawn_blocking(move || large::component(6 << 20, seed)).await.expect("it is written");
        let stream = Neighbours::begin(&server);
        let (status, body) = push_text(&server, "heavy", &text).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        let beside = stream.end().await.quantile(990);
        seen.push(format!("p99 {beside:.1?} while it was compiled, {quiet:.1?} without"));
        if beside <= quiet * 2 + MORE {
            println!("{}", seen.join(" · "));
            return;
        }
    }
    panic!("{}", seen.join(" · "));
}
