//! Publishes the demo's load: confirmed windows of envelopes, some plain JSON, some messages twice, some corrections, a
//! handful of faulty ones; everything that was confirmed goes into the ledger.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use galerna_broker::{
    Broker, BrokerError, Clock, Envelope, Message, QueueName, Reading, SourceId, SystemClock,
};
use galerna_dispatcher::Dispatcher;
use serde_json::json;
use tokio::sync::mpsc;

use super::extract::{Load, ReplayedPost};
use super::faults::{self, Faulty};
use super::ledger::Ledger;

/// Messages confirmed together.
const WINDOW: usize = 256;
/// Windows that wait while one is being confirmed.
const AHEAD: usize = 4;
/// One post in so many is plain JSON.
const JSON_EVERY: u64 = 20;
/// One post in so many is published twice.
const TWICE_EVERY: u64 = 500;
/// In one post of so many, one reading is sent again with a higher sequence number.
const CORRECTED_EVERY: u64 = 1_500;
/// Accounts, from the first, that send faulty messages.
const FAULTY_ACCOUNTS: usize = 2;
/// Attempts to have a window confirmed, and the pause between two of them.
const ATTEMPTS: u32 = 30;
const PAUSE: Duration = Duration::from_millis(500);

/// How far the publishing is.
#[derive(Debug, Default)]
pub(crate) struct Published {
    /// Readings in all messages confirmed, repetitions and bad ones included.
    pub(crate) readings: AtomicU64,
    pub(crate) messages: AtomicU64,
    /// Messages that cannot be read at all.
    pub(crate) unreadable: AtomicU64,
}

/// In which order the accounts send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// Hour by hour, all accounts beside each other.
    ByTime,
    /// The last account's whole backlog, then the others'.
    LastFirst,
}

/// A message, and what to write into the ledger once it is confirmed.
struct Item {
    tenant: usize,
    message: Message,
    readings: u64,
    note: Note,
}

enum Note {
    /// The same was published before.
    Nothing,
    Post(ReplayedPost),
    Correction(Reading),
    Faulty(Box<Faulty>),
}

/// Publishes all of it and returns the ledger.
///
/// # Errors
/// When the broker does not confirm a window after many attempts.
pub(crate) async fn publish(
    load: Arc<Load>,
    queues: Arc<[QueueName]>,
    broker: Arc<dyn Broker>,
    order: Order,
    progress: Arc<Published>,
    dispatcher: Dispatcher,
) -> anyhow::Result<Ledger> {
    let (windows, mut ready) = mpsc::channel::<Vec<Item>>(AHEAD);
    let mut ledger = Ledger::new(load.tenants.len());
    let writer = tokio::task::spawn_blocking(move || {
        let mut window = Vec::with_capacity(WINDOW);
        let mut send = |item: Item| {
            window.push(item);
            // The receiver goes away only when publishing has failed, which is reported there.
            window.len() < WINDOW
                || windows.blocking_send(std::mem::replace(&mut window, Vec::with_capacity(WINDOW))).is_ok()
        };
        if write(&load, order, &mut send) && !window.is_empty() {
            drop(windows.blocking_send(window));
        }
    });
    while let Some(window) = ready.recv().await {
        confirm(&*broker, &queues, &window).await?;
        let mut filled: Vec<usize> = window.iter().map(|item| item.tenant).collect();
        filled.sort_unstable();
        filled.dedup();
        dispatcher.hint(&filled.into_iter().map(|tenant| queues[tenant].clone()).collect::<Vec<_>>());
        for item in window {
            progress.messages.fetch_add(1, Ordering::Relaxed);
            progress.readings.fetch_add(item.readings, Ordering::Relaxed);
            match item.note {
                Note::Nothing => {}
                Note::Post(post) => ledger.post(item.tenant, &post),
                Note::Correction(reading) => ledger.reading(item.tenant, &reading),
                Note::Faulty(faulty) => {
                    progress.unreadable.fetch_add(u64::from(faulty.readings == 0), Ordering::Relaxed);
                    for reading in &faulty.good {
                        ledger.reading(item.tenant, reading);
                    }
                    ledger.dead(&queues[item.tenant], &faulty.dead);
                }
            }
        }
    }
    writer.await.context("the load could not be written")?;
    Ok(ledger)
}

/// Writes all messages, in order, until `send` says false.
fn write(load: &Load, order: Order, send: &mut dyn FnMut(Item) -> bool) -> bool {
    let mut tenants: Vec<_> = load.tenants.iter().enumerate().map(|(i, t)| (i, t, load.posts(t))).collect();
    let mut count = 0;
    if order == Order::LastFirst
        && let Some((index, tenant, posts)) = tenants.pop()
    {
        for post in posts {
            count += 1;
            if !write_post(index, tenant.account.as_str(), post, count, send) {
                return false;
            }
        }
    }
    while !tenants.is_empty() {
        let mut open = true;
        tenants.retain_mut(|(index, tenant, posts)| {
            let Some(post) = posts.next().filter(|_| open) else { return false };
            count += 1;
            open = write_post(*index, tenant.account.as_str(), post, count, send);
            open
        });
        if !open {
            return false;
        }
    }
    true
}

fn write_post(
    index: usize,
    account: &str,
    post: ReplayedPost,
    count: u64,
    send: &mut dyn FnMut(Item) -> bool,
) -> bool {
    // The account's name was checked when it was made, and sources have the same rule.
    let (Ok(account), Ok(source)) = (account.parse::<galerna_broker::AccountId>(), SourceId::new(account))
    else {
        return true;
    };
    let received = SystemClock.now();
    let readings = post.readings.len() as u64;
    let ts = post.readings.first().map(|r| r.ts).unwrap_or(received);
    let id = format!("{account}-{}", post.sqn);
    let envelope = |id: String, readings: Vec<Reading>| {
        Envelope { id, account: account.clone(), source: source.clone(), received, readings }.encode()
    };
    let message = if count.is_multiple_of(JSON_EVERY) {
        let body =
            json!({ "account": account, "source_key": source, "received": received, "body": post.readings });
        Message {
            body: Bytes::from(body.to_string()),
            content_type: galerna_broker::envelope::JSON_CONTENT_TYPE.to_owned(),
            id: id.clone(),
        }
    } else {
        envelope(id.clone(), post.readings.clone())
    };
    let again = count.is_multiple_of(TWICE_EVERY).then(|| message.clone());
    let correction = post.readings.first().filter(|_| count.is_multiple_of(CORRECTED_EVERY)).map(|first| {
        let mut reading = first.clone();
        reading.sqn += 1;
        for value in &mut reading.values {
            value.v += 0.001;
        }
        reading
    });
    let first_of_account = post.sqn == 1;
    let mut send = |message, readings, note| send(Item { tenant: index, message, readings, note });
    if !send(message, readings, Note::Post(post)) {
        return false;
    }
    if let Some(message) = again
        && !send(message, readings, Note::Nothing)
    {
        return false;
    }
    if let Some(reading) = correction
        && !send(envelope(format!("{id}-corrected"), vec![reading.clone()]), 1, Note::Correction(reading))
    {
        return false;
    }
    if first_of_account && index < FAULTY_ACCOUNTS {
        for faulty in faults::messages(&account, &source, ts, received) {
            if !send(faulty.message.clone(), faulty.readings, Note::Faulty(Box::new(faulty))) {
                return false;
            }
        }
    }
    true
}

/// Publishes a window until all of it is confirmed. Publishing again what may have been taken already is harmless: the
/// store knows readings by their identity.
async fn confirm(broker: &dyn Broker, queues: &[QueueName], window: &[Item]) -> anyhow::Result<()> {
    let mut left: Vec<usize> = (0..window.len()).collect();
    for attempt in 1.. {
        let messages =
            left.iter().map(|i| (queues[window[*i].tenant].clone(), window[*i].message.clone())).collect();
        match broker.publish(messages).await {
            Ok(()) => return Ok(()),
            Err(e) if attempt >= ATTEMPTS => {
                return Err(e).with_context(|| format!("gave up publishing after {ATTEMPTS} attempts"));
            }
            Err(BrokerError::Unconfirmed { unconfirmed, .. }) => {
                left = unconfirmed.into_iter().filter_map(|i| left.get(i).copied()).collect();
            }
            Err(
                e @ (BrokerError::Unavailable { .. } | BrokerError::Timeout { .. } | BrokerError::Blocked(_)),
            ) => {
                tracing::warn!(error = %e, attempt, "publishing again");
            }
            Err(e) => return Err(e).context("cannot publish"),
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}
