//! The interfaces beside WASI's own that a guest may use where it is granted what is behind them: `wasi:config/store`,
//! `wasi:keyvalue` and `wasi:logging`.
//!
//! They are drafts, so they are described here and not in generated bindings: one description serves every version of
//! them that is out there.

use wasmtime::{
    StoreContextMut,
    component::{ComponentType, Lift, Linker, Lower, Resource, ResourceTableError, ResourceType},
};

use super::guest::Guest;
use crate::{
    function::Stream,
    runtime::key_values::{KeyValueError, StoreId},
};

/// The versions of each that differ in nothing that is here.
const CONFIG: [&str; 3] =
    ["wasi:config/store@0.2.0-rc.1", "wasi:config/store@0.2.0-draft", "wasi:config/store@0.2.0-draft-2024-09-27"];
const LOGGING: [&str; 2] = ["wasi:logging/logging", "wasi:logging/logging@0.1.0-draft"];
const STORE: &str = "wasi:keyvalue/store@0.2.0-draft";
const ATOMICS: &str = "wasi:keyvalue/atomics@0.2.0-draft";
const BATCH: &str = "wasi:keyvalue/batch@0.2.0-draft";

/// What components import for which it matters what they may reach begins so.
pub(super) const REACHING: [&str; 4] =
    ["wasi:config/", "wasi:keyvalue/", "wasi:http/outgoing-handler", "wasi:http/client"];

#[derive(Debug, Clone, ComponentType, Lift, Lower)]
#[component(variant)]
enum ConfigError {
    #[component(name = "upstream")]
    Upstream(String),
    #[component(name = "io")]
    Io(String),
}

#[derive(Debug, Clone, Copy, ComponentType, Lift, Lower)]
#[component(enum)]
#[repr(u8)]
#[expect(dead_code, reason = "guests make them")]
enum Level {
    #[component(name = "trace")]
    Trace,
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
    #[component(name = "critical")]
    Critical,
}

#[derive(Debug, Clone, ComponentType, Lift, Lower)]
#[component(variant)]
enum StoreError {
    #[component(name = "no-such-store")]
    NoSuchStore,
    #[component(name = "access-denied")]
    AccessDenied,
    #[component(name = "other")]
    Other(String),
}

impl From<KeyValueError> for StoreError {
    fn from(error: KeyValueError) -> Self {
        Self::Other(error.to_string())
    }
}

#[derive(Debug, Clone, ComponentType, Lift, Lower)]
#[component(record)]
struct KeyResponse {
    keys: Vec<String>,
    cursor: Option<u64>,
}

/// An open store.
#[derive(Debug)]
struct Bucket(StoreId);

type Given<T> = wasmtime::Result<(Result<T, StoreError>,)>;

/// Offers them.
pub(super) fn add_to_linker(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    for version in CONFIG {
        let mut config = linker.instance(version)?;
        config.func_wrap("get", |mut guest: StoreContextMut<'_, Guest>, (name,): (String,)| {
            let value = guest.data_mut().allowed().and_then(|allowed| allowed.configured(&name).cloned());
            Ok((Ok::<_, ConfigError>(value),))
        })?;
        config.func_wrap("get-all", |mut guest: StoreContextMut<'_, Guest>, (): ()| {
            let all = guest.data_mut().allowed().map_or_else(Vec::new, |allowed| {
                allowed.all_configured().map(|(name, value)| (name.clone(), value.clone())).collect()
            });
            Ok((Ok::<Vec<(String, String)>, ConfigError>(all),))
        })?;
    }
    for version in LOGGING {
        let mut logging = linker.instance(version)?;
        logging.func_wrap("log", |guest: StoreContextMut<'_, Guest>, log: (Level, String, String)| {
            let (level, context, message) = log;
            let level = match level {
                Level::Trace => "TRACE",
                Level::Debug => "DEBUG",
                Level::Info => "INFO",
                Level::Warn => "WARN",
                Level::Error => "ERROR",
                Level::Critical => "CRITICAL",
            };
            let context = if context.is_empty() { String::new() } else { format!("{context}: ") };
            guest.data().call().console.write(Stream::Stderr, format!("{level} {context}{message}\n").as_bytes());
            Ok(())
        })?;
    }
    store(linker)?;
    atomics(linker)?;
    batch(linker)
}

/// The store that a handle stands for.
fn opened(guest: &Guest, bucket: &Resource<Bucket>) -> Result<StoreId, ResourceTableError> {
    Ok(guest.resources().get(bucket)?.0.clone())
}

fn store(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut store = linker.instance(STORE)?;
    store.resource("bucket", ResourceType::host::<Bucket>(), |mut guest, handle| {
        guest.data_mut().resources_mut().delete::<Bucket>(Resource::new_own(handle))?;
        Ok(())
    })?;
    store.func_wrap(
        "open",
        |mut guest: StoreContextMut<'_, Guest>, (name,): (String,)| -> Given<Resource<Bucket>> {
            let guest = guest.data_mut();
            if !guest.allowed().is_some_and(|allowed| allowed.store(&name)) {
                return Ok((Err(StoreError::AccessDenied),));
            }
            let call = guest.call();
            let id = StoreId { function: call.name.clone(), lane: call.lane.clone(), name };
            Ok((Ok(guest.resources_mut().push(Bucket(id))?),))
        },
    )?;
    store.func_wrap_async(
        "[method]bucket.get",
        |mut guest: StoreContextMut<'_, Guest>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move {
                let (id, stores) = parts(guest.data_mut(), &bucket)?;
                let values = stores.get(id, vec![key]).await.map_err(StoreError::from);
                Ok((values.map(|values| values.into_iter().next().flatten()),))
            })
        },
    )?;
    store.func_wrap_async(
        "[method]bucket.set",
        |mut guest: StoreContextMut<'_, Guest>, (bucket, key, value): (Resource<Bucket>, String, Vec<u8>)| {
            Box::new(async move {
                let (id, stores) = parts(guest.data_mut(), &bucket)?;
                Ok((stores.set(id, vec![(key, value)]).await.map_err(StoreError::from),))
            })
        },
    )?;
    store.func_wrap_async(
        "[method]bucket.delete",
        |mut guest: StoreContextMut<'_, Guest>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move {
                let (id, stores) = parts(guest.data_mut(), &bucket)?;
                Ok((stores.delete(id, vec![key]).await.map_err(StoreError::from),))
            })
        },
    )?;
    store.func_wrap_async(
        "[method]bucket.exists",
        |mut guest: StoreContextMut<'_, Guest>, (bucket, key): (Resource<Bucket>, String)| {
            Box::new(async move {
                let (id, stores) = parts(guest.data_mut(), &bucket)?;
                Ok((stores.exists(id, key).await.map_err(StoreError::from),))
            })
        },
    )?;
    store.func_wrap_async(
        "[method]bucket.list-keys",
        |mut guest: StoreContextMut<'_, Guest>, (bucket, cursor): (Resource<Bucket>, Option<u64>)| {
            Box::new(async move {
                let (id, stores) = parts(guest.data_mut(), &bucket)?;
                let skip = cursor.unwrap_or(0);
                let keys = stores.keys(id, skip).await.map_err(StoreError::from);
                Ok((keys.map(|keys| {
                    let whole = keys.len() >= crate::runtime::key_values::MAX_KEYS;
                    let cursor = whole.then(|| skip.saturating_add(keys.len() as u64));
                    KeyResponse { keys, cursor }
                }),))
            })
        },
    )
}

fn atomics(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    linker.instance(ATOMICS)?.func_wrap_async(
        "increment",
        |mut guest: StoreContextMut<'_, Guest>, (bucket, key, delta): (Resource<Bucket>, String, u64)| {
            Box::new(async move {
                let (id, stores) = parts(guest.data_mut(), &bucket)?;
                Ok((stores.increment(id, key, delta).await.map_err(StoreError::from),))
            })
        },
    )
}

fn batch(linker: &mut Linker<Guest>) -> wasmtime::Result<()> {
    let mut batch = linker.instance(BATCH)?;
    batch.func_wrap_async(
        "get-many",
        |mut guest: StoreContextMut<'_, Guest>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
            Box::new(async move {
                let (id, stores) = parts(guest.data_mut(), &bucket)?;
                let values = stores.get(id, keys.clone()).await.map_err(StoreError::from);
                let pair = |(key, value): (String, Option<Vec<u8>>)| value.map(|value| (key, value));
                Ok((values.map(|values| -> Vec<Option<(String, Vec<u8>)>> {
                    keys.into_iter().zip(values).map(pair).collect()
                }),))
            })
        },
    )?;
    batch.func_wrap_async(
        "set-many",
        |mut guest: StoreContextMut<'_, Guest>, (bucket, values): (Resource<Bucket>, Vec<(String, Vec<u8>)>)| {
            Box::new(async move {
                let (id, stores) = parts(guest.data_mut(), &bucket)?;
                Ok((stores.set(id, values).await.map_err(StoreError::from),))
            })
        },
    )?;
    batch.func_wrap_async(
        "delete-many",
        |mut guest: StoreContextMut<'_, Guest>, (bucket, keys): (Resource<Bucket>, Vec<String>)| {
            Box::new(async move {
                let (id, stores) = parts(guest.data_mut(), &bucket)?;
                Ok((stores.delete(id, keys).await.map_err(StoreError::from),))
            })
        },
    )
}

/// The store of a handle, and those who keep it.
fn parts(
    guest: &mut Guest,
    bucket: &Resource<Bucket>,
) -> wasmtime::Result<(StoreId, std::sync::Arc<dyn crate::runtime::key_values::KeyValues>)> {
    let id = opened(guest, bucket)?;
    // Who has a handle was allowed it.
    let allowed = guest.allowed().ok_or_else(|| wasmtime::format_err!("a store that nothing was granted of"))?;
    Ok((id, allowed.offers.stores.clone()))
}
