//! From a call's readings to its answer: published as messages, confirmed by the broker, counted.

use std::sync::Arc;

use galerna_broker::{BrokerError, BrokerHealth};
use galerna_model::{Envelope, Message, QueueName, Reading, Timestamp};
use galerna_storage::{LastMessage, Tally};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};

use super::{Core, DEPTH_TIMEOUT, ENVELOPE_VALUES};
use crate::answer::{Accepted, Rejected};
use crate::budget::Share;
use crate::call_error::CallError;
use crate::parse::Parsed;
use crate::sources::KnownSource;

impl Core {
    /// Publishes what was read of a call and answers when it is safe.
    pub(crate) async fn accept(
        self: &Arc<Self>,
        source: Arc<KnownSource>,
        request: String,
        parsed: Parsed,
        excerpt: (String, bool),
        memory: Share,
    ) -> Result<Accepted, CallError> {
        let Parsed { readings, rejected, entries } = parsed;
        let permit = self.admission.readings(&source.id, readings.len())?;
        if readings.is_empty() {
            return Ok(Accepted { accepted: 0, rejected });
        }
        let core = Arc::clone(self);
        let call = ParsedCall { source, request, readings, entries, rejected, excerpt, permit, memory };
        self.publishing.spawn(async move { core.publish(call).await }).await.unwrap_or_else(|e| {
            tracing::error!(error = %e, "a publish ended without an answer");
            Err(CallError::Broker("publishing failed".to_owned()))
        })
    }

    async fn publish(&self, call: ParsedCall) -> Result<Accepted, CallError> {
        let ParsedCall { source, request, readings, entries, rejected, excerpt: (text, cut), permit, memory } =
            call;
        let received = self.clock.now();
        let tally = Tally {
            messages: 1,
            readings: readings.len() as u64,
            values: readings.iter().map(|r| r.values.len() as u64).sum(),
        };
        tracing::trace!(
            target: "galerna::trace::frontend",
            id = request.as_str(),
            "call received from {}: {} readings",
            source.id,
            tally.readings,
        );
        let window = self.envelopes(&source, &request, readings, received);
        let envelopes = window.len();
        let began = Instant::now();
        let limit = self.options.timeouts.publish;
        let published = timeout(limit, self.broker.publish(window)).await.unwrap_or_else(|_| {
            let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            Err(BrokerError::Timeout { attempted: "publishing a call".to_owned(), millis })
        });
        drop((permit, memory));
        self.metrics.publish_seconds.observe(began.elapsed().as_secs_f64());
        if let Err(e) = published {
            tracing::warn!(request, source = %source.id, queue = %source.queue, error = %e, "a call was not confirmed");
            let id = request.as_str();
            tracing::trace!(target: "galerna::trace::frontend", id, failed = true, "failed: not confirmed: {e}");
            return Err(self.publish_error(&source.queue, e).await);
        }
        tracing::debug!(request, source = %source.id, queue = %source.queue, envelopes, readings = tally.readings, "confirmed");
        tracing::trace!(
            target: "galerna::trace::frontend",
            id = request.as_str(),
            "accepted: {envelopes} messages confirmed on queue {}",
            source.queue,
        );
        self.hints.arrived(&source.queue);
        self.metrics.accepted.inc_by(tally.readings);
        self.metrics.rejected.inc_by(rejected.len() as u64);
        self.metrics.call_readings.observe(tally.readings as f64);
        let message = LastMessage {
            id: request,
            received,
            readings: tally.readings,
            rejected: rejected.len() as u64,
            text,
            cut,
        };
        self.statistics.count(&source.id, &source.account, tally, message);
        Ok(Accepted { accepted: entries, rejected })
    }

    /// What a failed publish is answered with. A queue that is missing is told of as such: its account may have got another, so
    /// the list is refreshed.
    async fn publish_error(&self, queue: &QueueName, error: BrokerError) -> CallError {
        if let BrokerError::Blocked(reason) = &error {
            // Whoever asks before the next look is to know it too.
            self.set_broker_health(BrokerHealth::Blocked { reason: reason.clone() });
        }
        let missing = match &error {
            BrokerError::UnknownQueue(_) => true,
            // The window's messages all go to one queue.
            BrokerError::Unconfirmed { .. } => {
                let depth = timeout(DEPTH_TIMEOUT, self.broker.depth(queue)).await;
                matches!(depth, Ok(Err(BrokerError::UnknownQueue(_))))
            }
            _ => false,
        };
        if missing {
            self.sources.missed.notify_one();
            return CallError::NoQueue;
        }
        error.into()
    }

    /// A call's readings in messages of some hundreds.
    fn envelopes(
        &self,
        source: &KnownSource,
        request: &str,
        readings: Vec<Reading>,
        received: Timestamp,
    ) -> Vec<(QueueName, Message)> {
        let most = self.options.limits.envelope_readings;
        let mut window = Vec::with_capacity(readings.len().div_ceil(most));
        let mut envelope = Envelope {
            id: String::new(),
            account: source.account.clone(),
            source: source.id.clone(),
            received,
            readings: Vec::with_capacity(most.min(readings.len())),
        };
        let mut close = |envelope: &mut Envelope| {
            envelope.id = format!("{request}.{}", window.len());
            window.push((source.queue.clone(), envelope.encode()));
            envelope.readings.clear();
        };
        let mut values = 0;
        for reading in readings {
            let more = reading.values.len();
            let full = envelope.readings.len() == most || values + more > ENVELOPE_VALUES;
            if full && !envelope.readings.is_empty() {
                close(&mut envelope);
                values = 0;
            }
            values += more;
            envelope.readings.push(reading);
        }
        if !envelope.readings.is_empty() {
            close(&mut envelope);
        }
        window
    }
}

struct ParsedCall {
    source: Arc<KnownSource>,
    request: String,
    readings: Vec<Reading>,
    entries: usize,
    rejected: Vec<Rejected>,
    excerpt: (String, bool),
    permit: Option<OwnedSemaphorePermit>,
    /// Of the body, until its readings are confirmed: while the broker is slow, calls of few readings with many values would
    /// otherwise pile up.
    memory: Share,
}
