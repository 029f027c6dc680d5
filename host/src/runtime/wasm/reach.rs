//! What a component may reach: what its package asks for, and the server grants to its function in its lane.
//!
//! Worked out when a call first asks for any of it, which most never do.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use super::offered::REACHING;
use crate::{
    config::{Grant, Secret},
    function::{
        Declaration, FunctionName, Lane,
        network::{HostPattern, Network, is_public},
        pattern,
    },
    runtime::{RuntimeError, key_values::KeyValues},
};

/// What the server has to offer.
#[derive(Debug)]
pub(super) struct Offers {
    grants: Vec<Granted>,
    pub(super) stores: Arc<dyn KeyValues>,
    pub(super) tls: Arc<rustls::ClientConfig>,
}

#[derive(Debug)]
struct Granted {
    grant: Grant,
    secrets: BTreeMap<String, Secret>,
}

impl Offers {
    /// Reads the secrets that are granted, and the certificates that are trusted.
    ///
    /// # Errors
    /// When one of the secrets can't be read.
    pub(super) fn open(grants: &[Grant], stores: Arc<dyn KeyValues>) -> Result<Self, RuntimeError> {
        let failed = |error: &dyn fmt::Display| RuntimeError::Host(format!("[[grants]] {error}"));
        let open = |grant: &Grant| {
            let read = |(name, source): (&String, &crate::config::SecretSource)| {
                source.read(name).map(|secret| (name.clone(), secret))
            };
            let secrets = grant.secrets.iter().map(read).collect::<Result<_, _>>();
            secrets.map(|secrets| Granted { grant: grant.clone(), secrets }).map_err(|error| failed(&error))
        };
        Ok(Self {
            grants: grants.iter().map(open).collect::<Result<_, _>>()?,
            stores,
            tls: trust().map_err(|error| failed(&error))?,
        })
    }
}

impl Offers {
    /// Whether it matters to a component what it may reach: by what it imports, or because there are variables for its
    /// environment.
    pub(super) fn matters<'a>(&self, declared: &Declaration, mut imports: impl Iterator<Item = &'a str>) -> bool {
        !declared.environment.is_empty()
            || self.grants.iter().any(|it| !it.grant.environment.is_empty())
            || imports.any(|name| REACHING.iter().any(|reaching| name.starts_with(reaching)))
    }
}

/// TLS with the certificates that the system trusts; where it trusts none, no server is trusted.
fn trust() -> Result<Arc<rustls::ClientConfig>, rustls::Error> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    Ok(Arc::new(builder.with_safe_default_protocol_versions()?.with_root_certificates(roots).with_no_client_auth()))
}

/// What a component's package asks for, and of whom.
#[derive(Debug)]
pub(super) struct Reach {
    pub(super) declared: Arc<Declaration>,
    pub(super) offers: Arc<Offers>,
}

/// What one call may reach.
#[derive(Debug)]
pub(super) struct Allowed {
    asked: Arc<Declaration>,
    hosts: Vec<HostPattern>,
    networks: Vec<Network>,
    stores: Vec<String>,
    /// For `wasi:config`, secrets among it.
    configuration: BTreeMap<String, String>,
    /// For `wasi:cli/environment`.
    pub(super) environment: BTreeMap<String, String>,
    pub(super) offers: Arc<Offers>,
}

impl Reach {
    /// What a call of that function in that lane may reach.
    pub(super) fn allowed(&self, lane: &Lane, function: &FunctionName) -> Allowed {
        let declared = &*self.declared;
        let mut allowed = Allowed {
            asked: self.declared.clone(),
            hosts: Vec::new(),
            networks: Vec::new(),
            stores: Vec::new(),
            configuration: declared.configuration.clone(),
            environment: declared.environment.clone(),
            offers: self.offers.clone(),
        };
        for Granted { grant, secrets } in self.offers.grants.iter().filter(|it| it.grant.fits(lane, function)) {
            allowed.hosts.extend(grant.hosts.iter().cloned());
            allowed.networks.extend(grant.networks.iter().copied());
            allowed.stores.extend(grant.stores.iter().cloned());
            allowed.environment.extend(grant.environment.iter().map(|(name, value)| (name.clone(), value.clone())));
            // Of what is configured for many, it gets what it asks for.
            let asked = grant.configuration.iter().filter(|(name, _)| declared.configuration.contains_key(*name));
            allowed.configuration.extend(asked.map(|(name, value)| (name.clone(), value.clone())));
            let asked = secrets.iter().filter(|(name, _)| declared.secrets.contains(*name));
            allowed.configuration.extend(asked.map(|(name, secret)| (name.clone(), secret.expose().to_owned())));
        }
        allowed
    }
}

impl Allowed {
    /// Whether a request may go to that host: its package asks for it, and it is granted.
    pub(super) fn host(&self, secure: bool, host: &str, port: u16) -> bool {
        let fits = |patterns: &[HostPattern]| patterns.iter().any(|pattern| pattern.fits(secure, host, port));
        fits(&self.asked.outbound) && fits(&self.hosts)
    }

    /// Whether a connection may go to that address: it is one of the Internet, or its network is granted.
    pub(super) fn address(&self, address: IpAddr) -> bool {
        is_public(address) || self.networks.iter().any(|network| network.contains(address))
    }

    /// Whether the store of that name may be used.
    pub(super) fn store(&self, name: &str) -> bool {
        self.asked.stores.contains(name) && self.stores.iter().any(|granted| pattern::matches(granted, name))
    }

    /// A configured value.
    pub(super) fn configured(&self, name: &str) -> Option<&String> {
        self.configuration.get(name)
    }

    /// All configured values, in the order of their names.
    pub(super) fn all_configured(&self) -> impl Iterator<Item = (&String, &String)> {
        self.configuration.iter()
    }
}
