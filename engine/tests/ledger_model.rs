//! The ledger against a model that is obviously right: a map from root to the shares that are out.

use std::collections::BTreeMap;

use galerna_engine::ledger::Ledger;
use galerna_engine::{Histogram, StableIds};
use galerna_topology::lineage::{AckToken, RootId, ShareRng, Span};
use galerna_topology::runtime::{RootAllocator, SlotRange};
use galerna_topology::{Failure, FailureKind};
use proptest::prelude::*;

const TIMEOUT: u64 = 1_000;

#[derive(Debug, Clone)]
enum Step {
    /// Emits so many roots.
    Emit(u8),
    /// Divides a live tuple (by index, modulo) in two.
    Divide(usize),
    /// Hands a live tuple back.
    Ack(usize),
    /// Hands back consecutive whole roots as one range.
    AckRange(usize, u8),
    /// Fails a live tuple.
    Fail(usize),
    /// Starts the timeout of a live tuple's root anew.
    Restart(usize),
    /// Moves time on.
    Advance(u16),
    /// Looks whether a smaller slab does.
    Shrink,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1u8..40).prop_map(Step::Emit),
        4 => any::<usize>().prop_map(Step::Divide),
        8 => any::<usize>().prop_map(Step::Ack),
        2 => (any::<usize>(), 1u8..40).prop_map(|(at, rows)| Step::AckRange(at, rows)),
        2 => any::<usize>().prop_map(Step::Fail),
        1 => any::<usize>().prop_map(Step::Restart),
        2 => (0u16..700).prop_map(Step::Advance),
        1 => Just(Step::Shrink),
    ]
}

#[derive(Default)]
struct Model {
    /// By pending root: how many tuples are out, and when its timeout started.
    pending: BTreeMap<RootId, (usize, u64)>,
    acked: Vec<RootId>,
    failed: Vec<RootId>,
}

impl Model {
    fn ack(&mut self, root: RootId) {
        if let Some((out, _)) = self.pending.get_mut(&root) {
            *out -= 1;
            if *out == 0 {
                self.pending.remove(&root);
                self.acked.push(root);
            }
        }
    }

    fn fail(&mut self, root: RootId) {
        if self.pending.remove(&root).is_some() {
            self.failed.push(root);
        }
    }
}

fn span(token: &AckToken) -> (RootId, Span) {
    match token {
        AckToken::Whole(root) => (*root, Span::Whole(*root, 1)),
        AckToken::Share(root, share) => (*root, Span::Share(*root, *share, 1)),
        other => unreachable!("{other:?} is not made here"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_agrees_with_the_model(
        steps in proptest::collection::vec(step(), 1..400),
        times_out in any::<bool>(),
    ) {
        let failure = Failure::new(FailureKind::Error, "no", "bolt");
        let histogram = Histogram::new();
        let mut shares = ShareRng::new(7);
        let mut ledger = Ledger::new(3, 4, times_out.then_some(TIMEOUT));
        let mut model = Model::default();
        // The tuples that are out; those of ended roots stay, to arrive late.
        let mut tuples: Vec<AckToken> = Vec::new();
        let mut slots: Vec<Option<RootId>> = Vec::new();
        let mut now = 0;
        let (mut acked, mut failed) = (Vec::new(), Vec::new());
        for step in steps {
            ledger.set_now(now);
            match step {
                Step::Emit(count) => {
                    let mut left = u32::from(count);
                    while left > 0 {
                        let grant = ledger.grant();
                        if grant.capacity as usize > slots.len() {
                            // The slab grew: every id moves to where its root is now.
                            let old: Vec<RootId> = slots.drain(..).flatten().collect();
                            slots.resize(grant.capacity as usize, None);
                            for root in old {
                                let slot = (root.sequence() % u64::from(grant.capacity)) as usize;
                                slots[slot] = Some(root);
                            }
                        }
                        let used = left.min(grant.len);
                        for at in 0..used {
                            let root = grant.first.plus(at);
                            prop_assert_eq!(root.task(), 3);
                            let before = slots[(grant.slot + at) as usize].replace(root);
                            prop_assert!(before.is_none(), "a slot was granted twice");
                            prop_assert!(model.pending.insert(root, (1, now)).is_none());
                            tuples.push(AckToken::Whole(root));
                        }
                        ledger.commit(used);
                        left -= used;
                    }
                }
                Step::Divide(at) if !tuples.is_empty() => {
                    let at = at % tuples.len();
                    let part = tuples[at].split(&mut shares);
                    if let Some((out, _)) = model.pending.get_mut(&span(&part).0) {
                        *out += 1;
                    }
                    tuples.push(part);
                }
                Step::Ack(at) if !tuples.is_empty() => {
                    let (root, span) = span(&tuples.swap_remove(at % tuples.len()));
                    ledger.settle([span], &histogram);
                    model.ack(root);
                }
                Step::AckRange(at, rows) if !tuples.is_empty() => {
                    let AckToken::Whole(first) = tuples[at % tuples.len()] else { continue };
                    let mut count = 0;
                    while count < u32::from(rows)
                        && let Some(at) = tuples.iter().position(|t| *t == AckToken::Whole(first.plus(count)))
                    {
                        tuples.swap_remove(at);
                        model.ack(first.plus(count));
                        count += 1;
                    }
                    ledger.settle([Span::Whole(first, count)], &histogram);
                }
                Step::Fail(at) if !tuples.is_empty() => {
                    let (root, span) = span(&tuples.swap_remove(at % tuples.len()));
                    ledger.fail([span], &failure);
                    model.fail(root);
                }
                Step::Restart(at) if !tuples.is_empty() => {
                    let (root, span) = span(&tuples[at % tuples.len()]);
                    ledger.restart([span]);
                    if let Some((_, start)) = model.pending.get_mut(&root) {
                        *start = now;
                    }
                }
                Step::Advance(by) => {
                    // Without a timeout so fast that it is time to shrink after a few steps.
                    now += u64::from(by) * if times_out { 1 } else { 20_000_000 };
                    if ledger.check_at().is_some_and(|at| at <= now) {
                        ledger.expire(now, &failure);
                    }
                    let late: Vec<RootId> = model
                        .pending
                        .iter()
                        .filter(|(_, (_, start))| times_out && start + TIMEOUT <= now)
                        .map(|(root, _)| *root)
                        .collect();
                    late.into_iter().for_each(|root| model.fail(root));
                }
                Step::Shrink => {
                    let before = ledger.capacity();
                    if ledger.shrink(now) {
                        let capacity = ledger.capacity();
                        prop_assert!(capacity < before && model.pending.len() * 2 <= capacity);
                        for slot in capacity..slots.len() {
                            if let Some(root) = slots[slot].take() {
                                prop_assert!(slots[slot % capacity].replace(root).is_none(), "two in a slot");
                            }
                        }
                        slots.truncate(capacity);
                    }
                }
                _ => {}
            }
            for SlotRange { first, len } in ledger.acked().drain(..) {
                acked.extend((first..first + len).map(|slot| slots[slot as usize].take().expect("a root")));
            }
            for (slot, _) in ledger.failed().drain(..) {
                failed.push(slots[slot as usize].take().expect("a root"));
            }
            prop_assert_eq!(ledger.pending(), model.pending.len());
            let sorted = |roots: &[RootId]| {
                let mut roots = roots.to_vec();
                roots.sort();
                roots
            };
            prop_assert_eq!(sorted(&acked), sorted(&model.acked));
            prop_assert_eq!(sorted(&failed), sorted(&model.failed));
            for (slot, root) in slots.iter().enumerate() {
                prop_assert_eq!(ledger.is_pending(slot as u32), root.is_some());
            }
        }
        prop_assert_eq!(histogram.latency().count, acked.len() as u64);
    }
}

#[test]
fn a_ledger_gives_back_what_a_peak_took_and_no_slot_that_is_needed() {
    const LOOK: u64 = 10_000_000_000;
    let histogram = Histogram::new();
    let mut ledger = Ledger::new(3, 4, None);
    let smallest = ledger.capacity();
    assert_eq!(ledger.shrink_at(), None, "nothing to give back");
    let mut roots: Vec<RootId> = Vec::new();
    while roots.len() < 100_000 {
        let grant = ledger.grant();
        roots.extend((0..grant.len).map(|at| grant.first.plus(at)));
        ledger.commit(grant.len);
    }
    let largest = ledger.capacity();
    assert!(largest >= 200_000);
    // The first and the last are a whole slab apart: they want one slot in any that is smaller.
    let (first, last) = (roots[0], roots[0].plus(65_536));
    for root in roots.iter().filter(|root| **root != first && **root != last) {
        ledger.settle([Span::Whole(*root, 1)], &histogram);
    }
    assert!(!ledger.shrink(LOOK), "what is settled has not been taken");
    ledger.acked().clear();
    assert!(!ledger.shrink(LOOK), "the peak was since the last look");
    assert!(!ledger.shrink(2 * LOOK - 1), "it is not time to look");
    assert!(ledger.shrink(2 * LOOK));
    assert_eq!(ledger.capacity(), 131_072, "the smallest in which both have a slot");
    ledger.settle([Span::Whole(last, 1)], &histogram);
    ledger.acked().clear();
    assert!(!ledger.shrink(3 * LOOK - 1));
    assert!(ledger.shrink(3 * LOOK));
    assert_eq!((ledger.capacity(), ledger.shrink_at()), (smallest, None));
    ledger.settle([Span::Whole(first, 1)], &histogram);
    assert_eq!((ledger.pending(), ledger.acked().len()), (0, 1));
}

#[test]
fn the_stable_id_of_a_root_is_there_while_it_is_pending() {
    let (histogram, failure) = (Histogram::new(), Failure::new(FailureKind::Error, "no", "bolt"));
    type End = fn(&mut Ledger, RootId, &Histogram, &Failure);
    let ends: [(&str, End); 4] = [
        ("acked with others", |ledger, first, histogram, _| ledger.settle_whole(first, 3, histogram)),
        ("acked one by one", |ledger, first, histogram, _| {
            (0..3).for_each(|at| ledger.settle_whole(first.plus(at), 1, histogram));
        }),
        ("failed", |ledger, first, _, failure| ledger.fail([Span::Whole(first, 3)], failure)),
        ("out of time", |ledger, _, _, failure| ledger.expire(2 * TIMEOUT, failure)),
    ];
    for (what, end) in ends {
        let ids = StableIds::default();
        let mut ledger = Ledger::new(3, 4, Some(TIMEOUT)).with_stable_ids(ids.clone());
        let first = ledger.grant().first;
        ledger.set_stable_id(first, "a".into());
        ledger.set_stable_id(first.plus(2), "c".into());
        ledger.commit(3);
        let now = [0, 1, 2].map(|at| ids.get(first.plus(at)));
        assert_eq!(now, [Some("a".into()), None, Some("c".into())], "{what}");
        end(&mut ledger, first, &histogram, &failure);
        assert!(ids.is_empty(), "{what}");
    }
}
