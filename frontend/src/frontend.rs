//! The frontend: what calls do, and what runs beside them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use galerna_broker::{Broker, BrokerHealth};
use galerna_http::{Guard, ServeOptions, Unready};
use galerna_lock::Mutex;
use galerna_model::Clock;
use galerna_retry::{Outage, Pauses};
use prometheus::Registry;
use serde::Serialize;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use utoipa::ToSchema;

use crate::FORGET_IDLE_EVERY;
use crate::admission::Admission;
use crate::budget::{Budget, Quota};
use crate::hints::{Hints, QueueHints};
use crate::metrics::{self, Metrics};
use crate::options::{Limits, Options, OptionsError};
use crate::service;
use crate::sources::{Belief, Directory, RefreshError, Refreshed, Sources};
use crate::statistics::Statistics;
use crate::trace_context::new_id;
use galerna_storage::{StatisticsStore, StorageError};

mod publishing;

/// What a frontend works with.
pub struct Parts {
    /// Where readings go.
    pub broker: Arc<dyn Broker>,
    /// Where the lists of accounts and sources come from.
    pub directory: Directory,
    /// Who is told that a queue has got messages: a dispatcher, or nobody.
    pub hints: Option<Arc<dyn QueueHints>>,
    /// Where statistics are kept.
    pub statistics: Arc<dyn StatisticsStore>,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Where its metrics are registered: that of the process. There may be one frontend in it.
    pub registry: Registry,
}

/// A frontend that cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Settings contradict each other.
    #[error(transparent)]
    Options(#[from] OptionsError),
    /// Metrics could not be set up.
    #[error("metrics of the frontend cannot be set up: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Takes readings. Clones are the same frontend; what runs in the background ends with the last of them.
#[derive(Clone)]
pub struct Frontend {
    core: Arc<Core>,
    _background: Arc<DropGuard>,
}

/// Whether a frontend is worth sending calls to, and what it is like.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Readiness {
    /// Whether it is.
    pub ready: bool,
    /// It is shutting down.
    pub draining: bool,
    /// What the broker last said, when it was not well.
    pub broker_problem: Option<String>,
    /// Sources known; none while there is no list.
    pub sources: Option<usize>,
    /// Age of the list in milliseconds.
    pub sources_age_ms: Option<i64>,
    /// Why the last refresh of the list was not taken. It alone makes no frontend unready: it works with the list it has.
    pub sources_problem: Option<String>,
}

pub(crate) struct Core {
    broker: Arc<dyn Broker>,
    broker_health: Mutex<BrokerHealth>,
    pub(crate) sources: Sources,
    pub(crate) admission: Admission,
    pub(crate) budget: Budget,
    /// For bodies of callers who are not known before their body is read.
    pub(crate) unauthenticated_budget: Budget,
    hints: Hints,
    pub(crate) statistics: Statistics,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) registry: Registry,
    clock: Arc<dyn Clock>,
    pub(crate) options: Options,
    /// How it listens.
    pub(crate) listen: ServeOptions,
    /// Who may see what customers sent.
    pub(crate) operators: Guard,
    draining: AtomicBool,
    /// Publishes go on when their caller hangs up: what is half published is not taken back, and their counts must be right.
    publishing: TaskTracker,
    background: TaskTracker,
    stop: CancellationToken,
}

/// How often the broker is asked whether it is there, and how long it may take to answer.
const PING_EVERY: Duration = Duration::from_secs(2);
const PING_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two attempts to write statistics that fail.
const LONGEST_FLUSH_PAUSE: Duration = Duration::from_secs(60);
/// For asking, after a failed publish, whether the queue is there.
const DEPTH_TIMEOUT: Duration = Duration::from_secs(2);
/// Bytes of all bodies together whose senders are not known yet: whoever they are, they cannot keep known sources out.
const UNAUTHENTICATED_BYTES: usize = 32 << 20;
/// Longest body of a caller who names the source only in the body.
pub(crate) const UNAUTHENTICATED_BODY: usize = 512 << 10;
/// Values of one envelope: with what a value takes at most, far below the longest message that consumers read.
const ENVELOPE_VALUES: usize = 50_000;

impl Frontend {
    /// Opens a frontend: reads the copy of the sources on disk and the first list; starts what runs in the background.
    ///
    /// A list that cannot be read is no error: calls get 503 until there is one.
    ///
    /// # Errors
    /// [`OpenError`] when settings contradict each other.
    pub async fn open(parts: Parts, mut options: Options) -> Result<Self, OpenError> {
        options.check()?;
        let listen = service::serve_options(&options);
        options.limits.connections = listen.connections;
        let Parts { broker, directory, hints, statistics, clock, registry } = parts;
        let stop = CancellationToken::new();
        let metrics = Arc::new(Metrics::new(&registry)?);
        let writer = new_id(clock.now(), None);
        let core = Arc::new(Core {
            broker,
            broker_health: Mutex::new(BrokerHealth::Ready),
            sources: Sources::open(directory, options.sources.clone(), Arc::clone(&clock)).await,
            admission: Admission::new(&options.limits),
            budget: budget(&options.limits, options.limits.bytes_in_flight, usize::MAX),
            unauthenticated_budget: budget(&options.limits, UNAUTHENTICATED_BYTES, UNAUTHENTICATED_BODY),
            hints: Hints::start(hints, Arc::clone(&metrics), stop.clone()),
            statistics: Statistics::new(statistics, Arc::clone(&clock), options.statistics.clone(), writer),
            metrics,
            registry,
            clock,
            operators: Guard::new(options.operator_token.as_deref()),
            listen,
            options,
            draining: AtomicBool::new(false),
            publishing: TaskTracker::new(),
            background: TaskTracker::new(),
            stop: stop.clone(),
        });
        metrics::observe(&core, &core.registry)?;
        // Its failure is in the log and in the readiness.
        drop(core.refresh(Belief::Guarded).await);
        core.check_broker().await;
        core.start(refresh_sources_repeatedly);
        core.start(watch_broker);
        core.start(flush_statistics_repeatedly);
        core.start(forget_idle_sources);
        Ok(Self { core, _background: Arc::new(stop.drop_guard()) })
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// Reads the lists of accounts and sources now. With `force` a list that lost much is believed.
    ///
    /// # Errors
    /// [`RefreshError`]; the list that was there stays in force.
    pub async fn refresh_sources(&self, force: bool) -> Result<Refreshed, RefreshError> {
        self.core.refresh(if force { Belief::Forced } else { Belief::Guarded }).await
    }

    /// Reads the lists now and takes them whatever they have lost: for whoever has just changed them.
    ///
    /// # Errors
    /// [`RefreshError`] when they cannot be read; the list that was there stays in force.
    pub async fn take_changed_sources(&self) -> Result<Refreshed, RefreshError> {
        self.core.refresh(Belief::Changed).await
    }

    /// What has been sent, by whom.
    pub fn statistics(&self) -> &Statistics {
        &self.core.statistics
    }

    /// Whether it is worth sending calls to.
    pub fn readiness(&self) -> Readiness {
        self.core.readiness().0
    }

    /// Where its metrics are.
    pub fn registry(&self) -> &Registry {
        &self.core.registry
    }

    /// Says 503 at `/readyz` from now on.
    pub fn begin_drain(&self) {
        self.core.draining.store(true, Ordering::SeqCst);
    }

    /// Waits for publishes under way, stops what runs in the background and writes the statistics.
    pub async fn finish_drain(&self) {
        self.begin_drain();
        self.core.publishing.close();
        if timeout(self.core.options.timeouts.publish, self.core.publishing.wait()).await.is_err() {
            tracing::warn!("some publishes did not end in time; nobody was told that they were safe");
        }
        self.core.stop.cancel();
        self.core.background.close();
        if timeout(Duration::from_secs(5), self.core.background.wait()).await.is_err() {
            tracing::warn!("a background task did not end in time");
        }
        if let Err(e) = self.core.flush_statistics().await {
            tracing::error!(error = %e, "the last statistics were not written");
        }
    }
}

impl Core {
    fn start<F: Future<Output = ()> + Send + 'static>(self: &Arc<Self>, task: impl FnOnce(Arc<Self>) -> F) {
        let (stop, task) = (self.stop.clone(), task(Arc::clone(self)));
        self.background.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = task => {}
            }
        });
    }

    pub(crate) async fn refresh(&self, belief: Belief) -> Result<Refreshed, RefreshError> {
        let result = self.sources.refresh(belief).await;
        let word = result.as_ref().map_or_else(|e| e.code(), |_| "ok");
        self.metrics.refreshes.with_label_values(&[word]).inc();
        result
    }

    async fn check_broker(&self) {
        let health = timeout(PING_TIMEOUT, async {
            match self.broker.ping().await {
                Ok(()) => self.broker.health().await,
                Err(e) => BrokerHealth::Unavailable { reason: e.to_string() },
            }
        });
        let late = || BrokerHealth::Unavailable { reason: format!("no answer within {PING_TIMEOUT:?}") };
        self.set_broker_health(health.await.unwrap_or_else(|_| late()));
    }

    fn set_broker_health(&self, health: BrokerHealth) {
        let before = std::mem::replace(&mut *self.broker_health.lock(), health.clone());
        let kind = std::mem::discriminant::<BrokerHealth>;
        if kind(&before) == kind(&health) {
            return;
        }
        match health.problem() {
            Some(_) => tracing::warn!("not ready for calls: {health}"),
            None => tracing::info!("{health} again"),
        }
    }

    async fn flush_statistics(&self) -> Result<(), StorageError> {
        let flushed = self.statistics.flush().await;
        let result = if flushed.is_ok() { "ok" } else { "failed" };
        self.metrics.flushes.with_label_values(&[result]).inc();
        flushed
    }

    /// Whether calls are to be sent here, and why not.
    pub(crate) fn readiness(&self) -> (Readiness, Option<Unready>) {
        let state = self.sources.state();
        let draining = self.draining.load(Ordering::SeqCst);
        let health = self.broker_health.lock().clone();
        let unready = if draining {
            Some(Unready::new("draining", "this frontend shuts down; send calls to another"))
        } else if let Some(code) = match health {
            BrokerHealth::Ready => None,
            BrokerHealth::Blocked { .. } => Some("broker_blocked"),
            BrokerHealth::Unavailable { .. } => Some("broker_away"),
        } {
            Some(Unready::new(code, health.to_string()))
        } else {
            let unknown = "no list of sources has been read yet; see `sources_problem`";
            state.is_none().then(|| Unready::new("sources_unknown", unknown))
        };
        let readiness = Readiness {
            ready: unready.is_none(),
            draining,
            broker_problem: health.problem().map(str::to_owned),
            sources: state.map(|(sources, _)| sources),
            sources_age_ms: state.map(|(_, age)| age),
            sources_problem: self.sources.problem().map(|(_, sentence)| sentence),
        };
        (readiness, unready)
    }

    /// Sets the gauges that are looked at when they are read.
    pub(crate) fn set_gauges(&self) {
        let gauge = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let metrics = &self.metrics;
        metrics.readings_under_way.set(gauge(self.admission.under_way()));
        metrics.bytes_under_way.set(gauge(self.budget.held()));
        let state = self.sources.state();
        metrics.sources.set(state.map_or(0, |(sources, _)| gauge(sources)));
        metrics.sources_age.set(state.map_or(-1.0, |(_, age)| age as f64 / 1_000.0));
        let suspicious = self.sources.problem().is_some_and(|(code, _)| code == "suspicious");
        metrics.sources_suspicious.set(i64::from(suspicious));
        metrics.ready.set(i64::from(self.readiness().0.ready));
    }

    /// A new request's id, which carries on the trace of the caller's `traceparent`.
    pub(crate) fn new_id(&self, traceparent: Option<&str>) -> String {
        new_id(self.clock.now(), traceparent)
    }
}

/// So many bytes, at most those of all calls, for bodies that are no longer than so many, and the share that each client has of them.
fn budget(limits: &Limits, bytes: usize, longest: usize) -> Budget {
    let bytes = bytes.min(limits.bytes_in_flight);
    let longest = limits.body_bytes.min(longest);
    let each = Quota {
        bytes: limits.share_of_one(bytes).max(2 * longest),
        calls: limits.share_of_one(limits.connections).max(1),
    };
    Budget::new(bytes, each)
}

async fn refresh_sources_repeatedly(core: Arc<Core>) {
    let (every, soonest) = (core.options.sources.every, core.options.sources.soonest);
    loop {
        let wait = if core.sources.state().is_some() { every } else { soonest.min(every) };
        let last = Instant::now();
        tokio::select! {
            () = sleep(wait) => {}
            () = core.sources.missed.notified() => sleep(soonest.saturating_sub(last.elapsed())).await,
        }
        // Its failure is in the log and in the readiness.
        drop(core.refresh(Belief::Guarded).await);
    }
}

async fn watch_broker(core: Arc<Core>) {
    loop {
        sleep(PING_EVERY).await;
        core.check_broker().await;
    }
}

async fn flush_statistics_repeatedly(core: Arc<Core>) {
    let every = core.options.statistics.flush_every;
    // What is not written is kept and tried again.
    let mut outage =
        Outage::new("writing the statistics", Pauses::new(every, every.max(LONGEST_FLUSH_PAUSE)));
    let mut wait = every;
    loop {
        sleep(wait).await;
        wait = match core.flush_statistics().await {
            Ok(()) => {
                outage.succeeded();
                every
            }
            Err(e) => outage.failed(&e),
        };
    }
}

async fn forget_idle_sources(core: Arc<Core>) {
    loop {
        sleep(FORGET_IDLE_EVERY).await;
        core.admission.forget_idle();
    }
}
