//! `[security]`: who may come in.

use std::{collections::HashMap, path::PathBuf};

use serde::Deserialize;

use super::bounded;

/// `[security]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SecurityConfig {
    /// A file that holds a token which may do everything; where it is not there, one is made and written to it.
    pub admin_token_file: Option<PathBuf>,
    /// An environment variable that holds one.
    pub admin_token_env: Option<String>,
    /// How long this server goes on to take the tokens it knows while it can't reach its database, in seconds.
    #[serde(deserialize_with = "bounded::<5, 86_400, _>")]
    pub stale_seconds: u64,
    /// Names that the server may be asked by beside its own, with or without a port. On loopback its own are
    /// `localhost` and the loopback addresses; elsewhere any, unless some are given here.
    pub hosts: Vec<String>,
    /// The keys under which payloads may come encrypted.
    pub payload_keys: Vec<PayloadKey>,
    /// What the protected header of an encrypted payload must say.
    pub payload_claims: Vec<PayloadClaim>,
    /// TLS; without it the server speaks HTTP in the clear.
    pub tls: Option<TlsConfig>,
    /// How many connections one address may have; 0: any number.
    #[serde(deserialize_with = "bounded::<0, 1_000_000, _>")]
    pub address_connections: u64,
    /// How many requests and calls one address may make in a second, and as many again at once; 0: any number.
    #[serde(deserialize_with = "bounded::<0, 1_000_000, _>")]
    pub address_rate: u64,
    /// How many requests and calls one token may make in a second, and as many again at once; 0: any number.
    #[serde(deserialize_with = "bounded::<0, 1_000_000, _>")]
    pub token_rate: u64,
    /// Origins whose pages may use the server from a browser.
    pub origins: Vec<String>,
}

impl Default for SecurityConfig {
    fn default() -> Self {
        Self {
            admin_token_file: None,
            admin_token_env: None,
            stale_seconds: 60,
            hosts: Vec::new(),
            payload_keys: Vec::new(),
            payload_claims: Vec::new(),
            tls: None,
            address_connections: 20_000,
            address_rate: 0,
            token_rate: 0,
            origins: Vec::new(),
        }
    }
}

/// `[security.tls]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The server's certificate and those between it and its root, as PEM; read again when it changes.
    pub cert_file: PathBuf,
    /// Its private key, as PEM; read again when it changes.
    pub key_file: PathBuf,
    /// PEM certificates whose holders may make clients' certificates.
    pub client_ca_file: Option<PathBuf>,
    /// The token that a client's certificate stands for, by a DNS name in it.
    #[serde(default)]
    pub clients: HashMap<String, String>,
}

/// `[[security.payload_keys]]`
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayloadKey {
    /// The id by which payloads name it.
    pub kid: String,
    /// A file that holds it, as base64url of 32 bytes.
    pub key_file: Option<PathBuf>,
    /// An environment variable that holds it.
    pub key_env: Option<String>,
}

/// What the protected header of an encrypted payload may say of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PayloadClaim {
    /// Until when it is good.
    Exp,
    /// An id that is good once.
    Jti,
    /// Which function it is for.
    Sub,
}
