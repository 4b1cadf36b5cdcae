//! The sink that stores readings.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use galerna_storage::{ReadingOutcome, Readings, StoredReading};
use galerna_topology::{Anchors, AsyncBolt, Batch, Emitter, Fault, TaskContext};
use tokio::task::JoinSet;

use crate::batch::ReadingBatch;
use crate::patience::{DEFAULT_PATIENCE, GivenUp, patiently};
use crate::tally::StoreTally;

/// How the store bolt batches.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoreOptions {
    /// A bulk write is sent when it has so many readings (it may exceed this by one message).
    pub rows: usize,
    /// Bulk writes under way at the same time.
    pub in_flight: usize,
    /// How long a smaller one waits for more readings while another is under way. When none is, it does not wait at all: at
    /// low rates that keeps the latency low, and at high rates the batches grow by themselves.
    pub linger: Duration,
    /// How long a write is tried again by itself while the store is away.
    pub patience: Duration,
}

impl Default for StoreOptions {
    /// 1,000 rows, 4 writes under way, 10 ms of linger, 20 s of patience.
    fn default() -> Self {
        Self { rows: 1_000, in_flight: 4, linger: Duration::from_millis(10), patience: DEFAULT_PATIENCE }
    }
}

/// Stores readings: in bulk, several writes at a time, and acks each tuple when all of its readings are durable.
///
/// Readings that arrive twice are no matter: the store knows them by (source, device, ts). When the store is away the write
/// is tried again for a while (which holds the topology back, and fails nothing), and then its tuples fail with a reason
/// that begins with [`AWAY`](galerna_broker::AWAY). When the store refuses a bulk, each message of it is tried on its own,
/// so that a bad one does not take its neighbours with it.
///
/// ```
/// # use std::sync::Arc;
/// use galerna_bolts::{ReadingBatch, StoreBolt, StoreOptions};
/// use galerna_topology::{Stream, TopologyBuilder};
///
/// fn wire(topology: &mut TopologyBuilder, valid: &Stream<Arc<ReadingBatch>>, store: galerna_storage::Store) {
///     let readings = store.readings.clone();
///     topology.async_bolt("store", move || StoreBolt::new(readings.clone(), StoreOptions::default())).shuffle(valid);
/// }
/// ```
pub struct StoreBolt {
    store: Arc<dyn Readings>,
    options: StoreOptions,
    tally: Arc<StoreTally>,
    context: Option<TaskContext>,
    waiting: VecDeque<(Vec<Arc<ReadingBatch>>, Anchors)>,
    waiting_rows: usize,
    /// When the first of what waits came, by the topology's clock.
    waiting_since: Duration,
    under_way: JoinSet<()>,
}

impl StoreBolt {
    /// Stores into this store.
    pub fn new(store: Arc<dyn Readings>, options: StoreOptions) -> Self {
        Self {
            store,
            options,
            tally: Arc::default(),
            context: None,
            waiting: VecDeque::new(),
            waiting_rows: 0,
            waiting_since: Duration::ZERO,
            under_way: JoinSet::new(),
        }
    }

    /// Counts what the store did in this tally.
    #[must_use]
    pub fn with_tally(mut self, tally: Arc<StoreTally>) -> Self {
        self.tally = tally;
        self
    }

    /// Starts a bulk write of all that waits.
    fn start(&mut self) {
        let Some(context) = self.context.clone() else { return };
        if self.waiting.is_empty() {
            return;
        }
        let messages = std::mem::take(&mut self.waiting);
        let rows = std::mem::take(&mut self.waiting_rows);
        let write = Write {
            store: self.store.clone(),
            context,
            patience: self.options.patience,
            tally: self.tally.clone(),
        };
        // A task of its own: the encoding of several bulks then runs on several cores.
        self.under_way.spawn(write.run(messages.into(), rows));
    }

    async fn finish_one(&mut self) {
        if let Some(Err(error)) = self.under_way.join_next().await {
            // Its anchors were dropped, so its tuples have failed.
            tracing::error!(%error, "a bulk write ended without an outcome");
        }
    }
}

struct Write {
    store: Arc<dyn Readings>,
    context: TaskContext,
    patience: Duration,
    tally: Arc<StoreTally>,
}

impl Write {
    async fn run(self, messages: Vec<(Vec<Arc<ReadingBatch>>, Anchors)>, rows: usize) {
        let (values, anchors): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        let mut readings = Vec::with_capacity(rows);
        for batch in values.iter().flatten() {
            readings.extend_from_slice(&batch.readings);
        }
        let tuples = values.iter().map(Vec::len).sum::<usize>();
        match self.store(&readings, &anchors).await {
            Ok(outcomes) => {
                self.tally.count(&outcomes);
                anchors.into_iter().for_each(Anchors::ack);
            }
            Err(GivenUp::Failed(error)) if tuples > 1 => {
                tracing::warn!(%error, tuples, "the store refused a bulk; each message is tried on its own");
                drop(readings);
                for (batches, anchors) in values.into_iter().zip(anchors) {
                    self.one_by_one(batches, anchors).await;
                }
            }
            Err(given_up) => {
                let fault = given_up.fault();
                anchors.into_iter().for_each(|anchors| anchors.fail(fault.clone()));
            }
        }
    }

    async fn one_by_one(&self, batches: Vec<Arc<ReadingBatch>>, anchors: Anchors) {
        for (batch, anchor) in batches.into_iter().zip(anchors.into_each()) {
            match self.store(&batch.readings, &[]).await {
                Ok(outcomes) => {
                    self.tally.count(&outcomes);
                    anchor.ack();
                }
                Err(given_up) => anchor.fail(given_up.fault()),
            }
        }
    }

    async fn store(
        &self,
        readings: &[StoredReading],
        anchors: &[Anchors],
    ) -> Result<Vec<ReadingOutcome>, GivenUp<galerna_storage::StorageError>> {
        patiently(
            self.context.clock(),
            self.patience,
            |error| {
                tracing::warn!(%error, readings = readings.len(), "readings wait for the store");
                // The tuples are in good hands: they must not time out while they wait here.
                anchors.iter().for_each(Anchors::reset_timeout);
            },
            || self.store.store(readings),
        )
        .await
    }
}

impl AsyncBolt for StoreBolt {
    type Input = Arc<ReadingBatch>;
    type Outputs = ();

    async fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.context = Some(context.clone());
        Ok(())
    }

    async fn execute(&mut self, _: Arc<ReadingBatch>, _: &mut Emitter<()>) -> Result<(), Fault> {
        Ok(())
    }

    async fn execute_batch(&mut self, batch: Batch<Arc<ReadingBatch>>, out: &mut Emitter<()>) {
        if self.waiting.is_empty() {
            self.waiting_since = out.context().now();
        }
        self.waiting_rows += batch.values().iter().map(|batch| batch.readings.len()).sum::<usize>();
        self.waiting.push_back(batch.into_parts());
        while self.under_way.try_join_next().is_some() {}
        if self.waiting_rows >= self.options.rows {
            // Waiting here is what holds the topology back.
            while self.under_way.len() >= self.options.in_flight.max(1) {
                self.finish_one().await;
            }
            self.start();
        } else if self.under_way.is_empty() {
            self.start();
        }
    }

    async fn progress(&mut self, out: &mut Emitter<()>) -> Result<(), Fault> {
        if self.under_way.is_empty() && self.waiting.is_empty() {
            std::future::pending::<()>().await;
        }
        if self.waiting.is_empty() || self.under_way.len() >= self.options.in_flight.max(1) {
            self.finish_one().await;
        } else if !self.under_way.is_empty() {
            let lingered = out.context().clock().sleep_until(self.waiting_since + self.options.linger);
            tokio::select! {
                () = self.finish_one() => {}
                () = lingered => {}
            }
        }
        if self.under_way.len() < self.options.in_flight.max(1) {
            self.start();
        }
        Ok(())
    }

    async fn drain(&mut self, _: &mut Emitter<()>) {
        self.start();
        while !self.under_way.is_empty() {
            self.finish_one().await;
        }
    }
}
