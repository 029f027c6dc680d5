//! What goes into a program and what comes out of it, as it comes.

use std::io;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::unix::pipe,
};

pub use crate::runtime::capture::Capture;
use crate::{function::Stream, runtime::console::Console};

/// How much is read at once, in bytes: what a pipe holds.
const PIECE: usize = 64 * 1024;

impl Capture {
    /// Reads what the program prints until no process has the other end open.
    pub async fn read(&self, mut from: pipe::Receiver, stream: Stream, console: &Console) {
        let mut piece = vec![0; PIECE];
        loop {
            match from.read(&mut piece).await {
                Ok(0) => return,
                Ok(count) => {
                    let bytes = piece.get(..count).unwrap_or_default();
                    console.write(stream, bytes);
                    self.take(stream, bytes);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    tracing::warn!(%error, "a program's output could not be read to its end");
                    return;
                }
            }
        }
    }
}

/// Writes the payload. A program may read it, or a part of it, or close it at once: that is its affair.
pub async fn feed(mut to: pipe::Sender, payload: &[u8]) {
    let _ = to.write_all(payload).await;
}
