//! Which process may commit: the one that was the last to claim the newest checkpoint.

use bson::oid::ObjectId;
use bson::{Document, doc};

use super::{CHECKPOINTS, MongoCheckpoints};
use crate::{CheckpointError, CheckpointId};

/// How often claiming is tried when others do too.
const CLAIMS: usize = 20;

/// What the next commit of a process comes after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Head {
    /// A document that is to become it.
    Claim { document: ObjectId, follows: i64 },
    /// The checkpoint of this number; 0: none.
    Checkpoint(i64),
}

/// The newest document of `checkpoints`.
pub(super) struct Newest {
    pub(super) document: Document,
    pub(super) number: i64,
    /// Whether this process wrote it.
    pub(super) own: bool,
}

impl Newest {
    /// What a commit that comes after it comes after.
    pub(super) fn head(&self) -> Head {
        match (self.document.get_object_id("_id"), self.claim_of()) {
            (Ok(document), Some(follows)) => Head::Claim { document, follows },
            _ => Head::Checkpoint(self.number),
        }
    }

    /// The checkpoint after which one is to come, if it is no checkpoint itself.
    pub(super) fn claim_of(&self) -> Option<i64> {
        self.document.contains_key("claim").then(|| self.document.get_i64("follows").unwrap_or_default())
    }
}

impl MongoCheckpoints {
    pub(super) fn conflict(&self, number: i64) -> CheckpointError {
        CheckpointError::Conflict { id: CheckpointId(number.unsigned_abs()), topology: self.topology.clone() }
    }

    pub(super) async fn newest(&self) -> Result<Option<Newest>, CheckpointError> {
        let newest =
            self.checkpoints.find_one(doc! { "topology": &self.topology }).sort(doc! { "checkpoint": -1 });
        let document = self.call("reading", CHECKPOINTS, newest).await?;
        Ok(document.map(|document| Newest {
            number: document.get_i64("checkpoint").unwrap_or_default(),
            own: document.get_str("writer").is_ok_and(|writer| writer == self.writer),
            document,
        }))
    }

    /// Sees to it that of all processes only this one can commit after a checkpoint; 0: before the first one.
    pub(super) async fn claim_after(&self, restored: i64) -> Result<(), CheckpointError> {
        const ATTEMPTED: &str = "claiming the checkpoints in";
        for _ in 0..CLAIMS {
            let newest = self.newest().await?;
            let head = newest.as_ref().map_or(Head::Checkpoint(0), Newest::head);
            let claimed = match head {
                // Of somebody who has committed nothing since.
                Head::Claim { document, follows } if follows == restored => {
                    let writer = newest.as_ref().and_then(|newest| newest.document.get("writer").cloned());
                    let of = doc! { "_id": document, "writer": writer, "claim": true };
                    let own = doc! { "$set": { "writer": &self.writer } };
                    let taken =
                        self.call(ATTEMPTED, CHECKPOINTS, self.checkpoints.update_one(of, own)).await?;
                    (taken.matched_count == 1).then_some(head)
                }
                Head::Checkpoint(number) if number == restored => {
                    let document = ObjectId::new();
                    let claim = doc! {
                        "_id": document,
                        "topology": &self.topology,
                        "checkpoint": restored + 1,
                        "follows": restored,
                        "writer": &self.writer,
                        "claim": true,
                    };
                    let inserted = self.insert(ATTEMPTED, &self.checkpoints, claim).await?;
                    inserted.then_some(Head::Claim { document, follows: restored })
                }
                Head::Claim { follows: number, .. } | Head::Checkpoint(number) => {
                    return Err(self.conflict(number));
                }
            };
            if claimed.is_some() {
                *self.head.lock() = claimed;
                return Ok(());
            }
        }
        Err(self.conflict(restored + 1))
    }
}
