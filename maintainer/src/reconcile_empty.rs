//! What a fresh count of messages says of a queue: pure, no I/O.

use std::time::Duration;

use galerna_broker::Depth;
use galerna_lease::QueueEvent;
use galerna_model::Timestamp;
use galerna_storage::{QueueRecord, QueueState};

/// The event that a count causes, if any.
///
/// `record` must have been read *before* the count was asked for: every change since then makes the guarded write
/// fail, so a count can never overrule what is newer than it. Leased, paused and flagged queues are left alone
/// whatever the count. Ready and unacked both count: a message that somebody holds may come back.
///
/// Counts may be older than the moment they were asked for (RabbitMQ's are by some seconds), so a queue is marked empty
/// only when it has been in its state for `settle`. A queue wrongly marked is put right by the next count.
pub(crate) fn event_of_count(
    record: &QueueRecord,
    depth: Depth,
    settle: Duration,
    now: Timestamp,
) -> Option<QueueEvent> {
    let messages = depth.ready.saturating_add(depth.unacked);
    let age = now.millis_since(record.since);
    let settled = age < 0 || age >= i64::try_from(settle.as_millis()).unwrap_or(i64::MAX);
    let counts = match record.state {
        QueueState::Empty => messages > 0,
        QueueState::Idle => messages == 0 && settled,
        QueueState::Leased | QueueState::Paused | QueueState::Deleting => false,
    };
    counts.then_some(QueueEvent::Counted { messages })
}

#[cfg(test)]
mod tests {
    use galerna_model::{AccountId, QueueName};

    use super::*;

    #[test]
    fn a_count_moves_idle_and_empty_queues_only() {
        use QueueState::{Deleting, Empty, Idle, Leased, Paused};
        // state, ready, unacked, age in ms -> acts
        let cases = [
            (Idle, 0, 0, 5_000, true),
            (Idle, 0, 0, 4_999, false),
            (Idle, 0, 0, -1, true),
            (Idle, 1, 0, 5_000, false),
            (Idle, 0, 1, 5_000, false),
            (Empty, 0, 0, 5_000, false),
            (Empty, 1, 0, 0, true),
            (Empty, 0, 1, 0, true),
            (Empty, u64::MAX, u64::MAX, 0, true),
            (Leased, 0, 0, 5_000, false),
            (Leased, 1, 0, 5_000, false),
            (Paused, 0, 0, 5_000, false),
            (Deleting, 0, 0, 5_000, false),
            (Deleting, 1, 0, 5_000, false),
        ];
        for (state, ready, unacked, age, acts) in cases {
            let record = QueueRecord {
                state,
                ..QueueRecord::new(
                    QueueName::new("q").unwrap(),
                    AccountId::new("a").unwrap(),
                    Timestamp(10_000),
                )
            };
            let now = Timestamp(10_000 + age);
            let event =
                event_of_count(&record, Depth { ready, unacked, delayed: 0 }, Duration::from_secs(5), now);
            assert_eq!(event.is_some(), acts, "{state:?} ready {ready} unacked {unacked} age {age}");
        }
    }
}
