//! A connection whose bytes are looked at as the web server reads them, for what it doesn't tell of.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::api::Followed;

/// Passes everything on, both ways, unchanged.
#[derive(Debug)]
pub struct FollowedIo<T> {
    io: T,
    /// Of HTTP/1.1 alone.
    followed: Option<Followed>,
}

impl<T> FollowedIo<T> {
    /// One that is looked at where it is for HTTP/1.1.
    pub fn new(io: T, is_http_1: bool) -> Self {
        Self { io, followed: is_http_1.then(Followed::default) }
    }

    /// The connection itself.
    pub fn io(&self) -> &T {
        &self.io
    }

    /// What is seen of it.
    pub fn followed(&self) -> Option<&Followed> {
        self.followed.as_ref()
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for FollowedIo<T> {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = into.filled().len();
        let read = Pin::new(&mut this.io).poll_read(context, into);
        if let (Some(followed), Some(bytes)) = (&this.followed, into.filled().get(before..)) {
            followed.read(bytes);
        }
        read
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for FollowedIo<T> {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write(context, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().io).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().io).poll_write_vectored(context, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }
}
