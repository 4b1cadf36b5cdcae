//! What was imported.

use galerna_storage::{ImportChunk, Store};

use crate::account;

fn chunk(meter: &str, number: i64, revision: u64, data: &[u8]) -> ImportChunk {
    ImportChunk { account: account("A"), meter: meter.to_owned(), number, revision, data: data.to_vec() }
}

pub(super) async fn chunks_are_kept_by_meter_and_number(store: &Store) {
    let imports = &store.imports;
    assert!(imports.chunks(&account("A"), "m").await.unwrap().is_empty());
    let new = [chunk("m", 12, 0, b"later"), chunk("m", -1, 0, b"sooner"), chunk("m2", 12, 0, b"other")];
    assert!(imports.keep(&new).await.unwrap());
    let kept = imports.chunks(&account("A"), "m").await.unwrap();
    assert_eq!(kept, [chunk("m", -1, 1, b"sooner"), chunk("m", 12, 1, b"later")]);
    assert!(imports.chunks(&account("B"), "m").await.unwrap().is_empty());
    assert!(imports.chunks(&account("A"), "").await.unwrap().is_empty());
}

pub(super) async fn a_chunk_that_others_wrote_in_between_is_left(store: &Store) {
    let imports = &store.imports;
    assert!(imports.keep(&[chunk("m", 1, 0, b"a")]).await.unwrap());
    assert!(!imports.keep(&[chunk("m", 1, 0, b"b"), chunk("m", 2, 0, b"c")]).await.unwrap());
    assert!(imports.keep(&[chunk("m", 1, 1, b"d")]).await.unwrap());
    assert!(!imports.keep(&[chunk("m", 1, 1, b"e")]).await.unwrap());
    let kept = imports.chunks(&account("A"), "m").await.unwrap();
    assert_eq!(kept[0], chunk("m", 1, 2, b"d"));
    // Whether those beside it were kept is not said; trying again with what is there now is right.
    assert!(kept.len() <= 2);
}

pub(super) async fn no_sequence_number_is_given_twice(store: &Store) {
    let imports = &store.imports;
    assert_eq!(imports.reserve_sequence(&account("A"), 3).await.unwrap(), 1);
    assert_eq!(imports.reserve_sequence(&account("B"), 1).await.unwrap(), 1);
    let (a, b) = (account("A"), account("A"));
    let (one, two) = tokio::join!(imports.reserve_sequence(&a, 10), imports.reserve_sequence(&b, 10));
    let mut firsts = [one.unwrap(), two.unwrap()];
    firsts.sort_unstable();
    assert_eq!(firsts, [4, 14]);
}
