//! Events into the store.

use std::sync::Arc;

use galerna_topology::prelude::*;
use tokio::sync::Notify;

use super::Arrival;
use crate::event::Event;
use crate::store::DowntimeStore;

/// Writes a batch of events in one transaction; they are acked when it is committed.
#[derive(Clone)]
pub(super) struct Record {
    store: Arc<dyn DowntimeStore>,
    hold_ms: i64,
    /// Told when something may have changed of which lists are to be told.
    changed: Arc<Notify>,
}

impl Record {
    pub(super) fn new(store: Arc<dyn DowntimeStore>, hold_ms: i64, changed: Arc<Notify>) -> Self {
        Self { store, hold_ms, changed }
    }
}

impl AsyncBatchBolt for Record {
    type Input = Arrival;
    type Outputs = ();

    async fn execute(&mut self, batch: Batch<Arrival>, _out: &mut Emitter<()>) {
        let events: Vec<Event> = batch.values().iter().map(|arrival| arrival.event.clone()).collect();
        match self.store.record(&events, self.hold_ms).await {
            Ok(recorded) => {
                for (arrival, recorded) in batch.values().iter().zip(recorded) {
                    // Redelivered, it has its first outcome already.
                    let _ = arrival.outcome.set(recorded);
                }
                batch.ack();
                self.changed.notify_one();
            }
            Err(error) => batch.fail(error.into_fault()),
        }
    }
}
