//! The dispatcher in this process.

use std::borrow::Cow;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use galerna_lease::{LeaseError, QueueEvent, QueueRecord, Timing};
use galerna_lock::Mutex;
use galerna_model::{Clock, QueueName};
use galerna_storage::{QueueStates, Settings, Store};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::metrics::{self, Metrics};
use crate::options::{AdminError, DispatcherOptions, OpenError};
use crate::past::Transitions;
use crate::planner::{Calls, Moment, PendingCall, Planner, QueueCall, WaitFor};
use crate::queue_table::QueueTable;
use crate::status::{self, DispatcherView, QueueView, StatusPage, StatusQuery};
use crate::{committer, maintainer_link, refresh, summary, timers};
use galerna_lease::StrategyName;

/// Calls that may wait for a write; more are refused.
const MAX_PENDING: usize = 65_536;

pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) timing: Timing,
    pub(crate) planner: Mutex<Planner>,
    /// Wakes a committer.
    pub(crate) work: Notify,
    /// Wakes the task that runs the timers.
    pub(crate) timers: Notify,
    /// Up to where the changes of the store were read.
    pub(crate) cursor: AtomicU64,
    pub(crate) queues: Arc<dyn QueueStates>,
    pub(crate) settings: Arc<dyn Settings>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) registry: prometheus::Registry,
    pub(crate) has_maintainer: bool,
}

impl Shared {
    pub(crate) fn moment(&self) -> Moment {
        Moment { now: Instant::now(), wall: self.clock.now() }
    }
}

/// Ends the background tasks with the last handle.
struct Tasks(Vec<JoinHandle<()>>);

impl Drop for Tasks {
    fn drop(&mut self) {
        for task in &self.0 {
            task.abort();
        }
    }
}

/// A dispatcher in this process: a cheap handle, cloned at will. It stops with its last clone.
///
/// Any number of them, in any number of processes, may share one store.
#[derive(Clone)]
pub struct Dispatcher {
    pub(crate) shared: Arc<Shared>,
    _tasks: Arc<Tasks>,
}

impl Dispatcher {
    /// Loads the queue states and starts to keep them fresh.
    ///
    /// # Errors
    /// [`OpenError`] when the timing does not hold or the store does not answer.
    pub async fn open(store: &Store, options: DispatcherOptions) -> Result<Self, OpenError> {
        options.timing.check()?;
        let timing = options.timing;
        let limit = timing.request_timeout.max(Duration::from_secs(30));
        let changes =
            timeout(limit, store.queues.changes(0)).await.map_err(|_| OpenError::Timeout(limit))??;
        let mut table = QueueTable::new(timing.clone(), options.weights);
        let (now, wall) = (Instant::now(), options.clock.now());
        let mut records = changes.records;
        records.sort_by_key(|r| r.last_delivered);
        for record in records {
            table.apply(record, now, wall);
        }
        if let Some((leases, last)) = table.watched() {
            // Expiry goes by an observer's own clock, so that what an earlier one has watched counts for nothing.
            tracing::info!(leases, within = ?(last - now), "leases found: those whose holders are gone expire within this time from now");
        }
        let (link, has_maintainer) = options.maintainer.ready(timing.ping_timeout)?;
        let metrics = Arc::new(Metrics::new(&options.registry)?);
        let planner =
            Planner::new(table, options.strategy, timing.clone(), options.name.clone(), Arc::clone(&metrics));
        let shared = Arc::new(Shared {
            name: options.name,
            planner: Mutex::new(planner),
            work: Notify::new(),
            timers: Notify::new(),
            cursor: AtomicU64::new(changes.cursor),
            queues: Arc::clone(&store.queues),
            settings: Arc::clone(&store.settings),
            clock: options.clock,
            metrics,
            registry: options.registry,
            has_maintainer,
            timing,
        });
        metrics::observe(&shared)?;
        refresh::read_settings(&shared).await?;
        maintainer_link::ping(&shared, link.as_deref()).await;
        let mut tasks = vec![
            tokio::spawn(refresh::run(Arc::clone(&shared))),
            tokio::spawn(timers::run(Arc::clone(&shared))),
            tokio::spawn(summary::run(Arc::clone(&shared))),
        ];
        if let Some(link) = link {
            tasks.push(tokio::spawn(maintainer_link::watch(Arc::clone(&shared), link)));
        }
        for _ in 0..options.committers.max(1) {
            tasks.push(tokio::spawn(committer::run(Arc::clone(&shared))));
        }
        Ok(Self { shared, _tasks: Arc::new(Tasks(tasks)) })
    }

    /// The timeouts in force.
    pub fn timing(&self) -> &Timing {
        &self.shared.timing
    }

    /// Blocks a queue until it is unpaused; its holder, if any, is told at its next renewal. Idempotent.
    ///
    /// # Errors
    /// [`AdminError`] when the queue is unknown or the store unavailable.
    pub async fn pause(
        &self,
        queue: &QueueName,
        reason: Option<String>,
        actor: &str,
    ) -> Result<QueueView, AdminError> {
        self.admin(queue, QueueEvent::Pause { reason }, actor).await
    }

    /// Unblocks a queue. Idempotent.
    ///
    /// # Errors
    /// As [`Self::pause`].
    pub async fn unpause(&self, queue: &QueueName, actor: &str) -> Result<QueueView, AdminError> {
        self.admin(queue, QueueEvent::Unpause, actor).await
    }

    /// Flags a queue for deletion; it is leased no more. Idempotent.
    ///
    /// # Errors
    /// As [`Self::pause`].
    pub async fn flag_deleted(
        &self,
        queue: &QueueName,
        reason: Option<String>,
        actor: &str,
    ) -> Result<QueueView, AdminError> {
        self.admin(queue, QueueEvent::FlagDeleted { reason }, actor).await
    }

    /// Takes a deletion back. Idempotent.
    ///
    /// # Errors
    /// As [`Self::pause`].
    pub async fn undelete(&self, queue: &QueueName, actor: &str) -> Result<QueueView, AdminError> {
        self.admin(queue, QueueEvent::Undelete, actor).await
    }

    /// Stops giving leases, here at once and at every dispatcher of the store within a refresh; survives restarts. Returns when
    /// the others have had the time to notice, two refreshes, so that nobody is given a lease after that.
    /// Releases and renewals still work.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`] when the store is unavailable.
    pub async fn stop(&self) -> Result<(), AdminError> {
        self.set_running(false).await?;
        tokio::time::sleep(2 * self.shared.timing.refresh).await;
        Ok(())
    }

    /// Gives leases again.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub async fn start(&self) -> Result<(), AdminError> {
        self.set_running(true).await
    }

    async fn set_running(&self, running: bool) -> Result<(), AdminError> {
        self.put_setting(refresh::RUNNING, serde_json::Value::Bool(running)).await?;
        {
            let mut planner = self.shared.planner.lock();
            planner.settings_version += 1;
            planner.set_running(running);
        }
        tracing::info!(running, "dispatcher switched");
        Ok(())
    }

    /// Sets the strategy for every dispatcher of the store; survives restarts. No lease is touched.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub async fn set_strategy(&self, strategy: StrategyName) -> Result<(), AdminError> {
        self.put_setting(refresh::STRATEGY, strategy.as_str().into()).await?;
        {
            let mut planner = self.shared.planner.lock();
            planner.settings_version += 1;
            planner.configured = strategy;
            planner.choose_strategy(Instant::now());
        }
        self.shared.work.notify_one();
        Ok(())
    }

    async fn put_setting(&self, key: &str, value: serde_json::Value) -> Result<(), AdminError> {
        match timeout(self.shared.timing.store_timeout, self.shared.settings.put(key, &value)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(AdminError::Unavailable(e.to_string())),
            Err(_) => Err(AdminError::Unavailable(format!("the store did not keep `{key}` in time"))),
        }
    }

    /// How the dispatcher is.
    pub fn view(&self) -> DispatcherView {
        let planner = self.shared.planner.lock();
        DispatcherView {
            running: planner.running,
            strategy: planner.table.in_force(),
            configured: planner.configured,
            maintainer: match (self.shared.has_maintainer, planner.maintained) {
                (false, _) => "none",
                (true, true) => "answers",
                (true, false) => "silent",
            }
            .to_owned(),
            name: self.shared.name.clone(),
            leases: self.shared.metrics.leases_total(),
        }
    }

    /// A page of queues, from memory: as fresh as the last refresh.
    ///
    /// # Errors
    /// [`AdminError::Query`] names the value that is not allowed.
    pub fn status(&self, query: &StatusQuery) -> Result<StatusPage, AdminError> {
        let selection = query.check()?;
        let dispatcher = self.view();
        let planner = self.shared.planner.lock();
        let (total, queues) = selection.page(&planner.table, Instant::now());
        let (counts, backlog) = (status::counts(&planner.table), status::backlog(&planner.table));
        Ok(StatusPage { dispatcher, total, counts, backlog, queues })
    }

    /// One queue.
    ///
    /// # Errors
    /// [`AdminError`] when it is unknown or the store unavailable.
    pub async fn queue(&self, queue: &QueueName) -> Result<QueueView, AdminError> {
        self.ensure_known(queue, None).await?;
        self.view_of(queue)
    }

    /// The last transitions of a queue that this dispatcher has written.
    ///
    /// # Errors
    /// [`AdminError`] when it is unknown or the store unavailable.
    pub async fn transitions(&self, queue: &QueueName) -> Result<Transitions, AdminError> {
        self.ensure_known(queue, None).await?;
        let planner = self.shared.planner.lock();
        let id = planner.table.find(queue).ok_or_else(|| AdminError::UnknownQueue(queue.clone()))?;
        Ok(planner.table.entry(id).past.view())
    }

    fn view_of(&self, queue: &QueueName) -> Result<QueueView, AdminError> {
        let planner = self.shared.planner.lock();
        let id = planner.table.find(queue).ok_or_else(|| AdminError::UnknownQueue(queue.clone()))?;
        Ok(QueueView::of(planner.table.entry(id), Instant::now()))
    }

    /// Says that messages have just reached these queues. Returns how many of them are known; a lost hint costs only the
    /// wait until the next count.
    pub fn hint(&self, queues: &[QueueName]) -> usize {
        let known = {
            let mut planner = self.shared.planner.lock();
            let known = planner.table.hint(queues, Instant::now());
            planner.wake_waiters();
            known
        };
        self.shared.work.notify_one();
        known
    }

    /// Whether calls can be served: the store answered when it was last asked.
    pub fn is_ready(&self) -> bool {
        let planner = self.shared.planner.lock();
        planner.store_answers && !planner.closing
    }

    /// Looks at all of the store now: sees at once what other processes changed, removals included.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`] when the store is unavailable.
    pub async fn refresh(&self) -> Result<(), AdminError> {
        match timeout(self.shared.timing.store_timeout, refresh::reload_all(&self.shared)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(AdminError::Unavailable(e.to_string())),
            Err(_) => Err(AdminError::Unavailable("the store did not answer in time".to_owned())),
        }
    }

    /// Takes no more calls, answers those who wait, and returns when all writes in flight are durable, at the latest
    /// after the request timeout.
    pub async fn shutdown(&self) {
        self.shared.planner.lock().close();
        let deadline = Instant::now() + self.shared.timing.request_timeout;
        let mut look = tokio::time::interval(Duration::from_millis(2));
        while Instant::now() < deadline && self.shared.planner.lock().is_busy() {
            self.shared.work.notify_one();
            look.tick().await;
        }
    }

    /// Where its metrics are.
    pub fn registry(&self) -> &prometheus::Registry {
        &self.shared.registry
    }

    /// The metrics in Prometheus' text format: all of the registry's.
    pub fn metrics_text(&self) -> String {
        galerna_http::metrics::text(&self.shared.registry).unwrap_or_else(|cause| {
            tracing::error!(%cause, "metrics cannot be encoded");
            String::new()
        })
    }

    async fn admin(
        &self,
        queue: &QueueName,
        event: QueueEvent,
        actor: &str,
    ) -> Result<QueueView, AdminError> {
        // Another dispatcher may just have done the opposite: what is wanted is applied to what the store has, not to what
        // this one last saw of it.
        self.reload(queue).await?;
        self.apply_event(queue, event, Some(Cow::Owned(actor.to_owned()))).await?;
        self.view_of(queue)
    }

    /// Lets something happen to a queue; returns when it is durable.
    pub(crate) async fn apply_event(
        &self,
        queue: &QueueName,
        event: QueueEvent,
        actor: Option<Cow<'static, str>>,
    ) -> Result<QueueRecord, LeaseError> {
        let epoch = match event {
            QueueEvent::Renew { epoch } | QueueEvent::Release { epoch, .. } => Some(epoch),
            _ => None,
        };
        self.ensure_known(queue, epoch).await?;
        let (sender, answer) = oneshot::channel();
        let call = QueueCall { queue: queue.clone(), event, actor, attempts: 0, answer: Some(sender) };
        self.submit(|_| PendingCall::OnQueue(call))?;
        match timeout(self.shared.timing.request_timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(LeaseError::Unavailable("it shuts down".to_owned())),
            Err(_) => Err(LeaseError::Unavailable("the store did not answer in time".to_owned())),
        }
    }

    /// Lets a call wait for the next plan, and wakes a committer.
    pub(crate) fn submit(&self, call: impl FnOnce(&mut Calls) -> PendingCall) -> Result<(), LeaseError> {
        {
            let mut planner = self.shared.planner.lock();
            if planner.closing {
                return Err(LeaseError::Unavailable("it shuts down".to_owned()));
            }
            if planner.calls.pending() >= MAX_PENDING {
                return Err(LeaseError::Unavailable(format!("{MAX_PENDING} calls are queued already")));
            }
            let call = call(&mut planner.calls);
            planner.calls.wait(call, WaitFor::NextPlan);
        }
        self.shared.work.notify_one();
        Ok(())
    }

    /// Makes sure that the table knows the queue, and this epoch of it: another process may have made either just now.
    pub(crate) async fn ensure_known(&self, queue: &QueueName, epoch: Option<u64>) -> Result<(), LeaseError> {
        {
            let planner = self.shared.planner.lock();
            if let Some(id) = planner.table.find(queue)
                && epoch.is_none_or(|e| e <= planner.table.entry(id).record.epoch)
            {
                return Ok(());
            }
        }
        self.reload(queue).await
    }

    /// Reads the queue's record from the store.
    async fn reload(&self, queue: &QueueName) -> Result<(), LeaseError> {
        match timeout(self.shared.timing.store_timeout, self.shared.queues.get(queue)).await {
            Ok(Ok(Some(record))) => {
                refresh::apply_records(&self.shared, vec![record], &[]);
                Ok(())
            }
            Ok(Ok(None)) => Err(LeaseError::UnknownQueue(queue.clone())),
            Ok(Err(e)) => Err(LeaseError::Unavailable(e.to_string())),
            Err(_) => Err(LeaseError::Unavailable("the store did not answer in time".to_owned())),
        }
    }
}
