//! What was used by hour, day and month, as meters' counters say: a stored result, which late readings correct.
//!
//! [`CountedReadings`] is a store of readings that keeps the days of their counters beside them: when a call to store readings returns,
//! they and what follows from them are durable. [`bars`] makes hours, days and months of the days; [`of_source`] does so for a source.
//!
//! ```
//! use std::sync::Arc;
//! use galerna_consumption::{Calendar, CountedReadings, Step, of_source};
//! use galerna_model::{AccountId, Measurement, ParameterCode, ParameterRegistry, SourceId, Timestamp};
//! use galerna_storage::{Readings, StoredReading};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let store = galerna_storage::sqlite::in_memory()?;
//! let calendar = Calendar::of("Europe/Berlin")?;
//! let parameters = Arc::new(ParameterRegistry::built_in());
//! let readings = CountedReadings::new(store.readings.clone(), store.consumption.clone(), parameters, calendar.clone());
//! let reading = |ts: &str, kwh: f64| -> Result<StoredReading, Box<dyn std::error::Error>> {
//!     Ok(StoredReading {
//!         account: AccountId::new("acme")?,
//!         source: SourceId::new("BC6A29")?,
//!         device: "meter 1".to_owned(),
//!         ts: Timestamp::parse(ts)?,
//!         sqn: 1,
//!         values: vec![Measurement { p: ParameterCode(402), v: kwh }],
//!         flags: Vec::new(),
//!         received: Timestamp(0),
//!     })
//! };
//! readings.store(&[reading("2017-01-31T23:00:00+01:00", 100.0)?, reading("2017-02-01T01:00:00+01:00", 103.0)?]).await?;
//!
//! let (from, until) = (Timestamp::parse("2017-01-31T00:00:00+01:00")?, Timestamp::parse("2017-02-02T00:00:00+01:00")?);
//! let used = of_source(&*store.consumption, &calendar, &SourceId::new("BC6A29")?, None, Step::Day, from, until).await?;
//! let days: Vec<Option<f64>> = used[0].bars.iter().map(|bar| bar.used).collect();
//! assert_eq!(days, [Some(1.5), Some(1.5)]);
//! # Ok(())
//! # }
//! ```
//!
//! # How it is counted
//! - Between two readings of a counter the difference was used. It is spread evenly over the time between them; a bar of which a part is
//!   known only so is `estimated`.
//! - A counter that falls began anew: what it shows then was used since. A fall of less than a hundredth is none: rounding, not use.
//! - A day is one of the calendar's time zone, with 23, 24 or 25 hours; its hours are counted from its beginning.
//! - A reading that comes late, or again with another value, corrects the day that it is in, and what crosses its borders. The result
//!   does not depend on the order in which readings came.
//!
//! # Invariants and boundaries
//! - What is kept of a day is what the stored readings of that day say, whoever is killed and whoever writes at the same time.
//! - No clock and no I/O but through the store's traits.

mod bars;
mod calendar;
mod counted_readings;
mod day;

pub use bars::{Bar, CounterBars, MOST_BARS, QueryError, Step, bars, of_source};
pub use calendar::{Calendar, UnknownZone};
pub use counted_readings::CountedReadings;
