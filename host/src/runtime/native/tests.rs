use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use rustix::process::Pid;
use tempfile::TempDir;

use super::{
    procfs::Family,
    sandbox::groups::{Bounds, Groups},
    *,
};
use crate::function::{CallerId, FunctionName, InvocationId, Lane, Version};
use crate::runtime::MAX_ARGUMENT_BYTES;
use crate::runtime::console::Console;

mod cost;
mod ends;
mod load;

/// A runtime with a temporary folder of its own, and a folder for packages and for what programs tell.
struct Fixture {
    runtime: NativeRuntime,
    dir: TempDir,
}

impl Fixture {
    fn new() -> Self {
        Self::with(&SandboxConfig::default(), &[])
    }

    fn with(sandbox: &SandboxConfig, grants: &[Grant]) -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let config = RuntimeConfig { temp_dir: Some(dir.path().join("temp")), ..RuntimeConfig::default() };
        for folder in ["packages", "packages/one"] {
            fs::create_dir(dir.path().join(folder)).expect("made");
            fs::set_permissions(dir.path().join(folder), fs::Permissions::from_mode(0o755)).expect("set");
        }
        let packages = dir.path().join("packages");
        let settings = Settings { sandbox, grants, packages: &packages, places: 64 };
        Self { runtime: NativeRuntime::new(&config, &settings).expect("a runtime"), dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file of the package with the mode 755.
    fn file(&self, name: &str, content: &str) -> Executable {
        let path = self.path("packages/one").join(name);
        fs::write(&path, content).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
        Executable::new(ProgramPath { package: self.path("packages/one"), entry: name.into() })
    }

    fn script(&self, body: &str) -> Executable {
        self.file("main", &format!("#!/bin/sh\n{body}\n"))
    }

    async fn run(&self, body: &str, call: &Call) -> Outcome {
        self.runtime.run(&self.script(body), call).await.expect("the host is not at fault")
    }

    /// The temporary folders of calls that are there.
    fn folders(&self) -> Vec<PathBuf> {
        self.runtime.sandbox().folders()
    }
}

/// The numbers that a call's processes printed as `pid N`.
fn pids(call: &Call) -> Vec<Pid> {
    let lines = call.console.tail().0;
    lines.iter().filter_map(|line| Pid::from_raw(line.line.strip_prefix("pid ")?.trim().parse().ok()?)).collect()
}

fn call(payload: &str) -> Call {
    Call {
        usage: Arc::default(),
        exchange: None,
        id: InvocationId::generate(),
        caller_id: None,
        name: FunctionName::parse("example").expect("a name"),
        lane: Lane::parse("dev").expect("a lane"),
        version: Version { major: 1, minor: 2 },
        payload: payload.into(),
        confidential: false,
        parameters: Vec::new(),
        deadline: Instant::now() + Duration::from_secs(30),
        cancel: CancellationToken::new(),
        memory_bytes: 128 << 20,
        result_bytes: 4 << 20,
        console: Arc::new(Console::new(1 << 16)),
    }
}

fn failure(outcome: Outcome) -> (FailureKind, String) {
    let failure = outcome.expect_err("it fails");
    (failure.kind, failure.detail)
}

fn alive(pid: Pid) -> bool {
    procfs::process(pid).is_some_and(|process| !process.zombie)
}

/// Processes with the call's id in their environment, zombies not among them.
fn survivors(call: &Call) -> Vec<Pid> {
    let id = call.id.to_string();
    let of_call = |pid: &Pid| procfs::variable(*pid, keeper::INVOCATION_VARIABLE).as_ref() == Some(&id);
    procfs::everyone().into_iter().filter(of_call).collect()
}

/// Waits until the call has printed a line that begins so, and gives the rest of that line.
async fn printed(call: &Call, start: &str) -> String {
    let mut next = 0;
    loop {
        let batch = call.console.next(next, 100).await;
        if let Some(rest) = batch.lines.iter().find_map(|line| line.line.strip_prefix(start)) {
            return rest.trim().to_owned();
        }
        assert!(!batch.ended, "the call ended and had not printed {start:?}");
        next = batch.next();
    }
}

/// Waits until it holds, for things that nobody tells when they happen; fails after ten seconds.
async fn eventually(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(10), "not so after ten seconds: {what}");
        time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn the_payload_comes_as_argument_and_on_input() {
    let fixture = Fixture::new();
    let outcome = fixture.run(r#"printf '%s|%s|' "$#" "$1"; cat"#, &call(r#"{"a": "ü $x"}"#)).await;
    assert_eq!(outcome.as_deref(), Ok(r#"1|{"a": "ü $x"}|{"a": "ü $x"}"#));
    let script = r#"printf '%s ' "${#1}"; wc -c"#;
    for (payload, expected) in [
        ("x".repeat(MAX_ARGUMENT_BYTES), format!("{MAX_ARGUMENT_BYTES} {MAX_ARGUMENT_BYTES}")),
        ("x".repeat(MAX_ARGUMENT_BYTES + 1), format!("1 {}", MAX_ARGUMENT_BYTES + 1)),
        ("x".repeat(4 << 20), format!("1 {}", 4 << 20)),
        (String::new(), "0 0".into()),
        ("a\0b".into(), "1 3".into()),
    ] {
        assert_eq!(fixture.run(script, &call(&payload)).await, Ok(expected));
    }
    assert_eq!(fixture.run(r#"printf %s "$1""#, &call(&"x".repeat(200 << 10))).await.as_deref(), Ok("-"));
}

#[tokio::test]
async fn input_that_nobody_reads_holds_nothing_up() {
    let fixture = Fixture::new();
    let payload = "x".repeat(4 << 20);
    assert_eq!(fixture.run("exec <&-; echo closed", &call(&payload)).await.as_deref(), Ok("closed"));
    assert_eq!(fixture.run("echo ignored", &call(&payload)).await.as_deref(), Ok("ignored"));
    assert_eq!(fixture.run("head -c 3", &call(&payload)).await.as_deref(), Ok("xxx"));
}

#[tokio::test]
async fn output_goes_to_the_console_and_the_result_is_standard_output() {
    let fixture = Fixture::new();
    let call = call("");
    assert_eq!(fixture.run("echo one; echo two >&2; printf 'three\n\n'", &call).await.as_deref(), Ok("one\nthree\n"));
    let mut lines: Vec<_> = call.console.tail().0.iter().map(|line| (line.stream, line.line.clone())).collect();
    lines.sort_by(|a, b| a.1.cmp(&b.1));
    let line = |stream, text: &str| (stream, text.to_owned());
    let (out, err) = (Stream::Stdout, Stream::Stderr);
    assert_eq!(lines, [line(out, ""), line(out, "one"), line(out, "three"), line(err, "two")]);
}

#[tokio::test]
async fn output_is_seen_while_the_program_runs() {
    let fixture = Fixture::new();
    let call = call("");
    let run = fixture.run("trap 'echo went on; exit' USR1; echo pid $$; while :; do sleep 0.01; done", &call);
    let look = async {
        let pid = printed(&call, "pid ").await.parse().ok().and_then(Pid::from_raw).expect("a number");
        rustix::process::kill_process(pid, rustix::process::Signal::USR1).expect("it is there");
    };
    assert!(tokio::join!(run, look).0.expect("it succeeds").ends_with("\nwent on"));
}

#[tokio::test]
async fn the_environment_is_what_is_documented() {
    let fixture = Fixture::new();
    let call = Call { caller_id: Some(CallerId::parse("Ann = ü").expect("an id")), ..call("") };
    let outcome = fixture.run(r"tr '\0' '\n' < /proc/$$/environ; pwd", &call).await.expect("it runs");
    let mut lines: Vec<&str> = outcome.lines().collect();
    let folder = lines.pop().expect("the working folder").to_owned();
    let value =
        |name: &str| lines.iter().find_map(|line| line.strip_prefix(name)?.strip_prefix('=')).map(str::to_owned);
    let left: u64 = value("SHARPFAAS_DEADLINE_MS").expect("it is there").parse().expect("a number");
    assert!((1..=30_000).contains(&left), "{left}");
    let mut expected = vec![
        "PATH=/usr/local/bin:/usr/bin:/bin".to_owned(),
        format!("HOME={folder}"),
        format!("TMPDIR={folder}"),
        "LANG=C.UTF-8".into(),
        format!("SHARPFAAS_INVOCATION_ID={}", call.id),
        "SHARPFAAS_CALLER_ID=Ann = ü".into(),
        "SHARPFAAS_FUNCTION=example".into(),
        "SHARPFAAS_LANE=dev".into(),
        "SHARPFAAS_VERSION=1.2".into(),
        format!("SHARPFAAS_PACKAGE={}", value("SHARPFAAS_PACKAGE").expect("it is there")),
        format!("SHARPFAAS_DEADLINE_MS={left}"),
    ];
    expected.sort();
    lines.sort_unstable();
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn the_working_folder_is_fresh_private_and_removed() {
    let fixture = Fixture::new();
    let script = "ls -A; stat -c %a .; mkdir -p a/b; touch a/b/c; ln -s / root; chmod 000 a/b a .; pwd";
    let first = fixture.run(script, &call("")).await.expect("it runs");
    let second = fixture.run(script, &call("")).await.expect("it runs");
    assert!(first.starts_with("700\n") && second.starts_with("700\n") && first != second, "{first} {second}");
    eventually("folders are removed", || fixture.folders().is_empty()).await;
}

#[tokio::test]
async fn each_package_is_read_by_its_own_programs_alone_whoever_had_the_folder_before() {
    let fixture = Fixture::new();
    let packages = fixture.path("packages");
    let make = |package: &str, secret: &str| {
        let folder = packages.join(package);
        fs::create_dir_all(&folder).expect("made");
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).expect("set");
        fs::write(folder.join("secret"), secret).expect("written");
        let script = "for of in one two; do cat \"${SHARPFAAS_PACKAGE%/*}/$of/secret\" 2>/dev/null; done; true";
        fs::write(folder.join("main"), format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(folder.join("main"), fs::Permissions::from_mode(0o755)).expect("set");
        Executable::new(ProgramPath { package: folder, entry: "main".into() })
    };
    let run = async |program: &Executable| fixture.runtime.run(program, &call("")).await.expect("the host is sound");
    let (one, two) = (make("one", "first"), make("two", "second"));
    for (program, secret) in [(&one, "first"), (&one, "first"), (&two, "second"), (&one, "first")] {
        assert_eq!(run(program).await.as_deref(), Ok(secret));
    }
    // As when it was thrown out of the local folder, and fetched again.
    fs::rename(packages.join("one"), packages.join("old")).expect("moved");
    let again = make("one", "third");
    assert_eq!(run(&again).await.as_deref(), Ok("third"));
}

#[tokio::test]
async fn nothing_else_of_the_server_is_inherited() {
    let fixture = Fixture::new();
    // Without close-on-exec, as a careless library would open it.
    let leak = fs::File::create(fixture.path("leaked")).expect("made");
    let leak = rustix::io::dup(&leak).expect("a second descriptor");
    // SAFETY: only the disposition of a signal that nobody sends here changes.
    unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
    let script =
        "ls -l /proc/self/fd; grep -E '^Sig(Blk|Ign)|^NoNewPrivs' /proc/self/status; cut -d' ' -f1,5,6 /proc/$$/stat";
    let program = fixture.script(script);
    let plain = std::process::Command::new(&program.program).output().expect("it runs");
    let plain = String::from_utf8_lossy(&plain.stdout).into_owned();
    assert!(plain.contains("leaked") && !plain.contains("SigIgn:\t0000000000000000"), "{plain}");
    let confined = fixture.run(script, &call("")).await.expect("it runs");
    assert!(!confined.contains("leaked"), "{confined}");
    for line in ["SigBlk:\t0000000000000000", "SigIgn:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(confined.lines().any(|found| found == line), "{line} is missing: {confined}");
    }
    let ids: Vec<&str> = confined.lines().last().expect("a line").split_ascii_whitespace().collect();
    assert!(ids.len() == 3 && ids[0] == ids[1] && ids[1] == ids[2], "{ids:?}");
    drop(leak);
}

#[tokio::test]
async fn a_relative_package_folder_is_found_from_the_working_folder() {
    let fixture = Fixture::new();
    fixture.script("cat \"$SHARPFAAS_PACKAGE/data\"");
    fixture.file("data", "beside");
    let up = "../".repeat(std::env::current_dir().expect("one").components().count());
    let package = Path::new(&up).join(fixture.path("packages/one").strip_prefix("/").expect("absolute"));
    let program = Executable::new(ProgramPath { package, entry: "main".into() });
    assert_eq!(fixture.runtime.run(&program, &call("")).await.expect("it runs").as_deref(), Ok("beside"));
}

#[tokio::test]
async fn limits_are_set() {
    let fixture = Fixture::new();
    let outcome = fixture.run("ulimit -Hc; ulimit -Hf; ulimit -Hn; ulimit -Hd; ulimit -Hs", &call("")).await;
    let data = (128 + 64) << 10;
    assert_eq!(outcome, Ok(format!("0\n{}\n256\n{data}\n8192", 64 << 11)));
    let (kind, detail) =
        failure(fixture.run("head -c 100M /dev/zero > file & wait $!; kill -XFSZ $$", &call("")).await);
    assert_eq!(kind, FailureKind::Trapped);
    assert!(detail.contains("SIGXFSZ (25): a file grew beyond"), "{detail}");
}

#[tokio::test]
async fn a_program_is_in_the_control_groups_of_its_seat() {
    if Groups::make(Bounds { processes: 512, cpu_percent: 0 }).is_none() {
        // The kernel lets us have none here, which the sandbox says.
        return;
    }
    let fixture = Fixture::new();
    let mut first = call("");
    let groups = fixture.run("cat /proc/self/cgroup", &first).await.expect("it is told");
    assert!(groups.lines().any(|line| line.contains("/sharpfaas-") && line.ends_with("/seat-0")), "{groups}");
    let usage = first.usage.get().expect("it is counted");
    assert!(usage.memory_peak_bytes.is_some() && usage.cpu_us.is_some(), "{usage:?}");
    // The next one in it may take less, and finds that limit.
    first.id = InvocationId::generate();
    first.usage = Arc::default();
    first.memory_bytes = 32 << 20;
    let (kind, _) = failure(fixture.run("head -c 200000000 /dev/zero | tail -c 100000000 > /dev/null", &first).await);
    assert_eq!(kind, FailureKind::MemoryExceeded);
}
