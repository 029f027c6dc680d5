//! A call as it was asked for, whatever door it came through.

use std::time::Duration;

use super::{Problem, fields::Fields};
use crate::function::{
    CallerId, EntryName, ErrorCode, FunctionName, FunctionType, Invocation, InvocationId, Lane, Selector,
};

/// What a request may hold beside its payload, in bytes.
pub const BESIDE_PAYLOAD: u64 = 16 * 1024;

/// The call that the fields describe. Those that are not the server's are the function's parameters.
///
/// # Errors
/// When a field is missing or not valid, or the payload has more than `limit` bytes.
pub fn invocation(mut fields: Fields, payload: String, limit: u64) -> Result<Invocation, Problem> {
    if payload.len() as u64 > limit {
        let detail = format!("the payload has {} bytes, and may have {limit}", payload.len());
        return Err(Problem::new(ErrorCode::PayloadTooLarge, detail));
    }
    if fields.flag("payloadEncrypted")? {
        return Err(Problem::new(
            ErrorCode::InvalidPayload,
            "this server has no payload keys, so it cannot read an encrypted payload: send it as it is",
        ));
    }
    Ok(Invocation {
        id: InvocationId::generate(),
        caller_id: fields.parse::<CallerId>("callerId")?,
        name: fields.require::<FunctionName>("functionName")?,
        lane: fields.require::<Lane>("lane")?,
        selector: fields.parse::<Selector>("version")?.unwrap_or_default(),
        kind: fields.parse::<FunctionType>("type")?,
        entry: fields.parse::<EntryName>("entryFileName")?,
        deadline: fields.number("deadlineMs", 1, 86_400_000)?.map(Duration::from_millis),
        payload,
        parameters: fields.rest(),
    })
}
