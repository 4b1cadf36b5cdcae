//! How much waited in each queue lately, for the chart of its page. Kept in memory by the page, of queues that have held messages.

use std::collections::{BTreeMap, HashMap, VecDeque};

use galerna_dispatcher::{QueueView, StatusQuery};
use galerna_lock::Mutex;
use galerna_model::Timestamp;
use galerna_storage::Sample;

use super::Parts;
use super::observer::within_timeout;
use super::samples::EVERY_MS;

/// So long samples of a queue are kept: six hours.
pub(super) const KEPT_MS: i64 = 6 * 3_600_000;
const KEPT: usize = 6 * 360;
/// Queues that samples are kept of; those that have been empty the longest give way.
const MAX_QUEUES: usize = 2_000;
/// Queues asked for at once: those with the most messages.
const ASKED: usize = 1_000;

#[derive(Debug, Clone, Copy)]
struct Depth {
    at: Timestamp,
    ready: u64,
    unacked: u64,
}

#[derive(Debug, Default)]
struct OfQueue {
    depths: VecDeque<Depth>,
    held_messages: Option<Timestamp>,
}

/// What was counted, by queue.
#[derive(Debug, Default)]
pub struct QueueDepths(Mutex<HashMap<String, OfQueue>>);

impl QueueDepths {
    /// Takes a sample of all queues from the dispatcher. One that does not answer costs the sample, no more.
    pub(super) async fn sample(&self, parts: &Parts, at: Timestamp) {
        let query =
            StatusQuery { sort: Some("-ready".to_owned()), limit: Some(ASKED), ..StatusQuery::default() };
        if let Ok(status) = within_timeout("the dispatcher", parts.dispatcher.status(&query)).await {
            self.put(at, &status.queues, status.total <= status.queues.len());
        }
    }

    /// Notes what was counted; `all` says that these are all queues there are.
    fn put(&self, at: Timestamp, queues: &[QueueView], all: bool) {
        let mut known = self.0.lock();
        // Of those with no message the list may have any; each that is known and not among them has none only when these were asked for.
        let all = all || queues.last().is_some_and(|least| least.ready == 0);
        let seen: HashMap<&str, &QueueView> = queues.iter().map(|q| (q.queue.as_str(), q)).collect();
        for queue in queues.iter().filter(|q| q.ready > 0 || q.unacked > 0) {
            known.entry(queue.queue.clone()).or_default().held_messages = Some(at);
        }
        for (name, of_queue) in known.iter_mut() {
            let (ready, unacked) = match seen.get(name.as_str()) {
                Some(queue) => (queue.ready, queue.unacked),
                None if all => (0, 0),
                None => continue,
            };
            if of_queue.depths.len() >= KEPT {
                of_queue.depths.pop_front();
            }
            of_queue.depths.push_back(Depth { at, ready, unacked });
        }
        if known.len() > MAX_QUEUES {
            let mut by_age: Vec<_> = known.iter().map(|(name, q)| (q.held_messages, name.clone())).collect();
            by_age.sort_unstable();
            for (_, name) in by_age.into_iter().take(known.len() - MAX_QUEUES) {
                known.remove(&name);
            }
        }
    }

    /// What was counted of a queue since `from`, as samples of a chart.
    pub(super) fn of(&self, queue: &str, from: Timestamp) -> Vec<Sample> {
        let known = self.0.lock();
        let Some(of_queue) = known.get(queue) else { return Vec::new() };
        let sample = |d: &Depth| Sample {
            at: Timestamp(d.at.as_millis() - d.at.as_millis().rem_euclid(EVERY_MS)),
            values: BTreeMap::from([
                ("ready".to_owned(), d.ready as f64),
                ("unacked".to_owned(), d.unacked as f64),
            ]),
        };
        of_queue.depths.iter().filter(|d| d.at >= from).map(sample).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(queue: &str, ready: u64) -> QueueView {
        serde_json::from_value(
            serde_json::json!({"queue": queue, "account": "a", "state": "idle", "epoch": 0,
            "ready": ready, "unacked": 0, "re_leases": 0, "since": "2017-01-01T00:00:00Z"}),
        )
        .unwrap()
    }

    fn ready(depths: &QueueDepths, queue: &str) -> Vec<f64> {
        depths.of(queue, Timestamp(0)).iter().map(|s| s.values["ready"]).collect()
    }

    #[test]
    fn a_queue_is_followed_from_its_first_message_on_and_down_to_none() {
        let depths = QueueDepths::default();
        depths.put(Timestamp(10_000), &[view("a", 0), view("b", 5)], true);
        depths.put(Timestamp(20_000), &[view("a", 0), view("b", 3)], true);
        depths.put(Timestamp(30_000), &[view("a", 0), view("b", 0)], true);
        assert_eq!(ready(&depths, "b"), [5.0, 3.0, 0.0]);
        assert_eq!(ready(&depths, "a"), [0.0; 0]);
        assert_eq!(depths.of("b", Timestamp(20_000)).len(), 2);
    }

    #[test]
    fn what_was_not_told_of_a_queue_is_not_made_up() {
        let depths = QueueDepths::default();
        depths.put(Timestamp(10_000), &[view("a", 7)], true);
        // Others have more, and only the first of them were asked for.
        depths.put(Timestamp(20_000), &[view("b", 900)], false);
        assert_eq!(ready(&depths, "a"), [7.0]);
        // The least of those asked for has none: so has every other.
        depths.put(Timestamp(30_000), &[view("b", 900), view("c", 0)], false);
        assert_eq!(ready(&depths, "a"), [7.0, 0.0]);
    }
}
