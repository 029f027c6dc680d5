//! One call, parsed and checked.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{CallerId, EntryName, FunctionName, FunctionType, Lane, Selector};

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

/// A call as it enters the spine: what is to be run, for whom, with what.
#[derive(Debug, Clone)]
pub struct Invocation {
    /// Made when the call was accepted.
    pub id: InvocationId,
    /// Who calls, where they said.
    pub caller_id: Option<CallerId>,
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
    /// A shorter deadline than the server's, where the caller asks for one.
    pub deadline: Option<Duration>,
}
