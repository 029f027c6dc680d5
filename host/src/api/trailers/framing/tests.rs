//! Against the web server's own decoder: what it takes for a request and its body is what is followed here, however the
//! bytes come.

use actix_http::h1::{Codec, Message};
use actix_web::HttpMessage as _;
use bytes::BytesMut;
use proptest::prelude::*;
use tokio_util::codec::Decoder as _;

use super::*;

/// What is found in these pieces.
fn follow<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (u64, Vec<Section>) {
    let mut framing = Framing::default();
    pieces.into_iter().for_each(|piece| framing.read(piece));
    (framing.number, framing.sections.into())
}

/// The requests in chunks that the web server finds: the lengths of their bodies, where they end.
fn decoded(bytes: &[u8]) -> Vec<Option<u64>> {
    actix_web::rt::System::new().block_on(async {
        let (mut codec, mut bytes) = (Codec::default(), BytesMut::from(bytes));
        let mut requests = Vec::new();
        let mut body = None;
        while let Ok(Some(message)) = codec.decode(&mut bytes) {
            match message {
                Message::Item(request) if request.chunked().unwrap_or(false) => {
                    requests.push(None);
                    body = Some(0);
                }
                Message::Item(_) => body = None,
                Message::Chunk(Some(piece)) => {
                    if let Some(length) = &mut body {
                        *length += piece.len() as u64;
                    }
                }
                Message::Chunk(None) => {
                    if let (Some(last), Some(length)) = (requests.last_mut(), body.take()) {
                        *last = Some(length);
                    }
                }
            }
        }
        requests
    })
}

/// A request, and what stands behind its body, where that is in chunks.
fn request() -> impl Strategy<Value = (Vec<u8>, Option<(u64, String)>)> {
    let other = prop::sample::select(vec![
        "Accept: */*\r\n",
        "Cookie: a=b; transfer-encoding: chunked\r\n",
        "Upgrade: h2c\r\nConnection: upgrade\r\n",
        "Content-Type: text/plain\r\nTE: trailers\r\n",
        "x-long: 0123456789012345678901234567890123456789012345678901234567890123456789012345678901234567890123456789\
         012345678901234567890123456789\n",
        "Expect: 100-continue\r\n",
        "",
    ]);
    let chunk = ("[a-z\r\n]{1,20}", "(;x=y| \t;z)?", any::<bool>());
    let fields = prop::sample::select(vec!["", "x-sum: 1\r\n", "x-sum: 1\r\nX-Other:2\r\n", "Content-Length: 5\r\n"]);
    let length = prop::sample::select(vec!["Content-Length: ", "content-length:", "CONTENT-LENGTH: \t 00"]);
    let coding = prop::sample::select(vec!["Transfer-Encoding: chunked", "TRANSFER-ENCODING:Chunked \t"]);
    let chunked = (coding, prop::collection::vec(chunk, 0..4), fields).prop_map(|(coding, chunks, fields)| {
        let (mut body, mut total) = (String::new(), 0);
        for (data, extension, upper) in &chunks {
            let size = if *upper { format!("{:X}", data.len()) } else { format!("{:04x}", data.len()) };
            body += &format!("{size}{extension}\r\n{data}\r\n");
            total += data.len() as u64;
        }
        (format!("{coding}\r\n"), format!("{body}0\r\n{fields}\r\n"), Some((total, fields.replace('\r', ""))))
    });
    let sized = (length, "[a-z\r\n:]{0,40}|0\r\nx: y\r\n\r\n|POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
        .prop_map(|(length, body)| (format!("{length}{}\r\n", body.len()), body, None));
    let none = Just((String::new(), String::new(), None));
    let before = prop::sample::select(vec!["", "\r\n", "\n"]);
    (before, prop::bool::ANY, other, prop_oneof![chunked, sized, none]).prop_map(
        |(before, first, other, (length, body, behind))| {
            let headers = if first { length + other } else { other.to_owned() + &length };
            let method = if body.is_empty() { "GET" } else { "POST" };
            (format!("{before}{method} /a HTTP/1.1\r\nHost: x\r\n{headers}\r\n{body}").into_bytes(), behind)
        },
    )
}

/// Bytes cut at these places.
fn pieces<'a>(bytes: &'a [u8], cuts: &'a [prop::sample::Index]) -> impl Iterator<Item = &'a [u8]> {
    let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
    cuts.sort_unstable();
    cuts.push(bytes.len());
    let mut from = 0;
    cuts.into_iter().map(move |cut| {
        let piece = bytes.get(from..cut).expect("in order");
        from = cut;
        piece
    })
}

proptest! {
    #[test]
    fn each_request_has_what_stands_behind_it(
        requests in prop::collection::vec(request(), 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let bytes: Vec<u8> = requests.iter().flat_map(|(bytes, _)| bytes.clone()).collect();
        let chunked: Vec<_> = requests.into_iter().filter_map(|(_, behind)| behind).collect();
        let lengths: Vec<_> = chunked.iter().map(|(length, _)| Some(*length)).collect();
        prop_assert_eq!(decoded(&bytes), lengths);
        let expected: Vec<_> = (1..).zip(chunked).filter(|(_, (_, fields))| !fields.is_empty()).collect();
        let expected: Vec<_> = expected
            .into_iter()
            .map(|(number, (body, fields))| Section { number, body, fields: Some(fields.into_bytes()) })
            .collect();
        prop_assert_eq!(follow(pieces(&bytes, &cuts)).1, expected);
    }

    #[test]
    fn nothing_is_found_that_the_web_server_does_not_find(
        requests in prop::collection::vec(request(), 1..6),
        changes in prop::collection::vec((any::<prop::sample::Index>(), 0..3, prop::sample::select(
            b"\r\n :;0159afF\tzc\0\x7f\x80".to_vec(),
        )), 1..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut bytes: Vec<u8> = requests.into_iter().flat_map(|(bytes, _)| bytes).collect();
        for (at, change, byte) in changes {
            let at = at.index(bytes.len());
            match change {
                0 => drop(bytes.remove(at)),
                1 => bytes.insert(at, byte),
                _ => drop(bytes.splice(at..=at, [byte])),
            }
        }
        let (begun, found) = follow(pieces(&bytes, &cuts));
        prop_assert_eq!(follow([&bytes[..]]), (begun, found.iter().map(copy).collect()));
        let decoded = decoded(&bytes);
        for section in found {
            // Of what the web server refused and what came then, nothing is ever asked for.
            let Some(length) = decoded.get(usize::try_from(section.number).expect("few") - 1) else { break };
            prop_assert!(length.is_none_or(|length| length == section.body), "{section:?} {decoded:?}");
            if length.is_none() {
                break;
            }
        }
    }
}

fn copy(section: &Section) -> Section {
    Section { number: section.number, body: section.body, fields: section.fields.clone() }
}

fn in_chunks(behind: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nAda\r\n0\r\n{behind}\r\n")
}

#[test]
fn what_is_not_followed_has_none() {
    let chunked = in_chunks("x: y\r\n");
    for strange in [
        "GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
        "CONNECT x:1 HTTP/1.1\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: +5\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        "POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1000000000000000000\r\n",
        &format!("POST / HTTP/1.1\r\nContent-Length:{}5\r\n\r\n", " ".repeat(LINE)),
    ] {
        assert_eq!(follow([strange.as_bytes(), chunked.as_bytes()]).1, [], "{strange}");
    }
    assert_eq!(follow([chunked.as_bytes()]).1.len(), 1);
}

#[test]
fn what_is_kept_is_bounded() {
    let line = format!("x: {}\r\n", "y".repeat(FIELDS_BYTES - 4));
    let fits = |behind: &str| follow([in_chunks(behind).as_bytes()]).1[0].fields.as_ref().map(Vec::len);
    assert_eq!((fits(&line), fits(&format!("x{line}"))), (Some(FIELDS_BYTES), None));
    assert_eq!(fits(&line.repeat(100)), None);
    // More than can wait: nobody asks.
    let chunked = in_chunks("x: y\r\n");
    assert_eq!(follow(vec![chunked.as_bytes(); WAITING]).1.len(), WAITING);
    assert_eq!(follow(vec![chunked.as_bytes(); WAITING + 1]).1.len(), 0);
    let mut framing = Framing::default();
    for number in 1..=100 {
        framing.read(chunked.as_bytes());
        assert_eq!(framing.take(number).map(|section| section.number), Some(number));
    }
    framing.read(chunked.as_bytes());
    framing.read(chunked.as_bytes());
    assert_eq!(framing.take(102).map(|section| section.number), Some(102));
    assert_eq!((framing.take(101), framing.take(102)), (None, None));
}
