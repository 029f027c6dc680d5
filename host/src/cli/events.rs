//! Server-sent events (the HTML Standard, section "Server-sent events"), as far as the server uses them.

/// One event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Its name; empty where it has none.
    pub name: String,
    /// Its data, lines joined.
    pub data: String,
}

/// Takes a stream apart, in whatever pieces it comes.
#[derive(Debug, Default)]
pub struct Events {
    /// What has come and was not read.
    pending: Vec<u8>,
    /// How much of it was looked at and has no line end.
    looked: usize,
    /// The event that is being read.
    event: Event,
    data: bool,
    /// The id of the last event that was whole.
    last_id: Option<String>,
    id: Option<String>,
}

impl Events {
    /// Takes a piece of the stream.
    pub fn push(&mut self, bytes: &[u8]) {
        self.pending.extend_from_slice(bytes);
    }

    /// Begins again with another connection: what was half read is void.
    pub fn reconnect(&mut self) {
        *self = Self { last_id: self.last_id.take(), ..Self::default() };
    }

    /// What the next connection has to say was the last event.
    pub fn last_id(&self) -> Option<&str> {
        self.last_id.as_deref()
    }

    /// The next event that is whole.
    pub fn next(&mut self) -> Option<Event> {
        let mut read = 0;
        let mut whole = None;
        while whole.is_none() {
            let rest = self.pending.get(read..).unwrap_or_default();
            let looked = self.looked.min(rest.len());
            let end = rest.get(looked..).and_then(|new| new.iter().position(|&byte| byte == b'\n'));
            let Some(end) = end.map(|end| end + looked) else {
                self.looked = rest.len();
                break;
            };
            let line = String::from_utf8_lossy(rest.get(..end).unwrap_or_default()).into_owned();
            read += end + 1;
            self.looked = 0;
            whole = self.line(line.strip_suffix('\r').unwrap_or(&line));
        }
        self.pending.drain(..read);
        whole
    }

    fn line(&mut self, line: &str) -> Option<Event> {
        if line.is_empty() {
            let event = std::mem::take(&mut self.event);
            if let Some(id) = self.id.take() {
                self.last_id = Some(id);
            }
            return std::mem::take(&mut self.data).then_some(event);
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.event.name = value.to_owned(),
            "data" => {
                if self.data {
                    self.event.data.push('\n');
                }
                self.data = true;
                self.event.data.push_str(value);
            }
            "id" => self.id = Some(value.to_owned()),
            // A comment has no name; `retry` is for those who reconnect by themselves.
            _ => {}
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(name: &str, data: &str) -> Event {
        Event { name: name.into(), data: data.into() }
    }

    #[test]
    fn events_are_the_same_in_whatever_pieces_they_come() {
        let stream = ":\n\nid: 0\nevent: output\ndata: {\"line\":\"\u{fc}\"}\n\nid: 1\r\ndata:a\r\ndata: b\r\n\r\nevent: none\n\nid: 2\ndata: half";
        for piece in 1..stream.len() {
            let mut events = Events::default();
            let mut seen = Vec::new();
            for bytes in stream.as_bytes().chunks(piece) {
                events.push(bytes);
                seen.extend(std::iter::from_fn(|| events.next()));
            }
            assert_eq!(seen, [event("output", "{\"line\":\"\u{fc}\"}"), event("", "a\nb")], "pieces of {piece}");
            assert_eq!(events.last_id(), Some("1"));
        }
    }

    #[test]
    fn what_was_half_read_does_not_mix_with_the_next_connection() {
        let mut events = Events::default();
        events.push(b"id: 7\ndata: a\n\nid: 8\ndata: ha");
        assert_eq!(events.next(), Some(event("", "a")));
        assert_eq!(events.next(), None);
        events.reconnect();
        assert_eq!(events.last_id(), Some("7"));
        events.push(b"data: b\n\n");
        assert_eq!(events.next(), Some(event("", "b")));
    }
}
