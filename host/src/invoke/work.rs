//! Where the whole of a call is done: first where it is asked for, then with the services.

use std::{
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};

/// The whole of a call.
pub(super) struct Work(Pin<Box<dyn Future<Output = ()> + Send>>);

impl Work {
    pub(super) fn new(work: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(Box::pin(work))
    }

    /// Does it in the task of its caller, and goes on with it on `services` when that is dropped.
    pub(super) fn attended(self, services: &tokio::runtime::Handle) -> Attended<'_> {
        Attended { services, work: Some(self) }
    }

    /// Does the first part of it on this thread, up to where it has to wait, and what is left on
    /// `services`: a short call that has all it needs never changes threads. It may hold the thread for at
    /// most an epoch's tick, when a guest yields.
    pub(super) fn start_here(self, services: &tokio::runtime::Handle) {
        // What is left of it when it is dropped goes on there.
        let _ = pin!(self.attended(services)).poll(&mut Context::from_waker(Waker::noop()));
    }
}

/// A call in the task of its caller.
pub(super) struct Attended<'a> {
    services: &'a tokio::runtime::Handle,
    /// None when it has ended.
    work: Option<Work>,
}

impl Future for Attended<'_> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Some(mut work) = self.work.take() else { return Poll::Ready(()) };
        // What it opens belongs to the services' reactor, not to that of the thread it happens to be on.
        let entered = self.services.enter();
        let polled = work.0.as_mut().poll(context);
        drop(entered);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl Drop for Attended<'_> {
    fn drop(&mut self) {
        if let Some(work) = self.work.take() {
            self.services.spawn(work.0);
        }
    }
}
