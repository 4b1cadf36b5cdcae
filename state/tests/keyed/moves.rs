use std::collections::BTreeMap;

use galerna_state::{KeyGroup, KeyGroups, StateError, TaskState};
use proptest::prelude::*;

use crate::task;

/// Moves key groups between tasks until `tasks` tasks share them, as a rebalance does.
fn rebalance(states: &mut Vec<TaskState>, tasks: usize) {
    let shares = KeyGroups::shares(tasks).expect("shares");
    while states.len() < tasks {
        states.push(task(states.len() as u32, KeyGroups::none()));
    }
    for from in 0..states.len() {
        for (to, share) in shares.iter().enumerate().filter(|(to, _)| *to != from) {
            let moving = states[from].groups().intersection(share);
            if !moving.is_empty() {
                let moved = states[from].export(&moving).expect("exported");
                assert_eq!(moved.groups(), &moving);
                states[to].import(&moved).expect("imported");
                states[from].release(&moving).expect("released");
            }
        }
    }
    states.truncate(tasks);
    assert!(states.iter().zip(&shares).all(|(state, share)| state.groups() == *share));
}

/// All values of all tasks; each key is where its group is.
fn everything(states: &[TaskState]) -> BTreeMap<u32, u64> {
    let mut all = BTreeMap::new();
    for state in states {
        for (key, value) in state.value::<u64>("count").expect("a handle").collect::<u32>().expect("read") {
            assert!(state.groups().contains(KeyGroup::of(&key).expect("a group")));
            assert!(all.insert(key, value).is_none(), "key {key} is at two tasks");
        }
    }
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_rebalance_keeps_exactly_all_keys(
        writes in prop::collection::vec((0_u32..2000, 0_u64..1000), 1..400),
        tasks in prop::collection::vec(1_usize..9, 1..4),
    ) {
        let mut states = vec![task(0, KeyGroups::all())];
        let mut model = BTreeMap::new();
        let chunk = writes.len().div_ceil(tasks.len() + 3);
        // The numbers that the issue of rebalancing is known for come first.
        let mut steps = [4, 2].into_iter().chain(tasks);
        for part in writes.chunks(chunk) {
            for (key, value) in part {
                let owner = KeyGroup::of(key).expect("a group").task(states.len());
                let mut count = states[owner].value::<u64>("count").expect("a handle");
                count.set(key, value).expect("set");
                model.insert(*key, *value);
            }
            rebalance(&mut states, steps.next().unwrap_or(1));
            prop_assert_eq!(&everything(&states), &model);
        }
    }
}

#[test]
fn maps_and_lists_and_states_that_nobody_declared_move_too() {
    let from = task(0, KeyGroups::all());
    let mut map = from.map::<u32, u32>("map").expect("a handle");
    let mut list = from.list::<u32>("list").expect("a handle");
    for n in 0..500_u32 {
        map.insert(&n, &1, &n).expect("inserted");
        list.push(&n, &n).expect("pushed");
    }
    let through = task(1, KeyGroups::none());
    through.import(&from.export(&KeyGroups::all()).expect("exported")).expect("imported");
    assert_eq!(through.undeclared().len(), 2);
    let to = task(2, KeyGroups::none());
    to.import(&through.export(&KeyGroups::all()).expect("exported")).expect("imported");
    let map = to.map::<u32, u32>("map").expect("a handle");
    let list = to.list::<u32>("list").expect("a handle");
    for n in 0..500 {
        assert_eq!(map.entries(&n).expect("read"), [(1, n)]);
        assert_eq!(list.get(&n).expect("read"), [n]);
    }
    assert!(to.undeclared().is_empty());
}

#[test]
fn groups_of_others_are_neither_given_nor_taken_twice() {
    let shares = KeyGroups::shares(2).expect("shares");
    let (a, b) = (task(0, shares[0].clone()), task(1, shares[1].clone()));
    let error = a.export(&KeyGroups::all()).expect_err("refused");
    assert!(matches!(&error, StateError::Groups { groups, .. } if groups == "2048-4095"), "{error}");
    let moved = a.export(&shares[0]).expect("exported");
    let error = a.import(&moved).expect_err("refused").to_string();
    assert!(error.contains("0-2047") && error.contains("already"), "{error}");
    b.import(&moved).expect("imported");
    assert_eq!(b.groups(), KeyGroups::all());
    assert!(b.release(&KeyGroups::all()).is_ok() && b.groups().is_empty());
}
