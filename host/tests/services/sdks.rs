//! Functions in JavaScript and Python: run where `SHARPFAAS_TEST_SDKS` names the folder that `sdks.sh` filled with the
//! components of the examples and of `fixtures/sdks`.

use std::{
    fs::File,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use sharpfaas_host::{
    function::{InvocationId, Version},
    runtime::{
        Call,
        console::Console,
        wasm::{self, Engine, Sizes},
    },
};
use tokio_util::sync::CancellationToken;

use crate::{
    common::{fixtures::zip, server::Server},
    develop::made_built_and_run,
};

/// How long a push may take: a component that has an engine in it is compiled on the way.
const PUSH: Duration = Duration::from_secs(300);
/// The components of `probe.js`, one an engine, and of `probe.py`.
const PROBES: [&str; 3] = ["probe-starlingmonkey", "probe-quickjs", "probe-python"];
/// What each calls the file in which something went wrong.
const SOURCES: [&str; 3] = ["bundle.js:", "user.js:", "probe.py"];

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("SHARPFAAS_TEST_SDKS").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("not run: SHARPFAAS_TEST_SDKS is not set");
    }
    folder
}

/// A server with these functions of that folder, which may take their time to be compiled.
async fn server(folder: &Path, functions: &[&str]) -> Server {
    let mut server = Server::start("[limits]\nprocesses = 4\n[artifacts]\ncompile_seconds = 300\n");
    // Only now, because that has set up TLS.
    server.client = reqwest::Client::builder().timeout(PUSH).build().expect("a client");
    for name in functions {
        let file = format!("{name}.wasm");
        let component = std::fs::read(folder.join(&file)).expect("sdks.sh made it");
        let started = Instant::now();
        let query = format!("functionName={name}&lane=dev&type=dll");
        let (status, body) = server.push_zip(&query, zip(&[(&file, &component)])).await;
        assert_eq!(status, 201, "{body}");
        println!("{name}: {} bytes, pushed in {:?}", component.len(), started.elapsed());
    }
    server
}

#[tokio::test]
async fn the_example_in_javascript() {
    let Some(folder) = folder() else { return };
    let server = server(&folder, &["js-invoice"]).await;
    let line = json!({ "text": "tea", "quantity": 3, "price": "2.50", "vat": "8.1" });
    let (status, call) = server.run("js-invoice", json!({ "lines": [line, line], "date": "2026-01-31" })).await;
    assert_eq!(status, 200, "{call}");
    assert_eq!((&call["result"]["total"], &call["result"]["due"]), (&json!("16.22"), &json!("2026-03-02")));
    assert_eq!(call["output"][0]["line"], "2 lines, 16.22 CHF by 2026-03-02");
    let (status, call) = server.run("js-invoice", json!({ "lines": [], "date": "2026-01-31" })).await;
    assert_eq!((status.as_u16(), &call["code"]), (500, &json!("function_failed")));
    assert_eq!(call["detail"], "lines must be an array with a line at least");
}

#[tokio::test]
async fn the_example_in_python() {
    let Some(folder) = folder() else { return };
    let server = server(&folder, &["python-access-log"]).await;
    let log = r#"192.0.2.1 - - [31/Jan/2026:12:00:01 +0000] "GET /tea?x=1 HTTP/1.1" 200 100 "-" "curl/8""#;
    let (status, call) = server.run("python-access-log", json!({ "log": format!("{log}\n{log}\n") })).await;
    assert_eq!(status, 200, "{call}");
    assert_eq!(call["result"]["paths"], json!([{ "path": "/tea", "requests": 2, "errors": 0, "bytes": 200 }]));
    let (status, call) = server.run("python-access-log", json!({ "log": 1 })).await;
    assert_eq!((status.as_u16(), &call["code"]), (500, &json!("function_failed")));
    assert_eq!(call["detail"], "the payload does not fit at log: the number 1, where a string belongs");
}

async fn asked(server: &Server, name: &str, payload: Value) -> Value {
    let (status, call) = server.run(name, payload).await;
    assert_eq!(status, 200, "{name}: {call}");
    call
}

#[tokio::test]
async fn all_sdks_do_the_same() {
    let Some(folder) = folder() else { return };
    let server = server(&folder, &PROBES).await;
    for name in PROBES {
        let value = json!({ "a": [1, 2.5, null, true, "ü€😀\n"], "b": { "": {} } });
        let call = asked(&server, name, json!({ "act": "echo", "value": value })).await;
        assert_eq!(call["result"], value, "{name}");

        let call = asked(&server, name, json!({ "act": "print" })).await;
        let output = call["output"].as_array().expect("lines").iter();
        let output: Vec<_> = output.map(|line| (line["stream"].as_str(), line["line"].as_str())).collect();
        assert_eq!(output, [(Some("stdout"), Some("to stdout ü€😀")), (Some("stderr"), Some("to stderr"))], "{name}");

        // No call knows of another.
        for _ in 0..2 {
            assert_eq!(asked(&server, name, json!({ "act": "count" })).await["result"], 1, "{name}");
        }

        let payload = json!({
            "functionName": name, "lane": "dev", "payload": { "act": "context" }, "callerId": "ada",
            "parameters": { "Tag": "x" }
        });
        let (_, call) = server.run_with(payload).await;
        let expected = json!({
            "id": call["invocationId"], "callerId": "ada", "functionName": name, "lane": "dev", "version": "1.0",
            "parameters": [["Tag", "x"]], "tag": "x", "left": true,
        });
        assert_eq!(call["result"], expected, "{name}: {call}");
    }
}

/// What a call that failed has printed.
async fn output(server: &Server, problem: &Value) -> Value {
    let id = problem["invocationId"].as_str().expect("an id");
    server.ended(id).await["output"].clone()
}

#[tokio::test]
async fn all_sdks_fail_the_same_way() {
    let Some(folder) = folder() else { return };
    let server = server(&folder, &PROBES).await;
    for (name, source) in PROBES.into_iter().zip(SOURCES) {
        let (status, call) = server.run(name, json!({ "act": "refuse" })).await;
        assert_eq!((status.as_u16(), &call["code"]), (500, &json!("function_failed")), "{name}");
        assert_eq!(call["detail"], "sold out: of three", "{name}");
        assert_eq!(output(&server, &call).await, json!([]), "{name}");

        // What was not expected tells where it happened, on the console alone.
        let (status, call) = server.run(name, json!({ "act": "break" })).await;
        assert_eq!((status.as_u16(), &call["code"]), (500, &json!("function_failed")), "{name}: {call}");
        let kept = output(&server, &call).await.to_string();
        assert!(kept.contains(source) && kept.contains("stderr"), "{name}: {kept}");

        let (status, call) = server.run(name, json!("{")).await;
        assert_eq!((status.as_u16(), &call["code"]), (500, &json!("function_failed")), "{name}: {call}");

        let payload = json!({ "functionName": name, "lane": "dev", "payload": { "act": "loop" }, "deadlineMs": 300 });
        let (status, call) = server.run_with(payload).await;
        assert_eq!((status.as_u16(), &call["code"]), (504, &json!("deadline_exceeded")), "{name}: {call}");
        let (status, call) = server.run(name, json!({ "act": "hoard" })).await;
        // An engine that is refused memory may say so itself, as an error like others.
        let told = call["detail"].as_str().expect("text").to_lowercase();
        assert!(status == 500 && told.contains("memory"), "{name}: {call}");
        assert_eq!(asked(&server, name, json!({ "act": "count" })).await["result"], 1, "{name}");
    }
}

/// How long the middle one of these took.
fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// How long a component takes by itself: a store, an instance, the call, and its end, on an engine of the same settings.
async fn bare(component: &Path, payload: &str) -> Duration {
    let folder = tempfile::tempdir().expect("a folder");
    let code = folder.path().join("code");
    let abi = wasm::compile(component, &code).expect("it compiles");
    let memory_bytes = 128 << 20;
    let engine = Engine::new(Sizes { concurrency: 64, memory_bytes }).expect("an engine");
    let component =
        engine.load(File::open(code).expect("it is there"), abi, std::sync::Arc::default()).expect("it loads");
    let mut times = Vec::new();
    for _ in 0..40 {
        let call = Arc::new(Call {
            usage: Arc::default(),
            id: InvocationId::generate(),
            caller_id: None,
            name: "bare".parse().expect("a name"),
            lane: "dev".parse().expect("a lane"),
            version: Version::FIRST,
            payload: payload.into(),
            confidential: false,
            exchange: None,
            parameters: Vec::new(),
            deadline: Instant::now() + Duration::from_secs(30),
            cancel: CancellationToken::new(),
            memory_bytes,
            result_bytes: 4 << 20,
            console: Arc::new(Console::new(256 * 1024)),
        });
        let started = Instant::now();
        engine.execute(&component, &call).await.expect("it runs").expect("it succeeds");
        times.push(started.elapsed());
    }
    median(times)
}

/// Prints what a push, a first call and the next ones cost.
#[tokio::test]
async fn the_next_calls_cost_little_more_than_the_component_itself() {
    let Some(folder) = folder() else { return };
    let line = r#"192.0.2.1 - - [31/Jan/2026:12:00:01 +0000] "GET /tea?x=1 HTTP/1.1" 200 100 "-" "curl/8""#;
    let order = json!({ "text": "tea", "quantity": 3, "price": "2.50", "vat": "8.1" });
    for (name, payload) in [
        ("js-invoice", json!({ "lines": [order, order], "date": "2026-01-31" })),
        ("python-access-log", json!({ "log": format!("{line}\n{line}\n") })),
        ("probe-quickjs", json!({ "act": "echo", "value": [order, order] })),
    ] {
        let server = server(&folder, &[name]).await;
        let mut times = Vec::new();
        for _ in 0..41 {
            let started = Instant::now();
            asked(&server, name, payload.clone()).await;
            times.push(started.elapsed());
        }
        let first = times.remove(0);
        let next = median(times);
        let bare = bare(&folder.join(format!("{name}.wasm")), &payload.to_string()).await;
        println!("{name}: first call {first:?}, next {next:?}, by itself {bare:?}");
        // What a request costs beside it weighs only where the component takes next to nothing.
        let request = Duration::from_millis(3);
        assert!(next < (bare * 3).max(bare + request * 3), "{name}: next {next:?}, by itself {bare:?}");
    }
}

#[tokio::test]
async fn a_promise_is_waited_for_where_the_engine_can() {
    let Some(folder) = folder() else { return };
    let server = server(&folder, &["probe-starlingmonkey", "probe-quickjs"]).await;
    let payload = json!({ "act": "wait", "value": 7 });
    assert_eq!(asked(&server, "probe-starlingmonkey", payload.clone()).await["result"], 7);
    let (status, call) = server.run("probe-quickjs", payload).await;
    assert_eq!((status.as_u16(), &call["code"]), (500, &json!("function_failed")), "{call}");
    assert!(call["detail"].as_str().expect("text").contains("build it with the engine starlingmonkey"), "{call}");
}

#[tokio::test]
async fn new_and_build_in_javascript() {
    if folder().is_some() {
        made_built_and_run(&Server::start(""), "js").await;
    }
}

#[tokio::test]
async fn new_and_build_for_http() {
    if folder().is_none() {
        return;
    }
    let server = Server::start("");
    made_built_and_run(&server, "rust-http").await;
    let (status, body) = server.get("/fn/dev/greet-rust-http/hello/Bob").await;
    assert_eq!((status.as_u16(), body), (200, json!({ "greeting": "Hello, Bob!" })));
    let (status, body) = server.get("/fn/dev/greet-rust-http/no/such").await;
    assert_eq!((status.as_u16(), body), (404, json!({ "error": "there is GET /hello/NAME and POST /" })));
}

#[tokio::test]
async fn new_and_build_in_python() {
    if folder().is_some() {
        made_built_and_run(&Server::start(""), "python").await;
    }
}
