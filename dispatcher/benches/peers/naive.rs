//! The design to beat: a find-and-modify per call on the document at the head, as the first platform had it.

use async_trait::async_trait;
use galerna_dispatcher::LeaseError;
use galerna_dispatcher::load::Caller;
use mongodb::bson::{DateTime, Document, doc};
use mongodb::options::{ReturnDocument, WriteConcern};
use mongodb::{Client, Collection, IndexModel};

/// Fills a collection with `queues` idle queues and returns `callers` callers of it.
pub(crate) async fn callers(
    uri: &str,
    database: &str,
    queues: usize,
    callers: usize,
) -> Vec<Box<dyn Caller>> {
    let client = Client::with_uri_str(uri).await.expect("MongoDB answers");
    let states: Collection<Document> = client.database(database).collection("naive");
    for first in (0..queues).step_by(5_000) {
        let batch: Vec<Document> = (first..queues.min(first + 5_000))
            .map(|n| {
                doc! { "_id": format!("L{n:06}"), "state": "idle", "delivered": DateTime::from_millis(n as i64), "epoch": 0_i64 }
            })
            .collect();
        states.insert_many(batch).await.expect("queues are inserted");
    }
    let order = IndexModel::builder().keys(doc! { "state": 1, "delivered": 1 }).build();
    states.create_index(order).await.expect("the index is created");
    (0..callers).map(|_| Box::new(Naive { states: states.clone(), held: None }) as Box<dyn Caller>).collect()
}

struct Naive {
    states: Collection<Document>,
    held: Option<(String, i64)>,
}

fn durable() -> WriteConcern {
    WriteConcern::majority()
}

#[async_trait]
impl Caller for Naive {
    async fn call(&mut self) -> Result<bool, LeaseError> {
        if let Some((queue, epoch)) = self.held.take() {
            self.states
                .update_one(doc! { "_id": queue, "epoch": epoch }, doc! { "$set": { "state": "idle" } })
                .write_concern(durable())
                .await
                .map_err(|e| LeaseError::Unavailable(e.to_string()))?;
        }
        let head = self
            .states
            .find_one_and_update(
                doc! { "state": "idle" },
                doc! { "$set": { "state": "worker", "delivered": DateTime::now() }, "$inc": { "epoch": 1_i64 } },
            )
            .sort(doc! { "delivered": 1 })
            .return_document(ReturnDocument::After)
            .write_concern(durable())
            .await
            .map_err(|e| LeaseError::Unavailable(e.to_string()))?;
        self.held = head.and_then(|d| Some((d.get_str("_id").ok()?.to_owned(), d.get_i64("epoch").ok()?)));
        Ok(self.held.is_some())
    }
}
