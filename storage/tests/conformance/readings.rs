//! Accepted readings.

use std::collections::BTreeMap;

use galerna_model::{Measurement, ParameterCode, Timestamp};
use galerna_storage::ReadingOutcome::{Added, Duplicate, Inserted, Replaced};
use galerna_storage::{ReadingKey, ReadingOutcome, ReadingsQuery, Store, StoredReading};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;

use super::{account, hour, source};

fn reading(source_name: &str, device: &str, ts: Timestamp, sqn: u64) -> StoredReading {
    StoredReading {
        account: account("acc"),
        source: source(source_name),
        device: device.into(),
        ts,
        sqn,
        values: vec![Measurement { p: ParameterCode(401), v: sqn as f64 }],
        flags: Vec::new(),
        received: hour(100),
    }
}

async fn all(store: &Store) -> Vec<StoredReading> {
    store.readings.find(&ReadingsQuery { limit: 100_000, ..Default::default() }).await.expect("found")
}

pub(super) async fn a_reading_comes_back_as_it_was_stored(store: &Store) {
    let values = [0.1, -0.0, f64::MAX, 5e-324, 745.396_000_000_000_3, -6.35]
        .into_iter()
        .enumerate()
        .map(|(i, v)| Measurement { p: ParameterCode(400 + i as u32), v })
        .collect();
    let mut batch = vec![
        StoredReading {
            values,
            flags: vec!["402:counter_backwards".into(), "ñ".into()],
            received: Timestamp(-5),
            ..reading("s", "12a", Timestamp(1), 2152)
        },
        StoredReading { values: Vec::new(), ..reading("s", "none", hour(0), 0) },
    ];
    // Devices that look alike to a careless key.
    for device in ["", " ", "a", "a ", "a b", "a\0", "a!", "!", "Línea 1/β", "$a.b", &"x".repeat(10_000)] {
        batch.push(reading("s", device, hour(1), 1));
        batch.push(reading("s-", device, hour(1), 1));
    }
    batch.push(reading("s", "12a", Timestamp(i64::MAX), 1));
    batch.push(reading("s", "12a", Timestamp(i64::MIN), 1));
    let stored = store.readings.store(&batch).await.expect("stored");
    assert!(stored.iter().all(|o| *o == Inserted), "{stored:?}");
    assert_eq!(store.readings.count(None).await.expect("counted"), batch.len() as u64);
    for expected in &batch {
        let query = ReadingsQuery {
            source: Some(expected.source.clone()),
            device: Some(expected.device.clone()),
            from: Some(expected.ts),
            until: (expected.ts.0 < i64::MAX).then(|| expected.ts.plus_millis(1)),
            limit: 10,
            ..Default::default()
        };
        let found = store.readings.find(&query).await.expect("found");
        assert_eq!(found, std::slice::from_ref(expected));
        let bits = |r: &StoredReading| r.values.iter().map(|m| m.v.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&found[0]), bits(expected), "to the last bit");
    }
    let nan = StoredReading {
        values: vec![Measurement { p: ParameterCode(1), v: f64::NAN }],
        ..reading("nan", "d", hour(0), 1)
    };
    store.readings.store(&[nan]).await.expect("stored");
    assert!(store.readings.latest(&source("nan")).await.expect("found")[0].values[0].v.is_nan());
}

pub(super) async fn of_one_identity_the_highest_sqn_counts(store: &Store) {
    let huge = u64::MAX;
    let cases: [(&[u64], &[ReadingOutcome], u64); 9] = [
        (&[5], &[Inserted], 5),
        (&[5, 5], &[Inserted, Duplicate], 5),
        (&[5, 6], &[Inserted, Replaced], 6),
        (&[6, 5], &[Inserted, Duplicate], 6),
        (&[0, 0, 1, 0, 3, 2], &[Inserted, Duplicate, Replaced, Duplicate, Replaced, Duplicate], 3),
        (&[1, 2, 3], &[Inserted, Replaced, Replaced], 3),
        (&[3, 2, 1], &[Inserted, Duplicate, Duplicate], 3),
        (&[1, 1 << 62, 7], &[Inserted, Replaced, Duplicate], 1 << 62),
        // Above what the stores can count, all are the same.
        (&[1, huge, huge - 1], &[Inserted, Replaced, Duplicate], i64::MAX as u64),
    ];
    for (case, (sqns, outcomes, stored)) in cases.into_iter().enumerate() {
        for together in [true, false] {
            let device = format!("{case} {together}");
            let batch: Vec<StoredReading> =
                sqns.iter().map(|sqn| reading("s", &device, hour(0), *sqn)).collect();
            let found = if together {
                store.readings.store(&batch).await.expect("stored").readings
            } else {
                let mut found = Vec::new();
                for one in batch.chunks(1) {
                    found.extend(store.readings.store(one).await.expect("stored"));
                }
                found
            };
            assert_eq!(found, outcomes, "{sqns:?} together: {together}");
            let query = ReadingsQuery { device: Some(device), limit: 10, ..Default::default() };
            let left = store.readings.find(&query).await.expect("found");
            assert_eq!(left.iter().map(|r| r.sqn).collect::<Vec<_>>(), [stored], "{sqns:?}");
        }
    }
    assert_eq!(store.readings.store(&[]).await.expect("nothing to store"), []);

    // What comes twice changes nothing, not even the time of reception.
    let first = reading("s", "twice", hour(0), 3);
    store.readings.store(std::slice::from_ref(&first)).await.expect("stored");
    for _ in 0..3 {
        let again = StoredReading { received: hour(200), values: Vec::new(), ..first.clone() };
        assert_eq!(store.readings.store(&[again]).await.expect("stored"), [Duplicate]);
    }
    let query = ReadingsQuery { device: Some("twice".into()), limit: 10, ..Default::default() };
    assert_eq!(store.readings.find(&query).await.expect("found"), [first]);
}

/// Batches of readings over few identities, so that they meet.
fn batches() -> impl Strategy<Value = Vec<Vec<StoredReading>>> {
    let one = (0..2_usize, 0..4_usize, 0..6_i64, 0..5_u64)
        .prop_map(|(s, d, t, sqn)| reading(["s", "s2"][s], ["a", "a b", "b", ""][d], hour(t), sqn));
    prop::collection::vec(prop::collection::vec(one, 0..40), 1..12)
}

fn highest(batches: &[Vec<StoredReading>]) -> BTreeMap<(String, String, Timestamp), u64> {
    let mut highest = BTreeMap::new();
    for r in batches.iter().flatten() {
        let sqn: &mut u64 = highest.entry((r.source.to_string(), r.device.clone(), r.ts)).or_default();
        *sqn = r.sqn.max(*sqn);
    }
    highest
}

async fn assert_one_each(store: &Store, expected: &BTreeMap<(String, String, Timestamp), u64>) {
    let keys = store.readings.keys(&account("acc"), None, 100_000).await.expect("listed");
    let found: Vec<_> = keys.into_iter().map(|k| ((k.source.to_string(), k.device, k.ts), k.sqn)).collect();
    assert_eq!(found, expected.clone().into_iter().collect::<Vec<_>>());
    for r in all(store).await {
        assert_eq!(r.values[0].v, r.sqn as f64, "the values belong to the sequence number");
    }
}

pub(super) async fn readings_in_any_order_and_number_leave_one_each(store: &Store) {
    let mut runner = TestRunner::default();
    let mut stored: Vec<Vec<StoredReading>> = Vec::new();
    for _ in 0..12 {
        let batches = batches().new_tree(&mut runner).expect("batches").current();
        for batch in batches {
            let before = highest(&stored);
            let outcomes = store.readings.store(&batch).await.expect("stored");
            // Each outcome is what storing one after the other would give.
            let mut now = before;
            for (r, outcome) in batch.iter().zip(outcomes) {
                let key = (r.source.to_string(), r.device.clone(), r.ts);
                let expected = match now.get(&key) {
                    None => Inserted,
                    Some(sqn) if *sqn < r.sqn => Replaced,
                    Some(_) => Duplicate,
                };
                assert_eq!(outcome, expected);
                now.entry(key).and_modify(|sqn| *sqn = r.sqn.max(*sqn)).or_insert(r.sqn);
            }
            stored.push(batch);
        }
        assert_one_each(store, &highest(&stored)).await;
    }
}

fn partial(device: &str, sqn: u64, values: &[(u32, f64)]) -> StoredReading {
    let values = values.iter().map(|(p, v)| Measurement { p: ParameterCode(*p), v: *v }).collect();
    StoredReading { values, received: hour(sqn as i64), ..reading("s", device, hour(0), sqn) }
}

async fn the_one(store: &Store, device: &str) -> StoredReading {
    let query = ReadingsQuery { device: Some(device.into()), limit: 10, ..Default::default() };
    let mut found = store.readings.find(&query).await.expect("found");
    assert_eq!(found.len(), 1, "{device}: {found:?}");
    found.remove(0)
}

pub(super) async fn values_of_one_meter_and_time_are_united_by_parameter(store: &Store) {
    // Sequence numbers with values, what each did, what is left, and what was not taken.
    type Values = &'static [(u32, f64)];
    type NotTaken = &'static [(usize, u32, f64, f64)];
    type Case = (&'static [(u64, Values)], &'static [ReadingOutcome], (u64, Values), NotTaken);
    let cases: [Case; 7] = [
        (&[(1, &[(401, 1.0)]), (1, &[(402, 2.0)])], &[Inserted, Added], (1, &[(401, 1.0), (402, 2.0)]), &[]),
        (&[(5, &[(401, 1.0)]), (3, &[(402, 2.0)])], &[Inserted, Added], (5, &[(401, 1.0), (402, 2.0)]), &[]),
        // The value that a lower number has added gives way to any higher one.
        (
            &[(5, &[(401, 1.0)]), (3, &[(402, 2.0)]), (4, &[(401, 7.0), (402, 3.0)]), (2, &[(402, 9.0)])],
            &[Inserted, Added, Replaced, Duplicate],
            (5, &[(401, 1.0), (402, 3.0)]),
            &[(2, 401, 1.0, 7.0), (3, 402, 3.0, 9.0)],
        ),
        (
            &[(5, &[(401, 1.0), (402, 2.0)]), (6, &[(402, 3.0)]), (5, &[(402, 2.0)])],
            &[Inserted, Replaced, Duplicate],
            (6, &[(401, 1.0), (402, 3.0)]),
            &[(2, 402, 3.0, 2.0)],
        ),
        (
            &[(5, &[(401, 1.0)]), (5, &[(401, 1.0)]), (4, &[(401, 1.0)])],
            &[Inserted, Duplicate, Duplicate],
            (5, &[(401, 1.0)]),
            &[],
        ),
        (
            &[(1, &[(401, 1.0)]), (9, &[(402, 2.0)]), (5, &[(401, 5.0), (402, 5.0)])],
            &[Inserted, Replaced, Replaced],
            (9, &[(401, 5.0), (402, 2.0)]),
            &[(2, 402, 2.0, 5.0)],
        ),
        (&[(1, &[]), (1, &[(401, 1.0)])], &[Inserted, Added], (1, &[(401, 1.0)]), &[]),
    ];
    for (case, (readings, outcomes, (sqn, left), not_taken)) in cases.into_iter().enumerate() {
        for together in [true, false] {
            let device = format!("{case} {together}");
            let batch: Vec<StoredReading> =
                readings.iter().map(|(sqn, values)| partial(&device, *sqn, values)).collect();
            let (mut found, mut told) = (Vec::new(), Vec::new());
            let size = if together { batch.len() } else { 1 };
            for (n, part) in batch.chunks(size).enumerate() {
                let outcome = store.readings.store(part).await.expect("stored");
                found.extend(outcome.readings);
                let not_taken = outcome.not_taken.into_iter();
                told.extend(not_taken.map(|(at, d)| (n * size + at, d.parameter.0, d.stored, d.offered)));
            }
            assert_eq!(found, outcomes, "{device}");
            assert_eq!(told, not_taken, "{device}");
            let stored = the_one(store, &device).await;
            assert_eq!(stored, partial(&device, sqn, left), "{device}");
            // All of it again changes nothing.
            let again = store.readings.store(&batch).await.expect("stored");
            assert!(again.iter().all(|outcome| *outcome == Duplicate), "{device}: {again:?}");
            assert_eq!(the_one(store, &device).await, stored, "{device}");
        }
    }
}

pub(super) async fn concurrent_writers_of_parts_of_readings_leave_the_union(store: &Store) {
    let devices = ["a", "b", "c"];
    let value = |p: u32, sqn: u64| f64::from(p) + sqn as f64 / 8.0;
    let writers: Vec<_> = (0..6_u32)
        .map(|writer| {
            let store = store.clone();
            tokio::spawn(async move {
                for sqn in 0..8 {
                    // Each has a parameter of its own, and one that it shares with another at other numbers.
                    let values = [400 + writer, 410 + writer / 2]
                        .map(|p| (p, value(p, 2 * sqn + u64::from(writer % 2))));
                    let sqn = 2 * sqn + u64::from(writer % 2);
                    let batch: Vec<_> = devices.iter().map(|d| partial(d, sqn, &values)).collect();
                    store.readings.store(&batch).await.expect("stored");
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("the writer ends");
    }
    for device in devices {
        let stored = the_one(store, device).await;
        let mut values: Vec<(u32, f64)> = stored.values.iter().map(|m| (m.p.0, m.v)).collect();
        values.sort_by_key(|(p, _)| *p);
        let own = (0..6_u32).map(|writer| (400 + writer, value(400 + writer, 14 + u64::from(writer % 2))));
        let shared = (0..3_u32).map(|pair| (410 + pair, value(410 + pair, 15)));
        assert_eq!(values, own.chain(shared).collect::<Vec<_>>(), "{device}");
        assert_eq!((stored.sqn, stored.received), (15, hour(15)));
    }
}

pub(super) async fn values_come_back_to_the_last_bit(store: &Store) {
    let mut runner = TestRunner::default();
    let bits = prop::collection::vec(any::<u64>(), 200);
    for round in 0..10 {
        let bits = bits.new_tree(&mut runner).expect("bits").current();
        let values: Vec<f64> = bits.into_iter().map(f64::from_bits).filter(|v| v.is_finite()).collect();
        let batch: Vec<StoredReading> = values
            .iter()
            .enumerate()
            .map(|(n, v)| partial(&format!("{round} {n}"), 1, &[(401, *v), (402, -v)]))
            .collect();
        store.readings.store(&batch).await.expect("stored");
        // The second part of each is united with the first.
        let more: Vec<StoredReading> = values
            .iter()
            .enumerate()
            .map(|(n, v)| partial(&format!("{round} {n}"), 1, &[(403, v / 3.0)]))
            .collect();
        store.readings.store(&more).await.expect("stored");
    }
    let found = all(store).await;
    assert!(found.len() > 1_900, "nearly all bit patterns are numbers: {}", found.len());
    for reading in found {
        let [first, second, third] = &reading.values[..] else { panic!("three values: {reading:?}") };
        assert_eq!(second.v.to_bits(), (-first.v).to_bits());
        assert_eq!(third.v.to_bits(), (first.v / 3.0).to_bits());
    }
}

pub(super) async fn concurrent_writers_of_the_same_readings_agree(store: &Store) {
    let mut runner = TestRunner::default();
    let batches = prop::collection::vec(batches(), 4).new_tree(&mut runner).expect("batches").current();
    let writers: Vec<_> = batches
        .iter()
        .cloned()
        .map(|mine| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut inserted = 0;
                for batch in mine {
                    let outcomes = store.readings.store(&batch).await.expect("stored");
                    inserted += outcomes.iter().filter(|o| **o == Inserted).count();
                }
                inserted
            })
        })
        .collect();
    let mut inserted = 0;
    for writer in writers {
        inserted += writer.await.expect("the writer ends");
    }
    let expected = highest(&batches.concat());
    assert_eq!(inserted, expected.len(), "each identity was new to exactly one writer");
    assert_one_each(store, &expected).await;
}

pub(super) async fn readings_are_found_by_any_filter_newest_first(store: &Store) {
    let mut batch = Vec::new();
    for (account_name, source_name) in [("acc", "s1"), ("acc", "s2"), ("other", "s3")] {
        for device in ["a", "b"] {
            for h in 0..10 {
                batch.push(StoredReading {
                    account: account(account_name),
                    ..reading(source_name, device, hour(h), h as u64)
                });
            }
        }
    }
    store.readings.store(&batch).await.expect("stored");
    let none = ReadingsQuery { limit: 1000, ..Default::default() };
    let acc = Some(account("acc"));
    let (s1, a) = (Some(source("s1")), Some("a".to_owned()));
    let cases: Vec<(ReadingsQuery, usize)> = vec![
        (none.clone(), 60),
        (ReadingsQuery { account: acc.clone(), ..none.clone() }, 40),
        (ReadingsQuery { account: Some(account("nobody")), ..none.clone() }, 0),
        (ReadingsQuery { source: s1.clone(), ..none.clone() }, 20),
        (ReadingsQuery { source: Some(source("s")), ..none.clone() }, 0),
        (ReadingsQuery { device: a.clone(), ..none.clone() }, 30),
        (ReadingsQuery { account: acc.clone(), device: a.clone(), ..none.clone() }, 20),
        (ReadingsQuery { account: Some(account("other")), source: s1.clone(), ..none.clone() }, 0),
        (ReadingsQuery { source: s1.clone(), device: a.clone(), ..none.clone() }, 10),
        (ReadingsQuery { from: Some(hour(8)), ..none.clone() }, 12),
        (ReadingsQuery { until: Some(hour(2)), ..none.clone() }, 12),
        (ReadingsQuery { from: Some(hour(3)), until: Some(hour(5)), source: s1.clone(), ..none.clone() }, 4),
        (
            ReadingsQuery { from: Some(hour(3)), until: Some(hour(5)), account: acc.clone(), ..none.clone() },
            8,
        ),
        (ReadingsQuery { from: Some(hour(5)), until: Some(hour(5)), ..none.clone() }, 0),
        (ReadingsQuery { from: Some(hour(6)), until: Some(hour(5)), source: s1, ..none.clone() }, 0),
        (ReadingsQuery { limit: 7, ..none.clone() }, 7),
        (ReadingsQuery { limit: 3, account: acc, ..none.clone() }, 3),
        (ReadingsQuery { limit: 3, device: a, ..none.clone() }, 3),
        (ReadingsQuery { limit: 0, ..none }, 0),
    ];
    for (query, expected) in cases {
        let found = store.readings.find(&query).await.expect("found");
        assert_eq!(found.len(), expected, "{query:?}");
        let mut matching: Vec<&StoredReading> = batch
            .iter()
            .filter(|r| {
                query.account.as_ref().is_none_or(|a| r.account == *a)
                    && query.source.as_ref().is_none_or(|s| r.source == *s)
                    && query.device.as_ref().is_none_or(|d| r.device == *d)
                    && query.from.is_none_or(|from| r.ts >= from)
                    && query.until.is_none_or(|until| r.ts < until)
            })
            .collect();
        matching.sort_by_key(|r| std::cmp::Reverse(r.ts));
        let times: Vec<_> = matching.iter().take(query.limit).map(|r| r.ts).collect();
        assert_eq!(found.iter().map(|r| r.ts).collect::<Vec<_>>(), times, "{query:?}");
        assert!(found.iter().all(|r| matching.contains(&r)), "{query:?}");
    }
    let count = |a: Option<&str>| {
        let a = a.map(account);
        async move { store.readings.count(a.as_ref()).await.expect("counted") }
    };
    assert_eq!(
        (
            count(None).await,
            count(Some("acc")).await,
            count(Some("other")).await,
            count(Some("nobody")).await
        ),
        (60, 40, 20, 0)
    );
}

pub(super) async fn identities_are_paged_in_order(store: &Store) {
    let mut batch = Vec::new();
    for source_name in ["s", "s!", "s2", "a"] {
        for device in ["", "b", "b c", "b\u{1}", "bb", "é"] {
            for ts in [Timestamp(i64::MIN), Timestamp(-1), Timestamp(0), hour(0), Timestamp(i64::MAX)] {
                batch.push(reading(source_name, device, ts, 1));
            }
        }
    }
    let foreign = StoredReading { account: account("other"), ..reading("s", "b", hour(5), 1) };
    let mut expected: Vec<ReadingKey> = batch
        .iter()
        .map(|r| ReadingKey { source: r.source.clone(), device: r.device.clone(), ts: r.ts, sqn: r.sqn })
        .collect();
    expected.sort();
    batch.push(foreign);
    batch.reverse();
    store.readings.store(&batch).await.expect("stored");
    for page in [1, 7, 1000] {
        let mut found: Vec<ReadingKey> = Vec::new();
        loop {
            let keys = store.readings.keys(&account("acc"), found.last(), page).await.expect("listed");
            assert!(keys.len() <= page);
            if keys.is_empty() {
                break;
            }
            found.extend(keys);
        }
        assert_eq!(found, expected, "pages of {page}");
    }
    assert_eq!(store.readings.keys(&account("nobody"), None, 10).await.expect("listed"), []);
}

pub(super) async fn a_source_that_changes_its_account_keeps_its_readings(store: &Store) {
    let before = reading("s", "d", hour(0), 1);
    let after = StoredReading { account: account("new"), ..reading("s", "d", hour(1), 1) };
    store.readings.store(&[before.clone(), after.clone()]).await.expect("stored");
    // A replay under the new account is the same reading still; a correction moves it.
    let replayed = StoredReading { account: account("new"), ..before.clone() };
    assert_eq!(store.readings.store(std::slice::from_ref(&replayed)).await.expect("stored"), [Duplicate]);
    let of = |name: &str| ReadingsQuery { account: Some(account(name)), limit: 10, ..Default::default() };
    assert_eq!(store.readings.find(&of("acc")).await.expect("found"), [before]);
    let corrected = StoredReading { sqn: 2, ..replayed };
    assert_eq!(store.readings.store(std::slice::from_ref(&corrected)).await.expect("stored"), [Replaced]);
    assert_eq!(store.readings.find(&of("acc")).await.expect("found"), []);
    assert_eq!(store.readings.find(&of("new")).await.expect("found"), [after, corrected]);
    assert_eq!(store.readings.count(Some(&account("acc"))).await.expect("counted"), 0);
    assert_eq!(store.readings.keys(&account("new"), None, 10).await.expect("listed").len(), 2);
}

pub(super) async fn an_account_has_only_its_own_readings_of_a_shared_source(store: &Store) {
    let mut batch = Vec::new();
    for h in 0..9 {
        // Device `a` changes its account on the way, `b` and `c` have one each; source `t` has one alone.
        let of = |device: &str| match (device, h) {
            ("a", 0..3) | ("b", _) => "acc",
            _ => "new",
        };
        for device in ["a", "b", "c"] {
            batch.push(StoredReading { account: account(of(device)), ..reading("s", device, hour(h), 1) });
        }
        batch.push(StoredReading { account: account("new"), ..reading("t", "d", hour(h), 1) });
    }
    store.readings.store(&batch).await.expect("stored");
    for (name, expected) in [("acc", 12), ("new", 24)] {
        let mine = account(name);
        assert_eq!(store.readings.count(Some(&mine)).await.expect("counted"), expected, "{name}");
        assert_eq!(
            store.readings.keys(&mine, None, 100).await.expect("listed").len() as u64,
            expected,
            "{name}"
        );
        for limit in [1, 2, 5, 11, 100] {
            let query = ReadingsQuery { account: Some(mine.clone()), limit, ..Default::default() };
            let found = store.readings.find(&query).await.expect("found");
            let mut own: Vec<Timestamp> = batch.iter().filter(|r| r.account == mine).map(|r| r.ts).collect();
            own.sort_by_key(|ts| std::cmp::Reverse(*ts));
            own.truncate(limit);
            assert_eq!(found.iter().map(|r| r.ts).collect::<Vec<_>>(), own, "{name} {limit}");
            assert!(found.iter().all(|r| r.account == mine), "{name} {limit}");
        }
    }
}

/// Devices of very different numbers of readings, some silent for long, some all at the same times.
pub(super) async fn the_newest_are_found_however_they_lie_among_devices(store: &Store) {
    let device = || (0..60_usize, 0..40_i64, 1..4_i64);
    let mut runner = TestRunner::default();
    let mut batch = Vec::new();
    for run in 0..4 {
        let devices =
            prop::collection::vec(device(), 1..25).new_tree(&mut runner).expect("devices").current();
        let mine = account(&format!("run{run}"));
        let of_run = batch.len();
        for (d, (readings, end, step)) in devices.into_iter().enumerate() {
            batch.extend((0..readings as i64).map(|n| StoredReading {
                account: mine.clone(),
                ..reading(&format!("s{run}{}", d % 3), &format!("d{d}"), hour(end - n * step), 1)
            }));
        }
        store.readings.store(&batch[of_run..]).await.expect("stored");
        for limit in [1, 3, 10, 50, 10_000] {
            for from in [None, Some(hour(5))] {
                let query = ReadingsQuery { account: Some(mine.clone()), limit, from, ..Default::default() };
                let mut expected: Vec<&StoredReading> =
                    batch[of_run..].iter().filter(|r| from.is_none_or(|from| r.ts >= from)).collect();
                expected.sort_by(|a, b| {
                    b.ts.cmp(&a.ts).then_with(|| (&a.source, &a.device).cmp(&(&b.source, &b.device)))
                });
                expected.truncate(limit);
                let found = store.readings.find(&query).await.expect("found");
                assert_eq!(
                    found.iter().map(|r| r.ts).collect::<Vec<_>>(),
                    expected.iter().map(|r| r.ts).collect::<Vec<_>>()
                );
                assert!(found.iter().all(|r| batch[of_run..].contains(r)), "{query:?}");
            }
        }
    }
}

pub(super) async fn the_latest_reading_of_each_device_is_found(store: &Store) {
    let mut batch = Vec::new();
    for (device, hours) in [("a", 5), ("b", 1), ("silent", -900), ("a b", 3)] {
        for h in [hours - 2, hours, hours - 1] {
            batch.push(reading("s", device, hour(h), 1));
        }
        batch.push(reading("s2", device, hour(50), 1));
    }
    store.readings.store(&batch).await.expect("stored");
    let mut latest = store.readings.latest(&source("s")).await.expect("found");
    latest.sort_by(|a, b| a.device.cmp(&b.device));
    let expected = [("a", 5), ("a b", 3), ("b", 1), ("silent", -900)];
    assert_eq!(latest, expected.map(|(device, h)| reading("s", device, hour(h), 1)));
    assert_eq!(store.readings.latest(&source("unknown")).await.expect("found"), []);
}
