//! The web server: actix-web's applications on connections that are followed ([`super::followed`]), which its own
//! `HttpServer` has no place for. All else is as there.

use std::{
    any::Any,
    io,
    net::{SocketAddr, TcpListener},
    time::Duration,
};

use actix_http::{HttpService, error::DispatchError};
use actix_server::{GracefulShutdownSignal, Server, ServerBuilder};
use actix_service::{ServiceFactory, ServiceFactoryExt as _, map_config};
use actix_tls::accept::{
    TlsError,
    rustls_0_23::{Acceptor, TlsStream, reexports::ServerConfig},
};
use actix_web::{
    App,
    body::BoxBody,
    dev::{AppConfig, Service as _, ServiceRequest, ServiceResponse},
    rt::net::TcpStream,
    web,
};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{connect, followed::FollowedIo};
use crate::{
    allocator, api,
    config::{ServerConfig as Settings, seconds},
    hub,
    state::State,
};

/// How long the other end may take to close a connection that is over.
const DISCONNECT: Duration = Duration::from_secs(1);

/// A connection with what was agreed on for it, as actix serves it.
type Connection<T> = (FollowedIo<T>, actix_http::Protocol, Option<SocketAddr>);

/// A server on this listener, which runs when it is polled.
///
/// # Errors
/// When the listener can't be used.
pub fn listen(listener: TcpListener, tls: Option<ServerConfig>, state: web::Data<State>) -> io::Result<Server> {
    let settings = state.config().server.clone();
    let mut server = ServerBuilder::new().shutdown_timeout(settings.shutdown_seconds).disable_signals();
    if let Ok(workers @ 1..) = usize::try_from(settings.workers) {
        server = server.workers(workers);
    }
    let closing = server.graceful_shutdown_signal();
    let listening = match tls {
        None => server.listen("http", listener, move || {
            actix_service::fn_service(async |io: TcpStream| {
                let peer = io.peer_addr().ok();
                Ok((FollowedIo::new(io, true), actix_http::Protocol::Http1, peer))
            })
            .and_then(http(&state, &settings, &closing))
        }),
        Some(mut tls) => {
            tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            server.listen("https", listener, move || {
                Acceptor::new(tls.clone())
                    .map_err(TlsError::into_service_error)
                    .and_then(async |io: TlsStream<TcpStream>| {
                        let is_2 = io.get_ref().1.alpn_protocol() == Some(b"h2");
                        let protocol = if is_2 { actix_http::Protocol::Http2 } else { actix_http::Protocol::Http1 };
                        let peer = io.get_ref().0.peer_addr().ok();
                        Ok((FollowedIo::new(io, !is_2), protocol, peer))
                    })
                    .and_then(http(&state, &settings, &closing).map_err(TlsError::Service))
            })
        }
    };
    Ok(listening?.run())
}

/// What serves the connections of a worker.
fn http<T: AsyncRead + AsyncWrite + Unpin + 'static>(
    state: &web::Data<State>,
    settings: &Settings,
    closing: &GracefulShutdownSignal,
) -> impl ServiceFactory<Connection<T>, Config = (), Response = (), Error = DispatchError, InitError = ()> + use<T> {
    // This is asked for once on each worker.
    allocator::keep_near();
    let (connected, closing) = (state.clone(), closing.clone());
    let app = actix_service::IntoServiceFactory::into_factory(app(state.clone()));
    HttpService::build()
        .graceful_shutdown_signal(move || {
            let closing = closing.clone();
            async move { closing.notified().await }
        })
        .client_request_timeout(seconds(settings.read_seconds))
        .client_disconnect_timeout(DISCONNECT)
        .keep_alive(seconds(settings.keep_alive_seconds))
        .on_connect_ext(move |connection: &FollowedIo<T>, data| {
            if let Some(followed) = connection.followed() {
                data.insert(followed.clone());
            }
            connect::on_connect(&connected, connection.io() as &dyn Any, data);
        })
        .finish(map_config(app.map_err(|error: actix_web::Error| error.error_response()), |()| AppConfig::default()))
}

/// What answers requests.
fn app(
    state: web::Data<State>,
) -> App<
    impl ServiceFactory<
        ServiceRequest,
        Config = (),
        Response = ServiceResponse<BoxBody>,
        Error = actix_web::Error,
        InitError = (),
    >,
> {
    App::new().app_data(state).configure(api::calls).configure(hub::routes).configure(api::routes).wrap_fn(
        |mut request, service| {
            let held = api::hold(&mut request);
            let admitted = match api::admit(&mut request) {
                Ok(admitted) => Ok((service.call(request), admitted)),
                Err(refusal) => Err(request.into_response(*refusal)),
            };
            async move {
                match admitted {
                    Ok((answer, admitted)) => {
                        answer.await.map(|response| held.with(admitted.with(api::describe(response))))
                    }
                    Err(refused) => Ok(held.with(refused)),
                }
                .inspect(|response: &ServiceResponse| api::count(response.status()))
            }
        },
    )
}
