//! How callers wait for the writer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use galerna_model::QueueName;
use galerna_sqlite::{Job, SqliteError, Writer};
use tokio::sync::oneshot;

use super::jobs::{Again, Open, Reply, answer};
use super::queue::Queue;
use super::{EmbeddedSession, Shared};
use crate::{BrokerError, Result};

/// Most jobs waiting for the writer before callers wait.
const BACKLOG: usize = 1024;

/// A job that tells when it is done, which bounds how many may wait.
struct Counted {
    job: Box<dyn Job<EmbeddedSession>>,
    ticket: Ticket,
}

struct Ticket(Arc<Shared>);

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.0.waiting.fetch_sub(1, Ordering::AcqRel) <= BACKLOG {
            self.0.room.notify_waiters();
        }
    }
}

impl Job<EmbeddedSession> for Counted {
    fn run(&mut self, stored: &mut Open) -> rusqlite::Result<()> {
        self.job.run(stored)
    }

    fn done(self: Box<Self>, result: Result<(), SqliteError>) -> Again {
        let Self { job, ticket } = *self;
        let again = job.done(result)?;
        Some(Box::new(Self { job: again, ticket }))
    }

    fn weight(&self) -> usize {
        self.job.weight()
    }

    fn alone(&self) -> bool {
        self.job.alone()
    }
}

/// What a broker and its consumers share: the writer, and how it is called.
pub(super) struct OpenStore {
    pub(super) shared: Arc<Shared>,
    pub(super) writer: Writer<EmbeddedSession>,
    pub(super) timeout: Duration,
    pub(super) generations: AtomicU64,
}

impl OpenStore {
    /// Hands a job to the writer without waiting for room.
    pub(super) fn send_now(&self, job: Box<dyn Job<EmbeddedSession>>) {
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        self.writer.send(Box::new(Counted { job, ticket: Ticket(Arc::clone(&self.shared)) }));
    }

    pub(super) fn submit_now<T>(
        &self,
        job: impl FnOnce(Reply<T>) -> Box<dyn Job<EmbeddedSession>>,
    ) -> oneshot::Receiver<Result<T, SqliteError>> {
        let (reply, answer) = oneshot::channel();
        self.send_now(job(reply));
        answer
    }

    /// Waits until the writer has caught up to within its bound.
    pub(super) async fn room(&self) -> Result<()> {
        let wait = async {
            loop {
                let mut room = std::pin::pin!(self.shared.room.notified());
                room.as_mut().enable();
                if self.shared.waiting.load(Ordering::Acquire) < BACKLOG {
                    return;
                }
                room.await;
            }
        };
        tokio::time::timeout(self.timeout, wait)
            .await
            .map_err(|_| self.late("waiting for the disk".to_owned()))
    }

    pub(super) async fn answer<T>(
        &self,
        attempted: String,
        answer: oneshot::Receiver<Result<T, SqliteError>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.timeout, answer).await {
            Err(_) => Err(self.late(attempted)),
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(error))) => Err(BrokerError::Embedded { attempted, cause: error.cause }),
            Ok(Err(_)) => Err(BrokerError::Embedded { attempted, cause: SqliteError::closed().cause }),
        }
    }

    fn late(&self, attempted: String) -> BrokerError {
        BrokerError::Timeout {
            attempted,
            millis: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }

    pub(super) async fn call<T>(
        &self,
        attempted: String,
        job: impl FnOnce(Reply<T>) -> Box<dyn Job<EmbeddedSession>>,
    ) -> Result<T> {
        self.room().await?;
        let answer = self.submit_now(job);
        self.answer(attempted, answer).await
    }

    /// Waits until everything sent so far is committed.
    pub(super) async fn flush(&self) -> Result<()> {
        self.call("flushing".to_owned(), |reply| Box::new(Flush(reply))).await
    }

    pub(super) fn queue(&self, name: &QueueName) -> Result<Arc<Queue>> {
        self.shared.find(name).ok_or_else(|| BrokerError::UnknownQueue(name.clone()))
    }
}

struct Flush(Reply<()>);

impl Job<EmbeddedSession> for Flush {
    fn run(&mut self, _: &mut Open) -> rusqlite::Result<()> {
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), SqliteError>) -> Again {
        answer(self.0, result);
        None
    }
}
