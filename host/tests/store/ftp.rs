//! An FTP server in this process: the rules of every store, and what goes wrong on the way.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use libunftp::options::TlsFlags;
use sharpfaas_host::{
    config::StoreConfig,
    store::{Commit, StoreError},
};
use tempfile::TempDir;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
};

use super::{
    Backend,
    conformance::{Push, at, conformance},
};
use crate::common::{
    ftp_proxy::{FtpProxy, Mishap},
    ftp_server::{FtpServer, Options, Rename, tls_file},
};

/// Quick enough for tests of what times out.
fn config(address: SocketAddr) -> StoreConfig {
    StoreConfig {
        url: format!("ftp://{address}/some/store").parse().unwrap(),
        timeout_seconds: 1,
        ..StoreConfig::default()
    }
}

async fn start() -> Option<Backend> {
    let folder = TempDir::new().unwrap();
    let server = FtpServer::start(folder.path(), Options::default());
    let path = folder.path().join("some/store");
    let config = StoreConfig { timeout_seconds: 10, ..config(server.address) };
    Some(Backend { config, password: None, path, _guard: Box::new((server, folder)) })
}

conformance!(start);

/// A store on a server that speaks these versions of TLS and nothing else.
fn secured(versions: TlsFlags) -> Backend {
    let folder = TempDir::new().unwrap();
    let server = FtpServer::start(folder.path(), Options { rename: Rename::Fails, tls: Some(versions) });
    let path = folder.path().join("some/store");
    let config = StoreConfig {
        url: format!("ftps://{}/some/store", server.address).parse().unwrap(),
        ca_file: Some(tls_file("ca.pem")),
        ..StoreConfig::default()
    };
    Backend { config, password: None, path, _guard: Box::new((server, folder)) }
}

mod tls {
    use super::*;

    async fn start() -> Option<Backend> {
        Some(secured(TlsFlags::LATEST_VERSIONS))
    }

    conformance!(start);

    #[tokio::test]
    async fn a_server_with_nothing_but_tls_1_3_can_be_used() {
        super::super::conformance::publishes_a_version_whole(&secured(TlsFlags::V1_3)).await;
    }

    #[tokio::test]
    async fn a_certificate_of_nobody_we_trust_is_refused() {
        let mut backend = secured(TlsFlags::LATEST_VERSIONS);
        backend.config.ca_file = Some(tls_file("other-ca.pem"));
        let error = backend.open().ping().await.unwrap_err();
        assert!(matches!(&error, StoreError::Unusable(text) if text.contains("certificate")), "{error:?}");
    }

    #[tokio::test]
    async fn nothing_is_said_in_plain_text_to_a_server_without_tls() {
        let Proxied { mut backend, proxy, server: _server } = proxied().await;
        backend.config.url = format!("ftps://{}/some/store", proxy.address).parse().unwrap();
        backend.config.ca_file = Some(tls_file("ca.pem"));
        backend.open().ping().await.unwrap_err();
        assert_eq!((proxy.count("AUTH"), proxy.count("USER"), proxy.count("PASS")), (1, 0, 0));
    }
}

/// A store behind a proxy.
struct Proxied {
    backend: Backend,
    proxy: FtpProxy,
    server: FtpServer,
}

async fn proxied() -> Proxied {
    let folder = TempDir::new().unwrap();
    let server = FtpServer::start(folder.path(), Options::default());
    let proxy = FtpProxy::start(server.address).await;
    let path = folder.path().join("some/store");
    let backend = Backend { config: config(proxy.address), password: None, path, _guard: Box::new(folder) };
    Proxied { backend, proxy, server }
}

#[tokio::test]
async fn the_probe_refuses_a_server_whose_rename_replaces() {
    let folder = TempDir::new().unwrap();
    let server = FtpServer::start(folder.path(), Options { rename: Rename::Replaces, tls: None });
    let backend =
        Backend { config: config(server.address), password: None, path: folder.path().into(), _guard: Box::new(()) };
    let error = backend.open().probe().await.unwrap_err();
    assert!(matches!(&error, StoreError::Unusable(text) if text.contains("rename")), "{error}");
    assert_eq!(std::fs::read_dir(folder.path().join("some/store/.staging")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_rename_whose_answer_got_lost_is_found_out() {
    let Proxied { backend, proxy, server: _server } = proxied().await;
    let store = backend.open();
    for (version, mishap) in [
        ("1.0", Mishap::LosesAnswer("RNTO")),
        ("1.1", Mishap::HoldsAnswer("RNTO")),
        ("1.2", Mishap::LosesAnswer("RNFR")),
        ("1.3", Mishap::LosesAnswer("MKD")),
    ] {
        let push = Push::new(10);
        push.stage(&store).await;
        proxy.add(mishap);
        let location = at("dev", version, "f");
        assert_eq!(store.commit(push.id, &location).await.unwrap(), Commit::Done, "{version}");
        push.verify(&store, &location).await;
        // The same for one that lost the number.
        let late = Push::new(10);
        late.stage(&store).await;
        proxy.add(Mishap::LosesAnswer("RNTO"));
        assert_eq!(store.commit(late.id, &location).await.unwrap(), Commit::Taken, "{version}");
        push.verify(&store, &location).await;
    }
}

#[tokio::test]
async fn every_other_step_is_repeated_when_the_connection_breaks() {
    let Proxied { backend, proxy, server: _server } = proxied().await;
    let store = backend.open();
    let (push, location) = (Push::new(300_000), at("dev", "1.0", "f"));
    for verb in ["MKD", "STOR", "SIZE"] {
        proxy.add(Mishap::LosesAnswer(verb));
        push.stage(&store).await;
    }
    assert_eq!(store.commit(push.id, &location).await.unwrap(), Commit::Done);
    proxy.add(Mishap::LosesAnswer("RETR"));
    push.verify(&store, &location).await;
    proxy.add(Mishap::LosesAnswer("NLST"));
    assert_eq!(store.lanes().await.unwrap(), [location.lane]);
    push.stage(&store).await;
    proxy.add(Mishap::LosesAnswer("DELE"));
    store.discard(push.id).await.unwrap();
    proxy.add(Mishap::LosesAnswer("RNTO"));
    store.probe().await.unwrap();
    assert_eq!(std::fs::read_dir(backend.path.join(".staging")).unwrap().count(), 0);
}

#[tokio::test]
async fn connections_that_the_server_dropped_are_made_again() {
    let Proxied { mut backend, proxy, server: _server } = proxied().await;
    // Also where nothing is retried, once it is asked whether they live.
    backend.config.retries = 3;
    let store = backend.open();
    for _ in 0..3 {
        store.ping().await.unwrap();
        proxy.until_open(1).await;
        proxy.cut();
        proxy.until_open(0).await;
    }
    store.ping().await.unwrap();
}

#[tokio::test]
async fn there_are_never_more_connections_than_configured_and_none_when_idle() {
    let Proxied { mut backend, proxy, server: _server } = proxied().await;
    backend.config.connections = 3;
    backend.config.idle_seconds = 1;
    backend.config.timeout_seconds = 10;
    let store = backend.open();
    let tasks: Vec<_> = (0..20)
        .map(|i| {
            let store = store.clone();
            tokio::spawn(async move {
                let push = Push::new(10_000);
                push.stage(&store).await;
                let location = at("dev", "1.0", &format!("f{i}"));
                assert_eq!(store.commit(push.id, &location).await.unwrap(), Commit::Done);
                push.verify(&store, &location).await;
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(proxy.most(), 3);
    assert_eq!(proxy.count("PASS"), 3);
    tokio::time::timeout(Duration::from_secs(10), proxy.until_open(0)).await.expect("idle connections are closed");
    store.ping().await.unwrap();
}

#[tokio::test]
async fn data_connections_go_to_the_control_peer_whatever_pasv_says() {
    let Proxied { backend, proxy, server: _server } = proxied().await;
    proxy.add(Mishap::Answers("EPSV", "500 what?"));
    proxy.add(Mishap::ForgesPasv);
    let store = backend.open();
    let (push, location) = (Push::new(100_000), at("dev", "1.0", "f"));
    push.stage(&store).await;
    assert_eq!(store.commit(push.id, &location).await.unwrap(), Commit::Done);
    push.verify(&store, &location).await;
    assert_eq!(proxy.count("EPSV"), 1, "what the server has not is remembered");
    assert!(proxy.count("PASV") >= 4);
}

#[tokio::test]
async fn sizes_come_from_the_listing_where_there_is_no_size() {
    let Proxied { backend, proxy, server: _server } = proxied().await;
    proxy.add(Mishap::Answers("SIZE", "502 no"));
    Push::new(100_000).stage(&backend.open()).await;
    assert_eq!(proxy.count("LIST"), 2);
}

#[tokio::test]
async fn a_size_that_differs_is_refused() {
    let Proxied { backend, proxy, server: _server } = proxied().await;
    proxy.add(Mishap::Answers("SIZE", "213 7"));
    let push = Push::new(8);
    let error = backend.open().stage(push.id, &push.package, &push.manifest).await.unwrap_err();
    assert!(matches!(error, StoreError::Unusable(_)), "{error}");
}

#[tokio::test]
async fn a_refused_login_is_final() {
    let Proxied { backend, proxy, server: _server } = proxied().await;
    proxy.add(Mishap::Answers("PASS", "530 no\u{7} such user"));
    let error = backend.open().ping().await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Unusable(text) if text.contains("530") && !text.contains('\u{7}')),
        "{error:?}"
    );
    assert_eq!(proxy.count("PASS"), 1);
}

#[tokio::test]
async fn a_full_server_says_so() {
    let Proxied { backend, proxy, server: _server } = proxied().await;
    proxy.add(Mishap::Answers("STOR", "552 disk full"));
    let push = Push::new(8);
    let error = backend.open().stage(push.id, &push.package, &push.manifest).await.unwrap_err();
    assert!(matches!(&error, StoreError::Unusable(text) if text.contains("disk full")), "{error}");
}

/// A server that accepts and does `talk`; the connections stay open as long as the listener's task.
async fn silent(talk: &'static [u8]) -> (SocketAddr, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        let mut open: Vec<TcpStream> = Vec::new();
        while let Ok((mut socket, _)) = listener.accept().await {
            let _ = socket.write_all(talk).await;
            open.push(socket);
        }
    });
    (address, task)
}

#[tokio::test]
async fn a_server_that_never_answers_is_unavailable_in_bounded_time() {
    let talks: [&'static [u8]; 3] = [b"", b"220-wel", b"220 hello\r\n"];
    for talk in talks {
        let (address, task) = silent(talk).await;
        let mut config = config(address);
        config.connections = 2;
        let backend = Backend { config, password: None, path: "/nowhere".into(), _guard: Box::new(()) };
        let store = backend.open();
        let began = Instant::now();
        let calls: Vec<_> = (0..20)
            .map(|_| {
                let store = store.clone();
                tokio::spawn(async move { store.manifest(&at("dev", "1.0", "f")).await })
            })
            .collect();
        for call in calls {
            let error = call.await.unwrap().unwrap_err();
            assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        }
        assert!(began.elapsed() < Duration::from_secs(5), "{:?} for {talk:?}", began.elapsed());
        // And what is dropped meanwhile keeps no connection.
        assert!(tokio::time::timeout(Duration::from_millis(50), store.ping()).await.is_err());
        task.abort();
    }
}

#[tokio::test]
async fn a_server_that_never_stops_is_cut_off() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move { while socket.write_all(&[b'2'; 65536]).await.is_ok() {} });
        }
    });
    let backend = Backend { config: config(address), password: None, path: "/nowhere".into(), _guard: Box::new(()) };
    let error = backend.open().ping().await.unwrap_err();
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    task.abort();
}

#[tokio::test]
async fn a_server_that_was_away_is_used_again() {
    let Proxied { mut backend, proxy, mut server } = proxied().await;
    backend.config.url = format!("ftp://{}/some/store", server.address).parse().unwrap();
    drop(proxy);
    let store = backend.open();
    let (push, location) = (Push::new(100_000), at("dev", "1.0", "f"));
    push.stage(&store).await;
    server.kill();
    let began = Instant::now();
    for _ in 0..2 {
        let error = store.commit(push.id, &location).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        let error = store.manifest(&location).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    }
    assert!(began.elapsed() < Duration::from_secs(15));
    server.restart();
    assert_eq!(store.commit(push.id, &location).await.unwrap(), Commit::Done);
    push.verify(&store, &location).await;
    server.restart();
    push.verify(&store, &location).await;
}
