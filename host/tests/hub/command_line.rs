//! Live output on the command line.

use std::{
    fs::{self, File},
    io::Read as _,
    os::fd::OwnedFd,
    process::{self, Stdio},
};

use rustix::pty;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, copy_bidirectional},
    net::{TcpListener, TcpStream},
    process::{Child, Command},
    sync::watch,
    task::JoinSet,
    time::timeout,
};

use crate::common::server::{PATIENCE, Server};

const PROGRAM: &str = env!("CARGO_BIN_EXE_sharpfaas");

/// Stands between clients and the server; every connection can be cut.
struct Proxy {
    url: String,
    cut: watch::Sender<()>,
    connections: watch::Receiver<usize>,
    _passing: JoinSet<()>,
}

impl Proxy {
    async fn to(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("has one"));
        let address = server.url.trim_start_matches("http://").to_owned();
        let (cut, connections) = (watch::Sender::new(()), watch::Sender::new(0));
        let (cutting, counted) = (cut.clone(), connections.subscribe());
        let mut passing = JoinSet::new();
        passing.spawn(async move {
            loop {
                let (mut client, _) = listener.accept().await.expect("accepted");
                let mut cut = cutting.subscribe();
                connections.send_modify(|count| *count += 1);
                let address = address.clone();
                tokio::spawn(async move {
                    let mut server = TcpStream::connect(address).await.expect("connected");
                    tokio::select! {
                        _ = copy_bidirectional(&mut client, &mut server) => {}
                        _ = cut.changed() => {}
                    }
                });
            }
        });
        Self { url, cut, connections: counted, _passing: passing }
    }
}

fn start(server: &str, arguments: &[&str]) -> Child {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).args(["--server", server]).stdin(Stdio::null()).kill_on_drop(true);
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs")
}

/// Standard error, when it has ended well.
async fn ended(mut child: Child) -> String {
    let mut told = String::new();
    let mut stderr = child.stderr.take().expect("a pipe");
    timeout(PATIENCE, stderr.read_to_string(&mut told)).await.expect("in time").expect("read");
    let status = timeout(PATIENCE, child.wait()).await.expect("in time").expect("it ends");
    assert!(status.success(), "{status}: {told}");
    told
}

#[tokio::test]
async fn a_tail_whose_connection_breaks_has_every_line_once() {
    let server = Server::start("");
    server.push("ticks.wasm").await;
    let proxy = Proxy::to(&server).await;
    for form in [None, Some("--json")] {
        let cuts_before = *proxy.connections.borrow();
        let id = server.start_call("ticks", json!({ "count": 120, "everyMs": 10 })).await;
        let arguments: Vec<_> = ["tail", &id].into_iter().chain(form).collect();
        let mut tail = start(&proxy.url, &arguments);
        let mut lines = BufReader::new(tail.stdout.take().expect("a pipe")).lines();
        let (mut numbers, mut last) = (Vec::new(), Value::Null);
        while let Some(line) = timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("read") {
            let text = match form {
                None => line,
                Some(_) => {
                    last = serde_json::from_str(&line).expect("JSON");
                    match last["line"].as_str() {
                        Some(text) => text.to_owned(),
                        None => continue,
                    }
                }
            };
            numbers.push(text.split_once(' ').and_then(|(number, _)| number.parse::<usize>().ok()).expect("a number"));
            if numbers.len() % 25 == 0 {
                proxy.cut.send_replace(());
            }
        }
        assert_eq!(ended(tail).await, "");
        assert_eq!(numbers, (0..120).collect::<Vec<_>>());
        assert!(*proxy.connections.borrow() >= cuts_before + 2, "it was cut");
        if form.is_some() {
            assert_eq!((&last["event"], &last["result"]), (&json!("completed"), &json!(120)));
        }
    }
}

#[tokio::test]
async fn run_shows_a_line_while_the_call_goes_on() {
    let server = Server::start("");
    server.push("ticks.wasm").await;
    let mut run = start(&server.url, &["run", "ticks", r#"{"count":2,"everyMs":0,"pauseMs":500000}"#]);
    let mut lines = BufReader::new(run.stderr.take().expect("a pipe")).lines();
    let line = timeout(PATIENCE, lines.next_line()).await.expect("in time").expect("read").expect("a line");
    assert!(line.starts_with("0 "), "{line}");
    let call = server.call_when_of("ticks", "running").await;
    // Who leaves takes the call along.
    run.kill().await.expect("killed");
    let id = call["invocationId"].as_str().expect("an id");
    assert_eq!(server.ended(id).await["status"], "cancelled");
}

/// What a command writes to a terminal of its own, which has both of its outputs.
fn on_a_terminal(server: &str, arguments: &[&str], no_colour: bool) -> String {
    let terminal = pty::openpt(pty::OpenptFlags::RDWR | pty::OpenptFlags::NOCTTY).expect("a terminal");
    pty::grantpt(&terminal).expect("granted");
    pty::unlockpt(&terminal).expect("unlocked");
    let name = pty::ptsname(&terminal, Vec::new()).expect("a name").into_string().expect("text");
    let end: OwnedFd = fs::OpenOptions::new().read(true).write(true).open(name).expect("its other end").into();
    let mut command = process::Command::new(PROGRAM);
    command.args(arguments).args(["--server", server]).stdin(Stdio::null());
    command.env_remove("NO_COLOR").envs(no_colour.then_some(("NO_COLOR", "1")));
    command.stdout(end.try_clone().expect("another")).stderr(end);
    let mut child = command.spawn().expect("it runs");
    // Else this process would keep the terminal open.
    drop(command);
    let mut written = Vec::new();
    // A terminal that nobody has open any more is an error to read.
    let _ = File::from(terminal).read_to_end(&mut written);
    assert!(child.wait().expect("it ends").success(), "{}", String::from_utf8_lossy(&written));
    String::from_utf8(written).expect("text").replace("\r\n", "\n")
}

#[tokio::test]
async fn standard_error_has_colours_on_a_terminal_alone() {
    let server = Server::start("");
    server.push("print-lines.wasm").await;
    let id = server.start_call("print-lines", Value::Null).await;
    server.ended(&id).await;
    let watched = on_a_terminal(&server.url, &["tail", &id], false);
    assert!(watched.contains("\u{1b}[2;33ma warning\u{1b}[0m\n"), "{watched:?}");
    assert!(watched.contains("first\n") && !watched.contains("mfirst"), "{watched:?}");
    let run = on_a_terminal(&server.url, &["run", "print-lines"], false);
    assert!(run.contains("\u{1b}[2mfirst\u{1b}[0m\n") && run.contains("\u{1b}[2;33ma warning\u{1b}[0m\n"), "{run:?}");
    let plain = on_a_terminal(&server.url, &["tail", &id], true);
    assert!(plain.contains("a warning\n") && !plain.contains('\u{1b}'), "{plain:?}");
    let mut piped = start(&server.url, &["tail", &id]);
    let mut stdout = String::new();
    piped.stdout.take().expect("a pipe").read_to_string(&mut stdout).await.expect("read");
    let stderr = ended(piped).await;
    assert!(stdout.contains("first\n") && !stdout.contains("a warning"), "{stdout:?}");
    assert!(stderr.contains("a warning\n") && !(stdout + &stderr).contains('\u{1b}'), "{stderr:?}");
}
