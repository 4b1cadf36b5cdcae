//! How readings are stored in MongoDB.
//!
//! A batch is inserted whole. What is refused as a duplicate is looked up, united with what is there, and written if that
//! changed, guarded by the document's `rev`: of two who write over each other one is refused and looks again. Since a refused
//! insert costs the server fifteen times a look-up (45,000 against 750,000/s on the machine of `benches/README.md`,
//! 2026-11-21), batches are looked up first for as long as many of their readings are found stored already; a batch of
//! duplicates then writes nothing.
//!
//! A document has `sqn`, the highest sequence number of its values; a value with a lower one has its own, `n`. `rev` is there once
//! it was written again. Documents of earlier versions, which have neither, are read as they are: all their values have the
//! number `sqn`.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::atomic::Ordering;

use bson::{DateTime, RawDocumentBuf, doc};
use galerna_model::{AccountId, Measurement, ParameterCode};
use serde::{Deserialize, Serialize};

use super::Mongo;
use super::commands::{Guarded, STATEMENTS};
use super::documents::{date, int, time};
use super::indexes::READINGS;
use super::reading_id::of_reading;
use crate::union::United;
use crate::{Difference, ReadingOutcome, Result, SharedReadings, StorageError, StoreOutcome, StoredReading};

/// The largest document that MongoDB takes.
const DOCUMENT_BYTES: usize = 16 * 1024 * 1024;
/// Documents of one command, together: a command is itself limited as a document is.
const COMMAND_BYTES: usize = 8 * 1024 * 1024;
/// Look first when more than one in so many readings of a batch was stored already.
const MANY_DUPLICATES: usize = 16;
/// Rounds of insert and look-up before other writers of the same readings are blamed. In each round at least one of those
/// who write over each other is through.
const ROUNDS: usize = 40;

const STORING: &str = "storing readings";

#[derive(Serialize)]
struct ReadingDocument<'a> {
    #[serde(rename = "_id")]
    id: &'a str,
    account: &'a str,
    source: &'a str,
    device: &'a str,
    ts: DateTime,
    sqn: i64,
    values: Vec<Value>,
    #[serde(skip_serializing_if = "<[String]>::is_empty")]
    flags: &'a [String],
    received: DateTime,
}

/// A value of a reading.
#[derive(Serialize, Deserialize)]
pub(super) struct Value {
    pub(super) p: i64,
    pub(super) v: f64,
    /// Its sequence number, when it is not the document's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    n: Option<i64>,
}

/// The document if nobody has written it since it was read.
#[derive(Serialize)]
struct Unchanged<'a> {
    #[serde(rename = "_id")]
    id: &'a str,
    /// Null matches a document without.
    rev: Option<i64>,
}

#[derive(Serialize)]
struct Set<'a> {
    #[serde(rename = "$set")]
    set: Changed<'a>,
}

#[derive(Serialize)]
struct Changed<'a> {
    account: &'a str,
    sqn: i64,
    values: Vec<Value>,
    flags: &'a [String],
    received: DateTime,
    rev: i64,
}

/// What is read of a document to unite it with.
#[derive(Deserialize)]
struct Kept {
    #[serde(rename = "_id")]
    id: String,
    account: AccountId,
    sqn: i64,
    values: Vec<Value>,
    #[serde(default)]
    flags: Vec<String>,
    received: DateTime,
    rev: Option<i64>,
}

impl Kept {
    fn into_united(self) -> United {
        let sqns = self.values.iter().map(|value| value.n.unwrap_or(self.sqn)).collect();
        let measurement =
            |value: Value| Measurement { p: ParameterCode(u32::try_from(value.p).unwrap_or(0)), v: value.v };
        United {
            account: self.account,
            sqn: self.sqn,
            values: self.values.into_iter().map(measurement).collect(),
            sqns,
            flags: self.flags,
            received: time(self.received),
        }
    }
}

fn values_of(united: &United) -> Vec<Value> {
    let value = |(measured, sqn): (&Measurement, &i64)| Value {
        p: measured.p.0.into(),
        v: measured.v,
        n: (*sqn != united.sqn).then_some(*sqn),
    };
    united.values.iter().zip(&united.sqns).map(value).collect()
}

/// One identity of a batch, with its readings and their places in the batch.
struct SameReading<'a> {
    id: String,
    first: (usize, &'a StoredReading),
    /// Nearly always none.
    others: Vec<(usize, &'a StoredReading)>,
}

impl SameReading<'_> {
    fn readings(&self) -> impl Iterator<Item = &(usize, &StoredReading)> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

/// The identities of a batch.
fn slots<'a>(batch: impl Iterator<Item = &'a StoredReading>) -> Vec<SameReading<'a>> {
    let mut slots: Vec<SameReading<'_>> = Vec::new();
    let mut by_identity = HashMap::new();
    for (at, reading) in batch.enumerate() {
        match by_identity.entry((&reading.source, reading.device.as_str(), reading.ts)) {
            Entry::Vacant(vacant) => {
                vacant.insert(slots.len());
                let id = of_reading(&reading.source, &reading.device, reading.ts);
                slots.push(SameReading { id, first: (at, reading), others: Vec::new() });
            }
            Entry::Occupied(occupied) => slots[*occupied.get()].others.push((at, reading)),
        }
    }
    slots
}

/// What became of a batch so far.
struct Outcomes {
    readings: Vec<ReadingOutcome>,
    /// With the slot.
    not_taken: Vec<(usize, usize, Difference)>,
}

impl Outcomes {
    /// Unites what is stored with some readings of a slot; says whether that changes it.
    fn unite<'a>(
        &mut self,
        slot: usize,
        united: &mut United,
        readings: impl Iterator<Item = &'a (usize, &'a StoredReading)>,
    ) -> bool {
        let mut changed = false;
        for (at, reading) in readings {
            let not_taken = &mut self.not_taken;
            let outcome = united.unite(reading, |difference| not_taken.push((slot, *at, difference)));
            self.readings[*at] = outcome;
            changed |= outcome != ReadingOutcome::Duplicate;
        }
        changed
    }
}

/// A document to write again.
struct Change {
    slot: usize,
    united: United,
    rev: Option<i64>,
}

impl Mongo {
    /// Stores readings; see [`crate::Readings::store_shared`].
    pub(super) async fn store_readings(&self, messages: &[SharedReadings]) -> Result<StoreOutcome> {
        let batch = || messages.iter().flat_map(|readings| readings.iter());
        let count = batch().count();
        if count == 0 {
            return Ok(StoreOutcome::default());
        }
        self.note_devices(batch()).await?;
        let slots = slots(batch());
        let mut outcomes =
            Outcomes { readings: vec![ReadingOutcome::Inserted; count], not_taken: Vec::new() };
        let mut open: Vec<usize> = (0..slots.len()).collect();
        let mut look = self.look_first.load(Ordering::Relaxed);
        let (mut written, mut known) = (false, 0);
        for _ in 0..ROUNDS {
            let mut stored = if look { self.look_up(&slots, &open).await? } else { HashMap::new() };
            let (mut new, mut changes) = (Vec::new(), Vec::new());
            for slot in open {
                match stored.remove(&slot) {
                    None => new.push(slot),
                    Some(kept) => {
                        known += 1;
                        let rev = kept.rev;
                        let mut united = kept.into_united();
                        if outcomes.unite(slot, &mut united, slots[slot].readings()) {
                            changes.push(Change { slot, united, rev });
                        }
                    }
                }
            }
            written |= !new.is_empty() || !changes.is_empty();
            open = self.insert_slots(&slots, &new, &mut outcomes).await?;
            open.extend(self.write_changes(&slots, &changes).await?);
            if open.is_empty() {
                break;
            }
            // What was found of them is told anew.
            let mut lost = vec![false; slots.len()];
            open.iter().for_each(|slot| lost[*slot] = true);
            outcomes.not_taken.retain(|(slot, ..)| !lost[*slot]);
            look = true;
        }
        if !open.is_empty() {
            return Err(StorageError::Unavailable {
                attempted: STORING.to_owned(),
                cause: format!("other processes store the same {} readings at the same time", open.len()),
            });
        }
        self.look_first.store(known * MANY_DUPLICATES > slots.len(), Ordering::Relaxed);
        if !written {
            self.journal(STORING, READINGS).await?;
        }
        let mut not_taken: Vec<(usize, Difference)> =
            outcomes.not_taken.into_iter().map(|(_, at, difference)| (at, difference)).collect();
        not_taken.sort_by_key(|(at, _)| *at);
        Ok(StoreOutcome { readings: outcomes.readings, not_taken })
    }

    /// Which of these slots are stored already, and with what.
    async fn look_up(&self, slots: &[SameReading<'_>], wanted: &[usize]) -> Result<HashMap<usize, Kept>> {
        let mut found = HashMap::with_capacity(wanted.len());
        for wanted in wanted.chunks(5 * STATEMENTS) {
            let by_id: HashMap<&str, usize> = wanted.iter().map(|i| (slots[*i].id.as_str(), *i)).collect();
            let ids: Vec<&str> = wanted.iter().map(|i| slots[*i].id.as_str()).collect();
            let readings = self.collection::<Kept>(READINGS);
            // Only what cannot be rolled back counts as stored.
            let find = readings
                .find(doc! { "_id": { "$in": ids } })
                .projection(doc! { "source": 0, "device": 0, "ts": 0 })
                .read_concern(self.settled())
                .batch_size(10_000);
            for kept in self.collect("looking up readings", find).await? {
                if let Some(slot) = by_id.get(kept.id.as_str()) {
                    found.insert(*slot, kept);
                }
            }
        }
        Ok(found)
    }

    /// Inserts slots; returns those whose id is stored already.
    async fn insert_slots(
        &self,
        slots: &[SameReading<'_>],
        new: &[usize],
        outcomes: &mut Outcomes,
    ) -> Result<Vec<usize>> {
        let mut known = Vec::new();
        let mut documents: Vec<RawDocumentBuf> = Vec::with_capacity(new.len());
        let mut bytes = 0;
        let mut first = 0;
        for (place, slot) in new.iter().enumerate() {
            let document = insertion(&slots[*slot], *slot, outcomes)?;
            let size = document.as_bytes().len();
            if bytes + size > COMMAND_BYTES && !documents.is_empty() {
                let written = self.insert(STORING, READINGS, &documents).await?;
                known.extend(written.refused.keys().map(|i| new[first + i]));
                documents.clear();
                (bytes, first) = (0, place);
            }
            bytes += size;
            documents.push(document);
        }
        if !documents.is_empty() {
            let written = self.insert(STORING, READINGS, &documents).await?;
            known.extend(written.refused.keys().map(|i| new[first + i]));
        }
        known.sort_unstable();
        Ok(known)
    }

    /// Writes documents again; returns the slots of those that somebody else has written meanwhile.
    async fn write_changes(&self, slots: &[SameReading<'_>], changes: &[Change]) -> Result<Vec<usize>> {
        let mut lost = Vec::new();
        for changes in changes.chunks(STATEMENTS) {
            let updates: Vec<_> = changes
                .iter()
                .map(|Change { slot, united, rev }| {
                    let set = Changed {
                        account: united.account.as_str(),
                        sqn: united.sqn,
                        values: values_of(united),
                        flags: &united.flags,
                        received: date(united.received),
                        rev: rev.unwrap_or(0) + 1,
                    };
                    Guarded::new(Unchanged { id: &slots[*slot].id, rev: *rev }, Set { set })
                })
                .collect();
            let written = self.update("uniting readings", READINGS, &updates).await?;
            lost.extend(written.refused.keys().map(|i| changes[*i].slot));
        }
        Ok(lost)
    }
}

/// The document of a slot that is not stored yet.
fn insertion(slot: &SameReading<'_>, number: usize, outcomes: &mut Outcomes) -> Result<RawDocumentBuf> {
    let (at, reading) = slot.first;
    outcomes.readings[at] = ReadingOutcome::Inserted;
    let mut document = ReadingDocument {
        id: &slot.id,
        account: reading.account.as_str(),
        source: reading.source.as_str(),
        device: &reading.device,
        ts: date(reading.ts),
        sqn: int(reading.sqn),
        values: Vec::new(),
        flags: &reading.flags,
        received: date(reading.received),
    };
    let mut united;
    if slot.others.is_empty() {
        let value = |m: &Measurement| Value { p: m.p.0.into(), v: m.v, n: None };
        document.values = reading.values.iter().map(value).collect();
    } else {
        united = United::from(reading);
        outcomes.unite(number, &mut united, slot.others.iter());
        document.account = united.account.as_str();
        document.sqn = united.sqn;
        document.values = values_of(&united);
        document.flags = &united.flags;
        document.received = date(united.received);
    }
    let failed = |cause: String| StorageError::Failed {
        attempted: format!(
            "storing the reading of device `{}` of source {} at {}",
            reading.device.chars().take(60).collect::<String>(),
            reading.source,
            reading.ts
        ),
        cause,
    };
    let document = bson::serialize_to_raw_document_buf(&document)
        .map_err(|e| failed(format!("it cannot be stored: {e}")))?;
    let size = document.as_bytes().len();
    if size > DOCUMENT_BYTES {
        return Err(failed(format!(
            "it takes {size} bytes, MongoDB takes {DOCUMENT_BYTES}; split its values"
        )));
    }
    Ok(document)
}
