//! The maintainer's metrics.

use std::sync::Arc;
use std::time::Duration;

use galerna_http::metrics::OnScrape;
use prometheus::{Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

use crate::maintainer::Shared;

use crate::task::{Report, RunFailure, Task, TaskError};

/// What a run may change.
const CHANGES: [&str; 9] =
    ["created", "declared", "flagged", "restored", "emptied", "filled", "expired", "deleted", "conflicts"];

pub(crate) struct Metrics {
    runs: IntCounterVec,
    seconds: HistogramVec,
    last_success: GaugeVec,
    on_time: GaugeVec,
    changes: IntCounterVec,
    issues: IntGauge,
    suspicious: IntGauge,
    uncounted: IntGauge,
    waiting: IntGauge,
    watched: IntGauge,
    started: Gauge,
}

impl Metrics {
    pub(crate) fn new(registry: &Registry, started_seconds: f64) -> Result<Self, prometheus::Error> {
        let metrics = Self {
            runs: IntCounterVec::new(
                Opts::new("galerna_maintainer_runs_total", "Runs of a task by result (ok, or why it failed)"),
                &["task", "result"],
            )?,
            seconds: HistogramVec::new(
                HistogramOpts::new("galerna_maintainer_run_seconds", "Duration of the runs of a task")
                    .buckets(vec![0.001, 0.005, 0.02, 0.1, 0.5, 2.0, 10.0, 60.0, 300.0]),
                &["task"],
            )?,
            last_success: GaugeVec::new(
                Opts::new(
                    "galerna_maintainer_last_success_timestamp_seconds",
                    "When a task last ran to its end",
                ),
                &["task"],
            )?,
            on_time: GaugeVec::new(
                Opts::new("galerna_maintainer_on_time", "1 while a task runs on time, else 0"),
                &["task"],
            )?,
            changes: IntCounterVec::new(
                Opts::new("galerna_maintainer_changes_total", "Changes made, by what was done"),
                &["change"],
            )?,
            issues: IntGauge::new(
                "galerna_maintainer_account_issues",
                "Accounts that the last run could not serve",
            )?,
            suspicious: IntGauge::new(
                "galerna_maintainer_accounts_suspicious",
                "1 while the list of accounts lost too much to be believed; confirm it or put it right",
            )?,
            uncounted: IntGauge::new(
                "galerna_maintainer_uncounted_queues",
                "Known queues of which the broker told no count in the last run",
            )?,
            waiting: IntGauge::new(
                "galerna_maintainer_waiting_deletions",
                "Flagged queues that wait for a lease or their grace time",
            )?,
            watched: IntGauge::new("galerna_maintainer_watched_leases", "Leases watched for their end")?,
            started: Gauge::new(
                "galerna_maintainer_start_timestamp_seconds",
                "When this maintainer was started",
            )?,
        };
        registry.register(Box::new(metrics.runs.clone()))?;
        registry.register(Box::new(metrics.seconds.clone()))?;
        registry.register(Box::new(metrics.last_success.clone()))?;
        registry.register(Box::new(metrics.changes.clone()))?;
        for gauge in
            [&metrics.issues, &metrics.suspicious, &metrics.uncounted, &metrics.waiting, &metrics.watched]
        {
            registry.register(Box::new(gauge.clone()))?;
        }
        registry.register(Box::new(metrics.started.clone()))?;
        metrics.started.set(started_seconds);
        for task in Task::ALL {
            // Counters exist from the start, so that a first failure is a step and not a beginning.
            for result in std::iter::once("ok").chain(TaskError::CODES) {
                metrics.runs.with_label_values(&[task.as_str(), result]);
            }
            metrics.seconds.with_label_values(&[task.as_str()]);
            metrics.last_success.with_label_values(&[task.as_str()]);
        }
        for change in CHANGES {
            metrics.changes.with_label_values(&[change]);
        }
        Ok(metrics)
    }

    pub(crate) fn ran(
        &self,
        task: Task,
        took: Duration,
        finished_seconds: f64,
        result: &Result<Report, RunFailure>,
    ) {
        self.seconds.with_label_values(&[task.as_str()]).observe(took.as_secs_f64());
        let (report, word) = match result {
            Ok(report) => (report, "ok"),
            Err(failure) => (&*failure.report, failure.error.code()),
        };
        self.runs.with_label_values(&[task.as_str(), word]).inc();
        if result.is_ok() {
            self.last_success.with_label_values(&[task.as_str()]).set(finished_seconds);
        }
        for (change, count) in [
            ("created", report.created),
            ("declared", report.declared),
            ("flagged", report.flagged),
            ("restored", report.restored),
            ("emptied", report.emptied),
            ("filled", report.filled),
            ("expired", report.expired),
            ("deleted", report.deleted),
            ("conflicts", report.conflicts),
        ] {
            self.changes.with_label_values(&[change]).inc_by(count);
        }
        let gauge = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        match task {
            Task::Accounts => {
                if !matches!(result, Err(RunFailure { error: TaskError::Directory(_), .. })) {
                    self.issues.set(gauge(report.issues_total));
                    self.suspicious.set(i64::from(word == "accounts_suspicious"));
                }
            }
            Task::ReconcileEmpty => self.uncounted.set(gauge(report.uncounted)),
            Task::Timeouts => self.watched.set(gauge(report.watched)),
            Task::Deletions => self.waiting.set(gauge(report.waiting)),
        }
    }
}

/// Has whether tasks run on time set whenever the registry is read.
pub(crate) fn observe(shared: &Arc<Shared>, registry: &Registry) -> Result<(), prometheus::Error> {
    let on_time = shared.metrics.on_time.clone();
    // The registry outlives a maintainer and must not keep it.
    let of = Arc::downgrade(shared);
    let set = {
        let on_time = on_time.clone();
        move || {
            let Some(shared) = of.upgrade() else { return };
            for task in Task::ALL {
                on_time.with_label_values(&[task.as_str()]).set(f64::from(u8::from(shared.is_on_time(task))));
            }
        }
    };
    registry.register(Box::new(OnScrape::new(vec![Box::new(on_time)], set)))
}
