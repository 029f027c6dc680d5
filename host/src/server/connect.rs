//! A new connection: counted for its address, prepared for WebSockets, and its client's certificate looked at.

use std::{any::Any, net::IpAddr};

use actix_tls::accept::rustls_0_23::TlsStream;
use actix_web::{dev::Extensions, rt::net::TcpStream};

use crate::{
    api::{ClientToken, connection},
    state::State,
};

/// Prepares a connection: for the web server, which calls it with each, after TLS where there is TLS.
pub fn on_connect(state: &State, connection: &dyn Any, data: &mut Extensions) {
    let tls = connection.downcast_ref::<TlsStream<TcpStream>>();
    let Some(stream) = connection.downcast_ref::<TcpStream>().or_else(|| Some(tls?.get_ref().0)) else { return };
    if let Some(address) = stream.peer_addr().ok().map(|address| -> IpAddr { address.ip() }) {
        match state.connections().open(address) {
            Some(counted) => drop(data.insert(counted)),
            None => {
                // The web server can't be told to close it; it reads its end at once.
                let _ = rustix::net::shutdown(stream, rustix::net::Shutdown::Both);
                return;
            }
        }
    }
    let certificates = tls.and_then(|tls| tls.get_ref().1.peer_certificates());
    if let (Some(tls), Some(certificate)) = (state.tls(), certificates.and_then(|chain| chain.first()))
        && let Some(token) = tls.token_of(certificate)
    {
        data.insert(ClientToken(token.to_owned()));
    }
    connection::on_connect(stream, data);
}
