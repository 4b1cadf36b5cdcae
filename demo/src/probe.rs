//! Measuring from outside: what passes through the store and the leases, without either knowing.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use async_trait::async_trait;
use galerna_dispatcher::{GrantedLease, LeaseError, Leases, NextRequest, Release, Renewed};
use galerna_lock::Mutex;
use galerna_model::{AccountId, Clock, QueueName, SourceId};
use galerna_storage::{
    ReadingKey, ReadingOutcome, Readings, ReadingsQuery, SharedReadings, StoreOutcome, StoredReading,
};
use hdrhistogram::Histogram;

/// What the probes counted.
pub(crate) struct Measures {
    started: Instant,
    pub(crate) stored: AtomicU64,
    pub(crate) replaced: AtomicU64,
    pub(crate) duplicates: AtomicU64,
    pub(crate) leases: AtomicU64,
    latency: Mutex<Histogram<u64>>,
    first_lease: Mutex<HashMap<QueueName, u64>>,
    last_stored: Mutex<HashMap<AccountId, u64>>,
}

/// Half, nearly all and all of some times, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, serde::Serialize)]
pub(crate) struct Distribution {
    pub(crate) p50: u64,
    pub(crate) p99: u64,
    pub(crate) max: u64,
}

impl Distribution {
    pub(crate) fn of(times: impl IntoIterator<Item = u64>) -> Self {
        let mut histogram = histogram();
        for time in times {
            histogram.saturating_record(time);
        }
        Self::from(&histogram)
    }
}

impl From<&Histogram<u64>> for Distribution {
    fn from(h: &Histogram<u64>) -> Self {
        Self { p50: h.value_at_quantile(0.5), p99: h.value_at_quantile(0.99), max: h.max() }
    }
}

/// Milliseconds up to ten years, three digits.
fn histogram() -> Histogram<u64> {
    // These bounds are constants that the library accepts.
    Histogram::new_with_bounds(1, 10 * 365 * 24 * 3_600_000, 3).expect("bounds are valid")
}

impl Measures {
    pub(crate) fn new() -> Self {
        Self {
            started: Instant::now(),
            stored: AtomicU64::new(0),
            replaced: AtomicU64::new(0),
            duplicates: AtomicU64::new(0),
            leases: AtomicU64::new(0),
            latency: Mutex::new(histogram()),
            first_lease: Mutex::default(),
            last_stored: Mutex::default(),
        }
    }

    /// Milliseconds since the measuring began.
    pub(crate) fn elapsed_ms(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    /// Readings that were stored, replaced or found to be there.
    pub(crate) fn settled(&self) -> u64 {
        [&self.stored, &self.replaced, &self.duplicates].iter().map(|n| n.load(Ordering::Relaxed)).sum()
    }

    /// From published to stored.
    pub(crate) fn latency(&self) -> Distribution {
        Distribution::from(&*self.latency.lock())
    }

    /// When each queue was first leased, in milliseconds since the measuring began.
    pub(crate) fn first_leases(&self) -> HashMap<QueueName, u64> {
        self.first_lease.lock().clone()
    }

    /// When the latest reading of each account was stored, in milliseconds since the measuring began.
    pub(crate) fn last_stored(&self) -> HashMap<AccountId, u64> {
        self.last_stored.lock().clone()
    }
}

/// Readings that are measured as they are stored.
pub(crate) struct MeasuredReadings<C> {
    pub(crate) inner: Arc<dyn Readings>,
    pub(crate) measures: Arc<Measures>,
    pub(crate) clock: C,
}

#[async_trait]
impl<C: Clock> Readings for MeasuredReadings<C> {
    async fn store_shared(&self, messages: &[SharedReadings]) -> galerna_storage::Result<StoreOutcome> {
        let outcomes = self.inner.store_shared(messages).await?;
        let batch = || messages.iter().flat_map(|readings| readings.iter());
        let now = self.clock.now();
        let at = self.measures.elapsed_ms();
        let (mut stored, mut replaced, mut duplicates) = (0, 0, 0);
        {
            let mut latency = self.measures.latency.lock();
            for (reading, outcome) in batch().zip(outcomes.iter()) {
                match outcome {
                    ReadingOutcome::Inserted => stored += 1,
                    ReadingOutcome::Replaced | ReadingOutcome::Added => replaced += 1,
                    ReadingOutcome::Duplicate => {
                        duplicates += 1;
                        continue;
                    }
                }
                latency.saturating_record(u64::try_from(now.millis_since(reading.received)).unwrap_or(0));
            }
        }
        {
            let mut last = self.measures.last_stored.lock();
            let mut previous: Option<&AccountId> = None;
            for reading in batch() {
                if previous != Some(&reading.account) {
                    last.insert(reading.account.clone(), at);
                    previous = Some(&reading.account);
                }
            }
        }
        self.measures.stored.fetch_add(stored, Ordering::Relaxed);
        self.measures.replaced.fetch_add(replaced, Ordering::Relaxed);
        self.measures.duplicates.fetch_add(duplicates, Ordering::Relaxed);
        Ok(outcomes)
    }

    async fn find(&self, query: &ReadingsQuery) -> galerna_storage::Result<Vec<StoredReading>> {
        self.inner.find(query).await
    }

    async fn count(&self, account: Option<&AccountId>) -> galerna_storage::Result<u64> {
        self.inner.count(account).await
    }

    async fn keys(
        &self,
        account: &AccountId,
        after: Option<&ReadingKey>,
        limit: usize,
    ) -> galerna_storage::Result<Vec<ReadingKey>> {
        self.inner.keys(account, after, limit).await
    }

    async fn latest(&self, source: &SourceId) -> galerna_storage::Result<Vec<StoredReading>> {
        self.inner.latest(source).await
    }
}

/// Leases that are counted as they are granted.
pub(crate) struct MeasuredLeases {
    pub(crate) inner: Arc<dyn Leases>,
    pub(crate) measures: Arc<Measures>,
}

#[async_trait]
impl Leases for MeasuredLeases {
    async fn next(&self, request: NextRequest) -> Result<Vec<GrantedLease>, LeaseError> {
        let granted = self.inner.next(request).await?;
        let at = self.measures.elapsed_ms();
        self.measures.leases.fetch_add(granted.len() as u64, Ordering::Relaxed);
        let mut first = self.measures.first_lease.lock();
        for lease in &granted {
            first.entry(lease.queue.clone()).or_insert(at);
        }
        drop(first);
        Ok(granted)
    }

    async fn renew(&self, queue: &QueueName, epoch: u64) -> Result<Renewed, LeaseError> {
        self.inner.renew(queue, epoch).await
    }

    async fn release(&self, release: &Release) -> Result<(), LeaseError> {
        self.inner.release(release).await
    }
}
