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
//! To look back costs little, since stamps and ids stand in one index and are compared with those that the last call gave:
//! only documents whose stamp is new are read. What was given is remembered here, per cursor; a cursor that is not known
//! here, as from another process, is answered with everything.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bson::{Timestamp, doc};
use parking_lot::Mutex;
use serde::Deserialize;

use super::Mongo;
use super::indexes::QUEUES;
use galerna_broker::QueueName;

use crate::{Changes, QueueRecord, Result};

/// How far to look back; more than a write command may take.
const OVERLAP: Duration = super::commands::WRITE_TIME.saturating_add(Duration::from_secs(2));
const NEVER: Timestamp = Timestamp { time: 0, increment: 0 };

/// Cursors remembered; each reader needs two.
const CURSORS: usize = 64;

/// What was given up to a cursor.
struct Given {
    /// Writes with stamps before this one have all been seen.
    from: Timestamp,
    /// The newest stamp given.
    reached: Timestamp,
    /// When `reached` was first seen.
    seen: Instant,
    /// The stamps given from `from` on, by queue.
    recent: HashMap<String, Timestamp>,
}

impl Given {
    fn new(stamps: impl IntoIterator<Item = (String, Timestamp)>) -> Self {
        let mut recent: HashMap<String, Timestamp> = stamps.into_iter().collect();
        let reached = recent.values().copied().max().unwrap_or(NEVER);
        let from = Timestamp { time: reached.time.saturating_sub(OVERLAP.as_secs() as u32), increment: 0 };
        recent.retain(|_, stamp| *stamp >= from);
        Self { from, reached, seen: Instant::now(), recent }
    }

    /// The same, when a read that began at `read` found nothing new. All stamps up to `reached` were taken before it was
    /// seen; when that was long enough ago, that read has seen their writes, and nobody need look back behind it again.
    fn settle(&self, read: Instant) -> Option<Self> {
        if self.from == self.reached || read.duration_since(self.seen) < OVERLAP {
            return None;
        }
        let mut recent = self.recent.clone();
        recent.retain(|_, stamp| *stamp >= self.reached);
        Some(Self { from: self.reached, reached: self.reached, seen: self.seen, recent })
    }
}

/// The cursors given out.
pub(super) struct Cursors(Mutex<Known>);

struct Known {
    next: u64,
    given: VecDeque<(u64, Option<u64>, Arc<Given>)>,
}

impl Cursors {
    pub(super) fn new() -> Self {
        // Started anywhere, so that the cursors of two processes do not meet; never 0, which is nobody's.
        let next = RandomState::new().build_hasher().finish() / 2 + 1;
        Self(Mutex::new(Known { next, given: VecDeque::new() }))
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
        let given = Given::new(stamps);
        Ok(Changes { records, removed: Vec::new(), cursor: self.cursors.put(cursor, given) })
    }

    /// `None` when the stamps have gone back.
    async fn changed_after(&self, cursor: u64, given: &Given) -> Result<Option<Changes>> {
        let attempted = "reading the changes of queue states";
        let began = Instant::now();
        let states = self.collection::<Stamped>(QUEUES);
        let find = states
            .find(doc! { "modified": { "$gte": given.from } })
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
        let news: Vec<&str> = stamped
            .iter()
            .filter(|s| given.recent.get(&s.queue) != Some(&s.modified))
            .map(|s| s.queue.as_str())
            .collect();
        if news.is_empty() {
            if let Some(settled) = given.settle(began) {
                self.cursors.replace(cursor, settled);
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
        let given = Given::new(stamps);
        Ok(Some(Changes { records, removed, cursor: self.cursors.put(cursor, given) }))
    }
}
