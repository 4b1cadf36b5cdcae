//! The maintainer: runs the tasks in time, one run of each at once, and remembers how they went.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use galerna_broker::Broker;
use galerna_lock::Mutex;
use galerna_model::{Clock, Timestamp};
use galerna_storage::QueueStates;
use prometheus::Registry;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use galerna_retry::{Outage, Pauses};

use crate::metrics::{self, Metrics};
use crate::status::{History, Status};
use crate::task::{
    Options, OptionsError, Report, Run, RunFailure, Schedule, Task, TaskBehind, TaskError, TasksBehind,
    WhyBehind,
};
use crate::work::{Progress, Work};
use galerna_directory::{AccountsSource, Issue};

/// The pause after a run that failed; it doubles with each further one, up to the task's interval.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// How long runs that are going on may go on after shutdown was asked for. Cutting them off is safe, but may leave
/// work to the next maintainer.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// Keeps queue states true to the world. Clones are the same maintainer.
///
/// Any number of maintainers may work on one store and one broker: all their writes are guarded.
#[derive(Clone)]
pub struct Maintainer {
    shared: Arc<Shared>,
}

pub(crate) struct Shared {
    work: Work,
    started_at: Timestamp,
    tasks: [TaskState; Task::ALL.len()],
    pub(crate) metrics: Metrics,
    registry: Registry,
}

#[derive(Default)]
struct TaskState {
    running: AtomicBool,
    history: History,
    /// The issues that were logged last: they are logged again only when they change.
    logged_issues: Mutex<Vec<Issue>>,
}

/// The right to run a task: there is one for each.
struct RunPermit {
    shared: Arc<Shared>,
    task: Task,
}

impl RunPermit {
    fn take(shared: &Arc<Shared>, task: Task) -> Option<Self> {
        let running = &shared.state(task).running;
        running
            .compare_exchange(false, true, Ordering::AcqRel, Ordering::Acquire)
            .is_ok()
            .then(|| Self { shared: Arc::clone(shared), task })
    }
}

impl Drop for RunPermit {
    fn drop(&mut self) {
        self.shared.state(self.task).running.store(false, Ordering::Release);
    }
}

impl Shared {
    fn state(&self, task: Task) -> &TaskState {
        &self.tasks[task as usize]
    }

    fn schedule(&self, task: Task) -> Schedule {
        self.work.options.schedule(task)
    }

    pub(crate) fn is_on_time(&self, task: Task) -> bool {
        self.state(task).history.on_time(task, self.schedule(task))
    }
}

impl Maintainer {
    /// A maintainer that does nothing yet: see [`Self::spawn`] and [`Self::run_once`]. Its metrics are in a registry of its own.
    ///
    /// # Errors
    /// When an option is out of its range.
    pub fn new(
        queues: Arc<dyn QueueStates>,
        broker: Arc<dyn Broker>,
        accounts: Arc<dyn AccountsSource>,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OptionsError> {
        Self::in_registry(Registry::new(), queues, broker, accounts, options, clock)
    }

    /// As [`Self::new`], with its metrics in the registry of the process.
    ///
    /// # Errors
    /// As [`Self::new`], or when there is a maintainer in the registry already.
    pub fn in_registry(
        registry: Registry,
        queues: Arc<dyn QueueStates>,
        broker: Arc<dyn Broker>,
        accounts: Arc<dyn AccountsSource>,
        options: Options,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OptionsError> {
        options.check()?;
        let started_at = clock.now();
        let of_metrics = |e: prometheus::Error| OptionsError::metrics(&e);
        let metrics = Metrics::new(&registry, seconds(started_at)).map_err(of_metrics)?;
        let work = Work::new(queues, broker, accounts, options, clock);
        let tasks = Default::default();
        let shared = Arc::new(Shared { work, started_at, tasks, metrics, registry });
        metrics::observe(&shared, &shared.registry).map_err(of_metrics)?;
        Ok(Self { shared })
    }

    /// Runs all tasks, each at once and then at its interval, until `shutdown`; the handle ends when they have stopped.
    ///
    /// Runs that are going on then may go on for some seconds. A run that fails or is stopped by its timeout is tried
    /// again sooner than the interval, with growing waits.
    pub fn spawn(&self, shutdown: CancellationToken) -> JoinHandle<()> {
        let maintainer = self.clone();
        tokio::spawn(async move {
            let keep = |task| maintainer.clone().keep_running(task, shutdown.clone());
            tokio::join!(
                keep(Task::Accounts),
                keep(Task::ReconcileEmpty),
                keep(Task::Timeouts),
                keep(Task::Deletions)
            );
        })
    }

    async fn keep_running(self, task: Task, shutdown: CancellationToken) {
        let every = self.shared.schedule(task).every;
        let mut outage = Outage::new(task.as_str(), Pauses::new(FIRST_PAUSE.min(every), every));
        while !shutdown.is_cancelled() {
            let mut run = std::pin::pin!(self.run(task, Run::default()));
            let result = tokio::select! {
                result = &mut run => result,
                () = shutdown.cancelled() => {
                    // The outcome is counted by the run itself.
                    drop(tokio::time::timeout(SHUTDOWN_GRACE, run).await);
                    return;
                }
            };
            let pause = match result {
                // Somebody asked for a run: it counts for this one.
                Err(RunFailure { error: TaskError::Busy, .. }) => jittered(every),
                Ok(_) => {
                    outage.succeeded();
                    jittered(every)
                }
                Err(failure) => outage.failed(&failure.error),
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    /// Runs a task once, now.
    ///
    /// Cancellation: dropping the future stops the run. What it did so far stays; the next run does the rest.
    ///
    /// # Errors
    /// [`RunFailure`] with what was done before; [`TaskError::Busy`] when a run of this task is going on already.
    pub async fn run_once(&self, task: Task, run: Run) -> Result<Report, RunFailure> {
        let result = self.run(task, run).await;
        if let Err(failure) = &result {
            tracing::warn!(%task, error = %failure.error, "a run that was asked for failed");
        }
        result
    }

    async fn run(&self, task: Task, run: Run) -> Result<Report, RunFailure> {
        let shared = &self.shared;
        let progress = Progress::default();
        let failed =
            |error| RunFailure { task, report: Box::new(std::mem::take(&mut *progress.lock())), error };
        let Some(permit) = RunPermit::take(shared, task) else { return Err(failed(TaskError::Busy)) };

        let started = Instant::now();
        let limit = shared.schedule(task).timeout + run.watch.unwrap_or_default();
        // In a task of its own, so that a panic stops this run only.
        let mut going = AbortOnDropHandle::new(tokio::spawn({
            let (shared, progress) = (Arc::clone(shared), Arc::clone(&progress));
            async move {
                let _permit = permit;
                shared.work.perform(task, run, &progress).await
            }
        }));
        let result = match tokio::time::timeout(limit, &mut going).await {
            Ok(Ok(Ok(()))) => Ok(std::mem::take(&mut *progress.lock())),
            Ok(Ok(Err(error))) => Err(failed(error)),
            Ok(Err(panic)) => Err(failed(TaskError::Panicked(panic.to_string()))),
            Err(_) => {
                // The permit comes back when the run has really ended, so that the next one does not meet it.
                going.abort();
                drop(tokio::time::timeout(SHUTDOWN_GRACE, going).await);
                Err(failed(TaskError::TimedOut(limit)))
            }
        };

        let (took, clock) = (started.elapsed(), &*shared.work.clock);
        self.log(task, took, &result);
        shared.metrics.ran(task, took, seconds(clock.now()), &result);
        shared.state(task).history.ran(took, clock, &result);
        result
    }

    fn log(&self, task: Task, took: Duration, result: &Result<Report, RunFailure>) {
        let report = match result {
            Ok(report) => report,
            Err(failure) => &failure.report,
        };
        let logged =
            std::mem::replace(&mut *self.shared.state(task).logged_issues.lock(), report.issues.clone());
        if logged != report.issues {
            for issue in report.issues.iter().filter(|issue| !logged.contains(issue)) {
                tracing::warn!(%task, %issue, "not served");
            }
            tracing::warn!(%task, total = report.issues_total, "accounts and queues that cannot be served");
        }
        match result {
            Ok(report) => tracing::debug!(%task, ?took, ?report, "ran"),
            Err(failure) => tracing::debug!(%task, ?took, error = %failure.error, "failed"),
        }
    }

    /// How the tasks run.
    ///
    /// A task is on time when it finished a run, well or not, within twice its interval and its timeout; the empties
    /// task only when a run of it ended *well*, since the dispatcher relies on its counts.
    pub fn status(&self) -> Status {
        let shared = &self.shared;
        let tasks = Task::ALL.map(|task| {
            let state = shared.state(task);
            state.history.status(task, shared.schedule(task), state.running.load(Ordering::Acquire))
        });
        Status {
            on_time: tasks.iter().all(|task| task.on_time),
            started_at: shared.started_at,
            accounts_source: shared.work.accounts.describe(),
            tasks: tasks.into(),
        }
    }

    /// Whether all tasks run on time: what a dispatcher's ping asks.
    ///
    /// # Errors
    /// The tasks that do not.
    pub fn check_on_time(&self) -> Result<(), TasksBehind> {
        let late = self.status().tasks.into_iter().filter(|task| !task.on_time);
        TasksBehind::none_of(late.map(|task| TaskBehind {
            task: task.task,
            why: task.error.map_or(WhyBehind::NotOnTime, WhyBehind::Failed),
        }))
    }

    /// Whether every task has run, and well when it last did.
    pub(crate) fn readiness(&self) -> Result<(), TasksBehind> {
        TasksBehind::none_of(Task::ALL.into_iter().filter_map(|task| {
            let history = &self.shared.state(task).history;
            let why = match history.error() {
                _ if !history.has_run() => WhyBehind::NotRunYet,
                error => WhyBehind::Failed(error?),
            };
            Some(TaskBehind { task, why })
        }))
    }

    /// Where its metrics are.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// The metrics as Prometheus reads them: all of the registry's.
    ///
    /// # Errors
    /// When they cannot be written, which does not happen.
    pub fn metrics_text(&self) -> Result<String, prometheus::Error> {
        galerna_http::metrics::text(&self.shared.registry)
    }
}

fn seconds(at: Timestamp) -> f64 {
    at.as_millis() as f64 / 1_000.0
}

/// More or less a tenth, so that several maintainers do not march in step.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(0.9 + fastrand::f64() / 5.0)
}
