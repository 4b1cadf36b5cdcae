//! Joins of one task against models that keep every tuple.

use proptest::prelude::*;

use super::*;

pub(crate) type Key = u8;
/// A tuple of each side by number.
pub(crate) type Pair = (Key, Option<i64>, Option<usize>, Option<usize>);

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

    fn release(&mut self, _: &Key, held: Vec<usize>) {
        self.released.extend(held);
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Event {
    Tuple(Key, bool, i64),
    Watermark(i64),
}

pub(crate) fn events() -> impl Strategy<Value = Vec<Event>> {
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
pub(crate) type Taken = Vec<(usize, Key, bool, i64)>;

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

pub(crate) fn late_by(events: &[Event], is_late: impl Fn(i64, i64) -> bool) -> Vec<usize> {
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

pub(crate) fn unmatched() -> impl Strategy<Value = Unmatched> {
    prop_oneof![Just(Unmatched::None), Just(Unmatched::Left), Just(Unmatched::Both)]
}

/// The pairs of a join by interval.
pub(crate) fn pairs_by_interval(taken: &Taken, before: i64, after: i64, unmatched: Unmatched) -> Vec<Pair> {
    let (lefts, rights): (Taken, Taken) = taken.iter().copied().partition(|tuple| tuple.2);
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
    expected
}

/// Where the windows of a time end.
pub(crate) fn ends(at: i64, size: i64, slide: i64) -> impl Iterator<Item = i64> {
    (at + 1..=at + size).filter(move |end| (end - size).rem_euclid(slide) == 0)
}

/// The pairs of a join by window.
pub(crate) fn pairs_by_window(
    events: &[Event],
    taken: &Taken,
    (size, slide): (i64, i64),
    unmatched: Unmatched,
) -> Vec<Pair> {
    // A tuple that comes late for one of its windows is in those that are still open.
    let mut closed = i64::MIN;
    let mut windows: BTreeMap<(i64, Key), (Vec<usize>, Vec<usize>)> = BTreeMap::new();
    for (number, event) in events.iter().enumerate() {
        match *event {
            Event::Watermark(at) => closed = closed.max(at),
            Event::Tuple(key, left, at) if taken.iter().any(|taken| taken.0 == number) => {
                for end in ends(at, size, slide).filter(|end| *end > closed) {
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
    expected
}

proptest! {
    #[test]
    fn joins_by_interval_are_as_their_model(
        events in events(), before in 0i64..20, after in 0i64..20, unmatched in unmatched(),
    ) {
        let (written, taken, late) = run(IntervalJoin::new(before, after, unmatched, usize::MAX), &events);
        prop_assert_eq!(late, late_by(&events, |at, closed| at < closed));
        prop_assert_eq!(written.pairs, pairs_by_interval(&taken, before, after, unmatched));
    }

    #[test]
    fn joins_by_window_are_as_their_model(
        events in events(), size in 1i64..20, slide in 1i64..20, unmatched in unmatched(),
    ) {
        let slide = slide.min(size);
        let join = WindowJoin::new(Slices::new(size, slide, 0), unmatched, usize::MAX);
        let (written, taken, late) = run(join, &events);
        prop_assert_eq!(late, late_by(&events, |at, closed| ends(at, size, slide).all(|end| end <= closed)));
        prop_assert_eq!(written.pairs, pairs_by_window(&events, &taken, (size, slide), unmatched));
    }
}

#[test]
fn at_its_limit_a_join_takes_no_more_until_some_have_gone() {
    let mut join: IntervalJoin<Key, usize, usize, Vec<usize>> = IntervalJoin::new(5, 5, Unmatched::None, 2);
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
