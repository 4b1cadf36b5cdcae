//! What was imported of meters' intervals, in MongoDB.

use async_trait::async_trait;
use bson::spec::BinarySubtype;
use bson::{Binary, Bson, Document, doc};
use galerna_model::AccountId;
use mongodb::options::ReturnDocument;

use super::Mongo;
use super::commands::Update;
use super::indexes::{IMPORT_CHUNKS, IMPORT_SEQUENCES};
use crate::{ImportChunk, Imports, Result, StorageError};

/// Bytes in one command, about.
const COMMAND: usize = 4 << 20;

/// Ids are documents, which the index of ids has in the order of account, meter and number.
fn id(account: &AccountId, meter: &str, number: impl Into<Bson>) -> Document {
    doc! { "a": account.as_str(), "m": meter, "n": number.into() }
}

fn unreadable(attempted: &str, cause: impl std::fmt::Display) -> StorageError {
    StorageError::Failed { attempted: attempted.to_owned(), cause: cause.to_string() }
}

#[async_trait]
impl Imports for Mongo {
    async fn chunks(&self, account: &AccountId, meter: &str) -> Result<Vec<ImportChunk>> {
        let attempted = "reading what was imported";
        let chunks = self.collection::<Document>(IMPORT_CHUNKS);
        let of_meter = doc! { "_id": { "$gte": id(account, meter, Bson::MinKey), "$lte": id(account, meter, Bson::MaxKey) } };
        let find = chunks.find(of_meter).sort(doc! { "_id": 1 }).read_concern(self.settled());
        let found = self.collect(attempted, find).await?;
        let chunk = |document: &Document| -> bson::error::Result<ImportChunk> {
            Ok(ImportChunk {
                account: account.clone(),
                meter: meter.to_owned(),
                number: document.get_document("_id")?.get_i64("n")?,
                revision: document.get_i64("revision")?.unsigned_abs(),
                data: document.get_binary_generic("data")?.clone(),
            })
        };
        found.iter().map(|document| chunk(document).map_err(|e| unreadable(attempted, e))).collect()
    }

    async fn keep(&self, chunks: &[ImportChunk]) -> Result<bool> {
        let mut kept = true;
        let mut from = 0;
        while from < chunks.len() {
            let mut bytes = 0;
            let many = chunks[from..].iter().take_while(|chunk| {
                bytes += chunk.data.len() + 300;
                bytes <= COMMAND
            });
            let until = from + many.count().max(1);
            let updates: Vec<_> = chunks[from..until]
                .iter()
                .map(|chunk| {
                    let id = id(&chunk.account, &chunk.meter, chunk.number);
                    let revision = i64::try_from(chunk.revision).unwrap_or(i64::MAX - 1);
                    let data = Binary { subtype: BinarySubtype::Generic, bytes: chunk.data.clone() };
                    Update {
                        // One that has another revision is not found, and cannot be inserted again.
                        q: doc! { "_id": id, "revision": revision },
                        u: doc! { "$set": { "revision": revision + 1, "data": data } },
                        upsert: true,
                    }
                })
                .collect();
            let written = self.update("keeping what was imported", IMPORT_CHUNKS, &updates).await?;
            kept &= written.refused.is_empty();
            from = until;
        }
        Ok(kept)
    }

    async fn reserve_sequence(&self, account: &AccountId, count: u64) -> Result<u64> {
        let attempted = "reserving sequence numbers";
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        let sequences = self.collection::<Document>(IMPORT_SEQUENCES);
        let reserve = sequences
            .find_one_and_update(doc! { "_id": account.as_str() }, doc! { "$inc": { "last": count } })
            .upsert(true)
            .return_document(ReturnDocument::After);
        let last = self
            .in_time(attempted, reserve)
            .await?
            .and_then(|sequence| sequence.get_i64("last").ok())
            .ok_or_else(|| unreadable(attempted, "the answer has no number"))?;
        Ok((last - count).unsigned_abs() + 1)
    }
}
