//! Queue states.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use galerna_model::Timestamp;
use galerna_storage::{Lease, QueueRecord, QueueState, ReadyCount, StorageError, Store, Swap, Swapped};

use super::{account, hour, queue};

fn new(name: &str) -> QueueRecord {
    QueueRecord::new(queue(name), account("acc"), hour(0))
}

fn leased(record: &QueueRecord, consumer: &str) -> Swap {
    let lease = Lease {
        consumer: consumer.into(),
        granted_at: hour(1),
        expires_at: hour(2),
        lease_ms: 60_000,
        renewal: 0,
        request: None,
    };
    Swap {
        expected: record.version,
        record: QueueRecord {
            version: record.version + 1,
            epoch: record.epoch + 1,
            state: QueueState::Leased,
            lease: Some(lease),
            ..record.clone()
        },
    }
}

async fn stored(store: &Store, name: &str) -> QueueRecord {
    store.queues.get(&queue(name)).await.expect("the store answers").expect("the queue is known")
}

pub(super) async fn a_record_comes_back_as_it_was_created(store: &Store) {
    let full = QueueRecord {
        version: 7,
        state: QueueState::Paused,
        epoch: u64::from(u32::MAX) + 1,
        lease: Some(Lease {
            consumer: "w1 \"quoted\" ñ".into(),
            granted_at: Timestamp(-1),
            expires_at: hour(5),
            lease_ms: 60_000,
            renewal: 3,
            request: Some("5f3a \"quoted\" ñ".into()),
        }),
        last_delivered: Some(hour(1)),
        crashes: 4,
        not_before: Some(hour(2)),
        reason: Some("$set {\"a\": 1}".into()),
        since: hour(3),
        ready: 4_073_477,
        unacked: 1_524,
        counted_at: Some(hour(4)),
        ..new("$odd.name#1")
    };
    let flagged = QueueRecord {
        state: QueueState::Deleting,
        reason: Some("deleting: a reason that begins so".into()),
        ..new("flagged")
    };
    let claimed = QueueRecord { deletion_claimed: true, ..flagged.clone() };
    let records = [full, QueueRecord { queue: queue("claimed"), ..claimed }, flagged, new("plain")];
    let mut created = store.queues.create(&records).await.expect("created");
    created.sort();
    assert_eq!(created, records.each_ref().map(|record| record.queue.clone()));
    let mut all = store.queues.all().await.expect("listed");
    all.sort_by(|a, b| a.queue.cmp(&b.queue));
    assert_eq!(all, records);
    assert_eq!(stored(store, "$odd.name#1").await, records[0]);
    assert_eq!(store.queues.get(&queue("none")).await.expect("answered"), None);
}

pub(super) async fn creating_leaves_existing_records_alone(store: &Store) {
    store.queues.create(&[new("a")]).await.expect("created");
    let swap = leased(&new("a"), "w1");
    store.queues.swap(std::slice::from_ref(&swap)).await.expect("swapped");
    assert_eq!(store.queues.create(&[new("a"), new("b")]).await.expect("created"), [queue("b")]);
    assert_eq!(stored(store, "a").await, swap.record);
    assert_eq!(store.queues.create(&[]).await.expect("nothing to create"), []);
}

pub(super) async fn a_swap_writes_everything_but_the_counts(store: &Store) {
    store.queues.create(&[new("a")]).await.expect("created");
    let count = ReadyCount { queue: queue("a"), ready: 10, unacked: 2 };
    store.queues.set_ready(&[count], hour(9)).await.expect("counted");
    let leased = leased(&new("a"), "w1");
    assert_eq!(store.queues.swap(std::slice::from_ref(&leased)).await.expect("swapped"), [Swapped::Done]);
    let counted = |r: QueueRecord| QueueRecord { ready: 10, unacked: 2, counted_at: Some(hour(9)), ..r };
    assert_eq!(stored(store, "a").await, counted(leased.record.clone()));

    let released = QueueRecord {
        version: 2,
        state: QueueState::Idle,
        lease: None,
        last_delivered: Some(hour(2)),
        crashes: 1,
        not_before: Some(hour(3)),
        reason: Some("expired".into()),
        since: hour(2),
        account: account("other"),
        ..leased.record
    };
    let swap = Swap { expected: 1, record: released.clone() };
    assert_eq!(store.queues.swap(&[swap]).await.expect("swapped"), [Swapped::Done]);
    assert_eq!(stored(store, "a").await, counted(released.clone()));

    let claimed =
        QueueRecord { version: 3, state: QueueState::Deleting, deletion_claimed: true, ..released.clone() };
    let swap = Swap { expected: 2, record: claimed.clone() };
    assert_eq!(store.queues.swap(&[swap]).await.expect("swapped"), [Swapped::Done]);
    assert_eq!(stored(store, "a").await, counted(claimed));
}

pub(super) async fn a_lost_swap_writes_nothing_and_gives_what_is_stored(store: &Store) {
    store.queues.create(&[new("a")]).await.expect("created");
    let winner = leased(&new("a"), "winner");
    store.queues.swap(std::slice::from_ref(&winner)).await.expect("swapped");
    let mut last = winner.record.clone();
    // From every version there was, even and odd ones, however long past.
    for version in 1..=4 {
        for stale in 0..version {
            let from = QueueRecord { version: stale, ..new("a") };
            let answer = store.queues.swap(&[leased(&from, "loser")]).await.expect("answered");
            assert_eq!(answer, [Swapped::Conflict(Some(last.clone()))], "from {stale} at {version}");
        }
        let next = leased(&last, "winner");
        assert_eq!(store.queues.swap(std::slice::from_ref(&next)).await.expect("swapped"), [Swapped::Done]);
        last = next.record;
    }
    assert_eq!(stored(store, "a").await, last);
}

pub(super) async fn a_swap_of_an_unknown_queue_conflicts_and_creates_nothing(store: &Store) {
    let answer = store.queues.swap(&[leased(&new("ghost"), "w1")]).await.expect("answered");
    assert_eq!(answer, [Swapped::Conflict(None)]);
    assert_eq!(store.queues.all().await.expect("listed"), []);
    assert_eq!(store.queues.swap(&[]).await.expect("nothing to swap"), []);
}

pub(super) async fn the_swaps_of_one_call_stand_alone(store: &Store) {
    let records: Vec<QueueRecord> = (0..90).map(|i| new(&format!("q{i}"))).collect();
    store.queues.create(&records).await.expect("created");
    let taken: Vec<Swap> = records.iter().step_by(3).map(|r| leased(r, "first")).collect();
    store.queues.swap(&taken).await.expect("swapped");

    let mut swaps: Vec<Swap> = records.iter().map(|r| leased(r, "second")).collect();
    swaps.insert(10, leased(&new("ghost"), "second"));
    let answers = store.queues.swap(&swaps).await.expect("answered");
    assert_eq!(answers.len(), swaps.len());
    for (swap, answer) in swaps.iter().zip(answers) {
        let name = swap.record.queue.as_str();
        if name == "ghost" {
            assert_eq!(answer, Swapped::Conflict(None));
        } else if name[1..].parse::<usize>().is_ok_and(|i| i % 3 == 0) {
            assert!(
                matches!(answer, Swapped::Conflict(Some(r)) if r.lease.as_ref().is_some_and(|l| l.consumer == "first"))
            );
        } else {
            assert_eq!(answer, Swapped::Done, "{name}");
            assert_eq!(stored(store, name).await, swap.record);
        }
    }
}

pub(super) async fn a_swap_that_breaks_the_versions_is_refused(store: &Store) {
    store.queues.create(&[new("a"), new("b")]).await.expect("created");
    let good = leased(&new("a"), "w1");
    let mut skipping = leased(&new("b"), "w1");
    skipping.record.version = 2;
    let refused = store.queues.swap(&[good, skipping]).await.expect_err("refused");
    assert!(matches!(&refused, StorageError::Invalid(e) if e.contains("queue b")), "{refused}");
    assert_eq!(stored(store, "a").await, new("a"), "none of them was done");
}

/// At most one live lease a queue, and epochs that only grow: what the lease protocol promises, as far as the store must keep it.
pub(super) async fn of_concurrent_swaps_of_one_version_exactly_one_wins(store: &Store) {
    const SWAPPERS: usize = 8;
    const WINS: usize = 12;
    let names: Vec<String> = (0..3).map(|i| format!("q{i}")).collect();
    let records: Vec<QueueRecord> = names.iter().map(|n| new(n)).collect();
    store.queues.create(&records).await.expect("created");

    let swappers: Vec<_> = (0..SWAPPERS)
        .map(|swapper| {
            let (store, records) = (store.clone(), records.clone());
            tokio::spawn(async move {
                // All swappers go on from what the last answer told them, in one call for all queues.
                let mut seen = records;
                let mut won: Vec<(String, u64, u64)> = Vec::new();
                while won.len() < WINS {
                    let swaps: Vec<Swap> = seen.iter().map(|r| leased(r, &format!("w{swapper}"))).collect();
                    let answers = store.queues.swap(&swaps).await.expect("answered");
                    for ((seen, swap), answer) in seen.iter_mut().zip(swaps).zip(answers) {
                        match answer {
                            Swapped::Done => {
                                won.push((
                                    swap.record.queue.to_string(),
                                    swap.record.version,
                                    swap.record.epoch,
                                ));
                                *seen = swap.record;
                            }
                            Swapped::Conflict(Some(stored)) => {
                                assert_ne!(stored.version, swap.expected, "it would have won");
                                *seen = stored;
                            }
                            Swapped::Conflict(None) => panic!("nobody removed the queue"),
                        }
                    }
                }
                won
            })
        })
        .collect();
    let mut winners: BTreeMap<String, BTreeMap<u64, u64>> = BTreeMap::new();
    for swapper in swappers {
        for (name, version, epoch) in swapper.await.expect("the swapper ends") {
            let twice = winners.entry(name.clone()).or_default().insert(version, epoch);
            assert_eq!(twice, None, "version {version} of {name} was won twice");
        }
    }
    for name in &names {
        let (won, stored) = (&winners[name], stored(store, name).await);
        assert_eq!(won.len() as u64, stored.version, "each version of {name} has one winner");
        assert!(
            won.iter().all(|(version, epoch)| version == epoch),
            "the epoch of {name} grew by one each time"
        );
        assert_eq!(stored.epoch, stored.version);
    }
}

pub(super) async fn removal_is_guarded_by_the_version(store: &Store) {
    store.queues.create(&[new("a")]).await.expect("created");
    store.queues.swap(&[leased(&new("a"), "w1")]).await.expect("swapped");
    assert!(!store.queues.remove(&queue("a"), 0).await.expect("answered"), "it has version 1");
    assert!(store.queues.remove(&queue("a"), 1).await.expect("removed"));
    assert!(!store.queues.remove(&queue("a"), 1).await.expect("answered"), "it is gone");
    assert!(!store.queues.remove(&queue("ghost"), 0).await.expect("answered"));
    assert_eq!(store.queues.all().await.expect("listed"), []);
    assert_eq!(store.queues.get(&queue("a")).await.expect("answered"), None);
    let late = leased(&QueueRecord { version: 1, epoch: 1, ..new("a") }, "late");
    assert_eq!(store.queues.swap(&[late]).await.expect("answered"), [Swapped::Conflict(None)]);
}

pub(super) async fn a_queue_created_again_goes_on_from_its_epoch(store: &Store) {
    store.queues.create(&[new("a"), new("b")]).await.expect("created");
    let first = leased(&new("a"), "old holder");
    store.queues.swap(std::slice::from_ref(&first)).await.expect("swapped");
    assert!(store.queues.remove(&queue("a"), 1).await.expect("removed"));

    assert_eq!(store.queues.create(&[new("a"), new("b")]).await.expect("created"), [queue("a")]);
    let again = stored(store, "a").await;
    assert_eq!(again, QueueRecord { version: 2, epoch: 1, ..new("a") });
    // Whoever still has the record of before can do nothing with it.
    let late = leased(&first.record, "old holder");
    assert_eq!(store.queues.swap(&[late]).await.expect("answered"), [Swapped::Conflict(Some(again.clone()))]);
    let next = leased(&again, "new holder");
    assert_eq!(next.record.epoch, 2);
    assert_eq!(store.queues.swap(&[next]).await.expect("swapped"), [Swapped::Done]);
    // And once more, from there.
    assert!(store.queues.remove(&queue("a"), 3).await.expect("removed"));
    store.queues.create(&[new("a")]).await.expect("created");
    assert_eq!(stored(store, "a").await, QueueRecord { version: 4, epoch: 2, ..new("a") });
}

pub(super) async fn counts_touch_neither_version_nor_state(store: &Store) {
    store.queues.create(&[new("a")]).await.expect("created");
    let swap = leased(&new("a"), "w1");
    store.queues.swap(std::slice::from_ref(&swap)).await.expect("swapped");
    let count = |ready| [ReadyCount { queue: queue("a"), ready, unacked: 1 }];
    store.queues.set_ready(&count(5), hour(1)).await.expect("counted");
    let counted = QueueRecord { ready: 5, unacked: 1, counted_at: Some(hour(1)), ..swap.record };
    assert_eq!(stored(store, "a").await, counted);

    // Unchanged, a second later: not worth a write. Much later: the time is brought up to date.
    store.queues.set_ready(&count(5), hour(1).plus_millis(1000)).await.expect("counted");
    assert_eq!(stored(store, "a").await, counted);
    store.queues.set_ready(&count(5), hour(2)).await.expect("counted");
    assert_eq!(stored(store, "a").await.counted_at, Some(hour(2)));
}

pub(super) async fn older_counts_and_counts_of_unknown_queues_change_nothing(store: &Store) {
    store.queues.create(&[new("a"), new("gone")]).await.expect("created");
    assert!(store.queues.remove(&queue("gone"), 0).await.expect("removed"));
    let count = |name: &str, ready| ReadyCount { queue: queue(name), ready, unacked: 0 };
    store
        .queues
        .set_ready(&[count("a", 5), count("ghost", 1), count("gone", 1)], hour(2))
        .await
        .expect("counted");
    store.queues.set_ready(&[count("a", 9)], hour(1)).await.expect("counted");
    store.queues.set_ready(&[], hour(3)).await.expect("nothing to count");
    let expected = QueueRecord { ready: 5, counted_at: Some(hour(2)), ..new("a") };
    assert_eq!(store.queues.all().await.expect("listed"), [expected]);
}

pub(super) async fn changes_are_given_once_they_are_durable(store: &Store) {
    let names = |records: Vec<QueueRecord>| {
        let mut names: Vec<String> = records.into_iter().map(|r| r.queue.to_string()).collect();
        names.sort();
        names
    };
    let nothing = store.queues.changes(0).await.expect("answered");
    assert_eq!((nothing.records, nothing.removed), (vec![], vec![]));

    store.queues.create(&[new("a"), new("b"), new("c")]).await.expect("created");
    let first = store.queues.changes(nothing.cursor).await.expect("answered");
    assert_eq!(names(first.records), ["a", "b", "c"]);

    let swap = leased(&new("b"), "w1");
    store.queues.swap(std::slice::from_ref(&swap)).await.expect("swapped");
    store.queues.swap(&[leased(&new("b"), "loser")]).await.expect("lost");
    let second = store.queues.changes(first.cursor).await.expect("answered");
    assert_eq!(second.records, [swap.record]);

    store
        .queues
        .set_ready(&[ReadyCount { queue: queue("c"), ready: 1, unacked: 0 }], hour(1))
        .await
        .expect("counted");
    assert!(store.queues.remove(&queue("a"), 0).await.expect("removed"));
    let third = store.queues.changes(second.cursor).await.expect("answered");
    assert_eq!((names(third.records), third.removed), (vec!["c".to_owned()], vec![queue("a")]));

    // The same cursor again gives the same: an answer may be lost.
    let repeated = store.queues.changes(second.cursor).await.expect("answered");
    assert_eq!((names(repeated.records), repeated.removed), (vec!["c".to_owned()], vec![queue("a")]));

    store.queues.create(&[new("a")]).await.expect("created");
    let fourth = store.queues.changes(third.cursor).await.expect("answered");
    assert_eq!((names(fourth.records), fourth.removed), (vec!["a".to_owned()], vec![]));
    let last = store.queues.changes(fourth.cursor).await.expect("answered");
    assert_eq!((last.records, last.removed), (vec![], vec![]));
    let all = store.queues.changes(0).await.expect("answered");
    assert_eq!(names(all.records), ["a", "b", "c"]);
}

pub(super) async fn no_change_is_missed_while_many_write(store: &Store) {
    const QUEUES: usize = 40;
    let records: Vec<QueueRecord> = (0..QUEUES).map(|i| new(&format!("q{i}"))).collect();
    store.queues.create(&records).await.expect("created");

    let over = Arc::new(AtomicBool::new(false));
    let reader = {
        let (store, over) = (store.clone(), Arc::clone(&over));
        tokio::spawn(async move {
            let mut known: HashMap<String, QueueRecord> = HashMap::new();
            let mut cursor = 0;
            loop {
                // Looked at before the call: the call after the last write must tell all.
                let last = over.load(Ordering::SeqCst);
                let changes = store.queues.changes(cursor).await.expect("answered");
                cursor = changes.cursor;
                for record in changes.records {
                    known.insert(record.queue.to_string(), record);
                }
                if last {
                    return known;
                }
            }
        })
    };
    let writers: Vec<_> = (0..4)
        .map(|writer| {
            let store = store.clone();
            let mine: Vec<QueueRecord> = records.iter().skip(writer).step_by(4).cloned().collect();
            tokio::spawn(async move {
                let mut seen = mine;
                for _ in 0..25 {
                    let swaps: Vec<Swap> = seen.iter().map(|r| leased(r, "w")).collect();
                    assert!(
                        store.queues.swap(&swaps).await.expect("swapped").iter().all(|a| *a == Swapped::Done)
                    );
                    seen = swaps.into_iter().map(|s| s.record).collect();
                }
            })
        })
        .collect();
    for writer in writers {
        writer.await.expect("the writer ends");
    }
    over.store(true, Ordering::SeqCst);
    let known = reader.await.expect("the reader ends");
    let all = store.queues.all().await.expect("listed");
    assert_eq!(all.len(), QUEUES);
    for record in all {
        assert_eq!(record.version, 25);
        assert_eq!(known.get(record.queue.as_str()), Some(&record));
    }
}

pub(super) async fn an_unknown_cursor_is_answered_with_everything(store: &Store) {
    store.queues.create(&[new("a"), new("b")]).await.expect("created");
    let known = store.queues.changes(0).await.expect("answered").cursor;
    assert_ne!(known, 0);
    // A cursor below all that was given is as good as none; here, and for a store that numbers otherwise.
    let changes = store.queues.changes(1).await.expect("answered");
    let names: HashSet<String> = changes.records.iter().map(|r| r.queue.to_string()).collect();
    assert!(names.contains("b"));
}
