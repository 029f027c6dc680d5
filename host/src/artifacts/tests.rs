use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use async_trait::async_trait;
use chrono::Utc;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    function::{
        FunctionName, InvocationId, Lane, Location, Manifest, PushId, Version,
        package::raw::{RawEntry, packed, stored, zip},
    },
    runtime::{Call, console::Console, wasm::Sizes},
    store::{Commit, FunctionStore, StoreError, dir::DirStore},
};

pub(crate) mod children;
mod folders;
mod pushes;
mod room;

/// A store that counts what is fetched, and can be away or slow.
pub(crate) struct TestStore {
    pub(crate) store: DirStore,
    pub(crate) fetches: AtomicUsize,
    pub(crate) away: AtomicBool,
    /// A fetch takes one of these.
    pub(crate) gate: tokio::sync::Semaphore,
    pub(crate) commits: AtomicUsize,
    /// A commit takes one of these.
    pub(crate) commit_gate: tokio::sync::Semaphore,
    /// How many commits fail before they do anything, and how many after they did it.
    pub(crate) refused_commits: AtomicUsize,
    pub(crate) lost_commits: AtomicUsize,
}

/// Takes one, where there is one.
fn take(count: &AtomicUsize) -> Result<(), StoreError> {
    match count.try_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)) {
        Ok(_) => Err(StoreError::Unavailable("the answer got lost".into())),
        Err(_) => Ok(()),
    }
}

impl TestStore {
    fn check(&self) -> Result<(), StoreError> {
        if self.away.load(Ordering::SeqCst) { Err(StoreError::Unavailable("it is away".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl FunctionStore for TestStore {
    async fn stage(&self, push: PushId, package: &Path, manifest: &[u8]) -> Result<(), StoreError> {
        self.check()?;
        self.store.stage(push, package, manifest).await
    }

    async fn commit(&self, push: PushId, at: &Location) -> Result<Commit, StoreError> {
        self.commits.fetch_add(1, Ordering::SeqCst);
        self.commit_gate.acquire().await.expect("never closed").forget();
        self.check()?;
        take(&self.refused_commits)?;
        let commit = self.store.commit(push, at).await?;
        take(&self.lost_commits)?;
        Ok(commit)
    }

    async fn discard(&self, push: PushId) -> Result<(), StoreError> {
        self.check()?;
        self.store.discard(push).await
    }

    async fn manifest(&self, at: &Location) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.manifest(at).await
    }

    async fn fetch(&self, at: &Location, size: u64, to: &Path) -> Result<(), StoreError> {
        self.fetches.fetch_add(1, Ordering::SeqCst);
        self.gate.acquire().await.expect("never closed").forget();
        self.check()?;
        self.store.fetch(at, size, to).await
    }

    async fn lanes(&self) -> Result<Vec<Lane>, StoreError> {
        self.store.lanes().await
    }

    async fn versions(&self, lane: &Lane) -> Result<Vec<Version>, StoreError> {
        self.store.versions(lane).await
    }

    async fn functions(&self, lane: &Lane, version: Version) -> Result<Vec<FunctionName>, StoreError> {
        self.store.functions(lane, version).await
    }

    async fn probe(&self) -> Result<(), StoreError> {
        self.store.probe().await
    }

    async fn sweep(&self, grace: Duration) -> Result<usize, StoreError> {
        self.store.sweep(grace).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.check()
    }
}

/// A server's local function folder, a store, and a compiler that is this test's own binary.
pub(crate) struct Bench {
    pub(crate) root: TempDir,
    pub(crate) store: Arc<TestStore>,
    pub(crate) config: ArtifactsConfig,
    pub(crate) limits: Limits,
    pub(crate) wasm: Arc<wasm::Engine>,
    pub(crate) compiler: Compiler,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let config = ArtifactsConfig { dir: root.path().join("artifacts"), ..ArtifactsConfig::default() };
        let store = TestStore {
            store: DirStore::new(&root.path().join("store")),
            fetches: AtomicUsize::new(0),
            away: AtomicBool::new(false),
            gate: tokio::sync::Semaphore::new(1000),
            commits: AtomicUsize::new(0),
            commit_gate: tokio::sync::Semaphore::new(1000),
            refused_commits: AtomicUsize::new(0),
            lost_commits: AtomicUsize::new(0),
        };
        let wasm = wasm::Engine::new(Sizes { concurrency: 4, memory_bytes: 16 << 20 }).expect("an engine");
        let compiler = Compiler::with_program(&config, children::this_binary(root.path()));
        Self { store: Arc::new(store), config, limits: Limits::default(), wasm: Arc::new(wasm), compiler, root }
    }

    pub(crate) fn try_open(&self) -> Result<Artifacts, ArtifactError> {
        let (store, wasm) = (self.store.clone(), self.wasm.clone());
        Artifacts::open_with(&self.config, &self.limits, store, wasm, self.compiler.clone())
    }

    pub(crate) fn open(&self) -> Artifacts {
        self.try_open().expect("it opens")
    }

    pub(crate) fn fetches(&self) -> usize {
        self.store.fetches.load(Ordering::SeqCst)
    }

    pub(crate) fn compilations(&self) -> usize {
        fs::read_to_string(self.root.path().join("compilations")).unwrap_or_default().lines().count()
    }

    /// What is in a folder of the local function folder.
    pub(crate) fn list(&self, folder: &str) -> Vec<PathBuf> {
        fs::read_dir(self.config.dir.join(folder))
            .expect("a folder")
            .map(|item| item.expect("an item").path())
            .collect()
    }

    /// That nothing of a refused push is left.
    pub(crate) fn assert_empty(&self) {
        for folder in ["packages", "code", "tmp"] {
            assert_eq!(self.list(folder), Vec::<PathBuf>::new());
        }
    }

    /// A zip of these files in a file of its own.
    pub(crate) fn zip(&self, entries: &[RawEntry]) -> (PathBuf, Digest, u64) {
        let bytes = zip(entries);
        let digest = Digest::of(&bytes);
        let path = self.root.path().join(format!("{digest}.zip"));
        fs::write(&path, &bytes).expect("it is written");
        (path, digest, bytes.len() as u64)
    }

    /// Publishes a zip as version 1.0 of a function.
    pub(crate) async fn publish(
        &self,
        name: &str,
        kind: FunctionType,
        entry: &str,
        entries: &[RawEntry],
    ) -> FunctionRef {
        let (path, sha256, size) = self.zip(entries);
        let manifest = Manifest {
            push_id: PushId::generate(),
            name: FunctionName::parse(name).expect("a name"),
            lane: Lane::parse("dev").expect("a lane"),
            kind,
            entry: EntryName::parse(entry).expect("an entry"),
            shape: None,
            asks: None,
            sha256,
            size,
            pushed_at: Utc::now(),
            pushed_by: None,
            sharpfaas_version: "0".into(),
        };
        let function = FunctionRef::from_manifest(manifest.clone(), Version::FIRST);
        let text = serde_json::to_vec(&manifest).expect("JSON");
        self.store.store.stage(manifest.push_id, &path, &text).await.expect("staged");
        let commit = self.store.store.commit(manifest.push_id, &function.location).await.expect("committed");
        assert_eq!(commit, Commit::Done);
        function
    }

    pub(crate) async fn run(&self, artifact: &Artifact, payload: &str) -> String {
        let Program::Wasm(component) = &artifact.program else { panic!("it is no component") };
        let call = Call {
            usage: Arc::default(),
            exchange: None,
            id: InvocationId::generate(),
            caller_id: None,
            name: FunctionName::parse("f").expect("a name"),
            lane: Lane::parse("dev").expect("a lane"),
            version: Version::FIRST,
            payload: payload.into(),
            confidential: false,
            parameters: Vec::new(),
            deadline: Instant::now() + Duration::from_secs(30),
            cancel: CancellationToken::new(),
            memory_bytes: 1 << 20,
            result_bytes: 1 << 20,
            console: Arc::new(Console::new(1000)),
        };
        self.wasm.execute(component, &Arc::new(call)).await.expect("it runs").expect("it succeeds")
    }
}

/// A component whose `execute` gives its payload back; the number makes it another one.
pub(crate) fn echo(number: usize) -> Vec<u8> {
    let text = format!(
        r#"(component
            (core module $m
                (memory (export "memory") 1)
                (global $next (mut i32) (i32.const 1024))
                (func (export "number") (result i32) (i32.const {number}))
                (func (export "realloc") (param i32 i32 i32 i32) (result i32)
                    (local $at i32)
                    (local.set $at (global.get $next))
                    (global.set $next (i32.add (global.get $next) (local.get 3)))
                    (local.get $at))
                (func (export "run") (param $p i32) (param $n i32) (result i32)
                    (i32.store (i32.const 100) (i32.const 0))
                    (i32.store (i32.const 104) (local.get $p))
                    (i32.store (i32.const 108) (local.get $n))
                    (i32.const 100)))
            (core instance $i (instantiate $m))
            (alias core export $i "memory" (core memory $memory))
            (alias core export $i "realloc" (core func $realloc))
            (alias core export $i "run" (core func $run))
            (func (export "execute") (param "payload" string) (result (result string (error string)))
                (canon lift (core func $run) (memory $memory) (realloc $realloc))))"#
    );
    wat::parse_str(text).expect("the test's text is right")
}

const SCRIPT: &[u8] = b"#!/bin/sh\n";

#[tokio::test(flavor = "multi_thread")]
async fn a_component_is_fetched_and_compiled_once_and_runs() {
    let bench = Bench::new();
    let function = bench.publish("f", FunctionType::Dll, "f.wasm", &[packed("f.wasm", &echo(1))]).await;
    let artifacts = bench.open();
    let artifact = artifacts.get(&function, None).await.expect("it is prepared");
    assert_eq!(bench.run(&artifact, "hello").await, "hello");
    let again = artifacts.get(&function, Some(&function.entry)).await.expect("it is there");
    assert!(Arc::ptr_eq(&artifact, &again));
    assert_eq!((bench.fetches(), bench.compilations()), (1, 1));
    drop((artifact, again, artifacts));

    // The next server on the folder, with the store away.
    bench.store.away.store(true, Ordering::SeqCst);
    let artifact = bench.open().get(&function, None).await.expect("it is in the folder");
    assert_eq!(bench.run(&artifact, "again").await, "again");
    assert_eq!((bench.fetches(), bench.compilations()), (1, 1));
    assert_eq!(bench.list("tmp").len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn however_many_ask_and_go_away_it_is_made_once() {
    let mut bench = Bench::new();
    Arc::get_mut(&mut bench.store).expect("ours alone").gate = tokio::sync::Semaphore::new(0);
    let entries = [packed("f.wasm", &echo(1)), packed("g.wasm", &echo(2))];
    let function = bench.publish("f", FunctionType::Dll, "f.wasm", &entries).await;
    let other = EntryName::parse("g.wasm").expect("an entry");
    let artifacts = bench.open();

    let ask = |entry: Option<EntryName>| {
        let (artifacts, function) = (artifacts.clone(), function.clone());
        tokio::spawn(async move { artifacts.get(&function, entry.as_ref()).await })
    };
    let first = ask(None);
    while bench.fetches() == 0 {
        tokio::task::yield_now().await;
    }
    let waiting: Vec<_> = (0..50).map(|at| ask((at % 2 == 0).then(|| other.clone()))).collect();
    // The one whose call began it hangs up.
    first.abort();
    assert!(first.await.expect_err("it was aborted").is_cancelled());
    bench.store.gate.add_permits(1);
    for waiter in waiting {
        let artifact = waiter.await.expect("no panic").expect("it is prepared");
        assert_eq!(bench.run(&artifact, "x").await, "x");
    }
    assert_eq!((bench.fetches(), bench.compilations()), (1, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_is_tried_again() {
    let bench = Bench::new();
    let function = bench.publish("f", FunctionType::Exe, "main", &[stored("main", SCRIPT)]).await;
    let artifacts = bench.open();
    bench.store.away.store(true, Ordering::SeqCst);
    for _ in 0..2 {
        let error = artifacts.get(&function, None).await.expect_err("the store is away");
        assert!(matches!(&error, ArtifactError::Store(error) if matches!(**error, StoreError::Unavailable(_))));
    }
    bench.assert_empty();
    bench.store.away.store(false, Ordering::SeqCst);
    artifacts.get(&function, None).await.expect("the store is back");
    assert_eq!(bench.fetches(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_package_that_is_not_what_was_pushed_is_refused() {
    let bench = Bench::new();
    let mut function = bench.publish("f", FunctionType::Exe, "main", &[stored("main", SCRIPT)]).await;
    let artifacts = bench.open();
    function.sha256 = Digest::of(b"another");
    let error = artifacts.get(&function, None).await.expect_err("its digest is another");
    assert!(matches!(&error, ArtifactError::Store(error) if matches!(**error, StoreError::Damaged(_))), "{error}");
    bench.assert_empty();

    // What another server's limits let in.
    let function = bench.publish("g", FunctionType::Exe, "main", &[stored("main", &[b'#', b'!'].repeat(1000))]).await;
    drop(artifacts);
    for limits in
        [Limits { package_bytes: 1024, ..Limits::default() }, Limits { entry_bytes: 1024, ..Limits::default() }]
    {
        let bench = Bench { limits, ..bench_like(&bench) };
        let error = bench.open().get(&function, None).await.expect_err("it is too large");
        assert!(matches!(&error, ArtifactError::Package(error) if error.is_too_large()), "{error}");
        bench.assert_empty();
    }
}

/// Another server on the same store.
pub(crate) fn bench_like(bench: &Bench) -> Bench {
    let store = bench.store.clone();
    Bench { store, ..Bench::new() }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_may_pick_another_entry() {
    let bench = Bench::new();
    let entries = [stored("main", SCRIPT), stored("bin/other", b"#!/bin/other\n"), stored("data", b"data")];
    let function = bench.publish("f", FunctionType::Exe, "main", &entries).await;
    let artifacts = bench.open();
    let entry = |name: &str| EntryName::parse(name).expect("an entry");
    let artifact = artifacts.get(&function, Some(&entry("bin/other"))).await.expect("it is there");
    assert!(matches!(artifact.program, Program::Native(_)));
    for (name, expected) in [("data", "a text file"), ("missing", "bin/other, data, main"), ("bin", "holds no file")] {
        let error = artifacts.get(&function, Some(&entry(name))).await.expect_err("it cannot run").to_string();
        assert!(error.contains(expected), "{error}");
    }
    assert_eq!(bench.fetches(), 1);
}
