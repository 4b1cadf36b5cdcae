use galerna_state::{CheckpointId, KeyGroups, StateError, StateSpec, TaskState};
use serde::{Deserialize, Serialize};

use crate::{alone, task};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Total {
    wh: u64,
    readings: u64,
}

/// State as another program left it, in a task of this one that has declared nothing.
fn left_by(write: impl FnOnce(&TaskState)) -> TaskState {
    let (old, new) = (alone(), task(0, KeyGroups::none()));
    write(&old);
    new.import(&old.export(&KeyGroups::all()).expect("exported")).expect("imported");
    new
}

fn version_1() -> TaskState {
    left_by(|old| {
        let mut total = old.value::<u64>("total").expect("a handle");
        (0..100_u32).for_each(|n| total.set(&n, &u64::from(n)).expect("set"));
    })
}

fn spec() -> StateSpec {
    StateSpec::new("total")
        .version(3)
        .migrate(1, |wh: u64| Ok((wh, 1_u64)))
        .migrate(2, |(wh, readings): (u64, u64)| Ok(Total { wh, readings }))
}

#[test]
fn a_chain_of_migrations_is_gone_through() {
    let state = version_1();
    let total = state.value::<Total>(spec()).expect("migrated");
    for n in 0..100_u32 {
        assert_eq!(total.get(&n).expect("read"), Some(Total { wh: n.into(), readings: 1 }));
    }
    // And all of it is written anew.
    let part = state.snapshot(CheckpointId(1), None).expect("a snapshot");
    assert_eq!((part.states[0].version, part.states.len()), (3, 1));
    assert!(part.states[0].changed.len() > 90);
}

#[test]
fn values_of_maps_and_items_of_lists_are_migrated() {
    let state = left_by(|old| {
        old.map::<u8, u8>("map").expect("a handle").insert("k", &1, &7).expect("inserted");
        old.list::<u8>("list").expect("a handle").push("k", &7).expect("pushed");
    });
    let twice = |name: &str| StateSpec::new(name).version(2).migrate(1, |n: u8| Ok(u32::from(n) * 1000));
    assert_eq!(
        state.map::<u8, u32>(twice("map")).expect("migrated").entries("k").expect("read"),
        [(1, 7000)]
    );
    assert_eq!(state.list::<u32>(twice("list")).expect("migrated").get("k").expect("read"), [7000]);
}

#[test]
fn what_is_newer_is_refused_with_what_to_do() {
    let state = left_by(|old| {
        old.value::<u8>(StateSpec::new("total").version(9)).expect("a handle").set("a", &1).expect("set");
    });
    let error = state.value::<Total>(spec()).expect_err("refused");
    assert!(matches!(error, StateError::Newer { found: 9, known: 3, .. }));
    assert!(error.to_string().contains("newer program"), "{error}");
    assert_eq!(state.undeclared()[0].version, 9, "and it is still there");
}

#[test]
fn a_gap_in_the_chain_is_named() {
    let state = version_1();
    let gap = StateSpec::new("total").version(3).migrate(1, |n: u64| Ok(n));
    let error = state.value::<u64>(gap).expect_err("refused");
    assert!(matches!(error, StateError::NoMigration { found: 1, known: 3, missing: 2, .. }));
    assert!(error.to_string().contains(".migrate(2, …)"), "{error}");
    let none = StateSpec::new("total").version(2);
    let error = state.value::<u64>(none).expect_err("refused");
    assert!(matches!(error, StateError::NoMigration { missing: 1, .. }), "{error}");
}

#[test]
fn a_migration_that_fails_leaves_all_as_it_was() {
    let state = version_1();
    let fails = StateSpec::new("total")
        .version(2)
        .migrate(1, |n: u64| if n < 50 { Ok(n) } else { Err(format!("{n} is too large")) });
    let error = state.value::<u64>(fails).expect_err("refused");
    assert!(matches!(error, StateError::Migration { from: 1, .. }));
    let text = error.to_string();
    assert!(text.contains("is too large") && text.contains("key group"), "{text}");
    assert_eq!((state.size().keys_in_memory, state.undeclared().len()), (0, 1));
    let total = state.value::<u64>("total").expect("the old version still can");
    assert_eq!(total.collect::<u32>().expect("read").len(), 100);
}

#[test]
fn another_kind_is_refused() {
    let state = version_1();
    let error = state.list::<u64>("total").expect_err("refused");
    assert!(matches!(error, StateError::Kind { .. }), "{error}");
}

#[test]
fn two_versions_in_one_program_are_refused() {
    let state = alone();
    state.value::<Total>(spec()).expect("a handle");
    let error = state.value::<u64>("total").expect_err("refused").to_string();
    assert!(error.contains("versions 3 and 1"), "{error}");
}

#[test]
fn fields_with_a_default_need_no_migration() {
    #[derive(Serialize)]
    struct Old {
        b: u64,
        a: u64,
    }
    #[derive(Debug, PartialEq, Deserialize, Serialize)]
    struct New {
        a: u64,
        #[serde(default)]
        new: u64,
        b: u64,
    }
    let state = alone();
    let old = rmp_serde::to_vec_named(&Old { b: 2, a: 1 }).expect("bytes");
    let new: New = rmp_serde::from_slice(&old).expect("decoded");
    let mut value = state.value::<New>("v").expect("a handle");
    value.set("k", &new).expect("set");
    assert_eq!(value.get("k").expect("read"), Some(New { a: 1, new: 0, b: 2 }));
}

#[test]
fn states_that_nobody_declares_stay_until_they_are_dropped() {
    let state = version_1();
    let part = state.snapshot(CheckpointId(1), None).expect("a snapshot");
    assert!(!part.bytes.is_empty() && part.states[0].name == "total");
    state.drop_undeclared();
    let part = state.snapshot(CheckpointId(2), None).expect("a snapshot");
    assert!(part.bytes.is_empty() && part.states.is_empty());
}
