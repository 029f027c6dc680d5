//! Payloads in, results out.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A payload or a result as it is, without JSON around it.
///
/// ```
/// use sharpfaas::Text;
///
/// #[sharpfaas::function]
/// fn handle(payload: Text) -> Text {
///     Text(payload.0.to_uppercase())
/// }
/// ```
///
/// The host shows a result that happens to be JSON as JSON, and any other as a string.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Text(
    /// The text.
    pub String,
);

impl fmt::Display for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<T: Into<String>> From<T> for Text {
    fn from(text: T) -> Self {
        Self(text.into())
    }
}

/// What a handler can take.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be decoded from a payload",
    label = "implement `serde::Deserialize` for this type: `#[derive(serde::Deserialize)]`",
    note = "a handler takes any type that implements `serde::Deserialize`, or `sharpfaas::Text` for the payload as it is"
)]
pub trait FromPayload<'a>: Sized {
    /// Decodes `payload`; the error's text is for the caller.
    ///
    /// # Errors
    /// When it does not fit the type.
    fn from_payload(payload: &'a str) -> Result<Self, String>;
}

impl<'a, T: Deserialize<'a>> FromPayload<'a> for T {
    fn from_payload(payload: &'a str) -> Result<Self, String> {
        let error = match serde_json::from_str(payload) {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        if payload.trim_ascii().is_empty() {
            return serde_json::from_str("null").map_err(|_| "the payload is empty: this function takes JSON".into());
        }
        // Only now, because keeping track of the path takes time that a payload that fits need not pay.
        let mut deserializer = serde_json::Deserializer::from_str(payload);
        match serde_path_to_error::deserialize::<_, T>(&mut deserializer) {
            Err(at) if at.path().iter().len() > 0 => {
                Err(format!("the payload does not fit at {}: {}", at.path(), at.inner()))
            }
            Err(_) | Ok(_) if error.is_data() => Err(format!("the payload does not fit: {error}")),
            Err(_) | Ok(_) => Err(format!("the payload is not JSON: {error}")),
        }
    }
}

impl FromPayload<'_> for Text {
    fn from_payload(payload: &str) -> Result<Self, String> {
        Ok(Self(payload.to_owned()))
    }
}

/// What a handler can come to.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be encoded as a result",
    label = "implement `serde::Serialize` for this type: `#[derive(serde::Serialize)]`",
    note = "a handler returns any type that implements `serde::Serialize`, or `sharpfaas::Text`, as it is or in a `Result`"
)]
pub trait IntoPayload {
    /// Encodes the value; the error's text is for the caller.
    ///
    /// # Errors
    /// When JSON cannot hold it, as a map whose keys are no strings.
    fn into_payload(self) -> Result<String, String>;
}

impl<T: Serialize> IntoPayload for T {
    fn into_payload(self) -> Result<String, String> {
        serde_json::to_string(&self).map_err(|error| format!("the result cannot be written as JSON: {error}"))
    }
}

impl IntoPayload for Text {
    fn into_payload(self) -> Result<String, String> {
        Ok(self.0)
    }
}

#[cfg(test)]
mod tests;
