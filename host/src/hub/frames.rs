//! WebSocket frames as a server sends them (RFC 6455, section 5.2): whole messages, not masked.

use std::{collections::VecDeque, mem};

use actix_ws::CloseCode;
use bytes::Bytes;

const TEXT: u8 = 0x81;
const CLOSE: u8 = 0x88;
const PING: u8 = 0x89;
const PONG: u8 = 0x8a;
/// The longest head that a server's frame has.
const HEAD: usize = 10;
/// The most that a control frame may carry.
const MAX_CONTROL: usize = 125;

/// How much is taken at once of what is shared: it is copied on its way.
const PIECE: usize = 16 * 1024;

/// Frames, one after the other.
#[derive(Debug, Default)]
pub struct Frames {
    /// What comes before the rest: it holds something that others hold too.
    before: VecDeque<Bytes>,
    bytes: Vec<u8>,
}

impl Frames {
    /// How many bytes there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.before.iter().map(Bytes::len).sum::<usize>() + self.bytes.len()
    }

    /// Takes what is first, about as much as is to be written at once.
    #[must_use]
    pub fn take(&mut self) -> Bytes {
        match self.before.front_mut() {
            Some(long) if long.len() > PIECE => long.split_to(PIECE),
            Some(_) => self.before.pop_front().unwrap_or_default(),
            None => mem::take(&mut self.bytes).into(),
        }
    }

    /// Adds a text message of three parts, all of it UTF-8, of which the middle one is shared and may be long.
    pub fn text_around(&mut self, start: &str, middle: Bytes, end: &str) {
        let (head, length) = head(TEXT, start.len() + middle.len() + end.len());
        self.bytes.extend_from_slice(head.get(..length).unwrap_or_default());
        self.bytes.extend_from_slice(start.as_bytes());
        self.before.push_back(mem::take(&mut self.bytes).into());
        self.before.push_back(middle);
        self.bytes.extend_from_slice(end.as_bytes());
    }

    /// Adds a text message, which `write` writes as UTF-8.
    pub fn text(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        let start = self.bytes.len();
        // How long the head is shows when the message is written; then that is moved up to it.
        self.bytes.resize(start + HEAD, 0);
        write(&mut self.bytes);
        let (head, length) = head(TEXT, self.bytes.len() - start - HEAD);
        let head = head.get(..length).unwrap_or_default();
        if let Some(place) = self.bytes.get_mut(start..start + head.len()) {
            place.copy_from_slice(head);
        }
        self.bytes.drain(start + head.len()..start + HEAD);
    }

    fn control(&mut self, kind: u8, data: &[u8]) {
        let data = data.get(..MAX_CONTROL).unwrap_or(data);
        let (head, length) = head(kind, data.len());
        self.bytes.extend_from_slice(head.get(..length).unwrap_or_default());
        self.bytes.extend_from_slice(data);
    }

    /// Adds a ping.
    pub fn ping(&mut self) {
        self.control(PING, b"");
    }

    /// Adds the answer to a ping.
    pub fn pong(&mut self, data: &[u8]) {
        self.control(PONG, data);
    }

    /// Adds the end.
    pub fn close(&mut self, code: CloseCode, why: &str) {
        let why = why.get(..why.floor_char_boundary(MAX_CONTROL - 2)).unwrap_or_default();
        let mut data = u16::from(code).to_be_bytes().to_vec();
        data.extend_from_slice(why.as_bytes());
        self.control(CLOSE, &data);
    }
}

/// A frame's head, and how much of it counts.
fn head(kind: u8, length: usize) -> ([u8; HEAD], usize) {
    let mut head = [0; HEAD];
    let [first, second, longer @ ..] = &mut head;
    *first = kind;
    let counts = match (u8::try_from(length), u16::try_from(length)) {
        (Ok(short), _) if short < 126 => {
            *second = short;
            2
        }
        (_, Ok(medium)) => {
            *second = 126;
            let [a, b, ..] = longer;
            [*a, *b] = medium.to_be_bytes();
            4
        }
        _ => {
            *second = 127;
            *longer = (length as u64).to_be_bytes();
            HEAD
        }
    };
    (head, counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_are_as_short_as_can_be() {
        for (length, head) in [
            (0, &[0x81, 0][..]),
            (125, &[0x81, 125]),
            (126, &[0x81, 126, 0, 126]),
            (65_535, &[0x81, 126, 255, 255]),
            (65_536, &[0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]),
        ] {
            let mut frames = Frames::default();
            frames.pong(b"x");
            frames.text(|to| to.extend(std::iter::repeat_n(b'y', length)));
            frames.ping();
            let wanted = [&[0x8a, 1, b'x'], head, &vec![b'y'; length], &[0x89, 0]].concat();
            assert!(frames.bytes == wanted, "{length}");
        }
    }

    #[test]
    fn what_is_shared_is_one_message_with_what_stands_around_it() {
        let middle = Bytes::from(vec![b'm'; 3 * PIECE + 5]);
        let (mut apart, mut whole) = (Frames::default(), Frames::default());
        apart.ping();
        apart.text_around("start", middle.clone(), "end");
        apart.text(|to| to.push(b'x'));
        whole.ping();
        whole.text(|to| to.extend([b"start", &*middle, b"end"].concat()));
        whole.text(|to| to.push(b'x'));
        assert_eq!(apart.len(), whole.len());
        let pieces: Vec<Bytes> = std::iter::from_fn(|| Some(apart.take()).filter(|piece| !piece.is_empty())).collect();
        assert_eq!(pieces.len(), 6);
        // Nobody else's copy.
        assert_eq!(pieces[1].as_ptr(), middle.as_ptr());
        assert!(pieces.concat() == whole.take());
    }

    #[test]
    fn a_control_frame_is_cut_to_what_it_may_carry() {
        let mut frames = Frames::default();
        frames.close(CloseCode::Away, &"\u{e9}".repeat(100));
        assert_eq!(frames.bytes.get(..4), Some(&[0x88, 124, 0x03, 0xe9][..]));
        assert_eq!(frames.bytes.len(), 126);
        assert!(std::str::from_utf8(&frames.bytes[4..]).is_ok());
    }
}
