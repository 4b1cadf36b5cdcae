//! Why a reading is refused.

use std::fmt;

/// The classes of rejection: a closed set, so that counts by class can be compared over time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RejectCode {
    /// The message as a whole cannot be read.
    Undecodable,
    /// The message names another account than that of its queue.
    ForeignAccount,
    /// A field is missing or of the wrong type.
    Malformed,
    /// The device id is empty, too long or holds control characters.
    Device,
    /// The reading has no value.
    NoValues,
    /// The reading has too many values.
    TooManyValues,
    /// A parameter occurs twice in the reading.
    DuplicateParameter,
    /// A parameter code is in no registry.
    UnknownParameter,
    /// A value is NaN or infinite.
    NotANumber,
    /// A value is not possible for its parameter.
    OutOfRange,
    /// The time is not an instant: not RFC 3339, without a zone, or in another unit than milliseconds.
    BadTime,
    /// The time is further in the future than clocks may be wrong.
    TimeInFuture,
    /// The time is before any reading that there can be.
    TimeTooOld,
}

impl RejectCode {
    /// All classes, in the order of this declaration.
    pub const ALL: [Self; 13] = [
        Self::Undecodable,
        Self::ForeignAccount,
        Self::Malformed,
        Self::Device,
        Self::NoValues,
        Self::TooManyValues,
        Self::DuplicateParameter,
        Self::UnknownParameter,
        Self::NotANumber,
        Self::OutOfRange,
        Self::BadTime,
        Self::TimeInFuture,
        Self::TimeTooOld,
    ];

    /// Its name in the store, in reports and in metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Undecodable => "undecodable",
            Self::ForeignAccount => "foreign_account",
            Self::Malformed => "malformed",
            Self::Device => "device",
            Self::NoValues => "no_values",
            Self::TooManyValues => "too_many_values",
            Self::DuplicateParameter => "duplicate_parameter",
            Self::UnknownParameter => "unknown_parameter",
            Self::NotANumber => "not_a_number",
            Self::OutOfRange => "out_of_range",
            Self::BadTime => "bad_time",
            Self::TimeInFuture => "time_in_future",
            Self::TimeTooOld => "time_too_old",
        }
    }
}

impl fmt::Display for RejectCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A rule that a reading breaks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct BadReading {
    /// The class.
    pub code: RejectCode,
    /// The field, for instance `values[1].v`; `reading` for the whole.
    pub field: String,
    /// What is wrong, for people; names the field: `values[1].v is NaN`.
    pub reason: String,
}

impl BadReading {
    /// `problem` says what is wrong with the field, and begins with a verb or a colon: `is NaN`.
    pub fn new(code: RejectCode, field: impl Into<String>, problem: impl fmt::Display) -> Self {
        let field = field.into();
        let problem = problem.to_string();
        let space = if problem.starts_with(':') { "" } else { " " };
        Self { code, reason: format!("{field}{space}{problem}"), field }
    }
}
