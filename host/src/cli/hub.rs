//! The hub's plain dialect, from the client's side: a call's events as they come.

use std::time::Duration;

use futures_util::{SinkExt as _, StreamExt as _};
use reqwest::{Method, header::AUTHORIZATION};
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{Error as WebSocketError, Message, client::IntoClientRequest as _, protocol::WebSocketConfig},
};
use uuid::Uuid;

use super::{
    Client, Failure, Terminal,
    failure::{Problem, is_of_function},
};
use crate::function::FunctionType;

/// How long a connection may take.
const CONNECT: Duration = Duration::from_secs(10);
/// How long the server may be silent: it sends at least a ping each 15 seconds, unless it is told otherwise.
const SILENCE: Duration = Duration::from_secs(60);
/// The largest event, in bytes: a result may have as much as the server lets it.
const MAX_EVENT: usize = 2 * 1024 * 1024 * 1024;

/// A connection to the hub.
pub struct Hub<'a> {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    client: &'a Client,
}

/// Why there is no event.
#[derive(Debug)]
pub enum Lost {
    /// The connection broke: another may do.
    Connection(Failure),
    /// The server said no.
    Refused(Failure),
}

impl From<Lost> for Failure {
    fn from(lost: Lost) -> Self {
        match lost {
            Lost::Connection(failure) | Lost::Refused(failure) => failure,
        }
    }
}

/// Something that happened to a call.
#[derive(Debug)]
pub enum Event {
    /// It was accepted.
    Started(Uuid),
    /// It printed a line.
    Output(Line),
    /// Lines that came too fast.
    Skipped(u64),
    /// It has a result.
    Completed(Completed),
    /// It has none.
    Failed(Problem),
    /// What a later server may send.
    Other,
}

/// A line of a call's console.
#[derive(Debug, Deserialize)]
pub struct Line {
    /// Its number, from 0.
    pub number: u64,
    /// `stdout` or `stderr`.
    pub stream: String,
    /// The text.
    pub line: String,
}

/// The end of a call that succeeded.
#[derive(Debug, Deserialize)]
pub struct Completed {
    /// The function's type.
    #[serde(rename = "type")]
    kind: Option<FunctionType>,
    result: Option<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Named {
    event: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Started {
    invocation_id: Uuid,
}

#[derive(Deserialize)]
struct Skipped {
    lines: u64,
}

impl<'a> Hub<'a> {
    /// Connects to a path of the server.
    pub async fn connect(client: &'a Client, path: &[&str], query: &str) -> Result<Self, Lost> {
        let server = client.server();
        let lost = |text: String| Lost::Connection(Failure::Other(text));
        let config = WebSocketConfig::default().max_message_size(Some(MAX_EVENT)).max_frame_size(Some(MAX_EVENT));
        let mut request = client
            .socket_url(path, query)
            .into_client_request()
            .map_err(|error| lost(format!("no WebSocket at {server}: {error}")))?;
        request.headers_mut().extend(client.authorization().map(|value| (AUTHORIZATION, value.clone())));
        let connecting = connect_async_with_config(request, Some(config), true);
        match timeout(CONNECT, connecting).await {
            Ok(Ok((socket, _))) => Ok(Self { socket, client }),
            // The library reads no body; asked in the common way, the server says why.
            Ok(Err(WebSocketError::Http(_))) => Err(match client.send(client.request(Method::GET, path)).await {
                Err(failure) => Lost::Refused(failure),
                Ok(_) => lost(format!("{server} does not take WebSockets")),
            }),
            Ok(Err(error)) => Err(lost(format!(
                "no server could be reached at {server}: {error}; is it running? --server names another"
            ))),
            Err(_) => Err(lost(format!("{server} did not answer in time"))),
        }
    }

    /// Sends a message.
    pub async fn send(&mut self, text: String) -> Result<(), Lost> {
        self.socket.send(Message::text(text)).await.map_err(|error| self.broken(&error.to_string()))
    }

    fn broken(&self, why: &str) -> Lost {
        Lost::Connection(Failure::Other(format!("the connection to {} was lost: {why}", self.client.server())))
    }

    /// Waits for the next event; gives it as it came, too.
    pub async fn next(&mut self) -> Result<(String, Event), Lost> {
        loop {
            let message = timeout(SILENCE, self.socket.next()).await;
            let text = match message.map_err(|_| self.broken("the server is silent"))? {
                Some(Ok(Message::Text(text))) => text.to_string(),
                Some(Ok(Message::Close(Some(frame)))) => return Err(self.broken(&frame.reason)),
                Some(Ok(Message::Close(None))) | None => return Err(self.broken("the server closed it")),
                Some(Err(error)) => return Err(self.broken(&error.to_string())),
                // Pings are answered underneath.
                Some(Ok(_)) => continue,
            };
            let event = self.read(&text).map_err(Lost::Refused)?;
            return Ok((text, event));
        }
    }

    fn read(&self, text: &str) -> Result<Event, Failure> {
        let Named { event } = self.client.read(text)?;
        Ok(match event.as_str() {
            "started" => Event::Started(self.client.read::<Started>(text)?.invocation_id),
            "output" => Event::Output(self.client.read(text)?),
            "skipped" => Event::Skipped(self.client.read::<Skipped>(text)?.lines),
            "completed" => Event::Completed(self.client.read(text)?),
            "failed" => Event::Failed(self.client.read(text)?),
            _ => Event::Other,
        })
    }
}

impl Event {
    /// Shows it to people; gives how the call ended where it did.
    pub fn show(self, terminal: &mut Terminal) -> Option<Result<(), Failure>> {
        match self {
            Self::Output(line) => terminal.console_line(&line.line, line.stream == "stderr"),
            Self::Skipped(lines) => terminal.console_line(&format!("[{lines} lines skipped]"), true),
            Self::Completed(completed) => return Some(completed.print(terminal)),
            Self::Failed(problem) => return Some(Err(failure(problem))),
            Self::Started(_) | Self::Other => {}
        }
        None
    }
}

impl Completed {
    /// Prints the result.
    fn print(&self, terminal: &mut Terminal) -> Result<(), Failure> {
        // What a program prints is its result: whoever watches has just seen it.
        let seen = self.kind == Some(FunctionType::Exe) && terminal.is_watched();
        if seen { Ok(()) } else { terminal.print(&super::run::text(self.result.as_deref())) }
    }
}

/// The failure of a call that ended so.
pub fn failure(problem: Problem) -> Failure {
    if is_of_function(&problem.code) {
        Failure::Function(format!("{} ({})", problem.detail, problem.code))
    } else {
        Failure::Problem(Box::new(problem))
    }
}
