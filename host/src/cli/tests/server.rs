//! An HTTP server that answers as a closure says, one request a connection; and one of WebSockets.

use std::sync::{Arc, Mutex};

use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinSet,
};
use tokio_tungstenite::{
    accept_hdr_async,
    tungstenite::{Message, handshake::server},
};

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// With the query.
    pub path: String,
    heads: Vec<(String, String)>,
    pub body: Vec<u8>,
}

impl Request {
    /// The value of a header.
    pub fn head(&self, name: &str) -> Option<&str> {
        self.heads.iter().find(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }
}

/// What is answered.
#[derive(Debug)]
pub struct Answer {
    status: u16,
    media: &'static str,
    pieces: Vec<String>,
}

impl Answer {
    pub fn json(status: u16, body: &Value) -> Self {
        let media = if status < 400 { "application/json" } else { "application/problem+json" };
        Self { status, media, pieces: vec![body.to_string()] }
    }

    pub fn html(status: u16, body: &str) -> Self {
        Self { status, media: "text/html", pieces: vec![body.to_owned()] }
    }
}

/// A server that lives as long as this value.
pub struct Server {
    pub url: String,
    requests: Arc<Mutex<Vec<Request>>>,
    _serving: JoinSet<()>,
}

impl Server {
    pub async fn start(answer: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("has one"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.expect("accepted");
                let request = read(&mut stream).await;
                seen.lock().expect("unpoisoned").push(request.clone());
                write(&mut stream, answer(&request)).await;
            }
        });
        Self { url, requests, _serving: serving }
    }

    /// All requests so far.
    pub fn requests(&self) -> Vec<Request> {
        self.requests.lock().expect("unpoisoned").clone()
    }
}

async fn read(stream: &mut TcpStream) -> Request {
    let mut bytes = Vec::new();
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end + 4;
        }
        assert_ne!(stream.read_buf(&mut bytes).await.expect("read"), 0, "the request has no end");
    };
    let head = String::from_utf8(bytes[..end].to_vec()).expect("UTF-8");
    let mut lines = head.lines();
    let path = lines.next().and_then(|line| line.split(' ').nth(1)).expect("a request line").to_owned();
    let heads: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut request = Request { path, heads, body: bytes.split_off(end) };
    let length = request.head("content-length").map_or(0, |length| length.parse().expect("a number"));
    while request.body.len() < length {
        assert_ne!(stream.read_buf(&mut request.body).await.expect("read"), 0, "the body has no end");
    }
    request
}

async fn write(stream: &mut TcpStream, answer: Answer) {
    let Answer { status, media, pieces } = answer;
    let head = format!(
        "HTTP/1.1 {status} X\r\ncontent-type: {media}\r\ntransfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.expect("written");
    for piece in pieces {
        stream.write_all(format!("{:x}\r\n{piece}\r\n", piece.len()).as_bytes()).await.expect("written");
    }
    stream.write_all(b"0\r\n\r\n").await.expect("written");
    stream.shutdown().await.expect("ended");
}

/// What a connection to a [`HubServer`] is told.
#[derive(Debug, Clone)]
pub struct Script {
    events: Vec<String>,
    broken: bool,
}

impl Script {
    pub fn of(events: impl IntoIterator<Item = Value>) -> Self {
        Self { events: events.into_iter().map(|event| event.to_string()).collect(), broken: false }
    }

    /// The connection breaks after these.
    pub fn broken(self) -> Self {
        Self { broken: true, ..self }
    }
}

/// A server that speaks the plain dialect of the hub: each connection has its script.
pub struct HubServer {
    pub url: String,
    requests: Arc<Mutex<Vec<(String, Value)>>>,
    _serving: JoinSet<()>,
}

impl HubServer {
    pub async fn start(scripts: impl IntoIterator<Item = Script>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("has one"));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let seen = requests.clone();
        let scripts: Vec<_> = scripts.into_iter().collect();
        let mut serving = JoinSet::new();
        serving.spawn(async move {
            for script in scripts {
                let (stream, _) = listener.accept().await.expect("accepted");
                let mut path = String::new();
                #[allow(clippy::result_large_err, reason = "the library's own")]
                let note = |request: &server::Request, response: server::Response| {
                    path = request.uri().to_string();
                    Ok(response)
                };
                let mut socket = accept_hdr_async(stream, note).await.expect("a WebSocket");
                let mut call = Value::Null;
                if path == "/functions" {
                    let text = socket.next().await.expect("a message").expect("whole").into_text().expect("text");
                    call = serde_json::from_str(&text).expect("JSON");
                }
                seen.lock().expect("unpoisoned").push((path, call));
                for event in script.events {
                    socket.send(Message::text(event)).await.expect("sent");
                }
                if !script.broken {
                    // The client may have left.
                    let _ = socket.close(None).await;
                }
            }
        });
        Self { url, requests, _serving: serving }
    }

    /// The path of each connection, and the call that was made on it.
    pub fn requests(&self) -> Vec<(String, Value)> {
        self.requests.lock().expect("unpoisoned").clone()
    }
}
