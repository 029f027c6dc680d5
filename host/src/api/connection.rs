//! What is done to connections: that ones which vanished end, and that ones which don't read cost little.

use std::{
    mem,
    os::fd::{AsFd as _, AsRawFd, BorrowedFd, RawFd},
    time::Duration,
};

use actix_web::{HttpRequest, dev::Extensions, rt::net::TcpStream};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    net::sockopt,
};

use crate::config::{HubConfig, seconds};

/// How long the kernel keeps a connection whose other end takes nothing: whoever vanished, or reads nothing for so
/// long, is gone (RFC 5482). Not so for listeners: the kernel may take one that reads slowly for one that reads nothing.
const USER_TIMEOUT: Duration = Duration::from_secs(60);
/// After how long a silence the kernel asks whether the other end is still there, and how long it then waits for an
/// answer; each three times. A listener to a call that prints nothing gets nothing else.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How much the kernel holds for a listener, in bytes: what it has not sent, and all there is. Left alone,
/// a client that does not read would have it keep megabytes; a small buffer alone would make every listener
/// far away slow, since what is on the way stands in it too.
const NOT_SENT: libc::c_int = 16 * 1024;
const SEND_BUFFER: usize = 192 * 1024;

/// The connection's socket, for as long as the connection serves a request.
#[derive(Debug, Clone, Copy)]
pub struct Socket(RawFd);

impl Socket {
    /// The one that the request came over.
    #[must_use]
    pub fn of(request: &HttpRequest) -> Option<Self> {
        request.conn_data::<Self>().copied()
    }

    /// Acts on the socket.
    ///
    /// # Safety
    /// The connection must still be there: a request of it is being handled, or its response's body lives.
    unsafe fn with<T>(self, act: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
        // SAFETY: as the caller promises, the connection owns the descriptor and has not closed it.
        act(unsafe { BorrowedFd::borrow_raw(self.0) })
    }

    /// Whether the client has closed its side: one that listens to a stream is gone then, and not about to ask for
    /// more.
    ///
    /// # Safety
    /// As the response's body lives.
    #[must_use]
    pub unsafe fn is_hung_up(self) -> bool {
        // SAFETY: as the caller promises.
        unsafe {
            self.with(|socket| {
                let mut asked = [PollFd::new(&socket, PollFlags::RDHUP)];
                matches!(poll(&mut asked, Some(&Timespec::default())), Ok(1..))
            })
        }
    }

    /// Whether nothing has come from the client's kernel for so long, which answers to whatever is sent and to what
    /// the kernel here asks it.
    ///
    /// # Safety
    /// As the response's body lives.
    #[must_use]
    pub unsafe fn is_silent_for(self, limit: Duration) -> bool {
        // SAFETY: numbers, for which zeros are good.
        let mut told: libc::tcp_info = unsafe { mem::zeroed() };
        let mut length = libc::socklen_t::try_from(mem::size_of_val(&told)).unwrap_or_default();
        // SAFETY: as the caller promises, the descriptor is open; the kernel writes at most as much as there is room.
        let asked = unsafe {
            libc::getsockopt(self.0, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut told).cast(), &raw mut length)
        };
        asked == 0 && Duration::from_millis(told.tcpi_last_ack_recv.into()) >= limit
    }

    /// Breaks the connection off.
    ///
    /// # Safety
    /// As the response's body lives.
    pub unsafe fn abort(self) {
        // SAFETY: as the caller promises.
        let _ = unsafe { self.with(|socket| rustix::net::shutdown(socket, rustix::net::Shutdown::Both)) };
    }
}

/// Prepares a new connection.
pub fn on_connect(stream: &TcpStream, data: &mut Extensions) {
    // Where the kernel has no such options, the hub's own time-out remains.
    let _ = sockopt::set_tcp_user_timeout(stream, milliseconds(USER_TIMEOUT));
    ask_after(stream.as_fd(), KEEP_ALIVE, 3);
    let _ = sockopt::set_socket_keepalive(stream, true);
    data.insert(Socket(stream.as_raw_fd()));
}

/// Has the kernel ask after the other end after each such silence, and give it up after so many without an answer.
fn ask_after(socket: BorrowedFd<'_>, silence: Duration, times: u32) {
    let _ = sockopt::set_tcp_keepidle(socket, silence);
    let _ = sockopt::set_tcp_keepintvl(socket, silence);
    let _ = sockopt::set_tcp_keepcnt(socket, times);
}

/// A connection whose client listens. When that is over it is one like others.
#[derive(Debug)]
pub struct Bound(Socket);

impl Drop for Bound {
    fn drop(&mut self) {
        // SAFETY: as the response's body, or what will be, has it.
        let _ = unsafe { self.0.with(|socket| sockopt::set_tcp_user_timeout(socket, milliseconds(USER_TIMEOUT))) };
    }
}

fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

/// Bounds what the kernel holds for a client that listens, and how long for one that vanished. What is given must be
/// held by the response's body, and not outlive it.
pub fn bound(request: &HttpRequest, hub: &HubConfig) -> Option<Bound> {
    let socket = Socket::of(request)?;
    // SAFETY: the request is being handled.
    let _ = unsafe {
        socket.with(|socket| {
            let times = u32::try_from(hub.timeout_seconds / hub.ping_seconds.max(1)).unwrap_or(u32::MAX);
            ask_after(socket, seconds(hub.ping_seconds), times);
            let _ = sockopt::set_tcp_user_timeout(socket, 0);
            sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER)
        })
    };
    let not_sent = NOT_SENT;
    let length = libc::socklen_t::try_from(mem::size_of_val(&not_sent)).unwrap_or_default();
    // SAFETY: the request is being handled, so the descriptor is open; the option's value is an int of the
    // length that is given, and is only read.
    let set = unsafe {
        libc::setsockopt(socket.0, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, (&raw const not_sent).cast(), length)
    };
    if set != 0 {
        // An old kernel: then the buffer is what bounds it.
        // SAFETY: the request is being handled.
        let _ = unsafe {
            socket.with(|socket| {
                sockopt::set_socket_send_buffer_size(socket, usize::try_from(NOT_SENT).unwrap_or(SEND_BUFFER))
            })
        };
    }
    Some(Bound(socket))
}
