//! A broker, a store, rules and endpoints, and notifiers that run.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use galerna_broker::Broker;
use galerna_broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use galerna_model::{AccountId, Clock, Message, ParameterCode, QueueName, SourceId, SystemClock, Timestamp};
use galerna_model::{AlertEvent, AlertEventKind, Comparison, Condition, Rule, Severity};
use galerna_notifier::{ALERTS_QUEUE, AllowList, Notifier, Options, Parts, RetrySchedule, put_endpoint};
use galerna_storage::mongo::{self, MongoOptions};
use galerna_storage::{Delivery, DeliveryFilter, DeliveryStatus, Endpoint, EndpointKind, Store, sqlite};
use galerna_test_servers::{Mongo, RabbitMq, unique};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::receiver::Receiver;

/// Longer than anything takes on a machine that compiles meanwhile.
pub(crate) const DEADLINE: Duration = Duration::from_secs(120);

/// Waits until a condition holds.
pub(crate) async fn until<F: Future<Output = bool>>(what: &str, condition: impl Fn() -> F) {
    let holds = async {
        while !condition().await {
            sleep(Duration::from_millis(20)).await;
        }
    };
    assert!(timeout(DEADLINE, holds).await.is_ok(), "waited in vain for {what}");
}

/// The machine's clock, moved on by hand.
#[derive(Default)]
pub(crate) struct ShiftedClock(AtomicI64);

impl ShiftedClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_millis() as i64, Ordering::SeqCst);
    }
}

impl Clock for ShiftedClock {
    fn now(&self) -> Timestamp {
        SystemClock.now().plus_millis(self.0.load(Ordering::SeqCst))
    }
}

pub(crate) struct World {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) store: Store,
    pub(crate) clock: Arc<ShiftedClock>,
    running: Vec<(CancellationToken, JoinHandle<()>)>,
}

impl World {
    /// In this process.
    pub(crate) async fn embedded() -> Self {
        let broker = galerna_broker::open("embedded::memory:").await.unwrap();
        Self::of(broker, sqlite::in_memory().unwrap())
    }

    /// On RabbitMQ and MongoDB.
    pub(crate) async fn on_servers() -> Self {
        let uri = RabbitMq::shared().await.vhost().await;
        let broker = RabbitMqBroker::connect(RabbitMqOptions::new(uri)).await.unwrap();
        let options = MongoOptions {
            database: Some(unique("notifier")),
            ..MongoOptions::new(Mongo::shared().await.uri())
        };
        Self::of(Arc::new(broker), mongo::connect(options).await.unwrap())
    }

    pub(crate) fn of(broker: Arc<dyn Broker>, store: Store) -> Self {
        Self { broker, store, clock: Arc::default(), running: Vec::new() }
    }

    pub(crate) fn parts(&self) -> Parts {
        let clock: Arc<dyn Clock> = self.clock.clone();
        Parts {
            broker: Arc::clone(&self.broker),
            store: self.store.clone(),
            clock,
            registry: Default::default(),
        }
    }

    /// A notifier that runs until the world ends.
    pub(crate) async fn start(&mut self, options: Options) -> Notifier {
        let notifier = Notifier::open(self.parts(), options).await.unwrap();
        let stop = CancellationToken::new();
        self.running.push((stop.clone(), notifier.spawn(stop)));
        notifier
    }

    /// Ends all notifiers in an orderly way.
    pub(crate) async fn stop(&mut self) {
        for (stop, task) in self.running.drain(..) {
            stop.cancel();
            timeout(DEADLINE, task).await.expect("the notifier ends").expect("it does not panic");
        }
    }

    /// Ends all notifiers as `kill -9` would: wherever they are.
    pub(crate) async fn crash(&mut self) {
        for (_, task) in self.running.drain(..) {
            task.abort();
            let _ = task.await;
        }
    }

    pub(crate) async fn endpoint(&self, endpoint: Endpoint) {
        put_endpoint(&self.store, &endpoint).await.unwrap();
    }

    pub(crate) async fn rule(&self, id: &str, endpoints: &[&str]) {
        self.store.rules.put(&rule(id, endpoints)).await.unwrap();
    }

    /// A rule `r` that tells the endpoint `hook` at this URL.
    pub(crate) async fn hook(&self, url: &str) {
        self.endpoint(hook("hook", url)).await;
        self.rule("r", &["hook"]).await;
    }

    /// The same with a cooldown of an hour.
    pub(crate) async fn hook_with_cooldown(&self, url: &str) {
        self.endpoint(Endpoint { cooldown_ms: 3_600_000, ..hook("hook", url) }).await;
        self.rule("r", &["hook"]).await;
    }

    /// A notifier that has told of an alert of `d` and of its end, so that the cooldown for it has begun.
    pub(crate) async fn cooling(&mut self, receiver: &Receiver) {
        self.hook_with_cooldown(&receiver.url()).await;
        self.start(options()).await;
        self.raise(&[raised("d", 0), resolved("d", 10)]).await;
        receiver.took(2).await;
        self.quiet(2).await;
    }

    /// Records and publishes, as the alert bolt does.
    pub(crate) async fn raise(&self, events: &[AlertEvent]) {
        self.store.alert_states.record(events).await.unwrap();
        self.publish(events).await;
    }

    pub(crate) async fn publish(&self, events: &[AlertEvent]) {
        let messages = events.iter().map(|e| (e.id.clone(), serde_json::to_vec(e).unwrap()));
        self.publish_raw(messages.collect()).await;
    }

    pub(crate) async fn publish_raw(&self, bodies: Vec<(String, Vec<u8>)>) {
        let queue = QueueName::new(ALERTS_QUEUE).unwrap();
        self.broker.declare(&queue).await.unwrap();
        let window = bodies.into_iter().map(|(id, body)| {
            let content_type = "application/json".to_owned();
            (queue.clone(), Message { body: body.into(), content_type, id })
        });
        self.broker.publish(window.collect()).await.unwrap();
    }

    /// All deliveries, oldest first.
    pub(crate) async fn deliveries(&self) -> Vec<Delivery> {
        let page = self.store.notifications.deliveries(&DeliveryFilter::default(), 0, 10_000).await.unwrap();
        page.deliveries.into_iter().rev().collect()
    }

    /// The one delivery that has an event of this kind and device, once there is one with this status.
    pub(crate) async fn delivery(
        &self,
        kind: AlertEventKind,
        device: &str,
        status: DeliveryStatus,
    ) -> Delivery {
        let find = || async {
            let mut found = self.deliveries().await;
            found.retain(|d| {
                d.status == status && d.events.iter().any(|e| e.kind == kind && e.device == device)
            });
            found.pop()
        };
        until(&format!("{kind:?} of {device} to be {status:?}"), || async { find().await.is_some() }).await;
        find().await.unwrap()
    }

    /// Waits until there are so many deliveries, and none is pending.
    pub(crate) async fn quiet(&self, deliveries: usize) {
        until(&format!("{deliveries} deliveries to end"), || async {
            let found = self.deliveries().await;
            found.len() >= deliveries && found.iter().all(|d| d.status != DeliveryStatus::Pending)
        })
        .await;
        assert_eq!(self.deliveries().await.len(), deliveries);
    }
}

/// Retries at once; may go to this machine.
pub(crate) fn options() -> Options {
    Options {
        poll: Duration::from_millis(50),
        retry: RetrySchedule {
            first: Duration::from_millis(20),
            longest: Duration::from_millis(200),
            ..RetrySchedule::default()
        },
        allow: AllowList::parse(["127.0.0.1"]).unwrap(),
        ..Options::default()
    }
}

pub(crate) fn hook(id: &str, url: &str) -> Endpoint {
    Endpoint {
        id: id.into(),
        name: format!("The {id}"),
        account: None,
        kind: EndpointKind::Webhook {
            url: url.into(),
            method: "POST".into(),
            headers: [("x-key".to_owned(), "hunter2".to_owned())].into(),
            body: None,
            secret: None,
        },
        enabled: true,
        disabled_reason: None,
        group_ms: 0,
        cooldown_ms: 0,
    }
}

pub(crate) fn rule(id: &str, endpoints: &[&str]) -> Rule {
    Rule {
        id: id.into(),
        name: format!("Rule {id}"),
        account: None,
        devices: "*".into(),
        condition: Condition::Threshold {
            parameter: ParameterCode(401),
            comparison: Comparison::Above,
            limit: 4000.0,
            clear: None,
            for_ms: 0,
        },
        severity: Severity::Critical,
        endpoints: endpoints.iter().map(|id| (*id).to_owned()).collect(),
        cooldown_ms: 0,
        enabled: true,
    }
}

/// An event of the rule `r`, so many seconds after some time.
pub(crate) fn event(kind: AlertEventKind, device: &str, seconds: i64) -> AlertEvent {
    let ts = Timestamp::parse("2015-04-21T23:15:00Z").unwrap().plus_millis(seconds * 1000);
    AlertEvent {
        id: format!("r/s/{device}/{kind:?}/{}", ts.0),
        kind,
        rule: "r".into(),
        rule_name: "Rule r".into(),
        severity: Severity::Critical,
        account: AccountId::new("acme").unwrap(),
        source: SourceId::new("s").unwrap(),
        device: device.into(),
        value: Some(4900.5),
        ts,
        message: format!("401 of {device} is 4900.5 W, above 4000"),
        origin: None,
        at: None,
    }
}

pub(crate) fn raised(device: &str, seconds: i64) -> AlertEvent {
    event(AlertEventKind::Raised, device, seconds)
}

pub(crate) fn resolved(device: &str, seconds: i64) -> AlertEvent {
    event(AlertEventKind::Resolved, device, seconds)
}

/// Kind and device, as a receiver sees them.
pub(crate) fn seen(kind: &str, device: &str) -> (String, String) {
    (kind.to_owned(), device.to_owned())
}
