//! The audit log and the samples of charts in MongoDB.

use async_trait::async_trait;
use bson::{Document, doc};
use galerna_model::Timestamp;

use super::Mongo;
use super::commands::Update;
use super::documents::{date, from_document, time, to_document};
use super::indexes::{AUDIT, HISTORY};
use crate::{AuditEntry, AuditLog, History, Result, Sample};

#[async_trait]
impl AuditLog for Mongo {
    async fn record(&self, entry: &AuditEntry) -> Result<()> {
        let mut document = to_document(entry.id.as_str(), entry, &["at"])?;
        document.insert("searched", entry.searched());
        self.insert("recording what an operator did", AUDIT, &[document]).await.map(|_| ())
    }

    async fn list(&self, search: Option<&str>, offset: usize, limit: usize) -> Result<Vec<AuditEntry>> {
        if limit == 0 {
            return Ok(Vec::new());
        }
        // The text is looked for as it is, not as a pattern.
        let filter = search.map_or_else(Document::new, |text| {
            doc! { "$expr": { "$gte": [{ "$indexOfBytes": ["$searched", { "$literal": text.to_lowercase() }] }, 0] } }
        });
        let documents = self.collection::<Document>(AUDIT);
        let find = documents
            .find(filter)
            .sort(doc! { "at": -1, "_id": -1 })
            .skip(offset as u64)
            .limit(i64::try_from(limit).unwrap_or(i64::MAX));
        self.collect("listing what operators did", find).await?.into_iter().map(from_document).collect()
    }
}

/// A sample is a document whose id is its time; names of numbers may hold dots, so they are kept as a list.
#[async_trait]
impl History for Mongo {
    async fn put(&self, sample: &Sample) -> Result<()> {
        let values: Vec<Document> = sample
            .values
            .iter()
            .filter(|(_, v)| v.is_finite())
            .map(|(n, v)| doc! { "n": n, "v": *v })
            .collect();
        let id = date(sample.at);
        let replacement = doc! { "_id": id, "values": values };
        let update = Update { q: doc! { "_id": id }, u: replacement, upsert: true };
        self.update("storing a sample", HISTORY, &[update]).await.map(|_| ())
    }

    async fn since(&self, from: Timestamp) -> Result<Vec<Sample>> {
        self.samples(doc! { "_id": { "$gte": date(from) } }).await
    }

    async fn sparse(&self, from: Timestamp, step_ms: i64) -> Result<Vec<Sample>> {
        let on_step = doc! { "$eq": [off_step(step_ms), 0_i64] };
        self.samples(doc! { "_id": { "$gte": date(from) }, "$expr": on_step }).await
    }

    async fn thin(&self, before: Timestamp, step_ms: i64) -> Result<u64> {
        let documents = self.collection::<Document>(HISTORY);
        let between = doc! { "$ne": [off_step(step_ms), 0_i64] };
        let delete = documents.delete_many(doc! { "_id": { "$lt": date(before) }, "$expr": between });
        self.in_time("thinning samples out", delete).await.map(|done| done.deleted_count)
    }

    async fn prune(&self, before: Timestamp) -> Result<u64> {
        let documents = self.collection::<Document>(HISTORY);
        let delete = documents.delete_many(doc! { "_id": { "$lt": date(before) } });
        self.in_time("forgetting samples", delete).await.map(|done| done.deleted_count)
    }
}

/// By how much the time of a sample misses a multiple of a step.
fn off_step(step_ms: i64) -> Document {
    doc! { "$mod": [{ "$toLong": "$_id" }, step_ms.max(1)] }
}

impl Mongo {
    async fn samples(&self, which: Document) -> Result<Vec<Sample>> {
        let documents = self.collection::<Document>(HISTORY);
        let find = documents.find(which).sort(doc! { "_id": 1 });
        let found = self.collect("reading samples", find).await?;
        Ok(found
            .iter()
            .filter_map(|sample| {
                let at = time(*sample.get_datetime("_id").ok()?);
                let values = sample.get_array("values").ok()?.iter().filter_map(|value| {
                    let value = value.as_document()?;
                    Some((value.get_str("n").ok()?.to_owned(), value.get_f64("v").ok()?))
                });
                Some(Sample { at, values: values.collect() })
            })
            .collect())
    }
}
