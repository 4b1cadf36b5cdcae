//! What publishers of one meter agree on before they send anything.
//!
//! A meter has a record of claims beside the chunks of its history. Who publishes values first adds a claim to it: what its
//! values add to the history, and the times of the readings that change by them. The record has one revision, so claims have an
//! order, and each was made by someone who had read all claims before it. Sequence numbers are reserved after that reading and
//! before the claim: of two readings of one time, that of the later claim has the higher number, whichever reaches the store
//! first. Only then are the readings sent, with those of earlier claims that nobody has settled yet; when the broker has
//! confirmed them, the claims are moved into the chunks. A publisher that is killed in between leaves its claim, and the next one
//! sends its readings.

use std::collections::{BTreeSet, HashMap};

use anyhow::Context;
use galerna_import::{History, Utility};
use galerna_model::{AccountId, Timestamp};
use galerna_storage::{ImportChunk, Store};
use serde::{Deserialize, Serialize};

/// The number of the chunk that has the claims: below those of all times.
const CLAIMS: i64 = i64::MIN;
/// Builds that do not know claims read versions 1 and 2 of chunks, and refuse this one.
const VERSION: u8 = 3;
/// Claims of more bytes are moved into the chunks before another one is added: a record in MongoDB has 16 MB at most.
const MOST_BYTES: usize = 4 << 20;
/// How often claims are tried to be settled. Those that stay are settled by the next publisher.
const ATTEMPTS: usize = 50;

/// The record of claims.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
struct Record {
    /// Of utilities that share their parameters, the one whose readings have the meter's own name.
    utility: Option<Utility>,
    claims: Vec<Claim>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Claim {
    /// The first of its sequence numbers, which no other claim of the account has.
    id: u64,
    /// What it adds to the history, as a chunk; empty when it is nothing, or in the chunks already.
    #[serde(with = "bytes")]
    adds: Vec<u8>,
    /// The times of readings that may not have been sent.
    unsent: BTreeSet<Timestamp>,
}

/// Bytes as such: as a list they would be larger.
mod bytes {
    use serde::de::{Error, Visitor};
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], s: S) -> Result<S::Ok, S::Error> {
        s.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<u8>, D::Error> {
        struct Bytes;
        impl Visitor<'_> for Bytes {
            type Value = Vec<u8>;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("bytes")
            }

            fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Vec<u8>, E> {
                Ok(bytes.to_vec())
            }

            fn visit_byte_buf<E: Error>(self, bytes: Vec<u8>) -> Result<Vec<u8>, E> {
                Ok(bytes)
            }
        }
        d.deserialize_byte_buf(Bytes)
    }
}

/// What is known of a meter at one moment.
pub(super) struct Known {
    account: AccountId,
    meter: String,
    chunks: Vec<ImportChunk>,
    record: Record,
    revision: u64,
    /// What follows from the chunks and all claims.
    pub(super) history: History,
}

impl Known {
    /// Reads what is known now.
    pub(super) async fn read(store: &Store, account: &AccountId, meter: &str) -> anyhow::Result<Self> {
        let mut chunks =
            store.imports.chunks(account, meter).await.context("cannot read what was imported")?;
        let broken = || format!("what was imported of meter `{meter}` of `{account}` cannot be read");
        let at = chunks.iter().position(|chunk| chunk.number == CLAIMS);
        let (record, revision) = match at.map(|at| chunks.remove(at)) {
            Some(chunk) => (decoded(&chunk.data).with_context(broken)?, chunk.revision),
            None => (Record::default(), 0),
        };
        let added = record.claims.iter().map(|claim| &claim.adds[..]).filter(|adds| !adds.is_empty());
        let history = History::from_chunks(chunks.iter().map(|chunk| &chunk.data[..]).chain(added))
            .with_context(broken)?;
        Ok(Self { account: account.clone(), meter: meter.to_owned(), chunks, record, revision, history })
    }

    /// Of utilities that share their parameters, the one whose readings have the meter's own name.
    pub(super) fn utility(&self) -> Option<Utility> {
        self.record.utility
    }

    /// The times of readings that others changed, and may not have sent.
    pub(super) fn unsent(&self) -> BTreeSet<Timestamp> {
        self.record.claims.iter().flat_map(|claim| claim.unsent.iter().copied()).collect()
    }

    /// Adds a claim. Whether it is there: others may have claimed since this was read.
    pub(super) async fn claim(
        self,
        store: &Store,
        id: u64,
        utility: Option<Utility>,
        after: &History,
        unsent: BTreeSet<Timestamp>,
    ) -> anyhow::Result<bool> {
        let adds = after.beyond(&self.history);
        let bytes: usize = self.record.claims.iter().map(|claim| claim.adds.len()).sum();
        if bytes + adds.len() > MOST_BYTES && bytes > 0 {
            self.fold(store, 0).await?;
            return Ok(false);
        }
        let mut record = self.record;
        record.utility = record.utility.or(utility);
        record.claims.push(Claim { id, adds, unsent });
        let claimed = [claims_chunk(&self.account, &self.meter, self.revision, &record)?];
        store.imports.keep(&claimed).await.context("cannot keep what is imported")
    }

    /// Moves what the claims add into the chunks, and takes the first `settled` of them out of the record. Whether that was done:
    /// others may have written in between.
    async fn fold(&self, store: &Store, settled: usize) -> anyhow::Result<bool> {
        let context = "cannot keep what was imported";
        let changed = self.changed();
        if !changed.is_empty() && !store.imports.keep(&changed).await.context(context)? {
            return Ok(false);
        }
        let left = self.record.claims.iter().skip(settled);
        let claims = left.map(|claim| Claim { adds: Vec::new(), ..claim.clone() }).collect();
        let record = Record { claims, ..self.record };
        let kept = [claims_chunk(&self.account, &self.meter, self.revision, &record)?];
        store.imports.keep(&kept).await.context(context)
    }

    /// Chunks that differ from those kept.
    fn changed(&self) -> Vec<ImportChunk> {
        let kept: HashMap<i64, &ImportChunk> =
            self.chunks.iter().map(|chunk| (chunk.number, chunk)).collect();
        let chunks = self.history.chunks().into_iter().filter_map(|(number, data)| {
            let before = kept.get(&number);
            let same = before.is_some_and(|chunk| chunk.data == data);
            (!same).then(|| ImportChunk {
                account: self.account.clone(),
                meter: self.meter.clone(),
                number,
                revision: before.map_or(0, |chunk| chunk.revision),
                data,
            })
        });
        chunks.collect()
    }
}

/// Notes that the readings of a claim, and of all claims before it, are on their queues.
pub(super) async fn settle(store: &Store, account: &AccountId, meter: &str, id: u64) -> anyhow::Result<()> {
    for _ in 0..ATTEMPTS {
        let known = Known::read(store, account, meter).await?;
        let Some(at) = known.record.claims.iter().position(|claim| claim.id == id) else {
            // A later publisher sent all of it again, and settled it.
            return Ok(());
        };
        if known.fold(store, at + 1).await? {
            return Ok(());
        }
    }
    Ok(())
}

fn claims_chunk(
    account: &AccountId,
    meter: &str,
    revision: u64,
    record: &Record,
) -> anyhow::Result<ImportChunk> {
    let body = rmp_serde::to_vec(record).context("the claims of a meter have no form")?;
    let data = [&[VERSION], &body[..]].concat();
    Ok(ImportChunk { account: account.clone(), meter: meter.to_owned(), number: CLAIMS, revision, data })
}

fn decoded(data: &[u8]) -> anyhow::Result<Record> {
    match data {
        [VERSION, body @ ..] => rmp_serde::from_slice(body).context("its claims are broken"),
        [other, ..] => {
            anyhow::bail!("its claims have version {other}, this build reads version {VERSION}; upgrade")
        }
        [] => anyhow::bail!("its claims are empty"),
    }
}
