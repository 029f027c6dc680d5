//! `sharpfaas jobs` and `sharpfaas schedules`.

use serde_json::{Value, json};
use tokio::process::Command;

use super::each;
use crate::common::server::Server;

/// Runs the command line against the server: its exit code, what it prints, and what it says beside that.
async fn cli(server: &Server, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_sharpfaas"));
    let output = command.args(arguments).env("SHARPFAAS_SERVER", &server.url).output().await.expect("it runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// What it prints, where all goes well.
async fn told(server: &Server, arguments: &[&str]) -> String {
    let (code, out, error) = cli(server, arguments).await;
    assert_eq!(code, Some(0), "{arguments:?}: {out}{error}");
    out
}

/// The same, as JSON.
async fn parsed(server: &Server, arguments: &[&str]) -> Value {
    let out = told(server, &[arguments, &["--json"]].concat()).await;
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {out}"))
}

/// The cells of a table below its heading, row by row.
fn table(text: &str) -> Vec<Vec<&str>> {
    text.lines().skip(1).map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test]
async fn jobs_are_handed_in_shown_put_back_and_given_up() {
    let server = Server::start("");
    server.push("echo.wasm").await;
    server.push("return-error.wasm").await;

    let enqueue = ["jobs", "enqueue", "echo", "{\"a\":1}", "--caller-id", "me", "--priority", "-3"];
    let id = told(&server, &enqueue).await;
    server.job_when(&id, "succeeded").await;
    let (code, result, history) = cli(&server, &["jobs", "show", &id]).await;
    assert_eq!((code, result.as_str()), (Some(0), "{\"a\":1}"), "{history}");
    assert!(
        history.contains("enqueued") && history.contains("processing") && history.contains("invocation"),
        "{history}"
    );
    let shown = parsed(&server, &["jobs", "show", &id]).await;
    assert_eq!((&shown["callerId"], &shown["priority"]), (&json!("me"), &json!(-3)));

    let keyed = ["jobs", "enqueue", "echo", "1", "--delay", "2d", "--queue", "night", "--idempotency-key", "k"];
    let later = told(&server, &keyed).await;
    assert_eq!(told(&server, &keyed).await, later, "one key, one job");
    let after = told(&server, &["jobs", "enqueue", "echo", "2", "--after", &later]).await;
    let states = parsed(&server, &["jobs", "list", "--state", "scheduled", "--queue", "night"]).await;
    assert_eq!(each(&states["jobs"], "jobId"), [later.as_str()]);
    assert_eq!(server.job(&after).await["state"], "awaiting");

    let wrong = told(&server, &["jobs", "enqueue", "return-error", "\"no\"", "--attempts", "1"]).await;
    server.job_when(&wrong, "failed").await;
    let list = told(&server, &["jobs", "list", "--function", "return-error"]).await;
    let rows = table(&list);
    assert!(rows.len() == 1 && rows[0].contains(&"failed") && rows[0].contains(&"1/1"), "{list}");
    assert!(rows[0].contains(&wrong.as_str()), "{list}");
    let queues = told(&server, &["jobs", "queues"]).await;
    let cells = |name: &str| table(&queues).into_iter().find(|row| row.first() == Some(&name)).expect("the queue");
    assert_eq!(cells("night"), ["night", "0", "0", "1", "0", "0"], "{queues}");
    assert_eq!(cells("default").last(), Some(&"1"), "{queues}");
    assert_eq!(told(&server, &["jobs", "requeue", &wrong]).await, "enqueued");
    server.job_when(&wrong, "failed").await;

    assert_eq!(told(&server, &["jobs", "delete", &later]).await, "deleted");
    let (code, _, error) = cli(&server, &["jobs", "show", "01980000-0000-7000-8000-000000000000"]).await;
    assert!(code == Some(3) && error.contains("not_found"), "{error}");
    let servers = parsed(&server, &["jobs", "servers"]).await;
    assert_eq!(table(&told(&server, &["jobs", "servers"]).await)[0][0], servers["servers"][0]["node"]);
}

#[tokio::test]
async fn schedules_are_made_shown_triggered_paused_and_removed() {
    let server = Server::start("");
    server.push("echo.wasm").await;
    let put = [
        "schedules",
        "put",
        "nightly",
        "0 3 * * *",
        "echo",
        "\"hi\"",
        "--time-zone",
        "Europe/Zurich",
        "--overlap",
        "skip",
    ];
    told(&server, &put).await;
    let kept = parsed(&server, &["schedules", "show", "nightly"]).await;
    assert_eq!((&kept["cron"], &kept["timeZone"]), (&json!("0 3 * * *"), &json!("Europe/Zurich")));
    let list = told(&server, &["schedules", "list"]).await;
    assert_eq!(table(&list).len(), 1, "{list}");
    let job = told(&server, &["schedules", "trigger", "nightly"]).await;
    assert_eq!(server.job_when(&job, "succeeded").await["result"], "hi");
    told(&server, &["schedules", "pause", "nightly"]).await;
    assert_eq!(parsed(&server, &["schedules", "show", "nightly"]).await["paused"], true);
    told(&server, &["schedules", "resume", "nightly"]).await;
    assert_eq!(parsed(&server, &["schedules", "show", "nightly"]).await["paused"], false);
    let (code, _, error) = cli(&server, &["schedules", "put", "x", "61 * * * *", "echo"]).await;
    assert!(code == Some(3) && error.contains("cron"), "{error}");
    told(&server, &["schedules", "delete", "nightly"]).await;
    let (code, _, error) = cli(&server, &["schedules", "show", "nightly"]).await;
    assert!(code == Some(3) && error.contains("not_found"), "{error}");
}
