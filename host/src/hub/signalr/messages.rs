//! The messages of the JSON hub protocol: read as what they ask for, and written.
//!
//! Nothing here waits or acts, so all of it can be tried with whatever may come.

use std::fmt::Write as _;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::api::{Fields, line};

/// What ends a record.
pub const END: char = '\u{1e}';
/// The one method of the hub. SignalR matches names without regard to case.
pub const TARGET: &str = "FunctionHandler";
/// What its arguments are called, in their order. All but the first two may be left out.
const ARGUMENTS: [&str; 7] =
    ["functionName", "lane", "version", "payload", "payloadEncrypted", "type", "encryptResult"];
/// The longest id that a client may give a call, in bytes.
const MAX_ID: usize = 128;

/// The kinds of messages, by their number.
pub mod kind {
    /// A call that is answered once.
    pub const INVOCATION: u64 = 1;
    // One element of a stream is 2: see `StreamItems`.
    /// The end of a call.
    pub const COMPLETION: u64 = 3;
    /// A call that is answered by a stream.
    pub const STREAM_INVOCATION: u64 = 4;
    /// The caller wants no more of a stream.
    pub const CANCEL_INVOCATION: u64 = 5;
    /// A sign of life.
    pub const PING: u64 = 6;
    /// The end of the connection.
    pub const CLOSE: u64 = 7;
    /// Of stateful reconnects, which are never agreed upon here.
    pub const ACK: u64 = 8;
    /// As [`ACK`].
    pub const SEQUENCE: u64 = 9;
}

#[derive(Debug, Deserialize)]
struct Handshake {
    protocol: String,
    version: u64,
}

/// Reads the handshake.
///
/// # Errors
/// What the client is to be told, where it wants what is not spoken here.
pub fn agree(record: &str) -> Result<(), String> {
    match serde_json::from_str::<Handshake>(record) {
        Ok(Handshake { protocol, version: 1 }) if protocol == "json" => Ok(()),
        Ok(Handshake { protocol, .. }) if protocol != "json" => {
            let protocol: String = protocol.chars().take(40).collect();
            Err(format!("The protocol '{protocol}' is not supported: use 'json'."))
        }
        Ok(Handshake { version, .. }) => Err(format!("Version {version} of the protocol is not supported: use 1.")),
        Err(_) => Err("The handshake must be {\"protocol\":\"json\",\"version\":1}.".to_owned()),
    }
}

/// A message of the client, as far as it matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Incoming<'a> {
    #[serde(rename = "type")]
    kind: u64,
    invocation_id: Option<String>,
    target: Option<String>,
    #[serde(borrow)]
    arguments: Option<Vec<&'a RawValue>>,
}

/// What a message asks for.
#[derive(Debug)]
pub enum Asked {
    /// A call, to be streamed under this id.
    Stream(String, Fields),
    /// Nothing that can be done: the end of that id's call, with why.
    Refuse(String, String),
    /// The end of a stream.
    Cancel(String),
    /// The end of the connection.
    Close,
    /// Nothing.
    Nothing,
    /// It breaks the protocol.
    Broken(String),
}

/// Reads a message.
#[must_use]
pub fn read(record: &str) -> Asked {
    let message: Incoming<'_> = match serde_json::from_str(record) {
        Ok(message) => message,
        Err(error) => return Asked::Broken(format!("A message is not valid: {error}.")),
    };
    let id = match &message.invocation_id {
        Some(id) if id.len() > MAX_ID => return Asked::Broken(format!("An invocationId may have {MAX_ID} bytes.")),
        id => id.clone(),
    };
    match (message.kind, id) {
        (kind::STREAM_INVOCATION, Some(id)) => match fields(&message) {
            Ok(fields) => Asked::Stream(id, fields),
            Err(error) => Asked::Refuse(id, error),
        },
        (kind::INVOCATION, Some(id)) => {
            let error = known(&message).err();
            Asked::Refuse(
                id,
                error.unwrap_or(format!("{TARGET} is a stream of lines: stream it instead of invoking it.")),
            )
        }
        (kind::CANCEL_INVOCATION, Some(id)) => Asked::Cancel(id),
        (kind::STREAM_INVOCATION | kind::CANCEL_INVOCATION, None) => {
            Asked::Broken("The message has no invocationId.".into())
        }
        (kind::CLOSE, _) => Asked::Close,
        // Who invokes without an id wants no answer. Streams of clients are not expected, nor their ends.
        (kind::INVOCATION..=kind::COMPLETION | kind::PING | kind::ACK | kind::SEQUENCE, _) => Asked::Nothing,
        // Later versions may have others; who waits for an answer gets one.
        (other, Some(id)) => Asked::Refuse(id, format!("Messages of type {other} are not known here.")),
        (_, None) => Asked::Nothing,
    }
}

/// Whether the target is the one that is here.
fn known(message: &Incoming<'_>) -> Result<(), String> {
    match message.target.as_deref() {
        Some(target) if target.eq_ignore_ascii_case(TARGET) => Ok(()),
        Some(target) => {
            let target: String = target.chars().take(80).collect();
            Err(format!("Unknown hub method '{target}': there is '{TARGET}'."))
        }
        None => Err(format!("The message has no target: there is '{TARGET}'.")),
    }
}

/// The arguments, by their names.
fn fields(message: &Incoming<'_>) -> Result<Fields, String> {
    known(message)?;
    let given = message.arguments.as_deref().unwrap_or_default();
    if !(2..=ARGUMENTS.len()).contains(&given.len()) {
        let (most, names) = (ARGUMENTS.len(), ARGUMENTS.join(", "));
        return Err(format!("{TARGET} takes 2 to {most} arguments, and not {}: {names}.", given.len()));
    }
    let mut object = String::from("{");
    for (name, value) in ARGUMENTS.iter().zip(given) {
        let comma = if object.len() > 1 { "," } else { "" };
        // Writing to a string does not fail.
        let _ = write!(object, "{comma}\"{name}\":{}", value.get());
    }
    object.push('}');
    Fields::of_json(object.as_bytes()).map_err(|problem| problem.to_string())
}

/// A message to the client.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outgoing<'a> {
    #[serde(rename = "type")]
    kind: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    invocation_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    allow_reconnect: Option<bool>,
}

/// A record. JSON escapes control characters, so none of it can end it early.
fn record(message: &impl Serialize) -> String {
    let mut text = serde_json::to_string(message).unwrap_or_default();
    text.push(END);
    text
}

/// The answer to a handshake.
#[must_use]
pub fn agreed(error: Option<&str>) -> String {
    #[derive(Serialize)]
    struct Answer<'a> {
        #[serde(skip_serializing_if = "Option::is_none")]
        error: Option<&'a str>,
    }
    record(&Answer { error })
}

/// The elements of a call's stream.
#[derive(Debug)]
pub struct StreamItems {
    id: String,
    /// What stands before each.
    head: Vec<u8>,
}

impl StreamItems {
    /// Those of the call of that id.
    #[must_use]
    pub fn of(id: &str) -> Self {
        let mut head = b"{\"type\":2,\"invocationId\":".to_vec();
        line::string(id, &mut head);
        head.extend_from_slice(b",\"item\":");
        Self { id: id.to_owned(), head }
    }

    /// The call's id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Writes the record of one.
    pub fn write(&self, item: &str, to: &mut Vec<u8>) {
        to.extend_from_slice(&self.head);
        line::string(item, to);
        to.push(b'}');
        to.extend_from_slice(END.encode_utf8(&mut [0; 4]).as_bytes());
    }
}

/// The end of a call, with why where it failed.
#[must_use]
pub fn completion(id: &str, error: Option<&str>) -> String {
    record(&Outgoing { kind: kind::COMPLETION, invocation_id: Some(id), error, ..Outgoing::default() })
}

/// A ping.
#[must_use]
pub fn ping() -> String {
    record(&Outgoing { kind: kind::PING, ..Outgoing::default() })
}

/// The announcement that the connection is closed.
#[must_use]
pub fn close(why: &str, allow_reconnect: bool) -> String {
    let allow_reconnect = allow_reconnect.then_some(true);
    record(&Outgoing { kind: kind::CLOSE, error: Some(why), allow_reconnect, ..Outgoing::default() })
}

#[cfg(test)]
mod tests;
