//! One WebSocket: messages in, and messages out no faster than its client reads them.
//!
//! What is on the way to a client that does not read is bounded: some text here, the web server's write
//! buffer, and what the kernel holds for it. Whoever has more to say waits.
//!
//! actix-ws shakes hands and reads. What is sent is framed here, straight into what the web server takes
//! next: a line costs no channel, no allocation and no write of its own.

use std::{
    cell::{Cell, RefCell},
    convert::Infallible,
    fmt,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use actix_web::{
    HttpRequest, HttpResponse,
    body::{BodySize, BoxBody, MessageBody},
    web,
};
use actix_ws::{AggregatedMessage, AggregatedMessageStream, CloseCode, ProtocolError};
use bytes::Bytes;
use tokio::{sync::Notify, time::Instant};

use super::frames::Frames;
use crate::{
    api::{Problem, connection},
    config::HubConfig,
};

/// How many bytes of messages may wait to be written, before those that are added at once.
const ROOM: usize = 16 * 1024;

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
    hub: &HubConfig,
) -> Result<(HttpResponse, Sender, Receiver), Problem> {
    let (response, _, messages) = actix_ws::handle(request, payload)
        .map_err(|error| Problem::invalid(format!("{} is for WebSockets: {error}", request.path())))?;
    let bound = connection::bound(request, hub);
    let flow = Rc::new(Flow {
        unsent: RefCell::default(),
        finished: Cell::new(false),
        writer: Cell::new(None),
        gone: Cell::new(false),
        heard: Cell::new(Instant::now()),
        said: Cell::new(Instant::now()),
        changed: Notify::new(),
        socket: connection::Socket::of(request),
    });
    let body = flow.clone();
    let response = response.map_body(|_, inner| BoxBody::new(Outgoing { flow: body, _inner: inner, _bound: bound }));
    let messages = messages.max_frame_size(max).aggregate_continuations().max_continuation_size(max);
    Ok((response, Sender { hands: Rc::new(Hands(flow.clone())) }, Receiver { messages, flow }))
}

/// What both ends and the response's body know. All of them live on one thread.
struct Flow {
    /// What the connection has not taken yet.
    unsent: RefCell<Frames>,
    /// Nothing comes after it.
    finished: Cell<bool>,
    /// What waits for more of it.
    writer: Cell<Option<Waker>>,
    gone: Cell<bool>,
    /// When the client last sent anything, or took what was held up.
    heard: Cell<Instant>,
    /// When something was last sent to it.
    said: Cell<Instant>,
    /// The connection took what there was, or is gone.
    changed: Notify,
    socket: Option<connection::Socket>,
}

impl Flow {
    fn waiting(&self) -> usize {
        self.unsent.borrow().len()
    }

    fn put(&self, write: impl FnOnce(&mut Frames)) {
        if !self.finished.get() {
            write(&mut self.unsent.borrow_mut());
            self.wake();
        }
    }

    fn finish(&self) {
        self.finished.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(writer) = self.writer.take() {
            writer.wake();
        }
    }
}

/// Whoever may still send; when the last is gone, so is the connection.
struct Hands(Rc<Flow>);

impl Drop for Hands {
    fn drop(&mut self) {
        self.0.finish();
    }
}

/// The way out. A clone is another hand on the same.
#[derive(Clone)]
pub struct Sender {
    hands: Rc<Hands>,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("waiting", &self.flow().waiting()).finish_non_exhaustive()
    }
}

impl Sender {
    fn flow(&self) -> &Flow {
        &self.hands.0
    }

    /// Waits until there is room for more.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn room(&self) -> Result<(), Gone> {
        let flow = self.flow();
        while flow.waiting() >= ROOM && !flow.gone.get() {
            flow.changed.notified().await;
        }
        if flow.gone.get() { Err(Gone) } else { Ok(()) }
    }

    /// Sends what `write` adds, as soon as there is room for it.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn send(&self, write: impl FnOnce(&mut Frames)) -> Result<(), Gone> {
        self.room().await?;
        let flow = self.flow();
        flow.said.set(Instant::now());
        flow.put(write);
        Ok(())
    }

    /// Sends a message as soon as there is room for it.
    ///
    /// # Errors
    /// When the connection is gone.
    pub async fn text(&self, text: &str) -> Result<(), Gone> {
        self.send(|frames| frames.text(|to| to.extend_from_slice(text.as_bytes()))).await
    }

    /// Sends a ping of the WebSocket protocol, unless something else is on its way anyhow.
    pub fn ping(&self) {
        if self.is_idle() {
            self.flow().put(Frames::ping);
        }
        self.flow().said.set(Instant::now());
    }

    /// Answers a ping, unless the client does not read its answers.
    pub fn pong(&self, data: &[u8]) {
        if self.flow().waiting() < ROOM {
            self.flow().put(|frames| frames.pong(data));
        }
    }

    /// Ends the conversation (RFC 6455, section 7), where the client still listens.
    pub fn close(&self, code: CloseCode, why: &str) {
        self.flow().put(|frames| frames.close(code, why));
        self.flow().finish();
    }

    /// Breaks the connection off: for a client that shows no sign of life.
    pub fn abort(&self) {
        if let (false, Some(socket)) = (self.flow().gone.get(), self.flow().socket) {
            // SAFETY: the response's body lives, else it would have said that it is gone.
            unsafe { socket.abort() };
        }
    }

    /// Whether nothing waits to be written.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.flow().waiting() == 0
    }

    /// When something was last sent.
    #[must_use]
    pub fn said(&self) -> Instant {
        self.flow().said.get()
    }

    /// Waits until the client has sent nothing for `limit`, or the connection is gone.
    pub async fn lost(&self, limit: Duration) {
        let flow = self.flow();
        let silent = async {
            loop {
                let until = flow.heard.get() + limit;
                if until <= Instant::now() {
                    return;
                }
                tokio::time::sleep_until(until).await;
            }
        };
        let gone = async {
            while !flow.gone.get() {
                flow.changed.notified().await;
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
    /// The client closes the conversation, and is to be answered in kind.
    Closed,
    /// The client is gone.
    Gone,
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
            None => Received::Gone,
            Some(Ok(AggregatedMessage::Close(_))) => Received::Closed,
            Some(Ok(AggregatedMessage::Text(text))) => Received::Text(text.into()),
            // The text protocols here may come in binary frames too: .NET clients send them so.
            Some(Ok(AggregatedMessage::Binary(bytes))) => match String::from_utf8(bytes.into()) {
                Ok(text) => Received::Text(text),
                Err(_) => Received::Refused(CloseCode::Invalid, "messages must be UTF-8 text".into()),
            },
            Some(Ok(AggregatedMessage::Ping(data))) => Received::Ping(data),
            Some(Ok(AggregatedMessage::Pong(_))) => Received::Pong,
            Some(Err(ProtocolError::Overflow)) => Received::Refused(CloseCode::Size, "the message is too large".into()),
            Some(Err(ProtocolError::Io(_))) => Received::Gone,
            Some(Err(error)) => Received::Refused(CloseCode::Protocol, error.to_string()),
        }
    }
}

/// The response's body: what is to be sent, as the connection takes it.
struct Outgoing {
    flow: Rc<Flow>,
    /// The body that actix-ws made tells, when it goes, the stream of messages that the connection is gone.
    _inner: BoxBody,
    _bound: Option<connection::Bound>,
}

impl MessageBody for Outgoing {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Stream
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let flow = &self.flow;
        let waiting = flow.waiting();
        if waiting == 0 {
            if flow.finished.get() {
                return Poll::Ready(None);
            }
            flow.writer.set(Some(context.waker().clone()));
            return Poll::Pending;
        }
        if waiting >= ROOM {
            // What was held up moves again: a client that reads slowly is alive, though its answer to a
            // ping is behind all that it has not read yet.
            flow.heard.set(Instant::now());
            flow.changed.notify_waiters();
        }
        Poll::Ready(Some(Ok(flow.unsent.borrow_mut().take())))
    }
}

impl Drop for Outgoing {
    fn drop(&mut self) {
        self.flow.gone.set(true);
        self.flow.changed.notify_waiters();
    }
}
