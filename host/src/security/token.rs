//! One token: its text, which is shown once, and what is kept of it.
//!
//! The text is `sft_` and 64 characters of base64url: 16 bytes of id, by which it is found, and 32 random bytes,
//! of which only the SHA-256 digest is kept. A secret of 256 bits needs no slow hash: it can't be guessed.

use std::fmt;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use chrono::{DateTime, Utc};
use ring::{
    digest::{SHA256, digest},
    rand::{SecureRandom, SystemRandom},
};
use subtle::ConstantTimeEq as _;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Bucket, Scopes};
use crate::{database::TokenRow, function::TokenName};

/// What every token begins with, so that it is recognised where it must not be.
pub const PREFIX: &str = "sft_";
/// The bytes of its id.
const ID: usize = 16;
/// The bytes of its secret.
const SECRET: usize = 32;

/// There was no randomness to be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random numbers")]
pub struct NoRandomness;

/// A token as its holder has it: shown and logged as `***`.
#[derive(Clone, PartialEq, Eq)]
pub struct TokenText {
    /// Its id.
    pub id: Uuid,
    secret: [u8; SECRET],
}

impl TokenText {
    /// A new one.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn generate() -> Result<Self, NoRandomness> {
        let mut secret = [0; SECRET];
        SystemRandom::new().fill(&mut secret).map_err(|_| NoRandomness)?;
        Ok(Self { id: Uuid::now_v7(), secret })
    }

    /// Reads one; `None` where it is none.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut bytes = [0; ID + SECRET];
        let read = URL_SAFE_NO_PAD.decode_slice(text.strip_prefix(PREFIX)?, &mut bytes).ok()?;
        let (id, secret) = bytes.split_first_chunk::<ID>()?;
        (read == ID + SECRET).then_some(Self { id: Uuid::from_bytes(*id), secret: secret.try_into().ok()? })
    }

    /// The text itself; for the one place that tells it.
    #[must_use]
    pub fn expose(&self) -> String {
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode([self.id.as_bytes().as_slice(), &self.secret].concat()))
    }

    /// What is kept of its secret.
    #[must_use]
    pub fn digest(&self) -> Vec<u8> {
        digest(&SHA256, &self.secret).as_ref().to_vec()
    }
}

impl fmt::Debug for TokenText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

/// A token as the server knows it.
#[derive(Debug)]
pub struct Token {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: TokenName,
    /// What it may do.
    pub scopes: Scopes,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// The token that made it.
    pub created_by: Option<String>,
    /// When it ends.
    pub expires_at: Option<DateTime<Utc>>,
    /// Cancelled when it has expired or was revoked: what goes on under it ends.
    pub ended: CancellationToken,
    /// How often it may come.
    pub bucket: Bucket,
    digest: Vec<u8>,
}

impl Token {
    /// The token of a row.
    ///
    /// # Errors
    /// When its scopes are not such.
    pub fn of_row(row: TokenRow) -> Result<Self, serde_json::Error> {
        Ok(Self {
            scopes: serde_json::from_str(&row.scopes)?,
            id: row.id,
            name: row.name,
            created_at: row.created_at,
            created_by: row.created_by,
            expires_at: row.expires_at,
            ended: CancellationToken::new(),
            bucket: Bucket::default(),
            digest: row.digest,
        })
    }

    /// The token of the configuration: it may do everything, and has no end.
    #[must_use]
    pub fn of_configuration(name: TokenName, text: &str) -> Self {
        Self {
            id: Uuid::nil(),
            name,
            scopes: Scopes::all(),
            created_at: Utc::now(),
            created_by: None,
            expires_at: None,
            ended: CancellationToken::new(),
            bucket: Bucket::default(),
            digest: digest(&SHA256, text.as_bytes()).as_ref().to_vec(),
        }
    }

    /// Whether its digest is that one; takes as long whichever it is.
    #[must_use]
    pub fn has(&self, digest: &[u8]) -> bool {
        self.digest.ct_eq(digest).into()
    }

    /// Whether its time is over.
    #[must_use]
    pub fn has_expired(&self, now: DateTime<Utc>) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_read_as_it_is_written() {
        let token = TokenText::generate().expect("random numbers");
        let text = token.expose();
        assert_eq!(text.len(), PREFIX.len() + 64);
        assert_eq!(TokenText::parse(&text), Some(token.clone()));
        assert_eq!(format!("{token:?}"), "***");
        assert_ne!(TokenText::generate().expect("random numbers").digest(), token.digest());
        let last = text.len() - 1;
        for bad in ["", PREFIX, &text[1..], &text[..last], &format!("{text}A"), &format!("{}=", &text[..last])] {
            assert_eq!(TokenText::parse(bad), None, "{bad}");
        }
    }
}
