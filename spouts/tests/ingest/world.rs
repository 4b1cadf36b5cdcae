//! A broker, a store and a dispatcher, with the ingestion topology over them.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use galerna_bolts::{AlertBolt, AlertOptions, RejectBolt, StoreBolt, StoreOptions, ValidateBolt};
use galerna_broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use galerna_broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use galerna_broker::{Broker, RetryPolicy};
use galerna_dispatcher::{Dispatcher, DispatcherOptions, Leases, Timing};
use galerna_engine::{Engine, EngineOptions, Running};
use galerna_model::{
    AccountId, Clock, Envelope, Measurement, Message, ParameterCode, QueueName, Reading, SourceId,
    SystemClock, Timestamp,
};
use galerna_model::{ParameterRegistry, ValidationLimits};
use galerna_spouts::{LeaseTally, LeasedOptions, LeasedQueues};
use galerna_storage::{QueueRecord, ReadingKey, Readings, Store};
use galerna_test_servers::{Mongo, RabbitMq, unique};
use galerna_topology::TopologyBuilder;

/// The longest that anything here may take, on a busy machine.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) store: Store,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) tally: Arc<LeaseTally>,
    /// The wall clock of the alerts.
    pub(crate) wall: Arc<dyn Clock>,
}

pub(crate) fn retry() -> RetryPolicy {
    RetryPolicy { max_deliveries: 3, delays: vec![Duration::from_millis(50)], ..RetryPolicy::default() }
}

impl World {
    /// All embedded, in memory.
    pub(crate) async fn embedded(lease: Duration) -> Self {
        let options = EmbeddedOptions { retry: retry(), ..EmbeddedOptions::default() };
        let broker = Arc::new(EmbeddedBroker::in_memory(options).expect("embedded broker"));
        Self::of(broker, galerna_storage::sqlite::in_memory().expect("embedded store"), lease).await
    }

    /// RabbitMQ and MongoDB.
    pub(crate) async fn servers(lease: Duration) -> Self {
        let options = RabbitMqOptions {
            retry: retry(),
            ..RabbitMqOptions::new(RabbitMq::shared().await.vhost().await)
        };
        let broker = Arc::new(RabbitMqBroker::connect(options).await.expect("RabbitMQ"));
        let uri = format!("{}/{}", Mongo::shared().await.uri().trim_end_matches('/'), unique("ingest"));
        Self::of(broker, galerna_storage::open(&uri).await.expect("MongoDB"), lease).await
    }

    pub(crate) async fn of(broker: Arc<dyn Broker>, store: Store, lease: Duration) -> Self {
        let options = DispatcherOptions { timing: Timing::with_lease(lease), ..DispatcherOptions::default() };
        let dispatcher = Dispatcher::open(&store, options).await.expect("dispatcher");
        Self { broker, store, dispatcher, tally: Arc::default(), wall: Arc::new(SystemClock) }
    }

    /// Makes the queue of an account.
    pub(crate) async fn queue(&self, name: &str) -> QueueName {
        let queue = QueueName::new(name).unwrap();
        self.broker.declare(&queue).await.expect("declare");
        let record = QueueRecord::new(queue.clone(), AccountId::new(name).unwrap(), Timestamp(0));
        self.store.queues.create(&[record]).await.expect("create");
        self.dispatcher.refresh().await.expect("refresh");
        queue
    }

    pub(crate) async fn publish(&self, queue: &QueueName, messages: impl IntoIterator<Item = Message>) {
        let window = messages.into_iter().map(|message| (queue.clone(), message)).collect();
        self.broker.publish(window).await.expect("publish");
    }

    pub(crate) fn leases(&self) -> Arc<dyn Leases> {
        Arc::new(self.dispatcher.clone())
    }

    pub(crate) fn spout(
        &self,
        leases: Arc<dyn Leases>,
        options: LeasedOptions,
    ) -> impl Fn() -> LeasedQueues + Send + Sync + 'static {
        let (broker, tally) = (self.broker.clone(), self.tally.clone());
        move || {
            LeasedQueues::new(broker.clone(), leases.clone(), "test")
                .with_options(options.clone())
                .with_tally(tally.clone())
        }
    }

    /// The ingestion topology, storing into `readings`.
    pub(crate) async fn ingest(&self, readings: Arc<dyn Readings>) -> Running {
        let mut topology = TopologyBuilder::new("ingest");
        let messages = topology.spout("queues", self.spout(self.leases(), quick())).outputs();
        let registry = Arc::new(ParameterRegistry::built_in());
        let checked = topology
            .bolt("validate", move || ValidateBolt::new(registry.clone(), ValidationLimits::default()))
            .fields(&messages, |message| &message.queue)
            .outputs();
        let options = StoreOptions { retry_budget: Duration::from_millis(300), ..StoreOptions::default() };
        topology
            .async_batch_bolt("store", move || StoreBolt::new(readings.clone(), options.clone()))
            .shuffle(&checked.valid);
        let (rejected, broker) = (self.store.rejected.clone(), self.broker.clone());
        topology
            .async_batch_bolt("reject", move || RejectBolt::new(rejected.clone(), broker.clone()))
            .shuffle(&checked.rejected);
        let (store, broker, wall) = (self.store.clone(), self.broker.clone(), self.wall.clone());
        let options = AlertOptions { reload_every: Duration::from_millis(100), ..AlertOptions::default() };
        topology
            .async_batch_bolt("alert", move || {
                AlertBolt::new(&store, broker.clone(), options.clone()).with_clock(wall.clone())
            })
            .fields(&checked.valid, |batch| &batch.account)
            .tick_every(Duration::from_millis(50));
        let topology = topology.build().expect("topology");
        Engine::submit(topology, EngineOptions::default()).await.expect("submit")
    }

    pub(crate) async fn stored(&self) -> u64 {
        self.store.readings.count(None).await.expect("count")
    }

    pub(crate) async fn keys(&self, account: &str) -> Vec<ReadingKey> {
        self.store.readings.keys(&AccountId::new(account).unwrap(), None, 1_000_000).await.expect("keys")
    }

    /// Whether the queue holds nothing, neither ready nor unsettled.
    pub(crate) async fn is_empty(&self, queue: &QueueName) -> bool {
        let depth = self.broker.depth(queue).await.expect("depth");
        depth.ready == 0 && depth.unacked == 0
    }
}

/// Short waits, so that tests are quick.
pub(crate) fn quick() -> LeasedOptions {
    LeasedOptions {
        leases: 3,
        prefetch: 200,
        wait: Duration::from_millis(100),
        grace: Duration::from_secs(5),
        ..LeasedOptions::default()
    }
}

/// Waits until `condition` holds.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let waiting = async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(tokio::time::timeout(DEADLINE, waiting).await.is_ok(), "in vain: {what}");
}

pub(crate) fn at(hours: i64) -> Timestamp {
    Timestamp::parse("2017-01-01T00:00:00Z").unwrap().plus_millis(hours * 3_600_000)
}

pub(crate) fn reading(device: &str, hours: i64, power: f64) -> Reading {
    Reading {
        did: device.to_owned(),
        values: vec![Measurement { p: ParameterCode(401), v: power }],
        sqn: 1,
        ts: at(hours),
    }
}

pub(crate) fn envelope(account: &str, id: &str, readings: Vec<Reading>) -> Envelope {
    Envelope {
        id: id.to_owned(),
        account: AccountId::new(account).unwrap(),
        source: SourceId::new(format!("{account}-c1")).unwrap(),
        received: at(0),
        readings,
    }
}

/// `messages` envelopes of `each` readings, all different.
pub(crate) fn envelopes(account: &str, messages: usize, each: usize) -> Vec<Message> {
    let readings = |m: usize| (0..each).map(move |d| reading(&format!("m{d}"), m as i64, d as f64));
    (0..messages)
        .map(|m| envelope(account, &format!("{account}-{m}"), readings(m).collect()).encode())
        .collect()
}
