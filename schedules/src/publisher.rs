//! Firings as messages of a queue.

use std::sync::Arc;

use galerna_broker::{Broker, BrokerError};
use galerna_model::{Message, QueueName};
use galerna_topology::{Fault, FaultKind};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{BadSchedule, Firing};

/// What a schedule's payload says: a message, and the queue to publish it to.
///
/// ```
/// let payload = serde_json::json!({ "queue": "reports", "body": { "report": "usage" } });
/// let message = galerna_schedules::QueueMessage::of(&payload)?;
/// assert_eq!((message.queue.as_str(), message.content_type.as_str()), ("reports", "application/json"));
/// # Ok::<(), galerna_schedules::BadSchedule>(())
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QueueMessage {
    /// The queue; it must be there when the schedule fires.
    pub queue: QueueName,
    /// The body: JSON, or with another content type a text that is sent as it is.
    #[serde(default)]
    pub body: Value,
    /// MIME type of the body.
    #[serde(default = "json")]
    pub content_type: String,
}

fn json() -> String {
    "application/json".to_owned()
}

impl QueueMessage {
    /// Reads a payload.
    ///
    /// # Errors
    /// [`BadSchedule`] when it is something else, or names a queue that is reserved.
    pub fn of(payload: &Value) -> Result<Self, BadSchedule> {
        let form = "write {\"queue\": \"reports\", \"body\": …}, and \"content_type\" if the body is a text and no JSON";
        let message = Self::deserialize(payload)
            .map_err(|error| BadSchedule::new("payload", format!("it names no message: {error}; {form}")))?;
        if message.queue.is_reserved() || message.queue.as_str().starts_with("galerna.") {
            return Err(BadSchedule::new(
                "payload",
                format!("queue `{}` is reserved; name one that is not the system's own", message.queue),
            ));
        }
        if message.content_type.is_empty() || message.content_type.len() > 255 {
            return Err(BadSchedule::new("payload", "`content_type` has 1 to 255 bytes"));
        }
        Ok(message)
    }

    /// The message of a firing. Its id is the firing's, the same at each attempt, by which the receiver can tell a second delivery.
    fn message(self, firing: &Firing) -> (QueueName, Message) {
        let body = match self.body {
            Value::String(text) if self.content_type != "application/json" => text,
            value => value.to_string(),
        };
        let id = firing.id.to_string();
        (self.queue, Message { body: body.into(), content_type: self.content_type, id })
    }
}

/// Publishes firings: each payload is a [`QueueMessage`].
///
/// ```no_run
/// # async fn example(
/// #     store: std::sync::Arc<dyn galerna_schedules::ScheduleStore>, broker: std::sync::Arc<dyn galerna_broker::Broker>,
/// # ) {
/// use galerna_schedules::{QueuePublisher, Runner, RunnerOptions};
/// use tokio_util::sync::CancellationToken;
///
/// let publisher = QueuePublisher::new(broker);
/// let runner = Runner::new(store, std::sync::Arc::new(galerna_model::SystemClock), RunnerOptions::default());
/// runner.run(CancellationToken::new(), move |firing, _| {
///     let publisher = publisher.clone();
///     async move { publisher.publish(&firing).await }
/// })
/// .await;
/// # }
/// ```
#[derive(Clone)]
pub struct QueuePublisher {
    broker: Arc<dyn Broker>,
}

impl std::fmt::Debug for QueuePublisher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("QueuePublisher").field("broker", &self.broker.kind()).finish()
    }
}

impl QueuePublisher {
    /// Publishes to the queues of a broker.
    pub fn new(broker: Arc<dyn Broker>) -> Self {
        Self { broker }
    }

    /// Publishes the message of a firing; it is safe when this returns `Ok`.
    ///
    /// # Errors
    /// Permanent when the payload is no message or the queue is not there; else unavailable, to be tried again.
    pub async fn publish(&self, firing: &Firing) -> Result<(), Fault> {
        let message = QueueMessage::of(&firing.payload)
            .map_err(|error| Fault::from(error).of_kind(FaultKind::Permanent))?;
        let queue = message.queue.clone();
        let Err(error) = self.broker.publish(vec![message.message(firing)]).await else { return Ok(()) };
        let permanent = match error {
            BrokerError::UnknownQueue(_) | BrokerError::Invalid(_) => true,
            // That of a queue which is not there is not confirmed either.
            BrokerError::Unconfirmed { .. } => matches!(self.knows(&queue).await, Ok(false)),
            _ => false,
        };
        Err(Fault::from(error).of_kind(if permanent { FaultKind::Permanent } else { FaultKind::Unavailable }))
    }

    /// Whether the queue of a payload is there.
    ///
    /// # Errors
    /// Why the broker cannot tell.
    pub async fn knows(&self, queue: &QueueName) -> Result<bool, BrokerError> {
        match self.broker.depth(queue).await {
            Ok(_) => Ok(true),
            Err(BrokerError::UnknownQueue(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
