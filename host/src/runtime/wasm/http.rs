//! Components that answer HTTP requests (`wasi:http/incoming-handler` of WASI 0.2, `wasi:http/handler` of 0.3).
//!
//! Called with a payload, one gets it as the body of a POST to `/`, and the body of its answer is the result. Called
//! with an [`Exchange`] it gets that request, and its answer goes there as it comes; the result is the status alone.

use std::sync::Arc;

use bytes::Bytes;
use futures_util::TryStreamExt;
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, BodyStream, Full};
use tokio::sync::oneshot;
use wasmtime::{Store, component::InstancePre};
use wasmtime_wasi_http::{
    Error, WasiHttpView,
    p2::{
        bindings::{ProxyPre, http::types::Scheme},
        body::HyperOutgoingBody,
    },
    p3::bindings::ServicePre,
};

use super::{Guest, MAX_ERROR, cut, failure, service, usize_of};
use crate::{
    function::{Failure, FailureKind, Outcome},
    runtime::{
        Call, RuntimeError,
        exchange::{self, Asked, BrokenOff, End, Exchange},
    },
};

/// The name that a function is asked under which no request came for.
const HOST: &str = "localhost";

/// The export of one for WASI 0.3.
pub(super) const HANDLER_3: &str = "wasi:http/handler@0.3.0";

/// An answer, or what was said in its place.
pub(super) type Given = Result<Response<HyperOutgoingBody>, String>;

/// A handler of either generation.
pub(super) enum Handler {
    Wasi2(ProxyPre<Guest>),
    Wasi3(ServicePre<Guest>),
}

impl Handler {
    /// Where it is one of both, the newer one.
    pub(super) fn new(linked: InstancePre<Guest>) -> wasmtime::Result<Self> {
        Ok(if linked.component().get_export_index(None, HANDLER_3).is_some() {
            Self::Wasi3(ServicePre::new(linked)?)
        } else {
            Self::Wasi2(ProxyPre::new(linked)?)
        })
    }

    /// Has it answer, and comes back when it has done all that it wanted.
    async fn call<B>(
        &self,
        secure: bool,
        request: Request<B>,
        answer: oneshot::Sender<Given>,
        store: &mut Store<Guest>,
    ) -> Result<(), wasmtime::Error>
    where
        B: http_body::Body<Data = Bytes, Error = Error> + Send + 'static,
    {
        match self {
            Self::Wasi2(handler) => handle(handler, secure, request, answer, store).await,
            Self::Wasi3(service) => service::handle(service, secure, request, answer, store).await,
        }
    }
}

/// Runs one call to its end.
pub(super) async fn run(handler: &Handler, call: &Arc<Call>, store: Store<Guest>) -> Result<Outcome, RuntimeError> {
    match &call.exchange {
        None => with_payload(handler, call, store).await,
        Some(exchange) => match exchange.take() {
            Some(asked) => with_request(handler, exchange, asked, store).await,
            None => Err(RuntimeError::Host("a request was taken twice".into())),
        },
    }
}

/// Runs a call that came with a request.
async fn with_request(
    handler: &Handler,
    exchange: &Exchange,
    asked: Asked,
    mut store: Store<Guest>,
) -> Result<Outcome, RuntimeError> {
    let Asked { request, secure } = asked;
    let request = request.map(|body| body.map_err(|BrokenOff| Error::ConnectionTerminated));
    let (answer, given) = oneshot::channel();
    let handling = async move {
        // Dropped before the store is, with which bodies that are not whole just end.
        let end = Gone(exchange.end());
        let handled = handler.call(secure, request, answer, &mut store).await;
        if handled.is_ok() {
            end.0.is_whole();
        }
        handled.map_or_else(|error| failure(&error, store.data()).map(Outcome::err), |()| Ok(None))
    };
    let answering = async {
        let response = answered(given).await?;
        let status = response.status();
        if status.is_informational() {
            return Err(format!("the function answered {status}, which is no answer"));
        }
        exchange.answer(response.map(|body| TryStreamExt::map_err(BodyStream::new(body), |_| BrokenOff)));
        Ok(status)
    };
    let (handled, answered) = tokio::join!(handling, answering);
    Ok(match (handled?, answered) {
        (Some(failure), _) => Err(failure),
        (None, Ok(status)) => Ok(exchange::result(status)),
        (None, Err(why)) => Err(Failure::new(FailureKind::Failed, why)),
    })
}

/// Tells that the guest is gone.
struct Gone(Arc<End>);

impl Drop for Gone {
    fn drop(&mut self) {
        self.0.is_gone();
    }
}

/// Runs a call that came with a payload.
async fn with_payload(handler: &Handler, call: &Arc<Call>, mut store: Store<Guest>) -> Result<Outcome, RuntimeError> {
    let body = Full::new(Bytes::from(call.payload.clone())).map_err(|never| match never {});
    let request = Request::post("/")
        .header(header::HOST, HOST)
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONTENT_LENGTH, call.payload.len())
        .body(body)
        .map_err(|error| RuntimeError::Host(format!("a request cannot be made: {error}")))?;
    let (answer, given) = oneshot::channel();
    let handling = async move {
        let handled = handler.call(false, request, answer, &mut store).await;
        // With the store goes what the guest has not given, so that nobody waits for it any more.
        handled.map_or_else(|error| failure(&error, store.data()).map(Outcome::err), |()| Ok(None))
    };
    let collecting = async {
        collect(given, usize_of(call.result_bytes)).await.ok_or_else(|| {
            let detail = format!("the answer has more than the {} bytes that a result may have", call.result_bytes);
            Ok(Err(Failure::new(FailureKind::ResultTooLarge, detail)))
        })
    };
    // Where the answer is too large, the guest need not end it.
    let handling = async { handling.await.map_err(Err) };
    let (handled, given) = match tokio::try_join!(handling, collecting) {
        Ok(both) => both,
        Err(early) => return early,
    };
    Ok(match (handled, given) {
        (Some(failure), _) => Err(failure),
        (None, Collected::Whole(status, text)) if status.is_client_error() || status.is_server_error() => {
            let said = if text.trim().is_empty() { format!("the function answered {status}") } else { text };
            Err(Failure::new(FailureKind::Failed, cut(&said, usize_of(call.result_bytes).min(MAX_ERROR))))
        }
        (None, Collected::Whole(_, text)) => Ok(text),
        (None, Collected::Nothing(why)) => Err(Failure::new(FailureKind::Failed, why)),
    })
}

async fn handle<B>(
    handler: &ProxyPre<Guest>,
    secure: bool,
    request: Request<B>,
    answer: oneshot::Sender<Given>,
    store: &mut Store<Guest>,
) -> Result<(), wasmtime::Error>
where
    B: http_body::Body<Data = Bytes, Error = Error> + Send + 'static,
{
    let scheme = if secure { Scheme::Https } else { Scheme::Http };
    let mut http = store.data_mut().http();
    let request = http.new_incoming_request(scheme, request)?;
    let answer = http.new_response_outparam_from_callback(move |given| {
        // Who waits for it may be gone.
        drop(answer.send(given.map_err(|error| answered_with(&error))));
    })?;
    let handler = handler.instantiate_async(&mut *store).await?;
    handler.wasi_http_incoming_handler().call_handle(&mut *store, request, answer).await
}

/// What is said of a handler that gave an error for an answer.
pub(super) fn answered_with(error: &impl std::fmt::Display) -> String {
    format!("the function answered with an error: {error}")
}

/// Waits for the answer; where none comes, the reason.
async fn answered(given: oneshot::Receiver<Given>) -> Given {
    given.await.unwrap_or_else(|_| Err("the function ended without an answer".into()))
}

/// What came of an answer.
enum Collected {
    /// All of it.
    Whole(StatusCode, String),
    /// None, or a part; with the reason.
    Nothing(String),
}

/// Reads an answer of at most so many bytes; none: it has more.
async fn collect(given: oneshot::Receiver<Given>, limit: usize) -> Option<Collected> {
    let (parts, mut body) = match answered(given).await {
        Ok(response) => response.into_parts(),
        Err(why) => return Some(Collected::Nothing(why)),
    };
    let mut bytes = Vec::new();
    while let Some(frame) = body.frame().await {
        match frame.map(http_body::Frame::into_data) {
            Ok(Ok(data)) if data.len() > limit.saturating_sub(bytes.len()) => return None,
            Ok(Ok(data)) => bytes.extend_from_slice(&data),
            // Trailers have no place in a result.
            Ok(Err(_)) => {}
            Err(_) => return Some(Collected::Nothing("the function broke its answer off".into())),
        }
    }
    let text = String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
    (text.len() <= limit).then_some(Collected::Whole(parts.status, text))
}
