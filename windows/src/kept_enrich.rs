//! The versions of a table in state, and the tuples that wait for them.

use std::collections::BTreeMap;
use std::hash::Hash;

use galerna_state::{MapState, StateError, TaskState};
use galerna_topology::{Data, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::enrich::Enriched;
use crate::kept::KeptClosed;

/// Why a tuple was not taken.
pub(crate) enum NotTaken<T> {
    TooLate(T),
    /// As many wait as may.
    Full,
    /// It could not be written.
    State(StateError),
}

/// The table of one task, and its tuples that wait.
pub(crate) struct KeptEnrich<K, T, V> {
    /// Tuples that have not come out: when they are, and themselves.
    tuples: MapState<u64, (i64, T)>,
    /// What the table has for a key, by from when on.
    versions: MapState<i64, Option<V>>,
    closed_mark: KeptClosed,
    closed: Option<i64>,
    /// Where those that wait are in state, by time; those of one time in the order in which they came.
    waiting: BTreeMap<i64, Vec<(u64, K)>>,
    count: usize,
    limit: usize,
    /// Greater than the number of any tuple that waits.
    next: u64,
    /// Tuples that came out and could not be removed from state.
    unremoved: Vec<(u64, K)>,
}

impl<K, T, V> KeptEnrich<K, T, V>
where
    K: Data + Eq + Hash + Serialize + DeserializeOwned,
    T: Data + Serialize + DeserializeOwned,
    V: Data + Serialize + DeserializeOwned,
{
    /// All as its state has it.
    pub(crate) fn restore(state: &TaskState, limit: usize) -> Result<Self, StateError> {
        let closed_mark = KeptClosed::new(state, "enrich closed")?;
        let mut kept = Self {
            tuples: state.map("enrich tuples")?,
            versions: state.map("enrich versions")?,
            closed: closed_mark.read()?,
            closed_mark,
            waiting: BTreeMap::new(),
            count: 0,
            limit,
            next: 0,
            unremoved: Vec::new(),
        };
        for (key, tuples) in kept.tuples.collect::<K>()? {
            for (number, (at, _)) in tuples {
                kept.next = kept.next.max(number.saturating_add(1));
                kept.wait(at, number, key.clone());
            }
        }
        // Those of one time that other tasks have numbered, too.
        kept.waiting.values_mut().for_each(|of| of.sort_by_key(|(number, _)| *number));
        Ok(kept)
    }

    fn wait(&mut self, at: i64, number: u64, key: K) {
        self.waiting.entry(at).or_default().push((number, key));
        self.count += 1;
    }

    /// How many tuples wait.
    pub(crate) fn len(&self) -> usize {
        self.count
    }

    /// Nothing earlier comes out any more.
    pub(crate) fn closed(&self) -> Option<i64> {
        self.closed
    }

    /// Takes a version in. It is in state then.
    ///
    /// # Errors
    /// It could not be written; then the table is as it was, but for versions that no tuple can ask for.
    pub(crate) fn change(&mut self, key: &K, from: i64, value: &Option<V>) -> Result<(), StateError> {
        self.versions.insert(key, &from, value)?;
        let Some(closed) = self.closed else { return Ok(()) };
        // All tuples that come out from now on are at `closed` or later.
        let mut passed: Vec<i64> = self.versions.entries(key)?.into_iter().map(|(from, _)| from).collect();
        passed.retain(|from| *from <= closed);
        passed.sort_unstable();
        passed.pop();
        passed.iter().try_for_each(|from| self.versions.remove(key, from))
    }

    /// Takes a tuple in. It is in state then.
    ///
    /// # Errors
    /// Why it was not taken: nothing is changed.
    pub(crate) fn add(&mut self, key: &K, tuple: T, at: Timestamp) -> Result<(), NotTaken<T>> {
        let at = at.millis();
        if self.closed.is_some_and(|closed| at < closed) {
            return Err(NotTaken::TooLate(tuple));
        }
        if self.count >= self.limit {
            return Err(NotTaken::Full);
        }
        let number = self.next;
        self.tuples.insert(key, &number, &(at, tuple)).map_err(NotTaken::State)?;
        self.next = number.saturating_add(1);
        self.wait(at, number, key.clone());
        Ok(())
    }

    /// Nothing earlier than `watermark` is to be expected: what comes out, and what could not be read or written. What could not be read
    /// waits on.
    pub(crate) fn advance(&mut self, watermark: Timestamp) -> (Vec<Enriched<T, V>>, Result<(), StateError>) {
        let watermark = watermark.millis();
        let mut out = Vec::new();
        if self.closed.is_some_and(|closed| watermark <= closed) {
            return (out, Ok(()));
        }
        let later = self.waiting.split_off(&watermark);
        let due = std::mem::replace(&mut self.waiting, later);
        self.count = self.waiting.values().map(Vec::len).sum();
        let mut failed = None;
        for (at, tuples) in due {
            for (number, key) in tuples {
                match self.enriched(&key, number, at) {
                    Ok(enriched) => {
                        out.extend(enriched);
                        self.unremoved.push((number, key));
                    }
                    Err(error) => {
                        self.wait(at, number, key);
                        failed = Some(error);
                    }
                }
            }
        }
        self.closed = Some(watermark);
        for (number, key) in std::mem::take(&mut self.unremoved) {
            if let Err(error) = self.tuples.remove(&key, &number) {
                self.unremoved.push((number, key));
                failed = Some(error);
            }
        }
        let written = self.closed_mark.write(self.closed);
        (out, failed.map_or(written, Err))
    }

    /// A tuple that waited, with what the table had for it.
    fn enriched(&self, key: &K, number: u64, at: i64) -> Result<Option<Enriched<T, V>>, StateError> {
        let Some((_, tuple)) = self.tuples.get(key, &number)? else { return Ok(None) };
        let versions = self.versions.entries(key)?.into_iter().filter(|(from, _)| *from <= at);
        let value = versions.max_by_key(|(from, _)| *from).and_then(|(_, value)| value);
        Ok(Some((tuple, value)))
    }
}

#[cfg(test)]
#[path = "kept_enrich_tests.rs"]
mod tests;
