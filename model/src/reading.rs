//! Readings and the envelopes that carry them.

use serde::{Deserialize, Serialize};

use crate::{AccountId, ParameterCode, SourceId, Timestamp};

/// One value of a reading: `{"p":401,"v":4900.0}`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Parameter code, which fixes quantity and unit.
    pub p: ParameterCode,
    /// The value in the unit of its parameter.
    pub v: f64,
}

/// What one device measured at one time, as concentrators send it.
///
/// Its identity is (source, `did`, `ts`); of two with the same identity the one with the higher `sqn` counts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Reading {
    /// Device id, unique within its source.
    pub did: String,
    /// The values measured.
    pub values: Vec<Measurement>,
    /// Sequence number of the sender.
    pub sqn: u64,
    /// When it was measured, to the millisecond.
    pub ts: Timestamp,
}

/// A batch of readings of one source: the unit on the broker.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Envelope {
    /// Id that follows the batch from publisher to store, for tracing and deduplication of dead letters.
    pub id: String,
    /// The account that owns the readings.
    pub account: AccountId,
    /// The source that sent them.
    pub source: SourceId,
    /// When the publisher took them.
    pub received: Timestamp,
    /// The readings, up to some hundreds.
    pub readings: Vec<Reading>,
}
