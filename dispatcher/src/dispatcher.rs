//! The dispatcher in this process.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use galerna_model::{AccountId, Clock, QueueName, SystemClock};
use galerna_storage::{QueueRecord, QueueStates, Settings, StorageError, Store};
use parking_lot::Mutex;
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};

use crate::background;
use crate::board::Board;
use crate::core::{ActOp, Core, NextOp, Op};
use crate::maintainer_link::MaintainerLink;
use crate::metrics::{self, Metrics};
use crate::status::{self, DispatcherView, QueryError, QueueView, StatusPage, StatusQuery};
use crate::strategy::StrategyName;
use galerna_lease::QueueEvent;
use galerna_lease::{GrantedLease, LeaseError, Leases, NextRequest, Release, Renewed};
use galerna_lease::{Timing, TimingError};

/// Calls that may be queued; more are refused.
const MAX_PENDING: usize = 65_536;
/// Most leases in one call.
pub(crate) const MAX_COUNT: usize = 1_000;

/// How a dispatcher is to work. `Default` suits an embedded one.
#[derive(Clone)]
pub struct DispatcherOptions {
    /// Its name in logs and on the status page.
    pub name: String,
    /// All timeouts.
    pub timing: Timing,
    /// The strategy until somebody sets another, which is then kept in the store.
    pub strategy: StrategyName,
    /// The maintainer to ping. Without one nobody counts messages, and `lru` and `fair` fall back to `fifo`.
    pub maintainer: MaintainerLink,
    /// Accounts that get more than one turn per round of `fair`.
    pub weights: HashMap<AccountId, u32>,
    /// Bulk writes under way at once, at most: a second is begun when many calls wait, or some for 10 ms.
    pub lanes: usize,
    /// The wall clock that stamps records.
    pub clock: Arc<dyn Clock>,
    /// Where its metrics are registered: that of the process. There may be one dispatcher in it.
    pub registry: prometheus::Registry,
}

impl Default for DispatcherOptions {
    fn default() -> Self {
        Self {
            name: format!("dispatcher-{}", std::process::id()),
            timing: Timing::default(),
            strategy: StrategyName::Lru,
            maintainer: MaintainerLink::None,
            weights: HashMap::new(),
            lanes: 3,
            clock: Arc::new(SystemClock),
            registry: prometheus::Registry::new(),
        }
    }
}

/// A dispatcher that cannot start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The timeouts do not fit together.
    #[error(transparent)]
    Timing(#[from] TimingError),
    /// The store does not answer.
    #[error("dispatcher cannot read the queue states: {0}")]
    Storage(#[from] StorageError),
    /// The store took too long.
    #[error("dispatcher got no queue states from the store within {0:?}; is it up?")]
    Timeout(Duration),
    /// The metrics cannot be set up.
    #[error("dispatcher cannot set up its metrics: {0}")]
    Metrics(#[from] prometheus::Error),
    /// The client that pings the maintainer cannot be set up.
    #[error("dispatcher cannot set up the ping of the maintainer: {0}")]
    Ping(String),
}

/// An operator's call that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdminError {
    /// There is no such queue.
    #[error("queue `{0}` is unknown to the dispatcher")]
    UnknownQueue(QueueName),
    /// The query asks for something that does not exist.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// The dispatcher or its store cannot be reached; try again.
    #[error("dispatcher is away: {0}")]
    Unavailable(String),
    /// The request was refused as wrong.
    #[error("dispatcher refused the request: {0}")]
    Refused(String),
}

impl From<LeaseError> for AdminError {
    fn from(e: LeaseError) -> Self {
        match e {
            LeaseError::UnknownQueue(queue) => Self::UnknownQueue(queue),
            LeaseError::Unavailable(cause) => Self::Unavailable(cause),
            other => Self::Refused(other.to_string()),
        }
    }
}

pub(crate) struct Shared {
    pub(crate) name: String,
    pub(crate) timing: Timing,
    pub(crate) core: Mutex<Core>,
    /// Wakes a committer.
    pub(crate) work: Notify,
    /// Wakes the keeper of timers.
    pub(crate) timers: Notify,
    pub(crate) queues: Arc<dyn QueueStates>,
    pub(crate) settings: Arc<dyn Settings>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    pub(crate) registry: prometheus::Registry,
    pub(crate) has_maintainer: bool,
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
        let patience = timing.request_timeout.max(Duration::from_secs(30));
        let changes =
            timeout(patience, store.queues.changes(0)).await.map_err(|_| OpenError::Timeout(patience))??;
        let mut board = Board::new(timing.clone(), options.weights);
        let (now, wall) = (Instant::now(), options.clock.now());
        let mut records = changes.records;
        records.sort_by_key(|r| r.last_delivered);
        for record in records {
            board.apply(record, now, wall);
        }
        if let Some((leases, last)) = board.watched() {
            // Expiry goes by an observer's own clock, so that what an earlier one has watched counts for nothing.
            tracing::info!(leases, within = ?(last - now), "leases found: those whose holders are gone expire within this time from now");
        }
        let (link, has_maintainer) = options.maintainer.ready(timing.ping_timeout)?;
        let shared = Arc::new(Shared {
            name: options.name,
            core: Mutex::new(Core::new(board, options.strategy, timing.clone())),
            work: Notify::new(),
            timers: Notify::new(),
            queues: Arc::clone(&store.queues),
            settings: Arc::clone(&store.settings),
            clock: options.clock,
            metrics: Metrics::new(&options.registry)?,
            registry: options.registry,
            has_maintainer,
            timing,
        });
        metrics::observe(&shared)?;
        background::read_settings(&shared).await?;
        background::ping(&shared, link.as_deref()).await;
        let mut tasks = vec![
            tokio::spawn(background::refresh(Arc::clone(&shared), changes.cursor)),
            tokio::spawn(background::keep_timers(Arc::clone(&shared))),
        ];
        if let Some(link) = link {
            tasks.push(tokio::spawn(background::watch_maintainer(Arc::clone(&shared), link)));
        }
        for _ in 0..options.lanes.max(1) {
            tasks.push(tokio::spawn(background::commit(Arc::clone(&shared))));
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
    /// [`AdminError`] when the queue is unknown or the store away.
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
    /// [`AdminError::Unavailable`] when the store is away.
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
        self.put_setting(background::RUNNING, serde_json::Value::Bool(running)).await?;
        {
            let mut core = self.shared.core.lock();
            core.settings += 1;
            core.set_running(running);
        }
        tracing::info!(running, "dispatcher switched");
        Ok(())
    }

    /// Sets the strategy for every dispatcher of the store; survives restarts. No lease is touched.
    ///
    /// # Errors
    /// As [`Self::stop`].
    pub async fn set_strategy(&self, strategy: StrategyName) -> Result<(), AdminError> {
        self.put_setting(background::STRATEGY, strategy.as_str().into()).await?;
        {
            let mut core = self.shared.core.lock();
            core.settings += 1;
            core.configured = strategy;
            core.settle_strategy(Instant::now());
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
        let core = self.shared.core.lock();
        DispatcherView {
            running: core.running,
            strategy: core.board.in_force(),
            configured: core.configured,
            maintainer: match (self.shared.has_maintainer, core.maintained) {
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
        let core = self.shared.core.lock();
        let (total, queues) = selection.page(&core.board, Instant::now());
        let (counts, backlog) = (status::counts(&core.board), status::backlog(&core.board));
        Ok(StatusPage { dispatcher, total, counts, backlog, queues })
    }

    /// One queue.
    ///
    /// # Errors
    /// [`AdminError`] when it is unknown or the store away.
    pub async fn queue(&self, queue: &QueueName) -> Result<QueueView, AdminError> {
        self.know(queue, None).await?;
        self.view_of(queue)
    }

    fn view_of(&self, queue: &QueueName) -> Result<QueueView, AdminError> {
        let core = self.shared.core.lock();
        let slot = core.board.slot(queue).ok_or_else(|| AdminError::UnknownQueue(queue.clone()))?;
        Ok(QueueView::of(core.board.entry(slot), Instant::now()))
    }

    /// Says that messages have just reached these queues. Returns how many of them are known; a lost hint costs only the
    /// wait until the next count.
    pub fn hint(&self, queues: &[QueueName]) -> usize {
        let known = {
            let mut core = self.shared.core.lock();
            let known = core.board.hint(queues, Instant::now());
            core.promote();
            known
        };
        self.shared.work.notify_one();
        known
    }

    /// Whether calls can be served: the store answered when it was last asked.
    pub fn is_ready(&self) -> bool {
        let core = self.shared.core.lock();
        core.store_answers && !core.closing
    }

    /// Looks at all of the store now: sees at once what other processes changed, removals included.
    ///
    /// # Errors
    /// [`AdminError::Unavailable`] when the store is away.
    pub async fn refresh(&self) -> Result<(), AdminError> {
        match timeout(self.shared.timing.store_timeout, background::look_at_all(&self.shared)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(e)) => Err(AdminError::Unavailable(e.to_string())),
            Err(_) => Err(AdminError::Unavailable("the store did not answer in time".to_owned())),
        }
    }

    /// Takes no more calls, answers those who wait, and returns when all writes under way are durable, at the latest
    /// after the request timeout.
    pub async fn shutdown(&self) {
        {
            let mut core = self.shared.core.lock();
            core.closing = true;
            core.dismiss();
        }
        let deadline = Instant::now() + self.shared.timing.request_timeout;
        let mut settled = tokio::time::interval(Duration::from_millis(2));
        while Instant::now() < deadline && self.shared.core.lock().busy() {
            self.shared.work.notify_one();
            settled.tick().await;
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
        // Another dispatcher may just have done the opposite: what is wanted is judged against the store, not against what
        // this one last saw of it.
        self.look(queue).await?;
        self.act(queue, event, Some(Cow::Owned(actor.to_owned()))).await?;
        self.view_of(queue)
    }

    async fn act(
        &self,
        queue: &QueueName,
        event: QueueEvent,
        actor: Option<Cow<'static, str>>,
    ) -> Result<QueueRecord, LeaseError> {
        let epoch = match event {
            QueueEvent::Renew { epoch } | QueueEvent::Release { epoch, .. } => Some(epoch),
            _ => None,
        };
        self.know(queue, epoch).await?;
        let (reply, answer) = oneshot::channel();
        let op = ActOp { queue: queue.clone(), event, actor, attempts: 0, reply: Some(reply) };
        self.push(|_| Op::Act(op))?;
        match timeout(self.shared.timing.request_timeout, answer).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(LeaseError::Unavailable("it shuts down".to_owned())),
            Err(_) => Err(LeaseError::Unavailable("the store did not answer in time".to_owned())),
        }
    }

    fn push(&self, op: impl FnOnce(&mut Core) -> Op) -> Result<(), LeaseError> {
        {
            let mut core = self.shared.core.lock();
            if core.closing {
                return Err(LeaseError::Unavailable("it shuts down".to_owned()));
            }
            if core.backlog().0 >= MAX_PENDING {
                return Err(LeaseError::Unavailable(format!("{MAX_PENDING} calls are queued already")));
            }
            let op = op(&mut core);
            core.push(op);
        }
        self.shared.work.notify_one();
        Ok(())
    }

    /// Makes sure that the board knows the queue, and this epoch of it: another process may have made either just now.
    async fn know(&self, queue: &QueueName, epoch: Option<u64>) -> Result<(), LeaseError> {
        {
            let core = self.shared.core.lock();
            if let Some(slot) = core.board.slot(queue)
                && epoch.is_none_or(|e| e <= core.board.entry(slot).record.epoch)
            {
                return Ok(());
            }
        }
        self.look(queue).await
    }

    /// Reads the queue's record from the store.
    async fn look(&self, queue: &QueueName) -> Result<(), LeaseError> {
        match timeout(self.shared.timing.store_timeout, self.shared.queues.get(queue)).await {
            Ok(Ok(Some(record))) => {
                background::take(&self.shared, vec![record], &[]);
                Ok(())
            }
            Ok(Ok(None)) => Err(LeaseError::UnknownQueue(queue.clone())),
            Ok(Err(e)) => Err(LeaseError::Unavailable(e.to_string())),
            Err(_) => Err(LeaseError::Unavailable("the store did not answer in time".to_owned())),
        }
    }
}

#[async_trait]
impl Leases for Dispatcher {
    async fn next(&self, request: NextRequest) -> Result<Vec<GrantedLease>, LeaseError> {
        let timing = &self.shared.timing;
        let asked = Instant::now();
        for release in &request.release {
            // Stale or unknown releases are ignored here; a store that is away shows in the lease itself.
            drop(self.know(&release.queue, Some(release.epoch)).await);
        }
        let wait = request.wait.min(timing.max_wait);
        let wait_until = (!wait.is_zero()).then(|| asked + wait);
        let (reply, answer) = oneshot::channel();
        let mut id = 0;
        self.push(|core| {
            id = core.new_id();
            Op::Next(NextOp {
                id,
                consumer: request.consumer,
                count: request.count.clamp(1, MAX_COUNT),
                release: request.release,
                wait_until,
                attempts: 0,
                released: false,
                looks: 0,
                reply,
            })
        })?;
        let mut call = Call { shared: Arc::clone(&self.shared), id, answer };
        if let Some(until) = wait_until {
            if let Ok(answer) = tokio::time::timeout_at(until, &mut call.answer).await {
                return self.answered(answer, asked);
            }
            if self.shared.core.lock().withdraw(id) {
                return Ok(Vec::new());
            }
        }
        match timeout(timing.request_timeout, &mut call.answer).await {
            Ok(answer) => self.answered(answer, asked),
            Err(_) => Err(LeaseError::Unavailable("the store did not answer in time".to_owned())),
        }
    }

    async fn renew(&self, queue: &QueueName, epoch: u64) -> Result<Renewed, LeaseError> {
        let record = self.act(queue, QueueEvent::Renew { epoch }, None).await?;
        let lease_ms = record.lease.map_or_else(|| self.shared.timing.lease_ms(), |l| l.lease_ms);
        let revoked = record.state != galerna_storage::QueueState::Leased;
        Ok(Renewed { expires_in_ms: lease_ms, revoked })
    }

    async fn release(&self, release: &Release) -> Result<(), LeaseError> {
        let event = QueueEvent::Release { epoch: release.epoch, empty: release.empty };
        self.act(&release.queue, event, None).await.map(drop)
    }
}

impl Dispatcher {
    fn answered(
        &self,
        answer: Result<Result<Vec<GrantedLease>, LeaseError>, oneshot::error::RecvError>,
        asked: Instant,
    ) -> Result<Vec<GrantedLease>, LeaseError> {
        let leases = answer.unwrap_or_else(|_| Err(LeaseError::Unavailable("it shuts down".to_owned())))?;
        if !leases.is_empty() {
            self.shared.metrics.next_seconds.observe(asked.elapsed().as_secs_f64());
        }
        Ok(leases)
    }
}

/// A call of `next` under way. When it is dropped (the caller hung up), leases that were meant for it are given back.
struct Call {
    shared: Arc<Shared>,
    id: u64,
    answer: oneshot::Receiver<Result<Vec<GrantedLease>, LeaseError>>,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.answer.close();
        let unseen = self.answer.try_recv();
        let mut core = self.shared.core.lock();
        core.withdraw(self.id);
        if let Ok(Ok(leases)) = unseen {
            core.give_back(leases);
            drop(core);
            self.shared.work.notify_one();
        }
    }
}
