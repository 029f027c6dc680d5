//! The same component under `wasmtime serve` and under this server. Run by hand, with `SHARPFAAS_TEST_WASMTIME` naming
//! the program `wasmtime` of version 48 (`cargo install wasmtime-cli`), which takes long to build.

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::{StreamExt, stream};
use reqwest::{Body, Client, Method, Response};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::common::{
    fixtures::{fixture, zipped},
    server::{Server, client},
};

/// More than either could keep.
const LARGE: u64 = 100 << 20;

/// Kills what it holds when it is dropped.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server of wasmtime's for that component, and its address.
fn wasmtime(program: &str, component: &Path) -> (Ended, String) {
    let mut process = Command::new(program)
        .args(["serve", "--addr", "127.0.0.1:0", "-S", "cli=y,p3=y", "-W", "component-model-async=y"])
        .arg(component)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("wasmtime can be started");
    let lines = BufReader::new(process.stderr.take().expect("its log")).lines();
    let process = Ended(process);
    let mut said = String::new();
    let mut lines = lines.map_while(Result::ok);
    for line in lines.by_ref() {
        if let Some((_, address)) = line.split_once("http://") {
            let url = format!("http://{}", address.trim_end_matches('/'));
            // It writes its log there, too.
            std::thread::spawn(move || lines.for_each(drop));
            return (process, url);
        }
        said += &line;
    }
    panic!("wasmtime serves nothing: {said}");
}

/// What a server answers, as far as that is the component's: status, headers, body.
async fn told(response: Response) -> (u16, Vec<(String, Vec<u8>)>, Result<u64, ()>) {
    const OWN: [&str; 5] = ["date", "connection", "transfer-encoding", "content-length", "sharpfaas-invocation-id"];
    let status = response.status().as_u16();
    let headers = response.headers().iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()));
    let mut headers: Vec<_> = headers.filter(|(name, _)| !OWN.contains(&name.as_str())).collect();
    headers.sort();
    // The length and the bytes of a body.
    let mut body = response.bytes_stream();
    let (mut length, mut sum) = (0_u64, 0_u64);
    while let Some(piece) = body.next().await {
        let Ok(piece) = piece else { return (status, headers, Err(())) };
        length += piece.len() as u64;
        sum = piece.iter().fold(sum, |sum, byte| sum.wrapping_mul(31).wrapping_add(u64::from(*byte)));
    }
    (status, headers, Ok(length ^ sum))
}

/// A body of so many bytes, sent in chunks.
fn chunked(bytes: u64) -> Body {
    let piece = bytes::Bytes::from(vec![b'z'; 64 * 1024]);
    let pieces = bytes / piece.len() as u64;
    Body::wrap_stream(stream::iter((0..pieces).map(move |_| Ok::<_, std::io::Error>(piece.clone()))))
}

/// Asks for each of these, and gives what was told.
async fn ask(client: &Client, base: &str, method: &Method, path: &str, body: Option<Body>) -> Response {
    let mut request = client.request(method.clone(), format!("{base}{path}")).header("Content-Type", "text/x-mine");
    if let Some(body) = body {
        request = request.body(body);
    }
    request.send().await.expect("an answer")
}

/// The host of a URL, and the path behind it.
fn parts(base: &str) -> (&str, String) {
    let rest = base.trim_start_matches("http://");
    rest.split_once('/').map_or((rest, String::new()), |(host, path)| (host, format!("/{path}")))
}

/// What stands behind the last piece of an answer.
async fn trailers(base: &str, te: &str) -> String {
    let (host, prefix) = parts(base);
    let mut socket = TcpStream::connect(host).await.expect("a connection");
    let request = format!("GET {prefix}/trailers HTTP/1.1\r\nHost: {host}\r\n{te}Connection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    answer.rsplit_once("\r\n0\r\n").expect("a last chunk").1.to_owned()
}

/// What a function reads behind the body of a request.
async fn behind(base: &str) -> String {
    let (host, prefix) = parts(base);
    let mut socket = TcpStream::connect(host).await.expect("a connection");
    let request = format!(
        "POST {prefix}/behind HTTP/1.1\r\nHost: {host}\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\
         Connection: close\r\n\r\n3\r\nAda\r\n0\r\nX-Sum: 1\r\nx-silent: 2\r\n\r\n"
    );
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).await.expect("an answer");
    let json = answer.find('{').zip(answer.rfind('}')).and_then(|(from, to)| answer.get(from..=to));
    json.expect("JSON").to_owned()
}

/// Hangs up while an answer comes.
async fn hang_up(base: &str) {
    let (host, prefix) = parts(base);
    let mut socket = TcpStream::connect(host).await.expect("a connection");
    let request = format!("GET {prefix}/trickle HTTP/1.1\r\nHost: {host}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut first = vec![0; 1000];
    assert!(socket.read(&mut first).await.expect("the beginning") > 0);
}

#[tokio::test]
#[ignore = "needs the program wasmtime, named by SHARPFAAS_TEST_WASMTIME"]
async fn a_component_answers_here_as_under_wasmtime_serve() {
    let program = std::env::var("SHARPFAAS_TEST_WASMTIME").expect("SHARPFAAS_TEST_WASMTIME names wasmtime");
    let client = client();
    for name in ["http.wasm", "wasi3-http.wasm"] {
        let folder = tempfile::tempdir().expect("a folder");
        let component = folder.path().join(name);
        std::fs::write(&component, fixture(name)).expect("written");
        let (_wasmtime, theirs) = wasmtime(&program, &component);
        let server = Server::start("[limits]\ndeadline_seconds = 600");
        let (_, pushed) = server.push_zip("functionName=it&lane=dev", zipped(name)).await;
        assert_eq!(pushed["shape"], "http", "{pushed}");
        let ours = server.url("/fn/dev/it");

        for (method, path, body) in [
            (Method::GET, "/status?200", None),
            (Method::GET, "/status?204", None),
            (Method::GET, "/status?418", None),
            (Method::GET, "/not-allowed", None),
            (Method::GET, "/ask", None),
            (Method::GET, "/hop", None),
            (Method::GET, "/trailers", None),
            (Method::GET, "/no/such/path", None),
            (Method::HEAD, "/head", None),
            (Method::HEAD, "/large?100000", None),
            (Method::GET, "/head", None),
            (Method::PUT, "/echo", Some(1_u64 << 16)),
            (Method::POST, "/count", Some(10 << 16)),
            (Method::POST, "/count", Some(LARGE)),
            (Method::GET, "/large?104857600", None),
            (Method::POST, "/echo", Some(LARGE)),
        ] {
            let mut answers = Vec::new();
            for base in [&theirs, &ours] {
                let response = ask(&client, base, &method, path, body.map(chunked)).await;
                let length = response.headers().get("content-length").cloned();
                answers.push((told(response).await, if method == Method::HEAD { length } else { None }));
            }
            assert_eq!(answers[0], answers[1], "{name}: {method} {path}");
        }
        for (te, expected) in [("TE: trailers\r\n", "x-sum: 17\r\n\r\n"), ("", "\r\n")] {
            for base in [&theirs, &ours] {
                assert_eq!(trailers(base, te).await, expected, "{name}: {base} {te}");
            }
        }
        for base in [&theirs, &ours] {
            // Of those of one name, `wasmtime serve` keeps the last alone.
            let fields = r#"[["x-silent","2"],["x-sum","1"]]"#;
            assert_eq!(behind(base).await, format!(r#"{{"fields":{fields},"length":3}}"#), "{name}: {base}");
        }
        // What is said of a handler that crashes is the server's own; that it is the server's fault is not.
        for path in ["/trap", "/nothing"] {
            for base in [&theirs, &ours] {
                assert_eq!(ask(&client, base, &Method::GET, path, None).await.status(), 500, "{name}: {base}{path}");
            }
        }
        // `wasmtime serve` may end such an answer as if it were whole.
        let broken = match client.get(format!("{ours}/breaks-off")).send().await {
            Ok(response) => told(response).await.2.is_err(),
            Err(_) => true,
        };
        assert!(broken, "{name}: /breaks-off");
        for base in [&theirs, &ours] {
            hang_up(base).await;
            let never = client.get(format!("{base}/never")).send();
            let never = tokio::time::timeout(Duration::from_secs(1), never).await;
            assert!(never.is_err(), "{name}: {base}/never");
            // None of it holds up the next one.
            assert_eq!(ask(&client, base, &Method::GET, "/status?200", None).await.status(), 200, "{name}: {base}");
        }
    }
}
