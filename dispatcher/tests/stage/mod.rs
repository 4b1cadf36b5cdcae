//! A store with queues in it, and dispatchers on top.

#![allow(dead_code, unreachable_pub)] // each test program uses its part

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use galerna_dispatcher::{
    Dispatcher, DispatcherOptions, GrantedLease, Leases, MaintainerLink, NextRequest, Ping, PingError,
    Release, StrategyName, Timing,
};
use galerna_model::{AccountId, Clock, QueueName, SystemClock, Timestamp};
use galerna_storage::{QueueRecord, ReadyCount, Store};
use galerna_test_servers::{Mongo, unique};

/// A store of its own for one test. The folder lives as long as this.
pub struct Stage {
    pub kind: &'static str,
    pub store: Store,
    _folder: Option<tempfile::TempDir>,
}

impl Stage {
    pub async fn embedded() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("store.db");
        let store =
            galerna_storage::open(&format!("embedded:{}", path.display())).await.expect("SQLite opens");
        Self { kind: "embedded", store, _folder: Some(folder) }
    }

    pub async fn mongo() -> Self {
        let uri = Mongo::shared().await.uri();
        let store =
            galerna_storage::open(&with_database(&uri, &unique("dispatcher"))).await.expect("MongoDB opens");
        Self { kind: "mongodb", store, _folder: None }
    }

    /// A store that the test opened.
    pub fn of(kind: &'static str, store: Store) -> Self {
        Self { kind, store, _folder: None }
    }

    /// One of each kind.
    pub async fn all() -> Vec<Self> {
        vec![Self::embedded().await, Self::mongo().await]
    }

    /// Creates idle queues with so many messages each.
    pub async fn queues(&self, queues: &[(&str, u64)]) {
        let now = SystemClock.now();
        let records: Vec<QueueRecord> =
            queues.iter().map(|(name, _)| QueueRecord::new(queue(name), account(name), now)).collect();
        self.store.queues.create(&records).await.expect("queues are created");
        let counts: Vec<ReadyCount> = queues
            .iter()
            .map(|(name, ready)| ReadyCount { queue: queue(name), ready: *ready, unacked: 0 })
            .collect();
        self.store.queues.set_ready(&counts, now).await.expect("counts are written");
    }

    pub async fn count(&self, name: &str, ready: u64, at: Timestamp) {
        let counts = [ReadyCount { queue: queue(name), ready, unacked: 0 }];
        self.store.queues.set_ready(&counts, at).await.expect("counts are written");
    }

    pub async fn record(&self, name: &str) -> QueueRecord {
        self.store.queues.get(&queue(name)).await.expect("the store answers").expect(name)
    }

    pub async fn dispatcher(&self) -> Dispatcher {
        self.dispatcher_with(options()).await
    }

    pub async fn dispatcher_with(&self, options: DispatcherOptions) -> Dispatcher {
        Dispatcher::open(&self.store, options).await.expect("the dispatcher opens")
    }
}

/// Options with a maintainer that always answers.
pub fn options() -> DispatcherOptions {
    DispatcherOptions {
        name: "d1".to_owned(),
        timing: Timing { refresh: Duration::from_millis(20), ..Timing::default() },
        strategy: StrategyName::Lru,
        maintainer: MaintainerLink::Local(Arc::new(Answers)),
        ..DispatcherOptions::default()
    }
}

/// The same with short leases.
pub fn short_leases(ms: u64) -> DispatcherOptions {
    let timing = Timing::with_lease(Duration::from_millis(ms));
    DispatcherOptions {
        timing: Timing {
            refresh: Duration::from_millis(20),
            expiry_margin: Duration::from_millis(50),
            ..timing
        },
        ..options()
    }
}

pub struct Answers;

#[async_trait]
impl Ping for Answers {
    async fn ping(&self) -> Result<(), PingError> {
        Ok(())
    }
}

pub fn queue(name: &str) -> QueueName {
    name.parse().expect("a queue name")
}

pub fn account(name: &str) -> AccountId {
    name.trim_start_matches('D').parse().expect("an account")
}

/// The address with the database's name in it, before any options.
pub fn with_database(uri: &str, database: &str) -> String {
    let (base, options) = uri.split_once('?').map_or((uri, None), |(b, o)| (b, Some(o)));
    let base = base.trim_end_matches('/');
    options.map_or_else(|| format!("{base}/{database}"), |o| format!("{base}/{database}?{o}"))
}

pub fn release(lease: &GrantedLease, empty: bool) -> Release {
    Release { queue: lease.queue.clone(), epoch: lease.epoch, empty }
}

pub async fn lease(d: &impl Leases, consumer: &str) -> Option<GrantedLease> {
    let request = NextRequest { consumer: consumer.to_owned(), count: 1, ..NextRequest::default() };
    d.next(request).await.expect("next").pop()
}

/// Waits until the condition holds; fails after a minute.
pub async fn until<F: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> F) {
    let waited = tokio::time::timeout(Duration::from_secs(60), async {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        while !holds().await {
            tick.tick().await;
        }
    });
    assert!(waited.await.is_ok(), "waited in vain until {what}");
}
