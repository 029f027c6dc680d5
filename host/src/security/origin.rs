//! Where a request may come from: pages of other sites, and names that lead here without being ours.
//!
//! A server without tokens trusts whoever reaches it, and a browser on this machine reaches it for every page it
//! shows. Such a page gives itself away by its `Origin`, or, where it has made its own name lead here (DNS
//! rebinding), by the `Host` that it asks for.

use std::net::{IpAddr, SocketAddr};

use crate::config::SecurityConfig;

/// Why a request is refused at the door.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Foreign {
    /// It asks for a name that is not this server's.
    #[error("this server does not answer to the name {0:?}; if it should, add it to security.hosts")]
    Host(String),
    /// It comes from a page of another site.
    #[error("pages of {0:?} may not use this server; if they should, add it to security.origins")]
    Origin(String),
}

/// The names and origins that a server takes.
#[derive(Debug, Clone)]
pub struct Origins {
    /// Whether it can be reached from this machine alone.
    loopback: bool,
    hosts: Vec<String>,
    origins: Vec<String>,
}

impl Origins {
    /// Of a server that listens there.
    #[must_use]
    pub fn new(config: &SecurityConfig, address: SocketAddr) -> Self {
        let lower = |names: &[String]| names.iter().map(|name| name.to_ascii_lowercase()).collect();
        Self { loopback: address.ip().is_loopback(), hosts: lower(&config.hosts), origins: lower(&config.origins) }
    }

    /// Whether a request for that `Host` may be answered. On loopback only its own names, and those of the
    /// configuration; elsewhere any, unless the configuration names some.
    ///
    /// # Errors
    /// When it may not.
    pub fn check_host(&self, host: &str) -> Result<(), Foreign> {
        if !self.loopback && self.hosts.is_empty() {
            return Ok(());
        }
        let name = name_of(host);
        let known = (self.loopback && is_loopback_name(name))
            || self.hosts.iter().any(|known| known.eq_ignore_ascii_case(host) || known.eq_ignore_ascii_case(name));
        if known { Ok(()) } else { Err(Foreign::Host(host.chars().take(80).collect())) }
    }

    /// Whether a page of that `Origin` may use the server that it knows as `host`; and whether it must be told
    /// so, because it is of another site.
    ///
    /// # Errors
    /// When it may not.
    pub fn check_origin(&self, origin: &str, host: &str) -> Result<bool, Foreign> {
        let own = origin
            .split_once("://")
            .is_some_and(|(scheme, at)| matches!(scheme, "http" | "https") && at.eq_ignore_ascii_case(host));
        if own {
            return Ok(false);
        }
        if self.origins.iter().any(|known| known.eq_ignore_ascii_case(origin)) {
            return Ok(true);
        }
        Err(Foreign::Origin(origin.chars().take(80).collect()))
    }
}

/// A `Host` without its port.
fn name_of(host: &str) -> &str {
    if host.starts_with('[') {
        return host.split_inclusive(']').next().unwrap_or(host);
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name)
}

fn is_loopback_name(name: &str) -> bool {
    let address = name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    name.eq_ignore_ascii_case("localhost") || address.is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(listen: &str, hosts: &[&str], origins: &[&str]) -> Origins {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let config = SecurityConfig { hosts: texts(hosts), origins: texts(origins), ..SecurityConfig::default() };
        Origins::new(&config, listen.parse().expect("an address"))
    }

    #[test]
    fn a_server_on_loopback_answers_to_its_own_names() {
        let server = origins("127.0.0.1:8080", &["faas.example"], &[]);
        for host in
            ["localhost", "LOCALHOST:8080", "127.0.0.1:8080", "127.1.2.3", "[::1]:80", "[::1]", "faas.example:1"]
        {
            assert_eq!(server.check_host(host), Ok(()), "{host}");
        }
        for host in ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example:8080", "10.0.0.1", "[::2]"] {
            assert!(server.check_host(host).is_err(), "{host}");
        }
        assert_eq!(origins("10.0.0.1:80", &[], &[]).check_host("anything"), Ok(()));
        assert!(origins("10.0.0.1:80", &["a"], &[]).check_host("localhost").is_err());
    }

    #[test]
    fn pages_of_other_sites_are_refused_unless_they_are_named() {
        let server = origins("127.0.0.1:8080", &[], &["https://app.example"]);
        assert_eq!(server.check_origin("http://localhost:8080", "localhost:8080"), Ok(false));
        assert_eq!(server.check_origin("https://APP.example", "localhost:8080"), Ok(true));
        for origin in ["http://localhost:8081", "null", "", "https://app.example.evil", "file://localhost:8080"] {
            assert!(server.check_origin(origin, "localhost:8080").is_err(), "{origin}");
        }
    }
}
