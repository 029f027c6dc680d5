//! Gives back the JSON it gets and prints one line: what a call costs when the function does next to
//! nothing.

use serde_json::value::RawValue;

/// Checks that the payload is JSON and keeps its text as it stands, large numbers and the order of
/// keys included.
#[sharpfaas::function]
fn echo(payload: Box<RawValue>) -> Box<RawValue> {
    sharpfaas::println!("{} bytes", payload.get().len());
    payload
}
