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

/// A call of a function of lane `bench`, and the status that it must be answered with.
pub struct Request<'a> {
    pub function: &'a str,
    pub payload: &'a str,
    pub status: u16,
}

impl Client {
    pub fn connect(address: &str) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(60)))?;
        Ok(Self { stream, host: address.to_owned() })
    }

    /// Calls a function, which must succeed; how long that took.
    #[allow(dead_code, reason = "not every measurement asks")]
    pub fn call(&mut self, function: &str) -> Result<Duration, Failure> {
        self.send(&Request { function, payload: "{}", status: 200 })
    }

    /// Makes a call; how long that took.
    pub fn send(&mut self, request: &Request<'_>) -> Result<Duration, Failure> {
        let Request { function, payload, status } = request;
        let text = format!(
            "POST /api/function/runfunction?functionName={function}&lane=bench HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\n\r\n{payload}",
            self.host,
            payload.len()
        );
        let started = Instant::now();
        self.stream.write_all(text.as_bytes())?;
        let mut answer = Vec::new();
        let mut part = [0; 16 * 1024];
        loop {
            let read = self.stream.read(&mut part)?;
            if read == 0 {
                return Err("the server closed the connection".into());
            }
            answer.extend_from_slice(part.get(..read).unwrap_or_default());
            if is_whole(&answer, *status)? {
                return Ok(started.elapsed());
            }
        }
    }
}

/// Whether all of an answer is there; an error where its status is another.
fn is_whole(answer: &[u8], status: u16) -> Result<bool, Failure> {
    let Some(end) = answer.windows(4).position(|part| part == b"\r\n\r\n") else { return Ok(false) };
    let head = String::from_utf8_lossy(answer.get(..end).unwrap_or_default());
    if !head.starts_with(&format!("HTTP/1.1 {status}")) {
        return Err(String::from_utf8_lossy(answer).into());
    }
    let length = head.lines().find_map(|line| {
        let line = line.to_ascii_lowercase();
        line.strip_prefix("content-length: ")?.parse::<usize>().ok()
    });
    Ok(end + 4 + length.ok_or("an answer without a length")? <= answer.len())
}
