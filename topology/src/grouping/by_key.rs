//! By key.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::Distribute;
use super::targets::{Targets, choose};
use crate::hot_keys::HotKeys;
use crate::lineage::{Lineage, ShareRng};
use crate::outputs::Data;
use crate::runtime::{RouteSetup, Staged};
use crate::stable_hasher::{StableHasher, reduce};

/// One tuple in so many is looked at to see which keys are frequent, and one of a batch at most.
const SAMPLED: usize = 61;

/// By key.
pub(crate) struct Fields<F, N> {
    key: F,
    /// The bits of the key's hash that say which task it goes to.
    routed_by: u64,
    chosen: Vec<u32>,
    sampling: Sampling<N>,
}

/// Which keys are frequent.
struct Sampling<N> {
    hot_keys: HotKeys,
    /// The key of a tuple as text.
    name: N,
    /// Tuples to go until the next one is looked at.
    left: usize,
}

impl<F, N> Fields<F, N> {
    pub(crate) fn new(setup: &RouteSetup, key: F, name: N) -> Self {
        let sampling = Sampling { hot_keys: setup.loads.hot_keys().clone(), name, left: SAMPLED };
        Self { key, routed_by: u64::MAX, chosen: Vec::new(), sampling }
    }

    /// Gives a tuple to the task which has its key group, the upper bits of the hash, as the groups are shared out: group `g` of
    /// `n` tasks is task `g * n / KEY_GROUPS`'s.
    pub(crate) fn by_key_group(self) -> Self {
        Self { routed_by: u64::MAX << (64 - crate::KEY_GROUPS.trailing_zeros()), ..self }
    }
}

impl<T: Data, F: Fn(&T) -> u64 + Send, N: Fn(&T) -> String + Send> Distribute<T> for Fields<F, N> {
    fn distribute(
        &mut self,
        targets: &mut Targets<T>,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        _tasks: &[usize],
        shares: &mut ShareRng,
        into: &mut Staged,
    ) {
        let n = targets.len();
        let Self { key, routed_by, chosen, sampling } = self;
        match values.get(sampling.left) {
            Some(value) => {
                sampling.left = SAMPLED;
                // A key that panics costs its tuple where the tuple's task is chosen, and nothing here.
                let _ = catch_unwind(AssertUnwindSafe(|| {
                    sampling.hot_keys.sample(key(value), || (sampling.name)(value));
                }));
            }
            None => sampling.left -= values.len(),
        }
        if n == 1 {
            targets.push_all(0, values, lineage, into);
            return;
        }
        choose(values, lineage, chosen, into, |value| reduce(key(value) & *routed_by, n));
        targets.distribute(values, lineage, chosen, shares, into);
    }
}

/// By key to one of two (Nasir et al., "The Power of Both Choices", ICDE 2015): each sender knows what it
/// has sent to each task itself, which suffices for balance.
pub(crate) struct PartialKey<F> {
    key: F,
    sent: Vec<u64>,
    chosen: Vec<u32>,
}

impl<F> PartialKey<F> {
    pub(crate) fn new(setup: &RouteSetup, key: F) -> Self {
        Self { key, sent: vec![0; setup.targets.len()], chosen: Vec::new() }
    }
}

impl<T: Data, F: Fn(&T) -> u64 + Send> Distribute<T> for PartialKey<F> {
    fn distribute(
        &mut self,
        targets: &mut Targets<T>,
        values: &mut Vec<T>,
        lineage: &mut Lineage,
        _tasks: &[usize],
        shares: &mut ShareRng,
        into: &mut Staged,
    ) {
        let n = targets.len();
        let Self { key, sent, chosen } = self;
        choose(values, lineage, chosen, into, |value| {
            let hash = key(value);
            let first = reduce(hash, n);
            let mut second = reduce(StableHasher::hash(&hash), n);
            if second == first {
                second = (first + 1) % n;
            }
            let task = if sent[second] < sent[first] { second } else { first };
            sent[task] += 1;
            task
        });
        targets.distribute(values, lineage, chosen, shares, into);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::sync::Arc;
    use std::sync::atomic::AtomicUsize;

    use std::time::Duration;

    use super::*;
    use crate::context::Clock;
    use crate::grouping::Grouped;
    use crate::lineage::RootId;
    use crate::lineage::Span;
    use crate::runtime::{BatchPool, BoxFuture, Content, EdgeBatch, Loads, Route};

    struct Still;

    impl Clock for Still {
        fn now(&self) -> Duration {
            Duration::ZERO
        }

        fn sleep_until(&self, _: Duration) -> BoxFuture<'static, ()> {
            Box::pin(std::future::pending())
        }
    }

    #[test]
    fn what_rows_hold_together_is_dealt_to_the_tasks_that_get_them() {
        let setup = |batch| RouteSetup {
            targets: vec![0, 1, 2],
            loads: Loads::new(3),
            pool: BatchPool::default(),
            batch: Arc::new(AtomicUsize::new(batch)),
            full_at: 100,
            clock: Arc::new(Still),
            offset: 0,
            sender: 0,
            subscriber: "fields".into(),
            by_row: false,
            watermarks: false,
            barriers: false,
            weigh: None,
        };
        let root = |n| RootId::new(0, n);
        let mut shares = ShareRng::new(7);
        for batch in [1, 2, 3, 5, 1_000] {
            let setup = setup(batch);
            let fields = Fields::new(&setup, |n: &u64| StableHasher::hash(n), u64::to_string);
            let mut route = Grouped::new(setup, fields);
            let mut into = Staged::default();
            let mut held: BTreeMap<RootId, u64> = BTreeMap::new();
            for round in 0..40 {
                // Rows of few roots, in runs of one to nine, and some that nobody waits for.
                let (mut values, mut lineage) = (Vec::new(), Lineage::new());
                for run in 0..12_u64 {
                    let (of, rows, share) =
                        (root((run * run + round) % 5), 1 + (run * 7 + round) % 9, shares.word());
                    if run % 5 == 4 {
                        lineage.push_untracked(rows as u32);
                    } else {
                        lineage.push_share(of, share, rows as u32);
                        *held.entry(of).or_default() ^= share;
                    }
                    values.extend((0..rows).map(|n| round * 1_000 + run * 10 + n));
                }
                route.route(&mut values, &mut lineage, &[], &mut shares, &mut into);
            }
            route.flush(&mut into);
            for batch in into.batches {
                let Content::Rows(rows) = batch.content else { panic!("nobody sends signals") };
                let tuples = rows.downcast::<EdgeBatch<u64>>().expect("tuples of numbers");
                assert_eq!(
                    (tuples.values.len(), tuples.lineage.rows()),
                    (batch.rows as usize, batch.rows as usize)
                );
                assert!(
                    tuples.values.iter().all(|n| reduce(StableHasher::hash(n), 3) == batch.target as usize)
                );
                for span in tuples.lineage.spans() {
                    if let Span::Share(root, share, _) = span {
                        assert_ne!(*share, 0, "who holds nothing is not waited for");
                        *held.entry(*root).or_default() ^= share;
                    }
                }
            }
            assert!(held.values().all(|left| *left == 0), "batches of {batch}: all is dealt, and no more");
        }
    }
}
