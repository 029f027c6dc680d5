//! How much the folder holds, and what goes.

use super::*;

/// A program's package of about a MiB.
async fn publish(bench: &Bench, name: &str) -> FunctionRef {
    let data: Vec<u8> = (0..1 << 20).map(|at: u32| (at.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    bench.publish(name, FunctionType::Exe, "main", &[stored("main", SCRIPT), stored(name, &data)]).await
}

fn has(bench: &Bench, function: &FunctionRef) -> bool {
    bench.config.dir.join("packages").join(function.sha256.to_string()).exists()
}

/// Room for three of them.
fn small() -> Bench {
    let mut bench = Bench::new();
    bench.config.max_bytes = 7 << 19;
    bench
}

#[tokio::test(flavor = "multi_thread")]
async fn the_longest_unused_go_but_never_what_is_held() {
    let bench = small();
    let artifacts = bench.open();
    let mut functions = Vec::new();
    for name in ["a", "b", "c", "d", "e"] {
        functions.push(publish(&bench, name).await);
    }
    let [a, b, c, d, e] = functions.as_slice() else { panic!("five of them") };
    let held = artifacts.get(a, None).await.expect("it is prepared");
    for function in [b, c] {
        artifacts.get(function, None).await.expect("it is prepared");
    }
    assert!(has(&bench, a) && has(&bench, b) && has(&bench, c));
    // Times of use are told apart by the millisecond.
    let before = std::time::SystemTime::now();
    while before.elapsed().is_ok_and(|elapsed| elapsed < Duration::from_millis(2)) {
        tokio::task::yield_now().await;
    }
    artifacts.get(b, None).await.expect("it is there");
    artifacts.get(d, None).await.expect("it is prepared");
    assert!(has(&bench, a), "it is held");
    assert!(has(&bench, b), "it was used after c");
    assert!(!has(&bench, c), "it was not used for longest");
    assert_eq!(bench.fetches(), 4);

    drop(held);
    artifacts.get(e, None).await.expect("it is prepared");
    assert!(!has(&bench, a), "nobody holds it any more");
    artifacts.get(b, None).await.expect("it is there");
    assert_eq!(bench.fetches(), 5);
    artifacts.get(c, None).await.expect("it is fetched again");
    assert_eq!((bench.fetches(), bench.list("packages").len(), bench.list("tmp").len()), (6, 3, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_order_outlives_the_server() {
    let bench = small();
    let (a, b) = (publish(&bench, "a").await, publish(&bench, "b").await);
    let (c, d) = (publish(&bench, "c").await, publish(&bench, "d").await);
    for function in [&a, &b, &c] {
        bench.open().get(function, None).await.expect("it is prepared");
    }
    let old = std::time::SystemTime::now() - Duration::from_secs(1000);
    let place = bench.config.dir.join("packages").join(b.sha256.to_string());
    fs::File::open(place).expect("it is there").set_modified(old).expect("it is set");
    bench.open().get(&d, None).await.expect("it is prepared");
    assert!(has(&bench, &a) && !has(&bench, &b) && has(&bench, &c) && has(&bench, &d));
}

#[tokio::test(flavor = "multi_thread")]
async fn machine_code_goes_too_and_is_made_again() {
    let mut bench = Bench::new();
    let function = bench.publish("f", FunctionType::Dll, "f.wasm", &[packed("f.wasm", &echo(1))]).await;
    let artifacts = bench.open();
    artifacts.get(&function, None).await.expect("it is prepared");
    drop(artifacts);
    // What an engine of another version left counts for nothing.
    let stale = bench.config.dir.join("code").join(format!("{}-0000.cwasm", Digest::of(b"x")));
    fs::write(&stale, b"x").expect("it is written");
    bench.config.max_bytes = 1 << 20;
    let artifacts = bench.open();
    let other = publish(&bench, "a").await;
    artifacts.get(&other, None).await.expect("it is prepared");
    assert!(!stale.exists() && !has(&bench, &function));
    assert_eq!(bench.list("code").len(), 0);
    let artifact = artifacts.get(&function, None).await.expect("it is prepared");
    assert_eq!(bench.run(&artifact, "x").await, "x");
    assert_eq!(bench.compilations(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn memory_holds_no_more_than_it_may() {
    let mut bench = Bench::new();
    bench.config.loaded = 2;
    let artifacts = bench.open();
    for name in ["a", "b", "c", "d"] {
        let function = publish(&bench, name).await;
        artifacts.get(&function, None).await.expect("it is prepared");
    }
    artifacts.inner.memory.run_pending_tasks().await;
    assert_eq!(artifacts.inner.memory.entry_count(), 2);
    assert_eq!(bench.list("packages").len(), 4);
}
