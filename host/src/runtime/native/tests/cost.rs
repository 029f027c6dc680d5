//! What confinement costs. Not a test of right or wrong: `cargo nextest run -p sharpfaas-host --lib
//! --run-ignored only --no-capture -E 'test(cost)'` prints it.

#![expect(clippy::print_stdout, reason = "its output is what it is for")]

use std::process::{Command, Stdio};

use super::{
    sandbox::{
        groups::{Bounds, Groups},
        landlock::Files,
        stage,
    },
    *,
};
use crate::config::Strictness;

/// How long each measurement takes.
const TIME: Duration = Duration::from_secs(3);
const ROUNDS: usize = 2;

/// How many programs a second `start` starts and sees end, one after the other in each of `callers` tasks.
async fn rate<F: Future<Output = ()>>(callers: usize, start: impl Fn() -> F) -> f64 {
    let began = Instant::now();
    let started: Vec<u64> = futures_util::future::join_all((0..callers).map(|_| async {
        let mut count = 0;
        while began.elapsed() < TIME {
            start().await;
            count += 1;
        }
        count
    }))
    .await;
    started.iter().sum::<u64>() as f64 / began.elapsed().as_secs_f64()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "measures, and needs a quiet machine"]
async fn of_confinement() {
    let with = |programs| Fixture::with(&SandboxConfig { programs, ..SandboxConfig::default() }, &[]);
    let (confined, open) = (with(Strictness::Required), with(Strictness::Off));
    let programs = [&confined, &open].map(|fixture| {
        let path = fixture.path("packages/one/main");
        fs::copy("/bin/true", &path).expect("copied");
        Executable::new(ProgramPath { package: fixture.path("packages/one"), entry: "main".into() })
    });
    let path = confined.path("packages/one/main");
    println!("{:>8} {:>28} {:>10}", "callers", "", "programs/s");
    for callers in [1, 4] {
        for _ in 0..ROUNDS {
            let bare = rate(callers, || async {
                let path = path.clone();
                let run = move || {
                    // With an argument as a call has one: it makes this program load a locale.
                    let mut command = Command::new(path);
                    command.arg("").env_clear().env("LANG", "C.UTF-8");
                    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
                    assert!(command.status().expect("it runs").success());
                };
                tokio::task::spawn_blocking(run).await.expect("it ends");
            })
            .await;
            println!("{callers:>8} {:>28} {bare:>10.0}", "bare");
            for (name, fixture, program) in
                [("not confined", &open, &programs[1]), ("confined", &confined, &programs[0])]
            {
                let ours = rate(callers, || async {
                    let outcome = fixture.runtime.run(program, &call("")).await.expect("the host is not at fault");
                    assert_eq!(outcome.as_deref(), Ok(""));
                })
                .await;
                println!("{callers:>8} {name:>28} {ours:>10.0} {:>5.0} % of bare", ours / bare * 100.0);
            }
        }
    }
}

/// The parts of it that are done outside the program itself, each by itself.
#[test]
#[ignore = "measures, and needs a quiet machine"]
fn of_each_layer() {
    let dir = tempfile::tempdir().expect("a folder");
    let stage = stage::Stage::build(dir.path(), "cost").expect("a machine where this may mount");
    let time = |name: &str, mut step: Box<dyn FnMut() + Send>| {
        const TIMES: u32 = 2000;
        let took = stage
            .inside(move || {
                let began = Instant::now();
                (0..TIMES).for_each(|_| step());
                began.elapsed() / TIMES
            })
            .expect("the thread is there");
        println!("{:>8.1} us {name}", took.as_secs_f64() * 1e6);
    };
    let path = stage.folder("one");
    let make = move || stage::Folder::make(&path, 1_900_000_000, 64 << 20).expect("made");
    let again = make.clone();
    time("folder in memory, mounted and unmounted", Box::new(move || make().remove()));
    let folder = stage.inside(again).expect("the thread is there");
    time("folder in memory, found untouched", Box::new(move || assert!(folder.is_untouched())));
    let (files, own) = (Files::open(false), dir.path().to_owned());
    time("rules of Landlock, made", Box::new(move || drop(files.rules(&own, &own, &[], false).expect("made"))));
    if let Some(groups) = Groups::make(Bounds { processes: 512, cpu_percent: 0 }) {
        let group = groups.group(0).expect("made");
        time(
            "control groups, read and set for a call",
            Box::new(move || {
                group.begin(128 << 20).expect("set");
                drop(group.members());
                let _ = group.taken();
            }),
        );
    }
    let image = dir.path().join("main");
    fs::copy("/bin/true", &image).expect("copied");
    time(
        "bare fork and exec, waited for",
        Box::new(move || assert!(Command::new(&image).stdin(Stdio::null()).status().expect("it runs").success())),
    );
}
