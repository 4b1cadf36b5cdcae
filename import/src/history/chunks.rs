//! A history as it is kept: in chunks of a week.

use std::collections::BTreeMap;

use galerna_model::{ParameterCode, SourceId};
use serde::{Deserialize, Serialize};

use super::{CHUNK_MS, History, HistoryError, Interval, OLDEST, VERSION};
use crate::units::Series;

#[derive(Serialize, Deserialize, Default)]
struct Chunk {
    sources: Vec<SourceId>,
    series: BTreeMap<Series, Vec<(i64, Interval)>>,
    values: BTreeMap<ParameterCode, Vec<(i64, f64, u16)>>,
    stored: BTreeMap<ParameterCode, Vec<(i64, f64)>>,
}

impl History {
    /// Reads kept chunks.
    ///
    /// # Errors
    /// [`HistoryError`] when one cannot be read.
    pub fn from_chunks<'c>(chunks: impl IntoIterator<Item = &'c [u8]>) -> Result<Self, HistoryError> {
        let mut history = Self::default();
        for bytes in chunks {
            let chunk: Chunk = match bytes {
                [OLDEST..=VERSION, body @ ..] => {
                    rmp_serde::from_slice(body).map_err(|e| HistoryError::Broken(e.to_string()))?
                }
                [other, ..] => return Err(HistoryError::Version(*other)),
                [] => return Err(HistoryError::Broken("a chunk is empty".to_owned())),
            };
            let places: Vec<u16> = chunk.sources.iter().map(|source| history.source(source)).collect();
            let place = |source: u16| {
                let broken =
                    || HistoryError::Broken("a chunk names a source that it does not have".to_owned());
                places.get(usize::from(source)).copied().ok_or_else(broken)
            };
            for (series, points) in chunk.series {
                for (ts, interval) in points {
                    let interval = Interval { source: place(interval.source)?, ..interval };
                    history.series.entry(series).or_default().insert(ts, interval);
                }
            }
            for (parameter, points) in chunk.values {
                for (ts, value, source) in points {
                    history.values.entry(parameter).or_default().insert(ts, (value, place(source)?));
                }
            }
            for (parameter, points) in chunk.stored {
                history.stored.entry(parameter).or_default().extend(points);
            }
        }
        Ok(history)
    }

    /// What this history knows beyond `before`, in the form of a chunk: read after the chunks of `before`
    /// ([`from_chunks`](Self::from_chunks)), it makes this history of that one, however often.
    pub fn beyond(&self, before: &Self) -> Vec<u8> {
        let mut beyond = Self { sources: self.sources.clone(), ..Self::default() };
        let owner = |history: &Self, source: u16| history.sources.get(usize::from(source)).cloned();
        for (series, points) in &self.series {
            for (ts, interval) in points {
                let known = before.series.get(series).and_then(|points| points.get(ts));
                let same = known.is_some_and(|known| {
                    Interval { source: interval.source, ..*known } == *interval
                        && owner(before, known.source) == owner(self, interval.source)
                });
                if !same {
                    beyond.series.entry(*series).or_default().insert(*ts, *interval);
                }
            }
        }
        for (parameter, points) in &self.values {
            for (ts, (value, source)) in points {
                let known = before.values.get(parameter).and_then(|points| points.get(ts));
                let same = known.is_some_and(|(known, from)| {
                    known.to_bits() == value.to_bits() && owner(before, *from) == owner(self, *source)
                });
                if !same {
                    beyond.values.entry(*parameter).or_default().insert(*ts, (*value, *source));
                }
            }
        }
        for (parameter, points) in &self.stored {
            for (ts, value) in points {
                let known = before.stored.get(parameter).and_then(|points| points.get(ts));
                if known.is_none_or(|known| known.to_bits() != value.to_bits()) {
                    beyond.stored.entry(*parameter).or_default().insert(*ts, *value);
                }
            }
        }
        if beyond.series.is_empty() && beyond.values.is_empty() && beyond.stored.is_empty() {
            return Vec::new();
        }
        beyond.in_chunks(|_| 0).remove(&0).unwrap_or_default()
    }

    /// What to keep, by the number of its span of time. Of two histories, chunks that are equal need not be written again.
    pub fn chunks(&self) -> BTreeMap<i64, Vec<u8>> {
        self.in_chunks(|ts| ts.div_euclid(CHUNK_MS))
    }

    fn in_chunks(&self, number: impl Fn(i64) -> i64) -> BTreeMap<i64, Vec<u8>> {
        let mut chunks: BTreeMap<i64, Chunk> = BTreeMap::new();
        let place = |chunk: &mut Chunk, source: u16| {
            let Some(source) = self.sources.get(usize::from(source)) else { return 0 };
            let at = chunk.sources.iter().position(|known| known == source).unwrap_or_else(|| {
                chunk.sources.push(source.clone());
                chunk.sources.len() - 1
            });
            u16::try_from(at).unwrap_or(0)
        };
        for (series, points) in &self.series {
            for (ts, interval) in points {
                let chunk = chunks.entry(number(*ts)).or_default();
                let source = place(chunk, interval.source);
                chunk.series.entry(*series).or_default().push((*ts, Interval { source, ..*interval }));
            }
        }
        for (parameter, points) in &self.values {
            for (ts, (value, source)) in points {
                let chunk = chunks.entry(number(*ts)).or_default();
                let source = place(chunk, *source);
                chunk.values.entry(*parameter).or_default().push((*ts, *value, source));
            }
        }
        for (parameter, points) in &self.stored {
            for (ts, value) in points {
                let chunk = chunks.entry(number(*ts)).or_default();
                chunk.stored.entry(*parameter).or_default().push((*ts, *value));
            }
        }
        let written = |chunk: Chunk| {
            // Plain data, written to memory.
            let body = rmp_serde::to_vec(&chunk).unwrap_or_default();
            [&[VERSION], &body[..]].concat()
        };
        chunks.into_iter().map(|(number, chunk)| (number, written(chunk))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_of_the_version_before_is_read() {
        // Sources, series, values, stored; an interval of 1 kWh, half an hour long.
        let interval = (Some("1"), None::<&str>, Some(1_800_000_i64), None::<i64>, 0_u16);
        let series = BTreeMap::from([("active_energy", vec![(1_800_000_i64, interval)])]);
        let none: BTreeMap<u32, Vec<(i64, f64)>> = BTreeMap::new();
        let chunk = rmp_serde::to_vec(&(["A"], series, none.clone(), none)).unwrap();
        let chunk = [&[1], &chunk[..]].concat();
        let history = History::from_chunks([chunk.as_slice()]).unwrap();
        let readings = history.readings();
        let values: Vec<f64> = readings.values().flatten().map(|m| m.v).collect();
        assert_eq!(values, [1.0, 2000.0]);
        let error = History::from_chunks([[9].as_slice()]).unwrap_err();
        assert_eq!(error, HistoryError::Version(9));
    }
}
