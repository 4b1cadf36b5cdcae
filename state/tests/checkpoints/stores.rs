//! What every store must keep: each sentence is run in a folder, on a standalone MongoDB and on a replica set.

use std::num::NonZeroUsize;

use galerna_state::{
    CheckpointError, CheckpointId, CheckpointStore, FolderCheckpoints, KeyGroups, Manifest,
    MongoCheckpointOptions, MongoCheckpoints, Part,
};
use galerna_test_servers::{Mongo, unique};
use tokio::sync::OnceCell;

use crate::{Content, Topology};

async fn in_a_folder() -> (FolderCheckpoints, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    (FolderCheckpoints::open(folder.path(), "t").await.expect("opened"), folder)
}

async fn database_of(server: &Mongo) -> MongoCheckpoints {
    let options = MongoCheckpointOptions {
        database: Some(unique("state")),
        ..MongoCheckpointOptions::new(server.uri())
    };
    MongoCheckpoints::connect(options, "t").await.expect("MongoDB answers")
}

async fn on_mongo() -> (MongoCheckpoints, ()) {
    (database_of(Mongo::shared().await).await, ())
}

async fn on_a_replica_set() -> (MongoCheckpoints, ()) {
    static SHARED: OnceCell<Mongo> = OnceCell::const_new();
    (database_of(SHARED.get_or_init(Mongo::start_replica_set).await).await, ())
}

macro_rules! stores {
    ($($store:ident),*: $sentences:tt) => { $(stores!(@one $store $sentences);)* };
    (@one $store:ident { $($sentence:ident)* }) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $sentence() {
                    let (store, _kept) = super::$store().await;
                    super::$sentence(&store).await;
                }
            )*
        }
    };
}

stores!(in_a_folder, on_mongo, on_a_replica_set: {
    an_empty_store_has_no_checkpoint
    a_checkpoint_comes_back_by_any_number_of_tasks
    only_what_changed_is_written
    a_checkpoint_that_was_not_committed_is_not_there
    what_failed_between_is_in_the_next_one
    what_was_removed_before_its_group_moved_does_not_come_back
    the_newest_are_kept_and_files_that_nothing_refers_to_go
    parts_and_commits_of_other_checkpoints_are_refused
    parts_that_are_not_whole_are_refused
});

const TWO: NonZeroUsize = NonZeroUsize::new(2).expect("not 0");

async fn an_empty_store_has_no_checkpoint(store: &dyn CheckpointStore) {
    assert!(store.latest().await.expect("read").is_none());
    assert!(store.list().await.expect("listed").is_empty());
    let id = CheckpointId(3);
    assert!(matches!(store.load(id).await, Err(CheckpointError::Unknown { .. })));
    assert!(matches!(store.delete(id).await, Err(CheckpointError::Unknown { .. })));
    assert_eq!(store.collect(TWO).await.expect("collected"), Default::default());
}

async fn a_checkpoint_comes_back_by_any_number_of_tasks(store: &dyn CheckpointStore) {
    let mut topology = Topology::new(4);
    (0..300).for_each(|n| topology.execute(n % 97, n.into()));
    let id = topology.checkpoint(store, &mut Vec::new()).await.expect("a checkpoint");
    for tasks in [1, 2, 4, 7] {
        let found = Topology::recover(store, tasks).await;
        assert_eq!((&found.content, found.previous.as_ref().map(|m| m.id)), (&topology.content, Some(id)));
    }
    let manifest = store.load(id).await.expect("loaded");
    assert_eq!((manifest.topology.as_str(), manifest.taken_at), ("t", 7));
    assert_eq!(manifest.components["count"].tasks.len(), 4);
    assert_eq!(manifest.components["count"].states["count"].version, 1);
}

async fn only_what_changed_is_written(store: &dyn CheckpointStore) {
    let mut topology = Topology::new(2);
    (0..2000).for_each(|n| topology.execute(n, 1));
    topology.checkpoint(store, &mut Vec::new()).await.expect("a checkpoint");
    let all = topology.previous.as_ref().map_or(0, Manifest::bytes);
    topology.execute(5, 1);
    let id = topology.checkpoint(store, &mut Vec::new()).await.expect("a checkpoint");
    let manifest = topology.previous.as_ref().expect("committed");
    let states = manifest.components.values().flat_map(|component| component.states.values());
    let prefix = format!("{:020}-", id.0);
    let written: u64 = states
        .flat_map(|state| state.blocks.values())
        .filter(|block| block.file.starts_with(&prefix))
        .map(|block| block.length)
        .sum();
    assert!(written > 0 && written < all / 500, "{written} of {all} bytes");
    let mut found = Topology::recover(store, 3).await;
    assert_eq!(found.content, topology.content);
    // Restored by three tasks instead of two, the next one builds on it still.
    found.execute(6, 1);
    let parts: Vec<Part> = found
        .count
        .iter()
        .map(|task| task.snapshot(CheckpointId(id.0 + 1), Some(id)).expect("a snapshot"))
        .collect();
    assert!(parts.iter().all(|part| part.base == Some(id)));
    assert_eq!(parts.iter().map(|part| part.states[0].changed.len()).sum::<usize>(), 1);
    found.checkpoint(store, &mut Vec::new()).await.expect("a checkpoint");
    assert_eq!(Topology::recover(store, 1).await.content, found.content);
}

async fn a_checkpoint_that_was_not_committed_is_not_there(store: &dyn CheckpointStore) {
    let mut topology = Topology::new(1);
    topology.execute(1, 1);
    topology.checkpoint(store, &mut Vec::new()).await.expect("a checkpoint");
    let committed = topology.content.clone();
    topology.execute(1, 1);
    let id = store.begin().await.expect("begun");
    store.put(id, topology.count[0].snapshot(id, None).expect("a snapshot")).await.expect("put");
    assert_eq!(Topology::recover(store, 1).await.content, committed);
    assert_eq!(store.list().await.expect("listed").len(), 1);
}

async fn what_failed_between_is_in_the_next_one(store: &dyn CheckpointStore) {
    let mut topology = Topology::new(2);
    (0..50).for_each(|n| topology.execute(n, 1));
    topology.checkpoint(store, &mut Vec::new()).await.expect("a checkpoint");
    topology.execute(7, 1);
    // A checkpoint that gets no further than its snapshots.
    let id = store.begin().await.expect("begun");
    let base = topology.previous.as_ref().map(|previous| previous.id);
    for task in topology.count.iter().chain(&topology.join) {
        task.snapshot(id, base).expect("a snapshot");
    }
    topology.execute(8, 1);
    topology.checkpoint(store, &mut Vec::new()).await.expect("a checkpoint");
    assert_eq!(Topology::recover(store, 1).await.content, topology.content);
}

async fn what_was_removed_before_its_group_moved_does_not_come_back(store: &dyn CheckpointStore) {
    let mut topology = Topology::new(2);
    (0..50).for_each(|n| topology.execute(n, 1));
    topology.checkpoint(store, &mut Vec::new()).await.expect("a checkpoint");
    let mut topology = Topology::recover(store, 2).await;
    let shares = KeyGroups::shares(2).expect("shares");
    // The first task empties its groups; they go to the second, whose bolt has not asked for its handle yet.
    let first = topology.count.remove(0);
    let mut count = first.value::<u64>("count").expect("a handle");
    for (key, _) in count.collect::<u32>().expect("read") {
        count.remove(&key).expect("removed");
        topology.content.counts.remove(&key);
    }
    let second = crate::tasks("count", 2).remove(1);
    second.restore(store, topology.previous.as_ref().expect("restored")).await.expect("restored");
    second.import(&first.export(&shares[0]).expect("exported")).expect("imported");
    second.value::<u64>("count").expect("a handle");
    topology.count = vec![second];
    assert!(!topology.content.counts.is_empty() && topology.content.counts.len() < 50);
    let base = topology.previous.as_ref().map(|previous| previous.id);
    let part = topology.count[0].snapshot(CheckpointId(u64::MAX), base).expect("a snapshot");
    assert_eq!(part.base, base, "it builds on the checkpoint that still has them");
    topology.checkpoint(store, &mut Vec::new()).await.expect("a checkpoint");
    assert_eq!(Topology::recover(store, 1).await.content, topology.content);
}

async fn the_newest_are_kept_and_files_that_nothing_refers_to_go(store: &dyn CheckpointStore) {
    let mut topology = Topology::new(1);
    let mut attempted: Vec<(CheckpointId, Content)> = Vec::new();
    for n in 0..5 {
        topology.execute(n, 1);
        topology.checkpoint(store, &mut attempted).await.expect("a checkpoint");
    }
    // What is on its way stays.
    let id = store.begin().await.expect("begun");
    topology.execute(9, 1);
    let base = topology.previous.as_ref().map(|previous| previous.id);
    let part = store.put(id, topology.count[0].snapshot(id, base).expect("a snapshot")).await.expect("put");
    let collected = store.collect(TWO).await.expect("collected");
    let ids = |range: std::ops::Range<usize>| attempted[range].iter().map(|(id, _)| *id).collect::<Vec<_>>();
    assert_eq!(collected.checkpoints, ids(0..3));
    let block = part.states[0].changed.first().expect("a block");
    let file = part.file.as_deref().expect("a file");
    assert!(store.read(file, block.offset, block.length).await.is_ok());
    let entries = store.list().await.expect("listed");
    assert_eq!(entries.iter().map(|entry| entry.id).collect::<Vec<_>>(), ids(3..5));
    for (entry, (_, content)) in entries.iter().zip(&attempted[3..]) {
        // Most of it is in files of checkpoints that are gone.
        let manifest = entry.manifest.as_ref().expect("whole");
        let restored = Topology::restore(store, manifest, 2).await.expect("restored");
        assert_eq!(&restored.content, content);
    }
    // Once a later one is committed, what was not is collected.
    topology.checkpoint(store, &mut attempted).await.expect("a checkpoint");
    assert!(store.collect(TWO).await.expect("collected").files > 0);
    assert!(matches!(store.read(file, 0, 1).await, Err(CheckpointError::Corrupt { .. })));
    store.delete(attempted[4].0).await.expect("deleted");
    assert_eq!(store.list().await.expect("listed").len(), 1);
}

async fn parts_and_commits_of_other_checkpoints_are_refused(store: &dyn CheckpointStore) {
    let mut topology = Topology::new(1);
    topology.execute(1, 1);
    let first = store.begin().await.expect("begun");
    let second = store.begin().await.expect("begun");
    assert!(second > first);
    let part = topology.count[0].snapshot(first, None).expect("a snapshot");
    assert!(matches!(store.put(first, part.clone()).await, Err(CheckpointError::NotBegun { .. })));
    let stored = store.put(second, part).await.expect("put");
    let manifest = Manifest::assemble(second, "t", 0, None, &[stored], Default::default()).expect("whole");
    store.commit(&manifest).await.expect("committed");
    assert!(matches!(store.commit(&manifest).await, Err(CheckpointError::NotBegun { .. })));
}

async fn parts_that_are_not_whole_are_refused(store: &dyn CheckpointStore) {
    let topology = Topology::new(2);
    let id = store.begin().await.expect("begun");
    let mut parts = Vec::new();
    for task in &topology.count {
        parts.push(store.put(id, task.snapshot(id, None).expect("a snapshot")).await.expect("put"));
    }
    let refused = |id, parts: &[_]| {
        let error = Manifest::assemble(id, "t", 0, None, parts, Default::default()).expect_err("refused");
        error.to_string()
    };
    let missing = refused(id, &parts[..1]);
    assert!(missing.contains("key groups 2048-4095") && missing.contains("`count`"), "{missing}");
    assert!(refused(id, &[parts[0].clone(), parts[0].clone()]).contains("both have key groups 0-2047"));
    assert!(refused(CheckpointId(id.0 + 1), &parts).contains("is of checkpoint"));
    let mut based = parts.clone();
    based[0].base = Some(CheckpointId(99));
    assert!(refused(id, &based).contains("builds on checkpoint 99"));
    let mut all = parts.clone();
    all[1].groups = KeyGroups::all();
    assert!(refused(id, &all).contains("both have"));
}
