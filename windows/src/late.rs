//! Counting what comes too late.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use galerna_topology::{Counter, TaskContext};

/// The names of the counters of late tuples, by how far they are behind the watermark at most.
const BY_LATENESS: [(&str, Duration); 5] = [
    ("late_within_1s", Duration::from_secs(1)),
    ("late_within_1m", Duration::from_secs(60)),
    ("late_within_1h", Duration::from_secs(3_600)),
    ("late_within_1d", Duration::from_secs(24 * 3_600)),
    ("late_beyond_1d", Duration::MAX),
];
/// So many keys are counted for themselves, the others together.
const MOST_KEYS: usize = 100;

/// How a key is called in the metrics.
pub(crate) type KeyName<K> = Arc<dyn Fn(&K) -> String + Send + Sync>;

/// The counts of one task: `late` of all, one by how late, and one for each key if keys have names.
pub(crate) struct LateCounts<K> {
    context: TaskContext,
    all: Counter,
    by_lateness: Vec<Counter>,
    name: Option<KeyName<K>>,
    by_key: HashMap<K, Counter>,
}

impl<K: Clone + Eq + Hash> LateCounts<K> {
    pub(crate) fn new(context: &TaskContext, name: Option<KeyName<K>>) -> Self {
        Self {
            all: context.counter("late"),
            by_lateness: BY_LATENESS.iter().map(|(name, _)| context.counter(name)).collect(),
            context: context.clone(),
            name,
            by_key: HashMap::new(),
        }
    }

    /// A tuple of this key came so late.
    pub(crate) fn count(&mut self, key: &K, late_by: Duration) {
        self.all.add(1);
        let within = BY_LATENESS.iter().position(|(_, most)| late_by <= *most);
        if let Some(counter) = within.and_then(|within| self.by_lateness.get(within)) {
            counter.add(1);
        }
        let Some(name) = &self.name else { return };
        if let Some(counter) = self.by_key.get(key) {
            counter.add(1);
        } else if self.by_key.len() < MOST_KEYS {
            let called = crate::store::caught(|| name(key)).unwrap_or_else(|_| "without a name".to_owned());
            let counter = self.context.counter(&format!("late_key_{called}"));
            counter.add(1);
            self.by_key.insert(key.clone(), counter);
        } else {
            self.context.counter("late_other_keys").add(1);
        }
    }
}
