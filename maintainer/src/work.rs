//! What the tasks do: the I/O around the pure plans and decisions.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use galerna_broker::{Broker, BrokerError, DeleteWhen, Deleted, Depth};
use galerna_lease::QueueEvent;
use galerna_lock::Mutex;
use galerna_model::{Clock, QueueName};
use galerna_storage::{QueueRecord, QueueState, QueueStates, ReadyCount};
use tokio::time::Instant;

use crate::accounts::{self, Plan};
use crate::deletions::{self, Decision};
use crate::guarded::Writer;
use crate::reconcile_empty;
use crate::steady::SteadyClock;
use crate::task::{Options, Report, Run, Task, TaskError};
use crate::timeouts::LeaseWatches;
use galerna_directory::{AccountsSource, Issue};

/// How often a write that lost to a newer one is tried again, where it may be.
const ROUNDS: u32 = 5;

/// A count that stays the same is told again when the stored one is older than this, in milliseconds, so that its time
/// shows that the queue is counted. The store ignores it before.
const COUNT_OLD_MS: i64 = 300_000;

/// Pause between two readings of the leases of a run that watches them.
const OBSERVE_EVERY: Duration = Duration::from_millis(250);

/// What a run did so far: it stays readable when the run is stopped.
pub(crate) type Progress = Arc<Mutex<Report>>;

pub(crate) struct Work {
    pub(crate) queues: Arc<dyn QueueStates>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) accounts: Arc<dyn AccountsSource>,
    pub(crate) options: Options,
    pub(crate) clock: Arc<dyn Clock>,
    steady: SteadyClock,
    leases: Mutex<LeaseWatches>,
    /// Claims of deletions that others made, and since when they were seen unchanged.
    claims: Mutex<HashMap<QueueName, (u64, Instant)>>,
}

impl Work {
    pub(crate) fn new(
        queues: Arc<dyn QueueStates>,
        broker: Arc<dyn Broker>,
        accounts: Arc<dyn AccountsSource>,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let (leases, claims) = Default::default();
        let steady = SteadyClock::new(Arc::clone(&clock));
        Self { queues, broker, accounts, options, clock, steady, leases, claims }
    }

    pub(crate) async fn perform(&self, task: Task, run: Run, progress: &Progress) -> Result<(), TaskError> {
        match task {
            Task::Accounts => self.accounts(run.force, progress).await,
            Task::ReconcileEmpty => self.reconcile_empty(progress).await,
            Task::Timeouts => self.timeouts(run.watch, progress).await,
            Task::Deletions => self.deletions(run.force, progress).await,
        }
    }

    fn writer(&self, task: Task) -> Writer<'_> {
        Writer {
            queues: &*self.queues,
            timing: &self.options.timing,
            now: self.clock.now(),
            chunk: self.options.chunk,
            task,
        }
    }

    /// Reads the list of accounts and compares it with the records.
    ///
    /// The records are read first: an account that is created meanwhile is then in the list, not the other way round.
    async fn plan(&self) -> Result<(Plan, Vec<QueueRecord>, usize), TaskError> {
        let records = self.queues.all().await?;
        let list = self.accounts.accounts().await?;
        let listed = list.entries.len() + list.issues.len();
        Ok((accounts::plan(&list, &records), records, listed))
    }

    async fn accounts(&self, force: bool, progress: &Progress) -> Result<(), TaskError> {
        let (plan, records, listed) = self.plan().await?;
        {
            let mut report = progress.lock();
            report.listed = listed as u64;
            for issue in &plan.issues {
                report.issue(issue.clone());
            }
        }
        let claimed: BTreeSet<&QueueName> =
            records.iter().filter(|r| r.deletion_claimed).map(|r| &r.queue).collect();
        self.create(&plan, &claimed, progress).await?;

        let restore: BTreeSet<&QueueName> = plan.restore.iter().collect();
        let back = records.iter().filter(|r| restore.contains(&r.queue)).cloned().collect();
        let restored = self
            .writer(Task::Accounts)
            .apply(back, ROUNDS, |record| {
                // A claimed deletion is seen through; the account gets its queue anew after it.
                (!record.deletion_claimed).then_some(QueueEvent::Undelete)
            })
            .await?;
        {
            let mut report = progress.lock();
            report.restored += restored.done.len() as u64;
            report.waiting += (plan.restore.len() - restored.done.len()) as u64;
        }

        // Only what can lose something waits for a list that is believed.
        if let Some(suspicion) = plan.suspicion(&self.options.guard)
            && !force
        {
            return Err(suspicion.into());
        }
        let flag: BTreeSet<&QueueName> = plan.flag.iter().collect();
        let gone = records.into_iter().filter(|r| flag.contains(&r.queue)).collect();
        let flagged = self
            .writer(Task::Accounts)
            .apply(gone, ROUNDS, |record| {
                let reason = plan.gone.get(&record.queue).cloned();
                (record.state != QueueState::Deleting).then_some(QueueEvent::FlagDeleted { reason })
            })
            .await?;
        let mut report = progress.lock();
        report.flagged += flagged.done.len() as u64;
        report.conflicts += restored.conflicts + flagged.conflicts;
        Ok(())
    }

    /// Makes the queues and records that are missing: the queue first, so that nobody is given one that is not there.
    ///
    /// A queue whose deletion is claimed is not made again before the deletion is over, or it would be made to be deleted.
    async fn create(
        &self,
        plan: &Plan,
        claimed: &BTreeSet<&QueueName>,
        progress: &Progress,
    ) -> Result<(), TaskError> {
        let missing = match self.broker.depths().await {
            Ok(depths) => {
                let there: BTreeSet<QueueName> = depths.into_iter().map(|(queue, _)| queue).collect();
                let missing = |queue: &&QueueName| !there.contains(queue) && !claimed.contains(queue);
                plan.wanted.keys().filter(missing).cloned().collect()
            }
            Err(error) => {
                // New accounts do not wait for the broker's list of queues; the rest is checked next time.
                tracing::warn!(%error, "cannot tell which queues the broker has; only new ones are declared");
                plan.create.clone()
            }
        };
        let create: BTreeSet<&QueueName> = plan.create.iter().collect();
        let declare: BTreeSet<QueueName> = plan.create.iter().cloned().chain(missing).collect();
        let declare: Vec<QueueName> = declare.into_iter().collect();
        for chunk in declare.chunks(self.options.chunk) {
            let mut declared = Vec::new();
            let mut calls = futures_util::stream::iter(chunk.to_vec())
                .map(|queue| async move {
                    let result = self.broker.declare(&queue).await;
                    (queue, result)
                })
                .buffer_unordered(self.options.concurrency);
            let mut unavailable = None;
            while let Some((queue, result)) = calls.next().await {
                match result {
                    Ok(()) => declared.push(queue),
                    Err(error @ (BrokerError::Unavailable { .. } | BrokerError::Timeout { .. })) => {
                        // The rest would fail the same way, each after its timeout.
                        unavailable = Some(error);
                        break;
                    }
                    Err(error) => progress.lock().issue(Issue {
                        id: plan.wanted.get(&queue).map(|account| account.id.to_string()),
                        queue: Some(queue.to_string()),
                        problem: format!("its queue cannot be made: {error}"),
                    }),
                }
            }
            drop(calls);
            let now = self.clock.now();
            let records: Vec<QueueRecord> = declared
                .iter()
                .filter(|queue| create.contains(queue))
                .filter_map(|queue| {
                    let account = plan.wanted.get(queue)?;
                    Some(QueueRecord::new(queue.clone(), account.id.clone(), now))
                })
                .collect();
            let created = if records.is_empty() { Vec::new() } else { self.queues.create(&records).await? };
            let mut report = progress.lock();
            report.declared += declared.len() as u64;
            report.created += created.len() as u64;
            drop(report);
            if let Some(error) = unavailable {
                return Err(error.into());
            }
        }
        Ok(())
    }

    async fn reconcile_empty(&self, progress: &Progress) -> Result<(), TaskError> {
        // In this order: whatever happens to a queue after its record was read makes the guarded write fail, so a count
        // that is older than what happened changes nothing.
        let records = self.queues.all().await?;
        let at = self.clock.now();
        let depths: BTreeMap<QueueName, Depth> = self.broker.depths().await?.into_iter().collect();

        // Most counts are as they were: they need not be told, but for some of the old ones in each round.
        let (mut counted, mut renewed) = (0, 0);
        let mut changed = Vec::new();
        for record in &records {
            let Some(&Depth { ready, unacked, .. }) = depths.get(&record.queue) else { continue };
            counted += 1;
            let differs = record.counted_at.is_none() || (record.ready, record.unacked) != (ready, unacked);
            let old = !differs
                && renewed < self.options.chunk
                && record.counted_at.is_some_and(|counted| at.millis_since(counted) > COUNT_OLD_MS);
            renewed += usize::from(old);
            if differs || old {
                changed.push(ReadyCount { queue: record.queue.clone(), ready, unacked });
            }
        }
        {
            let mut report = progress.lock();
            report.counted = counted;
            // A queue that the broker does not tell of may be new, or the list stale: nothing is concluded from it.
            report.uncounted = records.len() as u64 - counted;
        }
        for chunk in changed.chunks(self.options.chunk) {
            self.queues.set_ready(chunk, at).await?;
        }
        let settle = self.options.settle;
        let applied = self
            .writer(Task::ReconcileEmpty)
            .apply(records, 1, |record| {
                reconcile_empty::event_of_count(record, *depths.get(&record.queue)?, settle, at)
            })
            .await?;
        let mut report = progress.lock();
        for record in &applied.done {
            if record.state == QueueState::Empty {
                report.emptied += 1;
            } else {
                report.filled += 1;
            }
        }
        report.conflicts += applied.conflicts;
        Ok(())
    }

    async fn timeouts(&self, watch: Option<Duration>, progress: &Progress) -> Result<(), TaskError> {
        let started = Instant::now();
        loop {
            let began = Instant::now();
            let records = self.queues.all().await?;
            let expired: Vec<QueueRecord> = {
                let mut leases = self.leases.lock();
                let (margin, unstated) = (self.options.timing.expiry_margin, self.options.lease_timeout);
                let expired = leases.observe(&records, began, Instant::now(), margin, unstated);
                progress.lock().watched = leases.watched() as u64;
                expired.into_iter().cloned().collect()
            };
            // One round only: the decision holds for these very records.
            let applied = self
                .writer(Task::Timeouts)
                .apply(expired, 1, |record| {
                    let lease = record.lease.as_ref()?;
                    Some(QueueEvent::Expire { epoch: record.epoch, renewal: lease.renewal })
                })
                .await?;
            let watched = {
                let mut report = progress.lock();
                report.expired += applied.done.len() as u64;
                report.conflicts += applied.conflicts;
                report.watched
            };
            match watch {
                Some(watch) if watched > 0 && started.elapsed() < watch => {
                    tokio::time::sleep(OBSERVE_EVERY.min(watch)).await;
                }
                _ => return Ok(()),
            }
        }
    }

    async fn deletions(&self, force: bool, progress: &Progress) -> Result<(), TaskError> {
        // Without flagged queues the list of accounts need not be asked for.
        if !self.queues.all().await?.iter().any(|r| r.state == QueueState::Deleting) {
            self.claims.lock().clear();
            return Ok(());
        }
        // The list has the last word: while it cannot be read, or is not believed, nothing is deleted, and an account
        // that came back since it was flagged keeps its queue.
        let (plan, records, listed) = self.plan().await?;
        progress.lock().listed = listed as u64;
        if let Some(suspicion) = plan.suspicion(&self.options.guard)
            && !force
        {
            return Err(suspicion.into());
        }
        let flagged: Vec<QueueRecord> =
            records.into_iter().filter(|r| r.state == QueueState::Deleting).collect();
        {
            let kept: BTreeSet<&QueueName> = flagged.iter().map(|r| &r.queue).collect();
            self.claims.lock().retain(|queue, _| kept.contains(queue));
        }
        let dead: BTreeMap<QueueName, u64> = self.broker.dead_letter_counts().await?.into_iter().collect();
        for record in flagged {
            let account_gone = plan.gone.contains_key(&record.queue);
            let letters = dead.get(&record.queue).copied().unwrap_or(0);
            match self.delete(record.clone(), account_gone, letters).await {
                Ok(true) => progress.lock().deleted += 1,
                Ok(false) => progress.lock().waiting += 1,
                Err(TaskError::Broker(error)) if !is_unavailable(&error) => progress.lock().issue(Issue {
                    id: Some(record.account.to_string()),
                    queue: Some(record.queue.to_string()),
                    problem: format!("its queue cannot be deleted: {error}"),
                }),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Deletes one flagged queue if it may go now; tells whether it went.
    async fn delete(
        &self,
        record: QueueRecord,
        account_gone: bool,
        dead_letters: u64,
    ) -> Result<bool, TaskError> {
        let record = if record.deletion_claimed {
            if !self.claim_is_abandoned(&record) {
                return Ok(false);
            }
            // Whoever claimed it is gone. The claim ends first: if the account is back, that is all there is to do.
            match self.give_up_claim(record).await? {
                Some(record) => record,
                None => return Ok(false),
            }
        } else {
            record
        };
        if !account_gone {
            return Ok(false);
        }
        let depth = match self.broker.depth(&record.queue).await {
            Ok(depth) => depth,
            // Gone already: by hand, or by a deletion that was cut off.
            Err(BrokerError::UnknownQueue(_)) => Depth::default(),
            Err(error) => return Err(error.into()),
        };
        let messages = depth.ready.saturating_add(depth.unacked).saturating_add(dead_letters);
        let Options { linger, grace, .. } = self.options;
        let Decision::Delete(when) = deletions::decide(&record, messages, linger, grace, self.steady.now())
        else {
            return Ok(false);
        };

        let claimed_at = Instant::now();
        let writer = self.writer(Task::Deletions);
        let Some(claimed) =
            writer.apply(vec![record], 1, |_| Some(QueueEvent::ClaimDeletion)).await?.done.pop()
        else {
            return Ok(false);
        };
        if claimed_at.elapsed() >= self.options.takeover() / 2 {
            // This process was held up; another may take the claim over by now.
            return Ok(false);
        }
        match self.broker.delete(&claimed.queue, when).await? {
            Deleted::Yes => self.remove(claimed).await,
            Deleted::NotEmpty => {
                debug_assert_eq!(when, DeleteWhen::Empty);
                self.give_up_claim(claimed).await?;
                Ok(false)
            }
        }
    }

    /// Ends a claim by a guarded write; `None` when the record is no longer claimed.
    async fn give_up_claim(&self, claimed: QueueRecord) -> Result<Option<QueueRecord>, TaskError> {
        let applied = self
            .writer(Task::Deletions)
            .apply(vec![claimed], ROUNDS, |record| {
                record.deletion_claimed.then_some(QueueEvent::GiveUpDeletion)
            })
            .await?;
        Ok(applied.done.into_iter().next())
    }

    /// Removes the record of a queue that is gone. An operator's pause may have changed it meanwhile.
    async fn remove(&self, claimed: QueueRecord) -> Result<bool, TaskError> {
        let mut record = claimed;
        for _ in 0..ROUNDS {
            if self.queues.remove(&record.queue, record.version).await? {
                tracing::info!(
                    queue = %record.queue, account = %record.account, epoch = record.epoch,
                    actor = "maintainer/deletions", reason = record.reason.as_deref().unwrap_or_default(),
                    "queue deleted"
                );
                return Ok(true);
            }
            match self.queues.get(&record.queue).await? {
                Some(current) if current.deletion_claimed => record = current,
                Some(_) => return Ok(false),
                None => return Ok(true),
            }
        }
        Ok(false)
    }

    /// Whether a claim has stood unchanged for so long that whoever made it is no longer at work.
    fn claim_is_abandoned(&self, record: &QueueRecord) -> bool {
        let now = Instant::now();
        let mut claims = self.claims.lock();
        let seen = claims.entry(record.queue.clone()).or_insert((record.version, now));
        if seen.0 != record.version {
            *seen = (record.version, now);
        }
        now.duration_since(seen.1) >= self.options.takeover()
    }
}

/// Whether every other call would fail the same way.
fn is_unavailable(error: &BrokerError) -> bool {
    matches!(error, BrokerError::Unavailable { .. } | BrokerError::Timeout { .. })
}
