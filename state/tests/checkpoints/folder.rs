//! Checkpoints on the real file system.

use std::os::unix::fs::PermissionsExt;

use galerna_state::{CheckpointError, FolderCheckpoints};

use crate::Topology;

#[tokio::test]
async fn a_folder_is_of_one_process_and_one_topology() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a").join("b");
    let store = FolderCheckpoints::open(&path, "t").await.expect("opened");
    let error = FolderCheckpoints::open(&path, "t").await.expect_err("in use");
    assert!(matches!(&error, CheckpointError::InUse { place } if place.ends_with("a/b")), "{error}");
    Topology::new(1).checkpoint(&store, &mut Vec::new()).await.expect("a checkpoint");
    drop(store);
    let error = FolderCheckpoints::open(&path, "other").await.expect_err("refused");
    assert!(error.to_string().contains("topology `t`, not of `other`"), "{error}");
    FolderCheckpoints::open(&path, "t").await.expect("opened again");
}

#[tokio::test]
async fn only_the_owner_can_read_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("c");
    let store = FolderCheckpoints::open(&path, "t").await.expect("opened");
    let mut topology = Topology::new(2);
    topology.execute(1, 1);
    topology.checkpoint(&store, &mut Vec::new()).await.expect("a checkpoint");
    let mode = |path: &std::path::Path| std::fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o700);
    for entry in std::fs::read_dir(&path).expect("listed") {
        let entry = entry.expect("an entry");
        assert_eq!(mode(&entry.path()), 0o600, "{}", entry.path().display());
    }
}
