//! A notifier and its life.

use std::sync::Arc;

use galerna_broker::Broker;
use galerna_model::{Clock, QueueName};
use galerna_storage::Store;
use prometheus::Registry;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;
use crate::senders::Senders;
use crate::{NotifierError, Options};

/// The queue of alert events, as JSON of [`AlertEvent`](galerna_model::AlertEvent); the alert bolt publishes to it.
pub const ALERTS_QUEUE: &str = "galerna.alerts";

/// What a notifier works with.
#[derive(Clone)]
pub struct Parts {
    /// Where alert events come from.
    pub broker: Arc<dyn Broker>,
    /// Rules, endpoints, silences and the outbox.
    pub store: Store,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Where its metrics are registered: that of the process. There may be one notifier in it.
    pub registry: Registry,
}

/// Takes alert events from the broker and tells endpoints of them. Clones are handles of the same notifier.
#[derive(Clone)]
pub struct Notifier(Arc<Shared>);

pub(crate) struct Shared {
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    pub(crate) queue: QueueName,
    pub(crate) senders: Senders,
    pub(crate) metrics: Metrics,
    /// Told when something may be due in the outbox.
    pub(crate) wake: Notify,
}

impl Notifier {
    /// Prepares a notifier, and declares the queue of alert events.
    ///
    /// # Errors
    /// [`NotifierError::Option`] names the option that is wrong; [`NotifierError::Broker`] when the broker is unavailable.
    pub async fn open(parts: Parts, options: Options) -> Result<Self, NotifierError> {
        options.check()?;
        let queue = QueueName::new(ALERTS_QUEUE).map_err(|e| NotifierError::Option(e.to_string()))?;
        let senders = Senders::new(&options)?;
        let metrics =
            Metrics::new(&parts.registry).map_err(|e| NotifierError::Option(format!("of metrics: {e}")))?;
        let Parts { broker, store, clock, .. } = parts;
        broker.declare(&queue).await?;
        let wake = Notify::new();
        Ok(Self(Arc::new(Shared { broker, store, clock, options, queue, senders, metrics, wake })))
    }

    /// Works until told to stop; then takes no more events, begins no more attempts, and waits for those under way for at
    /// most [`Options::drain`]. Outages of broker and store are waited out.
    ///
    /// Dropping the future is like a crash: nothing is lost, but what was being sent is sent again.
    pub async fn run(&self, stop: CancellationToken) {
        let delivering = Arc::clone(&self.0);
        tokio::join!(self.0.take_events(&stop), delivering.deliver(&stop));
    }

    /// [`run`](Self::run) as a task of its own.
    pub fn spawn(&self, stop: CancellationToken) -> JoinHandle<()> {
        let this = self.clone();
        tokio::spawn(async move { this.run(stop).await })
    }

    /// The metrics in Prometheus's text format: all of the registry's.
    pub fn metrics_text(&self) -> String {
        self.0.metrics.text()
    }

    /// [`test_fire`](crate::test_fire), sent without waiting for the next look at the outbox if this notifier runs.
    ///
    /// # Errors
    /// Those of [`test_fire`](crate::test_fire).
    pub async fn test_fire(&self, endpoint: &str) -> Result<String, NotifierError> {
        let fired = crate::test_fire(&self.0.store, self.0.clock.as_ref(), endpoint).await?;
        self.0.wake.notify_one();
        Ok(fired)
    }

    /// [`test_fire_rule`](crate::test_fire_rule), likewise.
    ///
    /// # Errors
    /// Those of [`test_fire_rule`](crate::test_fire_rule).
    pub async fn test_fire_rule(&self, rule: &str) -> Result<Vec<String>, NotifierError> {
        let fired = crate::test_fire_rule(&self.0.store, self.0.clock.as_ref(), rule).await?;
        self.0.wake.notify_one();
        Ok(fired)
    }
}
