//! `[jobs]`

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use super::bounded;
use crate::function::{FunctionName, QueueName};

/// `[jobs]`
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct JobsConfig {
    /// Whether this server runs jobs; where not, it still takes them in for others.
    pub run: bool,
    /// How many jobs it runs at once; 0: 16 a core.
    #[serde(deserialize_with = "bounded::<0, 100_000, _>")]
    pub workers: u64,
    /// The queues that it serves; empty: all.
    pub serve: Vec<QueueName>,
    /// How long the jobs of a server stay its own without a sign of life from it, in seconds. It shows
    /// itself three times as often.
    #[serde(deserialize_with = "bounded::<2, 3600, _>")]
    pub lease_seconds: u64,
    /// How often is looked for work that nothing told of, in seconds.
    #[serde(deserialize_with = "bounded::<1, 600, _>")]
    pub poll_seconds: u64,
    /// How long jobs are kept that succeeded or were deleted, in hours.
    #[serde(deserialize_with = "bounded::<1, 876_000, _>")]
    pub keep_hours: u64,
    /// How many attempts a job has that does not say.
    #[serde(deserialize_with = "bounded::<1, 100, _>")]
    pub attempts: u64,
    /// How late a tick of a schedule may be run without counting as missed, in seconds.
    #[serde(deserialize_with = "bounded::<1, 86_400, _>")]
    pub misfire_seconds: u64,
    /// What is special about some queues.
    pub queues: BTreeMap<QueueName, QueueConfig>,
    /// What is special about some functions.
    pub functions: BTreeMap<FunctionName, FunctionJobs>,
}

/// `[jobs.queues.NAME]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct QueueConfig {
    /// The priority of its jobs that don't say; higher ones run first.
    #[serde(deserialize_with = "priority")]
    pub priority: i64,
    /// How many of its jobs this server runs at once.
    #[serde(deserialize_with = "some_limit")]
    pub limit: Option<u64>,
}

/// `[jobs.functions.NAME]`
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FunctionJobs {
    /// How many jobs of it this server runs at once.
    #[serde(deserialize_with = "some_limit")]
    pub limit: Option<u64>,
}

fn some_limit<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    bounded::<1, 100_000, _>(deserializer).map(Some)
}

fn priority<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let value = i64::deserialize(deserializer)?;
    if (-1000..=1000).contains(&value) {
        return Ok(value);
    }
    Err(serde::de::Error::custom(format!("{value} is out of bounds: it must be -1000 to 1000")))
}

impl Default for JobsConfig {
    fn default() -> Self {
        Self {
            run: true,
            workers: 0,
            serve: Vec::new(),
            lease_seconds: 30,
            poll_seconds: 5,
            keep_hours: 24,
            attempts: 10,
            misfire_seconds: 60,
            queues: BTreeMap::new(),
            functions: BTreeMap::new(),
        }
    }
}
