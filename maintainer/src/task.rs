//! The four tasks: their names, their intervals, what a run did and why it failed.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use galerna_broker::BrokerError;
use galerna_lease::Timing;
use galerna_storage::StorageError;
use serde::Serialize;

use crate::accounts::{Guard, Suspicion};
use galerna_directory::{DirectoryError, Issue};

/// A periodic task.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Task {
    /// Makes queue and state for each active account; flags those that are gone; un-flags those that came back.
    Accounts,
    /// Counts messages; marks queues empty or idle. Named `empties` outside.
    #[serde(rename = "empties")]
    ReconcileEmpty,
    /// Returns leases past their time.
    Timeouts,
    /// Deletes flagged queues.
    Deletions,
}

impl Task {
    /// All tasks.
    pub const ALL: [Self; 4] = [Self::Accounts, Self::ReconcileEmpty, Self::Timeouts, Self::Deletions];

    /// The name in the API, the metrics and the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accounts => "accounts",
            Self::ReconcileEmpty => "empties",
            Self::Timeouts => "timeouts",
            Self::Deletions => "deletions",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Tasks that do not run as they should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
pub struct TasksBehind(pub Vec<TaskBehind>);

impl TasksBehind {
    pub(crate) fn none_of(tasks: impl Iterator<Item = TaskBehind>) -> Result<(), Self> {
        let tasks: Vec<TaskBehind> = tasks.collect();
        if tasks.is_empty() { Ok(()) } else { Err(Self(tasks)) }
    }
}

/// A task that does not run as it should.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{task}: {why}")]
pub struct TaskBehind {
    /// The task.
    pub task: Task,
    /// What is wrong with it.
    pub why: WhyBehind,
}

/// What is wrong with a task.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WhyBehind {
    /// Its first run has not ended.
    #[error("has not run yet")]
    NotRunYet,
    /// It has not run for too long.
    #[error("not on time")]
    NotOnTime,
    /// What its last run failed with.
    #[error("{0}")]
    Failed(String),
}

/// There is no task of this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("there is no task `{0}`; there are accounts, empties, timeouts and deletions")]
pub struct UnknownTask(pub String);

impl FromStr for Task {
    type Err = UnknownTask;
    fn from_str(name: &str) -> Result<Self, UnknownTask> {
        Self::ALL
            .into_iter()
            .find(|task| task.as_str() == name)
            .ok_or_else(|| UnknownTask(name.chars().take(60).collect()))
    }
}

/// When a task runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// Time from the end of a run to the start of the next, more or less a tenth.
    pub every: Duration,
    /// A run that takes longer is stopped, fails, and is tried again.
    pub timeout: Duration,
}

impl Schedule {
    /// When the task is late: it should have finished a run within this time.
    pub fn late_after(&self) -> Duration {
        self.every * 2 + self.timeout
    }
}

/// How the maintainer works.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// Schedule of [`Task::Accounts`]; every minute.
    pub accounts: Schedule,
    /// Schedule of [`Task::ReconcileEmpty`]; every 2 seconds.
    pub empties: Schedule,
    /// Schedule of [`Task::Timeouts`]; every 5 seconds.
    pub timeouts: Schedule,
    /// Schedule of [`Task::Deletions`]; every minute.
    pub deletions: Schedule,
    /// When a list of accounts is too short to be believed.
    pub guard: Guard,
    /// How long a flagged queue that still holds messages, dead letters included, is kept; 7 days.
    pub grace: Duration,
    /// How long a flagged queue without messages is kept, though not longer than `grace`; 5 minutes. It must be longer than
    /// the longest delay of redelivery: RabbitMQ does not tell of messages that wait elsewhere to come back to the queue.
    pub linger: Duration,
    /// Length of a lease whose record tells none; an hour. A lease that tells its own is held to that.
    pub lease_timeout: Duration,
    /// A queue is marked empty by a count only when it has been in its state so long; 5 seconds, since RabbitMQ's
    /// counts are as old as that.
    pub settle: Duration,
    /// Records in one guarded bulk write; 500.
    pub chunk: usize,
    /// Queues declared at once; 16.
    pub concurrency: usize,
    /// The dispatchers' timing: delays after crashes, and the margin of expiry.
    pub timing: Timing,
}

impl Default for Options {
    fn default() -> Self {
        let schedule = |every, timeout| Schedule {
            every: Duration::from_secs(every),
            timeout: Duration::from_secs(timeout),
        };
        Self {
            accounts: schedule(60, 300),
            empties: schedule(2, 20),
            timeouts: schedule(5, 20),
            deletions: schedule(60, 120),
            guard: Guard::default(),
            grace: Duration::from_secs(7 * 24 * 3_600),
            linger: Duration::from_secs(300),
            lease_timeout: Duration::from_secs(3_600),
            settle: Duration::from_secs(5),
            chunk: 500,
            concurrency: 16,
            timing: Timing::default(),
        }
    }
}

/// Options that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("maintainer option {0}")]
pub struct OptionsError(String);

impl OptionsError {
    pub(crate) fn metrics(error: &prometheus::Error) -> Self {
        Self(format!("`metrics`: cannot be registered: {error}"))
    }
}

impl Options {
    /// The schedule of a task.
    pub fn schedule(&self, task: Task) -> Schedule {
        match task {
            Task::Accounts => self.accounts,
            Task::ReconcileEmpty => self.empties,
            Task::Timeouts => self.timeouts,
            Task::Deletions => self.deletions,
        }
    }

    /// How long a claimed deletion is left to the maintainer that claimed it. It is at work no longer than the timeout
    /// of a run, and looks at its watch once more before it deletes, at half of this time.
    pub fn takeover(&self) -> Duration {
        self.deletions.timeout * 2
    }

    /// Checks the options.
    ///
    /// # Errors
    /// Names the option, its value and what is allowed.
    pub fn check(&self) -> Result<(), OptionsError> {
        for task in Task::ALL {
            let schedule = self.schedule(task);
            if schedule.every < Duration::from_millis(10) || schedule.timeout < Duration::from_millis(10) {
                return Err(OptionsError(format!(
                    "`{task}` runs every {:?} with a timeout of {:?}; both must be 10 ms or more",
                    schedule.every, schedule.timeout
                )));
            }
        }
        let ratio = self.guard.keep_ratio;
        if !(0.0..=1.0).contains(&ratio) {
            return Err(OptionsError(format!("`guard.keep_ratio` is {ratio}; it must be 0 to 1")));
        }
        for (name, value) in [("chunk", self.chunk), ("concurrency", self.concurrency)] {
            if !(1..=10_000).contains(&value) {
                return Err(OptionsError(format!("`{name}` is {value}; it must be 1 to 10000")));
            }
        }
        if self.lease_timeout < Duration::from_secs(1) {
            return Err(OptionsError(format!(
                "`lease_timeout` is {:?}; it must be 1 s or more",
                self.lease_timeout
            )));
        }
        self.timing.check().map_err(|e| OptionsError(format!("`timing`: {e}")))
    }
}

/// How a single run is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Run {
    /// Confirms a list of accounts that the guard does not believe: it is taken as it is, this once.
    pub force: bool,
    /// For [`Task::Timeouts`]: watch the leases for at most so long instead of looking once. A process that has just
    /// started knows of no lease how old it is, so a single look returns none.
    pub watch: Option<Duration>,
}

/// Entries of [`Report::issues`] kept; the rest is counted only.
pub const ISSUES_KEPT: usize = 100;

/// What a run did.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Accounts listed, right and wrong.
    pub listed: u64,
    /// Queue states created.
    pub created: u64,
    /// Queues declared on the broker, those that had vanished there included.
    pub declared: u64,
    /// Queues flagged for deletion.
    pub flagged: u64,
    /// Queues un-flagged.
    pub restored: u64,
    /// Queues counted.
    pub counted: u64,
    /// Known queues of which the broker told no count.
    pub uncounted: u64,
    /// Queues marked empty.
    pub emptied: u64,
    /// Queues marked idle since they have messages again.
    pub filled: u64,
    /// Leases watched.
    pub watched: u64,
    /// Leases returned.
    pub expired: u64,
    /// Queues deleted.
    pub deleted: u64,
    /// Flagged queues that wait: for the end of a lease or of the grace time, or for another maintainer.
    pub waiting: u64,
    /// Guarded writes that lost to a newer one; left to the next run.
    pub conflicts: u64,
    /// Accounts and queues that could not be served, all of them.
    pub issues_total: u64,
    /// The first hundred of them.
    pub issues: Vec<Issue>,
}

impl Report {
    pub(crate) fn issue(&mut self, issue: Issue) {
        self.issues_total += 1;
        if self.issues.len() < ISSUES_KEPT {
            self.issues.push(issue);
        }
    }
}

/// Why a run failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// The task is running already.
    #[error("the task is running already; try again when it is done")]
    Busy,
    /// The run took too long and was stopped.
    #[error("the run was stopped after {0:?}; it will be tried again")]
    TimedOut(Duration),
    /// The run panicked: a bug.
    #[error("the run panicked: {0}")]
    Panicked(String),
    /// The list of accounts could not be read.
    #[error(transparent)]
    Directory(#[from] DirectoryError),
    /// The list of accounts is not believed.
    #[error(transparent)]
    Suspicious(#[from] Suspicion),
    /// The store failed.
    #[error(transparent)]
    Storage(#[from] StorageError),
    /// The broker failed.
    #[error(transparent)]
    Broker(#[from] BrokerError),
}

impl TaskError {
    /// All codes.
    pub(crate) const CODES: [&'static str; 7] = [
        "busy",
        "timed_out",
        "panicked",
        "accounts_unreadable",
        "accounts_suspicious",
        "store_failed",
        "broker_failed",
    ];

    /// A short word for metrics and the API.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Busy => "busy",
            Self::TimedOut(_) => "timed_out",
            Self::Panicked(_) => "panicked",
            Self::Directory(_) => "accounts_unreadable",
            Self::Suspicious(_) => "accounts_suspicious",
            Self::Storage(_) => "store_failed",
            Self::Broker(_) => "broker_failed",
        }
    }
}

/// A run that failed, with what it did before.
#[derive(Debug, thiserror::Error)]
#[error("{task} task: {error}")]
pub struct RunFailure {
    /// The task.
    pub task: Task,
    /// What was done before it failed; done it stays.
    pub report: Box<Report>,
    /// Why.
    #[source]
    pub error: TaskError,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_option_is_named_with_its_value() {
        let base = Options::default();
        base.check().expect("the defaults are right");
        let guard = |keep_ratio| Guard { keep_ratio, ..Guard::default() };
        let cases = [
            (Options { guard: guard(1.5), ..base.clone() }, "keep_ratio` is 1.5"),
            (Options { guard: guard(f64::NAN), ..base.clone() }, "keep_ratio` is NaN"),
            (Options { chunk: 0, ..base.clone() }, "`chunk` is 0"),
            (Options { lease_timeout: Duration::ZERO, ..base.clone() }, "`lease_timeout` is 0ns"),
            (
                Options { empties: Schedule { every: Duration::ZERO, ..base.empties }, ..base.clone() },
                "`empties` runs every 0ns",
            ),
        ];
        for (options, expected) in cases {
            let error = options.check().expect_err(expected).to_string();
            assert!(error.contains(expected), "{error} should say {expected}");
        }
    }

    #[test]
    fn a_task_is_known_by_its_name() {
        for task in Task::ALL {
            assert_eq!(task.as_str().parse(), Ok(task));
        }
        assert!("all".parse::<Task>().unwrap_err().to_string().contains("there is no task `all`"));
    }
}
