//! Console lines.

use chrono::{DateTime, Datelike, Timelike, Utc};
use serde::{Deserialize, Serialize, Serializer};

/// Which of the two streams a line was printed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// One line of console output, without its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct OutputLine {
    /// Where it was printed.
    pub stream: Stream,
    /// The text; bytes that are not UTF-8 are replaced by U+FFFD.
    pub line: String,
    /// When its end was printed.
    #[serde(serialize_with = "write_timestamp")]
    pub at: DateTime<Utc>,
}

fn write_timestamp<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(std::str::from_utf8(&timestamp(at)).unwrap_or_default())
}

/// A time as RFC 3339 has it, with microseconds. By hand, because every line that is printed is written so
/// more than once, and a formatter that can do anything takes ten times as long.
#[must_use]
pub fn timestamp(at: &DateTime<Utc>) -> [u8; 27] {
    let mut text = *b"0000-00-00T00:00:00.000000Z";
    let mut put = |end: usize, mut number: u32, digits: usize| {
        for place in text.iter_mut().take(end).rev().take(digits) {
            *place = b'0' + (number % 10) as u8;
            number /= 10;
        }
    };
    // A clock does not leave these four digits.
    put(4, u32::try_from(at.year()).unwrap_or(0), 4);
    put(7, at.month(), 2);
    put(10, at.day(), 2);
    put(13, at.hour(), 2);
    put(16, at.minute(), 2);
    put(19, at.second(), 2);
    put(26, at.nanosecond() / 1000 % 1_000_000, 6);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_they_are_read() {
        for text in ["2026-11-27T16:09:05.000120Z", "1999-12-31T23:59:59.999999Z", "2024-02-29T00:00:00.000000Z"] {
            let line = OutputLine { stream: Stream::Stdout, line: "x".into(), at: text.parse().expect("a time") };
            let written = serde_json::to_string(&line).expect("it is written");
            assert!(written.contains(text), "{written}");
            assert_eq!(serde_json::from_str::<OutputLine>(&written).expect("it is read"), line);
        }
    }
}
