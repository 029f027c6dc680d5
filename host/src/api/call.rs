//! A call as it was asked for, whatever door it came through.

use std::time::Duration;

use super::{Problem, Services, caller::Caller, fields::Fields};
use crate::{
    function::{
        CallerId, Confidential, EntryName, ErrorCode, FunctionName, FunctionType, Invocation, InvocationId, Lane,
        Selector,
    },
    metrics,
    security::{
        Verb,
        payload::{Payload, Refused},
    },
};

/// What a request may hold beside its payload, in bytes.
pub const BESIDE_PAYLOAD: u64 = 16 * 1024;

/// The call that the fields describe, where the caller may make it. Fields that are not the server's are the
/// function's parameters.
///
/// # Errors
/// When a field is missing or not valid, the payload is too large, or the caller may not make the call.
pub async fn invocation(
    mut fields: Fields,
    payload: String,
    services: &Services,
    caller: &Caller,
) -> Result<Invocation, Problem> {
    let (name, lane) = (fields.require::<FunctionName>("functionName")?, fields.require::<Lane>("lane")?);
    caller.may(Verb::Run, &lane, &name)?;
    let id = InvocationId::generate();
    let (encrypted, answer) = (fields.flag("payloadEncrypted")?, fields.flag("encryptResult")?);
    let (payload, confidential) = if encrypted {
        let opened = open(payload, services, &lane, &name).await?;
        let seal = opened.seal(id, &lane, &name);
        (opened.text, Some(Confidential { seal, answer }))
    } else if answer {
        return Err(Problem::invalid("'encryptResult' needs an encrypted payload, whose key it uses"));
    } else {
        (payload, None)
    };
    let limit = services.limits().payload_bytes;
    if payload.len() as u64 > limit {
        let detail = format!("the payload has {} bytes, and may have {limit}", payload.len());
        return Err(Problem::new(ErrorCode::PayloadTooLarge, detail));
    }
    Ok(Invocation {
        id,
        caller_id: fields.parse::<CallerId>("callerId")?,
        token: caller.name().cloned(),
        name,
        lane,
        selector: fields.parse::<Selector>("version")?.unwrap_or_default(),
        kind: fields.parse::<FunctionType>("type")?,
        entry: fields.parse::<EntryName>("entryFileName")?,
        deadline: fields.number("deadlineMs", 1, 86_400_000)?.map(Duration::from_millis),
        payload,
        confidential,
        parameters: fields.rest(),
    })
}

/// Opens an encrypted payload, where the database is at hand.
async fn open(text: String, services: &Services, lane: &Lane, name: &FunctionName) -> Result<Payload, Problem> {
    let opening = services.payloads().clone().open(text, lane.clone(), name.clone());
    services.spawn(opening).await?.map_err(|refused| {
        metrics::PAYLOADS_REFUSED.count();
        tracing::debug!(%lane, function = %name, ?refused, "an encrypted payload was refused");
        match refused {
            Refused::Database(error) => error.into(),
            refused => Problem::new(ErrorCode::InvalidPayload, refused.to_string()),
        }
    })
}
