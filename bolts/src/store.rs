//! The sink that stores readings.

use galerna_lock::Mutex;

use std::collections::VecDeque;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use galerna_storage::{Readings, SharedReadings, StorageError, StoreOutcome};
use galerna_topology::{Anchor, Anchors, AsyncBatchBolt, Batch, Emitter, Fault, TaskContext};
use tokio::task::JoinSet;

use crate::batch::ReadingBatch;
use crate::retry::{DEFAULT_RETRY_BUDGET, RetryError, retry_within};
use crate::tally::StoreTally;

/// A write that takes longer holds tuples for longer than they reckon with: so often the message timeouts of all tuples in
/// the bolt's hands start anew. Message timeouts must be longer, by some seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

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
    /// How long writes are tried again by themselves while the store is unavailable, from the first that failed.
    pub retry_budget: Duration,
}

impl Default for StoreOptions {
    /// 1,000 rows, 4 writes under way, 10 ms of linger, 20 s of retries.
    fn default() -> Self {
        Self {
            rows: 1_000,
            in_flight: 4,
            linger: Duration::from_millis(10),
            retry_budget: DEFAULT_RETRY_BUDGET,
        }
    }
}

/// Stores readings: in bulk, several writes at a time, and acks each tuple when all of its readings are durable.
///
/// Readings that arrive twice are no matter: the store knows them by (source, device, ts). When the store is unavailable or does not
/// answer, writes are tried again for a while. All tuples that the bolt has are kept from timing out meanwhile, and it
/// goes on taking tuples, which would time out elsewhere: the spouts' pending limits bound them. Then all of them fail as
/// [unavailable](galerna_topology::FaultKind::Unavailable), and so do those that follow, but for one attempt at a time, until one
/// succeeds. When the store refuses a bulk, each message of it is tried on its own,
/// so that a bad one does not take its neighbours with it.
///
/// ```
/// # use std::sync::Arc;
/// use galerna_bolts::{ReadingBatch, StoreBolt, StoreOptions};
/// use galerna_topology::{Stream, TopologyBuilder};
///
/// fn wire(topology: &mut TopologyBuilder, valid: &Stream<Arc<ReadingBatch>>, store: galerna_storage::Store) {
///     let readings = store.readings.clone();
///     topology.async_batch_bolt("store", move || StoreBolt::new(readings.clone(), StoreOptions::default())).shuffle(valid);
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
    /// When those that wait were last kept from timing out.
    kept_alive: Duration,
    /// When a write last ended, or began while no other was under way.
    progressed_at: Duration,
    under_way: JoinSet<()>,
    outage: Arc<StoreOutage>,
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
            kept_alive: Duration::ZERO,
            progressed_at: Duration::ZERO,
            under_way: JoinSet::new(),
            outage: Arc::default(),
        }
    }

    /// Counts what the store did in this tally.
    #[must_use]
    pub fn with_tally(mut self, tally: Arc<StoreTally>) -> Self {
        self.tally = tally;
        self
    }

    fn in_flight(&self) -> usize {
        self.options.in_flight.max(1)
    }

    /// Starts a bulk write of what waits, or of as much of it as makes a full one.
    fn start(&mut self) {
        let Some(context) = self.context.clone() else { return };
        let (mut messages, mut rows) = (Vec::new(), 0);
        while rows < self.options.rows.max(1)
            && let Some((batches, anchors)) = self.waiting.pop_front()
        {
            rows += rows_of(&batches);
            messages.push((batches, anchors));
        }
        if messages.is_empty() {
            return;
        }
        self.waiting_rows -= rows;
        if self.under_way.is_empty() {
            self.progressed_at = context.now();
        }
        let write = Write {
            store: self.store.clone(),
            context,
            retry_budget: self.options.retry_budget,
            tally: self.tally.clone(),
            outage: self.outage.clone(),
        };
        // A task of its own: the encoding of several bulks then runs on several cores.
        self.under_way.spawn(write.run(messages));
    }

    /// Waits for the end of a write, for so long that those that wait must be kept from timing out. Cancel-safe.
    async fn finish_one(&mut self) {
        let Some(context) = self.context.clone() else { return };
        tokio::select! {
            ended = self.under_way.join_next() => {
                if let Some(Err(error)) = ended {
                    // Its anchors were dropped, so its tuples have failed.
                    tracing::error!(%error, "a bulk write ended without an outcome");
                }
                self.progressed_at = context.now();
            }
            () = context.clock().sleep_until(context.now() + KEEP_ALIVE) => {}
        }
        self.keep_alive(context.now());
    }

    /// Keeps what waits from timing out; fails it when the store is unavailable for longer than the retry budget lasts.
    fn keep_alive(&mut self, now: Duration) {
        if let Some(fault) = self.outage.beyond(now, self.options.retry_budget) {
            self.waiting_rows = 0;
            for (_, anchors) in self.waiting.drain(..) {
                anchors.fail(fault.clone());
            }
        } else if now >= self.waiting_since.max(self.kept_alive) + KEEP_ALIVE {
            self.kept_alive = now;
            self.waiting.iter().for_each(|(_, anchors)| anchors.reset_timeout());
        }
    }

    /// Whether the writes under way take too long for the topology to be held back by them.
    fn is_stalled(&self, now: Duration) -> bool {
        !self.under_way.is_empty() && now >= self.progressed_at + KEEP_ALIVE
    }
}

fn rows_of(batches: &[Arc<ReadingBatch>]) -> usize {
    batches.iter().map(|batch| batch.readings.len()).sum()
}

/// Tells those who follow messages.
fn stored(batch: &ReadingBatch) {
    let (id, readings) = (batch.message.as_str(), batch.readings.len());
    tracing::trace!(target: "galerna::trace::store", id, "{readings} readings stored");
}

/// That the store is unavailable, as the writes of a bolt have found.
#[derive(Default)]
struct StoreOutage(Mutex<Option<(Duration, String)>>);

impl StoreOutage {
    fn found(&self, now: Duration, error: &StorageError) {
        let mut since = self.0.lock();
        match &mut *since {
            Some((_, cause)) => *cause = error.to_string(),
            None => *since = Some((now, error.to_string())),
        }
    }

    fn over(&self) {
        *self.0.lock() = None;
    }

    /// What is left of the retry budget.
    fn left(&self, now: Duration, budget: Duration) -> Duration {
        match &*self.0.lock() {
            Some((since, _)) => (*since + budget).saturating_sub(now),
            None => budget,
        }
    }

    /// The fault to fail tuples with when the retry budget is spent.
    fn beyond(&self, now: Duration, budget: Duration) -> Option<Fault> {
        match &*self.0.lock() {
            Some((since, cause)) if now >= *since + budget => Some(Fault::unavailable(cause.as_str())),
            _ => None,
        }
    }
}

struct Write {
    store: Arc<dyn Readings>,
    context: TaskContext,
    retry_budget: Duration,
    tally: Arc<StoreTally>,
    outage: Arc<StoreOutage>,
}

impl Write {
    async fn run(self, messages: Vec<(Vec<Arc<ReadingBatch>>, Anchors)>) {
        let (values, anchors): (Vec<_>, Vec<_>) = messages.into_iter().unzip();
        let readings: Vec<SharedReadings> =
            values.iter().flatten().map(|batch| batch.readings.clone()).collect();
        let tuples = values.iter().map(Vec::len).sum::<usize>();
        let keep_alive = || anchors.iter().for_each(Anchors::reset_timeout);
        match self.store(&readings, keep_alive).await {
            Ok(outcomes) => {
                self.tally.count(&outcomes);
                values.iter().flatten().for_each(|batch| stored(batch));
                anchors.into_iter().for_each(Anchors::ack);
            }
            Err(RetryError::Permanent(error)) if tuples > 1 => {
                tracing::warn!(%error, tuples, "the store refused a bulk; each message is tried on its own");
                drop(readings);
                let anchors = anchors.into_iter().flat_map(Anchors::into_each);
                self.one_by_one(values.into_iter().flatten().zip(anchors).collect()).await;
            }
            Err(error) => {
                let fault = error.fault();
                anchors.into_iter().for_each(|anchors| anchors.fail(fault.clone()));
            }
        }
    }

    async fn one_by_one(&self, mut messages: VecDeque<(Arc<ReadingBatch>, Anchor)>) {
        while let Some((batch, anchor)) = messages.pop_front() {
            let keep_alive = || {
                anchor.reset_timeout();
                messages.iter().for_each(|(_, anchor)| anchor.reset_timeout());
            };
            match self.store(std::slice::from_ref(&batch.readings), keep_alive).await {
                Ok(outcomes) => {
                    self.tally.count(&outcomes);
                    stored(&batch);
                    anchor.ack();
                }
                Err(error) => {
                    let fault = error.fault();
                    if matches!(error, RetryError::Unavailable(_)) {
                        messages.drain(..).for_each(|(_, anchor)| anchor.fail(fault.clone()));
                    }
                    anchor.fail(fault);
                }
            }
        }
    }

    /// Stores, for as long as the retry budget lasts. `keep_alive` is called every so often meanwhile: the tuples are in good
    /// hands, and must not time out while they wait here.
    async fn store(
        &self,
        readings: &[SharedReadings],
        keep_alive: impl Fn(),
    ) -> Result<StoreOutcome, RetryError<StorageError>> {
        let clock = self.context.clock();
        let mut writing = pin!(retry_within(
            clock,
            self.outage.left(clock.now(), self.retry_budget),
            |error| {
                tracing::warn!(%error, messages = readings.len(), "readings wait for the store");
                self.outage.found(clock.now(), error);
            },
            || self.store.store_shared(readings),
        ));
        let mut due = clock.now() + KEEP_ALIVE;
        loop {
            tokio::select! {
                biased;
                written = &mut writing => {
                    match &written {
                        Err(RetryError::Unavailable(error)) => self.outage.found(clock.now(), error),
                        // It answered.
                        Ok(_) | Err(RetryError::Permanent(_)) => self.outage.over(),
                    }
                    return written;
                }
                () = clock.sleep_until(due) => {
                    keep_alive();
                    due = clock.now() + KEEP_ALIVE;
                }
            }
        }
    }
}

impl AsyncBatchBolt for StoreBolt {
    type Input = Arc<ReadingBatch>;
    type Outputs = ();

    async fn prepare(&mut self, context: &TaskContext) -> Result<(), Fault> {
        self.context = Some(context.clone());
        Ok(())
    }

    async fn execute(&mut self, batch: Batch<Arc<ReadingBatch>>, out: &mut Emitter<()>) {
        let now = out.context().now();
        if self.waiting.is_empty() {
            self.waiting_since = now;
        }
        self.waiting_rows += rows_of(batch.values());
        self.waiting.push_back(batch.into_parts());
        while self.under_way.try_join_next().is_some() {
            self.progressed_at = now;
        }
        if self.waiting_rows >= self.options.rows {
            // Waiting here is what holds the topology back. When nothing moves, tuples are better kept here, where they
            // do not time out.
            while self.under_way.len() >= self.in_flight() && !self.is_stalled(out.context().now()) {
                self.finish_one().await;
            }
            if self.under_way.len() < self.in_flight() {
                self.start();
            }
        } else if self.under_way.is_empty() {
            self.start();
        }
        if !self.under_way.is_empty() {
            self.keep_alive(out.context().now());
        }
    }

    async fn progress(&mut self, out: &mut Emitter<()>) -> Result<(), Fault> {
        if self.under_way.is_empty() && self.waiting.is_empty() {
            std::future::pending::<()>().await;
        }
        if self.waiting.is_empty() || self.under_way.len() >= self.in_flight() {
            self.finish_one().await;
        } else if !self.under_way.is_empty() {
            let lingered = out.context().clock().sleep_until(self.waiting_since + self.options.linger);
            tokio::select! {
                () = self.finish_one() => {}
                () = lingered => {}
            }
        }
        if self.under_way.len() < self.in_flight() {
            self.start();
        }
        Ok(())
    }

    async fn drain(&mut self, _: &mut Emitter<()>) {
        while !self.under_way.is_empty() || !self.waiting.is_empty() {
            if self.under_way.len() < self.in_flight() {
                self.start();
            }
            self.finish_one().await;
        }
    }
}
