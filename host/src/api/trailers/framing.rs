//! Where the requests of an HTTP/1.1 connection begin and end (RFC 9112, sections 6 and 7.1), told from the bytes that
//! the web server reads, which throws away what stands behind a body in chunks.
//!
//! The web server alone decides what is a request. What is found here is used where it says the same: where both
//! could differ, following ends, and with it every trailer of the connection is lost. Nothing is kept but the length
//! of what is under way, a line that came in parts, and the fields behind bodies.

use std::collections::VecDeque;

use memchr::memchr;

/// How much a section of trailers may have, in bytes.
pub const FIELDS_BYTES: usize = 16 * 1024;
/// How much of a line of a head is looked at, in bytes: no line that says how long a body is needs more.
const LINE: usize = 128;
/// How many sections of trailers may wait for their requests to be handled: as many requests as the web server reads
/// ahead, and the one that it handles.
const WAITING: usize = 17;

/// What stood behind a body in chunks.
#[derive(Debug, PartialEq, Eq)]
pub struct Section {
    /// Which of the connection's requests in chunks it was, from 1.
    pub number: u64,
    /// The length of the body before it, in bytes, without what makes chunks of it.
    pub body: u64,
    /// The lines of the fields; none: they were more than [`FIELDS_BYTES`].
    pub fields: Option<Vec<u8>>,
}

/// The framing of a connection's requests.
#[derive(Debug, Default)]
pub struct Framing {
    at: At,
    head: Head,
    line: Line,
    /// How many requests in chunks have begun.
    number: u64,
    /// The length of the chunked body that is under way, so far.
    body: u64,
    fields: Option<Vec<u8>>,
    sections: VecDeque<Section>,
}

/// What comes next.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum At {
    #[default]
    Head,
    /// What is left of a body of a known length.
    Body(u64),
    /// The first digit of a chunk's size.
    Size,
    /// More of its digits, after these.
    Digits(u64),
    /// White space behind it.
    Padding(u64),
    Extension(u64),
    /// The end of that line.
    SizeEnd(u64),
    /// What is left of a chunk.
    Chunk(u64),
    ChunkCr,
    ChunkEnd,
    /// A field, or the end of all.
    Field,
    InField,
    FieldEnd,
    End,
    /// Whatever it is, it is not followed.
    Lost,
}

/// What a head has said so far.
#[derive(Debug, Default)]
struct Head {
    begun: bool,
    length: Option<u64>,
    chunked: bool,
    /// It says something that isn't followed: no more requests, or none that the web server takes.
    strange: bool,
}

/// The beginning of a line that came in parts.
#[derive(Debug)]
struct Line {
    kept: [u8; LINE],
    /// Of all of it.
    length: usize,
}

impl Default for Line {
    fn default() -> Self {
        Self { kept: [0; LINE], length: 0 }
    }
}

impl Line {
    fn keep(&mut self, part: &[u8]) {
        let free = self.kept.get_mut(self.length..).unwrap_or_default();
        free.iter_mut().zip(part).for_each(|(free, byte)| *free = *byte);
        self.length = self.length.saturating_add(part.len());
    }
}

impl Framing {
    /// Follows what has been read.
    pub fn read(&mut self, mut bytes: &[u8]) {
        loop {
            bytes = match (self.at, bytes) {
                (_, []) | (At::Lost, _) => return,
                (At::Head, _) => self.read_head(bytes),
                (At::Body(left), _) => {
                    let (left, rest) = skip(left, bytes);
                    self.at = if left == 0 { At::Head } else { At::Body(left) };
                    rest
                }
                (At::Chunk(left), _) => {
                    let (after, rest) = skip(left, bytes);
                    self.body = self.body.saturating_add(left - after);
                    self.at = if after == 0 { At::ChunkCr } else { At::Chunk(after) };
                    rest
                }
                (At::InField, _) => self.read_field(bytes),
                (at, [byte, rest @ ..]) => {
                    self.at = self.step(at, *byte);
                    rest
                }
            };
        }
    }

    /// Takes what stood behind the body of the request in chunks of that number. What stood behind those before it
    /// is dropped.
    pub fn take(&mut self, number: u64) -> Option<Section> {
        while let Some(section) = self.sections.pop_front() {
            if section.number == number {
                return Some(section);
            }
            if section.number > number {
                self.sections.push_front(section);
                break;
            }
        }
        None
    }

    fn read_head<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let Some(end) = memchr(b'\n', bytes) else {
            self.line.keep(bytes);
            return &[];
        };
        let (line, rest) = bytes.split_at(end);
        let whole = if self.line.length == 0 {
            self.head.line(line.get(..LINE).unwrap_or(line), line.len())
        } else {
            self.line.keep(line);
            let kept = self.line.kept.get(..self.line.length).unwrap_or(&self.line.kept);
            self.head.line(kept, std::mem::take(&mut self.line.length))
        };
        if whole {
            let head = std::mem::take(&mut self.head);
            self.at = match (head.strange, head.chunked, head.length) {
                (true, ..) => At::Lost,
                (false, true, _) => {
                    self.number += 1;
                    (self.body, self.fields) = (0, Some(Vec::new()));
                    At::Size
                }
                (false, false, Some(length @ 1..)) => At::Body(length),
                (false, false, _) => At::Head,
            };
        }
        rest.get(1..).unwrap_or_default()
    }

    /// As the web server reads chunks, byte by byte.
    fn step(&mut self, at: At, byte: u8) -> At {
        match (at, byte) {
            (At::Size, _) => digit(byte).map_or(At::Lost, At::Digits),
            (At::Digits(size), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                let next = size.checked_mul(16).zip(digit(byte)).map(|(size, digit)| At::Digits(size + digit));
                next.unwrap_or(At::Lost)
            }
            (At::Digits(size) | At::Padding(size), b'\t' | b' ') => At::Padding(size),
            (At::Digits(size) | At::Padding(size), b';') => At::Extension(size),
            (At::Digits(size) | At::Padding(size) | At::Extension(size), b'\r') => At::SizeEnd(size),
            (At::Extension(size), b'\t' | b' '..=b'~' | 0x80..) => At::Extension(size),
            (At::SizeEnd(0), b'\n') => At::Field,
            (At::SizeEnd(size), b'\n') => At::Chunk(size),
            (At::ChunkCr, b'\r') => At::ChunkEnd,
            (At::ChunkEnd, b'\n') => At::Size,
            (At::Field, b'\r') => At::End,
            (At::Field, _) => {
                self.keep(&[byte]);
                At::InField
            }
            (At::FieldEnd, b'\n') => {
                self.keep(b"\n");
                At::Field
            }
            (At::End, b'\n') => self.ended(),
            _ => At::Lost,
        }
    }

    fn read_field<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let (field, rest) = bytes.split_at(memchr(b'\r', bytes).unwrap_or(bytes.len()));
        self.keep(field);
        match rest {
            [] => rest,
            [_, rest @ ..] => {
                self.at = At::FieldEnd;
                rest
            }
        }
    }

    fn keep(&mut self, part: &[u8]) {
        match &mut self.fields {
            Some(fields) if fields.len() + part.len() <= FIELDS_BYTES => fields.extend_from_slice(part),
            fields => *fields = None,
        }
    }

    /// A body in chunks is over.
    fn ended(&mut self) -> At {
        let fields = self.fields.take();
        if fields.as_ref().is_some_and(Vec::is_empty) {
            return At::Head;
        }
        if self.sections.len() == WAITING {
            self.sections.clear();
            return At::Lost;
        }
        self.sections.push_back(Section { number: self.number, body: self.body, fields });
        At::Head
    }
}

impl Head {
    /// Reads a line, or the beginning of one of that length; whether it is the last one.
    fn line(&mut self, line: &[u8], length: usize) -> bool {
        let is_cut = length > line.len();
        let line = if is_cut { line } else { line.strip_suffix(b"\r").unwrap_or(line) };
        if line.is_empty() {
            // There may be some in front of a head.
            return self.begun;
        }
        if !self.begun {
            self.begun = true;
            self.strange = line.starts_with(b"CONNECT ");
            return false;
        }
        if !matches!(line, [b'c' | b'C' | b't' | b'T' | b'u' | b'U', ..]) {
            return false;
        }
        let colon = memchr(b':', line).unwrap_or(line.len());
        let (name, value) = line.split_at(colon);
        let value = value.get(1..).unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"content-length") {
            let digits = value.iter().all(u8::is_ascii_digit).then(|| std::str::from_utf8(value).ok()?.parse().ok());
            match digits.flatten() {
                Some(length) if self.length.is_none() && !self.chunked && !is_cut => self.length = Some(length),
                _ => self.strange = true,
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            let known = value.eq_ignore_ascii_case(b"chunked") && !is_cut;
            self.strange |= !known || self.chunked || self.length.is_some();
            self.chunked = true;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            // What comes then is no HTTP any more.
            self.strange |= is_cut || value.eq_ignore_ascii_case(b"websocket");
        }
        false
    }
}

/// What is left of so much behind these bytes, and the bytes behind it.
fn skip(left: u64, bytes: &[u8]) -> (u64, &[u8]) {
    match usize::try_from(left).ok().and_then(|left| bytes.get(left..)) {
        Some(rest) => (0, rest),
        None => (left - bytes.len() as u64, &[]),
    }
}

fn digit(byte: u8) -> Option<u64> {
    char::from(byte).to_digit(16).map(u64::from)
}

#[cfg(test)]
mod tests;
