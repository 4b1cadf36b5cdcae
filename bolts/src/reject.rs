//! The sink for what was refused.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use galerna_broker::{Broker, NewDeadLetter};
use galerna_model::QueueName;
use galerna_storage::{RejectedReading, RejectedReadings};
use galerna_topology::{AsyncBatchBolt, Batch, Emitter, Fault, TaskContext};

use crate::rejection::RejectedBatch;
use crate::retry::{DEFAULT_RETRY_BUDGET, retry_within};

/// Records refused readings and puts each, as a message that can be replayed, into the dead letters of its queue.
///
/// First the record, which the store knows by its id, then the dead letter, then the ack: after a crash in between the
/// record is there once, and the dead letter once or, when the crash hit between it and the ack, twice. The good readings of
/// the same message are not touched by any of this.
///
/// ```
/// # use std::sync::Arc;
/// use galerna_bolts::{RejectBolt, RejectedBatch};
/// use galerna_broker::Broker;
/// use galerna_topology::{Stream, TopologyBuilder};
///
/// fn wire(
///     topology: &mut TopologyBuilder,
///     rejected: &Stream<Arc<RejectedBatch>>,
///     store: galerna_storage::Store,
///     broker: Arc<dyn Broker>,
/// ) {
///     topology.async_batch_bolt("reject", move || RejectBolt::new(store.rejected.clone(), broker.clone())).shuffle(rejected);
/// }
/// ```
pub struct RejectBolt {
    store: Arc<dyn RejectedReadings>,
    broker: Arc<dyn Broker>,
    retry_budget: Duration,
    context: Option<TaskContext>,
}

impl RejectBolt {
    /// Records into this store and this broker's dead letters.
    pub fn new(store: Arc<dyn RejectedReadings>, broker: Arc<dyn Broker>) -> Self {
        Self { store, broker, retry_budget: DEFAULT_RETRY_BUDGET, context: None }
    }

    /// How long to try again by itself while store or broker is unavailable, before the tuples fail.
    #[must_use]
    pub fn with_retry_budget(mut self, budget: Duration) -> Self {
        self.retry_budget = budget;
        self
    }

    async fn record_and_dead_letter(
        &self,
        batches: &[Arc<RejectedBatch>],
        waiting: impl Fn(),
    ) -> Result<(), Fault> {
        let Some(context) = &self.context else {
            return Err(Fault::transient("the reject bolt is not prepared"));
        };
        let mut records: Vec<RejectedReading> = Vec::new();
        let mut letters: BTreeMap<&QueueName, Vec<NewDeadLetter>> = BTreeMap::new();
        for batch in batches {
            let of_queue = letters.entry(&batch.queue).or_default();
            for rejection in &batch.rejections {
                records.push(rejection.record.clone());
                of_queue.push(rejection.letter.clone());
            }
        }
        retry_within(context.clock(), self.retry_budget, |_| waiting(), || self.store.store(&records))
            .await
            .map_err(|given_up| given_up.fault())?;
        for (queue, letters) in letters {
            retry_within(
                context.clock(),
                self.retry_budget,
                |_| waiting(),
                || self.broker.dead_letter(queue, letters.clone()),
            )
            .await
            .map_err(|given_up| given_up.fault())?;
        }
        Ok(())
    }
}

impl AsyncBatchBolt for RejectBolt {
    type Input = Arc<RejectedBatch>;
    type Outputs = ();

    async fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.context = Some(context.clone());
        Ok(())
    }

    async fn execute(&mut self, batch: Batch<Arc<RejectedBatch>>, _: &mut Emitter<()>) {
        let (batches, anchors) = batch.into_parts();
        match self.record_and_dead_letter(&batches, || anchors.reset_timeout()).await {
            Ok(()) => {
                for batch in &batches {
                    let first =
                        batch.rejections.first().map_or("", |rejection| rejection.record.reason.as_str());
                    let (id, queue) = (batch.message.as_str(), &batch.queue);
                    tracing::info!(id, %queue, refused = batch.rejections.len(), first, "readings are refused");
                    tracing::trace!(
                        target: "galerna::trace::reject",
                        id = batch.message.as_str(),
                        "{} recorded and put into the dead letters, first: {first}",
                        batch.rejections.len(),
                    );
                }
                anchors.ack();
            }
            Err(fault) => anchors.fail(fault),
        }
    }
}
