//! What the table knows of messages, delays and leases.

use std::time::Duration;

use galerna_lease::{Lease, QueueRecord};

use super::*;

const WALL: Timestamp = Timestamp(1_000_000);

fn new_table(strategy: StrategyName, now: Instant) -> QueueTable {
    let mut table = QueueTable::new(Timing::default(), HashMap::new());
    table.set_strategy(strategy, now);
    table
}

fn record(name: &str, state: QueueState, version: u64) -> QueueRecord {
    let mut r = QueueRecord::new(name.parse().unwrap(), AccountId::new(name).unwrap(), WALL);
    r.state = state;
    r.version = version;
    if state == QueueState::Leased {
        r.epoch = version;
        r.lease = Some(Lease {
            consumer: "w".into(),
            granted_at: WALL,
            expires_at: WALL,
            lease_ms: 60_000,
            renewal: 0,
            request: None,
        });
    } else if version > 0 {
        r.epoch = version - 1;
    }
    r
}

fn counted(mut r: QueueRecord, ready: u64, at: i64) -> QueueRecord {
    r.ready = ready;
    r.counted_at = Some(Timestamp(at));
    r
}

#[tokio::test(start_paused = true)]
async fn lru_knows_messages_by_counts_hints_and_how_leases_ended() {
    use QueueState::{Empty, Idle, Leased};
    let now = Instant::now();
    let cases: Vec<(&str, Vec<QueueRecord>, usize)> = vec![
        ("a new queue that nobody counted", vec![record("D1", Idle, 0)], 0),
        ("counted with messages", vec![counted(record("D1", Idle, 0), 3, 1)], 1),
        ("counted without", vec![counted(record("D1", Idle, 0), 0, 1)], 0),
        ("released not empty", vec![record("D1", Leased, 1), record("D1", Idle, 2)], 1),
        ("released empty", vec![record("D1", Leased, 1), record("D1", Empty, 2)], 0),
        (
            "released empty although counted before",
            vec![counted(record("D1", Leased, 1), 9, 1), counted(record("D1", Empty, 2), 9, 1)],
            0,
        ),
        (
            "released empty and counted since",
            vec![record("D1", Leased, 1), record("D1", Empty, 2), counted(record("D1", Empty, 2), 9, 5)],
            1,
        ),
        ("an older record changes nothing", vec![record("D1", Idle, 2), record("D1", Leased, 1)], 1),
    ];
    for (case, records, leasable) in cases {
        let mut table = new_table(StrategyName::Lru, now);
        for r in records {
            table.apply(r, now, WALL);
        }
        assert_eq!(table.leasable(), leasable, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_hint_that_comes_while_a_queue_is_marked_as_empty_is_not_forgotten() {
    let now = Instant::now();
    let name = ["D1".parse().unwrap()];
    for (case, before) in [("marked by its count", QueueState::Idle), ("found empty", QueueState::Leased)] {
        let mut table = new_table(StrategyName::Lru, now);
        let id = table.apply(record("D1", before, 1), now, WALL);
        table.begin_write(id);
        assert_eq!((table.hint(&name, now), table.leasable()), (1, 0), "{case}: a write is under way");
        // Seen in the store before the write has been answered.
        table.apply(record("D1", QueueState::Empty, 2), now, WALL);
        table.end_write(id, now);
        assert_eq!(table.leasable(), 1, "{case}");
        table.begin_write(id);
        table.apply(record("D1", QueueState::Leased, 3), now, WALL);
        table.end_write(id, now);
        table.begin_write(id);
        table.apply(record("D1", QueueState::Empty, 4), now, WALL);
        table.end_write(id, now);
        assert_eq!(table.leasable(), 0, "{case}: an earlier hint says nothing of what was found since");
    }
}

#[tokio::test(start_paused = true)]
async fn leases_that_a_dispatcher_finds_are_watched_for_their_whole_time() {
    let now = Instant::now();
    let mut table = new_table(StrategyName::Lru, now);
    table.apply(record("D1", QueueState::Idle, 1), now, WALL);
    assert_eq!(table.watched(), None);
    table.apply(record("D2", QueueState::Leased, 1), now, WALL);
    table.apply(record("D3", QueueState::Leased, 1), now, WALL);
    let timing = Timing::default();
    assert_eq!(table.watched(), Some((2, now + timing.lease + timing.expiry_margin)));
}

#[tokio::test(start_paused = true)]
async fn a_void_count_is_written_once_with_a_time_just_after_it() {
    let now = Instant::now();
    let mut table = new_table(StrategyName::Lru, now);
    table.apply(counted(record("D1", QueueState::Leased, 1), 9, 500), now, WALL);
    table.apply(counted(record("D1", QueueState::Empty, 2), 9, 500), now, WALL);
    assert_eq!((table.void_counts.len(), table.void_counts[0].ready), (1, 0));
    assert_eq!(table.last_count, Some(Timestamp(500)));
    table.apply(counted(record("D1", QueueState::Empty, 2), 9, 500), now, WALL);
    assert_eq!(table.leasable(), 0, "the same count again is no news");
    table.apply(counted(record("D1", QueueState::Empty, 2), 9, 900), now, WALL);
    assert_eq!(table.leasable(), 1, "a later one is");
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_due_only_after_it_was_watched_for_its_time_and_the_margin() {
    let begin = Instant::now();
    let mut table = new_table(StrategyName::Fifo, begin);
    table.apply(record("D1", QueueState::Leased, 1), begin, WALL);
    let timing = Timing::default();
    let due = |table: &mut QueueTable, at: Duration| table.expired(begin + at, 10).len();
    assert_eq!(due(&mut table, timing.lease), 0);
    // A renewal seen after 50 s starts the watch anew.
    let mut renewed = record("D1", QueueState::Leased, 1);
    renewed.version = 2;
    renewed.lease.as_mut().unwrap().renewal = 1;
    table.apply(renewed, begin + Duration::from_secs(50), WALL);
    assert_eq!(due(&mut table, timing.lease + timing.expiry_margin), 0);
    assert_eq!(due(&mut table, Duration::from_secs(50) + timing.lease + timing.expiry_margin), 1);
    assert_eq!(due(&mut table, Duration::from_secs(111)), 0, "not at every look");
    assert_eq!(due(&mut table, Duration::from_secs(120)), 1, "but again when nothing came of it");
}

#[tokio::test(start_paused = true)]
async fn a_delay_after_crashes_is_no_longer_than_it_can_be_whatever_the_clocks_say() {
    let now = Instant::now();
    let mut table = new_table(StrategyName::Fifo, now);
    let mut crashed = record("D1", QueueState::Idle, 5);
    crashed.crashes = 3;
    crashed.not_before = Some(WALL.plus_millis(86_400_000));
    table.apply(crashed, now, WALL);
    assert_eq!(table.leasable(), 0);
    assert_eq!(table.next_timer(), Some(now + Duration::from_secs(2)));
    table.expired(now + Duration::from_secs(2), 10);
    assert_eq!(table.leasable(), 1);
}

#[tokio::test(start_paused = true)]
async fn removed_queues_leave_and_their_places_are_used_again() {
    let now = Instant::now();
    let mut table = new_table(StrategyName::Fifo, now);
    table.apply(record("D1", QueueState::Leased, 1), now, WALL);
    table.apply(record("D2", QueueState::Idle, 0), now, WALL);
    table.remove(&"D1".parse().unwrap());
    table.remove(&"D2".parse().unwrap());
    assert_eq!((table.len(), table.leasable(), table.counts()), (0, 0, [0; 5]));
    assert!(table.expired(now + Duration::from_secs(3_600), 10).is_empty());
    table.apply(record("D3", QueueState::Idle, 0), now, WALL);
    assert_eq!((table.len(), table.leasable()), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn fair_charges_no_time_for_a_lease_that_ended_because_its_queue_was_empty() {
    let now = Instant::now();
    let end = now + Duration::from_secs(60);
    for (case, ended, first) in
        [("found empty", QueueState::Empty, "D1"), ("with messages left", QueueState::Idle, "D2")]
    {
        let mut table = new_table(StrategyName::Fair, now);
        table.apply(record("D1", QueueState::Idle, 0), now, WALL);
        table.hint(&["D1".parse().unwrap()], now);
        table.apply(record("D1", QueueState::Leased, 1), now, WALL);
        table.apply(record("D1", ended, 2), end, WALL);
        table.apply(record("D2", QueueState::Idle, 0), end, WALL);
        table.hint(&["D1".parse().unwrap(), "D2".parse().unwrap()], end);
        let next = table.take(1).expect("both can be leased");
        assert_eq!(table.entry(next).record.queue.as_str(), first, "{case}");
    }
}
