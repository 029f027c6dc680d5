//! Listeners that do no more than they are told: they read what they are told to read, and answer nothing.

use serde_json::{Value, json};
use socket2::{SockFilter, SockRef};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::{
    server::{PATIENCE, Server},
    websocket::END,
};

/// How a listener is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Dialect {
    SignalR,
    Plain,
    Tail,
    Events,
    Text,
}

impl Dialect {
    pub const ALL: [Self; 5] = [Self::SignalR, Self::Plain, Self::Tail, Self::Events, Self::Text];
    /// Those that follow what somebody else called.
    pub const FOLLOWERS: [Self; 3] = [Self::Tail, Self::Events, Self::Text];
}

/// A connection.
pub struct Raw(TcpStream);

impl Raw {
    /// Follows the call of that id; in the dialects that make the call, `what` is the function and its payload.
    pub async fn listen(server: &Server, dialect: Dialect, id: &str, what: (&str, Value)) -> Self {
        let path = match dialect {
            Dialect::SignalR | Dialect::Plain => "/functions".to_owned(),
            Dialect::Tail => format!("/api/invocations/{id}/tail"),
            Dialect::Events | Dialect::Text => format!("/api/invocations/{id}/output"),
        };
        let (headers, status) = match dialect {
            Dialect::Text => ("Accept: text/plain\r\nConnection: close\r\n", "200"),
            Dialect::Events => ("Accept: text/event-stream\r\nConnection: close\r\n", "200"),
            _ => (
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
                "101",
            ),
        };
        let stream = TcpStream::connect(server.url.trim_start_matches("http://")).await.expect("a connection");
        let mut raw = Self(stream);
        raw.write(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").as_bytes()).await;
        let mut answer = [0; 12];
        timeout(PATIENCE, raw.0.read_exact(&mut answer)).await.expect("in time").expect("an answer");
        assert_eq!(answer, *format!("HTTP/1.1 {status}").as_bytes());
        let (name, payload) = what;
        match dialect {
            Dialect::SignalR => {
                let call = json!({
                    "type": 4, "invocationId": "1", "target": "FunctionHandler", "arguments": [name, "dev", "", payload],
                });
                raw.send(&format!("{{\"protocol\":\"json\",\"version\":1}}{END}{call}{END}")).await;
            }
            Dialect::Plain => {
                raw.send(&json!({ "functionName": name, "lane": "dev", "payload": payload }).to_string()).await;
            }
            Dialect::Tail | Dialect::Events | Dialect::Text => {}
        }
        raw
    }

    async fn write(&mut self, bytes: &[u8]) {
        timeout(PATIENCE, self.0.write_all(bytes)).await.expect("in time").expect("sent");
    }

    /// Sends a text message, masked with zeros (RFC 6455, section 5.3).
    async fn send(&mut self, text: &str) {
        let length = u16::try_from(text.len()).expect("short");
        let mut frame = vec![0x81, 0x80 | 126];
        frame.extend(length.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        self.write(&frame).await;
    }

    /// Adds some of what has come to `to`, at most `most` bytes; `false` at the end.
    pub async fn read(&mut self, most: usize, to: &mut Vec<u8>) -> bool {
        // As much is read as there is room for.
        to.reserve(most);
        let mut some = (&mut self.0).take(most as u64);
        timeout(PATIENCE, some.read_buf(to)).await.expect("in time").expect("read") > 0
    }

    /// Reads until this has come.
    pub async fn read_until(&mut self, text: &str) {
        let mut read = Vec::new();
        while !String::from_utf8_lossy(&read).contains(text) {
            assert!(self.read(4096, &mut read).await, "{}", String::from_utf8_lossy(&read));
        }
    }

    /// From now on nothing reaches this end, as where a cable was pulled: its kernel drops what comes, and answers
    /// to nothing.
    pub fn go_dark(&self) {
        // BPF_RET: keep no byte of any packet.
        SockRef::from(&self.0).attach_filter(&[SockFilter::new(0x06, 0, 0, 0)]).expect("a filter");
    }
}
