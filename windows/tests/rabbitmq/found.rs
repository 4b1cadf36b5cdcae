//! What is in state.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use galerna_state::prelude::*;
use galerna_state::{CheckpointStore, KeyGroups, Manifest, StateOptions};

/// What the last checkpoint has.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Found {
    /// How often each message was worked on.
    pub(crate) ids: BTreeMap<String, u64>,
    /// How many events each key has.
    pub(crate) counts: BTreeMap<String, u64>,
    /// What each window said, by key and beginning; each time that it did.
    pub(crate) sums: BTreeMap<(String, i64), Vec<u64>>,
    /// The same of sessions.
    pub(crate) sessions: BTreeMap<(String, i64), Vec<u64>>,
    /// How often each pair of a join came, by key and the numbers of its events.
    pub(crate) pairs: BTreeMap<(String, Option<u64>, Option<u64>), u64>,
    /// Messages that were late for a window or the join.
    pub(crate) late: BTreeMap<String, u64>,
}

/// All state of a component.
async fn restored(store: &dyn CheckpointStore, manifest: &Manifest, component: &'static str) -> TaskState {
    let options = StateOptions { budget_bytes: 1 << 30, spill: None, clock: Arc::new(|| 0) };
    let state = TaskState::new(component, 0, KeyGroups::all(), options).expect("a state");
    state.restore(store, manifest).await.expect("restored");
    state
}

impl Found {
    /// Of the last checkpoint, and how many messages it has in doubt.
    pub(crate) async fn read(store: &dyn CheckpointStore) -> (Self, usize) {
        let Some(manifest) = store.latest().await.expect("read") else { return Default::default() };
        let count = async |component| {
            let state = restored(store, &manifest, component).await;
            let counts = state.value::<u64>("count").expect("a handle").collect().expect("read");
            counts.into_iter().collect::<BTreeMap<String, u64>>()
        };
        let windows = async |component| {
            let state = restored(store, &manifest, component).await;
            let results = state.map::<i64, Vec<u64>>("results").expect("a handle");
            let mut all = BTreeMap::new();
            for (key, windows) in results.collect::<String>().expect("read") {
                all.extend(windows.into_iter().map(|(start, values)| ((key.clone(), start), values)));
            }
            all
        };
        let pairs = restored(store, &manifest, "pairs").await;
        let pairs = pairs.map::<(Option<u64>, Option<u64>), u64>("pairs").expect("a handle");
        let pairs = pairs.collect::<String>().expect("read").into_iter().flat_map(|(key, pairs)| {
            pairs.into_iter().map(move |((left, right), n)| ((key.clone(), left, right), n))
        });
        let found = Self {
            pairs: pairs.collect(),
            ids: count("ids").await,
            counts: count("counts").await,
            sums: windows("sum-results").await,
            sessions: windows("session-results").await,
            late: count("late").await,
        };
        (found, manifest.in_doubt.values().map(std::collections::BTreeSet::len).sum())
    }

    /// How many windows fired.
    pub(crate) fn results(&self) -> usize {
        self.sums.len() + self.sessions.len()
    }

    /// How many pairs found each other, and how many events nobody.
    pub(crate) fn pairs(&self) -> (usize, usize) {
        let alone = self.pairs.keys().filter(|(_, left, right)| left.is_none() || right.is_none()).count();
        (self.pairs.len() - alone, alone)
    }

    /// Some of what is not the same.
    pub(crate) fn difference(&self, other: &Self) -> String {
        fn of<K: Ord + Debug, V: PartialEq + Debug>(
            what: &str,
            found: &BTreeMap<K, V>,
            expected: &BTreeMap<K, V>,
        ) -> String {
            let keys: std::collections::BTreeSet<&K> = found.keys().chain(expected.keys()).collect();
            let wrong = keys.into_iter().filter(|key| found.get(key) != expected.get(key));
            let wrong: Vec<String> = wrong
                .map(|key| format!("{key:?} is {:?}, not {:?}", found.get(key), expected.get(key)))
                .collect();
            match wrong.len() {
                0 => String::new(),
                count => format!("{count} of {what}: {}; ", wrong[..count.min(5)].join(", ")),
            }
        }
        of("the messages", &self.ids, &other.ids)
            + &of("the counts", &self.counts, &other.counts)
            + &of("the windows", &self.sums, &other.sums)
            + &of("the sessions", &self.sessions, &other.sessions)
            + &of("the pairs", &self.pairs, &other.pairs)
            + &of("the late ones", &self.late, &other.late)
    }

    /// Whatever is there is as it is to be in the end: each message counted once, each window fired once.
    pub(crate) fn check_part_of(&self, expected: &Self, seed: u64) {
        fn check<K: Ord + Debug, V: PartialEq + Debug>(
            what: &str,
            found: &BTreeMap<K, V>,
            expected: &BTreeMap<K, V>,
            seed: u64,
        ) {
            for (key, value) in found {
                assert_eq!(Some(value), expected.get(key), "seed {seed}: {what} {key:?}");
            }
        }
        check("message", &self.ids, &expected.ids, seed);
        check("late", &self.late, &expected.late, seed);
        check("window", &self.sums, &expected.sums, seed);
        check("session", &self.sessions, &expected.sessions, seed);
        check("pair", &self.pairs, &expected.pairs, seed);
    }
}
