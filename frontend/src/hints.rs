//! Telling the dispatcher that messages have reached a queue, so that whoever waits for one is woken at once.
//!
//! A frontend cannot know whether a message is the first of its queue, and does not ask. It names each queue that got messages
//! once in a batch, with a pause between two batches, which bounds what the dispatcher hears however much is posted. A hint
//! that is lost costs the wait until the maintainer's next count, so that nothing waits for one to be taken.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use galerna_dispatcher::{AdminError, Dispatcher, DispatcherClient};
use galerna_model::QueueName;
use galerna_retry::{Outage, Pauses};
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::metrics::Metrics;

/// Queues that wait to be named; more are dropped.
const WAITING: usize = 16_384;
/// Queues named in one batch.
const BATCH: usize = 4_096;
/// Between two batches.
const PAUSE: Duration = Duration::from_millis(20);
/// After a dispatcher that did not answer.
const PAUSES_AFTER_FAILURE: Pauses = Pauses::new(Duration::from_secs(1), Duration::from_secs(5));
/// For one batch.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Somebody who wants to know which queues have just got messages.
#[async_trait]
pub trait QueueHints: Send + Sync + 'static {
    /// Names queues. Cancellation-safe: a hint may always be lost.
    ///
    /// # Errors
    /// What went wrong, for the log; the hint is not repeated.
    async fn hint(&self, queues: &[QueueName]) -> Result<(), AdminError>;
}

#[async_trait]
impl QueueHints for DispatcherClient {
    async fn hint(&self, queues: &[QueueName]) -> Result<(), AdminError> {
        DispatcherClient::hint(self, queues).await.map(drop)
    }
}

#[async_trait]
impl QueueHints for Dispatcher {
    async fn hint(&self, queues: &[QueueName]) -> Result<(), AdminError> {
        Dispatcher::hint(self, queues);
        Ok(())
    }
}

/// The sending side, for calls.
pub(crate) struct Hints {
    waiting: Option<mpsc::Sender<QueueName>>,
    metrics: Arc<Metrics>,
}

impl Hints {
    /// Starts to send; nobody is told when there is nobody to tell.
    pub(crate) fn start(
        to: Option<Arc<dyn QueueHints>>,
        metrics: Arc<Metrics>,
        stop: CancellationToken,
    ) -> Self {
        let waiting = to.map(|to| {
            let (sender, receiver) = mpsc::channel(WAITING);
            let metrics = Arc::clone(&metrics);
            tokio::spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = send(to, receiver, &metrics) => {}
                }
            });
            sender
        });
        Self { waiting, metrics }
    }

    /// This queue has just got messages.
    pub(crate) fn arrived(&self, queue: &QueueName) {
        if let Some(waiting) = &self.waiting
            && waiting.try_send(queue.clone()).is_err()
        {
            self.metrics.hints.with_label_values(&["dropped"]).inc();
        }
    }
}

async fn send(to: Arc<dyn QueueHints>, mut waiting: mpsc::Receiver<QueueName>, metrics: &Metrics) {
    let mut batch = Vec::new();
    let mut outage = Outage::new("telling the dispatcher which queues got messages", PAUSES_AFTER_FAILURE);
    while waiting.recv_many(&mut batch, BATCH).await > 0 {
        let distinct: HashSet<QueueName> = batch.drain(..).collect();
        let queues: Vec<QueueName> = distinct.into_iter().collect();
        let count = queues.len() as u64;
        match timeout(TIMEOUT, to.hint(&queues)).await {
            Ok(Ok(())) => {
                outage.succeeded();
                metrics.hints.with_label_values(&["sent"]).inc_by(count);
                sleep(PAUSE).await;
            }
            failed => {
                let cause = failed.map_or_else(
                    |_| format!("no answer within {TIMEOUT:?}"),
                    |r| r.err().map(|e| e.to_string()).unwrap_or_default(),
                );
                metrics.hints.with_label_values(&["lost"]).inc_by(count);
                sleep(outage.failed(&cause)).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use galerna_lock::Mutex;

    struct ReceivedHints(Mutex<Vec<Vec<QueueName>>>, tokio::sync::Notify);

    #[async_trait]
    impl QueueHints for ReceivedHints {
        async fn hint(&self, queues: &[QueueName]) -> Result<(), AdminError> {
            self.0.lock().push(queues.to_vec());
            self.1.notify_one();
            if self.0.lock().len() == 1 {
                Err(AdminError::Unavailable("no answer".to_owned()))
            } else {
                Ok(())
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn queues_are_named_once_a_batch_and_a_lost_hint_stops_no_other() {
        let heard = Arc::new(ReceivedHints(Mutex::default(), tokio::sync::Notify::new()));
        let metrics = Arc::new(Metrics::new(&prometheus::Registry::new()).unwrap());
        let to: Arc<dyn QueueHints> = heard.clone();
        let hints = Hints::start(Some(to), metrics, CancellationToken::new());
        let queue = |n: usize| QueueName::new(format!("q{n}")).unwrap();
        hints.arrived(&queue(0));
        heard.1.notified().await;
        for n in 0..1_000 {
            hints.arrived(&queue(n % 10));
        }
        heard.1.notified().await;
        let heard = heard.0.lock();
        assert_eq!(heard[0], [queue(0)]);
        assert_eq!(heard[1].len(), 10);
    }
}
