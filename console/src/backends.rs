//! What the page asks of the rest of the system, by traits with a form in this process and one over HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use galerna_dispatcher::{
    AdminError, Dispatcher, DispatcherClient, QueueView, StatusPage, StatusQuery, StrategyName, Transitions,
};
use galerna_model::{QueueName, Timestamp};
use galerna_telemetry::{Peers, RemoteHistory, Step, TelemetryError};
use serde::Deserialize;
use serde_json::Value;

/// Who is named as actor where the dispatcher logs one.
fn actor(who: &str) -> String {
    if who.is_empty() { "page".to_owned() } else { format!("page: {who}") }
}

/// A dispatcher, here or elsewhere.
#[async_trait]
pub trait DispatcherAdmin: Send + Sync {
    /// A page of queues.
    async fn status(&self, query: &StatusQuery) -> Result<StatusPage, AdminError>;
    /// One queue.
    async fn queue(&self, queue: &QueueName) -> Result<QueueView, AdminError>;
    /// What happened to a queue lately.
    async fn transitions(&self, queue: &QueueName) -> Result<Transitions, AdminError>;
    /// Blocks a queue.
    async fn pause(&self, queue: &QueueName, reason: Option<String>, who: &str) -> Result<(), AdminError>;
    /// Unblocks a queue.
    async fn unpause(&self, queue: &QueueName, who: &str) -> Result<(), AdminError>;
    /// Gives leases again, or no more.
    async fn set_running(&self, running: bool) -> Result<(), AdminError>;
    /// Sets the strategy.
    async fn set_strategy(&self, strategy: StrategyName) -> Result<(), AdminError>;
}

#[async_trait]
impl DispatcherAdmin for Dispatcher {
    async fn status(&self, query: &StatusQuery) -> Result<StatusPage, AdminError> {
        Dispatcher::status(self, query)
    }

    async fn queue(&self, queue: &QueueName) -> Result<QueueView, AdminError> {
        Dispatcher::queue(self, queue).await
    }

    async fn transitions(&self, queue: &QueueName) -> Result<Transitions, AdminError> {
        Dispatcher::transitions(self, queue).await
    }

    async fn pause(&self, queue: &QueueName, reason: Option<String>, who: &str) -> Result<(), AdminError> {
        Dispatcher::pause(self, queue, reason, &actor(who)).await.map(drop)
    }

    async fn unpause(&self, queue: &QueueName, who: &str) -> Result<(), AdminError> {
        Dispatcher::unpause(self, queue, &actor(who)).await.map(drop)
    }

    async fn set_running(&self, running: bool) -> Result<(), AdminError> {
        if running { self.start().await } else { self.stop().await }
    }

    async fn set_strategy(&self, strategy: StrategyName) -> Result<(), AdminError> {
        Dispatcher::set_strategy(self, strategy).await
    }
}

/// The dispatcher's API names no actor: its log then says `operator api`, the audit log of the page who it was.
#[async_trait]
impl DispatcherAdmin for DispatcherClient {
    async fn status(&self, query: &StatusQuery) -> Result<StatusPage, AdminError> {
        DispatcherClient::status(self, query).await
    }

    async fn queue(&self, queue: &QueueName) -> Result<QueueView, AdminError> {
        DispatcherClient::queue(self, queue).await
    }

    async fn transitions(&self, queue: &QueueName) -> Result<Transitions, AdminError> {
        DispatcherClient::transitions(self, queue).await
    }

    async fn pause(&self, queue: &QueueName, reason: Option<String>, _: &str) -> Result<(), AdminError> {
        DispatcherClient::pause(self, queue, reason).await.map(drop)
    }

    async fn unpause(&self, queue: &QueueName, _: &str) -> Result<(), AdminError> {
        DispatcherClient::unpause(self, queue).await.map(drop)
    }

    async fn set_running(&self, running: bool) -> Result<(), AdminError> {
        if running { self.start().await } else { self.stop().await }
    }

    async fn set_strategy(&self, strategy: StrategyName) -> Result<(), AdminError> {
        DispatcherClient::set_strategy(self, strategy).await
    }
}

/// Changes of who may post, made on the page.
#[async_trait]
pub trait SourceChanges: Send + Sync {
    /// Has a change that is stored take effect here; `new_account` says that an account was made with it. What fails is told in the log,
    /// and takes effect with the next refresh.
    async fn take(&self, new_account: bool);
}

/// Frontends elsewhere take changes within `frontend.sources_every`.
pub struct TakenElsewhere;

#[async_trait]
impl SourceChanges for TakenElsewhere {
    async fn take(&self, _: bool) {}
}

/// What one component has done, as `/workers` tells it (see `galerna_engine::ComponentMetrics`).
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct ComponentReport {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) executors: usize,
    pub(crate) fused_with: Option<String>,
    pub(crate) emitted: u64,
    pub(crate) executed: u64,
    pub(crate) acked: u64,
    pub(crate) failed: BTreeMap<String, u64>,
    pub(crate) execute: LatencyReport,
    pub(crate) process: LatencyReport,
    pub(crate) complete: LatencyReport,
    pub(crate) queued: usize,
    pub(crate) pending: u64,
    pub(crate) busy: f64,
    pub(crate) states: Vec<Value>,
    pub(crate) errors: u64,
    pub(crate) restarts: u64,
    pub(crate) last_error: Option<ErrorReport>,
}

/// A latency of a component, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct LatencyReport {
    pub(crate) count: u64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
    pub(crate) max_ms: f64,
}

/// The last error of a component; its time is that of the topology's own clock.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ErrorReport {
    pub(crate) reason: String,
    pub(crate) at_ms: u64,
}

/// What one topology has done since it was submitted.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct WorkerReport {
    /// The name under which it holds leases.
    pub(crate) consumer: String,
    /// The process that it runs in.
    #[serde(skip)]
    pub(crate) process: Option<Arc<ProcessReport>>,
    pub(crate) topology: String,
    pub(crate) uptime_ms: u64,
    pub(crate) components: Vec<ComponentReport>,
}

/// What a process takes of its machine.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct ProcessReport {
    pub(crate) host: String,
    pub(crate) pid: u32,
    pub(crate) version: String,
    pub(crate) memory_bytes: f64,
    pub(crate) cpu_seconds: f64,
    pub(crate) threads: f64,
    pub(crate) open_files: f64,
    pub(crate) most_files: f64,
    pub(crate) started_seconds: f64,
}

impl ProcessReport {
    /// Tells processes apart.
    pub(crate) fn name(&self) -> String {
        format!("{} ({})", self.host, self.pid)
    }
}

/// What the workers tell.
#[derive(Debug, Clone, Default)]
pub struct WorkerReports {
    /// Of each topology that runs where one answers.
    pub reports: Vec<WorkerReport>,
    /// Who does not answer, and why.
    pub unresponsive: Vec<String>,
    /// Nobody could be asked: there are no workers here, and none elsewhere are named.
    pub none_configured: bool,
}

impl WorkerReports {
    /// What one process tells, as `GET /workers` answers.
    ///
    /// # Errors
    /// When it is not understood.
    pub fn of_one(told: Value) -> serde_json::Result<Self> {
        Ok(Self { reports: Reports::deserialize(told)?.into_reports().collect(), ..Self::default() })
    }
}

/// The metrics of every topology that runs.
#[async_trait]
pub trait WorkersView: Send + Sync {
    /// What each has done.
    async fn reports(&self) -> WorkerReports;
}

/// Workers elsewhere: `GET <url>/workers` of each.
pub struct RemoteWorkers {
    peers: Peers,
}

/// How long a worker may take to tell what it does: with the look-up of its name less than a look waits.
pub(crate) const WORKER_TIMEOUT: Duration = Duration::from_secs(2);
/// For so long a worker that did not answer is not asked again: it would hold up every look at the others.
pub(crate) const RETRY_AFTER: Duration = Duration::from_secs(10);

#[derive(Deserialize)]
struct Reports {
    workers: Vec<WorkerReport>,
    /// Those of older versions do not tell.
    process: Option<ProcessReport>,
}

impl Reports {
    fn into_reports(self) -> impl Iterator<Item = WorkerReport> {
        let process = self.process.map(Arc::new);
        self.workers.into_iter().map(move |report| WorkerReport { process: process.clone(), ..report })
    }
}

impl RemoteWorkers {
    /// The workers whose APIs are at these base URLs, which may each stand for several, and take this token.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(urls: Vec<String>, token: Option<String>) -> Result<Self, TelemetryError> {
        Ok(Self { peers: Peers::new(urls, token, WORKER_TIMEOUT, RETRY_AFTER)? })
    }
}

#[async_trait]
impl WorkersView for RemoteWorkers {
    async fn reports(&self) -> WorkerReports {
        let mut all =
            WorkerReports { none_configured: self.peers.urls().is_empty(), ..WorkerReports::default() };
        for answer in self.peers.get::<Reports>("workers").await {
            match answer {
                // A module without topologies has nothing to tell.
                Ok(told) => all.reports.extend(told.into_iter().flat_map(Reports::into_reports)),
                Err(e) => all.unresponsive.push(e.to_string()),
            }
        }
        all
    }
}

/// A step in the history of a message.
#[derive(Debug, Clone)]
pub struct HistoryStep {
    /// When.
    pub at: Timestamp,
    /// Where: frontend, broker, a component, the store, the notifier.
    pub place: String,
    /// What happened there.
    pub what: String,
}

/// Finds the history of a message.
#[async_trait]
pub trait MessageHistory: Send + Sync {
    /// Its steps in order; empty when nothing is known of it.
    ///
    /// # Errors
    /// Why nothing can be told.
    async fn trace(&self, message: &str) -> Result<Vec<HistoryStep>, HistoryError>;
}

/// Why nothing can be told of a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HistoryError {
    /// This process records nothing.
    #[error("the history of messages is not kept: `trace.messages` is 0")]
    NotKept,
    /// There is nobody to ask.
    #[error("nobody is known who could tell: name workers, notifiers and frontends in `page.workers`")]
    NobodyKnown,
    /// Nobody answers; why each does not.
    #[error("{}", .0.join("; "))]
    Unanswered(Vec<String>),
}

/// What this process has recorded, for its page.
pub struct LocalHistory;

fn for_the_page(steps: Vec<Step>, whole: &str) -> Vec<HistoryStep> {
    let shown = steps.into_iter().map(|Step { at, place, what, message }| {
        // Asked for a call, the page tells its messages apart.
        let of = message.strip_prefix(whole).filter(|rest| !rest.is_empty());
        let what = of.map_or_else(|| what.clone(), |rest| format!("{what} ({rest})"));
        HistoryStep { at, place, what }
    });
    shown.collect()
}

#[async_trait]
impl MessageHistory for LocalHistory {
    async fn trace(&self, message: &str) -> Result<Vec<HistoryStep>, HistoryError> {
        if !galerna_telemetry::is_recording() {
            return Err(HistoryError::NotKept);
        }
        Ok(for_the_page(galerna_telemetry::history(message), message))
    }
}

#[async_trait]
impl MessageHistory for RemoteHistory {
    async fn trace(&self, message: &str) -> Result<Vec<HistoryStep>, HistoryError> {
        if self.urls().is_empty() {
            return Err(HistoryError::NobodyKnown);
        }
        let (steps, problems) = self.ask(message).await;
        if steps.is_empty() && !problems.is_empty() {
            return Err(HistoryError::Unanswered(problems));
        }
        Ok(for_the_page(steps, message))
    }
}
