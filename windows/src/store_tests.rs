//! The windows of one task against models that keep every tuple and compute everything anew.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use galerna_topology::Timestamp;
use proptest::prelude::*;

use crate::aggregate::{Aggregate, Collect, Fold};
use crate::count_windows::CountWindows;
use crate::result::{Firing, WindowBounds, WindowResult};
use crate::sessions::Sessions;
use crate::store::tests::Written;
use crate::store::{Early, WindowStore};
use crate::time_windows::{Slices, TimeWindows};

type Key = u8;
/// The number of a tuple, which is also its value, and its time.
type Tuple = (usize, i64);
type Store = Box<dyn WindowStore<Key, usize, Vec<usize>, Vec<usize>>>;

/// What happens to a task.
#[derive(Debug, Clone, Copy)]
enum Event {
    Tuple(Key, i64),
    Watermark(i64),
}

/// Tuples that mostly come in time, some late, some very late, some twice; watermarks that now and then jump.
fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        8 => (0u8..3, -40i64..40).prop_map(|(key, off)| (Some(key), off)),
        1 => (0u8..3, -300i64..0).prop_map(|(key, off)| (Some(key), off)),
        3 => (-5i64..60).prop_map(|off| (None, off)),
    ];
    (prop::collection::vec((event, prop::bool::weighted(0.1)), 0..80), -100i64..100).prop_map(
        |(steps, start)| {
            let (mut now, mut events, mut last) = (start, Vec::new(), None);
            for ((key, off), twice) in steps {
                let event = match key {
                    Some(key) => Event::Tuple(key, now + off),
                    None => {
                        now += off.max(0);
                        Event::Watermark(now - 10 + off.min(0))
                    }
                };
                events.push(event);
                if let (true, Some(last)) = (twice, last) {
                    events.push(last);
                }
                last = Some(event);
            }
            events
        },
    )
}

/// A result, to be compared.
type Fired = (i64, i64, Key, Firing, Vec<usize>);

fn fired(result: &WindowResult<Key, Vec<usize>>) -> Fired {
    let (start, end) = match result.bounds {
        WindowBounds::Time { start, end } => (start.millis(), end.millis()),
        WindowBounds::Count { first, last } => (first as i64, last as i64),
    };
    let mut tuples = result.value.clone();
    tuples.sort_unstable();
    (end, start, result.key, result.firing, tuples)
}

/// A model: what a task with these windows emits, if it is asked for late results after each tuple.
trait Model {
    /// What fires by a tuple, or nothing if it is late for all its windows.
    fn tuple(&mut self, key: Key, tuple: Tuple) -> Option<Vec<Fired>>;
    fn watermark(&mut self, watermark: i64) -> Vec<Fired>;
}

struct ModelWindows {
    size: i64,
    slide: i64,
    lateness: i64,
    tuples: Vec<(Key, Tuple)>,
    closed: i64,
}

impl ModelWindows {
    /// All ends of windows that a time is in, by trying out every millisecond.
    fn ends(&self, at: i64) -> Vec<i64> {
        (at + 1..=at + self.size).filter(|end| (end - self.size).rem_euclid(self.slide) == 0).collect()
    }

    fn window(&self, key: Key, end: i64, firing: Firing) -> Fired {
        let inside = |at: i64| end - self.size <= at && at < end;
        let tuples = self.tuples.iter().filter(|(other, (_, at))| *other == key && inside(*at));
        (end, end - self.size, key, firing, tuples.map(|(_, (number, _))| *number).collect())
    }
}

impl Model for ModelWindows {
    fn tuple(&mut self, key: Key, tuple: Tuple) -> Option<Vec<Fired>> {
        let ends = self.ends(tuple.1);
        if ends.iter().all(|end| end + self.lateness <= self.closed) {
            return None;
        }
        self.tuples.push((key, tuple));
        let late = ends.into_iter().filter(|end| *end <= self.closed && end + self.lateness > self.closed);
        Some(late.map(|end| self.window(key, end, Firing::Late)).collect())
    }

    fn watermark(&mut self, watermark: i64) -> Vec<Fired> {
        let due: BTreeSet<(i64, Key)> = self
            .tuples
            .iter()
            .flat_map(|(key, (_, at))| self.ends(*at).into_iter().map(|end| (end, *key)))
            .filter(|(end, _)| self.closed < *end && *end <= watermark)
            .collect();
        self.closed = self.closed.max(watermark);
        due.into_iter().map(|(end, key)| self.window(key, end, Firing::OnTime)).collect()
    }
}

struct ModelSessions {
    gap: i64,
    lateness: i64,
    sessions: Vec<(Key, Vec<Tuple>)>,
    closed: i64,
}

impl ModelSessions {
    fn bounds(&self, tuples: &[Tuple]) -> (i64, i64) {
        let times = || tuples.iter().map(|(_, at)| *at);
        (times().min().expect("a tuple"), times().max().expect("a tuple") + self.gap)
    }

    fn session(&self, key: Key, tuples: &[Tuple], firing: Firing) -> Fired {
        let (start, end) = self.bounds(tuples);
        let mut numbers: Vec<usize> = tuples.iter().map(|(number, _)| *number).collect();
        numbers.sort_unstable();
        (end, start, key, firing, numbers)
    }
}

impl Model for ModelSessions {
    fn tuple(&mut self, key: Key, tuple: Tuple) -> Option<Vec<Fired>> {
        let meets = |tuples: &[Tuple]| {
            let (start, end) = self.bounds(tuples);
            start < tuple.1 + self.gap && tuple.1 < end
        };
        let (mut merged, mut others) = (vec![tuple], Vec::new());
        for (other, tuples) in &self.sessions {
            if *other == key && meets(tuples) {
                merged.extend(tuples);
            } else {
                others.push((*other, tuples.clone()));
            }
        }
        let (_, end) = self.bounds(&merged);
        if end + self.lateness <= self.closed {
            return None;
        }
        let late = (end <= self.closed).then(|| self.session(key, &merged, Firing::Late));
        others.push((key, merged));
        self.sessions = others;
        Some(late.into_iter().collect())
    }

    fn watermark(&mut self, watermark: i64) -> Vec<Fired> {
        let due = self.sessions.iter().filter(|(_, tuples)| {
            let (_, end) = self.bounds(tuples);
            self.closed < end && end <= watermark
        });
        let mut due: Vec<Fired> =
            due.map(|(key, tuples)| self.session(*key, tuples, Firing::OnTime)).collect();
        due.sort_unstable();
        if watermark > self.closed {
            self.closed = watermark;
            let mut sessions = std::mem::take(&mut self.sessions);
            sessions.retain(|(_, tuples)| self.bounds(tuples).1 + self.lateness > watermark);
            self.sessions = sessions;
        }
        due
    }
}

/// Runs both and compares what comes out, step by step.
fn compare(mut store: Store, mut model: impl Model, events: &[Event]) -> Result<(), TestCaseError> {
    let (mut written, mut accepted) = (Written::default(), BTreeSet::new());
    for (number, &event) in events.iter().enumerate() {
        let before = written.results.len();
        let mut expected = match event {
            Event::Tuple(key, at) => {
                let expected = model.tuple(key, (number, at));
                let time = Timestamp::from_millis(at);
                let added = store.add(&key, number, time, vec![number], &mut written);
                prop_assert_eq!(added.is_ok(), expected.is_some(), "step {}: {:?}", number, event);
                if let Err(late) = added {
                    prop_assert_eq!((late.tuple, late.held), (number, vec![number]));
                } else {
                    accepted.insert(number);
                }
                store.fire_late(&mut written);
                expected.unwrap_or_default()
            }
            Event::Watermark(watermark) => {
                store.advance(Timestamp::from_millis(watermark), &mut written);
                model.watermark(watermark)
            }
        };
        let mut results: Vec<Fired> = written.results[before..].iter().map(fired).collect();
        let by_end = results.is_sorted_by_key(|(end, ..)| *end);
        prop_assert!(by_end, "step {}: windows fire in the order of their ends", number);
        results.sort_unstable();
        expected.sort_unstable();
        prop_assert_eq!(results, expected, "step {}: {:?}", number, event);
        for (result, anchored) in written.results.iter().zip(&written.anchored).skip(before) {
            if result.firing == Firing::OnTime {
                // Those that came late for a window before this one among them.
                prop_assert!(anchored.iter().all(|tuple| result.value.contains(tuple)));
            }
        }
    }
    // Nothing is let go of twice, and nothing is forgotten.
    let mut settled = written.released.clone();
    settled.extend(store.take_all().into_iter().flatten());
    settled.sort_unstable();
    prop_assert_eq!(settled, accepted.into_iter().collect::<Vec<_>>());
    prop_assert_eq!(store.len(), 0);
    Ok(())
}

proptest! {
    #[test]
    fn tumbling_and_sliding_windows_are_as_their_model(
        events in events(), size in 1i64..40, slide in 1i64..40, lateness in prop_oneof![Just(0i64), 0i64..80],
    ) {
        let slide = slide.min(size);
        let slices = Slices::new(size, slide, 0);
        let store: TimeWindows<Key, usize, Collect, Vec<usize>> =
            TimeWindows::new(slices, Arc::new(Collect), lateness, Early::Never, false);
        let model = ModelWindows { size, slide, lateness, tuples: Vec::new(), closed: i64::MIN };
        compare(Box::new(store), model, &events)?;
    }

    #[test]
    fn sessions_are_as_their_model(
        events in events(), gap in 1i64..40, lateness in prop_oneof![Just(0i64), 0i64..80],
    ) {
        let store: Sessions<Key, usize, Collect, Vec<usize>> =
            Sessions::new(gap, Arc::new(Collect), lateness, Early::Never);
        let model = ModelSessions { gap, lateness, sessions: Vec::new(), closed: i64::MIN };
        compare(Box::new(store), model, &events)?;
    }

    #[test]
    fn windows_by_count_are_as_their_model(
        keys in prop::collection::vec(0u8..3, 0..60), size in 1u64..9, slide in 1u64..9,
    ) {
        let slide = slide.min(size);
        let mut store: CountWindows<Key, usize, Collect, Vec<usize>> =
            CountWindows::new(size, slide, Arc::new(Collect), Early::Never, true);
        let mut written = Written::default();
        let mut seen: BTreeMap<Key, Vec<usize>> = BTreeMap::new();
        for (number, key) in keys.iter().enumerate() {
            let before = written.results.len();
            store.add(key, number, Timestamp::MIN, vec![number], &mut written).expect("never late");
            let seen = seen.entry(*key).or_default();
            seen.push(number);
            let last = seen.len();
            let results = &written.results[before..];
            if !last.is_multiple_of(slide as usize) {
                prop_assert_eq!(results.len(), 0);
                continue;
            }
            let of = |last: usize| seen[last.saturating_sub(size as usize)..last].to_vec();
            let window = of(last);
            let expired: Vec<usize> =
                of(last - slide as usize).into_iter().filter(|tuple| !window.contains(tuple)).collect();
            prop_assert_eq!(results.len(), 1);
            let first = (last - window.len() + 1) as u64;
            prop_assert_eq!(results[0].bounds, WindowBounds::Count { first, last: last as u64 });
            prop_assert_eq!(&results[0].value, &window);
            prop_assert_eq!(results[0].expired.clone().unwrap_or_default(), expired);
            prop_assert_eq!(&written.anchored[before], &window);
        }
        let mut settled = written.released.clone();
        settled.extend(store.take_all().into_iter().flatten());
        settled.sort_unstable();
        prop_assert_eq!(settled, (0..keys.len()).collect::<Vec<_>>());
    }
}

fn sum() -> Arc<impl Aggregate<i64, Output = i64>> {
    Arc::new(Fold::new(0i64, |sum: &mut i64, n: i64| *sum += n, |sum: &mut i64, later: &i64| *sum += later))
}

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}

#[test]
fn the_cost_of_a_tuple_does_not_grow_with_the_windows_it_is_in() {
    // 30 days by one day, as 720 hours by one: each hour is one accumulator, not 30 or 720.
    let slices = Slices::new(720, 1, 0);
    let mut store = TimeWindows::new(slices, sum(), 0, Early::Never, false);
    let mut written = Written::default();
    for hour in 0..100 {
        store.add(&1u8, 1, at(hour), Vec::new(), &mut written).expect("in time");
        assert_eq!(store.len(), hour as usize + 1);
    }
    assert_eq!(Slices::new(30, 1, 0).panes(), 30);
    assert_eq!(Slices::new(7, 3, 0).panes(), 7);
    assert_eq!(Slices::new(10, 10, 3).panes(), 1);
}

#[test]
fn windows_may_begin_anywhere() {
    let mut store = TimeWindows::new(Slices::new(10, 10, -7), sum(), 0, Early::Never, false);
    let mut written = Written::default();
    for time in [-8, -7, 2, 3] {
        store.add(&1u8, time, at(time), Vec::new(), &mut written).expect("in time");
    }
    store.advance(Timestamp::MAX, &mut written);
    let results: Vec<_> = written.results.iter().map(|result| (result.bounds, result.value)).collect();
    assert_eq!(
        results,
        [(WindowBounds::time(-17, -7), -8), (WindowBounds::time(-7, 3), -5), (WindowBounds::time(3, 13), 3)]
    );
}

#[test]
fn early_results_come_by_count_and_by_time_and_are_replaced_when_the_window_is_complete() {
    let mut store = TimeWindows::new(Slices::new(10, 10, 0), sum(), 0, Early::Tuples(2), false);
    let mut written = Written::default();
    for (number, time) in [1, 2, 3, 4, 5].into_iter().enumerate() {
        store.add(&1u8, 1, at(time), vec![number], &mut written).expect("in time");
    }
    store.advance(at(10), &mut written);
    let results = |written: &Written<u8, i64>| -> Vec<_> {
        written.results.iter().map(|result| (result.firing, result.value)).collect()
    };
    assert_eq!(results(&written), [(Firing::Early, 2), (Firing::Early, 4), (Firing::OnTime, 5)]);
    assert_eq!(written.anchored, [vec![0, 1], vec![0, 1, 2, 3], vec![0, 1, 2, 3, 4]]);

    let mut store = TimeWindows::new(Slices::new(10, 5, 0), sum(), 0, Early::Times, false);
    let mut written = Written::default();
    store.add(&1u8, 1, at(7), Vec::new(), &mut written).expect("in time");
    store.fire_early(&mut written);
    store.fire_early(&mut written);
    let bounds: Vec<_> = written.results.iter().map(|result| result.bounds).collect();
    assert_eq!(
        bounds,
        [WindowBounds::time(0, 10), WindowBounds::time(5, 15)],
        "once each, as nothing has changed"
    );

    let mut store = Sessions::new(10, sum(), 0, Early::Times);
    let mut written = Written::default();
    store.add(&1u8, 1, at(7), Vec::new(), &mut written).expect("in time");
    store.fire_early(&mut written);
    store.add(&1u8, 2, at(9), Vec::new(), &mut written).expect("in time");
    store.fire_early(&mut written);
    store.advance(at(30), &mut written);
    assert_eq!(results(&written), [(Firing::Early, 1), (Firing::Early, 3), (Firing::OnTime, 3)]);

    let mut store = CountWindows::new(4, 4, sum(), Early::Tuples(3), false);
    let mut written = Written::default();
    for _ in 0..7 {
        store.add(&1u8, 1, at(0), Vec::new(), &mut written).expect("in time");
    }
    store.advance(Timestamp::MAX, &mut written);
    let expected = [(Firing::Early, 3), (Firing::OnTime, 4), (Firing::Early, 2), (Firing::AtEnd, 3)];
    assert_eq!(results(&written), expected);
}

#[test]
fn an_aggregate_that_panics_costs_the_tuples_it_had_and_no_others() {
    let picky = Arc::new(Fold::new(
        Vec::new(),
        |all: &mut Vec<i64>, n: i64| {
            assert!(n != 13, "thirteen");
            all.push(n);
        },
        |all: &mut Vec<i64>, later: &Vec<i64>| all.extend(later),
    ));
    type Picky = Box<dyn WindowStore<u8, i64, Vec<i64>, Vec<usize>>>;
    let stores: [(&str, Picky); 3] = [
        ("time", Box::new(TimeWindows::new(Slices::new(10, 10, 0), picky.clone(), 0, Early::Never, false))),
        ("session", Box::new(Sessions::new(10, picky.clone(), 0, Early::Never))),
        ("count", Box::new(CountWindows::new(3, 3, picky, Early::Never, false))),
    ];
    for (kind, mut store) in stores {
        let mut written = Written::default();
        for (number, (key, n)) in [(1, 4), (2, 5), (1, 13), (1, 6), (2, 7)].into_iter().enumerate() {
            store.add(&key, n, at(0), vec![number], &mut written).expect("in time");
        }
        store.advance(Timestamp::MAX, &mut written);
        let failed: Vec<(usize, &str)> = written.failed.iter().map(|(n, why)| (*n, why.as_str())).collect();
        assert_eq!(failed, [(0, "panicked: thirteen"), (2, "panicked: thirteen")], "{kind}");
        let mut results: Vec<_> =
            written.results.into_iter().map(|result| (result.key, result.value)).collect();
        results.sort();
        assert_eq!(results, [(1, vec![6]), (2, vec![5, 7])], "{kind}");
        assert_eq!(written.released.len(), 3, "{kind}");
    }
}

/// From Storm's own tests of windows.
mod storm {
    use super::*;

    #[test]
    fn count_five_slide_two() {
        let mut store: CountWindows<(), i64, Collect, Vec<usize>> =
            CountWindows::new(5, 2, Arc::new(Collect), Early::Never, true);
        let mut written = Written::default();
        for n in 1..=8 {
            store.add(&(), n, at(0), Vec::new(), &mut written).expect("never late");
        }
        let windows: Vec<_> = written.results.into_iter().map(|r| (r.value, r.expired)).collect();
        assert_eq!(
            windows,
            [
                (vec![1, 2], None),
                (vec![1, 2, 3, 4], None),
                (vec![2, 3, 4, 5, 6], Some(vec![1])),
                (vec![4, 5, 6, 7, 8], Some(vec![2, 3])),
            ]
        );
    }

    #[test]
    fn tumbling_count_three() {
        let mut store: CountWindows<(), i64, Collect, Vec<usize>> =
            CountWindows::new(3, 3, Arc::new(Collect), Early::Never, false);
        let mut written = Written::default();
        for n in 1..=6 {
            store.add(&(), n, at(0), Vec::new(), &mut written).expect("never late");
        }
        let windows: Vec<_> = written.results.into_iter().map(|r| r.value).collect();
        assert_eq!(windows, [[1, 2, 3], [4, 5, 6]]);
    }

    #[test]
    fn nothing_is_evicted_before_the_first_watermark() {
        let mut store: TimeWindows<(), i64, Collect, Vec<usize>> =
            TimeWindows::new(Slices::new(10, 10, 0), Arc::new(Collect), 0, Early::Never, false);
        let mut written = Written::default();
        for time in [1_000, 5, 2_000_000, 7] {
            store.add(&(), time, at(time), Vec::new(), &mut written).expect("nothing is late yet");
        }
        assert_eq!((store.len(), written.results.len()), (3, 0));
        store.advance(at(10), &mut written);
        assert_eq!(written.results[0].value, [5, 7]);
    }

    #[test]
    fn a_tuple_older_than_all_open_windows_goes_to_the_late_stream() {
        let mut store: TimeWindows<(), i64, Collect, Vec<usize>> =
            TimeWindows::new(Slices::new(20, 10, 0), Arc::new(Collect), 0, Early::Never, false);
        let (mut written, mut latest, mut late) = (Written::default(), i64::MIN, Vec::new());
        for time in [603, 605, 607, 618, 626, 636, 600] {
            if store.add(&(), time, at(time), Vec::new(), &mut written).is_err() {
                late.push(time);
            }
            latest = latest.max(time);
            // A lag of 5.
            store.advance(at(latest - 5), &mut written);
        }
        assert_eq!(late, [600]);
        let windows: Vec<_> = written.results.into_iter().map(|r| r.value).collect();
        assert_eq!(windows, [vec![603, 605, 607], vec![603, 605, 607, 618], vec![618, 626]]);
    }
}
