//! Tumbling and sliding windows of one task.
//!
//! Time is cut into panes, the longest stretches that lie wholly inside or wholly outside of every window: a tuple is added to one pane,
//! however many windows that pane is in, and a window merges its panes when it fires (after Li et al., "No Pane, No Gain", SIGMOD
//! Record 34(1), 2005).

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;
use std::sync::Arc;

use galerna_topology::{Fault, Timestamp};

use crate::aggregate::Aggregate;
use crate::kept::{KeptPart, KeptStore};
use crate::result::{Firing, WindowBounds, WindowResult};
use crate::store::{Early, Hold, Part, TooLate, WindowSink, WindowStore, caught, gcd};

/// Windows of one length that begin at equal distances. All in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Slices {
    size: i64,
    slide: i64,
    offset: i64,
    pane: i64,
}

impl Slices {
    /// Both more than 0, and `slide` not more than `size`. One of the windows begins at `offset`.
    pub(crate) fn new(size: i64, slide: i64, offset: i64) -> Self {
        debug_assert!(size > 0 && slide > 0 && slide <= size, "{size} by {slide}");
        Self { size, slide, offset: offset.rem_euclid(slide), pane: gcd(size, slide) }
    }

    /// How many panes a window has.
    pub(crate) fn panes(&self) -> i64 {
        self.size / self.pane
    }

    fn floor(&self, at: i64, step: i64) -> i64 {
        at - (at - self.offset).rem_euclid(step)
    }

    /// Where the pane begins that a time is in.
    pub(crate) fn pane_of(&self, at: i64) -> i64 {
        self.floor(at, self.pane)
    }

    /// The end of the last window that a time is in.
    pub(crate) fn last_end(&self, at: i64) -> i64 {
        self.floor(at, self.slide).saturating_add(self.size)
    }

    /// The end of the first window that ends after a time.
    fn first_end_after(&self, at: i64) -> i64 {
        // Windows end at multiples of the slide, moved by this.
        let moved = self.offset.saturating_add(self.size);
        at.saturating_sub(at.wrapping_sub(moved).rem_euclid(self.slide)).saturating_add(self.slide)
    }

    /// Where the window begins that ends here.
    pub(crate) fn start(&self, end: i64) -> i64 {
        end.saturating_sub(self.size)
    }

    /// The ends, in order, of all windows that have one of these panes, end after `closed` and at `until` or before it. Panes by where
    /// they begin, in order.
    pub(crate) fn due(&self, panes: impl Iterator<Item = i64>, closed: Option<i64>, until: i64) -> Vec<i64> {
        let mut due: Vec<i64> = Vec::new();
        for pane in panes {
            let after = due.last().copied().max(closed).unwrap_or(pane).max(pane);
            let mut end = self.first_end_after(after);
            let last = self.last_end(pane).min(until);
            while end <= last {
                due.push(end);
                end = end.saturating_add(self.slide);
            }
        }
        due
    }

    /// The ends of all windows that a time is in.
    fn ends(&self, at: i64) -> impl Iterator<Item = i64> + use<> {
        let (first, last, slide) = (self.first_end_after(at), self.last_end(at), self.slide);
        (0..).map(move |step| first + step * slide).take_while(move |end| *end <= last)
    }
}

/// The tumbling or sliding windows of one task.
pub(crate) struct TimeWindows<K, T, A: Aggregate<T>, H> {
    slices: Slices,
    aggregate: Arc<A>,
    /// For how long after its end a window takes tuples, in milliseconds.
    lateness: i64,
    early: Early,
    with_expired: bool,
    /// By where they begin.
    panes: BTreeMap<i64, HashMap<K, Part<A::Accumulator, H>>>,
    /// All windows that end here or before have fired.
    closed: Option<i64>,
    /// The windows, by end and key, for which tuples have come since they fired. In that order, each once.
    late: Vec<(i64, K)>,
    late_known: HashSet<(i64, K)>,
    /// The panes of these of which no window is open.
    late_panes: Vec<(i64, K)>,
    /// The panes that have changed since the last early firing.
    changed: Vec<(i64, K)>,
    changed_known: HashSet<(i64, K)>,
    parts: usize,
    unwritten: Option<Unwritten<K>>,
}

/// What has changed of windows in state since it was written.
struct Unwritten<K> {
    /// Panes of which parts have changed.
    panes: BTreeSet<i64>,
    /// Parts that are gone and that the state still has.
    gone: Vec<(K, i64)>,
    /// The number of the batch that is being added.
    batch: u64,
}

impl<K: Clone + Eq + Hash, T, A: Aggregate<T>, H: Hold> TimeWindows<K, T, A, H> {
    pub(crate) fn new(
        slices: Slices,
        aggregate: Arc<A>,
        lateness: i64,
        early: Early,
        with_expired: bool,
    ) -> Self {
        Self {
            slices,
            aggregate,
            lateness,
            early,
            with_expired,
            panes: BTreeMap::new(),
            closed: None,
            late: Vec::new(),
            late_known: HashSet::new(),
            late_panes: Vec::new(),
            changed: Vec::new(),
            changed_known: HashSet::new(),
            parts: 0,
            unwritten: None,
        }
    }

    fn is_closed(&self, end: i64) -> bool {
        self.closed.is_some_and(|closed| end <= closed)
    }

    /// Merges the panes of a key that begin in a stretch of time.
    fn merged(&self, key: &K, from: i64, to: i64) -> Result<Option<A::Accumulator>, Fault> {
        let mut parts = self.panes.range(from..to).filter_map(|(_, pane)| pane.get(key));
        let Some(first) = parts.next() else { return Ok(None) };
        let mut merged = first.accumulator.clone();
        for part in parts {
            caught(|| self.aggregate.merge(&mut merged, &part.accumulator))?;
        }
        Ok(Some(merged))
    }

    fn value(&self, key: &K, from: i64, to: i64) -> Result<Option<A::Output>, Fault> {
        let mut parts = self.panes.range(from..to).filter_map(|(_, pane)| pane.get(key));
        match (parts.next(), parts.next()) {
            (None, _) => Ok(None),
            // No need for a copy.
            (Some(only), None) => caught(|| self.aggregate.result(&only.accumulator)).map(Some),
            _ => match self.merged(key, from, to)? {
                Some(merged) => caught(|| self.aggregate.result(&merged)).map(Some),
                None => Ok(None),
            },
        }
    }

    /// Fires a window for a key, if it has tuples.
    fn fire(&mut self, end: i64, key: &K, firing: Firing, sink: &mut dyn WindowSink<K, A::Output, H>) {
        let start = end.saturating_sub(self.slices.size);
        let value = match self.value(key, start, end) {
            Ok(Some(value)) => value,
            Ok(None) => return,
            Err(fault) => return self.give_up(start, end, key, &fault, sink),
        };
        let before = start.saturating_sub(self.slices.slide);
        let expired = match self.with_expired.then(|| self.value(key, before, start)) {
            None => None,
            Some(Ok(expired)) => expired,
            Some(Err(fault)) => return self.give_up(before, start, key, &fault, sink),
        };
        let parts = self.panes.range(start..end).filter_map(|(_, pane)| pane.get(key));
        let held: Vec<&H> = parts.map(|part| &part.held).filter(|held| !held.is_empty()).collect();
        let bounds = WindowBounds::time(start, end);
        sink.fire(WindowResult { key: key.clone(), bounds, firing, value, expired }, &held);
    }

    /// The aggregate panicked at these panes: they are no good any more.
    #[cold]
    fn give_up(
        &mut self,
        from: i64,
        to: i64,
        key: &K,
        fault: &Fault,
        sink: &mut dyn WindowSink<K, A::Output, H>,
    ) {
        for (start, pane) in self.panes.range_mut(from..to) {
            if let Some(part) = pane.remove(key) {
                self.parts -= 1;
                if let (Some(unwritten), true) = (&mut self.unwritten, part.kept.in_state) {
                    unwritten.gone.push((key.clone(), *start));
                }
                sink.fail(part.held, fault.clone());
            }
        }
    }

    /// Fires a window for all keys that have tuples in it.
    fn fire_each(&mut self, end: i64, firing: Firing, sink: &mut dyn WindowSink<K, A::Output, H>) {
        let start = end.saturating_sub(self.slices.size);
        let mut known = HashSet::new();
        let mut panes = self.panes.range(start..end).map(|(_, pane)| pane).peekable();
        let mut keys: Vec<K> = Vec::new();
        while let Some(pane) = panes.next() {
            if keys.is_empty() && panes.peek().is_none() {
                keys.extend(pane.keys().cloned());
            } else {
                keys.extend(pane.keys().filter(|key| known.insert(*key)).cloned());
            }
        }
        drop(known);
        for key in keys {
            self.fire(end, &key, firing, sink);
        }
    }

    /// Lets go of what the tuples in panes that begin here hold: all their windows have fired.
    fn release(&mut self, from: i64, to: i64, sink: &mut dyn WindowSink<K, A::Output, H>) {
        for part in self.panes.range_mut(from..to).flat_map(|(_, pane)| pane.values_mut()) {
            if !part.held.is_empty() {
                sink.release(part.take_held());
            }
        }
    }

    /// Fires all windows that end at `watermark` or before it and have not fired, in order.
    fn fire_until(&mut self, watermark: i64, firing: Firing, sink: &mut dyn WindowSink<K, A::Output, H>) {
        for end in self.slices.due(self.panes.keys().copied(), self.closed, watermark) {
            self.fire_each(end, firing, sink);
            let start = self.slices.start(end);
            self.release(start, start.saturating_add(self.slices.slide), sink);
        }
    }

    fn note_changed(&mut self, pane: i64, key: &K) {
        if self.changed_known.insert((pane, key.clone())) {
            self.changed.push((pane, key.clone()));
        }
    }

    /// Fires the open windows of a pane that have got a multiple of `every` tuples.
    fn fire_by_count(&mut self, pane: i64, key: &K, every: u64, sink: &mut dyn WindowSink<K, A::Output, H>) {
        for end in self.slices.ends(pane) {
            if self.is_closed(end) {
                continue;
            }
            let panes = self.panes.range(end - self.slices.size..end);
            let tuples: u64 = panes.filter_map(|(_, pane)| pane.get(key)).map(|part| part.tuples).sum();
            if tuples.is_multiple_of(every) {
                self.fire(end, key, Firing::Early, sink);
            }
        }
    }
}

impl<K, T, A, H> WindowStore<K, T, A::Output, H> for TimeWindows<K, T, A, H>
where
    K: Clone + Eq + Hash + Send,
    A: Aggregate<T>,
    H: Hold,
{
    fn add(
        &mut self,
        key: &K,
        tuple: T,
        at: Timestamp,
        held: H,
        sink: &mut dyn WindowSink<K, A::Output, H>,
    ) -> Result<(), TooLate<T, H>> {
        let at = at.millis();
        let start = self.slices.pane_of(at);
        if self.is_closed(self.slices.last_end(start).saturating_add(self.lateness)) {
            return Err(TooLate { tuple, held });
        }
        let pane = self.panes.entry(start).or_default();
        let part = match pane.get_mut(key) {
            Some(part) => part,
            None => {
                self.parts += 1;
                pane.entry(key.clone()).or_insert_with(|| Part::new(self.aggregate.create()))
            }
        };
        if let Some(unwritten) = &mut self.unwritten {
            unwritten.note(start, part);
        }
        part.held.merge(held);
        part.tuples += 1;
        if let Err(fault) = caught(|| self.aggregate.add(&mut part.accumulator, tuple)) {
            match &self.unwritten {
                // The batch is taken back.
                Some(_) => sink.fail(part.take_held(), fault),
                None => self.give_up(start, start + 1, key, &fault, sink),
            }
            return Ok(());
        }
        if self.is_closed(self.slices.first_end_after(start)) {
            if self.is_closed(self.slices.last_end(start)) {
                self.late_panes.push((start, key.clone()));
            }
            for end in self.slices.ends(start) {
                let refire = self.is_closed(end) && !self.is_closed(end.saturating_add(self.lateness));
                if refire && self.late_known.insert((end, key.clone())) {
                    self.late.push((end, key.clone()));
                }
            }
        }
        match self.early {
            Early::Never => {}
            Early::Tuples(every) => self.fire_by_count(start, key, every, sink),
            Early::Times => self.note_changed(start, key),
        }
        Ok(())
    }

    fn advance(&mut self, watermark: Timestamp, sink: &mut dyn WindowSink<K, A::Output, H>) {
        let watermark = watermark.millis();
        if self.is_closed(watermark) {
            return;
        }
        self.fire_late(sink);
        self.fire_until(watermark, Firing::OnTime, sink);
        self.closed = Some(watermark);
        let kept_on = if self.with_expired { self.slices.slide } else { 0 };
        while let Some(first) = self.panes.first_entry() {
            let gone =
                self.slices.last_end(*first.key()).saturating_add(self.lateness).saturating_add(kept_on);
            if gone > watermark {
                break;
            }
            let (start, pane) = first.remove_entry();
            self.parts -= pane.len();
            if let Some(unwritten) = &mut self.unwritten {
                unwritten.panes.remove(&start);
                let gone = pane.into_iter().filter(|(_, part)| part.kept.in_state);
                unwritten.gone.extend(gone.map(|(key, _)| (key, start)));
                continue;
            }
            for mut part in pane.into_values() {
                if !part.held.is_empty() {
                    sink.release(part.take_held());
                }
            }
        }
    }

    fn fire_late(&mut self, sink: &mut dyn WindowSink<K, A::Output, H>) {
        if self.late.is_empty() {
            return;
        }
        self.late_known.clear();
        for (end, key) in std::mem::take(&mut self.late) {
            self.fire(end, &key, Firing::Late, sink);
        }
        for (pane, key) in std::mem::take(&mut self.late_panes) {
            if let Some(part) = self.panes.get_mut(&pane).and_then(|pane| pane.get_mut(&key))
                && !part.held.is_empty()
            {
                sink.release(part.take_held());
            }
        }
    }

    fn fire_early(&mut self, sink: &mut dyn WindowSink<K, A::Output, H>) {
        self.changed_known.clear();
        let mut fired = HashSet::new();
        for (pane, key) in std::mem::take(&mut self.changed) {
            for end in self.slices.ends(pane) {
                if !self.is_closed(end) && fired.insert((end, key.clone())) {
                    self.fire(end, &key, Firing::Early, sink);
                }
            }
        }
    }

    fn fire_all(&mut self, firing: Firing, sink: &mut dyn WindowSink<K, A::Output, H>) {
        self.fire_late(sink);
        self.fire_until(i64::MAX, firing, sink);
        for held in self.take_all() {
            sink.release(held);
        }
    }

    fn take_all(&mut self) -> Vec<H> {
        self.parts = 0;
        self.late.clear();
        self.late_known.clear();
        self.late_panes.clear();
        self.changed.clear();
        self.changed_known.clear();
        let parts = std::mem::take(&mut self.panes).into_values().flat_map(HashMap::into_values);
        parts.map(|part| part.held).filter(|held| !held.is_empty()).collect()
    }

    fn len(&self) -> usize {
        self.parts
    }
}

impl<K, T, A> KeptStore<K, T, A::Output, A::Accumulator> for TimeWindows<K, T, A, ()>
where
    K: Clone + Eq + Hash + Send,
    A: Aggregate<T>,
{
    fn note_changes(&mut self) {
        self.unwritten = Some(Unwritten { panes: BTreeSet::new(), gone: Vec::new(), batch: 1 });
    }

    fn take_dirty(&mut self) -> Vec<(K, i64)> {
        let Some(unwritten) = &mut self.unwritten else { return Vec::new() };
        let mut dirty = std::mem::take(&mut unwritten.gone);
        for start in std::mem::take(&mut unwritten.panes) {
            let parts = self.panes.get_mut(&start).into_iter().flatten();
            for (key, part) in parts.filter(|(_, part)| part.kept.changed) {
                part.kept.changed = false;
                part.kept.in_state = true;
                part.kept.before = None;
                dirty.push((key.clone(), start));
            }
        }
        dirty
    }

    fn part(&self, key: &K, number: i64) -> Option<KeptPart<A::Accumulator>> {
        let part = self.panes.get(&number)?.get(key)?;
        let accumulator = Some(part.accumulator.clone());
        Some(KeptPart { end: 0, tuples: part.tuples, fired: false, accumulator })
    }

    fn put(&mut self, key: K, number: i64, part: KeptPart<A::Accumulator>) {
        let KeptPart { tuples, accumulator: Some(accumulator), .. } = part else { return };
        let mut part = Part::new(accumulator);
        part.tuples = tuples;
        part.kept.in_state = true;
        self.panes.entry(number).or_default().insert(key, part);
        self.parts += 1;
    }

    fn forget_key(&mut self, key: &K) {
        for pane in self.panes.values_mut() {
            self.parts -= usize::from(pane.remove(key).is_some());
        }
    }

    fn closed(&self) -> Option<i64> {
        self.closed
    }

    fn set_closed(&mut self, closed: i64) {
        self.closed = Some(closed);
    }

    fn takes_back(&self) -> bool {
        true
    }

    fn begin_batch(&mut self) {
        if let Some(unwritten) = &mut self.unwritten {
            unwritten.batch += 1;
        }
    }

    fn end_batch(&mut self) {
        self.begin_batch();
    }

    fn take_back(&mut self, key: Option<&K>) {
        let Some(unwritten) = &mut self.unwritten else { return };
        let batch = unwritten.batch;
        for (start, pane) in &mut self.panes {
            let parts = pane.len();
            pane.retain(|of, part| {
                if part.kept.batch != batch || key.is_some_and(|key| key != of) {
                    return true;
                }
                // So that it is taken back once.
                part.kept.batch = 0;
                match part.kept.before.take() {
                    Some((accumulator, tuples)) => {
                        (part.accumulator, part.tuples) = (accumulator, tuples);
                        true
                    }
                    None => {
                        if part.kept.in_state {
                            unwritten.gone.push((of.clone(), *start));
                        }
                        false
                    }
                }
            });
            self.parts -= parts - pane.len();
        }
    }

    fn note_unwritten(&mut self, key: &K, number: i64) {
        let Some(unwritten) = &mut self.unwritten else { return };
        match self.panes.get_mut(&number).and_then(|pane| pane.get_mut(key)) {
            Some(part) => {
                part.kept.changed = true;
                unwritten.panes.insert(number);
            }
            None => unwritten.gone.push((key.clone(), number)),
        }
    }
}

impl<K> Unwritten<K> {
    /// A part is about to change.
    fn note<A: Clone, H>(&mut self, pane: i64, part: &mut Part<A, H>) {
        if part.kept.batch != self.batch {
            part.kept.batch = self.batch;
            part.kept.before = (part.tuples > 0).then(|| (part.accumulator.clone(), part.tuples));
        }
        if !part.kept.changed {
            part.kept.changed = true;
            self.panes.insert(pane);
        }
    }
}
