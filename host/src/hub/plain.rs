//! The plain dialect: a call is a JSON object, and so is each thing that happens to it.
//!
//! The client sends the fields of `runfunction`, with a `requestId` of its own if it likes, or
//! `{"cancel": ID}`. The server sends events: `started`, `output`, `skipped`, and last `completed` or
//! `failed`. Several calls may be under way; every event names its call.

use serde::Serialize;
use uuid::Uuid;

use super::{
    frames::Frames,
    session::{Calls, End, Started, Voice},
};
use crate::{
    api::{self, Fields, Problem, ProblemDocument, line, millis, with_result},
    database::InvocationRow,
    function::{FunctionType, InvocationId, Status},
    invoke::Live,
    runtime::console::Batch,
};

/// The longest `requestId`, in bytes.
const MAX_REQUEST_ID: usize = 128;

/// Something that happened to a call.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Event<'a, T> {
    event: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    invocation_id: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
    #[serde(flatten)]
    what: T,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Begun<'a> {
    function_name: &'a str,
    lane: &'a str,
}

#[derive(Debug, Serialize)]
struct Skipped {
    lines: u64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Completed {
    version: Option<String>,
    #[serde(rename = "type")]
    kind: Option<FunctionType>,
    status: Status,
    elapsed_ms: Option<f64>,
}

/// What a message asks for.
#[derive(Debug)]
enum Asked {
    /// A call: its fields but the payload, and that.
    Call(Fields, String),
    /// The end of a call.
    Cancel(InvocationId),
}

/// Reads a message, and into `request_id` what its client calls it.
fn read(text: &str, request_id: &mut Option<String>) -> Result<Asked, Problem> {
    let mut fields = Fields::of_json(text.as_bytes())?;
    let given = fields.take("requestId")?;
    if given.as_ref().is_some_and(|id| id.len() > MAX_REQUEST_ID) {
        return Err(Problem::invalid(format!("requestId may have {MAX_REQUEST_ID} bytes")));
    }
    *request_id = given;
    if let Some(id) = fields.take("cancel")? {
        fields.done("'cancel' and 'requestId'")?;
        return Ok(Asked::Cancel(api::id(&id)?));
    }
    let payload = fields.take_any("payload")?.unwrap_or_default();
    Ok(Asked::Call(fields, payload))
}

/// The plain dialect.
#[derive(Debug)]
pub struct Plain;

impl Plain {
    /// Answers a message.
    pub async fn heard(text: &str, calls: &mut Calls) -> Result<(), End> {
        let mut request_id = None;
        let problem = match read(text, &mut request_id) {
            Ok(Asked::Cancel(id)) if calls.cancel(&id.to_string()) => return Ok(()),
            Ok(Asked::Cancel(id)) => Problem::invalid(format!("no call {id} is under way on this connection")).of(id),
            Ok(Asked::Call(fields, payload)) => match Self::start(fields, payload, calls).await {
                Ok(started) => {
                    let voice = EventVoice { id: Some(started.live.id), request_id };
                    calls.sender.text(&voice.begun(&started.live)).await?;
                    calls.tell(started.live.id.to_string(), started, voice);
                    return Ok(());
                }
                Err(problem) => problem,
            },
            Err(problem) => problem,
        };
        let voice = EventVoice { id: None, request_id };
        Ok(calls.sender.text(&voice.refused(&problem)).await?)
    }

    async fn start(fields: Fields, payload: String, calls: &mut Calls) -> Result<Started, Problem> {
        calls.room()?;
        let invocation = api::call::invocation(fields, payload, &calls.services, &calls.caller).await?;
        Ok(calls.start(invocation))
    }
}

/// Tells of a call by events.
#[derive(Debug)]
pub struct EventVoice {
    id: Option<InvocationId>,
    request_id: Option<String>,
}

impl EventVoice {
    /// For who follows a call that somebody made.
    #[must_use]
    pub fn of(id: InvocationId) -> Self {
        Self { id: Some(id), request_id: None }
    }

    /// The first message of a call that was made on this connection.
    #[must_use]
    pub fn begun(&self, live: &Live) -> String {
        self.event("started", Begun { function_name: live.name.as_str(), lane: live.lane.as_str() })
    }

    fn event(&self, event: &'static str, what: impl Serialize) -> String {
        let invocation_id = self.id.map(|id| id.0);
        let event = Event { event, invocation_id, request_id: self.request_id.as_deref(), what };
        // Strings, numbers and lists of them always have a JSON form.
        serde_json::to_string(&event).unwrap_or_default()
    }
}

impl Voice for EventVoice {
    fn lines(&self, batch: &Batch, to: &mut Frames) {
        if batch.skipped > 0 {
            let skipped = self.event("skipped", Skipped { lines: batch.skipped });
            to.text(|to| to.extend_from_slice(skipped.as_bytes()));
        }
        // As `event` would write it, all of it that lines share written once.
        let mut head = b"{\"event\":\"output\",".to_vec();
        if let Some(id) = self.id {
            head.extend_from_slice(format!("\"invocationId\":\"{id}\",").as_bytes());
        }
        if let Some(id) = &self.request_id {
            head.extend_from_slice(b"\"requestId\":");
            line::string(id, &mut head);
            head.push(b',');
        }
        head.extend_from_slice(b"\"number\":");
        for (number, line) in (batch.first..).zip(&batch.lines) {
            to.text(|to| {
                to.extend_from_slice(&head);
                line::number(number, to);
                to.push(b',');
                line::members(line, to);
                to.push(b'}');
            });
        }
    }

    fn ended(&self, row: &InvocationRow, to: &mut Frames) {
        if let Some(problem) = Problem::of_ended(row) {
            let refused = self.refused(&problem);
            return to.text(|to| to.extend_from_slice(refused.as_bytes()));
        }
        let completed = Completed {
            version: row.version.map(|version| version.to_string()),
            kind: row.kind,
            status: row.status,
            elapsed_ms: row.elapsed_us.map(millis),
        };
        let (start, result, end) = with_result(&self.event("completed", completed), row.result.as_ref());
        to.text_around(&start, result, end);
    }

    fn refused(&self, problem: &Problem) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Failed<'a> {
            event: &'static str,
            #[serde(skip_serializing_if = "Option::is_none")]
            request_id: Option<&'a str>,
            #[serde(flatten)]
            problem: ProblemDocument,
        }
        let failed = Failed { event: "failed", request_id: self.request_id.as_deref(), problem: problem.document() };
        serde_json::to_string(&failed).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests;
