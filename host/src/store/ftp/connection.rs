//! One control connection: every command under the time limit.
//!
//! A step that times out, or whose future is dropped, leaves the protocol in an uncertain state; the
//! connection is then dropped, which closes its sockets, and never used again.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use suppaftp::{
    FtpError, FtpResult, Mode, Status, list,
    tokio::{AsyncRustlsFtpStream, AsyncRustlsStream, TransferStream},
    types::FileType,
};
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    task::coop,
};

use super::{
    fault::{Fault, Refusal},
    tls::Tls,
};
use crate::{
    config::{FtpUrl, Secret},
    store::StoreError,
};

/// How much is read or written at once, in bytes.
const CHUNK: usize = 64 * 1024;
/// How much the kernel may hold of an upload, in bytes: what it holds at the end must pass within one
/// time limit.
const SEND_BUFFER: u32 = 256 * 1024;
/// The longest listing that is read, in bytes: some 800,000 versions of a function.
const MAX_LISTING_BYTES: usize = 32 * 1024 * 1024;
/// What pure-ftpd cuts a listing off at unless it is told otherwise, saying so in words alone.
const CUT_LISTING: usize = 10_000;

/// Where the server is and how to get in.
#[derive(Debug)]
pub(super) struct Endpoint {
    pub(super) url: FtpUrl,
    pub(super) password: Option<Secret>,
    pub(super) tls: Option<Tls>,
    /// How long each step may take.
    pub(super) limit: Duration,
    /// Whether a plain connection may leave this machine.
    pub(super) insecure: bool,
    /// Whether the server was seen to have no EPSV (RFC 2428).
    pub(super) no_epsv: Arc<AtomicBool>,
}

/// A logged-in control connection in binary mode.
pub(super) struct Connection {
    ftp: AsyncRustlsFtpStream,
    limit: Duration,
    no_epsv: Arc<AtomicBool>,
}

type Transfer = TransferStream<AsyncRustlsStream>;

/// Gives `step` its time.
///
/// suppaftp writes a command and does not flush. With TLS what is written waits in a buffer when the socket can't
/// take it, which tokio says, too, when the task has used up its budget: the command would never leave,
/// and the answer never come. So the budget is asked for before, and not within a step.
async fn within<T>(limit: Duration, step: &str, work: impl Future<Output = FtpResult<T>>) -> Result<T, Fault> {
    coop::consume_budget().await;
    match tokio::time::timeout(limit, coop::unconstrained(work)).await {
        Ok(result) => result.map_err(|error| Fault::new(step, error)),
        Err(_) => Err(slow(limit, step)),
    }
}

fn slow(limit: Duration, step: &str) -> Fault {
    Fault::Slow(format!("{step}: no answer in {} s", limit.as_secs()))
}

impl Endpoint {
    /// Connects and logs in.
    pub(super) async fn connect(&self) -> Result<Connection, Fault> {
        let newer = || self.tls.as_ref().is_some_and(Tls::is_newer);
        let before = newer();
        match self.dial().await {
            Err(Fault::Lost(_)) if newer() != before => self.dial().await,
            result => result,
        }
    }

    async fn dial(&self) -> Result<Connection, Fault> {
        let step = format!("connect to {}:{}", self.url.host, self.url.port);
        let tcp = within(self.limit, &step, async {
            TcpStream::connect((self.url.host.as_str(), self.url.port)).await.map_err(FtpError::ConnectionError)
        })
        .await?;
        let peer = tcp.peer_addr().map_err(|error| Fault::Lost(format!("{step}: {error}")))?.ip();
        if self.tls.is_none() && !self.insecure && !peer.to_canonical().is_loopback() {
            // What 'localhost' resolves to is not up to us.
            return Err(Fault::Final(StoreError::Unusable(format!("{step}: {peer} is not this machine"))));
        }
        // Commands are small and wait for their answers. It is slower without, not wrong.
        let _ = tcp.set_nodelay(true);
        let ftp = within(self.limit, &step, AsyncRustlsFtpStream::connect_with_stream(tcp)).await.map_err(busy)?;
        let mut ftp = ftp.passive_stream_builder(move |address| Box::pin(connect_data(peer, address.port())));
        if let Some(tls) = &self.tls {
            ftp = self.secure(tls, ftp, &format!("{step} by TLS")).await?;
        }
        self.login(&mut ftp).await?;
        within(self.limit, "TYPE I", ftp.transfer_type(FileType::Binary)).await?;
        Ok(Connection { ftp, limit: self.limit, no_epsv: self.no_epsv.clone() })
    }

    async fn secure(&self, tls: &Tls, ftp: AsyncRustlsFtpStream, step: &str) -> Result<AsyncRustlsFtpStream, Fault> {
        // Commands follow the handshake.
        let secured = coop::unconstrained(ftp.into_secure(tls.connector(), &self.url.host));
        match tokio::time::timeout(self.limit, secured).await {
            Err(_) => Err(slow(self.limit, step)),
            Ok(result) => result.map_err(|error| {
                if matches!(&error, FtpError::SecureError(text) if text.contains("ProtocolVersion")) {
                    tls.speak_newer();
                }
                Fault::new(step, error)
            }),
        }
    }

    async fn login(&self, ftp: &mut AsyncRustlsFtpStream) -> Result<(), Fault> {
        let user = self.url.user.as_str();
        let password = self.password.as_ref().map_or("", Secret::expose);
        within(self.limit, &format!("log in as {user}"), ftp.login(user, password)).await
    }
}

/// A server that greets with a refusal has too many connections; later it may have fewer.
fn busy(fault: Fault) -> Fault {
    match fault {
        Fault::Refused(refusal) => Fault::Lost(refusal.text()),
        other => other,
    }
}

/// Connects to the control connection's peer, whatever address the server's PASV gave: another one
/// would let a server point us at hosts that only we can reach.
async fn connect_data(peer: IpAddr, port: u16) -> FtpResult<TcpStream> {
    let connect = async {
        let socket = if peer.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_send_buffer_size(SEND_BUFFER)?;
        socket.connect(SocketAddr::new(peer, port)).await
    };
    connect.await.map_err(FtpError::ConnectionError)
}

/// `Ok(None)` when the server says no, which is what the caller asks about.
fn answered<T>(result: Result<T, Fault>) -> Result<Option<T>, Fault> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(Fault::Refused(_)) => Ok(None),
        Err(other) => Err(other),
    }
}

impl Connection {
    /// Whether the server still answers.
    pub(super) async fn noop(&mut self) -> Result<(), Fault> {
        within(self.limit, "NOOP", self.ftp.noop()).await
    }

    /// Makes a folder; the refusal when the server won't, as for one that is there.
    pub(super) async fn make_folder(&mut self, path: &str) -> Result<Result<(), Refusal>, Fault> {
        refusable(within(self.limit, &format!("MKD {path}"), self.ftp.mkdir(path)).await)
    }

    /// Whether there is a folder with this path.
    pub(super) async fn is_folder(&mut self, path: &str) -> Result<bool, Fault> {
        // The one question that every server answers alike. All paths are absolute, so it does no harm.
        let there = answered(within(self.limit, &format!("CWD {path}"), self.ftp.cwd(path)).await)?.is_some();
        if there {
            // Some can't remove or rename the folder they are in.
            answered(within(self.limit, "CWD /", self.ftp.cwd("/")).await)?;
        }
        Ok(there)
    }

    /// Makes a folder and those above it.
    pub(super) async fn make_folders(&mut self, path: &str) -> Result<(), Fault> {
        let mut refusal = match self.make_folder(path).await? {
            Ok(()) => return Ok(()),
            Err(refusal) => refusal,
        };
        if self.is_folder(path).await? {
            return Ok(());
        }
        let above = path.match_indices('/').map(|(at, _)| at).skip(1).filter_map(|at| path.get(..at));
        for folder in above.chain([path]) {
            // Refused for those that are there; whether it worked is seen at the end.
            if let Err(no) = self.make_folder(folder).await? {
                refusal = no;
            }
        }
        if self.is_folder(path).await? { Ok(()) } else { Err(Fault::Refused(refusal)) }
    }

    /// Renames a file or folder; the refusal when the server won't.
    pub(super) async fn rename(&mut self, from: &str, to: &str) -> Result<Result<(), Refusal>, Fault> {
        refusable(within(self.limit, &format!("rename {from} to {to}"), self.ftp.rename(from, to)).await)
    }

    /// Removes a file; whether it did.
    pub(super) async fn remove_file(&mut self, path: &str) -> Result<bool, Fault> {
        Ok(answered(within(self.limit, &format!("DELE {path}"), self.ftp.rm(path)).await)?.is_some())
    }

    /// Removes an empty folder; the refusal when the server won't.
    pub(super) async fn remove_folder(&mut self, path: &str) -> Result<Result<(), Refusal>, Fault> {
        refusable(within(self.limit, &format!("RMD {path}"), self.ftp.rmdir(path)).await)
    }

    /// The size of the file `name` in `folder`, in bytes.
    pub(super) async fn size(&mut self, folder: &str, name: &str) -> Result<Option<u64>, Fault> {
        let path = format!("{folder}/{name}");
        if let Some(size) = answered(within(self.limit, &format!("SIZE {path}"), self.ftp.size(&path)).await)? {
            return Ok(Some(size as u64));
        }
        // A server without SIZE (RFC 3659) has it in its listing.
        let lines = self.listing("LIST", folder).await?;
        let file = lines.iter().filter_map(|line| list::File::try_from(line).ok()).find(|file| file.name() == name);
        Ok(file.map(|file| file.size() as u64))
    }

    /// The names in a folder; none when it is not there. They are the server's, and hostile.
    pub(super) async fn names(&mut self, folder: &str) -> Result<Vec<String>, Fault> {
        let mut names = self.listing("NLST", folder).await?;
        if names.len() == CUT_LISTING {
            tracing::warn!(folder, "a listing has exactly {CUT_LISTING} names: start pure-ftpd with a higher -L");
        }
        for name in &mut names {
            // Some servers give each name with the path that was asked for.
            if let Some(at) = name.rfind('/') {
                name.drain(..=at);
            }
        }
        Ok(names)
    }

    async fn listing(&mut self, verb: &str, folder: &str) -> Result<Vec<String>, Fault> {
        let mut bytes = Vec::new();
        match self.download(verb, folder, MAX_LISTING_BYTES as u64, Sink::Memory(&mut bytes)).await {
            Ok(_) => {}
            // For an empty folder vsftpd and pure-ftpd answer 226, proftpd 450; for a missing one they
            // answer 226, 550 and 450.
            Err(Fault::Refused(refusal)) if refusal.is_missing() && bytes.is_empty() => {}
            Err(other) => return Err(other),
        }
        Ok(String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect())
    }

    /// The bytes of a small file; `None` when it is not there.
    pub(super) async fn read(&mut self, path: &str, max: usize) -> Result<Option<Vec<u8>>, Fault> {
        let mut bytes = Vec::new();
        match self.download("RETR", path, max as u64, Sink::Memory(&mut bytes)).await {
            Ok(_) => Ok(Some(bytes)),
            Err(Fault::Refused(refusal)) if refusal.is_missing() => Ok(None),
            Err(other) => Err(other),
        }
    }

    /// Downloads into `sink` at most `max` bytes, more being an error, and gives how many they were.
    pub(super) async fn download(
        &mut self,
        verb: &str,
        path: &str,
        max: u64,
        mut sink: Sink<'_>,
    ) -> Result<u64, Fault> {
        let step = format!("{verb} {path}");
        let mut data = self.open(&step, Direction::Down).await?;
        let mut chunk = vec![0; CHUNK];
        let mut total: u64 = 0;
        loop {
            let read = async { data.read(&mut chunk).await.map_err(FtpError::ConnectionError) };
            let count = match within(self.limit, &step, read).await {
                Err(lost) if lost.is_lost() => return Err(self.reason(&step, data, lost).await),
                result => result?,
            };
            let Some(bytes) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            total = total.saturating_add(count as u64);
            if total > max {
                return Err(Fault::Final(StoreError::Damaged(format!("{path}: it has more than {max} bytes"))));
            }
            match &mut sink {
                Sink::Memory(to) => to.extend_from_slice(bytes),
                Sink::File(to) => to.write_all(bytes).await?,
            }
        }
        within(self.limit, &step, data.finish()).await?;
        if let Sink::File(to) = sink {
            to.flush().await?;
        }
        Ok(total)
    }

    /// Uploads everything that `source` gives, and says how many bytes that were.
    pub(super) async fn upload(&mut self, path: &str, mut source: Source<'_>) -> Result<u64, Fault> {
        let step = format!("STOR {path}");
        let mut data = self.open(&step, Direction::Up).await?;
        let mut chunk = vec![0; CHUNK];
        let mut total: u64 = 0;
        loop {
            let count = match &mut source {
                Source::Memory(from) => from.read(&mut chunk).await?,
                Source::File(from) => from.read(&mut chunk).await?,
            };
            let Some(mut rest) = chunk.get(..count).filter(|bytes| !bytes.is_empty()) else { break };
            total = total.saturating_add(count as u64);
            while !rest.is_empty() {
                let write = async { data.write(rest).await.map_err(FtpError::ConnectionError) };
                match within(self.limit, &step, write).await {
                    Ok(0) => return Err(Fault::Lost(format!("{step}: the data connection was closed"))),
                    Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                    Err(lost) if lost.is_lost() => return Err(self.reason(&step, data, lost).await),
                    Err(other) => return Err(other),
                }
            }
        }
        within(self.limit, &step, data.finish()).await?;
        Ok(total)
    }

    /// Why a data connection broke: a server whose disk is full, for one, resets it, and says why on the
    /// control connection. Where that says that all is well, it is not: TLS did not see the end.
    async fn reason(&self, step: &str, data: Transfer, lost: Fault) -> Fault {
        within(self.limit, step, data.finish()).await.err().unwrap_or(lost)
    }

    /// Opens a data connection, by EPSV unless the server has none.
    async fn open(&mut self, command: &str, direction: Direction) -> Result<Transfer, Fault> {
        if !self.no_epsv.load(Ordering::Relaxed) {
            self.ftp.set_mode(Mode::ExtendedPassive);
            match self.begin(command, direction).await {
                Err(Fault::Refused(refusal)) if refusal.is_unknown_command() => {}
                other => return other,
            }
        }
        self.ftp.set_mode(Mode::Passive);
        let data = self.begin(command, direction).await?;
        // PASV works where EPSV did not: remembered for all connections.
        self.no_epsv.store(true, Ordering::Relaxed);
        Ok(data)
    }

    async fn begin(&mut self, command: &str, direction: Direction) -> Result<Transfer, Fault> {
        match direction {
            Direction::Down => {
                let open = self.ftp.custom_data_command(command, &[Status::AboutToSend, Status::AlreadyOpen]);
                within(self.limit, command, open).await.map(|(_, data)| data)
            }
            Direction::Up => {
                let path = command.strip_prefix("STOR ").unwrap_or(command);
                within(self.limit, command, self.ftp.put_with_stream(path)).await
            }
        }
    }
}

/// Keeps a refusal apart from what breaks the connection.
fn refusable<T>(result: Result<T, Fault>) -> Result<Result<T, Refusal>, Fault> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(Fault::Refused(refusal)) => Ok(Err(refusal)),
        Err(other) => Err(other),
    }
}

/// Which way the bytes go.
#[derive(Debug, Clone, Copy)]
enum Direction {
    Up,
    Down,
}

/// Where a download goes.
pub(super) enum Sink<'a> {
    Memory(&'a mut Vec<u8>),
    File(&'a mut File),
}

/// Where an upload comes from.
pub(super) enum Source<'a> {
    Memory(&'a [u8]),
    File(&'a mut File),
}
