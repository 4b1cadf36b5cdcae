//! Statistics, sentence by sentence, on each of the stores.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use galerna_model::ManualClock;
use galerna_storage::mongo::{self, MongoOptions};
use galerna_storage::{StorageError, sqlite};
use galerna_test_servers::{Mongo, unique};

use super::*;

/// Where a store can be opened again and again.
enum Place {
    File(tempfile::TempDir),
    Database(String),
}

impl Place {
    fn all() -> [Self; 2] {
        [Self::File(tempfile::tempdir().unwrap()), Self::Database(unique("statistics"))]
    }

    async fn open(&self) -> Arc<dyn StatisticsStore> {
        let store = match self {
            Self::File(folder) => sqlite::open(folder.path().join("store.db")).await.unwrap(),
            Self::Database(name) => {
                let options = MongoOptions {
                    database: Some(name.clone()),
                    timeout: Duration::from_secs(60),
                    ..MongoOptions::new(Mongo::shared().await.uri())
                };
                mongo::connect(options).await.unwrap()
            }
        };
        store.statistics
    }

    /// For two frontends: in two processes where the store can be shared.
    async fn open_two(&self) -> [Arc<dyn StatisticsStore>; 2] {
        let one = self.open().await;
        match self {
            Self::File(_) => [Arc::clone(&one), one],
            Self::Database(_) => [one, self.open().await],
        }
    }
}

fn source(id: &str) -> SourceId {
    SourceId::new(id).unwrap()
}

fn account(id: &str) -> AccountId {
    AccountId::new(id).unwrap()
}

fn statistics(store: Arc<dyn StatisticsStore>, clock: &ManualClock, writer: &str) -> Statistics {
    Statistics::new(store, Arc::new(clock.clone()), StatisticsOptions::default(), writer.to_owned())
}

fn count(statistics: &Statistics, who: (&str, &str), readings: u64, id: u32, at: Timestamp) {
    let tally = Tally { messages: 1, readings, values: 2 * readings };
    let message = LastMessage {
        id: format!("r{id}"),
        received: at,
        readings,
        rejected: 0,
        text: format!("<script>{id}</script>"),
        cut: false,
    };
    statistics.count(&source(who.0), &account(who.1), tally, message);
}

fn of(messages: u64, readings: u64) -> Tally {
    Tally { messages, readings, values: 2 * readings }
}

async fn hours(statistics: &Statistics, scope: Scope) -> [Tally; 3] {
    let three = statistics.traffic(&[scope]).await.unwrap()[0].hour;
    [three.now, three.last, three.last_but_one]
}

#[tokio::test]
async fn counts_by_hour_day_week_and_month_are_exact_before_and_after_flushes_and_restarts() {
    for place in Place::all() {
        let start = Timestamp::parse("2016-02-29T22:30:00Z").unwrap();
        let clock = ManualClock::at(start);
        let (a, b) = (("s1", "a"), ("s2", "b"));
        {
            let statistics = statistics(place.open().await, &clock, "first");
            count(&statistics, a, 10, 1, clock.now());
            assert_eq!(
                hours(&statistics, Scope::Source(source("s1"))).await,
                [of(1, 10), of(0, 0), of(0, 0)]
            );
            statistics.flush().await.unwrap();
            count(&statistics, a, 5, 2, clock.now());
            count(&statistics, b, 1, 3, clock.now());
            assert_eq!(
                hours(&statistics, Scope::Source(source("s1"))).await,
                [of(2, 15), of(0, 0), of(0, 0)]
            );
            statistics.flush().await.unwrap();
        }
        clock.advance(3_600_000);
        let statistics = statistics(place.open().await, &clock, "second");
        count(&statistics, a, 100, 4, clock.now());
        assert_eq!(hours(&statistics, Scope::Source(source("s1"))).await, [of(1, 100), of(2, 15), of(0, 0)]);
        assert_eq!(hours(&statistics, Scope::All).await, [of(1, 100), of(3, 16), of(0, 0)]);
        assert_eq!(hours(&statistics, Scope::Account(account("b"))).await, [of(0, 0), of(1, 1), of(0, 0)]);

        // Over midnight it is another day, of the same week, of another month.
        clock.advance(3_600_000);
        let traffic = statistics.traffic(&[Scope::Account(account("a"))]).await.unwrap()[0];
        assert_eq!(traffic.hour.last_but_one, of(2, 15));
        assert_eq!((traffic.day.now, traffic.day.last), (of(0, 0), of(3, 115)));
        assert_eq!(traffic.week.now, of(3, 115));
        assert_eq!((traffic.month.now, traffic.month.last), (of(0, 0), of(3, 115)));
    }
}

#[tokio::test]
async fn the_last_ten_messages_are_kept_newest_first_over_restarts() {
    for place in Place::all() {
        let clock = ManualClock::at(Timestamp(0));
        let first = statistics(place.open().await, &clock, "first");
        for id in 0..25 {
            clock.advance(1);
            count(&first, ("s1", "a"), 1, id, clock.now());
            if id == 7 || id == 20 {
                first.flush().await.unwrap();
            }
        }
        let ids = |list: Vec<LastMessage>| list.into_iter().map(|m| m.id).collect::<Vec<_>>();
        let expected: Vec<String> = (15..25).rev().map(|id| format!("r{id}")).collect();
        assert_eq!(ids(first.last_messages(&source("s1")).await.unwrap()), expected);
        first.flush().await.unwrap();
        drop(first);
        let second = statistics(place.open().await, &clock, "second");
        assert_eq!(ids(second.last_messages(&source("s1")).await.unwrap()), expected);
        assert!(second.last_messages(&source("s2")).await.unwrap().is_empty());
    }
}

/// A store that takes a batch and then says that it failed, or fails before.
struct Doubtful(Arc<dyn StatisticsStore>, AtomicU32);

#[async_trait]
impl StatisticsStore for Doubtful {
    async fn add(&self, batch: Arc<Batch>) -> Result<()> {
        let failed = StorageError::Unavailable {
            attempted: "adding counts".to_owned(),
            cause: "nobody knows".to_owned(),
        };
        match self.1.fetch_add(1, Ordering::SeqCst) {
            0 => Err(failed),
            1 => self.0.add(batch).await.and(Err(failed)),
            _ => self.0.add(batch).await,
        }
    }
    async fn tallies(
        &self,
        scopes: &[Scope],
        periods: &[(Period, Timestamp)],
        writer: &str,
    ) -> Result<(Vec<Vec<Tally>>, u64)> {
        self.0.tallies(scopes, periods, writer).await
    }
    async fn last_messages(&self, s: &SourceId, writer: &str) -> Result<(Vec<LastMessage>, u64)> {
        self.0.last_messages(s, writer).await
    }
}

#[tokio::test]
async fn a_flush_whose_outcome_is_unknown_counts_once() {
    for place in Place::all() {
        let clock = ManualClock::at(Timestamp(0));
        let store = Doubtful(place.open().await, AtomicU32::new(0));
        let statistics = statistics(Arc::new(store), &clock, "w");
        let scope = || Scope::Source(source("s1"));
        count(&statistics, ("s1", "a"), 3, 1, clock.now());
        for (failed, then) in [(true, 3), (true, 3), (false, 3)] {
            assert_eq!(statistics.flush().await.is_err(), failed);
            assert_eq!(hours(&statistics, scope()).await[0].readings, then);
            assert_eq!(statistics.last_messages(&source("s1")).await.unwrap().len(), 1);
        }
        count(&statistics, ("s1", "a"), 4, 2, clock.now());
        assert_eq!(hours(&statistics, scope()).await[0], of(2, 7));
        statistics.flush().await.unwrap();
        assert_eq!(hours(&statistics, scope()).await[0], of(2, 7));
    }
}

#[tokio::test]
async fn two_frontends_add_to_one_store() {
    for place in Place::all() {
        let clock = ManualClock::at(Timestamp(0));
        let [one, two] = place.open_two().await;
        let (one, two) = (statistics(one, &clock, "one"), statistics(two, &clock, "two"));
        for id in 0..20 {
            count(&one, ("s1", "a"), 1, id, clock.now());
            count(&two, ("s1", "a"), 2, id, clock.now());
            let (a, b) = tokio::join!(one.flush(), two.flush());
            a.and(b).unwrap();
        }
        assert_eq!(hours(&one, Scope::All).await[0], of(40, 60));
        assert_eq!(hours(&two, Scope::All).await[0], of(40, 60));
    }
}

#[tokio::test]
async fn texts_that_wait_are_bounded_and_cut_between_characters() {
    let clock = ManualClock::at(Timestamp(0));
    let options = StatisticsOptions { waiting_bytes: 50, message_bytes: 4, ..StatisticsOptions::default() };
    let store = sqlite::in_memory().unwrap().statistics;
    let statistics = Statistics::new(store, Arc::new(clock.clone()), options, "w".to_owned());
    assert_eq!(statistics.excerpt("abcdef".as_bytes()), ("abcd".to_owned(), true));
    assert_eq!(statistics.excerpt("abcäf".as_bytes()), ("abc".to_owned(), true));
    assert_eq!(statistics.excerpt(b"abcd"), ("abcd".to_owned(), false));
    for id in 0..5 {
        count(&statistics, (&format!("s{id}"), "a"), 1, id, clock.now());
    }
    assert!(statistics.state.lock().counting.bytes <= 50);
    let last = statistics.last_messages(&source("s4")).await.unwrap();
    assert!(last[0].text.is_empty() && last[0].cut);
    assert_eq!(hours(&statistics, Scope::All).await[0].messages, 5);
}

#[tokio::test]
async fn the_last_messages_are_those_of_all_frontends() {
    for place in Place::all() {
        let clock = ManualClock::at(Timestamp(0));
        let [one, two] = place.open_two().await;
        let (one, two) = (statistics(one, &clock, "one"), statistics(two, &clock, "two"));
        for id in 0..30 {
            clock.advance(1);
            let writer = if id % 3 == 0 { &one } else { &two };
            count(writer, ("s1", "a"), 1, id, clock.now());
            if id % 7 == 0 {
                two.flush().await.unwrap();
                one.flush().await.unwrap();
            }
        }
        one.flush().await.and(two.flush().await).unwrap();
        let expected: Vec<String> = (20..30).rev().map(|id| format!("r{id}")).collect();
        for reader in [&one, &two] {
            let last = reader.last_messages(&source("s1")).await.unwrap();
            assert_eq!(last.into_iter().map(|m| m.id).collect::<Vec<_>>(), expected);
        }
    }
}

#[tokio::test]
async fn what_a_server_that_fails_or_hangs_did_not_take_is_counted_once_when_it_is_back() {
    let server = Mongo::start().await;
    let options = MongoOptions { timeout: Duration::from_secs(2), ..MongoOptions::new(server.uri()) };
    let store = mongo::connect(options).await.unwrap().statistics;
    let clock = ManualClock::at(Timestamp(0));
    let options = StatisticsOptions::default();
    let statistics = Statistics::new(store, Arc::new(clock.clone()), options, "w".to_owned());
    let add = |number: u32| {
        count(&statistics, ("s", "a"), 1, number, clock.now());
    };
    let flushed = async || {
        let until_it_is = async {
            while let Err(e) = statistics.flush().await {
                assert!(e.to_string().contains("while adding counts: "), "{e}");
            }
        };
        tokio::time::timeout(Duration::from_secs(60), until_it_is).await.expect("it is written in time");
    };
    add(1);
    flushed().await;

    server.freeze().await;
    add(2);
    statistics.flush().await.unwrap_err();
    statistics.traffic(&[Scope::All]).await.unwrap_err();
    server.thaw().await;
    flushed().await;
    let read = async || statistics.traffic(&[Scope::All, Scope::Account(account("a"))]).await.unwrap();
    assert!(read().await.iter().all(|traffic| traffic.hour.now == of(2, 2)));

    add(3);
    server.kill().await;
    statistics.flush().await.unwrap_err();
    add(4);
    server.restart().await;
    flushed().await;
    assert!(read().await.iter().all(|traffic| traffic.hour.now == of(4, 4)));
    let last = statistics.last_messages(&source("s")).await.unwrap();
    assert_eq!(last.len(), 4);
}
