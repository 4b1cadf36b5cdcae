//! Commands to the server: timeouts, write concern, and what the answers mean.

use std::collections::HashMap;
use std::future::IntoFuture;
use std::time::Duration;

use bson::{Document, RawDocumentBuf, rawdoc};
use galerna_mongo::{DUPLICATE_KEY, is_transient, is_transient_code};
use mongodb::Cursor;
use mongodb::error::Error;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::Mongo;
use crate::{Result, StorageError};

/// Longest time that the server works on one write command (`maxTimeMS`).
pub(super) const WRITE_TIME: Duration = Duration::from_secs(4);

/// Statements of one command: small enough that no command comes near [`WRITE_TIME`] or the size of a message.
pub(super) const STATEMENTS: usize = 1000;

/// An update would change the id of a document: what [`Guarded`] provokes.
const IMMUTABLE_FIELD: i32 = 66;
/// A sum would not fit in its number, among other wrong values.
pub(super) const BAD_VALUE: i32 = 2;

/// An update of one document if it still is as expected, else nothing.
///
/// The answer to an update command has one count for all its statements, so it does not tell which of them found no
/// match. Reading the documents back would not tell for sure either: by then others may have written over the statement's
/// effect. So a statement that finds no match is made to fail, which the server reports one by one: it is an upsert whose
/// insert part (`$setOnInsert: {_id: 0}`) contradicts the id it looks for. When the document matches, that part is not
/// applied; when none matches, the server refuses to build the new document (`ImmutableField`) and writes nothing.
#[derive(Serialize)]
pub(super) struct Guarded<Q, U> {
    q: Q,
    u: Change<U>,
    upsert: bool,
}

#[derive(Serialize)]
struct Change<U> {
    #[serde(flatten)]
    operators: U,
    #[serde(rename = "$setOnInsert")]
    refuse_insert: NoId,
}

#[derive(Serialize)]
struct NoId {
    #[serde(rename = "_id")]
    id: i32,
}

impl<Q: Serialize, U: Serialize> Guarded<Q, U> {
    /// `q` must fix `_id` to something other than the number 0; `operators` must not touch it.
    pub(super) fn new(q: Q, operators: U) -> Self {
        Self { q, u: Change { operators, refuse_insert: NoId { id: 0 } }, upsert: true }
    }
}

/// An update, or an insert when nothing matches.
#[derive(Serialize)]
pub(super) struct Update<Q, U> {
    pub(super) q: Q,
    pub(super) u: U,
    pub(super) upsert: bool,
}

#[derive(Serialize)]
struct UpdateCommand<'a, S> {
    update: &'a str,
    updates: &'a [S],
    ordered: bool,
    #[serde(rename = "writeConcern")]
    write_concern: WriteConcern,
    #[serde(rename = "maxTimeMS")]
    max_time: u32,
}

#[derive(Serialize)]
struct InsertCommand<'a, S> {
    insert: &'a str,
    documents: &'a [S],
    ordered: bool,
    #[serde(rename = "writeConcern")]
    write_concern: WriteConcern,
    #[serde(rename = "maxTimeMS")]
    max_time: u32,
}

/// How safe a write is before it is acknowledged.
#[derive(Serialize)]
struct WriteConcern {
    w: &'static str,
    j: bool,
    wtimeout: u32,
}

const DURABLE: WriteConcern = WriteConcern { w: "majority", j: true, wtimeout: 5000 };

const WRITE_TIME_MS: u32 = WRITE_TIME.as_secs() as u32 * 1000;

#[derive(Deserialize)]
struct WriteReply {
    #[serde(default)]
    n: i32,
    #[serde(rename = "writeErrors", default)]
    errors: Vec<WriteError>,
    #[serde(rename = "writeConcernError")]
    concern: Option<ConcernError>,
}

#[derive(Deserialize)]
struct WriteError {
    index: i32,
    code: i32,
    #[serde(default)]
    errmsg: String,
}

#[derive(Deserialize)]
struct ConcernError {
    code: i32,
    #[serde(default)]
    errmsg: String,
}

/// What a write command did.
pub(super) struct Written {
    /// Documents inserted or matched.
    pub(super) n: usize,
    /// Statements, by index, that were refused as they may be: lost guards and duplicate ids, with their code.
    pub(super) refused: HashMap<usize, i32>,
}

impl Mongo {
    /// Runs a command on the primary.
    pub(super) async fn command(&self, attempted: &str, command: RawDocumentBuf) -> Result<Document> {
        self.in_time(attempted, async { self.db.run_raw_command(command).await }).await
    }

    /// Runs update statements in no order, durable. Answers with those that were refused because an id is there already
    /// or by [`Guarded`]; any other error fails the call.
    pub(super) async fn update<S: Serialize>(
        &self,
        attempted: &str,
        collection: &str,
        updates: &[S],
    ) -> Result<Written> {
        self.update_unless(attempted, collection, updates, &[DUPLICATE_KEY, IMMUTABLE_FIELD]).await
    }

    /// The same, where `refusals` are the codes that refuse a statement.
    pub(super) async fn update_unless<S: Serialize>(
        &self,
        attempted: &str,
        collection: &str,
        updates: &[S],
        refusals: &[i32],
    ) -> Result<Written> {
        let command = UpdateCommand {
            update: collection,
            updates,
            ordered: false,
            write_concern: DURABLE,
            max_time: WRITE_TIME_MS,
        };
        self.write(attempted, encode(attempted, &command)?, refusals).await
    }

    /// Inserts documents in no order, durable. Answers with those whose id was there already.
    pub(super) async fn insert<S: Serialize>(
        &self,
        attempted: &str,
        collection: &str,
        documents: &[S],
    ) -> Result<Written> {
        let command = InsertCommand {
            insert: collection,
            documents,
            ordered: false,
            write_concern: DURABLE,
            max_time: WRITE_TIME_MS,
        };
        self.write(attempted, encode(attempted, &command)?, &[DUPLICATE_KEY]).await
    }

    async fn write(&self, attempted: &str, command: RawDocumentBuf, refusals: &[i32]) -> Result<Written> {
        let reply = self.command(attempted, command).await?;
        let reply: WriteReply = bson::deserialize_from_document(reply).map_err(|e| StorageError::Failed {
            attempted: attempted.to_owned(),
            cause: format!("the server's answer cannot be read: {e}"),
        })?;
        // Not (yet) safe on a majority: neither done nor undone, so nothing can be told of any statement.
        if let Some(concern) = reply.concern {
            return Err(StorageError::Unavailable {
                attempted: attempted.to_owned(),
                cause: format!("written, but not known to be safe: {} ({})", concern.errmsg, concern.code),
            });
        }
        let mut refused = HashMap::with_capacity(reply.errors.len());
        for error in reply.errors {
            match (error.code, usize::try_from(error.index)) {
                (code, Ok(index)) if refusals.contains(&code) => {
                    refused.insert(index, code);
                }
                _ => return Err(by_code(attempted, error.code, error.errmsg)),
            }
        }
        Ok(Written { n: usize::try_from(reply.n).unwrap_or(0), refused })
    }

    /// A barrier: on a standalone server, waits until all that can be read is journaled. A majority read on a replica set
    /// needs none.
    pub(super) async fn journal(&self, attempted: &str, collection: &str) -> Result<()> {
        if self.replicated {
            return Ok(());
        }
        let nothing = [Update { q: rawdoc! { "_id": 0 }, u: rawdoc! { "$set": { "n": 0 } }, upsert: false }];
        self.update(attempted, collection, &nothing).await.map(|_| ())
    }

    /// Reads a whole cursor; the timeout is for each wait.
    pub(super) async fn collect<T: DeserializeOwned>(
        &self,
        attempted: &str,
        query: impl IntoFuture<Output = mongodb::error::Result<Cursor<T>>>,
    ) -> Result<Vec<T>> {
        let mut cursor = self.in_time(attempted, query).await?;
        let mut found = Vec::new();
        while self.in_time(attempted, cursor.advance()).await? {
            found.push(cursor.deserialize_current().map_err(|e| fault(attempted, &e))?);
        }
        Ok(found)
    }

    /// Awaits an answer of the driver for as long as a call may take.
    pub(super) async fn in_time<T>(
        &self,
        attempted: &str,
        call: impl IntoFuture<Output = mongodb::error::Result<T>>,
    ) -> Result<T> {
        match tokio::time::timeout(self.timeout, call.into_future()).await {
            Ok(answer) => answer.map_err(|e| fault(attempted, &e)),
            Err(_) => Err(StorageError::Unavailable {
                attempted: attempted.to_owned(),
                cause: format!("MongoDB did not answer in {:?}", self.timeout),
            }),
        }
    }
}

fn encode(attempted: &str, command: &impl Serialize) -> Result<RawDocumentBuf> {
    bson::serialize_to_raw_document_buf(command).map_err(|e| StorageError::Failed {
        attempted: attempted.to_owned(),
        cause: format!("a value cannot be stored: {e}"),
    })
}

fn by_code(attempted: &str, code: i32, message: String) -> StorageError {
    let (attempted, cause) = (attempted.to_owned(), format!("{message} ({code})"));
    if is_transient_code(code) {
        StorageError::Unavailable { attempted, cause }
    } else {
        StorageError::Failed { attempted, cause }
    }
}

/// What an error of the driver means to a caller.
pub(super) fn fault(attempted: &str, error: &Error) -> StorageError {
    let (attempted, cause) = (attempted.to_owned(), error.kind.to_string());
    if is_transient(error) {
        StorageError::Unavailable { attempted, cause }
    } else {
        StorageError::Failed { attempted, cause }
    }
}
