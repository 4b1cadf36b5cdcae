//! The power fails at random, again and again, while a topology runs, is restored by other numbers of tasks, and goes on: nothing that was
//! committed is lost. What was written since the last sync is lost, kept or torn, and renames of folders that were not synced are undone or not.
//!
//! All of a run comes of its seed. A seed that fails is printed; it runs alone with
//! `GALERNA_POWER_SEED=<seed> cargo test -p galerna-state --test checkpoints power::`. `GALERNA_POWER_RUNS` says how many to try.

use std::io;
use std::num::NonZeroUsize;

use galerna_state::{CheckpointStore, FolderCheckpoints, SimulatedFiles, Unsynced};

use crate::Topology;
use crate::crash::{Story, check_all, check_restart};

/// Seeds that are tried unless the environment says otherwise.
const RUNS: u64 = 300;

/// From one start of a process to the next: it restores the last checkpoint, which is what it was, works, and takes checkpoints.
async fn live(files: &SimulatedFiles, random: &mut fastrand::Rng, story: &mut Story, when: &str) {
    let Ok(store) = FolderCheckpoints::open_on(files.mount(), "/checkpoints", "t").await else { return };
    let Ok(latest) = store.latest().await else { return };
    // What is seen is built upon, whether its commit had returned or not.
    story.committed = story.committed.max(latest.as_ref().map(|manifest| manifest.id));
    let parallelism = random.usize(1..5);
    let mut topology = match latest {
        None => Topology::new(parallelism),
        Some(manifest) => match Topology::restore(&store, &manifest, parallelism).await {
            Ok(restored) => {
                let held = story.attempted.iter().rev().find(|(id, _)| *id == manifest.id);
                assert_eq!(Some(&restored.content), held.map(|(_, held)| held), "{when}");
                restored
            }
            Err(_) => return,
        },
    };
    let keep = NonZeroUsize::MIN.saturating_add(random.usize(0..3));
    for _ in 0..random.usize(1..7) {
        for _ in 0..random.usize(0..12) {
            topology.execute(random.u32(0..40) * 100, random.u64(0..1_000));
        }
        if let Ok(id) = topology.checkpoint(&store, &mut story.attempted).await {
            story.committed = Some(id);
        }
        drop(store.collect(keep).await);
    }
}

async fn run(seed: u64) {
    let mut random = fastrand::Rng::with_seed(seed);
    let (files, mut story) = (SimulatedFiles::new(), Story::default());
    for life in 0..random.usize(1..6) {
        let when = format!("seed {seed}, life {life}");
        files.lose_power_after(files.operations() + random.u64(0..90));
        if random.u8(0..3) == 0 {
            let kind = if random.bool() { io::ErrorKind::StorageFull } else { io::ErrorKind::Other };
            files.fail(files.operations() + random.u64(1..60), kind);
        }
        live(&files, &mut random, &mut story, &when).await;
        files.restart(match random.u8(0..6) {
            0 => Unsynced::Lost,
            1 => Unsynced::Kept,
            _ => Unsynced::Mixed(random.u64(..)),
        });
        let store = FolderCheckpoints::open_on(files.mount(), "/checkpoints", "t").await;
        check_all(&store.unwrap_or_else(|error| panic!("{when}: {error}")), &story, &when).await;
    }
    check_restart(&files, &mut story, &format!("seed {seed}, in the end")).await;
}

fn from_environment(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is `{text}`, which is no number")))
}

#[tokio::test]
async fn nothing_that_was_committed_is_lost_however_often_the_power_fails() {
    let only = from_environment("GALERNA_POWER_SEED");
    let runs = from_environment("GALERNA_POWER_RUNS").unwrap_or(RUNS);
    for seed in only.map_or(0..runs, |seed| seed..seed + 1) {
        run(seed).await;
    }
}
