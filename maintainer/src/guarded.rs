//! Guarded writes: every change of a queue's state is the dispatcher's transition, written by compare-and-swap.

use galerna_lease::{QueueEvent, Timing, Transition, transition};
use galerna_model::Timestamp;
use galerna_storage::{QueueRecord, QueueStates, StorageError, Swap, Swapped};

use crate::task::Task;

/// What became of the writes.
#[derive(Debug, Default)]
pub(crate) struct Applied {
    /// As stored now.
    pub(crate) done: Vec<QueueRecord>,
    /// Lost to newer writes.
    pub(crate) conflicts: u64,
}

/// Who writes, and how.
#[derive(Clone, Copy)]
pub(crate) struct Writer<'a> {
    pub(crate) queues: &'a dyn QueueStates,
    pub(crate) timing: &'a Timing,
    pub(crate) now: Timestamp,
    pub(crate) chunk: usize,
    pub(crate) task: Task,
}

impl Writer<'_> {
    /// Applies to each record the event that `event` names for it.
    ///
    /// A write that lost to a newer one is tried again on the newer record, up to `rounds` times in all, by asking
    /// `event` again. With one round nothing is ever decided on a record that was not given.
    pub(crate) async fn apply(
        &self,
        records: Vec<QueueRecord>,
        rounds: u32,
        event: impl Fn(&QueueRecord) -> Option<QueueEvent>,
    ) -> Result<Applied, StorageError> {
        let mut applied = Applied::default();
        let mut pending = records;
        for round in 1..=rounds {
            let mut again = Vec::new();
            for chunk in pending.chunks(self.chunk) {
                let (before, events, swaps) = self.swaps(chunk, &event);
                if swaps.is_empty() {
                    continue;
                }
                let outcomes = self.queues.swap(&swaps).await?;
                for (((before, event), swap), outcome) in before.iter().zip(&events).zip(swaps).zip(outcomes)
                {
                    match outcome {
                        Swapped::Done => {
                            self.log(before, event, &swap.record);
                            applied.done.push(swap.record);
                        }
                        Swapped::Conflict(Some(current)) if round < rounds => again.push(current),
                        Swapped::Conflict(_) => applied.conflicts += 1,
                    }
                }
            }
            if again.is_empty() {
                break;
            }
            pending = again;
        }
        Ok(applied)
    }

    fn swaps<'r>(
        &self,
        chunk: &'r [QueueRecord],
        event: &impl Fn(&QueueRecord) -> Option<QueueEvent>,
    ) -> (Vec<&'r QueueRecord>, Vec<QueueEvent>, Vec<Swap>) {
        let (mut before, mut events, mut swaps) = (Vec::new(), Vec::new(), Vec::new());
        for record in chunk {
            let Some(event) = event(record) else { continue };
            match transition(record, &event, self.now, self.timing) {
                Ok(Transition::To(next)) => {
                    before.push(record);
                    events.push(event);
                    swaps.push(Swap { expected: record.version, record: *next });
                }
                // Refused: the record is no longer what the event was meant for.
                Ok(Transition::Unchanged) | Err(_) => {}
            }
        }
        (before, events, swaps)
    }

    fn log(&self, before: &QueueRecord, event: &QueueEvent, after: &QueueRecord) {
        let reason = after.reason.as_deref().unwrap_or_default();
        let actor = format_args!("maintainer/{}", self.task);
        // Counts come by the thousands and say little.
        if matches!(event, QueueEvent::Counted { .. }) {
            tracing::debug!(
                queue = %after.queue, from = before.state.as_str(), to = after.state.as_str(),
                event = event.name(), epoch = after.epoch, %actor, reason, "transition"
            );
        } else {
            tracing::info!(
                queue = %after.queue, from = before.state.as_str(), to = after.state.as_str(),
                event = event.name(), epoch = after.epoch, %actor, reason, "transition"
            );
        }
    }
}
