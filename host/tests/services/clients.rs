//! What others wrote, as our clients: run where `SHARPFAAS_TEST_CLIENTS` names the folder that `clients.sh` filled.

use std::{path::PathBuf, process::Stdio, sync::Arc};

use serde_json::{Value, json};
use sharpfaas_host::security::jwe::{Claims, Keys};
use tokio::{io::AsyncWriteExt as _, process::Command};

use crate::common::server::{Server, client_with};

const KEY: &str = "CwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCwsLCws";
const ADMIN: &str = "an-admin-token-for-tests-0123456789abcdef";

fn folder() -> Option<PathBuf> {
    let folder = std::env::var_os("SHARPFAAS_TEST_CLIENTS").map(PathBuf::from);
    if folder.is_none() {
        eprintln!("not run: SHARPFAAS_TEST_CLIENTS is not set");
    }
    folder
}

/// Encrypts or decrypts with one of the clients.
async fn with(client: &mut Command, what: &str, key: &str, claims: &Value, input: &str) -> String {
    client.arg(what).arg(key).arg("k").arg(claims.to_string());
    let piped = client.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = piped.spawn().expect("it runs");
    running.stdin.take().expect("its input").write_all(input.as_bytes()).await.expect("it reads");
    let output = running.wait_with_output().await.expect("it ends");
    assert!(output.status.success(), "{what}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("text")
}

#[tokio::test]
async fn jose_and_jwcrypto_open_what_we_make_and_we_what_they_make() {
    let Some(folder) = folder() else { return };
    let config = "[[security.payload_keys]]\nkid = \"k\"\nkey_env = \"KEY\"\n";
    let server = Server::start_in(Arc::new(tempfile::tempdir().expect("a folder")), config, &[("KEY", KEY)]);
    server.push("echo.wasm").await;
    let file = server.path("key");
    std::fs::write(&file, KEY).expect("written");
    let file = file.to_str().expect("text");
    let jose = || {
        let mut command = Command::new("node");
        command.arg(folder.join("jose.mjs"));
        command
    };
    let jwcrypto = || {
        let mut command = Command::new(folder.join("venv/bin/python"));
        command.arg(folder.join("jwcrypto_client.py"));
        command
    };
    let payload = json!({ "name": "Ada", "list": [1, 2.5, null], "text": "ü€😀" });
    let exp = chrono::Utc::now().timestamp() + 300;
    for (name, client) in [("jose", &jose as &dyn Fn() -> Command), ("jwcrypto", &jwcrypto)] {
        for claims in [json!({}), json!({ "sub": "dev/echo", "exp": exp, "jti": name })] {
            let sealed = with(&mut client(), "encrypt", file, &claims, &payload.to_string()).await;
            let fields = json!({
                "functionName": "echo", "lane": "dev", "payload": sealed, "payloadEncrypted": true, "encryptResult": true
            });
            let (status, ran) = server.run_with(fields.clone()).await;
            assert_eq!(status, 200, "{name}: {ran}");
            let result = ran["result"].as_str().expect("text");
            let opened = with(&mut client(), "decrypt", file, &json!({}), result).await;
            assert_eq!(serde_json::from_str::<Value>(&opened).expect("JSON"), payload, "{name}");
            let again = server.run_with(fields).await;
            assert_eq!(again.0, if claims["jti"].is_null() { 200 } else { 400 }, "{name}: {}", again.1);
        }
        let keys = Keys::new([("k", KEY)]).expect("a key");
        // jwcrypto can't open an empty one.
        for text in ["{}", "x", "ü€😀\n"] {
            let sealed = keys.seal("k", &Claims::default(), text).expect("sealed");
            assert_eq!(with(&mut client(), "decrypt", file, &json!({}), &sealed).await, text, "{name}");
        }
    }
}

/// The whole API, as its description has it, asked whatever it may be asked: where `SHARPFAAS_TEST_CASES` says how
/// often.
#[tokio::test]
async fn schemathesis_finds_no_breach_of_the_description() {
    let Some(folder) = folder() else { return };
    let Ok(cases) = std::env::var("SHARPFAAS_TEST_CASES") else {
        eprintln!("not run: SHARPFAAS_TEST_CASES is not set");
        return;
    };
    for guarded in [false, true] {
        let config = if guarded { "[security]\nadmin_token_env = \"ADMIN\"\n" } else { "" };
        let home = Arc::new(tempfile::tempdir().expect("a folder"));
        let mut server = Server::start_in(home, config, &[("ADMIN", ADMIN)]);
        if guarded {
            server.client = client_with(ADMIN);
        }
        server.push("echo.wasm").await;
        let mut command = Command::new(folder.join("venv/bin/schemathesis"));
        command
            .args(["--config-file"])
            .arg(folder.join("schemathesis.toml"))
            .args(["run", &server.url("/openapi.json"), "--max-examples", &cases])
            .args(["--phases", "examples,coverage,fuzzing", "--seed", "1", "--no-color", "--max-time", "40"])
            .current_dir(server.folder.path());
        if guarded {
            command.args(["--header", &format!("Authorization: Bearer {ADMIN}")]);
        }
        let output = command.output().await.expect("it runs");
        let told = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
        println!(
            "{}",
            told.lines().rev().take(12).collect::<Vec<_>>().into_iter().rev().collect::<Vec<_>>().join("\n")
        );
        assert_eq!(server.get("/readyz").await.0, 200);
    }
}
