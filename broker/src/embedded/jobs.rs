//! What is done to queues and messages, in transactions of the writer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use galerna_sqlite::{Job, SqliteError, SqliteErrorKind, Stored};

use super::queue::{Queue, WINDOW, WINDOW_BYTES};
use super::tables::{Due, StoredMessage, Tables};
use super::{EmbeddedSession, Shared};
use crate::{DeleteWhen, Deleted, Failure};
use galerna_model::{Message, QueueName};

/// Tells the caller how it went.
pub(super) type Reply<T> = oneshot::Sender<Result<T, SqliteError>>;

pub(super) type Again = Option<Box<dyn Job<EmbeddedSession>>>;

/// What jobs write with.
pub(super) type Open = Stored<EmbeddedSession>;

/// Most delayed messages moved in one transaction.
const DUE_AT_ONCE: usize = 1000;

pub(super) fn answer<T>(reply: Reply<T>, answer: Result<T, SqliteError>) {
    // The caller may have given up; the job is done all the same.
    drop(reply.send(answer));
}

/// A queue was deleted while a call was on its way.
pub(super) fn deleted_meanwhile() -> SqliteError {
    SqliteError { kind: SqliteErrorKind::Failed, cause: "the queue was deleted meanwhile".to_owned() }
}

/// Creates a queue.
pub(super) struct Declare {
    pub(super) shared: Arc<Shared>,
    pub(super) name: QueueName,
    pub(super) created: Option<i64>,
    pub(super) reply: Reply<()>,
}

impl Job<EmbeddedSession> for Declare {
    fn run(&mut self, stored: &mut Open) -> rusqlite::Result<()> {
        let tables = Tables(stored.connection());
        self.created = match self.shared.find(&self.name) {
            Some(_) => None,
            None => Some(tables.add_queue(&self.name)?),
        };
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), SqliteError>) -> Again {
        if let (Ok(()), Some(qid)) = (&result, self.created) {
            self.shared.marks.write(qid, 0);
            self.shared.add(Queue {
                name: self.name,
                qid,
                state: galerna_lock::Mutex::default(),
                arrived: tokio::sync::Notify::new(),
            });
        }
        answer(self.reply, result);
        None
    }

    fn alone(&self) -> bool {
        true
    }
}

/// Deletes a queue.
pub(super) struct Delete {
    pub(super) shared: Arc<Shared>,
    pub(super) name: QueueName,
    pub(super) when: DeleteWhen,
    pub(super) deleted: Option<Arc<Queue>>,
    pub(super) reply: Reply<Deleted>,
}

impl Job<EmbeddedSession> for Delete {
    fn run(&mut self, stored: &mut Open) -> rusqlite::Result<()> {
        let tables = Tables(stored.connection());
        self.deleted = None;
        if let Some(queue) = self.shared.find(&self.name)
            && (self.when == DeleteWhen::Always || !tables.holds_messages(queue.qid)?)
        {
            tables.delete_queue(queue.qid)?;
            self.deleted = Some(queue);
        }
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), SqliteError>) -> Again {
        if result.is_ok()
            && let Some(queue) = &self.deleted
        {
            self.shared.remove(queue);
            let mut state = queue.state.lock();
            *state = super::queue::State { gone: true, ..Default::default() };
            drop(state);
            queue.arrived.notify_waiters();
        }
        let left = self.shared.find(&self.name).is_some();
        answer(self.reply, result.map(|()| if left { Deleted::NotEmpty } else { Deleted::Yes }));
        None
    }

    fn alone(&self) -> bool {
        true
    }
}

/// A message for a queue, with its place in the window of its publisher.
pub(super) struct Item {
    pub(super) queue: Arc<Queue>,
    pub(super) index: usize,
    pub(super) message: Message,
}

/// Adds messages. The reply names those whose queue was deleted meanwhile.
pub(super) struct Publish {
    pub(super) shared: Arc<Shared>,
    pub(super) items: Vec<Item>,
    /// The sequence number of each; none when its queue is gone.
    pub(super) seqs: Vec<Option<u64>>,
    pub(super) reply: Reply<Vec<usize>>,
}

impl Job<EmbeddedSession> for Publish {
    fn run(&mut self, stored: &mut Open) -> rusqlite::Result<()> {
        let tables = Tables(stored.connection());
        self.seqs.clear();
        for item in &self.items {
            let seq = {
                let mut state = item.queue.state.lock();
                (!state.gone).then(|| state.give_seq())
            };
            if let Some(seq) = seq {
                tables.insert(item.queue.qid, seq, 0, 0, &item.message)?;
            }
            self.seqs.push(seq);
        }
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), SqliteError>) -> Again {
        self.shared.disk.note(&result);
        if let Err(error) = result {
            answer(self.reply, Err(error));
            return None;
        }
        let mut refused = Vec::new();
        let mut woken: Option<Arc<Queue>> = None;
        for (Item { queue, index, message }, seq) in self.items.into_iter().zip(self.seqs) {
            match seq {
                Some(seq) => queue.state.lock().committed(StoredMessage {
                    seq,
                    failures: 0,
                    returns: 0,
                    replays: 0,
                    message,
                }),
                None => refused.push(index),
            }
            // Once for each run of messages to the same queue.
            match &woken {
                Some(last) if Arc::ptr_eq(last, &queue) => {}
                _ => {
                    if let Some(last) = woken.replace(queue) {
                        last.arrived.notify_waiters();
                    }
                }
            }
        }
        if let Some(last) = woken {
            last.arrived.notify_waiters();
        }
        answer(self.reply, Ok(refused));
        None
    }

    fn weight(&self) -> usize {
        self.items.len()
    }
}

/// Removes acked messages. Nobody waits for it: a crash before the commit only delivers them again.
pub(super) struct Remove {
    pub(super) queue: Arc<Queue>,
    /// In order.
    pub(super) seqs: Vec<u64>,
}

impl Job<EmbeddedSession> for Remove {
    fn run(&mut self, stored: &mut Open) -> rusqlite::Result<()> {
        let tables = Tables(stored.connection());
        if self.queue.state.lock().gone {
            return Ok(());
        }
        tables.remove(self.queue.qid, &self.seqs)
    }

    fn done(self: Box<Self>, result: Result<(), SqliteError>) -> Again {
        let error = result.err()?;
        tracing::warn!(queue = %self.queue.name, messages = self.seqs.len(), %error, "acks were not written; trying again");
        Some(self)
    }

    fn weight(&self) -> usize {
        self.seqs.len()
    }
}

/// Where a failed message goes.
pub(super) enum Failed {
    Delay { after: Duration, failures: u32, returns: u32 },
    DeadLetter { deliveries: u32, returns: u32, failure: Failure },
}

/// Delays failed messages or moves them to the dead letters.
pub(super) struct SettleFailed {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Arc<Queue>,
    pub(super) messages: Vec<(u64, Failed)>,
    pub(super) reply: Reply<()>,
}

impl Job<EmbeddedSession> for SettleFailed {
    fn run(&mut self, stored: &mut Open) -> rusqlite::Result<()> {
        let tables = Tables(stored.connection());
        if self.queue.state.lock().gone {
            return Ok(());
        }
        let (qid, now) = (self.queue.qid, self.shared.now());
        for (seq, failed) in &self.messages {
            match failed {
                Failed::Delay { after, failures, returns } => {
                    let millis = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
                    tables.delay(qid, *seq, now.plus_millis(millis).as_millis(), *failures, *returns)?;
                }
                Failed::DeadLetter { deliveries, failure, .. } => {
                    tables.move_to_dead(qid, *seq, now, *deliveries, failure)?
                }
            }
        }
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), SqliteError>) -> Again {
        let mut state = self.queue.state.lock();
        if !state.gone {
            for (seq, failed) in &self.messages {
                match (&result, failed) {
                    (Ok(()), Failed::Delay { .. }) => {
                        state.unacked -= 1;
                        state.delayed += 1;
                        self.shared.counters.retried.add(1);
                    }
                    (Ok(()), Failed::DeadLetter { .. }) => {
                        state.unacked -= 1;
                        state.dead += 1;
                        self.shared.counters.dead_lettered.add(1);
                    }
                    // Nothing changed in the store: it is delivered again, as if its consumer had gone.
                    (Err(_), Failed::Delay { returns, .. } | Failed::DeadLetter { returns, .. }) => {
                        state.give_back(*seq, returns + 1);
                    }
                }
            }
        }
        drop(state);
        self.queue.arrived.notify_waiters();
        answer(self.reply, result);
        None
    }

    fn weight(&self) -> usize {
        self.messages.len()
    }
}

/// Records that messages were given back uncounted, so that a restart does not count them either.
pub(super) struct ReleaseUncounted {
    pub(super) queue: Arc<Queue>,
    /// Sequence number, and how often it counts as returned.
    pub(super) messages: Vec<(u64, u32)>,
}

impl Job<EmbeddedSession> for ReleaseUncounted {
    fn run(&mut self, stored: &mut Open) -> rusqlite::Result<()> {
        let tables = Tables(stored.connection());
        if self.queue.state.lock().gone {
            return Ok(());
        }
        for (seq, returns) in &self.messages {
            tables.set_returns(self.queue.qid, *seq, i64::from(*returns) - 1)?;
        }
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), SqliteError>) -> Again {
        if let Err(error) = result {
            // Costs a count after a crash, no message.
            tracing::warn!(queue = %self.queue.name, %error, "released messages may count as delivered");
        }
        None
    }

    fn weight(&self) -> usize {
        self.messages.len()
    }
}

/// Reads the next messages of a queue into its window: first those that were given back, then unread ones.
pub(super) struct Refill {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Arc<Queue>,
    pub(super) read: Vec<StoredMessage>,
    pub(super) back: Vec<(u64, Option<StoredMessage>)>,
    pub(super) dead: u64,
    pub(super) dead_unread: u64,
    pub(super) last: Option<u64>,
}

impl Refill {
    pub(super) fn new(shared: Arc<Shared>, queue: Arc<Queue>) -> Self {
        Self { shared, queue, read: Vec::new(), back: Vec::new(), dead: 0, dead_unread: 0, last: None }
    }

    /// Moves a message that was returned too often to the dead letters.
    fn may_be_delivered(&mut self, tables: Tables<'_>, stored: &StoredMessage) -> rusqlite::Result<bool> {
        let Some(why) = self.shared.policy.refuse_after(stored.returns) else { return Ok(true) };
        tables.move_to_dead(self.queue.qid, stored.seq, self.shared.now(), stored.deliveries() - 1, &why)?;
        self.dead += 1;
        Ok(false)
    }
}

impl Job<EmbeddedSession> for Refill {
    fn run(&mut self, stored: &mut Open) -> rusqlite::Result<()> {
        let tables = Tables(stored.connection());
        (self.read, self.back, self.last) = (Vec::new(), Vec::new(), None);
        (self.dead, self.dead_unread) = (0, 0);
        let qid = self.queue.qid;
        let (returned, from, unread, to, mark) = {
            let state = self.queue.state.lock();
            let returned: Vec<_> = state.returned.iter().take(WINDOW).map(|(s, r)| (*s, *r)).collect();
            (returned, state.unread_from, state.unread, state.last_seq, state.mark)
        };
        for (seq, returns) in returned {
            let found = tables
                .read(qid, seq..=seq, mark, 1, usize::MAX)?
                .pop()
                .map(|stored| StoredMessage { returns, ..stored });
            let kept = match found {
                Some(stored) if self.may_be_delivered(tables, &stored)? => {
                    tables.set_returns(qid, seq, i64::from(returns))?;
                    Some(stored)
                }
                Some(_) | None => None,
            };
            self.back.push((seq, kept));
        }
        if unread == 0 {
            return Ok(());
        }
        for stored in tables.read(qid, from..=to, mark, WINDOW / 2, WINDOW_BYTES / 2)? {
            self.last = Some(stored.seq);
            // Handed out by an earlier process, which did not settle it.
            if stored.seq <= mark {
                if !self.may_be_delivered(tables, &stored)? {
                    self.dead_unread += 1;
                    continue;
                }
                tables.set_returns(qid, stored.seq, i64::from(stored.returns))?;
            }
            self.read.push(stored);
        }
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), SqliteError>) -> Again {
        let mut state = self.queue.state.lock();
        state.refilling = false;
        if state.gone {
            return None;
        }
        match result {
            Err(error) => state.failed = Some(error.cause),
            Ok(()) => {
                for (seq, kept) in self.back {
                    state.returned.remove(&seq);
                    if let Some(stored) = kept {
                        state.keep(stored);
                    }
                }
                if let Some(last) = self.last {
                    state.unread_from = last + 1;
                    state.unread -= self.read.len() as u64 + self.dead_unread;
                }
                for stored in self.read {
                    state.keep(stored);
                }
                state.dead += self.dead;
                self.shared.counters.dead_lettered.add(usize::try_from(self.dead).unwrap_or(0));
            }
        }
        drop(state);
        self.queue.arrived.notify_waiters();
        None
    }

    fn weight(&self) -> usize {
        WINDOW / 2
    }
}

/// Moves delayed messages whose time has come to the end of their queues.
pub(super) struct MoveDue {
    shared: Arc<Shared>,
    moved: Vec<(Arc<Queue>, StoredMessage)>,
}

impl MoveDue {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, moved: Vec::new() }
    }
}

impl Job<EmbeddedSession> for MoveDue {
    fn run(&mut self, stored: &mut Open) -> rusqlite::Result<()> {
        let tables = Tables(stored.connection());
        self.moved.clear();
        for Due { id, qid, mut stored } in tables.due(self.shared.now().as_millis(), DUE_AT_ONCE)? {
            if let Some(queue) = self.shared.find_by_id(qid) {
                stored.seq = queue.state.lock().give_seq();
                tables.insert(qid, stored.seq, stored.failures, stored.returns, &stored.message)?;
                if stored.replays > 0 {
                    tables.set_replays(qid, stored.seq, stored.replays)?;
                }
                self.moved.push((queue, stored));
            }
            tables.remove_delayed(id)?;
        }
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), SqliteError>) -> Again {
        match result {
            Err(error) => tracing::warn!(%error, "delayed messages could not be moved; trying again"),
            Ok(()) => {
                for (queue, stored) in self.moved {
                    let mut state = queue.state.lock();
                    state.delayed -= 1;
                    state.committed(stored);
                    drop(state);
                    queue.arrived.notify_waiters();
                }
            }
        }
        None
    }
}
