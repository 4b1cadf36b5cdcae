//! Joins of one task: what is kept of both sides, and which pairs come of it.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use galerna_topology::Timestamp;

use crate::result::WindowBounds;
use crate::store::Hold;
use crate::time_windows::Slices;

/// A tuple of one of the two streams that are joined.
#[derive(Debug, Clone, PartialEq, Eq)]
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
    /// A tuple that finds no partner any more.
    fn release(&mut self, held: H);
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
                for sides in first.remove().into_values() {
                    self.kept -= sides.len();
                    sides.into_held().filter(|held| !held.is_empty()).for_each(|held| sink.release(held));
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
                    sink.release(kept.held);
                }
                for kept in sides.right.extract_if(.., |kept| kept.at.saturating_add(self.before) == at) {
                    if !kept.matched && self.unmatched == Unmatched::Both {
                        sink.joined(gone(None, Some(kept.tuple)), &[&kept.held]);
                    }
                    sink.release(kept.held);
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
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Key = u8;
    /// A tuple of each side by number.
    type Pair = (Key, Option<i64>, Option<usize>, Option<usize>);

    #[derive(Default)]
    struct Written {
        pairs: Vec<Pair>,
        released: Vec<usize>,
    }

    impl JoinSink<Key, usize, usize, Vec<usize>> for Written {
        fn joined(&mut self, joined: Joined<Key, usize, usize>, held: &[&Vec<usize>]) {
            let end = joined.bounds.map(|bounds| match bounds {
                WindowBounds::Time { end, .. } => end.millis(),
                WindowBounds::Count { .. } => unreachable!("joins have windows by time"),
            });
            let numbers: Vec<usize> = held.iter().flat_map(|held| held.iter().copied()).collect();
            let expected: Vec<usize> = joined.left.into_iter().chain(joined.right).collect();
            assert_eq!(numbers, expected, "anchored to its own tuples and no others");
            assert!(numbers.iter().all(|number| !self.released.contains(number)));
            self.pairs.push((joined.key, end, joined.left, joined.right));
        }

        fn release(&mut self, held: Vec<usize>) {
            self.released.extend(held);
        }
    }

    #[derive(Debug, Clone, Copy)]
    enum Event {
        Tuple(Key, bool, i64),
        Watermark(i64),
    }

    fn events() -> impl Strategy<Value = Vec<Event>> {
        let event = prop_oneof![
            6 => (0u8..2, any::<bool>(), -30i64..30).prop_map(|(key, left, off)| (Some((key, left)), off)),
            2 => (0i64..25).prop_map(|off| (None, off)),
        ];
        prop::collection::vec(event, 0..50).prop_map(|steps| {
            let mut now = 0;
            let event = |(tuple, off): (Option<(Key, bool)>, i64)| match tuple {
                Some((key, left)) => Event::Tuple(key, left, now + off),
                None => {
                    now += off;
                    Event::Watermark(now - 10)
                }
            };
            steps.into_iter().map(event).collect()
        })
    }

    /// The tuples that were taken: number, key, whether left, time.
    type Taken = Vec<(usize, Key, bool, i64)>;

    /// Runs a join to the end of its streams.
    fn run(
        mut store: impl JoinStore<Key, usize, usize, Vec<usize>>,
        events: &[Event],
    ) -> (Written, Taken, Vec<usize>) {
        let (mut written, mut taken, mut late) = (Written::default(), Vec::new(), Vec::new());
        for (number, event) in events.iter().enumerate() {
            match *event {
                Event::Tuple(key, left, at) => {
                    let tuple = if left { Side::Left(number) } else { Side::Right(number) };
                    match store.add(key, tuple, Timestamp::from_millis(at), vec![number], &mut written) {
                        Ok(()) => taken.push((number, key, left, at)),
                        Err(Rejected::TooLate(_, held)) => late.extend(held),
                        Err(Rejected::Full(_)) => panic!("there is no limit"),
                    }
                }
                Event::Watermark(at) => store.advance(Timestamp::from_millis(at), &mut written),
            }
        }
        store.advance(Timestamp::MAX, &mut written);
        assert_eq!(store.len(), 0);
        assert_eq!(store.take_all().len(), 0);
        let mut released = written.released.clone();
        released.sort_unstable();
        assert_eq!(released, taken.iter().map(|(number, ..)| *number).collect::<Vec<_>>());
        written.pairs.sort_unstable();
        (written, taken, late)
    }

    fn late_by(events: &[Event], is_late: impl Fn(i64, i64) -> bool) -> Vec<usize> {
        let mut closed = i64::MIN;
        let mut late = Vec::new();
        for (number, event) in events.iter().enumerate() {
            match *event {
                Event::Tuple(_, _, at) if is_late(at, closed) => late.push(number),
                Event::Tuple(..) => {}
                Event::Watermark(at) => closed = closed.max(at),
            }
        }
        late
    }

    fn unmatched() -> impl Strategy<Value = Unmatched> {
        prop_oneof![Just(Unmatched::None), Just(Unmatched::Left), Just(Unmatched::Both)]
    }

    proptest! {
        #[test]
        fn joins_by_interval_are_as_their_model(
            events in events(), before in 0i64..20, after in 0i64..20, unmatched in unmatched(),
        ) {
            let (written, taken, late) = run(IntervalJoin::new(before, after, unmatched, usize::MAX), &events);
            prop_assert_eq!(late, late_by(&events, |at, closed| at < closed));
            let (lefts, rights): (Taken, Taken) = taken.into_iter().partition(|tuple| tuple.2);
            let mut expected: Vec<Pair> = Vec::new();
            for left in &lefts {
                for right in rights.iter().filter(|right| right.1 == left.1) {
                    if left.3 - before <= right.3 && right.3 <= left.3 + after {
                        expected.push((left.1, None, Some(left.0), Some(right.0)));
                    }
                }
            }
            let pairs = expected.clone();
            let alone = |of: &Taken| -> Taken {
                of.iter().copied().filter(|t| !pairs.iter().any(|p| p.2 == Some(t.0) || p.3 == Some(t.0))).collect()
            };
            if unmatched != Unmatched::None {
                expected.extend(alone(&lefts).into_iter().map(|left| (left.1, None, Some(left.0), None)));
            }
            if unmatched == Unmatched::Both {
                expected.extend(alone(&rights).into_iter().map(|right| (right.1, None, None, Some(right.0))));
            }
            expected.sort_unstable();
            prop_assert_eq!(written.pairs, expected);
        }

        #[test]
        fn joins_by_window_are_as_their_model(
            events in events(), size in 1i64..20, slide in 1i64..20, unmatched in unmatched(),
        ) {
            let slide = slide.min(size);
            let join = WindowJoin::new(Slices::new(size, slide, 0), unmatched, usize::MAX);
            let (written, taken, late) = run(join, &events);
            let ends = |at: i64| (at + 1..=at + size).filter(move |end| (end - size).rem_euclid(slide) == 0);
            prop_assert_eq!(late, late_by(&events, |at, closed| ends(at).all(|end| end <= closed)));
            // A tuple that comes late for one of its windows is in those that are still open.
            let mut closed = i64::MIN;
            let mut windows: BTreeMap<(i64, Key), (Vec<usize>, Vec<usize>)> = BTreeMap::new();
            for (number, event) in events.iter().enumerate() {
                match *event {
                    Event::Watermark(at) => closed = closed.max(at),
                    Event::Tuple(key, left, at) if taken.iter().any(|taken| taken.0 == number) => {
                        for end in ends(at).filter(|end| *end > closed) {
                            let window = windows.entry((end, key)).or_default();
                            if left { window.0.push(number) } else { window.1.push(number) }
                        }
                    }
                    Event::Tuple(..) => {}
                }
            }
            let mut expected: Vec<Pair> = Vec::new();
            for ((end, key), (lefts, rights)) in windows {
                for left in &lefts {
                    expected.extend(rights.iter().map(|right| (key, Some(end), Some(*left), Some(*right))));
                }
                if rights.is_empty() && unmatched != Unmatched::None {
                    expected.extend(lefts.iter().map(|left| (key, Some(end), Some(*left), None)));
                }
                if lefts.is_empty() && unmatched == Unmatched::Both {
                    expected.extend(rights.iter().map(|right| (key, Some(end), None, Some(*right))));
                }
            }
            expected.sort_unstable();
            prop_assert_eq!(written.pairs, expected);
        }
    }

    #[test]
    fn at_its_limit_a_join_takes_no_more_until_some_have_gone() {
        let mut join: IntervalJoin<Key, usize, usize, Vec<usize>> =
            IntervalJoin::new(5, 5, Unmatched::None, 2);
        let mut written = Written::default();
        let mut add = |join: &mut IntervalJoin<_, _, _, _>, number: usize, at: i64| {
            join.add(1, Side::Left(number), Timestamp::from_millis(at), vec![number], &mut written)
        };
        assert!(add(&mut join, 0, 0).is_ok());
        assert!(add(&mut join, 1, 1).is_ok());
        assert!(matches!(add(&mut join, 2, 2), Err(Rejected::Full(held)) if held == [2]));
        let mut gone = Written::default();
        join.advance(Timestamp::from_millis(6), &mut gone);
        assert_eq!(gone.released, [0]);
        assert!(add(&mut join, 3, 6).is_ok());
    }
}
