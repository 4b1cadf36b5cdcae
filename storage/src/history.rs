//! Samples of numbers over time, for charts.

use std::collections::BTreeMap;

use async_trait::async_trait;
use galerna_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Result;

/// Numbers at one time.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Sample {
    /// When: the key. Whoever samples rounds it to the interval of sampling, so that two who do leave one sample.
    pub at: Timestamp,
    /// The numbers by name; what could not be told is not in it.
    pub values: BTreeMap<String, f64>,
}

/// Store of samples.
#[async_trait]
pub trait History: Send + Sync + 'static {
    /// Stores a sample, replacing the one of the same time.
    async fn put(&self, sample: &Sample) -> Result<()>;

    /// The samples from this time on, oldest first.
    async fn since(&self, from: Timestamp) -> Result<Vec<Sample>>;

    /// Of the samples from this time on those whose time is a multiple of `step_ms`, oldest first.
    async fn sparse(&self, from: Timestamp, step_ms: i64) -> Result<Vec<Sample>>;

    /// Forgets the samples before this time whose time is no multiple of `step_ms`; returns how many.
    async fn thin(&self, before: Timestamp, step_ms: i64) -> Result<u64>;

    /// Forgets the samples before this time; returns how many.
    async fn prune(&self, before: Timestamp) -> Result<u64>;
}
