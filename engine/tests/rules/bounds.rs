//! What is bounded, and what is even.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use galerna_engine::testing::Harness;
use galerna_engine::{Engine, EngineOptions};
use galerna_topology::prelude::*;
use galerna_topology::{Counter, Gauge};

use crate::bolts::{Held, Holding};

/// Whole numbers, as fast as may be, with roots or without.
struct Numbers {
    next: u64,
    end: u64,
    tracked: bool,
}

impl Spout for Numbers {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        while out.room() > 0 && self.next < self.end {
            match self.tracked {
                true => out.root(self.next).emit(self.next),
                false => out.untracked().emit(self.next),
            }
            self.next += 1;
        }
        Ok(if self.next < self.end { Next::Ready } else { Next::Done })
    }
}

fn numbers(end: u64, tracked: bool) -> impl Fn() -> Numbers + Send + Sync + 'static {
    move || Numbers { next: 0, end, tracked }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shuffling_is_even_within_one_percent_over_any_ten_thousand_tuples() {
    for tasks in [2, 3, 4, 8] {
        let by_number = Arc::new((0..100_000).map(|_| AtomicUsize::new(usize::MAX)).collect::<Vec<_>>());
        struct Noting(Arc<Vec<AtomicUsize>>);
        impl Bolt for Noting {
            type Input = u64;
            type Outputs = ();
            fn execute(&mut self, n: u64, out: &mut Emitter<()>) -> Result<(), Fault> {
                self.0[n as usize].store(out.context().task(), Ordering::Relaxed);
                Ok(())
            }
        }
        let mut topology = TopologyBuilder::new("even");
        let stream = topology.spout("numbers", numbers(100_000, true)).outputs();
        let notes = by_number.clone();
        topology.bolt("note", move || Noting(notes.clone())).shuffle(stream).parallelism(tasks);
        let running = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap();
        tokio::time::timeout(Duration::from_secs(60), running.finished()).await.unwrap();
        for start in (0..90_000).step_by(777) {
            let mut shares = vec![0usize; tasks];
            by_number[start..start + 10_000]
                .iter()
                .for_each(|task| shares[task.load(Ordering::Relaxed)] += 1);
            let even = 10_000.0 / tasks as f64;
            let off = |share: &usize| (*share as f64 - even).abs() > even * 0.01;
            assert!(!shares.iter().any(off), "{tasks} tasks, from {start}: {shares:?}");
        }
    }
}

#[tokio::test]
async fn direct_to_a_task_that_does_not_exist_fails() {
    struct Router;
    impl Bolt for Router {
        type Input = u64;
        type Outputs = Output<u64>;
        fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
            out.emit_direct(n as usize, n);
            Ok(())
        }
    }
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let seen = harness.seen::<u64>();
    let mut topology = TopologyBuilder::new("direct");
    let stream = topology.spout("feed", feed.spout()).outputs();
    let routed = topology.bolt("route", || Router).shuffle(stream).outputs();
    topology.bolt("seen", seen.bolt()).direct(&routed).parallelism(3);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (0..5).for_each(|n| feed.emit(n, n));
    run.settle().await;
    let mut by_task = seen.by_task();
    by_task.sort();
    assert_eq!(by_task, [(0, 0), (1, 1), (2, 2)]);
    let failed = feed.failed();
    assert_eq!(failed.iter().map(|failed| failed.id).collect::<Vec<_>>(), [3, 4]);
    let failure = &failed[0].failure;
    assert_eq!((failure.kind, &*failure.component), (FailureKind::Error, "route"));
    assert!(failure.reason().contains("task 3") && failure.reason().contains("has 3 tasks"), "{failure}");
}

outputs! {
    struct Rounds {
        again: u64,
        done: u64,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_goes_round_untracked_is_bounded_by_the_budget() {
    /// Sends numbers round so many times, and counts those on their way.
    struct Round {
        inside: Arc<AtomicU64>,
        most: Arc<AtomicU64>,
    }
    impl Bolt for Round {
        type Input = (u64, bool);
        type Outputs = Rounds;
        fn execute(&mut self, (n, first): (u64, bool), out: &mut Emitter<Rounds>) -> Result<(), Fault> {
            if first {
                let inside = self.inside.fetch_add(1, Ordering::SeqCst) + 1;
                self.most.fetch_max(inside, Ordering::SeqCst);
                out.again.emit(200);
            } else if n > 0 {
                out.again.emit(n - 1);
            } else {
                self.inside.fetch_sub(1, Ordering::SeqCst);
                out.done.emit(n);
            }
            Ok(())
        }
    }
    const TUPLES: u64 = 100_000;
    let (inside, most, done) =
        (Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default(), Arc::<AtomicU64>::default());
    let mut topology = TopologyBuilder::new("rounds");
    let stream = topology.spout("numbers", numbers(TUPLES, false)).outputs();
    let first = topology.map("first", |n: u64| (n, true)).shuffle(stream).outputs();
    let again = Stream::<(u64, bool)>::named("again", "default").feedback();
    let (counted, greatest) = (inside.clone(), most.clone());
    let rounds = topology
        .bolt("round", move || Round { inside: counted.clone(), most: greatest.clone() })
        .shuffle(first)
        .shuffle(again)
        .unfused()
        .outputs();
    topology.map("again", |n: u64| (n, false)).shuffle(&rounds.again).unfused();
    let count = done.clone();
    topology
        .for_each("done", move |_: u64| {
            count.fetch_add(1, Ordering::SeqCst);
        })
        .shuffle(&rounds.done);
    // 64 KiB are 4,096 tuples of 16 bytes.
    let options = EngineOptions { queued_bytes: 64 << 10, ..EngineOptions::default() };
    let running = Engine::submit(topology.build().unwrap(), options).await.unwrap();
    let all = async {
        while done.load(Ordering::SeqCst) < TUPLES {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), all).await.unwrap();
    let most = most.load(Ordering::SeqCst);
    assert!(most < 20_000, "{most} tuples were going round at once");
    assert!(running.drain(Duration::from_secs(30)).await.drained);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_multiplies_as_it_goes_round_fails_beyond_the_limit() {
    /// Sends each number round twice for each time that it comes.
    #[derive(Clone)]
    struct Twice;
    impl Bolt for Twice {
        type Input = u64;
        type Outputs = Rounds;
        fn execute(&mut self, n: u64, out: &mut Emitter<Rounds>) -> Result<(), Fault> {
            out.again.emit(n);
            out.again.emit(n);
            Ok(())
        }
    }
    for tracked in [false, true] {
        let harness = Harness::new().with_options(EngineOptions {
            queued_bytes: 64 << 10,
            feedback_bytes: 256 << 10,
            ..EngineOptions::default()
        });
        let feed = harness.feed::<u64>();
        let mut topology = TopologyBuilder::new("multiplying");
        topology.message_timeout(None);
        let fed = topology.spout("feed", feed.spout()).outputs();
        let untracked = topology.spout("untracked", numbers(u64::from(!tracked), false)).outputs();
        let again = Stream::<u64>::named("again", "default").feedback();
        let rounds = topology.bolt("twice", Twice).shuffle(fed).shuffle(untracked).shuffle(again).outputs();
        topology.map("again", |n: u64| n).shuffle(&rounds.again).unfused();
        topology.for_each("done", |_: u64| ()).shuffle(&rounds.done);
        let run = harness.start(topology.build().unwrap()).await.unwrap();
        if tracked {
            feed.emit(7, 7);
            run.until("the root fails", || !feed.failed().is_empty()).await;
            let failed = feed.failed();
            assert_eq!((failed[0].id, &*failed[0].failure.component), (7, "twice"));
            let reason = failed[0].failure.reason().to_owned();
            assert!(reason.starts_with("the feedback edges hold 262144 bytes"), "{reason}");
        }
        let failures = || run.metrics().component("twice").unwrap().failed["error"];
        run.until("tuples fail", || failures() > 10_000).await;
        // What is on other edges is bounded by its own budget, and each may exceed its limit by a batch for each sender.
        let queued = run.metrics().queued_bytes;
        assert!(queued < 512 << 10, "{queued} bytes are queued");
    }
}

#[tokio::test]
async fn queues_are_bounded_in_bytes_by_what_tuples_weigh() {
    /// Holds the tuples up until the test lets it go.
    struct Gate(Arc<tokio::sync::Semaphore>, Arc<Mutex<u64>>);
    impl AsyncBolt for Gate {
        type Input = Vec<u8>;
        type Outputs = ();
        async fn execute(&mut self, _: Vec<u8>, _: &mut Emitter<()>) -> Result<(), Fault> {
            self.0.acquire().await?.forget();
            *self.1.lock().unwrap() += 1;
            Ok(())
        }
    }
    const SIZE: usize = 256 << 10;
    let (gate, passed) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::<Mutex<u64>>::default());
    let options = EngineOptions { queued_bytes: 16 << 20, ..EngineOptions::default() };
    let harness = Harness::new().with_options(options);
    let mut topology = TopologyBuilder::new("bytes");
    topology.message_timeout(None);
    let stream = topology.spout("numbers", numbers(2_000, true)).outputs();
    let large = topology.map("large", |_: u64| vec![0u8; SIZE]).shuffle(stream).outputs();
    let (permits, count) = (gate.clone(), passed.clone());
    topology
        .async_bolt("gate", move || Gate(permits.clone(), count.clone()))
        .shuffle(large.weigh(|bytes: &Vec<u8>| bytes.len()));
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let queued = run.metrics().queued_bytes;
    assert!(queued > 0 && queued <= 20 << 20, "{queued} bytes are queued");
    gate.add_permits(2_000);
    run.until("all passed", || *passed.lock().unwrap() == 2_000).await;
    run.until("nothing is queued", || run.metrics().queued_bytes == 0).await;
}

#[tokio::test]
async fn tuples_that_weigh_more_than_can_be_counted_go_on_one_after_the_other() {
    for weight in [usize::MAX, usize::MAX / 3, 0] {
        let harness = Harness::new();
        let seen = harness.seen::<u64>();
        let mut topology = TopologyBuilder::new("heavy");
        let stream = topology.spout("numbers", numbers(300, true)).outputs();
        let passed = topology.map("pass", |n: u64| n).shuffle(stream.weigh(move |_| weight)).parallelism(2);
        let passed = passed.outputs().weigh(move |_| weight);
        topology.bolt("seen", seen.bolt()).shuffle(passed);
        let run = harness.start(topology.build().unwrap()).await.unwrap();
        run.until("all have passed", || seen.values().len() == 300).await;
        run.until("nothing is queued", || run.metrics().queued_bytes == 0).await;
        assert!(run.metrics().components.iter().all(|component| component.errors == 0));
    }
}

#[tokio::test]
async fn a_bolt_knows_where_a_tuple_came_from() {
    type Origins = Arc<Mutex<Vec<(u64, usize, String, String, usize)>>>;
    struct Noting(Origins);
    impl Bolt for Noting {
        type Input = u64;
        type Outputs = ();
        fn execute(&mut self, n: u64, out: &mut Emitter<()>) -> Result<(), Fault> {
            let origin = out.origin().ok_or(Fault::transient("from nowhere"))?;
            let (component, stream) = (origin.component().to_owned(), origin.stream().to_owned());
            self.0.lock().unwrap().push((n, origin.input(), component, stream, origin.task()));
            Ok(())
        }
        fn tick(&mut self, out: &mut Emitter<()>) -> Result<(), Fault> {
            assert!(out.origin().is_none(), "a tick comes from nowhere");
            Ok(())
        }
    }
    for fuse in [true, false] {
        let origins = Origins::default();
        let harness = Harness::new().with_options(EngineOptions { fuse, ..EngineOptions::default() });
        let feed = harness.feed::<u64>();
        let mut topology = TopologyBuilder::new("origins");
        let stream = topology.spout("feed", feed.spout()).outputs();
        struct Task;
        impl Bolt for Task {
            type Input = u64;
            type Outputs = Output<u64>;
            fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
                let task = out.context().task() as u64;
                out.emit(n + 100 * (task + 1));
                Ok(())
            }
        }
        let tasks = topology.bolt("tasks", || Task).fields(&stream, |n| n).parallelism(3).outputs();
        let notes = origins.clone();
        topology
            .bolt("note", move || Noting(notes.clone()))
            .global(&stream)
            .shuffle(&tasks)
            .tick_every(Duration::from_secs(1));
        let run = harness.start(topology.build().unwrap()).await.unwrap();
        (0..20).for_each(|n| feed.emit(n, n));
        run.settle().await;
        run.advance(Duration::from_secs(1)).await;
        let origins = origins.lock().unwrap().clone();
        assert_eq!((origins.len(), feed.acked().len()), (40, 20));
        for (n, input, component, stream, task) in origins {
            let expected = match n / 100 {
                0 => (0, "feed", 0),
                task => (1, "tasks", task as usize - 1),
            };
            assert_eq!((input, &*component, task), expected, "{n}");
            assert_eq!(stream, "default");
        }
    }
}

#[tokio::test]
async fn a_component_has_metrics_of_its_own() {
    struct Counting(Option<(Counter, Gauge)>);
    impl Bolt for Counting {
        type Input = u64;
        type Outputs = ();
        fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
            self.0 = Some((context.counter("odd"), context.gauge("last")));
            Ok(())
        }
        fn execute(&mut self, n: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
            let (odd, last) = self.0.as_ref().ok_or(Fault::transient("not prepared"))?;
            odd.add(n % 2);
            last.set(n as f64);
            Ok(())
        }
    }
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let mut topology = TopologyBuilder::new("own");
    let stream = topology.spout("feed", feed.spout()).outputs();
    topology.bolt("count", || Counting(None)).fields(stream, |n| n).parallelism(2);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (0..100).for_each(|n| feed.emit(n, n));
    run.settle().await;
    let metrics = run.metrics();
    let count = metrics.component("count").unwrap();
    assert_eq!(count.counters["odd"], 50);
    assert_eq!(count.gauges["last"].len(), 2, "one for each task");
    assert!(count.gauges["last"].values().any(|last| *last == 99.0));
}

#[tokio::test]
async fn after_a_peak_each_ack_still_reaches_its_own_root() {
    const ROOTS: u64 = 5_000;
    let (harness, held) = (Harness::new(), Held::default());
    let feed = harness.feed::<u64>();
    let mut topology = TopologyBuilder::new("peak");
    topology.message_timeout(None);
    let stream = topology.spout("feed", feed.spout()).outputs();
    let hands = held.clone();
    topology.bolt("hold", move || Holding(hands.clone())).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (0..ROOTS).for_each(|n| feed.emit(n, n));
    run.settle().await;
    // Few are left, all over the slots; then the ledger becomes smaller.
    let (left, done): (Vec<_>, Vec<_>) = held.lock().unwrap().drain(..).partition(|(n, _)| n % 500 == 7);
    done.into_iter().for_each(|(_, anchor)| anchor.ack());
    run.settle().await;
    for _ in 0..3 {
        run.advance(Duration::from_secs(10)).await;
    }
    let before = feed.acked().len();
    assert_eq!(before, 4_990);
    (ROOTS..ROOTS + 20).for_each(|n| feed.emit(n, n));
    run.settle().await;
    for (n, anchor) in left.into_iter().chain(held.lock().unwrap().drain(..)) {
        if n % 2 == 0 { anchor.ack() } else { anchor.fail(Fault::transient("odd")) }
    }
    run.settle().await;
    let mut failed: Vec<u64> = feed.failed().iter().map(|failed| failed.id).collect();
    let mut acked = feed.acked().split_off(before);
    acked.sort_unstable();
    failed.sort_unstable();
    let ended = (0..ROOTS).filter(|n| n % 500 == 7).chain(ROOTS..ROOTS + 20);
    let (even, odd): (Vec<u64>, Vec<u64>) = ended.partition(|n| n % 2 == 0);
    assert_eq!((acked, failed), (even, odd));
}
