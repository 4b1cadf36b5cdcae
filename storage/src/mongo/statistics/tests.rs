//! What is MongoDB's own: batches in part, reads under way, servers that fail.

use std::time::Duration;

use galerna_model::AccountId;
use galerna_test_servers::{Mongo as Server, unique};

use super::*;
use crate::mongo::{MongoOptions, open};

const DEADLINE: Duration = Duration::from_secs(60);

async fn connect(server: &Server, database: &str) -> Arc<Mongo> {
    let options = MongoOptions {
        database: Some(database.to_owned()),
        timeout: DEADLINE,
        ..MongoOptions::new(server.uri())
    };
    Arc::new(open(options).await.unwrap())
}

async fn store() -> Arc<Mongo> {
    connect(Server::shared().await, &unique("statistics")).await
}

fn source(id: &str) -> SourceId {
    SourceId::new(id).unwrap()
}

fn of(messages: u64) -> Tally {
    Tally { messages, readings: 2 * messages, values: 3 * messages }
}

fn scopes(of: &str) -> [Scope; 3] {
    [Scope::All, Scope::Account(AccountId::new(of).unwrap()), Scope::Source(source(of))]
}

/// One message more, in every period of each scope.
fn batch(writer: &str, of_whom: &str, number: u64) -> Arc<Batch> {
    let at = Timestamp(i64::try_from(number).unwrap());
    let tallies = scopes(of_whom)
        .into_iter()
        .flat_map(|scope| Period::ALL.map(|period| (scope.clone(), period, period.start(at), of(1))))
        .collect();
    let message = LastMessage {
        id: format!("{writer}.{number}"),
        received: at,
        readings: 2,
        rejected: 0,
        text: "{\"a.b\": \"$c\"}\0".to_owned(),
        cut: false,
    };
    let messages = vec![(source(of_whom), message)];
    Arc::new(Batch { writer: writer.to_owned(), number, tallies, messages, at })
}

const PERIODS: [(Period, Timestamp); 2] =
    [(Period::Hour, Timestamp(0)), (Period::Week, Timestamp(-3 * 24 * 3_600_000))];

async fn ids(store: &Mongo, of: &str, writer: &str) -> Vec<String> {
    store.last_messages(&source(of), writer).await.unwrap().0.into_iter().map(|m| m.id).collect()
}

#[tokio::test]
async fn a_batch_interrupted_between_any_two_statements_shows_not_at_all_and_then_once() {
    let store = store().await;
    let whole = counting(&batch("w", "s", 2)).len();
    assert_eq!(whole, 9, "a day and two months a scope: the week began in the month before");
    for cut in 0..=whole + 1 {
        let name = format!("w{cut}");
        let mine = scopes(&name)[1..].to_vec();
        let read = async || store.tallies(&mine, &PERIODS, &name).await.unwrap();
        store.add(batch(&name, &name, 1)).await.unwrap();
        assert_eq!(read().await, (vec![vec![of(1), of(1)]; 2], 1));

        let second = batch(&name, &name, 2);
        let some: Vec<Document> = counting(&second).into_iter().take(cut).collect();
        for _ in 0..2 {
            store.update_in_parts("testing", STATISTICS, some.clone()).await.unwrap();
            assert_eq!(read().await, (vec![vec![of(1), of(1)]; 2], 1), "{cut} statements");
        }
        if cut > whole {
            store.update_in_parts("testing", STATISTICS_MESSAGES, keeping(&second)).await.unwrap();
        }
        for _ in 0..2 {
            store.add(Arc::clone(&second)).await.unwrap();
            assert_eq!(read().await, (vec![vec![of(2), of(2)]; 2], 2), "{cut} statements, then the whole");
            assert_eq!(ids(&store, &name, &name).await, [format!("{name}.2"), format!("{name}.1")]);
        }

        // An earlier try that the server comes to only now.
        store.add(batch(&name, &name, 3)).await.unwrap();
        store.update_in_parts("testing", STATISTICS, counting(&second)).await.unwrap();
        store.update_in_parts("testing", STATISTICS_MESSAGES, keeping(&second)).await.unwrap();
        assert_eq!(read().await, (vec![vec![of(3), of(3)]; 2], 3));
        assert_eq!(ids(&store, &name, &name).await.len(), 3);
    }
    // Summed over all the writers.
    let (all, number) = store.tallies(&[Scope::All], &PERIODS, "nobody").await.unwrap();
    assert_eq!((all[0][0].messages, number), (3 * (whole as u64 + 2), 0));
}

#[tokio::test]
async fn what_is_read_while_batches_arrive_is_exactly_the_state_of_the_number_told() {
    let store = store().await;
    let writing = tokio::spawn({
        let store = Arc::clone(&store);
        async move {
            for number in 1..=40 {
                store.add(batch("w", "s", number)).await.unwrap();
            }
        }
    });
    let mut numbers = std::collections::BTreeSet::new();
    loop {
        let ended = writing.is_finished();
        let (found, number) = store.tallies(&scopes("s"), &PERIODS, "w").await.unwrap();
        assert_eq!(found, vec![vec![of(number); 2]; 3]);
        numbers.insert(number);
        if ended {
            break;
        }
    }
    writing.await.unwrap();
    assert_eq!(numbers.last(), Some(&40));
    assert!(numbers.len() > 2, "some were read under way: {numbers:?}");
    let expected: Vec<String> = (31..=40).rev().map(|n| format!("w.{n}")).collect();
    assert_eq!(ids(&store, "s", "w").await, expected);
}

#[tokio::test]
async fn messages_pushed_out_by_newer_ones_do_not_come_back_with_a_late_retry() {
    let store = store().await;
    store.add(batch("old", "s", 1)).await.unwrap();
    for number in 2..=11 {
        store.add(batch("new", "s", number)).await.unwrap();
    }
    let before = ids(&store, "s", "old").await;
    assert_eq!((before.len(), before.contains(&"old.1".to_owned())), (10, false));
    store.add(batch("old", "s", 1)).await.unwrap();
    assert_eq!(ids(&store, "s", "old").await, before);
}

#[tokio::test]
async fn a_batch_of_thousands_of_sources_is_added_whole() {
    let store = store().await;
    let mut large = Batch { writer: "w".to_owned(), number: 1, at: Timestamp(0), ..Batch::default() };
    for n in 0..1_500 {
        let one = batch("w", &format!("s{n}"), 1);
        large.tallies.extend(one.tallies.iter().cloned());
        large.messages.extend(one.messages.iter().cloned().map(|(source, mut message)| {
            message.text = "x".repeat(4_096);
            (source, message)
        }));
    }
    store.add(Arc::new(large)).await.unwrap();
    let sources: Vec<Scope> = (0..1_500).map(|n| Scope::Source(source(&format!("s{n}")))).collect();
    let (found, number) = store.tallies(&sources, &PERIODS, "w").await.unwrap();
    assert_eq!((found, number), (vec![vec![of(1); 2]; 1_500], 1));
    let (all, _) = store.tallies(&[Scope::All], &PERIODS, "w").await.unwrap();
    assert_eq!(all[0][0], of(1_500));
    assert_eq!(store.last_messages(&source("s1499"), "w").await.unwrap().0[0].text.len(), 4_096);
}

#[tokio::test]
async fn an_election_in_the_middle_of_it_all_changes_no_count() {
    let server = Server::start_replica_set().await;
    let store = connect(&server, "galerna").await;
    for number in 1..=6 {
        let next = batch("w", "s", number);
        if number % 3 == 0 {
            let some: Vec<Document> = counting(&next).into_iter().take(4).collect();
            store.update_in_parts("testing", STATISTICS, some).await.unwrap();
            server.step_down(Duration::from_secs(1)).await;
        }
        let until_it_is = async { while store.add(Arc::clone(&next)).await.is_err() {} };
        tokio::time::timeout(DEADLINE, until_it_is).await.expect("it is written in time");
        let (found, told) = store.tallies(&scopes("s"), &PERIODS, "w").await.unwrap();
        assert_eq!((found, told), (vec![vec![of(number); 2]; 3], number));
    }
}
