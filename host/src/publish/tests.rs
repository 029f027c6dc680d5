use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    artifacts::{
        Compiler,
        tests::{Bench, bench_like, children, echo},
    },
    catalog::Settings,
    config::DatabaseConfig,
    database::Database,
    function::{
        Selector, Version,
        package::raw::{RawEntry, packed, stored},
    },
};

/// A server with all that publishing needs.
struct Server {
    bench: Bench,
    artifacts: Artifacts,
    catalog: Arc<Catalog>,
    database: Database,
    publisher: Arc<Publisher>,
}

impl Server {
    async fn start(bench: Bench) -> Self {
        let url = format!("sqlite:{}", bench.root.path().join("x.db").display());
        let config = DatabaseConfig { url, timeout_seconds: 1, ..DatabaseConfig::default() };
        let database = Database::connect(&config, None).await.expect("a database");
        let settings =
            Settings { fresh: Duration::ZERO, missing: Duration::ZERO, refresh: None, ..Settings::default() };
        let catalog = Arc::new(Catalog::new(database.clone(), bench.store.clone(), settings));
        let artifacts = bench.open();
        let (store, limits) = (bench.store.clone(), bench.limits.clone());
        let publisher = Publisher {
            patience: Duration::from_millis(500),
            undo_wait: Duration::from_millis(5),
            ..Publisher::new(catalog.clone(), store, artifacts.clone(), limits)
        };
        Self { bench, artifacts, catalog, database, publisher: Arc::new(publisher) }
    }

    /// A push of these files as the function `f` in the lane `dev`.
    fn push(&self, kind: FunctionType, entries: &[RawEntry]) -> Push {
        let (path, sha256, size) = self.bench.zip(entries);
        let package = tempfile::NamedTempFile::new_in(self.bench.root.path()).expect("a file").into_temp_path();
        std::fs::rename(path, &package).expect("it is moved");
        Push {
            name: name("f"),
            lane: Lane::parse("dev").expect("a lane"),
            kind,
            new_version: false,
            entry: None,
            pushed_by: Some("somebody".into()),
            package,
            size,
            sha256,
            cancel: CancellationToken::new(),
        }
    }

    fn component(&self, number: usize) -> Push {
        self.push(FunctionType::Dll, &[packed("f.wasm", &echo(number))])
    }

    /// What is in the store: versions and what is staged.
    fn stored(&self) -> Vec<PathBuf> {
        let root = self.bench.root.path().join("store");
        let list = |path: PathBuf| std::fs::read_dir(path).into_iter().flatten().map(|item| item.unwrap().path());
        let staged = list(root.join(".staging"));
        let versions = list(root.join("dev")).flat_map(list);
        staged.chain(versions).collect()
    }

    /// That nothing is left of a push, anywhere.
    fn assert_clean(&self) {
        assert_eq!(self.stored(), Vec::<PathBuf>::new());
        self.bench.assert_empty();
        let left: Vec<_> = std::fs::read_dir(self.bench.root.path())
            .expect("a folder")
            .map(|item| item.expect("an item").file_name())
            .filter(|name| name.to_string_lossy().starts_with(".tmp"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn name(text: &str) -> FunctionName {
    FunctionName::parse(text).expect("a name")
}

fn version(major: u32, minor: u32) -> Version {
    Version { major, minor }
}

/// Waits until it is so; a test that waits in vain fails.
async fn until(mut is_so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !is_so() {
        assert!(started.elapsed() < Duration::from_secs(20), "it never came to be so");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_follow_one_another_and_run_at_once() {
    let server = Server::start(Bench::new()).await;
    let mut published = Vec::new();
    for (number, new_version) in [(1, true), (2, false), (3, true), (4, false)] {
        let push = Push { new_version, ..server.component(number) };
        let (package, sha256, size) = (push.package.to_path_buf(), push.sha256, push.size);
        let function = server.publisher.publish(push).await.expect("it is published");
        assert_eq!((function.sha256, function.size, function.kind), (sha256, size, FunctionType::Dll));
        assert_eq!((function.entry.as_str(), function.pushed_by.as_deref()), ("f.wasm", Some("somebody")));
        assert!(!package.exists());
        published.push(function.location.version);
        let artifact = server.artifacts.get(&function, None).await.expect("it is loaded");
        assert_eq!(server.bench.run(&artifact, "x").await, "x");
        let newest = server.catalog.resolve(&name("f"), &function.location.lane, Selector::Latest).await;
        assert_eq!(newest.expect("it is there").location, function.location);
        let manifest =
            server.bench.store.manifest(&function.location).await.expect("it is there").expect("it is there");
        let manifest: Manifest = serde_json::from_slice(&manifest).expect("JSON");
        assert_eq!((manifest.push_id, manifest.sha256), (function.push_id, sha256));
    }
    assert_eq!(published, [version(1, 0), version(1, 1), version(2, 0), version(2, 1)]);
    assert_eq!((server.bench.fetches(), server.bench.compilations()), (0, 4));
    // And nothing is left staged.
    assert_eq!(server.stored().len(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn racing_servers_get_distinct_consecutive_versions_with_their_own_bytes() {
    let one = Server::start(Bench::new()).await;
    let two = Server::start(bench_like(&one.bench)).await;
    let pushes: Vec<_> = (0..24_usize)
        .map(|at| {
            let server = if at % 2 == 0 { &one } else { &two };
            let script = format!("#!/bin/sh\necho {at}\n");
            let push = server.push(FunctionType::Exe, &[stored("main", script.as_bytes())]);
            let publisher = server.publisher.clone();
            tokio::spawn(async move { (push.sha256, publisher.publish(push).await) })
        })
        .collect();
    let mut found = BTreeSet::new();
    for push in pushes {
        let (sha256, published) = push.await.expect("no panic");
        let function = published.expect("it is published");
        assert_eq!(function.sha256, sha256);
        for server in [&one, &two] {
            let selector = Selector::Exact(function.location.version);
            let seen =
                server.catalog.resolve(&name("f"), &function.location.lane, selector).await.expect("it is there");
            assert_eq!((seen.sha256, seen.push_id), (sha256, function.push_id));
            server.artifacts.get(&seen, None).await.expect("its bytes are those of its push");
        }
        found.insert(function.location.version);
    }
    assert_eq!(found, (0..24).map(|minor| version(1, minor)).collect());
    assert_eq!(one.stored().len(), 24, "nothing is left staged");
}

/// Why the package was refused.
fn package(error: &PublishError) -> &PackageError {
    match error {
        PublishError::Artifact(ArtifactError::Package(error)) => error,
        other => panic!("not the package's fault: {other}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_remains_of_what_is_refused() {
    let server = Server::start(Bench::new()).await;
    let refused = async |push: Push| {
        let error = server.publisher.publish(push).await.expect_err("it is refused");
        server.assert_clean();
        error
    };
    let hostile = server.push(FunctionType::Exe, &[stored("../main", b"#!/bin/sh\n")]);
    let error = refused(hostile).await;
    assert!(matches!(package(&error), PackageError::Entry { .. }), "{error}");
    let unclear = server.push(FunctionType::Exe, &[stored("a", b"#!a\n"), stored("b", b"#!b\n")]);
    let error = refused(unclear).await;
    assert!(matches!(package(&error), PackageError::EntryUnclear { .. }), "{error}");
    let entry = EntryName::parse("c").ok();
    let missing = Push { entry, ..server.push(FunctionType::Exe, &[stored("a", b"#!a\n")]) };
    let error = refused(missing).await;
    assert!(matches!(package(&error), PackageError::EntryMissing { .. }), "{error}");
    let damaged = stored("data", b"data").with(|entry| entry.crc = 0);
    let damaged = server.push(FunctionType::Exe, &[stored("main", b"#!/bin/sh\n"), damaged]);
    let error = refused(damaged).await;
    assert!(matches!(package(&error), PackageError::Entry { .. }), "{error}");
    let wrong = wat::parse_str("(component)").expect("the test's text is right");
    let wrong = server.push(FunctionType::Dll, &[packed("f.wasm", &wrong)]);
    assert!(matches!(refused(wrong).await, PublishError::Artifact(ArtifactError::Component(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_keeps_its_type_and_its_spelling() {
    let server = Server::start(Bench::new()).await;
    let script = || server.push(FunctionType::Exe, &[stored("main", b"#!/bin/sh\n")]);
    server.publisher.publish(script()).await.expect("it is published");
    let error = server.publisher.publish(server.component(1)).await.expect_err("it is a program");
    assert!(matches!(error, PublishError::Catalog(CatalogError::TypeConflict { .. })), "{error}");
    let error = server.publisher.publish(Push { name: name("F"), ..script() }).await.expect_err("it is spelt f");
    assert!(matches!(error, PublishError::Catalog(CatalogError::CaseConflict { .. })), "{error}");
    assert_eq!((server.stored().len(), server.bench.compilations()), (1, 0));
    assert_eq!((server.bench.list("packages").len(), server.bench.list("tmp").len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_store_that_is_away_refuses_and_keeps_nothing() {
    let server = Server::start(Bench::new()).await;
    // Away from the start, and from the commit on: then what is staged goes when it is back.
    server.bench.store.away.store(true, SeqCst);
    let error = server.publisher.publish(server.component(1)).await.expect_err("the store is away");
    assert!(matches!(&error, PublishError::Store(StoreError::Unavailable(_))), "{error}");
    server.assert_clean();

    server.bench.store.away.store(false, SeqCst);
    server.bench.store.commit_gate.forget_permits(1000);
    let pushed = tokio::spawn({
        let (publisher, push) = (server.publisher.clone(), server.component(2));
        async move { publisher.publish(push).await }
    });
    until(|| server.bench.store.commits.load(SeqCst) > 0).await;
    server.bench.store.away.store(true, SeqCst);
    server.bench.store.commit_gate.add_permits(1000);
    let error = pushed.await.expect("no panic").expect_err("the store is away");
    assert!(matches!(&error, PublishError::Store(StoreError::Unavailable(_))), "{error}");
    assert_eq!(server.stored().len(), 1, "it is still staged");
    server.bench.assert_empty();
    server.bench.store.away.store(false, SeqCst);
    until(|| server.stored().is_empty()).await;
    server.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_gets_lost_makes_no_second_version() {
    let server = Server::start(Bench::new()).await;
    let store = &server.bench.store;
    store.refused_commits.store(1, SeqCst);
    store.lost_commits.store(1, SeqCst);
    let function = server.publisher.publish(server.component(1)).await.expect("it is published");
    assert_eq!((function.location.version, server.stored().len()), (Version::FIRST, 1));
    let function = server.publisher.publish(server.component(2)).await.expect("it is published");
    assert_eq!((function.location.version, server.stored().len()), (version(1, 1), 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_committed_after_all_is_found() {
    let server = Server::start(Bench::new()).await;
    server.bench.store.lost_commits.store(usize::MAX, SeqCst);
    let push = server.component(1);
    let (lane, sha256) = (push.lane.clone(), push.sha256);
    let function = server.publisher.publish(push).await.expect("no answer comes, but the version is there");
    assert_eq!(function.location.version, Version::FIRST);
    let found = server.catalog.resolve(&name("f"), &lane, Selector::Latest).await.expect("it is there");
    assert_eq!((found.location.version, found.sha256), (Version::FIRST, sha256));
    server.artifacts.get(&found, None).await.expect("it runs");
    assert_eq!(server.stored().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_before_the_commit_is_undone() {
    let bench = Bench::new();
    let compiler = children::script(bench.root.path(), "slow", "exec /bin/sleep 1000");
    let compiler = Compiler::with_program(&bench.config, compiler);
    let server = Server::start(Bench { compiler, ..bench }).await;
    let hung_up = CancellationToken::new();
    let pushed = tokio::spawn({
        let push = Push { cancel: hung_up.clone(), ..server.component(1) };
        let publisher = server.publisher.clone();
        async move { publisher.publish(push).await }
    });
    until(|| !server.bench.list("packages").is_empty()).await;
    hung_up.cancel();
    assert!(matches!(pushed.await.expect("no panic"), Err(PublishError::GivenUp)));
    server.assert_clean();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_hangs_up_in_the_commit_is_published() {
    let server = Server::start(Bench::new()).await;
    server.bench.store.commit_gate.forget_permits(1000);
    let hung_up = CancellationToken::new();
    let pushed = tokio::spawn({
        let push = Push { cancel: hung_up.clone(), ..server.component(1) };
        let publisher = server.publisher.clone();
        async move { publisher.publish(push).await }
    });
    until(|| server.bench.store.commits.load(SeqCst) > 0).await;
    hung_up.cancel();
    server.bench.store.commit_gate.add_permits(1000);
    pushed.await.expect("no panic").expect("it is published");
    let lane = Lane::parse("dev").expect("a lane");
    let found = server.catalog.resolve(&name("f"), &lane, Selector::Latest).await.expect("it is there");
    assert_eq!((found.location.version, server.stored().len()), (Version::FIRST, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_is_away_holds_no_push_up() {
    let server = Server::start(Bench::new()).await;
    server.publisher.publish(server.component(1)).await.expect("it is published");
    server.database.close().await;
    let function = server.publisher.publish(server.component(2)).await.expect("it is published");
    assert_eq!(function.location.version, version(1, 1));
    let found = server.catalog.resolve(&name("f"), &function.location.lane, Selector::Latest).await.expect("there");
    assert_eq!(found.location, function.location);
}
