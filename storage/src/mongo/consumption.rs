//! What counters have counted, in MongoDB.

use std::collections::HashMap;

use async_trait::async_trait;
use bson::{Bson, Document, doc};
use galerna_model::{ParameterCode, SourceId};

use super::Mongo;
use super::commands::{Guarded, STATEMENTS, Update};
use super::documents::{date, int, time, uint};
use super::indexes::CONSUMPTION;
use crate::{
    ConsumptionDay, ConsumptionDays, ConsumptionKey, ConsumptionQuery, DayCounts, Result, StorageError,
};

/// Ids are documents.
fn id(key: &ConsumptionKey) -> Document {
    doc! {
        "s": key.source.as_str(), "z": &key.zone, "d": &key.device, "p": i64::from(key.parameter.0), "t": date(key.day),
    }
}

fn unreadable(cause: impl std::fmt::Display) -> StorageError {
    StorageError::Failed { attempted: "decoding consumption".to_owned(), cause: cause.to_string() }
}

fn day(document: &Document) -> Result<ConsumptionDay> {
    let source = document.get_document("_id").and_then(|id| id.get_str("s")).map_err(unreadable)?;
    let source = SourceId::new(source).map_err(unreadable)?;
    let read = || -> bson::error::Result<(ConsumptionKey, u64, &Document)> {
        let id = document.get_document("_id")?;
        let key = ConsumptionKey {
            source: source.clone(),
            device: id.get_str("d")?.to_owned(),
            parameter: ParameterCode(u32::try_from(id.get_i64("p")?).unwrap_or(0)),
            zone: id.get_str("z")?.to_owned(),
            day: time(*id.get_datetime("t")?),
        };
        Ok((key, uint(document.get_i64("revision")?), document.get_document("counts")?))
    };
    let (key, revision, counts) = read().map_err(unreadable)?;
    let counts: DayCounts = bson::deserialize_from_document(counts.clone()).map_err(unreadable)?;
    Ok(ConsumptionDay { key, revision, counts })
}

#[async_trait]
impl ConsumptionDays for Mongo {
    async fn get(&self, keys: &[ConsumptionKey]) -> Result<Vec<Option<ConsumptionDay>>> {
        let mut by_key = HashMap::with_capacity(keys.len());
        for keys in keys.chunks(STATEMENTS) {
            let ids: Vec<Document> = keys.iter().map(id).collect();
            let days = self.collection::<Document>(CONSUMPTION);
            // Only what cannot be rolled back counts as kept.
            let find = days.find(doc! { "_id": { "$in": ids } }).read_concern(self.settled());
            for document in self.collect("reading consumption", find).await? {
                let day = day(&document)?;
                by_key.insert(day.key.clone(), day);
            }
        }
        Ok(keys.iter().map(|key| by_key.get(key).cloned()).collect())
    }

    async fn keep(&self, days: &[ConsumptionDay]) -> Result<Vec<bool>> {
        let attempted = "keeping consumption";
        let mut kept = vec![true; days.len()];
        let (new, known): (Vec<usize>, Vec<usize>) = (0..days.len()).partition(|at| days[*at].revision == 0);
        let set = |day: &ConsumptionDay| -> Result<(i64, Document)> {
            let revision = int(day.revision).min(i64::MAX - 1);
            let counts = bson::serialize_to_document(&day.counts).map_err(unreadable)?;
            Ok((revision, doc! { "$set": { "revision": revision + 1, "counts": counts } }))
        };
        for new in new.chunks(STATEMENTS) {
            let updates = new.iter().map(|at| {
                let (revision, u) = set(&days[*at])?;
                // One that is there has another revision: it is not found, and cannot be inserted again.
                Ok(Update { q: doc! { "_id": id(&days[*at].key), "revision": revision }, u, upsert: true })
            });
            let updates = updates.collect::<Result<Vec<_>>>()?;
            let written = self.update(attempted, CONSUMPTION, &updates).await?;
            written.refused.keys().for_each(|refused| kept[new[*refused]] = false);
        }
        for known in known.chunks(STATEMENTS) {
            let updates = known.iter().map(|at| {
                let (revision, u) = set(&days[*at])?;
                Ok(Guarded::new(doc! { "_id": id(&days[*at].key), "revision": revision }, u))
            });
            let updates = updates.collect::<Result<Vec<_>>>()?;
            let written = self.update(attempted, CONSUMPTION, &updates).await?;
            written.refused.keys().for_each(|refused| kept[known[*refused]] = false);
        }
        Ok(kept)
    }

    async fn find(&self, query: &ConsumptionQuery) -> Result<Vec<ConsumptionDay>> {
        let attempted = "finding consumption";
        let mut of_source = doc! { "_id.s": query.source.as_str(), "_id.z": &query.zone };
        if let Some(device) = &query.device {
            of_source.insert("_id.d", device);
        }
        let between = |time: Document| {
            let mut filter = of_source.clone();
            filter.insert("_id.t", time);
            filter
        };
        let (from, until) = (date(query.from), date(query.until));
        let days = self.collection::<Document>(CONSUMPTION);
        let find = days.find(between(doc! { "$gte": from, "$lt": until })).read_concern(self.settled());
        let mut found = self.collect(attempted, find).await?;
        let sides: [(Bson, Document); 2] =
            [((-1).into(), doc! { "$lt": from }), (1.into(), doc! { "$gte": until })];
        for (order, side) in sides {
            let pipeline = [
                doc! { "$match": between(side) },
                doc! { "$sort": { "_id.t": order } },
                doc! { "$group": { "_id": { "d": "$_id.d", "p": "$_id.p" }, "nearest": { "$first": "$$ROOT" } } },
                doc! { "$replaceRoot": { "newRoot": "$nearest" } },
            ];
            let nearest = days.aggregate(pipeline).read_concern(self.settled());
            found.extend(self.collect(attempted, async { nearest.await }).await?);
        }
        let mut found = found.iter().map(day).collect::<Result<Vec<_>>>()?;
        found.sort_unstable_by(|one, other| one.key.cmp(&other.key));
        Ok(found)
    }
}
