//! Computing bolts share time by the clock, and each other's work when they are slow.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use galerna_engine::testing::Harness;
use galerna_engine::{Engine, EngineOptions, ManualClock};
use galerna_topology::prelude::*;

/// Takes a millisecond of the topology's clock for each tuple, and counts.
struct Computing {
    clock: ManualClock,
    executed: Arc<AtomicU64>,
    ticked_at: Arc<Mutex<Vec<u64>>>,
}

impl Bolt for Computing {
    type Input = u64;
    type Outputs = Output<u64>;

    fn execute(&mut self, n: u64, out: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        self.clock.advance(Duration::from_millis(1));
        self.executed.fetch_add(1, Ordering::SeqCst);
        out.emit(n);
        Ok(())
    }

    fn tick(&mut self, _: &mut Emitter<Output<u64>>) -> Result<(), Fault> {
        self.ticked_at.lock().unwrap().push(self.executed.load(Ordering::SeqCst));
        Ok(())
    }
}

/// A source of so many roots, as fast as it may.
struct Burst(u64);

impl Spout for Burst {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        while out.room() > 0 && self.0 > 0 {
            out.root(self.0).emit(self.0);
            self.0 -= 1;
        }
        Ok(if self.0 == 0 { Next::Done } else { Next::Ready })
    }
}

#[tokio::test]
async fn ticks_come_on_time_and_neighbours_run_while_a_bolt_computes() {
    for fused in [true, false] {
        let harness = Harness::new();
        let clock = harness.clock().clone();
        let (executed, ticked_at) = (Arc::<AtomicU64>::default(), Arc::<Mutex<Vec<u64>>>::default());
        let mut topology = TopologyBuilder::new("computing");
        topology.message_timeout(None);
        let numbers = topology.spout("burst", || Burst(3_000)).outputs();
        let passed = topology.map("pass", |n: u64| n).shuffle(numbers).outputs();
        let (count, ticks, time) = (executed.clone(), ticked_at.clone(), clock.clone());
        let make =
            move || Computing { clock: time.clone(), executed: count.clone(), ticked_at: ticks.clone() };
        let computing = topology.bolt("compute", make).shuffle(passed);
        let computing = computing.tick_every(Duration::from_millis(100));
        let computed = if fused { computing } else { computing.unfused() }.outputs();
        topology.for_each("sink", |_: u64| ()).shuffle(computed);
        // A neighbour on the same thread: how much it computes at most between two of its turns.
        let (count, longest) = (executed.clone(), Arc::<AtomicU64>::default());
        let seen = longest.clone();
        let neighbour = tokio::spawn(async move {
            let mut last = 0;
            while last < 3_000 {
                let now = count.load(Ordering::SeqCst);
                seen.fetch_max(now - last, Ordering::SeqCst);
                last = now;
                tokio::task::yield_now().await;
            }
        });
        let run = harness.start(topology.build().unwrap()).await.unwrap();
        run.until("all is done", || run.metrics().component("burst").unwrap().acked == 3_000).await;
        neighbour.await.unwrap();
        let longest = longest.load(Ordering::SeqCst);
        assert!(longest <= 10, "{longest} tuples without a turn for others, fused: {fused}");
        // One tick for each hundred tuples of a millisecond.
        let ticks = ticked_at.lock().unwrap().clone();
        assert!((28..=30).contains(&ticks.len()), "{ticks:?}");
        for (n, at) in ticks.iter().enumerate() {
            let due = (n as u64 + 1) * 100;
            assert!((due..=due + 10 * (n as u64 + 1)).contains(at), "tick {n} came after {at} tuples");
        }
    }
}

/// Both of two stages are in `execute` at the same time.
#[derive(Clone, Default)]
struct Meeting(Arc<(Mutex<[bool; 2]>, Condvar)>, Arc<AtomicU64>);

impl Meeting {
    /// Says that this stage is executing, and looks for a while whether the other one is.
    fn meet(&self, stage: usize) {
        let mut inside = self.0.0.lock().unwrap();
        inside[stage] = true;
        self.0.1.notify_all();
        if self.1.load(Ordering::SeqCst) == 0 {
            let other = |inside: &mut [bool; 2]| !inside[1 - stage];
            let (after, waited) =
                self.0.1.wait_timeout_while(inside, Duration::from_millis(2), other).unwrap();
            inside = after;
            if !waited.timed_out() {
                self.1.fetch_add(1, Ordering::SeqCst);
            }
        }
        inside[stage] = false;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_stages_that_take_long_run_at_the_same_time() {
    let meeting = Meeting::default();
    let mut topology = TopologyBuilder::new("stages");
    topology.message_timeout(None);
    let numbers = topology.spout("burst", || Burst(4_000)).outputs();
    let (first, second) = (meeting.clone(), meeting.clone());
    let passed = topology
        .map("first", move |n: u64| {
            first.meet(0);
            n
        })
        .shuffle(numbers)
        .unfused()
        .outputs();
    topology.for_each("second", move |_: u64| second.meet(1)).shuffle(passed).unfused();
    let running = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(60), running.finished()).await.unwrap();
    assert!(meeting.1.load(Ordering::SeqCst) > 0, "they were never in `execute` at the same time");
}

#[tokio::test]
async fn a_slow_computing_task_gives_work_to_idle_ones() {
    /// The first task takes a second for a tuple, the others none.
    struct Uneven(ManualClock);
    impl Bolt for Uneven {
        type Input = u64;
        type Outputs = ();
        fn execute(&mut self, _: u64, out: &mut Emitter<()>) -> Result<(), Fault> {
            if out.context().task() == 0 {
                self.0.advance(Duration::from_secs(1));
            }
            Ok(())
        }
    }
    let harness = Harness::new();
    let clock = harness.clock().clone();
    let mut topology = TopologyBuilder::new("uneven");
    topology.message_timeout(None);
    let numbers = topology.spout("burst", || Burst(4_000)).outputs();
    topology.bolt("uneven", move || Uneven(clock.clone())).shuffle(numbers).parallelism(4);
    let run = harness.start(topology.build().unwrap()).await.unwrap();
    run.until("all is done", || run.metrics().component("burst").unwrap().acked == 4_000).await;
    let shares = run.metrics().component("uneven").unwrap().by_task.clone();
    assert_eq!(shares.iter().sum::<u64>(), 4_000);
    assert!(shares[0] < 500, "the slow one has as much as it can do: {shares:?}");
}
