//! What comes from outside and means no good: refused with a 4xx and a code, and nothing of it kept.

use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use proptest::{
    collection::vec,
    prelude::*,
    sample::{Index, select},
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::common::{
    fixtures::{fixture, zip},
    process::{Holdings, entries, given_back, peak},
    server::{PATIENCE, Server},
};

mod bombs;

/// How much more memory than before the server may ever have had, whatever was sent to it.
const SPIKE: u64 = 64 << 20;

/// Every code that is the caller's fault.
const CODES: [&str; 16] = [
    "invalid_request",
    "invalid_name",
    "invalid_package",
    "invalid_payload",
    "function_not_found",
    "lane_not_found",
    "version_not_found",
    "invocation_not_found",
    "not_found",
    "method_not_allowed",
    "type_conflict",
    "version_conflict",
    "payload_too_large",
    "package_too_large",
    "unauthorized",
    "forbidden",
];

/// A server that was in use, and what it held then.
struct Target {
    server: Server,
    before: Holdings,
    peak: u64,
}

impl Target {
    async fn start(config: &str) -> Self {
        let server = Server::start(config);
        // It listens before all its threads have their names.
        assert_eq!(server.get("/healthz").await.0, 200);
        let before = Holdings::of(&server);
        server.push("echo.wasm").await;
        server.run("echo", json!("first")).await;
        // What a push and a call take is no spike.
        let peak = peak(&server);
        Self { server, before, peak }
    }

    /// Sends bytes as they are and reads to the end: the status and the body, or nothing where the server hung
    /// up without an answer.
    async fn send(&self, request: &[u8]) -> Option<(u16, Vec<u8>)> {
        let mut socket = self.connect().await;
        let (mut reading, mut writing) = socket.split();
        let write = async {
            // It may answer and hang up before it has all.
            let _ = writing.write_all(request).await;
        };
        let mut answer = Vec::new();
        let read = async {
            let _ = reading.read_to_end(&mut answer).await;
        };
        tokio::time::timeout(PATIENCE, async { tokio::join!(write, read) }).await.expect("an end");
        parsed(&answer)
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.server.url.trim_start_matches("http://")).await.expect("a connection")
    }

    /// Nothing of all that is left, and the server serves.
    async fn stands_as_before(self, packages: usize) {
        let Self { mut server, before, peak: then } = self;
        let (status, body) = server.run("echo", json!("last")).await;
        assert_eq!((status.as_u16(), &body["result"]), (200, &json!("last")), "{body}");
        let grown = peak(&server).saturating_sub(then);
        println!("peak: {} KiB before, {} KiB more after", then >> 10, grown >> 10);
        assert!(grown < SPIKE, "{grown} bytes more at the peak");
        for (folder, expected) in
            [("artifacts/incoming", 0), ("artifacts/packages", packages), ("functionstore/.staging", 0)]
        {
            assert_eq!(entries(&server.path(folder)), expected, "{folder}");
        }
        // The client's own connections go with it.
        server.client = crate::common::server::client();
        given_back(&server, &before).await;
    }
}

fn parsed(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    if answer.is_empty() {
        return None;
    }
    let end = answer.windows(4).position(|four| four == b"\r\n\r\n").expect("a head");
    let head = std::str::from_utf8(&answer[..end]).expect("text");
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    Some((status, answer[end + 4..].to_vec()))
}

/// Whether an answer is a 4xx problem document with a code of the table.
fn refused(status: u16, body: &[u8]) -> Result<(), String> {
    let text = String::from_utf8_lossy(body);
    let problem: Value = serde_json::from_slice(body).map_err(|error| format!("{status}: {error}: {text}"))?;
    let code = problem["code"].as_str().unwrap_or_default();
    if (400..500).contains(&status) && problem["status"] == status && CODES.contains(&code) {
        Ok(())
    } else {
        Err(format!("{status}: {text}"))
    }
}

/// A request, with no connection kept after it.
fn request(method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!("{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n").into_bytes();
    for (name, value) in headers {
        request.extend(format!("{name}: {value}\r\n").bytes());
    }
    request.extend(format!("Content-Length: {}\r\n\r\n", body.len()).bytes());
    request.extend(body);
    request
}

const BOUNDARY: &str = "xxBOUNDARYxx";

fn part(name: &str, content: &[u8]) -> Vec<u8> {
    let mut part =
        format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"{name}\"; filename=\"x.zip\"\r\n\r\n")
            .into_bytes();
    part.extend(content);
    part.extend(b"\r\n");
    part
}

fn form(parts: &[Vec<u8>]) -> Vec<u8> {
    let mut body = parts.concat();
    body.extend(format!("--{BOUNDARY}--\r\n").bytes());
    body
}

fn push_request(query: &str, body: &[u8]) -> Vec<u8> {
    let media = format!("multipart/form-data; boundary={BOUNDARY}");
    request("POST", &format!("/api/function/pushfunction?{query}"), &[("Content-Type", &media)], body)
}

/// Something sent, and whether it may turn out to be right after all.
#[derive(Debug, Clone)]
struct Attempt {
    what: &'static str,
    bytes: Vec<u8>,
    may_pass: bool,
}

fn attempt(what: &'static str, bytes: Vec<u8>) -> Attempt {
    Attempt { what, bytes, may_pass: false }
}

/// A text with some bytes replaced, removed and put in.
fn mutated(text: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    vec((any::<Index>(), any::<u8>(), 0..3_u8), 1..6).prop_map(move |changes| {
        let mut text = text.clone();
        for (at, byte, how) in changes {
            let at = at.index(text.len().max(1));
            match how {
                0 if at < text.len() => text[at] = byte,
                1 if at < text.len() => drop(text.remove(at)),
                _ => text.insert(at.min(text.len()), byte),
            }
        }
        text
    })
}

fn percent(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("%{byte:02X}")).collect()
}

/// Names that lead elsewhere or break out of a line.
fn bad_name() -> impl Strategy<Value = String> {
    let known = select(vec![
        "..",
        "../../etc/passwd",
        "a/b",
        "a\\b",
        "/etc",
        "a\0b",
        "a\r\nX-Header: 1",
        "a\nb",
        ".hidden",
        "-x",
        " a",
        "a ",
        "\u{202e}a",
        "ä",
        "a%2fb",
        "CON:",
        "a;b",
        "$(id)",
        "`id`",
        "'; drop table functions;--",
    ]);
    prop_oneof![
        known.prop_map(str::to_owned),
        "[A-Za-z0-9]{65,200}",
        vec(any::<u8>(), 1..40).prop_filter_map("a name that is right", |bytes| {
            let name = String::from_utf8_lossy(&bytes).into_owned();
            (!name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))).then_some(name)
        }),
    ]
}

fn attempts() -> impl Strategy<Value = Attempt> {
    let program = zip(&[("run.sh", b"#!/bin/sh\necho hello hello hello\n"), ("data.txt", &[b'x'; 3000])]);
    let module = zip(&[("m.wasm", &fixture("core-module.wasm"))]);
    let whole = push_request("functionName=x&lane=dev&type=exe", &form(&[part("file", &program)]));
    let call = json!({ "functionName": "nobody", "lane": "dev", "version": "1.0", "payload": { "a": [1, "x"] },
        "callerId": "me", "payloadEncrypted": false, "deadlineMs": 100 });
    let exe = "functionName=mutant&lane=dev&type=exe";
    prop_oneof![
        // A change of a date or of a comment leaves a zip right.
        3 => mutated(program.clone())
            .prop_map(move |zip| Attempt {
                what: "a mutated program",
                bytes: push_request(exe, &form(&[part("file", &zip)])),
                may_pass: true,
            }),
        2 => mutated(module).prop_map(|zip| {
            attempt("a mutated module", push_request("functionName=x&lane=dev", &form(&[part("file", &zip)])))
        }),
        2 => (0..program.len()).prop_map({
            let program = program.clone();
            move |at| attempt("a cut zip", push_request(exe, &form(&[part("file", &program[..at])])))
        }),
        2 => vec(any::<u8>(), 0..2000)
            .prop_map(move |noise| attempt("noise as a zip", push_request(exe, &form(&[part("file", &noise)])))),
        2 => vec(any::<u8>(), 0..2000).prop_map(move |noise| attempt("noise as a form", push_request(exe, &noise))),
        1 => (0..whole.len() / 2).prop_map({
            let program = program.clone();
            move |at| {
                let body = form(&[part("file", &program)]);
                attempt("a cut form", push_request("functionName=x&lane=dev&type=exe", &body[..at.min(body.len() - 9)]))
            }
        }),
        1 => "[a-z]{0,12}".prop_filter("another part", |name| name != "file").prop_map({
            let program = program.clone();
            move |name| attempt("another part", push_request(exe, &form(&[part(&name, &program)])))
        }),
        1 => Just(attempt("two parts", push_request(exe, &form(&[part("file", &program), part("file", &program)])))),
        1 => Just(attempt("no part", push_request(exe, &form(&[])))),
        3 => bad_name().prop_map({
            let program = program.clone();
            move |name| {
                let query = format!("functionName={}&lane=dev&type=exe", percent(name.as_bytes()));
                attempt("a bad name to push", push_request(&query, &form(&[part("file", &program)])))
            }
        }),
        2 => bad_name().prop_map({
            let program = program.clone();
            move |name| {
                let query = format!("functionName=x&lane={}&type=exe", percent(name.as_bytes()));
                attempt("a bad lane to push", push_request(&query, &form(&[part("file", &program)])))
            }
        }),
        2 => bad_name().prop_map(move |name| {
            let zip = zip(&[("run.sh", b"#!/bin/sh\n")]);
            let query = format!("functionName=x&lane=dev&type=exe&entryFileName={}", percent(name.as_bytes()));
            attempt("an entry that is not there", push_request(&query, &form(&[part("file", &zip)])))
        }),
        3 => bad_name().prop_map(|name| {
            let body = json!({ "functionName": name, "lane": "dev" }).to_string();
            attempt("a bad name to run", request("POST", "/api/runfunction", &[], body.as_bytes()))
        }),
        2 => bad_name().prop_map(|name| {
            let target = format!("/api/functions/{}", percent(name.as_bytes()));
            attempt("a bad name to look up", request("GET", &target, &[], b""))
        }),
        4 => mutated(call.to_string().into_bytes()).prop_map(|body| {
            let json = [("Content-Type", "application/json")];
            attempt("a mutated call", request("POST", "/api/function/runfunction", &json, &body))
        }),
        2 => vec(any::<u8>(), 0..300)
            .prop_map(|body| attempt("noise as a call", request("POST", "/api/function/runfunction", &[], &body))),
        1 => (1..3000_usize).prop_map(|depth| {
            let body = format!("{{\"functionName\":{}", "[".repeat(depth * 10));
            attempt("a deep call", request("POST", "/api/function/runfunction", &[], body.as_bytes()))
        }),
        2 => vec(any::<u8>(), 1..100).prop_map(|query| {
            let target = format!("/api/function/runfunction?lane=dev&functionName=nobody&x={}", percent(&query));
            attempt("a wild query", request("POST", &target, &[], b"x"))
        }),
        2 => "[A-Za-z0-9%&=+;:@!$'()*,/?._~-]{1,200}".prop_map(|query| {
            attempt("a raw query", request("POST", &format!("/api/function/pushfunction?{query}"), &[], b""))
        }),
        2 => ("[A-Za-z-]{1,20}", "[ -~]{0,100}").prop_map(|(name, value)| {
            // None that change how the request is framed.
            attempt("a wild header", request("POST", "/api/runfunction", &[(&format!("X-{name}"), &value)], b"{}"))
        }),
        1 => "[ -~]{1,100}".prop_map(|media| {
            attempt("a wild type", request("POST", "/api/runfunction", &[("Content-Type", &media)], b"x=1"))
        }),
        1 => "[A-Z]{3,10}".prop_map(|method| {
            attempt("a wild method", request(&method, "/api/invocations/nothing", &[], b""))
        }),
        1 => "[a-z0-9/.-]{1,60}".prop_map(|path| attempt("a wild path", request("GET", &format!("/x{path}"), &[], b""))),
        1 => "[a-z0-9-]{1,40}".prop_map(|id| {
            attempt("a wild id", request("GET", &format!("/api/invocations/{id}/output"), &[], b""))
        }),
        1 => select(vec!["gzip", "br", "deflate", "zstd", "gzip, br", "x"]).prop_flat_map(move |encoding| {
            let call = json!({ "functionName": "echo", "lane": "dev" }).to_string();
            let run = request("POST", "/api/runfunction", &[("Content-Encoding", encoding)], call.as_bytes());
            let media = format!("multipart/form-data; boundary={BOUNDARY}");
            let headers = [("Content-Encoding", encoding), ("Content-Type", media.as_str())];
            let body = form(&[part("file", &zip(&[("run.sh", b"#!/bin/sh\n")]))]);
            let push = request("POST", "/api/pushfunction?functionName=x&lane=dev&type=exe", &headers, &body);
            select(vec![attempt("a packed call", run), attempt("a packed push", push)])
        }),
    ]
}

#[tokio::test]
async fn a_thousand_malformed_requests_are_refused_and_leave_nothing() {
    let target = Target::start("").await;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config { failure_persistence: None, ..Config::default() }, rng);
    let strategy = attempts();
    let all: Vec<Attempt> = (0..1000).map(|_| strategy.new_tree(&mut runner).expect("a case").current()).collect();
    let (target_ref, started) = (&target, Instant::now());
    let answers: Vec<_> = stream::iter(&all)
        .map(|attempt| async move { (attempt, target_ref.send(&attempt.bytes).await) })
        .buffer_unordered(8)
        .collect()
        .await;
    let mut wrong = Vec::new();
    let mut passed = 0;
    for (attempt, answer) in &answers {
        let Some((status, body)) = answer else {
            wrong.push(format!("{}: no answer: {}", attempt.what, shown(&attempt.bytes)));
            continue;
        };
        if attempt.may_pass && *status == 201 {
            passed += 1;
        } else if let Err(how) = refused(*status, body) {
            wrong.push(format!("{}: {how}: {}", attempt.what, shown(&attempt.bytes)));
        }
    }
    println!("{} requests in {:?}, {passed} were right after all", answers.len(), started.elapsed());
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), all.len(), wrong.join("\n"));
    assert!(passed < 50, "{passed}");
    // The guest that was pushed at first, and what was right after all.
    target.stands_as_before(1 + passed).await;
}

fn shown(bytes: &[u8]) -> String {
    String::from_utf8_lossy(&bytes[..bytes.len().min(400)]).escape_debug().to_string()
}

#[tokio::test]
async fn senders_that_stop_half_way_are_not_waited_for() {
    /// Far more than the one second that a sender has, for a machine that is busy.
    const SOON: Duration = Duration::from_secs(15);
    let target = Target::start("[server]\nread_seconds = 1\n").await;
    let push = push_request("functionName=x&lane=dev&type=exe", &form(&[part("file", &[b'x'; 4000])]));
    let chunked = |path: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n\
             Transfer-Encoding: chunked\r\n\r\n"
        )
    };
    let mut begun = chunked("/api/pushfunction?functionName=x&lane=dev").into_bytes();
    let first = part("file", b"zip");
    begun.extend(format!("{:x}\r\n", first.len()).bytes().chain(first).chain(*b"\r\n"));
    let run =
        b"POST /api/runfunction HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{\"functionName\":".to_vec();
    // What is sent, and whether the rest of it comes a byte at a time, without end.
    let stalls: Vec<(&str, Vec<u8>, bool)> = vec![
        ("nothing", Vec::new(), false),
        ("half a head", push[..40].to_vec(), false),
        ("a head by the byte", b"GET / HTTP/1.1\r\nX-Slow: ".to_vec(), true),
        ("a head alone", run[..70].to_vec(), false),
        ("half a call", run.clone(), false),
        ("a call by the byte", run, true),
        ("half a push", push[..push.len() - 3000].to_vec(), false),
        ("a push by the byte", push[..push.len() - 3900].to_vec(), true),
        ("a part without end", begun, false),
        ("chunks without end", (chunked("/api/runfunction") + "1\r\nx\r\n").into_bytes(), false),
    ];
    let rounds = stalls.iter().cycle().take(stalls.len() * 4);
    let ended = rounds.map(|(what, bytes, drips)| {
        let target = &target;
        async move {
            let started = Instant::now();
            let mut socket = target.connect().await;
            let (mut reading, mut writing) = socket.split();
            let write = async {
                let _ = writing.write_all(bytes).await;
                while *drips && writing.write_all(b"1").await.is_ok() {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                std::future::pending::<()>().await;
            };
            let mut answer = Vec::new();
            let read = tokio::time::timeout(SOON, reading.read_to_end(&mut answer));
            let closed = tokio::select! {
                closed = read => closed.is_ok(),
                () = write => false,
            };
            assert!(closed, "{what}: open after {:?}, answered {}", started.elapsed(), shown(&answer));
            let status = parsed(&answer).map(|(status, _)| status);
            assert!(status.is_none_or(|status| (400..500).contains(&status)), "{what}: {status:?}");
            (*what, status, started.elapsed())
        }
    });
    for (what, status, took) in futures_util::future::join_all(ended).await.into_iter().take(stalls.len()) {
        println!("{what}: {status:?} after {took:?}");
    }
    target.stands_as_before(1).await;
}

#[tokio::test]
async fn sizes_beyond_all_bounds_are_refused_at_once() {
    let target = Target::start("").await;
    let head = |path: &str, more: &str| {
        format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: multipart/form-data; boundary={BOUNDARY}\r\n{more}\r\n\r\n"
        )
        .into_bytes()
    };
    let push = "/api/pushfunction?functionName=x&lane=dev";
    for (path, code) in [(push, "package_too_large"), ("/api/runfunction", "payload_too_large")] {
        let request = head(path, "Content-Length: 999999999999999");
        let (status, body) = target.send(&request).await.expect("an answer");
        let problem: Value = serde_json::from_slice(&body).expect("a problem");
        assert_eq!((status, &problem["code"]), (413, &json!(code)), "{problem}");
    }
    // A body with more than was agreed, in chunks that never tell how much comes.
    let mut chunks = head("/api/runfunction", "Transfer-Encoding: chunked");
    for _ in 0..100 {
        chunks.extend(b"10000\r\n".iter().copied().chain([b'x'; 65_536]).chain(*b"\r\n"));
    }
    if let Some((status, body)) = target.send(&chunks).await {
        refused(status, &body).expect("refused");
    }
    // What is not HTTP at all is refused before there is anybody to write a document.
    let wide = format!("X-Wide: {}", "x".repeat(2_000_000));
    let many: String = (0..20_000).map(|i| format!("X-{i}: x\r\n")).collect();
    let framings: Vec<Vec<u8>> = vec![
        head(push, &wide),
        head(push, many.trim_end()),
        head(&format!("{push}&x={}", "x".repeat(2_000_000)), "X-A: b"),
        head(push, "Content-Length: 99999999999999999999999999"),
        head(push, "Content-Length: -1"),
        head(push, "Content-Length: 1\r\nContent-Length: 2"),
        head(push, "Content-Length: 1\r\nTransfer-Encoding: chunked"),
        head(push, "Transfer-Encoding: gzip"),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".repeat(10),
        b"GET /\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        vec![0; 5000],
    ];
    for request in framings {
        let status = target.send(&request).await.map(|(status, _)| status);
        assert!(status.is_none_or(|status| (400..500).contains(&status)), "{status:?}: {}", shown(&request));
        println!("{:?}: {}", status, shown(&request[..request.len().min(40)]));
    }
    target.stands_as_before(1).await;
}
