//! Functions at their routes: HTTP in, HTTP out.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use reqwest::{Body, Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::common::{
    fixtures::zipped,
    server::{PATIENCE, Server},
};

/// More than memory may grow by while it passes.
const LARGE: u64 = 100 << 20;
/// How much more memory than before the server may have while bodies pass through it, in bytes.
const FLAT: u64 = 40 << 20;

/// Servers whose function `http` is the same for each generation of WASI.
async fn servers(config: &str) -> Vec<Server> {
    let mut servers = Vec::new();
    for fixture in ["http.wasm", "wasi3-http.wasm"] {
        let server = Server::start(config);
        let (status, pushed) = server.push_zip("functionName=http&lane=dev", zipped(fixture)).await;
        assert_eq!((status, &pushed["shape"]), (StatusCode::CREATED, &json!("http")), "{pushed}");
        servers.push(server);
    }
    servers
}

/// A request to the function's route.
fn ask(server: &Server, method: Method, path: &str) -> reqwest::RequestBuilder {
    server.client.request(method, server.url(&format!("/fn/dev/http{path}")))
}

async fn get(server: &Server, path: &str) -> reqwest::Response {
    ask(server, Method::GET, path).send().await.expect("an answer")
}

/// A body of so many bytes, sent in chunks.
fn chunked(bytes: u64) -> Body {
    let piece = bytes::Bytes::from(vec![b'y'; 64 * 1024]);
    let pieces = bytes.div_ceil(piece.len() as u64);
    Body::wrap_stream(stream::iter((0..pieces).map(move |at| {
        let left = bytes - at * piece.len() as u64;
        Ok::<_, std::io::Error>(piece.slice(..piece.len().min(usize::try_from(left).expect("small"))))
    })))
}

/// The newest call, once it has ended.
async fn newest(server: &Server, status: &str) -> Value {
    let call = server.call_when_of("http", status).await;
    server.ended(call["invocationId"].as_str().expect("an id")).await
}

#[tokio::test]
async fn a_request_goes_in_and_its_answer_comes_out() {
    for server in servers("").await {
        for method in ["GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "PURGE"] {
            let method: Method = method.parse().expect("a method");
            let asked = ask(&server, method.clone(), "/told?a=1&b=%20x")
                .header("X-Own", "1")
                .header("Authorization", "Bearer nothing")
                .header("Keep-Alive", "5");
            let response = asked.send().await.expect("an answer");
            assert_eq!(
                (response.status(), &response.headers()["content-type"]),
                (StatusCode::OK, &"application/json".parse().expect("a header"))
            );
            let told: Value = response.json().await.expect("JSON");
            assert_eq!(told["path"], "/told?a=1&b=%20x", "{told}");
            assert!(told["method"].as_str().is_some_and(|told| told.eq_ignore_ascii_case(method.as_str())), "{told}");
            assert_eq!(
                (&told["scheme"], &told["authority"]),
                (&json!("http"), &json!(server.url.trim_start_matches("http://")))
            );
            let header = |name: &str| {
                let headers = told["headers"].as_array().expect("headers");
                headers.iter().find(|pair| pair[0] == name).map(|pair| pair[1].clone())
            };
            assert_eq!(header("x-own"), Some(json!("1")));
            assert_eq!((header("authorization"), header("keep-alive"), header("host")), (None, None, None), "{told}");
            assert_eq!(header("x-forwarded-for"), Some(json!("127.0.0.1")));
            assert_eq!(header("x-forwarded-prefix"), Some(json!("/fn/dev/http")));
        }
        for (path, status, said) in [
            ("/status?204", 204, ""),
            ("/status?418", 418, "as you wished"),
            ("/not-allowed", 405, "my own words"),
            ("/ask", 401, "who are you"),
            ("/elsewhere", 404, "no such path"),
            ("", 200, ""),
        ] {
            let response = get(&server, path).await;
            assert_eq!(response.status(), status, "{path}");
            assert_eq!(response.text().await.expect("text"), said, "{path}");
        }
        let response = get(&server, "/hop").await;
        let many: Vec<_> = response.headers().get_all("x-many").iter().collect();
        assert_eq!(many, ["1", "2"]);
        assert_eq!(response.headers()["x-own"], "kept");
        assert!(!response.headers().contains_key("content-type"), "{:?}", response.headers());
    }
}

#[tokio::test]
async fn head_is_answered_without_a_body() {
    for server in servers("").await {
        for path in ["/head", "/large?100000"] {
            let response = ask(&server, Method::HEAD, path).send().await.expect("an answer");
            assert_eq!(response.status(), StatusCode::OK);
            if path == "/head" {
                assert_eq!(response.headers()["content-length"], "5");
            }
            assert!(response.bytes().await.expect("nothing").is_empty());
        }
        // The same connection serves on.
        assert_eq!(get(&server, "/head").await.text().await.expect("text"), "12345");
    }
}

/// Sends requests over one connection, the last of which closes it, and gives all that comes.
async fn all(address: &str, requests: &str) -> String {
    let mut socket = TcpStream::connect(address).await.expect("a connection");
    socket.write_all(requests.as_bytes()).await.expect("sent");
    let mut answers = Vec::new();
    tokio::time::timeout(PATIENCE, socket.read_to_end(&mut answers)).await.expect("in time").expect("read");
    String::from_utf8(answers).expect("text")
}

#[tokio::test]
async fn trailers_go_to_those_who_take_them() {
    for server in servers("").await {
        let request = |headers: &str| format!("GET /fn/dev/http/trailers HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        // What came with the request is over before the next one begins.
        let sent = in_chunks("/count", "Trailer: x-sum\r\n", "x-sum: 1\r\n");
        let requests =
            [sent.as_str(), &request("TE: trailers\r\nConnection: TE\r\n"), &request("Connection: close\r\n")].concat();
        let told = all(server.url.trim_start_matches("http://"), &requests).await;
        let answers: Vec<&str> = told.split("HTTP/1.1 ").skip(1).collect();
        let [counted, with, without] = answers[..] else { panic!("{told}") };
        assert!(counted.starts_with("200 ") && counted.contains("\r\n1\r\n3\r\n"), "{counted}");
        for (answer, behind) in [(with, "x-sum: 17\r\n"), (without, "")] {
            let (head, body) = answer.split_once("\r\n\r\n").expect("a head");
            assert!(head.starts_with("200 "), "{answer}");
            assert_eq!(head.matches("transfer-encoding: chunked").count(), 1, "{head}");
            assert!(head.contains("trailer: x-sum, content-type"), "{head}");
            assert!(body.starts_with("3\r\nAda\r\n") || body.starts_with("d\r\nAda and Grace\r\n"), "{body}");
            assert!(body.ends_with(&format!("\r\n0\r\n{behind}\r\n")), "{body}");
        }
    }
}

/// A request with a body of three bytes in chunks, and with what stands behind it.
fn in_chunks(path: &str, headers: &str, behind: &str) -> String {
    format!(
        "POST /fn/dev/http{path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n{headers}\r\n\
         1;x=y\r\nA\r\n2\r\nda\r\n0\r\n{behind}\r\n"
    )
}

/// The status and the JSON of each answer.
fn answers(told: &str) -> Vec<(u16, Value)> {
    let answers = told.split("HTTP/1.1 ").skip(1);
    answers
        .map(|answer| {
            let json = &answer[answer.find('{').unwrap_or(answer.len())..=answer.rfind('}').expect("JSON")];
            (answer[..3].parse().expect("a status"), serde_json::from_str(json).expect("JSON"))
        })
        .collect()
}

const CLOSE: &str = "Connection: close\r\n";

#[tokio::test]
async fn trailers_of_a_request_reach_the_function() {
    for server in servers("").await {
        let address = server.url.trim_start_matches("http://");
        let fields = |fields: Value| (200, json!({ "length": 3, "fields": fields }));
        let plain = "POST /fn/dev/http/behind HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\n\r\nAda";
        let forbidden = "Content-Length: 3\r\nHost: evil\r\nAuthorization: Bearer x\r\nX-Hop: 1\r\n\
                         X-Forwarded-For: 10.0.0.1\r\nX-Sum: 5\r\n";
        // One after another without waiting for answers, and each has its own.
        let requests = [
            in_chunks("/behind", "Trailer: x-sum, x-other\r\n", "X-Sum: 1\r\nx-other:\t2 \r\nx-sum: 3\r\n"),
            in_chunks("/behind", "", ""),
            in_chunks("/behind", "", "x-silent: not announced\r\n"),
            plain.to_owned(),
            // It does not look at them.
            in_chunks("/told", "", "x-sum: 4\r\n"),
            in_chunks("/behind", "Connection: X-Hop\r\n", forbidden),
            in_chunks("/behind", CLOSE, "x-last: 6\r\n"),
        ];
        let told = answers(&all(address, &requests.concat()).await);
        assert_eq!(told.len(), requests.len(), "{told:?}");
        assert_eq!(told[4].0, 200);
        assert_eq!(
            [&told[..4], &told[5..]].concat(),
            [
                fields(json!([["x-other", "2"], ["x-sum", "1"], ["x-sum", "3"]])),
                fields(Value::Null),
                fields(json!([["x-silent", "not announced"]])),
                fields(Value::Null),
                fields(json!([["x-sum", "5"]])),
                fields(json!([["x-last", "6"]])),
            ]
        );
        // However it comes.
        let request = in_chunks("/behind", CLOSE, "x-sum: 7\r\n");
        let mut socket = TcpStream::connect(address).await.expect("a connection");
        socket.set_nodelay(true).expect("an option");
        for byte in request.as_bytes() {
            socket.write_all(&[*byte]).await.expect("sent");
            tokio::task::yield_now().await;
        }
        let mut answer = String::new();
        socket.read_to_string(&mut answer).await.expect("an answer");
        assert_eq!(answers(&answer), [fields(json!([["x-sum", "7"]]))]);
    }
}

#[tokio::test]
async fn trailers_that_are_none_or_too_many_are_refused() {
    for server in servers("").await {
        for (behind, said) in [
            ("x: y\r\n".repeat(101), "100 fields of 16384 bytes"),
            (format!("x: {}\r\n", "y".repeat(16 * 1024)), "100 fields of 16384 bytes"),
            ("no field\r\n".to_owned(), "must be a field"),
        ] {
            let address = server.url.trim_start_matches("http://");
            let refused = |told: &str| {
                let [(400, problem)] = &answers(told)[..] else { panic!("{told}") };
                assert_eq!(problem["code"], "invalid_request", "{problem}");
                assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains(said)), "{problem}");
                problem["invocationId"].as_str().map(str::to_owned)
            };
            let request = in_chunks("/behind", CLOSE, &behind);
            let mut ids = vec![refused(&all(address, &request).await)];
            // Behind a body that came long before.
            let (body, behind) = request.split_at(request.find(&behind).expect("they are there"));
            let mut socket = TcpStream::connect(address).await.expect("a connection");
            socket.write_all(body.as_bytes()).await.expect("sent");
            server.call_when_of("http", "running").await;
            socket.write_all(behind.as_bytes()).await.expect("sent");
            let mut told = String::new();
            tokio::time::timeout(PATIENCE, socket.read_to_string(&mut told))
                .await
                .expect("in time")
                .expect("an answer");
            let late = refused(&told);
            assert!(late.is_some(), "{told}");
            ids.push(late);
            // Where the call had begun, it is ended.
            for id in ids.iter().flatten() {
                assert_eq!(server.ended(id).await["status"], "cancelled");
            }
        }
        // What never looks at them does not care.
        let server = Server::start("");
        server.push("echo.wasm").await;
        let request = in_chunks("", CLOSE, &"x: y\r\n".repeat(101)).replace("dev/http", "dev/echo");
        let told =
            all(server.url.trim_start_matches("http://"), &request.replace("A\r\n2\r\nda", "1\r\n2\r\n23")).await;
        assert!(told.starts_with("HTTP/1.1 200") && told.ends_with("\r\n123"), "{told}");
    }
}

#[tokio::test]
async fn bodies_stream_both_ways_and_memory_stays_flat() {
    for server in servers("[limits]\npayload_bytes = 1000\nresult_bytes = 1000").await {
        assert_eq!(
            ask(&server, Method::POST, "/count")
                .body(chunked(70_000))
                .send()
                .await
                .expect("an answer")
                .text()
                .await
                .expect("text"),
            "70000"
        );
        let before = server.resident();
        let mut peak = before;
        let counted = ask(&server, Method::POST, "/count").body(chunked(LARGE)).send().await.expect("an answer");
        assert_eq!(counted.text().await.expect("text"), LARGE.to_string());
        peak = peak.max(server.resident());
        // As much as comes, and as it comes: what is echoed is not all there before the first of it is back.
        let echoed =
            ask(&server, Method::POST, "/echo").header("Content-Type", "text/x-mine").body(chunked(LARGE)).send();
        let echoed = echoed.await.expect("an answer");
        assert_eq!(echoed.headers()["content-type"], "text/x-mine");
        let mut total = 0;
        let mut body = echoed.bytes_stream();
        while let Some(piece) = body.next().await {
            total += piece.expect("a piece").len() as u64;
            peak = peak.max(server.resident());
        }
        assert_eq!(total, LARGE);
        let large = get(&server, &format!("/large?{LARGE}")).await;
        let mut total = 0;
        let mut body = large.bytes_stream();
        while let Some(piece) = body.next().await {
            total += piece.expect("a piece").len() as u64;
            peak = peak.max(server.resident());
        }
        assert_eq!(total, LARGE);
        let grown = peak.saturating_sub(before);
        println!("{} KiB more while {} MiB passed", grown >> 10, (3 * LARGE) >> 20);
        assert!(grown < FLAT, "{grown} bytes more");
    }
}

#[tokio::test]
async fn each_request_is_a_call_with_history_and_output() {
    for server in servers("").await {
        let response = get(&server, "/status?404").await;
        let id = response.headers()["sharpfaas-invocation-id"].to_str().expect("an id").to_owned();
        let call = server.ended(&id).await;
        assert_eq!((&call["status"], &call["result"]), (&json!("succeeded"), &json!({ "status": 404 })), "{call}");
        assert_eq!(call["output"][0]["line"], "asked for /status", "{call}");
    }
}

#[tokio::test]
async fn what_goes_wrong_is_a_problem_document() {
    for server in servers("[limits]\ndeadline_seconds = 1").await {
        for (path, status, code) in [
            ("/fn/dev/http/never", 504, "deadline_exceeded"),
            ("/fn/dev/http/trap", 500, "function_trapped"),
            ("/fn/dev/http/nothing", 500, "function_failed"),
            ("/fn/dev/http@1.7/", 404, "version_not_found"),
            ("/fn/dev/http@x/", 400, "invalid_name"),
            ("/fn/dev/nobody/", 404, "function_not_found"),
            ("/fn/dev/a%20b/", 400, "invalid_name"),
            ("/fn/dev/", 404, "not_found"),
            ("/fn/", 404, "not_found"),
        ] {
            let response = server.client.get(server.url(path)).send().await.expect("an answer");
            assert_eq!(response.status(), status, "{path}");
            assert_eq!(response.headers()["content-type"], "application/problem+json", "{path}");
            let problem: Value = response.json().await.expect("JSON");
            assert_eq!(problem["code"], code, "{path}: {problem}");
        }
        let text = server.client.get(server.url("/fn/dev/http@1.0/told")).send().await.expect("an answer").text().await;
        assert!(text.expect("text").contains("/fn/dev/http@1.0"));
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_taken_for_a_whole_one() {
    for server in servers("[limits]\ndeadline_seconds = 2").await {
        for path in ["/breaks-off", "/stops", "/trickle"] {
            // The head of the answer may go down with the rest.
            if let Ok(response) = ask(&server, Method::GET, path).send().await {
                assert_eq!(response.status(), StatusCode::OK, "{path}");
                assert!(response.bytes().await.is_err(), "{path}");
            }
        }
        assert_eq!(newest(&server, "timedOut").await["status"], "timedOut");
        let (_, page) = server.get("/api/invocations?function=http&status=failed").await;
        assert_eq!(page["invocations"].as_array().map(Vec::len), Some(1), "{page}");
    }
}

/// Sends a request as it is, and reads what comes first.
async fn open(server: &Server, request: &str) -> (TcpStream, String) {
    let mut socket = TcpStream::connect(server.url.trim_start_matches("http://")).await.expect("a connection");
    socket.write_all(request.as_bytes()).await.expect("sent");
    let mut first = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_millis(700), socket.read(&mut first)).await;
    let count = read.map_or(0, |count| count.expect("read"));
    (socket, String::from_utf8_lossy(&first[..count]).into_owned())
}

#[tokio::test]
async fn whoever_hangs_up_ends_the_call() {
    for server in servers("[limits]\ndeadline_seconds = 600").await {
        for (request, answered) in [
            ("GET /fn/dev/http/never HTTP/1.1\r\nHost: localhost\r\n\r\n", false),
            ("GET /fn/dev/http/trickle HTTP/1.1\r\nHost: localhost\r\n\r\n", true),
            ("POST /fn/dev/http/count HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\nhalf", false),
        ] {
            let (socket, first) = open(&server, request).await;
            assert_eq!(first.starts_with("HTTP/1.1 200"), answered, "{request}: {first}");
            let running = server.call_when_of("http", "running").await;
            let begun = Instant::now();
            drop(socket);
            let call = server.ended(running["invocationId"].as_str().expect("an id")).await;
            assert_eq!(call["status"], "cancelled", "{request}: {call}");
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
        }
    }
}

#[tokio::test]
async fn other_functions_answer_at_their_routes_too() {
    let server = Server::start("[limits]\npayload_bytes = 1000");
    for fixture in ["echo.wasm", "context.wasm", "return-error.wasm", "exe-echo", "command.wasm"] {
        server.push(fixture).await;
    }
    let post = async |path: &str, body: &str| {
        let sent = server.client.post(server.url(path)).body(body.to_owned()).send();
        let response = tokio::time::timeout(PATIENCE, sent).await.expect("in time").expect("an answer");
        let kind = response.headers()["content-type"].to_str().expect("text").to_owned();
        (response.status().as_u16(), kind, response.text().await.expect("text"))
    };
    let (status, kind, body) = post("/fn/dev/echo", "{\"a\":  1}").await;
    assert_eq!((status, kind.as_str(), body.as_str()), (200, "application/json", "{\"a\":  1}"));
    let (status, kind, body) = post("/fn/dev/exe-echo/", "plain").await;
    assert_eq!((status, kind.as_str()), (200, "text/plain; charset=utf-8"), "{body}");
    assert!(body.contains("plain"), "{body}");
    let (status, _, body) = post("/fn/dev/context@1?colour=red", "null").await;
    assert!(status == 200 && body.contains("colour") && body.contains("red"), "{status} {body}");
    let (status, _, body) = post("/fn/dev/command", "\"quit\"").await;
    assert_eq!((status, body.as_str()), (200, "well"));
    for (path, body, status, code) in [
        ("/fn/dev/return-error", "null", 500, "function_failed"),
        ("/fn/dev/command", "\"fail\"", 500, "function_failed"),
        ("/fn/dev/echo/below", "1", 404, "not_found"),
        ("/fn/dev/echo", &"x".repeat(1001), 413, "payload_too_large"),
    ] {
        let (is, kind, text) = post(path, body).await;
        assert_eq!((is, kind.as_str()), (status, "application/problem+json"), "{path}: {text}");
        assert!(text.contains(code), "{path}: {text}");
    }
}

#[tokio::test]
async fn a_handler_that_spins_or_waits_for_nothing_ends() {
    let server = servers("[limits]\ndeadline_seconds = 1").await.remove(1);
    for (path, status, code) in
        [("/spins", 504, "deadline_exceeded"), ("/waits-for-nothing", 500, "function_trapped"), ("/head", 200, "")]
    {
        let response = get(&server, path).await;
        assert_eq!(response.status(), status, "{path}");
        assert!(response.text().await.expect("text").contains(code), "{path}");
    }
}
