//! Who may do what: tokens and their scopes, encrypted payloads, and what the door refuses.
//!
//! Nothing in here knows HTTP; `api` asks, and makes the answers problems. What holds when, and what an attacker
//! may try, stands in `SECURITY.md`.

pub mod admin;
pub mod audit;
pub mod connections;
pub mod jwe;
pub mod origin;
pub mod payload;
pub mod rate;
pub mod scope;
pub mod tls;
pub mod token;
pub mod tokens;

pub use audit::Audit;
pub use connections::Connections;
pub use payload::Payloads;
pub use rate::{Addresses, Bucket, Rate};
pub use scope::{Scope, Scopes, Verb};
pub use tls::{Tls, TlsError};
pub use token::{Token, TokenText};
pub use tokens::{Change, Tokens, Verified};
