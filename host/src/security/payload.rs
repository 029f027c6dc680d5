//! Encrypted payloads: opened at the door, and answered and kept under the key that they came under.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta, Utc};
use ring::digest::{Context, SHA256};

use super::jwe::{Claims, KeyError, Keys, Opened, Unopened};
use crate::{
    config::{ConfigError, PayloadClaim, SecurityConfig, secret},
    database::{Database, DatabaseError},
    function::{FunctionName, InvocationId, Lane, Seal},
};

/// How far in the future a payload with an id may expire: the id is remembered until then.
const FURTHEST: TimeDelta = TimeDelta::days(31);
/// The last second that counts; what ends later has no end.
const LAST: f64 = 8e12;
/// How much longer it is remembered, as the clocks of servers differ.
const LONGER: TimeDelta = TimeDelta::minutes(10);

/// Why an encrypted payload is refused.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// There are no keys here.
    #[error("this server has no payload keys, so it cannot read an encrypted payload: send it as it is")]
    NoKeys,
    /// For whatever reason: its sender is not told which.
    #[error("the encrypted payload cannot be used")]
    Unusable(Unopened),
    /// The database, which knows whether its id was used.
    #[error(transparent)]
    Database(#[from] DatabaseError),
}

impl From<Unopened> for Refused {
    fn from(why: Unopened) -> Self {
        Self::Unusable(why)
    }
}

/// Opens payloads.
#[derive(Debug, Clone)]
pub struct Payloads {
    keys: Arc<Keys>,
    required: Vec<PayloadClaim>,
    database: Database,
}

/// A payload that was opened.
pub struct Payload {
    /// What it says.
    pub text: String,
    kid: String,
    keys: Arc<Keys>,
}

impl std::fmt::Debug for Payload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Payload").field("kid", &self.kid).finish_non_exhaustive()
    }
}

/// The configured keys.
///
/// # Errors
/// When one can't be read, or is none.
pub fn keys(config: &SecurityConfig) -> Result<Keys, ConfigError> {
    let wrong = |error: KeyError| ConfigError::Secret(format!("[[security.payload_keys]]: {error}"));
    let mut read = Vec::new();
    for key in &config.payload_keys {
        let section = format!("[security.payload_keys] of {}", key.kid);
        let text = secret(&section, "key", key.key_file.as_deref(), key.key_env.as_deref())?;
        let text = text.ok_or_else(|| {
            ConfigError::Secret(format!("{section} names neither key_file nor key_env: name one of them"))
        })?;
        read.push((key.kid.as_str(), text));
    }
    Keys::new(read.iter().map(|(kid, text)| (*kid, text.expose()))).map_err(wrong)
}

impl Payloads {
    /// Payloads under those keys.
    #[must_use]
    pub fn new(keys: Keys, config: &SecurityConfig, database: Database) -> Self {
        Self { keys: Arc::new(keys), required: config.payload_claims.clone(), database }
    }

    /// Opens a payload that is meant for that function, where it says for which; and where it says that it is
    /// good once, sees to that.
    ///
    /// # Errors
    /// When it can't be used.
    pub async fn open(self, text: String, lane: Lane, name: FunctionName) -> Result<Payload, Refused> {
        if self.keys.is_empty() {
            return Err(Refused::NoKeys);
        }
        let Opened { text, kid, claims } = self.keys.open(&text)?;
        let id = check(&claims, &self.required, &format!("{lane}/{name}"), Utc::now())?;
        if let Some((id, expires)) = id {
            let digest = digest(&kid, id);
            if !self.database.take_payload_id(&digest, expires + LONGER).await? {
                return Err(Unopened("its id was used before").into());
            }
        }
        Ok(Payload { text, kid, keys: self.keys })
    }

    /// Forgets ids that are no longer needed.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn forget(&self) -> Result<u64, DatabaseError> {
        self.database.forget_payload_ids(Utc::now()).await
    }
}

/// Whether the claims hold; the id that is good once, and until when it must be remembered.
fn check<'a>(
    claims: &'a Claims,
    required: &[PayloadClaim],
    target: &str,
    now: DateTime<Utc>,
) -> Result<Option<(&'a str, DateTime<Utc>)>, Unopened> {
    for claim in required {
        let given = match claim {
            PayloadClaim::Exp => claims.exp.is_some(),
            PayloadClaim::Jti => claims.jti.is_some(),
            PayloadClaim::Sub => claims.sub.is_some(),
        };
        if !given {
            return Err(Unopened("it lacks a claim that is required"));
        }
    }
    if claims.sub.as_ref().is_some_and(|sub| sub != target) {
        return Err(Unopened("it is for another function"));
    }
    let expires = claims.exp.map(|seconds| {
        DateTime::from_timestamp(seconds.clamp(0.0, LAST) as i64, 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
    });
    if expires.is_some_and(|at| at <= now) {
        return Err(Unopened("it has expired"));
    }
    match (&claims.jti, expires) {
        (None, _) => Ok(None),
        (Some(id), Some(at)) if at <= now + FURTHEST => Ok(Some((id, at))),
        (Some(_), _) => Err(Unopened("it has an id, but does not expire within 31 days")),
    }
}

fn digest(kid: &str, id: &str) -> Vec<u8> {
    let mut digest = Context::new(&SHA256);
    digest.update(&(kid.len() as u64).to_be_bytes());
    digest.update(kid.as_bytes());
    digest.update(id.as_bytes());
    digest.finish().as_ref().to_vec()
}

impl Payload {
    /// What seals all that is said of the call: under the same key, bound to the call and its function.
    #[must_use]
    pub fn seal(&self, call: InvocationId, lane: &Lane, name: &FunctionName) -> Arc<dyn Seal> {
        let claims = Claims { exp: None, jti: Some(call.to_string()), sub: Some(format!("{lane}/{name}")) };
        Arc::new(Sealing { keys: self.keys.clone(), kid: self.kid.clone(), claims })
    }
}

#[derive(Debug)]
struct Sealing {
    keys: Arc<Keys>,
    kid: String,
    claims: Claims,
}

impl Seal for Sealing {
    fn seal(&self, text: &str) -> String {
        // Without randomness nothing is said rather than all.
        self.keys.seal(&self.kid, &self.claims, text).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn claims_bind_where_they_stand() {
        let now = DateTime::from_timestamp(1_000_000, 0).expect("a time");
        let claims = |exp: Option<f64>, jti: Option<&str>, sub: Option<&str>| Claims {
            exp,
            jti: jti.map(str::to_owned),
            sub: sub.map(str::to_owned),
        };
        let holds = |claims: &Claims, required: &[PayloadClaim]| check(claims, required, "dev/f", now).is_ok();
        let ahead = Some(1_000_010.0);
        assert!(holds(&claims(None, None, None), &[]));
        assert!(holds(
            &claims(ahead, Some("x"), Some("dev/f")),
            &[PayloadClaim::Exp, PayloadClaim::Jti, PayloadClaim::Sub]
        ));
        for required in [PayloadClaim::Exp, PayloadClaim::Jti, PayloadClaim::Sub] {
            assert!(!holds(&claims(None, None, None), &[required]), "{required:?}");
        }
        assert!(!holds(&claims(None, None, Some("dev/g")), &[]));
        for expired in [1_000_000.0, 0.0, -1e300, f64::NAN] {
            assert!(!holds(&claims(Some(expired), None, None), &[]), "{expired}");
        }
        assert!(holds(&claims(Some(1e300), None, None), &[]));
        assert!(!holds(&claims(None, Some("x"), None), &[]), "an id without an end");
        assert!(!holds(&claims(Some(1e300), Some("x"), None), &[]), "an id that would be remembered for ever");
        let kept = claims(ahead, Some("x"), None);
        assert!(matches!(check(&kept, &[], "dev/f", now), Ok(Some(("x", at))) if at.timestamp() == 1_000_010));
        assert_ne!(digest("a", "bc"), digest("ab", "c"));
    }
}
