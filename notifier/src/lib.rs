//! Tells endpoints of alerts.

mod addresses;
mod check;
mod delivering;
mod directory;
mod error;
mod intake;
mod mail;
mod metrics;
mod notifier;
mod options;
mod outcome;
mod senders;
mod signature;
mod template;
mod trial;
mod webhook;

pub use addresses::AllowList;
pub use check::{validate, validate_silence};
pub use error::{FieldError, NotifierError};
pub use notifier::{ALERTS_QUEUE, Notifier, Parts};
pub use options::{Options, RetrySchedule, Smtp};
pub use signature::new_secret;
pub use trial::{put_endpoint, put_silence, test_fire, test_fire_rule};
