//! The power fails after each single operation on the file system, and what was not synced is lost, kept, or a mixture.

use std::io;
use std::num::NonZeroUsize;

use galerna_state::{CheckpointId, CheckpointStore, FolderCheckpoints, SimulatedFiles, Unsynced};

use crate::{Content, Topology};

const KEEP: NonZeroUsize = NonZeroUsize::new(2).expect("not 0");

/// What happened before the power failed.
#[derive(Default)]
pub(crate) struct Story {
    /// Every checkpoint whose commit began, with what it holds.
    pub(crate) attempted: Vec<(CheckpointId, Content)>,
    /// The last one whose commit returned.
    pub(crate) committed: Option<CheckpointId>,
    /// How many commits returned.
    commits: usize,
}

async fn open(files: &SimulatedFiles) -> Result<FolderCheckpoints, galerna_state::CheckpointError> {
    FolderCheckpoints::open_on(files.clone(), "/checkpoints", "t").await
}

/// Four checkpoints, the old ones collected; ends at the first error.
async fn run(files: &SimulatedFiles, story: &mut Story) -> Result<(), galerna_state::CheckpointError> {
    let store = open(files).await?;
    let mut topology = Topology::new(2);
    for round in 0..4_u32 {
        // Some keys change in each round, most stay where older files have them.
        (0..6).for_each(|n| topology.execute(n * 100 + round / 2, u64::from(round * 10 + n)));
        let id = topology.checkpoint(&store, &mut story.attempted).await?;
        story.committed = Some(id);
        story.commits += 1;
        store.collect(KEEP).await?;
    }
    Ok(())
}

/// Everything that is still listed can be restored, and holds what it held.
pub(crate) async fn check_all(store: &FolderCheckpoints, story: &Story, when: &str) {
    let entries = store.list().await.expect("listed");
    for entry in &entries {
        let manifest = entry.manifest.as_ref().unwrap_or_else(|error| panic!("{when}: {error}"));
        let restored = Topology::restore(store, manifest, 3).await;
        let restored = restored.unwrap_or_else(|error| panic!("{when}, checkpoint {}: {error}", entry.id));
        // A number that was lost with its checkpoint is given again.
        let held = story.attempted.iter().rev().find(|(id, _)| *id == entry.id);
        let (_, held) = held.unwrap_or_else(|| panic!("{when}: checkpoint {} was never attempted", entry.id));
        assert_eq!(&restored.content, held, "{when}, checkpoint {}", entry.id);
    }
    let newest = entries.last().map(|entry| entry.id);
    assert!(newest >= story.committed, "{when}: {newest:?} is left of {:?}", story.committed);
    let last_attempt = story.attempted.last().map(|(id, _)| *id);
    assert!(newest <= last_attempt, "{when}");
}

/// After a restart: what was committed is there, and work goes on, on the same folder.
pub(crate) async fn check_restart(files: &SimulatedFiles, story: &mut Story, when: &str) {
    let store = open(files).await.unwrap_or_else(|error| panic!("{when}: {error}"));
    check_all(&store, story, when).await;
    let mut topology = Topology::recover(&store, 1).await;
    topology.execute(100, 5);
    topology.execute(7777, 6);
    let id = topology.checkpoint(&store, &mut story.attempted).await.expect("a checkpoint after the restart");
    story.committed = Some(id);
    store.collect(KEEP).await.expect("collected");
    check_all(&store, story, when).await;
    let entries = store.list().await.expect("listed");
    let used: usize = {
        let manifests = entries.iter().filter_map(|entry| entry.manifest.as_ref().ok());
        let files: std::collections::BTreeSet<_> = manifests.flat_map(|manifest| manifest.files()).collect();
        files.len() + entries.len()
    };
    let names = galerna_state::FileSystem::list(files, std::path::Path::new("/checkpoints")).expect("listed");
    assert_eq!(names.len(), used, "{when}: files that nothing refers to are left: {names:?}");
}

async fn operations_of_a_run() -> u64 {
    let files = SimulatedFiles::new();
    let mut story = Story::default();
    run(&files, &mut story).await.expect("nothing fails");
    assert_eq!(story.commits, 4);
    files.operations()
}

#[tokio::test]
async fn whenever_the_power_fails_the_last_committed_checkpoint_is_there() {
    let operations = operations_of_a_run().await;
    assert!(operations > 40, "{operations}");
    let outcomes = [Unsynced::Lost, Unsynced::Kept].into_iter().chain((1..=4).map(Unsynced::Mixed));
    for unsynced in outcomes {
        for last in 0..=operations {
            let when = format!("the power failed after operation {last}, unsynced: {unsynced:?}");
            let files = SimulatedFiles::new();
            files.lose_power_after(last);
            let mut story = Story::default();
            let ran = run(&files, &mut story).await;
            assert!(ran.is_err() || last == operations, "{when}");
            files.restart(match unsynced {
                Unsynced::Mixed(seed) => Unsynced::Mixed(seed * 1000 + last),
                other => other,
            });
            check_restart(&files, &mut story, &when).await;
        }
    }
}

#[tokio::test]
async fn the_power_may_fail_again_while_a_crashed_run_is_recovered() {
    let operations = operations_of_a_run().await;
    for last in (0..operations).step_by(3) {
        for second in 1..14 {
            let when = format!("the power failed after operation {last}, and {second} later again");
            let files = SimulatedFiles::new();
            files.lose_power_after(last);
            let mut story = Story::default();
            drop(run(&files, &mut story).await);
            files.restart(Unsynced::Mixed(last + 1));
            files.lose_power_after(files.operations() + second);
            if let Ok(store) = open(&files).await
                && let Ok(latest) = store.latest().await
            {
                // What was seen after the restart was built upon: from now on it counts as committed.
                story.committed = story.committed.max(latest.as_ref().map(|manifest| manifest.id));
                let mut topology = Topology::recover(&store, 2).await;
                topology.execute(1, 1);
                if let Ok(id) = topology.checkpoint(&store, &mut story.attempted).await {
                    story.committed = Some(id);
                    drop(store.collect(KEEP).await);
                }
            }
            files.restart(Unsynced::Lost);
            check_restart(&files, &mut story, &when).await;
        }
    }
}

#[tokio::test]
async fn what_a_process_saw_after_another_was_killed_survives_the_power_too() {
    for last in 1..operations_of_a_run().await {
        let when = format!("the process failed at operation {last}");
        let files = SimulatedFiles::new();
        files.fail(last, io::ErrorKind::Other);
        let mut story = Story::default();
        drop(run(&files, &mut story).await);
        // The next process sees what is written, synced or not, and acts on it.
        let store = open(&files).await.expect("opened");
        let seen = store.latest().await.expect("read").map(|manifest| manifest.id);
        drop(store);
        files.restart(Unsynced::Lost);
        story.committed = story.committed.max(seen);
        check_restart(&files, &mut story, &when).await;
    }
}

#[tokio::test]
async fn whatever_operation_fails_the_next_checkpoint_succeeds_and_is_whole() {
    let operations = operations_of_a_run().await;
    for kind in [io::ErrorKind::StorageFull, io::ErrorKind::Other] {
        for failing in 1..=operations {
            let when = format!("operation {failing} failed with {kind:?}");
            let files = SimulatedFiles::new();
            let mut story = Story::default();
            files.fail(failing, kind);
            let store = match open(&files).await {
                Ok(store) => store,
                Err(_) => open(&files).await.expect("opened at the second attempt"),
            };
            let mut topology = Topology::new(2);
            let mut failures = 0;
            for round in 0..4_u32 {
                (0..6).for_each(|n| topology.execute(n * 100 + round / 2, u64::from(round * 10 + n)));
                match topology.checkpoint(&store, &mut story.attempted).await {
                    Ok(id) => story.committed = Some(id),
                    Err(error) => {
                        failures += 1;
                        assert_eq!(
                            error.is_transient(),
                            kind == io::ErrorKind::StorageFull,
                            "{when}: {error}"
                        );
                    }
                }
                failures += usize::from(store.collect(KEEP).await.is_err());
            }
            assert!(failures <= 1, "{when}: {failures} failures");
            drop(store);
            files.restart(Unsynced::Lost);
            check_restart(&files, &mut story, &when).await;
        }
    }
}

#[tokio::test]
async fn a_disk_that_fills_up_keeps_what_was_committed_and_takes_more_when_it_has_room() {
    let files = SimulatedFiles::new();
    run(&files, &mut Story::default()).await.expect("nothing fails");
    let all = files.bytes();
    for room in (0..all).step_by(97) {
        let when = format!("with room for {room} of {all} bytes");
        let files = SimulatedFiles::new();
        files.limit(Some(room));
        let mut story = Story::default();
        if let Err(error) = run(&files, &mut story).await {
            assert!(error.to_string().contains("disk is full"), "{when}: {error}");
            assert!(error.to_string().contains("free some space"), "{when}: {error}");
        }
        files.limit(None);
        files.restart(Unsynced::Lost);
        check_restart(&files, &mut story, &when).await;
    }
}
