//! A store of queue states in memory that keeps the contract of `QueueStates`, and fails within it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use galerna_lease::{QueueRecord, invariants};
use galerna_lock::Mutex;
use galerna_model::{QueueName, Timestamp};
use galerna_storage::{Changes, QueueStates, ReadyCount, Result, Settings, StorageError, Swap, Swapped};
use tokio::time::{Instant, sleep};

use crate::world::World;

/// How the store is, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Well,
    /// Connections are refused.
    Away,
    /// Nothing is answered.
    Hangs,
    /// It may be read only.
    RefusesWrites,
}

#[derive(Default)]
struct Stored {
    /// Each record with the number of its last change.
    records: BTreeMap<QueueName, (QueueRecord, u64)>,
    /// What removed queues go on from: number of the removal, version, epoch.
    removed: BTreeMap<QueueName, (u64, u64, u64)>,
    settings: BTreeMap<String, serde_json::Value>,
    changes: u64,
}

struct Shared {
    world: Arc<World>,
    stored: Mutex<Stored>,
    health: Mutex<(Health, Option<Instant>)>,
}

/// One store for all processes.
#[derive(Clone)]
pub(crate) struct SimulatedStore(Arc<Shared>);

impl SimulatedStore {
    pub(crate) fn new(world: Arc<World>) -> Self {
        let health = Mutex::new((Health::Well, None));
        Self(Arc::new(Shared { world, stored: Mutex::default(), health }))
    }

    /// Something befalls the store for a while.
    pub(crate) fn disturb(&self) {
        let world = &self.0.world;
        let health = [Health::Away, Health::Hangs, Health::RefusesWrites][world.below(3)];
        let until = Instant::now() + world.between(Duration::from_millis(50), Duration::from_secs(15));
        world.step(format_args!("store: {health:?} for {:?}", until - Instant::now()));
        *self.0.health.lock() = (health, Some(until));
    }

    pub(crate) fn mend(&self) {
        *self.0.health.lock() = (Health::Well, None);
    }

    pub(crate) fn records(&self) -> Vec<QueueRecord> {
        self.0.stored.lock().records.values().map(|(record, _)| record.clone()).collect()
    }

    fn health(&self) -> Health {
        let mut health = self.0.health.lock();
        if health.1.is_some_and(|until| until <= Instant::now()) {
            *health = (Health::Well, None);
        }
        health.0
    }

    /// One call. It goes on when its caller has given up: what it does may be done later than anybody waits for it.
    async fn call<T: Send + 'static>(
        &self,
        attempted: &'static str,
        writes: bool,
        apply: impl FnOnce(&World, &mut Stored) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let unavailable = |cause: &str| StorageError::Unavailable {
            attempted: attempted.to_owned(),
            cause: cause.to_owned(),
        };
        let store = self.clone();
        let call = tokio::spawn(async move {
            let world = &store.0.world;
            world.count();
            sleep(world.latency()).await;
            let mut health = store.health();
            while health == Health::Hangs {
                sleep(Duration::from_millis(50)).await;
                health = store.health();
            }
            if health == Health::Away {
                return Err(unavailable("connection refused"));
            }
            if writes && health == Health::RefusesWrites {
                return Err(StorageError::Failed {
                    attempted: attempted.to_owned(),
                    cause: "not authorised".to_owned(),
                });
            }
            if world.fails(0.01) {
                return Err(unavailable("connection reset before it was done"));
            }
            let result = apply(world, &mut store.0.stored.lock());
            sleep(world.latency()).await;
            if writes && world.fails(0.02) {
                world.step(format_args!("store: {attempted} is done, and its answer is lost"));
                return Err(unavailable("connection reset after it was done"));
            }
            result
        });
        call.await.unwrap_or_else(|_| {
            Err(StorageError::Failed {
                attempted: attempted.to_owned(),
                cause: "the call panicked".to_owned(),
            })
        })
    }
}

impl Stored {
    fn put(&mut self, record: QueueRecord) {
        self.changes += 1;
        self.records.insert(record.queue.clone(), (record, self.changes));
    }
}

/// What must hold of a guarded write, though it is not known what it is for.
fn check(world: &World, before: &QueueRecord, after: &QueueRecord) {
    if let Err(violation) = invariants::record(after) {
        world.violated(format!("{}: {violation}: {after:?}", after.queue));
    }
    // One write may do several things: give a lease back and give the queue to the next.
    let granted = after.epoch > before.epoch;
    if after.epoch < before.epoch {
        world.violated(format!("{}: the epoch went from {} to {}", after.queue, before.epoch, after.epoch));
    }
    if granted || before.state != after.state || before.lease.is_some() != after.lease.is_some() {
        let holder = after.lease.as_ref().map_or("nobody", |lease| &lease.consumer);
        world.step(format_args!(
            "{}: {} to {}, epoch {}, held by {holder}",
            after.queue,
            before.state.as_str(),
            after.state.as_str(),
            after.epoch
        ));
    }
}

#[async_trait]
impl QueueStates for SimulatedStore {
    async fn all(&self) -> Result<Vec<QueueRecord>> {
        self.call("reading all queues", false, |_, stored| {
            Ok(stored.records.values().map(|(record, _)| record.clone()).collect())
        })
        .await
    }

    async fn get(&self, queue: &QueueName) -> Result<Option<QueueRecord>> {
        let queue = queue.clone();
        self.call("reading a queue", false, move |_, stored| {
            Ok(stored.records.get(&queue).map(|(record, _)| record.clone()))
        })
        .await
    }

    async fn changes(&self, cursor: u64) -> Result<Changes> {
        self.call("reading changes", false, move |_, stored| {
            let changed = stored.records.values().filter(|(_, change)| *change > cursor);
            let removed = stored.removed.iter().filter(|(_, (change, ..))| *change > cursor);
            Ok(Changes {
                records: changed.map(|(record, _)| record.clone()).collect(),
                removed: removed.map(|(queue, _)| queue.clone()).collect(),
                cursor: stored.changes,
            })
        })
        .await
    }

    async fn create(&self, records: &[QueueRecord]) -> Result<Vec<QueueName>> {
        let records = records.to_vec();
        self.call("creating queues", true, move |world, stored| {
            let mut created = Vec::new();
            for mut record in records {
                if stored.records.contains_key(&record.queue) {
                    continue;
                }
                if let Some((_, version, epoch)) = stored.removed.remove(&record.queue) {
                    record.version = version + 1;
                    record.epoch = epoch;
                }
                world.step(format_args!("{}: created at epoch {}", record.queue, record.epoch));
                created.push(record.queue.clone());
                stored.put(record);
            }
            Ok(created)
        })
        .await
    }

    async fn swap(&self, swaps: &[Swap]) -> Result<Vec<Swapped>> {
        let swaps = swaps.to_vec();
        self.call("writing queue states", true, move |world, stored| {
            if swaps.iter().any(|swap| swap.record.version != swap.expected + 1) {
                world.violated("a swap whose version is not one above the expected one".to_owned());
                return Err(StorageError::Invalid(
                    "the version is not one above the expected one".to_owned(),
                ));
            }
            let mut swapped = Vec::new();
            for Swap { expected, mut record } in swaps {
                let before = stored.records.get(&record.queue).map(|(before, _)| before.clone());
                swapped.push(match before {
                    Some(before) if before.version == expected => {
                        check(world, &before, &record);
                        record.ready = before.ready;
                        record.unacked = before.unacked;
                        record.counted_at = before.counted_at;
                        stored.put(record);
                        Swapped::Done
                    }
                    other => Swapped::Conflict(other),
                });
            }
            Ok(swapped)
        })
        .await
    }

    async fn remove(&self, queue: &QueueName, version: u64) -> Result<bool> {
        let queue = queue.clone();
        self.call("removing a queue", true, move |world, stored| match stored.records.get(&queue) {
            Some((record, _)) if record.version == version => {
                if record.lease.is_some() {
                    world.violated(format!("{queue} was removed under a lease: {record:?}"));
                }
                let (version, epoch) = (record.version, record.epoch);
                stored.changes += 1;
                stored.records.remove(&queue);
                stored.removed.insert(queue.clone(), (stored.changes, version, epoch));
                world.step(format_args!("{queue}: removed at epoch {epoch}"));
                Ok(true)
            }
            _ => Ok(false),
        })
        .await
    }

    async fn set_ready(&self, counts: &[ReadyCount], at: Timestamp) -> Result<()> {
        let counts = counts.to_vec();
        self.call("writing counts", true, move |_, stored| {
            for count in counts {
                let Some((record, _)) = stored.records.get(&count.queue) else { continue };
                if record.counted_at.is_some_and(|counted| counted > at) {
                    continue;
                }
                let counted = QueueRecord {
                    ready: count.ready,
                    unacked: count.unacked,
                    counted_at: Some(at),
                    ..record.clone()
                };
                if counted != *record {
                    stored.put(counted);
                }
            }
            Ok(())
        })
        .await
    }
}

#[async_trait]
impl Settings for SimulatedStore {
    async fn get(&self, key: &str) -> Result<Option<serde_json::Value>> {
        let key = key.to_owned();
        self.call("reading a setting", false, move |_, stored| Ok(stored.settings.get(&key).cloned())).await
    }

    async fn put(&self, key: &str, value: &serde_json::Value) -> Result<()> {
        let (key, value) = (key.to_owned(), value.clone());
        self.call("writing a setting", true, move |_, stored| {
            stored.settings.insert(key, value);
            Ok(())
        })
        .await
    }
}
