//! A connection on which calls are made: what both dialects share.

use std::{collections::HashMap, sync::Arc};

use actix_ws::CloseCode;
use futures_util::{StreamExt, future::LocalBoxFuture, stream::FuturesUnordered};
use tokio_util::sync::CancellationToken;

use super::{
    frames::Frames,
    plain::Plain,
    signalr::{self, SignalR},
    socket::{Gone, Received, Receiver, Sender},
};
use crate::{
    api::{Caller, Problem, Services},
    config::seconds,
    database::InvocationRow,
    function::{ErrorCode, Invocation},
    invoke::{Expired, Heard, Live, Tail},
    metrics,
    runtime::console::Batch,
};

/// How much of a call's output is read in one go, in bytes.
const BYTES: usize = 8 * 1024;

/// Why a connection is closed whose token may do nothing any more.
const TOKEN_ENDED: &str = "the token has expired or was revoked";

/// The longest beginning of a handshake that is waited for, in bytes: it is read anew with each piece.
const MAX_CUT: usize = 1024;

/// How a dialect tells of one call.
pub trait Voice {
    /// Adds the messages for lines, in their order.
    fn lines(&self, batch: &Batch, to: &mut Frames);
    /// Adds the last message.
    fn ended(&self, row: &InvocationRow, to: &mut Frames);
    /// The last message of a call of which nothing is known any more.
    fn refused(&self, problem: &Problem) -> String;
}

/// Tells of a call until it has ended.
pub async fn tell(mut tail: Tail, voice: impl Voice, sender: &Sender) -> Result<(), Gone> {
    loop {
        // Until the client has taken what there is, lines stay where they are kept once for all who listen.
        sender.room().await?;
        match tail.next(BYTES).await {
            Ok(Heard { batch, end }) => {
                if batch.skipped > 0 || !batch.lines.is_empty() {
                    sender.send(|frames| voice.lines(&batch, frames)).await?;
                }
                if let Some(row) = end {
                    return sender.send(|frames| voice.ended(&row, frames)).await;
                }
            }
            Err(error @ Expired) => {
                let problem = Problem::new(ErrorCode::InvocationNotFound, error.to_string());
                return sender.text(&voice.refused(&problem)).await;
            }
        }
    }
}

/// Why a conversation ends.
#[derive(Debug)]
pub enum End {
    /// The client left.
    Left,
    /// It broke the protocol, or the server stops.
    Close(CloseCode, String),
}

impl From<Gone> for End {
    fn from(Gone: Gone) -> Self {
        Self::Left
    }
}

/// The calls of a connection.
pub struct Calls {
    /// Answers messages, and is lent to each call.
    pub sender: Sender,
    /// Runs them.
    pub services: Services,
    /// Makes them.
    pub caller: Caller,
    /// Each ends with its key.
    told: FuturesUnordered<LocalBoxFuture<'static, String>>,
    /// What cancels each, by the name that the client knows it by.
    under_way: HashMap<String, CancellationToken>,
}

impl Calls {
    /// Whether the client has a call of that name.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.under_way.contains_key(key)
    }

    /// Whether another call may be made.
    ///
    /// # Errors
    /// When there are too many on this connection or of its caller, or the server is about to stop.
    pub fn room(&self) -> Result<(), Problem> {
        self.caller.calls()?;
        let most = self.services.config().hub.calls;
        if self.services.closing().is_cancelled() {
            return Err(Problem::new(ErrorCode::AtCapacity, "the server is stopping; try again on a new connection"));
        }
        if self.under_way.len() as u64 >= most {
            let detail = format!("{most} calls are under way on this connection, and more may not be");
            return Err(Problem::new(ErrorCode::AtCapacity, detail));
        }
        Ok(())
    }

    /// Starts a call, which ends when the client leaves.
    pub fn start(&mut self, invocation: Invocation) -> Started {
        let live = self.services.invoker().start(invocation);
        Started { unless_ended: CancelUnlessEnded(live.clone()), live }
    }

    /// Tells of a call from now on.
    pub fn tell(&mut self, key: String, started: Started, voice: impl Voice + 'static) {
        let Started { live, unless_ended } = started;
        self.under_way.insert(key.clone(), live.cancel.clone());
        let tail = self.services.invoker().tail(live, 0);
        let sender = self.sender.clone();
        self.told.push(Box::pin(async move {
            // A client that is gone is noticed by the conversation.
            let _ = tell(tail, voice, &sender).await;
            drop(unless_ended);
            key
        }));
    }

    /// Cancels a call; `false` where there is none of that name.
    pub fn cancel(&self, key: &str) -> bool {
        self.under_way.get(key).inspect(|call| call.cancel()).is_some()
    }
}

/// A call that was started for this connection.
pub struct Started {
    /// The call.
    pub live: Arc<Live>,
    unless_ended: CancelUnlessEnded,
}

/// Cancels a call that has not ended when its caller goes.
struct CancelUnlessEnded(Arc<Live>);

impl Drop for CancelUnlessEnded {
    fn drop(&mut self) {
        if self.0.ended().is_none() {
            self.0.cancel.cancel();
        }
    }
}

/// What a connection speaks, as far as it is known.
enum Dialect {
    /// Nothing yet but the beginning of a message.
    Unknown(String),
    SignalR(SignalR),
    Plain,
}

/// Serves one connection until either side ends it. What it started and has not ended is cancelled then.
pub async fn serve(sender: Sender, receiver: Receiver, services: Services, caller: Caller, max: usize) {
    let _listening = metrics::LISTENERS.hold();
    let limit = seconds(services.config().hub.timeout_seconds);
    let guard = sender.clone();
    tokio::select! {
        end = converse(sender, receiver, services, caller, max) => {
            if let End::Close(code, why) = end {
                guard.close(code, &why);
            }
        }
        () = guard.lost(limit) => guard.abort(),
    }
}

async fn converse(sender: Sender, mut receiver: Receiver, services: Services, caller: Caller, max: usize) -> End {
    let hub = services.config().hub.clone();
    let closing = services.closing().clone();
    let revoked = caller.clone();
    let mut calls = Calls { sender, services, caller, told: FuturesUnordered::new(), under_way: HashMap::new() };
    let mut dialect = Dialect::Unknown(String::new());
    let handshake = tokio::time::sleep(seconds(hub.handshake_seconds));
    tokio::pin!(handshake);
    loop {
        let ping = tokio::time::sleep_until(calls.sender.said() + seconds(hub.ping_seconds));
        let answered = tokio::select! {
            Some(key) = calls.told.next() => {
                calls.under_way.remove(&key);
                Ok(())
            }
            received = receiver.next() => match received {
                Received::Text(text) => heard(&mut dialect, text, &mut calls, max).await,
                Received::Ping(data) => {
                    calls.sender.pong(&data);
                    Ok(())
                }
                Received::Pong => Ok(()),
                Received::Closed => Err(End::Close(CloseCode::Normal, String::new())),
                Received::Gone => Err(End::Left),
                Received::Refused(code, why) => Err(End::Close(code, why)),
            },
            () = &mut handshake, if matches!(dialect, Dialect::Unknown(_)) => {
                let why = format!("no whole message came within {} s", hub.handshake_seconds);
                Err(End::Close(CloseCode::Policy, why))
            }
            () = closing.cancelled(), if calls.under_way.is_empty() => {
                Err(farewell(&dialect, &calls).await)
            }
            () = revoked.ended() => Err(End::Close(CloseCode::Policy, TOKEN_ENDED.into())),
            () = ping => {
                match &dialect {
                    Dialect::SignalR(_) if calls.sender.is_idle() => signalr::ping(&calls.sender).await,
                    _ => {
                        calls.sender.ping();
                        Ok(())
                    }
                }
            }
        };
        if let Err(end) = answered {
            return end;
        }
    }
}

async fn farewell(dialect: &Dialect, calls: &Calls) -> End {
    let why = "the server is stopping";
    if matches!(dialect, Dialect::SignalR(_)) && signalr::close(&calls.sender, why, true).await.is_err() {
        return End::Left;
    }
    End::Close(CloseCode::Away, why.into())
}

async fn heard(dialect: &mut Dialect, text: String, calls: &mut Calls, max: usize) -> Result<(), End> {
    match dialect {
        Dialect::SignalR(signalr) => signalr.heard(&text, calls).await,
        Dialect::Plain => Plain::heard(&text, calls).await,
        Dialect::Unknown(begun) => {
            let text = std::mem::take(begun) + &text;
            if text.contains(signalr::END) {
                let mut signalr = SignalR::new(max);
                let done = signalr.heard(&text, calls).await;
                *dialect = Dialect::SignalR(signalr);
                return done;
            }
            if text.len() <= MAX_CUT && (is_cut(&text) || signalr::is_handshake(&text)) {
                // A SignalR handshake may come in pieces, of which the last is its end alone.
                *begun = text;
                return Ok(());
            }
            *dialect = Dialect::Plain;
            Plain::heard(&text, calls).await
        }
    }
}

/// Whether it is JSON that goes on.
fn is_cut(text: &str) -> bool {
    serde_json::from_str::<serde::de::IgnoredAny>(text).is_err_and(|error| error.is_eof())
}

/// Follows one call on a connection of its own, from its line `from` on.
pub async fn follow(
    sender: Sender,
    mut receiver: Receiver,
    services: Services,
    caller: Caller,
    tail: Tail,
    voice: impl Voice,
) {
    let _listening = metrics::LISTENERS.hold();
    let hub = services.config().hub.clone();
    let closing = services.closing().clone();
    let is_here = tail.is_here();
    let telling = tell(tail, voice, &sender);
    tokio::pin!(telling);
    let conversation = async {
        loop {
            let ping = tokio::time::sleep_until(sender.said() + seconds(hub.ping_seconds));
            tokio::select! {
                told = &mut telling => {
                    return match told {
                        Ok(()) => End::Close(CloseCode::Normal, "the call has ended".into()),
                        Err(Gone) => End::Left,
                    };
                }
                received = receiver.next() => match received {
                    Received::Ping(data) => sender.pong(&data),
                    // There is nothing to be said to a tail.
                    Received::Text(_) | Received::Pong => {}
                    Received::Closed => return End::Close(CloseCode::Normal, String::new()),
                    Received::Gone => return End::Left,
                    Received::Refused(code, why) => return End::Close(code, why),
                },
                // A call of this server ends before the server does, and is followed to its end.
                () = closing.cancelled(), if !is_here => {
                    return End::Close(CloseCode::Away, "the server is stopping".into());
                }
                () = caller.ended() => return End::Close(CloseCode::Policy, TOKEN_ENDED.into()),
                () = ping => sender.ping(),
            }
        }
    };
    tokio::select! {
        end = conversation => {
            if let End::Close(code, why) = end {
                sender.close(code, &why);
            }
        }
        () = sender.lost(seconds(hub.timeout_seconds)) => sender.abort(),
    }
}
