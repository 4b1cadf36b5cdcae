use std::time::Duration;

use galerna_state::{KeyGroup, KeyGroups, SeenIds, StateError, StateSpec, TaskState};
use serde::{Deserialize, Serialize};

use crate::{Hand, alone, task};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Total {
    wh: f64,
    readings: u64,
}

#[test]
fn a_value_comes_back_as_it_was_set() {
    let state = alone();
    let mut total = state.value::<Total>("total").expect("a handle");
    assert_eq!(total.get("meter-1").expect("read"), None);
    let value = Total { wh: 1.5, readings: 3 };
    total.set("meter-1", &value).expect("set");
    assert_eq!(total.get("meter-1").expect("read"), Some(value));
    assert!(total.contains("meter-1").expect("read") && !total.contains("meter-2").expect("read"));
    total.remove("meter-1").expect("removed");
    assert_eq!(total.get("meter-1").expect("read"), None);
}

#[test]
fn states_of_a_task_are_apart() {
    let state = alone();
    let mut a = state.value::<u64>("a").expect("a handle");
    let mut b = state.value::<String>("b").expect("a handle");
    a.set(&7, &1).expect("set");
    b.set(&7, &"one".to_owned()).expect("set");
    a.remove(&7).expect("removed");
    assert_eq!(b.get(&7).expect("read").as_deref(), Some("one"));
}

#[test]
fn all_keys_of_a_task_can_be_collected() {
    let state = alone();
    let mut count = state.value::<u32>("count").expect("a handle");
    (0..1000_u32).for_each(|n| count.set(&n, &(n * 2)).expect("set"));
    let mut pairs = count.collect::<u32>().expect("read");
    pairs.sort_unstable();
    assert_eq!(pairs, (0..1000).map(|n| (n, n * 2)).collect::<Vec<_>>());
}

#[test]
fn a_map_has_fields_under_each_key() {
    let state = alone();
    let mut map = state.map::<String, u32>("by hour").expect("a handle");
    for (key, field, value) in [("a", "1", 1), ("a", "2", 2), ("b", "1", 3), ("a", "1", 4)] {
        map.insert(key, &field.to_owned(), &value).expect("inserted");
    }
    assert_eq!(map.get("a", &"1".to_owned()).expect("read"), Some(4));
    assert_eq!(map.entries("a").expect("read"), [("1".to_owned(), 4), ("2".to_owned(), 2)]);
    assert_eq!(map.len("a").expect("read"), 2);
    map.remove("a", &"1".to_owned()).expect("removed");
    map.remove("a", &"2".to_owned()).expect("removed");
    assert!(map.is_empty("a").expect("read"));
    assert_eq!(state.size().keys_in_memory, 1);
    map.clear("b").expect("cleared");
    assert_eq!((state.size().keys_in_memory, state.size().bytes_in_memory), (0, 0));
}

#[test]
fn a_list_keeps_its_order() {
    let state = alone();
    let mut list = state.list::<u32>("recent").expect("a handle");
    (0..5).for_each(|n| list.push("a", &n).expect("pushed"));
    assert_eq!(list.pop_front("a").expect("popped"), Some(0));
    assert_eq!(list.get("a").expect("read"), [1, 2, 3, 4]);
    list.replace("a", &[9, 8]).expect("replaced");
    assert_eq!(list.get("a").expect("read"), [9, 8]);
    assert_eq!(list.collect::<String>().expect("read"), [("a".to_owned(), vec![9, 8])]);
    list.replace("a", &[]).expect("replaced");
    assert_eq!((list.len("a").expect("read"), state.size().bytes_in_memory), (0, 0));
}

fn with_clock(hand: &Hand) -> TaskState {
    TaskState::new("c", 0, KeyGroups::all(), hand.options(1 << 20, None)).expect("a state")
}

fn hour() -> StateSpec {
    StateSpec::new("hour").time_to_live(Duration::from_secs(3600))
}

#[test]
fn a_value_is_gone_when_its_time_is_over_and_each_write_begins_it_anew() {
    let hand = Hand::default();
    let state = with_clock(&hand);
    let mut value = state.value::<u64>(hour()).expect("a handle");
    value.set("a", &1).expect("set");
    value.set("b", &1).expect("set");
    hand.advance(3_599_999);
    assert_eq!(value.get("a").expect("read"), Some(1));
    value.set("a", &2).expect("set");
    hand.advance(1);
    assert_eq!((value.get("a").expect("read"), value.get("b").expect("read")), (Some(2), None));
    assert_eq!(state.size().keys_in_memory, 1, "what is gone takes no memory, unasked");
    hand.advance(3_599_999);
    assert_eq!(value.get("c").expect("read"), None);
    assert_eq!((state.size().keys_in_memory, state.size().bytes_in_memory), (0, 0));
}

#[test]
fn fields_and_items_have_times_of_their_own() {
    let hand = Hand::default();
    let state = with_clock(&hand);
    let mut map = state.map::<u8, u8>(hour()).expect("a handle");
    let mut list =
        state.list::<u8>(StateSpec::new("l").time_to_live(Duration::from_secs(3600))).expect("a handle");
    for n in 0..3 {
        map.insert("a", &n, &n).expect("inserted");
        list.push("a", &n).expect("pushed");
        hand.advance(1_800_000);
    }
    assert_eq!(map.entries("a").expect("read"), [(2, 2)]);
    assert_eq!((list.get("a").expect("read"), map.len("a").expect("read")), (vec![2], 1));
    hand.advance(1_800_000);
    assert!(map.is_empty("a").expect("read") && list.is_empty("a").expect("read"));
    assert_eq!(state.size().bytes_in_memory, 0);
}

#[test]
fn an_id_is_first_once_within_its_time() {
    let hand = Hand::default();
    let state = with_clock(&hand);
    let mut seen = SeenIds::new(&state, "seen", Duration::from_secs(60)).expect("a handle");
    assert!(seen.is_first(&7).expect("read"));
    hand.advance(40_000);
    assert!(!seen.is_first(&7).expect("read"));
    // Counted from the first time: being seen again does not prolong it.
    hand.advance(20_000);
    assert!(seen.is_first(&7).expect("read"));
    seen.forget(&7).expect("forgotten");
    assert!(seen.is_first(&7).expect("read"));
}

#[test]
fn ids_beyond_their_time_take_no_memory() {
    let hand = Hand::default();
    let state = with_clock(&hand);
    let mut seen = SeenIds::new(&state, "seen", Duration::from_millis(100)).expect("a handle");
    for n in 0..20_000_u32 {
        hand.advance(1);
        assert!(seen.is_first(&n).expect("there is room for those of the time"));
    }
    assert!(state.size().keys_in_memory <= 101, "{:?}", state.size());
}

#[test]
fn a_key_of_another_task_is_refused_with_the_likely_cause() {
    let shares = KeyGroups::shares(2).expect("shares");
    let state = task(1, shares[1].clone());
    let mut count = state.value::<u64>("count").expect("a handle");
    let foreign = (0_u64..).find(|n| shares[0].contains(KeyGroup::of(n).expect("a group"))).expect("a key");
    let error = count.set(&foreign, &1).expect_err("refused");
    assert!(matches!(error, StateError::NotOwned { task: 1, .. }));
    let text = error.to_string();
    assert!(text.contains("`count`") && text.contains("group the bolt's input by the key"), "{text}");
}

#[test]
fn a_value_of_another_type_names_state_and_key_group_and_what_to_do() {
    let state = alone();
    state.value::<String>("total").expect("a handle").set("a", &"text".to_owned()).expect("set");
    let error = state.value::<u64>("total").expect("a handle").get("a").expect_err("refused");
    let text = error.to_string();
    let group = KeyGroup::of("a").expect("a group");
    for part in ["`total`", "`count`", &format!("key group {group}"), "u64", "migration"] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn what_has_no_serialised_form_is_refused() {
    struct Unserialisable;
    impl Serialize for Unserialisable {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("it has none"))
        }
    }
    let state = alone();
    let mut count = state.value::<u64>("count").expect("a handle");
    let error = count.set(&Unserialisable, &1).expect_err("refused");
    assert!(matches!(&error, StateError::Encode { what: "key", .. }), "{error}");
    assert_eq!(state.size().keys_in_memory, 0);
}

#[test]
fn a_panic_within_an_update_changes_nothing_and_the_state_goes_on() {
    let state = alone();
    let mut count = state.value::<u64>("count").expect("a handle");
    count.set("a", &1).expect("set");
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        drop(count.update("a", |_| panic!("on purpose")));
    }));
    assert!(panicked.is_err());
    // As the bolt's successor does.
    let mut again = state.value::<u64>("count").expect("the same state");
    assert_eq!(again.update("a", |n| n.unwrap_or(0) + 1).expect("updated"), 2);
}

#[test]
fn names_and_versions_that_cannot_be_are_refused() {
    let state = alone();
    let week = Duration::from_nanos(1);
    for (spec, says) in [
        (StateSpec::new(""), "name"),
        (StateSpec::new("a").version(0), "count from 1"),
        (StateSpec::new("a").time_to_live(week), "millisecond"),
        (StateSpec::new("a").migrate(1, |n: u8| Ok(n)), "leads to none"),
    ] {
        let error = state.value::<u64>(spec).expect_err("refused").to_string();
        assert!(error.contains(says), "{error}");
    }
    state.value::<u64>("a").expect("a handle");
    let error = state.list::<u64>("a").expect_err("refused").to_string();
    assert!(error.contains("kept as a value, not a list"), "{error}");
}
