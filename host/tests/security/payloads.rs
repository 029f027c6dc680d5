//! Encrypted payloads.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::StatusCode;
use serde_json::{Value, json};
use sharpfaas_host::security::jwe::{Claims, Keys};

use crate::common::{
    fixtures::zip,
    server::Server,
    websocket::{SignalR, Socket, lines},
};

pub const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8";
const OLD: &str = "_________________________________________-8";

pub fn keys() -> Keys {
    Keys::new([("new", KEY), ("old", OLD)]).expect("keys")
}

fn server(security: &str) -> Server {
    let keys = "[[security.payload_keys]]\nkid = \"new\"\nkey_env = \"KEY\"\n\
                [[security.payload_keys]]\nkid = \"old\"\nkey_file = \"DATA/old.key\"\n";
    let folder = std::sync::Arc::new(tempfile::tempdir().expect("a folder"));
    std::fs::write(folder.path().join("old.key"), format!("{OLD}\n")).expect("written");
    Server::start_in(folder, &format!("[security]\n{security}{keys}"), &[("KEY", KEY)])
}

async fn run(server: &Server, name: &str, payload: String, answer: bool) -> (StatusCode, Value) {
    let fields = json!({
        "functionName": name, "lane": "dev", "payload": payload, "payloadEncrypted": true, "encryptResult": answer
    });
    server.run_with(fields).await
}

fn seal(text: &str) -> String {
    keys().seal("new", &Claims::default(), text).expect("sealed")
}

/// What came encrypted for this call.
fn open(value: &Value, call: &Value) -> String {
    let opened = keys().open(value.as_str().expect("text")).unwrap_or_else(|error| panic!("{error}: {value}"));
    assert_eq!(opened.claims.jti.as_deref(), call["invocationId"].as_str(), "it is bound to its call");
    opened.text
}

#[tokio::test]
async fn payloads_come_and_results_go_encrypted() {
    let server = server("");
    for fixture in ["echo.wasm", "print-lines.wasm", "return-error.wasm", "exe-echo"] {
        server.push(fixture).await;
    }
    let payload = json!({ "a": [1, "ü"] });
    for kid in ["new", "old"] {
        let sealed = keys().seal(kid, &Claims::default(), &payload.to_string()).expect("sealed");
        let (status, clear) = run(&server, "echo", sealed.clone(), false).await;
        assert_eq!((status, &clear["result"]), (StatusCode::OK, &payload), "{clear}");
        let (status, ran) = run(&server, "echo", sealed, true).await;
        assert_eq!(status, StatusCode::OK, "{ran}");
        let opened = keys().open(ran["result"].as_str().expect("text")).expect("opened");
        assert_eq!((opened.text, opened.kid.as_str()), (payload.to_string(), kid));
        assert_eq!(opened.claims.sub.as_deref(), Some("dev/echo"));
        // History has neither in clear, whether its caller asked for that or not.
        for call in [&clear, &ran] {
            let id = call["invocationId"].as_str().expect("an id");
            let kept = server.ended(id).await;
            assert_eq!(open(&kept["result"], call), payload.to_string());
        }
    }
    let (_, ran) = run(&server, "print-lines", seal("null"), true).await;
    let printed: Vec<String> =
        ran["output"].as_array().expect("lines").iter().map(|line| open(&line["line"], &ran)).collect();
    assert!(printed.contains(&"in two parts".to_owned()), "{printed:?}");
    let (status, problem) = run(&server, "return-error", seal("\"a secret\""), true).await;
    assert_eq!((status, &problem["code"]), (StatusCode::INTERNAL_SERVER_ERROR, &json!("function_failed")));
    assert!(open(&problem["detail"], &problem).contains("a secret"), "{problem}");

    // On the hub, in both dialects, and for whoever follows.
    let mut socket = Socket::connect(&server, "/functions").await;
    let call =
        json!({ "functionName": "print-lines", "lane": "dev", "payload": seal("null"), "payloadEncrypted": true });
    socket.send_json(call.clone()).await;
    let events = socket.events().await;
    assert!(lines(&events).contains(&"first"), "{events:?}");
    let mut asked = call;
    asked["encryptResult"] = json!(true);
    asked["payload"] = json!(seal("null"));
    socket.send_json(asked).await;
    let events = socket.events().await;
    let opened: Vec<String> = lines(&events).iter().map(|line| open(&json!(line), &events[0])).collect();
    assert!(opened.contains(&"first".to_owned()), "{opened:?}");
    let id = events[0]["invocationId"].as_str().expect("an id");
    let mut tail = Socket::connect(&server, &format!("/api/invocations/{id}/tail")).await;
    let followed = tail.events().await;
    assert!(lines(&followed).iter().all(|line| !open(&json!(line), &events[0]).is_empty() || line.len() > 40));
    let mut signalr = SignalR::connect(&server).await;
    signalr.stream("1", json!(["print-lines", "dev", "", seal("null"), true, "dll", true])).await;
    let (streamed, _) = signalr.streamed("1").await;
    assert!(streamed.iter().all(|line| keys().open(line).is_ok()), "{streamed:?}");

    let (status, problem) =
        server.run_with(json!({ "functionName": "echo", "lane": "dev", "payload": 1, "encryptResult": true })).await;
    assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")));
}

#[tokio::test]
async fn every_refusal_is_the_same() {
    let server = server("");
    server.push("echo.wasm").await;
    let good = seal("1");
    assert_eq!(run(&server, "echo", good.clone(), false).await.0, 200);
    let other = Keys::new([("new", OLD), ("unknown", KEY)]).expect("keys");
    let claims = |exp: Option<f64>, jti: Option<&str>, sub: Option<&str>| Claims {
        exp,
        jti: jti.map(str::to_owned),
        sub: sub.map(str::to_owned),
    };
    let with = |claims: Claims| keys().seal("new", &claims, "1").expect("sealed");
    let ahead = chrono::Utc::now().timestamp() as f64 + 600.0;
    let header = |text: &str| {
        let (_, rest) = good.split_once('.').expect("parts");
        format!("{}.{rest}", URL_SAFE_NO_PAD.encode(text))
    };
    let (before, tag) = good.rsplit_once('.').expect("parts");
    let changed = format!("{before}.{}{}", if tag.starts_with('A') { "B" } else { "A" }, &tag[1..]);
    let once = with(claims(Some(ahead), Some("once"), Some("dev/echo")));
    assert_eq!(run(&server, "echo", once.clone(), false).await.0, 200);
    let bad = [
        ("a wrong key", other.seal("new", &Claims::default(), "1").expect("sealed")),
        ("an unknown key", other.seal("unknown", &Claims::default(), "1").expect("sealed")),
        ("a wrong tag", changed),
        ("a truncated one", good[..good.len() / 2].to_owned()),
        ("nothing", String::new()),
        ("plain text", "{}".to_owned()),
        ("too large a one", seal(&"x".repeat(4_194_304))),
        ("another algorithm", header(r#"{"alg":"A256KW","enc":"A256GCM","kid":"new"}"#)),
        ("another encryption", header(r#"{"alg":"dir","enc":"A128CBC-HS256","kid":"new"}"#)),
        ("one that has expired", with(claims(Some(1e9), None, None))),
        ("another function's", with(claims(None, None, Some("dev/other")))),
        ("a used one", once),
        ("one that is good once and for ever", with(claims(None, Some("x"), None))),
    ];
    let mut seen = std::collections::BTreeSet::new();
    for (what, payload) in bad {
        // In the hub, where there is no limit but that of messages on the whole.
        let mut socket = Socket::connect(&server, "/functions").await;
        let call = json!({ "functionName": "echo", "lane": "dev", "payload": payload, "payloadEncrypted": true });
        if call.to_string().len() < 4_194_304 {
            socket.send_json(call.clone()).await;
            assert_eq!(socket.json().await["code"], "invalid_payload", "{what}");
        }
        let (status, problem) = server.run_with(call).await;
        if what == "too large a one" {
            // It does not even come in.
            assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{problem}");
            continue;
        }
        assert_eq!((status, &problem["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_payload")), "{what}");
        seen.insert(problem.to_string());
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
}

#[tokio::test]
async fn claims_can_be_asked_for() {
    let server = server("payload_claims = [\"exp\", \"jti\", \"sub\"]\n");
    server.push("echo.wasm").await;
    assert_eq!(run(&server, "echo", seal("1"), false).await.0, 400);
    let folder = tempfile::tempdir().expect("a folder");
    let key = folder.path().join("key");
    std::fs::write(&key, KEY).expect("written");
    let sealed = tokio::process::Command::new(env!("CARGO_BIN_EXE_sharpfaas"))
        .args(["encrypt", "[1, 2]", "--kid", "new", "--for", "dev/echo", "--expires", "5m", "--once", "--key-file"])
        .arg(&key)
        .output()
        .await
        .expect("it runs");
    let sealed = String::from_utf8(sealed.stdout).expect("text").trim().to_owned();
    let (status, ran) = run(&server, "echo", sealed.clone(), true).await;
    assert_eq!(status, 200, "{ran}");
    let opened = tokio::process::Command::new(env!("CARGO_BIN_EXE_sharpfaas"))
        .args(["decrypt", ran["result"].as_str().expect("text"), "--kid", "new", "--key-file"])
        .arg(&key)
        .output()
        .await
        .expect("it runs");
    assert_eq!(String::from_utf8_lossy(&opened.stdout).trim(), "[1, 2]");
    assert_eq!(run(&server, "echo", sealed, true).await.0, 400, "it was used");
}

#[tokio::test]
async fn a_program_gets_an_encrypted_payload_on_its_input_alone() {
    let server = server("");
    let script = b"#!/bin/sh\nread -r line\necho \"$1 $line\"\n";
    let query = "functionName=ask&type=exe&lane=dev";
    assert_eq!(server.push_zip(query, zip(&[("run.sh", script)])).await.0, 201);
    let (status, ran) = run(&server, "ask", seal("hidden"), false).await;
    assert_eq!((status, &ran["result"]), (StatusCode::OK, &json!("- hidden")), "{ran}");
}
