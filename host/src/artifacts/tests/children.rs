//! The compiler, in real child processes.

use super::*;

/// A program that compiles as the server's binary does: it runs [`child`] in this test's binary, and
/// counts how often.
pub(super) fn this_binary(root: &Path) -> PathBuf {
    let binary = std::env::current_exe().expect("this test's binary");
    let count = root.join("compilations");
    let text = format!(
        "echo once >> {}\nSHARPFAAS_TEST_CHILD=\"$*\" exec {} --ignored --nocapture --exact artifacts::tests::children::child",
        count.display(),
        binary.display()
    );
    script(root, "compiler", &text)
}

pub(crate) fn script(root: &Path, name: &str, text: &str) -> PathBuf {
    let path = root.join(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).expect("it is written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("it is marked");
    path
}

#[test]
#[ignore = "what the compiling child does; others start it"]
fn child() {
    let Ok(arguments) = std::env::var("SHARPFAAS_TEST_CHILD") else { return };
    let mut arguments = arguments.split(' ').map(std::ffi::OsString::from);
    assert_eq!(arguments.next().expect("a subcommand"), SUBCOMMAND);
    assert!(std::env::vars().all(|(name, _)| name == "SHARPFAAS_TEST_CHILD" || name == "PWD"), "it got an environment");
    std::process::exit(compile_in_child(arguments).into());
}

/// What the compiler says to a component.
async fn compile(bench: &Bench, compiler: &Compiler, component: &[u8]) -> Result<Abi, ArtifactError> {
    let (input, output) = (bench.root.path().join("in.wasm"), bench.root.path().join("out.cwasm"));
    fs::write(&input, component).expect("it is written");
    compiler.compile(&input, &output).await
}

fn refused(result: Result<Abi, ArtifactError>) -> String {
    match result {
        Err(ArtifactError::Component(text)) => text.to_string(),
        other => panic!("not the component's fault: {other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn says_why_a_component_was_refused() {
    let bench = Bench::new();
    let parse = |text: &str| wat::parse_str(text).expect("the test's text is right");
    compile(&bench, &bench.compiler, &echo(1)).await.expect("it compiles");
    let cases = [
        (b"\0asm\x0d\0\x01\0garbage".to_vec(), "not a valid component"),
        (parse("(component)"), "execute"),
        (parse("(component (import \"no:such/thing\" (func)))"), "execute"),
    ];
    for (component, expected) in cases {
        let text = refused(compile(&bench, &bench.compiler, &component).await);
        assert!(text.contains(expected) && !text.contains("/tmp"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compilation_that_takes_too_long_is_killed_with_all_it_started() {
    let bench = Bench::new();
    let pids = bench.root.path().join("pids");
    let text = format!("/bin/sleep 1000 &\necho $! $$ > {0}.new\n/bin/mv {0}.new {0}\nwait", pids.display());
    let slow = Compiler::with_program(&bench.config, script(bench.root.path(), "slow", &text));
    let slow = slow.within(Duration::from_millis(300));
    let text = refused(compile(&bench, &slow, b"").await);
    assert!(text.contains("more time"), "{text}");
    for pid in fs::read_to_string(pids).expect("it ran").split_whitespace() {
        // Killed; its parent may not have looked yet.
        let state = || fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let dead = || state().is_empty() || state().contains(") Z ");
        let until = Instant::now() + Duration::from_secs(10);
        while !dead() && Instant::now() < until {
            tokio::task::yield_now().await;
        }
        assert!(dead(), "{pid}: {}", state());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compilation_that_nobody_waits_for_any_more_is_killed() {
    let bench = Bench::new();
    let pid = bench.root.path().join("pid");
    let text = format!("echo $$ > {0}.new\n/bin/mv {0}.new {0}\nexec /bin/sleep 1000", pid.display());
    let slow = Compiler::with_program(&bench.config, script(bench.root.path(), "slow", &text));
    let (input, output) = (bench.root.path().join("in"), bench.root.path().join("out"));
    let task = tokio::spawn(async move { slow.compile(&input, &output).await });
    while !pid.exists() {
        tokio::task::yield_now().await;
    }
    task.abort();
    assert!(task.await.expect_err("it was aborted").is_cancelled());
    let pid = fs::read_to_string(pid).expect("it ran");
    let state = || fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    let until = Instant::now() + Duration::from_secs(10);
    while !(state().is_empty() || state().contains(") Z ")) && Instant::now() < until {
        tokio::task::yield_now().await;
    }
    assert!(state().is_empty() || state().contains(") Z "), "{}", state());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_compilation_that_takes_too_much_memory_ends() {
    let mut bench = Bench::new();
    bench.config.compile_memory_bytes = 20 << 20;
    let compiler = Compiler::with_program(&bench.config, this_binary(bench.root.path()));
    compile(&bench, &compiler, &echo(1)).await.expect("a small one fits");
    let parse = |text: String| wat::parse_str(text).expect("the test's text is right");
    // Functions by the thousand, each with some work for the compiler; and one that is large to read.
    let body = "(i32.add (i32.mul (local.get 0) (i32.const 7)) ".repeat(60) + "(local.get 0)" + &")".repeat(60);
    let functions = format!("(func (param i32) (result i32) {body})").repeat(2000);
    let data = "x".repeat(30 << 20);
    for large in [format!("(component (core module {functions}))"), format!("(component (@custom \"c\" \"{data}\"))")] {
        let text = refused(compile(&bench, &compiler, &parse(large)).await);
        assert!(text.contains("more memory") && text.contains("20 MiB"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_fault_an_end_is() {
    let bench = Bench::new();
    let program = |name: &str, text: &str| Compiler::with_program(&bench.config, script(bench.root.path(), name, text));
    let cases = [
        ("kill -SEGV $$", "crashed"),
        ("kill -KILL $$", "more memory"),
        ("kill -XCPU $$", "more time"),
        ("echo 'memory allocation of 8 bytes failed' >&2; kill -ABRT $$", "more memory"),
        ("echo \"thread 'main' panicked\" >&2; exit 101", "crashed"),
    ];
    for (at, (text, expected)) in cases.into_iter().enumerate() {
        let said = refused(compile(&bench, &program(&format!("{at}"), text), b"").await);
        assert!(said.contains(expected), "{text}: {said}");
    }
    for (name, text) in [("usage", "echo what >&2; exit 2"), ("host", "echo disk full >&2; exit 72")] {
        let error = compile(&bench, &program(name, text), b"").await.expect_err("it fails");
        assert!(matches!(error, ArtifactError::Compiler(_)), "{error:?}");
    }
    let missing = Compiler::with_program(&bench.config, bench.root.path().join("missing"));
    assert!(matches!(compile(&bench, &missing, b"").await, Err(ArtifactError::Compiler(_))));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_child_that_talks_without_end_neither_fills_memory_nor_waits() {
    let bench = Bench::new();
    let talk =
        "i=0; while [ $i -lt 20000 ]; do echo 'a line of some length, again and again' >&2; i=$((i+1)); done; exit 70";
    let compiler = Compiler::with_program(&bench.config, script(bench.root.path(), "talk", talk));
    let said = refused(compile(&bench, &compiler, b"").await);
    assert!(said.len() <= 16 * 1024 && said.starts_with("a line"), "{}", said.len());
}
