//! Durable queues in one process, on SQLite.
//!
//! One thread commits whatever is waiting in one synced transaction ([`galerna_sqlite::Writer`]), so that many small
//! publishes share a sync. What is about to be delivered is kept in a bounded window in memory, and consumers are woken when
//! a commit brings something; nothing polls. Counts live in memory and are read once, when the store is opened.
//!
//! What was confirmed survives `kill -9` and power failure. After either, unsettled messages are delivered again and
//! count one delivery more (after a power failure that count may be missing, see `marks`).

mod calls;
mod consumer;
mod dead_letters;
mod disk;
mod jobs;
mod marks;
mod queue;
mod tables;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use galerna_lock::{Mutex, RwLock};
use galerna_sqlite::{Host, Job, Limits, OpenError, Session, Stored, Tuning, Writer};
use tokio::sync::Notify;

use self::calls::OpenStore;
use self::consumer::EmbeddedConsumer;
use self::dead_letters::{AddDead, DeadLetterAction, EndDead, ListDead, Peek};
use self::disk::{Disk, Probe};
use self::jobs::{Declare, Delete, Item, MoveDue, Publish};
use self::marks::Marks;
use self::queue::{Queue, State};
use self::tables::{FORMAT, Tables};
use crate::counts::Counters;
use crate::{
    Broker, BrokerError, BrokerHealth, Consumer, Counts, DeadLetter, DeadLetterSelection, DeleteWhen,
    Deleted, Depth, NewDeadLetter, Result, RetryPolicy, WaitingMessage,
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

/// A transaction takes no further jobs after this: long, since few of them wait for it.
const GROUP_TIME: Duration = Duration::from_millis(100);

/// What the writer and the callers share.
#[derive(Debug)]
struct Shared {
    queues: RwLock<Queues>,
    marks: Marks,
    policy: RetryPolicy,
    counters: Counters,
    disk: Disk,
    /// Wall time and monotonic time of the opening: delays do not follow a wall clock that jumps.
    opened: (Timestamp, Instant),
    /// Jobs sent and not yet done.
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

/// What the writer thread has beside the connection.
#[derive(Debug)]
struct EmbeddedSession(Arc<Shared>);

impl Session for EmbeddedSession {
    fn next_due(&mut self, connection: &rusqlite::Connection) -> Option<Duration> {
        let due = Tables(connection).next_due().ok().flatten()?;
        let millis = due.saturating_sub(self.0.now().as_millis());
        Some(Duration::from_millis(u64::try_from(millis).unwrap_or(0)))
    }

    fn due(&mut self) -> Option<Box<dyn Job<Self>>> {
        Some(Box::new(MoveDue::new(Arc::clone(&self.0))))
    }
}

/// Queues in a file, for one process. Clones share it, as do handles that the process opens on the same path.
#[derive(Clone)]
pub struct EmbeddedBroker(Arc<OpenStore>);

impl std::fmt::Debug for EmbeddedBroker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EmbeddedBroker").field("queues", &self.0.shared.queues.read().by_name.len()).finish()
    }
}

/// The stores that this process has open, by path.
static OPEN: Mutex<Option<HashMap<PathBuf, std::sync::Weak<OpenStore>>>> = Mutex::new(None);

impl EmbeddedBroker {
    /// Opens or creates the store at `path`, a file. Beside it lie `path-wal`, `path-shm` (SQLite's), `path-marks` and
    /// `path-lock`. The file is opened, and read through unless it was closed in good order, on the calling thread, which
    /// takes a while when it holds a large backlog.
    ///
    /// # Errors
    /// [`BrokerError::Embedded`] when another process has it open, it cannot be read or written, it is damaged, or not a
    /// store of this broker.
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
        // Held while opening, so that two threads do not open the same store twice.
        let mut open = OPEN.lock();
        let open = open.get_or_insert_default();
        open.retain(|_, store| store.upgrade().is_some_and(|store| !store.writer.is_closed()));
        if let Some(store) =
            path.canonicalize().ok().and_then(|key| open.get(&key)).and_then(std::sync::Weak::upgrade)
        {
            return Ok(Self(store));
        }
        let tuning = Tuning {
            page_bytes: 8192,
            // 16 MB.
            log_pages: 2000,
            cache_kib: 32_000,
            max_bytes: options.max_bytes,
        };
        let opened = FORMAT.open(path, &tuning).map_err(|e| match e {
            OpenError::InUse(_) => {
                failed("another process has it open; several processes need RabbitMQ (amqp://…)".to_owned())
            }
            e => failed(e.to_string()),
        })?;
        let mut marks_path = path.as_os_str().to_owned();
        marks_path.push("-marks");
        let marks_path = PathBuf::from(marks_path);
        let marks = Marks::open(&marks_path, opened.store_id())
            .map_err(|e| failed(format!("{}: {e}", marks_path.display())))?;
        let shared =
            shared(Tables(opened.connection()), marks, &options).map_err(|e| failed(e.to_string()))?;
        let stored = opened.into_session(EmbeddedSession(Arc::clone(&shared)));
        let store = Arc::new(Self::start(shared, stored, &options).map_err(|e| failed(e.to_string()))?);
        let key = path.canonicalize().map_err(|e| failed(e.to_string()))?;
        open.insert(key, Arc::downgrade(&store));
        Ok(Self(store))
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
        let mut known = None;
        let stored = Stored::in_memory(|connection| {
            tables::create(connection)?;
            Tuning { max_bytes: options.max_bytes, ..Tuning::default() }.limit(connection)?;
            let shared = shared(Tables(connection), Marks::in_memory(), &options)?;
            known = Some(Arc::clone(&shared));
            Ok(EmbeddedSession(shared))
        });
        let stored = stored.map_err(|e| failed(e.to_string()))?;
        let shared = known.ok_or_else(|| failed("it has no tables".to_owned()))?;
        let store = Self::start(shared, stored, &options).map_err(|e| failed(e.to_string()))?;
        Ok(Self(Arc::new(store)))
    }

    fn start(
        shared: Arc<Shared>,
        stored: Stored<EmbeddedSession>,
        options: &EmbeddedOptions,
    ) -> std::io::Result<OpenStore> {
        let limits = Limits { time: GROUP_TIME, ..Limits::default() };
        let writer = Writer::start(stored, limits, Host::Thread("galerna-embedded-broker"))?;
        Ok(OpenStore { shared, writer, timeout: options.timeout, generations: AtomicU64::new(1) })
    }

    async fn end_dead(
        &self,
        name: &QueueName,
        which: DeadLetterSelection,
        action: DeadLetterAction,
    ) -> Result<usize> {
        let queue = self.0.queue(name)?;
        let verb = if action == DeadLetterAction::Replay { "replaying" } else { "discarding" };
        self.0
            .call(format!("{verb} dead letters of queue `{name}`"), |reply| {
                Box::new(EndDead { queue, which, action, ended: 0, seqs: Vec::new(), reply })
            })
            .await
    }
}

/// What is known of the queues in the tables.
fn shared(tables: Tables<'_>, marks: Marks, options: &EmbeddedOptions) -> rusqlite::Result<Arc<Shared>> {
    let shared = Shared {
        queues: RwLock::default(),
        marks,
        policy: options.retry.clone(),
        counters: Counters::default(),
        disk: Disk::default(),
        opened: (SystemClock.now(), Instant::now()),
        waiting: AtomicUsize::new(0),
        room: Notify::new(),
    };
    for found in tables.contents()? {
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
    Ok(Arc::new(shared))
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
            let shared = Arc::clone(&self.0.shared);
            let gone = self
                .0
                .call(format!("publishing {} messages", items.len()), |reply| {
                    Box::new(Publish { shared, items, seqs, reply })
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

    async fn peek(&self, queue: &QueueName, limit: usize) -> Result<Vec<WaitingMessage>> {
        let attempted = format!("looking at the messages of queue `{queue}`");
        let queue = self.0.queue(queue)?;
        self.0.call(attempted, |reply| Box::new(Peek { queue, limit, found: Vec::new(), reply })).await
    }

    async fn dead_letter_counts(&self) -> Result<Vec<(QueueName, u64)>> {
        let queues = self.0.shared.queues.read();
        let counts = queues.by_name.values().map(|q| (q.name.clone(), q.state.lock().dead));
        Ok(counts.filter(|(_, dead)| *dead > 0).collect())
    }

    async fn replay(&self, queue: &QueueName, which: DeadLetterSelection) -> Result<usize> {
        self.end_dead(queue, which, DeadLetterAction::Replay).await
    }

    async fn discard(&self, queue: &QueueName, which: DeadLetterSelection) -> Result<usize> {
        self.end_dead(queue, which, DeadLetterAction::Discard).await
    }

    async fn ping(&self) -> Result<()> {
        self.0.flush().await
    }

    async fn health(&self) -> BrokerHealth {
        let disk = &self.0.shared.disk;
        if disk.wants_probe() {
            for remove in [false, true] {
                let probe = self.0.submit_now(|reply| Box::new(Probe { remove, reply }));
                match probe.await {
                    Ok(result) => disk.note(&result),
                    Err(_) => break,
                }
                if disk.full().is_some() {
                    break;
                }
            }
        }
        match disk.full() {
            Some(reason) => BrokerHealth::Blocked { reason },
            None => BrokerHealth::Ready,
        }
    }

    async fn close(&self) -> Result<()> {
        let store = Arc::clone(&self.0);
        let closed = tokio::task::spawn_blocking(move || store.writer.close()).await;
        closed.map_err(|e| BrokerError::Embedded {
            attempted: "closing the store".to_owned(),
            cause: e.to_string(),
        })
    }

    fn counts(&self) -> Counts {
        self.0.shared.counters.snapshot()
    }
}
