//! A broker to test, and the words that the sentences use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use galerna_broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use galerna_broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use galerna_broker::{Broker, Consumer, Delivery, DeliveryTag, Failure, Outcome, RetryPolicy};
use galerna_model::{Message, QueueName};
use galerna_test_servers::RabbitMq;

/// Longest a condition is waited for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// A wait that ends early whenever something arrives.
pub(crate) const WAIT: Duration = Duration::from_secs(20);

/// A wait that is expected to pass.
pub(crate) const MOMENT: Duration = Duration::from_millis(100);

pub(crate) struct World {
    pub(crate) broker: Arc<dyn Broker>,
    _folder: Option<tempfile::TempDir>,
}

/// Three deliveries, with delays that a test can wait for.
pub(crate) fn retry() -> RetryPolicy {
    let delays = vec![Duration::from_millis(100), Duration::from_millis(200)];
    RetryPolicy { max_deliveries: 3, delays, ..RetryPolicy::default() }
}

impl World {
    pub(crate) fn embedded() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let options = EmbeddedOptions { retry: retry(), ..EmbeddedOptions::default() };
        let broker = EmbeddedBroker::open_with(folder.path().join("broker.db"), options).unwrap();
        Self { broker: Arc::new(broker), _folder: Some(folder) }
    }

    /// RabbitMQ with a virtual host of its own.
    pub(crate) async fn rabbitmq() -> Self {
        let server = RabbitMq::shared().await;
        let options = RabbitMqOptions {
            management_uri: Some(server.management_uri()),
            retry: retry(),
            ..RabbitMqOptions::new(server.vhost().await)
        };
        Self { broker: Arc::new(RabbitMqBroker::connect(options).await.unwrap()), _folder: None }
    }

    /// A queue of its own.
    pub(crate) async fn queue(&self, name: &str) -> QueueName {
        let queue = QueueName::new(galerna_test_servers::unique(name)).unwrap();
        self.broker.declare(&queue).await.unwrap();
        queue
    }

    /// Publishes text messages.
    pub(crate) async fn publish(&self, queue: &QueueName, bodies: impl IntoIterator<Item = impl AsRef<str>>) {
        let window = bodies.into_iter().map(|body| (queue.clone(), text(body.as_ref()))).collect();
        self.broker.publish(window).await.unwrap();
    }

    pub(crate) async fn consume(&self, queue: &QueueName, prefetch: u16) -> Box<dyn Consumer> {
        self.broker.consume(queue, prefetch).await.unwrap()
    }

    /// Waits until a queue has this depth.
    pub(crate) async fn depth_becomes(&self, queue: &QueueName, ready: u64, unacked: u64) {
        let wanted = (ready, unacked);
        let start = Instant::now();
        loop {
            let found = self.broker.depth(queue).await.unwrap();
            if (found.ready, found.unacked) == wanted {
                return;
            }
            assert!(start.elapsed() < DEADLINE, "{queue} has {found:?}, wanted {wanted:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Waits until a condition holds.
pub(crate) async fn until(what: impl FnOnce() -> String, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        if start.elapsed() >= DEADLINE {
            panic!("after {DEADLINE:?}: {}", what());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

pub(crate) fn text(body: &str) -> Message {
    Message { body: body.to_owned().into(), content_type: "text/plain".into(), id: format!("id-{body}") }
}

pub(crate) fn body(delivery: &Delivery) -> String {
    String::from_utf8(delivery.message.body.to_vec()).unwrap()
}

pub(crate) fn bodies(deliveries: &[Delivery]) -> Vec<String> {
    deliveries.iter().map(body).collect()
}

/// Receives until there are `count`.
pub(crate) async fn receive(consumer: &mut dyn Consumer, count: usize) -> Vec<Delivery> {
    let mut all = Vec::new();
    while all.len() < count {
        let some = consumer.receive(count - all.len(), WAIT).await.unwrap();
        assert!(!some.is_empty(), "only {} of {count} messages came: {:?}", all.len(), bodies(&all));
        all.extend(some);
    }
    all
}

/// Receives one message, which must have this body.
pub(crate) async fn expect(consumer: &mut dyn Consumer, wanted: &str) -> Delivery {
    let delivery = receive(consumer, 1).await.remove(0);
    assert_eq!(body(&delivery), wanted);
    delivery
}

pub(crate) async fn ack(consumer: &mut dyn Consumer, deliveries: &[Delivery]) {
    consumer.settle(deliveries.iter().map(|d| (d.tag, Outcome::Ack)).collect()).await.unwrap();
}

pub(crate) async fn settle(consumer: &mut dyn Consumer, tag: DeliveryTag, outcome: Outcome) {
    consumer.settle(vec![(tag, outcome)]).await.unwrap();
}

/// Nothing is there to be received.
pub(crate) async fn expect_nothing(consumer: &mut dyn Consumer) {
    let some = consumer.receive(10, MOMENT).await.unwrap();
    assert_eq!(bodies(&some), [""; 0]);
}

pub(crate) fn failure(reason: &str) -> Failure {
    Failure { reason: reason.to_owned(), component: "store".to_owned() }
}
