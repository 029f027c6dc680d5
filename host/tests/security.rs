//! Who may do what, against the real binary.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::common::server::{Server, client_with};

mod canary;
mod door;
mod matrix;
pub mod payloads;
mod slow;
mod tls;
mod tokens;

/// A server with a token that may do everything, which its client has.
fn guarded(config: &str) -> Server {
    guarded_in(Arc::new(tempfile::tempdir().expect("a folder")), config)
}

fn guarded_in(folder: Arc<tempfile::TempDir>, config: &str) -> Server {
    let config = if config.contains("[security]") { config.to_owned() } else { format!("{config}\n[security]\n") };
    let config = config.replace("[security]\n", "[security]\nadmin_token_file = \"DATA/admin.token\"\n");
    let mut server = Server::start_in(folder, &config, &[]);
    server.client = client_with(&admin_of(&server));
    server
}

/// The token that the server made at its first start.
fn admin_of(server: &Server) -> String {
    let token = std::fs::read_to_string(server.path("admin.token")).expect("it was made");
    assert!(token.starts_with("sft_"), "{token}");
    token.trim().to_owned()
}

/// Makes a token; its text.
async fn make(server: &Server, wanted: Value) -> String {
    let response = server.client.post(server.url("/api/tokens")).json(&wanted).send().await.expect("an answer");
    let (status, made) = (response.status(), response.json::<Value>().await.expect("JSON"));
    assert_eq!(status, 201, "{made}");
    assert_eq!(made["serversBehind"], 0, "{made}");
    made["token"].as_str().expect("its text").to_owned()
}

/// Revokes a token.
async fn revoke(server: &Server, name: &str) -> Value {
    let response = server.client.delete(server.url(&format!("/api/tokens/{name}"))).send().await.expect("an answer");
    let (status, revoked) = (response.status(), response.json::<Value>().await.expect("JSON"));
    assert_eq!(status, 200, "{revoked}");
    revoked
}

/// The status that a token gets for something that any token may ask.
async fn known(server: &Server, token: &str) -> u16 {
    let request = server.client.post(server.url("/functions/negotiate")).bearer_auth(token);
    request.send().await.expect("an answer").status().as_u16()
}

/// A token that may do all of this in that lane.
fn scopes(name: &str, verbs: &[&str], lane: &str) -> Value {
    let mut token = json!({ "name": name });
    for verb in verbs {
        token[*verb] = json!([lane]);
    }
    token
}
