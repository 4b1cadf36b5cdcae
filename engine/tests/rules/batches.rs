//! Bolts that take batches as a whole.

use std::sync::{Arc, Mutex};

use galerna_engine::testing::Harness;
use galerna_topology::prelude::*;

use crate::bolts::{Held, Holding, take};

/// What a summing bolt does with the batch's own handle.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Own {
    AckFirst,
    AckLast,
    Keep,
    Panic,
}

/// Emits the sum of a batch.
struct Summing(Own, Arc<Mutex<Vec<Anchors>>>);

impl Summing {
    fn sum(&self, batch: Batch<u64>, out: &mut Emitter<Output<u64>>) {
        let (values, anchors) = batch.into_parts();
        let sum = values.iter().sum();
        match self.0 {
            Own::AckFirst => {
                anchors.ack();
                out.emit(sum);
            }
            Own::AckLast => {
                out.emit(sum);
                anchors.ack();
            }
            Own::Keep => {
                out.emit(sum);
                self.1.lock().unwrap().push(anchors);
            }
            Own::Panic => {
                out.emit(sum);
                anchors.ack();
                panic!("after all is said and done");
            }
        }
    }
}

impl BatchBolt for Summing {
    type Input = u64;
    type Outputs = Output<u64>;

    fn execute(&mut self, batch: Batch<u64>, out: &mut Emitter<Output<u64>>) {
        self.sum(batch, out);
    }
}

impl AsyncBatchBolt for Summing {
    type Input = u64;
    type Outputs = Output<u64>;

    async fn execute(&mut self, batch: Batch<u64>, out: &mut Emitter<Output<u64>>) {
        tokio::task::yield_now().await;
        self.sum(batch, out);
    }
}

#[tokio::test]
async fn what_is_emitted_in_a_batch_is_anchored_to_all_of_it() {
    for waits in [false, true] {
        for own in [Own::AckFirst, Own::AckLast, Own::Keep, Own::Panic] {
            for fails in [false, true] {
                let what = format!("{own:?}, waits: {waits}, fails: {fails}");
                let harness = Harness::new();
                let feed = harness.feed::<u64>();
                let (held, kept) = (Held::default(), Arc::<Mutex<Vec<Anchors>>>::default());
                let (hands, keep) = (held.clone(), kept.clone());
                let mut topology = TopologyBuilder::new("sums");
                let stream = topology.spout("feed", feed.spout()).outputs();
                let make = move || Summing(own, keep.clone());
                let sums = match waits {
                    true => topology.async_batch_bolt("sum", make).shuffle(stream).outputs(),
                    false => topology.batch_bolt("sum", make).shuffle(stream).outputs(),
                };
                topology.bolt("hold", move || Holding(hands.clone())).shuffle(sums);
                let run = harness.start(topology.build().unwrap()).await.unwrap();
                feed.emit_all(1, [1, 2, 3]);
                feed.emit(2, 4);
                run.settle().await;
                if own == Own::Panic {
                    assert_eq!((feed.acked().len(), feed.failed().len()), (0, 2), "{what}");
                    assert!(held.lock().unwrap().is_empty(), "{what}: what it emitted is taken back");
                    continue;
                }
                assert_eq!((feed.acked().len(), feed.failed().len()), (0, 0), "{what}");
                let sums: Vec<u64> = held.lock().unwrap().iter().map(|(sum, _)| *sum).collect();
                assert_eq!(sums.iter().sum::<u64>(), 10, "{what}");
                for sum in sums {
                    let anchor = take(&held, sum);
                    if fails { anchor.fail(Fault::transient("no")) } else { anchor.ack() }
                }
                run.settle().await;
                if !fails && own == Own::Keep {
                    assert!(feed.acked().is_empty(), "{what}: the batch itself is still kept");
                }
                kept.lock().unwrap().drain(..).for_each(Anchors::ack);
                run.settle().await;
                let expected = if fails { (0, 2) } else { (2, 0) };
                assert_eq!((feed.acked().len(), feed.failed().len()), expected, "{what}");
            }
        }
    }
}

#[tokio::test]
async fn what_is_kept_in_a_batch_is_tracked() {
    struct Keeping(Arc<Mutex<Vec<Anchor>>>);
    impl BatchBolt for Keeping {
        type Input = u64;
        type Outputs = Output<u64>;
        fn execute(&mut self, batch: Batch<u64>, out: &mut Emitter<Output<u64>>) {
            self.0.lock().unwrap().push(out.keep());
            batch.ack();
        }
    }
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let kept = Arc::<Mutex<Vec<Anchor>>>::default();
    let hands = kept.clone();
    let mut topology = TopologyBuilder::new("kept");
    let stream = topology.spout("feed", feed.spout()).outputs();
    topology.batch_bolt("keep", move || Keeping(hands.clone())).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (1..=3).for_each(|n| feed.emit(n, n));
    run.settle().await;
    assert!(feed.acked().is_empty());
    assert!(kept.lock().unwrap().iter().all(Anchor::is_tracked));
    kept.lock().unwrap().drain(..).for_each(Anchor::ack);
    run.settle().await;
    assert_eq!(feed.acked().len(), 3);
    assert_eq!(run.metrics().component("keep").unwrap().acked, 3, "a tuple counts once");
}

#[tokio::test]
async fn what_is_emitted_before_a_batch_goes_tuple_by_tuple_is_anchored_to_all_of_it() {
    #[derive(Clone, Copy, Debug)]
    struct SumThenEach(bool);
    impl BatchBolt for SumThenEach {
        type Input = u64;
        type Outputs = Output<u64>;
        fn execute(&mut self, batch: Batch<u64>, out: &mut Emitter<Output<u64>>) {
            out.emit(100 + batch.values().iter().sum::<u64>());
            if self.0 {
                batch.map(out, |n| n);
            } else {
                batch.each(out, |n, out| {
                    out.emit(n);
                    Ok(())
                });
            }
        }
    }
    for maps in [false, true] {
        let harness = Harness::new();
        let (feed, held) = (harness.feed::<u64>(), Held::default());
        let hands = held.clone();
        let mut topology = TopologyBuilder::new("each");
        let stream = topology.spout("feed", feed.spout()).outputs();
        let sums = topology.batch_bolt("sum", SumThenEach(maps)).shuffle(stream).outputs();
        topology.bolt("hold", move || Holding(hands.clone())).shuffle(sums);
        // Fed before it starts, so that all are in one batch.
        (1..=3).for_each(|n| feed.emit(n, n));
        let run = harness.start(topology.build().unwrap()).await.unwrap();
        run.settle().await;
        for n in 1..=3 {
            take(&held, n).ack();
        }
        run.settle().await;
        assert!(feed.acked().is_empty(), "maps: {maps}: all wait for the sum");
        take(&held, 106).ack();
        run.settle().await;
        assert_eq!(feed.acked().len(), 3, "maps: {maps}");
    }
}
