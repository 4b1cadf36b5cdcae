//! What is said of a file beside what it says itself.

use galerna_model::AccountId;

use crate::dates::DateOrder;
use crate::error::ImportError;
use crate::mapping::Mapping;
use crate::row;
use crate::times::{parse_length, time_zone};

/// What is said of a file beside what it says itself. What the rows of the file say goes before these, and these go before
/// what a mapping says of its form as a whole.
#[derive(Debug, Clone, Default)]
#[non_exhaustive]
pub struct Options {
    /// Which column is what; recognised by the header when it is not said.
    pub mapping: Option<Mapping>,
    /// Whose the readings are.
    pub account: Option<AccountId>,
    /// The meter.
    pub meter: Option<String>,
    /// `electricity`, `gas`, `water`, `heat`, `fuel` or `solar`.
    pub utility: Option<String>,
    /// For instance `kWh`.
    pub unit: Option<String>,
    /// The length of an interval, in milliseconds.
    pub interval_ms: Option<i64>,
    /// The IANA name of the zone of times without an offset.
    pub time_zone: Option<String>,
    /// The encoding's label, such as `windows-1252`.
    pub encoding: Option<String>,
    /// What separates columns.
    pub delimiter: Option<char>,
    /// What stands before decimals.
    pub decimal: Option<char>,
    /// Which of the numbers of a date such as `01/02/2026` is its day.
    pub date_order: Option<DateOrder>,
}

impl Options {
    /// Says whose the readings are.
    ///
    /// # Errors
    /// [`ImportError::Option`] when it is no name of an account.
    pub fn with_account(mut self, name: &str) -> Result<Self, ImportError> {
        let account = AccountId::for_customer(name).map_err(|problem| wrong("--account", name, problem))?;
        self.account = Some(account);
        Ok(self)
    }

    /// Says the meter.
    ///
    /// # Errors
    /// [`ImportError::Option`] when it is no name of a meter.
    pub fn with_meter(mut self, name: &str) -> Result<Self, ImportError> {
        row::meter(name).map_err(|problem| wrong("--meter", name, problem))?;
        self.meter = Some(name.to_owned());
        Ok(self)
    }

    /// Says the length of an interval: `30m`, `1h`.
    ///
    /// # Errors
    /// [`ImportError::Option`] when it is none.
    pub fn with_interval(mut self, text: &str) -> Result<Self, ImportError> {
        self.interval_ms = Some(parse_length(text).map_err(|problem| wrong("--interval", text, problem))?);
        Ok(self)
    }

    /// Says in which order dates have their numbers: `dmy`, `mdy`, `ymd`.
    ///
    /// # Errors
    /// [`ImportError::Option`] when it is none of them.
    pub fn with_date_order(mut self, text: &str) -> Result<Self, ImportError> {
        self.date_order = Some(text.parse().map_err(|problem| wrong("--date-order", text, problem))?);
        Ok(self)
    }

    /// Says the zone of times without an offset.
    ///
    /// # Errors
    /// [`ImportError::Option`] when there is none of that name.
    pub fn with_time_zone(mut self, name: &str) -> Result<Self, ImportError> {
        time_zone(name)?;
        self.time_zone = Some(name.to_owned());
        Ok(self)
    }
}

fn wrong(what: &'static str, value: &str, problem: impl std::fmt::Display) -> ImportError {
    ImportError::Option { what, value: value.to_owned(), problem: problem.to_string() }
}
