//! Joins whose tuples are in state.

use std::cell::Cell;
use std::hash::Hash;

use galerna_state::{MapState, StateError, TaskState};
use galerna_topology::{Data, Timestamp};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::join::Join;
use crate::join_store::{JoinSink, JoinStore, Joined, Rejected, Side, TakenBefore};
use crate::kept::KeptClosed;
use crate::store::Hold;

/// What a tuple holds whose effects are in state: where it is there.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// By which number it is kept under its key.
    number: u64,
    /// Whether the state says that it has found a partner, or is about to.
    matched: Cell<bool>,
}

impl Hold for Kept {
    fn merge(&mut self, _: Self) {}

    fn is_empty(&self) -> bool {
        false
    }
}

/// What comes of one step.
struct Step<K, L, R> {
    joined: Vec<Joined<K, L, R>>,
    /// Tuples that have found their first partner.
    matched: Vec<u64>,
    released: Vec<(K, Kept)>,
}

impl<K, L, R> Default for Step<K, L, R> {
    fn default() -> Self {
        Self { joined: Vec::new(), matched: Vec::new(), released: Vec::new() }
    }
}

impl<K: Clone, L, R> JoinSink<K, L, R, Kept> for Step<K, L, R> {
    fn joined(&mut self, joined: Joined<K, L, R>, held: &[&Kept]) {
        self.joined.push(joined);
        if let [_, _] = held {
            let unmatched = held.iter().filter(|kept| !kept.matched.replace(true));
            self.matched.extend(unmatched.map(|kept| kept.number));
        }
    }

    fn release(&mut self, key: &K, held: Kept) {
        self.released.push((key.clone(), held));
    }
}

/// What comes out.
pub(crate) type Out<K, L, R> = Vec<Joined<K, L, R>>;
/// A tuple by its number: when it is, and itself.
type Numbered<L, R> = (u64, (i64, Side<L, R>));

/// Why a tuple was not taken.
pub(crate) enum NotTaken<L, R> {
    TooLate(Side<L, R>),
    /// As many tuples are kept as may be.
    Full,
    /// It could not be written.
    State(StateError),
}

/// The join of one task, in memory and in its state.
pub(crate) struct KeptJoin<K, L, R> {
    store: Box<dyn JoinStore<K, L, R, Kept>>,
    /// Tuples that have not been let go of: when they are, and themselves.
    tuples: MapState<u64, (i64, Side<L, R>)>,
    /// Which of these have found a partner, where that matters.
    matched: Option<MapState<u64, ()>>,
    closed: KeptClosed,
    /// Greater than the number of any tuple that is kept.
    next: u64,
    /// Tuples that were let go of and could not be removed from state.
    unremoved: Vec<(K, Kept)>,
}

impl<K, L, R> KeptJoin<K, L, R>
where
    K: Data + Eq + Hash + Serialize + DeserializeOwned,
    L: Data + Serialize + DeserializeOwned,
    R: Data + Serialize + DeserializeOwned,
{
    /// A join as its state has it.
    pub(crate) fn restore(join: &Join<L, R, K>, state: &TaskState) -> Result<Self, StateError> {
        let mut kept = Self {
            store: join.open(),
            tuples: state.map("join tuples")?,
            matched: if join.remembers_matches() { Some(state.map("join matches")?) } else { None },
            closed: KeptClosed::new(state, "join closed")?,
            next: 0,
            unremoved: Vec::new(),
        };
        if let Some(closed) = kept.closed.read()? {
            kept.store.set_closed(closed);
        }
        for (key, tuples) in kept.tuples.collect::<K>()? {
            kept.put(&key, tuples)?;
        }
        kept.remove_released();
        Ok(kept)
    }

    pub(crate) fn len(&self) -> usize {
        self.store.len()
    }

    /// Up to where nothing is to be expected any more.
    pub(crate) fn closed(&self) -> Option<i64> {
        self.store.closed()
    }

    /// Puts the tuples of a key into the store, which has none of it.
    fn put(&mut self, key: &K, mut tuples: Vec<Numbered<L, R>>) -> Result<(), StateError> {
        tuples.sort_unstable_by_key(|(number, _)| *number);
        for (number, (at, tuple)) in tuples {
            self.next = self.next.max(number.saturating_add(1));
            let matched = match &self.matched {
                Some(of) => of.get(key, &number)?.is_some(),
                None => false,
            };
            let held = Kept { number, matched: Cell::new(matched) };
            if let Err(held) = self.store.put(key.clone(), TakenBefore { tuple, at, held, matched }) {
                self.unremoved.push((key.clone(), held));
            }
        }
        Ok(())
    }

    /// Takes a tuple in and returns what comes of it. It is in state then.
    ///
    /// # Errors
    /// Why it was not taken: nothing is changed.
    pub(crate) fn add(
        &mut self,
        key: &K,
        tuple: Side<L, R>,
        at: Timestamp,
    ) -> Result<Out<K, L, R>, NotTaken<L, R>> {
        let number = self.next;
        let kept = (at.millis(), tuple.clone());
        let mut step = Step::default();
        let held = Kept { number, matched: Cell::new(false) };
        match self.store.add(key.clone(), tuple, at, held, &mut step) {
            Ok(()) => {}
            Err(Rejected::TooLate(tuple, _)) => return Err(NotTaken::TooLate(tuple)),
            Err(Rejected::Full(_)) => return Err(NotTaken::Full),
        }
        self.next = number.saturating_add(1);
        // Last of all the tuple itself, so that without it the rest means nothing.
        if let Err(error) =
            self.note_matches(key, &step.matched).and_then(|()| self.tuples.insert(key, &number, &kept))
        {
            return Err(NotTaken::State(self.undo(key, &step.matched).err().unwrap_or(error)));
        }
        Ok(step.joined)
    }

    fn note_matches(&mut self, key: &K, numbers: &[u64]) -> Result<(), StateError> {
        let Some(matched) = &mut self.matched else { return Ok(()) };
        numbers.iter().try_for_each(|number| matched.insert(key, number, &()))
    }

    /// Has a key as it was before a tuple that could not be written.
    fn undo(&mut self, key: &K, numbers: &[u64]) -> Result<(), StateError> {
        self.store.forget_key(key);
        let undone = match &mut self.matched {
            Some(matched) => numbers.iter().try_for_each(|number| matched.remove(key, number)),
            None => Ok(()),
        };
        let tuples = self.tuples.entries(key)?;
        self.put(key, tuples)?;
        undone
    }

    /// Nothing earlier than `watermark` is to be expected: what comes of that, and what could not be written of it.
    pub(crate) fn advance(&mut self, watermark: Timestamp) -> (Out<K, L, R>, Result<(), StateError>) {
        let mut step = Step::default();
        self.store.advance(watermark, &mut step);
        self.unremoved.append(&mut step.released);
        let removed = self.remove_released();
        let written = self.closed.write(self.store.closed());
        (step.joined, removed.map_or(written, Err))
    }

    /// Removes from state what was let go of. What cannot be removed is tried again the next time.
    fn remove_released(&mut self) -> Option<StateError> {
        let mut failed = None;
        for (key, held) in std::mem::take(&mut self.unremoved) {
            let mut removed = self.tuples.remove(&key, &held.number);
            if let (Some(matched), true, true) = (&mut self.matched, held.matched.get(), removed.is_ok()) {
                removed = matched.remove(&key, &held.number);
            }
            if let Err(error) = removed {
                self.unremoved.push((key, held));
                failed = Some(error);
            }
        }
        failed
    }
}

#[cfg(test)]
#[path = "kept_join_tests.rs"]
pub(crate) mod tests;
