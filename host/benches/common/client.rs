//! A client that adds next to nothing to what it measures: one connection, one request after the other.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{Duration, Instant},
};

use super::common::Failure;

pub struct Client {
    stream: TcpStream,
    host: String,
}

impl Client {
    pub fn connect(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream, host: address.to_owned() })
    }

    /// Calls a function of lane `bench`, which must succeed; how long that took.
    pub fn call(&mut self, function: &str) -> Result<Duration, Failure> {
        let request = format!(
            "POST /api/function/runfunction?functionName={function}&lane=bench HTTP/1.1\r\nHost: {}\r\nContent-Length: 2\r\n\r\n{{}}",
            self.host
        );
        let started = Instant::now();
        self.stream.write_all(request.as_bytes())?;
        let mut answer = Vec::new();
        let mut part = [0; 16 * 1024];
        loop {
            let read = self.stream.read(&mut part)?;
            if read == 0 {
                return Err("the server closed the connection".into());
            }
            answer.extend_from_slice(part.get(..read).unwrap_or_default());
            if is_whole(&answer)? {
                return Ok(started.elapsed());
            }
        }
    }
}

/// Whether all of an answer is there; an error where it is not 200.
fn is_whole(answer: &[u8]) -> Result<bool, Failure> {
    let text = String::from_utf8_lossy(answer);
    let Some((head, body)) = text.split_once("\r\n\r\n") else { return Ok(false) };
    if !head.starts_with("HTTP/1.1 200") {
        return Err(text.into());
    }
    let length = head.lines().find_map(|line| {
        let line = line.to_ascii_lowercase();
        line.strip_prefix("content-length: ")?.parse::<usize>().ok()
    });
    Ok(length.ok_or("an answer without a length")? <= body.len())
}
