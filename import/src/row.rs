//! What is read of a line.

use galerna_model::{AccountId, ParameterCode, Timestamp};
use rust_decimal::Decimal;
use serde::{Deserialize, Serialize};

use crate::error::shown;
use crate::units::{Series, Utility};

/// One value of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The account that owns it.
    pub account: AccountId,
    /// The meter.
    pub meter: String,
    /// What was measured.
    pub value: MeterValue,
}

/// One value of a meter.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeterValue {
    /// Where it stands in the file, from 1.
    pub line: u64,
    /// The end of its interval, or the time as the file has it where it does not say which edge that is.
    pub ts: Timestamp,
    /// What was measured.
    pub amount: Amount,
    /// The length of its interval in milliseconds, where the file or an option says it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub length_ms: Option<i64>,
    /// The length that the form of the file has by definition, where neither the file nor its times tell.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub usual_ms: Option<i64>,
    /// The time of the row before, where a row between the two was refused whose time is not known: the distance of the two
    /// times then tells nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) refused_since: Option<Timestamp>,
    /// The amount is a mean rate, of an hour.
    #[serde(skip)]
    pub(crate) is_mean: bool,
    /// Of which utility it is, where others have its parameters too: one meter id may then stand for two meters.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub utility: Option<Utility>,
}

/// What a value measures.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Amount {
    /// Used in the interval; what is negative was given back.
    Net(Series, #[serde(with = "rust_decimal::serde::str")] Decimal),
    /// Used in the interval, where what was given back is told by itself.
    Import(Series, #[serde(with = "rust_decimal::serde::str")] Decimal),
    /// Given back in the interval.
    Export(Series, #[serde(with = "rust_decimal::serde::str")] Decimal),
    /// A value that is stored as it is.
    Value(ParameterCode, f64),
    /// Nothing was measured in the interval.
    Missing(Series),
    /// Nothing was measured.
    MissingValue(ParameterCode),
}

impl Amount {
    /// What two amounts of one time have in common when only one of them can be right.
    pub(crate) fn slot(self) -> (ParameterCode, bool) {
        match self {
            Self::Net(series, _) | Self::Import(series, _) | Self::Missing(series) => {
                (series.counter(), false)
            }
            Self::Export(series, _) => (series.counter(), true),
            Self::Value(parameter, _) | Self::MissingValue(parameter) => (parameter, false),
        }
    }

    pub(crate) fn is_missing(self) -> bool {
        matches!(self, Self::Missing(_) | Self::MissingValue(_))
    }

    /// The amount of so many hours.
    pub(crate) fn of_hours(self, hours: Decimal) -> Option<Self> {
        Some(match self {
            Self::Net(series, rate) => Self::Net(series, rate.checked_mul(hours)?),
            Self::Import(series, rate) => Self::Import(series, rate.checked_mul(hours)?),
            Self::Export(series, rate) => Self::Export(series, rate.checked_mul(hours)?),
            other => other,
        })
    }

    /// The same, nothing measured.
    pub(crate) fn missing(self) -> Option<Self> {
        match self {
            Self::Net(series, _) | Self::Import(series, _) | Self::Missing(series) => {
                Some(Self::Missing(series))
            }
            Self::Value(parameter, _) | Self::MissingValue(parameter) => Some(Self::MissingValue(parameter)),
            Self::Export(..) => None,
        }
    }

    pub(crate) fn same(self, other: Self) -> bool {
        match (self, other) {
            (Self::Net(_, a) | Self::Import(_, a), Self::Net(_, b) | Self::Import(_, b)) => a == b,
            (a, b) => a == b,
        }
    }
}

/// Checks the name of a meter.
pub(crate) fn meter(name: &str) -> Result<(), String> {
    const LONGEST: usize = 200;
    if name.is_empty() {
        return Err("is empty".to_owned());
    }
    if name.chars().any(char::is_control) {
        return Err(format!("`{}` holds a control character", shown(name)));
    }
    not_rounded(name)?;
    match name.chars().count() {
        n if n > LONGEST => Err(format!("has {n} characters, at most {LONGEST} are allowed")),
        _ => Ok(()),
    }
}

/// Refuses a name such as `8.71687E+17`: spreadsheets make that of long numbers, and so one name of many.
pub(crate) fn not_rounded(name: &str) -> Result<(), String> {
    let rounded = name.split_once(['E', 'e']).is_some_and(|(digits, exponent)| {
        let exponent = exponent.strip_prefix('+').unwrap_or_default();
        let (whole, rest) = digits.split_once(['.', ',']).unwrap_or((digits, "0"));
        let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        whole.len() == 1 && number(whole) && number(rest) && number(exponent)
    });
    if rounded {
        return Err(format!(
            "is `{}`, a number that a spreadsheet has rounded; have its column formatted as text, and export the file again",
            shown(name)
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_that_spreadsheets_have_rounded_are_no_names() {
        for name in ["8.71687E+17", "8,71687E+17", "1E+15", "2.5e+12"] {
            assert!(meter(name).unwrap_err().contains("spreadsheet"), "{name}");
        }
        for name in ["871687110000000017", "E+17", "1E17", "12E+3", "E1", "1.5E-3", "3E+", "ES0021E+1"] {
            assert!(meter(name).is_ok(), "{name}");
        }
    }

    #[test]
    fn names_that_are_not_allowed_are_told() {
        for (name, part) in [
            ("x.dead", "reserved"),
            ("galerna.alerts", "reserved"),
            ("amq.direct", "reserved"),
            (".", "folder"),
            ("..", "folder"),
            ("a b", "space"),
            ("a\u{7}", "control"),
            ("", "empty"),
        ] {
            let error = AccountId::for_customer(name).unwrap_err().to_string();
            assert!(error.contains(part), "{name}: {error}");
        }
        assert!(AccountId::for_customer("D0000591").is_ok());
        assert!(meter("ES0000000000000000XX").is_ok() && meter("a\tb").is_err() && meter("").is_err());
    }
}
