//! Limits: what stops a spout, and that the engine says why.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use galerna_engine::testing::Harness;
use galerna_engine::{Engine, EngineOptions, SpoutState};
use galerna_topology::prelude::*;
use tokio::sync::Semaphore;

use crate::bolts::{Held, Holding, take};

#[tokio::test]
async fn a_spout_stops_at_its_pending_limit_and_goes_on_when_roots_end() {
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let held = Held::default();
    let hands = held.clone();
    let mut topology = TopologyBuilder::new("pending");
    let stream = topology.spout("feed", feed.spout()).max_pending(3).outputs();
    topology.bolt("hold", move || Holding(hands.clone())).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (0..5).for_each(|n| feed.emit(n, n));
    run.settle().await;
    assert_eq!(held.lock().unwrap().len(), 3);
    assert_eq!(run.metrics().component("feed").unwrap().states, [SpoutState::PendingFull]);
    take(&held, 1).ack();
    run.until("the fourth is there", || held.lock().unwrap().len() == 3).await;
    take(&held, 0).fail(Fault::transient("no"));
    run.until("the fifth is there", || held.lock().unwrap().len() == 3).await;
    for n in 2..5 {
        take(&held, n).ack();
    }
    run.until("all ended", || feed.acked().len() == 4).await;
    assert_eq!(run.metrics().component("feed").unwrap().states, [SpoutState::NoData]);
}

/// Has one number after another, and at most so many of them unsettled.
struct Window {
    width: usize,
    next: u64,
    end: u64,
    unsettled: usize,
}

impl Spout for Window {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        while out.room() > 0 && self.unsettled < self.width && self.next < self.end {
            out.root(self.next).emit(self.next);
            self.next += 1;
            self.unsettled += 1;
        }
        Ok(if out.room() == 0 { Next::Ready } else { Next::Idle })
    }

    async fn ready(&mut self) {
        if self.unsettled == self.width || self.next == self.end {
            std::future::pending::<()>().await;
        }
    }

    async fn acked(&mut self, ids: &mut Vec<u64>) {
        self.unsettled -= ids.len();
    }

    fn is_full(&self) -> bool {
        // Also when nothing is pending, which no spout should say.
        self.unsettled == self.width || self.next == self.end && self.unsettled == 0
    }
}

#[tokio::test]
async fn a_spout_at_a_limit_of_its_own_is_full_and_not_without_data() {
    let harness = Harness::new();
    let held = Held::default();
    let hands = held.clone();
    let mut topology = TopologyBuilder::new("window");
    let window = || Window { width: 2, next: 0, end: 4, unsettled: 0 };
    let stream = topology.spout("window", window).max_pending(100).outputs();
    topology.bolt("hold", move || Holding(hands.clone())).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    let state = || run.metrics().component("window").unwrap().states[0].clone();
    let ready = |numbers: &[u64]| held.lock().unwrap().iter().map(|(n, _)| *n).eq(numbers.iter().copied());
    for (ack, in_work, says) in [
        (None, &[0, 1][..], SpoutState::PendingFull),
        (Some(0), &[1, 2], SpoutState::PendingFull),
        (Some(1), &[2, 3], SpoutState::PendingFull),
        // There is no more, and one of its two places is free.
        (Some(2), &[3], SpoutState::NoData),
        // It still says that it is full, but nothing is pending that it could wait for.
        (Some(3), &[], SpoutState::NoData),
    ] {
        if let Some(number) = ack {
            take(&held, number).ack();
        }
        run.until("the spout waits again", || ready(in_work) && state() == says).await;
        run.settle().await;
        assert_eq!(state(), says, "{in_work:?}");
    }
}

/// Waits for a permit for each tuple.
struct Gated(Arc<Semaphore>);

impl AsyncBolt for Gated {
    type Input = u64;
    type Outputs = ();

    async fn execute(&mut self, _: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
        self.0.acquire().await?.forget();
        Ok(())
    }
}

#[tokio::test]
async fn a_full_queue_downstream_stops_the_spout_and_is_named() {
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let gate = Arc::new(Semaphore::new(0));
    let mut topology = TopologyBuilder::new("full");
    let stream = topology.spout("feed", feed.spout()).batch(1).outputs();
    let permits = gate.clone();
    topology.async_bolt("store", move || Gated(permits.clone())).shuffle(stream).queue(2);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (0..20).for_each(|n| feed.emit(n, n));
    let full = SpoutState::DownstreamFull("store".into());
    run.until("the spout waits", || run.metrics().component("feed").unwrap().states == [full.clone()]).await;
    assert_eq!(full.to_string(), "downstream full: store");
    // One is executed, two wait, one is held by the spout.
    assert_eq!(run.metrics().component("feed").unwrap().emitted, 4);
    gate.add_permits(20);
    run.until("all ended", || feed.acked().len() == 20).await;
}

#[tokio::test]
async fn acks_arrive_while_the_spout_waits_for_room() {
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let gate = Arc::new(Semaphore::new(0));
    let mut topology = TopologyBuilder::new("room");
    let stream = topology.spout("feed", feed.spout()).batch(1).outputs();
    let permits = gate.clone();
    topology.async_bolt("store", move || Gated(permits.clone())).shuffle(stream).queue(1);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (0..10).for_each(|n| feed.emit(n, n));
    for n in 1..=7 {
        gate.add_permits(1);
        run.until("one more is acked", || feed.acked().len() == n).await;
    }
    // Roots that wait in the queue run out of time while the spout cannot move.
    run.clock().advance(Duration::from_secs(30));
    run.until("the others time out", || feed.failed().len() == 3).await;
}

#[tokio::test]
async fn a_cycle_marked_as_feedback_cannot_block_itself() {
    // Each number is sent round until it is 0: 200 rounds for each, through queues of one batch.
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let seen = harness.seen::<u64>();
    outputs! {
        struct Rounds {
            again: u64,
            done: u64,
        }
    }
    struct CountDown;
    impl Bolt for CountDown {
        type Input = u64;
        type Outputs = Rounds;
        fn execute(&mut self, n: u64, out: &mut Emitter<Rounds>) -> Result<(), Fault> {
            match n % 1_000 {
                0 => out.done.emit(n / 1_000),
                _ => out.again.emit(n - 1),
            }
            Ok(())
        }
    }
    let mut topology = TopologyBuilder::new("cycle");
    let stream = topology.spout("feed", feed.spout()).outputs();
    let again = Stream::<u64>::named("pass", "default").feedback();
    let rounds =
        topology.bolt("count-down", || CountDown).shuffle(stream).shuffle(again).queue(1).batch(4).outputs();
    topology.map("pass", |n: u64| n).shuffle(&rounds.again).queue(1).unfused();
    topology.bolt("seen", seen.bolt()).shuffle(&rounds.done);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (0..500).for_each(|n| feed.emit(n, n * 1_000 + 200));
    run.until("all came out", || feed.acked().len() == 500).await;
    let mut values = seen.values();
    values.sort();
    assert_eq!(values, (0..500).collect::<Vec<_>>());
    assert!(run.drain(Duration::from_secs(1)).await.drained);
}

#[tokio::test]
async fn a_spout_says_when_to_be_called_again() {
    struct Slow(Arc<std::sync::Mutex<Vec<Duration>>>, Option<TaskContext>);
    impl Spout for Slow {
        type MessageId = u64;
        type Outputs = Output<u64>;
        async fn open(&mut self, context: &TaskContext) -> Result<(), Fault> {
            self.1 = Some(context.clone());
            Ok(())
        }
        async fn next(&mut self, _: &mut Roots<'_, Self>) -> Result<Next, Fault> {
            let now = self.1.as_ref().map(TaskContext::now).unwrap_or_default();
            self.0.lock().unwrap().push(now);
            Ok(Next::After(Duration::from_secs(5)))
        }
    }
    let harness = Harness::new();
    let calls = Arc::<std::sync::Mutex<Vec<Duration>>>::default();
    let mut topology = TopologyBuilder::new("slow");
    let log = calls.clone();
    topology.spout("slow", move || Slow(log.clone(), None));
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    run.settle().await;
    for _ in 0..4 {
        run.advance(Duration::from_millis(2_500)).await;
    }
    assert_eq!(*calls.lock().unwrap(), [0, 5, 10].map(Duration::from_secs));
}

#[tokio::test]
async fn a_spout_whose_next_fails_is_called_again_after_a_growing_pause() {
    struct Failing(u64);
    impl Spout for Failing {
        type MessageId = u64;
        type Outputs = Output<u64>;
        async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
            self.0 += 1;
            if self.0 < 4 {
                return Err(Fault::transient("the broker is away"));
            }
            out.root(1).emit(1);
            Ok(Next::Done)
        }
    }
    let harness = Harness::new();
    let mut topology = TopologyBuilder::new("failing");
    topology.spout("failing", || Failing(0));
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    run.settle().await;
    for (pause, errors) in [(9, 1), (1, 2), (19, 2), (1, 3), (39, 3), (1, 3)] {
        run.advance(Duration::from_millis(pause)).await;
        assert_eq!(run.metrics().component("failing").unwrap().errors, errors);
    }
    let metrics = run.metrics();
    let failing = metrics.component("failing").unwrap();
    assert_eq!(failing.acked, 1);
    assert_eq!(failing.last_error.as_ref().unwrap().reason, "the broker is away");
}

/// Emits whole numbers up to a limit, as fast as it is asked.
struct Counting {
    next: u64,
    end: u64,
}

impl Spout for Counting {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        while out.room() > 0 && self.next < self.end {
            out.root(self.next).emit(self.next);
            self.next += 1;
        }
        Ok(if self.next < self.end { Next::Ready } else { Next::Done })
    }
}

/// The rows that a spout held back to fill a batch were all that was pending, and so nothing ended them.
#[tokio::test(flavor = "multi_thread")]
async fn a_spout_at_its_pending_limit_holds_nothing_back() {
    for max_pending in [65, 100, 256, 1_000] {
        let mut topology = TopologyBuilder::new("limit");
        let numbers = topology
            .spout("count", || Counting { next: 0, end: 100_000 })
            .max_pending(max_pending)
            .message_timeout(None)
            .outputs();
        topology.for_each("sink", |_: u64| {}).shuffle(numbers).parallelism(2);
        let running = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap();
        let finished = tokio::time::timeout(Duration::from_secs(120), running.finished()).await;
        assert!(finished.is_ok(), "max_pending {max_pending}: {:?}", running.metrics());
        running.stop().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_spout_that_emits_nothing_whenever_it_is_called_is_called_seldom() {
    /// Has nothing, and says so.
    struct Empty(Next, Arc<AtomicU64>);
    impl Spout for Empty {
        type MessageId = u64;
        type Outputs = Output<u64>;
        async fn next(&mut self, _: &mut Roots<'_, Self>) -> Result<Next, Fault> {
            self.1.fetch_add(1, Ordering::SeqCst);
            Ok(self.0)
        }
        async fn ready(&mut self) {}
    }
    for says in [Next::Ready, Next::Idle, Next::Ended, Next::After(Duration::ZERO)] {
        let calls = Arc::<AtomicU64>::default();
        let mut topology = TopologyBuilder::new("empty");
        let counted = calls.clone();
        let stream = topology.spout("empty", move || Empty(says, counted.clone())).outputs();
        topology.for_each("sink", |_: u64| ()).shuffle(stream);
        let running = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap();
        // Time goes on only while nobody is busy.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let called = calls.load(Ordering::SeqCst);
        assert!((100..=1_100).contains(&called), "{says:?}: called {called} times in a second");
        assert_eq!(running.metrics().component("empty").unwrap().states, [SpoutState::NoData], "{says:?}");
        assert!(running.stop().await.aborted.is_empty(), "{says:?}");
    }
}
