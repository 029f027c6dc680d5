//! The fields behind the body of a request: what has come of them is with the connection, and goes to the request that
//! they belong to.

use std::{cell::RefCell, rc::Rc};

use actix_web::http::header::HeaderMap as FromMap;
use http::{
    HeaderMap,
    header::{HeaderName, HeaderValue},
};

use super::{
    super::{Problem, forwarded},
    NEVER,
    framing::{FIELDS_BYTES, Framing},
};

/// How many fields may stand behind a body.
const FIELDS: usize = 100;

/// A connection over HTTP/1.1 whose bytes are followed as they are read.
#[derive(Debug, Clone, Default)]
pub struct Followed(Rc<RefCell<Connection>>);

#[derive(Debug, Default)]
struct Connection {
    framing: Framing,
    /// How many requests in chunks have come to be handled.
    handled: u64,
}

impl Followed {
    /// Follows what has been read, which must be all, and in order.
    pub fn read(&self, bytes: &[u8]) {
        self.0.borrow_mut().framing.read(bytes);
    }

    /// Of a request in chunks, with these headers, that comes to be handled: each must be told of, in their order.
    pub fn begin(&self, headers: &FromMap) -> Behind {
        let mut connection = self.0.borrow_mut();
        connection.handled += 1;
        let own = forwarded::named_in_connection(headers);
        Behind { connection: self.clone(), number: connection.handled, own }
    }
}

/// What stands behind the body of a request in chunks.
#[derive(Debug, Clone)]
pub struct Behind {
    connection: Followed,
    number: u64,
    /// What the sender says is for the connection alone.
    own: Vec<String>,
}

impl Behind {
    /// Takes the fields once the body has been read, which had so many bytes. Those that may not stand there are left
    /// out.
    ///
    /// # Errors
    /// When they are too many, or no fields.
    pub fn take(&self, body: u64) -> Result<Option<HeaderMap>, Problem> {
        let section = self.connection.0.borrow_mut().framing.take(self.number);
        // A body of another length is another body.
        let Some(section) = section.filter(|section| section.body == body) else { return Ok(None) };
        let fields = parse(&section.fields.ok_or_else(too_many)?)?;
        let kept = fields.into_iter().filter(|(name, _)| may_stand(name, &self.own));
        let mut map = HeaderMap::new();
        for (name, value) in kept {
            map.append(name, value);
        }
        Ok((!map.is_empty()).then_some(map))
    }
}

/// Whether a field may stand behind a request: not those that say how a message is to be read, who asks, or by whom the
/// request was forwarded, nor those for one connection alone.
fn may_stand(name: &HeaderName, own: &[String]) -> bool {
    !NEVER.contains(name) && !forwarded::is_of_connection(name.as_str(), own) && !forwarded::is_forwarded(name.as_str())
}

fn parse(section: &[u8]) -> Result<Vec<(HeaderName, HeaderValue)>, Problem> {
    let lines = section.split_inclusive(|byte| *byte == b'\n');
    if lines.clone().count() > FIELDS {
        return Err(too_many());
    }
    lines.map(|line| field(line.trim_ascii_end()).ok_or_else(no_field)).collect()
}

fn field(line: &[u8]) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_at_checked(line.iter().position(|byte| *byte == b':')?)?;
    let value = value.get(1..)?.trim_ascii();
    Some((HeaderName::from_bytes(name).ok()?, HeaderValue::from_bytes(value).ok()?))
}

fn too_many() -> Problem {
    Problem::invalid(format!("the request's trailers may be {FIELDS} fields of {FIELDS_BYTES} bytes, and are more"))
}

fn no_field() -> Problem {
    Problem::invalid("each line of the request's trailers must be a field, as 'name: value'")
}

#[cfg(test)]
mod tests {
    use actix_web::http::header as from;

    use super::*;

    /// What the second of two requests in chunks is told, where they end so.
    fn told(first: &str, second: &str, length: u64) -> Result<Vec<(String, String)>, String> {
        let followed = Followed::default();
        for behind in [first, second] {
            let head = "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
            followed.read(format!("{head}3\r\nAda\r\n0\r\n{behind}\r\n").as_bytes());
        }
        let mut headers = FromMap::new();
        headers.insert(from::CONNECTION, from::HeaderValue::from_static("x-hop"));
        let (_, behind) = (followed.begin(&headers), followed.begin(&headers));
        let fields = behind.take(length).map_err(|problem| problem.to_string())?.unwrap_or_default();
        assert!(behind.take(length).expect("nothing").is_none());
        Ok(fields
            .iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect())
    }

    #[test]
    fn fields_are_those_of_their_request() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            told("", "X-Sum:1 \r\nx-sum: \t2\r\nx-empty:\r\n", 3).expect("fields"),
            [pair("x-sum", "1"), pair("x-sum", "2"), pair("x-empty", ""),]
        );
        assert_eq!(told("x-sum: 1\r\n", "x-sum: 2\r\n", 3).expect("fields"), [pair("x-sum", "2")]);
        assert_eq!(told("x-sum: 1\r\n", "", 3).expect("fields"), []);
        assert_eq!(told("", "x-sum: 1\r\n", 4).expect("fields"), []);
    }

    #[test]
    fn what_may_not_stand_there_is_left_out() {
        let forbidden = "Content-Length: 3\r\nHost: evil\r\nAuthorization: Bearer x\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
                         X-Forwarded-For: 10.0.0.1\r\nForwarded: for=10.0.0.1\r\nTransfer-Encoding: chunked\r\n";
        assert_eq!(told("", forbidden, 3).expect("fields"), []);
        assert_eq!(told("", &format!("{forbidden}x: y\r\n"), 3).expect("fields"), [("x".to_owned(), "y".to_owned())]);
    }

    #[test]
    fn what_is_no_field_or_too_much_is_refused() {
        for bad in ["nothing\r\n", ": x\r\n", "a b: c\r\n", " x: folded\r\n", "x: a\0b\r\n", "x: a\ny: b\r\n\n\r\n"] {
            assert!(told("", bad, 3).expect_err(bad).contains("must be a field"), "{bad:?}");
        }
        let many = "x: y\r\n".repeat(FIELDS);
        assert_eq!(told("", &many, 3).expect("fields").len(), FIELDS);
        for more in [format!("{many}x: y\r\n"), format!("x: {}\r\n", "y".repeat(FIELDS_BYTES))] {
            assert!(told("", &more, 3).expect_err("too many").contains("100 fields of 16384 bytes"));
        }
    }
}
