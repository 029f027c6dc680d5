//! The verbs against a server that says what the test wants to see handled.

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::PermissionsExt as _,
    sync::{Arc, Mutex},
};

use clap::Parser as _;
use serde_json::{Value, json};

use super::*;

mod server;

use server::{Answer, HubServer, Request, Script, Server};

const ID: &str = "0190d3a4-0000-7000-8000-000000000001";

#[derive(Debug, Clone, Default)]
struct Shared(Arc<Mutex<Vec<u8>>>);

impl Shared {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().expect("unpoisoned").clone()).expect("UTF-8")
    }
}

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().expect("unpoisoned").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// What came of a command.
#[derive(Debug)]
struct Ran {
    code: u8,
    stdout: String,
    stderr: String,
}

async fn ran(server: &str, arguments: &[&str]) -> Ran {
    ran_on(server, arguments, false).await
}

/// As [`ran`], where `watched` by a person on a terminal.
async fn ran_on(server: &str, arguments: &[&str], watched: bool) -> Ran {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = ["--server", server];
    let all = ["sharpfaas"].iter().chain(arguments).chain(&options);
    let (stdout, stderr) = (Shared::default(), Shared::default());
    let code = match Cli::try_parse_from(all) {
        Ok(Cli { command: Command::Client(command) }) => {
            let mut terminal = Terminal::new(Box::new(stdout.clone()), Box::new(stderr.clone()), watched);
            match execute(command, &mut terminal).await {
                Ok(()) => 0,
                Err(failure) => {
                    failure.show(&mut terminal);
                    failure.code()
                }
            }
        }
        Ok(other) => panic!("{other:?} is no verb of the client"),
        Err(error) => {
            write!(stderr.clone(), "{error}").expect("written");
            u8::try_from(error.exit_code()).expect("small")
        }
    };
    Ran { code, stdout: stdout.text(), stderr: stderr.text() }
}

fn started() -> Value {
    json!({ "event": "started", "invocationId": ID, "functionName": "f", "lane": "dev" })
}

fn output(number: u32, stream: &str, line: &str) -> Value {
    json!({ "event": "output", "invocationId": ID, "number": number, "stream": stream, "line": line, "at": "2026-01-01T00:00:00Z" })
}

fn completed(kind: &str, result: &Value) -> Value {
    json!({ "event": "completed", "invocationId": ID, "version": "1.0", "type": kind, "status": "succeeded", "result": result, "elapsedMs": 1.5 })
}

fn failed(code: &str, title: &str, detail: &str) -> Value {
    json!({ "event": "failed", "type": "urn:x", "title": title, "status": 500, "code": code, "detail": detail, "invocationId": ID })
}

fn ended(status: &str, rest: &Value) -> Value {
    let mut document = json!({
        "invocationId": ID, "callerId": null, "functionName": "f", "lane": "dev", "version": "1.0",
        "type": "dll", "status": status, "elapsedMs": 1.5, "createdAt": "2026-01-01T00:00:00Z",
    });
    for (name, value) in rest.as_object().expect("an object") {
        document[name] = value.clone();
    }
    document
}

/// A server on which a call prints a line and then ends so.
async fn running(end: Value) -> HubServer {
    HubServer::start([Script::of([started(), output(0, "stdout", "working"), end])]).await
}

#[tokio::test]
async fn a_result_goes_to_stdout_and_the_console_to_stderr() {
    let server = running(completed("dll", &json!({ "b": 1.50, "a": [true] }))).await;
    let ran =
        ran(&server.url, &["run", "f", "{\"x\": 1}", "--lane", "test", "--version", "1", "--caller-id", "ada"]).await;
    assert_eq!((ran.code, ran.stdout.as_str(), ran.stderr.as_str()), (0, "{\"a\":[true],\"b\":1.5}\n", "working\n"));
    let sent = json!({
        "functionName": "f", "lane": "test", "version": "1", "payload": "{\"x\": 1}", "callerId": "ada",
    });
    assert_eq!(server.requests(), [("/functions".into(), sent)]);
}

#[tokio::test]
async fn a_string_is_printed_as_its_text() {
    let server = running(completed("dll", &json!("two\nlines"))).await;
    assert_eq!(ran(&server.url, &["run", "f"]).await.stdout, "two\nlines\n");
}

#[tokio::test]
async fn what_a_program_printed_is_not_shown_twice_to_the_same_person() {
    let end = completed("exe", &json!("working"));
    let server = running(end.clone()).await;
    let piped = ran(&server.url, &["run", "f"]).await;
    assert_eq!((piped.stdout.as_str(), piped.stderr.as_str()), ("working\n", "working\n"));
    let server = running(end).await;
    let watched = ran_on(&server.url, &["run", "f"], true).await;
    assert_eq!((watched.stdout.as_str(), watched.stderr.as_str()), ("", "\u{1b}[2mworking\u{1b}[0m\n"));
}

#[tokio::test]
async fn json_is_every_event_on_a_line() {
    let events = [
        started(),
        output(0, "stdout", "working"),
        json!({ "event": "skipped", "invocationId": ID, "lines": 7 }),
        json!({ "event": "later", "invocationId": ID }),
        failed("function_failed", "The function failed", "sold out"),
    ];
    for verb in [&["run", "f"][..], &["tail", ID]] {
        let server = HubServer::start([Script::of(events.clone())]).await;
        let ran = ran(&server.url, &[verb, &["--json"]].concat()).await;
        let printed: Vec<Value> = ran.stdout.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        assert_eq!(printed, events);
        assert_eq!((ran.code, ran.stderr.as_str()), (1, "error: sold out (function_failed)\n"));
    }
}

#[tokio::test]
async fn the_exit_code_tells_whose_fault_it_was() {
    for (code, expected) in [
        ("function_failed", 1),
        ("function_trapped", 1),
        ("memory_exceeded", 1),
        ("deadline_exceeded", 1),
        ("cancelled", 1),
        ("at_capacity", 3),
        ("store_unavailable", 3),
        ("internal", 3),
    ] {
        let server = running(failed(code, "It failed", "so")).await;
        let ran = ran(&server.url, &["run", "f"]).await;
        assert_eq!((ran.code, ran.stdout.as_str()), (expected, ""), "{code}");
        assert!(ran.stderr.ends_with(&format!("so ({code})\n")), "{}", ran.stderr);
    }
}

#[tokio::test]
async fn a_problem_is_told_in_words() {
    let problem = json!({
        "type": "urn:x", "title": "There is no such function", "status": 404, "code": "function_not_found",
        "detail": "there is no function f",
    });
    let answer = problem.clone();
    let server = Server::start(move |_: &Request| Answer::json(404, &answer)).await;
    for verb in [&["functions", "f"][..], &["tail", ID]] {
        let told = ran(&server.url, verb).await;
        assert_eq!(told.stderr, "error: There is no such function: there is no function f (function_not_found)\n");
        assert_eq!((told.code, told.stdout.as_str()), (3, ""));
        let told = ran(&server.url, &[verb, &["--json"]].concat()).await;
        assert_eq!(serde_json::from_str::<Value>(&told.stdout).expect("JSON"), problem);
    }
    let server =
        HubServer::start([Script::of([failed("function_not_found", "There is no such function", "none f")])]).await;
    let told = ran(&server.url, &["run", "f"]).await;
    assert_eq!((told.code, &*told.stderr), (3, "error: There is no such function: none f (function_not_found)\n"));
}

#[tokio::test]
async fn a_tail_goes_on_where_its_connection_broke() {
    let server = HubServer::start([
        Script::of([output(3, "stdout", "one"), output(4, "stderr", "two")]).broken(),
        // Nothing at all, as from a server that stops.
        Script::of([]),
        Script::of([
            json!({ "event": "skipped", "invocationId": ID, "lines": 2 }),
            output(7, "stdout", "three"),
            completed("dll", &json!(1)),
        ]),
    ])
    .await;
    let ran = ran(&server.url, &["tail", ID, "--from", "3"]).await;
    assert_eq!((ran.code, &*ran.stdout, &*ran.stderr), (0, "one\nthree\n", "two\n[2 lines skipped]\n"));
    let paths: Vec<_> = server.requests().into_iter().map(|(path, _)| path).collect();
    let from = |line: u64| format!("/api/invocations/{ID}/tail?from={line}");
    assert_eq!(paths, [from(3), from(5), from(5)]);
}

#[tokio::test]
async fn a_call_whose_connection_breaks_is_not_made_again() {
    let server = HubServer::start([Script::of([started(), output(0, "stdout", "one")]).broken(), Script::of([])]).await;
    let ran = ran(&server.url, &["run", "f"]).await;
    assert!(ran.code == 3 && ran.stderr.contains("was lost"), "{}", ran.stderr);
    assert_eq!(server.requests().len(), 1);
}

#[tokio::test]
async fn payloads_come_from_files_and_parameters_are_passed_on() {
    let server = running(completed("dll", &json!(1))).await;
    let mut file = tempfile::NamedTempFile::new().expect("a file");
    file.write_all("{\"ü\": 1}".as_bytes()).expect("written");
    let path = file.path().to_str().expect("UTF-8");
    let arguments = [
        "run",
        "f",
        "--payload-file",
        path,
        "--timeout",
        "1.5",
        "--type",
        "exe",
        "--entry",
        "bin/x",
        "--param",
        "a=b=c",
        "--param",
        "b=",
    ];
    assert_eq!(ran(&server.url, &arguments).await.code, 0);
    let (_, sent) = &server.requests()[0];
    let expected = json!({
        "functionName": "f", "lane": "dev", "version": "latest", "payload": "{\"ü\": 1}", "deadlineMs": 1500,
        "type": "exe", "entryFileName": "bin/x", "parameters": { "a": "b=c", "b": "" },
    });
    assert_eq!(*sent, expected);
}

#[tokio::test]
async fn messages_name_the_flag_at_fault() {
    let nobody = "http://127.0.0.1:1";
    for (arguments, flag) in [
        (&["run", "f", "--lane", "a.b"][..], "--lane"),
        (&["run", "f", "--version", "v1"], "--version"),
        (&["run", "f", "--type", "jar"], "--type"),
        (&["run", "f", "--param", "x"], "--param"),
        (&["run", "f", "--param", "Lane=x"], "--param"),
        (&["run", "f", "--timeout", "0"], "--timeout"),
        (&["run", "f", "--payload-file", "/nowhere/at/all"], "--payload-file"),
        (&["run", "f", "{}", "--payload-file", "-"], "--payload-file"),
        (&["run", "../f"], "<NAME>"),
        (&["tail", "x"], "<ID>"),
        (&["push", "/nowhere/at/all"], "PATH"),
        (&["push", "/", "--lane", "dev"], "--name"),
        (&["push", "x", "--entry", "../x"], "--entry"),
        (&["history", "--status", "lost"], "--status"),
        (&["history", "--limit", "0"], "--limit"),
    ] {
        let ran = ran(nobody, arguments).await;
        assert_eq!(ran.code, 2, "{arguments:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(flag), "{arguments:?}: {}", ran.stderr);
    }
    for server in ["127.0.0.1:8080", "ftp://a", "http://a?b"] {
        let ran = ran(server, &["functions"]).await;
        assert!(ran.code == 2 && ran.stderr.contains("--server"), "{server}: {}", ran.stderr);
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_from_one_that_is_another() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("has one");
    let told = ran(&format!("http://{free}"), &["functions"]).await;
    assert_eq!(told.code, 3);
    assert!(told.stderr.contains("no server could be reached") && told.stderr.contains("--server"), "{}", told.stderr);
    let told = ran(&format!("http://{free}"), &["run", "f"]).await;
    assert!(told.stderr.contains("no server could be reached") && told.stderr.contains("--server"), "{}", told.stderr);
    let server = Server::start(|_: &Request| Answer::html(502, "<h1>Bad Gateway</h1>")).await;
    let told = ran(&server.url, &["functions"]).await;
    assert_eq!(told.code, 3);
    assert!(told.stderr.contains("502") && told.stderr.contains("Bad Gateway"), "{}", told.stderr);
    let server = Server::start(|_: &Request| Answer::html(200, "hello")).await;
    let told = ran(&server.url, &["functions"]).await;
    assert!(told.code == 3 && told.stderr.contains("not as a sharpfaas server does"), "{}", told.stderr);
}

#[tokio::test]
async fn a_push_sends_the_zip_and_prints_the_version() {
    let published = json!({
        "functionName": "tool", "lane": "prod", "version": "2.0", "type": "exe", "entry": "tool", "sha256": "ab", "size": 2048,
    });
    let answer = published.clone();
    let server = Server::start(move |_: &Request| Answer::json(201, &answer)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("tool");
    fs::write(&path, "#!/bin/sh\n").expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("set");
    let path = path.to_str().expect("UTF-8");
    let arguments = ["push", path, "--lane", "prod", "--new-version", "--entry", "tool"];
    let told = ran(&server.url, &arguments).await;
    assert_eq!(
        (told.code, told.stdout.as_str()),
        (0, "tool 2.0 in prod (exe, 2.00 KiB, sha256 ab)\n"),
        "{}",
        told.stderr
    );
    let request = &server.requests()[0];
    assert_eq!(
        request.path,
        "/api/function/pushfunction?functionName=tool&type=exe&lane=prod&newVersion=true&entryFileName=tool"
    );
    assert_eq!(request.head("content-length").expect("is known").parse(), Ok(request.body.len()));
    let body = String::from_utf8_lossy(&request.body);
    assert!(body.contains("name=\"file\"; filename=\"tool.zip\"") && body.contains("PK\u{3}\u{4}"), "{body}");
    let told = ran(&server.url, &["push", path, "--json", "--type", "dll", "--name", "other"]).await;
    assert_eq!(serde_json::from_str::<Value>(&told.stdout).expect("JSON"), published);
    assert!(server.requests()[1].path.ends_with("?functionName=other&type=dll&lane=dev"));
}

fn version(lane: &str, version: &str) -> Value {
    json!({
        "functionName": "f", "lane": lane, "version": version, "type": "dll", "entry": "f.wasm",
        "sha256": "0123456789abcdef", "size": 1, "pushedAt": "2026-01-01T00:00:00Z", "pushedBy": null,
    })
}

#[tokio::test]
async fn functions_are_listed_page_by_page() {
    let function = |name: &str| {
        let lane = json!({ "lane": "dev", "newest": "1.1", "versions": 2 });
        json!({ "functionName": name, "type": "dll", "lanes": [lane] })
    };
    let (first, second) = (function("a"), function("b"));
    let server = Server::start(move |request: &Request| match request.path.as_str() {
        "/prefix/api/functions?limit=1000" => Answer::json(200, &json!({ "functions": [first], "next": "a" })),
        "/prefix/api/functions?limit=1000&after=a" => {
            Answer::json(200, &json!({ "functions": [second], "next": null }))
        }
        other => panic!("{other}"),
    })
    .await;
    let url = format!("{}/prefix", server.url);
    let told = ran(&url, &["functions"]).await;
    assert_eq!(
        told.stdout,
        "FUNCTION  TYPE  LANE  NEWEST  VERSIONS\na         dll   dev   1.1     2\nb         dll   dev   1.1     2\n"
    );
    let told = ran(&url, &["functions", "--json"]).await;
    let document: Value = serde_json::from_str(&told.stdout).expect("JSON");
    assert_eq!(document["functions"].as_array().map(Vec::len), Some(2));
}

#[tokio::test]
async fn versions_are_listed_and_shown() {
    let lanes =
        json!([{ "lane": "dev", "newest": "1.0", "versions": 1 }, { "lane": "prod", "newest": "2.1", "versions": 1 }]);
    let server = Server::start(move |request: &Request| match request.path.as_str() {
        "/api/functions/f" => Answer::json(
            200,
            &json!({
                "functionName": "f", "type": "dll", "lanes": lanes,
                "versions": [version("dev", "1.0"), version("prod", "2.1")],
            }),
        ),
        "/api/functions/f/prod/latest" => Answer::json(200, &version("prod", "2.1")),
        other => panic!("{other}"),
    })
    .await;
    let told = ran(&server.url, &["functions", "f"]).await;
    assert_eq!(told.stdout.lines().count(), 3, "{}", told.stdout);
    let told = ran(&server.url, &["functions", "f", "prod"]).await;
    assert!(told.stdout.lines().count() == 2 && told.stdout.contains("0123456789ab"), "{}", told.stdout);
    let told = ran(&server.url, &["functions", "f", "test"]).await;
    assert_eq!((told.code, told.stderr.as_str()), (3, "error: f is not in lane test, but in dev, prod\n"));
    let told = ran(&server.url, &["functions", "f", "prod", "latest"]).await;
    assert!(told.stdout.contains("sha256    0123456789abcdef\n"), "{}", told.stdout);
}

#[tokio::test]
async fn history_lists_and_shows_calls() {
    let call = ended(
        "succeeded",
        &json!({ "callerId": "ada", "result": { "n": 1 },
        "output": [{ "stream": "stdout", "line": "working", "at": "2026-01-01T00:00:00Z" }], "outputTruncated": false }),
    );
    let server = Server::start(move |request: &Request| {
        if request.path.ends_with(ID) {
            Answer::json(200, &call)
        } else {
            Answer::json(200, &json!({ "invocations": [call], "next": null }))
        }
    })
    .await;
    let told = ran(&server.url, &["history", "--function", "f", "--status", "timedOut", "--caller-id", "a b"]).await;
    assert_eq!(server.requests()[0].path, "/api/invocations?limit=20&function=f&callerId=a+b&status=timedOut");
    assert!(told.stdout.contains("succeeded  f") && told.stdout.contains(ID), "{}", told.stdout);
    let told = ran(&server.url, &["history", ID]).await;
    assert_eq!(told.stdout, "{\"n\":1}\n");
    assert!(told.stderr.contains("called by ada") && told.stderr.ends_with("working\n"), "{}", told.stderr);
}

#[test]
fn the_whole_command_line_is_sound() {
    use clap::CommandFactory as _;
    Cli::command().debug_assert();
    let Command::Serve(args) =
        Cli::parse_from(["sharpfaas", "serve", "--config", "c.toml", "--listen", "127.0.0.1:0", "--data", "d"]).command
    else {
        panic!("serve is not parsed as such");
    };
    assert_eq!(args.listen, Some(SocketAddr::from(([127, 0, 0, 1], 0))));
    let Command::CompileComponent(args) =
        Cli::parse_from(["sharpfaas", "compile-component", "in", "--out", "x"]).command
    else {
        panic!("compile-component is not parsed as such");
    };
    assert_eq!(args.arguments, ["in", "--out", "x"]);
}
