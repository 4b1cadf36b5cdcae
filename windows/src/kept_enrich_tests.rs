//! Tables in state against their model, with crashes and panics in between.

use std::collections::{BTreeMap, HashMap};

use galerna_state::{FolderCheckpoints, SimulatedFiles, TaskState};
use galerna_topology::Timestamp;
use proptest::prelude::*;

use super::{KeptEnrich, NotTaken};
use crate::kept_join::tests::{Before, befores, commit, empty, wait};

type Key = u8;
/// Number of the tuple and its time, and which event was the version that it got.
type Got = Vec<((usize, i64), Option<usize>)>;

#[derive(Debug, Clone, Copy)]
enum Event {
    Tuple(Key, i64),
    /// A version, or that the key is gone.
    Version(Key, i64, bool),
    Watermark(i64),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => (0..3u8, 0..100i64).prop_map(|(key, at)| Event::Tuple(key, at)),
        3 => (0..3u8, -20..120i64, prop::bool::weighted(0.8)).prop_map(|(key, from, is)| Event::Version(key, from, is)),
        1 => (0..100i64).prop_map(Event::Watermark),
    ];
    prop::collection::vec(event, 1..50)
}

/// What comes out in order, and which tuples are late: all versions are remembered, and looked for one by one.
fn model(events: &[Event]) -> (Got, Vec<usize>) {
    let (mut versions, mut waiting) = (Vec::new(), Vec::new());
    let (mut got, mut late, mut closed) = (Got::new(), Vec::new(), i64::MIN);
    let end = Event::Watermark(i64::MAX);
    for (number, event) in events.iter().chain([&end]).enumerate() {
        match *event {
            Event::Tuple(_, at) if at < closed => late.push(number),
            Event::Tuple(key, at) => waiting.push((at, number, key)),
            Event::Version(key, from, is) => versions.push((key, from, is.then_some(number))),
            Event::Watermark(at) => {
                closed = closed.max(at);
                waiting.sort_unstable();
                for (at, number, key) in waiting.extract_if(.., |(at, ..)| *at < closed) {
                    let mut version: Option<(i64, Option<usize>)> = None;
                    for (of, from, value) in &versions {
                        if *of == key && *from <= at && version.is_none_or(|(before, _)| before <= *from) {
                            version = Some((*from, *value));
                        }
                    }
                    got.push(((number, at), version.and_then(|(_, value)| value)));
                }
            }
        }
    }
    (got, late)
}

async fn run(events: &[Event], before: &[Before]) -> (Got, Vec<usize>) {
    let store =
        FolderCheckpoints::open_on(SimulatedFiles::new(), "checkpoints", "joins").await.expect("opened");
    let restored = |state: &TaskState| {
        KeptEnrich::<Key, (usize, i64), usize>::restore(state, usize::MAX).expect("as it was")
    };
    let mut previous = None;
    let mut before: HashMap<usize, Before> = before.iter().copied().enumerate().collect();
    let (mut state, mut got, mut late, mut number) = (empty(), Got::new(), Vec::new(), 0);
    let mut saved = (0, Got::new(), Vec::new());
    let mut kept = restored(&state);
    while number < events.len() {
        match before.remove(&number).unwrap_or(Before::Nothing) {
            Before::Nothing => {}
            Before::Checkpoint => {
                commit(&store, &mut previous, &state).await;
                saved = (number, got.clone(), late.clone());
            }
            Before::Anew => kept = restored(&state),
            Before::Crash => {
                state = empty();
                if let Some(manifest) = &previous {
                    state.restore(&store, manifest).await.expect("restored");
                }
                kept = restored(&state);
                (number, got, late) = saved.clone();
                continue;
            }
        }
        match events[number] {
            Event::Tuple(key, at) => match kept.add(&key, (number, at), Timestamp::from_millis(at)) {
                Ok(()) => {}
                Err(NotTaken::TooLate((of, _))) => late.push(of),
                Err(NotTaken::Full) => panic!("there is no limit"),
                Err(NotTaken::State(error)) => panic!("{error}"),
            },
            Event::Version(key, from, is) => {
                kept.change(&key, from, &is.then_some(number)).expect("written");
            }
            Event::Watermark(at) => {
                let (enriched, written) = kept.advance(Timestamp::from_millis(at));
                written.expect("written");
                got.extend(enriched);
            }
        }
        number += 1;
    }
    let (enriched, written) = kept.advance(Timestamp::MAX);
    written.expect("written");
    got.extend(enriched);
    assert_eq!(kept.len(), 0);
    let left = state.map::<u64, (i64, (usize, i64))>("enrich tuples").expect("a handle");
    assert_eq!(left.collect::<Key>().expect("read"), [], "no tuple is left in state");
    (got, late)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn tuples_get_what_the_table_had_for_them_whatever_crashes(events in events(), befores in befores()) {
        prop_assert_eq!(wait(run(&events, &befores)), model(&events));
    }
}

#[test]
fn versions_that_no_tuple_can_ask_for_are_let_go_of() {
    let state = empty();
    let mut kept = KeptEnrich::<Key, u64, i64>::restore(&state, 10).expect("empty");
    for at in 0..100 {
        kept.change(&1, at, &Some(at)).expect("written");
        kept.advance(Timestamp::from_millis(at)).1.expect("written");
    }
    let versions = state.map::<i64, Option<i64>>("enrich versions").expect("a handle");
    let kept: BTreeMap<i64, Option<i64>> = versions.entries(&1_u8).expect("read").into_iter().collect();
    assert_eq!(kept, BTreeMap::from([(98, Some(98)), (99, Some(99))]));
}
