//! Follows what other processes change in the store.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use galerna_lease::QueueRecord;
use galerna_model::QueueName;
use galerna_retry::{Outage, Pauses};
use galerna_storage::StorageError;
use tokio::time::{Instant, timeout};

use crate::dispatcher::Shared;
use galerna_lease::StrategyName;

/// Setting: whether leases are given.
pub(crate) const RUNNING: &str = "dispatcher.running";
/// Setting: the strategy asked for.
pub(crate) const STRATEGY: &str = "dispatcher.strategy";

/// How often all records are read, so that a removal cannot be missed.
const RELOAD_ALL_EVERY: Duration = Duration::from_secs(60);
/// The longest pause after failures.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Refreshes for ever. After a failure it pauses ever longer.
pub(crate) async fn run(shared: Arc<Shared>) {
    let every = shared.timing.refresh;
    let mut outage = Outage::new("refreshing queue states", Pauses::new(every, LONGEST_PAUSE.max(every)));
    let mut reloaded = Instant::now();
    loop {
        let pause = match timeout(shared.timing.store_timeout, round(&shared, &mut reloaded)).await {
            Ok(Ok(())) => {
                outage.succeeded();
                every
            }
            failed => {
                let cause = match failed {
                    Ok(Err(error)) => error.to_string(),
                    _ => "the store does not answer in time".to_owned(),
                };
                shared.metrics.store_errors.inc();
                shared.planner.lock().store_answers = false;
                outage.failed(&cause)
            }
        };
        tokio::time::sleep(pause).await;
    }
}

async fn round(shared: &Shared, reloaded: &mut Instant) -> Result<(), StorageError> {
    apply_changes(shared).await?;
    read_settings(shared).await?;
    write_void_counts(shared).await?;
    if reloaded.elapsed() >= RELOAD_ALL_EVERY {
        *reloaded = Instant::now();
        reload_all(shared).await?;
    }
    shared.planner.lock().store_was_read(Instant::now());
    Ok(())
}

/// Takes what changed in the store since it was last asked.
pub(crate) async fn apply_changes(shared: &Shared) -> Result<(), StorageError> {
    let changes = shared.queues.changes(shared.cursor.load(Ordering::Acquire)).await?;
    apply_records(shared, changes.records, &changes.removed);
    // Two who ask at once may both get the same changes, which does no harm; the cursor never goes back.
    shared.cursor.fetch_max(changes.cursor, Ordering::AcqRel);
    Ok(())
}

/// Takes records read from the store.
pub(crate) fn apply_records(shared: &Shared, records: Vec<QueueRecord>, removed: &[QueueName]) {
    let at = shared.moment();
    let mut has_work = false;
    // In portions, so that a long list does not hold up callers.
    let mut records = records.into_iter().peekable();
    while records.peek().is_some() {
        let mut planner = shared.planner.lock();
        for record in records.by_ref().take(1_000) {
            planner.table.apply(record, at.now, at.wall);
        }
        planner.wake_waiters();
        has_work |= planner.has_work();
    }
    let mut planner = shared.planner.lock();
    for queue in removed {
        planner.table.remove(queue);
    }
    drop(planner);
    if has_work {
        shared.work.notify_one();
    }
    shared.timers.notify_one();
}

/// Reads all records, and forgets the queues that are not among them.
pub(crate) async fn reload_all(shared: &Shared) -> Result<(), StorageError> {
    let known: Vec<QueueName> = {
        let planner = shared.planner.lock();
        planner.table.entries().map(|e| e.record.queue.clone()).collect()
    };
    let all = shared.queues.all().await?;
    let removed: Vec<QueueName> = {
        let there: HashSet<&QueueName> = all.iter().map(|r| &r.queue).collect();
        known.into_iter().filter(|q| !there.contains(q)).collect()
    };
    apply_records(shared, all, &removed);
    Ok(())
}

/// Reads what all dispatchers of the store share: whether they run, and the strategy.
pub(crate) async fn read_settings(shared: &Shared) -> Result<(), StorageError> {
    let before = shared.planner.lock().settings_version;
    let running = shared.settings.get(RUNNING).await?.and_then(|v| v.as_bool());
    let strategy = shared.settings.get(STRATEGY).await?;
    let strategy = strategy.as_ref().and_then(|v| v.as_str()).and_then(|s| s.parse::<StrategyName>().ok());
    let mut planner = shared.planner.lock();
    if planner.settings_version != before {
        return Ok(()); // Changed here while it was read; the next round sees it.
    }
    if let Some(running) = running
        && running != planner.running
    {
        planner.set_running(running);
    }
    if let Some(strategy) = strategy {
        planner.configured = strategy;
    }
    planner.choose_strategy(Instant::now());
    Ok(())
}

/// Voids the counts of queues that were found empty, so that the next count is news even if it is the same number.
async fn write_void_counts(shared: &Shared) -> Result<(), StorageError> {
    let (void, at) = {
        let mut planner = shared.planner.lock();
        (std::mem::take(&mut planner.table.void_counts), planner.table.last_count)
    };
    // Stamped by the clock of whoever counts, one step on: a count made since is newer and stays.
    let Some(at) = at.filter(|_| !void.is_empty()) else { return Ok(()) };
    let written = shared.queues.set_ready(&void, at.plus_millis(1)).await;
    if written.is_err() {
        let table = &mut shared.planner.lock().table;
        let room = table.len().saturating_sub(table.void_counts.len());
        table.void_counts.extend(void.into_iter().take(room));
    }
    written
}
