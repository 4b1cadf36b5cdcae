//! Submitting, pausing, ticking, draining and ending.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use galerna_engine::testing::{Feed, Harness, Run};
use galerna_engine::{Engine, EngineError, EngineOptions, SpoutState};
use galerna_topology::SpoutDeclarer;
use galerna_topology::prelude::*;

use crate::bolts::{Held, Holding, take};

#[tokio::test]
async fn submitted_inactive_nothing_is_called_before_it_is_activated() {
    let harness = Harness::new().with_options(EngineOptions { active: false, ..EngineOptions::default() });
    let feed = harness.feed::<u64>();
    let seen = harness.seen::<u64>();
    let mut topology = TopologyBuilder::new("inactive");
    let stream = topology.spout("feed", feed.spout()).outputs();
    topology.bolt("seen", seen.bolt()).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    feed.emit(1, 1);
    run.advance(Duration::from_secs(5)).await;
    assert_eq!((feed.calls(), seen.count(), feed.log()), (0, 0, vec!["open"]));
    assert_eq!(run.metrics().component("feed").unwrap().states, [SpoutState::Paused]);

    run.running().activate();
    run.until("the tuple is acked", || feed.acked() == [1]).await;
    run.running().deactivate();
    run.until("the spout is told", || feed.log().len() == 3).await;
    let calls = feed.calls();
    feed.emit(2, 2);
    run.settle().await;
    assert_eq!((feed.calls(), seen.count()), (calls, 1));
    run.running().activate();
    run.until("the second is acked", || feed.acked() == [1, 2]).await;
    run.drain(Duration::from_secs(1)).await;
    assert_eq!(feed.log(), ["open", "activate", "deactivate", "activate", "deactivate", "close"]);
}

/// A run whose tuples are the test's to settle, and the feed of it, with these settings of its spout.
async fn holding(
    set: impl FnOnce(SpoutDeclarer<'_, Output<u64>>) -> SpoutDeclarer<'_, Output<u64>>,
) -> (Feed<u64>, Held, Run) {
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let held = Held::default();
    let hands = held.clone();
    let mut topology = TopologyBuilder::new("holding");
    let stream = set(topology.spout("feed", feed.spout())).outputs();
    topology.bolt("hold", move || Holding(hands.clone())).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (feed, held, run)
}

#[tokio::test]
async fn what_is_on_its_way_ends_while_the_topology_is_inactive() {
    let (feed, held, run) = holding(|spout| spout).await;
    (1..=3).for_each(|n| feed.emit(n, n));
    run.settle().await;
    run.running().deactivate();
    run.settle().await;
    take(&held, 1).ack();
    take(&held, 2).fail(Fault::transient("no"));
    run.settle().await;
    assert_eq!((feed.acked(), feed.failed().len()), (vec![1], 1));
    run.advance(Duration::from_secs(30)).await;
    assert_eq!(feed.failed().len(), 2, "the timeout goes on, too");
}

struct Ticking {
    ticks: Arc<AtomicU64>,
}

impl Bolt for Ticking {
    type Input = u64;
    type Outputs = Output<u64>;

    fn execute(&mut self, _: u64, _: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        Ok(())
    }

    fn tick(&mut self, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        out.emit(self.ticks.fetch_add(1, Ordering::SeqCst));
        Ok(())
    }
}

impl AsyncBolt for Ticking {
    type Input = u64;
    type Outputs = Output<u64>;

    async fn execute(&mut self, _: u64, _: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        Ok(())
    }

    async fn tick(&mut self, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        out.emit(self.ticks.fetch_add(1, Ordering::SeqCst));
        Ok(())
    }
}

#[tokio::test]
async fn a_bolt_ticks_once_an_interval_and_what_it_emits_goes_on() {
    for waits in [false, true] {
        let harness = Harness::new();
        let feed = harness.feed::<u64>();
        let seen = harness.seen::<u64>();
        let ticks = Arc::new(AtomicU64::new(0));
        let mut topology = TopologyBuilder::new("ticks");
        let stream = topology.spout("feed", feed.spout()).outputs();
        let counter = ticks.clone();
        let make = move || Ticking { ticks: counter.clone() };
        let interval = Duration::from_secs(30);
        let ticked = match waits {
            true => topology.async_bolt("tick", make).shuffle(stream).tick_every(interval).outputs(),
            false => topology.bolt("tick", make).shuffle(stream).tick_every(interval).outputs(),
        };
        topology.bolt("seen", seen.bolt()).shuffle(ticked);
        let run = harness.start(topology.build().unwrap()).await.unwrap();
        run.settle().await;
        for n in 1..=3 {
            run.advance(Duration::from_secs(29)).await;
            assert_eq!(ticks.load(Ordering::SeqCst), n - 1);
            run.advance(Duration::from_secs(1)).await;
            run.until("it ticked", || seen.count() as u64 == n).await;
        }
        assert_eq!(seen.values(), [0, 1, 2]);
    }
}

#[tokio::test]
async fn draining_waits_for_pending_roots_and_emits_nothing_meanwhile() {
    let (feed, held, run) = holding(|spout| spout).await;
    (1..=2).for_each(|n| feed.emit(n, n));
    run.settle().await;
    let draining = tokio::spawn(run.drain(Duration::from_secs(30)));
    while feed.log().last() != Some(&"deactivate") {
        tokio::task::yield_now().await;
    }
    let calls = feed.calls();
    feed.emit(3, 3);
    take(&held, 1).ack();
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!draining.is_finished());
    assert_eq!((feed.calls(), feed.acked()), (calls, vec![1]));
    take(&held, 2).ack();
    let report = draining.await.unwrap();
    assert!(report.drained && report.aborted.is_empty());
    assert_eq!((feed.calls(), feed.acked(), feed.log().last().copied()), (calls, vec![1, 2], Some("close")));
}

#[tokio::test]
async fn draining_waits_at_most_until_its_deadline_and_what_is_left_fails() {
    let (feed, _held, run) = holding(|spout| spout.message_timeout(None)).await;
    let clock = run.clock();
    feed.emit(1, 1);
    run.settle().await;
    let draining = tokio::spawn(run.drain(Duration::from_secs(10)));
    while feed.log().last() != Some(&"deactivate") {
        tokio::task::yield_now().await;
    }
    clock.advance(Duration::from_millis(9_999));
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!draining.is_finished());
    clock.advance(Duration::from_millis(1));
    let report = draining.await.unwrap();
    assert_eq!((report.drained, report.unfinished), (false, 1));
    let failed = feed.failed();
    assert_eq!((failed.len(), failed[0].failure.kind), (1, FailureKind::Stopped));
    assert_eq!(feed.log().last(), Some(&"close"));
}

#[tokio::test]
async fn killing_waits_for_pending_roots_for_at_most_the_message_timeout_and_emits_nothing_meanwhile() {
    // Off, it is 30 s; what is left then is stopped. With a timeout, the last root ends with it.
    for (timeout, waits, kind) in [
        (None, Duration::from_secs(30), FailureKind::Stopped),
        (Some(Duration::from_secs(7)), Duration::from_secs(7), FailureKind::Timeout),
    ] {
        let (feed, held, run) = holding(|spout| spout.message_timeout(timeout)).await;
        let clock = run.clock();
        feed.emit(1, 1);
        feed.emit(2, 2);
        run.settle().await;
        let killing = tokio::spawn(run.kill());
        while feed.log().last() != Some(&"deactivate") {
            tokio::task::yield_now().await;
        }
        feed.emit(3, 3);
        take(&held, 1).ack();
        clock.advance(waits - Duration::from_millis(1));
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(!killing.is_finished(), "{timeout:?}");
        clock.advance(Duration::from_millis(1));
        killing.await.unwrap();
        assert_eq!(feed.acked(), [1], "{timeout:?}");
        let failed = feed.failed();
        assert_eq!((failed.len(), failed[0].failure.kind), (1, kind), "{timeout:?}");
        assert!(held.lock().unwrap().iter().all(|(value, _)| *value != 3), "{timeout:?}");
    }
}

/// Keeps tuples until it is told to finish.
#[derive(Default)]
struct Buffering(Vec<(u64, Anchor)>);

impl AsyncBolt for Buffering {
    type Input = u64;
    type Outputs = Output<u64>;

    async fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        let anchor = out.keep();
        self.0.push((n, anchor));
        Ok(())
    }

    async fn drain(&mut self, out: &mut Emitter<Output<u64>>) {
        for (n, anchor) in self.0.drain(..) {
            out.emit_anchored(n, [&anchor]);
            anchor.ack();
        }
    }

    async fn close(&mut self, out: &mut Emitter<Output<u64>>) {
        out.emit(1_000);
    }
}

#[tokio::test]
async fn draining_has_bolts_finish_what_they_keep_and_what_they_emit_while_closing_goes_on() {
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let seen = harness.seen::<u64>();
    let mut topology = TopologyBuilder::new("buffers");
    let stream = topology.spout("feed", feed.spout()).outputs();
    let first = topology.async_bolt("first", Buffering::default).shuffle(stream).outputs();
    let second = topology.async_bolt("second", Buffering::default).shuffle(first).outputs();
    topology.bolt("seen", seen.bolt()).shuffle(second);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (1..=3).for_each(|n| feed.emit(n, n));
    feed.emit_untracked(4);
    run.settle().await;
    assert_eq!(seen.count(), 0);
    let report = run.drain(Duration::from_secs(1)).await;
    assert!(report.drained);
    assert_eq!(feed.acked(), [1, 2, 3]);
    assert_eq!(seen.values(), [1, 2, 3, 4, 1_000, 1_000]);
}

/// The same, computing: two of them run fused.
#[derive(Default)]
struct Hoarding(Vec<(u64, Anchor)>);

impl Bolt for Hoarding {
    type Input = u64;
    type Outputs = Output<u64>;

    fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        let anchor = out.keep();
        self.0.push((n, anchor));
        Ok(())
    }

    fn drain(&mut self, out: &mut Emitter<Output<u64>>) {
        for (n, anchor) in self.0.drain(..) {
            out.emit_anchored(n, [&anchor]);
            anchor.ack();
        }
    }
}

#[tokio::test]
async fn what_a_bolt_lets_go_when_it_drains_is_let_go_by_those_fused_behind_it() {
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let seen = harness.seen::<u64>();
    let mut topology = TopologyBuilder::new("hoards");
    let mut stream = topology.spout("feed", feed.spout()).outputs();
    for name in ["first", "second", "third"] {
        stream = topology.bolt(name, Hoarding::default).shuffle(stream).outputs();
    }
    topology.bolt("seen", seen.bolt()).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (1..=3).for_each(|n| feed.emit(n, n));
    run.settle().await;
    assert_eq!(seen.count(), 0);
    // By the test's clock, which stands still: only what happens of itself can end this.
    let drained = tokio::time::timeout(Duration::from_secs(60), run.drain(Duration::from_secs(1))).await;
    assert!(drained.expect("draining ends").drained);
    assert_eq!((feed.acked(), seen.values()), (vec![1, 2, 3], vec![1, 2, 3]));
}

#[tokio::test]
async fn a_spout_that_is_done_and_whose_roots_ended_finishes_the_topology() {
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let mut topology = TopologyBuilder::new("done");
    let stream = topology.spout("feed", feed.spout()).parallelism(2).outputs();
    topology.bolt("seen", harness.seen::<u64>().bolt()).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (0..50).for_each(|n| feed.emit(n, n));
    feed.done();
    tokio::time::timeout(Duration::from_secs(30), run.running().finished()).await.unwrap();
    assert_eq!(feed.acked().len(), 50);
    assert!(run.metrics().component("feed").unwrap().states.iter().all(|state| *state == SpoutState::Done));
}

#[tokio::test]
async fn a_bolt_that_cannot_be_prepared_keeps_the_topology_from_starting() {
    struct Broken;
    impl AsyncBolt for Broken {
        type Input = u64;
        type Outputs = ();
        async fn prepare(&mut self, _: &TaskContext) -> Result<(), Fault> {
            Err(Fault::transient("no route to the store"))
        }
        async fn execute(&mut self, _: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
            Ok(())
        }
    }
    let harness = Harness::new();
    let mut topology = TopologyBuilder::new("broken");
    let stream = topology.spout("feed", harness.feed::<u64>().spout()).outputs();
    topology.async_bolt("store", || Broken).shuffle(stream);
    let error = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap_err();
    let expected =
        EngineError::Start { component: "store".into(), task: 0, reason: "no route to the store".into() };
    assert_eq!(error, expected);
    assert_eq!(error.to_string(), "could not start task 0 of `store`: no route to the store");
}

#[tokio::test]
async fn a_task_that_hangs_is_aborted_when_the_topology_is_stopped() {
    struct Hanging;
    impl AsyncBolt for Hanging {
        type Input = u64;
        type Outputs = ();
        async fn execute(&mut self, _: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
            std::future::pending().await
        }
    }
    let options = EngineOptions { close_timeout: Duration::from_millis(20), ..EngineOptions::default() };
    let harness = Harness::new().with_options(options);
    let feed = harness.feed::<u64>();
    let mut topology = TopologyBuilder::new("hanging");
    let stream = topology.spout("feed", feed.spout()).outputs();
    topology.async_bolt("hang", || Hanging).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    feed.emit(1, 1);
    run.until("the tuple is there", || run.metrics().component("feed").unwrap().emitted == 1).await;
    let report = run.drain(Duration::ZERO).await;
    assert_eq!((report.drained, report.aborted), (false, vec!["hang".into()]));
    assert_eq!(feed.failed()[0].failure.kind, FailureKind::Dropped);
}

#[tokio::test]
async fn who_waits_for_a_topology_to_finish_hears_of_its_end_however_it_ends() {
    for way in ["stopped", "drained", "dropped"] {
        let harness = Harness::new();
        let feed = harness.feed::<u64>();
        let mut topology = TopologyBuilder::new("endless");
        let stream = topology.spout("feed", feed.spout()).outputs();
        topology.for_each("sink", |_: u64| ()).shuffle(stream);
        let running = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap();
        let handle = running.handle();
        let waiting = tokio::spawn(async move { handle.finished().await });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished(), "{way}");
        match way {
            "stopped" => drop(running.stop().await),
            "drained" => drop(running.drain(Duration::from_secs(10)).await),
            _ => drop(running),
        }
        tokio::time::timeout(Duration::from_secs(30), waiting).await.expect(way).unwrap();
    }
}
