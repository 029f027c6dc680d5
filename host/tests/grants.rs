//! What components may reach: what their packages ask for and the server grants, and nothing else.

use std::sync::Arc;

use reqwest::StatusCode;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};
use tokio_rustls::TlsAcceptor;

use crate::common::{
    authority::Authority,
    fixtures::{fixture, zip},
    server::Server,
};

/// Pushes the fixture `reach` with what its package says; the answer.
async fn push(server: &Server, lane: &str, declared: &str) -> (StatusCode, Value) {
    let package = zip(&[("reach.wasm", &fixture("reach.wasm")), ("sharpfaas.toml", declared.as_bytes())]);
    server.push_zip(&format!("functionName=reach&lane={lane}"), package).await
}

/// What comes of a wish.
async fn wish(server: &Server, lane: &str, wish: Value) -> Value {
    let (status, body) =
        server.run_with(json!({ "functionName": "reach", "lane": lane, "payload": wish.to_string() })).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body["result"].clone()
}

/// A server of somebody else's, on loopback, which does that with each connection; its port.
async fn listening<F: Future<Output = ()> + Send>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            serve(socket).await;
        }
    });
    port
}

/// One that answers; its port.
async fn elsewhere() -> u16 {
    listening(answer).await
}

/// The same by TLS, with that certificate and key.
async fn elsewhere_by_tls((certificate, key): (String, String)) -> u16 {
    let certificate = CertificateDer::from_pem_slice(certificate.as_bytes()).expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("a key");
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("a certificate and its key");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    listening(move |socket| {
        let accepting = acceptor.accept(socket);
        async move {
            // Who does not trust it goes away.
            if let Ok(stream) = accepting.await {
                answer(stream).await;
            }
        }
    })
    .await
}

async fn answer(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let mut asked = vec![0; 4096];
    let count = stream.read(&mut asked).await.unwrap_or(0);
    let answer = if asked[..count].starts_with(b"GET /away") {
        "HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/secrets\r\nContent-Length: 0\r\n\r\n"
    } else {
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello"
    };
    let _ = stream.write_all(answer.as_bytes()).await;
    let _ = stream.shutdown().await;
}

#[tokio::test]
async fn without_a_grant_there_is_nothing_and_the_guest_is_told() {
    let server = Server::start("");
    let (_, pushed) =
        push(&server, "dev", "outbound = [\"http://*:*\"]\nstores = [\"default\"]\nsecrets = [\"key\"]").await;
    assert_eq!(pushed["asks"]["outbound"], json!(["http://*:*"]), "{pushed}");
    assert_eq!(pushed["granted"], Value::Null, "{pushed}");
    let port = elsewhere().await;
    for url in [format!("http://127.0.0.1:{port}/"), format!("http://localhost:{port}/"), "https://example.com/".into()]
    {
        let told = wish(&server, "dev", json!({ "fetch": url })).await;
        assert!(told["error"].as_str().is_some_and(|text| text.contains("HttpRequestDenied")), "{url}: {told}");
    }
    let told = wish(&server, "dev", json!({ "keys": ["default", []] })).await;
    assert_eq!(told, json!({ "error": "Error::AccessDenied" }));
    assert_eq!(wish(&server, "dev", json!({ "config": "key" })).await, json!({ "ok": null }));
    assert_eq!(wish(&server, "dev", json!("allConfig")).await, json!({ "ok": [] }));
    assert_eq!(wish(&server, "dev", json!("variables")).await, json!({ "ok": {} }));
    let (_, logged) =
        server.run_with(json!({ "functionName": "reach", "lane": "dev", "payload": { "log": "it\nhappened" } })).await;
    let lines: Vec<_> = logged["output"].as_array().expect("lines").iter().map(|line| line["line"].clone()).collect();
    assert_eq!(lines, ["WARN reach: it", "happened", "INFO it", "happened"], "{logged}");
}

#[tokio::test]
async fn requests_go_to_hosts_that_are_asked_for_and_granted_and_to_public_addresses() {
    let server = Server::start(
        "[[grants]]\nlanes = [\"dev\", \"inside\"]\nhosts = [\"http://127.0.0.1:*\", \"http://localhost:*\", \"http://[::1]:*\"]\n\
         [[grants]]\nlanes = [\"inside\"]\nnetworks = [\"127.0.0.0/8\", \"::1\"]\n\
         [[grants]]\nlanes = [\"other\"]\nnetworks = [\"127.0.0.0/8\"]\n",
    );
    let port = elsewhere().await;
    let fetch = async |lane: &str, url: String| wish(&server, lane, json!({ "fetch": url })).await.to_string();
    for lane in ["dev", "inside", "other"] {
        let (status, pushed) =
            push(&server, lane, "outbound = [\"http://127.0.0.1:*\", \"http://localhost:*\", \"http://192.0.2.1\"]")
                .await;
        assert_eq!(status, StatusCode::CREATED, "{pushed}");
    }
    // Granted are the hosts, not the machine behind them: neither by address nor by a name that leads there.
    for host in ["127.0.0.1", "localhost", "LOCALHOST."] {
        let told = fetch("dev", format!("http://{host}:{port}/")).await;
        assert!(told.contains("DestinationIpProhibited"), "{host}: {told}");
        let told = fetch("inside", format!("http://{host}:{port}/")).await;
        assert_eq!(told, json!({ "ok": [200, "hello"] }).to_string(), "{host}");
        // The network without the hosts is nothing.
        let told = fetch("other", format!("http://{host}:{port}/")).await;
        assert!(told.contains("HttpRequestDenied"), "{host}: {told}");
    }
    for url in [
        // Granted and not asked for, asked for and not granted, neither; another scheme.
        format!("http://[::1]:{port}/"),
        "http://192.0.2.1/".into(),
        "http://192.0.2.2/".into(),
        format!("https://127.0.0.1:{port}/"),
    ] {
        let told = fetch("inside", url.clone()).await;
        assert!(told.contains("HttpRequestDenied"), "{url}: {told}");
    }
    let told = fetch("inside", format!("http://127.0.0.1@localhost:{port}/")).await;
    assert!(told.contains("HttpRequestUriInvalid"), "{told}");
    // A redirect is an answer; who follows it asks anew.
    let told = fetch("inside", format!("http://127.0.0.1:{port}/away")).await;
    assert_eq!(told, json!({ "ok": [302, ""] }).to_string());
    let told = fetch("inside", "http://localhost:1/".into()).await;
    assert!(told.contains("ConnectionRefused"), "{told}");
}

#[tokio::test]
async fn requests_by_tls_go_to_servers_whose_certificates_the_system_trusts() {
    let folder = Arc::new(tempfile::tempdir().expect("a folder"));
    let (trusted, strange) = (Authority::new(), Authority::new());
    let certificates = folder.path().join("trusted.pem");
    std::fs::write(&certificates, &trusted.pem).expect("written");
    let server = Server::start_in(
        folder,
        "[[grants]]\nlanes = [\"dev\"]\nhosts = [\"https://localhost:*\", \"https://127.0.0.1:*\"]\n\
         networks = [\"127.0.0.0/8\", \"::1\"]\n",
        &[("SSL_CERT_FILE", certificates.to_str().expect("text"))],
    );
    let (status, pushed) = push(&server, "dev", "outbound = [\"https://localhost:*\", \"https://127.0.0.1:*\"]").await;
    assert_eq!(status, StatusCode::CREATED, "{pushed}");
    let fetch = async |url: String| wish(&server, "dev", json!({ "fetch": url })).await.to_string();

    let port = elsewhere_by_tls(trusted.issue("localhost")).await;
    for host in ["localhost", "127.0.0.1"] {
        assert_eq!(
            fetch(format!("https://{host}:{port}/")).await,
            json!({ "ok": [200, "hello"] }).to_string(),
            "{host}"
        );
    }
    let told = fetch(format!("http://localhost:{port}/")).await;
    assert!(told.contains("HttpRequestDenied"), "{told}");
    // Of somebody whom nobody trusts, for another name, and no TLS at all.
    for port in
        [elsewhere_by_tls(strange.issue("localhost")).await, elsewhere_by_tls(trusted.issue("other.example")).await]
    {
        let told = fetch(format!("https://localhost:{port}/")).await;
        assert!(told.contains("TlsCertificateError"), "{told}");
    }
    let told = fetch(format!("https://localhost:{}/", elsewhere().await)).await;
    assert!(told.contains("TlsProtocolError"), "{told}");
}

#[tokio::test]
async fn requests_by_wasi_3_need_the_same_grants() {
    let server = Server::start(
        "[[grants]]\nlanes = [\"dev\", \"inside\"]\nhosts = [\"http://127.0.0.1:*\"]\n\
         [[grants]]\nlanes = [\"inside\"]\nnetworks = [\"127.0.0.0/8\"]\n",
    );
    let port = elsewhere().await;
    for (lane, declared, told) in [
        ("dev", "outbound = [\"http://127.0.0.1:*\"]", "DestinationIpProhibited"),
        ("inside", "", "HttpRequestDenied"),
        ("inside", "outbound = [\"http://127.0.0.1:*\"]", "200 hello"),
    ] {
        let package = zip(&[("it.wasm", &fixture("wasi3-http.wasm")), ("sharpfaas.toml", declared.as_bytes())]);
        let (status, pushed) = server.push_zip(&format!("functionName=asks&lane={lane}"), package).await;
        assert_eq!(status, StatusCode::CREATED, "{pushed}");
        let path = format!("/fn/{lane}/asks/fetch?http://127.0.0.1:{port}/");
        let text = server.client.get(server.url(&path)).send().await.expect("an answer").text().await.expect("text");
        assert!(text.contains(told), "{lane} {declared}: {text}");
    }
}

#[tokio::test]
async fn configuration_and_secrets_are_given_to_who_asks_and_never_shown() {
    const SECRET: &str = "not-for-everybody-4711";
    let folder = std::sync::Arc::new(tempfile::tempdir().expect("a folder"));
    std::fs::write(folder.path().join("secret"), format!("{SECRET}\n")).expect("written");
    let config = "[server]\nlog_filter = \"trace\"\n[[grants]]\nlanes = [\"dev\"]\nconfiguration = { greeting = \"hello\", other = \"x\" }\n\
                  secrets = { key = { file = \"DATA/secret\" }, token = { env = \"TOKEN\" } }\nenvironment = { MODE = \"fast\" }\n";
    let server = Server::start_in(folder, config, &[("TOKEN", "from-the-environment")]);
    let declared = "secrets = [\"key\"]\n[configuration]\ngreeting = \"hi\"\nown = \"1\"\n[environment]\nMODE = \"slow\"\nOWN = \"2\"\n";
    for lane in ["dev", "production"] {
        push(&server, lane, declared).await;
    }
    let all = wish(&server, "dev", json!("allConfig")).await;
    assert_eq!(all, json!({ "ok": [["greeting", "hello"], ["key", SECRET], ["own", "1"]] }));
    assert_eq!(wish(&server, "dev", json!({ "config": "token" })).await, json!({ "ok": null }));
    assert_eq!(
        wish(&server, "production", json!("allConfig")).await,
        json!({ "ok": [["greeting", "hi"], ["own", "1"]] })
    );
    assert_eq!(wish(&server, "dev", json!("variables")).await, json!({ "ok": { "MODE": "fast", "OWN": "2" } }));
    assert_eq!(wish(&server, "production", json!("variables")).await, json!({ "ok": { "MODE": "slow", "OWN": "2" } }));

    let (_, shown) = server.get("/api/functions/reach/dev/latest").await;
    assert_eq!(shown["asks"]["secrets"], json!(["key"]), "{shown}");
    assert_eq!(shown["granted"]["secrets"], json!(["key", "token"]), "{shown}");
    assert_eq!(shown["asks"]["configuration"], json!(["greeting", "own"]), "{shown}");
    let (_, listed) = server.get("/api/functions/reach").await;
    let log = server.log.lock().expect("the log").clone();
    for text in [shown.to_string(), listed.to_string(), log] {
        assert!(!text.contains(SECRET) && !text.contains("from-the-environment"));
    }
    let refusal = Server::refusal("[[grants]]\nsecrets = { key = { file = \"/nowhere/secret\" } }\n");
    assert!(refusal.contains("secrets.key") && refusal.contains("/nowhere/secret"), "{refusal}");
}

#[tokio::test]
async fn values_are_kept_for_each_function_and_lane_within_bounds() {
    let mut server = Server::start(
        "[key_values]\nvalue_bytes = 1000\nstore_bytes = 2500\nkeys = 20\n[[grants]]\nlanes = [\"dev\", \"test\"]\nstores = [\"*\"]\n",
    );
    for lane in ["dev", "test", "production"] {
        push(&server, lane, "stores = [\"default\", \"more\"]").await;
    }
    let told = wish(
        &server,
        "dev",
        json!({ "keys": ["default", [
            { "get": "a" }, { "set": ["a", "1"] }, { "get": "a" }, { "exists": "a" }, { "increment": ["a", 41] },
            { "increment": ["new", 7] }, { "setMany": [["b", "x"], ["c", "y"]] }, { "getMany": ["c", "none", "b"] },
            { "list": null }, { "deleteMany": ["b", "none"] }, { "delete": "c" }, { "exists": "c" },
            { "set": ["text", "word"] }, { "increment": ["text", 1] }, { "list": 2 },
        ]] }),
    )
    .await;
    let number = "Error::Other(\"the value of \\\"text\\\" is no whole number in decimal digits, or would become too large for one\")";
    assert_eq!(
        told,
        json!([
            { "ok": null }, { "ok": null }, { "ok": "1" }, { "ok": true }, { "ok": 42 }, { "ok": 7 }, { "ok": null },
            { "ok": [["c", "y"], null, ["b", "x"]] }, { "ok": [["a", "b", "c", "new"], null] }, { "ok": null }, { "ok": null },
            { "ok": false }, { "ok": null }, { "error": number }, { "ok": [["text"], null] },
        ])
    );
    // Others have their own, or none.
    assert_eq!(
        wish(&server, "test", json!({ "keys": ["default", [{ "list": null }]] })).await,
        json!([{ "ok": [[], null] }])
    );
    assert_eq!(
        wish(&server, "dev", json!({ "keys": ["more", [{ "list": null }]] })).await,
        json!([{ "ok": [[], null] }])
    );
    for (lane, name) in [("production", "default"), ("dev", "undeclared")] {
        let told = wish(&server, lane, json!({ "keys": [name, []] })).await;
        assert_eq!(told, json!({ "error": "Error::AccessDenied" }), "{lane}");
    }
    // Bounds: of a value, of a store, of keys.
    let told = wish(
        &server,
        "test",
        json!({ "keys": ["default", [
            { "fill": ["a", 1001] }, { "fill": ["a", 1000] }, { "fill": ["b", 1000] }, { "fill": ["c", 1000] },
            { "delete": "a" }, { "fill": ["c", 1000] }, { "set": ["", "x"] }, { "list": null },
        ]] }),
    )
    .await;
    let refused = |at: usize, said: &str| {
        assert!(told[at]["error"].as_str().is_some_and(|text| text.contains(said)), "{at}: {told}");
    };
    refused(0, "1000 bytes");
    refused(3, "2500 bytes");
    refused(6, "1 to 1024 bytes");
    assert_eq!((&told[5], &told[7]), (&json!({ "ok": null }), &json!({ "ok": [["b", "c"], null] })), "{told}");
    let many: Vec<_> = (0..25).map(|number| json!([format!("k{number}"), ""])).collect();
    let told = wish(&server, "dev", json!({ "keys": ["more", [{ "setMany": many }, { "list": null }]] })).await;
    assert!(told[0]["error"].as_str().is_some_and(|text| text.contains("20 keys")), "{told}");
    assert_eq!(told[1], json!({ "ok": [[], null] }), "{told}");

    // At once: no step is lost.
    let adds = (0..20).map(|_| wish(&server, "dev", json!({ "keys": ["default", [{ "increment": ["sum", 5] }]] })));
    futures_util::future::join_all(adds).await;
    server.stop();
    server.restart();
    let told = wish(&server, "dev", json!({ "keys": ["default", [{ "get": "sum" }, { "get": "a" }]] })).await;
    assert_eq!(told, json!([{ "ok": "100" }, { "ok": "42" }]));
}

#[tokio::test]
async fn limits_of_a_package_go_down_and_not_up() {
    let server = Server::start("[limits]\ndeadline_seconds = 3\nresult_bytes = 1000\n");
    let push = async |name: &str, limits: &str| {
        let package = zip(&[("f.wasm", &fixture(name)), ("sharpfaas.toml", format!("[limits]\n{limits}").as_bytes())]);
        let (status, pushed) = server.push_zip("functionName=limited&lane=dev", package).await;
        assert_eq!(status, StatusCode::CREATED, "{pushed}");
        pushed["version"].as_str().expect("a version").to_owned()
    };
    let run = async |version: &str, payload: Value| {
        let fields = json!({ "functionName": "limited", "lane": "dev", "version": version, "payload": payload });
        server.run_with(fields).await.1
    };
    let quick = push("sleep.wasm", "deadline_seconds = 1").await;
    let slow = push("sleep.wasm", "deadline_seconds = 3600").await;
    let little = push("eat-memory.wasm", "memory_bytes = 8388608").await;
    let short = push("echo.wasm", "result_bytes = 10").await;
    assert_eq!(run(&quick, json!(2000)).await["code"], "deadline_exceeded");
    assert_eq!(run(&slow, json!(2000)).await["status"], "succeeded");
    assert_eq!(run(&slow, json!(60_000)).await["code"], "deadline_exceeded");
    let told = run(&little, json!(64)).await;
    assert!(told["code"] == "memory_exceeded" && told["detail"].to_string().contains("8 MiB"), "{told}");
    assert!(run(&short, json!("more than ten bytes")).await["detail"].to_string().contains("may have 10"));
}

#[tokio::test]
async fn what_a_package_says_wrong_is_told() {
    let server = Server::start("");
    for (declared, said) in [
        ("outbound = [\"api.example.com\"]", "https://api.example.com"),
        ("outbound = \"https://a\"", "sequence"),
        ("[limits]\nmemory = 1", "memory_bytes"),
        ("[environment]\nHOME = \"/\"", "'HOME'"),
        ("[environment]\n\"A B\" = \"\"", "'A B'"),
        ("files = [\"/\"]", "`files`"),
    ] {
        let (status, body) = push(&server, "dev", declared).await;
        assert_eq!((status, &body["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_package")), "{declared}: {body}");
        assert!(body["detail"].as_str().is_some_and(|text| text.contains(said)), "{declared}: {body}");
    }
    for (config, said) in [
        ("[[grants]]\nhosts = [\"example.com\"]\n", "pattern of hosts"),
        ("[[grants]]\nnetworks = [\"10.0.0.0/40\"]\n", "network"),
        ("[key_values]\nkeys = 0\n", "0 is out of bounds"),
    ] {
        let refusal = Server::refusal(config);
        assert!(refusal.contains(said), "{config}: {refusal}");
    }
}
