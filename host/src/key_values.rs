//! What functions keep between calls, in the database.

use std::collections::BTreeMap;

use async_trait::async_trait;

use crate::{
    config::KeyValuesConfig,
    database::{Database, DatabaseError, Kept, StoreBounds},
    runtime::key_values::{KeyValueError, KeyValues, MAX_KEY_BYTES, MAX_KEYS, StoreId},
};

/// Stores of a database. It works where the database's connections live, whoever asks.
#[derive(Debug)]
pub struct DatabaseStores {
    database: Database,
    services: tokio::runtime::Handle,
    value_bytes: u64,
    bounds: StoreBounds,
}

impl DatabaseStores {
    /// The stores of that database, whose connections live in `services`.
    #[must_use]
    pub fn new(database: Database, services: tokio::runtime::Handle, config: &KeyValuesConfig) -> Self {
        let bounds = StoreBounds { bytes: config.store_bytes, keys: config.keys };
        Self { database, services, value_bytes: config.value_bytes, bounds }
    }

    /// Runs a query where it belongs, to its end.
    async fn ask<T: Send + 'static>(
        &self,
        query: impl Future<Output = Result<T, DatabaseError>> + Send + 'static,
    ) -> Result<T, KeyValueError> {
        let failed = |error: &dyn std::fmt::Display| {
            tracing::warn!(%error, "a store of a function's values failed");
            KeyValueError::Unavailable
        };
        match self.services.spawn(query).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => Err(failed(&error)),
            Err(error) => Err(failed(&error)),
        }
    }

    fn kept<T>(&self, kept: Kept<T>, key: &str) -> Result<T, KeyValueError> {
        match kept {
            Kept::Done(done) => Ok(done),
            Kept::Full => Err(KeyValueError::TooMuch(format!(
                "the store may hold {} bytes and {} keys, and would hold more",
                self.bounds.bytes, self.bounds.keys
            ))),
            Kept::NoNumber => Err(KeyValueError::Unfit(format!(
                "the value of {:?} is no whole number in decimal digits, or would become too large for one",
                shown(key)
            ))),
        }
    }
}

/// The beginning of a key, for a message.
fn shown(key: &str) -> &str {
    key.get(..key.floor_char_boundary(100)).unwrap_or(key)
}

fn check_keys<'a>(keys: impl ExactSizeIterator<Item = &'a String>) -> Result<(), KeyValueError> {
    if keys.len() > MAX_KEYS {
        return Err(KeyValueError::TooMuch(format!("at most {MAX_KEYS} keys at once")));
    }
    for key in keys {
        if key.is_empty() || key.len() > MAX_KEY_BYTES {
            let text = format!("a key must have 1 to {MAX_KEY_BYTES} bytes, and {:?} has {}", shown(key), key.len());
            return Err(KeyValueError::TooMuch(text));
        }
    }
    Ok(())
}

/// The place of a store.
macro_rules! place {
    ($store:expr) => {
        ($store.function.as_str(), $store.lane.as_str(), $store.name.as_str())
    };
}

#[async_trait]
impl KeyValues for DatabaseStores {
    async fn get(&self, store: StoreId, keys: Vec<String>) -> Result<Vec<Option<Vec<u8>>>, KeyValueError> {
        check_keys(keys.iter())?;
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let (database, asked) = (self.database.clone(), keys.clone());
        let found = self.ask(async move { database.key_values(place!(store), &asked).await }).await?;
        Ok(keys.iter().map(|key| found.get(key.as_bytes()).cloned()).collect())
    }

    async fn exists(&self, store: StoreId, key: String) -> Result<bool, KeyValueError> {
        Ok(self.get(store, vec![key]).await?.iter().any(Option::is_some))
    }

    async fn set(&self, store: StoreId, values: Vec<(String, Vec<u8>)>) -> Result<(), KeyValueError> {
        check_keys(values.iter().map(|(key, _)| key))?;
        if let Some((key, value)) = values.iter().find(|(_, value)| value.len() as u64 > self.value_bytes) {
            return Err(KeyValueError::TooMuch(format!(
                "a value may have {} bytes, and that of {:?} has {}",
                self.value_bytes,
                shown(key),
                value.len()
            )));
        }
        let (database, bounds) = (self.database.clone(), self.bounds);
        let values: BTreeMap<_, _> = values.into_iter().collect();
        let kept = self.ask(async move { database.set_key_values(place!(store), &values, bounds).await }).await?;
        self.kept(kept, "")
    }

    async fn delete(&self, store: StoreId, keys: Vec<String>) -> Result<(), KeyValueError> {
        check_keys(keys.iter())?;
        let database = self.database.clone();
        self.ask(async move { database.delete_key_values(place!(store), &keys).await }).await
    }

    async fn keys(&self, store: StoreId, skip: u64) -> Result<Vec<String>, KeyValueError> {
        let database = self.database.clone();
        let keys = self.ask(async move { database.keys_of(place!(store), skip, MAX_KEYS as u64).await }).await?;
        Ok(keys.into_iter().map(|key| String::from_utf8_lossy(&key).into_owned()).collect())
    }

    async fn increment(&self, store: StoreId, key: String, delta: u64) -> Result<u64, KeyValueError> {
        check_keys([&key].into_iter())?;
        let (database, bounds, told) = (self.database.clone(), self.bounds, key.clone());
        let adding = async move { database.increment_key_value(place!(store), &key, delta, bounds).await };
        let kept = self.ask(adding).await?;
        self.kept(kept, &told)
    }
}
