//! `GET /api/invocations/{id}/output`: what a call prints, as it prints it.
//!
//! Whoever listens gets the lines that are kept and then each further one, until the call ends: as plain
//! text, or as server-sent events (the HTML Standard's `text/event-stream`) whose ids are line numbers,
//! so that a listener which comes back with `Last-Event-ID` goes on after the last line it has seen, and one
//! that has had the end gets no more.

use std::{
    cell::Cell,
    io::Write as _,
    rc::Rc,
    task::Poll,
    time::{Duration, Instant},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderMap},
    rt, web,
};
use bytes::Bytes;
use futures_util::{Stream, stream};
use tokio_util::task::AbortOnDropHandle;

use super::{
    Problem, Services,
    caller::Caller,
    connection,
    error::ProblemDocument,
    invocations::{id, may_see, not_found},
    line,
    view::{InvocationView, with_result},
};
use crate::{
    config::seconds,
    database::InvocationRow,
    invoke::{Expired, Heard, Tail},
    metrics,
    runtime::console::Batch,
};

/// How much is read in one go, in bytes.
const BYTES: usize = 8 * 1024;

/// How the output is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Text,
    Events,
}

/// Streams the output of a call until it ends.
#[utoipa::path(
    get,
    path = "/api/invocations/{id}/output",
    tag = "invocations",
    params(
        ("id" = Uuid, Path, description = "The call's id"),
        ("Accept" = Option<String>, Header, description = "`text/plain` (default) or `text/event-stream`"),
        ("Last-Event-ID" = Option<u64>, Header, description = "Go on after this line"),
    ),
    responses(
        (status = 200, description = "Lines; or events `output`, `skipped` and last `completed`", body = String, content_type = "text/plain"),
        (status = 204, description = "There is nothing after `Last-Event-ID`, and will be nothing"),
        (status = "default", body = ProblemDocument, content_type = "application/problem+json"),
    ),
)]
pub async fn output(
    request: HttpRequest,
    path: web::Path<String>,
    services: Services,
    caller: Caller,
) -> Result<HttpResponse, Problem> {
    let id = id(&path)?;
    let form = form(request.headers());
    let from = last_event(request.headers())?.map_or(0, |last| last.saturating_add(1));
    may_see(&services, &caller, id).await?;
    let tail = services.invoker().follow(id, from).await?.ok_or_else(|| not_found(id))?;
    if tail.is_past_end() {
        // A browser's EventSource comes back until it is told that there is no more.
        return Ok(HttpResponse::NoContent().finish());
    }
    let hub = &services.config().hub;
    let bound = connection::bound(&request, hub);
    let (silence, limit) = (seconds(hub.ping_seconds), seconds(hub.timeout_seconds));
    let state =
        Streaming { tail, form, caller, silence, ended: false, result: None, _listening: metrics::LISTENERS.hold() };
    Ok(HttpResponse::Ok()
        .insert_header((
            header::CONTENT_TYPE,
            match form {
                Form::Text => "text/plain; charset=utf-8",
                Form::Events => "text/event-stream",
            },
        ))
        .insert_header((header::CACHE_CONTROL, "no-store"))
        .insert_header(("X-Accel-Buffering", "no"))
        .streaming(heard(state.into_stream(), connection::Socket::of(&request), bound, silence, limit)))
}

fn form(headers: &HeaderMap) -> Form {
    let events = headers
        .get_all(header::ACCEPT)
        .filter_map(|value| value.to_str().ok())
        .any(|value| value.to_ascii_lowercase().contains("text/event-stream"));
    if events { Form::Events } else { Form::Text }
}

fn last_event(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("Last-Event-ID") else { return Ok(None) };
    let number = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    number.map(Some).ok_or_else(|| Problem::invalid("Last-Event-ID must be the number of a line"))
}

struct Streaming {
    tail: Tail,
    form: Form,
    caller: Caller,
    /// How long a listener waits at most without a byte, so that proxies keep the connection.
    silence: Duration,
    ended: bool,
    /// What is left of the result, once the call has ended.
    result: Option<Bytes>,
    _listening: metrics::Held,
}

impl Streaming {
    fn into_stream(self) -> impl Stream<Item = Result<Bytes, Problem>> {
        stream::unfold(self, async |mut state| {
            while !state.ended {
                let text = state.more().await;
                if !text.is_empty() {
                    return Some((Ok(text.into()), state));
                }
            }
            None
        })
    }

    /// What comes next, in the form of the listener.
    async fn more(&mut self) -> Vec<u8> {
        let mut text = Vec::new();
        if self.result.is_none() {
            self.hear(&mut text).await;
        }
        if let Some(result) = &mut self.result {
            piece_of(result, &mut text);
            self.ended = result.is_empty();
        }
        text
    }

    /// Adds what the call prints next, and the beginning of its end.
    async fn hear(&mut self, text: &mut Vec<u8>) {
        let form = self.form;
        let heard = tokio::select! {
            heard = tokio::time::timeout(self.silence, self.tail.next(BYTES)) => heard,
            // Whoever listens may no longer do so.
            () = self.caller.ended() => Ok(Err(Expired)),
        };
        match heard {
            Err(_) => keep_alive(form, text),
            Ok(Err(Expired)) => self.ended = true,
            Ok(Ok(Heard { batch, end })) => {
                skipped(form, batch.skipped, text);
                lines(form, &batch, text);
                match (form, end) {
                    (_, None) => {}
                    (Form::Text, Some(_)) => self.ended = true,
                    (Form::Events, Some(row)) => self.result = Some(completed(batch.next(), &row, text)),
                }
            }
        }
    }
}

/// What is streamed, until the listener has hung up, or takes nothing for `limit`, or is silent for so long. That
/// is looked at whenever `often` has passed, since who takes nothing asks for nothing.
fn heard<T>(
    stream: impl Stream<Item = T>,
    socket: Option<connection::Socket>,
    bound: Option<connection::Bound>,
    often: Duration,
    limit: Duration,
) -> impl Stream<Item = T> {
    let mut stream = Box::pin(stream);
    // Since when what was given is not all taken.
    let given = Rc::new(Cell::new(None::<Instant>));
    let (watched, mut ticks) = (given.clone(), tokio::time::interval(often));
    let watch = AbortOnDropHandle::new(rt::spawn(async move {
        let Some(socket) = socket else { return };
        loop {
            ticks.tick().await;
            let stalled = watched.get().is_some_and(|since| since.elapsed() >= limit);
            // SAFETY: this ends with the stream, which is the body of the connection's response.
            if stalled || unsafe { socket.is_silent_for(limit) } {
                // SAFETY: as before.
                return unsafe { socket.abort() };
            }
        }
    }));
    stream::poll_fn(move |context| {
        let _ = (&watch, &bound);
        match stream.as_mut().poll_next(context) {
            // The web server would answer on, since a client may close its side and still read; but a call that prints
            // nothing would never find out. It asks again whenever something comes from the client, the end too.
            // SAFETY: it asks while the connection lives, whose response this is.
            Poll::Pending if socket.is_some_and(|socket| unsafe { socket.is_hung_up() }) => Poll::Ready(None),
            next => {
                given.set(next.is_ready().then(Instant::now));
                next
            }
        }
    })
}

fn lines(form: Form, batch: &Batch, text: &mut Vec<u8>) {
    for (number, line) in (batch.first..).zip(&batch.lines) {
        match form {
            Form::Text => {
                text.extend_from_slice(line.line.as_bytes());
                text.push(b'\n');
            }
            Form::Events => {
                text.extend_from_slice(b"id: ");
                line::number(number, text);
                text.extend_from_slice(b"\nevent: output\ndata: {");
                line::members(line, text);
                text.extend_from_slice(b"}\n\n");
            }
        }
    }
}

fn skipped(form: Form, lines: u64, text: &mut Vec<u8>) {
    let _ = match (form, lines) {
        (_, 0) => Ok(()),
        (Form::Text, lines) => writeln!(text, "[{lines} lines skipped]"),
        (Form::Events, lines) => write!(text, "event: skipped\ndata: {{\"lines\":{lines}}}\n\n"),
    };
}

/// The last event. Its id is the number after the last line's: who comes back with it has had everything.
/// The output is not in it again. Its result, which may be long, is left to be sent in pieces.
fn completed(number: u64, row: &InvocationRow, text: &mut Vec<u8>) -> Bytes {
    let call = serde_json::to_string(&InvocationView::line(row)).unwrap_or_default();
    let (start, result, _) = with_result(&call, row.result.as_ref());
    let _ = write!(text, "id: {number}\nevent: completed\ndata: {start}");
    result
}

/// Adds a piece of the result, and after its last the end of the event.
fn piece_of(result: &mut Bytes, text: &mut Vec<u8>) {
    let piece = result.split_to(result.len().min(BYTES));
    // JSON has line ends only where it may have any white space; an event's data must have none.
    text.extend(piece.iter().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { *byte }));
    if result.is_empty() {
        text.extend_from_slice(b"}\n\n");
    }
}

fn keep_alive(form: Form, text: &mut Vec<u8>) {
    if form == Form::Events {
        text.extend_from_slice(b":\n\n");
    }
}
