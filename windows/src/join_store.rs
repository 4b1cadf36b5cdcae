//! Joins of one task: what is kept of both sides, and which pairs come of it.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use galerna_topology::Timestamp;
use serde::{Deserialize, Serialize};

use crate::result::WindowBounds;
use crate::store::Hold;
use crate::time_windows::Slices;

/// A tuple of one of the two streams that are joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side<L, R> {
    /// Of the first stream.
    Left(L),
    /// Of the second stream.
    Right(R),
}

/// What a join emits: a pair of tuples with the same key, or one that has no partner.
#[derive(Debug, Clone, PartialEq)]
pub struct Joined<K, L, R> {
    /// The key of both.
    pub key: K,
    /// The window that both are in; none where partners are found by how far they are apart.
    pub bounds: Option<WindowBounds>,
    /// The tuple of the first stream. None only in a full join.
    pub left: Option<L>,
    /// The tuple of the second stream. None only in a left or full join.
    pub right: Option<R>,
}

/// Which tuples come out that have no partner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unmatched {
    None,
    Left,
    Both,
}

/// Why a tuple was not taken, with what it holds.
pub(crate) enum Rejected<L, R, H> {
    TooLate(Side<L, R>, H),
    /// As many tuples are kept as may be.
    Full(H),
}

/// Where joins put what comes out.
pub(crate) trait JoinSink<K, L, R, H> {
    /// A pair, and what its tuples hold.
    fn joined(&mut self, joined: Joined<K, L, R>, held: &[&H]);
    /// A tuple of this key that finds no partner any more.
    fn release(&mut self, key: &K, held: H);
}

/// A tuple that was taken before, and is put back.
pub(crate) struct TakenBefore<L, R, H> {
    pub(crate) tuple: Side<L, R>,
    pub(crate) at: i64,
    pub(crate) held: H,
    /// Whether it has found a partner.
    pub(crate) matched: bool,
}

/// The join of one task.
pub(crate) trait JoinStore<K, L, R, H>: Send {
    /// Takes a tuple in.
    fn add(
        &mut self,
        key: K,
        tuple: Side<L, R>,
        at: Timestamp,
        held: H,
        sink: &mut dyn JoinSink<K, L, R, H>,
    ) -> Result<(), Rejected<L, R, H>>;
    /// Nothing earlier than `watermark` is to be expected.
    fn advance(&mut self, watermark: Timestamp, sink: &mut dyn JoinSink<K, L, R, H>);
    /// Forgets everything. Returns what it holds.
    fn take_all(&mut self) -> Vec<H>;
    /// How many tuples are kept.
    fn len(&self) -> usize;
    /// Up to where nothing is to be expected any more.
    fn closed(&self) -> Option<i64>;
    /// Nothing earlier is to be expected, and what came of that has come out.
    fn set_closed(&mut self, closed: i64);
    /// Puts a tuple back, after `closed` was set. Those of a key come in the order in which they were taken.
    ///
    /// # Errors
    /// What it holds, if the tuple finds no partner any more.
    fn put(&mut self, key: K, taken: TakenBefore<L, R, H>) -> Result<(), H>;
    /// Forgets a key.
    fn forget_key(&mut self, key: &K);
}

/// A tuple that is kept.
struct Kept<T, H> {
    at: i64,
    tuple: T,
    held: H,
    matched: bool,
}

impl<T, H> Kept<T, H> {
    fn new(at: i64, tuple: T, held: H) -> Self {
        Self { at, tuple, held, matched: false }
    }
}

/// The tuples of a key.
struct Sides<L, R, H> {
    left: Vec<Kept<L, H>>,
    right: Vec<Kept<R, H>>,
}

impl<L, R, H> Sides<L, R, H> {
    fn new() -> Self {
        Self { left: Vec::new(), right: Vec::new() }
    }

    fn len(&self) -> usize {
        self.left.len() + self.right.len()
    }

    fn put(&mut self, taken: TakenBefore<L, R, H>) {
        let TakenBefore { tuple, at, held, matched } = taken;
        match tuple {
            Side::Left(tuple) => self.left.push(Kept { at, tuple, held, matched }),
            Side::Right(tuple) => self.right.push(Kept { at, tuple, held, matched }),
        }
    }

    fn into_held(self) -> impl Iterator<Item = H> {
        let left = self.left.into_iter().map(|kept| kept.held);
        left.chain(self.right.into_iter().map(|kept| kept.held))
    }
}

/// Joins what is in one window.
pub(crate) struct WindowJoin<K, L, R, H> {
    slices: Slices,
    unmatched: Unmatched,
    limit: usize,
    /// By where they begin.
    panes: BTreeMap<i64, HashMap<K, Sides<L, R, H>>>,
    closed: Option<i64>,
    kept: usize,
}

impl<K: Clone + Eq + Hash, L: Clone, R: Clone, H: Hold> WindowJoin<K, L, R, H> {
    pub(crate) fn new(slices: Slices, unmatched: Unmatched, limit: usize) -> Self {
        Self { slices, unmatched, limit, panes: BTreeMap::new(), closed: None, kept: 0 }
    }

    fn fire(&self, end: i64, key: &K, sink: &mut dyn JoinSink<K, L, R, H>) {
        let start = self.slices.start(end);
        let panes = || self.panes.range(start..end).filter_map(|(_, pane)| pane.get(key));
        let lefts = || panes().flat_map(|sides| &sides.left);
        let rights = || panes().flat_map(|sides| &sides.right);
        let bounds = Some(WindowBounds::time(start, end));
        let pair = |left: Option<&Kept<L, H>>, right: Option<&Kept<R, H>>| Joined {
            key: key.clone(),
            bounds,
            left: left.map(|kept| kept.tuple.clone()),
            right: right.map(|kept| kept.tuple.clone()),
        };
        for left in lefts() {
            for right in rights() {
                sink.joined(pair(Some(left), Some(right)), &[&left.held, &right.held]);
            }
        }
        if self.unmatched != Unmatched::None && rights().next().is_none() {
            lefts().for_each(|left| sink.joined(pair(Some(left), None), &[&left.held]));
        }
        if self.unmatched == Unmatched::Both && lefts().next().is_none() {
            rights().for_each(|right| sink.joined(pair(None, Some(right)), &[&right.held]));
        }
    }
}

impl<K, L, R, H> JoinStore<K, L, R, H> for WindowJoin<K, L, R, H>
where
    K: Clone + Eq + Hash + Send,
    L: Clone + Send,
    R: Clone + Send,
    H: Hold,
{
    fn add(
        &mut self,
        key: K,
        tuple: Side<L, R>,
        at: Timestamp,
        held: H,
        _sink: &mut dyn JoinSink<K, L, R, H>,
    ) -> Result<(), Rejected<L, R, H>> {
        let at = at.millis();
        let pane = self.slices.pane_of(at);
        if self.closed.is_some_and(|closed| self.slices.last_end(pane) <= closed) {
            return Err(Rejected::TooLate(tuple, held));
        }
        if self.kept >= self.limit {
            return Err(Rejected::Full(held));
        }
        self.kept += 1;
        let sides = self.panes.entry(pane).or_default().entry(key).or_insert_with(Sides::new);
        match tuple {
            Side::Left(tuple) => sides.left.push(Kept::new(at, tuple, held)),
            Side::Right(tuple) => sides.right.push(Kept::new(at, tuple, held)),
        }
        Ok(())
    }

    fn advance(&mut self, watermark: Timestamp, sink: &mut dyn JoinSink<K, L, R, H>) {
        let watermark = watermark.millis();
        if self.closed.is_some_and(|closed| watermark <= closed) {
            return;
        }
        for end in self.slices.due(self.panes.keys().copied(), self.closed, watermark) {
            let mut keys = std::collections::HashSet::new();
            for pane in self.panes.range(self.slices.start(end)..end).map(|(_, pane)| pane) {
                for key in pane.keys() {
                    if keys.insert(key) {
                        self.fire(end, key, sink);
                    }
                }
            }
            drop(keys);
            while let Some(first) = self.panes.first_entry()
                && self.slices.last_end(*first.key()) <= end
            {
                for (key, sides) in first.remove() {
                    self.kept -= sides.len();
                    let held = sides.into_held().filter(|held| !held.is_empty());
                    held.for_each(|held| sink.release(&key, held));
                }
            }
        }
        self.closed = Some(watermark);
    }

    fn take_all(&mut self) -> Vec<H> {
        self.kept = 0;
        let sides = std::mem::take(&mut self.panes).into_values().flat_map(HashMap::into_values);
        sides.flat_map(Sides::into_held).filter(|held| !held.is_empty()).collect()
    }

    fn len(&self) -> usize {
        self.kept
    }

    fn closed(&self) -> Option<i64> {
        self.closed
    }

    fn set_closed(&mut self, closed: i64) {
        self.closed = Some(closed);
    }

    fn put(&mut self, key: K, taken: TakenBefore<L, R, H>) -> Result<(), H> {
        let pane = self.slices.pane_of(taken.at);
        if self.closed.is_some_and(|closed| self.slices.last_end(pane) <= closed) {
            return Err(taken.held);
        }
        self.kept += 1;
        self.panes.entry(pane).or_default().entry(key).or_insert_with(Sides::new).put(taken);
        Ok(())
    }

    fn forget_key(&mut self, key: &K) {
        let gone = self.panes.values_mut().filter_map(|pane| pane.remove(key));
        self.kept -= gone.map(|sides| sides.len()).sum::<usize>();
        self.panes.retain(|_, pane| !pane.is_empty());
    }
}

/// Joins what is not too far apart: a right tuple at most `before` earlier and at most `after` later than the left one.
pub(crate) struct IntervalJoin<K, L, R, H> {
    before: i64,
    after: i64,
    unmatched: Unmatched,
    limit: usize,
    keys: HashMap<K, Sides<L, R, H>>,
    /// When tuples of these keys find no partner any more.
    expiries: BTreeMap<i64, Vec<K>>,
    closed: Option<i64>,
    kept: usize,
}

impl<K: Clone + Eq + Hash, L: Clone, R: Clone, H: Hold> IntervalJoin<K, L, R, H> {
    pub(crate) fn new(before: i64, after: i64, unmatched: Unmatched, limit: usize) -> Self {
        Self {
            before,
            after,
            unmatched,
            limit,
            keys: HashMap::new(),
            expiries: BTreeMap::new(),
            closed: None,
            kept: 0,
        }
    }
}

impl<K, L, R, H> JoinStore<K, L, R, H> for IntervalJoin<K, L, R, H>
where
    K: Clone + Eq + Hash + Send,
    L: Clone + Send,
    R: Clone + Send,
    H: Hold,
{
    fn add(
        &mut self,
        key: K,
        tuple: Side<L, R>,
        at: Timestamp,
        held: H,
        sink: &mut dyn JoinSink<K, L, R, H>,
    ) -> Result<(), Rejected<L, R, H>> {
        let at = at.millis();
        if self.closed.is_some_and(|closed| at < closed) {
            return Err(Rejected::TooLate(tuple, held));
        }
        if self.kept >= self.limit {
            return Err(Rejected::Full(held));
        }
        self.kept += 1;
        let (before, after) = (self.before, self.after);
        let meets = |left: i64, right: i64| right >= left - before && right <= left + after;
        let sides = self.keys.entry(key.clone()).or_insert_with(Sides::new);
        let mut emit = |left: &mut Kept<L, H>, right: &mut Kept<R, H>| {
            if meets(left.at, right.at) {
                (left.matched, right.matched) = (true, true);
                let (one, other) = (Some(left.tuple.clone()), Some(right.tuple.clone()));
                let joined = Joined { key: key.clone(), bounds: None, left: one, right: other };
                sink.joined(joined, &[&left.held, &right.held]);
            }
        };
        let reach = match tuple {
            Side::Left(tuple) => {
                let mut left = Kept::new(at, tuple, held);
                sides.right.iter_mut().for_each(|right| emit(&mut left, right));
                sides.left.push(left);
                after
            }
            Side::Right(tuple) => {
                let mut right = Kept::new(at, tuple, held);
                sides.left.iter_mut().for_each(|left| emit(left, &mut right));
                sides.right.push(right);
                before
            }
        };
        self.expiries.entry(at.saturating_add(reach)).or_default().push(key);
        Ok(())
    }

    fn advance(&mut self, watermark: Timestamp, sink: &mut dyn JoinSink<K, L, R, H>) {
        let watermark = watermark.millis();
        if self.closed.is_some_and(|closed| watermark <= closed) {
            return;
        }
        while let Some(expiry) = self.expiries.first_entry()
            && *expiry.key() < watermark
        {
            let (at, keys) = expiry.remove_entry();
            for key in keys {
                let Some(sides) = self.keys.get_mut(&key) else { continue };
                let gone = |left: Option<L>, right: Option<R>| Joined {
                    key: key.clone(),
                    bounds: None,
                    left,
                    right,
                };
                let before = sides.len();
                for kept in sides.left.extract_if(.., |kept| kept.at.saturating_add(self.after) == at) {
                    if !kept.matched && self.unmatched != Unmatched::None {
                        sink.joined(gone(Some(kept.tuple), None), &[&kept.held]);
                    }
                    sink.release(&key, kept.held);
                }
                for kept in sides.right.extract_if(.., |kept| kept.at.saturating_add(self.before) == at) {
                    if !kept.matched && self.unmatched == Unmatched::Both {
                        sink.joined(gone(None, Some(kept.tuple)), &[&kept.held]);
                    }
                    sink.release(&key, kept.held);
                }
                self.kept -= before - sides.len();
                if sides.len() == 0 {
                    self.keys.remove(&key);
                }
            }
        }
        self.closed = Some(watermark);
    }

    fn take_all(&mut self) -> Vec<H> {
        self.kept = 0;
        self.expiries.clear();
        let sides = std::mem::take(&mut self.keys).into_values();
        sides.flat_map(Sides::into_held).filter(|held| !held.is_empty()).collect()
    }

    fn len(&self) -> usize {
        self.kept
    }

    fn closed(&self) -> Option<i64> {
        self.closed
    }

    fn set_closed(&mut self, closed: i64) {
        self.closed = Some(closed);
    }

    fn put(&mut self, key: K, taken: TakenBefore<L, R, H>) -> Result<(), H> {
        let reach = match &taken.tuple {
            Side::Left(_) => self.after,
            Side::Right(_) => self.before,
        };
        let expiry = taken.at.saturating_add(reach);
        if self.closed.is_some_and(|closed| expiry < closed) {
            return Err(taken.held);
        }
        self.kept += 1;
        self.keys.entry(key.clone()).or_insert_with(Sides::new).put(taken);
        self.expiries.entry(expiry).or_default().push(key);
        Ok(())
    }

    fn forget_key(&mut self, key: &K) {
        // Its expiries find nothing, or what is put back.
        self.kept -= self.keys.remove(key).map_or(0, |sides| sides.len());
    }
}

#[cfg(test)]
#[path = "join_store_tests.rs"]
pub(crate) mod tests;
