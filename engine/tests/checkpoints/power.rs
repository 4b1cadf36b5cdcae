//! The power fails at random while a topology runs: what was acked is in state, once.
//!
//! A run comes of a seed, as far as threads allow. A seed that fails is printed; it runs alone with
//! `GALERNA_POWER_SEED=<seed> cargo test -p galerna-engine --test checkpoints power::`. `GALERNA_POWER_RUNS` says how many to try.

use std::time::Duration;

use galerna_engine::{CheckpointOptions, Engine, EngineOptions};
use galerna_state::{CheckpointStore, FolderCheckpoints, SimulatedFiles, Unsynced};

use crate::source::Source;
use crate::words::{Shape, counts_of, until, words};

/// Seeds that are tried unless the environment says otherwise.
const RUNS: u64 = 60;

async fn open(files: &SimulatedFiles) -> Option<FolderCheckpoints> {
    FolderCheckpoints::open_on(files.mount(), "checkpoints", "words").await.ok()
}

async fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (files, source) = (SimulatedFiles::new(), Source::default());
    let failures = random.usize(1..6);
    for life in 0..=failures {
        let last = life == failures;
        if !last {
            files.lose_power_after(files.operations() + random.u64(3..120));
        }
        let shape = Shape {
            spouts: random.usize(1..3),
            tasks: random.usize(3..7),
            executors: random.usize(1..4),
            waits: random.bool(),
            ..Shape::default()
        };
        let interval = Duration::from_millis(random.u64(1..8));
        let running = match open(&files).await {
            None => None,
            Some(store) => {
                let options = EngineOptions {
                    checkpoints: Some(CheckpointOptions {
                        redelivery: Duration::from_secs(600),
                        ..CheckpointOptions::new(store).every(interval)
                    }),
                    ..EngineOptions::default()
                };
                Engine::submit(words(&source, shape), options).await.ok()
            }
        };
        assert!(running.is_some() || !last, "seed {seed}: it does not start after the power failed");
        for _ in 0..random.usize(1..6) {
            for _ in 0..random.usize(1..200) {
                source.send(format!("word-{}", random.u32(0..50)));
            }
            tokio::time::sleep(Duration::from_millis(random.u64(0..6))).await;
        }
        if let (true, Some(running)) = (last, running) {
            until("all is acked", || source.is_empty()).await;
            assert!(running.drain(Duration::from_secs(30)).await.drained, "seed {seed}");
            continue;
        }
        // The process ends with the power, and the acks that were on their way with it.
        source.disconnect(random.usize(0..100), &mut random);
        files.restart(match random.u8(0..4) {
            0 => Unsynced::Lost,
            _ => Unsynced::Mixed(random.u64(..)),
        });
    }
    let store = open(&files).await.expect("opened");
    let manifest = store.latest().await.expect("read");
    assert_eq!(counts_of(&store, manifest.as_ref()).await, source.counts(), "seed {seed}");
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`, which is no number")))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_counts_once_however_often_the_power_fails() {
    let only = from_environment("GALERNA_POWER_SEED");
    let runs = from_environment("GALERNA_POWER_RUNS").unwrap_or(RUNS);
    for seed in only.map_or(0..runs, |seed| seed..seed + 1) {
        run(seed).await;
    }
}
