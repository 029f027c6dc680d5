//! Memory, floods, and many at once.

use std::collections::BTreeMap;

use super::*;

#[tokio::test]
async fn one_process_that_eats_memory() {
    let fixture = Fixture::new();
    for script in [
        "tail /dev/zero",
        "exec tail /dev/zero",
        // In a session of its own.
        "setsid tail /dev/zero & wait $!",
    ] {
        let (kind, detail) = failure(fixture.run(script, &call("")).await);
        assert_eq!(kind, FailureKind::MemoryExceeded, "{script}: {detail}");
        assert!(detail.contains("134217728 bytes"), "{detail}");
    }
}

#[tokio::test]
async fn many_processes_that_eat_memory_together() {
    let fixture = Fixture::new();
    let call = call("");
    let script = "for i in 1 2 3 4; do perl -e '$x = \"x\" x 48e6; sleep 60' & done; wait";
    assert_eq!(failure(fixture.run(script, &call).await).0, FailureKind::MemoryExceeded);
    assert_eq!(survivors(&call), []);
}

#[tokio::test]
async fn memory_that_is_shared_counts_once() {
    let fixture = Fixture::new();
    // Five processes with the same 60 MB, for longer than it takes to measure them.
    let script =
        r#"perl -e '$x = "x" x 60e6; for (1..4) { unless (fork) { sleep 1; exit } } wait for 1..4; print "fine"'"#;
    assert_eq!(fixture.run(script, &call("")).await.as_deref(), Ok("fine"));
}

#[tokio::test]
async fn too_many_processes() {
    let fixture = Fixture::new();
    let call = call("");
    let script = "i=0; while [ $i -lt 600 ]; do sleep 60 & i=$((i+1)); done; wait";
    let (kind, detail) = failure(fixture.run(script, &call).await);
    assert_eq!(kind, FailureKind::Failed);
    assert!(detail.contains("more processes and threads"), "{detail}");
    assert_eq!(survivors(&call), []);
}

fn resident() -> u64 {
    procfs::resident(&procfs::process(rustix::process::getpid()).expect("we are"))
}

#[tokio::test]
async fn a_flood_of_output_ends_quickly_and_takes_no_memory() {
    let fixture = Fixture::new();
    for flood in
        ["yes | head -c 200000000", "head -c 200000000 /dev/zero | tr '\\0' x", "yes | head -c 200000000 >&2; exit 1"]
    {
        let call = call("");
        let (before, began) = (resident(), Instant::now());
        let (kind, _) = failure(fixture.run(flood, &call).await);
        let (took, grown) = (began.elapsed(), resident().saturating_sub(before));
        let expected = if flood.contains("exit 1") { FailureKind::Failed } else { FailureKind::ResultTooLarge };
        assert_eq!(kind, expected, "{flood}");
        assert!(grown < 32 << 20, "{grown} bytes more after {flood}");
        assert!(took < Duration::from_secs(20), "{took:?} for {flood}");
        assert!(call.console.tail().1 > 0 || flood.contains("zero"), "the console says that it lost lines");
    }
}

/// What is open, by what it is, without what seats keep, which is control groups, folders and their rules: there are as
/// many of those as calls ran at once, which may be more another time.
fn descriptors() -> BTreeMap<String, usize> {
    let mut open = BTreeMap::new();
    for entry in fs::read_dir("/proc/self/fd").expect("a folder").flatten() {
        let Ok(target) = fs::read_link(entry.path()) else { continue };
        let target = target.display().to_string();
        if !["/seat-", "/run/sharpfaas/", "[landlock-ruleset]"].iter().any(|kept| target.contains(kept)) {
            // Sockets and pipes have numbers of their own: those of one kind are alike.
            *open.entry(target.split(":[").next().unwrap_or_default().to_owned()).or_default() += 1;
        }
    }
    open
}

#[tokio::test]
async fn many_at_once_leave_nothing_behind() {
    let fixture = Fixture::new();
    let program = fixture.script(
        r#"case "$1" in
        0) echo fine;;
        1) exit 1;;
        2) sleep 60 & (setsid sleep 60 &) ; echo fine;;
        3) (setsid sleep 0.2 &); sleep 60;;
        4) kill -SEGV $$;;
        esac"#,
    );
    let round = || {
        futures_util::future::join_all((0..50).map(|i| {
            let mut call = call(&format!("{}", i % 5));
            if i % 5 == 3 {
                call.deadline = Instant::now() + Duration::from_millis(700);
            }
            let (runtime, program) = (&fixture.runtime, &program);
            async move {
                let kind = runtime.run(program, &call).await.expect("the host is not at fault").err().map(|f| f.kind);
                let expected = match i % 5 {
                    0 | 2 => None,
                    1 => Some(FailureKind::Failed),
                    3 => Some(FailureKind::DeadlineExceeded),
                    _ => Some(FailureKind::Trapped),
                };
                assert_eq!(kind, expected, "{i}");
                assert_eq!(survivors(&call), []);
            }
        }))
    };
    // What is made once, for as many as ran at once, is made then.
    round().await;
    eventually("folders are removed", || fixture.folders().is_empty()).await;
    let before = descriptors();
    round().await;
    let me = rustix::process::getpid();
    eventually("no child is left, not even as a zombie", || Family::now().children(me).is_empty()).await;
    eventually("no folder is left", || fixture.folders().is_empty()).await;
    let left = || {
        let mut now = descriptors();
        now.retain(|kind, count| *count > before.get(kind).copied().unwrap_or_default());
        now
    };
    let began = Instant::now();
    while !left().is_empty() {
        assert!(began.elapsed() < Duration::from_secs(10), "open: {:?}, of which new: {:?}", descriptors(), left());
        time::sleep(Duration::from_millis(2)).await;
    }
}
