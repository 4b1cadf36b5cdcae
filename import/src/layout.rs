//! A mapping bound to the header of a file: from records to values.

use std::collections::HashMap;

use galerna_model::AccountId;
use jiff::civil::DateTime;

use crate::grid::Grid;
use crate::mapping::{Direction, Edge, OneOrMore, ValueKind};
use crate::number::DecimalMark;
use crate::times::{Overlap, Stamp, TimeFormat, Zone};
use crate::units::Measure;

mod binding;
mod meaning;
mod order;
mod preamble;
mod records;

pub(crate) use binding::Header;
pub(crate) use records::amount;

/// What takes no room where it is shown: zero-width characters and byte order marks, which copying from pages brings along.
fn is_invisible(c: char) -> bool {
    // Accents that are written behind their letter are left out with those that are written with it.
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}' | '\u{ad}' | '\u{300}'..='\u{36f}')
}

/// A letter without its accent: exports have both `Unité` and `Unite`.
fn plain(c: char) -> char {
    match c {
        'à'..='å' => 'a',
        'ç' => 'c',
        'è'..='ë' => 'e',
        'ì'..='ï' => 'i',
        'ñ' => 'n',
        'ò'..='ö' => 'o',
        'ù'..='ü' => 'u',
        other => other,
    }
}

/// A column's name without what is only writing: case, accents, what stands between words, and what is not seen.
pub(crate) fn normalized(name: &str) -> String {
    let seen: String;
    let name = if name.contains(is_invisible) {
        seen = name.replace(is_invisible, "");
        &seen
    } else {
        name
    };
    let mut out = String::with_capacity(name.len());
    for word in name.split(|c: char| c.is_whitespace() || matches!(c, '_' | '-')).filter(|w| !w.is_empty()) {
        if !out.is_empty() {
            out.push('_');
        }
        out.extend(word.chars().flat_map(char::to_lowercase).map(plain));
    }
    out
}

/// Where a text comes from.
#[derive(Debug, Clone)]
enum Source {
    Fixed(String),
    /// A column; what is empty there is this.
    Column(usize, Option<String>),
    Nowhere,
}

impl Source {
    fn of<'r>(&'r self, record: &'r csv::StringRecord) -> Option<&'r str> {
        match self {
            Self::Fixed(text) => Some(text),
            Self::Column(at, otherwise) => {
                let text = written(record.get(*at).unwrap_or_default());
                if text.is_empty() { otherwise.as_deref() } else { Some(text) }
            }
            Self::Nowhere => None,
        }
    }
}

/// A field's text. Some exports have `="541"`, which spreadsheets show as 541 and do not round.
fn written(field: &str) -> &str {
    let text = field.trim();
    text.strip_prefix("=\"").and_then(|text| text.strip_suffix('"')).unwrap_or(text)
}

/// What the values of a column or grid are.
#[derive(Debug, Clone)]
pub(crate) struct Meaning {
    utility: Source,
    unit: Source,
    direction: Direction,
    kind: ValueKind,
    /// Known at the beginning where neither utility nor unit is a column.
    measure: Option<Measure>,
}

#[derive(Debug, Clone)]
struct Value {
    at: usize,
    /// The meter that the column is named after.
    meter: Option<String>,
    meaning: Meaning,
    when: Vec<(usize, OneOrMore)>,
}

#[derive(Debug, Clone)]
enum Times {
    /// Date and time in one column, and perhaps the end in another.
    One {
        at: usize,
        format: TimeFormat,
        end: Option<usize>,
    },
    Clock {
        date: usize,
        date_format: TimeFormat,
        clock: usize,
        clock_formats: Vec<String>,
        /// A number there is that of the hour in its day.
        numbered: bool,
        /// The date, where it is another column, and the clock time of the end.
        end: Option<(Option<usize>, usize)>,
    },
    Hour {
        date: usize,
        date_format: TimeFormat,
        hour: usize,
    },
    Grid {
        date: usize,
        date_format: TimeFormat,
    },
}

/// Where the times of a row are.
struct Placed {
    stamp: Stamp,
    edge: Edge,
    length: Option<i64>,
    /// The end on a clock, where `stamp` is the beginning on one.
    end: Option<DateTime>,
}

/// How the rows of a file are read.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    pub(crate) shape: String,
    header: Vec<String>,
    /// Fields that a record must have.
    needed: usize,
    account: Source,
    meter: Source,
    interval: Source,
    interval_suffix: String,
    usual_ms: Option<i64>,
    times: Times,
    edge: Edge,
    end_inclusive_ms: i64,
    pub(crate) zone: Zone,
    pub(crate) mark: DecimalMark,
    values: Vec<Value>,
    grids: Vec<Grid>,
    skip: Vec<(usize, OneOrMore)>,
    /// Times of clock changes are the beginning's and an interval: 03:00 occurs twice, and 02:00 does not.
    pub(crate) ends_by_start: bool,
    /// The newest row of a meter stands first.
    pub(crate) newest_first: bool,
    account_before: Option<AccountId>,
    /// How often a local time that occurs twice was read of a meter.
    occurrences: HashMap<(String, usize, DateTime), u8>,
    measures: HashMap<(usize, String, String), Result<Measure, String>>,
    /// Rows that the mapping leaves out.
    pub(crate) skipped: u64,
}

impl Layout {
    /// The places of the columns that every record must have.
    fn used(&self) -> impl Iterator<Item = usize> {
        let times = match &self.times {
            Times::One { at, end, .. } => [Some(*at), *end, None],
            Times::Clock { date, clock, end, .. } => {
                [Some(*date), Some(*clock), end.map(|(date, clock)| date.unwrap_or(0).max(clock))]
            }
            Times::Hour { date, hour, .. } => [Some(*date), Some(*hour), None],
            Times::Grid { date, .. } => [Some(*date), None, None],
        };
        let column = |source: &Source| match source {
            Source::Column(at, _) => Some(*at),
            _ => None,
        };
        let meanings = self.values.iter().flat_map(move |v| {
            let kinds = v.when.iter().map(|when| when.0).max();
            [Some(v.at), column(&v.meaning.unit), column(&v.meaning.utility), kinds]
        });
        let grids = self.grids.iter().filter(|grid| !grid.optional).map(Grid::last_column);
        times
            .into_iter()
            .chain([column(&self.account), column(&self.meter)])
            .chain(meanings)
            .flatten()
            .chain(grids)
    }

    /// The texts of the values of a record.
    pub(crate) fn value_texts<'r>(&'r self, record: &'r csv::StringRecord) -> impl Iterator<Item = &'r str> {
        let values = self.values.iter().map(|value| value.at);
        let cells = self.grids.iter().flat_map(Grid::columns);
        values.chain(cells).filter_map(|at| record.get(at)).map(str::trim)
    }

    /// The local time of a record, where it has one: to see which end of the file is the newer.
    pub(crate) fn local_time(&self, record: &csv::StringRecord) -> Option<DateTime> {
        match self.placed(record).ok()?.stamp {
            Stamp::Local(local) => Some(local),
            Stamp::Instant(_) => None,
        }
    }

    pub(crate) fn takes_order(&self) -> bool {
        self.zone.overlap == Overlap::Order
    }

    fn field<'r>(&self, record: &'r csv::StringRecord, at: usize) -> &'r str {
        written(record.get(at).unwrap_or_default())
    }

    fn name(&self, at: usize) -> String {
        normalized(self.header.get(at).map_or("", String::as_str))
    }
}
