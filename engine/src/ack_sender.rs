//! How tasks tell the ledgers what became of tuples.

use std::sync::Arc;

use galerna_topology::lineage::{Lineage, RootId, Span};
use galerna_topology::runtime::AckSender;
use galerna_topology::{Clock, Failure};
use tokio::sync::mpsc::UnboundedSender;

use crate::checkpoints::Epoch;
use crate::clock::nanos;
use crate::in_flight::InFlight;
use crate::metrics::{TaskStats, add};
use crate::stable_ids::StableIds;

/// What tasks send to a ledger. One message covers a whole batch.
#[derive(Debug)]
pub(crate) enum AckMessage {
    /// Consecutive roots of which all that was outstanding came back: the usual case, without allocation.
    AckedRange(RootId, u32),
    /// Ack tokens that came back.
    Acked(Vec<Span>),
    /// Ack tokens that failed.
    Failed(Vec<Span>, Failure),
    /// Roots whose timeout starts anew.
    ResetTimeout(Vec<Span>),
}

/// The way to the ledger of each spout task.
///
/// The channels have no bound of their own: every message carries at least one live share of a pending root,
/// so the spouts' pending limits and the bounded edges bound them, and a task that sends must never wait,
/// least of all in a destructor. With each message goes the epoch of the task that sends it.
pub(crate) type Ledgers = Arc<[UnboundedSender<(u64, AckMessage)>]>;

/// How one task reaches the ledgers.
pub(crate) struct TaskAckSender {
    pub(crate) component: Arc<str>,
    pub(crate) stats: Arc<TaskStats>,
    pub(crate) ledgers: Ledgers,
    /// By spout task.
    pub(crate) stable_ids: Arc<[StableIds]>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) in_flight: Arc<InFlight>,
    /// How many barriers the task has passed.
    pub(crate) epoch: Epoch,
    /// Whether it is of a bolt that waits, which counts what it has in hand.
    pub(crate) waits: bool,
}

impl TaskAckSender {
    fn release(&self, tuples: u64) {
        if self.waits {
            self.stats.unsettled.remove(tuples, &*self.clock);
        }
    }

    fn send(&self, task: u16, message: AckMessage) {
        self.in_flight.begin(1);
        if self.ledgers[usize::from(task)].send((self.epoch.get(), message)).is_err() {
            // The spout's task is gone, and its roots with it.
            self.in_flight.end(1);
        }
    }

    /// Hands the spans to the spout tasks they belong to.
    fn send_each(&self, lineage: &mut Lineage, message: impl Fn(Vec<Span>) -> AckMessage) {
        let one = match lineage.spans() {
            [] => return,
            [Span::Multi(_), ..] | [Span::Untracked(_), ..] => None,
            [Span::Whole(root, _) | Span::Share(root, _, _), rest @ ..] => {
                let task = root.task();
                rest.iter()
                    .all(|span| match span {
                        Span::Whole(root, _) | Span::Share(root, _, _) => root.task() == task,
                        Span::Untracked(_) => true,
                        Span::Multi(_) => false,
                    })
                    .then_some(task)
            }
        };
        if let Some(task) = one {
            self.send(task, message(lineage.drain_spans().collect()));
            return;
        }
        let mut by_task: Vec<Vec<Span>> = vec![Vec::new(); self.ledgers.len()];
        for span in lineage.drain_spans() {
            match span {
                Span::Untracked(_) => {}
                Span::Whole(root, _) | Span::Share(root, _, _) => {
                    by_task[usize::from(root.task())].push(span)
                }
                Span::Multi(list) => {
                    for &(root, share) in &list {
                        by_task[usize::from(root.task())].push(Span::Share(root, share, 1));
                    }
                }
            }
        }
        for (task, spans) in by_task.into_iter().enumerate().filter(|(_, spans)| !spans.is_empty()) {
            self.send(task as u16, message(spans));
        }
    }
}

impl AckSender for TaskAckSender {
    fn component(&self) -> &Arc<str> {
        &self.component
    }

    fn now(&self) -> u64 {
        nanos(self.clock.now())
    }

    fn settle(&self, lineage: &mut Lineage, tuples: u64, received: Option<u64>) {
        add(&self.stats.acked, tuples);
        self.release(tuples);
        if let Some(received) = received
            && tuples > 0
        {
            self.stats.process.record(self.now().saturating_sub(received), tuples);
        }
        if let [Span::Whole(first, rows)] = *lineage.spans() {
            lineage.clear();
            self.send(first.task(), AckMessage::AckedRange(first, rows));
        } else {
            self.send_each(lineage, AckMessage::Acked);
        }
    }

    fn fail(&self, lineage: &mut Lineage, tuples: u64, failure: &Failure) {
        self.stats.count_failed(failure, tuples, self.clock.now());
        self.release(tuples);
        self.send_each(lineage, |spans| AckMessage::Failed(spans, failure.clone()));
    }

    fn stable_id(&self, root: RootId) -> Option<Arc<str>> {
        self.stable_ids.get(usize::from(root.task()))?.get(root)
    }

    fn reset_timeout(&self, lineage: &mut Lineage) {
        self.send_each(lineage, AckMessage::ResetTimeout);
    }
}
