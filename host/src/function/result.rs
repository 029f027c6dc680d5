//! What a call returned.

use std::{
    ops::Deref,
    sync::{Arc, OnceLock},
};

use bytes::Bytes;
use serde_json::value::RawValue;

/// The text that a call returned: one, however many are told of it. It may have megabytes, and any number may follow
/// the call, each at its own pace.
#[derive(Debug, Clone)]
pub struct ResultText(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    text: String,
    /// As a string of JSON; none where it is JSON by itself.
    quoted: OnceLock<Option<Bytes>>,
}

impl From<String> for ResultText {
    fn from(text: String) -> Self {
        Self(Arc::new(Inner { text, quoted: OnceLock::new() }))
    }
}

impl From<&str> for ResultText {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl Deref for ResultText {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0.text
    }
}

impl AsRef<[u8]> for ResultText {
    fn as_ref(&self) -> &[u8] {
        self.0.text.as_bytes()
    }
}

impl PartialEq for ResultText {
    fn eq(&self, other: &Self) -> bool {
        self.0.text == other.0.text
    }
}

impl Eq for ResultText {}

impl ResultText {
    /// As JSON: the value that the text is, or else the text as a string.
    #[must_use]
    pub fn json(&self) -> Bytes {
        let quoted = self.0.quoted.get_or_init(|| match serde_json::from_str::<&RawValue>(self) {
            Ok(_) => None,
            // A string always has a JSON form.
            Err(_) => Some(serde_json::to_vec(&**self).unwrap_or_default().into()),
        });
        quoted.clone().unwrap_or_else(|| Bytes::from_owner(self.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_text_serves_all() {
        for (text, json) in [("{\"a\": 1}", "{\"a\": 1}"), ("no \"JSON\"\n", "\"no \\\"JSON\\\"\\n\""), ("", "\"\"")] {
            let result = ResultText::from(text.to_owned());
            let (first, second) = (result.json(), result.clone().json());
            assert_eq!((&*first, first.as_ptr()), (json.as_bytes(), second.as_ptr()));
        }
    }
}
