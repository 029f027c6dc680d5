//! The console of one call: what it prints, cut into lines, the last of them kept.
//!
//! The guest writes and is never held up: a line goes into a bounded ring and whoever listens is woken.
//! Every line has a number, counted from 0. A listener holds the number it wants next and reads from
//! the ring at its own pace; when the ring has moved on meanwhile, it is told how many lines it missed.
//! So the memory of a call's output is one ring, however many listen. Nor does the guest wake them all:
//! it wakes one, and that one the others.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use chrono::{DateTime, Utc};
use tokio::sync::Notify;

use crate::function::{OutputLine, Stream};

/// A line longer than this many bytes is cut into lines of this length.
pub const MAX_LINE_BYTES: usize = 16 * 1024;

/// What a kept line costs beside its text, in bytes, so that a flood of empty lines is bounded too.
const LINE_COST: usize = 64;

/// The output of one call.
#[derive(Debug)]
pub struct Console {
    ring: Mutex<Ring>,
    /// Wakes one listener, who wakes the others through `changed`: so a write costs the guest the same
    /// however many listen.
    first: Notify,
    changed: Notify,
    /// Wakes all who wait for the end alone.
    over: Notify,
}

#[derive(Debug)]
struct Ring {
    lines: VecDeque<Arc<OutputLine>>,
    /// The number of the first line of `lines`.
    first: u64,
    /// What `lines` costs, in bytes.
    held: usize,
    /// How much it may cost.
    room: usize,
    /// The beginnings of lines whose ends are not printed yet, by stream.
    partial: [Vec<u8>; 2],
    ended: bool,
}

/// What a listener gets in one go.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Batch {
    /// How many lines it came too late for.
    pub skipped: u64,
    /// The number of the first of `lines`.
    pub first: u64,
    /// The lines, in order.
    pub lines: Vec<Arc<OutputLine>>,
    /// Whether they are all that was printed so far.
    pub all: bool,
    /// Whether nothing will come after them.
    pub ended: bool,
}

impl Batch {
    /// The number of the line after these.
    #[must_use]
    pub fn next(&self) -> u64 {
        self.first.saturating_add(self.lines.len() as u64)
    }
}

impl Console {
    /// A console that keeps the last `keep` bytes of what is printed.
    #[must_use]
    pub fn new(keep: usize) -> Self {
        let ring = Ring {
            lines: VecDeque::new(),
            first: 0,
            held: 0,
            room: keep,
            partial: [Vec::new(), Vec::new()],
            ended: false,
        };
        Self { ring: Mutex::new(ring), first: Notify::new(), changed: Notify::new(), over: Notify::new() }
    }

    fn ring(&self) -> MutexGuard<'_, Ring> {
        // Nothing panics while it holds the lock; and a ring of lines is whole after any push.
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes what was printed, in pieces of any size. After the end, nothing.
    pub fn write(&self, stream: Stream, bytes: &[u8]) {
        let mut ring = self.ring();
        let before = ring.end();
        if !ring.ended {
            ring.write(stream, bytes);
        }
        let changed = ring.end() != before;
        drop(ring);
        if changed {
            self.first.notify_one();
        }
    }

    /// Ends the output: what has no line end yet becomes a line.
    pub fn end(&self) {
        let mut ring = self.ring();
        for stream in [Stream::Stdout, Stream::Stderr] {
            let rest = std::mem::take(ring.partial_of(stream));
            if !rest.is_empty() {
                ring.push(stream, &rest, Utc::now());
            }
        }
        ring.ended = true;
        drop(ring);
        self.first.notify_one();
        self.over.notify_waiters();
    }

    /// Waits for the end of the output. Safe to drop at any point.
    pub async fn over(&self) {
        let mut over = std::pin::pin!(self.over.notified());
        over.as_mut().enable();
        if !self.ring().ended {
            over.await;
        }
    }

    /// What there is from line `from` on, at once: at least a line where there is one, and no further
    /// than `max` bytes, of which each line costs 64 beside its text.
    #[must_use]
    pub fn read(&self, from: u64, max: usize) -> Batch {
        let ring = self.ring();
        let first = from.max(ring.first);
        let start = usize::try_from(first - ring.first).unwrap_or(usize::MAX);
        let mut room = max;
        let fitting = ring.lines.iter().skip(start).take_while(|line| {
            let fits = room > 0;
            room = room.saturating_sub(cost(line));
            fits
        });
        let lines: Vec<_> = fitting.cloned().collect();
        let reached = first.saturating_add(lines.len() as u64) >= ring.end();
        Batch { skipped: first - from, first, lines, all: reached, ended: ring.ended && reached }
    }

    /// As [`read`](Self::read), but waits until there is something to read, or the end. Safe to drop at
    /// any point.
    pub async fn next(&self, from: u64, max: usize) -> Batch {
        loop {
            // Registered before the look, so a line printed between look and wait is not missed.
            let mut changed = std::pin::pin!(self.changed.notified());
            changed.as_mut().enable();
            let batch = self.read(from, max);
            if batch.ended || !batch.lines.is_empty() {
                return batch;
            }
            tokio::select! {
                () = changed => {}
                () = self.first.notified() => self.changed.notify_waiters(),
            }
        }
    }

    /// Takes lines that were cut elsewhere, of which the first has the number `first`: those that are new.
    /// Where lines are missing between the last one and these, they count as dropped.
    pub fn put(&self, first: u64, lines: &[Arc<OutputLine>]) {
        let mut ring = self.ring();
        let before = ring.end();
        if first > before {
            (ring.first, ring.held) = (first, 0);
            ring.lines.clear();
        }
        let known = usize::try_from(before.saturating_sub(first)).unwrap_or(usize::MAX);
        for line in lines.iter().skip(known) {
            ring.keep(line.clone());
        }
        drop(ring);
        self.first.notify_one();
    }

    /// How much a console must keep to hold these lines, in bytes.
    #[must_use]
    pub fn room_for(lines: &[Arc<OutputLine>]) -> usize {
        lines.iter().map(|line| cost(line)).sum()
    }

    /// How much is kept, in bytes.
    #[must_use]
    pub fn held(&self) -> usize {
        self.ring().held
    }

    /// The kept lines, and how many earlier ones were dropped.
    #[must_use]
    pub fn tail(&self) -> (Vec<Arc<OutputLine>>, u64) {
        let ring = self.ring();
        (ring.lines.iter().cloned().collect(), ring.first)
    }

    /// The number that the next line gets.
    #[must_use]
    pub fn printed(&self) -> u64 {
        self.ring().end()
    }
}

/// Where a line that is too long is cut: before a character that would be cut in two.
fn cut(line: &[u8]) -> usize {
    let last = line.get(..MAX_LINE_BYTES).unwrap_or(line);
    // A character of UTF-8 has at most four bytes: a first one, and others that begin with the bits 10.
    let first = last.iter().rev().take(4).position(|byte| byte & 0xc0 != 0x80).unwrap_or(0);
    let at = last.len().saturating_sub(first + 1);
    let whole = std::str::from_utf8(last.get(at..).unwrap_or_default())
        .map_or_else(|error| error.error_len().is_some(), |_| true);
    if whole { last.len() } else { at }
}

/// What a kept line costs, in bytes.
fn cost(line: &OutputLine) -> usize {
    line.line.len() + LINE_COST
}

impl Ring {
    fn end(&self) -> u64 {
        self.first + self.lines.len() as u64
    }

    fn partial_of(&mut self, stream: Stream) -> &mut Vec<u8> {
        let [out, err] = &mut self.partial;
        match stream {
            Stream::Stdout => out,
            Stream::Stderr => err,
        }
    }

    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        let (doomed, mut bytes) = bytes.split_at(self.doomed(bytes));
        if !doomed.is_empty() {
            self.skip(stream, doomed);
        }
        let at = Utc::now();
        while !bytes.is_empty() {
            let begun = self.partial_of(stream).len();
            // A line of just the greatest length still has its end in here.
            let window = bytes.get(..=MAX_LINE_BYTES.saturating_sub(begun)).unwrap_or(bytes);
            let newline = window.iter().position(|byte| *byte == b'\n');
            let piece = window.get(..newline.unwrap_or(window.len())).unwrap_or(window);
            bytes = bytes.get(piece.len() + usize::from(newline.is_some())..).unwrap_or_default();
            let too_long = begun + piece.len() > MAX_LINE_BYTES;
            if begun == 0 && newline.is_some() {
                self.push(stream, piece, at);
                continue;
            }
            self.partial_of(stream).extend_from_slice(piece);
            if newline.is_some() || too_long {
                let mut line = std::mem::take(self.partial_of(stream));
                if too_long {
                    *self.partial_of(stream) = line.split_off(cut(&line));
                }
                self.push(stream, &line, at);
            }
        }
    }

    /// How many of the first of these bytes are lines that the rest of them pushes out again: in a flood,
    /// nearly all. They are counted and never made, which is most of a flood's cost.
    fn doomed(&self, bytes: &[u8]) -> usize {
        let (mut cost, mut end) = (0, bytes.len());
        let mut rest = bytes.rsplit(|byte| *byte == b'\n');
        // What stands behind the last line end costs nothing yet.
        end -= rest.next().map_or(0, <[u8]>::len);
        for line in rest {
            if cost > self.room {
                return end;
            }
            // A '\r' before its end is not kept.
            cost += line.len().saturating_sub(1) + LINE_COST;
            end = end.saturating_sub(line.len() + 1);
        }
        0
    }

    /// Counts whole lines that nobody will see, about as [`write`](Self::write) would cut them.
    fn skip(&mut self, stream: Stream, lines: &[u8]) {
        let mut begun = std::mem::take(self.partial_of(stream)).len();
        let mut count = 0;
        for line in lines.strip_suffix(b"\n").unwrap_or(lines).split(|byte| *byte == b'\n') {
            count += 1 + ((begun + line.len()).saturating_sub(1) / MAX_LINE_BYTES) as u64;
            begun = 0;
        }
        self.first = self.end() + count;
        self.lines.clear();
        self.held = 0;
    }

    fn push(&mut self, stream: Stream, bytes: &[u8], at: DateTime<Utc>) {
        let bytes = bytes.strip_suffix(b"\r").unwrap_or(bytes);
        self.keep(Arc::new(OutputLine { stream, line: String::from_utf8_lossy(bytes).into_owned(), at }));
    }

    fn keep(&mut self, line: Arc<OutputLine>) {
        self.held += cost(&line);
        self.lines.push_back(line);
        while self.held > self.room {
            let Some(dropped) = self.lines.pop_front() else { break };
            self.held -= cost(&dropped);
            self.first += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(console: &Console) -> Vec<String> {
        console.tail().0.iter().map(|line| line.line.clone()).collect()
    }

    #[test]
    fn cuts_lines_wherever_the_pieces_end() {
        let console = Console::new(10_000);
        for piece in ["on", "e\ntw", "o\r\n", "\n", "rest"] {
            console.write(Stream::Stdout, piece.as_bytes());
        }
        console.write(Stream::Stderr, b"bad \xff byte\n");
        assert_eq!(texts(&console), ["one", "two", "", "bad \u{fffd} byte"]);
        console.end();
        assert_eq!(texts(&console).last().map(String::as_str), Some("rest"));
        console.write(Stream::Stdout, b"late\n");
        assert_eq!(texts(&console).len(), 5);
    }

    #[test]
    fn long_lines_are_cut_and_nothing_is_lost_at_the_cut() {
        let console = Console::new(1_000_000);
        let text: String = (0..MAX_LINE_BYTES * 2 + 5).map(|i| char::from(b'a' + (i % 26) as u8)).collect();
        for piece in text.as_bytes().chunks(1000) {
            console.write(Stream::Stdout, piece);
        }
        console.end();
        let lines = texts(&console);
        assert_eq!(lines.iter().map(String::len).collect::<Vec<_>>(), [MAX_LINE_BYTES, MAX_LINE_BYTES, 5]);
        assert_eq!(lines.concat(), text);
    }

    #[test]
    fn a_line_of_the_greatest_length_is_one_and_no_character_is_cut_in_two() {
        for piece in [1, 1000, usize::MAX] {
            let console = Console::new(10_000_000);
            let longest = "x".repeat(MAX_LINE_BYTES);
            // Characters of one to four bytes at the cut, and what is no character.
            let texts =
                ["", "a", "\u{e9}", "\u{20ac}", "\u{1f980}"].map(|tail| "y".repeat(MAX_LINE_BYTES - 2) + tail + "zz");
            for text in [&longest, &longest].into_iter().chain(&texts) {
                format!("{text}\n").as_bytes().chunks(piece).for_each(|bytes| console.write(Stream::Stdout, bytes));
            }
            console.write(Stream::Stdout, &vec![0xbf; MAX_LINE_BYTES + 1]);
            console.end();
            let lines = self::texts(&console);
            assert_eq!(lines.get(..2), Some(&[longest.clone(), longest][..]));
            assert_eq!(lines.get(2..11).map(<[_]>::concat), Some(texts.concat()));
            assert!(lines.iter().skip(2).take(9).all(|line| line.len() <= MAX_LINE_BYTES && !line.is_empty()));
            let rest: Vec<_> = lines.iter().skip(11).map(|line| line.chars().count()).collect();
            assert_eq!(rest, [MAX_LINE_BYTES, 1]);
        }
    }

    #[test]
    fn keeps_the_end_and_tells_a_late_listener_what_it_missed() {
        let console = Console::new(10 * (LINE_COST + 2));
        for i in 0..50 {
            console.write(Stream::Stdout, format!("{i:02}\n").as_bytes());
        }
        let (lines, skipped) = console.tail();
        assert_eq!((lines.len(), skipped), (10, 40));
        let batch = console.read(0, 3 * (LINE_COST + 2) + 1);
        assert_eq!((batch.skipped, batch.first, batch.lines.len(), batch.ended), (40, 40, 4, false));
        assert_eq!(batch.lines[0].line, "40");
        console.end();
        assert!(!console.read(0, 1).ended && console.read(49, 1).ended);
    }

    #[test]
    fn a_flood_in_one_piece_leaves_what_it_leaves_line_by_line() {
        let mut flood = String::from("of the begun line\n");
        for i in 0..2000 {
            let long = if i % 500 == 3 { MAX_LINE_BYTES - 1 + i % 3 } else { i % 7 };
            flood.push_str(&format!("{i} {}{}\n", "x".repeat(long), if i % 3 == 0 { "\r" } else { "" }));
        }
        flood.push_str("begun");
        for keep in [0, 1, 1000, 20_000, 50_000, 10_000_000] {
            let (whole, single) = (Console::new(keep), Console::new(keep));
            for console in [&whole, &single] {
                console.write(Stream::Stderr, b"before\nthe rest ");
                console.write(Stream::Stdout, b"the rest ");
            }
            whole.write(Stream::Stdout, flood.as_bytes());
            flood.as_bytes().chunks(1).for_each(|byte| single.write(Stream::Stdout, byte));
            for console in [&whole, &single] {
                console.end();
            }
            assert_eq!(texts(&whole), texts(&single), "{keep}");
            assert_eq!(whole.read(0, 0).first, single.read(0, 0).first, "{keep}");
        }
    }

    #[test]
    fn lines_cut_elsewhere_keep_their_numbers() {
        let of =
            |number: u64| Arc::new(OutputLine { stream: Stream::Stdout, line: number.to_string(), at: Utc::now() });
        let console = Console::new(1 << 20);
        console.put(0, &[of(0), of(1)]);
        console.put(0, &[of(0), of(1), of(2)]);
        console.put(1, &[of(1), of(2)]);
        assert_eq!((console.read(0, 1 << 20).skipped, texts(&console)), (0, vec!["0".into(), "1".into(), "2".into()]));
        console.put(7, &[of(7), of(8)]);
        let batch = console.read(3, 1 << 20);
        assert_eq!((batch.skipped, batch.first, console.printed()), (4, 7, 9));
    }

    #[tokio::test]
    async fn a_listener_gets_every_line_once() {
        let console = Arc::new(Console::new(1 << 20));
        let writer = console.clone();
        let task = tokio::spawn(async move {
            for i in 0..1000 {
                writer.write(Stream::Stdout, format!("{i}\n").as_bytes());
                if i % 10 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            writer.end();
        });
        let (mut next, mut seen) = (0, Vec::new());
        loop {
            let batch = console.next(next, 500).await;
            next = batch.next();
            seen.extend(batch.lines.iter().map(|line| line.line.clone()));
            if batch.ended {
                break;
            }
        }
        task.await.expect("the writer ends");
        assert_eq!(seen, (0..1000).map(|i| i.to_string()).collect::<Vec<_>>());
    }
}
