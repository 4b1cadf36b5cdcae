//! A file, opened.

use std::collections::BTreeMap;

use galerna_model::AccountId;

use crate::encoding::{decode, is_no_text};
use crate::error::{ImportError, RowError, RowFault, shown};
use crate::layout::Layout;
use crate::mapping::MappedForm;
use crate::means::amounts_of_means;
use crate::number::{DecimalMark, MarkEvidence};
use crate::options::Options;
use crate::refused::{self, Refused};
use crate::row::{Amount, MeterValue, Row};
use crate::sniff::{named, sniff};
use crate::table::{Lines, Records};
use crate::{green_button, json};

/// What was found out of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Found {
    /// The name of the mapping that reads it, or `green-button`.
    pub mapping: String,
    /// Its encoding.
    pub encoding: &'static str,
    /// What separates its columns, for people; `None` where it has none.
    pub delimiter: Option<String>,
    /// The line of its header, from 1.
    pub header_line: Option<u64>,
    /// Whether its decimals follow a comma.
    pub decimal_comma: bool,
}

/// A file whose form is known, ready to be read.
///
/// ```
/// use galerna_import::{Import, Options};
///
/// let text = "account;meter_id;utility;ts;value;unit\nA;m1;electricity;2026-11-01T00:00:00Z;0,5;kWh\n";
/// let import = Import::open(text.into(), &Options::default()).unwrap();
/// assert!(import.found().decimal_comma);
/// let row = import.rows().next().unwrap().unwrap();
/// assert_eq!((row.account.as_str(), row.meter.as_str(), row.value.line), ("A", "m1", 2));
///
/// let error = Import::open(b"a,b\n1,2\n".to_vec(), &Options::default()).unwrap_err().to_string();
/// assert!(error.contains("line 1 has 2 columns, separated by `,`: `a`, `b`"), "{error}");
/// ```
#[derive(Debug)]
pub struct Import {
    found: Found,
    form: Form,
}

#[derive(Debug)]
enum Form {
    Table {
        text: Vec<u8>,
        lines: Lines,
        header: u64,
        delimiter: u8,
        layout: Box<Layout>,
    },
    /// Rows that were read with the form.
    Read(Vec<Result<Row, RowError>>),
}

/// All rows of a file, by meter, in the order of their times.
#[derive(Debug, Default)]
pub struct Meters {
    /// The values of each meter of each account.
    pub values: BTreeMap<(AccountId, String), Vec<MeterValue>>,
    /// What was wrong with lines, in the order of the file.
    pub errors: Vec<RowError>,
    /// Rows whose value is empty.
    pub without_value: u64,
    /// Rows that say again what another says.
    pub duplicates: u64,
    /// Rows that the mapping leaves out.
    pub skipped: u64,
}

impl Import {
    /// Finds out what a file is.
    ///
    /// # Errors
    /// [`ImportError`] says what was found, and what to do.
    pub fn open(bytes: Vec<u8>, options: &Options) -> Result<Self, ImportError> {
        let encoding =
            options.encoding.as_deref().or(options.mapping.as_ref().and_then(|m| m.encoding.as_deref()));
        let text = decode(bytes, encoding)?;
        let found = |mapping: &str| Found {
            mapping: mapping.to_owned(),
            encoding: text.encoding,
            delimiter: None,
            header_line: None,
            decimal_comma: false,
        };
        let start = text.bytes.trim_ascii_start();
        let mapped_json = options.mapping.as_ref().is_some_and(|mapping| mapping.form == MappedForm::Json);
        if start.starts_with(b"<") {
            let rows = green_button::read(&text.bytes, options)?;
            return Ok(Self { found: found("green-button"), form: Form::Read(rows) });
        }
        if mapped_json || start.starts_with(b"{") || start.starts_with(b"[{") {
            let (mapping, rows) = json::read(&text.bytes, options)?;
            return Ok(Self { found: found(&mapping), form: Form::Read(rows) });
        }
        let lines = Lines::of(&text.bytes);
        let sniffed = sniff(&text.bytes, &lines, options)?;
        let mut import = Self {
            found: Found {
                mapping: sniffed.layout.shape.clone(),
                encoding: text.encoding,
                delimiter: Some(named(sniffed.delimiter)),
                header_line: Some(sniffed.header),
                decimal_comma: false,
            },
            form: Form::Table {
                text: text.bytes,
                lines,
                header: sniffed.header,
                delimiter: sniffed.delimiter,
                layout: Box::new(sniffed.layout),
            },
        };
        let mark = import.mark(options)?;
        import.found.decimal_comma = mark == DecimalMark::Comma;
        if let Form::Table { layout, .. } = &import.form {
            let mut settled = layout.clone();
            settled.mark = mark;
            settled.settle(|| import.records().filter_map(|r| Some((r.line, r.fields.ok()?))))?;
            if let Form::Table { layout, .. } = &mut import.form {
                *layout = settled;
            }
        }
        Ok(import)
    }

    /// Whether a JSON file with this beginning holds rows of an export that is known, and not readings.
    pub fn is_json_export(beginning: &[u8]) -> bool {
        json::is_export(beginning)
    }

    /// Whether a file with this beginning is a workbook, an archive or the like, as reading it as a table would say by its name.
    pub fn is_no_text(beginning: &[u8]) -> bool {
        is_no_text(beginning)
    }

    /// What was found out.
    pub fn found(&self) -> &Found {
        &self.found
    }

    fn mark(&self, options: &Options) -> Result<DecimalMark, ImportError> {
        let mapped = options.mapping.as_ref().and_then(|mapping| mapping.decimal);
        if let Some(told) = options.decimal.or(mapped) {
            return DecimalMark::of(told).ok_or_else(|| ImportError::Option {
                what: "the decimal mark",
                value: told.to_string(),
                problem: "it is a point or a comma".to_owned(),
            });
        }
        let mut evidence = MarkEvidence::default();
        let Form::Table { layout, .. } = &self.form else { return Ok(DecimalMark::Point) };
        for record in self.records() {
            if let Ok(fields) = &record.fields {
                layout.value_texts(fields).for_each(|text| evidence.look(record.line, text));
            }
        }
        evidence.mark()
    }

    fn records(&self) -> Records<'_> {
        match &self.form {
            Form::Table { text, lines, header, delimiter, .. } => {
                Records::new(text, lines, header + 1, *delimiter)
            }
            Form::Read(_) => Records::new(&[], NO_LINES.get_or_init(|| Lines::of(&[])), 1, b','),
        }
    }

    /// The rows, in the order of the file.
    pub fn rows(&self) -> Rows<'_> {
        let (layout, read) = match &self.form {
            Form::Table { layout, .. } => (Some(Layout::clone(layout)), &[][..]),
            Form::Read(rows) => (None, &rows[..]),
        };
        Rows { records: self.records(), layout, read: read.iter(), pending: Vec::new() }
    }

    /// All rows, by meter, in the order of their times. Two rows that say different things of one time are both refused.
    pub fn meters(&self) -> Meters {
        let mut meters = Meters::default();
        let mut rows = self.rows();
        for row in &mut rows {
            match row {
                Ok(Row { account, meter, value }) => {
                    let missing = matches!(value.amount, Amount::Missing(_) | Amount::MissingValue(_));
                    meters.without_value += u64::from(missing);
                    meters.values.entry((account, meter)).or_default().push(value);
                }
                Err(error) => {
                    if let Some((whose, value)) = refused::missing(&error) {
                        meters.values.entry(whose).or_default().push(value);
                    }
                    meters.errors.push(error);
                }
            }
        }
        meters.skipped = rows.skipped();
        let refused = Refused::of(&meters.errors);
        meters.values.iter_mut().for_each(|(whose, values)| refused.mark(whose, values));
        for (whose, values) in &mut meters.values {
            let mut sorted =
                in_order(std::mem::take(values), &whose.1, &mut meters.errors, &mut meters.duplicates);
            amounts_of_means(&mut sorted, &mut meters.errors);
            *values = sorted;
        }
        meters.errors.sort_by_key(|error| error.line);
        meters
    }
}

static NO_LINES: std::sync::OnceLock<Lines> = std::sync::OnceLock::new();

/// Puts the values of a meter in order. What is said twice is kept once; where two lines differ neither is kept, because
/// nothing says which is right.
fn in_order(
    mut values: Vec<MeterValue>,
    meter: &str,
    errors: &mut Vec<RowError>,
    duplicates: &mut u64,
) -> Vec<MeterValue> {
    // Utilities that share their parameters are of two meters, whatever the meters are called.
    let slot = |value: &MeterValue| (value.utility, value.amount.slot());
    values.sort_by_key(|value| (value.ts, slot(value), value.line));
    let mut kept: Vec<MeterValue> = Vec::with_capacity(values.len());
    for group in values.chunk_by(|a, b| a.ts == b.ts && slot(a) == slot(b)) {
        let said: Vec<&MeterValue> = group.iter().filter(|value| !value.amount.is_missing()).collect();
        let Some(first) = said.first() else {
            kept.extend(group.first());
            continue;
        };
        let differs = said.iter().find(|value| !value.amount.same(first.amount));
        let Some(other) = differs else {
            *duplicates += said.len() as u64 - 1;
            kept.push(**first);
            continue;
        };
        for value in &said {
            let twin = if value.line == first.line { other } else { first };
            errors.push(RowError::new(
                value.line,
                RowFault::Conflict,
                format!(
                    "meter `{}` has another value at {} on line {}; neither is published, keep one (or their sum, where each is of a tariff)",
                    shown(meter),
                    value.ts,
                    twin.line
                ),
            ));
        }
        // The time of the interval is known all the same.
        kept.extend(first.amount.missing().map(|amount| MeterValue { amount, ..**first }));
    }
    kept
}

/// The rows of a file, or what is wrong with them.
pub struct Rows<'i> {
    records: Records<'i>,
    layout: Option<Layout>,
    read: std::slice::Iter<'i, Result<Row, RowError>>,
    /// Of the current record, the last first.
    pending: Vec<Result<Row, RowError>>,
}

impl Rows<'_> {
    /// Rows so far that the mapping leaves out.
    pub fn skipped(&self) -> u64 {
        self.layout.as_ref().map_or(0, |layout| layout.skipped)
    }
}

impl Iterator for Rows<'_> {
    type Item = Result<Row, RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(row) = self.pending.pop() {
                return Some(row);
            }
            if let Some(row) = self.read.next() {
                return Some(row.clone());
            }
            let layout = self.layout.as_mut()?;
            let record = self.records.next()?;
            match record.fields {
                Ok(fields) => {
                    let before = self.pending.len();
                    layout.read(record.line, &fields, &mut self.pending);
                    if record.last_line > record.line {
                        spanning(&mut self.pending[before..], record.line, record.last_line);
                    }
                    self.pending.reverse();
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// A record of several lines that is wrong has most likely a quote that only a later line closes.
fn spanning(rows: &mut [Result<Row, RowError>], line: u64, last_line: u64) {
    for error in rows.iter_mut().filter_map(|row| row.as_mut().err()) {
        error.last_line = last_line;
        error.rows = last_line - line + 1;
        error.found = format!("a quote opened on line {line} is closed on line {last_line}; {}", error.found);
        error.fault = RowFault::Quote;
    }
}
