//! What is kept of a program's output beside its console: its result, and the end of what it complained of. A native
//! program's, or that of a component that is a command.

use std::sync::{Mutex, PoisonError};

use crate::function::Stream;

/// How much of the end of standard error may stand in a failure's detail, in bytes.
const ERROR_TAIL: usize = 2 * 1024;

/// What is kept of a program's output beside its console.
#[derive(Debug)]
pub struct Capture {
    kept: Mutex<Kept>,
    /// The largest result, in bytes.
    limit: usize,
}

#[derive(Debug, Default)]
struct Kept {
    /// All of standard output, until it is too large.
    result: Vec<u8>,
    overflowed: bool,
    /// The end of standard error, of up to twice [`ERROR_TAIL`].
    errors: Vec<u8>,
}

impl Capture {
    /// Keeps a result of up to `limit` bytes, and its line end.
    pub fn new(limit: u64) -> Self {
        Self { kept: Mutex::default(), limit: usize::try_from(limit).unwrap_or(usize::MAX) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Kept) -> T) -> T {
        act(&mut self.kept.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes what the program printed next.
    pub fn take(&self, stream: Stream, bytes: &[u8]) {
        self.with(|kept| match stream {
            Stream::Stdout if kept.overflowed => {}
            // The line end is no part of the result, so there is room for one more.
            Stream::Stdout if kept.result.len() + bytes.len() > self.limit.saturating_add(2) => {
                kept.overflowed = true;
                kept.result = Vec::new();
            }
            Stream::Stdout => kept.result.extend_from_slice(bytes),
            Stream::Stderr => {
                kept.errors.extend_from_slice(bytes.get(bytes.len().saturating_sub(ERROR_TAIL)..).unwrap_or(bytes));
                let surplus = kept.errors.len().saturating_sub(ERROR_TAIL);
                if surplus > ERROR_TAIL {
                    kept.errors.drain(..surplus);
                }
            }
        });
    }

    /// The whole standard output as text, without the end of its last line; bytes that are not UTF-8 are
    /// replaced by U+FFFD. `None` when that is too large.
    pub fn result(&self) -> Option<String> {
        let mut bytes = self.with(|kept| (!kept.overflowed).then(|| std::mem::take(&mut kept.result)))?;
        if bytes.last() == Some(&b'\n') {
            bytes.pop();
            if bytes.last() == Some(&b'\r') {
                bytes.pop();
            }
        }
        let text =
            String::from_utf8(bytes).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned());
        (text.len() <= self.limit).then_some(text)
    }

    /// The last lines of standard error, without those that are empty.
    pub fn errors(&self) -> String {
        let bytes = self.with(|kept| std::mem::take(&mut kept.errors));
        let tail = bytes.get(bytes.len().saturating_sub(ERROR_TAIL)..).unwrap_or(&bytes);
        let text = String::from_utf8_lossy(tail);
        let mut lines: Vec<&str> =
            text.lines().rev().map(str::trim_end).filter(|line| !line.is_empty()).take(5).collect();
        lines.reverse();
        lines.join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capture(limit: u64, stdout: &[&[u8]]) -> Option<String> {
        let capture = Capture::new(limit);
        stdout.iter().for_each(|bytes| capture.take(Stream::Stdout, bytes));
        capture.result()
    }

    #[test]
    fn a_result_may_be_as_large_as_its_limit_and_no_larger() {
        assert_eq!(capture(4, &[b"ab", b"cd\n"]).as_deref(), Some("abcd"));
        assert_eq!(capture(4, &[b"abcd\r\n"]).as_deref(), Some("abcd"));
        assert_eq!(capture(4, &[b"abc\n\n"]).as_deref(), Some("abc\n"));
        assert_eq!(capture(4, &[b"abcde"]), None);
        assert_eq!(capture(4, &[b"abcd", b"efg", b"h"]), None);
        // Two bytes here, and six as text.
        assert_eq!(capture(4, &[b"\xff\xff"]), None);
        assert_eq!(capture(6, &[b"\xff\xff"]).as_deref(), Some("\u{fffd}\u{fffd}"));
    }

    #[test]
    fn keeps_the_end_of_standard_error() {
        let capture = Capture::new(0);
        for line in 0..10_000 {
            capture.take(Stream::Stderr, format!("line {line}\n\n").as_bytes());
        }
        assert_eq!(capture.errors(), "line 9995\nline 9996\nline 9997\nline 9998\nline 9999");
        capture.take(Stream::Stderr, "é".repeat(100_000).as_bytes());
        assert!(capture.with(|kept| kept.errors.len()) <= 2 * ERROR_TAIL);
        assert!(capture.errors().len() <= ERROR_TAIL + 2);
    }
}
