//! What the writer thread does in its transactions.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::oneshot;

use super::Shared;
use super::queue::{Queue, WINDOW, WINDOW_BYTES};
use super::store::{Due, Store, Stored};
use super::writer::Work;
use crate::{DeadLetter, DeadLetterSelection, DeleteWhen, Deleted, Failure, NewDeadLetter};
use galerna_model::{Message, QueueName};

/// Tells the caller how it went.
pub(super) type Reply<T> = oneshot::Sender<Result<T, String>>;

type Again = Option<Box<dyn Work>>;

/// Most delayed messages moved in one transaction.
const DUE_AT_ONCE: usize = 1000;

pub(super) fn flag() -> Arc<AtomicBool> {
    Arc::default()
}

fn tell<T>(reply: Reply<T>, answer: Result<T, String>) {
    // The caller may have given up; the work is done all the same.
    drop(reply.send(answer));
}

/// Creates a queue.
pub(super) struct Declare {
    pub(super) shared: Arc<Shared>,
    pub(super) name: QueueName,
    pub(super) created: Option<i64>,
    pub(super) reply: Reply<()>,
}

impl Work for Declare {
    fn run(&mut self, store: &Store) -> rusqlite::Result<()> {
        self.created = match self.shared.find(&self.name) {
            Some(_) => None,
            None => Some(store.add_queue(&self.name)?),
        };
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), String>) -> Again {
        if let (Ok(()), Some(qid)) = (&result, self.created) {
            self.shared.marks.write(qid, 0);
            self.shared.add(Queue {
                name: self.name,
                qid,
                state: parking_lot::Mutex::default(),
                arrived: tokio::sync::Notify::new(),
            });
        }
        tell(self.reply, result);
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

impl Work for Delete {
    fn run(&mut self, store: &Store) -> rusqlite::Result<()> {
        self.deleted = None;
        if let Some(queue) = self.shared.find(&self.name)
            && (self.when == DeleteWhen::Always || !store.holds_messages(queue.qid)?)
        {
            store.delete_queue(queue.qid)?;
            self.deleted = Some(queue);
        }
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), String>) -> Again {
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
        tell(self.reply, result.map(|()| if left { Deleted::NotEmpty } else { Deleted::Yes }));
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
    pub(super) items: Vec<Item>,
    /// The sequence number of each; none when its queue is gone.
    pub(super) seqs: Vec<Option<u64>>,
    pub(super) reply: Reply<Vec<usize>>,
}

impl Work for Publish {
    fn run(&mut self, store: &Store) -> rusqlite::Result<()> {
        self.seqs.clear();
        for item in &self.items {
            let seq = {
                let mut state = item.queue.state.lock();
                (!state.gone).then(|| state.give_seq())
            };
            if let Some(seq) = seq {
                store.insert(item.queue.qid, seq, 0, 0, &item.message)?;
            }
            self.seqs.push(seq);
        }
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), String>) -> Again {
        if let Err(cause) = result {
            tell(self.reply, Err(cause));
            return None;
        }
        let mut refused = Vec::new();
        let mut told: Option<Arc<Queue>> = None;
        for (Item { queue, index, message }, seq) in self.items.into_iter().zip(self.seqs) {
            match seq {
                Some(seq) => queue.state.lock().committed(Stored { seq, failures: 0, returns: 0, message }),
                None => refused.push(index),
            }
            // Once for each run of messages to the same queue.
            match &told {
                Some(last) if Arc::ptr_eq(last, &queue) => {}
                _ => {
                    if let Some(last) = told.replace(queue) {
                        last.arrived.notify_waiters();
                    }
                }
            }
        }
        if let Some(last) = told {
            last.arrived.notify_waiters();
        }
        tell(self.reply, Ok(refused));
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

impl Work for Remove {
    fn run(&mut self, store: &Store) -> rusqlite::Result<()> {
        if self.queue.state.lock().gone {
            return Ok(());
        }
        store.remove(self.queue.qid, &self.seqs)
    }

    fn done(self: Box<Self>, result: Result<(), String>) -> Again {
        let cause = result.err()?;
        tracing::warn!(queue = %self.queue.name, messages = self.seqs.len(), cause, "acks were not written; trying again");
        Some(self)
    }

    fn weight(&self) -> usize {
        self.seqs.len()
    }
}

/// Where a failed message goes.
pub(super) enum Aside {
    Delay { after: Duration, failures: u32, returns: u32 },
    Kill { deliveries: u32, returns: u32, failure: Failure },
}

/// Delays failed messages or moves them to the dead letters.
pub(super) struct SetAside {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Arc<Queue>,
    pub(super) messages: Vec<(u64, Aside)>,
    pub(super) reply: Reply<()>,
}

impl Work for SetAside {
    fn run(&mut self, store: &Store) -> rusqlite::Result<()> {
        if self.queue.state.lock().gone {
            return Ok(());
        }
        let (qid, now) = (self.queue.qid, self.shared.now());
        for (seq, aside) in &self.messages {
            match aside {
                Aside::Delay { after, failures, returns } => {
                    let millis = i64::try_from(after.as_millis()).unwrap_or(i64::MAX);
                    store.delay(qid, *seq, now.plus_millis(millis).as_millis(), *failures, *returns)?;
                }
                Aside::Kill { deliveries, failure, .. } => {
                    store.kill(qid, *seq, now, *deliveries, failure)?
                }
            }
        }
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), String>) -> Again {
        let mut state = self.queue.state.lock();
        if !state.gone {
            for (seq, aside) in &self.messages {
                match (&result, aside) {
                    (Ok(()), Aside::Delay { .. }) => {
                        state.unacked -= 1;
                        state.delayed += 1;
                        self.shared.counters.retried.add(1);
                    }
                    (Ok(()), Aside::Kill { .. }) => {
                        state.unacked -= 1;
                        state.dead += 1;
                        self.shared.counters.dead_lettered.add(1);
                    }
                    // Nothing changed in the store: it is delivered again, as if its consumer had gone.
                    (Err(_), Aside::Delay { returns, .. } | Aside::Kill { returns, .. }) => {
                        state.give_back(*seq, returns + 1);
                    }
                }
            }
        }
        drop(state);
        self.queue.arrived.notify_waiters();
        tell(self.reply, result);
        None
    }

    fn weight(&self) -> usize {
        self.messages.len()
    }
}

/// Records that messages were given back uncounted, so that a restart does not count them either.
pub(super) struct Uncount {
    pub(super) queue: Arc<Queue>,
    /// Sequence number, and how often it counts as returned.
    pub(super) messages: Vec<(u64, u32)>,
}

impl Work for Uncount {
    fn run(&mut self, store: &Store) -> rusqlite::Result<()> {
        if self.queue.state.lock().gone {
            return Ok(());
        }
        for (seq, returns) in &self.messages {
            store.set_returns(self.queue.qid, *seq, i64::from(*returns) - 1)?;
        }
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), String>) -> Again {
        if let Err(cause) = result {
            // Costs a count after a crash, no message.
            tracing::warn!(queue = %self.queue.name, cause, "released messages may count as delivered");
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
    pub(super) read: Vec<Stored>,
    pub(super) back: Vec<(u64, Option<Stored>)>,
    pub(super) killed: u64,
    pub(super) killed_unread: u64,
    pub(super) last: Option<u64>,
}

impl Refill {
    pub(super) fn new(shared: Arc<Shared>, queue: Arc<Queue>) -> Self {
        Self { shared, queue, read: Vec::new(), back: Vec::new(), killed: 0, killed_unread: 0, last: None }
    }

    /// Moves a message that was returned too often to the dead letters.
    fn may_be_delivered(&mut self, store: &Store, stored: &Stored) -> rusqlite::Result<bool> {
        let Some(why) = self.shared.policy.refuse_after(stored.returns) else { return Ok(true) };
        store.kill(self.queue.qid, stored.seq, self.shared.now(), stored.deliveries() - 1, &why)?;
        self.killed += 1;
        Ok(false)
    }
}

impl Work for Refill {
    fn run(&mut self, store: &Store) -> rusqlite::Result<()> {
        (self.read, self.back, self.last) = (Vec::new(), Vec::new(), None);
        (self.killed, self.killed_unread) = (0, 0);
        let qid = self.queue.qid;
        let (returned, from, unread, to, mark) = {
            let state = self.queue.state.lock();
            let returned: Vec<_> = state.returned.iter().take(WINDOW).map(|(s, r)| (*s, *r)).collect();
            (returned, state.unread_from, state.unread, state.last_seq, state.mark)
        };
        for (seq, returns) in returned {
            let found = store
                .read(qid, seq..=seq, mark, 1, usize::MAX)?
                .pop()
                .map(|stored| Stored { returns, ..stored });
            let kept = match found {
                Some(stored) if self.may_be_delivered(store, &stored)? => {
                    store.set_returns(qid, seq, i64::from(returns))?;
                    Some(stored)
                }
                Some(_) | None => None,
            };
            self.back.push((seq, kept));
        }
        if unread == 0 {
            return Ok(());
        }
        for stored in store.read(qid, from..=to, mark, WINDOW / 2, WINDOW_BYTES / 2)? {
            self.last = Some(stored.seq);
            // Handed out by an earlier process, which did not settle it.
            if stored.seq <= mark {
                if !self.may_be_delivered(store, &stored)? {
                    self.killed_unread += 1;
                    continue;
                }
                store.set_returns(qid, stored.seq, i64::from(stored.returns))?;
            }
            self.read.push(stored);
        }
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), String>) -> Again {
        let mut state = self.queue.state.lock();
        state.refilling = false;
        if state.gone {
            return None;
        }
        match result {
            Err(cause) => state.failed = Some(cause),
            Ok(()) => {
                for (seq, kept) in self.back {
                    state.returned.remove(&seq);
                    if let Some(stored) = kept {
                        state.keep(stored);
                    }
                }
                if let Some(last) = self.last {
                    state.unread_from = last + 1;
                    state.unread -= self.read.len() as u64 + self.killed_unread;
                }
                for stored in self.read {
                    state.keep(stored);
                }
                state.dead += self.killed;
                self.shared.counters.dead_lettered.add(usize::try_from(self.killed).unwrap_or(0));
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
    moved: Vec<(Arc<Queue>, Stored)>,
    succeeded: Arc<AtomicBool>,
}

impl MoveDue {
    pub(super) fn new(shared: Arc<Shared>, succeeded: Arc<AtomicBool>) -> Self {
        Self { shared, moved: Vec::new(), succeeded }
    }
}

impl Work for MoveDue {
    fn run(&mut self, store: &Store) -> rusqlite::Result<()> {
        self.moved.clear();
        for Due { id, qid, mut stored } in store.due(self.shared.now().as_millis(), DUE_AT_ONCE)? {
            if let Some(queue) = self.shared.find_by_id(qid) {
                stored.seq = queue.state.lock().give_seq();
                store.insert(qid, stored.seq, stored.failures, stored.returns, &stored.message)?;
                self.moved.push((queue, stored));
            }
            store.remove_delayed(id)?;
        }
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), String>) -> Again {
        match result {
            Err(cause) => tracing::warn!(cause, "delayed messages could not be moved; trying again"),
            Ok(()) => {
                self.succeeded.store(true, Ordering::Relaxed);
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

/// Adds dead letters.
pub(super) struct AddDead {
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Arc<Queue>,
    pub(super) letters: Vec<NewDeadLetter>,
    pub(super) reply: Reply<()>,
}

impl Work for AddDead {
    fn run(&mut self, store: &Store) -> rusqlite::Result<()> {
        if self.queue.state.lock().gone {
            return Ok(());
        }
        let now = self.shared.now();
        self.letters.iter().try_for_each(|l| store.add_dead(self.queue.qid, now, &l.message, &l.failure))
    }

    fn done(self: Box<Self>, mut result: Result<(), String>) -> Again {
        if result.is_ok() {
            let mut state = self.queue.state.lock();
            if state.gone {
                result = Err("the queue was deleted meanwhile".to_owned());
            } else {
                state.dead += self.letters.len() as u64;
                self.shared.counters.dead_lettered.add(self.letters.len());
            }
        }
        tell(self.reply, result);
        None
    }

    fn weight(&self) -> usize {
        self.letters.len()
    }
}

/// Lists dead letters.
pub(super) struct ListDead {
    pub(super) queue: Arc<Queue>,
    pub(super) offset: usize,
    pub(super) limit: usize,
    pub(super) found: Vec<DeadLetter>,
    pub(super) reply: Reply<Vec<DeadLetter>>,
}

impl Work for ListDead {
    fn run(&mut self, store: &Store) -> rusqlite::Result<()> {
        self.found = store.dead(self.queue.qid, self.offset, self.limit)?;
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), String>) -> Again {
        let Self { found, reply, .. } = *self;
        tell(reply, result.map(|()| found));
        None
    }
}

/// What to do with the dead letters selected.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    Replay,
    Discard,
}

/// Replays or discards dead letters.
pub(super) struct EndDead {
    pub(super) queue: Arc<Queue>,
    pub(super) which: DeadLetterSelection,
    pub(super) fate: Fate,
    pub(super) ended: usize,
    pub(super) seqs: Vec<u64>,
    pub(super) reply: Reply<usize>,
}

impl Work for EndDead {
    fn run(&mut self, store: &Store) -> rusqlite::Result<()> {
        (self.ended, self.seqs) = (0, Vec::new());
        if self.queue.state.lock().gone {
            return Ok(());
        }
        let ids = store.select_dead(self.queue.qid, &self.which)?;
        self.ended = ids.len();
        for id in ids {
            match self.fate {
                Fate::Discard => store.bury(id)?,
                Fate::Replay => {
                    let seq = self.queue.state.lock().give_seq();
                    store.revive(id, self.queue.qid, seq)?;
                    self.seqs.push(seq);
                }
            }
        }
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), String>) -> Again {
        if result.is_ok() {
            let mut state = self.queue.state.lock();
            if !state.gone {
                state.dead -= self.ended as u64;
                for seq in self.seqs {
                    state.committed_unread(seq);
                }
            }
            drop(state);
            self.queue.arrived.notify_waiters();
        }
        tell(self.reply, result.map(|()| self.ended));
        None
    }

    fn weight(&self) -> usize {
        1000
    }
}
