//! Who leads a group, and how jobs get to it.

use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use galerna_lock::Mutex;
use tokio::sync::{Semaphore, oneshot};

use crate::format::{Format, Tuning};
use crate::group::{Group, Job, Limits, tell};
use crate::session::{Plain, Session, Stored};
use crate::{OpenError, SqliteError};

/// Calls that may wait; further callers wait for a place.
const CALLS: usize = 256;

/// Where jobs are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// On tokio's blocking pool, by whichever call finds nobody at it. A store that is idle costs no thread, and a runtime on
    /// paused time waits for the pool rather than jump to its next timer. Jobs can be sent from within a runtime only.
    BlockingPool,
    /// On a thread of its own with this name: jobs can be sent from anywhere, are done even when the runtime ends, and the
    /// session can have work that falls due.
    Thread(&'static str),
}

/// The one writer of a store. When it is dropped, what was sent is done and the store is closed.
pub struct Writer<S: Session> {
    group: Arc<Group<S>>,
    thread: Mutex<Option<JoinHandle<()>>>,
    host: Host,
    places: Semaphore,
}

impl<S: Session> std::fmt::Debug for Writer<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let waiting = self.group.waiting.lock();
        f.debug_struct("Writer")
            .field("host", &self.host)
            .field("waiting", &waiting.jobs.len())
            .field("closed", &waiting.closed)
            .finish()
    }
}

impl Writer<Plain> {
    /// Opens a file of this format, which is created, with its folder, when missing, and writes on tokio's pool for blocking work.
    /// Blocks for as long as opening takes.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(format: &Format, path: &Path, limits: Limits) -> Result<Self, OpenError> {
        let opened = format.open(path, &Tuning::default())?;
        Ok(Self::on_the_pool(opened.into_session(Plain), limits))
    }

    /// A store of this format that is gone when it is dropped.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn in_memory(format: &Format, limits: Limits) -> rusqlite::Result<Self> {
        let stored = Stored::in_memory(|connection| (format.bring_up)(connection, 0).map(|()| Plain))?;
        Ok(Self::on_the_pool(stored, limits))
    }

    fn on_the_pool(stored: Stored<Plain>, limits: Limits) -> Self {
        Self::of(Arc::new(Group::new(stored, limits)), None, Host::BlockingPool)
    }
}

impl<S: Session> Writer<S> {
    /// Starts to write with `stored`.
    ///
    /// # Errors
    /// When the system has no thread.
    pub fn start(stored: Stored<S>, limits: Limits, host: Host) -> std::io::Result<Self> {
        let group = Arc::new(Group::new(stored, limits));
        let thread = match host {
            Host::BlockingPool => None,
            Host::Thread(name) => {
                let group = Arc::clone(&group);
                Some(std::thread::Builder::new().name(name.to_owned()).spawn(move || run_thread(&group))?)
            }
        };
        Ok(Self::of(group, thread, host))
    }

    fn of(group: Arc<Group<S>>, thread: Option<JoinHandle<()>>, host: Host) -> Self {
        Self { group, thread: Mutex::new(thread), host, places: Semaphore::new(CALLS) }
    }

    /// Sends a job without waiting for room. A store that is closed tells the job so.
    pub fn send(&self, job: Box<dyn Job<S>>) {
        let lead = {
            let mut waiting = self.group.waiting.lock();
            if waiting.closed {
                drop(waiting);
                drop(job.done(Err(SqliteError::closed())));
                return;
            }
            waiting.jobs.push_back(job);
            !std::mem::replace(&mut waiting.led, true)
        };
        match self.host {
            Host::Thread(_) => {
                self.group.arrived.notify_one();
            }
            Host::BlockingPool if lead => {
                let leader = Leader(Some(Arc::clone(&self.group)));
                drop(tokio::task::spawn_blocking(move || leader.lead()));
            }
            Host::BlockingPool => {}
        }
    }

    /// Runs `work` in a transaction, together with what else waits; when this returns `Ok`, its changes are on disk. It may
    /// be run again after a roll-back.
    ///
    /// Not undone by cancellation: once sent, the work is done whether or not the caller still waits.
    ///
    /// # Errors
    /// What SQLite said; nothing is changed then.
    pub async fn write<T: Send + 'static>(
        &self,
        work: impl FnMut(&mut Stored<S>) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, SqliteError> {
        let _place = self.places.acquire().await.map_err(|_| SqliteError::closed())?;
        let (reply, answer) = oneshot::channel();
        self.send(Box::new(WaitingJob { work, outcome: None, reply }));
        answer.await.unwrap_or_else(|_| Err(SqliteError::closed()))
    }

    /// Whether it was closed.
    pub fn is_closed(&self) -> bool {
        self.group.waiting.lock().closed
    }

    /// Does what was sent, folds the log back into the file, and lets go of it. Later jobs are told that it is closed.
    /// Blocks for as long as that takes.
    pub fn close(&self) {
        self.group.waiting.lock().closed = true;
        self.group.arrived.notify_one();
        let thread = self.thread.lock().take();
        if let Some(thread) = thread {
            // A panic in it has been reported by its own thread.
            drop(thread.join());
        }
        let mut stored = self.group.stored.lock();
        if let Some(open) = stored.as_mut() {
            while let Some(job) = self.group.first() {
                drop(tell(self.group.run(open, vec![job])));
            }
        }
        drop(stored.take());
    }
}

impl<S: Session> Drop for Writer<S> {
    fn drop(&mut self) {
        self.close();
    }
}

/// A job that somebody waits for.
struct WaitingJob<F, T> {
    work: F,
    outcome: Option<T>,
    reply: oneshot::Sender<Result<T, SqliteError>>,
}

impl<S, F, T> Job<S> for WaitingJob<F, T>
where
    S: Session,
    F: FnMut(&mut Stored<S>) -> rusqlite::Result<T> + Send,
    T: Send,
{
    fn run(&mut self, stored: &mut Stored<S>) -> rusqlite::Result<()> {
        self.outcome = None;
        self.outcome = Some((self.work)(stored)?);
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), SqliteError>) -> Option<Box<dyn Job<S>>> {
        let Self { outcome, reply, .. } = *self;
        // The caller may have stopped waiting.
        drop(reply.send(result.and_then(|()| outcome.ok_or_else(SqliteError::closed))));
        None
    }
}

/// Leads until no job waits. If it is dropped before (its runtime ends, or a job panics), the jobs that wait are dropped, which
/// their callers see as an error, and the next caller leads.
struct Leader<S: Session>(Option<Arc<Group<S>>>);

impl<S: Session> Leader<S> {
    fn lead(mut self) {
        let mut finished = Vec::new();
        while let Some(group) = &self.0 {
            let mut stored = group.stored.lock();
            let job = group.first();
            // What a job hands back is run at once: there is nobody to wait.
            let again = tell(std::mem::take(&mut finished));
            let jobs: Vec<_> = job.into_iter().chain(again).collect();
            match stored.as_mut() {
                Some(open) if !jobs.is_empty() => finished = group.run(open, jobs),
                _ => {
                    drop(stored);
                    self.0 = None;
                }
            }
        }
    }
}

impl<S: Session> Drop for Leader<S> {
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

/// Closes the queue when its thread ends, also by a panic: nobody is to wait for an answer that cannot come.
struct EndOfThread<'a, S: Session>(&'a Group<S>);

impl<S: Session> Drop for EndOfThread<'_, S> {
    fn drop(&mut self) {
        let left = {
            let mut waiting = self.0.waiting.lock();
            waiting.closed = true;
            std::mem::take(&mut waiting.jobs)
        };
        left.into_iter().for_each(|job| drop(job.done(Err(SqliteError::closed()))));
    }
}

/// Leads until the writer is closed and what it sent is done.
fn run_thread<S: Session>(group: &Group<S>) {
    let _end = EndOfThread(group);
    let mut again: Vec<Box<dyn Job<S>>> = Vec::new();
    let mut due_failed: Option<Instant> = None;
    loop {
        let pause = {
            let mut stored = group.stored.lock();
            let Some(open) = stored.as_mut() else { return };
            let due = open.next_due();
            match due_failed {
                Some(_) => Some(group.limits.again),
                None if again.is_empty() => due,
                None => Some(due.map_or(group.limits.again, |due| due.min(group.limits.again))),
            }
        };
        let closed = {
            let mut waiting = group.waiting.lock();
            let deadline = pause.map(|pause| Instant::now() + pause);
            while waiting.jobs.is_empty() && !waiting.closed {
                let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
                if left.is_zero() {
                    break;
                }
                let woken = group.arrived.wait_timeout(waiting, left);
                waiting = woken.unwrap_or_else(PoisonError::into_inner).0;
            }
            waiting.closed
        };
        let mut stored = group.stored.lock();
        let Some(open) = stored.as_mut() else { return };
        let first = group.first();
        if closed && first.is_none() {
            // A last attempt: these are acks that a full disk kept from being written.
            drop(tell(group.run(open, again)));
            drop(stored.take());
            return;
        }
        let mut jobs: Vec<_> = first.into_iter().collect();
        if !jobs.iter().any(|job| job.alone()) {
            jobs.append(&mut again);
        }
        if !jobs.is_empty() {
            again.extend(tell(group.run(open, jobs)));
        }
        // Errors of the disk come again at once; they must not become a busy loop.
        if due_failed.is_none_or(|at| at.elapsed() >= group.limits.again) {
            let (failed, handed_back) = run_due(group, open);
            due_failed = failed.then(Instant::now);
            again.extend(handed_back);
        }
    }
}

/// Does what has fallen due, and whatever waits beside it: whether that failed, and what is to be run again.
fn run_due<S: Session>(group: &Group<S>, open: &mut Stored<S>) -> (bool, Vec<Box<dyn Job<S>>>) {
    if open.next_due().is_none_or(|due| due > Duration::ZERO) {
        return (false, Vec::new());
    }
    let Some(job) = open.due() else { return (false, Vec::new()) };
    let finished = group.run(open, vec![job]);
    let failed = finished.iter().any(|(_, result)| result.is_err());
    (failed, tell(finished))
}
