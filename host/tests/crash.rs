//! Servers that die in the middle of a push.

use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, Instant, SystemTime},
};

use reqwest::{StatusCode, multipart};
use serde_json::json;
use uuid::{NoContext, Timestamp, Uuid};

use crate::common::{
    fixtures::zip,
    ftp_proxy::{FtpProxy, Mishap},
    ftp_server::{FtpServer, Options},
    numbered::{consecutive, folders, on_ftp, packages, printing},
    server::{PATIENCE, Server},
};

/// Kills at a random moment.
const RANDOM: u32 = 20;
/// Kills while the store works at this.
const AT: [&str; 5] = ["MKD", "STOR", "SIZE", "RNFR", "RNTO"];
const QUERY: &str = "functionName=crashed&type=exe&lane=dev";

/// A package that takes a moment to go through.
fn large(text: &str) -> Vec<u8> {
    let mut noise = vec![0; 1 << 18];
    fastrand::Rng::with_seed(1).fill(&mut noise);
    zip(&[("run.sh", format!("#!/bin/sh\necho '\"{text}\"'\n").as_bytes()), ("data/noise", &noise)])
}

// The proxy must go on while the test waits for a start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_in_the_middle_of_a_push() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("functionstore");
    let ftp = FtpServer::start(folder.path(), Options::default());
    let proxy = FtpProxy::start(ftp.address).await;
    let mut victim = Server::start(&on_ftp(proxy.address, "staging_grace_hours = 1"));
    let witness = Server::start(&on_ftp(ftp.address, "refresh_seconds = 1"));

    // What each version must be. The first shows how long a push takes here and now.
    let mut pushed = BTreeMap::from([("1.0".to_owned(), ("whole".to_owned(), large("whole")))]);
    let first = large("whole");
    let began = Instant::now();
    let (status, body) = victim.push_zip(QUERY, first).await;
    let whole = began.elapsed();
    assert_eq!(status, StatusCode::CREATED, "{body}");

    let mut random = fastrand::Rng::with_seed(25);
    let moments =
        (0..RANDOM).map(|at| Moment::After(whole * at / RANDOM + whole.mul_f64(random.f64() / f64::from(RANDOM))));
    let mut survived = 0;
    for (round, moment) in moments.chain(AT.map(Moment::At)).enumerate() {
        let text = format!("killed {round}");
        let zip = large(&text);
        let push = push_to(&victim, zip.clone());
        match moment {
            Moment::After(delay) => tokio::time::sleep(delay).await,
            Moment::At(verb) => {
                let before = proxy.count(verb);
                proxy.add(Mishap::HoldsAnswer(verb));
                until("it got as far as that", || proxy.count(verb) > before).await;
                if verb == "RNTO" {
                    until("it is published", || packages(&root, "crashed").len() > pushed.len()).await;
                }
            }
        }
        victim.kill();
        proxy.mend();
        let answered = push.await.unwrap();
        victim.restart();

        let after = format!("after {round}");
        let (status, body) = victim.push_zip(QUERY, printing(&after)).await;
        assert_eq!(status, StatusCode::CREATED, "{body}");
        let stored = packages(&root, "crashed");
        let next = format!("1.{}", pushed.len());
        if body["version"] == *next {
            assert!(!answered, "round {round}: it said that it published");
        } else {
            survived += 1;
            pushed.insert(next, (text, zip));
        }
        pushed.insert(format!("1.{}", pushed.len()), (after.clone(), printing(&after)));
        assert_eq!(stored.keys().cloned().collect::<Vec<_>>().len(), pushed.len(), "round {round}");
        for (version, (_, zip)) in &pushed {
            assert!(stored[version] == *zip, "round {round}: the bytes of {version}");
        }
        // Another server runs what is whole, and never sees anything else.
        let newest = body["version"].as_str().expect("a version");
        for (selector, exactly) in [(newest, true), ("latest", false)] {
            let fields = json!({ "functionName": "crashed", "lane": "dev", "version": selector });
            let (status, body) = witness.run_with(fields).await;
            assert_eq!(status, StatusCode::OK, "round {round}: {body}");
            let version = body["version"].as_str().expect("a version");
            assert!(!exactly || version == newest);
            assert_eq!(body["result"], *pushed[version].0, "round {round}: {version}");
        }
    }
    println!("a push takes {whole:?}; of the killed ones {survived} were published");
    assert!(survived >= 1, "the one whose rename was done");

    let mut expected = consecutive(1, pushed.len());
    for version in &expected {
        let fields = json!({ "functionName": "crashed", "lane": "dev", "version": version });
        assert_eq!(witness.run_with(fields).await.1["result"], *pushed[version].0, "{version}");
    }
    let (_, listed) = witness.get("/api/functions/crashed").await;
    let listed: Vec<_> = listed["versions"].as_array().expect("versions").iter().map(|it| &it["version"]).collect();
    expected.reverse();
    assert_eq!(listed, expected.iter().collect::<Vec<_>>());

    // Nothing else is left but what is swept.
    let names = |path: &Path| folders(path).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
    assert_eq!(names(&root), [".staging", "dev"]);
    assert_eq!(names(&root.join("dev")).len(), pushed.len());
    for below in ["artifacts/incoming", "artifacts/tmp"] {
        assert_eq!(names(&victim.path(below)), [""; 0], "{below}");
    }
    let staged = folders(&root.join(".staging"));
    assert!(staged.len() >= 3, "the pushes that were killed before their rename: {staged:?}");
    victim.stop();
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    for (_, path) in &staged {
        let old = Uuid::new_v7(Timestamp::from_unix(NoContext, now.as_secs() - 2 * 3600, 0));
        std::fs::rename(path, path.with_file_name(old.to_string())).unwrap();
    }
    victim.restart();
    until("the staging folders are swept", || folders(&root.join(".staging")).is_empty()).await;
}

/// When to kill.
enum Moment {
    After(Duration),
    /// While the answer to this command is held back.
    At(&'static str),
}

/// Pushes; whether that was answered, and so done.
fn push_to(server: &Server, zip: Vec<u8>) -> tokio::task::JoinHandle<bool> {
    let form = multipart::Form::new().part("file", multipart::Part::bytes(zip).file_name("package.zip"));
    let request = server.client.post(server.url(&format!("/api/function/pushfunction?{QUERY}"))).multipart(form);
    tokio::spawn(async move {
        let Ok(response) = request.send().await else { return false };
        let (status, text) = (response.status(), response.text().await);
        assert_eq!(status, StatusCode::CREATED, "{text:?}");
        true
    })
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < PATIENCE, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
