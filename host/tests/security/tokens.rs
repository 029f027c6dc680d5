//! Tokens from the first to the last: made, used, listed, revoked, and never shown again.

use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::process::Command;

use super::{admin_of, guarded, known, make, revoke, scopes};
use crate::common::{
    server::{Server, client, client_with},
    websocket::{SignalR, Socket},
};

#[tokio::test]
async fn the_first_token_must_manage_and_then_everyone_needs_one() {
    let mut server = Server::start("");
    let create = async |server: &Server, wanted: Value| {
        let response = server.client.post(server.url("/api/tokens")).json(&wanted).send().await.expect("an answer");
        (response.status(), response.json::<Value>().await.expect("JSON"))
    };
    for useless in [json!({ "name": "ci", "push": ["dev"] }), json!({ "name": "m", "manage": ["dev"] })] {
        let (status, problem) = create(&server, useless).await;
        assert_eq!((status, &problem["code"]), (StatusCode::CONFLICT, &json!("token_conflict")), "{problem}");
    }
    assert_eq!(server.get("/api/functions").await.0, 200, "nothing has changed");
    let manager = json!({ "name": "boss", "manage": ["*"], "read": ["*"] });
    let (status, made) = create(&server, manager.clone()).await;
    assert_eq!(status, 201, "{made}");
    let (status, problem) = server.get("/api/functions").await;
    assert_eq!((status, &problem["code"]), (StatusCode::UNAUTHORIZED, &json!("unauthorized")));

    server.client = client_with(made["token"].as_str().expect("its text"));
    assert_eq!(server.get("/api/functions").await.0, 200);
    assert_eq!(create(&server, manager).await.1["code"], "token_conflict", "the name is taken");
    let last = server.client.delete(server.url("/api/tokens/boss")).send().await.expect("an answer");
    assert_eq!(last.status(), StatusCode::CONFLICT, "nobody could make tokens any more");
    for bad in [
        json!({ "name": "a/b", "run": ["dev"] }),
        json!({ "name": "a", "run": ["dev/"] }),
        json!({ "name": "a" }),
        json!({ "name": "a", "rnu": ["dev"] }),
        json!({ "name": "a", "run": ["dev"], "expiresSeconds": 0 }),
        json!({ "name": "a", "run": vec!["dev"; 65] }),
        json!([]),
    ] {
        assert_eq!(create(&server, bad.clone()).await.0, 400, "{bad}");
    }
    // It stays so, and the text is nowhere to be had again.
    server.stop();
    server.restart();
    assert_eq!(server.get("/api/functions").await.0, 200);
    let (_, listed) = server.get("/api/tokens").await;
    assert_eq!(listed["tokens"][0]["name"], "boss", "{listed}");
    assert!(!listed.to_string().contains("sft_"), "{listed}");
    assert_eq!(client().get(server.url("/api/functions")).send().await.expect("an answer").status(), 401);
}

#[tokio::test]
async fn the_command_line_makes_lists_and_revokes() {
    let server = guarded("");
    let run = async |arguments: &[&str], token: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sharpfaas"));
        command.args(arguments).env("SHARPFAAS_SERVER", &server.url).env("SHARPFAAS_TOKEN", token);
        let output = command.output().await.expect("it runs");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let admin = admin_of(&server);
    let create = ["token", "create", "--name", "ci", "--push", "dev", "--run", "dev,production", "--expires", "90d"];
    let (code, token, notes) = run(&create, &admin).await;
    assert_eq!(code, Some(0), "{notes}");
    let token = token.trim();
    assert!(token.starts_with("sft_") && !token.contains(char::is_whitespace), "{token}");
    assert_eq!(known(&server, token).await, 200);

    let package = server.path("echo.wasm");
    std::fs::write(&package, crate::common::fixtures::fixture("echo.wasm")).expect("written");
    let package = package.to_str().expect("text");
    let (code, _, error) = run(&["push", package, "--lane", "dev"], token).await;
    assert_eq!(code, Some(0), "{error}");
    let (code, result, error) = run(&["run", "echo", "\"hi\"", "--lane", "dev"], token).await;
    assert_eq!((code, result.trim()), (Some(0), "hi"), "{error}");
    let (code, _, error) = run(&["push", package, "--lane", "production"], token).await;
    assert!(code == Some(3) && error.contains("may not push production/echo"), "{error}");
    let (code, _, error) = run(&["run", "echo", "1"], "").await;
    assert!(code == Some(3) && error.contains("unauthorized"), "{error}");

    let (_, listed, _) = run(&["token", "list"], &admin).await;
    assert!(listed.contains("dev,production") && !listed.contains("sft_"), "{listed}");
    let (code, _, error) = run(&["token", "list"], token).await;
    assert!(code == Some(3) && error.contains("forbidden"), "{error}");
    let (code, _, error) = run(&["token", "revoke", "ci"], &admin).await;
    assert_eq!(code, Some(0), "{error}");
    assert_eq!(known(&server, token).await, 401);
    let (_, audit, _) = run(&["audit"], &admin).await;
    for action in ["token.create", "token.revoke", "push", "denied"] {
        assert!(audit.contains(action), "{action}: {audit}");
    }
    // Who pushed is kept with the version, and who called with the call.
    let (_, version) = server.get("/api/functions/echo/dev/latest").await;
    assert_eq!(version["pushedBy"], "ci");
    let (_, calls) = server.get("/api/invocations?function=echo").await;
    assert_eq!(calls["invocations"][0]["token"], "ci", "{calls}");
}

#[tokio::test]
async fn sockets_and_streams_take_the_token_in_the_query_and_end_with_it() {
    let server = guarded("");
    server.push("ticks.wasm").await;
    server.push("context.wasm").await;
    let token = make(&server, scopes("runner", &["run"], "dev")).await;
    assert!(Socket::try_connect(&server, "/functions").await.is_err());
    let query = format!("/functions?access_token={token}");
    let mut socket = Socket::connect(&server, &query).await;
    let call = json!({ "functionName": "context", "lane": "dev", "payload": {} });
    socket.send_json(call).await;
    let events = socket.events().await;
    assert_eq!(events.last().expect("the last")["event"], "completed", "{events:?}");
    socket.send_json(json!({ "functionName": "context", "lane": "production", "payload": {} })).await;
    assert_eq!(socket.json().await["code"], "forbidden");

    // Where headers can be sent, they must be; and the token never gets to the function.
    let run = format!("/api/function/runfunction?functionName=context&lane=dev&access_token={token}&colour=red");
    let refused = client().post(server.url(&run)).body("{}").send().await.expect("an answer");
    assert_eq!(refused.status(), 401);
    let ran = client().post(server.url(&run)).bearer_auth(&token).body("{}").send().await.expect("an answer");
    let ran = ran.text().await.expect("text");
    assert!(ran.contains("colour") && !ran.contains("access_token") && !ran.contains(&token), "{ran}");

    // A call is its token's to see; when that is revoked, what it listens to ends.
    let started = client_with(&token)
        .post(server.url("/api/function/runfunction"))
        .header("Prefer", "respond-async")
        .json(&json!({ "functionName": "ticks", "lane": "dev", "payload": { "count": 1000, "everyMs": 20 } }));
    let started: Value = started.send().await.expect("an answer").json().await.expect("JSON");
    let id = started["invocationId"].as_str().expect("an id");
    let mut tail = Socket::connect(&server, &format!("/api/invocations/{id}/tail?access_token={token}")).await;
    assert_eq!(tail.json().await["event"], "output");
    let mut events = client()
        .get(server.url(&format!("/api/invocations/{id}/output?access_token={token}")))
        .header("accept", "text/event-stream")
        .send()
        .await
        .expect("an answer");
    assert_eq!(events.status(), 200);
    assert!(events.chunk().await.expect("a part").is_some());
    revoke(&server, "runner").await;
    let policy = Some((1008, "the token has expired or was revoked".to_owned()));
    assert_eq!(tail.closed().await, policy);
    assert_eq!(socket.closed().await, policy);
    while events.chunk().await.expect("a part").is_some() {}
    assert!(Socket::try_connect(&server, &query).await.is_err());
    assert!(!server.log.lock().expect("the log").contains(&token));
}

#[tokio::test]
async fn signalr_clients_come_with_their_token() {
    let server = guarded("");
    server.push("print-lines.wasm").await;
    let token = make(&server, scopes("runner", &["run"], "dev/print-*")).await;
    let socket = Socket::connect(&server, &format!("/functions?id=any&access_token={token}")).await;
    let mut signalr = SignalR::on(socket).await;
    signalr.stream("1", json!(["print-lines", "dev", "", "null"])).await;
    let (lines, end) = signalr.streamed("1").await;
    assert!(lines.contains(&"first".to_owned()) && end.get("error").is_none(), "{lines:?} {end}");
    signalr.stream("2", json!(["echo", "dev"])).await;
    let (_, end) = signalr.streamed("2").await;
    assert!(end["error"].as_str().expect("an error").starts_with("forbidden"), "{end}");
}
