//! An HTTP request on its way to a component, and the answer on its way back, both as they come.
//!
//! The web server's side and the guest's are tasks of their own: what is between them is bounded by a few pieces of a
//! body, so that whoever is slower slows the other. Where the guest's side goes away before its answer is whole, the
//! other one is told.

use std::{
    fmt,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU8, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use futures_util::Stream;
use http::{Request, Response, StatusCode};
use http_body::Frame;
use tokio::sync::{mpsc, oneshot};

/// How many pieces of a request's body may wait for the guest.
const PIECES: usize = 4;

/// The rest of a body won't come.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the body was broken off")]
pub struct BrokenOff;

/// What comes of a body next.
pub type Piece = Result<Bytes, BrokenOff>;

/// What comes of a body with trailers next: a piece of it, or the fields behind it.
pub type BodyPiece = Result<Frame<Bytes>, BrokenOff>;

/// The body of an answer.
pub type AnswerBody = Pin<Box<dyn Stream<Item = BodyPiece> + Send>>;

/// A request that somebody waits for the answer of.
pub struct Exchange {
    asked: Mutex<Option<Asked>>,
    answer: Mutex<Option<oneshot::Sender<Response<AnswerBody>>>>,
    end: Arc<End>,
}

/// What is asked.
pub struct Asked {
    /// The request; its URI has path and query alone, its headers the host.
    pub request: Request<AskedBody>,
    /// Whether it came over TLS.
    pub secure: bool,
}

/// The body of a request, as it comes.
#[derive(Debug)]
pub struct AskedBody(mpsc::Receiver<BodyPiece>);

/// The other end of a request's body.
pub type BodySender = mpsc::Sender<BodyPiece>;

impl fmt::Debug for Exchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Exchange")
    }
}

/// How the guest's side ended.
#[derive(Debug, Default)]
pub struct End(AtomicU8);

impl End {
    const WHOLE: u8 = 1;
    const BROKEN: u8 = 2;

    /// The guest has done all that it wanted.
    pub fn is_whole(&self) {
        self.0.store(Self::WHOLE, Ordering::Release);
    }

    /// The guest is gone; where it had not done all, what it gave is not whole.
    pub fn is_gone(&self) {
        // Where it fails, the end was known.
        let _ = self.0.compare_exchange(0, Self::BROKEN, Ordering::AcqRel, Ordering::Relaxed);
    }

    fn is_broken(&self) -> bool {
        self.0.load(Ordering::Acquire) == Self::BROKEN
    }
}

impl Exchange {
    /// One for a request, with the ends for its body and its answer. The latter fails where there will be none.
    #[must_use]
    pub fn new(request: Request<()>, secure: bool) -> (Self, BodySender, oneshot::Receiver<Response<AnswerBody>>) {
        let (body, pieces) = mpsc::channel(PIECES);
        let (answer, answered) = oneshot::channel();
        let exchange = Self {
            asked: Mutex::new(Some(Asked { request: request.map(|()| AskedBody(pieces)), secure })),
            answer: Mutex::new(Some(answer)),
            end: Arc::default(),
        };
        (exchange, body, answered)
    }

    /// Takes the request; none: it was taken.
    pub fn take(&self) -> Option<Asked> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Gives the answer; only the first one counts.
    pub fn answer(&self, answer: Response<impl Stream<Item = BodyPiece> + Send + 'static>) {
        let waiting = self.answer.lock().unwrap_or_else(PoisonError::into_inner).take();
        let end = self.end.clone();
        let answer = answer.map(|body| -> AnswerBody { Box::pin(Whole { body: Box::pin(body), end }) });
        if let Some(waiting) = waiting {
            // Who asked may be gone.
            drop(waiting.send(answer));
        }
    }

    /// Where the guest's side tells its end.
    #[must_use]
    pub fn end(&self) -> Arc<End> {
        self.end.clone()
    }
}

/// The result of a call whose answer went elsewhere.
#[must_use]
pub fn result(status: StatusCode) -> String {
    format!("{{\"status\":{}}}", status.as_u16())
}

impl http_body::Body for AskedBody {
    type Data = Bytes;
    type Error = BrokenOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BrokenOff>>> {
        self.0.poll_recv(context)
    }
}

/// A body that ends with an error where the guest ended before it was whole: by itself it would just end.
struct Whole<S> {
    body: Pin<Box<S>>,
    end: Arc<End>,
}

impl<S: Stream<Item = BodyPiece>> Stream for Whole<S> {
    type Item = BodyPiece;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<BodyPiece>> {
        match self.body.as_mut().poll_next(context) {
            Poll::Ready(None) if self.end.is_broken() => {
                self.end.is_whole();
                Poll::Ready(Some(Err(BrokenOff)))
            }
            next => next,
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::{StreamExt, stream};

    use super::*;

    async fn read(end: impl FnOnce(&End)) -> Vec<bool> {
        let (exchange, _, answered) = Exchange::new(Request::new(()), false);
        exchange.answer(Response::new(stream::iter([Ok(Frame::data(Bytes::from_static(b"a")))])));
        end(&exchange.end());
        answered.await.expect("an answer").into_body().map(|piece| piece.is_ok()).collect().await
    }

    #[tokio::test]
    async fn an_answer_is_whole_only_where_its_guest_ended_well() {
        assert_eq!(read(End::is_gone).await, [true, false]);
        assert_eq!(read(|end| [End::is_whole, End::is_gone].iter().for_each(|tell| tell(end))).await, [true]);
        // It may go on after its answer.
        assert_eq!(read(|_| ()).await, [true]);
    }

    #[tokio::test]
    async fn whoever_waits_hears_that_there_will_be_no_answer() {
        let (exchange, _, answered) = Exchange::new(Request::new(()), false);
        drop(exchange);
        assert!(answered.await.is_err());
    }
}
