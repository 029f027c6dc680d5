//! The bench's echo for `wasmtime serve`: checks that the body is JSON, gives it back as it stands, and
//! prints one line. The same work as the example `echo` does here.

use serde_json::value::RawValue;
use wasip2::http::types::{Fields, IncomingRequest, OutgoingBody, OutgoingResponse, ResponseOutparam};

wasip2::http::proxy::export!(Echo);

struct Echo;

impl wasip2::exports::http::incoming_handler::Guest for Echo {
    fn handle(request: IncomingRequest, answer: ResponseOutparam) {
        let body = read(&request);
        let json = serde_json::from_slice::<&RawValue>(&body);
        println!("{} bytes", body.len());
        let headers = Fields::new();
        headers.append("content-type", b"application/json").expect("a header");
        let response = OutgoingResponse::new(headers);
        response.set_status_code(if json.is_ok() { 200 } else { 400 }).expect("a status");
        let out = response.body().expect("a body");
        ResponseOutparam::set(answer, Ok(response));
        let stream = out.write().expect("a stream");
        stream.blocking_write_and_flush(json.map_or("not JSON", RawValue::get).as_bytes()).expect("it is read");
        drop(stream);
        OutgoingBody::finish(out, None).expect("it is read");
    }
}

fn read(request: &IncomingRequest) -> Vec<u8> {
    let body = request.consume().expect("a body");
    let stream = body.stream().expect("a stream");
    let mut bytes = Vec::new();
    while let Ok(part) = stream.blocking_read(64 * 1024) {
        bytes.extend(part);
    }
    bytes
}
