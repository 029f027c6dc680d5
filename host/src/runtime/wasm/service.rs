//! Calling handlers of HTTP of WASI 0.3 (`wasi:http/handler`).
//!
//! One gives its answer when it returns, and goes on with the answer's body. So its store is kept going until the body has
//! ended, and ends with that: what a guest does beside it is dropped then.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http::{Request, Uri, header, uri::Scheme};
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt;
use tokio::sync::oneshot;
use wasmtime::Store;
use wasmtime_wasi_http::{Error, WasiHttpView, p2::body::HyperOutgoingBody, p3, p3::bindings::ServicePre};

use super::{
    Guest,
    http::{Given, answered_with},
};

/// Has a handler answer, and comes back when the answer's body has ended. Where nobody wants more of it, that does not
/// come: whoever gives it up ends the call.
pub(super) async fn handle<B>(
    service: &ServicePre<Guest>,
    secure: bool,
    request: Request<B>,
    answer: oneshot::Sender<Given>,
    store: &mut Store<Guest>,
) -> Result<(), wasmtime::Error>
where
    B: Body<Data = Bytes, Error = Error> + Send + 'static,
{
    let request = whole_uri(secure, request)?;
    let http = store.data_mut().http();
    let (request, received) = p3::Request::from_http(http.hooks, request);
    let request = http.table.push(request)?;
    let service = service.instantiate_async(&mut *store).await?;
    // Not beside others: so one that waits for what never comes is found out.
    let (given,) = service.wasi_http_handler().func_handle().call_async(&mut *store, (request,)).await?;
    let response = match given {
        Ok(response) => store.data_mut().http().table.delete(response)?,
        Err(error) => {
            // Who waits for it may be gone.
            drop(answer.send(Err(answered_with(&error))));
            return Ok(());
        }
    };
    let response = response.into_http(&mut *store, received)?;
    let (end, ended) = oneshot::channel();
    let sent = response.map(|body| Sent { body, end: Some(end) }.boxed_unsync());
    // Who waits for it may be gone.
    drop(answer.send(Ok(sent)));
    let until_ended = async |_: &_| match ended.await {
        Ok(()) => (),
        Err(_) => std::future::pending().await,
    };
    store.run_concurrent(until_ended).await
}

/// The request with who is asked in its URI, as WASI 0.3 tells it to guests; what came has that in a header.
fn whole_uri<B>(secure: bool, mut request: Request<B>) -> Result<Request<B>, wasmtime::Error> {
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    parts.scheme = Some(if secure { Scheme::HTTPS } else { Scheme::HTTP });
    if parts.authority.is_none() {
        let host = request.headers().get(header::HOST);
        parts.authority = host.map(|host| host.as_bytes().try_into()).transpose()?;
    }
    *request.uri_mut() = Uri::from_parts(parts)?;
    Ok(request)
}

/// A body that tells when it has ended, well or not.
struct Sent {
    body: HyperOutgoingBody,
    end: Option<oneshot::Sender<()>>,
}

impl Body for Sent {
    type Data = Bytes;
    type Error = Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Error>>> {
        let next = Pin::new(&mut self.body).poll_frame(context);
        if let Poll::Ready(None | Some(Err(_))) = &next
            && let Some(end) = self.end.take()
        {
            // A guest that is gone needs no telling.
            let _ = end.send(());
        }
        next
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
