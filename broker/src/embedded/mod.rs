//! Durable queues in one process, on SQLite.
//!
//! One thread owns the connection and commits whatever is waiting in one synced transaction, so that many small
//! publishes share a sync. What is about to be delivered is kept in a bounded window in memory, and consumers are woken when
//! a commit brings something; nothing polls. Counts live in memory and are read once, when the store is opened.
//!
//! What was confirmed survives `kill -9` and power failure. After either, unsettled messages are delivered again and
//! count one delivery more (after a power failure that count may be missing, see `marks`).

mod consumer;
mod lock;
mod marks;
mod queue;
mod store;
mod works;
mod writer;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, oneshot};

use self::consumer::EmbeddedConsumer;
use self::marks::Marks;
use self::queue::{Queue, State};
use self::store::Store;
use self::works::{AddDead, Declare, Delete, EndDead, Fate, Item, ListDead, Publish, Reply};
use self::writer::Work;
use crate::counts::Counters;
use crate::{
    Broker, BrokerError, Consumer, Counts, DeadLetter, DeadLetterSelection, DeleteWhen, Deleted, Depth,
    NewDeadLetter, Result, RetryPolicy,
};
use galerna_model::{Clock, Message, QueueName, SystemClock, Timestamp};

/// How an embedded broker behaves.
#[derive(Debug, Clone)]
pub struct EmbeddedOptions {
    /// Redelivery and dead letters.
    pub retry: RetryPolicy,
    /// Longest time any call may take; 30 s by default.
    pub timeout: Duration,
    /// The store may not grow beyond about this many bytes (its log of up to some 16 MB not counted). Publishing beyond
    /// it is an error. No limit by default.
    pub max_bytes: Option<u64>,
}

impl Default for EmbeddedOptions {
    fn default() -> Self {
        Self { retry: RetryPolicy::default(), timeout: Duration::from_secs(30), max_bytes: None }
    }
}

/// Most works waiting for the writer before callers wait.
const BACKLOG: usize = 1024;

/// What the writer thread and the callers share.
#[derive(Debug)]
struct Shared {
    queues: RwLock<Queues>,
    marks: Marks,
    policy: RetryPolicy,
    counters: Counters,
    /// Wall time and monotonic time of the opening: delays do not follow a wall clock that jumps.
    opened: (Timestamp, Instant),
    /// Works sent and not yet done.
    waiting: AtomicUsize,
    /// Told when `waiting` falls below its bound.
    room: Notify,
}

#[derive(Debug, Default)]
struct Queues {
    by_name: HashMap<QueueName, Arc<Queue>>,
    by_id: HashMap<i64, Arc<Queue>>,
}

impl Shared {
    fn now(&self) -> Timestamp {
        let millis = i64::try_from(self.opened.1.elapsed().as_millis()).unwrap_or(i64::MAX);
        self.opened.0.plus_millis(millis)
    }

    fn find(&self, name: &QueueName) -> Option<Arc<Queue>> {
        self.queues.read().by_name.get(name).cloned()
    }

    fn find_by_id(&self, qid: i64) -> Option<Arc<Queue>> {
        self.queues.read().by_id.get(&qid).cloned()
    }

    fn add(&self, queue: Queue) {
        let queue = Arc::new(queue);
        let mut queues = self.queues.write();
        queues.by_id.insert(queue.qid, Arc::clone(&queue));
        queues.by_name.insert(queue.name.clone(), queue);
    }

    fn remove(&self, queue: &Queue) {
        let mut queues = self.queues.write();
        queues.by_id.remove(&queue.qid);
        queues.by_name.remove(&queue.name);
    }
}

/// A work that tells when it is done, which bounds how many may wait.
struct Counted {
    work: Box<dyn Work>,
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

impl Work for Counted {
    fn run(&mut self, store: &Store) -> rusqlite::Result<()> {
        self.work.run(store)
    }

    fn done(self: Box<Self>, result: Result<(), String>) -> Option<Box<dyn Work>> {
        let Self { work, ticket } = *self;
        let again = work.done(result)?;
        Some(Box::new(Self { work: again, ticket }))
    }

    fn weight(&self) -> usize {
        self.work.weight()
    }

    fn alone(&self) -> bool {
        self.work.alone()
    }
}

struct Inner {
    shared: Arc<Shared>,
    works: Option<mpsc::Sender<Box<dyn Work>>>,
    writer: Option<JoinHandle<()>>,
    timeout: Duration,
    generations: AtomicU64,
    /// Held until the writer has ended; taken out of the process's list of open stores afterwards.
    lock: Option<lock::StoreLock>,
}

impl Inner {
    /// Hands a work to the writer without waiting for room.
    fn send_now(&self, work: Box<dyn Work>) {
        self.shared.waiting.fetch_add(1, Ordering::AcqRel);
        let counted = Counted { work, ticket: Ticket(Arc::clone(&self.shared)) };
        if let Some(works) = &self.works {
            // The writer ends only after this sender is dropped.
            drop(works.send(Box::new(counted)));
        }
    }

    fn submit_now<T>(
        &self,
        work: impl FnOnce(Reply<T>) -> Box<dyn Work>,
    ) -> oneshot::Receiver<Result<T, String>> {
        let (reply, answer) = oneshot::channel();
        self.send_now(work(reply));
        answer
    }

    /// Waits until the writer has caught up to within its bound.
    async fn room(&self) -> Result<()> {
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

    async fn answer<T>(&self, attempted: String, answer: oneshot::Receiver<Result<T, String>>) -> Result<T> {
        match tokio::time::timeout(self.timeout, answer).await {
            Err(_) => Err(self.late(attempted)),
            Ok(Ok(Ok(value))) => Ok(value),
            Ok(Ok(Err(cause))) => Err(BrokerError::Embedded { attempted, cause }),
            Ok(Err(_)) => {
                Err(BrokerError::Embedded { attempted, cause: "its writer thread has ended".to_owned() })
            }
        }
    }

    fn late(&self, attempted: String) -> BrokerError {
        BrokerError::Timeout {
            attempted,
            millis: u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX),
        }
    }

    async fn call<T>(&self, attempted: String, work: impl FnOnce(Reply<T>) -> Box<dyn Work>) -> Result<T> {
        self.room().await?;
        let answer = self.submit_now(work);
        self.answer(attempted, answer).await
    }

    /// Waits until everything sent so far is committed.
    async fn flush(&self) -> Result<()> {
        self.call("flushing".to_owned(), |reply| Box::new(Flush(reply))).await
    }

    fn queue(&self, name: &QueueName) -> Result<Arc<Queue>> {
        self.shared.find(name).ok_or_else(|| BrokerError::UnknownQueue(name.clone()))
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        drop(self.works.take());
        if let Some(writer) = self.writer.take() {
            // It commits what was sent; a panic in it has been reported by its own thread.
            drop(writer.join());
        }
        drop(self.lock.take());
    }
}

struct Flush(Reply<()>);

impl Work for Flush {
    fn run(&mut self, _: &Store) -> rusqlite::Result<()> {
        Ok(())
    }

    fn done(self: Box<Self>, result: Result<(), String>) -> Option<Box<dyn Work>> {
        drop(self.0.send(result));
        None
    }
}

/// Queues in a file, for one process. Clones share it, as do handles that the process opens on the same path.
#[derive(Clone)]
pub struct EmbeddedBroker(Arc<Inner>);

impl std::fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedBroker").field("queues", &self.0.shared.queues.read().by_name.len()).finish()
    }
}

/// The stores that this process has open, by path.
static OPEN: Mutex<Option<HashMap<PathBuf, std::sync::Weak<Inner>>>> = Mutex::new(None);

impl EmbeddedBroker {
    /// Opens or creates the store at `path`, a file. Beside it lie `path-wal`, `path-shm` (SQLite's), `path-marks` and
    /// `path-lock`. The file is opened on the calling thread, which takes a while when it holds a large backlog.
    ///
    /// # Errors
    /// [`BrokerError::Embedded`] when another process has it open, or it cannot be read or written.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::open_with(path, EmbeddedOptions::default())
    }

    /// As [`Self::open`], with options. A store that this process has open already keeps the options it was opened with.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(path: impl AsRef<Path>, options: EmbeddedOptions) -> Result<Self> {
        let path = path.as_ref();
        let failed =
            |cause: String| BrokerError::Embedded { attempted: format!("opening {}", path.display()), cause };
        if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
            std::fs::create_dir_all(folder).map_err(|e| failed(e.to_string()))?;
        }
        let lock_path = lock::beside(path, "lock");
        // Held while opening, so that two threads do not open the same store twice.
        let mut open = OPEN.lock();
        let open = open.get_or_insert_default();
        open.retain(|_, inner| inner.strong_count() > 0);
        let lock = lock::StoreLock::file(&lock_path).map_err(&failed)?;
        let key = lock_path.canonicalize().map_err(|e| failed(e.to_string()))?;
        if let Some(inner) = open.get(&key).and_then(std::sync::Weak::upgrade) {
            return Ok(Self(inner));
        }
        let lock = lock.take().map_err(&failed)?;
        let store = Store::open(path, options.max_bytes).map_err(|e| failed(e.to_string()))?;
        let marks = Marks::open(&lock::beside(path, "marks")).map_err(|e| failed(e.to_string()))?;
        let inner = Arc::new(Self::start(store, marks, Some(lock), options).map_err(failed)?);
        open.insert(key, Arc::downgrade(&inner));
        Ok(Self(inner))
    }

    /// Queues that end with the last handle, for tests.
    ///
    /// # Errors
    /// [`BrokerError::Embedded`] when SQLite or the thread cannot be started.
    pub fn in_memory(options: EmbeddedOptions) -> Result<Self> {
        let failed = |cause: String| BrokerError::Embedded {
            attempted: "opening a store in memory".to_owned(),
            cause,
        };
        let store = Store::in_memory(options.max_bytes).map_err(|e| failed(e.to_string()))?;
        Ok(Self(Arc::new(Self::start(store, Marks::in_memory(), None, options).map_err(failed)?)))
    }

    fn start(
        store: Store,
        marks: Marks,
        lock: Option<lock::StoreLock>,
        options: EmbeddedOptions,
    ) -> Result<Inner, String> {
        let shared = Shared {
            queues: RwLock::default(),
            marks,
            policy: options.retry,
            counters: Counters::default(),
            opened: (SystemClock.now(), Instant::now()),
            waiting: AtomicUsize::new(0),
            room: Notify::new(),
        };
        for found in store.contents().map_err(|e| e.to_string())? {
            let mark = shared.marks.read(found.qid);
            let last = found.last_seq.max(mark);
            let state = State {
                unread: found.messages,
                last_seq: last,
                next_seq: last,
                mark,
                delayed: found.delayed,
                dead: found.dead,
                ..State::default()
            };
            shared.add(Queue {
                name: found.name,
                qid: found.qid,
                state: Mutex::new(state),
                arrived: Notify::new(),
            });
        }
        let shared = Arc::new(shared);
        let (works, waiting) = mpsc::channel();
        let writer = std::thread::Builder::new()
            .name("galerna-embedded-broker".to_owned())
            .spawn({
                let shared = Arc::clone(&shared);
                move || writer::run(store, &waiting, &shared)
            })
            .map_err(|e| e.to_string())?;
        Ok(Inner {
            shared,
            works: Some(works),
            writer: Some(writer),
            timeout: options.timeout,
            generations: AtomicU64::new(1),
            lock,
        })
    }

    async fn end_dead(&self, name: &QueueName, which: DeadLetterSelection, fate: Fate) -> Result<usize> {
        let queue = self.0.queue(name)?;
        let verb = if fate == Fate::Replay { "replaying" } else { "discarding" };
        self.0
            .call(format!("{verb} dead letters of queue `{name}`"), |reply| {
                Box::new(EndDead { queue, which, fate, ended: 0, seqs: Vec::new(), reply })
            })
            .await
    }
}

#[async_trait]
impl Broker for EmbeddedBroker {
    fn kind(&self) -> &'static str {
        "embedded"
    }

    async fn declare(&self, queue: &QueueName) -> Result<()> {
        crate::error::check_not_reserved(queue)?;
        if self.0.shared.find(queue).is_some() {
            return Ok(());
        }
        let (shared, name) = (Arc::clone(&self.0.shared), queue.clone());
        self.0
            .call(format!("declaring queue `{queue}`"), |reply| {
                Box::new(Declare { shared, name, created: None, reply })
            })
            .await
    }

    async fn delete(&self, queue: &QueueName, when: DeleteWhen) -> Result<Deleted> {
        let (shared, name) = (Arc::clone(&self.0.shared), queue.clone());
        self.0
            .call(format!("deleting queue `{queue}`"), |reply| {
                Box::new(Delete { shared, name, when, deleted: None, reply })
            })
            .await
    }

    async fn publish(&self, window: Vec<(QueueName, Message)>) -> Result<()> {
        let total = window.len();
        self.0.shared.counters.published.add(total);
        let mut items = Vec::with_capacity(total);
        let mut unknown = Vec::new();
        {
            let queues = self.0.shared.queues.read();
            for (index, (name, message)) in window.into_iter().enumerate() {
                match queues.by_name.get(&name) {
                    Some(queue) => items.push(Item { queue: Arc::clone(queue), index, message }),
                    None => unknown.push((index, name)),
                }
            }
        }
        let names: Vec<(usize, QueueName)> = items.iter().map(|i| (i.index, i.queue.name.clone())).collect();
        if !items.is_empty() {
            let seqs = Vec::with_capacity(items.len());
            let gone = self
                .0
                .call(format!("publishing {} messages", items.len()), |reply| {
                    Box::new(Publish { items, seqs, reply })
                })
                .await?;
            unknown.extend(names.into_iter().filter(|(index, _)| gone.contains(index)));
        }
        self.0.shared.counters.confirmed.add(total - unknown.len());
        unknown.sort_unstable_by_key(|(index, _)| *index);
        match unknown.first() {
            None => Ok(()),
            Some((_, first)) => Err(BrokerError::Unconfirmed {
                cause: BrokerError::UnknownQueue(first.clone()).to_string(),
                unconfirmed: unknown.into_iter().map(|(index, _)| index).collect(),
                total,
            }),
        }
    }

    async fn consume(&self, queue: &QueueName, prefetch: u16) -> Result<Box<dyn Consumer>> {
        let queue = self.0.queue(queue)?;
        let generation = self.0.generations.fetch_add(1, Ordering::Relaxed);
        Ok(Box::new(EmbeddedConsumer::new(Arc::clone(&self.0), queue, prefetch, generation)))
    }

    async fn depth(&self, queue: &QueueName) -> Result<Depth> {
        Ok(self.0.queue(queue)?.state.lock().depth())
    }

    async fn depths(&self) -> Result<Vec<(QueueName, Depth)>> {
        let queues = self.0.shared.queues.read();
        Ok(queues.by_name.values().map(|q| (q.name.clone(), q.state.lock().depth())).collect())
    }

    async fn dead_letter(&self, queue: &QueueName, letters: Vec<NewDeadLetter>) -> Result<()> {
        let shared = Arc::clone(&self.0.shared);
        let attempted = format!("adding {} dead letters to queue `{queue}`", letters.len());
        let queue = self.0.queue(queue)?;
        self.0.call(attempted, |reply| Box::new(AddDead { shared, queue, letters, reply })).await
    }

    async fn dead_letters(&self, queue: &QueueName, offset: usize, limit: usize) -> Result<Vec<DeadLetter>> {
        let attempted = format!("listing the dead letters of queue `{queue}`");
        let queue = self.0.queue(queue)?;
        self.0
            .call(attempted, |reply| Box::new(ListDead { queue, offset, limit, found: Vec::new(), reply }))
            .await
    }

    async fn dead_letter_counts(&self) -> Result<Vec<(QueueName, u64)>> {
        let queues = self.0.shared.queues.read();
        let counts = queues.by_name.values().map(|q| (q.name.clone(), q.state.lock().dead));
        Ok(counts.filter(|(_, dead)| *dead > 0).collect())
    }

    async fn replay(&self, queue: &QueueName, which: DeadLetterSelection) -> Result<usize> {
        self.end_dead(queue, which, Fate::Replay).await
    }

    async fn discard(&self, queue: &QueueName, which: DeadLetterSelection) -> Result<usize> {
        self.end_dead(queue, which, Fate::Discard).await
    }

    async fn ping(&self) -> Result<()> {
        self.0.flush().await
    }

    fn counts(&self) -> Counts {
        self.0.shared.counters.snapshot()
    }
}
