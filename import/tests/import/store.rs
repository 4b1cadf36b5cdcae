//! A store in memory, for files to be published into.

use std::collections::BTreeMap;

use galerna_import::{Added, Check, History, Import, ImportError, Mapping, Meters, Options};
use galerna_model::{AccountId, BadReading, Measurement, RejectCode, SourceId, Timestamp};

/// Values by parameter.
pub(crate) type Values = BTreeMap<u32, f64>;

/// What is stored, and the histories that it follows from.
#[derive(Default)]
pub(crate) struct Store {
    pub(crate) readings: BTreeMap<(String, String, Timestamp), Values>,
    histories: BTreeMap<(AccountId, String), BTreeMap<i64, Vec<u8>>>,
}

/// Validates as the worker does, as far as these tests need.
pub(crate) struct TestCheck;

impl Check for TestCheck {
    fn time(&self, ts: Timestamp) -> Result<(), BadReading> {
        let end = Timestamp::parse("2100-01-01T00:00:00Z").unwrap();
        if ts < end {
            Ok(())
        } else {
            Err(BadReading::new(RejectCode::TimeInFuture, "ts", "is in the future"))
        }
    }

    fn values(&self, values: &[Measurement]) -> Result<(), BadReading> {
        let wrong = values.iter().find(|m| match m.p.0 {
            401 => m.v.abs() > 1e10,
            402 | 452 => !(0.0..=1e13).contains(&m.v),
            _ => false,
        });
        wrong.map_or(Ok(()), |m| {
            let problem = format!("is {}, out of range for {}", m.v, m.p);
            Err(BadReading::new(RejectCode::OutOfRange, "v", problem))
        })
    }
}

/// What publishing a file did.
pub(crate) struct Published {
    pub(crate) meters: Meters,
    pub(crate) added: Vec<Added>,
}

impl Published {
    /// All that was wrong, in the order of the lines.
    pub(crate) fn errors(&self) -> Vec<String> {
        let added = self.added.iter().flat_map(|added| &added.errors);
        let mut errors: Vec<_> = self.meters.errors.iter().chain(added).collect();
        errors.sort_by_key(|error| error.line);
        errors.into_iter().map(ToString::to_string).collect()
    }
}

impl Store {
    pub(crate) fn publish(&mut self, bytes: Vec<u8>, options: &Options) -> Result<Published, ImportError> {
        let meters = Import::open(bytes, options)?.meters();
        let mut published = Published { meters, added: Vec::new() };
        for ((account, meter), values) in &published.meters.values {
            // What is kept is what the next file finds.
            let kept = self.histories.entry((account.clone(), meter.clone())).or_default();
            let mut history = History::from_chunks(kept.values().map(Vec::as_slice)).unwrap();
            let added = history.add(&SourceId::new(account.as_str()).unwrap(), values, &TestCheck);
            *kept = history.chunks();
            for reading in &added.readings {
                let values =
                    self.readings.entry((account.to_string(), meter.clone(), reading.ts)).or_default();
                values.extend(reading.values.iter().map(|m| (m.p.0, m.v)));
            }
            published.added.push(added);
        }
        Ok(published)
    }

    /// The values of a parameter of a meter, in the order of time.
    pub(crate) fn values(&self, account: &str, meter: &str, parameter: u32) -> Vec<f64> {
        let of = self.readings.iter().filter(|((a, m, _), _)| a == account && m == meter);
        of.filter_map(|(_, values)| values.get(&parameter)).copied().collect()
    }

    /// The times of a meter.
    pub(crate) fn times(&self, meter: &str) -> Vec<String> {
        self.readings.keys().filter(|(_, m, _)| m == meter).map(|(.., ts)| ts.to_string()).collect()
    }
}

/// The bytes of a case.
pub(crate) fn case(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

pub(crate) fn options() -> Options {
    Options::default()
}

/// Options of an account, and of a mapping when one is named.
pub(crate) fn owned(account: &str, mapping: Option<&str>) -> Options {
    let mut options = Options::default().with_account(account).unwrap();
    options.mapping = mapping.map(|name| Mapping::named(name).unwrap());
    options
}
