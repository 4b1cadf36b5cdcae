//! Group commit: one writing connection, led by whichever caller finds it idle.
//!
//! A caller queues its job. When nobody leads, it starts a leader on the blocking pool, which takes all jobs that wait,
//! runs each in a savepoint of one transaction, commits once, answers, and goes on until none waits: while one commit
//! syncs the disk, the next group forms. There is no dedicated thread, for two reasons: an idle store costs none, and a
//! runtime on paused time (tests) waits for the blocking pool rather than jump to its next timer.

use std::collections::VecDeque;
use std::fs::File;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::{Semaphore, oneshot};

use super::readings::SeriesCache;
use super::{failure, gone};
use crate::Result;

/// Jobs that may wait; further callers wait for a place.
const QUEUED_JOBS: usize = 256;
/// Most jobs of one transaction.
const GROUP_JOBS: usize = 64;
/// A group takes no further job once its first has waited so long: bounds the latency that grouping adds.
const GROUP_TIME: Duration = Duration::from_millis(20);

/// What a job writes with.
pub(super) struct Writer {
    pub(super) conn: Connection,
    /// The last number given to a change of the queue states.
    pub(super) last_change: i64,
    /// Ids of series and accounts known to be committed or to be committed with this transaction.
    pub(super) series: SeriesCache,
    /// Locked as long as this connection is open. Declared last: dropped after it.
    pub(super) _lock: Option<File>,
}

/// Answers a job's caller once the fate of its transaction is known.
type Answer = Box<dyn FnOnce(Option<&rusqlite::Error>) + Send>;
/// Runs in the transaction, or is told why there is none; says whether its changes are to be kept.
type Job = Box<dyn FnOnce(rusqlite::Result<&mut Writer, &rusqlite::Error>) -> (bool, Answer) + Send>;

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    led: bool,
}

/// The writing side of an embedded store.
pub(super) struct GroupCommit {
    writer: Mutex<Writer>,
    waiting: Mutex<Waiting>,
    places: Semaphore,
}

impl GroupCommit {
    pub(super) fn new(writer: Writer) -> Self {
        Self { writer: Mutex::new(writer), waiting: Mutex::default(), places: Semaphore::new(QUEUED_JOBS) }
    }

    /// Runs `work` in a transaction; when this returns `Ok`, its changes are on disk.
    ///
    /// Not undone by cancellation: once queued, the work is done whether or not the caller still waits.
    pub(super) async fn write<T: Send + 'static>(
        self: &Arc<Self>,
        attempted: &'static str,
        work: impl FnOnce(&mut Writer) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let _place = self.places.acquire().await.map_err(|_| gone(attempted))?;
        let (tell, told) = oneshot::channel();
        let job: Job = Box::new(move |writer| {
            let outcome = match writer {
                Ok(writer) => work(writer).map_err(|e| failure(attempted, &e)),
                Err(e) => Err(failure(attempted, e)),
            };
            let keep = outcome.is_ok();
            let answer: Answer = Box::new(move |commit_failed| {
                let answer = match commit_failed {
                    Some(e) => outcome.and_then(|_| Err(failure(attempted, e))),
                    None => outcome,
                };
                // The caller may have stopped waiting.
                let _ = tell.send(answer);
            });
            (keep, answer)
        });
        let lead = {
            let mut waiting = self.waiting.lock();
            waiting.jobs.push_back(job);
            !std::mem::replace(&mut waiting.led, true)
        };
        if lead {
            let leader = Leader(Some(Arc::clone(self)));
            tokio::task::spawn_blocking(move || leader.lead());
        }
        told.await.unwrap_or_else(|_| Err(gone(attempted)))
    }

    /// The next job that waits. When there is none for the `first` place of a group, nobody leads any more.
    fn next_job(&self, first: bool) -> Option<Job> {
        let mut waiting = self.waiting.lock();
        let job = waiting.jobs.pop_front();
        if job.is_none() && first {
            waiting.led = false;
        }
        job
    }
}

/// Leads until no job waits. If it is dropped before (its runtime ends, or a job panics), the jobs that wait are
/// dropped, which their callers see as an error, and the next caller leads.
struct Leader(Option<Arc<GroupCommit>>);

impl Leader {
    fn lead(mut self) {
        let mut answers: Vec<Answer> = Vec::new();
        let mut failed = None;
        while let Some(group) = &self.0 {
            let Some(first) = group.next_job(true) else {
                // Let go of the store before the last callers hear of it: whoever then drops the store has closed it.
                self.0 = None;
                break;
            };
            answer_all(&mut answers, failed.take());
            failed = commit_group(group, first, &mut answers).err();
        }
        answer_all(&mut answers, failed);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        if let Some(group) = self.0.take() {
            let abandoned = {
                let mut waiting = group.waiting.lock();
                waiting.led = false;
                std::mem::take(&mut waiting.jobs)
            };
            drop(abandoned);
        }
    }
}

fn answer_all(answers: &mut Vec<Answer>, failed: Option<rusqlite::Error>) {
    for answer in answers.drain(..) {
        answer(failed.as_ref());
    }
}

fn commit_group(group: &GroupCommit, first: Job, answers: &mut Vec<Answer>) -> rusqlite::Result<()> {
    let began = Instant::now();
    let mut writer = group.writer.lock();
    let writer = &mut *writer;
    let committed = run_group(group, writer, first, answers, began);
    if committed.is_err() && !writer.conn.is_autocommit() {
        // A failed commit (a full disk) may leave the transaction open.
        let _ = writer.roll_back("ROLLBACK");
    }
    committed
}

fn run_group(
    group: &GroupCommit,
    writer: &mut Writer,
    first: Job,
    answers: &mut Vec<Answer>,
    began: Instant,
) -> rusqlite::Result<()> {
    if !writer.conn.is_autocommit() {
        // A job panicked in the transaction before.
        let _ = writer.roll_back("ROLLBACK");
    }
    let mut begun = writer.execute("BEGIN IMMEDIATE");
    let mut next = Some(first);
    while let Some(job) = next {
        if let Err(e) = begun.and_then(|()| writer.execute("SAVEPOINT job")) {
            answers.push(job(Err(&e)).1);
            return Err(e);
        }
        let (keep, answer) = job(Ok(writer));
        answers.push(answer);
        if writer.conn.is_autocommit() {
            writer.series.clear();
            return Err(rolled_back());
        }
        if !keep {
            writer.roll_back("ROLLBACK TO job")?;
        }
        begun = writer.execute("RELEASE job");
        let more = answers.len() < GROUP_JOBS && began.elapsed() < GROUP_TIME;
        next = if more && begun.is_ok() { group.next_job(false) } else { None };
    }
    begun?;
    writer.execute("COMMIT")
}

/// Some errors (a full disk, an I/O error) make SQLite roll the whole transaction back by itself.
fn rolled_back() -> rusqlite::Error {
    rusqlite::Error::SqliteFailure(
        rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT),
        Some("the transaction was rolled back because another write of it failed".to_owned()),
    )
}

impl Writer {
    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.conn.prepare_cached(sql)?.execute([]).map(|_| ())
    }

    /// Rolls back, and forgets what was learnt from rows that are gone with it.
    fn roll_back(&mut self, sql: &str) -> rusqlite::Result<()> {
        self.series.clear();
        self.execute(sql)
    }
}
