//! One call, parsed and checked.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{CallerId, EntryName, FunctionName, FunctionType, Lane, Selector, TokenName};

/// The id of a call. A time-ordered UUID (RFC 9562, version 7), so that history sorts by it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InvocationId(pub Uuid);

impl InvocationId {
    /// A new one.
    #[must_use]
    pub fn generate() -> Self {
        Self(Uuid::now_v7())
    }

    /// The least that one made at `time` can be.
    #[must_use]
    pub fn first_at(time: DateTime<Utc>) -> Self {
        let millis = u64::try_from(time.timestamp_millis()).unwrap_or(0);
        // The time's 48 bits come first (RFC 9562, section 5.7).
        Self(Uuid::from_u128(u128::from(millis) << 80))
    }
}

impl fmt::Display for InvocationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for InvocationId {
    type Err = uuid::Error;

    fn from_str(value: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(value).map(Self)
    }
}

/// Encrypts what a call gives, under the key that its payload came under.
pub trait Seal: fmt::Debug + Send + Sync {
    /// The text, encrypted; never as it is.
    fn seal(&self, text: &str) -> String;
}

/// A call whose payload came encrypted: what it gives is kept, and shown to others than its caller, encrypted.
#[derive(Debug, Clone)]
pub struct Confidential {
    /// Encrypts it.
    pub seal: Arc<dyn Seal>,
    /// Whether its caller, too, wants it so.
    pub answer: bool,
}

/// A call as it enters the spine: what is to be run, for whom, with what.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Made when the call was accepted.
    pub id: InvocationId,
    /// Who calls, where they said.
    pub caller_id: Option<CallerId>,
    /// The token that it is made with; none where the server asks for none.
    pub token: Option<TokenName>,
    /// What to run.
    pub name: FunctionName,
    /// From which lane.
    pub lane: Lane,
    /// At which version.
    pub selector: Selector,
    /// The type the caller expects; another one is a `type_conflict`.
    pub kind: Option<FunctionType>,
    /// Another entry of the same package, where the caller picks one.
    pub entry: Option<EntryName>,
    /// What the function gets: JSON text, as a rule.
    pub payload: String,
    /// Query parameters that are not the server's own, in their order, for the guest's context.
    pub parameters: Vec<(String, String)>,
    /// How to keep to itself what is said of the call, where its payload came encrypted.
    pub confidential: Option<Confidential>,
    /// A shorter deadline than the server's, where the caller asks for one.
    pub deadline: Option<Duration>,
}
