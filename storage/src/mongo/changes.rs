//! Which queue states changed, told from the stamps that the server puts on them.
//!
//! Every write stamps its document with the server's cluster time, which never repeats and, on a replica set, never goes
//! back. The stamp is taken a moment before the write can be seen, so a reader may see stamp 6 while the write with stamp 5
//! is still under way: reading on from 6 would miss 5 for ever. Each call therefore looks back [`OVERLAP`] behind the
//! newest stamp of the call before, until a read that began that much later has found nothing. That is enough: the server ends a command that has worked for
//! [`WRITE_TIME`](super::commands::WRITE_TIME), so no write is seen later than that after its stamp was taken. (On a
//! standalone server whose clock was set back across a restart, stamps go back; a call that notices answers with
//! everything.)
//!
//! Stamps and ids stand in one index and are compared with those that were given before: only documents whose stamp is
//! new are read. Where more than [`MANY`] queues changed lately even that is much, and nearly all writes are seen in the
//! order of their stamps; so most calls then look back only [`NEARBY`] stamps, and the whole way as often as
//! [`LOOK_BACK_EVERY`]. What was given is remembered here, per cursor; a cursor that is not known here, as from another
//! process, is answered with everything.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{Timestamp, doc};
use galerna_lock::Mutex;
use serde::Deserialize;

use super::Mongo;
use super::indexes::QUEUES;
use galerna_model::QueueName;

use crate::{Changes, QueueRecord, Result};

/// How far to look back; more than a write command may take.
const OVERLAP: Duration = super::commands::WRITE_TIME.saturating_add(Duration::from_secs(2));
const NEVER: Timestamp = Timestamp { time: 0, increment: 0 };
/// So many stamps are looked through by every call.
const MANY: usize = 5_000;
/// How often to look back all the way when they are more.
const LOOK_BACK_EVERY: Duration = Duration::from_millis(500);
/// How many stamps to look back otherwise, within one second.
const NEARBY: u32 = 4_000;

/// Cursors remembered; each reader needs two.
const CURSORS: usize = 64;

/// What was given up to a cursor.
#[derive(Clone)]
struct Given {
    /// Writes with stamps before this one have all been seen.
    from: Timestamp,
    /// The newest stamp given.
    reached: Timestamp,
    /// When `reached` was first seen.
    seen: Instant,
    /// When all from `from` on was last looked at.
    looked: Instant,
    /// The stamps that look found, by queue.
    recent: Arc<HashMap<String, Timestamp>>,
    /// The newer ones that nearer looks have found since.
    newer: HashMap<String, Timestamp>,
}

impl Given {
    /// What a look at everything from some stamp on gave, begun at `looked`.
    fn new(stamps: impl IntoIterator<Item = (String, Timestamp)>, looked: Instant) -> Self {
        let mut recent: HashMap<String, Timestamp> = stamps.into_iter().collect();
        let reached = recent.values().copied().max().unwrap_or(NEVER);
        // While this was read, documents read before may have changed.
        let back = (OVERLAP + looked.elapsed()).as_secs() + 1;
        let from = Timestamp { time: reached.time.saturating_sub(back as u32), increment: 0 };
        recent.retain(|_, stamp| *stamp >= from);
        Self { from, reached, seen: Instant::now(), looked, recent: Arc::new(recent), newer: HashMap::new() }
    }

    /// The same and these, which a nearer look found.
    fn and(&self, stamps: impl IntoIterator<Item = (String, Timestamp)>) -> Self {
        let mut more = self.clone();
        more.newer.extend(stamps);
        more.reached = more.newer.values().copied().max().unwrap_or(NEVER).max(self.reached);
        if more.reached != self.reached {
            more.seen = Instant::now();
        }
        more
    }

    fn has(&self, stamped: &Stamped) -> bool {
        let given = self.newer.get(&stamped.queue).or_else(|| self.recent.get(&stamped.queue));
        given == Some(&stamped.modified)
    }

    /// From where on to look nearby.
    fn nearby(&self) -> Timestamp {
        let increment = self.reached.increment.saturating_sub(NEARBY);
        Timestamp { time: self.reached.time, increment }.max(self.from)
    }

    /// The same, when a look at everything that began at `read` found nothing new. All stamps up to `reached` were taken
    /// before it was seen; when that was long enough ago, that look has seen their writes, and nobody need look back behind
    /// it again.
    fn settle(&self, read: Instant) -> Self {
        let mut kept = Self { looked: read, ..self.clone() };
        if self.from != self.reached && read.duration_since(self.seen) >= OVERLAP {
            let mut recent = HashMap::clone(&self.recent);
            recent.extend(kept.newer.drain());
            recent.retain(|_, stamp| *stamp >= self.reached);
            kept.recent = Arc::new(recent);
            kept.from = self.reached;
        }
        kept
    }
}

/// The cursors given out.
pub(super) struct Cursors(Mutex<GivenCursors>);

struct GivenCursors {
    next: u64,
    given: VecDeque<(u64, Option<u64>, Arc<Given>)>,
}

impl Cursors {
    pub(super) fn new() -> Self {
        // Started anywhere, so that the cursors of two processes do not meet; never 0, which is nobody's.
        let next = RandomState::new().build_hasher().finish() / 2 + 1;
        Self(Mutex::new(GivenCursors { next, given: VecDeque::new() }))
    }

    /// What was given up to this cursor. Its reader has moved on to it, so the one it came from is forgotten.
    fn known(&self, cursor: u64) -> Option<Arc<Given>> {
        let mut known = self.0.lock();
        let (_, before, given) = known.given.iter().find(|(c, ..)| *c == cursor)?;
        let (before, given) = (*before, Arc::clone(given));
        known.given.retain(|(c, ..)| Some(*c) != before);
        Some(given)
    }

    /// Puts what was given up to a cursor in another way.
    fn replace(&self, cursor: u64, given: Given) {
        if let Some((.., known)) = self.0.lock().given.iter_mut().find(|(c, ..)| *c == cursor) {
            *known = Arc::new(given);
        }
    }

    /// A cursor for what was given, to go on from `before`.
    fn put(&self, before: u64, given: Given) -> u64 {
        let mut known = self.0.lock();
        let cursor = known.next;
        known.next += 1;
        known.given.push_back((cursor, Some(before), Arc::new(given)));
        if known.given.len() > CURSORS {
            known.given.pop_front();
        }
        cursor
    }
}

#[derive(Deserialize)]
struct Stamped {
    #[serde(rename = "_id")]
    queue: String,
    modified: Timestamp,
}

impl Mongo {
    pub(super) async fn changed_since(&self, cursor: u64) -> Result<Changes> {
        match self.cursors.known(cursor) {
            Some(given) => match self.changed_after(cursor, &given).await? {
                Some(changes) => Ok(changes),
                None => self.everything(cursor).await,
            },
            None => self.everything(cursor).await,
        }
    }

    async fn everything(&self, cursor: u64) -> Result<Changes> {
        let began = Instant::now();
        let states = self.collection(QUEUES);
        let find = states.find(super::queues::live()).read_concern(self.settled()).batch_size(10_000);
        let documents: Vec<super::queues::QueueDocument> =
            self.collect("reading the changes of queue states", find).await?;
        let mut records = Vec::with_capacity(documents.len());
        let mut stamps = Vec::with_capacity(documents.len());
        for document in documents {
            let modified = document.modified;
            let record = QueueRecord::from(document);
            stamps.push((record.queue.to_string(), modified));
            records.push(record);
        }
        let given = Given::new(stamps, began);
        Ok(Changes { records, removed: Vec::new(), cursor: self.cursors.put(cursor, given) })
    }

    /// `None` when the stamps have gone back.
    async fn changed_after(&self, cursor: u64, given: &Given) -> Result<Option<Changes>> {
        let attempted = "reading the changes of queue states";
        let began = Instant::now();
        let few = given.recent.len() + given.newer.len() <= MANY;
        let far = few || began.duration_since(given.looked) >= LOOK_BACK_EVERY;
        let from = if far { given.from } else { given.nearby() };
        let states = self.collection::<Stamped>(QUEUES);
        let find = states
            .find(doc! { "modified": { "$gte": from } })
            .projection(doc! { "_id": 1, "modified": 1 })
            .hint(mongodb::options::Hint::Name("modified_id".to_owned()))
            .read_concern(self.settled())
            .batch_size(10_000);
        let stamped = self.collect(attempted, find).await?;
        // The document that had the newest stamp still has it or a newer one, unless stamps went back.
        if stamped.iter().map(|s| s.modified).max().is_none_or(|newest| newest < given.reached) {
            let empty = given.reached == NEVER && stamped.is_empty();
            return Ok(empty.then(|| Changes { records: Vec::new(), removed: Vec::new(), cursor }));
        }
        let news: Vec<&str> = stamped.iter().filter(|s| !given.has(s)).map(|s| s.queue.as_str()).collect();
        if news.is_empty() {
            if far {
                self.cursors.replace(cursor, given.settle(began));
            }
            return Ok(Some(Changes { records: Vec::new(), removed: Vec::new(), cursor }));
        }
        let documents = self.records(attempted, &news).await?;
        let mut gone: HashSet<&str> = news.into_iter().collect();
        let mut records = Vec::with_capacity(documents.len());
        // The stamps of what is given, not of what was seen first: another primary may have answered the second read, and
        // it may yet have to catch up.
        let mut read = HashMap::with_capacity(documents.len());
        for document in documents {
            let modified = document.modified;
            let record = QueueRecord::from(document);
            gone.remove(record.queue.as_str());
            read.insert(record.queue.to_string(), modified);
            records.push(record);
        }
        let removed = gone.into_iter().filter_map(|queue| QueueName::new(queue).ok()).collect();
        let stamps = stamped.into_iter().map(|s| {
            let modified = read.get(&s.queue).copied().unwrap_or(s.modified);
            (s.queue, modified)
        });
        let given = if far { Given::new(stamps, began) } else { given.and(stamps) };
        Ok(Some(Changes { records, removed, cursor: self.cursors.put(cursor, given) }))
    }
}
