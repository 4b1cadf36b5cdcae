//! The rows of the extract that is built into the demo, in Galerna's own columns, and the values that meters send for them.
//!
//! What users' files hold is read by `galerna-import`; here the file is known, of hourly values, and the demo replays it often.
//!
//! | row | values |
//! |---|---|
//! | electricity, kWh | 402: the running sum; 401: kWh × 1000 (mean W of the hour) |
//! | gas, kWh | 420: the running sum |
//! | water, ml/s | 902: ml/s × 3600 / 10⁶ (m³/h) |
//! | solar, W | 401 as it is, negative at night |
//! | no value | none: a real gap |
//!
//! Sums and products are rounded to a millionth, so that the noise of binary fractions does not travel.

use std::io::Read;

use galerna_model::{Measurement, ParameterCode, Timestamp};

/// Columns that a file must have, in any order; others are ignored.
const COLUMNS: [&str; 6] = ["account", "meter_id", "utility", "ts", "value", "unit"];

/// A row that cannot be used, or a file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RowError {
    /// A column is not there.
    #[error(
        "column `{0}` is missing in the first line; the columns are account, meter_id, utility, ts, value, unit"
    )]
    Column(&'static str),
    /// A field cannot be used.
    #[error("line {line}: {field} {problem}")]
    Field {
        /// Where.
        line: u64,
        /// Which.
        field: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// A line is no CSV.
    #[error("line {line}: {cause}")]
    Csv {
        /// Where.
        line: u64,
        /// Why.
        cause: csv::Error,
    },
}

/// How a meter's interval becomes values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mapping {
    /// kWh of an hour.
    Electricity,
    /// kWh of an hour.
    Gas,
    /// ml/s over an hour.
    Water,
    /// W, negative at night.
    Solar,
}

impl Mapping {
    fn of(utility: &str, unit: &str) -> Option<Self> {
        match (utility, unit) {
            ("electricity", "kWh") => Some(Self::Electricity),
            ("gas", "kWh") => Some(Self::Gas),
            ("water", "ml/s") => Some(Self::Water),
            ("solar", "W") => Some(Self::Solar),
            _ => None,
        }
    }

    /// The values of an interval, given the meter's running sum, which it advances.
    pub(crate) fn values(self, value: f64, sum: &mut f64) -> Vec<Measurement> {
        let of = |p, v| Measurement { p: ParameterCode(p), v: rounded(v) };
        match self {
            Self::Electricity => {
                *sum += value;
                vec![of(402, *sum), of(401, value * 1000.0)]
            }
            Self::Gas => {
                *sum += value;
                vec![of(420, *sum)]
            }
            Self::Water => vec![of(902, value * 3600.0 / 1e6)],
            Self::Solar => vec![of(401, value)],
        }
    }
}

fn rounded(v: f64) -> f64 {
    let r = (v * 1e6).round() / 1e6;
    if r.is_finite() { r } else { v }
}

/// A row with its value.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row<'a> {
    /// Where it stands in the file.
    pub(crate) line: u64,
    /// The account as written.
    pub(crate) account: &'a str,
    /// The meter as written.
    pub(crate) meter: &'a str,
    /// How its value becomes measurements.
    pub(crate) mapping: Mapping,
    /// The beginning of the interval.
    pub(crate) ts: Timestamp,
    /// `None`: the source has no reading.
    pub(crate) value: Option<f64>,
}

/// Reads a file in the canonical columns, a row at a time.
pub(crate) struct Rows<R> {
    reader: csv::Reader<R>,
    record: csv::StringRecord,
    columns: [usize; COLUMNS.len()],
}

impl<R: Read> Rows<R> {
    /// Reads the first line.
    pub(crate) fn open(input: R) -> Result<Self, RowError> {
        let mut reader = csv::ReaderBuilder::new().buffer_capacity(1 << 16).from_reader(input);
        let header = reader.headers().map_err(|cause| RowError::Csv { line: 1, cause })?;
        let mut columns = [0; COLUMNS.len()];
        for (at, name) in columns.iter_mut().zip(COLUMNS) {
            *at = header.iter().position(|h| h.trim() == name).ok_or(RowError::Column(name))?;
        }
        Ok(Self { reader, record: csv::StringRecord::new(), columns })
    }

    /// The next row; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<Result<Row<'_>, RowError>> {
        let line = self.reader.position().line();
        match self.reader.read_record(&mut self.record) {
            Ok(true) => Some(self.row()),
            Ok(false) => None,
            Err(cause) => Some(Err(RowError::Csv { line, cause })),
        }
    }

    fn row(&self) -> Result<Row<'_>, RowError> {
        let [account, meter, utility, ts, value, unit] =
            self.columns.map(|at| self.record.get(at).unwrap_or_default().trim());
        let line = self.record.position().map_or(0, csv::Position::line);
        let wrong = |field, problem| RowError::Field { line, field, problem };
        let mapping = Mapping::of(utility, unit).ok_or_else(|| {
            let problem = format!(
                "`{utility}` in `{unit}` has no mapping; there is electricity or gas in kWh, water in ml/s, solar in W"
            );
            wrong("utility", problem)
        })?;
        let ts = Timestamp::parse(ts).map_err(|problem| wrong("ts", format!("is wrong: {problem}")))?;
        let value = match value {
            "" => None,
            text => match text.parse::<f64>() {
                Ok(v) if v.is_finite() => Some(v),
                _ => return Err(wrong("value", format!("`{text}` is not a finite number"))),
            },
        };
        if meter.is_empty() {
            return Err(wrong("meter_id", "is empty".to_owned()));
        }
        Ok(Row { line, account, meter, mapping, ts, value })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_row_is_an_error_that_names_line_and_field() {
        for (row, parts) in [
            ("s,A,b,m1,steam,2017-01-01T00:00:00+00:00,1,kWh", ["line 2", "utility `steam`"]),
            ("s,A,b,m1,electricity,2017-01-01T00:00:00,1,kWh", ["line 2", "no zone"]),
            ("s,A,b,m1,electricity,2017-01-01T00:00:00+00:00,NaN,kWh", ["line 2", "value `NaN`"]),
            ("s,A,b,,electricity,2017-01-01T00:00:00+00:00,1,kWh", ["line 2", "meter_id"]),
            ("s,A,b", ["line 2", "3 fields"]),
        ] {
            let text = format!("source,account,building,meter_id,utility,ts,value,unit\n{row}");
            let mut rows = Rows::open(text.as_bytes()).unwrap();
            let error = rows.next().unwrap().expect_err(row).to_string();
            assert!(parts.iter().all(|p| error.contains(p)), "{row}: {error}");
        }
        let error = Rows::open(&b"a,b\n"[..]).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("`account`"), "{error}");
    }

    #[test]
    fn energy_is_counted_and_water_is_not() {
        let mut sum = 0.0;
        let mut of = |mapping: Mapping, value| -> Vec<(u32, f64)> {
            mapping.values(value, &mut sum).iter().map(|m| (m.p.0, m.v)).collect()
        };
        assert_eq!(of(Mapping::Electricity, 1.5), [(402, 1.5), (401, 1500.0)]);
        assert_eq!(of(Mapping::Electricity, 0.1), [(402, 1.6), (401, 100.0)]);
        assert_eq!(of(Mapping::Gas, 2.0), [(420, 3.6)]);
        assert_eq!(of(Mapping::Water, 500.0), [(902, 1.8)]);
        assert_eq!(of(Mapping::Solar, -2.5), [(401, -2.5)]);
    }
}
