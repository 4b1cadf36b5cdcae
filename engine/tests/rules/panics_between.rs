//! Panics between two components: in groupings, and in the tuples' own `Clone`, `Drop` and conversions.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use galerna_engine::testing::Harness;
use galerna_topology::prelude::*;

fn touchy(n: u64) -> u64 {
    assert!(!n.is_multiple_of(7), "{n} is a multiple of seven");
    n
}

/// Panics when a multiple of seven is copied.
#[derive(Debug)]
struct Glass(u64);

impl Clone for Glass {
    fn clone(&self) -> Self {
        Self(touchy(self.0))
    }
}

/// Panics when it is made of a multiple of seven.
struct Checked(u64);

impl From<Glass> for Checked {
    fn from(glass: Glass) -> Self {
        Self(touchy(glass.0))
    }
}

struct Pass;

impl Bolt for Pass {
    type Input = Glass;
    type Outputs = Output<Glass>;
    fn execute(&mut self, glass: Glass, out: &mut Emitter<Output<Glass>>) -> Result<(), Fault> {
        out.emit(glass);
        Ok(())
    }
}

impl AsyncBolt for Pass {
    type Input = Glass;
    type Outputs = Output<Glass>;
    async fn execute(&mut self, glass: Glass, out: &mut Emitter<Output<Glass>>) -> Result<(), Fault> {
        out.emit(glass);
        Ok(())
    }
}

#[tokio::test]
async fn a_panic_between_two_components_fails_one_root_and_the_others_pass() {
    let emitters = ["spout", "bolt", "async bolt"];
    let ways = [
        "key of fields",
        "key of partial key",
        "custom grouping",
        "copy of a custom grouping",
        "copy to all",
        "copy to the second subscriber",
        "conversion",
        "conversion for an async bolt",
    ];
    for (emitter, way) in emitters.iter().flat_map(|emitter| ways.map(|way| (*emitter, way))) {
        let what = format!("{way} of what a {emitter} emits");
        let harness = Harness::new();
        let feed = harness.feed::<Glass>();
        let seen = Arc::new(Mutex::new(BTreeSet::new()));
        let sink = |seen: &Arc<Mutex<BTreeSet<u64>>>| {
            let seen = seen.clone();
            move |glass: Glass| {
                seen.lock().unwrap().insert(glass.0);
            }
        };
        let mut topology = TopologyBuilder::new("between");
        let fed = topology.spout("feed", feed.spout()).outputs();
        let stream = match emitter {
            "spout" => fed,
            "bolt" => topology.bolt("pass", || Pass).shuffle(fed).outputs(),
            _ => topology.async_bolt("pass", || Pass).shuffle(fed).outputs(),
        };
        let from = if emitter == "spout" { "feed" } else { "pass" };
        let mut guilty = from;
        match way {
            "conversion" => {
                guilty = "sink";
                let seen = seen.clone();
                topology
                    .for_each("sink", move |checked: Checked| {
                        seen.lock().unwrap().insert(checked.0);
                    })
                    .shuffle(&stream);
            }
            "conversion for an async bolt" => {
                guilty = "sink";
                struct Sink(Arc<Mutex<BTreeSet<u64>>>);
                impl AsyncBolt for Sink {
                    type Input = Checked;
                    type Outputs = ();
                    async fn execute(&mut self, checked: Checked, _: &mut Emitter<()>) -> Result<(), Fault> {
                        self.0.lock().unwrap().insert(checked.0);
                        Ok(())
                    }
                }
                let seen = seen.clone();
                topology.async_bolt("sink", move || Sink(seen.clone())).shuffle(&stream);
            }
            _ => {
                let sink = topology.for_each("sink", sink(&seen)).parallelism(2);
                match way {
                    "key of fields" => sink.key_by(&stream, |glass: &Glass| touchy(glass.0)),
                    "key of partial key" => sink.partial_key(&stream, |glass: &Glass| {
                        touchy(glass.0);
                        &glass.0
                    }),
                    "custom grouping" => {
                        sink.custom(&stream, |glass: &Glass, tasks: usize, chosen: &mut Vec<usize>| {
                            chosen.push(touchy(glass.0) as usize % tasks);
                        })
                    }
                    "copy of a custom grouping" => {
                        sink.custom(&stream, |_: &Glass, _: usize, chosen: &mut Vec<usize>| {
                            chosen.extend([0, 1]);
                        })
                    }
                    "copy to all" => sink.all(&stream),
                    _ => sink.shuffle(&stream),
                };
            }
        }
        if way == "copy to the second subscriber" {
            topology.for_each("second", sink(&seen)).shuffle(&stream);
        }
        let run = harness.start(topology.build().unwrap()).await.unwrap();
        (1..=20).for_each(|n| feed.emit(n, Glass(n)));
        run.settle().await;
        let mut failed: Vec<_> = feed
            .failed()
            .iter()
            .map(|f| (f.id, f.failure.kind, f.failure.component.to_string(), f.failure.reason().to_string()))
            .collect();
        failed.sort();
        let reason = |n| format!("panicked: {n} is a multiple of seven");
        let lost = [7, 14].map(|n| (n, FailureKind::Panic, guilty.to_owned(), reason(n)));
        assert_eq!(failed, lost, "{what}");
        feed.emit(22, Glass(22));
        run.settle().await;
        let sound: Vec<u64> = (1..=22).filter(|n| n % 7 != 0 && *n != 21).collect();
        let mut acked = feed.acked();
        acked.sort();
        assert_eq!(acked, sound, "{what}");
        assert_eq!(seen.lock().unwrap().iter().copied().collect::<Vec<_>>(), sound, "{what}");
        let metrics = run.metrics();
        let component = metrics.component(guilty).unwrap();
        assert_eq!((component.failed["panic"], component.errors), (2, 2), "{what}");
        assert_eq!(component.last_error.as_ref().unwrap().reason, reason(14), "{what}");
        let sink = metrics.component("sink").unwrap();
        assert_eq!((sink.executed, sink.process.count), (sink.acked, sink.acked), "{what}");
        // All tasks still stand.
        assert_eq!(run.drain(Duration::from_secs(1)).await.aborted, Vec::<Arc<str>>::new(), "{what}");
    }
}

#[tokio::test]
async fn a_tuple_that_panics_when_it_is_dropped_unread_costs_nothing_else() {
    #[derive(Clone)]
    struct Bomb(u64);
    impl Drop for Bomb {
        fn drop(&mut self) {
            if self.0 == 3 {
                // Only once: a copy of the number is not a bomb.
                self.0 = 0;
                panic!("three");
            }
        }
    }
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let mut topology = TopologyBuilder::new("bombs");
    let stream = topology.spout("feed", feed.spout()).outputs();
    topology.map("bombs", Bomb).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (1..=5).for_each(|n| feed.emit(n, n));
    run.settle().await;
    assert_eq!(feed.acked(), [1, 2, 3, 4, 5]);
    let metrics = run.metrics();
    let bombs = metrics.component("bombs").unwrap();
    assert_eq!((bombs.errors, bombs.failures()), (1, 0));
    assert_eq!(bombs.last_error.as_ref().unwrap().reason, "panicked: three");
}

/// Panics on its first tuple, and when it is dropped after that.
struct Sore {
    first: Arc<AtomicBool>,
    hurt: bool,
}

impl Sore {
    fn poke(&mut self) {
        if !self.first.swap(true, Ordering::SeqCst) {
            self.hurt = true;
            panic!("ouch");
        }
    }
}

impl Drop for Sore {
    fn drop(&mut self) {
        if self.hurt {
            panic!("and again");
        }
    }
}

impl Bolt for Sore {
    type Input = u64;
    type Outputs = ();
    fn execute(&mut self, _: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
        self.poke();
        Ok(())
    }
}

impl AsyncBolt for Sore {
    type Input = u64;
    type Outputs = ();
    async fn execute(&mut self, _: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
        self.poke();
        Ok(())
    }
}

/// The same as a spout: of its ten roots, the first is emitted by an instance that panics.
struct SoreSpout(Sore, Arc<Mutex<u64>>);

impl Spout for SoreSpout {
    type MessageId = u64;
    type Outputs = Output<u64>;
    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        let n = {
            let mut next = self.1.lock().unwrap();
            *next += 1;
            *next
        };
        if n > 3 {
            return Ok(Next::Done);
        }
        out.root(n).emit(n);
        self.0.poke();
        Ok(Next::Ready)
    }
}

#[tokio::test]
async fn an_instance_that_panics_again_when_it_is_dropped_is_replaced_all_the_same() {
    for what in ["bolt", "async bolt"] {
        let harness = Harness::new();
        let feed = harness.feed::<u64>();
        let first = Arc::new(AtomicBool::new(false));
        let made = move || Sore { first: first.clone(), hurt: false };
        let mut topology = TopologyBuilder::new("sore");
        let stream = topology.spout("feed", feed.spout()).outputs();
        match what {
            "bolt" => {
                topology.bolt("sore", made).shuffle(stream);
            }
            _ => {
                topology.async_bolt("sore", made).shuffle(stream);
            }
        }
        let run = harness.start(topology.build().unwrap()).await.unwrap();
        (1..=3).for_each(|n| feed.emit(n, n));
        run.settle().await;
        assert_eq!((feed.acked(), feed.failed()[0].id), (vec![2, 3], 1), "{what}");
        assert_eq!(run.metrics().component("sore").unwrap().restarts, 1, "{what}");
    }
    let harness = Harness::new();
    let seen = harness.seen::<u64>();
    let (first, next) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(0)));
    let mut topology = TopologyBuilder::new("sore spout");
    let made = move || SoreSpout(Sore { first: first.clone(), hurt: false }, next.clone());
    let stream = topology.spout("sore", made).outputs();
    topology.bolt("seen", seen.bolt()).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    run.settle().await;
    run.advance(Duration::from_secs(1)).await;
    tokio::time::timeout(Duration::from_secs(30), run.running().finished()).await.unwrap();
    assert_eq!(seen.values(), [1, 2, 3]);
    assert_eq!(run.metrics().component("sore").unwrap().restarts, 1);
}

#[tokio::test]
async fn a_key_that_panics_costs_its_tuple_also_where_it_is_looked_at_to_see_which_are_frequent() {
    for tasks in [1, 3] {
        let harness = Harness::new();
        let feed = harness.feed::<u64>();
        let mut topology = TopologyBuilder::new("keys");
        let fed = topology.spout("feed", feed.spout()).outputs();
        let passed = topology.map("pass", |n: u64| n).shuffle(fed).outputs();
        let key = |n: &u64| {
            assert!(n.is_multiple_of(2), "an odd one");
            *n
        };
        topology.for_each("sink", |_: u64| ()).key_by(passed, key).parallelism(tasks);
        let run = harness.start(topology.build().unwrap()).await.unwrap();
        (0..500).for_each(|n| feed.emit(n, n));
        run.settle().await;
        // One task gets all of them, whatever their keys.
        let sound: Vec<u64> = (0..500).filter(|n| tasks == 1 || n % 2 == 0).collect();
        let mut acked = feed.acked();
        acked.sort();
        assert_eq!(acked, sound, "{tasks} tasks");
        assert_eq!(feed.failed().len(), 500 - sound.len(), "{tasks} tasks");
        assert_eq!(run.metrics().component("pass").unwrap().emitted, 500, "{tasks} tasks");
    }
}

#[tokio::test]
async fn a_tuple_that_panics_when_it_is_taken_back_costs_nothing_else() {
    #[derive(Clone)]
    struct Bomb(u64);
    impl Drop for Bomb {
        fn drop(&mut self) {
            assert!(self.0 != 3 || std::thread::panicking(), "dropped");
        }
    }
    struct Emits;
    impl Emits {
        fn emit(n: u64, out: &mut Emitter<Output<Bomb>>) {
            out.emit(Bomb(n));
            assert!(n != 3, "three");
        }
    }
    impl Bolt for Emits {
        type Input = u64;
        type Outputs = Output<Bomb>;
        fn execute(&mut self, n: u64, out: &mut Emitter<Output<Bomb>>) -> Result<(), Fault> {
            Self::emit(n, out);
            Ok(())
        }
    }
    impl AsyncBolt for Emits {
        type Input = u64;
        type Outputs = Output<Bomb>;
        async fn execute(&mut self, n: u64, out: &mut Emitter<Output<Bomb>>) -> Result<(), Fault> {
            Self::emit(n, out);
            Ok(())
        }
    }
    for waits in [false, true] {
        let harness = Harness::new();
        let feed = harness.feed::<u64>();
        let mut topology = TopologyBuilder::new("taken back");
        let fed = topology.spout("feed", feed.spout()).outputs();
        let bombs = match waits {
            false => topology.bolt("emits", || Emits).shuffle(fed).outputs(),
            true => topology.async_bolt("emits", || Emits).shuffle(fed).outputs(),
        };
        topology.for_each("sink", |_: Bomb| ()).shuffle(bombs);
        let run = harness.start(topology.build().unwrap()).await.unwrap();
        (1..=9).for_each(|n| feed.emit(n, n));
        run.settle().await;
        assert_eq!(feed.acked(), [1, 2, 4, 5, 6, 7, 8, 9]);
        let failed = feed.failed();
        assert_eq!((failed.len(), failed[0].id, failed[0].failure.reason()), (1, 3, "panicked: three"));
        let emits = run.metrics().component("emits").unwrap().clone();
        assert_eq!((emits.restarts, emits.failures()), (1, 1));
    }
}
