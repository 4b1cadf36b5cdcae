//! Windows by count of one task: the last so many tuples of a key, each time that some more have come.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;
use std::sync::Arc;

use galerna_topology::{Fault, Timestamp};

use crate::aggregate::Aggregate;
use crate::kept::{Dirty, KeptPart, KeptStore};
use crate::result::{Firing, WindowBounds, WindowResult};
use crate::store::{Early, Hold, Part, TooLate, WindowSink, WindowStore, caught};

/// Under this number is kept how many tuples a key has had.
const SEEN: i64 = -1;

/// The tuples of a key.
struct Counted<A, H> {
    seen: u64,
    /// Parts of so many tuples as [`CountWindows::pane`] says, the last one perhaps of fewer. They end with the tuple `seen`.
    parts: VecDeque<Part<A, H>>,
}

/// The windows by count of one task.
pub(crate) struct CountWindows<K, T, A: Aggregate<T>, H> {
    size: u64,
    slide: u64,
    /// How many tuples share an accumulator: so many that a window never has only some of them.
    pane: u64,
    aggregate: Arc<A>,
    early: Early,
    with_expired: bool,
    keys: HashMap<K, Counted<A::Accumulator, H>>,
    changed: HashSet<K>,
    parts: usize,
    dirty: Dirty<K>,
}

/// How many parts of a key there were before those that are kept.
fn parts_before<A, H>(counted: &Counted<A, H>, pane: u64) -> u64 {
    counted.seen.div_ceil(pane) - counted.parts.len() as u64
}

const fn gcd(a: u64, b: u64) -> u64 {
    let (mut a, mut b) = (a, b);
    while b != 0 {
        (a, b) = (b, a % b);
    }
    a
}

impl<K: Clone + Eq + Hash, T, A: Aggregate<T>, H: Hold> CountWindows<K, T, A, H> {
    pub(crate) fn new(size: u64, slide: u64, aggregate: Arc<A>, early: Early, with_expired: bool) -> Self {
        debug_assert!(size > 0 && slide > 0 && slide <= size, "{size} by {slide}");
        Self {
            size,
            slide,
            pane: gcd(size, slide),
            aggregate,
            early,
            with_expired,
            keys: HashMap::new(),
            changed: HashSet::new(),
            parts: 0,
            dirty: Dirty::default(),
        }
    }

    /// What the aggregate makes of the tuples from `first` to `last`, which are not beyond what was seen.
    fn value(
        aggregate: &A,
        pane: u64,
        counted: &Counted<A::Accumulator, H>,
        first: u64,
        last: u64,
    ) -> Result<Option<A::Output>, Fault> {
        // The number of the first tuple that is kept.
        let kept = (counted.seen.div_ceil(pane) - counted.parts.len() as u64) * pane + 1;
        let (from, to) = ((first.max(kept) - kept) / pane, (last + 1).saturating_sub(kept).div_ceil(pane));
        let mut parts = counted.parts.range(from as usize..to.max(from) as usize);
        let Some(one) = parts.next() else { return Ok(None) };
        caught(|| {
            let mut merged = one.accumulator.clone();
            parts.for_each(|part| aggregate.merge(&mut merged, &part.accumulator));
            Some(aggregate.result(&merged))
        })
    }

    /// Fires the window that ends with the last tuple of the key.
    fn fire(&mut self, key: &K, firing: Firing, sink: &mut dyn WindowSink<K, A::Output, H>) {
        let Some(counted) = self.keys.get_mut(key) else { return };
        let last = counted.seen;
        // Where the window would end if it were complete.
        let end = last.div_ceil(self.slide) * self.slide;
        let first = (end + 1).saturating_sub(self.size).max(1);
        let first_before = (end - self.slide + 1).saturating_sub(self.size).max(1);
        let value = Self::value(&self.aggregate, self.pane, counted, first, last);
        let expired = match self.with_expired && first_before < first {
            true => Self::value(&self.aggregate, self.pane, counted, first_before, first - 1),
            false => Ok(None),
        };
        let (value, expired) = match (value, expired) {
            (Ok(Some(value)), Ok(expired)) => (value, expired),
            (Ok(None), Ok(_)) => return,
            (Err(fault), _) | (_, Err(fault)) => {
                self.give_up(key, &fault, sink);
                return;
            }
        };
        let in_window = (last.div_ceil(self.pane) - (first - 1) / self.pane) as usize;
        let skip = counted.parts.len().saturating_sub(in_window);
        let held = counted.parts.iter().skip(skip).map(|part| &part.held);
        let held: Vec<&H> = held.filter(|held| !held.is_empty()).collect();
        let bounds = WindowBounds::Count { first, last };
        sink.fire(WindowResult { key: key.clone(), bounds, firing, value, expired }, &held);
    }

    /// The aggregate panicked: the key begins anew.
    #[cold]
    fn give_up(&mut self, key: &K, fault: &Fault, sink: &mut dyn WindowSink<K, A::Output, H>) {
        let Some(counted) = self.keys.remove(key) else { return };
        self.dirty.note(key, SEEN);
        let first = parts_before(&counted, self.pane) as i64;
        for (part, number) in counted.parts.into_iter().zip(first..) {
            self.parts -= 1;
            self.dirty.note(key, number);
            sink.fail(part.held, fault.clone());
        }
    }

    /// Lets go of what no window will have any more, after the one that ends with the last tuple.
    fn let_go(&mut self, key: &K, sink: &mut dyn WindowSink<K, A::Output, H>) {
        let Some(counted) = self.keys.get_mut(key) else { return };
        let next_first = (counted.seen + self.slide + 1).saturating_sub(self.size);
        let kept = |counted: &Counted<A::Accumulator, H>| {
            (counted.seen.div_ceil(self.pane) - counted.parts.len() as u64) * self.pane + 1
        };
        let done = (next_first.saturating_sub(kept(counted)) / self.pane) as usize;
        for part in counted.parts.iter_mut().take(done).filter(|part| !part.held.is_empty()) {
            sink.release(part.take_held());
        }
        let needed = if self.with_expired { next_first.saturating_sub(self.slide) } else { next_first };
        let gone = (needed.saturating_sub(kept(counted)) / self.pane) as usize;
        let gone = gone.min(counted.parts.len());
        let first = parts_before(counted, self.pane);
        (first..first + gone as u64).for_each(|number| self.dirty.note(key, number as i64));
        counted.parts.drain(..gone);
        self.parts -= gone;
    }
}

impl<K, T, A, H> WindowStore<K, T, A::Output, H> for CountWindows<K, T, A, H>
where
    K: Clone + Eq + Hash + Send,
    A: Aggregate<T>,
    H: Hold,
{
    fn add(
        &mut self,
        key: &K,
        tuple: T,
        _at: Timestamp,
        held: H,
        sink: &mut dyn WindowSink<K, A::Output, H>,
    ) -> Result<(), TooLate<T, H>> {
        if !self.keys.contains_key(key) {
            self.keys.insert(key.clone(), Counted { seen: 0, parts: VecDeque::new() });
        }
        let Some(counted) = self.keys.get_mut(key) else { return Ok(()) };
        if counted.seen.is_multiple_of(self.pane) {
            self.parts += 1;
            counted.parts.push_back(Part::new(self.aggregate.create()));
        }
        counted.seen += 1;
        let seen = counted.seen;
        let Some(part) = counted.parts.back_mut() else { return Ok(()) };
        part.held.merge(held);
        part.tuples += 1;
        self.dirty.note(key, ((seen - 1) / self.pane) as i64);
        self.dirty.note(key, SEEN);
        if let Err(fault) = caught(|| self.aggregate.add(&mut part.accumulator, tuple)) {
            self.give_up(key, &fault, sink);
            return Ok(());
        }
        if seen.is_multiple_of(self.slide) {
            self.fire(key, Firing::OnTime, sink);
            self.let_go(key, sink);
            return Ok(());
        }
        match self.early {
            Early::Never => {}
            Early::Tuples(every) if seen.is_multiple_of(every) => self.fire(key, Firing::Early, sink),
            Early::Tuples(_) => {}
            Early::Times => {
                self.changed.insert(key.clone());
            }
        }
        Ok(())
    }

    fn advance(&mut self, watermark: Timestamp, sink: &mut dyn WindowSink<K, A::Output, H>) {
        if watermark == Timestamp::MAX {
            self.fire_all(Firing::AtEnd, sink);
        }
    }

    fn fire_late(&mut self, _sink: &mut dyn WindowSink<K, A::Output, H>) {}

    fn fire_early(&mut self, sink: &mut dyn WindowSink<K, A::Output, H>) {
        for key in std::mem::take(&mut self.changed) {
            if self.keys.get(&key).is_some_and(|counted| !counted.seen.is_multiple_of(self.slide)) {
                self.fire(&key, Firing::Early, sink);
            }
        }
    }

    fn fire_all(&mut self, firing: Firing, sink: &mut dyn WindowSink<K, A::Output, H>) {
        let unfired = self.keys.iter().filter(|(_, counted)| !counted.seen.is_multiple_of(self.slide));
        let keys: Vec<K> = unfired.map(|(key, _)| key.clone()).collect();
        for key in keys {
            self.fire(&key, firing, sink);
        }
        for held in self.take_all() {
            sink.release(held);
        }
    }

    fn take_all(&mut self) -> Vec<H> {
        self.parts = 0;
        self.changed.clear();
        let parts = std::mem::take(&mut self.keys).into_values().flat_map(|counted| counted.parts);
        parts.map(|part| part.held).filter(|held| !held.is_empty()).collect()
    }

    fn len(&self) -> usize {
        self.parts
    }
}

impl<K, T, A> KeptStore<K, T, A::Output, A::Accumulator> for CountWindows<K, T, A, ()>
where
    K: Clone + Eq + Hash + Send,
    A: Aggregate<T>,
{
    fn note_changes(&mut self) {
        self.dirty.switch_on();
    }

    fn take_dirty(&mut self) -> Vec<(K, i64)> {
        self.dirty.take()
    }

    fn part(&self, key: &K, number: i64) -> Option<KeptPart<A::Accumulator>> {
        let counted = self.keys.get(key)?;
        if number == SEEN {
            return Some(KeptPart { end: counted.seen as i64, tuples: 0, fired: false, accumulator: None });
        }
        let at = usize::try_from(number - parts_before(counted, self.pane) as i64).ok()?;
        let part = counted.parts.get(at)?;
        let accumulator = Some(part.accumulator.clone());
        Some(KeptPart { end: 0, tuples: part.tuples, fired: false, accumulator })
    }

    fn put(&mut self, key: K, _number: i64, part: KeptPart<A::Accumulator>) {
        let counted = self.keys.entry(key).or_insert_with(|| Counted { seen: 0, parts: VecDeque::new() });
        match part.accumulator {
            None => counted.seen = part.end as u64,
            Some(accumulator) => {
                counted.parts.push_back(Part { tuples: part.tuples, ..Part::new(accumulator) });
                self.parts += 1;
            }
        }
    }

    fn forget_key(&mut self, key: &K) {
        self.parts -= self.keys.remove(key).map_or(0, |counted| counted.parts.len());
        self.dirty.forget(key);
    }

    fn closed(&self) -> Option<i64> {
        None
    }

    fn set_closed(&mut self, _closed: i64) {}
}
