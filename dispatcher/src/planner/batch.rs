//! A bulk write that is planned: at most one guarded write a queue, of one or several steps.

use std::borrow::Cow;
use std::collections::HashMap;

use galerna_lease::{QueueEvent, QueueRecord};
use galerna_model::Timestamp;
use galerna_storage::Swap;

use super::calls::{NextCall, QueueCall};
use crate::past::PastTransition;
use crate::queue_table::EntryId;
use galerna_lease::StrategyName;

/// One step of a planned write, for the log.
pub(super) struct Step {
    pub(super) event: QueueEvent,
    actor: Cow<'static, str>,
    from: &'static str,
    to: &'static str,
    epoch: u64,
    reason: Option<String>,
}

impl Step {
    pub(super) fn new(
        before: &QueueRecord,
        after: &QueueRecord,
        event: QueueEvent,
        actor: Cow<'static, str>,
    ) -> Self {
        Self {
            event,
            actor,
            from: before.state.as_str(),
            to: after.state.as_str(),
            epoch: after.epoch,
            reason: after.reason.clone(),
        }
    }

    /// What is remembered of it.
    pub(super) fn past(&self, at: Timestamp) -> PastTransition {
        PastTransition {
            at,
            event: self.event.name(),
            from: self.from,
            to: self.to,
            epoch: self.epoch,
            actor: (&*self.actor).into(),
            reason: self.reason.as_deref().map(Into::into),
        }
    }

    /// Every transition is logged, with who did it, why, and under which epoch.
    pub(super) fn log(&self, queue: &str) {
        tracing::debug!(
            target: "galerna::lease",
            queue,
            event = self.event.name(),
            from = self.from,
            to = self.to,
            epoch = self.epoch,
            actor = &*self.actor,
            reason = self.reason.as_deref().unwrap_or_default(),
            "transition"
        );
    }
}

/// Numbers the writes of a batch.
pub(super) type WriteIndex = usize;

/// A bulk write and the calls that are answered when it is durable.
pub(crate) struct Batch {
    /// The guarded writes, one a queue.
    pub(crate) swaps: Vec<Swap>,
    /// The queue of each write.
    pub(super) entries: Vec<EntryId>,
    /// The steps of each write.
    pub(super) steps: Vec<Vec<Step>>,
    by_entry: HashMap<EntryId, WriteIndex>,
    pub(super) queue_calls: Vec<(QueueCall, WriteIndex)>,
    pub(super) next_calls: Vec<(NextCall, Vec<WriteIndex>)>,
    pub(super) strategy: StrategyName,
}

impl Batch {
    pub(super) fn new(strategy: StrategyName) -> Self {
        Self {
            swaps: Vec::new(),
            entries: Vec::new(),
            steps: Vec::new(),
            by_entry: HashMap::new(),
            queue_calls: Vec::new(),
            next_calls: Vec::new(),
            strategy,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.swaps.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.swaps.is_empty()
    }

    /// The write of this queue, if there is one.
    pub(super) fn write_of(&self, entry: EntryId) -> Option<WriteIndex> {
        self.by_entry.get(&entry).copied()
    }

    /// The record as it will be when the batch is written.
    pub(super) fn record(&self, write: WriteIndex) -> &QueueRecord {
        &self.swaps[write].record
    }

    /// Adds a step to the write of its queue, of which version `expected` is stored. However many steps a write has, its
    /// version is one above that.
    pub(super) fn add(
        &mut self,
        entry: EntryId,
        expected: u64,
        mut record: QueueRecord,
        step: Step,
    ) -> WriteIndex {
        record.version = expected + 1;
        match self.write_of(entry) {
            Some(write) => {
                self.swaps[write].record = record;
                self.steps[write].push(step);
                write
            }
            None => {
                let write = self.swaps.len();
                self.swaps.push(Swap { expected, record });
                self.entries.push(entry);
                self.steps.push(vec![step]);
                self.by_entry.insert(entry, write);
                write
            }
        }
    }
}
