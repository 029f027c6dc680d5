//! What the steps of a call cost by themselves, without a socket: where the microseconds go.
//!
//! `make bench` runs it, and `cargo bench --profile release --bench hot -- NAME` a part of it. It holds the engine itself,
//! and so is somewhat slower than the server that ships; the steps stand to each other as there.

#![expect(clippy::expect_used, reason = "a measurement that cannot be made ends by panicking")]

use std::{
    fs::File,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::Utc;
use divan::{Bencher, counter::ItemsCount};
use sharpfaas_host::{
    catalog::{Catalog, Settings},
    config::{DatabaseConfig, Limits, StoreConfig},
    database::{Database, InvocationRow},
    function::{
        Digest, FunctionRef, FunctionType, Invocation, InvocationId, Location, OutputLine, PushId, Selector, Shape,
        Status, Stream, Version,
    },
    invoke::Admission,
    runtime::{
        Call,
        console::Console,
        wasm::{self, Component, Engine, Sizes},
    },
    store,
};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;

const PAYLOAD: &str = r#"{"name":"Ada","items":[{"sku":"a-1","count":2},{"sku":"b-2","count":1}],"note":"ring twice"}"#;

fn main() {
    divan::main();
}

/// The timers of calls need one.
fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

/// The example `echo` in an engine, ready for calls.
fn echo() -> (Arc<Engine>, Arc<Component>) {
    let source = std::env::var_os("SHARPFAAS_ECHO").map(PathBuf::from).expect("SHARPFAAS_ECHO names no component");
    let folder = TempDir::new().expect("a folder");
    let code = folder.path().join("echo.cwasm");
    let abi = wasm::compile(&source, &code).expect("it compiles");
    let engine = Engine::new(Sizes { concurrency: 64, memory_bytes: 128 << 20 }).expect("an engine");
    let component = engine.load(File::open(code).expect("it is there"), abi, Arc::default()).expect("it loads");
    (Arc::new(engine), Arc::new(component))
}

fn call() -> Arc<Call> {
    Arc::new(Call {
        usage: Arc::default(),
        exchange: None,
        id: InvocationId::generate(),
        caller_id: None,
        name: "echo".parse().expect("a name"),
        lane: "dev".parse().expect("a lane"),
        version: Version::FIRST,
        payload: PAYLOAD.into(),
        confidential: false,
        parameters: Vec::new(),
        deadline: Instant::now() + Duration::from_secs(30),
        cancel: CancellationToken::new(),
        memory_bytes: 128 << 20,
        result_bytes: 4 << 20,
        console: Arc::new(Console::new(256 * 1024)),
    })
}

/// Store, instance, call and drop of a component that parses its payload and prints a line.
#[divan::bench(threads = [1, 2], max_time = 2)]
fn instantiate_and_call(bencher: Bencher) {
    let (engine, component) = echo();
    bencher.with_inputs(|| (call(), runtime())).bench_values(|(call, runtime)| {
        let outcome = runtime.block_on(engine.execute(&component, &call)).expect("it runs");
        assert_eq!(outcome.expect("it succeeds"), PAYLOAD);
        runtime
    });
}

fn invocation() -> Invocation {
    Invocation {
        id: InvocationId::generate(),
        caller_id: None,
        name: "echo".parse().expect("a name"),
        lane: "dev".parse().expect("a lane"),
        selector: Selector::Latest,
        kind: None,
        entry: None,
        payload: PAYLOAD.into(),
        parameters: Vec::new(),
        deadline: None,
        token: None,
        confidential: None,
    }
}

/// A place taken and given back.
#[divan::bench(threads = [1, 2], max_time = 1)]
fn admission(bencher: Bencher) {
    let admission = Admission::new(&Limits::default());
    let runtime = runtime();
    let handle = runtime.handle().clone();
    bencher.with_inputs(invocation).bench_refs(|invocation| {
        let _entered = handle.enter();
        futures_util::FutureExt::now_or_never(admission.acquire(invocation)).expect("at once").expect("a place")
    });
}

/// The newest version of a function that memory knows.
#[divan::bench(threads = [1, 2], max_time = 1)]
fn catalog_resolve(bencher: Bencher) {
    let (folder, services) = (TempDir::new().expect("a folder"), runtime());
    let catalog = services.block_on(async {
        let database = database(&folder).await;
        let store = StoreConfig {
            url: format!("file:{}", folder.path().join("store").display()).parse().expect("a URL"),
            ..StoreConfig::default()
        };
        let store = store::open(&store, None).expect("a store");
        let settings = Settings { fresh: Duration::from_secs(3600), ..Settings::default() };
        let catalog = Catalog::new(database, store, settings);
        catalog.record(function()).await;
        let wanted = invocation();
        catalog.resolve(&wanted.name, &wanted.lane, Selector::Latest).await.expect("it is there");
        catalog
    });
    let wanted = invocation();
    bencher.bench(|| {
        let resolving = catalog.resolve(&wanted.name, &wanted.lane, Selector::Latest);
        futures_util::FutureExt::now_or_never(resolving).expect("at once").expect("it is there")
    });
}

fn function() -> FunctionRef {
    FunctionRef {
        location: Location {
            lane: "dev".parse().expect("a lane"),
            version: Version::FIRST,
            name: "echo".parse().expect("a name"),
        },
        push_id: PushId::generate(),
        kind: FunctionType::Dll,
        entry: "echo.wasm".parse().expect("an entry"),
        shape: Some(Shape::Execute),
        asks: None,
        sha256: Digest::of(b"echo"),
        size: 4,
        pushed_at: Utc::now(),
        pushed_by: None,
    }
}

async fn database(folder: &TempDir) -> Database {
    let url = format!("sqlite:{}", folder.path().join("bench.db").display());
    Database::connect(&DatabaseConfig { url, ..DatabaseConfig::default() }, None).await.expect("a database")
}

/// A batch of rows of history, into SQLite.
#[divan::bench(args = [1, 1000], max_time = 2)]
fn journal(bencher: Bencher, rows: usize) {
    let (folder, services) = (TempDir::new().expect("a folder"), runtime());
    let database = services.block_on(database(&folder));
    bencher
        .counter(ItemsCount::new(rows))
        .with_inputs(|| (0..rows).map(|_| row()).collect::<Vec<_>>())
        .bench_refs(|rows| services.block_on(database.save(rows)).expect("they are written"));
}

fn row() -> InvocationRow {
    let line = OutputLine { stream: Stream::Stdout, line: "100 bytes".into(), at: Utc::now() };
    InvocationRow {
        usage: Default::default(),
        id: InvocationId::generate(),
        caller_id: None,
        token: None,
        name: "echo".parse().expect("a name"),
        lane: "dev".parse().expect("a lane"),
        selector: Selector::Latest,
        version: Some(Version::FIRST),
        kind: Some(FunctionType::Dll),
        status: Status::Succeeded,
        error_code: None,
        detail: None,
        result: Some(PAYLOAD.into()),
        output: vec![Arc::new(line)],
        output_skipped: 0,
        node: "bench".into(),
        cancel_requested: false,
        created_at: Utc::now(),
        started_at: Some(Utc::now()),
        ended_at: Some(Utc::now()),
        elapsed_us: Some(50),
    }
}
