//! What a dispatcher does beside answering: it commits, refreshes, expires and pings.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use galerna_model::QueueName;
use galerna_storage::{QueueRecord, StorageError};
use tokio::time::{Instant, MissedTickBehavior, timeout, timeout_at};

use crate::core::{ActOp, Op};
use crate::dispatcher::Shared;
use crate::maintainer_link::Ping;
use crate::strategy::StrategyName;
use galerna_lease::QueueEvent;

/// Setting: whether leases are given.
pub(crate) const RUNNING: &str = "dispatcher.running";
/// Setting: the strategy asked for.
pub(crate) const STRATEGY: &str = "dispatcher.strategy";

/// How often all records are read, so that a removal cannot be missed.
const FULL_LOOK: Duration = Duration::from_secs(60);
/// Leases expired in one go.
const MAX_EXPIRED: usize = 1_000;
/// Pings that must go unanswered before the maintainer counts as silent.
const MISSED_PINGS: u32 = 2;

/// Writes what is planned, for ever. Several run at once.
pub(crate) async fn commit(shared: Arc<Shared>) {
    let mut back = false;
    loop {
        let now = Instant::now();
        let (held, batch, more) = {
            let mut core = shared.core.lock();
            if std::mem::take(&mut back) {
                core.back();
            }
            match core.held_until(now) {
                Some(until) => (Some(until), None, false),
                None => {
                    let batch = core.plan(now, shared.clock.now(), &shared.name, &shared.metrics);
                    (None, batch, core.has_work())
                }
            }
        };
        let Some(batch) = batch else {
            match held {
                Some(until) => drop(timeout_at(until, shared.work.notified()).await),
                None if !more => shared.work.notified().await,
                None => {}
            }
            continue;
        };
        if more {
            shared.work.notify_one(); // Another lane may take what did not fit.
        }
        let began = Instant::now();
        let outcome = match timeout(shared.timing.store_timeout, shared.queues.swap(&batch.swaps)).await {
            Ok(Ok(outcomes)) => Ok(outcomes),
            Ok(Err(e)) => Err(e.to_string()),
            Err(_) => Err(format!("the store did not answer within {:?}", shared.timing.store_timeout)),
        };
        shared.metrics.commit_seconds.observe(began.elapsed().as_secs_f64());
        shared.metrics.commit_writes.observe(batch.swaps.len() as f64);
        if let Err(cause) = &outcome {
            shared.metrics.store_errors.inc();
            tracing::warn!(%cause, writes = batch.swaps.len(), "queue states could not be written");
        }
        shared.core.lock().finish(batch, outcome, Instant::now(), shared.clock.now(), &shared.metrics);
        shared.timers.notify_one();
        // Those who were answered may run before this goes on: what they ask for next then goes into one write.
        tokio::task::yield_now().await;
        back = true;
    }
}

/// Takes records read from the store.
pub(crate) fn take(shared: &Shared, records: Vec<QueueRecord>, removed: &[QueueName]) {
    let (now, wall) = (Instant::now(), shared.clock.now());
    let mut woken = false;
    // In portions, so that a long list does not hold up callers.
    let mut records = records.into_iter().peekable();
    while records.peek().is_some() {
        let mut core = shared.core.lock();
        for record in records.by_ref().take(1_000) {
            core.board.apply(record, now, wall);
        }
        core.promote();
        woken |= core.has_work();
    }
    let mut core = shared.core.lock();
    for queue in removed {
        core.board.remove(queue);
    }
    core.store_answers = true;
    drop(core);
    if woken {
        shared.work.notify_one();
    }
    shared.timers.notify_one();
}

/// Follows what other processes change.
pub(crate) async fn refresh(shared: Arc<Shared>, mut cursor: u64) {
    let mut tick = tokio::time::interval(shared.timing.refresh);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked = Instant::now();
    loop {
        tick.tick().await;
        let round = async {
            let changes = shared.queues.changes(cursor).await?;
            take(&shared, changes.records, &changes.removed);
            read_settings(&shared).await?;
            write_counts(&shared).await?;
            if looked.elapsed() >= FULL_LOOK {
                looked = Instant::now();
                look_at_all(&shared).await?;
            }
            Ok::<_, StorageError>(changes.cursor)
        };
        match timeout(shared.timing.store_timeout, round).await {
            Ok(Ok(next)) => cursor = next,
            failed => {
                let cause = match failed {
                    Ok(Err(e)) => e.to_string(),
                    _ => "the store does not answer in time".to_owned(),
                };
                shared.metrics.store_errors.inc();
                let first = std::mem::replace(&mut shared.core.lock().store_answers, false);
                if first {
                    tracing::warn!(%cause, "queue states cannot be refreshed");
                }
            }
        }
    }
}

pub(crate) async fn look_at_all(shared: &Shared) -> Result<(), StorageError> {
    let known: Vec<QueueName> = {
        let core = shared.core.lock();
        core.board.entries().map(|e| e.record.queue.clone()).collect()
    };
    let all = shared.queues.all().await?;
    let removed: Vec<QueueName> = {
        let there: HashSet<&QueueName> = all.iter().map(|r| &r.queue).collect();
        known.into_iter().filter(|q| !there.contains(q)).collect()
    };
    take(shared, all, &removed);
    Ok(())
}

/// Reads what all dispatchers of the store share: whether they run, and the strategy.
pub(crate) async fn read_settings(shared: &Shared) -> Result<(), StorageError> {
    let before = shared.core.lock().settings;
    let running = shared.settings.get(RUNNING).await?.and_then(|v| v.as_bool());
    let strategy = shared.settings.get(STRATEGY).await?;
    let strategy = strategy.as_ref().and_then(|v| v.as_str()).and_then(|s| s.parse::<StrategyName>().ok());
    let mut core = shared.core.lock();
    if core.settings != before {
        return Ok(()); // Changed here while it was read; the next look sees it.
    }
    if let Some(running) = running
        && running != core.running
    {
        core.set_running(running);
    }
    if let Some(strategy) = strategy {
        core.configured = strategy;
    }
    core.settle_strategy(Instant::now());
    Ok(())
}

/// Voids the counts of queues that were found dry, so that the next count is news even if it is the same number.
async fn write_counts(shared: &Shared) -> Result<(), StorageError> {
    let (zeroed, at) = {
        let mut core = shared.core.lock();
        (std::mem::take(&mut core.board.zeroed), core.board.last_count)
    };
    // Stamped by the clock of whoever counts, one step on: a count made since is newer and stays.
    let Some(at) = at.filter(|_| !zeroed.is_empty()) else { return Ok(()) };
    let written = shared.queues.set_ready(&zeroed, at.plus_millis(1)).await;
    if written.is_err() {
        let mut core = shared.core.lock();
        let room = core.board.len().saturating_sub(core.board.zeroed.len());
        core.board.zeroed.extend(zeroed.into_iter().take(room));
    }
    written
}

/// Expires leases that this dispatcher has watched for long enough, and ends delays after crashes.
pub(crate) async fn keep_timers(shared: Arc<Shared>) {
    loop {
        let (next, woken) = {
            let mut core = shared.core.lock();
            for (queue, epoch, renewal) in core.board.expired(Instant::now(), MAX_EXPIRED) {
                core.push(Op::Act(ActOp {
                    queue,
                    event: QueueEvent::Expire { epoch, renewal },
                    actor: Some(shared.name.clone().into()),
                    attempts: 0,
                    reply: None,
                }));
            }
            core.promote();
            (core.board.next_timer(), core.has_work())
        };
        if woken {
            shared.work.notify_one();
        }
        let until = next.unwrap_or_else(|| Instant::now() + FULL_LOOK);
        tokio::select! {
            () = tokio::time::sleep_until(until) => {}
            () = shared.timers.notified() => {}
        }
    }
}

/// Pings once and puts the strategy in force that the answer calls for. Returns whether it answered.
pub(crate) async fn ping(shared: &Shared, link: Option<&dyn Ping>) -> bool {
    let answers = match link {
        None => false,
        Some(link) => match timeout(shared.timing.ping_timeout, link.ping()).await {
            Ok(Ok(())) => true,
            Ok(Err(cause)) => {
                tracing::debug!(%cause, "maintainer does not answer");
                false
            }
            Err(_) => false,
        },
    };
    if answers || !shared.core.lock().maintained {
        set_maintained(shared, answers);
    }
    answers
}

fn set_maintained(shared: &Shared, maintained: bool) {
    {
        let mut core = shared.core.lock();
        core.maintained = maintained;
        core.settle_strategy(Instant::now());
    }
    shared.work.notify_one();
}

/// Pings the maintainer for ever.
pub(crate) async fn watch_maintainer(shared: Arc<Shared>, link: Arc<dyn Ping>) {
    let mut tick = tokio::time::interval(shared.timing.ping_every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut missed = 0;
    loop {
        tick.tick().await;
        missed = if ping(&shared, Some(link.as_ref())).await { 0 } else { missed + 1 };
        if missed == MISSED_PINGS {
            set_maintained(&shared, false);
        }
    }
}
