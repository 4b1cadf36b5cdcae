//! What the maintainer tells of itself.

use std::time::Duration;

use galerna_lock::Mutex;
use galerna_model::{Clock, Timestamp};
use serde::Serialize;
use tokio::time::Instant;

use crate::task::{Report, RunFailure, Schedule, Task};

/// The state of all tasks.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    /// Whether all tasks run on time: what the dispatcher's ping asks.
    pub on_time: bool,
    /// When this maintainer was made.
    pub started_at: Timestamp,
    /// Where the accounts come from.
    pub accounts_source: String,
    /// Each task.
    pub tasks: Vec<TaskStatus>,
}

/// The state of one task.
#[derive(Debug, Clone, Serialize)]
pub struct TaskStatus {
    /// Its name.
    pub task: Task,
    /// Whether it runs on time; see [`Maintainer::status`](crate::Maintainer::status).
    pub on_time: bool,
    /// Whether a run is going on.
    pub running: bool,
    /// Its interval, in milliseconds.
    pub every_ms: u64,
    /// Runs finished.
    pub runs: u64,
    /// Of those, failed.
    pub failures: u64,
    /// Runs failed since the last one that did not.
    pub failures_in_a_row: u64,
    /// When a run last ended well.
    pub last_success: Option<Timestamp>,
    /// How long ago that was, in milliseconds by the monotonic clock.
    pub last_success_ago_ms: Option<u64>,
    /// Duration of the last run in milliseconds.
    pub last_run_ms: Option<u64>,
    /// The last error, when the last run failed.
    pub error: Option<String>,
    /// When it came.
    pub error_at: Option<Timestamp>,
    /// What the last run did.
    pub last_report: Option<Report>,
}

/// What is known of one task's runs.
#[derive(Default)]
pub(crate) struct History {
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    runs: u64,
    failures: u64,
    failures_in_a_row: u64,
    finished: Option<Instant>,
    succeeded: Option<(Instant, Timestamp)>,
    took: Option<Duration>,
    error: Option<(String, Timestamp)>,
    report: Option<Report>,
}

impl History {
    pub(crate) fn ran(&self, took: Duration, clock: &dyn Clock, result: &Result<Report, RunFailure>) {
        let (now, at) = (Instant::now(), clock.now());
        let mut seen = self.seen.lock();
        seen.runs += 1;
        seen.finished = Some(now);
        seen.took = Some(took);
        match result {
            Ok(report) => {
                seen.failures_in_a_row = 0;
                seen.succeeded = Some((now, at));
                seen.error = None;
                seen.report = Some(report.clone());
            }
            Err(failure) => {
                seen.failures += 1;
                seen.failures_in_a_row += 1;
                seen.error = Some((failure.error.to_string(), at));
                seen.report = Some((*failure.report).clone());
            }
        }
    }

    pub(crate) fn has_run(&self) -> bool {
        self.seen.lock().finished.is_some()
    }

    /// The error of the last run, if it failed.
    pub(crate) fn error(&self) -> Option<String> {
        self.seen.lock().error.as_ref().map(|(error, _)| error.clone())
    }

    /// Whether the task keeps its time.
    ///
    /// Counts must be fresh, or queues with messages pass for empty: the empties task must *succeed* on time. The others
    /// must only run: while the accounts API is unavailable, say, the dispatcher's picture of the queues stays true.
    pub(crate) fn on_time(&self, task: Task, schedule: Schedule) -> bool {
        let seen = self.seen.lock();
        let last = match task {
            Task::ReconcileEmpty => seen.succeeded.map(|(at, _)| at),
            Task::Accounts | Task::Timeouts | Task::Deletions => seen.finished,
        };
        last.is_some_and(|at| at.elapsed() <= schedule.late_after())
    }

    pub(crate) fn status(&self, task: Task, schedule: Schedule, running: bool) -> TaskStatus {
        let on_time = self.on_time(task, schedule);
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let seen = self.seen.lock();
        TaskStatus {
            task,
            on_time,
            running,
            every_ms: millis(schedule.every),
            runs: seen.runs,
            failures: seen.failures,
            failures_in_a_row: seen.failures_in_a_row,
            last_success: seen.succeeded.map(|(_, at)| at),
            last_success_ago_ms: seen.succeeded.map(|(at, _)| millis(at.elapsed())),
            last_run_ms: seen.took.map(millis),
            error: seen.error.as_ref().map(|(error, _)| error.clone()),
            error_at: seen.error.as_ref().map(|(_, at)| *at),
            last_report: seen.report.clone(),
        }
    }
}
