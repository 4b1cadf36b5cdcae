//! Refused readings in MongoDB.

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use futures_util::TryStreamExt;
use galerna_model::AccountId;

use super::Mongo;
use super::commands::{STATEMENTS, fault};
use super::documents::{from_document, to_document};
use super::indexes::REJECTED;
use crate::{RejectedReading, RejectedReadings, Result};

#[async_trait]
impl RejectedReadings for Mongo {
    async fn store(&self, batch: &[RejectedReading]) -> Result<()> {
        for batch in batch.chunks(STATEMENTS) {
            let documents: Vec<Document> = batch.iter().map(document).collect::<Result<_>>()?;
            self.insert("storing rejected readings", REJECTED, &documents).await?;
        }
        Ok(())
    }

    async fn list(
        &self,
        account: Option<&AccountId>,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<RejectedReading>> {
        self.newest("listing rejected readings", REJECTED, account, "at", offset, limit).await
    }

    async fn counts(&self) -> Result<Vec<(String, u64)>> {
        let attempted = "counting rejected readings";
        // Sorted first, so that the counts come from the index alone.
        let pipeline =
            [doc! { "$sort": { "code": 1 } }, doc! { "$group": { "_id": "$code", "n": { "$sum": 1_i64 } } }];
        let counts = self.collection::<Document>(REJECTED);
        let counts: Vec<Document> =
            self.in_time(attempted, async { counts.aggregate(pipeline).await?.try_collect().await }).await?;
        let mut counts: Vec<(String, u64)> = counts
            .iter()
            .map(|d| Ok((d.get_str("_id")?.to_owned(), super::documents::uint(d.get_i64("n")?))))
            .collect::<Result<_, bson::error::Error>>()
            .map_err(|e| fault(attempted, &e.into()))?;
        counts.sort();
        Ok(counts)
    }
}

/// Without a time that clients in other languages cannot read: their calendars have the years 1 to 9999. The text of the
/// reading has it.
fn document(rejected: &RejectedReading) -> Result<Document> {
    const YEARS: std::ops::RangeInclusive<i64> = -62_135_596_800_000..=253_402_300_799_999;
    let mut document = to_document(rejected.id.as_str(), rejected, &["ts", "at"])?;
    if rejected.ts.is_some_and(|ts| !YEARS.contains(&ts.0)) {
        document.insert("ts", Bson::Null);
    }
    Ok(document)
}

impl Mongo {
    /// A page of a collection, newest first by the date `by`, then by id.
    pub(super) async fn newest<T: serde::de::DeserializeOwned>(
        &self,
        attempted: &str,
        collection: &str,
        account: Option<&AccountId>,
        by: &str,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<T>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        let filter = account.map_or_else(Document::new, |a| doc! { "account": a.as_str() });
        let documents = self.collection::<Document>(collection);
        let find = documents
            .find(filter)
            .sort(doc! { by: -1, "_id": -1 })
            .skip(offset as u64)
            .limit(i64::try_from(limit).unwrap_or(i64::MAX));
        self.collect(attempted, find).await?.into_iter().map(from_document).collect()
    }
}
