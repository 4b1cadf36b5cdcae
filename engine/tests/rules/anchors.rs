//! Handles of kept tuples: many at once, and what goes wrong while they are settled.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use galerna_engine::testing::{Feed, Harness, Run};
use galerna_topology::prelude::*;

use crate::bolts::{Held, Holding, take};

/// Keeps all tuples, and when it has so many emits one tuple anchored to all.
struct Gathering {
    amount: usize,
    kept: Vec<Anchor>,
}

impl Bolt for Gathering {
    type Input = u64;
    type Outputs = Output<u64>;

    fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        self.kept.push(out.keep());
        if self.kept.len() == self.amount {
            out.emit_anchored(n, &self.kept);
            self.kept.drain(..).for_each(Anchor::ack);
        }
        Ok(())
    }
}

#[tokio::test]
async fn a_tuple_may_be_anchored_to_a_hundred_thousand() {
    // With work that grows with the square of the anchors this would take minutes, and the harness gives up after 30 s.
    const MANY: u64 = 100_000;
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let held = Held::default();
    let hands = held.clone();
    let mut topology = TopologyBuilder::new("many");
    let stream = topology.spout("feed", feed.spout()).max_pending(MANY as usize).outputs();
    let gathered = topology
        .bolt("gather", || Gathering { amount: MANY as usize, kept: Vec::new() })
        .shuffle(stream)
        .outputs();
    topology.bolt("hold", move || Holding(hands.clone())).shuffle(gathered);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (0..MANY).for_each(|n| feed.emit(n, n));
    run.until("the window is there", || held.lock().unwrap().len() == 1).await;
    run.settle().await;
    assert!(feed.acked().is_empty());
    take(&held, MANY - 1).ack();
    run.until("all are acked", || feed.acked().len() == MANY as usize).await;
}

/// Runs a topology in which the test has the anchors of the tuples fed.
async fn held(count: u64) -> (Run, Feed<u64>, Held) {
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let held = Held::default();
    let hands = held.clone();
    let mut topology = TopologyBuilder::new("held");
    let stream = topology.spout("feed", feed.spout()).outputs();
    topology.bolt("hold", move || Holding(hands.clone())).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (0..count).for_each(|n| feed.emit(n, n));
    run.settle().await;
    (run, feed, held)
}

fn all(held: &Held) -> Vec<Anchor> {
    held.lock().unwrap().drain(..).map(|(_, anchor)| anchor).collect()
}

#[tokio::test]
async fn a_tuple_kept_counts_once_however_it_ends() {
    /// Keeps the tuple so many times; returns an error or not; then the anchors are settled one by one.
    struct Keeping {
        hands: Arc<Mutex<Vec<Anchor>>>,
    }
    impl Bolt for Keeping {
        type Input = u64;
        type Outputs = ();
        fn execute(&mut self, n: u64, out: &mut Emitter<()>) -> Result<(), Fault> {
            (0..n % 10).for_each(|_| self.hands.lock().unwrap().push(out.keep()));
            if n >= 10 { Err(Fault::transient("no")) } else { Ok(()) }
        }
    }
    type Settle = fn(Anchor);
    let settle: [(&str, Settle); 3] = [
        ("acked", Anchor::ack),
        ("failed", |anchor| anchor.fail(Fault::transient("late"))),
        ("dropped", drop),
    ];
    for (what, settle) in settle {
        for (tuple, acked, failed) in
            [(0, 1, 0), (1, 1, 0), (2, 1, 0), (3, 1, 0), (10, 0, 1), (11, 0, 1), (12, 0, 1)]
        {
            let hands = Arc::<Mutex<Vec<Anchor>>>::default();
            let harness = Harness::new();
            let feed = harness.feed::<u64>();
            let mut topology = TopologyBuilder::new("keeping");
            let stream = topology.spout("feed", feed.spout()).outputs();
            let kept = hands.clone();
            topology.bolt("keep", move || Keeping { hands: kept.clone() }).shuffle(stream);
            let run = harness.start(topology.build().unwrap()).await.unwrap();
            feed.emit(1, tuple);
            run.settle().await;
            let kept: Vec<Anchor> = hands.lock().unwrap().drain(..).collect();
            assert_eq!(kept.len() as u64, tuple % 10);
            kept.into_iter().for_each(settle);
            run.settle().await;
            let metrics = run.metrics();
            let keep = metrics.component("keep").unwrap();
            let all_well = what == "acked" || tuple == 0;
            let expected = if all_well { (acked, failed) } else { (0, 1) };
            assert_eq!((keep.acked, keep.failures()), expected, "tuple {tuple}, then {what}");
            assert_eq!(feed.acked().len() as u64, expected.0, "tuple {tuple}, then {what}");
            assert_eq!(feed.failed().len() as u64, expected.1, "tuple {tuple}, then {what}");
        }
    }
}

#[tokio::test]
async fn anchors_are_merged_split_and_emitted_against() {
    let (run, feed, held) = held(10).await;
    let mut anchors: Anchors = all(&held).into_iter().collect();
    assert_eq!(anchors.len(), 10);
    let mut last = anchors.split_off(7);
    assert_eq!((anchors.len(), last.len()), (7, 3));
    anchors.fail(Fault::transient("the first seven"));
    run.settle().await;
    assert_eq!((feed.acked().len(), feed.failed().len()), (0, 7));
    let one = last.split_off(2);
    last.merge(one);
    assert_eq!(last.len(), 3);
    last.ack();
    run.settle().await;
    assert_eq!((feed.acked().len(), feed.failed().len()), (3, 7));
}

#[tokio::test]
async fn outcomes_that_panic_fail_the_tuples_not_settled_yet() {
    let (run, feed, held) = held(5).await;
    let anchors: Anchors = all(&held).into_iter().collect();
    let outcomes = (0..5).map(|n| match n {
        0 | 1 => Ok(()),
        2 => Err(Fault::transient("row two")),
        _ => panic!("the answer made no sense"),
    });
    assert!(catch_unwind(AssertUnwindSafe(|| anchors.settle(outcomes))).is_err());
    run.settle().await;
    assert_eq!(feed.acked(), [0, 1]);
    let failed: Vec<_> = feed.failed().iter().map(|failed| (failed.id, failed.failure.kind)).collect();
    assert_eq!(failed, [(2, FailureKind::Error), (3, FailureKind::Panic), (4, FailureKind::Panic)]);
    assert!(run.drain(Duration::from_secs(1)).await.drained);
}
