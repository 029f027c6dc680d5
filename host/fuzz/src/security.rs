//! Encrypted payloads.

pub mod jwe;
