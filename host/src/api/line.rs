//! Console lines as JSON, written straight into what is sent.
//!
//! Every listener gets every line, so this is the innermost loop of live output. The form is the one that
//! serde gives an [`OutputLine`].

use std::io::Write as _;

use crate::function::{OutputLine, Stream, timestamp};

/// Writes the members of a line's object: `"stream":…,"line":…,"at":…`.
pub fn members(line: &OutputLine, to: &mut Vec<u8>) {
    to.extend_from_slice(match line.stream {
        Stream::Stdout => b"\"stream\":\"stdout\",\"line\":",
        Stream::Stderr => b"\"stream\":\"stderr\",\"line\":",
    });
    string(&line.line, to);
    to.extend_from_slice(b",\"at\":\"");
    to.extend_from_slice(&timestamp(&line.at));
    to.push(b'"');
}

/// Writes a string of JSON (RFC 8259, section 7).
pub fn string(text: &str, to: &mut Vec<u8>) {
    to.push(b'"');
    // Looked at as a whole, without a way out, so that it is done many bytes at a time.
    let plain = text.bytes().fold(true, |plain, byte| plain & (byte >= 0x20) & (byte != b'"') & (byte != b'\\'));
    if plain {
        to.extend_from_slice(text.as_bytes());
        to.push(b'"');
    } else {
        to.pop();
        // A string always has a JSON form, and memory takes it.
        let _ = serde_json::to_writer(to, text);
    }
}

/// Writes a number.
pub fn number(number: u64, to: &mut Vec<u8>) {
    let _ = write!(to, "{number}");
}

#[cfg(test)]
mod tests {
    use chrono::{TimeZone as _, Utc};
    use proptest::prelude::*;

    use super::*;

    fn lines() -> impl Strategy<Value = OutputLine> {
        let text = prop_oneof!["[ -~]{0,40}", any::<String>(), "[\\x00-\\x7f]{0,9}"];
        let nanos =
            prop_oneof![Just(0), 0..2_000_000_000_u32, (0..1000_u32).prop_map(|n| n * 1_000_000), 0..1_000_000u32];
        let stream = prop_oneof![Just(Stream::Stdout), Just(Stream::Stderr)];
        (stream, text, 1_700_000_000..1_700_000_003_i64, nanos).prop_map(|(stream, line, second, nanos)| {
            // A leap second is the last of its minute.
            let second = if nanos >= 1_000_000_000 { second - second % 60 + 59 } else { second };
            OutputLine { stream, line, at: Utc.timestamp_opt(second, nanos).single().expect("a time") }
        })
    }

    proptest! {
        #[test]
        fn lines_are_written_as_serde_writes_them(lines in prop::collection::vec(lines(), 1..6)) {
            for line in lines {
                let mut written = b"{".to_vec();
                members(&line, &mut written);
                written.push(b'}');
                prop_assert_eq!(String::from_utf8(written).expect("text"), serde_json::to_string(&line).expect("JSON"));
            }
        }
    }
}
