//! What a version asks for beyond what all may have, and what the server grants its function in its lane.

use std::collections::BTreeSet;

use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    config::Grant,
    function::{Asks, FunctionRef},
};

/// What is granted to a function in a lane: names, and no values. A component gets of it what its package asks for.
#[derive(Debug, Default, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Granted {
    /// Names of variables, which it gets whether or not it asks.
    environment: BTreeSet<String>,
    /// Names of configured values.
    configuration: BTreeSet<String>,
    /// Names of secrets.
    secrets: BTreeSet<String>,
    /// Patterns of hosts.
    outbound: BTreeSet<String>,
    /// Networks beside the Internet.
    networks: BTreeSet<String>,
    /// Patterns of stores.
    stores: BTreeSet<String>,
}

/// Both.
#[derive(Debug, Serialize, ToSchema)]
pub struct Reach {
    /// What its package asks for; none: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    asks: Option<Asks>,
    /// What is granted on this server; none: nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    granted: Option<Granted>,
}

impl Reach {
    /// Of that version, on a server with these grants.
    pub fn of(function: &FunctionRef, grants: &[Grant]) -> Self {
        let at = &function.location;
        let mut granted = Granted::default();
        for grant in grants.iter().filter(|grant| grant.fits(&at.lane, &at.name)) {
            granted.environment.extend(grant.environment.keys().cloned());
            granted.configuration.extend(grant.configuration.keys().cloned());
            granted.secrets.extend(grant.secrets.keys().cloned());
            granted.outbound.extend(grant.hosts.iter().map(ToString::to_string));
            granted.networks.extend(grant.networks.iter().map(ToString::to_string));
            granted.stores.extend(grant.stores.iter().cloned());
        }
        let granted = (granted != Granted::default()).then_some(granted);
        Self { asks: function.asks.as_deref().cloned(), granted }
    }
}
