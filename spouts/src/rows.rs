//! Reading rows of a file, the bad ones told apart with their place.

use std::collections::VecDeque;
use std::io::{self, BufRead, BufReader, Read};
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use serde::de::DeserializeOwned;

/// The longest line, in bytes; a longer one is a bad row.
const LONGEST_LINE: usize = 16 << 20;
/// The most of a bad row that is shown.
const SHOWN_CHARS: usize = 200;

/// What a file holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileForm {
    /// A JSON value a line.
    Ndjson,
    /// Comma-separated values with a header; a first line `sep=;` sets another separator.
    Csv,
}

impl FileForm {
    /// The form that a file's name tells, a final `.gz` apart: `.csv`, or `.ndjson`, `.jsonl`, `.json`.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?.to_ascii_lowercase();
        match name.strip_suffix(".gz").unwrap_or(&name).rsplit_once('.')?.1 {
            "csv" => Some(Self::Csv),
            "ndjson" | "jsonl" | "json" => Some(Self::Ndjson),
            _ => None,
        }
    }
}

/// A row that could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}, line {line}{}: {reason}", file.display(), column.map_or_else(String::new, |c| format!(", column {c}")))]
pub struct BadRow {
    /// The file.
    pub file: Arc<Path>,
    /// The line where the row begins, from 1.
    pub line: u64,
    /// Where in it, from 1: the field of a CSV row, the character of a JSON line. `None` when the row as a whole is bad.
    pub column: Option<u64>,
    /// What is wrong.
    pub reason: String,
    /// The row, shortened.
    pub text: String,
}

/// A good row and its line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row<T> {
    /// The line where it begins, from 1.
    pub line: u64,
    /// What it holds.
    pub value: T,
}

/// Reads the rows of a file: an iterator that gives each as `Ok`, or as a [`BadRow`] and goes on with the next.
///
/// Blank lines are left out. After an error of the file itself (a broken gzip stream, say) it ends.
///
/// ```
/// use galerna_spouts::{FileForm, RowReader};
///
/// #[derive(Debug, serde::Deserialize)]
/// struct Meter {
///     meter: String,
///     value: Option<f64>,
/// }
///
/// let text = "meter,value\na,1.5\nb,\nc,much\nd,1,2\n";
/// let rows: Vec<_> = RowReader::<_, Meter>::new("meters.csv".as_ref(), FileForm::Csv, text.as_bytes()).collect();
/// let b = rows[1].as_ref().unwrap();
/// assert_eq!((b.line, b.value.meter.as_str(), b.value.value), (3, "b", None));
/// assert_eq!(rows[2].as_ref().unwrap_err().to_string(), "meters.csv, line 4, column 2: `value`: invalid float literal");
/// assert_eq!(
///     rows[3].as_ref().unwrap_err().to_string(),
///     "meters.csv, line 5, column 3: 3 fields, the header has 2"
/// );
/// ```
pub struct RowReader<R, T> {
    file: Arc<Path>,
    form: Form<R>,
    ended: bool,
    row: PhantomData<fn() -> T>,
}

enum Form<R> {
    Json {
        from: BufReader<R>,
        line: u64,
    },
    /// A CSV file whose first line has not been looked at.
    Unopened(Option<BufReader<R>>),
    Csv(Box<Table<R>>),
}

/// The first line, which was looked at, and what follows it.
type Rejoined<R> = io::Chain<io::Cursor<Vec<u8>>, BufReader<R>>;

struct Table<R> {
    rows: csv::Reader<Lines<Rejoined<R>>>,
    header: csv::StringRecord,
    /// Lines before the header.
    before: u64,
}

impl<R: Read, T: DeserializeOwned> RowReader<R, T> {
    /// Reads `from`, which is called `file` in what is said of bad rows.
    pub fn new(file: &Path, form: FileForm, from: R) -> Self {
        let from = BufReader::with_capacity(1 << 16, from);
        let form = match form {
            FileForm::Ndjson => Form::Json { from, line: 0 },
            FileForm::Csv => Form::Unopened(Some(from)),
        };
        Self { file: file.into(), form, ended: false, row: PhantomData }
    }

    fn bad(&self, line: u64, column: Option<u64>, reason: impl Into<String>, text: &[u8]) -> BadRow {
        let text = String::from_utf8_lossy(&text[..text.len().min(4 * SHOWN_CHARS)]);
        let text = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(SHOWN_CHARS).collect();
        BadRow { file: self.file.clone(), line, column, reason: reason.into(), text }
    }

    fn open_csv(&mut self) -> Result<(), BadRow> {
        let Form::Unopened(from) = &mut self.form else { return Ok(()) };
        let Some(mut from) = from.take() else { return Ok(()) };
        let mut first = Vec::new();
        if let Err(error) = limited_line(&mut from, &mut first) {
            return Err(self.end(1, error.to_string()));
        }
        let text = first.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&first);
        let (delimiter, before) = match text.strip_prefix(b"sep=") {
            Some([separator, ..]) => (*separator, 1),
            _ => (b',', 0),
        };
        let start = if before == 1 { Vec::new() } else { text.to_vec() };
        let mut rows = csv::ReaderBuilder::new()
            .delimiter(delimiter)
            .trim(csv::Trim::All)
            .flexible(true)
            .from_reader(Lines::new(io::Cursor::new(start).chain(from)));
        match rows.headers() {
            Ok(header) => {
                let header = header.clone();
                self.form = Form::Csv(Box::new(Table { rows, header, before }));
                Ok(())
            }
            Err(error) => {
                let reason = format!("the header is not text: {}", csv_reason(&error));
                self.ended = true;
                Err(self.bad(1 + before, csv_column(&error), reason, &first))
            }
        }
    }

    fn end(&mut self, line: u64, reason: String) -> BadRow {
        self.ended = true;
        self.bad(line, None, format!("the file cannot be read any further: {reason}"), b"")
    }

    fn next_json(&mut self) -> Option<Result<Row<T>, BadRow>> {
        let Form::Json { from, line } = &mut self.form else { return None };
        let mut text = Vec::new();
        loop {
            text.clear();
            *line += 1;
            let number = *line;
            match limited_line(from, &mut text) {
                Ok(Line::End) => return None,
                Ok(Line::TooLong) => {
                    let reason = format!("the line is longer than {LONGEST_LINE} bytes");
                    return Some(Err(self.bad(number, None, reason, &text)));
                }
                Ok(Line::Text) => {}
                Err(error) => return Some(Err(self.end(number, error.to_string()))),
            }
            let trimmed = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text).trim_ascii();
            if trimmed.is_empty() {
                continue;
            }
            return Some(match serde_json::from_slice(trimmed) {
                Ok(value) => Ok(Row { line: number, value }),
                Err(error) => {
                    let column = Some(error.column() as u64).filter(|column| *column > 0);
                    let full = error.to_string();
                    // serde_json counts lines within the row, which has one.
                    let reason = full.split(" at line ").next().unwrap_or(&full);
                    Err(self.bad(number, column, reason, trimmed))
                }
            });
        }
    }

    fn next_csv(&mut self) -> Option<Result<Row<T>, BadRow>> {
        if matches!(self.form, Form::Unopened(_))
            && let Err(bad) = self.open_csv()
        {
            return Some(Err(bad));
        }
        let Form::Csv(table) = &mut self.form else { return None };
        let mut bytes = csv::ByteRecord::new();
        let (before, expected) = (table.before, table.header.len());
        match table.rows.read_byte_record(&mut bytes) {
            Ok(false) => return None,
            Ok(true) => {}
            Err(error) => {
                let line = error.position().map_or(0, csv::Position::line) + before;
                let reason = csv_reason(&error);
                return Some(Err(self.end(line, reason)));
            }
        }
        let start = bytes.position().map_or(0, csv::Position::byte);
        let line = table.rows.get_mut().line_at(start) + before;
        let shown = bytes.iter().collect::<Vec<_>>().join(&b',');
        let record = match csv::StringRecord::from_byte_record(bytes) {
            Ok(record) => record,
            Err(error) => {
                let column = error.utf8_error().field() as u64 + 1;
                return Some(Err(self.bad(line, Some(column), "it is not UTF-8 text", &shown)));
            }
        };
        if record.len() != expected {
            // The first field too many, or the first that is missing.
            let column = record.len().min(expected) as u64 + 1;
            let reason = format!("{} fields, the header has {expected}", record.len());
            return Some(Err(self.bad(line, Some(column), reason, &shown)));
        }
        Some(match record.deserialize(Some(&table.header)) {
            Ok(value) => Ok(Row { line, value }),
            Err(error) => {
                let column = csv_column(&error);
                let name = column.and_then(|c| table.header.get(usize::try_from(c).ok()?.checked_sub(1)?));
                let reason = match name {
                    Some(name) => format!("`{name}`: {}", csv_reason(&error)),
                    None => csv_reason(&error),
                };
                Err(self.bad(line, column, reason, &shown))
            }
        })
    }
}

impl<R: Read, T: DeserializeOwned> Iterator for RowReader<R, T> {
    type Item = Result<Row<T>, BadRow>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        match &self.form {
            Form::Json { .. } => self.next_json(),
            Form::Unopened(_) | Form::Csv(_) => self.next_csv(),
        }
    }
}

/// Counts lines. The position that the CSV reader gives of a row is from before the line ends (the second half of CR LF, blank
/// lines) that it skips to find the row.
struct Lines<R> {
    from: R,
    read: u64,
    /// Offsets of the line ends read and not yet passed; true for LF, which are counted.
    ends: VecDeque<(u64, bool)>,
    passed: u64,
}

impl<R> Lines<R> {
    fn new(from: R) -> Self {
        Self { from, read: 0, ends: VecDeque::new(), passed: 0 }
    }

    /// The line, from 1, of the first row at or after `offset`. Offsets must not go backwards.
    fn line_at(&mut self, mut offset: u64) -> u64 {
        while let Some((end, counts)) = self.ends.pop_front_if(|(end, _)| *end <= offset) {
            self.passed += u64::from(counts);
            if end == offset {
                offset += 1;
            }
        }
        self.passed + 1
    }
}

impl<R: Read> Read for Lines<R> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let n = self.from.read(into)?;
        for (i, byte) in into[..n].iter().enumerate() {
            if matches!(byte, b'\n' | b'\r') {
                self.ends.push_back((self.read + i as u64, *byte == b'\n'));
            }
        }
        self.read += n as u64;
        Ok(n)
    }
}

enum Line {
    Text,
    TooLong,
    End,
}

/// Reads a line, its end included; of one that is too long only the beginning is kept.
fn limited_line(from: &mut impl BufRead, into: &mut Vec<u8>) -> io::Result<Line> {
    let read = from.by_ref().take(LONGEST_LINE as u64).read_until(b'\n', into)?;
    if read == 0 {
        return Ok(Line::End);
    }
    if read < LONGEST_LINE || into.ends_with(b"\n") {
        return Ok(Line::Text);
    }
    from.skip_until(b'\n')?;
    Ok(Line::TooLong)
}

fn csv_reason(error: &csv::Error) -> String {
    match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => err.kind().to_string(),
        csv::ErrorKind::Utf8 { err, .. } => err.to_string(),
        csv::ErrorKind::Io(error) => error.to_string(),
        other => format!("{other:?}"),
    }
}

fn csv_column(error: &csv::Error) -> Option<u64> {
    match error.kind() {
        csv::ErrorKind::Deserialize { err, .. } => err.field().map(|field| field + 1),
        csv::ErrorKind::Utf8 { err, .. } => Some(err.field() as u64 + 1),
        _ => None,
    }
}

#[cfg(test)]
#[path = "rows_tests.rs"]
mod tests;
