//! What a push prepares, and what stays of it.

use super::*;

fn entry(name: &str) -> EntryName {
    EntryName::parse(name).expect("an entry")
}

fn never() -> CancellationToken {
    CancellationToken::new()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_is_given_up_ends_its_compiler_and_leaves_nothing() {
    let bench = Bench::new();
    let slow = children::script(bench.root.path(), "slow", "exec /bin/sleep 1000");
    let compiler = Compiler::with_program(&bench.config, slow);
    let bench = Bench { compiler, ..bench };
    let artifacts = bench.open();
    let (zip, sha256, _) = bench.zip(&[packed("f.wasm", &echo(1))]);
    let cancel = never();
    let task = tokio::spawn({
        let (artifacts, cancel) = (artifacts.clone(), cancel.clone());
        async move { artifacts.prepare(&zip, sha256, FunctionType::Dll, &entry("f.wasm"), &cancel).await.map(drop) }
    });
    while bench.list("packages").is_empty() {
        tokio::task::yield_now().await;
    }
    cancel.cancel();
    assert!(matches!(task.await.expect("no panic"), Err(ArtifactError::Aborted(_))));
    bench.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_push_that_is_published_is_loaded_already() {
    let bench = Bench::new();
    let artifacts = bench.open();
    let entries = [packed("f.wasm", &echo(1))];
    let (zip, sha256, _) = bench.zip(&entries);
    let prepared =
        artifacts.prepare(&zip, sha256, FunctionType::Dll, &entry("f.wasm"), &never()).await.expect("it is sound");
    let artifact = prepared.artifact().clone();
    let function = bench.publish("f", FunctionType::Dll, "f.wasm", &entries).await;
    prepared.keep().await;
    assert!(Arc::ptr_eq(&artifact, &artifacts.get(&function, None).await.expect("it is there")));
    drop((artifact, artifacts));
    bench.open().get(&function, None).await.expect("it is there");
    assert_eq!((bench.fetches(), bench.compilations()), (0, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_stays_of_a_push_that_is_refused() {
    let bench = Bench::new();
    let artifacts = bench.open();
    let wrong = wat::parse_str("(component)").expect("the test's text is right");
    let (zip, sha256, _) = bench.zip(&[packed("f.wasm", &wrong), stored("d/data", b"data")]);
    let error =
        artifacts.prepare(&zip, sha256, FunctionType::Dll, &entry("f.wasm"), &never()).await.expect_err("refused");
    assert!(matches!(&error, ArtifactError::Component(text) if text.contains("execute")), "{error}");
    bench.assert_empty();

    let damaged = packed("d/data", b"data").with(|entry| entry.crc = 0);
    let (zip, sha256, _) = bench.zip(&[packed("f.wasm", &echo(1)), damaged]);
    let error =
        artifacts.prepare(&zip, sha256, FunctionType::Dll, &entry("f.wasm"), &never()).await.expect_err("refused");
    assert!(matches!(&error, ArtifactError::Package(_)), "{error}");
    bench.assert_empty();

    let (zip, sha256, _) = bench.zip(&[packed("f.wasm", &echo(1))]);
    let (name, never) = (entry("f.wasm"), never());
    let prepare = || artifacts.prepare(&zip, sha256, FunctionType::Dll, &name, &never);
    let one = prepare().await.expect("it is sound");
    assert_eq!((bench.list("packages").len(), bench.list("code").len()), (1, 2));
    one.discard().await;
    bench.assert_empty();
    drop(prepare().await.expect("it is sound"));
    bench.assert_empty();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_push_takes_nothing_from_others_with_the_same_bytes() {
    let bench = Bench::new();
    let artifacts = bench.open();
    let entries = [packed("f.wasm", &echo(1))];
    let (zip, sha256, _) = bench.zip(&entries);
    let (name, never) = (entry("f.wasm"), never());
    let prepare = || artifacts.prepare(&zip, sha256, FunctionType::Dll, &name, &never);

    // Whichever of two pushes is refused, and in whatever order.
    let (one, two) = (prepare().await.expect("it is sound"), prepare().await.expect("it is sound"));
    one.discard().await;
    assert_eq!(bench.run(two.artifact(), "x").await, "x");
    two.discard().await;
    bench.assert_empty();
    let (one, two) = (prepare().await.expect("it is sound"), prepare().await.expect("it is sound"));
    two.keep().await;
    one.discard().await;
    assert_eq!((bench.list("packages").len(), bench.list("code").len()), (1, 2));
    // What was there before stays.
    prepare().await.expect("it is sound").discard().await;
    assert_eq!((bench.list("packages").len(), bench.list("code").len()), (1, 2));
    // The same component in another package: the code is shared, the package is not.
    let (other, other_sha256, _) = bench.zip(&[packed("f.wasm", &echo(1)), stored("more", b"")]);
    let other =
        artifacts.prepare(&other, other_sha256, FunctionType::Dll, &entry("f.wasm"), &never).await.expect("sound");
    assert_eq!(bench.list("packages").len(), 2);
    other.discard().await;
    assert_eq!((bench.list("packages").len(), bench.list("code").len()), (1, 2));
    assert_eq!(bench.compilations(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_of_the_same_package_keeps_what_a_refused_push_made() {
    let bench = Bench::new();
    let artifacts = bench.open();
    let entries = [stored("main", SCRIPT)];
    let (zip, sha256, _) = bench.zip(&entries);
    let prepared =
        artifacts.prepare(&zip, sha256, FunctionType::Exe, &entry("main"), &never()).await.expect("it is sound");
    let function = bench.publish("f", FunctionType::Exe, "main", &entries).await;
    let held = artifacts.get(&function, None).await.expect("it is there");
    prepared.discard().await;
    drop((held, artifacts));
    bench.open().get(&function, None).await.expect("it is there");
    assert_eq!(bench.fetches(), 0);
}
