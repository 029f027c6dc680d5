//! The fields behind bodies (RFC 9110, section 6.5), which the web server has no way to write or read: where a
//! function announces some and who asked takes them, the body of an answer is put into chunks here (RFC 9112,
//! section 7.1). Those of a request are in [`asked`]. Both are for HTTP/1.1 alone.

use std::{
    io::Write,
    pin::Pin,
    task::{Context, Poll},
};

use actix_web::{HttpRequest, http::Version, http::header as from};
use bytes::Bytes;
use futures_util::Stream;
use http::{HeaderMap, StatusCode, header};
use http_body::Frame;

use crate::runtime::exchange::{BodyPiece, Piece};

mod asked;
mod framing;

pub use asked::{Behind, Followed};

/// What says how a message is to be read or who may read it is no field to stand behind one (RFC 9110, section 6.5.1).
const NEVER: [header::HeaderName; 13] = [
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONNECTION,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::HOST,
    header::MAX_FORWARDS,
    header::SET_COOKIE,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
];

/// Whether who asked takes them (`TE: trailers`), in a version of HTTP that they are written for here.
pub fn taken(request: &HttpRequest) -> bool {
    let values = request.headers().get_all(from::TE).filter_map(|value| value.to_str().ok());
    request.version() == Version::HTTP_11
        && request.method() != actix_web::http::Method::HEAD
        && values.flat_map(|value| value.split(',')).any(|word| word.trim().eq_ignore_ascii_case("trailers"))
}

/// The fields that an answer announces (`Trailer`) and that may stand behind it.
pub fn announced(status: StatusCode, headers: &HeaderMap) -> Vec<header::HeaderName> {
    if status == StatusCode::NO_CONTENT
        || status == StatusCode::NOT_MODIFIED
        || headers.contains_key(header::CONTENT_LENGTH)
    {
        return Vec::new();
    }
    let values = headers.get_all(header::TRAILER).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).filter_map(|name| name.trim().parse().ok());
    names.filter(|name| !NEVER.contains(name)).collect()
}

/// A body in chunks, with those of its trailers that were announced.
pub struct Chunked<S> {
    body: S,
    announced: Vec<header::HeaderName>,
    /// What belongs to a chunk whose head has been given.
    data: Option<Bytes>,
    begun: bool,
    fields: Vec<u8>,
    ended: bool,
}

impl<S> Chunked<S> {
    /// For a body of an answer with the header `Transfer-Encoding: chunked`.
    pub fn new(body: S, announced: Vec<header::HeaderName>) -> Self {
        Self { body, announced, data: None, begun: false, fields: Vec::new(), ended: false }
    }

    fn keep(&mut self, trailers: &HeaderMap) {
        for (name, value) in trailers.iter().filter(|(name, _)| self.announced.contains(name)) {
            for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
                self.fields.extend_from_slice(part);
            }
        }
    }

    /// The end of the chunk before, and what comes then.
    fn next(&mut self, rest: &[&[u8]]) -> Bytes {
        let begun = std::mem::replace(&mut self.begun, true);
        let before: &[u8] = if begun { b"\r\n" } else { b"" };
        let mut text = before.to_vec();
        rest.iter().for_each(|part| text.extend_from_slice(part));
        text.into()
    }
}

impl<S: Stream<Item = BodyPiece> + Unpin> Stream for Chunked<S> {
    type Item = Piece;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Piece>> {
        let this = &mut *self;
        if let Some(data) = this.data.take() {
            return Poll::Ready(Some(Ok(data)));
        }
        while !this.ended {
            match std::task::ready!(Pin::new(&mut this.body).poll_next(context)) {
                Some(Ok(frame)) => match frame.into_data().map_err(Frame::into_trailers) {
                    // A chunk of none would be the last one.
                    Ok(data) if data.is_empty() => {}
                    Ok(data) => {
                        let mut head = Vec::new();
                        let _ = write!(head, "{:x}\r\n", data.len());
                        this.data = Some(data);
                        return Poll::Ready(Some(Ok(this.next(&[&head]))));
                    }
                    Err(Ok(trailers)) => this.keep(&trailers),
                    Err(Err(_)) => {}
                },
                Some(Err(broken)) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(broken)));
                }
                None => {
                    this.ended = true;
                    let fields = std::mem::take(&mut this.fields);
                    return Poll::Ready(Some(Ok(this.next(&[b"0\r\n", &fields, b"\r\n"]))));
                }
            }
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;
    use futures_util::{StreamExt, stream};

    use super::*;
    use crate::runtime::exchange::BrokenOff;

    fn headers(of: &[(&'static str, &'static str)]) -> HeaderMap {
        of.iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), http::HeaderValue::from_static(value)))
            .collect()
    }

    async fn written(pieces: Vec<BodyPiece>) -> Result<String, BrokenOff> {
        let names = announced(StatusCode::OK, &headers(&[("trailer", "X-Sum, content-type, x-other")]));
        let pieces: Vec<Piece> = Chunked::new(stream::iter(pieces), names).collect().await;
        let bytes: Vec<u8> = pieces.into_iter().collect::<Result<Vec<_>, _>>()?.concat();
        Ok(String::from_utf8(bytes).expect("text"))
    }

    #[tokio::test]
    async fn what_was_announced_stands_behind_the_chunks() {
        let data = |text: &'static str| Ok(Frame::data(Bytes::from_static(text.as_bytes())));
        let trailers = || {
            let fields = [("x-sum", "7"), ("x-sum", "8"), ("x-silent", "9"), ("content-type", "text/x-evil")];
            Ok(Frame::trailers(headers(&fields)))
        };
        assert_eq!(
            written(vec![data("Ada"), data(""), data(" and Grace Hopper"), trailers()]).await.expect("whole"),
            "3\r\nAda\r\n11\r\n and Grace Hopper\r\n0\r\nx-sum: 7\r\nx-sum: 8\r\n\r\n"
        );
        assert_eq!(written(vec![trailers()]).await.expect("whole"), "0\r\nx-sum: 7\r\nx-sum: 8\r\n\r\n");
        assert_eq!(written(vec![]).await.expect("whole"), "0\r\n\r\n");
        assert!(written(vec![data("Ada"), Err(BrokenOff)]).await.is_err());
    }

    #[test]
    fn trailers_are_taken_only_where_they_can_be_written() {
        let asked = |request: TestRequest, te| taken(&request.insert_header(("TE", te)).to_http_request());
        assert!(asked(TestRequest::get(), "gzip, Trailers"));
        assert!(!asked(TestRequest::get(), "gzip"));
        assert!(!asked(TestRequest::get().version(Version::HTTP_10), "trailers"));
        assert!(!asked(TestRequest::get().version(Version::HTTP_2), "trailers"));
        assert!(!asked(TestRequest::with_uri("/").method(actix_web::http::Method::HEAD), "trailers"));
        let some = headers(&[("trailer", "x-sum")]);
        assert_eq!(announced(StatusCode::OK, &some), ["x-sum"]);
        assert!(announced(StatusCode::NO_CONTENT, &some).is_empty());
        assert!(announced(StatusCode::OK, &headers(&[("trailer", "x-sum"), ("content-length", "5")])).is_empty());
    }
}
