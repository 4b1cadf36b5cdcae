use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use galerna_state::{KeyGroups, Spill, SqliteSpill, StateError, TaskState};

use crate::{Disk, Hand};

const BUDGET: usize = 64 << 10;

fn with(spill: Option<Box<dyn Spill>>) -> TaskState {
    TaskState::new("count", 0, KeyGroups::all(), Hand::default().options(BUDGET, spill)).expect("a state")
}

fn sqlite() -> (Box<dyn Spill>, tempfile::TempDir) {
    let folder = tempfile::tempdir().expect("a folder");
    let spill = SqliteSpill::open(&folder.path().join("spill.db")).expect("the file opens");
    (Box::new(spill), folder)
}

#[test]
fn without_a_place_to_spill_to_the_budget_is_an_end() {
    let state = with(None);
    let mut count = state.value::<u64>("count").expect("a handle");
    let refused = (0..10_000_u32).find_map(|n| count.set(&n, &1).err().map(|error| (n, error)));
    let (n, error) = refused.expect("the budget ends");
    assert!(matches!(error, StateError::Budget { budget: BUDGET, spills: false, .. }));
    assert!(error.to_string().contains("place to spill to"), "{error}");
    assert_eq!(count.get(&n).expect("read"), None, "nothing was changed");
    count.set(&0_u32, &2).expect("what is there can be changed");
    count.remove(&1_u32).expect("removed");
    count.set(&n, &1).expect("and there is room again");
}

#[test]
fn keys_beyond_the_budget_go_to_disk_and_come_back() {
    let (spill, _folder) = sqlite();
    let state = with(Some(spill));
    let mut count = state.value::<u64>("count").expect("a handle");
    for n in 0..5000_u64 {
        count.set(&n, &n).expect("set");
        assert!(state.size().bytes_in_memory <= BUDGET);
    }
    assert!(state.size().groups_on_disk > 1000 && state.size().keys_in_memory < 500, "{:?}", state.size());
    for n in (0..5000).rev() {
        assert_eq!(count.get(&n).expect("read"), Some(n));
    }
    assert_eq!(count.get(&5000).expect("read"), None);
    assert_eq!(count.collect::<u64>().expect("read").len(), 5000);
    for n in 0..5000 {
        count.remove(&n).expect("removed");
    }
    assert!(count.collect::<u64>().expect("read").is_empty());
}

#[test]
fn the_keys_used_last_stay_in_memory() {
    let full = Arc::new(AtomicBool::new(false));
    let state = with(Some(Disk::that_may_be_full(&full)));
    let mut count = state.value::<u64>("count").expect("a handle");
    count.set("hot", &0).expect("set");
    for n in 0..5000_u64 {
        count.set(&n, &n).expect("set");
        count.get("hot").expect("read");
    }
    // With the disk gone, what is in memory can be read and changed.
    full.store(true, Ordering::SeqCst);
    count.set("hot", &1).expect("set");
    count.set(&4999, &1).expect("set");
    assert_eq!(count.get("hot").expect("read"), Some(1));
}

#[test]
fn a_full_disk_is_an_error_that_changes_nothing_and_passes() {
    let full = Arc::new(AtomicBool::new(true));
    let state = with(Some(Disk::that_may_be_full(&full)));
    let mut count = state.value::<u64>("count").expect("a handle");
    let (n, error) =
        (0..10_000_u32).find_map(|n| count.set(&n, &7).err().map(|error| (n, error))).expect("full");
    assert!(error.is_transient() && error.to_string().contains("disk is full"), "{error}");
    (0..n).for_each(|n| assert_eq!(count.get(&n).expect("read"), Some(7)));
    assert_eq!(count.get(&n).expect("read"), None);
    full.store(false, Ordering::SeqCst);
    (n..2 * n).for_each(|n| count.set(&n, &7).expect("there is room again"));
    (0..2 * n).for_each(|n| assert_eq!(count.get(&n).expect("read"), Some(7)));
}

#[test]
fn a_file_that_may_not_grow_is_a_full_disk() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("spill.db");
    let spill = SqliteSpill::open_within(&path, Some(256 << 10)).expect("the file opens");
    let state = with(Some(Box::new(spill)));
    let mut texts = state.value::<String>("texts").expect("a handle");
    let text = "x".repeat(1000);
    let (n, error) =
        (0..10_000_u32).find_map(|n| texts.set(&n, &text).err().map(|error| (n, error))).expect("full");
    assert!(error.is_transient(), "{error}");
    let mut read = 0;
    for n in 0..n {
        // To come into memory, a key may need room on disk for another.
        match texts.get(&n) {
            Ok(found) => {
                assert_eq!(found.as_deref(), Some(&*text), "{n}");
                read += 1;
            }
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    }
    assert!(read > 0);
}

#[test]
fn one_key_has_to_fit() {
    let (spill, _folder) = sqlite();
    let state = with(Some(spill));
    let mut list = state.list::<u64>("list").expect("a handle");
    let error = (0..10_000).find_map(|n| list.push("hot", &n).err()).expect("it does not fit");
    assert!(matches!(error, StateError::Budget { spills: true, .. }));
    assert!(error.to_string().contains("one key has to fit"), "{error}");
    assert!(list.len("hot").expect("read") > 500);
}

#[test]
fn a_spill_file_is_emptied_when_it_is_opened_and_removed_when_it_is_dropped() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("a").join("spill.db");
    let first = SqliteSpill::open(&path).expect("the file opens");
    assert!(SqliteSpill::open(&path).expect_err("in use").to_string().contains("has"));
    drop(first);
    assert_eq!(std::fs::read_dir(folder.path().join("a")).expect("listed").count(), 0);
    // What a killed process leaves behind.
    std::fs::write(&path, b"SQLite format 3\0 and garbage").expect("written");
    std::fs::write(folder.path().join("a/spill.db-lock"), b"").expect("written");
    let again = SqliteSpill::open(&path);
    assert!(again.is_ok() || again.is_err_and(|e| e.to_string().contains("spill.db")));
}
