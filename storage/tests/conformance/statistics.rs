//! What sources have sent.

use std::sync::Arc;

use galerna_model::Timestamp;
use galerna_storage::{Batch, LAST_MESSAGES, LastMessage, Period, Scope, Store, Tally};

use super::{account, source};

fn of(messages: u64, readings: u64) -> Tally {
    Tally { messages, readings, values: 2 * readings }
}

/// One call of source `s` of account `acc`.
fn batch(writer: &str, number: u64, at: Timestamp) -> Arc<Batch> {
    let scopes = [Scope::All, Scope::Account(account("acc")), Scope::Source(source("s"))];
    let tallies = scopes
        .into_iter()
        .flat_map(|scope| Period::ALL.map(|period| (scope.clone(), period, period.start(at), of(1, 3))))
        .collect();
    let message = LastMessage {
        id: format!("{writer}.{number}"),
        received: at,
        readings: 3,
        rejected: 1,
        text: "{\"a.b\": \"$c ñ\"}".to_owned(),
        cut: number.is_multiple_of(2),
    };
    Arc::new(Batch { writer: writer.to_owned(), number, tallies, messages: vec![(source("s"), message)], at })
}

pub(super) async fn a_batch_is_added_once_however_often_it_is_tried(store: &Store) {
    let at = Timestamp::parse("2016-02-29T22:30:00Z").expect("a time");
    let scopes = [
        Scope::Source(source("s")),
        Scope::Source(source("other")),
        Scope::Account(account("acc")),
        Scope::All,
    ];
    let periods: Vec<(Period, Timestamp)> = Period::ALL.into_iter().map(|p| (p, p.start(at))).collect();
    for number in 1..=3 {
        for _ in 0..3 {
            for writer in ["one", "two"] {
                store.statistics.add(batch(writer, number, at)).await.expect("added");
            }
        }
        // An earlier one changes nothing any more.
        store.statistics.add(batch("one", 1, at)).await.expect("added");
        let (found, seen) = store.statistics.tallies(&scopes, &periods, "two").await.expect("answered");
        let all = vec![of(2 * number, 6 * number); 4];
        assert_eq!(found, [all.clone(), vec![of(0, 0); 4], all.clone(), all]);
        assert_eq!(seen, number);
    }
    let (_, unknown) = store.statistics.tallies(&[], &[], "nobody").await.expect("answered");
    assert_eq!(unknown, 0);
}

pub(super) async fn the_last_messages_of_all_writers_are_kept_newest_first(store: &Store) {
    for number in 1..=8 {
        for (writer, shift) in [("one", 0), ("two", 1)] {
            let at = Timestamp(2 * i64::try_from(number).expect("small") + shift);
            store.statistics.add(batch(writer, number, at)).await.expect("added");
        }
    }
    let (messages, number) = store.statistics.last_messages(&source("s"), "one").await.expect("answered");
    assert_eq!((messages.len(), number), (LAST_MESSAGES, 8));
    let expected: Vec<LastMessage> = (4..=8)
        .rev()
        .flat_map(|n: u64| {
            let at = 2 * i64::try_from(n).expect("small");
            [("two", at + 1), ("one", at)].map(|(w, at)| batch(w, n, Timestamp(at)).messages[0].1.clone())
        })
        .collect();
    assert_eq!(messages, expected);
    let (none, _) = store.statistics.last_messages(&source("t"), "one").await.expect("answered");
    assert_eq!(none, []);
}

pub(super) async fn old_hours_are_forgotten_and_old_months_kept(store: &Store) {
    let day = 24 * 3_600_000;
    let begin = Timestamp::parse("2020-01-01T00:00:00Z").expect("answered");
    let periods = [(Period::Hour, begin), (Period::Month, begin)];
    let all = [Scope::All];
    let add = async |writer: &str, at: Timestamp| {
        let one = of(1, 1);
        let tallies =
            Period::ALL.map(|period| (Scope::All, period, period.start(at), one)).into_iter().collect();
        let batch = Batch { writer: writer.to_owned(), number: 1, tallies, messages: Vec::new(), at };
        store.statistics.add(Arc::new(batch)).await.expect("answered");
    };
    add("first", begin).await;
    let read = async || store.statistics.tallies(&all, &periods, "first").await.expect("answered");
    assert_eq!(read().await, (vec![vec![of(1, 1), of(1, 1)]], 1));
    add("second", begin.plus_millis(40 * day)).await;
    assert_eq!(read().await.0, [[of(0, 0), of(1, 1)]]);
    add("third", begin.plus_millis(500 * day)).await;
    assert_eq!(read().await, (vec![vec![of(0, 0), of(0, 0)]], 0));
}
