//! From text to records, with the lines that they stand on.

use crate::error::{RowError, RowFault, shown};

/// Where the lines of a text begin. Lines end in LF, CR LF or CR.
#[derive(Debug)]
pub(crate) struct Lines {
    starts: Vec<usize>,
    length: usize,
}

impl Lines {
    pub(crate) fn of(text: &[u8]) -> Self {
        let mut starts = vec![0];
        let mut at = 0;
        while at < text.len() {
            match text[at] {
                b'\n' => starts.push(at + 1),
                b'\r' if text.get(at + 1) != Some(&b'\n') => starts.push(at + 1),
                _ => {}
            }
            at += 1;
        }
        Self { starts, length: text.len() }
    }

    /// The line, from 1, of an offset.
    pub(crate) fn line(&self, offset: usize) -> u64 {
        self.starts.partition_point(|start| *start <= offset) as u64
    }

    /// Where a line, from 1, begins: the end of the text when there is none.
    pub(crate) fn start(&self, line: u64) -> usize {
        usize::try_from(line)
            .ok()
            .and_then(|line| self.starts.get(line.checked_sub(1)?))
            .copied()
            .unwrap_or(self.length)
    }

    /// The text of a line without its end.
    pub(crate) fn text<'t>(&self, text: &'t [u8], line: u64) -> &'t [u8] {
        text[self.start(line)..self.start(line + 1)].trim_ascii_end()
    }

    /// Lines of the text that are not blank, from this one on.
    pub(crate) fn filled_from(&self, text: &[u8], line: u64) -> u64 {
        (line..=self.starts.len() as u64)
            .filter(|line| !self.text(text, *line).trim_ascii().is_empty())
            .count() as u64
    }

    pub(crate) fn count(&self) -> u64 {
        self.starts.len() as u64
    }
}

/// A record, or why it is none.
pub(crate) struct Record {
    pub(crate) line: u64,
    pub(crate) last_line: u64,
    pub(crate) fields: Result<csv::StringRecord, RowError>,
}

/// Reads the records of a text.
pub(crate) struct Records<'t> {
    text: &'t [u8],
    lines: &'t Lines,
    reader: csv::Reader<&'t [u8]>,
    /// Where `reader` begins in the text.
    from: usize,
    record: csv::ByteRecord,
    /// The quote that nothing closes: its line.
    unclosed: Option<u64>,
}

impl<'t> Records<'t> {
    /// Reads from this line on.
    pub(crate) fn new(text: &'t [u8], lines: &'t Lines, line: u64, delimiter: u8) -> Self {
        let from = lines.start(line);
        let unclosed = unclosed_quote(&text[from..], delimiter).map(|at| lines.line(from + at));
        let until = unclosed.map_or(text.len(), |line| lines.start(line));
        Self {
            text,
            lines,
            reader: reader(&text[from..until], delimiter),
            from,
            record: csv::ByteRecord::new(),
            unclosed,
        }
    }

    fn unclosed(&mut self) -> Option<Record> {
        let line = self.unclosed.take()?;
        let rows = self.lines.filled_from(self.text, line);
        let last_line = (line..=self.lines.count())
            .rev()
            .find(|line| !self.lines.text(self.text, *line).trim_ascii().is_empty())
            .unwrap_or(line);
        let found = format!(
            "a quote opened on line {line} is not closed, so lines {line} to {last_line} ({rows} lines) were not published; close or remove it"
        );
        let error = RowError { last_line, rows, ..RowError::new(line, RowFault::Quote, found) };
        Some(Record { line, last_line, fields: Err(error) })
    }
}

impl Iterator for Records<'_> {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        // Reading from memory cannot fail, and records may have any number of fields.
        if !self.reader.read_byte_record(&mut self.record).unwrap_or(false) {
            return self.unclosed();
        }
        let mut start =
            self.from + self.record.position().map_or(0, |p| usize::try_from(p.byte()).unwrap_or(0));
        // The position is from before the line ends that the reader skipped.
        while self.text.get(start).is_some_and(|b| matches!(b, b'\r' | b'\n')) {
            start += 1;
        }
        let end = self.from + usize::try_from(self.reader.position().byte()).unwrap_or(0);
        let line = self.lines.line(start);
        let last_line = self.lines.line(end.saturating_sub(1).max(start));
        let fields = csv::StringRecord::from_byte_record(std::mem::take(&mut self.record)).map_err(|error| {
            let field = error.utf8_error().field();
            let bytes = error.into_byte_record();
            let text = String::from_utf8_lossy(bytes.get(field).unwrap_or_default()).into_owned();
            RowError::new(
                line,
                RowFault::Encoding,
                format!(
                    "field {} (`{}`) is not UTF-8; save the file as UTF-8, or say its --encoding, such as windows-1252",
                    field + 1,
                    shown(&text)
                ),
            )
        });
        Some(Record { line, last_line, fields })
    }
}

fn reader(text: &[u8], delimiter: u8) -> csv::Reader<&[u8]> {
    csv::ReaderBuilder::new().has_headers(false).flexible(true).delimiter(delimiter).from_reader(text)
}

/// The fields of a single line, trimmed.
pub(crate) fn cells(line: &[u8], delimiter: u8) -> Vec<String> {
    let mut record = csv::ByteRecord::new();
    if !reader(line, delimiter).read_byte_record(&mut record).unwrap_or(false) {
        return Vec::new();
    }
    record.iter().map(|cell| String::from_utf8_lossy(cell).trim().to_owned()).collect()
}

/// Where the quote stands that is still open at the end. Quotes count at the beginning of a field only.
fn unclosed_quote(text: &[u8], delimiter: u8) -> Option<usize> {
    let (mut at, mut field_start) = (0, true);
    while at < text.len() {
        if field_start && text[at] == b'"' {
            let opened = at;
            at += 1;
            loop {
                match text.get(at) {
                    None => return Some(opened),
                    Some(b'"') if text.get(at + 1) == Some(&b'"') => at += 2,
                    Some(b'"') => break,
                    Some(_) => at += 1,
                }
            }
        }
        field_start = matches!(text.get(at), Some(b'\r' | b'\n')) || text.get(at) == Some(&delimiter);
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(u64, u64, Result<Vec<String>, String>)> {
        let lines = Lines::of(text.as_bytes());
        Records::new(text.as_bytes(), &lines, 1, b',')
            .map(|r| {
                let fields = r.fields.map(|f| f.iter().map(str::to_owned).collect()).map_err(|e| e.found);
                (r.line, r.last_line, fields)
            })
            .collect()
    }

    #[test]
    fn records_have_their_lines_whatever_ends_them() {
        for end in ["\n", "\r\n", "\r"] {
            let text = ["a,b", "", "c,\"d", "e\"", "", "f,g", ""].join(end);
            let got: Vec<_> =
                read(&text).into_iter().map(|(a, b, fields)| (a, b, fields.unwrap().len())).collect();
            assert_eq!(got, [(1, 1, 2), (3, 4, 2), (6, 6, 2)], "{end:?}");
        }
    }

    #[test]
    fn a_quote_that_is_not_closed_is_named_with_what_it_takes() {
        let got = read("a,b\nx,\"y\nz,1\n\nw,2\n");
        assert_eq!(got.len(), 2);
        let (line, last, error) = &got[1];
        assert_eq!((*line, *last), (2, 5));
        let error = error.as_ref().unwrap_err();
        assert!(error.contains("opened on line 2 is not closed") && error.contains("(3 lines)"), "{error}");
        assert!(read("a,b\"c\nd,\"e\"\"f\"\n").iter().all(|(.., fields)| fields.is_ok()));
    }
}
