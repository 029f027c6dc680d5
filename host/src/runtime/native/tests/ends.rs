//! How calls end, and that nothing of them is left.

use std::future::Future;

use super::*;

/// Processes that do all they can to outlive their call; each writes its number. They ignore SIGTERM; they
/// are the program, a child, a child in a session of its own, and one whose parents are gone.
const OUTLAWS: &str = r#"
trap '' TERM
cat > loop <<'END'
trap '' TERM
echo pid $$
echo $$ >> pids
while :; do sleep 1; done
END
sh ./loop &
setsid sh ./loop &
(setsid sh -c "setsid sh ./loop & :" &)
echo pid $$
echo $$ >> pids
while [ "$(wc -l < pids)" -lt 4 ]; do sleep 0.01; done
echo ready
while :; do sleep 1; done
"#;

#[tokio::test]
async fn codes_and_signals() {
    let fixture = Fixture::new();
    for (script, kind, expected) in [
        ("exit 3", FailureKind::Failed, "exited with code 3"),
        ("echo no such order >&2; echo >&2; exit 1", FailureKind::Failed, "exited with code 1: no such order"),
        ("kill -SEGV $$", FailureKind::Trapped, "ended by signal SIGSEGV (11)"),
        ("kill -KILL $$", FailureKind::Trapped, "ended by signal SIGKILL (9)"),
        ("kill -40 $$", FailureKind::Trapped, "ended by signal unnamed (40)"),
    ] {
        assert_eq!(failure(fixture.run(script, &call("")).await), (kind, expected.to_owned()), "{script}");
    }
    let call = Call { result_bytes: 10, ..call("") };
    assert_eq!(failure(fixture.run("exit 3", &call).await).1, "exited wit");
}

#[tokio::test]
async fn a_program_that_cannot_run_is_its_own_fault() {
    let fixture = Fixture::new();
    fixture.script("exit 0");
    fixture.file("interpreter", "#!/no/such/interpreter\n");
    fixture.file("garbage", "\u{1}\u{2}\u{3} not a program");
    fixture.file("empty", "");
    fixture.file("plain", "#!/bin/sh\n");
    fs::set_permissions(fixture.path("packages/one/plain"), fs::Permissions::from_mode(0o644)).expect("set");
    fs::create_dir(fixture.path("packages/one/folder")).expect("made");
    for (entry, expected) in [
        ("missing", "is not in the package"),
        ("main/below", "is not in the package"),
        ("folder", "is not a file"),
        ("plain", "is not executable"),
        ("interpreter", "names an interpreter that is not on this server"),
        ("garbage", "is not a program for this server"),
        ("empty", "is not a program for this server"),
    ] {
        let program = Executable::new(ProgramPath { package: fixture.path("packages/one"), entry: entry.into() });
        let (kind, detail) = failure(fixture.runtime.run(&program, &call("")).await.expect("not the host's fault"));
        assert_eq!(kind, FailureKind::Failed, "{entry}");
        assert!(detail.starts_with(&format!("the entry '{entry}' {expected}")), "{detail}");
    }
    let program = Executable::new(ProgramPath { package: fixture.path("packages/gone"), entry: "main".into() });
    let error = fixture.runtime.run(&program, &call("")).await.expect_err("the artifact is gone");
    assert!(matches!(error, RuntimeError::Damaged(_)), "{error}");
    eventually("folders are removed", || fixture.folders().is_empty()).await;
}

#[tokio::test]
async fn a_result_that_is_too_large() {
    let fixture = Fixture::new();
    let call = Call { result_bytes: 1000, ..call("") };
    assert_eq!(fixture.run("head -c 1000 /dev/zero | tr '\\0' x; echo", &call).await, Ok("x".repeat(1000)));
    let (kind, detail) = failure(fixture.run("head -c 1001 /dev/zero | tr '\\0' x", &call).await);
    assert_eq!(kind, FailureKind::ResultTooLarge);
    assert!(detail.contains("1000 bytes"), "{detail}");
    let (kind, _) = failure(fixture.run("head -c 1001 /dev/zero; exit 7", &call).await);
    assert_eq!(kind, FailureKind::Failed);
}

/// Runs `attempt`, which tells how long after its deadline a call came back, until it was less than 100 ms. On
/// a machine that does other work too, one of three must be.
async fn within_100_ms<F: Future<Output = Duration>>(mut attempt: impl FnMut() -> F) {
    let mut late = Vec::new();
    for _ in 0..3 {
        late.push(attempt().await);
        if late.last().is_some_and(|late| *late < Duration::from_millis(100)) {
            return;
        }
    }
    panic!("not within 100 ms: {late:?}");
}

#[tokio::test]
async fn at_the_deadline_the_whole_tree_dies() {
    within_100_ms(|| async {
        let fixture = Fixture::new();
        let call = Call { deadline: Instant::now() + Duration::from_millis(1500), ..call("") };
        let outcome = fixture.run(OUTLAWS, &call).await;
        let late = call.deadline.elapsed();
        let pids = pids(&call);
        let left: Vec<Pid> = pids.iter().copied().filter(|pid| alive(*pid)).collect();
        assert_eq!((pids.len(), left), (4, vec![]), "all of them were there, and none is");
        assert_eq!(survivors(&call), []);
        assert_eq!(failure(outcome).0, FailureKind::DeadlineExceeded);
        eventually("no zombie is left", || Family::now().orphans().is_empty()).await;
        late
    })
    .await;
}

#[tokio::test]
async fn cancelled_at_once_and_with_all_its_tree() {
    within_100_ms(|| async {
        let fixture = Fixture::new();
        let call = call("");
        let cancel = async {
            printed(&call, "ready").await;
            call.cancel.cancel();
            Instant::now()
        };
        let (outcome, cancelled) = tokio::join!(fixture.run(OUTLAWS, &call), cancel);
        let late = cancelled.elapsed();
        assert_eq!(failure(outcome).0, FailureKind::Cancelled);
        assert_eq!(pids(&call).into_iter().filter(|pid| alive(*pid)).collect::<Vec<_>>(), []);
        late
    })
    .await;
}

#[tokio::test]
async fn what_is_ended_behind_a_program_says_nothing_of_its_own_end() {
    let fixture = Fixture::new();
    // In sessions of their own, so that they are not ended with the program's group.
    let script =
        "trap '' TERM; for i in 1 2 3 4 5 6 7 8; do setsid sh -c 'while :; do (:); done' & done; sleep 0.1; exit 3";
    for _ in 0..10 {
        let (kind, detail) = failure(fixture.run(script, &call("")).await);
        assert_eq!(kind, FailureKind::Failed);
        assert!(detail.starts_with("exited with code 3"), "{detail}");
    }
}

#[tokio::test]
async fn sigterm_comes_first_and_what_heeds_it_ends_in_its_own_way() {
    let fixture = Fixture::new();
    let call = Call { deadline: Instant::now() + Duration::from_millis(300), ..call("") };
    let outcome = fixture.run("trap 'echo bye; exit 0' TERM; while :; do sleep 0.01; done", &call).await;
    assert_eq!(failure(outcome).0, FailureKind::DeadlineExceeded);
    printed(&call, "bye").await;
}

#[tokio::test]
async fn a_call_too_late_or_not_wanted_any_more_does_not_begin() {
    let fixture = Fixture::new();
    let late = Call { deadline: Instant::now(), ..call("") };
    assert_eq!(failure(fixture.run("echo began", &late).await).0, FailureKind::DeadlineExceeded);
    let unwanted = call("");
    unwanted.cancel.cancel();
    assert_eq!(failure(fixture.run("echo began", &unwanted).await).0, FailureKind::Cancelled);
    assert!(late.console.tail().0.is_empty() && unwanted.console.tail().0.is_empty());
}

#[tokio::test]
async fn the_call_ends_with_its_program_though_children_hold_its_output() {
    let fixture = Fixture::new();
    let call = call("");
    let began = Instant::now();
    let script = "sleep 60 & echo pid $!
        setsid sh -c 'echo pid $$; echo > there; sleep 60' &
        while [ ! -e there ]; do sleep 0.01; done
        echo done";
    let outcome = fixture.run(script, &call).await.expect("it succeeds");
    assert!(outcome.contains("done"), "{outcome}");
    assert!(began.elapsed() < Duration::from_secs(20), "nobody waited for the children");
    let pids = pids(&call);
    assert_eq!((pids.len(), pids.into_iter().filter(|pid| alive(*pid)).count()), (2, 0));
}

#[tokio::test]
async fn a_dropped_call_is_ended_and_cleaned_up_behind_it() {
    let fixture = Fixture::new();
    let call = call("");
    let mut run = Box::pin(fixture.run(OUTLAWS, &call));
    tokio::select! {
        outcome = &mut run => panic!("it ended: {outcome:?}"),
        _ = printed(&call, "ready") => {}
    }
    let pids = pids(&call);
    assert!(pids.len() == 4 && pids.iter().all(|pid| alive(*pid)) && fixture.folders().len() == 1);
    drop(run);
    eventually("all are gone", || !pids.iter().any(|pid| alive(*pid))).await;
    eventually("its folder is gone", || fixture.folders().is_empty()).await;
}

#[tokio::test]
async fn the_end_of_the_runtime_ends_what_runs() {
    let Fixture { runtime, dir } = Fixture::new();
    let fixture = Fixture { runtime, dir };
    let program = fixture.script(OUTLAWS);
    let call = call("");
    let Fixture { runtime, dir } = fixture;
    let mut run = Box::pin(async { runtime.run(&program, &call).await });
    tokio::select! {
        outcome = &mut run => panic!("it ended: {outcome:?}"),
        _ = printed(&call, "ready") => {}
    }
    drop(run);
    drop(runtime);
    let pids = pids(&call);
    assert_eq!((pids.len(), pids.into_iter().filter(|pid| alive(*pid)).count()), (4, 0));
    assert_eq!(fs::read_dir(dir.path().join("temp")).expect("a folder").count(), 0, "the root went too");
}

/// It leaves its session and its parents, and shows nothing of its call's environment. Unless it was seen
/// before, it is ended at once.
#[tokio::test]
async fn one_that_hides_whose_it_is_does_not_outlive_its_call() {
    let fixture = Fixture::new();
    let script = r#"(setsid sh -c 'env -i /usr/bin/setsid /bin/sleep 60 & echo pid $!' &); cat; sleep 60"#;
    let call = call("");
    let cancel = async {
        let pid = printed(&call, "pid ").await.parse().ok().and_then(Pid::from_raw).expect("a number");
        call.cancel.cancel();
        pid
    };
    let (outcome, pid) = tokio::join!(fixture.run(script, &call), cancel);
    assert_eq!(failure(outcome).0, FailureKind::Cancelled);
    assert!(!alive(pid));
}

/// One process at a time, that forks, leaves its session, and ends, for ever: whoever looks finds it gone.
#[tokio::test]
async fn one_that_keeps_moving_is_caught() {
    let fixture = Fixture::new();
    let call = call("");
    let comet = "perl -MPOSIX -e 'for (1..1e6) { if (fork) { POSIX::_exit(0) } POSIX::setsid() }' & echo done";
    assert_eq!(fixture.run(comet, &call).await.as_deref(), Ok("done"));
    assert_eq!(survivors(&call), []);
}
