//! Reads exports of energy meters, whatever their shape, and makes readings with counters of them.
//!
//! [`Import::open`] finds out what a file is: its encoding, what separates its columns, which line is the header, whether
//! decimals follow a comma, and the [`Mapping`] that says which column is what. Where a file can be read in two ways it is
//! refused, and the error says both. [`Import::rows`] gives its values one by one, [`Import::meters`] by meter and time.
//! A [`History`] makes readings of them: counters that go on where they stood, whichever file comes first, and however the
//! files overlap.
//!
//! It does no I/O but for reading mapping files, and of Galerna's crates it depends on the model alone.

mod dates;
mod encoding;
mod error;
mod green_button;
mod grid;
mod history;
mod import;
mod json;
mod layout;
mod lengths;
mod mapping;
mod means;
mod number;
mod options;
mod refused;
mod row;
mod sniff;
mod table;
mod times;
mod units;

pub use dates::{DateOrder, DateOrderError};
pub use error::{ImportError, Lack, RowError, RowFault};
pub use history::{Added, Check, Correction, History, HistoryError, MeterReading, StoredValue};
pub use import::{Found, Import, Meters, Rows};
pub use mapping::Mapping;
pub use options::Options;
pub use row::{Amount, MeterValue, Row};
pub use times::{LengthError, parse_length};
pub use units::{Series, Utility};
