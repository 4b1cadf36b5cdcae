//! Theodolite's use cases: readings of the power that sensors draw.
//!
//! From the code of Theodolite at da733c3a: sensors `s_0` to `s_{n-1}` send a reading a second each, keyed by their identifier, of a
//! constant 10 W; checkpoints each second in all use cases that keep state.

mod uc1;
mod uc2;
mod uc3;
mod uc4;

pub use uc1::uc1;
pub use uc2::uc2;
pub use uc3::{HourOfDay, uc3};
pub use uc4::{GroupPower, Membership, PERIOD, levels_over, tree, uc4, uc4_unrolled};

use serde::Serialize;

/// The time of the first reading, in milliseconds since 1970.
pub const FIRST: i64 = 1_600_000_000_000;

/// What each sensor draws, in watts.
pub const WATTS: f64 = 10.0;

/// A reading of a sensor.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PowerRecord {
    /// Which sensor.
    pub identifier: String,
    /// When, in milliseconds since 1970.
    pub timestamp: i64,
    /// What it draws, in watts.
    pub value_in_w: f64,
}

/// Reading number `n` of so many sensors, each of which sends one a second, the first at `first`.
pub fn record(n: u64, sensors: u64, first: i64) -> PowerRecord {
    PowerRecord {
        identifier: format!("s_{}", n % sensors),
        timestamp: first + (n * 1_000 / sensors) as i64,
        value_in_w: WATTS,
    }
}
