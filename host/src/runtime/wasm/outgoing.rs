//! Requests that a guest makes (`wasi:http/outgoing-handler`).
//!
//! One may go to the hosts that its package asks for and the server grants. The name is resolved here, once, and only
//! an address that was looked at is connected to: so neither a name that leads to this machine or its networks nor one
//! that changes on the way gets further than its own name would. Redirects are answers like any other: a guest that
//! follows one makes a new request. What is refused, the guest is told.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use http::{Request, Response, Uri, header, uri::Scheme};
use http_body_util::BodyExt;
use hyper::client::conn::http1;
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    sync::Semaphore,
    time::timeout,
};
use tokio_rustls::TlsConnector;
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody, WasiHttpHooks, io::TokioIo};

use super::reach::Allowed;
use crate::function::network::{own_port, plain_host};

/// How many connections a call may have at once.
const CONNECTIONS: usize = 32;
/// How long a connection may take to be made, and an answer to begin, where the guest does not say; its call's deadline
/// ends it in any case.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a call may send.
#[derive(Debug)]
pub(super) struct Outgoing {
    allowed: Option<(Arc<Allowed>, Arc<Semaphore>)>,
}

type Driving = Box<dyn Future<Output = Result<(), Error>> + Send>;
type Sent = Result<(Response<WasiBody>, Driving), Error>;

impl Outgoing {
    /// Of a call that may reach that; none: nothing.
    pub(super) fn new(allowed: Option<Arc<Allowed>>) -> Self {
        Self { allowed: allowed.map(|allowed| (allowed, Arc::new(Semaphore::new(CONNECTIONS)))) }
    }
}

impl WasiHttpHooks for Outgoing {
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Driving,
    ) -> Box<dyn Future<Output = Sent> + Send> {
        let allowed = self.allowed.clone();
        Box::new(async move {
            let Some((allowed, connections)) = allowed else { return Err(Error::HttpRequestDenied) };
            let Ok(place) = connections.try_acquire_owned() else { return Err(Error::ConnectionLimitReached) };
            let (response, driving) = send(request, options.unwrap_or_default(), &allowed).await?;
            let driving: Driving = Box::new(async move {
                let _place = place;
                driving.await
            });
            Ok((response, driving))
        })
    }
}

/// Where a request goes.
struct Target {
    secure: bool,
    host: String,
    port: u16,
}

impl Target {
    fn of(uri: &Uri) -> Result<Self, Error> {
        let secure = uri.scheme() == Some(&Scheme::HTTPS);
        // A name and password in front of the host would be sent on in the header `Host`.
        if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) {
            return Err(Error::HttpRequestUriInvalid);
        }
        let host = uri.host().map(plain_host).filter(|host| !host.is_empty()).ok_or(Error::HttpRequestUriInvalid)?;
        Ok(Self { secure, host, port: uri.port_u16().unwrap_or_else(|| own_port(secure)) })
    }
}

async fn send(
    mut request: Request<WasiBody>,
    options: RequestOptions,
    allowed: &Allowed,
) -> Result<(Response<WasiBody>, impl Future<Output = Result<(), Error>> + Send + use<>), Error> {
    let target = Target::of(request.uri())?;
    if !allowed.host(target.secure, &target.host, target.port) {
        return Err(Error::HttpRequestDenied);
    }
    let connecting = connect(&target, allowed);
    let stream = timeout(options.connect_timeout.unwrap_or(PATIENCE), connecting).await;
    let stream = stream.map_err(|_| Error::ConnectionTimeout)??;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(of_http)?;
    // Only a proxy would be asked with the whole address.
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    *request.uri_mut() = path.parse().map_err(|_| Error::HttpRequestUriInvalid)?;
    // One connection a request: the next one may go elsewhere.
    request.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    let mut connection = Box::pin(connection);
    let sending = timeout(options.first_byte_timeout.unwrap_or(PATIENCE), sender.send_request(request));
    let mut sending = std::pin::pin!(sending);
    let mut ended = None;
    let response = loop {
        tokio::select! {
            biased;
            answer = &mut sending => break answer.map_err(|_| Error::ConnectionReadTimeout)?.map_err(of_http)?,
            end = &mut connection, if ended.is_none() => ended = Some(end),
        }
    };
    let body = response.map(|body| body.map_err(of_http).boxed_unsync());
    let driving = async move {
        match ended {
            Some(end) => end.map_err(of_http),
            None => connection.await.map_err(of_http),
        }
    };
    Ok((body, driving))
}

/// A stream that requests go over.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

async fn connect(target: &Target, allowed: &Allowed) -> Result<Box<dyn Stream>, Error> {
    let stream = connect_to(&addresses(target, allowed).await?).await?;
    if !target.secure {
        return Ok(Box::new(stream));
    }
    let name = match target.host.parse::<IpAddr>() {
        Ok(address) => ServerName::from(address),
        Err(_) => ServerName::try_from(target.host.clone()).map_err(|_| Error::HttpRequestUriInvalid)?,
    };
    let connector = TlsConnector::from(allowed.offers.tls.clone());
    Ok(Box::new(connector.connect(name, stream).await.map_err(|error| of_tls(&error))?))
}

/// The addresses of a host that may be connected to.
async fn addresses(target: &Target, allowed: &Allowed) -> Result<Vec<SocketAddr>, Error> {
    let found: Vec<SocketAddr> = match target.host.parse::<IpAddr>() {
        Ok(address) => vec![SocketAddr::new(address, target.port)],
        Err(_) => {
            let found = tokio::net::lookup_host((target.host.as_str(), target.port)).await;
            found.map_err(|error| Error::DnsError { rcode: Some(error.to_string()), info_code: None })?.collect()
        }
    };
    let usable: Vec<_> = found.iter().copied().filter(|address| allowed.address(address.ip())).collect();
    match (found.is_empty(), usable.is_empty()) {
        (true, _) => Err(Error::DestinationNotFound),
        (false, true) => Err(Error::DestinationIpProhibited),
        (false, false) => Ok(usable),
    }
}

async fn connect_to(addresses: &[SocketAddr]) -> Result<TcpStream, Error> {
    let mut failed = io::Error::other("no address");
    for address in addresses {
        match TcpStream::connect(address).await {
            Ok(stream) => return Ok(stream),
            Err(error) => failed = error,
        }
    }
    Err(of_connection(&failed))
}

/// What a guest is told of a connection that could not be made.
fn of_connection(error: &io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::TimedOut => Error::ConnectionTimeout,
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => Error::DestinationUnavailable,
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted => Error::ConnectionTerminated,
        _ => Error::ConnectionRefused,
    }
}

/// What it is told of a handshake that failed.
fn of_tls(error: &io::Error) -> Error {
    match error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(_)) => Error::TlsCertificateError,
        Some(rustls::Error::AlertReceived(alert)) => {
            Error::TlsAlertReceived { alert_id: Some(u8::from(*alert)), alert_message: Some(format!("{alert:?}")) }
        }
        Some(_) => Error::TlsProtocolError,
        None => Error::ConnectionTerminated,
    }
}

/// What it is told of a request or an answer that broke off.
fn of_http(error: hyper::Error) -> Error {
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        Error::HttpResponseIncomplete
    } else if error.is_parse_too_large() {
        Error::HttpResponseHeaderSectionSize(None)
    } else {
        Error::HttpProtocolError
    }
}
