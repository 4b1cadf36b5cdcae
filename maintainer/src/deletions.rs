//! When a flagged queue may be deleted, and how far its deletion has come: pure, no I/O.
//!
//! The state goes before the queue: a deletion is first *claimed* by a guarded write to the queue's record, then the
//! queue is deleted on the broker, then the record is removed.
//!
//! - Of several maintainers one gets the claim; the guard decides.
//! - While a claim stands the account cannot get its queue back: the accounts task waits until the record is gone and
//!   makes queue and record anew. So nothing is published to a queue that is about to go.
//! - A maintainer that dies in between leaves its claim. Another ends it by a guarded write, when the first can no
//!   longer be at work. Then all starts anew: the account may be back, and gets its queue made again if it is missing;
//!   else it is decided and claimed again, and deleting what is gone already is no error.

use std::time::Duration;

use galerna_broker::DeleteWhen;
use galerna_model::Timestamp;
use galerna_storage::QueueRecord;

/// What is to become of a flagged queue now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// It waits for the holder of its lease.
    Leased,
    /// It holds messages, or may be given some back, and its time is not over.
    Kept,
    /// It is to be deleted, under this condition.
    Delete(DeleteWhen),
}

/// Decides about a flagged queue that holds `messages` messages, dead letters included.
///
/// A queue without messages goes after `linger`, on condition that the broker, too, finds it empty then; one with messages
/// after `grace`. A clock that runs behind the one that flagged the queue only makes these times longer.
pub(crate) fn decide(
    record: &QueueRecord,
    messages: u64,
    linger: Duration,
    grace: Duration,
    now: Timestamp,
) -> Decision {
    let age = now.millis_since(record.since);
    let over = |time: Duration| age >= i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
    match messages {
        _ if record.lease.is_some() => Decision::Leased,
        _ if over(grace) => Decision::Delete(DeleteWhen::Always),
        0 if over(linger) => Decision::Delete(DeleteWhen::Empty),
        _ => Decision::Kept,
    }
}

#[cfg(test)]
mod tests {
    use galerna_model::{AccountId, QueueName};
    use galerna_storage::{Lease, QueueState};

    use super::*;

    fn flagged(leased: bool) -> QueueRecord {
        let lease = Lease {
            consumer: "w".to_owned(),
            granted_at: Timestamp(0),
            expires_at: Timestamp(0),
            lease_ms: 1,
            renewal: 0,
            request: None,
        };
        QueueRecord {
            state: QueueState::Deleting,
            reason: Some("account `a` is deactivated".to_owned()),
            lease: leased.then_some(lease),
            ..QueueRecord::new(QueueName::new("q").unwrap(), AccountId::new("a").unwrap(), Timestamp(0))
        }
    }

    #[test]
    fn a_flagged_queue_goes_when_nobody_holds_it_and_it_is_empty_or_its_grace_is_over() {
        const HOUR: i64 = 3_600_000;
        const MINUTE: i64 = 60_000;
        // leased, messages, age -> decision, when it lingers for a minute and has a grace of an hour
        let cases = [
            (false, 0, 0, Decision::Kept),
            (false, 0, MINUTE - 1, Decision::Kept),
            (false, 0, MINUTE, Decision::Delete(DeleteWhen::Empty)),
            (false, 1, MINUTE, Decision::Kept),
            (false, 1, HOUR - 1, Decision::Kept),
            (false, 1, HOUR, Decision::Delete(DeleteWhen::Always)),
            (false, 0, HOUR, Decision::Delete(DeleteWhen::Always)),
            (false, 1, -HOUR, Decision::Kept),
            (true, 0, 0, Decision::Leased),
            (true, 0, 9 * HOUR, Decision::Leased),
            (true, 1, 9 * HOUR, Decision::Leased),
        ];
        for (leased, messages, age, expected) in cases {
            let (linger, grace) = (Duration::from_secs(60), Duration::from_secs(3_600));
            let decision = decide(&flagged(leased), messages, linger, grace, Timestamp(age));
            assert_eq!(decision, expected, "leased {leased}, {messages} messages, {age} ms");
        }
    }
}
