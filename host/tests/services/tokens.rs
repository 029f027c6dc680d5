//! Tokens on several servers of one database.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use sharpfaas_host::security::jwe::Claims;
use uuid::Uuid;

use crate::{
    common::server::{Server, client, client_with, create_database},
    security::payloads::{KEY, keys},
};

const ADMIN: &str = "an-admin-token-for-tests-0123456789abcdef";

/// Two servers of one new database; `None` where there is no PostgreSQL.
fn two(security: &str) -> Option<[Server; 2]> {
    let Ok(postgres) = std::env::var("SHARPFAAS_TEST_POSTGRES") else {
        eprintln!("not run: SHARPFAAS_TEST_POSTGRES is not set");
        return None;
    };
    let url = create_database(&postgres, &Uuid::now_v7().simple().to_string());
    let config = format!(
        "[database]\nurl = \"{url}\"\npassword_env = \"SHARPFAAS_TEST_POSTGRES_PASSWORD\"\n\
         [security]\nadmin_token_env = \"ADMIN\"\n{security}"
    );
    let start = || {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        let mut server = Server::start_in(folder, &config, &[("ADMIN", ADMIN)]);
        server.client = client_with(ADMIN);
        server
    };
    Some([start(), start()])
}

async fn create(server: &Server, name: &str) -> String {
    let wanted = json!({ "name": name, "run": ["*"] });
    let made = server.client.post(server.url("/api/tokens")).json(&wanted).send().await.expect("an answer");
    let made: Value = made.json().await.expect("JSON");
    assert_eq!(made["serversBehind"], 0, "{made}");
    made["token"].as_str().expect("its text").to_owned()
}

async fn revoke(server: &Server, name: &str) -> Value {
    let answer = server.client.delete(server.url(&format!("/api/tokens/{name}"))).send().await.expect("an answer");
    answer.json().await.expect("JSON")
}

async fn status(server: &Server, token: &str) -> u16 {
    let request = client().post(server.url("/functions/negotiate")).bearer_auth(token);
    request.send().await.expect("an answer").status().as_u16()
}

#[tokio::test]
async fn a_token_is_good_and_revoked_on_every_server_when_that_is_answered() {
    let Some(servers) = two("") else { return };
    let mut longest = Duration::ZERO;
    for round in 0..40 {
        let (here, there) = (&servers[round % 2], &servers[(round + 1) % 2]);
        let name = format!("t{round}");
        let token = create(here, &name).await;
        assert_eq!([status(there, &token).await, status(here, &token).await], [200, 200], "made, round {round}");
        let started = Instant::now();
        let revoked = revoke(here, &name).await;
        longest = longest.max(started.elapsed());
        assert_eq!(revoked["serversBehind"], 0, "{revoked}");
        assert_eq!([status(there, &token).await, status(here, &token).await], [401, 401], "revoked, round {round}");
    }
    println!("the longest of 40 revocations took {longest:?}");
}

#[tokio::test]
async fn a_payload_is_taken_once_on_all_servers() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("key"), KEY).expect("written");
    std::fs::create_dir(folder.path().join("store")).expect("made");
    let config = "[[security.payload_keys]]\nkid = \"new\"\nkey_file = \"SHARED/key\"\n\
                  [store]\nurl = \"file:SHARED/store\"\n";
    let Some(servers) = two(&config.replace("SHARED", folder.path().to_str().expect("text"))) else { return };
    servers[0].push("echo.wasm").await;
    for round in 0..10 {
        let (jti, exp) = (Some(Uuid::now_v7().to_string()), Some(chrono::Utc::now().timestamp() as f64 + 300.0));
        let payload = keys().seal("new", &Claims { jti, exp, ..Claims::default() }, "7").expect("sealed");
        let fields = json!({ "functionName": "echo", "lane": "dev", "payload": payload, "payloadEncrypted": true });
        // At both at once: one of them takes it, whichever that is.
        let answers = tokio::join!(servers[0].run_with(fields.clone()), servers[1].run_with(fields.clone()));
        let mut statuses = [answers.0.0.as_u16(), answers.1.0.as_u16()];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 400], "round {round}: {answers:?}");
        for server in &servers {
            let (status, problem) = server.run_with(fields.clone()).await;
            assert_eq!((status.as_u16(), &problem["code"]), (400, &json!("invalid_payload")), "{problem}");
        }
    }
}

#[tokio::test]
async fn a_server_that_is_cut_off_takes_no_tokens_before_long() {
    let Some(mut servers) = two("stale_seconds = 5\n") else { return };
    let token = create(&servers[0], "t").await;
    assert_eq!(status(&servers[1], &token).await, 200);
    let pid = Pid::from_raw(i32::try_from(servers[1].pid()).expect("a pid")).expect("a pid");
    kill_process(pid, Signal::STOP).expect("stopped");
    // The answer waits until the other one can take no tokens any more, whatever it knows.
    let revoked = revoke(&servers[0], "t").await;
    let behind = revoked["serversBehind"].as_u64().expect("a number");
    tokio::time::sleep(Duration::from_secs(behind * 2)).await;
    kill_process(pid, Signal::CONT).expect("goes on");
    assert!(matches!(status(&servers[1], &token).await, 401 | 503));
    // It comes back by itself, and knows.
    let other = create(&servers[0], "u").await;
    assert_eq!([status(&servers[1], &other).await, status(&servers[1], &token).await], [200, 401]);
    // One that has stopped is not waited for.
    servers[1].stop();
    let started = Instant::now();
    revoke(&servers[0], "u").await;
    assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
}
