//! Tells endpoints of alerts.

mod addresses;
mod check;
mod error;
mod options;
mod signature;
mod template;

pub use addresses::AllowList;
pub use check::{validate, validate_silence};
pub use error::{FieldError, NotifierError};
pub use options::{Options, RetrySchedule, Smtp};
pub use signature::new_secret;
