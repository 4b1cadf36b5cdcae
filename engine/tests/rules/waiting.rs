//! Bolts that wait or take long: their work goes to idle tasks, and what is done leaves at once. Time is tokio's, paused, so that
//! what has elapsed is exact.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use galerna_engine::{Engine, EngineOptions, Running};
use galerna_topology::prelude::*;
use tokio::time::Instant;

const CALL: Duration = Duration::from_millis(100);

/// Takes as long as a call elsewhere would.
struct Calling(Duration);

impl AsyncBolt for Calling {
    type Input = u64;
    type Outputs = Output<u64>;

    async fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        tokio::time::sleep(self.0).await;
        out.emit(n);
        Ok(())
    }
}

/// When each root was acked, and which failed.
type Ends = Arc<Mutex<(Vec<Duration>, Vec<Failed<u64>>)>>;

/// Emits so many roots as fast as it may.
struct Burst {
    next: u64,
    end: u64,
    start: Instant,
    ends: Ends,
}

impl Spout for Burst {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        while out.room() > 0 && self.next < self.end {
            out.root(self.next).emit(self.next);
            self.next += 1;
        }
        Ok(if self.next == self.end { Next::Done } else { Next::Ready })
    }

    async fn acked(&mut self, ids: &mut Vec<u64>) {
        let now = self.start.elapsed();
        self.ends.lock().unwrap().0.extend(ids.iter().map(|_| now));
    }

    async fn failed(&mut self, failed: &mut Vec<Failed<u64>>) {
        self.ends.lock().unwrap().1.append(failed);
    }
}

fn burst(end: u64, ends: &Ends) -> impl Fn() -> Burst + Send + Sync + 'static {
    let ends = ends.clone();
    move || Burst { next: 0, end, start: Instant::now(), ends: ends.clone() }
}

async fn submit(topology: TopologyBuilder) -> Running {
    Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap()
}

/// Runs so many calls on so many tasks with default settings. Returns how long that took, and how the roots ended.
async fn calls(roots: u64, tasks: usize, max_pending: usize) -> (Duration, Ends) {
    let ends = Ends::default();
    let mut topology = TopologyBuilder::new("calls");
    let numbers = topology.spout("burst", burst(roots, &ends)).max_pending(max_pending).outputs();
    let called = topology.async_bolt("call", || Calling(CALL)).shuffle(numbers).parallelism(tasks).outputs();
    topology.for_each("sink", |_: u64| ()).shuffle(called);
    let running = submit(topology).await;
    let start = Instant::now();
    running.finished().await;
    (start.elapsed(), ends)
}

fn count(ends: &Ends) -> (usize, usize) {
    let ends = ends.lock().unwrap();
    (ends.0.len(), ends.1.len())
}

#[tokio::test(start_paused = true)]
async fn calls_are_spread_over_all_tasks_that_are_idle() {
    for (roots, tasks, at_most) in [(64, 64, 110), (640, 64, 1_100), (160, 16, 1_100), (7, 7, 110)] {
        let (took, ends) = calls(roots, tasks, 32_768).await;
        assert_eq!(count(&ends), (roots as usize, 0));
        assert!(took <= Duration::from_millis(at_most), "{roots} on {tasks}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn no_root_that_was_executed_in_time_runs_out_of_it() {
    let (_, ends) = calls(20_000, 8, 2_000).await;
    assert_eq!(count(&ends), (20_000, 0));
}

#[tokio::test(start_paused = true)]
async fn each_tuple_of_a_batch_is_acked_and_goes_on_when_it_is_done() {
    let ends = Ends::default();
    let passed = Arc::<Mutex<Vec<Duration>>>::default();
    let mut topology = TopologyBuilder::new("one-by-one");
    topology.message_timeout(Duration::from_secs(5));
    let numbers = topology.spout("burst", burst(64, &ends)).outputs();
    let called = topology.async_bolt("call", || Calling(CALL)).shuffle(numbers).outputs();
    let (log, start) = (passed.clone(), Instant::now());
    topology.for_each("sink", move |_: u64| log.lock().unwrap().push(start.elapsed())).shuffle(called);
    let running = submit(topology).await;
    running.finished().await;
    // The message timeout is 5 s, so those called before that are acked and the others are not.
    let (acked, failed) = count(&ends);
    assert!((49..=50).contains(&acked) && acked + failed == 64, "{acked} acked, {failed} failed");
    for (at, acked) in ends.lock().unwrap().0.iter().enumerate() {
        let done = CALL * (at as u32 + 1);
        assert!(*acked >= done && *acked <= done + Duration::from_millis(5), "{at}: acked at {acked:?}");
    }
    for (at, passed) in passed.lock().unwrap().iter().take(49).enumerate() {
        let done = CALL * (at as u32 + 1);
        assert!(
            *passed >= done && *passed <= done + Duration::from_millis(5),
            "{at}: passed on at {passed:?}"
        );
    }
}

/// Answers even numbers from a cache, and waits long for odd ones.
struct Caching;

impl AsyncBolt for Caching {
    type Input = u64;
    type Outputs = Output<u64>;

    async fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        if n % 10 == 9 {
            tokio::time::sleep(Duration::from_secs(10)).await;
        }
        out.emit(n);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn what_was_done_before_a_tuple_that_takes_long_does_not_wait_for_it() {
    let ends = Ends::default();
    let mut topology = TopologyBuilder::new("cache");
    let numbers = topology.spout("burst", burst(20, &ends)).outputs();
    let cached = topology.async_bolt("cache", || Caching).shuffle(numbers).outputs();
    topology.for_each("sink", |_: u64| ()).shuffle(cached);
    let running = submit(topology).await;
    running.finished().await;
    let ends = ends.lock().unwrap();
    let seconds: Vec<u64> = ends.0.iter().map(|at| (at.as_millis() as u64 + 5) / 10_000).collect();
    let expected: Vec<u64> = (0..20).map(|n| (n + 1) / 10).collect();
    assert_eq!(seconds, expected);
}

/// Waits as long as the tuple says, in milliseconds.
struct Unequal;

impl AsyncBolt for Unequal {
    type Input = u64;
    type Outputs = ();

    async fn execute(&mut self, n: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
        // One of a hundred hangs.
        tokio::time::sleep(Duration::from_millis(if n.is_multiple_of(100) { 20_000 } else { 10 })).await;
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn tuples_do_not_queue_behind_one_that_hangs_while_other_tasks_are_idle() {
    let ends = Ends::default();
    let mut topology = TopologyBuilder::new("unequal");
    let numbers = topology.spout("burst", burst(400, &ends)).outputs();
    topology.async_bolt("unequal", || Unequal).shuffle(numbers).parallelism(8);
    let running = submit(topology).await;
    running.finished().await;
    let ends = ends.lock().unwrap();
    let late = ends.0.iter().filter(|at| **at > Duration::from_secs(2)).count();
    assert_eq!((ends.0.len(), late), (400, 4), "only the four that hang are late");
}

/// Answers at once, but for one that never does.
struct HangsOnce(u64);

impl AsyncBolt for HangsOnce {
    type Input = Number;
    type Outputs = Output<u64>;

    async fn execute(&mut self, Number(n): Number, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        if n == self.0 {
            std::future::pending::<()>().await;
        }
        out.emit(n);
        Ok(())
    }
}

/// A number, made of one on the way to a bolt.
struct Number(u64);

impl From<u64> for Number {
    fn from(n: u64) -> Self {
        Self(n)
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_hangs_after_thousands_that_were_quick_keeps_no_other_from_being_executed() {
    const ROOTS: u64 = 20_000;
    let ends = Ends::default();
    let mut topology = TopologyBuilder::new("quick");
    let numbers = topology.spout("burst", burst(ROOTS, &ends)).outputs();
    let hangs = topology.async_bolt("hangs", || HangsOnce(ROOTS / 2)).shuffle(numbers).parallelism(4);
    let passed = hangs.outputs();
    topology.for_each("sink", |_: u64| ()).shuffle(passed);
    let running = submit(topology).await;
    tokio::time::sleep(Duration::from_secs(40)).await;
    assert_eq!(count(&ends), (ROOTS as usize - 1, 1), "only the one that hangs times out");
    let metrics = running.metrics();
    let hangs = metrics.component("hangs").unwrap();
    assert_eq!((hangs.acked, hangs.queued), (ROOTS - 1, 0));
}

/// Starts something for each tuple and finishes it later, while it makes progress.
struct Starting {
    started: Arc<AtomicU64>,
    under_way: Vec<(Instant, Anchor)>,
}

impl AsyncBolt for Starting {
    type Input = u64;
    type Outputs = ();

    async fn execute(&mut self, _: u64, out: &mut Emitter<()>) -> Result<(), Fault> {
        self.started.fetch_add(1, Ordering::SeqCst);
        self.under_way.push((Instant::now() + Duration::from_millis(20), out.keep()));
        tokio::time::sleep(Duration::from_millis(1)).await;
        Ok(())
    }

    async fn progress(&mut self, _: &mut Emitter<()>) -> Result<(), Fault> {
        let Some((at, _)) = self.under_way.first() else { return std::future::pending().await };
        tokio::time::sleep_until(*at).await;
        self.under_way.remove(0).1.ack();
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn progress_is_made_while_input_comes_without_a_pause() {
    let (ends, started) = (Ends::default(), Arc::<AtomicU64>::default());
    let mut topology = TopologyBuilder::new("steady");
    let numbers = topology.spout("burst", burst(1_000, &ends)).max_pending(100).outputs();
    let count = started.clone();
    topology
        .async_bolt("start", move || Starting { started: count.clone(), under_way: Vec::new() })
        .shuffle(numbers);
    let running = submit(topology).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    let (acked, _) = self::count(&ends);
    assert!(acked >= 20, "{acked} ended of {} started", started.load(Ordering::SeqCst));
    running.finished().await;
    assert_eq!(self::count(&ends), (1_000, 0));
}

/// Says at once that it made progress, and made none.
struct Restless(Arc<AtomicU64>);

impl AsyncBolt for Restless {
    type Input = u64;
    type Outputs = ();

    async fn execute(&mut self, _: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
        Ok(())
    }

    async fn progress(&mut self, _: &mut Emitter<()>) -> Result<(), Fault> {
        self.0.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[tokio::test(start_paused = true)]
async fn progress_that_returns_at_once_keeps_nobody_from_running() {
    let (ends, calls) = (Ends::default(), Arc::<AtomicU64>::default());
    let mut topology = TopologyBuilder::new("restless");
    let numbers = topology.spout("burst", burst(100, &ends)).outputs();
    let count = calls.clone();
    topology.async_bolt("restless", move || Restless(count.clone())).shuffle(numbers);
    let running = submit(topology).await;
    running.finished().await;
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(self::count(&ends), (100, 0));
    let calls = calls.load(Ordering::SeqCst);
    assert!((1..=20_000).contains(&calls), "called {calls} times in 10 s");
}
