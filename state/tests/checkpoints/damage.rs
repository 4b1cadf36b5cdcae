//! Bytes that are not what was written.

use std::path::Path;

use galerna_state::{
    CheckpointError, CheckpointStore, FolderCheckpoints, Manifest, SimulatedFiles, StateError,
};

use crate::Topology;

/// One checkpoint of a few keys, with the names of its manifest and of one file of blocks.
async fn stored() -> (SimulatedFiles, FolderCheckpoints, Manifest, String, String) {
    let files = SimulatedFiles::new();
    let store = FolderCheckpoints::open_on(files.clone(), "/c", "t").await.expect("opened");
    let mut topology = Topology::new(1);
    (0..3).for_each(|n| topology.execute(n, 1));
    topology.checkpoint(&store, &mut Vec::new()).await.expect("a checkpoint");
    let manifest = store.latest().await.expect("read").expect("there");
    let blocks = manifest.files().iter().find(|file| file.contains("count")).expect("a file").to_string();
    (files, store, manifest, "/c/00000000000000000001.manifest".to_owned(), blocks)
}

#[tokio::test]
async fn a_manifest_with_any_byte_changed_or_cut_is_refused_by_its_name() {
    let (files, store, whole, manifest, _) = stored().await;
    let path = Path::new(&manifest);
    let bytes = galerna_state::FileSystem::read(&files, path).expect("read");
    for n in 0..bytes.len() {
        for damaged in [bytes[..n].to_vec(), {
            let mut b = bytes.clone();
            b[n] ^= 1 << (n % 8);
            b
        }] {
            files.damage(path, |held| *held = damaged).expect("damaged");
            let error = store.latest().await.expect_err("refused");
            let text = error.to_string();
            assert!(
                matches!(error, CheckpointError::Corrupt { .. } | CheckpointError::Newer { .. }),
                "{n}: {text}"
            );
            assert!(text.contains(&manifest), "{text}");
        }
    }
    files.damage(path, |held| *held = bytes).expect("repaired");
    assert_eq!(store.latest().await.expect("read"), Some(whole));
}

#[tokio::test]
async fn blocks_with_any_byte_changed_or_cut_name_state_key_group_and_file() {
    let (files, store, manifest, _, blocks) = stored().await;
    let path = format!("/c/{blocks}");
    let path = Path::new(&path);
    let bytes = galerna_state::FileSystem::read(&files, path).expect("read");
    for n in 0..bytes.len() {
        for damaged in [bytes[..n].to_vec(), {
            let mut b = bytes.clone();
            b[n] ^= 1 << (n % 8);
            b
        }] {
            files.damage(path, |held| *held = damaged).expect("damaged");
            let Err(error) = Topology::restore(&store, &manifest, 2).await else {
                panic!("byte {n} of {} is not checked", bytes.len());
            };
            let CheckpointError::State(StateError::Corrupt { state, component, file, group, .. }) = &error
            else {
                panic!("{n}: {error}");
            };
            assert_eq!((state.as_str(), component.as_str(), file), ("count", "count", &blocks));
            assert!(manifest.components["count"].states["count"].blocks.contains_key(group));
            assert!(error.to_string().contains("older checkpoint"), "{error}");
        }
    }
}

#[tokio::test]
async fn a_file_of_blocks_that_is_missing_or_anothers_is_refused() {
    let (files, store, manifest, _, blocks) = stored().await;
    let other = manifest.files().iter().find(|file| file.contains("join")).expect("a file").to_string();
    let bytes = galerna_state::FileSystem::read(&files, Path::new(&format!("/c/{other}"))).expect("read");
    files.damage(Path::new(&format!("/c/{blocks}")), |held| *held = bytes).expect("damaged");
    let error = Topology::restore(&store, &manifest, 1).await.err().expect("refused").to_string();
    assert!(error.contains(&blocks) && error.contains("key group"), "{error}");
    galerna_state::FileSystem::remove(&files, Path::new(&format!("/c/{blocks}"))).expect("removed");
    let error = Topology::restore(&store, &manifest, 1).await.err().expect("refused").to_string();
    assert!(error.contains("missing") && error.contains(&blocks), "{error}");
}

#[tokio::test]
async fn with_a_damaged_checkpoint_an_operator_can_go_on_from_the_one_before() {
    let files = SimulatedFiles::new();
    let store = FolderCheckpoints::open_on(files.clone(), "/c", "t").await.expect("opened");
    let mut topology = Topology::new(1);
    topology.execute(1, 1);
    let first = topology.checkpoint(&store, &mut Vec::new()).await.expect("a checkpoint");
    let content = topology.content.clone();
    topology.execute(2, 2);
    let second = topology.checkpoint(&store, &mut Vec::new()).await.expect("a checkpoint");
    let path = format!("/c/{:020}.manifest", second.0);
    files.damage(Path::new(&path), |held| held.truncate(30)).expect("damaged");

    drop(store);
    let store = FolderCheckpoints::open_on(files, "/c", "t").await.expect("it opens all the same");
    assert!(store.latest().await.is_err());
    let entries = store.list().await.expect("listed");
    assert!(entries[0].manifest.is_ok() && entries[1].manifest.is_err());
    let keep = std::num::NonZeroUsize::MIN;
    assert!(store.collect(keep).await.is_err(), "nothing is removed while it is not known what is used");
    store.delete(second).await.expect("deleted");
    let manifest = store.latest().await.expect("read").expect("there");
    assert_eq!(manifest.id, first);
    assert_eq!(Topology::restore(&store, &manifest, 1).await.expect("restored").content, content);
}
