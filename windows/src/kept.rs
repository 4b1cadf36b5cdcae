//! What windows in state keep of their tuples.

use std::collections::HashSet;
use std::hash::Hash;

use galerna_state::{KeyGroup, MapState, StateError, TaskState, ValueState};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::{Hold, WindowStore};

/// Nothing is held: the tuples' effects are in state.
impl Hold for () {
    fn merge(&mut self, (): Self) {}

    fn is_empty(&self) -> bool {
        true
    }
}

/// A pane, a session, or some of the tuples that are counted, of one key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct KeptPart<A> {
    /// Of a session, where it ends; of tuples that are counted, how many there have been.
    pub(crate) end: i64,
    pub(crate) tuples: u64,
    /// Of a session, whether it has fired.
    pub(crate) fired: bool,
    /// Nothing where only `end` is kept.
    pub(crate) accumulator: Option<A>,
}

/// Windows whose parts can be written to state and read from it. The parts of a key have numbers: where a pane or session begins, or
/// how many parts there were before.
pub(crate) trait KeptStore<K, T, R, A>: WindowStore<K, T, R, ()> {
    /// From now on changes are noted.
    fn note_changes(&mut self);
    /// The parts that may have changed or gone since they were last taken, each once.
    fn take_dirty(&mut self) -> Vec<(K, i64)>;
    /// A part, if it is there.
    fn part(&self, key: &K, number: i64) -> Option<KeptPart<A>>;
    /// Puts a part back, of a key of which that one is not there. Those of a key come in the order of their numbers.
    fn put(&mut self, key: K, number: i64, part: KeptPart<A>);
    /// Forgets a key, with whatever has changed of it.
    fn forget_key(&mut self, key: &K);
    /// Up to where all windows have fired.
    fn closed(&self) -> Option<i64>;
    /// Windows that end here or before have fired.
    fn set_closed(&mut self, closed: i64);

    /// Whether it can take back what a batch has changed. Then what changes is written for checkpoints only, and the windows outlive the
    /// bolt's instance; otherwise all is written with each batch.
    fn takes_back(&self) -> bool {
        false
    }
    /// What is added from now on is of one batch.
    fn begin_batch(&mut self) {}
    /// The batch can be taken back no more.
    fn end_batch(&mut self) {}
    /// Takes back what the batch has changed of a key, or of all.
    fn take_back(&mut self, key: Option<&K>) {
        let _ = key;
    }
    /// A part could not be written.
    fn note_unwritten(&mut self, key: &K, number: i64) {
        let _ = (key, number);
    }
}

/// Which parts have changed since they were last written. Nothing is noted unless it was switched on.
#[derive(Debug)]
pub(crate) struct Dirty<K> {
    parts: Option<HashSet<(K, i64)>>,
}

impl<K> Default for Dirty<K> {
    fn default() -> Self {
        Self { parts: None }
    }
}

impl<K: Clone + Eq + Hash> Dirty<K> {
    pub(crate) fn switch_on(&mut self) {
        self.parts.get_or_insert_default();
    }

    pub(crate) fn note(&mut self, key: &K, number: i64) {
        if let Some(parts) = &mut self.parts {
            parts.insert((key.clone(), number));
        }
    }

    pub(crate) fn forget(&mut self, key: &K) {
        if let Some(parts) = &mut self.parts {
            parts.retain(|(of, _)| of != key);
        }
    }

    pub(crate) fn take(&mut self) -> Vec<(K, i64)> {
        self.parts.as_mut().map_or_else(Vec::new, |parts| parts.drain().collect())
    }
}

/// So many keys have how far a task is, spread over the key groups: each task of as many has at least one.
const MARKS: u16 = 64;

/// Up to where a task has fired, in its state: under keys whose groups are spread evenly.
pub(crate) struct KeptClosed {
    closed: ValueState<i64>,
    marks: Vec<(&'static str, u32)>,
}

impl KeptClosed {
    pub(crate) fn new(state: &TaskState, name: &'static str) -> Result<Self, StateError> {
        let owned = state.groups();
        let mut wanted: HashSet<u16> =
            (0..MARKS).map(|mark| mark * (galerna_state::KEY_GROUPS as u16 / MARKS)).collect();
        let mut marks = Vec::new();
        for number in 0.. {
            if wanted.is_empty() {
                break;
            }
            let mark = ("closed", number);
            let group = KeyGroup::of(&mark)?;
            if wanted.remove(&group.number()) && owned.contains(group) {
                marks.push(mark);
            }
        }
        Ok(Self { closed: state.value(name)?, marks })
    }

    /// The least that was written under keys of this task.
    pub(crate) fn read(&self) -> Result<Option<i64>, StateError> {
        let mut closed = None;
        for mark in &self.marks {
            if let Some(at) = self.closed.get(mark)? {
                closed = Some(closed.map_or(at, |least: i64| least.min(at)));
            }
        }
        Ok(closed)
    }

    pub(crate) fn write(&mut self, closed: Option<i64>) -> Result<(), StateError> {
        let Some(closed) = closed else { return Ok(()) };
        self.marks.iter().try_for_each(|mark| self.closed.set(mark, &closed))
    }
}

/// The parts of one task's windows in its state.
pub(crate) struct KeptWindows<A> {
    parts: MapState<i64, KeptPart<A>>,
    closed: KeptClosed,
}

impl<A: Serialize + DeserializeOwned> KeptWindows<A> {
    pub(crate) fn new(state: &TaskState) -> Result<Self, StateError> {
        Ok(Self { parts: state.map("window parts")?, closed: KeptClosed::new(state, "windows closed")? })
    }

    /// Fills windows that are empty.
    pub(crate) fn restore<K, T, R>(&self, store: &mut dyn KeptStore<K, T, R, A>) -> Result<(), StateError>
    where
        K: Clone + Eq + Hash + DeserializeOwned,
    {
        for (key, mut parts) in self.parts.collect::<K>()? {
            parts.sort_unstable_by_key(|(number, _)| *number);
            for (number, part) in parts {
                store.put(key.clone(), number, part);
            }
        }
        if let Some(closed) = self.closed.read()? {
            store.set_closed(closed);
        }
        Ok(())
    }

    /// Has a key as it was last written.
    pub(crate) fn revert<K, T, R>(
        &self,
        store: &mut dyn KeptStore<K, T, R, A>,
        key: &K,
    ) -> Result<(), StateError>
    where
        K: Clone + Serialize,
    {
        store.forget_key(key);
        let mut parts = self.parts.entries(key)?;
        parts.sort_unstable_by_key(|(number, _)| *number);
        for (number, part) in parts {
            store.put(key.clone(), number, part);
        }
        Ok(())
    }

    /// Writes what has changed of windows. The parts that could not be written, and why.
    pub(crate) fn write<K, T, R>(
        &mut self,
        store: &mut dyn KeptStore<K, T, R, A>,
    ) -> Vec<(K, i64, StateError)>
    where
        K: Clone + Eq + Hash + Serialize,
    {
        let mut failed = Vec::new();
        for (key, number) in store.take_dirty() {
            let written = match store.part(&key, number) {
                Some(part) => self.parts.insert(&key, &number, &part),
                None => self.parts.remove(&key, &number),
            };
            if let Err(error) = written {
                failed.push((key, number, error));
            }
        }
        failed
    }

    /// Writes up to where all windows have fired.
    pub(crate) fn write_closed(&mut self, closed: Option<i64>) -> Result<(), StateError> {
        self.closed.write(closed)
    }
}
