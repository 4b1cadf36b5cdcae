//! Jobs that wait, and the transactions that they are done in.
//!
//! Whatever waits when the connection is free goes into one transaction: while one commit syncs the disk, the next group
//! gathers. When a group fails, each of its jobs is tried in a transaction of its own, so that only those fail that have to.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Condvar;
use std::time::{Duration, Instant};

use galerna_lock::Mutex;

use crate::SqliteError;
use crate::session::{Session, Stored};

/// Something to do in a transaction.
pub trait Job<S: Session>: Send {
    /// Changes the store. May be called again after a roll-back, so that it starts from its own input each time.
    ///
    /// # Errors
    /// What SQLite said: nothing of this job is kept then.
    fn run(&mut self, stored: &mut Stored<S>) -> rusqlite::Result<()>;

    /// Tells everybody, after the commit or the failure, and before the next group runs. What is handed back is run again a
    /// little later.
    fn done(self: Box<Self>, result: Result<(), SqliteError>) -> Option<Box<dyn Job<S>>>;

    /// About how many rows it touches.
    fn weight(&self) -> usize {
        1
    }

    /// Whether it has a transaction to itself, because what follows depends on its outcome.
    fn alone(&self) -> bool {
        false
    }
}

/// Bounds of one transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Most jobs.
    pub jobs: usize,
    /// Most of their weights together; it may be exceeded by one job.
    pub weight: usize,
    /// No further job is taken once the first has run for so long: bounds the latency that grouping adds.
    pub time: Duration,
    /// Pause before a job that is handed back is run again.
    pub again: Duration,
}

impl Default for Limits {
    /// 512 jobs of 20,000 rows, 20 ms, and 200 ms.
    fn default() -> Self {
        Self { jobs: 512, weight: 20_000, time: Duration::from_millis(20), again: Duration::from_millis(200) }
    }
}

/// Jobs that wait.
pub(crate) struct Waiting<S: Session> {
    pub(crate) jobs: VecDeque<Box<dyn Job<S>>>,
    /// Somebody is at it, or about to be.
    pub(crate) led: bool,
    /// No more are taken.
    pub(crate) closed: bool,
}

/// What callers and the one who leads share.
pub(crate) struct Group<S: Session> {
    pub(crate) waiting: Mutex<Waiting<S>>,
    pub(crate) arrived: Condvar,
    /// None when it was closed. Whoever holds it leads.
    pub(crate) stored: Mutex<Option<Stored<S>>>,
    pub(crate) limits: Limits,
}

/// Jobs of one transaction, and what became of each.
pub(crate) type Finished<S> = Vec<(Box<dyn Job<S>>, Result<(), SqliteError>)>;

impl<S: Session> Group<S> {
    pub(crate) fn new(stored: Stored<S>, limits: Limits) -> Self {
        Self {
            waiting: Mutex::new(Waiting { jobs: VecDeque::new(), led: false, closed: false }),
            arrived: Condvar::new(),
            stored: Mutex::new(Some(stored)),
            limits,
        }
    }

    /// The first of a group. When none waits, nobody leads any more.
    pub(crate) fn first(&self) -> Option<Box<dyn Job<S>>> {
        let mut waiting = self.waiting.lock();
        let first = waiting.jobs.pop_front();
        waiting.led = first.is_some();
        first
    }

    /// Another one for a group, unless it is to be alone.
    fn another(&self) -> Option<Box<dyn Job<S>>> {
        let mut waiting = self.waiting.lock();
        if waiting.jobs.front().is_some_and(|job| job.alone()) { None } else { waiting.jobs.pop_front() }
    }

    /// Runs jobs, and others that wait, in one transaction.
    pub(crate) fn run(&self, stored: &mut Stored<S>, first: Vec<Box<dyn Job<S>>>) -> Finished<S> {
        let began = Instant::now();
        let mut group = first;
        let outcome = unless_it_panics(|| {
            stored.transact(|stored| {
                let mut weight = 0;
                let mut ran = 0;
                loop {
                    while let Some(job) = group.get_mut(ran) {
                        weight += job.weight();
                        ran += 1;
                        job.run(stored)?;
                        if job.alone() {
                            return Ok(());
                        }
                    }
                    if ran >= self.limits.jobs
                        || weight >= self.limits.weight
                        || began.elapsed() >= self.limits.time
                    {
                        return Ok(());
                    }
                    match self.another() {
                        Some(job) => group.push(job),
                        None => return Ok(()),
                    }
                }
            })
        });
        match outcome {
            Some(Ok(())) => group.into_iter().map(|job| (job, Ok(()))).collect(),
            Some(Err(error)) if group.len() == 1 => {
                let error = SqliteError::from(error);
                group.into_iter().map(|job| (job, Err(error.clone()))).collect()
            }
            None if group.len() == 1 => Vec::new(),
            // Only those fail that have to.
            Some(Err(_)) | None => group
                .into_iter()
                .filter_map(|mut job| {
                    let result = unless_it_panics(|| stored.transact(|stored| job.run(stored)))?;
                    Some((job, result.map_err(SqliteError::from)))
                })
                .collect(),
        }
    }
}

/// Runs jobs; nothing when one panics. The transaction that it leaves open is rolled back by the next one, and the job is dropped, which its
/// caller sees as an error.
fn unless_it_panics<T>(work: impl FnOnce() -> T) -> Option<T> {
    catch_unwind(AssertUnwindSafe(work))
        .inspect_err(|_| tracing::error!("work in a store panicked; it is rolled back"))
        .ok()
}

/// Tells of each job what became of it; answers with those to be run again.
pub(crate) fn tell<S: Session>(finished: Finished<S>) -> Vec<Box<dyn Job<S>>> {
    finished.into_iter().filter_map(|(job, result)| job.done(result)).collect()
}
