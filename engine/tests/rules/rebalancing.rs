//! Executors are changed while a topology runs.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use galerna_engine::{Engine, EngineOptions, RebalanceError};
use galerna_topology::prelude::*;

const KEYS: u64 = 64;
const TASKS: usize = 8;

/// Numbers in order, as fast as they are taken, until it is told to end.
struct Numbers {
    next: u64,
    until: Arc<AtomicU64>,
}

impl Spout for Numbers {
    type MessageId = u64;
    type Outputs = Output<u64>;

    async fn next(&mut self, out: &mut Roots<'_, Self>) -> Result<Next, Fault> {
        if self.next >= self.until.load(Ordering::Relaxed) {
            return Ok(Next::Done);
        }
        out.root(self.next).emit(self.next);
        self.next += 1;
        Ok(Next::Ready)
    }
}

/// What all tasks saw.
#[derive(Default)]
struct Seen {
    executed: AtomicU64,
    out_of_order: AtomicU64,
    at_once: AtomicUsize,
    most_at_once: AtomicUsize,
}

/// Counts by key, and looks whether each key comes in order to one task.
struct Count {
    last: HashMap<u64, u64>,
    seen: Arc<Seen>,
}

impl Bolt for Count {
    type Input = u64;
    type Outputs = ();

    fn execute(&mut self, n: u64, _: &mut Emitter<()>) -> Result<(), Fault> {
        let at_once = self.seen.at_once.fetch_add(1, Ordering::SeqCst) + 1;
        self.seen.most_at_once.fetch_max(at_once, Ordering::SeqCst);
        // Each key's numbers are KEYS apart: one that is missing or comes from another task's share shows.
        let expected = self.last.get(&(n % KEYS)).map_or(n % KEYS, |last| last + KEYS);
        if n != expected {
            self.seen.out_of_order.fetch_add(1, Ordering::Relaxed);
        }
        self.last.insert(n % KEYS, n);
        self.seen.executed.fetch_add(1, Ordering::Relaxed);
        self.seen.at_once.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

fn topology(until: &Arc<AtomicU64>, seen: &Arc<Seen>) -> Topology {
    let mut topology = TopologyBuilder::new("counts");
    let numbers = {
        let until = until.clone();
        topology
            .spout("numbers", move || Numbers { next: 0, until: until.clone() })
            .max_pending(20_000)
            .outputs()
    };
    let seen = seen.clone();
    topology
        .bolt("count", move || Count { last: HashMap::new(), seen: seen.clone() })
        .key_by(numbers, |n| n % KEYS)
        .parallelism(1)
        .tasks(TASKS);
    topology.build().unwrap()
}

/// Waits until so many more were executed.
async fn executed(seen: &Seen, more: u64) {
    let from = seen.executed.load(Ordering::Relaxed);
    while seen.executed.load(Ordering::Relaxed) < from + more {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn executors_go_from_one_to_four_to_two_under_load_and_nothing_is_lost_doubled_or_out_of_order() {
    let (until, seen) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::<Seen>::default());
    let running = Engine::submit(topology(&until, &seen), EngineOptions::default()).await.unwrap();
    let handle = running.handle();
    executed(&seen, 20_000).await;
    assert_eq!(seen.most_at_once.load(Ordering::SeqCst), 1, "one executor executes one task at a time");
    for (from, to) in [(1, 4), (4, 2), (2, 2), (2, TASKS), (TASKS, 3)] {
        let done = handle.rebalance("count", to).await.unwrap();
        assert_eq!((done.from, done.to, &*done.component), (from, to, "count"));
        let metrics = running.metrics();
        let count = metrics.component("count").unwrap();
        assert_eq!((count.executors, count.tasks), (to, TASKS));
        executed(&seen, 20_000).await;
        println!("{from} to {to} executors: pause {:?}", done.pause);
    }
    until.store(0, Ordering::Relaxed);
    running.finished().await;
    let report = running.drain(Duration::from_secs(60)).await;
    let (numbers, count) =
        (report.metrics.component("numbers").unwrap(), report.metrics.component("count").unwrap());
    assert_eq!((numbers.acked, numbers.failures()), (numbers.emitted, 0));
    assert_eq!(count.executed, numbers.emitted);
    assert_eq!(count.by_task.iter().filter(|tuples| **tuples > 0).count(), TASKS);
    assert_eq!(seen.out_of_order.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_more_tasks_execute_at_once_than_there_are_executors() {
    let (until, seen) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::<Seen>::default());
    let running = Engine::submit(topology(&until, &seen), EngineOptions::default()).await.unwrap();
    let handle = running.handle();
    for executors in [4, 1, 2] {
        handle.rebalance("count", executors).await.unwrap();
        seen.most_at_once.store(0, Ordering::SeqCst);
        executed(&seen, 20_000).await;
        let most = seen.most_at_once.load(Ordering::SeqCst);
        assert!(most <= executors, "{most} at once with {executors} executors");
    }
    running.stop().await;
}

#[tokio::test]
async fn executors_that_cannot_be_are_refused_and_nothing_changes() {
    let mut topology = TopologyBuilder::new("mixed");
    let until = Arc::new(AtomicU64::new(10));
    let numbers = topology.spout("numbers", move || Numbers { next: 0, until: until.clone() }).outputs();
    let twice = topology.map("twice", |n: u64| n * 2).shuffle(&numbers).parallelism(2).tasks(4).outputs();
    let thrice =
        topology.map("thrice", |n: u64| n * 3).local_or_shuffle(twice).parallelism(2).tasks(4).outputs();
    topology.for_each("pinned", |_: u64| ()).shuffle(&thrice).pinned().tasks(2);
    topology.map_async("wait", 2, |n: u64| async move { Ok::<_, Fault>(n) }).shuffle(thrice).tasks(2);
    let running = Engine::submit(topology.build().unwrap(), EngineOptions::default()).await.unwrap();
    let handle = running.handle();
    for (component, executors, told) in [
        ("nobody", 1, "the topology has no component `nobody`"),
        ("twice", 0, "`twice` cannot have 0 executors; deactivate the topology to have it pause"),
        ("twice", 5, "`twice` has 4 tasks and cannot have 5 executors; declare it with more `tasks`"),
        ("numbers", 1, "the executors of `numbers` are fixed: each task of a spout has one of its own"),
        ("pinned", 1, "the executors of `pinned` are fixed: each has a core of its own"),
        (
            "wait",
            1,
            "the executors of `wait` are fixed: a bolt that waits does so with all of its tasks side by side",
        ),
    ] {
        let refused: RebalanceError = handle.rebalance(component, executors).await.unwrap_err();
        assert_eq!(refused.to_string(), told);
    }
    assert_eq!(running.metrics().component("twice").unwrap().executors, 2);
    // What is fused has the same executors, whichever is named.
    let done = handle.rebalance("thrice", 4).await.unwrap();
    assert_eq!(done.fused, ["twice".into()]);
    assert_eq!(running.metrics().component("twice").unwrap().executors, 4);
    running.stop().await;
}
