//! Letting each key through once in a while.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use galerna_topology::{Bolt, Data, Emitter, Fault, Gauge, TaskContext, outputs};

use crate::sources::KeyOf;
use crate::store::caught;

outputs! {
    /// What comes of a deduplication.
    pub struct DeduplicateOutputs<T> {
        /// The first tuple of each key.
        unique: T,
        /// The others.
        duplicates: T,
    }
}

/// Lets the first tuple of a key through, and takes those of the same key for duplicates that come within a time after it, by the
/// topology's clock. Keys older than that are forgotten, and the oldest ones too when there are more than the limit.
///
/// It remembers keys, not what became of their tuples: a root that fails behind it and comes again is a duplicate. So put it where
/// what comes behind it does not fail for good, or make what is emitted twice harmless instead.
pub struct Deduplicate<T, K> {
    pub(crate) key_of: KeyOf<T, K>,
    pub(crate) within: Duration,
    pub(crate) limit: usize,
}

impl<T, K> Clone for Deduplicate<T, K> {
    fn clone(&self) -> Self {
        Self { key_of: self.key_of.clone(), ..*self }
    }
}

impl<T, K> fmt::Debug for Deduplicate<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deduplicate").field("within", &self.within).finish_non_exhaustive()
    }
}

impl<T: Data, K> Deduplicate<T, K> {
    /// By this key, within this time.
    pub fn by(key: impl Fn(&T) -> K + Send + Sync + 'static, within: Duration) -> Self {
        Self { key_of: Arc::new(key), within, limit: 1_000_000 }
    }

    /// How many keys each task remembers at most. 1,000,000 unless set.
    #[must_use]
    pub fn limit(mut self, keys: usize) -> Self {
        self.limit = keys;
        self
    }
}

/// One task of it.
pub(crate) struct DeduplicateBolt<T, K> {
    of: Deduplicate<T, K>,
    // What it keeps: the number of the entry by which a key was let through, and these entries by age.
    seen: HashMap<K, u64>,
    ages: VecDeque<(Duration, K)>,
    /// The number of the oldest entry.
    first: u64,
    kept: Gauge,
}

impl<T: Data, K: Data + Eq + Hash> DeduplicateBolt<T, K> {
    pub(crate) fn new(of: Deduplicate<T, K>) -> Self {
        Self { of, seen: HashMap::new(), ages: VecDeque::new(), first: 0, kept: Gauge::default() }
    }

    fn forget(&mut self, now: Duration) {
        while let Some((at, _)) = self.ages.front()
            && (now.saturating_sub(*at) >= self.of.within || self.ages.len() > self.of.limit)
        {
            if let Some((_, key)) = self.ages.pop_front() {
                if self.seen.get(&key) == Some(&self.first) {
                    self.seen.remove(&key);
                }
                self.first += 1;
            }
        }
    }
}

impl<T: Data, K: Data + Eq + Hash> Bolt for DeduplicateBolt<T, K> {
    type Input = T;
    type Outputs = DeduplicateOutputs<T>;

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.kept = context.gauge("deduplicate_state");
        Ok(())
    }

    fn execute(&mut self, tuple: T, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        let key = caught(|| (self.of.key_of)(&tuple))
            .map_err(|fault| Fault::permanent(format!("the key closure {}", fault.reason())))?;
        let now = out.context().now();
        self.forget(now);
        if self.seen.contains_key(&key) {
            out.duplicates.emit(tuple);
            return Ok(());
        }
        self.seen.insert(key.clone(), self.first + self.ages.len() as u64);
        self.ages.push_back((now, key));
        self.forget(now);
        self.kept.set(self.seen.len() as f64);
        out.unique.emit(tuple);
        Ok(())
    }

    fn tick(&mut self, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        self.forget(out.context().now());
        self.kept.set(self.seen.len() as f64);
        Ok(())
    }
}
