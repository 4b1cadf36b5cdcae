//! Giving tuples what a slowly changing table has for them.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use galerna_topology::{Bolt, Data, Emitter, Fault, Gauge, Output, TaskContext};

use crate::sources::KeyOf;
use crate::store::caught;

/// A change of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TableChange<K, V> {
    /// The key has this value from now on.
    Put(K, V),
    /// The key is gone.
    Remove(K),
}

impl<K, V> TableChange<K, V> {
    /// The key that changes.
    pub fn key(&self) -> &K {
        match self {
            Self::Put(key, _) | Self::Remove(key) => key,
        }
    }
}

/// What an enriching bolt takes: tuples, and changes of the table.
#[derive(Debug, Clone)]
pub enum EnrichInput<T, K, V> {
    /// A tuple.
    Tuple(T),
    /// A change of the table.
    Change(TableChange<K, V>),
}

/// A tuple with what the table has for its key, which is nothing if it has none yet.
pub type Enriched<T, V> = (T, Option<V>);

/// Gives each tuple what a table has for its key at the time at which the tuple comes. The table is a stream of changes: a spout
/// that reads it emits all of it at its start. Each task keeps the keys that are its own, up to a limit; a change beyond that fails.
pub struct Enrich<T, K> {
    pub(crate) key_of: KeyOf<T, K>,
    pub(crate) limit: usize,
}

impl<T, K> Clone for Enrich<T, K> {
    fn clone(&self) -> Self {
        Self { key_of: self.key_of.clone(), ..*self }
    }
}

impl<T, K> fmt::Debug for Enrich<T, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrich").field("limit", &self.limit).finish_non_exhaustive()
    }
}

impl<T: Data, K> Enrich<T, K> {
    /// By this key.
    pub fn by(key: impl Fn(&T) -> K + Send + Sync + 'static) -> Self {
        Self { key_of: Arc::new(key), limit: 1_000_000 }
    }

    /// How many keys of the table each task may keep. 1,000,000 unless set.
    #[must_use]
    pub fn limit(mut self, keys: usize) -> Self {
        self.limit = keys;
        self
    }
}

/// One task of it.
pub(crate) struct EnrichBolt<T, K, V> {
    of: Enrich<T, K>,
    table: HashMap<K, V>,
    kept: Gauge,
}

impl<T: Data, K: Data + Eq + Hash, V: Data> EnrichBolt<T, K, V> {
    pub(crate) fn new(of: Enrich<T, K>) -> Self {
        Self { of, table: HashMap::new(), kept: Gauge::default() }
    }

    fn change(&mut self, change: TableChange<K, V>) -> Result<(), Fault> {
        match change {
            TableChange::Remove(key) => {
                self.table.remove(&key);
            }
            TableChange::Put(key, _)
                if self.table.len() >= self.of.limit && !self.table.contains_key(&key) =>
            {
                return Err(Fault::permanent(format!(
                    "the table has {} keys in this task, as many as it may: raise its `limit`, or give the bolt more tasks",
                    self.of.limit
                )));
            }
            TableChange::Put(key, value) => {
                self.table.insert(key, value);
            }
        }
        self.kept.set(self.table.len() as f64);
        Ok(())
    }
}

impl<T: Data, K: Data + Eq + Hash, V: Data> Bolt for EnrichBolt<T, K, V> {
    type Input = EnrichInput<T, K, V>;
    type Outputs = Output<Enriched<T, V>>;

    fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.kept = context.gauge("enrich_state");
        Ok(())
    }

    fn execute(&mut self, input: Self::Input, out: &mut Emitter<Self::Outputs>) -> Result<(), Fault> {
        match input {
            EnrichInput::Change(change) => self.change(change),
            EnrichInput::Tuple(tuple) => {
                let key = caught(|| (self.of.key_of)(&tuple))
                    .map_err(|fault| Fault::permanent(format!("the key closure {}", fault.reason())))?;
                let value = self.table.get(&key).cloned();
                out.emit((tuple, value));
                Ok(())
            }
        }
    }
}
