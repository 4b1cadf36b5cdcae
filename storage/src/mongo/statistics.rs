//! What sources have sent, in MongoDB, for any number of frontends.
//!
//! No transactions, so that a standalone server serves as well as a replica set. Every writer, which is a process, adds to
//! documents of its own, and readers sum over the writers:
//!
//! - `statistics`: a bucket for each scope, writer and day, with its hours and the day; and one for each month, with the weeks
//!   that begin in it and the month. So documents stay small, and a flush costs two statements a scope, or three in a week
//!   that began in another month;
//! - `statistics_messages`: a document for each source, with its last messages, whoever took them;
//! - `statistics_writers`: the number of each writer's last batch.
//!
//! **Once**: a bucket holds the number of the last batch that was added to it, and each statement is an upsert for which that
//! number must be smaller. Added already, it matches nothing, and its insert half meets the id that is there: that error means
//! success. So a batch can be tried any number of times, also while an earlier try is still at work in the server. Last
//! messages carry their writer and batch, and are pushed only where none of that batch is; if all of it has been pushed out by
//! newer ones, so it is again.
//!
//! **A snapshot**: when all statements of a batch are safe, its number is written. Who reads takes that number K first. A bucket
//! of that writer that has batch K + 1 is of a batch under way: it holds, beside its sums, what the last batch added, and that is
//! taken off. (At K + 2 the read is repeated.) So counts are exactly those of the asking writer's batch K; of *other* writers'
//! batches under way a part may show. A process that dies between two statements leaves its last batch in part, which is
//! within the flush that a crash may lose.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use async_trait::async_trait;
use bson::{Bson, DateTime, Document, RawDocumentBuf, doc};
use galerna_model::{SourceId, Timestamp};
use mongodb::Collection;
use mongodb::options::{CollectionOptions, ReadConcern, ReadPreference};
use serde::{Deserialize, Serialize};

use super::Mongo;
use super::commands::STATEMENTS;
use super::documents::{date, int, time, uint};
use super::indexes::{STATISTICS, STATISTICS_MESSAGES, STATISTICS_WRITERS};
use crate::statistics::FORGET_EVERY;
use crate::{Batch, LAST_MESSAGES, LastMessage, Period, Result, Scope, StatisticsStore, StorageError, Tally};

/// Bytes of the statements of one command: with one more statement it stays below the 16 MiB of a command.
const BYTES: usize = 4 << 20;
/// A read is in vain only when two batches of its own writer were begun while it ran.
const READS: usize = 10;
/// What a bucket holds: by period, by the start of the period in milliseconds.
type Sums = BTreeMap<String, BTreeMap<String, Counts>>;

#[derive(Debug, Default, Clone, Copy, Serialize, Deserialize)]
struct Counts {
    m: i64,
    r: i64,
    v: i64,
}

#[derive(Debug, Deserialize)]
struct Bucket {
    #[serde(rename = "_id")]
    id: BucketId,
    n: i64,
    sum: Sums,
    last: Sums,
}

/// What is read of it; [`counting`] writes it.
#[derive(Debug, Deserialize)]
struct BucketId {
    /// Kind and key of the scope.
    k: String,
    i: String,
    /// The writer.
    w: String,
}

/// A document of last messages, oldest first. [`keeping`] writes more of each: `w` and `n`, its writer and batch, and `o`, its
/// place in that.
#[derive(Debug, Deserialize)]
struct Messages {
    m: Vec<KeptMessage>,
}

#[derive(Debug, Deserialize)]
struct KeptMessage {
    id: String,
    t: DateTime,
    readings: i64,
    rejected: i64,
    text: String,
    cut: bool,
}

#[derive(Debug, Deserialize)]
struct Writer {
    number: i64,
}

impl Mongo {
    /// A writer's number must not be newer than the buckets that are read after it: both come from the primary as it is. What
    /// they show may, rarely, be undone by an election.
    fn statistics<T: Send + Sync>(&self, name: &str) -> Collection<T> {
        let options = CollectionOptions::builder()
            .selection_criteria(mongodb::options::SelectionCriteria::from(ReadPreference::Primary))
            .read_concern(ReadConcern::local())
            .build();
        self.db.collection_with_options(name, options)
    }

    /// Runs statements, in no order, as many to a command as it takes. Those that were run before are no error.
    async fn update_in_parts(
        &self,
        attempted: &'static str,
        collection: &str,
        statements: Vec<Document>,
    ) -> Result<()> {
        let (mut waiting, mut bytes) = (Vec::new(), 0);
        for statement in statements {
            let statement = RawDocumentBuf::try_from(&statement).map_err(|e| StorageError::Failed {
                attempted: attempted.to_owned(),
                cause: format!("a value cannot be stored: {e}"),
            })?;
            bytes += statement.as_bytes().len();
            waiting.push(statement);
            if waiting.len() == STATEMENTS || bytes >= BYTES {
                self.update(attempted, collection, &waiting).await?;
                waiting.clear();
                bytes = 0;
            }
        }
        if !waiting.is_empty() {
            self.update(attempted, collection, &waiting).await?;
        }
        Ok(())
    }

    async fn number_of(&self, attempted: &'static str, writer: &str) -> Result<u64> {
        let writers = self.statistics::<Writer>(STATISTICS_WRITERS);
        let found = self.in_time(attempted, writers.find_one(doc! { "_id": writer })).await?;
        Ok(found.map_or(0, |writer| uint(writer.number)))
    }

    /// A writer is forgotten when all its buckets are: its number says how they are to be read.
    async fn forget_statistics(&self, now: Timestamp) -> Result<()> {
        const FORGETTING: &str = "forgetting old counts";
        let before = |kept: i64| DateTime::from_millis(now.plus_millis(-kept).as_millis());
        let buckets = self.statistics::<Document>(STATISTICS);
        let mut longest = 0;
        for bucket in [Period::Day, Period::Month] {
            let old = doc! { "_id.g": bucket.as_str(), "_id.b": { "$lt": before(bucket.kept_ms()) } };
            self.in_time(FORGETTING, buckets.delete_many(old)).await?;
            longest = longest.max(bucket.kept_ms());
        }
        let old = doc! { "at": { "$lt": before(longest) } };
        self.in_time(FORGETTING, self.statistics::<Document>(STATISTICS_WRITERS).delete_many(old)).await?;
        Ok(())
    }
}

/// The period whose bucket holds this one: no day is in two months, and a week counts where it begins.
fn bucket_of(period: Period) -> Period {
    match period {
        Period::Hour | Period::Day => Period::Day,
        Period::Week | Period::Month => Period::Month,
    }
}

/// What is added to one bucket.
type Increments = BTreeMap<(Period, Timestamp), Tally>;

/// The statements that add a batch's counts, one a bucket.
fn counting(batch: &Batch) -> Vec<Document> {
    let mut buckets: HashMap<(&Scope, Period, Timestamp), Increments> = HashMap::new();
    for (scope, period, start, tally) in &batch.tallies {
        let bucket = bucket_of(*period);
        let sums = buckets.entry((scope, bucket, bucket.start(*start))).or_default();
        *sums.entry((*period, *start)).or_default() += *tally;
    }
    let number = int(batch.number);
    let statement = |((scope, bucket, begin), sums): ((&Scope, Period, Timestamp), Increments)| {
        let (kind, id) = scope.key();
        let mut increments = Document::new();
        let mut last = Document::new();
        for ((period, start), tally) in sums {
            let Tally { messages, readings, values } = tally;
            let start = start.as_millis().to_string();
            let counts = [("m", int(messages)), ("r", int(readings)), ("v", int(values))];
            for (name, count) in counts {
                increments.insert(format!("sum.{}.{start}.{name}", period.as_str()), count);
            }
            let counts: Document =
                counts.into_iter().map(|(name, n)| (name.to_owned(), Bson::Int64(n))).collect();
            let of_period =
                last.entry(period.as_str().to_owned()).or_insert_with(|| Bson::Document(Document::new()));
            if let Bson::Document(of_period) = of_period {
                of_period.insert(start, counts);
            }
        }
        // Always in this order: documents are equal only when their fields have the same order.
        let bucket = doc! { "k": kind, "i": id, "g": bucket.as_str(), "b": date(begin), "w": &batch.writer };
        doc! {
            "q": { "_id": bucket, "n": { "$lt": number } },
            "u": { "$inc": increments, "$set": { "n": number, "last": last } },
            "upsert": true,
        }
    };
    buckets.into_iter().map(statement).collect()
}

/// The statements that keep a batch's messages, one a source.
fn keeping(batch: &Batch) -> Vec<Document> {
    let number = int(batch.number);
    let mut sources: HashMap<&SourceId, Vec<Document>> = HashMap::new();
    for (source, m) in &batch.messages {
        let messages = sources.entry(source).or_default();
        messages.push(doc! {
            "w": &batch.writer, "n": number, "o": int(messages.len() as u64), "id": &m.id, "t": date(m.received),
            "readings": int(m.readings), "rejected": int(m.rejected), "text": &m.text, "cut": m.cut,
        });
    }
    let statement = |(source, messages): (&SourceId, Vec<Document>)| {
        let kept = doc! {
            "$each": messages, "$sort": { "t": 1, "n": 1, "o": 1 }, "$slice": -int(LAST_MESSAGES as u64),
        };
        let same_batch = doc! { "w": &batch.writer, "n": { "$gte": number } };
        doc! {
            "q": { "_id": source.as_str(), "m": { "$not": { "$elemMatch": same_batch } } },
            "u": { "$push": { "m": kept } },
            "upsert": true,
        }
    };
    sources.into_iter().map(statement).collect()
}

/// Sums of the buckets for each scope and period as of batch `number` of `writer`; `None` when a bucket is already further than
/// the batch after it.
fn summed(
    buckets: &[Bucket],
    scopes: &[Scope],
    periods: &[(Period, Timestamp)],
    (writer, number): (&str, u64),
) -> Option<Vec<Vec<Tally>>> {
    let mut sums: HashMap<(&str, &str, &str, i64), Counts> = HashMap::new();
    let wanted: Vec<(&str, i64, String)> = periods
        .iter()
        .map(|(p, start)| (p.as_str(), start.as_millis(), start.as_millis().to_string()))
        .collect();
    for Bucket { id, n, sum, last } in buckets {
        let ahead = if id.w == writer { uint(*n).saturating_sub(number) } else { 0 };
        if ahead > 1 {
            return None;
        }
        for (period, start, key) in &wanted {
            let of = |sums: &Sums| {
                sums.get(*period).and_then(|starts| starts.get(key)).copied().unwrap_or_default()
            };
            let (all, under_way) = (of(sum), if ahead == 1 { of(last) } else { Counts::default() });
            let place = sums.entry((&id.k, &id.i, period, *start)).or_default();
            place.m += all.m - under_way.m;
            place.r += all.r - under_way.r;
            place.v += all.v - under_way.v;
        }
    }
    let tally = |scope: &Scope, (period, start): &(Period, Timestamp)| {
        let (kind, id) = scope.key();
        let Counts { m, r, v } =
            sums.get(&(kind, id, period.as_str(), start.as_millis())).copied().unwrap_or_default();
        Tally { messages: uint(m), readings: uint(r), values: uint(v) }
    };
    Some(scopes.iter().map(|scope| periods.iter().map(|period| tally(scope, period)).collect()).collect())
}

#[async_trait]
impl StatisticsStore for Mongo {
    async fn add(&self, batch: Arc<Batch>) -> Result<()> {
        const ADDING: &str = "adding counts";
        self.update_in_parts(ADDING, STATISTICS, counting(&batch)).await?;
        self.update_in_parts(ADDING, STATISTICS_MESSAGES, keeping(&batch)).await?;
        let done = doc! {
            "q": { "_id": &batch.writer },
            "u": { "$max": { "number": int(batch.number), "at": date(batch.at) } },
            "upsert": true,
        };
        self.update_in_parts(ADDING, STATISTICS_WRITERS, vec![done]).await?;
        if batch.number % FORGET_EVERY == 1
            && let Err(e) = self.forget_statistics(batch.at).await
        {
            // The batch is safe all the same.
            tracing::warn!(error = %e, "old statistics stay until the next time");
        }
        Ok(())
    }

    async fn tallies(
        &self,
        scopes: &[Scope],
        periods: &[(Period, Timestamp)],
        writer: &str,
    ) -> Result<(Vec<Vec<Tally>>, u64)> {
        const READING: &str = "reading counts";
        let mut kinds: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (kind, id) in scopes.iter().map(Scope::key) {
            kinds.entry(kind).or_default().push(id);
        }
        let mut starts: Vec<DateTime> =
            periods.iter().map(|(p, start)| date(bucket_of(*p).start(*start))).collect();
        starts.sort_unstable();
        starts.dedup();
        let wanted: Vec<Document> = kinds
            .into_iter()
            .map(|(kind, ids)| doc! { "_id.k": kind, "_id.i": { "$in": ids }, "_id.b": { "$in": &starts } })
            .collect();
        for _ in 0..READS {
            let number = self.number_of(READING, writer).await?;
            let mut buckets = Vec::new();
            // The server takes no empty `$or`.
            if !wanted.is_empty() {
                let collection = self.statistics::<Bucket>(STATISTICS);
                buckets = self.collect(READING, collection.find(doc! { "$or": wanted.clone() })).await?;
            }
            if let Some(found) = summed(&buckets, scopes, periods, (writer, number)) {
                return Ok((found, number));
            }
        }
        Err(StorageError::Unavailable {
            attempted: READING.to_owned(),
            cause: format!("they changed under way {READS} times"),
        })
    }

    async fn last_messages(&self, source: &SourceId, writer: &str) -> Result<(Vec<LastMessage>, u64)> {
        const READING: &str = "reading last messages";
        let number = self.number_of(READING, writer).await?;
        let sources = self.statistics::<Messages>(STATISTICS_MESSAGES);
        let found = self.in_time(READING, sources.find_one(doc! { "_id": source.as_str() })).await?;
        let messages = found.map_or_else(Vec::new, |found| found.m);
        let message = |m: KeptMessage| LastMessage {
            id: m.id,
            received: time(m.t),
            readings: uint(m.readings),
            rejected: uint(m.rejected),
            text: m.text,
            cut: m.cut,
        };
        Ok((messages.into_iter().rev().map(message).collect(), number))
    }
}

#[cfg(test)]
mod tests;
