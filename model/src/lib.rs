//! The words that all of ingestion shares: readings and their envelopes, the names of accounts, sources and queues, wall
//! time, and the records of alerts. Every rule of a reading stands here, once.
//!
//! ```
//! use galerna_model::{AccountId, Envelope, Reading, SourceId, Timestamp, decode};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let envelope = Envelope {
//!     id: "batch-1".to_owned(),
//!     account: AccountId::new("Panther")?,
//!     source: SourceId::new("BC:6A:29:D0:F5:C8")?,
//!     received: Timestamp::parse("2015-04-21T23:15:02Z")?,
//!     readings: vec![Reading { did: "12a".into(), values: vec![], sqn: 2152, ts: Timestamp::parse("2015-04-21T23:15:00Z")? }],
//! };
//! let decoded = decode(&envelope.encode())?;
//! assert_eq!(decoded.readings.len(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! It does no I/O, but for a file of parameters that it is told to read, and must not depend on any other Galerna crate.

mod accounts;
mod address;
mod alerts;
mod clock;
pub mod envelope;
mod fault;
mod message;
mod names;
mod parameters;
mod reading;
mod validate;
mod visible;

pub use accounts::{Account, Source};
pub use address::names_host;
pub use alerts::{AlertEvent, AlertEventKind, AlertState, Comparison, Condition, Phase, Rule, Severity};
pub use clock::{Clock, ManualClock, SystemClock, TimeError, Timestamp};
pub use envelope::{BadEntry, DecodeError, DecodeLimits, Decoded, decode, decode_reading};
pub use fault::{BadReading, RejectCode};
pub use message::{Incoming, Message};
pub use names::{AccountId, NameError, ParameterCode, QueueName, SourceId};
pub use parameters::{Parameter, ParameterKind, ParameterRegistry, RegistryError};
pub use reading::{Envelope, Measurement, Reading};
pub use validate::{BadValue, ValidationLimits, Validator};
pub use visible::{first_invisible, first_invisible_but_spaces};
