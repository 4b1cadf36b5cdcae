//! What is bounded, and what is even.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use galerna_engine::testing::Harness;
use galerna_engine::{Engine, EngineOptions};
use galerna_topology::prelude::*;

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
