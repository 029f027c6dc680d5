//! What goes into a program and what comes out of it, as it comes.

use std::{
    io,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::{buffer::spare_capacity, fs::OFlags, io::Errno};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
};

pub use crate::runtime::capture::Capture;
use crate::{function::Stream, runtime::console::Console};

/// How much is read at once, in bytes: what a pipe holds.
const PIECE: usize = 64 * 1024;

/// How long what is left is read for at most. It is what a pipe holds, unless a process of another's goes on.
const DRAIN: Duration = Duration::from_millis(100);

impl Capture {
    /// Reads what the program prints until nobody has the other end open.
    pub async fn read(&self, from: &mut pipe::Receiver, stream: Stream, console: &Console) {
        let mut piece = Vec::with_capacity(PIECE);
        loop {
            piece.clear();
            match from.read_buf(&mut piece).await {
                Ok(0) => return,
                Ok(_) => {
                    console.write(stream, &piece);
                    self.take(stream, &piece);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "a program's output could not be read to its end");
                    return;
                }
            }
        }
    }

    /// Reads what is left in the pipe when all who printed into it are gone.
    pub fn rest(&self, from: &pipe::Receiver, stream: Stream, console: &Console) {
        let (mut piece, began) = (Vec::with_capacity(PIECE), Instant::now());
        loop {
            piece.clear();
            match rustix::io::read(from, spare_capacity(&mut piece)) {
                Ok(1..) => {
                    console.write(stream, &piece);
                    self.take(stream, &piece);
                }
                Err(Errno::INTR) => {}
                // What could not be read was told of when it came.
                Ok(0) | Err(_) => return,
            }
            if began.elapsed() > DRAIN {
                tracing::warn!("somebody goes on printing for a program that has ended");
                return;
            }
        }
    }
}

/// What of a payload did not go into the pipe at once.
#[derive(Debug)]
pub struct Rest {
    to: pipe::Sender,
    from: usize,
}

/// Writes as much of the payload as the pipe takes, which is all of most, and closes it behind all of it. A program may
/// read it, or a part of it, or close it at once: that is its affair.
///
/// # Errors
/// When what is left can't be waited for.
pub fn begin(to: OwnedFd, payload: &[u8]) -> io::Result<Option<Rest>> {
    if payload.is_empty() {
        return Ok(None);
    }
    without_waiting(&to)?;
    let from = match rustix::io::write(&to, payload) {
        Ok(written) if written == payload.len() => return Ok(None),
        Ok(written) => written,
        Err(Errno::AGAIN | Errno::INTR) => 0,
        Err(_) => return Ok(None),
    };
    Ok(Some(Rest { to: pipe::Sender::from_owned_fd_unchecked(to)?, from }))
}

/// Writes the rest.
pub async fn feed(rest: Option<Rest>, payload: &[u8]) {
    let Some(Rest { mut to, from }) = rest else { return };
    let _ = to.write_all(payload.get(from..).unwrap_or_default()).await;
}

/// The end of a pipe that a program prints into.
///
/// # Errors
/// When it can't be waited for.
pub fn listen(from: OwnedFd) -> io::Result<pipe::Receiver> {
    without_waiting(&from)?;
    // The kernel has just made it: that it is a pipe, and its end to read, need not be asked.
    pipe::Receiver::from_owned_fd_unchecked(from)
}

fn without_waiting(end: &OwnedFd) -> io::Result<()> {
    Ok(rustix::fs::fcntl_setfl(end, OFlags::NONBLOCK)?)
}
