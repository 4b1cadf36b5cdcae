//! Publishing windows of messages, each confirmed.
//!
//! Windows are published in batches: at once while fewer than [`BATCHES`] are under way, else together with the others that wait
//! meanwhile. So a call costs one confirm's time whatever the number of callers, and many small windows share the confirms.
//!
//! A batch has a channel to itself. That is what makes returned messages certain: lapin hands a returned message to
//! whichever confirm resolves next on the channel, so that with batches side by side it could be taken for another one's,
//! and an unroutable message would read as safe. Within the batch it is matched by its queue. A channel is used again only after
//! every message on it has been settled.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::FuturesUnordered;
use futures_util::{FutureExt, StreamExt};
use galerna_lock::Mutex;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::Timeouts;
use super::fault::{Fault, within};
use super::link::Link;
use crate::{BrokerError, BrokerHealth, Result};

/// Batches under way at once.
const BATCHES: usize = 16;
/// A batch takes in windows that wait until it has so many messages.
const BATCH_MESSAGES: usize = 1_000;
/// How much longer than its window may take a caller waits for the outcome.
const ANSWER: Duration = Duration::from_secs(1);

/// A message on its way out.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    /// Empty for the default exchange, which routes to the queue named by `key`.
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) body: Bytes,
    pub(super) properties: BasicProperties,
}

/// What the server confirmed of a window.
#[derive(Debug)]
pub(super) struct ConfirmedWindow {
    /// Whether each message is safe.
    pub(super) confirmed: Vec<bool>,
    /// Why the first of the others is not.
    pub(super) cause: Option<BrokerError>,
}

impl ConfirmedWindow {
    pub(super) fn into_result(self) -> Result<()> {
        let total = self.confirmed.len();
        let Some(cause) = self.cause else { return Ok(()) };
        let unconfirmed: Vec<usize> = (0..total).filter(|i| !self.confirmed[*i]).collect();
        let whole = unconfirmed.len() == total;
        match cause {
            // When nothing got through, the reason says more than a list of everything.
            BrokerError::Unavailable { .. } | BrokerError::Timeout { .. } | BrokerError::Blocked(_)
                if whole =>
            {
                Err(cause)
            }
            cause => Err(BrokerError::Unconfirmed { unconfirmed, total, cause: cause.to_string() }),
        }
    }
}

/// The publishing side.
#[derive(Debug)]
pub(super) struct Publisher(Arc<Batches>);

/// A window whose turn has not come.
#[derive(Debug)]
struct Waiting {
    window: Vec<Outgoing>,
    deadline: Instant,
    outcome: oneshot::Sender<ConfirmedWindow>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    under_way: usize,
}

#[derive(Debug)]
struct Batches {
    link: Link,
    idle: Mutex<Vec<Channel>>,
    queue: Mutex<Queue>,
    timeouts: Timeouts,
}

/// What keeps the rest of a batch from being confirmed.
enum Interruption {
    Blocked(String),
    Late,
    Lost(String),
}

impl Interruption {
    fn as_error(&self, window: &[Outgoing], limit: Duration) -> BrokerError {
        match self {
            Self::Blocked(reason) => BrokerError::Blocked(reason.clone()),
            Self::Late => Fault::Late(limit).into_error(&attempted(window), None),
            Self::Lost(cause) => {
                BrokerError::Unavailable { attempted: attempted(window), cause: cause.clone() }
            }
        }
    }
}

/// Why messages came back, by exchange and key.
type Returned = HashMap<(ShortString, ShortString), String>;

/// How far a window of a batch is.
struct Progress {
    outcome: ConfirmedWindow,
    /// Messages not settled yet.
    left: usize,
    answer: Option<oneshot::Sender<ConfirmedWindow>>,
}

impl Progress {
    fn new(window: &[Outgoing], answer: oneshot::Sender<ConfirmedWindow>) -> Self {
        let outcome = ConfirmedWindow { confirmed: vec![false; window.len()], cause: None };
        Self { outcome, left: window.len(), answer: Some(answer) }
    }

    /// Notes what became of one message. An error is the channel's, so that nothing more will be settled on it.
    fn settle(
        &mut self,
        message: usize,
        settled: lapin::Result<Confirmation>,
        window: &[Outgoing],
        returned: &mut Returned,
    ) -> lapin::Result<()> {
        self.left -= 1;
        let confirmation = match settled {
            Ok(confirmation) => confirmation,
            Err(e) => {
                let cause =
                    || BrokerError::Unavailable { attempted: attempted(window), cause: e.to_string() };
                self.outcome.cause.get_or_insert_with(cause);
                return Err(e);
            }
        };
        match confirmation.is_ack() {
            true => self.outcome.confirmed[message] = true,
            false => drop(self.outcome.cause.get_or_insert_with(|| refused(&attempted(window)))),
        }
        if let Some(back) = confirmation.take_message() {
            let reason = back.reply_text.as_str().to_owned();
            returned.insert((back.exchange.clone(), back.routing_key.clone()), reason);
        }
        Ok(())
    }

    /// Answers, unless that was done.
    fn answer(&mut self, window: &[Outgoing], returned: &Returned, interrupted: Option<BrokerError>) {
        let Some(answer) = self.answer.take() else { return };
        let ConfirmedWindow { confirmed, cause } = &mut self.outcome;
        if !returned.is_empty() {
            for (message, confirmed) in window.iter().zip(&mut *confirmed) {
                if let Some(reason) = returned.get(&(message.exchange.clone(), message.key.clone())) {
                    *confirmed = false;
                    cause.get_or_insert_with(|| unroutable(&message.key, &message.exchange, reason));
                }
            }
        }
        if cause.is_none() && confirmed.contains(&false) {
            *cause = interrupted;
        }
        let outcome = ConfirmedWindow { confirmed: std::mem::take(confirmed), cause: cause.take() };
        drop(answer.send(outcome));
    }
}

fn attempted(window: &[Outgoing]) -> String {
    format!("publishing {} messages", window.len())
}

impl Publisher {
    pub(super) fn new(link: Link, timeouts: Timeouts) -> Self {
        Self(Arc::new(Batches { link, idle: Mutex::default(), queue: Mutex::default(), timeouts }))
    }

    /// The state of its connection.
    pub(super) fn health(&self) -> BrokerHealth {
        if let Some(reason) = self.0.link.unavailable() {
            return BrokerHealth::Unavailable { reason };
        }
        match &*self.0.link.blocked().borrow() {
            Some(reason) => BrokerHealth::Blocked { reason: reason.clone() },
            None => BrokerHealth::Ready,
        }
    }

    /// Publishes a window. Dropping the future leaves open which messages were published.
    pub(super) async fn publish(&self, window: Vec<Outgoing>) -> ConfirmedWindow {
        let total = window.len();
        if total == 0 {
            return ConfirmedWindow { confirmed: Vec::new(), cause: None };
        }
        let attempted = attempted(&window);
        let limit = self.0.timeouts.confirm;
        let deadline = Instant::now() + limit;
        let (outcome, answer) = oneshot::channel();
        self.0.submit(Waiting { window, deadline, outcome });
        match timeout_at(deadline + ANSWER, answer).await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) | Err(_) => {
                let cause = Fault::Late(limit).into_error(&attempted, None);
                ConfirmedWindow { confirmed: vec![false; total], cause: Some(cause) }
            }
        }
    }
}

/// Sends one batch after another; counted as under way until it is dropped.
struct BatchSender(Arc<Batches>);

impl Drop for BatchSender {
    fn drop(&mut self) {
        self.0.queue.lock().under_way -= 1;
    }
}

impl BatchSender {
    async fn run(self) {
        loop {
            let batch = self.0.take();
            if !batch.is_empty() {
                self.0.publish(batch).await;
                continue;
            }
            let batches = Arc::clone(&self.0);
            drop(self);
            // What was submitted between the look and the drop.
            return batches.start_turn();
        }
    }
}

impl Batches {
    fn submit(self: &Arc<Self>, waiting: Waiting) {
        self.queue.lock().waiting.push_back(waiting);
        self.start_turn();
    }

    /// Starts to publish what waits, unless enough is under way.
    fn start_turn(self: &Arc<Self>) {
        let mut queue = self.queue.lock();
        if queue.under_way < BATCHES && !queue.waiting.is_empty() {
            queue.under_way += 1;
            tokio::spawn(BatchSender(Arc::clone(self)).run());
        }
    }

    /// The windows of the next batch; nobody waits any more for those that are left out.
    fn take(&self) -> Vec<Waiting> {
        let mut queue = self.queue.lock();
        let (mut batch, mut messages) = (Vec::new(), 0);
        while messages < BATCH_MESSAGES
            && let Some(waiting) = queue.waiting.pop_front()
        {
            if !waiting.outcome.is_closed() {
                messages += waiting.window.len();
                batch.push(waiting);
            }
        }
        batch
    }

    /// Publishes windows together, and answers each as soon as all of it is settled.
    async fn publish(&self, batch: Vec<Waiting>) {
        let mut blocked = self.link.blocked();
        let reason = blocked.borrow_and_update().clone();
        let channel = match reason {
            Some(reason) => Err(BrokerError::Blocked(reason)),
            None => self.channel("publishing").await,
        };
        let channel = match channel {
            Ok(channel) => channel,
            Err(cause) => {
                for Waiting { window, outcome, .. } in batch {
                    let confirmed = vec![false; window.len()];
                    // Whoever asked may be gone; so below.
                    drop(outcome.send(ConfirmedWindow { confirmed, cause: Some(cause.clone()) }));
                }
                return;
            }
        };
        let deadline = batch.iter().map(|w| w.deadline).min().unwrap_or_else(Instant::now);
        let (windows, mut progress): (Vec<_>, Vec<_>) = batch
            .into_iter()
            .map(|waiting| {
                let progress = Progress::new(&waiting.window, waiting.outcome);
                (waiting.window, progress)
            })
            .unzip();
        let channel = &channel;
        // Polled in the order of the windows, which is the order of the messages on the wire.
        let messages = windows
            .iter()
            .enumerate()
            .flat_map(|(w, window)| window.iter().enumerate().map(move |(m, message)| (w, m, message)));
        let mut publishing: FuturesUnordered<_> = messages
            .map(|(w, m, message)| async move { (w, m, publish_one(channel, message).await) })
            .collect();
        let mut returned = Returned::new();
        let mut interrupted: Option<Interruption> = None;
        let mut next = None;
        loop {
            // All that has settled, before anybody is answered: what was returned shows with a confirm of the batch no later than
            // that of its own message.
            while let Some((w, m, settled)) =
                next.take().or_else(|| publishing.next().now_or_never().flatten())
            {
                if let Err(e) = progress[w].settle(m, settled, &windows[w], &mut returned) {
                    interrupted.get_or_insert_with(|| Interruption::Lost(e.to_string()));
                }
            }
            for (window, progress) in windows.iter().zip(&mut progress) {
                if progress.left == 0 {
                    progress.answer(window, &returned, None);
                }
            }
            tokio::select! {
                biased;
                settled = publishing.next() => match settled {
                    None => break,
                    settled => next = settled,
                },
                changed = blocked.changed() => {
                    let reason = blocked.borrow_and_update().clone();
                    if changed.is_err() || reason.is_some() {
                        let reason = reason.unwrap_or_else(|| "the connection was lost".to_owned());
                        interrupted.get_or_insert(Interruption::Blocked(reason));
                        break;
                    }
                }
                () = tokio::time::sleep_until(deadline) => {
                    interrupted.get_or_insert(Interruption::Late);
                    break;
                }
            }
        }
        drop(publishing);
        if interrupted.is_none() {
            self.idle.lock().push(channel.clone());
        }
        for (window, progress) in windows.iter().zip(&mut progress) {
            let interrupted = interrupted.as_ref().map(|i| i.as_error(window, self.timeouts.confirm));
            progress.answer(window, &returned, interrupted);
        }
    }

    async fn channel(&self, attempted: &str) -> Result<Channel> {
        while let Some(channel) = { self.idle.lock().pop() } {
            if channel.status().connected() {
                return Ok(channel);
            }
        }
        let channel = self.link.channel(attempted).await?;
        within(self.timeouts.rpc, channel.confirm_select(ConfirmSelectOptions::default()))
            .await
            .map_err(|fault| fault.into_error(attempted, None))?;
        Ok(channel)
    }
}

async fn publish_one(channel: &Channel, message: &Outgoing) -> lapin::Result<Confirmation> {
    let options = BasicPublishOptions { mandatory: true, immediate: false };
    let (exchange, key) = (message.exchange.clone(), message.key.clone());
    channel.basic_publish(exchange, key, options, &message.body, message.properties.clone()).await?.await
}

fn refused(attempted: &str) -> BrokerError {
    let cause = "the queue refused it (full, or without a majority of its replicas)".to_owned();
    BrokerError::Unavailable { attempted: attempted.to_owned(), cause }
}

fn unroutable(key: &ShortString, exchange: &ShortString, reason: &str) -> BrokerError {
    match galerna_model::QueueName::new(key.as_str()) {
        Ok(queue) if exchange.as_str().is_empty() => BrokerError::UnknownQueue(queue),
        _ => BrokerError::Unavailable {
            attempted: format!("publishing to exchange `{exchange}` for queue `{key}`"),
            cause: format!("the message was returned: {reason}"),
        },
    }
}

/// How long a full window may take, for the documentation of [`Timeouts`].
pub(super) const CONFIRM: Duration = Duration::from_secs(30);
