use std::time::Instant;

use tokio_util::sync::CancellationToken;

use super::*;
use crate::{
    function::{InvocationId, Version},
    runtime::console::Console,
};

/// A component around a core module that exports `memory`, `realloc` and `run`, the lowered `execute`.
fn component(core: &str) -> String {
    format!(
        r#"(component
            (core module $m {core})
            (core instance $i (instantiate $m))
            (alias core export $i "memory" (core memory $memory))
            (alias core export $i "realloc" (core func $realloc))
            (alias core export $i "run" (core func $run))
            (func (export "execute") (param "payload" string) (result (result string (error string)))
                (canon lift (core func $run) (memory $memory) (realloc $realloc)))
        )"#
    )
}

/// A core module whose `run` is `body`, with the payload's place in `$p` and `$n`; 100 holds its result.
fn module(body: &str) -> String {
    format!(
        r#"
        (memory (export "memory") 1)
        (global $next (mut i32) (i32.const 1024))
        (func (export "realloc") (param i32 i32 i32 i32) (result i32)
            (local $at i32)
            (local.set $at (global.get $next))
            (global.set $next (i32.add (global.get $next) (local.get 3)))
            (local.get $at))
        (func $run (export "run") (param $p i32) (param $n i32) (result i32) {body})"#
    )
}

const ECHO: &str = r"
    (i32.store (i32.const 100) (i32.const 0))
    (i32.store (i32.const 104) (local.get $p))
    (i32.store (i32.const 108) (local.get $n))
    (i32.const 100)";

fn compiled(text: &str) -> Result<(File, Abi), CompileError> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (input, output) = (folder.path().join("in.wasm"), folder.path().join("out.cwasm"));
    std::fs::write(&input, wat::parse_str(text).expect("the test's text is right")).expect("it is written");
    let abi = compile(&input, &output)?;
    Ok((File::open(output).expect("the output is there"), abi))
}

fn load(engine: &Engine, text: &str) -> Component {
    let (code, abi) = compiled(text).expect("it compiles");
    engine.load(code, abi, Arc::default()).expect("it loads")
}

fn engine() -> Engine {
    Engine::new(Sizes { concurrency: 4, memory_bytes: 16 << 20 }).expect("an engine")
}

fn call(payload: &str, millis: u64) -> Arc<Call> {
    Arc::new(Call {
        usage: Arc::default(),
        exchange: None,
        id: InvocationId::generate(),
        caller_id: None,
        name: "test".parse().expect("a name"),
        lane: "dev".parse().expect("a lane"),
        version: Version::FIRST,
        payload: payload.into(),
        confidential: false,
        parameters: Vec::new(),
        deadline: Instant::now() + Duration::from_millis(millis),
        cancel: CancellationToken::new(),
        memory_bytes: 16 << 20,
        result_bytes: 1000,
        console: Arc::new(Console::new(1000)),
    })
}

async fn execute(core: &str, call: &Arc<Call>) -> Outcome {
    let engine = engine();
    let component = load(&engine, &component(core));
    engine.execute(&component, call).await.expect("the host is well")
}

#[tokio::test]
async fn a_result_is_read_before_the_guest_frees_it() {
    let core = module(ECHO)
        + r#"(func (export "post") (param i32)
            (memory.fill (i32.load offset=4 (local.get 0)) (i32.const 255) (i32.load offset=8 (local.get 0))))"#;
    let text = component(&core)
        .replace(
            "(func (export \"execute\")",
            "(alias core export $i \"post\" (core func $post))\n(func (export \"execute\")",
        )
        .replace("(realloc $realloc))", "(realloc $realloc) (post-return (func $post)))");
    let engine = engine();
    let component = load(&engine, &text);
    assert_eq!(engine.execute(&component, &call("kept", 5000)).await.expect("runs"), Ok("kept".to_owned()));
}

#[tokio::test]
async fn runs_each_call_in_an_instance_of_its_own() {
    let engine = engine();
    let counting = module(&format!(
        "(i32.store8 (local.get $p) (i32.add (i32.const 49) (i32.load (i32.const 200))))
         (i32.store (i32.const 200) (i32.add (i32.const 1) (i32.load (i32.const 200)))) {ECHO}"
    ));
    let component = load(&engine, &component(&counting));
    for _ in 0..10 {
        assert_eq!(engine.execute(&component, &call("x", 5000)).await.expect("runs"), Ok("1".to_owned()));
    }
}

#[tokio::test]
async fn a_loop_yields_and_ends_when_it_is_dropped() {
    let spin = module("(loop $l (br $l)) (i32.const 0)");
    let begun = Instant::now();
    let call = call("", 200);
    let outcome = tokio::time::timeout(Duration::from_millis(200), execute(&spin, &call)).await;
    assert!(outcome.is_err(), "{outcome:?}");
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // Nobody holds what it had.
    assert_eq!(Arc::strong_count(&call), 1);
}

#[tokio::test]
async fn a_short_call_does_not_yield() {
    use futures_util::FutureExt;
    let engine = engine();
    let component = load(&engine, &component(&module(ECHO)));
    // One in a hundred may meet a tick.
    let whole = (0..100).filter(|_| {
        let call = call("kept", 5000);
        let outcome = engine.execute(&component, &call).now_or_never();
        outcome.is_some_and(|outcome| outcome.is_ok())
    });
    assert!(whole.count() >= 50);
}

#[tokio::test]
async fn tells_failures_apart() {
    let kind = async |body: &str| execute(&module(body), &call("text", 5000)).await.expect_err("it fails").kind;
    assert_eq!(kind("(unreachable)").await, FailureKind::Trapped);
    assert_eq!(kind("(call $run (i32.const 0) (i32.const 0))").await, FailureKind::Trapped);
    assert_eq!(
        kind("(if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable)) (i32.const 0)").await,
        FailureKind::MemoryExceeded
    );
    let big = ECHO.replace("(local.get $n)", "(i32.const 2000)");
    assert_eq!(kind(&big).await, FailureKind::ResultTooLarge);
    let error = ECHO.replace("(i32.const 100) (i32.const 0)", "(i32.const 100) (i32.const 1)");
    let said = execute(&module(&error), &call("my words", 5000)).await.expect_err("an error");
    assert_eq!((said.kind, said.detail.as_str()), (FailureKind::Failed, "my words"));
}

#[test]
fn refuses_what_cannot_run_and_says_what_is_missing() {
    let text = |wat: &str| compiled(wat).expect_err("refused").to_string();
    let none = text("(component)");
    assert!(none.contains("must export 'execute") && none.contains("nothing"), "{none}");
    let other = text(&component(&module(ECHO)).replace("\"execute\"", "\"other\""));
    assert!(other.contains("'other'"), "{other}");
    let missing = text(&component(&module(ECHO)).replacen(
        "(component",
        r#"(component (import "acme:db/query@1.0.0" (instance (export "run" (func)))) "#,
        1,
    ));
    assert!(missing.contains("acme:db/query@1.0.0"), "{missing}");
    let folder = tempfile::tempdir().expect("a temporary folder");
    let input = folder.path().join("in.wasm");
    std::fs::write(&input, b"\0asm\x0d\0\x01\0garbage").expect("it is written");
    assert!(matches!(compile(&input, &folder.path().join("out")), Err(CompileError::Invalid(_))));
}

#[test]
fn does_not_load_other_bytes() {
    let mut file = tempfile::tempfile().expect("a file");
    std::io::Write::write_all(&mut file, &[7; 10_000]).expect("it is written");
    assert!(matches!(engine().load(file, Abi::Sync, Arc::default()), Err(RuntimeError::Damaged(_))));
}
