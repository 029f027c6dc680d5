//! What functions keep between calls: values by key, in stores of their own.
//!
//! The runtime asks for it by this trait, since it does not know the database that keeps it.

use std::fmt;

use async_trait::async_trait;

use crate::function::{FunctionName, Lane};

/// The longest key, in bytes.
pub const MAX_KEY_BYTES: usize = 1024;
/// How many keys are listed, or worked on, at once.
pub const MAX_KEYS: usize = 1000;

/// A store: each function has its own in each lane.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct StoreId {
    /// The function.
    pub function: FunctionName,
    /// The lane that it runs in.
    pub lane: Lane,
    /// The store's name.
    pub name: String,
}

/// Why a store did not do it. Texts are for the function.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyValueError {
    /// It would be more than there may be.
    #[error("{0}")]
    TooMuch(String),
    /// What is there can't be used so.
    #[error("{0}")]
    Unfit(String),
    /// The store can't be reached.
    #[error("the store cannot be reached now; try again later")]
    Unavailable,
}

/// Keeps values. Every method has an end in bounded time, and does all of it or nothing.
#[async_trait]
pub trait KeyValues: fmt::Debug + Send + Sync + 'static {
    /// The values of keys, in their order.
    async fn get(&self, store: StoreId, keys: Vec<String>) -> Result<Vec<Option<Vec<u8>>>, KeyValueError>;

    /// Whether there is a value.
    async fn exists(&self, store: StoreId, key: String) -> Result<bool, KeyValueError>;

    /// Sets values; of a key that is given twice, the last counts.
    async fn set(&self, store: StoreId, values: Vec<(String, Vec<u8>)>) -> Result<(), KeyValueError>;

    /// Removes values; none there is fine.
    async fn delete(&self, store: StoreId, keys: Vec<String>) -> Result<(), KeyValueError>;

    /// The keys in their order, at most [`MAX_KEYS`], without the first `skip` of them.
    async fn keys(&self, store: StoreId, skip: u64) -> Result<Vec<String>, KeyValueError>;

    /// Adds to a number, which is 0 where there is none; the sum.
    async fn increment(&self, store: StoreId, key: String, delta: u64) -> Result<u64, KeyValueError>;
}
