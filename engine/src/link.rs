//! How tasks tell the ledgers what became of tuples.

use std::sync::Arc;

use galerna_topology::lineage::{Lineage, RootId, Span};
use galerna_topology::runtime::Link;
use galerna_topology::{Clock, Failure};
use tokio::sync::mpsc::UnboundedSender;

use crate::activity::Activity;
use crate::clock::nanos;
use crate::metrics::{TaskStats, add};

/// What a ledger hears. One message tells of a whole batch.
#[derive(Debug)]
pub(crate) enum Told {
    /// Consecutive roots of which all that was outstanding came back: the usual case, without allocation.
    Range(RootId, u32),
    /// Holdings that came back.
    Settled(Vec<Span>),
    /// Holdings that failed.
    Failed(Vec<Span>, Failure),
    /// Roots whose timeout starts anew.
    Restart(Vec<Span>),
}

/// The way to the ledger of each spout task.
///
/// The channels have no bound of their own: every message carries at least one live share of a pending root,
/// so the spouts' pending limits and the bounded edges bound them, and a task that tells must never wait,
/// least of all in a destructor.
pub(crate) type Ledgers = Arc<[UnboundedSender<Told>]>;

/// The link of one task.
pub(crate) struct TaskLink {
    pub(crate) component: Arc<str>,
    pub(crate) stats: Arc<TaskStats>,
    pub(crate) ledgers: Ledgers,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) activity: Arc<Activity>,
    /// Whether it is of a bolt that waits, which counts what it has in hand.
    pub(crate) waits: bool,
}

impl TaskLink {
    fn release(&self, tuples: u64) {
        if self.waits {
            self.stats.in_hand.release(tuples, &*self.clock);
        }
    }

    fn tell(&self, task: u16, told: Told) {
        self.activity.begin(1);
        if self.ledgers[usize::from(task)].send(told).is_err() {
            // The spout's task is gone, and its roots with it.
            self.activity.end(1);
        }
    }

    /// Hands the spans to the spout tasks they belong to.
    fn tell_each(&self, lineage: &mut Lineage, told: impl Fn(Vec<Span>) -> Told) {
        let one = match lineage.spans() {
            [] => return,
            [Span::Joined(_), ..] | [Span::Untracked(_), ..] => None,
            [Span::Whole(root, _) | Span::Share(root, _, _), rest @ ..] => {
                let task = root.task();
                rest.iter()
                    .all(|span| match span {
                        Span::Whole(root, _) | Span::Share(root, _, _) => root.task() == task,
                        Span::Untracked(_) => true,
                        Span::Joined(_) => false,
                    })
                    .then_some(task)
            }
        };
        if let Some(task) = one {
            self.tell(task, told(lineage.drain_spans().collect()));
            return;
        }
        let mut by_task: Vec<Vec<Span>> = vec![Vec::new(); self.ledgers.len()];
        for span in lineage.drain_spans() {
            match span {
                Span::Untracked(_) => {}
                Span::Whole(root, _) | Span::Share(root, _, _) => {
                    by_task[usize::from(root.task())].push(span)
                }
                Span::Joined(list) => {
                    for &(root, share) in &list {
                        by_task[usize::from(root.task())].push(Span::Share(root, share, 1));
                    }
                }
            }
        }
        for (task, spans) in by_task.into_iter().enumerate().filter(|(_, spans)| !spans.is_empty()) {
            self.tell(task as u16, told(spans));
        }
    }
}

impl Link for TaskLink {
    fn component(&self) -> &Arc<str> {
        &self.component
    }

    fn now(&self) -> u64 {
        nanos(self.clock.now())
    }

    fn settle(&self, lineage: &mut Lineage, tuples: u64, received: Option<u64>) {
        add(&self.stats.acked, tuples);
        self.release(tuples);
        if let Some(received) = received {
            self.stats.process.record(self.now().saturating_sub(received), tuples);
        }
        if let [Span::Whole(first, rows)] = *lineage.spans() {
            lineage.clear();
            self.tell(first.task(), Told::Range(first, rows));
        } else {
            self.tell_each(lineage, Told::Settled);
        }
    }

    fn fail(&self, lineage: &mut Lineage, tuples: u64, failure: &Failure) {
        self.stats.count_failed(failure, tuples, self.clock.now());
        self.release(tuples);
        self.tell_each(lineage, |spans| Told::Failed(spans, failure.clone()));
    }

    fn reset_timeout(&self, lineage: &mut Lineage) {
        self.tell_each(lineage, Told::Restart);
    }
}
