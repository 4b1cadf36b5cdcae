//! Random runs against a model: whatever crashes and comes again, each message counts once.

use std::time::Duration;

use crate::place::Place;
use crate::source::Source;
use crate::words::{Shape, counts, start, until};

/// Runs a topology with this seed, which crashes now and then.
async fn run(seed: u64, place: &Place) {
    let mut random = fastrand::Rng::with_seed(seed);
    let source = Source::default();
    let crashes = random.usize(2..6);
    for crash in 0..crashes {
        let shape = Shape {
            spouts: random.usize(1..4),
            tasks: random.usize(3..7),
            executors: random.usize(1..4),
            waits: random.bool(),
            fails: random.bool(),
            stable: true,
        };
        let running = start(place, &source, shape, Duration::from_millis(random.u64(1..20))).await;
        for _ in 0..random.usize(1..8) {
            for _ in 0..random.usize(1..400) {
                source.send(format!("word-{}", random.u32(0..50)));
            }
            tokio::time::sleep(Duration::from_millis(random.u64(0..8))).await;
            if random.u8(0..4) == 0 {
                running.checkpoint().await.expect("a checkpoint");
            }
        }
        if crash + 1 < crashes {
            drop(running);
            source.disconnect(random.usize(0..200), &mut random);
        } else {
            until("all is acked", || source.is_empty()).await;
            let report = running.drain(Duration::from_secs(30)).await;
            assert!(report.drained, "seed {seed}: {report:#?}");
        }
    }
    assert_eq!(counts(place).await, source.counts(), "seed {seed}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_counts_once_whatever_crashes() {
    for seed in 0..12 {
        run(seed, &Place::folder().await).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_counts_once_whatever_crashes_with_checkpoints_in_mongodb() {
    for seed in 100..108 {
        run(seed, &Place::mongo().await).await;
    }
}
