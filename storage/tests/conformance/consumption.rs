//! What counters have counted.

use galerna_model::ParameterCode;
use galerna_storage::{ConsumptionDay, ConsumptionKey, ConsumptionQuery, CounterValue, DayCounts, Store};

use crate::{hour, source};

const ENERGY: ParameterCode = ParameterCode(451);

fn key(source_id: &str, device: &str, parameter: ParameterCode, day: i64) -> ConsumptionKey {
    ConsumptionKey {
        source: source(source_id),
        device: device.to_owned(),
        parameter,
        zone: "Europe/Berlin".to_owned(),
        day: hour(24 * day),
    }
}

fn day(key: ConsumptionKey, revision: u64, used: f64) -> ConsumptionDay {
    let (first, last) = (key.day, key.day.plus_millis(3_600_000));
    let mut hours = vec![0.0; 24];
    hours[0] = used;
    let counts = DayCounts {
        first: CounterValue { at: first, value: 0.1 + 0.2 },
        last: CounterValue { at: last, value: 0.3 + used },
        hours,
        split: 1 << 24 | 1,
        resets: 2,
        readings: 2,
        corrections: 1,
    };
    ConsumptionDay { key, revision, counts }
}

pub(super) async fn a_day_comes_back_as_it_was_kept(store: &Store) {
    let days = &store.consumption;
    let keys = [key("s", "m 1", ENERGY, 0), key("s", "m", ENERGY, 0), key("s", "m 1", ENERGY, 1)];
    assert_eq!(days.get(&keys).await.unwrap(), [None, None, None]);
    let kept = [day(keys[0].clone(), 0, 1.1), day(keys[2].clone(), 0, 1e-300)];
    assert_eq!(days.keep(&kept).await.unwrap(), [true, true]);
    let found = days.get(&keys).await.unwrap();
    assert_eq!(found, [Some(day(keys[0].clone(), 1, 1.1)), None, Some(day(keys[2].clone(), 1, 1e-300))]);
    assert!(days.keep(&[]).await.unwrap().is_empty());
    assert!(days.get(&[]).await.unwrap().is_empty());
}

pub(super) async fn a_day_that_others_kept_in_between_is_left(store: &Store) {
    let days = &store.consumption;
    let (one, other) = (key("s", "m", ENERGY, 0), key("s", "m", ENERGY, 1));
    assert_eq!(days.keep(&[day(one.clone(), 0, 1.0)]).await.unwrap(), [true]);
    let both = [day(one.clone(), 0, 2.0), day(other.clone(), 0, 3.0)];
    assert_eq!(days.keep(&both).await.unwrap(), [false, true]);
    assert_eq!(days.keep(&[day(one.clone(), 1, 4.0)]).await.unwrap(), [true]);
    let stale =
        [day(one.clone(), 1, 5.0), day(other.clone(), 1, 6.0), day(key("s", "new", ENERGY, 0), 3, 7.0)];
    assert_eq!(days.keep(&stale).await.unwrap(), [false, true, false]);
    let found = days.get(&[one.clone(), other.clone(), key("s", "new", ENERGY, 0)]).await.unwrap();
    assert_eq!(found, [Some(day(one, 2, 4.0)), Some(day(other, 2, 6.0)), None]);
}

pub(super) async fn of_concurrent_keeps_of_one_revision_exactly_one_wins(store: &Store) {
    let days = &store.consumption;
    for revision in 0..5 {
        let keep = |used: f64| async move {
            days.keep(&[day(key("s", "m", ENERGY, 0), revision, used)]).await.unwrap()[0]
        };
        let (a, b, c, d) = tokio::join!(keep(1.0), keep(2.0), keep(3.0), keep(4.0));
        assert_eq!([a, b, c, d].into_iter().filter(|kept| *kept).count(), 1);
    }
}

pub(super) async fn days_are_found_with_the_nearest_around_them(store: &Store) {
    let days = &store.consumption;
    let other = ParameterCode(452);
    let numbers = [0, 3, 10, 11, 20, 30];
    let mut all: Vec<_> = numbers.iter().map(|n| day(key("s", "b", ENERGY, *n), 0, *n as f64)).collect();
    all.push(day(key("s", "a", ENERGY, 15), 0, 1.0));
    all.push(day(key("s", "b", other, 10), 0, 1.0));
    all.push(day(key("s2", "b", ENERGY, 10), 0, 1.0));
    let mut elsewhere = day(key("s", "b", ENERGY, 10), 0, 1.0);
    elsewhere.key.zone = "UTC".to_owned();
    all.push(elsewhere);
    assert!(days.keep(&all).await.unwrap().into_iter().all(|kept| kept));
    let find = |device: Option<&'static str>, from: i64, until: i64| async move {
        let query = ConsumptionQuery {
            source: source("s"),
            zone: "Europe/Berlin".to_owned(),
            device: device.map(str::to_owned),
            from: hour(24 * from),
            until: hour(24 * until),
        };
        let found = days.find(&query).await.unwrap().into_iter();
        found
            .map(|day| (day.key.device, day.key.parameter.0, day.key.day.millis_since(hour(0)) / 86_400_000))
            .collect::<Vec<_>>()
    };
    let b = |n: i64| ("b".to_owned(), 451, n);
    let expected = [("a".to_owned(), 451, 15), b(3), b(10), b(11), b(20), ("b".to_owned(), 452, 10)];
    assert_eq!(find(None, 10, 12).await, expected);
    assert_eq!(find(Some("b"), 12, 13).await, [b(11), b(20), ("b".to_owned(), 452, 10)]);
    assert_eq!(find(Some("c"), 0, 40).await, []);
    assert_eq!(find(Some("a"), 0, 15).await, [("a".to_owned(), 451, 15)]);
}
