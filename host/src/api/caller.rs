//! Who asks: the token that the door has verified, and what it may do.

use std::{future::Ready, net::IpAddr};

use actix_web::{FromRequest, HttpMessage, HttpRequest, dev::Payload};

use super::{Problem, Services};
use crate::{
    database::{AuditEntry, InvocationRow},
    function::{ErrorCode, FunctionName, Lane, TokenName},
    metrics,
    security::{Verb, tokens::Verified},
};

/// Whoever sent a request. Every handler that shows or does something asks it first.
#[derive(Clone)]
pub struct Caller {
    token: Verified,
    address: Option<IpAddr>,
    services: Services,
}

impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Caller").field("name", &self.name()).field("address", &self.address).finish_non_exhaustive()
    }
}

impl Caller {
    /// Who the door let in.
    pub(super) fn new(token: Verified, address: Option<IpAddr>, services: Services) -> Self {
        Self { token, address, services }
    }

    /// The token's name; none where the server asks for none.
    #[must_use]
    pub fn name(&self) -> Option<&TokenName> {
        self.token.as_ref().map(|token| &token.name)
    }

    /// Whether it may come once more now: another request has passed the door, or another call is made on an open
    /// connection.
    ///
    /// # Errors
    /// When it comes too often.
    pub fn comes(&self) -> Result<(), Problem> {
        let rate = self.services.token_rate();
        if self.token.as_ref().is_none_or(|token| rate.take(&token.bucket)) {
            return Ok(());
        }
        metrics::TOO_MANY.count();
        Err(Problem::new(ErrorCode::TooManyRequests, "this token comes too often; try again later"))
    }

    /// As [`comes`](Self::comes), for a call on an open connection, which its address makes too.
    ///
    /// # Errors
    /// When it comes too often.
    pub fn calls(&self) -> Result<(), Problem> {
        super::door::comes_from(self.address, &self.services)?;
        self.comes()
    }

    /// Whether it may do that.
    #[must_use]
    pub fn can(&self, verb: Verb, lane: &Lane, function: &FunctionName) -> bool {
        self.token.as_ref().is_none_or(|token| token.scopes.allow(verb, lane, function))
    }

    /// As [`can`](Self::can), for who is about to do it.
    ///
    /// # Errors
    /// When it may not, which the audit is told.
    pub fn may(&self, verb: Verb, lane: &Lane, function: &FunctionName) -> Result<(), Problem> {
        if self.can(verb, lane, function) { Ok(()) } else { Err(self.denied(verb, &format!("{lane}/{function}"))) }
    }

    /// Whether it may do that with some function, of those lanes and names that are given.
    ///
    /// # Errors
    /// When it may not, which the audit is told.
    pub fn may_some(&self, verb: Verb, lane: Option<&Lane>, function: Option<&FunctionName>) -> Result<(), Problem> {
        if self.token.as_ref().is_none_or(|token| token.scopes.allow_some(verb, lane, function)) {
            return Ok(());
        }
        let (lane, function) = (lane.map_or("*", Lane::as_str), function.map_or("*", FunctionName::as_str));
        Err(self.denied(verb, &format!("{lane}/{function}")))
    }

    /// Whether it may do that with everything.
    ///
    /// # Errors
    /// When it may not, which the audit is told.
    pub fn may_all(&self, verb: Verb) -> Result<(), Problem> {
        if self.can_all(verb) { Ok(()) } else { Err(self.denied(verb, "*")) }
    }

    /// Whether it may do that with everything.
    #[must_use]
    pub fn can_all(&self, verb: Verb) -> bool {
        self.token.as_ref().is_none_or(|token| token.scopes.allow_all(verb))
    }

    /// Whether it may see that call: because it may see the function's, or has made it.
    #[must_use]
    pub fn can_see(&self, call: &InvocationRow) -> bool {
        self.has_made(call) || self.can(Verb::Read, &call.lane, &call.name)
    }

    /// As [`can_see`](Self::can_see), for who is about to.
    ///
    /// # Errors
    /// When it may not, which the audit is told.
    pub fn may_see(&self, call: &InvocationRow) -> Result<(), Problem> {
        if self.has_made(call) { Ok(()) } else { self.may(Verb::Read, &call.lane, &call.name) }
    }

    /// Whether it may end that call: because it manages the function, or has made the call.
    ///
    /// # Errors
    /// When it may not, which the audit is told.
    pub fn may_end(&self, call: &InvocationRow) -> Result<(), Problem> {
        if self.has_made(call) { Ok(()) } else { self.may(Verb::Manage, &call.lane, &call.name) }
    }

    fn has_made(&self, call: &InvocationRow) -> bool {
        self.name().is_some() && self.name() == call.token.as_ref()
    }

    fn denied(&self, verb: Verb, what: &str) -> Problem {
        metrics::DENIED.count();
        self.services.audit().record_denied(self.entry("denied", what).with(verb.as_str()));
        let name = self.name().map_or("", TokenName::as_str);
        Problem::new(ErrorCode::Forbidden, format!("the token {name} may not {verb} {what}"))
    }

    /// An entry of the audit about what it did.
    #[must_use]
    pub fn entry(&self, action: &str, target: impl Into<String>) -> AuditEntry {
        AuditEntry::new(self.name().map(TokenName::as_str), self.address, action, target)
    }

    /// Puts an entry into the audit.
    pub fn record(&self, entry: AuditEntry) {
        self.services.audit().record(entry);
    }

    /// Ends when the token has expired or was revoked.
    pub async fn ended(&self) {
        match &self.token {
            Some(token) => token.ended.cancelled().await,
            None => std::future::pending().await,
        }
    }
}

impl FromRequest for Caller {
    type Error = Problem;
    type Future = Ready<Result<Self, Problem>>;

    fn from_request(request: &HttpRequest, _: &mut Payload) -> Self::Future {
        let caller = request.extensions().get::<Self>().cloned();
        // Nothing comes past the door, so this is a bug, and nobody is let in by it.
        std::future::ready(caller.ok_or_else(|| Problem::new(ErrorCode::Internal, "the server does not know who asks")))
    }
}
