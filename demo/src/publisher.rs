//! Sends the demo's load: posts over HTTP, and beside them what other publishers put on the queues: plain JSON, a handful of
//! faulty messages; some things twice, some corrected. Everything that was confirmed goes into the ledger.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt, stream};
use galerna_broker::{Broker, BrokerError};
use galerna_dispatcher::Dispatcher;
use galerna_model::{Clock, Message, QueueName, Reading, SourceId, SystemClock};
use serde_json::json;
use tokio::sync::mpsc;

use super::extract::{Load, ReplayedPost};
use super::faults::{self, Faulty};
use super::ledger::Ledger;
use super::poster::{PostBody, Poster};

/// Posts and messages confirmed together.
const WINDOW: usize = 256;
/// Windows that wait while one is being confirmed.
const AHEAD: usize = 4;
/// Windows a second at a given rate.
const WINDOWS_PER_SECOND: u32 = 20;
/// Readings of one call.
const CALL: usize = 2_000;
/// Calls at once, each of another account: one account's posts follow each other. Senders do not wait for each other's answers, so
/// there are enough for a rate to be kept where an answer takes some tens of milliseconds.
const CALLS: usize = 64;
/// One post in so many does not come over HTTP: it is a plain JSON message of another publisher.
const JSON_EVERY: u64 = 20;
/// One post in so many is sent twice, of those over HTTP and of the others.
const TWICE_EVERY: u64 = 501;
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
    /// Readings in all that was confirmed, repetitions and bad ones included.
    pub(crate) readings: AtomicU64,
    /// Calls of the frontend.
    pub(crate) calls: AtomicU64,
    /// Messages put on the queues directly.
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

/// How the load is sent.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PublishOptions {
    pub(crate) order: Order,
    /// Readings a second; none for as fast as they are taken.
    pub(crate) rate: Option<u32>,
}

/// What is sent, and what to write into the ledger once it is confirmed.
struct Item {
    tenant: usize,
    cargo: Cargo,
    readings: u64,
    note: Note,
}

enum Cargo {
    /// Over HTTP.
    Post(Arc<ReplayedPost>),
    /// Onto the queue.
    Message(Message),
}

enum Note {
    /// The same was published before.
    Nothing,
    Post(Arc<ReplayedPost>),
    Correction(Reading),
    Faulty(Box<Faulty>),
}

/// Publishes all of it and returns the ledger.
///
/// # Errors
/// When the frontend or the broker does not confirm something after many attempts.
pub(crate) async fn publish(
    load: Arc<Load>,
    queues: Arc<[QueueName]>,
    broker: Arc<dyn Broker>,
    poster: Poster,
    manner: PublishOptions,
    progress: Arc<Published>,
    dispatcher: Dispatcher,
) -> anyhow::Result<Ledger> {
    let (windows, mut ready) = mpsc::channel::<Vec<Item>>(AHEAD);
    // What is written bears the time, so at a rate of its own nothing is written before it is due.
    let (grant, mut granted) = mpsc::channel::<()>(AHEAD);
    let ahead = if manner.rate.is_some() { 0 } else { AHEAD };
    for _ in 0..ahead {
        grant.send(()).await.context("the load cannot be written")?;
    }
    let most = manner.rate.map_or(u64::MAX, |rate| u64::from(rate / WINDOWS_PER_SECOND).max(1));
    let mut pace = Pace::at(manner.rate);
    let mut ledger = Ledger::new(load.tenants.len());
    let sent = Arc::clone(&load);
    let writer = tokio::task::spawn_blocking(move || {
        let mut window = Vec::with_capacity(WINDOW);
        let mut readings = 0;
        let mut send = |item: Item| {
            readings += item.readings;
            window.push(item);
            if window.len() < WINDOW && readings < most {
                return true;
            }
            readings = 0;
            // The receiver goes away only when publishing has failed, which is reported there.
            windows.blocking_send(std::mem::replace(&mut window, Vec::with_capacity(WINDOW))).is_ok()
                && granted.blocking_recv().is_some()
        };
        if write(&load, manner.order, &mut send) && !window.is_empty() {
            drop(windows.blocking_send(window));
        }
    });
    while let Some(window) = ready.recv().await {
        let messages: Vec<(usize, &Message)> = window
            .iter()
            .filter_map(|item| match &item.cargo {
                Cargo::Message(message) => Some((item.tenant, message)),
                Cargo::Post(_) => None,
            })
            .collect();
        // One after the other: a message that overtakes the posts before it would make their readings late.
        let calls = post(&poster, &sent, manner.order, &window).await?;
        confirm(&*broker, &queues, &messages).await?;
        progress.calls.fetch_add(calls, Ordering::Relaxed);
        progress.messages.fetch_add(messages.len() as u64, Ordering::Relaxed);
        let mut filled: Vec<usize> = messages.iter().map(|(tenant, _)| *tenant).collect();
        filled.sort_unstable();
        filled.dedup();
        dispatcher.hint(&filled.into_iter().map(|tenant| queues[tenant].clone()).collect::<Vec<_>>());
        let readings = window.iter().map(|item| item.readings).sum();
        progress.readings.fetch_add(readings, Ordering::Relaxed);
        for item in window {
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
        pace.after(readings).await;
        // Nobody waits for it after the last window.
        let _ = grant.send(()).await;
    }
    writer.await.context("the load could not be written")?;
    Ok(ledger)
}

/// The rate at which windows follow each other.
struct Pace {
    /// Readings a second; none to hold nothing back.
    rate: Option<u32>,
    began: tokio::time::Instant,
    sent: u64,
}

impl Pace {
    fn at(rate: Option<u32>) -> Self {
        Self { rate, began: tokio::time::Instant::now(), sent: 0 }
    }

    /// Waits until the window after one with so many readings is due. What falls behind is made up for: the rate is one of
    /// the whole run.
    async fn after(&mut self, readings: u64) {
        self.sent += readings;
        if let Some(rate) = self.rate {
            #[allow(clippy::cast_precision_loss)] // far below 2^52
            let due = Duration::from_secs_f64(self.sent as f64 / f64::from(rate));
            tokio::time::sleep_until(self.began + due).await;
        }
    }
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
    let (Ok(account), Ok(source)) = (account.parse::<galerna_model::AccountId>(), SourceId::new(account))
    else {
        return true;
    };
    let received = SystemClock.now();
    let readings = post.readings.len() as u64;
    let ts = post.readings.first().map(|r| r.ts).unwrap_or(received);
    let post = Arc::new(post);
    let cargo = || {
        if !count.is_multiple_of(JSON_EVERY) {
            return Cargo::Post(Arc::clone(&post));
        }
        let body =
            json!({ "account": account, "source_key": source, "received": received, "body": post.readings });
        Cargo::Message(Message {
            body: Bytes::from(body.to_string()),
            content_type: galerna_model::envelope::JSON_CONTENT_TYPE.to_owned(),
            id: format!("{account}-{}", post.sqn),
        })
    };
    let again = count.is_multiple_of(TWICE_EVERY).then(&cargo);
    let correction = post.readings.first().filter(|_| count.is_multiple_of(CORRECTED_EVERY)).map(|first| {
        let mut reading = first.clone();
        reading.sqn += 1;
        for value in &mut reading.values {
            value.v += 0.001;
        }
        reading
    });
    let first_of_account = post.sqn == 1;
    let mut send = |cargo, readings, note| send(Item { tenant: index, cargo, readings, note });
    if !send(cargo(), readings, Note::Post(Arc::clone(&post))) {
        return false;
    }
    if let Some(again) = again
        && !send(again, readings, Note::Nothing)
    {
        return false;
    }
    if let Some(reading) = correction {
        let alone = ReplayedPost { sqn: reading.sqn, meters: vec![], readings: vec![reading.clone()] };
        if !send(Cargo::Post(Arc::new(alone)), 1, Note::Correction(reading)) {
            return false;
        }
    }
    if first_of_account && index < FAULTY_ACCOUNTS {
        for faulty in faults::messages(&account, &source, ts, received) {
            let cargo = Cargo::Message(faulty.message.clone());
            if !send(cargo, faulty.readings, Note::Faulty(Box::new(faulty))) {
                return false;
            }
        }
    }
    true
}

/// Posts what comes over HTTP, each account's posts in order; returns the number of calls. For a backlog each post is a call, as
/// concentrators send them; whatever their order, the same is stored.
async fn post(poster: &Poster, load: &Load, order: Order, window: &[Item]) -> anyhow::Result<u64> {
    if order == Order::LastFirst {
        let posts = window.iter().filter_map(|item| match &item.cargo {
            Cargo::Post(post) => Some((item.tenant, post)),
            Cargo::Message(_) => None,
        });
        let calls: Vec<_> = posts
            .map(|(tenant, post)| {
                let call = PostBody::new(&post.readings.iter().collect::<Vec<_>>())?;
                Ok(poster.post(load.tenants[tenant].account.as_str(), call))
            })
            .collect::<anyhow::Result<_>>()?;
        return stream::iter(calls).buffer_unordered(CALLS).try_fold(0, async |n, ()| Ok(n + 1)).await;
    }
    let mut by_tenant: BTreeMap<usize, Vec<&Reading>> = BTreeMap::new();
    for item in window {
        if let Cargo::Post(post) = &item.cargo {
            by_tenant.entry(item.tenant).or_default().extend(&post.readings);
        }
    }
    let mut accounts = Vec::with_capacity(by_tenant.len());
    for (tenant, readings) in by_tenant {
        let calls = readings.chunks(CALL).map(PostBody::new).collect::<anyhow::Result<Vec<_>>>()?;
        accounts.push(one_account(poster.clone(), load.tenants[tenant].account.to_string(), calls));
    }
    let mut posting = stream::iter(accounts).buffer_unordered(CALLS);
    let mut calls = 0;
    while let Some(made) = posting.next().await {
        calls += made?;
    }
    Ok(calls)
}

async fn one_account(poster: Poster, source: String, calls: Vec<PostBody>) -> anyhow::Result<u64> {
    let count = calls.len() as u64;
    for call in calls {
        poster.post(&source, call).await?;
    }
    Ok(count)
}

/// Publishes a window until all of it is confirmed. Publishing again what may have been taken already is harmless: the
/// store knows readings by their identity.
async fn confirm(
    broker: &dyn Broker,
    queues: &[QueueName],
    window: &[(usize, &Message)],
) -> anyhow::Result<()> {
    if window.is_empty() {
        return Ok(());
    }
    let mut left: Vec<usize> = (0..window.len()).collect();
    for attempt in 1.. {
        let messages = left.iter().map(|i| (queues[window[*i].0].clone(), window[*i].1.clone())).collect();
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
