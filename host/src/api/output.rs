//! `GET /api/invocations/{id}/output`: what a call prints, as it prints it.
//!
//! Whoever listens gets the lines that are kept and then each further one, until the call ends: as plain
//! text, or as server-sent events (the HTML Standard's `text/event-stream`) whose ids are line numbers,
//! so that a listener which comes back with `Last-Event-ID` goes on after the last line it has seen, and one
//! that has had the end gets no more.

use std::{io::Write as _, task::Poll, time::Duration};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, HeaderMap},
    web,
};
use bytes::Bytes;
use futures_util::{Stream, stream};

use super::{
    Problem, Services,
    caller::Caller,
    connection,
    error::ProblemDocument,
    invocations::{id, may_see, not_found},
    line,
    view::InvocationView,
};
use crate::{
    config::seconds,
    database::InvocationRow,
    invoke::{Expired, Heard, Tail},
    metrics,
    runtime::console::Batch,
};

/// How much is read in one go, in bytes.
const BYTES: usize = 16 * 1024;

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
        ("id" = String, Path, description = "The call's id"),
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
    connection::bound(&request, &services.config().hub);
    let silence = seconds(services.config().hub.ping_seconds);
    let state = Streaming { tail, form, caller, silence, ended: false, _listening: metrics::LISTENERS.hold() };
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
        .streaming(while_heard(state.into_stream(), connection::Socket::of(&request))))
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
        let form = self.form;
        let heard = tokio::select! {
            heard = tokio::time::timeout(self.silence, self.tail.next(BYTES)) => heard,
            // Whoever listens may no longer do so.
            () = self.caller.ended() => Ok(Err(Expired)),
        };
        match heard {
            Err(_) => keep_alive(form, &mut text),
            Ok(Err(Expired)) => self.ended = true,
            Ok(Ok(Heard { batch, end })) => {
                skipped(form, batch.skipped, &mut text);
                lines(form, &batch, &mut text);
                if let Some(row) = end {
                    completed(form, batch.next(), &row, &mut text);
                    self.ended = true;
                }
            }
        }
        text
    }
}

/// Ends when the listener hangs up. The web server would answer on, since a client may close its side and still
/// read; and a call that prints nothing never finds out.
fn while_heard<T>(stream: impl Stream<Item = T>, socket: Option<connection::Socket>) -> impl Stream<Item = T> {
    let mut stream = Box::pin(stream);
    stream::poll_fn(move |context| match stream.as_mut().poll_next(context) {
        // The web server asks again whenever something comes from the client, the end too.
        // SAFETY: it asks while the connection lives, whose response this is.
        Poll::Pending if socket.is_some_and(|socket| unsafe { socket.is_hung_up() }) => Poll::Ready(None),
        next => next,
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
fn completed(form: Form, number: u64, row: &InvocationRow, text: &mut Vec<u8>) {
    if let (Form::Events, Ok(data)) = (form, serde_json::to_string(&InvocationView::ended(row))) {
        // JSON has no line ends outside of its strings' escapes, so the data is one line.
        let _ = write!(text, "id: {number}\nevent: completed\ndata: {data}\n\n");
    }
}

fn keep_alive(form: Form, text: &mut Vec<u8>) {
    if form == Form::Events {
        text.extend_from_slice(b":\n\n");
    }
}
