//! A WebSocket client, and one that speaks SignalR's JSON protocol, each step under a time limit.

use std::collections::VecDeque;

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async,
    tungstenite::{self, Message, client::IntoClientRequest as _},
};

use super::server::{PATIENCE, Server};

/// What ends a SignalR record.
pub const END: char = '\u{1e}';

/// A connection.
pub struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Socket {
    /// Connects to a path of the server.
    pub async fn connect(server: &Server, path: &str) -> Self {
        Self::try_connect(server, path).await.expect("a WebSocket")
    }

    pub async fn try_connect(server: &Server, path: &str) -> Result<Self, tungstenite::Error> {
        let url = server.url(path).replacen("http", "ws", 1);
        Ok(Self(timeout(PATIENCE, connect_async(url)).await.expect("in time")?.0))
    }

    pub async fn with_header(
        server: &Server,
        path: &str,
        name: &'static str,
        value: &str,
    ) -> Result<Self, tungstenite::Error> {
        let mut request = server.url(path).replacen("http", "ws", 1).into_client_request()?;
        request.headers_mut().insert(name, value.parse().expect("a header"));
        Ok(Self(timeout(PATIENCE, connect_async(request)).await.expect("in time")?.0))
    }

    pub async fn send(&mut self, text: impl Into<String>) {
        let text: String = text.into();
        timeout(PATIENCE, self.0.send(Message::text(text))).await.expect("in time").expect("sent");
    }

    /// Begins to close the connection.
    pub async fn close(&mut self) {
        timeout(PATIENCE, self.0.close(None)).await.expect("in time").expect("sent");
    }

    pub async fn send_json(&mut self, message: Value) {
        self.send(message.to_string()).await;
    }

    /// The next text; `None` when the server has closed the connection.
    pub async fn text(&mut self) -> Option<String> {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("in time") {
                Some(Ok(Message::Text(text))) => return Some(text.to_string()),
                Some(Ok(Message::Close(_))) | Some(Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The next text, as JSON.
    pub async fn json(&mut self) -> Value {
        let text = self.text().await.expect("a message");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The code and the reason with which the server closes the connection; texts before it are dropped.
    pub async fn closed(&mut self) -> Option<(u16, String)> {
        loop {
            match timeout(PATIENCE, self.0.next()).await.expect("in time") {
                Some(Ok(Message::Close(frame))) => {
                    return frame.map(|frame| (frame.code.into(), frame.reason.to_string()));
                }
                Some(Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// The events of one call on a connection that has no other, up to the last.
    pub async fn events(&mut self) -> Vec<Value> {
        let mut events = Vec::new();
        loop {
            let event = self.json().await;
            let last = event["event"] == "completed" || event["event"] == "failed";
            events.push(event);
            if last {
                return events;
            }
        }
    }
}

/// The lines among events.
pub fn lines(events: &[Value]) -> Vec<&str> {
    events
        .iter()
        .filter(|event| event["event"] == "output")
        .map(|event| event["line"].as_str().expect("text"))
        .collect()
}

/// A connection that speaks SignalR.
pub struct SignalR {
    pub socket: Socket,
    records: VecDeque<Value>,
}

impl SignalR {
    /// Connects and shakes hands.
    pub async fn connect(server: &Server) -> Self {
        Self::on(Socket::connect(server, "/functions?id=any").await).await
    }

    /// Shakes hands.
    pub async fn on(mut socket: Socket) -> Self {
        socket.send(format!("{{\"protocol\":\"json\",\"version\":1}}{END}")).await;
        assert_eq!(socket.text().await.as_deref(), Some(&*format!("{{}}{END}")));
        Self { socket, records: VecDeque::new() }
    }

    pub async fn send(&mut self, message: Value) {
        self.socket.send(format!("{message}{END}")).await;
    }

    pub async fn stream(&mut self, id: &str, arguments: Value) {
        let target = "FunctionHandler";
        self.send(json!({ "type": 4, "invocationId": id, "target": target, "arguments": arguments })).await;
    }

    /// The next message; `None` when the server has closed the connection.
    pub async fn next(&mut self) -> Option<Value> {
        while self.records.is_empty() {
            let text = self.socket.text().await?;
            assert!(text.ends_with(END), "{text:?}");
            self.records.extend(text.split_terminator(END).map(|record| serde_json::from_str(record).expect("JSON")));
        }
        self.records.pop_front()
    }

    /// The next message but pings.
    pub async fn message(&mut self) -> Value {
        loop {
            let message = self.next().await.expect("a message");
            if message["type"] != 6 {
                return message;
            }
        }
    }

    /// What is streamed of a call, where no other is under way, and its completion.
    pub async fn streamed(&mut self, id: &str) -> (Vec<String>, Value) {
        let mut items = Vec::new();
        loop {
            let message = self.message().await;
            assert_eq!(message["invocationId"], id, "{message}");
            match message["type"].as_u64() {
                Some(2) => items.push(message["item"].as_str().expect("text").to_owned()),
                Some(3) => return (items, message),
                _ => panic!("{message}"),
            }
        }
    }
}
