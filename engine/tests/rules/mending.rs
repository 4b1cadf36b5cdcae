//! What ends a task, or an instance in it, is noticed, told and mended.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use galerna_engine::testing::Harness;
use galerna_engine::{Engine, EngineOptions};
use galerna_topology::prelude::*;

/// Panics on 13; the preparation fails so many times after that.
struct Fragile {
    prepared: Arc<AtomicU64>,
    failing: u64,
    mended: bool,
}

impl AsyncBolt for Fragile {
    type Input = u64;
    type Outputs = ();

    async fn prepare(&mut self, _: &TaskContext) -> Result<(), Fault> {
        let before = self.prepared.fetch_add(1, Ordering::SeqCst);
        if before >= 1 && before <= self.failing {
            if self.mended {
                return Err(Fault::transient("no route to the store"));
            }
            panic!("no route to the store");
        }
        Ok(())
    }

    async fn execute(&mut self, n: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
        assert!(n != 13, "thirteen");
        Ok(())
    }
}

#[tokio::test]
async fn an_async_bolt_whose_preparation_fails_after_a_panic_is_prepared_again() {
    for (failing, by_error) in [(1, true), (1, false), (4, true)] {
        let harness = Harness::new();
        let feed = harness.feed::<u64>();
        let prepared = Arc::<AtomicU64>::default();
        let mut topology = TopologyBuilder::new("fragile");
        let stream = topology.spout("feed", feed.spout()).outputs();
        let count = prepared.clone();
        let make = move || Fragile { prepared: count.clone(), failing, mended: by_error };
        topology.async_bolt("fragile", make).shuffle(stream);
        let run = harness.start(topology.build().unwrap()).await.unwrap();
        feed.emit(13, 13);
        run.settle().await;
        for _ in 0..8 {
            run.advance(Duration::from_secs(1)).await;
        }
        feed.emit(1, 1);
        run.until("it works again", || feed.acked() == [1]).await;
        let metrics = run.metrics();
        let fragile = metrics.component("fragile").unwrap();
        assert!(fragile.errors > failing, "each failure is counted: {}", fragile.errors);
        assert_eq!(prepared.load(Ordering::SeqCst), 2 + failing);
        let reason = &fragile.last_error.as_ref().unwrap().reason;
        assert!(reason.contains("no route to the store"), "{reason}");
    }
}

/// Panics once in `next`; then `open` fails so many times.
struct Unopened {
    opened: Arc<AtomicU64>,
    log: Arc<Mutex<Vec<&'static str>>>,
    open: bool,
    panicked: Arc<AtomicBool>,
}

impl Spout for Unopened {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn open(&mut self, _: &TaskContext) -> Result<(), Fault> {
        let before = self.opened.fetch_add(1, Ordering::SeqCst);
        if (1..=3).contains(&before) {
            self.log.lock().unwrap().push("refused");
            return Err(Fault::transient("no route to the broker"));
        }
        self.open = true;
        self.log.lock().unwrap().push("open");
        Ok(())
    }

    async fn activate(&mut self) {
        self.log.lock().unwrap().push("activate");
    }

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        self.log.lock().unwrap().push("next");
        assert!(self.open, "called before it was opened");
        assert!(self.panicked.swap(true, Ordering::SeqCst), "once");
        out.root(1).emit(1);
        Ok(Next::Done)
    }
}

#[tokio::test]
async fn a_spout_that_cannot_be_opened_again_is_not_called_and_is_activated_when_it_can() {
    let log = Arc::<Mutex<Vec<&'static str>>>::default();
    let harness = Harness::new();
    let mut topology = TopologyBuilder::new("unopened");
    let (opened, panicked) = (Arc::<AtomicU64>::default(), Arc::<AtomicBool>::default());
    let calls = log.clone();
    let make = move || Unopened {
        opened: opened.clone(),
        log: calls.clone(),
        open: false,
        panicked: panicked.clone(),
    };
    topology.spout("spout", make);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    run.settle().await;
    for _ in 0..8 {
        run.advance(Duration::from_secs(1)).await;
    }
    run.until("its root is acked", || run.metrics().component("spout").unwrap().acked == 1).await;
    assert_eq!(
        *log.lock().unwrap(),
        ["open", "activate", "next", "refused", "refused", "refused", "open", "activate", "next"]
    );
}

/// Fails whenever it is called, and is always ready.
struct Eager {
    calls: Arc<AtomicU64>,
    panics: bool,
}

impl Spout for Eager {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, _: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        if self.panics { Ok(Next::Idle) } else { Err(Fault::transient("the broker is away")) }
    }

    async fn ready(&mut self) {
        assert!(!self.panics, "not ready");
    }
}

#[tokio::test(start_paused = true)]
async fn the_pause_after_an_error_holds_also_for_a_spout_that_is_ready_at_once() {
    for panics in [false, true] {
        let calls = Arc::<AtomicU64>::default();
        let mut topology = TopologyBuilder::new("eager");
        let count = calls.clone();
        topology.spout("eager", move || Eager { calls: count.clone(), panics });
        let running = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap();
        tokio::time::sleep(Duration::from_secs(10)).await;
        let calls = calls.load(Ordering::SeqCst);
        // 10, 20, 40 ms and so on until one second, then each second.
        assert!((14..=20).contains(&calls), "called {calls} times in 10 s");
        let metrics = running.metrics();
        let eager = metrics.component("eager").unwrap();
        assert!(eager.errors >= calls - 1, "{} errors of {calls} calls", eager.errors);
        if panics {
            assert_eq!(eager.last_error.as_ref().unwrap().reason, "panicked: not ready");
        }
        running.stop().await;
    }
}

/// Panics when it hears of acks, and remembers of which.
struct Deaf {
    next: u64,
    told: Arc<Mutex<Vec<u64>>>,
}

impl Spout for Deaf {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        if self.next == 3 {
            return Ok(Next::Idle);
        }
        let id = self.told.lock().unwrap().len() as u64 * 100 + self.next;
        out.root(id).emit(id);
        self.next += 1;
        Ok(Next::Ready)
    }

    async fn acked(&mut self, ids: &mut Vec<u64>) {
        self.told.lock().unwrap().extend(ids.iter());
        assert!(self.told.lock().unwrap().len() > 6, "deaf");
    }
}

#[tokio::test]
async fn ids_are_told_once_also_when_the_spout_panics_at_them() {
    let told = Arc::<Mutex<Vec<u64>>>::default();
    let harness = Harness::new();
    let mut topology = TopologyBuilder::new("deaf");
    let ids = told.clone();
    topology.spout("deaf", move || Deaf { next: 0, told: ids.clone() });
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    for _ in 0..10 {
        run.settle().await;
        run.advance(Duration::from_secs(1)).await;
    }
    let told = told.lock().unwrap().clone();
    let different: std::collections::BTreeSet<u64> = told.iter().copied().collect();
    assert!(told.len() > 6 && different.len() == told.len(), "{told:?}");
}

/// Ticks at an interval, and passes on.
struct Passing;

impl Bolt for Passing {
    type Input = u64;
    type Outputs = Output<u64>;

    fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        out.emit(n);
        Ok(())
    }
}

impl AsyncBolt for Passing {
    type Input = u64;
    type Outputs = Output<u64>;

    async fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        out.emit(n);
        Ok(())
    }
}

/// Emits one root, and says to be called again in a very long time.
struct Patient(bool);

impl Spout for Patient {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        if !std::mem::replace(&mut self.0, true) {
            out.root(1).emit(1);
        }
        Ok(Next::After(Duration::MAX - Duration::from_secs(1)))
    }
}

#[tokio::test(start_paused = true)]
async fn durations_beyond_the_clock_are_never_and_end_no_task() {
    for huge in [Duration::MAX, Duration::MAX - Duration::from_secs(1), Duration::from_secs(1 << 40)] {
        for waits in [false, true] {
            let mut topology = TopologyBuilder::new("huge");
            topology.message_timeout(huge);
            let stream = topology.spout("patient", || Patient(false)).outputs();
            let passed = match waits {
                true => topology.async_bolt("pass", || Passing).shuffle(stream).tick_every(huge).outputs(),
                false => topology.bolt("pass", || Passing).shuffle(stream).tick_every(huge).outputs(),
            };
            topology.for_each("sink", |_: u64| ()).shuffle(passed);
            let options =
                EngineOptions { start_timeout: huge, close_timeout: huge, ..EngineOptions::default() };
            let running = Engine::submit(topology.build().unwrap(), options).await.unwrap();
            tokio::time::sleep(Duration::from_secs(60)).await;
            let report = running.drain(huge).await;
            let spout = report.metrics.component("patient").unwrap();
            assert_eq!((report.drained, spout.acked, spout.errors), (true, 1, 0), "{huge:?}");
        }
    }
}

#[tokio::test]
async fn the_message_of_a_panic_in_an_async_bolt_is_kept_and_a_tick_counts_no_tuple() {
    struct Panicking;
    impl AsyncBolt for Panicking {
        type Input = u64;
        type Outputs = ();
        async fn execute(&mut self, n: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
            panic!("number {n} is odd");
        }
        async fn tick(&mut self, _: &mut Emitter<()>) -> Result<(), Fault> {
            panic!("tock")
        }
    }
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let mut topology = TopologyBuilder::new("panicking");
    let stream = topology.spout("feed", feed.spout()).outputs();
    topology.async_bolt("it", || Panicking).shuffle(stream).tick_every(Duration::from_secs(1));
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    feed.emit(1, 7);
    run.settle().await;
    let failed = feed.failed();
    assert_eq!(failed[0].failure, Failure::new(FailureKind::Panic, "panicked: number 7 is odd", "it"));
    let it = run.metrics().component("it").unwrap().clone();
    assert_eq!((it.failures(), it.last_error.unwrap().reason.as_str()), (1, "panicked: number 7 is odd"));
    run.advance(Duration::from_secs(1)).await;
    run.until("it ticked", || run.metrics().component("it").unwrap().errors == 2).await;
    let it = run.metrics().component("it").unwrap().clone();
    assert_eq!((it.failures(), it.last_error.unwrap().reason.as_str()), (1, "panicked: tock"));
}

#[tokio::test]
async fn what_is_unfinished_is_what_failed() {
    /// Keeps tuples until the topology drains, and acks half of them then.
    #[derive(Default)]
    struct Half(Vec<Anchor>);
    impl Bolt for Half {
        type Input = u64;
        type Outputs = ();
        fn execute(&mut self, _: u64, out: &mut Emitter<()>) -> Result<(), Fault> {
            self.0.push(out.keep());
            Ok(())
        }
        fn close(&mut self, _: &mut Emitter<()>) {
            let left = self.0.split_off(self.0.len() / 2);
            std::mem::replace(&mut self.0, left).into_iter().for_each(Anchor::ack);
        }
    }
    let harness = Harness::new();
    let feed = harness.feed::<u64>();
    let mut topology = TopologyBuilder::new("half");
    let stream = topology.spout("feed", feed.spout()).outputs();
    topology.bolt("half", Half::default).shuffle(stream);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    (0..10).for_each(|n| feed.emit(n, n));
    run.settle().await;
    let report = run.drain(Duration::ZERO).await;
    assert!(!report.drained);
    assert_eq!((feed.acked().len(), feed.failed().len(), report.unfinished), (5, 5, 5));
}
