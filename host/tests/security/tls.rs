//! TLS with the real server: its certificate, another one while it runs, and clients with certificates.

use std::{path::Path, sync::Arc};

use reqwest::{Certificate, Client, Identity};

use super::{guarded_in, make, revoke, scopes};
use crate::common::{authority::Authority, process::eventually, server::PATIENCE};

impl Authority {
    fn client(&self, identity: Option<&(String, String)>) -> Client {
        let builder = Client::builder()
            .timeout(PATIENCE)
            .pool_max_idle_per_host(0)
            .tls_certs_only([Certificate::from_pem(self.pem.as_bytes()).expect("a certificate")]);
        match identity {
            None => builder.build().expect("a client"),
            Some((certificate, key)) => {
                let identity = Identity::from_pem(format!("{certificate}{key}").as_bytes()).expect("an identity");
                builder.identity(identity).build().expect("a client")
            }
        }
    }
}

fn write(folder: &Path, (certificate, key): &(String, String)) {
    std::fs::write(folder.join("server.pem"), certificate).expect("written");
    std::fs::write(folder.join("server.key"), key).expect("written");
}

#[tokio::test]
async fn certificates_of_servers_and_clients() {
    // Whoever makes a client first says which ciphers.
    drop(crate::common::server::client());
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let (first, second, for_clients, strange) =
        (Authority::new(), Authority::new(), Authority::new(), Authority::new());
    write(folder.path(), &first.issue("localhost"));
    std::fs::write(folder.path().join("clients.pem"), &for_clients.pem).expect("written");
    let config = "[security]\n[security.tls]\ncert_file = \"DATA/server.pem\"\nkey_file = \"DATA/server.key\"\n\
                  client_ca_file = \"DATA/clients.pem\"\nclients = { \"Build.example\" = \"ci\", \"b.example\" = \"gone\" }\n";
    let mut server = guarded_in(folder.clone(), config);
    assert!(server.url.starts_with("https://"), "{}", server.url);
    let admin = super::admin_of(&server);
    server.client = first.client(None);
    let health = server.url("/healthz");
    assert_eq!(server.client.get(&health).send().await.expect("an answer").status(), 200);
    assert!(second.client(None).get(&health).send().await.is_err());
    let clear = health.replacen("https", "http", 1);
    assert!(first.client(None).get(clear).send().await.is_err());

    // Another certificate, while it runs; and one that does not go with its key is left alone.
    let renewed = second.issue("localhost");
    write(folder.path(), &renewed);
    let started = std::time::Instant::now();
    while second.client(None).get(&health).send().await.is_err() {
        assert!(started.elapsed() < PATIENCE, "the certificate is not read again");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(first.client(None).get(&health).send().await.is_err());
    std::fs::write(folder.path().join("server.pem"), first.issue("localhost").0).expect("written");
    eventually("it says so", || {
        let log = server.log.lock().expect("the log").clone();
        if log.contains("the last one stays") { Ok(()) } else { Err(log) }
    })
    .await;
    assert_eq!(second.client(None).get(&health).send().await.expect("an answer").status(), 200);

    // A client's certificate stands for a token, as long as there is that token.
    let admin_client = |client: Client| async move {
        let request = client.get(server.url("/api/functions")).bearer_auth(&admin);
        (request.send().await.expect("an answer").status(), server, admin)
    };
    let (status, mut server, admin) = admin_client(second.client(None)).await;
    assert_eq!(status, 200);
    server.client = {
        let mut headers = reqwest::header::HeaderMap::new();
        headers.insert("authorization", format!("Bearer {admin}").parse().expect("a header"));
        Client::builder()
            .default_headers(headers)
            .tls_certs_only([Certificate::from_pem(second.pem.as_bytes()).expect("a certificate")])
            .build()
            .expect("a client")
    };
    let ask = async |identity: (String, String)| {
        let answer = second.client(Some(&identity)).get(server.url("/api/functions")).send().await;
        answer.map(|answer| answer.status().as_u16()).ok()
    };
    let ci = for_clients.issue("build.example");
    assert_eq!(ask(ci.clone()).await, Some(401), "there is no such token yet");
    make(&server, scopes("ci", &["read"], "*")).await;
    assert_eq!(ask(ci.clone()).await, Some(200));
    assert_eq!(ask(for_clients.issue("b.example")).await, Some(401), "a name without a token");
    assert_eq!(ask(for_clients.issue("c.example")).await, Some(401), "a name that is not known");
    assert_eq!(ask(strange.issue("build.example")).await, None, "somebody else's certificate");
    assert_eq!(server.client.get(server.url("/api/tokens")).send().await.expect("an answer").status(), 200);
    revoke(&server, "ci").await;
    assert_eq!(ask(ci).await, Some(401));
}
