//! What functions keep between calls.
//!
//! A change is one transaction, whose first step is to have the store's own row, where its size stands: so changes of
//! one store follow one another, and its bounds hold whatever happens at once.

use std::collections::BTreeMap;

use sea_orm::{ConnectionTrait, DatabaseTransaction, DbBackend, DbErr, QueryResult, Statement, Value};

use super::{Database, DatabaseError, signed, unsigned};

/// The place of a store: function, lane and name.
pub type StoreKey<'a> = (&'a str, &'a str, &'a str);

/// How large a store may become.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreBounds {
    /// All keys and values together, in bytes.
    pub bytes: u64,
    /// How many keys.
    pub keys: u64,
}

/// How a change ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept<T> {
    /// It was done.
    Done(T),
    /// It would have been more than there may be; nothing changed.
    Full,
    /// What is there is no number, or the sum would be none; nothing changed.
    NoNumber,
}

impl Database {
    /// The values of keys, of those that have one.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn key_values(
        &self,
        store: StoreKey<'_>,
        keys: &[String],
    ) -> Result<BTreeMap<Vec<u8>, Vec<u8>>, DatabaseError> {
        self.bounded(async {
            let places: Vec<_> = (4..4 + keys.len()).map(|place| format!("${place}")).collect();
            let sql = format!("SELECT key, value FROM key_values WHERE {OF_STORE} AND key IN ({})", places.join(", "));
            let rows =
                all(&self.connection, &sql, of(store).into_iter().chain(keys.iter().map(|key| bytes(key)))).await?;
            rows.iter().map(|row| Ok((row.try_get("", "key")?, row.try_get("", "value")?))).collect()
        })
        .await
    }

    /// The keys of a store in their order, at most `limit`, without the first `skip`.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn keys_of(&self, store: StoreKey<'_>, skip: u64, limit: u64) -> Result<Vec<Vec<u8>>, DatabaseError> {
        let sql = format!("SELECT key FROM key_values WHERE {OF_STORE} ORDER BY key LIMIT $4 OFFSET $5");
        let values = of(store).into_iter().chain([signed(limit).into(), signed(skip).into()]);
        self.bounded(async {
            all(&self.connection, &sql, values).await?.iter().map(|row| row.try_get("", "key")).collect()
        })
        .await
    }

    /// Sets values, all or none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn set_key_values(
        &self,
        store: StoreKey<'_>,
        values: &BTreeMap<String, Vec<u8>>,
        bounds: StoreBounds,
    ) -> Result<Kept<()>, DatabaseError> {
        self.bounded(async {
            let change = Change::begin(self, store).await?;
            let mut held = change.held;
            for (key, value) in values {
                held.replace(change.length(key).await?, Some((key.len() + value.len()) as u64));
                change.put(key, value).await?;
            }
            change.end(held, bounds, ()).await
        })
        .await
    }

    /// Removes values; none there is fine.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn delete_key_values(&self, store: StoreKey<'_>, keys: &[String]) -> Result<(), DatabaseError> {
        self.bounded(async {
            let change = Change::begin(self, store).await?;
            let mut held = change.held;
            for key in keys {
                held.replace(change.length(key).await?, None);
                let sql = format!("DELETE FROM key_values WHERE {OF_STORE} AND key = $4");
                run(&change.transaction, &sql, of(store).into_iter().chain([bytes(key)])).await?;
            }
            // Less than before is never too much.
            change.end(held, StoreBounds { bytes: u64::MAX, keys: u64::MAX }, ()).await.map(drop)
        })
        .await
    }

    /// Adds to a number, which stands in decimal digits and is 0 where there is none.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn increment_key_value(
        &self,
        store: StoreKey<'_>,
        key: &str,
        delta: u64,
        bounds: StoreBounds,
    ) -> Result<Kept<u64>, DatabaseError> {
        self.bounded(async {
            let change = Change::begin(self, store).await?;
            let sql = format!("SELECT value FROM key_values WHERE {OF_STORE} AND key = $4");
            let rows = all(&change.transaction, &sql, of(store).into_iter().chain([bytes(key)])).await?;
            let before: Option<Vec<u8>> = rows.first().map(|row| row.try_get("", "value")).transpose()?;
            let number = match &before {
                None => Some(0),
                Some(value) => std::str::from_utf8(value).ok().and_then(|text| text.parse::<u64>().ok()),
            };
            let Some(sum) = number.and_then(|number| number.checked_add(delta)) else {
                change.transaction.rollback().await?;
                return Ok(Kept::NoNumber);
            };
            let text = sum.to_string().into_bytes();
            let mut held = change.held;
            held.replace(before.map(|value| (key.len() + value.len()) as u64), Some((key.len() + text.len()) as u64));
            change.put(key, &text).await?;
            change.end(held, bounds, sum).await
        })
        .await
    }
}

const OF_STORE: &str = "function_name = $1 AND lane = $2 AND store = $3";

fn of((function, lane, store): StoreKey<'_>) -> [Value; 3] {
    [function.into(), lane.into(), store.into()]
}

fn bytes(key: &str) -> Value {
    key.as_bytes().to_vec().into()
}

fn statement(connection: &impl ConnectionTrait, sql: &str, values: impl IntoIterator<Item = Value>) -> Statement {
    Statement::from_sql_and_values(connection.get_database_backend(), sql, values)
}

async fn all(
    connection: &impl ConnectionTrait,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<Vec<QueryResult>, DbErr> {
    connection.query_all_raw(statement(connection, sql, values)).await
}

async fn run(
    connection: &impl ConnectionTrait,
    sql: &str,
    values: impl IntoIterator<Item = Value>,
) -> Result<(), DbErr> {
    connection.execute_raw(statement(connection, sql, values)).await.map(drop)
}

/// What a store holds.
#[derive(Debug, Clone, Copy)]
struct Held {
    bytes: u64,
    keys: u64,
}

impl Held {
    /// Counts that a key and value of so many bytes come in the place of others.
    fn replace(&mut self, before: Option<u64>, after: Option<u64>) {
        self.bytes = self.bytes.saturating_sub(before.unwrap_or(0)).saturating_add(after.unwrap_or(0));
        self.keys = self.keys.saturating_sub(before.is_some().into()).saturating_add(after.is_some().into());
    }
}

/// A change of a store, which nobody else changes meanwhile.
struct Change<'a> {
    store: StoreKey<'a>,
    transaction: DatabaseTransaction,
    held: Held,
}

impl<'a> Change<'a> {
    async fn begin(database: &Database, store: StoreKey<'a>) -> Result<Self, DbErr> {
        let transaction = database.begin().await?;
        let made = "INSERT INTO key_value_stores (function_name, lane, store, bytes, keys) VALUES ($1, $2, $3, 0, 0) \
                    ON CONFLICT DO NOTHING";
        run(&transaction, made, of(store)).await?;
        let lock = if transaction.get_database_backend() == DbBackend::Postgres { " FOR UPDATE" } else { "" };
        let sql = format!("SELECT bytes, keys FROM key_value_stores WHERE {OF_STORE}{lock}");
        let rows = all(&transaction, &sql, of(store)).await?;
        let row = rows.first().ok_or_else(|| DbErr::RecordNotFound("the store that was just made".into()))?;
        let held = Held {
            bytes: unsigned("bytes", row.try_get("", "bytes")?)?,
            keys: unsigned("keys", row.try_get("", "keys")?)?,
        };
        Ok(Self { store, transaction, held })
    }

    /// How many bytes a key and its value have; none: there is none.
    async fn length(&self, key: &str) -> Result<Option<u64>, DbErr> {
        let sql =
            format!("SELECT CAST(length(value) AS BIGINT) AS length FROM key_values WHERE {OF_STORE} AND key = $4");
        let rows = all(&self.transaction, &sql, of(self.store).into_iter().chain([bytes(key)])).await?;
        let length: Option<i64> = rows.first().map(|row| row.try_get("", "length")).transpose()?;
        length.map(|length| Ok(unsigned::<u64>("length", length)?.saturating_add(key.len() as u64))).transpose()
    }

    async fn put(&self, key: &str, value: &[u8]) -> Result<(), DbErr> {
        let sql = "INSERT INTO key_values (function_name, lane, store, key, value) VALUES ($1, $2, $3, $4, $5) \
                   ON CONFLICT (function_name, lane, store, key) DO UPDATE SET value = excluded.value";
        let values = of(self.store).into_iter().chain([bytes(key), value.to_vec().into()]);
        run(&self.transaction, sql, values).await
    }

    /// Writes it down where the store holds no more than it may then, or undoes it.
    async fn end<T>(self, held: Held, bounds: StoreBounds, done: T) -> Result<Kept<T>, DbErr> {
        let grown = held.bytes > self.held.bytes || held.keys > self.held.keys;
        // One that is over a bound which was lowered may still shrink.
        if grown && (held.bytes > bounds.bytes || held.keys > bounds.keys) {
            self.transaction.rollback().await?;
            return Ok(Kept::Full);
        }
        let sql = format!("UPDATE key_value_stores SET bytes = $4, keys = $5 WHERE {OF_STORE}");
        let values = of(self.store).into_iter().chain([signed(held.bytes).into(), signed(held.keys).into()]);
        run(&self.transaction, &sql, values).await?;
        self.transaction.commit().await?;
        Ok(Kept::Done(done))
    }
}
