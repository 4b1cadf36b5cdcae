//! Publishing windows of messages, each confirmed.
//!
//! A window has a channel to itself. That is what makes returned messages certain: lapin hands a returned message to
//! whichever confirm resolves next on the channel, so that with windows side by side it could be taken for another window's,
//! and an unroutable message would read as safe. Within the window it is matched by its queue. A channel is used again only after
//! every message on it has been settled.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::ShortString;
use lapin::{BasicProperties, Channel, Confirmation};
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::time::Instant;

use super::Timeouts;
use super::fault::{Fault, within};
use super::link::Link;
use crate::{BrokerError, BrokerHealth, Result};

/// Windows under way at once; more wait their turn.
const WINDOWS: usize = 16;

/// A message on its way out.
#[derive(Debug, Clone)]
pub(super) struct Outgoing {
    /// Empty for the default exchange, which routes to the queue named by `key`.
    pub(super) exchange: ShortString,
    pub(super) key: ShortString,
    pub(super) body: Bytes,
    pub(super) properties: BasicProperties,
}

/// How a window went.
#[derive(Debug)]
pub(super) struct Outcome {
    /// Whether each message is safe.
    pub(super) confirmed: Vec<bool>,
    /// Why the first of the others is not.
    pub(super) cause: Option<BrokerError>,
}

impl Outcome {
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
pub(super) struct Publisher {
    link: Link,
    idle: Mutex<Vec<Channel>>,
    windows: Semaphore,
    timeouts: Timeouts,
}

impl Publisher {
    pub(super) fn new(link: Link, timeouts: Timeouts) -> Self {
        Self { link, idle: Mutex::default(), windows: Semaphore::new(WINDOWS), timeouts }
    }

    /// The state of its connection.
    pub(super) fn health(&self) -> BrokerHealth {
        if let Some(reason) = self.link.unavailable() {
            return BrokerHealth::Unavailable { reason };
        }
        match &*self.link.blocked().borrow() {
            Some(reason) => BrokerHealth::Blocked { reason: reason.clone() },
            None => BrokerHealth::Ready,
        }
    }

    /// Publishes a window. Dropping the future leaves open which messages were published.
    pub(super) async fn publish(&self, window: &[Outgoing]) -> Outcome {
        let nothing = |cause| Outcome { confirmed: vec![false; window.len()], cause: Some(cause) };
        if window.is_empty() {
            return Outcome { confirmed: Vec::new(), cause: None };
        }
        let attempted = format!("publishing {} messages", window.len());
        let deadline = Instant::now() + self.timeouts.confirm;
        let Ok(Ok(_turn)) = tokio::time::timeout_at(deadline, self.windows.acquire()).await else {
            return nothing(Fault::Late(self.timeouts.confirm).into_error(&attempted, None));
        };
        let mut blocked = self.link.blocked();
        if let Some(reason) = blocked.borrow_and_update().clone() {
            return nothing(BrokerError::Blocked(reason));
        }
        let channel = match self.channel(&attempted).await {
            Ok(channel) => channel,
            Err(cause) => return nothing(cause),
        };
        let mut confirmed = vec![false; window.len()];
        let mut cause: Option<BrokerError> = None;
        let mut returned: HashMap<(ShortString, ShortString), String> = HashMap::new();
        let mut reusable = true;
        {
            let channel = &channel;
            // Polled in the order of the window, which is the order of the messages on the wire.
            let mut publishing: FuturesUnordered<_> = window
                .iter()
                .enumerate()
                .map(|(index, message)| async move { (index, publish_one(channel, message).await) })
                .collect();
            loop {
                tokio::select! {
                    biased;
                    next = publishing.next() => match next {
                        None => break,
                        Some((index, Ok(confirmation))) => {
                            match confirmation.is_ack() {
                                true => confirmed[index] = true,
                                false => {
                                    cause.get_or_insert_with(|| refused(&attempted));
                                }
                            }
                            if let Some(back) = confirmation.take_message() {
                                let reason = back.reply_text.as_str().to_owned();
                                returned.insert((back.exchange.clone(), back.routing_key.clone()), reason);
                            }
                        }
                        Some((_, Err(e))) => {
                            reusable = false;
                            cause.get_or_insert_with(|| Fault::Amqp(e).into_error(&attempted, None));
                        }
                    },
                    changed = blocked.changed() => {
                        let reason = blocked.borrow_and_update().clone();
                        if changed.is_err() || reason.is_some() {
                            reusable = false;
                            let reason = reason.unwrap_or_else(|| "the connection was lost".to_owned());
                            cause.get_or_insert(BrokerError::Blocked(reason));
                            break;
                        }
                    }
                    () = tokio::time::sleep_until(deadline) => {
                        reusable = false;
                        cause.get_or_insert_with(|| Fault::Late(self.timeouts.confirm).into_error(&attempted, None));
                        break;
                    }
                }
            }
        }
        if !returned.is_empty() {
            for (index, message) in window.iter().enumerate() {
                if let Some(reason) = returned.get(&(message.exchange.clone(), message.key.clone())) {
                    confirmed[index] = false;
                    cause.get_or_insert_with(|| unroutable(&message.key, &message.exchange, reason));
                }
            }
        }
        if reusable {
            self.idle.lock().push(channel);
        }
        Outcome { confirmed, cause }
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
