//! One WebSocket: messages in, and messages out no faster than its client reads them.
//!
//! What is on the way to a client that does not read is bounded: some text here, the web server's write
//! buffer, and the kernel's send buffer, which is made small. Whoever has more to say waits.

use std::{
    cell::Cell,
    fmt,
    os::fd::{AsRawFd, BorrowedFd, RawFd},
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    dev::Extensions,
    rt::net::TcpStream,
    web,
};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, CloseReason, ProtocolError};
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::{sync::Notify, time::Instant};

use crate::api::Problem;

/// How many bytes of messages may wait to be written, before the one that is added.
const ROOM: usize = 16 * 1024;
/// The kernel's send buffer of a WebSocket, in bytes; Linux doubles it. Left alone it grows to megabytes
/// for a client that does not read.
const SEND_BUFFER: usize = 16 * 1024;
/// How long the kernel keeps a connection whose other end takes nothing, on any connection of the server:
/// whoever vanished, or reads nothing for so long, is gone (RFC 5482).
const TCP_USER_TIMEOUT: Duration = Duration::from_secs(60);

/// The connection's socket, for as long as the connection serves a request.
#[derive(Debug, Clone, Copy)]
struct Socket(RawFd);

impl Socket {
    /// Acts on the socket.
    ///
    /// # Safety
    /// The connection must still be there: a request of it is being handled, or its response's body lives.
    unsafe fn with<T>(self, act: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        // SAFETY: as the caller promises, the connection owns the descriptor and has not closed it.
        act(unsafe { BorrowedFd::borrow_raw(self.0) })
    }
}

/// Prepares a new connection.
pub fn on_connect(stream: &TcpStream, data: &mut Extensions) {
    let milliseconds = u32::try_from(TCP_USER_TIMEOUT.as_millis()).unwrap_or(u32::MAX);
    // Where the kernel has no such option, keep-alive and the hub's own time-out remain.
    let _ = rustix::net::sockopt::set_tcp_user_timeout(stream, milliseconds);
    data.insert(Socket(stream.as_raw_fd()));
}

/// The connection is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gone;

/// Turns a request into a WebSocket whose messages have at most `max` bytes: the answer, and its two ends.
///
/// # Errors
/// When the request does not ask for one (RFC 6455, section 4.2.1).
pub fn open(
    request: &HttpRequest,
    payload: web::Payload,
    max: usize,
) -> Result<(HttpResponse, Sender, Receiver), Problem> {
    let (response, session, messages) = actix_ws::handle(request, payload)
        .map_err(|error| Problem::invalid(format!("{} is for WebSockets: {error}", request.path())))?;
    let socket = request.conn_data::<Socket>().copied();
    if let Some(socket) = socket {
        // SAFETY: the request is being handled.
        let set = unsafe { socket.with(|fd| rustix::net::sockopt::set_socket_send_buffer_size(fd, SEND_BUFFER)) };
        if let Err(error) = set {
            tracing::debug!(%error, "a send buffer keeps its size");
        }
    }
    let flow = Rc::new(Flow {
        unsent: Cell::new(0),
        gone: Cell::new(false),
        heard: Cell::new(Instant::now()),
        said: Cell::new(Instant::now()),
        changed: Notify::new(),
        socket,
    });
    let body = flow.clone();
    let response = response.map_body(|_, inner| BoxBody::new(Paced { inner, flow: body }));
    let messages = messages.max_frame_size(max).aggregate_continuations().max_continuation_size(max);
    Ok((response, Sender { session, flow: flow.clone() }, Receiver { messages, flow }))
}

/// What both ends and the response's body know. All of them live on one thread.
struct Flow {
    /// Bytes that were handed over since the connection last took some.
    unsent: Cell<usize>,
    gone: Cell<bool>,
    /// When the client last sent anything, or took what was held up.
    heard: Cell<Instant>,
    /// When something was last sent to it.
    said: Cell<Instant>,
    /// The connection took what there was, or is gone.
    changed: Notify,
    socket: Option<Socket>,
}

/// The way out. A clone is another hand on the same.
#[derive(Clone)]
pub struct Sender {
    session: actix_ws::Session,
    flow: Rc<Flow>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("unsent", &self.flow.unsent.get()).finish_non_exhaustive()
    }
}

impl Sender {
    /// Sends a message as soon as there is room for it.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn text(&mut self, text: String) -> Result<(), Gone> {
        while self.flow.unsent.get() >= ROOM && !self.flow.gone.get() {
            self.flow.changed.notified().await;
        }
        if self.flow.gone.get() {
            return Err(Gone);
        }
        self.flow.unsent.set(self.flow.unsent.get() + text.len());
        self.flow.said.set(Instant::now());
        self.session.text(text).await.map_err(|_| Gone)
    }

    /// Sends a ping of the WebSocket protocol, unless something else is on its way anyhow.
    pub fn ping(&mut self) {
        if self.is_idle() {
            // Where there is no room after all, the client has something to read.
            let _ = self.session.ping(b"").now_or_never();
        }
        self.flow.said.set(Instant::now());
    }

    /// Answers a ping, unless the client does not read its answers.
    pub fn pong(&mut self, data: &[u8]) {
        if self.flow.unsent.get() < ROOM {
            self.flow.unsent.set(self.flow.unsent.get() + data.len());
            let _ = self.session.pong(data).now_or_never();
        }
    }

    /// Ends the conversation (RFC 6455, section 7), where the client still listens.
    pub fn close(self, code: CloseCode, why: &str) {
        let reason = CloseReason { code, description: Some(why.to_owned()) };
        let _ = self.session.close(Some(reason)).now_or_never();
    }

    /// Breaks the connection off: for a client that shows no sign of life.
    pub fn abort(&self) {
        if let (false, Some(socket)) = (self.flow.gone.get(), self.flow.socket) {
            // SAFETY: the response's body lives, else it would have said that it is gone.
            let _ = unsafe { socket.with(|fd| rustix::net::shutdown(fd, rustix::net::Shutdown::Both)) };
        }
    }

    /// Whether nothing waits to be written.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.flow.unsent.get() == 0
    }

    /// When something was last sent.
    #[must_use]
    pub fn said(&self) -> Instant {
        self.flow.said.get()
    }

    /// Waits until the client has sent nothing for `limit`, or the connection is gone.
    pub async fn lost(&self, limit: Duration) {
        let silent = async {
            loop {
                let until = self.flow.heard.get() + limit;
                if until <= Instant::now() {
                    return;
                }
                tokio::time::sleep_until(until).await;
            }
        };
        let gone = async {
            while !self.flow.gone.get() {
                self.flow.changed.notified().await;
            }
        };
        tokio::select! {
            () = silent => {}
            () = gone => {}
        }
    }
}

/// What a client sends.
#[derive(Debug)]
pub enum Received {
    /// A message.
    Text(String),
    /// A ping, to be answered.
    Ping(Bytes),
    /// A sign of life.
    Pong,
    /// The end; nothing comes after it.
    Closed,
    /// What is not allowed: with how to close, and why.
    Refused(CloseCode, String),
}

/// The way in.
pub struct Receiver {
    messages: AggregatedMessageStream,
    flow: Rc<Flow>,
}

impl fmt::Debug for Receiver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl Receiver {
    /// Waits for the client.
    pub async fn next(&mut self) -> Received {
        let received = self.messages.recv().await;
        self.flow.heard.set(Instant::now());
        match received {
            None | Some(Ok(AggregatedMessage::Close(_))) => Received::Closed,
            Some(Ok(AggregatedMessage::Text(text))) => Received::Text(text.into()),
            // The text protocols here may come in binary frames too: .NET clients send them so.
            Some(Ok(AggregatedMessage::Binary(bytes))) => match String::from_utf8(bytes.into()) {
                Ok(text) => Received::Text(text),
                Err(_) => Received::Refused(CloseCode::Invalid, "messages must be UTF-8 text".into()),
            },
            Some(Ok(AggregatedMessage::Ping(data))) => Received::Ping(data),
            Some(Ok(AggregatedMessage::Pong(_))) => Received::Pong,
            Some(Err(ProtocolError::Overflow)) => Received::Refused(CloseCode::Size, "the message is too large".into()),
            Some(Err(ProtocolError::Io(_))) => Received::Closed,
            Some(Err(error)) => Received::Refused(CloseCode::Protocol, error.to_string()),
        }
    }
}

/// The response's body, which tells when the connection takes more.
struct Paced {
    inner: BoxBody,
    flow: Rc<Flow>,
}

impl MessageBody for Paced {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.inner.size()
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.inner).poll_next(context);
        if polled.is_ready() {
            if this.flow.unsent.get() >= ROOM {
                // What was held up moves again: a client that reads slowly is alive, though its answer to a
                // ping is behind all that it has not read yet.
                this.flow.heard.set(Instant::now());
            }
            this.flow.unsent.set(0);
            this.flow.changed.notify_waiters();
        }
        polled
    }
}

impl Drop for Paced {
    fn drop(&mut self) {
        self.flow.gone.set(true);
        self.flow.changed.notify_waiters();
    }
}
