//! Alert rules on readings.

mod bolt;
mod book;
mod rules;
mod standing;

pub use bolt::{ALERTS_QUEUE, AlertBolt, AlertOptions};
pub use book::{AlertBook, Changes};
pub use rules::{CompiledRule, RuleError, RuleSet};
pub use standing::{Limit, Standing, Turn};
