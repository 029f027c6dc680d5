//! Clients that do as little as can be done with what they get, so that it is the server that is measured.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::common::Failure;

/// What ends a SignalR record.
const END: u8 = 0x1e;

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

    pub fn name(self) -> &'static str {
        match self {
            Self::SignalR => "SignalR",
            Self::Plain => "plain WebSocket",
            Self::Tail => "tail",
            Self::Events => "server-sent events",
            Self::Text => "plain text",
        }
    }

    /// Whether a listener makes the call, instead of following one.
    pub fn calls(self) -> bool {
        matches!(self, Self::SignalR | Self::Plain)
    }

    /// What stands before a line in the unit that it comes in.
    fn prefix(self) -> &'static [u8] {
        match self {
            Self::SignalR => b"{\"type\":2,",
            Self::Plain | Self::Tail => b"{\"event\":\"output\"",
            Self::Events => b"data: {\"stream\"",
            Self::Text => b"",
        }
    }
}

/// A connection, and what has come on it.
pub struct Listener {
    stream: TcpStream,
    dialect: Dialect,
    /// What has come and is not looked at.
    buffer: Vec<u8>,
    pub lines: u64,
    /// How long after their printing lines came, where they tell when that was.
    pub ages: Option<Vec<Duration>>,
}

impl Listener {
    /// Follows the call of that id; of the dialects that make the call, `what` is the function and its payload, or
    /// nothing for a connection that makes none.
    pub async fn open(address: &str, dialect: Dialect, id: &str, what: (&str, &str)) -> Result<Self, Failure> {
        let path = match dialect {
            Dialect::SignalR | Dialect::Plain => "/functions".to_owned(),
            Dialect::Tail => format!("/api/invocations/{id}/tail"),
            Dialect::Events | Dialect::Text => format!("/api/invocations/{id}/output"),
        };
        let headers = match dialect {
            Dialect::Text => "Accept: text/plain\r\n",
            Dialect::Events => "Accept: text/event-stream\r\n",
            _ => {
                "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            }
        };
        let mut stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: {address}\r\n{headers}\r\n").as_bytes()).await?;
        let mut listener = Self { stream, dialect, buffer: Vec::new(), lines: 0, ages: None };
        listener.read_head().await?;
        let (name, payload) = what;
        match dialect {
            Dialect::SignalR => {
                listener.send("{\"protocol\":\"json\",\"version\":1}\u{1e}").await?;
                if name.is_empty() {
                    return Ok(listener);
                }
                listener
                    .send(&format!(
                        "{{\"type\":4,\"invocationId\":\"1\",\"target\":\"FunctionHandler\",\
                         \"arguments\":[\"{name}\",\"bench\",\"\",{payload}]}}\u{1e}"
                    ))
                    .await?;
            }
            // An answer it gets to that, too.
            Dialect::Plain if name.is_empty() => listener.send("{}").await?,
            Dialect::Plain => {
                let call = format!("{{\"functionName\":\"{name}\",\"lane\":\"bench\",\"payload\":{payload}}}");
                listener.send(&call).await?;
            }
            Dialect::Tail | Dialect::Events | Dialect::Text => {}
        }
        Ok(listener)
    }

    async fn read_head(&mut self) -> Result<(), Failure> {
        loop {
            if let Some(at) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..at + 4).collect();
                let good = head.starts_with(b"HTTP/1.1 101") || head.starts_with(b"HTTP/1.1 200");
                return if good { Ok(()) } else { Err(String::from_utf8_lossy(&head).into_owned().into()) };
            }
            if self.stream.read_buf(&mut self.buffer).await? == 0 {
                return Err("the server hung up".into());
            }
        }
    }

    /// Sends a text message, masked with zeros (RFC 6455, section 5.3).
    async fn send(&mut self, text: &str) -> Result<(), Failure> {
        let length = u16::try_from(text.len())?;
        let mut frame = vec![0x81, 0x80 | 126];
        frame.extend(length.to_be_bytes());
        frame.extend([0; 4]);
        frame.extend(text.as_bytes());
        Ok(self.stream.write_all(&frame).await?)
    }

    /// Whether something has come already.
    pub fn has_some(&self) -> bool {
        !self.buffer.is_empty() || self.lines > 0
    }

    /// Takes what is there, as soon as there is something; `false` at the end.
    pub async fn more(&mut self) -> Result<bool, Failure> {
        self.buffer.reserve(64 * 1024);
        if self.stream.read_buf(&mut self.buffer).await? == 0 {
            return Ok(false);
        }
        let buffer = std::mem::take(&mut self.buffer);
        let mut rest = &buffer[..];
        match self.dialect {
            Dialect::Events | Dialect::Text => {
                // Pieces of the transfer coding hold whole lines, so their heads stand between lines.
                while let Some(at) = memchr::memchr(b'\n', rest) {
                    self.unit(&rest[..at]);
                    rest = &rest[at + 1..];
                }
            }
            Dialect::SignalR | Dialect::Plain | Dialect::Tail => {
                while let Some((payload, after)) = frame(rest) {
                    match self.dialect {
                        Dialect::SignalR => {
                            let mut records = payload;
                            while let Some(at) = memchr::memchr(END, records) {
                                self.unit(&records[..at]);
                                records = &records[at + 1..];
                            }
                        }
                        _ => self.unit(payload),
                    }
                    rest = after;
                }
            }
        }
        let taken = buffer.len() - rest.len();
        self.buffer = buffer;
        self.buffer.drain(..taken);
        Ok(true)
    }

    /// Looks at what may be a line.
    fn unit(&mut self, unit: &[u8]) {
        // A text listener's lines begin with a number; heads of pieces are shorter than any of them.
        let is_line = match self.dialect {
            Dialect::Text => unit.len() > 10 && unit.first() != Some(&b'['),
            dialect => unit.starts_with(dialect.prefix()),
        };
        if !is_line {
            return;
        }
        self.lines += 1;
        if let Some(ages) = &mut self.ages {
            // `NUMBER MICROSECONDS`, somewhere in it: the one space that stands before a long number.
            let printed = memchr::memchr_iter(b' ', unit).find_map(|at| {
                let digits: Vec<u8> = unit[at + 1..].iter().copied().take_while(u8::is_ascii_digit).collect();
                (digits.len() > 12).then(|| String::from_utf8(digits).ok()?.parse::<u64>().ok()).flatten()
            });
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            ages.extend(printed.map(|micros| now.saturating_sub(Duration::from_micros(micros))));
        }
    }
}

/// The first frame's payload, and what comes after it; none where it is not whole.
fn frame(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, length) = match bytes.get(1)? & 0x7f {
        126 => (4, usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?))),
        127 => (10, usize::try_from(u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?)).ok()?),
        length => (2, usize::from(length)),
    };
    Some((bytes.get(head..head + length)?, bytes.get(head + length..)?))
}
