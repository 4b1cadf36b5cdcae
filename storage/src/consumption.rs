//! What counters have counted, by day.

use async_trait::async_trait;
use galerna_model::{ParameterCode, SourceId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::Result;

/// Which day of which counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConsumptionKey {
    /// The source of the counter's device.
    pub source: SourceId,
    /// The device.
    pub device: String,
    /// The counter.
    pub parameter: ParameterCode,
    /// The time zone whose day it is, by its IANA name.
    pub zone: String,
    /// When the day begins.
    pub day: Timestamp,
}

/// A value that a counter had.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct CounterValue {
    /// When it was measured.
    pub at: Timestamp,
    /// In the unit of its parameter.
    pub value: f64,
}

/// What the readings of one day say. What was used between the last one of a day and the first of a later one is in neither.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DayCounts {
    /// The first reading of the day.
    pub first: CounterValue,
    /// The last one.
    pub last: CounterValue,
    /// What was used in each hour of the day, counted from its beginning, between its readings: 23 to 25.
    pub hours: Vec<f64>,
    /// Bit `n`: a part of hour `n` is known only of two readings that are not both in it.
    pub split: u32,
    /// How often the counter began anew.
    pub resets: u32,
    /// Readings of the counter.
    pub readings: u32,
    /// How often late readings have changed what was kept before.
    pub corrections: u32,
}

/// One day of one counter.
#[derive(Debug, Clone, PartialEq)]
pub struct ConsumptionDay {
    /// Which.
    pub key: ConsumptionKey,
    /// How often it was kept; 0 for one that is new.
    pub revision: u64,
    /// What is known of it.
    pub counts: DayCounts,
}

/// Which days to find.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConsumptionQuery {
    /// Of this source.
    pub source: SourceId,
    /// Of this time zone.
    pub zone: String,
    /// Only of this device.
    pub device: Option<String>,
    /// Days that begin at or after this.
    pub from: Timestamp,
    /// Days that begin before this.
    pub until: Timestamp,
}

/// Store of what counters have counted.
#[async_trait]
pub trait ConsumptionDays: Send + Sync + 'static {
    /// The days with these keys, in the order of the keys; `None` for those that are not there.
    async fn get(&self, keys: &[ConsumptionKey]) -> Result<Vec<Option<ConsumptionDay>>>;

    /// Keeps days, durable when it returns: each replaces the one of its key when that has its `revision`, and gets the next.
    /// Answers for each whether it was kept; else somebody has kept another in between, which is left as it is.
    async fn keep(&self, days: &[ConsumptionDay]) -> Result<Vec<bool>>;

    /// The days that match, and of each of their counters the nearest day before `from` and the nearest at or after `until`, by
    /// device, parameter and day.
    async fn find(&self, query: &ConsumptionQuery) -> Result<Vec<ConsumptionDay>>;
}
