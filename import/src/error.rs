//! What can be wrong with a file, and with a line of it.

use std::fmt;

use galerna_model::{AccountId, Timestamp};
use serde::{Deserialize, Serialize};

use crate::units::{Target, Utility};

/// A file of which nothing can be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It is no text.
    #[error("the file is {found}, not a table, JSON or XML; {remedy}")]
    NotText {
        /// What it is.
        found: String,
        /// What to do.
        remedy: &'static str,
    },
    /// Its bytes are not of its encoding.
    #[error("the file is {encoding}, and {problem}; {remedy}")]
    Encoding {
        /// The encoding that was told or found.
        encoding: String,
        /// What breaks it.
        problem: String,
        /// What to do.
        remedy: &'static str,
    },
    /// No line of it is a header that is known.
    #[error("{found}; {remedy}")]
    Header {
        /// The line that looks most like a header, and what it lacks.
        found: String,
        /// What to do.
        remedy: String,
    },
    /// It can be read in more than one way.
    #[error("{found}; {remedy}")]
    Ambiguous {
        /// What was found.
        found: String,
        /// How to say which way is meant.
        remedy: String,
    },
    /// It does not say all that a reading needs.
    #[error("{shape} does not say {}; add {}", .lacks.iter().map(|l| l.what).collect::<Vec<_>>().join(" nor "), .lacks.iter().map(|l| l.remedy).collect::<Vec<_>>().join(" and "))]
    Lacks {
        /// What the file was taken for.
        shape: String,
        /// What is missing.
        lacks: Vec<Lack>,
    },
    /// Its form is broken.
    #[error("{found}")]
    Broken {
        /// Where and how.
        found: String,
    },
    /// An option or a mapping is wrong.
    #[error("{what} is `{value}`: {problem}")]
    Option {
        /// The option.
        what: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it, and what to write.
        problem: String,
    },
}

/// Something that a file does not say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lack {
    /// For instance `the account`.
    pub what: &'static str,
    /// The option that says it.
    pub remedy: &'static str,
}

/// What of a line is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum RowFault {
    /// It has too few or too many fields.
    Fields,
    /// It is not text of the file's encoding.
    Encoding,
    /// A quote is not closed, or closed lines later.
    Quote,
    /// Its account's name.
    Account,
    /// Its meter's name.
    Meter,
    /// Its utility or unit.
    Unit,
    /// Its time.
    Time,
    /// Its value.
    Value,
    /// Its kind is not one of those that the mapping reads or skips.
    Kind,
    /// Another line says something else of the same meter and time.
    Conflict,
    /// The store would not take what it makes.
    Unstorable,
    /// It is not JSON, or a reading in it is wrong.
    Reading,
}

/// A line, or several, of which no reading was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowError {
    /// The first line, from 1.
    pub line: u64,
    /// The last line; the same as the first but where a quote spans lines.
    pub last_line: u64,
    /// How many lines or values are not published for it.
    pub rows: u64,
    /// Which rule was broken.
    pub fault: RowFault,
    /// What was found and what to do.
    pub found: String,
    /// What is known of it all the same.
    #[serde(skip)]
    pub(crate) place: Option<Box<Place>>,
}

/// What is known of a value that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The account and the meter.
    pub(crate) meter: Option<(AccountId, String)>,
    /// When its interval ends: others are as long as they are because of it.
    pub(crate) time: Option<PlaceTime>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct PlaceTime {
    pub(crate) ts: Timestamp,
    pub(crate) target: Target,
    pub(crate) length_ms: Option<i64>,
    pub(crate) usual_ms: Option<i64>,
    /// Of which utility it is, where others have its parameters too.
    pub(crate) utility: Option<Utility>,
}

impl RowError {
    pub(crate) fn new(line: u64, fault: RowFault, found: impl fmt::Display) -> Self {
        Self { line, last_line: line, rows: 1, fault, found: found.to_string(), place: None }
    }
}

impl fmt::Display for RowError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.last_line > self.line {
            write!(f, "lines {} to {}: {}", self.line, self.last_line, self.found)
        } else {
            write!(f, "line {}: {}", self.line, self.found)
        }
    }
}

impl std::error::Error for RowError {}

/// A text for an error message: control characters are escaped, and a long one is cut.
pub(crate) fn shown(text: &str) -> String {
    const MOST: usize = 60;
    let mut out: String = text
        .chars()
        .take(MOST)
        .flat_map(|c| {
            let escaped: Vec<char> = if c.is_control() { c.escape_default().collect() } else { vec![c] };
            escaped
        })
        .collect();
    if text.chars().nth(MOST).is_some() {
        out.push('…');
    }
    out
}
