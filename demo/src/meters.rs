//! From rows of interval meters to readings.
//!
//! Meters' files have one row per meter and interval, in the canonical columns
//! `source,account,building,meter_id,utility,ts,value,unit`. What concentrators send is different: one post per account
//! and time, with counters rather than intervals. The rules from one to the other:
//!
//! | row | reading |
//! |---|---|
//! | all rows of one account at one `ts` | one post; `source` is the account |
//! | `meter_id` | `did` |
//! | posts of the account so far | `sqn` |
//! | electricity, kWh | 402: the running sum; 401: kWh × 1000 (mean W of the hour) |
//! | gas, kWh | 420: the running sum |
//! | water, ml/s | 902: ml/s × 3600 / 10⁶ (m³/h) |
//! | solar, W | 401 as it is, negative at night |
//! | no value | no reading: a real gap |
//!
//! Sums and products are rounded to a millionth, so that the noise of binary fractions does not travel.

use galerna_model::{AccountId, Measurement, ParameterCode, Reading, SourceId, Timestamp};
use std::collections::HashMap;
use std::io::Read;

/// Columns that a file must have, in any order; others are ignored.
const COLUMNS: [&str; 6] = ["account", "meter_id", "utility", "ts", "value", "unit"];

/// A row that cannot be used, or a file that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum RowError {
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
pub enum Mapping {
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
    pub fn values(self, value: f64, sum: &mut f64) -> Vec<Measurement> {
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
pub struct Row<'a> {
    /// Where it stands in the file.
    pub line: u64,
    /// The account as written.
    pub account: &'a str,
    /// The meter as written.
    pub meter: &'a str,
    /// How its value becomes measurements.
    pub mapping: Mapping,
    /// The beginning of the interval.
    pub ts: Timestamp,
    /// `None`: the source has no reading.
    pub value: Option<f64>,
}

/// Reads a file in the canonical columns, a row at a time.
pub struct Rows<R> {
    reader: csv::Reader<R>,
    record: csv::StringRecord,
    columns: [usize; COLUMNS.len()],
}

impl<R: Read> Rows<R> {
    /// Reads the first line.
    pub fn open(input: R) -> Result<Self, RowError> {
        let mut reader = csv::ReaderBuilder::new().buffer_capacity(1 << 16).from_reader(input);
        let header = reader.headers().map_err(|cause| RowError::Csv { line: 1, cause })?;
        let mut columns = [0; COLUMNS.len()];
        for (at, name) in columns.iter_mut().zip(COLUMNS) {
            *at = header.iter().position(|h| h.trim() == name).ok_or(RowError::Column(name))?;
        }
        Ok(Self { reader, record: csv::StringRecord::new(), columns })
    }

    /// The next row; `None` at the end.
    pub fn next(&mut self) -> Option<Result<Row<'_>, RowError>> {
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

/// What one concentrator sends at one time.
#[derive(Debug, Clone, PartialEq)]
pub struct Post {
    /// The account.
    pub account: AccountId,
    /// The source, named as the account.
    pub source: SourceId,
    /// Its readings, one a meter.
    pub readings: Vec<Reading>,
}

/// Turns rows into posts as they are read: memory is bounded by the number of meters.
pub struct Posts<R> {
    rows: Rows<R>,
    sums: HashMap<String, f64>,
    posted: HashMap<String, u64>,
    current: Option<(AccountId, Timestamp, Vec<Reading>)>,
    gaps: u64,
    ended: bool,
}

impl<R: Read> Posts<R> {
    /// Reads the first line.
    pub fn open(input: R) -> Result<Self, RowError> {
        Ok(Self {
            rows: Rows::open(input)?,
            sums: HashMap::new(),
            posted: HashMap::new(),
            current: None,
            gaps: 0,
            ended: false,
        })
    }

    /// Rows read so far that have no value, of which no reading was made.
    pub fn gaps(&self) -> u64 {
        self.gaps
    }

    fn finish(
        posted: &mut HashMap<String, u64>,
        current: Option<(AccountId, Timestamp, Vec<Reading>)>,
    ) -> Option<Post> {
        let (account, _, mut readings) = current.filter(|(.., readings)| !readings.is_empty())?;
        let sqn = posted.entry(account.as_str().to_owned()).or_default();
        *sqn += 1;
        for reading in &mut readings {
            reading.sqn = *sqn;
        }
        // Account ids and source ids have the same rule.
        let source = SourceId::new(account.as_str()).ok()?;
        Some(Post { account, source, readings })
    }
}

impl<R: Read> Iterator for Posts<R> {
    type Item = Result<Post, RowError>;

    fn next(&mut self) -> Option<Self::Item> {
        while !self.ended {
            let row = match self.rows.next() {
                Some(Ok(row)) => row,
                Some(Err(e)) => return Some(Err(e)),
                None => {
                    self.ended = true;
                    return Self::finish(&mut self.posted, self.current.take()).map(Ok);
                }
            };
            self.gaps += u64::from(row.value.is_none());
            let same =
                matches!(&self.current, Some((a, ts, _)) if a.as_str() == row.account && *ts == row.ts);
            let done = if same {
                None
            } else {
                let account = match AccountId::new(row.account) {
                    Ok(account) => account,
                    Err(e) => {
                        let problem = format!("is wrong: {e}");
                        return Some(Err(RowError::Field { line: row.line, field: "account", problem }));
                    }
                };
                let before = self.current.replace((account, row.ts, Vec::new()));
                Self::finish(&mut self.posted, before)
            };
            if let (Some(value), Some((_, _, readings))) = (row.value, &mut self.current) {
                // A lookup that allocates only the first time a meter is seen.
                if !self.sums.contains_key(row.meter) {
                    self.sums.insert(row.meter.to_owned(), 0.0);
                }
                let Some(sum) = self.sums.get_mut(row.meter) else { continue };
                readings.push(Reading {
                    did: row.meter.to_owned(),
                    values: row.mapping.values(value, sum),
                    sqn: 0,
                    ts: row.ts,
                });
            }
            if let Some(post) = done {
                return Some(Ok(post));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str = "source,account,building,meter_id,utility,ts,value,unit\n";

    fn posts(rows: &str) -> Vec<Result<Post, String>> {
        let text = format!("{HEAD}{rows}");
        Posts::open(text.as_bytes()).unwrap().map(|p| p.map_err(|e| e.to_string())).collect()
    }

    fn values(reading: &Reading) -> Vec<(u32, f64)> {
        reading.values.iter().map(|m| (m.p.0, m.v)).collect()
    }

    #[test]
    fn the_rows_of_an_account_at_one_time_are_one_post_with_counters() {
        let got = posts(
            "s,A,b,m1,electricity,2017-01-01T00:00:00+00:00,1.5,kWh\n\
             s,A,b,m2,gas,2017-01-01T00:00:00+00:00,2,kWh\n\
             s,B,b,m3,water,2016-12-31T19:00:00-05:00,500,ml/s\n\
             s,A,b,m1,electricity,2017-01-01T01:00:00+00:00,0.1,kWh\n\
             s,A,b,m2,gas,2017-01-01T01:00:00+00:00,,kWh\n\
             s,B,b,m4,solar,2017-01-01T01:00:00+00:00,-2.5,W\n",
        );
        let got: Vec<Post> = got.into_iter().map(Result::unwrap).collect();
        let shape: Vec<_> = got
            .iter()
            .map(|p| {
                (p.account.as_str(), p.readings[0].sqn, p.readings.iter().map(values).collect::<Vec<_>>())
            })
            .collect();
        assert_eq!(
            shape,
            [
                ("A", 1, vec![vec![(402, 1.5), (401, 1500.0)], vec![(420, 2.0)]]),
                ("B", 1, vec![vec![(902, 1.8)]]),
                ("A", 2, vec![vec![(402, 1.6), (401, 100.0)]]),
                ("B", 2, vec![vec![(401, -2.5)]]),
            ]
        );
    }

    #[test]
    fn an_hour_without_any_value_is_no_post() {
        let got = posts(
            "s,A,b,m1,electricity,2017-01-01T00:00:00+00:00,1,kWh\n\
             s,A,b,m1,electricity,2017-01-01T01:00:00+00:00,,kWh\n\
             s,A,b,m1,electricity,2017-01-01T02:00:00+00:00,1,kWh\n",
        );
        let sqn: Vec<u64> = got.into_iter().map(|p| p.unwrap().readings[0].sqn).collect();
        assert_eq!(sqn, [1, 2]);
    }

    /// The samples of the same hours in both forms: every message must come out digit for digit. The messages are a
    /// selection, so not every reading made from the rows is among them.
    #[test]
    fn the_sample_rows_become_the_sample_messages() {
        #[derive(serde::Deserialize)]
        struct Line {
            source_key: String,
            body: Vec<Reading>,
        }
        let rows = include_bytes!("../../examples/data/sample_tiny.csv");
        let made: HashMap<(String, String, Timestamp), Reading> = Posts::open(&rows[..])
            .unwrap()
            .flat_map(|post| {
                let post = post.unwrap();
                let account = post.account.to_string();
                post.readings.into_iter().map(move |r| ((account.clone(), r.did.clone(), r.ts), r))
            })
            .collect();
        let mut compared = 0;
        for line in include_str!("../../examples/data/sample_messages.ndjson").lines() {
            let line: Line = serde_json::from_str(line).unwrap();
            for message in line.body {
                assert_eq!(
                    made.get(&(line.source_key.clone(), message.did.clone(), message.ts)),
                    Some(&message)
                );
                compared += 1;
            }
        }
        assert_eq!(compared, 1_201);
    }

    #[test]
    fn a_wrong_row_is_an_error_that_names_line_and_field() {
        for (row, parts) in [
            ("s,A,b,m1,steam,2017-01-01T00:00:00+00:00,1,kWh", ["line 2", "utility `steam`"]),
            ("s,A,b,m1,electricity,2017-01-01T00:00:00,1,kWh", ["line 2", "no zone"]),
            ("s,A,b,m1,electricity,2017-01-01T00:00:00+00:00,NaN,kWh", ["line 2", "value `NaN`"]),
            ("s,A,b,,electricity,2017-01-01T00:00:00+00:00,1,kWh", ["line 2", "meter_id"]),
            ("s,A B,b,m,electricity,2017-01-01T00:00:00+00:00,1,kWh", ["line 2: account", "space"]),
            ("s,A,b", ["line 2", "3 fields"]),
        ] {
            let got = posts(row);
            let error = got[0].as_ref().expect_err(row);
            assert!(parts.iter().all(|p| error.contains(p)), "{row}: {error}");
        }
        let error = Posts::open(&b"a,b\n"[..]).err().map(|e| e.to_string()).unwrap_or_default();
        assert!(error.contains("`account`"), "{error}");
    }
}
