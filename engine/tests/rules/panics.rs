//! A panic costs the tuple at hand and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use galerna_engine::testing::{Feed, Harness};
use galerna_topology::prelude::*;

/// Panics on every seventh; counts its instances.
struct Touchy;

fn touchy(made: &Arc<AtomicU64>) -> impl Fn() -> Touchy + Send + Sync + 'static {
    let made = made.clone();
    move || {
        made.fetch_add(1, Ordering::SeqCst);
        Touchy
    }
}

impl Bolt for Touchy {
    type Input = u64;
    type Outputs = Output<u64>;

    fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        out.emit(n);
        assert!(!n.is_multiple_of(7), "{n} is a multiple of seven");
        Ok(())
    }
}

impl AsyncBolt for Touchy {
    type Input = u64;
    type Outputs = Output<u64>;

    async fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        out.emit(n);
        tokio::task::yield_now().await;
        assert!(!n.is_multiple_of(7), "{n} is a multiple of seven");
        Ok(())
    }
}

fn check(feed: &Feed<u64>, made: &AtomicU64, what: &str) {
    let mut acked = feed.acked();
    acked.sort();
    assert_eq!(acked, (1..=20).filter(|n| n % 7 != 0).collect::<Vec<_>>(), "{what}");
    let mut failed: Vec<_> = feed.failed().iter().map(|f| (f.id, f.failure.kind)).collect();
    failed.sort();
    assert_eq!(failed, [(7, FailureKind::Panic), (14, FailureKind::Panic)], "{what}");
    assert_eq!(made.load(Ordering::SeqCst), 3, "{what}: one instance, and one after each panic");
}

#[tokio::test]
async fn a_panic_in_a_bolt_fails_one_tuple_and_the_bolt_is_made_anew() {
    for what in ["bolt", "async bolt", "map"] {
        let harness = Harness::new();
        let feed = harness.feed::<u64>();
        let seen = harness.seen::<u64>();
        let made = Arc::new(AtomicU64::new(0));
        let mut topology = TopologyBuilder::new("panics");
        let stream = topology.spout("feed", feed.spout()).outputs();
        let out = match what {
            "bolt" => topology.bolt("touchy", touchy(&made)).shuffle(stream).outputs(),
            "async bolt" => topology.async_bolt("touchy", touchy(&made)).shuffle(stream).outputs(),
            _ => {
                made.store(3, Ordering::SeqCst);
                let map = |n: u64| {
                    assert!(!n.is_multiple_of(7), "{n} is a multiple of seven");
                    n
                };
                topology.map("touchy", map).shuffle(stream).outputs()
            }
        };
        topology.bolt("seen", seen.bolt()).shuffle(out);
        let run = harness.start(topology.build().unwrap()).await.unwrap();
        (1..=20).for_each(|n| feed.emit(n, n));
        run.settle().await;
        check(&feed, &made, what);
        let mut values = seen.values();
        values.sort();
        assert_eq!(values, (1..=20).filter(|n| n % 7 != 0).collect::<Vec<_>>(), "{what}");
        let metrics = run.metrics();
        let touchy = metrics.component("touchy").unwrap();
        assert_eq!((touchy.restarts, touchy.failed["panic"]), (2, 2), "{what}");
        let error = touchy.last_error.as_ref().unwrap();
        assert!(error.reason.contains("panicked"), "{what}: {error:?}");
    }
}

#[tokio::test]
async fn kept_tuples_of_a_bolt_that_panics_fail_with_it() {
    struct Keeper(Vec<Anchor>);
    impl Bolt for Keeper {
        type Input = u64;
        type Outputs = ();
        fn execute(&mut self, n: u64, out: &mut Emitter<()>) -> Result<(), Fault> {
            let anchor = out.keep();
            self.0.push(anchor);
            assert!(n != 3, "three");
            Ok(())
        }
    }
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let mut topology = TopologyBuilder::new("keeper");
    let stream = topology.spout("feed", feed.spout()).outputs();
    topology.bolt("keeper", || Keeper(Vec::new())).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (1..=4).for_each(|n| feed.emit(n, n));
    run.settle().await;
    let mut failed: Vec<_> = feed.failed().iter().map(|f| f.id).collect();
    failed.sort();
    assert_eq!((feed.acked(), failed), (vec![], vec![1, 2, 3]), "the fourth is with the new instance");
}

#[tokio::test]
async fn a_panic_in_a_tick_is_reported_and_the_bolt_carries_on() {
    struct Ticker;
    impl Bolt for Ticker {
        type Input = u64;
        type Outputs = ();
        fn execute(&mut self, _: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
            Ok(())
        }
        fn tick(&mut self, _: &mut Emitter<()>) -> Result<(), Fault> {
            panic!("tock")
        }
    }
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let mut topology = TopologyBuilder::new("ticker");
    let stream = topology.spout("feed", feed.spout()).outputs();
    topology.bolt("ticker", || Ticker).shuffle(stream).tick_every(Duration::from_secs(1));
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    run.settle().await;
    run.advance(Duration::from_secs(1)).await;
    feed.emit(1, 1);
    run.settle().await;
    assert_eq!(feed.acked(), [1]);
    let metrics = run.metrics();
    assert_eq!(metrics.component("ticker").unwrap().last_error.as_ref().unwrap().reason, "panicked: tock");
}

#[tokio::test]
async fn a_spout_that_panics_is_made_anew_and_what_it_had_emitted_still_counts() {
    struct Jumpy(Arc<AtomicU64>);
    impl Spout for Jumpy {
        type MessageId = u64;
        type Outputs = Output<u64>;
        async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
            let n = self.0.fetch_add(1, Ordering::SeqCst);
            if n == 10 {
                return Ok(Next::Done);
            }
            out.root(n).emit(n);
            assert!(n != 4, "four");
            Ok(Next::Ready)
        }
    }
    let harness = Harness::new();
    let seen = harness.seen::<u64>();
    let count = Arc::new(AtomicU64::new(0));
    let mut topology = TopologyBuilder::new("jumpy");
    let stream = topology.spout("jumpy", move || Jumpy(count.clone())).outputs();
    topology.bolt("seen", seen.bolt()).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    run.settle().await;
    run.advance(Duration::from_secs(1)).await;
    tokio::time::timeout(Duration::from_secs(30), run.running().finished()).await.unwrap();
    assert_eq!(seen.values(), (0..10).collect::<Vec<_>>());
    let metrics = run.metrics();
    let jumpy = metrics.component("jumpy").unwrap();
    assert_eq!((jumpy.acked, jumpy.restarts), (10, 1));
}
