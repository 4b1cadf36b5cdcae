//! Which leases are past their time: pure, no I/O.

use std::collections::HashMap;
use std::time::Duration;

use galerna_lease::LeaseWatch;
use galerna_model::QueueName;
use galerna_storage::QueueRecord;
use tokio::time::Instant;

/// Watches all leases on this process's own monotonic clock.
///
/// A lease has expired when its (epoch, renewal) stayed the same for its length, whatever the wall clocks say. It was
/// granted or renewed at some moment before the first read that showed it had ended, and the holder counts from before
/// that; so when a read that began the lease's length later still shows it, the holder has stopped. The guarded
/// write covers the rest: a renewal between that read and the write makes the write fail.
///
/// A process that has just started does not know how old a lease is, and lets each run its whole length.
#[derive(Debug, Default)]
pub(crate) struct LeaseWatches {
    watched: HashMap<QueueName, LeaseWatch>,
}

impl LeaseWatches {
    /// Takes all records as one read showed them, and tells which leases have expired.
    ///
    /// `began` and `ended` are the moments around the read. `margin` is what clocks that run at different rates may
    /// differ by; `unstated` is the length of a lease whose record does not tell one.
    pub(crate) fn observe<'a>(
        &mut self,
        records: &'a [QueueRecord],
        began: Instant,
        ended: Instant,
        margin: Duration,
        unstated: Duration,
    ) -> Vec<&'a QueueRecord> {
        debug_assert!(began <= ended);
        let mut watched = HashMap::with_capacity(self.watched.len());
        let mut expired = Vec::new();
        for record in records {
            let earlier = self.watched.get(&record.queue).copied();
            let Some(watch) = LeaseWatch::look(earlier, record, ended) else { continue };
            let unstated_length = record.lease.as_ref().is_some_and(|lease| lease.lease_ms == 0);
            let margin = if unstated_length { margin + unstated } else { margin };
            if began >= watch.expires_at(margin) {
                expired.push(record);
            }
            watched.insert(record.queue.clone(), watch);
        }
        self.watched = watched;
        expired
    }

    /// How many leases are watched.
    pub(crate) fn watched(&self) -> usize {
        self.watched.len()
    }
}

#[cfg(test)]
mod tests {
    use galerna_model::{AccountId, Timestamp};
    use galerna_storage::{Lease, QueueState};

    use super::*;

    fn leased(epoch: u64, renewal: u64, lease_ms: u64) -> QueueRecord {
        let lease = Lease {
            consumer: "w".to_owned(),
            granted_at: Timestamp(0),
            // Long past by any wall clock: it must not count.
            expires_at: Timestamp(1),
            lease_ms,
            renewal,
            request: None,
        };
        QueueRecord {
            state: QueueState::Leased,
            epoch,
            lease: Some(lease),
            ..QueueRecord::new(
                QueueName::new("q").unwrap(),
                AccountId::new("a").unwrap(),
                Timestamp::default(),
            )
        }
    }

    #[test]
    fn a_lease_expires_when_it_stayed_unchanged_for_its_length() {
        const HOUR: u64 = 3_600;
        // (second of the read, epoch, renewal, lease_ms) ... -> expired at the last read. Each read takes a second.
        type Reads = &'static [(u64, u64, u64, u64)];
        let cases: [(&str, Reads, bool); 9] = [
            ("unseen before", &[(0, 1, 0, 60_000)], false),
            ("seen first after a very long stop", &[(9_999_999, 1, 0, 60_000)], false),
            ("not yet its length", &[(0, 1, 0, 60_000), (59, 1, 0, 60_000)], false),
            ("its length less the first read", &[(0, 1, 0, 60_000), (60, 1, 0, 60_000)], false),
            ("its length", &[(0, 1, 0, 60_000), (61, 1, 0, 60_000)], true),
            ("renewed in between", &[(0, 1, 0, 60_000), (50, 1, 1, 60_000), (61, 1, 1, 60_000)], false),
            ("leased anew in between", &[(0, 1, 0, 60_000), (50, 2, 0, 60_000), (61, 2, 0, 60_000)], false),
            ("of no stated length, under an hour", &[(0, 1, 0, 0), (HOUR - 1, 1, 0, 0)], false),
            ("of no stated length, an hour", &[(0, 1, 0, 0), (HOUR + 1, 1, 0, 0)], true),
        ];
        let start = Instant::now();
        for (sentence, reads, expected) in cases {
            let mut leases = LeaseWatches::default();
            let mut expired = false;
            for &(second, epoch, renewal, lease_ms) in reads {
                let began = start + Duration::from_secs(second);
                let records = [leased(epoch, renewal, lease_ms)];
                let (ended, hour) = (began + Duration::from_secs(1), Duration::from_secs(HOUR));
                expired = !leases.observe(&records, began, ended, Duration::ZERO, hour).is_empty();
            }
            assert_eq!(expired, expected, "{sentence}");
        }
    }

    #[test]
    fn a_lease_that_ended_is_forgotten() {
        let mut leases = LeaseWatches::default();
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut observe = |at, records: &[QueueRecord]| {
            let at = start + at * second;
            let expired = leases.observe(records, at, at, Duration::ZERO, second).len();
            (expired, leases.watched())
        };
        assert_eq!(observe(1, &[leased(1, 0, 1_000)]), (0, 1));
        assert_eq!(observe(2, &[]), (0, 0));
        // Should the store show it again, it counts from the start.
        assert_eq!(observe(9, &[leased(1, 0, 1_000)]), (0, 1));
        assert_eq!(observe(10, &[leased(1, 0, 1_000)]), (1, 1));
    }
}
