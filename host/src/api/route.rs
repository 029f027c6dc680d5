//! `/fn/{lane}/{function}[@{version}]/{path}`: functions as HTTP services.
//!
//! A component that handles HTTP gets the request as it comes, and its answer goes out as it comes. Any other
//! function gets the body as its payload, and its result is the answer. Each request is a call like any other: in its
//! turn, within the limits, in history. Whoever hangs up ends it.

use std::{
    cell::{Cell, OnceCell},
    future::ready,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use actix_web::{
    HttpMessage, HttpRequest, HttpResponse,
    body::{BodyStream, BoxBody, SizedStream},
    http::{
        StatusCode,
        header::{HeaderName, HeaderValue, TRANSFER_ENCODING},
    },
    rt, web,
};
use bytes::Bytes;
use futures_util::{Stream, StreamExt, poll};
use http_body::Frame;
use tokio::time::{Interval, interval};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Problem, Services,
    body::{self, Pace},
    caller::Caller,
    connection::Socket,
    fields::Fields,
    forwarded,
    trailers::{self, Behind, Chunked},
};
use crate::{
    function::{ErrorCode, FunctionName, FunctionRef, Invocation, InvocationId, Lane, Selector, Shape},
    invoke::{Live, turn},
    runtime::exchange::{AnswerBody, BodyPiece, BodySender, BrokenOff, Exchange},
    security::Verb,
};

/// Where functions answer.
pub const PREFIX: &str = "/fn/";
/// The header that names the call, for history and its output.
const INVOCATION: &str = "sharpfaas-invocation-id";
/// How often is looked whether who waits has hung up, where nothing else tells.
const LOOK: Duration = Duration::from_secs(1);

/// What a request is for.
#[derive(Debug)]
struct Target {
    lane: Lane,
    name: FunctionName,
    selector: Selector,
    /// What stands in front of the function's own path.
    prefix: String,
    /// The path that the function is asked for, with its slash.
    path: String,
}

impl Target {
    fn parse(path: &str) -> Result<Self, Problem> {
        let rest = path.strip_prefix(PREFIX).unwrap_or_default();
        let mut parts = rest.splitn(3, '/');
        let (lane, function) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        if function.is_empty() {
            return Err(Problem::new(
                ErrorCode::NotFound,
                "functions answer at /fn/LANE/FUNCTION/PATH, and at /fn/LANE/FUNCTION@VERSION/PATH",
            ));
        }
        let (name, version) = function.split_once('@').map_or((function, ""), |(name, version)| (name, version));
        Ok(Self {
            lane: lane.parse()?,
            name: name.parse()?,
            selector: version.parse()?,
            prefix: format!("{PREFIX}{lane}/{function}"),
            path: format!("/{}", parts.next().unwrap_or_default()),
        })
    }
}

/// Answers a request.
pub async fn route(
    request: HttpRequest,
    body: web::Payload,
    services: Services,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    let target = Target::parse(request.uri().path())?;
    caller.may(Verb::Run, &target.lane, &target.name)?;
    let function = match services.catalog().at_hand(&target.name, &target.lane, target.selector) {
        Some(found) => found?,
        None => {
            let (catalog, name, lane) = (services.catalog().clone(), target.name.clone(), target.lane.clone());
            let resolving = async move { catalog.resolve(&name, &lane, target.selector).await };
            services.spawn(resolving).await??
        }
    };
    match function.shape {
        Some(Shape::Http) => handled(&request, body, &services, &caller, &target, &function).await,
        Some(Shape::Execute | Shape::Command) | None => {
            called(&request, body, &services, &caller, &target, &function).await
        }
    }
}

fn invocation(caller: &Caller, function: &FunctionRef) -> Invocation {
    Invocation {
        id: InvocationId::generate(),
        caller_id: None,
        token: caller.name().cloned(),
        name: function.location.name.clone(),
        lane: function.location.lane.clone(),
        // What another version would do with the request is not known.
        selector: Selector::Exact(function.location.version),
        kind: Some(function.kind),
        entry: None,
        payload: String::new(),
        parameters: Vec::new(),
        confidential: None,
        deadline: None,
    }
}

/// The request as a call with a payload.
async fn called(
    request: &HttpRequest,
    body: web::Payload,
    services: &Services,
    caller: &Caller,
    target: &Target,
    function: &FunctionRef,
) -> Result<HttpResponse, Problem> {
    if target.path != "/" {
        let detail = format!(
            "{} handles no paths of its own, as a component that exports wasi:http's handler does: ask for {}",
            target.name, target.prefix
        );
        return Err(Problem::new(ErrorCode::NotFound, detail));
    }
    let parameters = Fields::of_form(request.query_string().as_bytes())?.rest();
    let pace = Pace::new(services.config().server.read_seconds);
    let payload = body::read(request, body, services.limits().payload_bytes, pace).await?;
    let payload = String::from_utf8(payload.into())
        .map_err(|_| Problem::new(ErrorCode::InvalidPayload, "the payload must be UTF-8 text"))?;
    turn().await;
    let live = services.invoker().start(Invocation { payload, parameters, ..invocation(caller, function) });
    let _leaving = Leaving(Some(live.clone()));
    let end = present(Socket::of(request), &live, live.wait()).await?;
    turn().await;
    let result = end.result.as_ref().map_err(|error| failed(&live, error))?;
    let (json, kind) = (result.json(), "application/json");
    // A text that is no JSON by itself is not quoted here.
    let is_json = json.len() == result.len();
    let body = if is_json { json } else { Bytes::from_owner(result.clone()) };
    Ok(HttpResponse::Ok()
        .insert_header((INVOCATION, live.id.to_string()))
        .content_type(if is_json { kind } else { "text/plain; charset=utf-8" })
        .body(body))
}

/// The request as it is, to a component that handles it.
async fn handled(
    request: &HttpRequest,
    body: web::Payload,
    services: &Services,
    caller: &Caller,
    target: &Target,
    function: &FunctionRef,
) -> Result<HttpResponse, Problem> {
    let secure = services.tls().is_some();
    let mut asked = forwarded::request(request, &target.prefix, &target.path, secure)?;
    let takes_trailers = trailers::taken(request);
    if takes_trailers {
        // Of this connection, and of what is behind it too.
        asked.headers_mut().insert(http::header::TE, http::HeaderValue::from_static("trailers"));
    }
    let (exchange, sender, answered) = Exchange::new(asked, secure);
    let behind = request.extensions_mut().remove::<Behind>();
    let fed = Rc::new(Fed::default());
    let mut feeding = Box::pin(feed(body, behind, sender, fed.clone()));
    turn().await;
    // A guest that finds all that it asks for need not wait, and change threads: what has come goes before it.
    let is_fed = poll!(&mut feeding).is_ready();
    if let Some(problem) = fed.refused.take() {
        return Err(problem);
    }
    let live = services.invoker().start_exchange(invocation(caller, function), exchange);
    let leaving = Leaving(Some(live.clone()));
    // It was empty.
    let _ = fed.live.set(live.clone());
    let feed = (!is_fed).then(|| AbortOnDropHandle::new(rt::spawn(feeding)));
    let socket = Socket::of(request);
    let answer = present(socket, &live, async {
        tokio::select! {
            biased;
            Ok(answer) = answered => Ok(answer),
            end = live.wait() => Err(end),
        }
    });
    let answer = answer.await?;
    turn().await;
    if let Some(problem) = fed.refused.take() {
        return Err(problem.of(live.id));
    }
    let answer = match answer {
        Ok(answer) => answer,
        Err(end) => {
            return Err(match &end.result {
                Err(error) => failed(&live, error),
                Ok(_) => Problem::new(ErrorCode::Internal, "the answer got lost").of(live.id),
            });
        }
    };
    let (parts, answer) = answer.into_parts();
    let status = StatusCode::from_u16(parts.status.as_u16()).map_err(|_| {
        Problem::new(ErrorCode::FunctionFailed, "the function answered with no HTTP status").of(live.id)
    })?;
    let length = parts.headers.get(http::header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    let id = live.id.to_string();
    let head = request.method() == actix_web::http::Method::HEAD;
    let answer = Answering { answer, leaving, head, _feed: feed, socket, look: interval(LOOK) };
    let behind = if takes_trailers { trailers::announced(parts.status, &parts.headers) } else { Vec::new() };
    let chunked = !behind.is_empty();
    let body = if chunked {
        BoxBody::new(BodyStream::new(Chunked::new(answer, behind)))
    } else {
        // Without what stands behind it.
        let data = answer.filter_map(|piece| ready(piece.map(|frame| frame.into_data().ok()).transpose()));
        match length {
            Some(length) => BoxBody::new(SizedStream::new(length, data)),
            None => BoxBody::new(BodyStream::new(data)),
        }
    };
    let mut response = HttpResponse::with_body(status, body);
    forwarded::answer(&parts.headers, response.headers_mut());
    if chunked {
        response.head_mut().no_chunking(true);
        response.headers_mut().insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HeaderName::from_static(INVOCATION), id);
    }
    Ok(response)
}

fn failed(live: &Live, error: &crate::invoke::InvokeError) -> Problem {
    Problem::new(error.code(), live.detail_for_caller(error)).of(live.id)
}

/// What is known while a body is sent on.
#[derive(Default)]
struct Fed {
    /// The call, once it has begun.
    live: OnceCell<Arc<Live>>,
    /// Why it can't go on.
    refused: Cell<Option<Problem>>,
}

impl Fed {
    /// Ends the call, where it has begun; else it won't.
    async fn refuse(&self, problem: Problem) {
        self.refused.set(Some(problem));
        if let Some(live) = self.live.get() {
            live.cancel.cancel();
            live.wait().await;
        }
    }
}

/// Sends the body on as it comes, and the fields behind it. What breaks it off ends the call, and so does what can't be
/// passed on.
async fn feed(mut body: web::Payload, behind: Option<Behind>, to: BodySender, fed: Rc<Fed>) {
    let mut length = 0;
    while let Some(piece) = body.next().await {
        let piece = match piece {
            Ok(piece) => piece,
            // The guest hears of no end that seems good before it is ended.
            Err(error) => return fed.refuse(Problem::invalid(format!("the body did not arrive whole: {error}"))).await,
        };
        length += piece.len() as u64;
        if to.send(Ok(Frame::data(piece))).await.is_err() {
            // The guest wants no more of it.
            return;
        }
    }
    match behind.map(|behind| behind.take(length)).transpose() {
        // The guest need not want them.
        Ok(fields) => {
            if let Some(fields) = fields.flatten() {
                let _ = to.send(Ok(Frame::trailers(fields))).await;
            }
        }
        // The body must not seem to end well.
        Err(problem) => fed.refuse(problem).await,
    }
}

/// Waits for something, as long as who asked is there: whoever hangs up ends the call.
async fn present<T>(socket: Option<Socket>, live: &Live, waiting: impl Future<Output = T>) -> Result<T, Problem> {
    let mut waiting = pin!(waiting);
    let mut look = interval(LOOK);
    std::future::poll_fn(|context| {
        if let Poll::Ready(done) = waiting.as_mut().poll(context) {
            return Poll::Ready(Ok(done));
        }
        if is_gone(socket, &mut look, context) {
            live.cancel.cancel();
            // Nobody reads it.
            return Poll::Ready(Err(Problem::new(ErrorCode::Cancelled, "who asked has hung up").of(live.id)));
        }
        Poll::Pending
    })
    .await
}

/// Whether who asked has hung up. The web server polls again when something comes from the client, its end too, but
/// for when it has read as much as it wants to; then a clock does.
fn is_gone(socket: Option<Socket>, look: &mut Interval, context: &mut Context<'_>) -> bool {
    while look.poll_tick(context).is_ready() {}
    // SAFETY: the request is being handled, or its response's body lives.
    socket.is_some_and(|socket| unsafe { socket.is_hung_up() })
}

/// Ends a call that nobody waits for any more when it is dropped; one that has ended is left as it is.
#[derive(Debug)]
struct Leaving(Option<Arc<Live>>);

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(live) = &self.0 {
            live.cancel.cancel();
        }
    }
}

/// An answer on its way to who asked.
struct Answering {
    answer: AnswerBody,
    leaving: Leaving,
    /// Whether its body is not sent: then it need not be as long as the head says.
    head: bool,
    _feed: Option<AbortOnDropHandle<()>>,
    socket: Option<Socket>,
    look: Interval,
}

impl Stream for Answering {
    type Item = BodyPiece;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<BodyPiece>> {
        let this = &mut *self;
        match this.answer.as_mut().poll_next(context) {
            Poll::Ready(Some(Err(BrokenOff))) => {
                // By the function, which ends by itself, in its own way.
                this.leaving.0 = None;
                Poll::Ready(if this.head { None } else { Some(Err(BrokenOff)) })
            }
            Poll::Ready(None) => {
                // The answer is whole; the function may go on.
                this.leaving.0 = None;
                Poll::Ready(None)
            }
            Poll::Pending if is_gone(this.socket, &mut this.look, context) => Poll::Ready(Some(Err(BrokenOff))),
            next => next,
        }
    }
}
