//! What holds for any tree, whatever happens to its tuples in whatever order.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use galerna_engine::EngineOptions;
use galerna_engine::testing::Harness;
use galerna_topology::prelude::*;
use proptest::prelude::*;

/// What a bolt does with the tuple it is given.
#[derive(Debug, Clone, Copy)]
enum Act {
    /// Emits this many and acks.
    Emit(u8),
    /// Emits one and fails.
    Fail,
    /// Keeps it, to be settled by the test.
    Keep,
    /// Keeps it, emits one anchored to all kept by this bolt, and acks it.
    Join,
    /// Emits this many unanchored and acks.
    Loose(u8),
    Panic,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        8 => (0u8..4).prop_map(Act::Emit),
        1 => Just(Act::Fail),
        3 => Just(Act::Keep),
        2 => Just(Act::Join),
        1 => (0u8..3).prop_map(Act::Loose),
        1 => Just(Act::Panic),
    ]
}

/// A script that all bolts take their acts from, in the order in which they come to it.
#[derive(Debug, Clone)]
struct Script {
    acts: Arc<Mutex<Vec<Act>>>,
    kept: Arc<Mutex<Vec<Anchor>>>,
}

impl Script {
    fn next(&self) -> Act {
        self.acts.lock().unwrap_or_else(|e| e.into_inner()).pop().unwrap_or(Act::Emit(1))
    }
}

struct Actor {
    script: Script,
    mine: Vec<Anchor>,
}

impl Bolt for Actor {
    type Input = u64;
    type Outputs = Output<u64>;

    fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        match self.script.next() {
            Act::Emit(copies) => (0..copies).for_each(|_| out.emit(n)),
            Act::Fail => {
                out.emit(n);
                return Err(Fault::transient("scripted"));
            }
            Act::Keep => {
                let anchor = out.keep();
                if n.is_multiple_of(2) {
                    self.mine.push(anchor);
                } else {
                    self.script.kept.lock().unwrap().push(anchor);
                }
            }
            Act::Join => {
                let anchor = out.keep();
                out.emit_anchored(n, self.mine.iter().chain([&anchor]));
                anchor.ack();
                self.mine.pop().into_iter().for_each(Anchor::ack);
            }
            Act::Loose(copies) => (0..copies).for_each(|_| out.emit_unanchored(n)),
            Act::Panic => panic!("scripted"),
        }
        Ok(())
    }

    fn drain(&mut self, out: &mut Emitter<Output<u64>>) {
        for (at, anchor) in self.mine.drain(..).enumerate() {
            if at % 2 == 0 {
                out.emit_anchored(at as u64, [&anchor]);
            }
            anchor.ack();
        }
    }
}

/// How the test settles what is kept: ack, fail or drop.
fn settle(anchor: Anchor, how: u8) {
    match how % 3 {
        0 => anchor.ack(),
        1 => anchor.fail(Fault::transient("by the test")),
        _ => drop(anchor),
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_root_ends_exactly_once_acked_or_failed(
        acts in proptest::collection::vec(act(), 0..400),
        roots in 1u64..120,
        hows in proptest::collection::vec(any::<u8>(), 1..40),
        grouping in 0u8..5,
        parallelism in 1usize..4,
        batch in 1usize..40,
        fuse in any::<bool>(),
    ) {
        runtime().block_on(async {
            let harness = Harness::new().with_options(EngineOptions { fuse, ..EngineOptions::default() });
            let feed = harness.feed::<u64>();
            let script = Script { acts: Arc::new(Mutex::new(acts)), kept: Arc::default() };
            let make = {
                let script = script.clone();
                move || Actor { script: script.clone(), mine: Vec::new() }
            };
            let mut topology = TopologyBuilder::new("random");
            let source = topology.spout("feed", feed.spout()).batch(batch).parallelism(parallelism).outputs();
            let first = topology.bolt("first", make.clone()).shuffle(&source).batch(batch).parallelism(parallelism);
            let first = first.outputs();
            let second = topology.bolt("second", make.clone()).parallelism(parallelism).batch(batch);
            let second = match grouping {
                0 => second.shuffle(&first),
                1 => second.fields(&first, |n| n),
                2 => second.all(&first),
                3 => second.partial_key(&first, |n| n),
                _ => second.custom(&first, |n: &u64, _: usize, chosen: &mut Vec<usize>| {
                    chosen.extend((0..*n as usize % 4).map(|at| at + 1));
                }),
            }
            .outputs();
            topology.bolt("third", make).global(&first).local_or_shuffle(&second);
            let run = harness.start(topology.build().unwrap()).await.unwrap();
            for n in 0..roots {
                feed.emit_all(n, (0..n % 3).chain([n]));
            }
            feed.emit_untracked(1);
            run.settle().await;

            // What is with the test is settled in its own way; what is with the bolts, when they drain.
            let kept: Vec<Anchor> = script.kept.lock().unwrap_or_else(|e| e.into_inner()).drain(..).collect();
            for (anchor, how) in kept.into_iter().zip(hows.iter().cycle()) {
                settle(anchor, *how);
            }
            let hands = script.kept.clone();
            let draining = tokio::spawn(run.drain(Duration::from_secs(30)));
            let began = std::time::Instant::now();
            while !draining.is_finished() {
                prop_assert!(began.elapsed() < Duration::from_secs(30), "a root never ends");
                // Draining emits, and what is emitted may be kept again.
                let kept: Vec<Anchor> = hands.lock().unwrap_or_else(|e| e.into_inner()).drain(..).collect();
                kept.into_iter().for_each(Anchor::ack);
                tokio::task::yield_now().await;
            }
            let report = draining.await.unwrap();
            let mut ended = feed.acked();
            ended.extend(feed.failed().iter().map(|failed| failed.id));
            ended.sort();
            prop_assert_eq!(ended, (0..roots).collect::<Vec<_>>());
            prop_assert!(feed.failed().iter().all(|failed| failed.failure.kind != FailureKind::Timeout));
            let spout = report.metrics.component("feed").unwrap();
            prop_assert_eq!(spout.acked + spout.failures(), roots);
            Ok(())
        })?;
    }

    #[test]
    fn without_failures_every_root_is_acked(
        fan_outs in proptest::collection::vec(0u8..5, 1..5),
        roots in 1u64..2_000,
        parallelism in 1usize..4,
        batch in 1usize..300,
    ) {
        runtime().block_on(async {
            let harness = Harness::new();
            let feed = harness.feed::<u64>();
            let mut topology = TopologyBuilder::new("fan-out");
            let mut stream = topology.spout("feed", feed.spout()).batch(batch).outputs();
            let mut streams = vec![stream.clone()];
            for (at, copies) in fan_outs.iter().enumerate() {
                let copies = usize::from(*copies);
                stream = topology
                    .flat_map(format!("bolt{at}"), move |n: u64| std::iter::repeat_n(n, copies))
                    .fields(&stream, |n| n)
                    .parallelism(parallelism)
                    .batch(batch)
                    .outputs();
                streams.push(stream.clone());
            }
            let mut sink = topology.for_each("sink", |_: u64| ()).parallelism(parallelism);
            for stream in &streams {
                sink = sink.shuffle(stream);
            }
            let run = harness.start(topology.build().unwrap()).await.unwrap();
            (0..roots).for_each(|n| feed.emit(n, n));
            run.settle().await;
            let mut acked = feed.acked();
            acked.sort();
            assert_eq!(acked, (0..roots).collect::<Vec<_>>());
        });
    }
}
