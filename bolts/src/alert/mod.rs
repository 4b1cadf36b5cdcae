//! Alert rules on readings.

mod account;
mod bolt;
mod closing;
mod engine;
mod event;
mod instance;
mod rules;
mod state;

pub use bolt::{ALERTS_QUEUE, AlertBolt, AlertOptions};
pub use closing::{AlertKey, CloseError, close_alert};
pub use engine::{AlertEngine, CLOCK_SKEW, Changes, Moment};
pub use rules::{CompiledRule, RuleError, RuleSet, RuleWarning};
pub use state::{Limit, Observed, RuleState, Transition};
