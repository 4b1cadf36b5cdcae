//! Joins in state against the models of joins, with crashes and panics in between.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use galerna_state::{
    CheckpointStore, FolderCheckpoints, KeyGroups, Manifest, SimulatedFiles, StateOptions, TaskState,
};
use galerna_topology::Timestamp;
use proptest::prelude::*;

use super::{KeptJoin, NotTaken};
use crate::join::Join;
use crate::join_store::tests::{
    Event, Key, Pair, Taken, ends, events, late_by, pairs_by_interval, pairs_by_window, unmatched,
};
use crate::join_store::{Joined, Side, Unmatched};
use crate::result::WindowBounds;

/// What happens before an event.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Before {
    Nothing,
    Checkpoint,
    /// The instance is made anew of its state, as after a panic.
    Anew,
    /// All is as at the last checkpoint, and what came since comes again.
    Crash,
}

pub(crate) fn befores() -> impl Strategy<Value = Vec<Before>> {
    let before = prop_oneof![
        6 => Just(Before::Nothing), 2 => Just(Before::Checkpoint), 1 => Just(Before::Anew), 1 => Just(Before::Crash),
    ];
    prop::collection::vec(before, 0..50)
}

pub(crate) fn empty() -> TaskState {
    let options = StateOptions { budget_bytes: 1 << 20, spill: None, clock: Arc::new(|| 0) };
    TaskState::new("join", 0, KeyGroups::all(), options).expect("a state")
}

fn join(unmatched: Unmatched) -> Join<usize, usize, Key> {
    match unmatched {
        Unmatched::None => Join::inner(|_: &usize| 0, |_: &usize| 0),
        Unmatched::Left => Join::left(|_: &usize| 0, |_: &usize| 0),
        Unmatched::Both => Join::full(|_: &usize| 0, |_: &usize| 0),
    }
}

/// What came out so far, which what crashes takes back.
#[derive(Debug, Clone, Default)]
struct Out {
    pairs: Vec<Pair>,
    taken: Taken,
    late: Vec<usize>,
}

impl Out {
    fn joined(&mut self, joined: Vec<Joined<Key, usize, usize>>) {
        self.pairs.extend(joined.into_iter().map(|joined| {
            let end = joined.bounds.map(|bounds| match bounds {
                WindowBounds::Time { end, .. } => end.millis(),
                WindowBounds::Count { .. } => unreachable!("joins have windows by time"),
            });
            (joined.key, end, joined.left, joined.right)
        }));
    }
}

pub(crate) async fn commit(store: &FolderCheckpoints, previous: &mut Option<Manifest>, state: &TaskState) {
    let id = store.begin().await.expect("begun");
    let part = state.snapshot(id, previous.as_ref().map(|previous| previous.id)).expect("a snapshot");
    let part = store.put(id, part).await.expect("stored");
    let manifest = Manifest::assemble(id, "joins", 0, previous.as_ref(), &[part], BTreeMap::new());
    let manifest = manifest.expect("whole");
    store.commit(&manifest).await.expect("committed");
    state.committed(id);
    *previous = Some(manifest);
}

/// Runs a join to the end of its streams.
async fn run(join: &Join<usize, usize, Key>, events: &[Event], before: &[Before]) -> Out {
    let store =
        FolderCheckpoints::open_on(SimulatedFiles::new(), "checkpoints", "joins").await.expect("opened");
    let mut previous = None;
    let mut before: HashMap<usize, Before> = before.iter().copied().enumerate().collect();
    let (mut state, mut out, mut number) = (empty(), Out::default(), 0);
    let mut saved = (0, Out::default());
    let mut kept = KeptJoin::restore(join, &state).expect("empty");
    while number < events.len() {
        match before.remove(&number).unwrap_or(Before::Nothing) {
            Before::Nothing => {}
            Before::Checkpoint => {
                commit(&store, &mut previous, &state).await;
                saved = (number, out.clone());
            }
            Before::Anew => kept = KeptJoin::restore(join, &state).expect("as it was"),
            Before::Crash => {
                state = empty();
                if let Some(manifest) = &previous {
                    state.restore(&store, manifest).await.expect("restored");
                }
                kept = KeptJoin::restore(join, &state).expect("as it was");
                (number, out) = saved.clone();
                continue;
            }
        }
        match events[number] {
            Event::Tuple(key, left, at) => {
                let tuple = if left { Side::Left(number) } else { Side::Right(number) };
                match kept.add(&key, tuple, Timestamp::from_millis(at)) {
                    Ok(joined) => {
                        out.taken.push((number, key, left, at));
                        out.joined(joined);
                    }
                    Err(NotTaken::TooLate(_)) => out.late.push(number),
                    Err(NotTaken::Full) => panic!("there is no limit"),
                    Err(NotTaken::State(error)) => panic!("{error}"),
                }
            }
            Event::Watermark(at) => {
                let (joined, written) = kept.advance(Timestamp::from_millis(at));
                written.expect("written");
                out.joined(joined);
            }
        }
        number += 1;
    }
    let (joined, written) = kept.advance(Timestamp::MAX);
    written.expect("written");
    out.joined(joined);
    out.pairs.sort_unstable();
    assert_eq!(kept.len(), 0);
    let left = state.map::<u64, (i64, Side<usize, usize>)>("join tuples").expect("a handle");
    assert_eq!(left.collect::<Key>().expect("read"), [], "nothing is left in state");
    if join.remembers_matches() {
        let left = state.map::<u64, ()>("join matches").expect("a handle");
        assert_eq!(left.collect::<Key>().expect("read"), [], "nothing is left in state");
    }
    out
}

pub(crate) fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().expect("a runtime").block_on(future)
}

const fn millis(millis: i64) -> Duration {
    Duration::from_millis(millis as u64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn joins_in_state_by_interval_are_as_their_model_whatever_crashes(
        events in events(), befores in befores(), before in 0i64..20, after in 0i64..20, unmatched in unmatched(),
    ) {
        let join = join(unmatched).between(millis(before), millis(after)).limit(usize::MAX);
        let out = wait(run(&join, &events, &befores));
        prop_assert_eq!(out.late, late_by(&events, |at, closed| at < closed));
        prop_assert_eq!(out.pairs, pairs_by_interval(&out.taken, before, after, unmatched));
    }

    #[test]
    fn joins_in_state_by_window_are_as_their_model_whatever_crashes(
        events in events(), befores in befores(), size in 1i64..20, slide in 1i64..20, unmatched in unmatched(),
    ) {
        let slide = slide.min(size);
        let join = join(unmatched).sliding(millis(size), millis(slide)).limit(usize::MAX);
        let out = wait(run(&join, &events, &befores));
        prop_assert_eq!(out.late, late_by(&events, |at, closed| ends(at, size, slide).all(|end| end <= closed)));
        prop_assert_eq!(out.pairs, pairs_by_window(&events, &out.taken, (size, slide), unmatched));
    }
}

#[test]
fn a_tuple_that_cannot_be_written_changes_nothing_and_can_come_again() {
    let options = StateOptions { budget_bytes: 30_000, spill: None, clock: Arc::new(|| 0) };
    let state = TaskState::new("join", 0, KeyGroups::all(), options).expect("a state");
    let join: Join<String, String, Key> =
        Join::full(|_: &String| 0, |_: &String| 0).between(Duration::from_secs(1), Duration::from_secs(1));
    let mut kept = KeptJoin::restore(&join, &state).expect("empty");
    let at = Timestamp::from_millis;
    let taken =
        kept.add(&1, Side::Left("left".to_owned()), at(10)).unwrap_or_else(|_| panic!("there is room"));
    assert_eq!(taken, []);
    let long = "x".repeat(40_000);
    let refused = kept.add(&1, Side::Right(long), at(11));
    assert!(matches!(refused, Err(NotTaken::State(_))), "it does not fit into the budget");
    assert_eq!(kept.len(), 1);
    // The left one has found no partner: the pair was not told.
    let (joined, written) = kept.advance(at(5_000));
    written.expect("written");
    let alone = Joined { key: 1, bounds: None, left: Some("left".to_owned()), right: None };
    assert_eq!(joined, [alone]);
}
