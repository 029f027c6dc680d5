//! Reading bodies under limits of size and time.

use std::{
    cell::RefCell,
    pin::Pin,
    rc::Rc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpMessage, HttpRequest,
    body::{BodySize, BoxBody, MessageBody},
    dev::{Payload, ServiceRequest, ServiceResponse},
    error::PayloadError,
    http::header,
    web,
};
use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt};
use tokio::time::Instant;

use super::{Problem, trailers::Followed};
use crate::{config::seconds, function::ErrorCode, metrics};

/// How many bytes of a body buy its sender another second.
const BYTES_A_SECOND: u64 = 64 * 1024;

/// The time that a body has to arrive.
#[derive(Debug)]
pub struct Pace {
    started: Instant,
    base: Duration,
    received: u64,
}

impl Pace {
    /// Of a server that allows `read_seconds` for a small body.
    pub fn new(read_seconds: u64) -> Self {
        Self { started: Instant::now(), base: seconds(read_seconds), received: 0 }
    }

    /// Counts what has come.
    pub fn received(&mut self, bytes: usize) {
        self.received = self.received.saturating_add(bytes as u64);
    }

    /// Waits for the next part of the body, as long as it may take.
    pub async fn next<T>(&self, part: impl Future<Output = T>) -> Result<T, Problem> {
        let until = self.started + self.base + Duration::from_secs(self.received / BYTES_A_SECOND);
        tokio::time::timeout_at(until, part).await.map_err(|_| {
            metrics::SLOW_BODIES.count();
            Problem::invalid(format!(
                "the body did not arrive in time: {} bytes came, and then too little",
                self.received
            ))
        })
    }
}

/// Refuses bodies that would have to be unpacked: a small one can hold a huge one.
pub fn refuse_encoding(request: &HttpRequest) -> Result<(), Problem> {
    match request.headers().get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => {
            Err(Problem::invalid("a body with Content-Encoding is not accepted: send it as it is"))
        }
        _ => Ok(()),
    }
}

/// Reads a body of at most `limit` bytes; `what` and `code` are for the refusal of a larger one.
pub async fn read(request: &HttpRequest, mut body: web::Payload, limit: u64, mut pace: Pace) -> Result<Bytes, Problem> {
    refuse_encoding(request)?;
    let too_large = || {
        metrics::LARGE_BODIES.count();
        Problem::new(ErrorCode::PayloadTooLarge, format!("the body may have {limit} bytes, and has more"))
    };
    let length =
        request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut read = BytesMut::new();
    while let Some(part) = pace.next(body.next()).await? {
        let part = part.map_err(|error| Problem::invalid(format!("the body did not arrive whole: {error}")))?;
        pace.received(part.len());
        if (read.len() + part.len()) as u64 > limit {
            return Err(too_large());
        }
        if read.is_empty() && length == Some(part.len() as u64) {
            return Ok(part);
        }
        read.extend_from_slice(&part);
    }
    Ok(read.freeze())
}

/// The rest of a body that comes in chunks, held until its request is answered.
///
/// actix reads what is left of a chunked body that nobody wants any more, as long as its sender likes, and keeps
/// the connection for it. Of a body that is still held when the answer goes out, it closes the connection.
pub struct Held(Option<Rc<RefCell<Payload>>>);

/// Holds the body of the request, where it comes in chunks, and has what stands behind it at hand.
pub fn hold(request: &mut ServiceRequest) -> Held {
    if !request.chunked().unwrap_or(false) {
        return Held(None);
    }
    if let Some(behind) = request.conn_data::<Followed>().map(|followed| followed.begin(request.headers())) {
        request.extensions_mut().insert(behind);
    }
    let shared = Rc::new(RefCell::new(request.take_payload()));
    request.set_payload(Payload::Stream { payload: Box::pin(Shared(shared.clone())) });
    Held(Some(shared))
}

impl Held {
    /// Puts it into the response, with which it goes.
    pub fn with(self, response: ServiceResponse) -> ServiceResponse {
        match self.0 {
            None => response,
            Some(payload) => response.map_body(|_, body| BoxBody::new(Holding { body, _payload: payload })),
        }
    }
}

/// What the handler reads.
struct Shared(Rc<RefCell<Payload>>);

impl Stream for Shared {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Pin::new(&mut *self.0.borrow_mut()).poll_next(context)
    }
}

/// A response's body beside the request's.
struct Holding {
    body: BoxBody,
    _payload: Rc<RefCell<Payload>>,
}

impl MessageBody for Holding {
    type Error = <BoxBody as MessageBody>::Error;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.get_mut().body).poll_next(context)
    }
}
