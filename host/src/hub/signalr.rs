//! The SignalR dialect: the JSON hub protocol, version 1, over WebSockets with text frames, as ASP.NET
//! Core's documents *TransportProtocols.md* and *HubProtocol.md* have it.
//!
//! A message is a record that ends in U+001E; records may share a frame and be cut by frames. The one
//! target is `FunctionHandler(functionName, lane, version, payload, payloadEncrypted, type)`, a stream of
//! strings: the lines that the function prints.

use actix_ws::CloseCode;

use super::{
    frames::Frames,
    session::{Calls, End, Voice},
    socket::Sender,
};
use crate::{
    api::{self, Fields, Problem},
    database::InvocationRow,
    runtime::console::Batch,
};

mod messages;
mod records;

pub use messages::END;
use messages::{Asked, StreamItems, completion};
use records::Records;

/// Whether a message is a handshake, but for its end.
#[must_use]
pub fn is_handshake(text: &str) -> bool {
    messages::agree(text).is_ok()
}

/// Sends a ping.
pub async fn ping(sender: &Sender) -> Result<(), End> {
    Ok(sender.text(&messages::ping()).await?)
}

/// Tells that the connection is about to be closed.
pub async fn close(sender: &Sender, why: &str, allow_reconnect: bool) -> Result<(), End> {
    Ok(sender.text(&messages::close(why, allow_reconnect)).await?)
}

/// Tells why the connection is closed.
async fn broken(sender: &Sender, code: CloseCode, why: String) -> Result<(), End> {
    close(sender, &why, false).await?;
    Err(End::Close(code, why))
}

/// One connection's side of it.
#[derive(Debug)]
pub struct SignalR {
    records: Records,
    agreed: bool,
}

impl SignalR {
    /// Of a client whose records have at most `max` bytes.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self { records: Records::new(max), agreed: false }
    }

    /// Answers what came in a frame.
    pub async fn heard(&mut self, text: &str, calls: &mut Calls) -> Result<(), End> {
        self.records.push(text);
        loop {
            match self.records.next() {
                Ok(Some(record)) if self.agreed => answer(&record, calls).await?,
                Ok(Some(record)) => {
                    let refusal = messages::agree(&record).err();
                    calls.sender.text(&messages::agreed(refusal.as_deref())).await?;
                    if let Some(why) = refusal {
                        return Err(End::Close(CloseCode::Protocol, why));
                    }
                    self.agreed = true;
                }
                Ok(None) => return Ok(()),
                Err(error) => return broken(&calls.sender, CloseCode::Size, error.to_string()).await,
            }
        }
    }
}

async fn answer(record: &str, calls: &mut Calls) -> Result<(), End> {
    let (id, error) = match messages::read(record) {
        Asked::Stream(id, fields) => match start(&id, fields, calls).await {
            Ok(()) => return Ok(()),
            Err(problem) => (id, problem.to_string()),
        },
        Asked::Refuse(id, error) => (id, error),
        Asked::Cancel(id) => {
            // One that has just ended is no fault of the client.
            calls.cancel(&id);
            return Ok(());
        }
        Asked::Close => return Err(End::Close(CloseCode::Normal, String::new())),
        Asked::Nothing => return Ok(()),
        Asked::Broken(why) => return broken(&calls.sender, CloseCode::Protocol, why).await,
    };
    Ok(calls.sender.text(&completion(&id, Some(&error))).await?)
}

/// Starts a call.
async fn start(id: &str, mut fields: Fields, calls: &mut Calls) -> Result<(), Problem> {
    if calls.has(id) {
        return Err(Problem::invalid(format!("the invocationId {id:?} is in use")));
    }
    calls.room()?;
    let payload = fields.take_any("payload")?.unwrap_or_default();
    let invocation = api::call::invocation(fields, payload, &calls.services, &calls.caller).await?;
    let started = calls.start(invocation);
    calls.tell(id.to_owned(), started, StreamVoice(StreamItems::of(id)));
    Ok(())
}

/// Tells of the call of that id by the elements of a stream.
struct StreamVoice(StreamItems);

impl Voice for StreamVoice {
    fn lines(&self, batch: &Batch, to: &mut Frames) {
        to.text(|to| {
            if batch.skipped > 0 {
                self.0.write(&format!("[{} lines skipped]", batch.skipped), to);
            }
            batch.lines.iter().for_each(|line| self.0.write(&line.line, to));
        });
    }

    fn ended(&self, row: &InvocationRow, to: &mut Frames) {
        let error = Problem::of_ended(row).map(|problem| problem.to_string());
        let end = completion(self.0.id(), error.as_deref());
        to.text(|to| to.extend_from_slice(end.as_bytes()));
    }

    fn refused(&self, problem: &Problem) -> String {
        completion(self.0.id(), Some(&problem.to_string()))
    }
}
