//! JWE in compact form (RFC 7516), with one algorithm: `alg: dir`, `enc: A256GCM`, and a `kid` that names the key.
//!
//! Whatever is wrong with a text, it is refused in the same way, and a key that is not known costs the same work
//! as one that is: who sends texts learns nothing from the refusals.

use std::{collections::HashMap, fmt};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    rand::{SecureRandom, SystemRandom},
};
use serde::{Deserialize, Serialize};

/// The bytes of a key.
pub const KEY: usize = 32;
/// The longest protected header, in characters of base64url.
const MAX_HEADER: usize = 4096;
/// The longest `kid`, in bytes.
const MAX_KID: usize = 128;
const ALGORITHM: &str = "dir";
const ENCRYPTION: &str = "A256GCM";

/// The text can't be opened. Why is for the log alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unopened(pub &'static str);

/// Why keys can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// It is none.
    #[error("the key {0:?} must be base64url of 32 bytes")]
    NotAKey(String),
    /// Its id is none.
    #[error("kid {0:?} is not valid: it must be 1 to {MAX_KID} bytes of text without control characters")]
    NotAKid(String),
    /// Another has the same id.
    #[error("there are two keys {0:?}")]
    Twice(String),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers")]
    NoRandomness,
}

/// What the protected header says beside the algorithm. As claims of RFC 7519 they may stand there (its section
/// 5.3), and so are bound to the payload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Claims {
    /// Seconds since the epoch from which on it is refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exp: Option<f64>,
    /// An id that is good once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// `lane/function`, which alone it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sub: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Protected {
    alg: String,
    enc: String,
    kid: String,
    exp: Option<f64>,
    jti: Option<String>,
    sub: Option<String>,
    /// Whoever sends one wants something understood that is not, here.
    crit: Option<serde::de::IgnoredAny>,
    zip: Option<serde::de::IgnoredAny>,
}

#[derive(Debug, Serialize)]
struct Written<'a> {
    alg: &'static str,
    enc: &'static str,
    kid: &'a str,
    #[serde(flatten)]
    claims: &'a Claims,
}

/// An opened text.
#[derive(Clone, PartialEq)]
pub struct Opened {
    /// What it says.
    pub text: String,
    /// The key that it came under.
    pub kid: String,
    /// What its header says.
    pub claims: Claims,
}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened").field("kid", &self.kid).field("claims", &self.claims).finish_non_exhaustive()
    }
}

/// Keys by their ids.
pub struct Keys {
    keys: HashMap<String, LessSafeKey>,
    /// Stands in for a key that is not known.
    nobodys: LessSafeKey,
    random: SystemRandom,
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.keys.keys()).finish()
    }
}

fn aead(bytes: &[u8]) -> Option<LessSafeKey> {
    UnboundKey::new(&AES_256_GCM, bytes).ok().map(LessSafeKey::new)
}

impl Keys {
    /// Those keys: each with its id, and as base64url.
    ///
    /// # Errors
    /// When one is none, or an id is there twice.
    pub fn new<'a>(given: impl IntoIterator<Item = (&'a str, &'a str)>) -> Result<Self, KeyError> {
        let random = SystemRandom::new();
        let mut bytes = [0; KEY];
        random.fill(&mut bytes).map_err(|_| KeyError::NoRandomness)?;
        let mut keys = HashMap::new();
        for (kid, text) in given {
            if kid.is_empty() || kid.len() > MAX_KID || kid.chars().any(char::is_control) {
                return Err(KeyError::NotAKid(kid.chars().take(80).collect()));
            }
            let key = URL_SAFE_NO_PAD.decode(text.trim().trim_end_matches('=')).ok().and_then(|bytes| aead(&bytes));
            let key = key.ok_or_else(|| KeyError::NotAKey(kid.to_owned()))?;
            if keys.insert(kid.to_owned(), key).is_some() {
                return Err(KeyError::Twice(kid.to_owned()));
            }
        }
        Ok(Self { keys, nobodys: aead(&bytes).ok_or(KeyError::NoRandomness)?, random })
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Opens a text that came under one of the keys.
    ///
    /// # Errors
    /// When it can't be opened; there is only one refusal for whoever sent it.
    pub fn open(&self, text: &str) -> Result<Opened, Unopened> {
        let mut parts = text.split('.');
        let (Some(header), Some(key), Some(nonce), Some(cipher), Some(tag), None) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(Unopened("it does not have five parts"));
        };
        if !key.is_empty() || header.len() > MAX_HEADER {
            return Err(Unopened("it has an encrypted key, or too long a header"));
        }
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| Unopened("a part is not base64url"));
        let protected: Protected =
            serde_json::from_slice(&decode(header)?).map_err(|_| Unopened("its header is not as it must be"))?;
        let Protected { alg, enc, kid, exp, jti, sub, crit, zip } = protected;
        if alg != ALGORITHM || enc != ENCRYPTION || crit.is_some() || zip.is_some() {
            return Err(Unopened("it asks for another algorithm"));
        }
        let nonce: [u8; NONCE_LEN] = decode(nonce)?.try_into().map_err(|_| Unopened("its nonce has another length"))?;
        let (mut sealed, tag) = (decode(cipher)?, decode(tag)?);
        if tag.len() != AES_256_GCM.tag_len() {
            return Err(Unopened("its tag has another length"));
        }
        sealed.extend_from_slice(&tag);
        let known = self.keys.get(&kid);
        let key = known.unwrap_or(&self.nobodys);
        let nonce = Nonce::assume_unique_for_key(nonce);
        let opened = key.open_in_place(nonce, Aad::from(header.as_bytes()), &mut sealed);
        let length = opened.map_err(|_| Unopened("its tag is wrong, or its key not known"))?.len();
        if known.is_none() {
            return Err(Unopened("its key is not known"));
        }
        sealed.truncate(length);
        let text = String::from_utf8(sealed).map_err(|_| Unopened("what it says is not UTF-8 text"))?;
        Ok(Opened { text, kid, claims: Claims { exp, jti, sub } })
    }

    /// Seals a text under the key of that id; `None` where there is none, or no randomness.
    #[must_use]
    pub fn seal(&self, kid: &str, claims: &Claims, text: &str) -> Option<String> {
        let key = self.keys.get(kid)?;
        let header = serde_json::to_vec(&Written { alg: ALGORITHM, enc: ENCRYPTION, kid, claims }).ok()?;
        let header = URL_SAFE_NO_PAD.encode(header);
        let mut nonce = [0; NONCE_LEN];
        self.random.fill(&mut nonce).ok()?;
        let mut sealed = text.as_bytes().to_vec();
        let aad = Aad::from(header.as_bytes());
        let tag = key.seal_in_place_separate_tag(Nonce::assume_unique_for_key(nonce), aad, &mut sealed).ok()?;
        let [nonce, sealed, tag] = [&nonce, &*sealed, tag.as_ref()].map(|part| URL_SAFE_NO_PAD.encode(part));
        Some(format!("{header}..{nonce}.{sealed}.{tag}"))
    }
}

#[cfg(test)]
mod tests;
