//! Checkpoints in MongoDB.
//!
//! `checkpoint_chunks` has the files, each in documents `{topology, file, offset, end, data}` of at most 8 MiB;
//! `checkpoints` has one document `{topology, checkpoint, follows, writer, file, length, files, …}` for each committed checkpoint, whose
//! `file` is its manifest. Inserting that document is the commit. Every write is acknowledged by a majority and journaled.
//!
//! Each checkpoint `follows` another, and each is followed by at most one. Who goes on from a checkpoint first inserts a document
//! `{topology, checkpoint, follows, writer, claim: true}`, so that whoever had written it can commit nothing more; its own first commit
//! takes that document's place.

mod claims;

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bson::oid::ObjectId;
use bson::spec::BinarySubtype;
use bson::{Binary, Document, doc};
use futures_util::TryStreamExt;
use galerna_lock::Mutex;
use galerna_mongo::{DUPLICATE_KEY, OUT_OF_DISK_SPACE, code, is_transient};
use mongodb::error::Error;
use mongodb::options::{
    Acknowledgment, ClientOptions, CollectionOptions, IndexOptions, ReadConcern, SelectionCriteria,
    WriteConcern,
};
use mongodb::{Client, Collection, IndexModel};

use self::claims::{Head, Newest};
use super::folder::blocks_name;
use super::{
    CheckpointEntry, CheckpointError, CheckpointId, CheckpointStore, Collected, Manifest, StoredPart,
};
use crate::Part;

/// Data of one document; documents may have 16 MiB.
const CHUNK_BYTES: usize = 8 << 20;

const COMMITTING: &str = "committing a checkpoint to";

const CHUNKS: &str = "checkpoint_chunks";
const CHECKPOINTS: &str = "checkpoints";

/// How to reach a MongoDB.
#[derive(Debug, Clone)]
pub struct MongoCheckpointOptions {
    /// Connection string: `mongodb://…` or `mongodb+srv://…`.
    pub uri: String,
    /// The database; when `None` the one that the connection string names, else `galerna`.
    pub database: Option<String>,
    /// Longest time that a call to the server may take.
    pub timeout: Duration,
}

impl MongoCheckpointOptions {
    /// The database that this connection string names, with a timeout of ten seconds a call.
    pub fn new(uri: impl Into<String>) -> Self {
        Self { uri: uri.into(), database: None, timeout: Duration::from_secs(10) }
    }
}

/// The checkpoints of one topology in a MongoDB. A second process that runs the same topology finds its commits refused
/// ([`CheckpointError::Conflict`]).
pub struct MongoCheckpoints {
    chunks: Collection<Document>,
    checkpoints: Collection<Document>,
    topology: String,
    timeout: Duration,
    /// Ends the names of this process's files: another process that runs the same topology never writes into them.
    writer: String,
    /// The checkpoint that was begun.
    begun: Mutex<Option<CheckpointId>>,
    /// What the next commit comes after; nothing as long as nobody asked.
    head: Mutex<Option<Head>>,
}

impl std::fmt::Debug for MongoCheckpoints {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MongoCheckpoints").field("topology", &self.topology).finish_non_exhaustive()
    }
}

fn failed(attempted: &'static str, place: &str, error: &Error) -> CheckpointError {
    let (place, cause) = (place.to_owned(), error.to_string());
    if code(error) == Some(OUT_OF_DISK_SPACE) {
        CheckpointError::DiskFull { attempted, place, cause }
    } else if is_transient(error) {
        CheckpointError::Unavailable { attempted, place, cause }
    } else {
        CheckpointError::Failed { attempted, place, cause }
    }
}

impl MongoCheckpoints {
    /// Connects, and creates the collections' indexes if they are missing.
    ///
    /// # Errors
    /// [`CheckpointError::Invalid`] when the connection string or the topology's name is wrong;
    /// [`CheckpointError::Unavailable`] when no server answers; [`CheckpointError::Failed`] when it refuses.
    pub async fn connect(
        options: MongoCheckpointOptions,
        topology: impl Into<String>,
    ) -> Result<Self, CheckpointError> {
        let topology = topology.into();
        if topology.is_empty() || topology.len() > 500 {
            return Err(CheckpointError::Invalid("a topology's name has 1 to 500 bytes".to_owned()));
        }
        let mut client = ClientOptions::parse(&options.uri).await.map_err(|error| {
            CheckpointError::Invalid(format!(
                "MongoDB address is wrong: {}; write for instance mongodb://host:27017/galerna",
                error.kind
            ))
        })?;
        client.app_name.get_or_insert_with(|| "galerna".to_owned());
        client.connect_timeout.get_or_insert(Duration::from_secs(5));
        client.server_selection_timeout.get_or_insert(Duration::from_secs(5).min(options.timeout));
        let database = options
            .database
            .or_else(|| client.default_database.clone())
            .unwrap_or_else(|| "galerna".to_owned());
        let client = Client::with_options(client).map_err(|e| failed("connecting to", "MongoDB", &e))?;
        let database = client.database(&database);
        let hello = async { database.run_command(doc! { "hello": 1 }).await };
        let hello = in_time(options.timeout, "connecting to", "MongoDB", hello).await?;
        let replicated =
            hello.contains_key("setName") || hello.get_str("msg").is_ok_and(|message| message == "isdbgrid");
        let settings = CollectionOptions::builder()
            .write_concern(WriteConcern::builder().w(Acknowledgment::Majority).journal(true).build())
            // What can be read cannot be rolled back, and is the newest even while an old primary still believes it is one.
            .read_concern(if replicated { ReadConcern::majority() } else { ReadConcern::local() })
            .selection_criteria(SelectionCriteria::ReadPreference(mongodb::options::ReadPreference::Primary))
            .build();
        let store = Self {
            chunks: database.collection_with_options(CHUNKS, settings.clone()),
            checkpoints: database.collection_with_options(CHECKPOINTS, settings),
            topology,
            timeout: options.timeout,
            writer: ObjectId::new().to_hex(),
            begun: Mutex::new(None),
            head: Mutex::new(None),
        };
        for (collection, keys, only) in [
            (&store.chunks, doc! { "topology": 1, "file": 1, "offset": 1 }, None),
            (&store.checkpoints, doc! { "topology": 1, "checkpoint": 1 }, None),
            // Earlier versions wrote none.
            (
                &store.checkpoints,
                doc! { "topology": 1, "follows": 1 },
                Some(doc! { "follows": { "$exists": true } }),
            ),
        ] {
            let unique = IndexOptions::builder().unique(true).partial_filter_expression(only).build();
            let index = IndexModel::builder().keys(keys).options(unique).build();
            store.call("creating an index of", collection.name(), collection.create_index(index)).await?;
        }
        Ok(store)
    }

    async fn call<T>(
        &self,
        attempted: &'static str,
        place: &str,
        call: impl IntoFuture<Output = mongodb::error::Result<T>>,
    ) -> Result<T, CheckpointError> {
        in_time(self.timeout, attempted, place, call).await
    }

    fn check_begun(&self, id: CheckpointId) -> Result<(), CheckpointError> {
        if *self.begun.lock() == Some(id) { Ok(()) } else { Err(CheckpointError::NotBegun { id }) }
    }

    /// Inserts a document; whether its keys were new.
    async fn insert(
        &self,
        attempted: &'static str,
        collection: &Collection<Document>,
        document: Document,
    ) -> Result<bool, CheckpointError> {
        let insert = async {
            match collection.insert_one(document).await {
                Err(error) if code(&error) == Some(DUPLICATE_KEY) => Ok(false),
                inserted => inserted.map(|_| true),
            }
        };
        self.call(attempted, collection.name(), insert).await
    }

    async fn put_file(&self, id: CheckpointId, file: &str, bytes: &[u8]) -> Result<(), CheckpointError> {
        // What an attempt that failed has left of it.
        let left = self.chunks.delete_many(doc! { "topology": &self.topology, "file": file });
        self.call("writing to", CHUNKS, left).await?;
        for (n, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
            let offset = n * CHUNK_BYTES;
            let document = doc! {
                "topology": &self.topology,
                "file": file,
                "offset": offset as i64,
                "end": (offset + chunk.len()) as i64,
                "data": Binary { subtype: BinarySubtype::Generic, bytes: chunk.to_vec() },
            };
            if !self.insert("writing to", &self.chunks, document).await? {
                return Err(self.conflict(id.0 as i64));
            }
        }
        Ok(())
    }

    async fn read_file(&self, file: &str, offset: u64, length: u64) -> Result<Vec<u8>, CheckpointError> {
        let place = || format!("file {file} in {CHUNKS}");
        let corrupt =
            |problem: &str| CheckpointError::Corrupt { place: place(), problem: problem.to_owned() };
        let end = offset.checked_add(length).and_then(|end| i64::try_from(end).ok());
        let (Some(end), Ok(start)) = (end, i64::try_from(offset)) else {
            return Err(corrupt("it is cut short"));
        };
        let wanted = doc! {
            "topology": &self.topology, "file": file, "offset": { "$lt": end }, "end": { "$gt": start },
        };
        let found = self.chunks.find(wanted).sort(doc! { "offset": 1 });
        let mut cursor = self.call("reading", CHUNKS, found).await?;
        let mut bytes = Vec::new();
        let mut at = start;
        while let Some(chunk) = self.call("reading", CHUNKS, cursor.try_next()).await? {
            let (first, data) = match (chunk.get_i64("offset"), chunk.get_binary_generic("data")) {
                (Ok(first), Ok(data)) if first <= at => (first, data),
                (Ok(_), Ok(_)) => return Err(corrupt("a part of it is missing")),
                _ => return Err(corrupt("a document of it is not as it was written")),
            };
            let last = end.min(first.saturating_add(data.len() as i64));
            match data.get((at - first) as usize..(last - first).max(0) as usize) {
                Some(part) => bytes.extend_from_slice(part),
                None => return Err(corrupt("a document of it is cut short")),
            }
            at = last;
        }
        if at == end { Ok(bytes) } else { Err(corrupt("it is missing or cut short")) }
    }

    async fn decode(&self, id: CheckpointId, document: &Document) -> Result<Manifest, CheckpointError> {
        let place = format!("checkpoint {id} in {CHECKPOINTS}");
        let corrupt =
            |problem: &str| CheckpointError::Corrupt { place: place.clone(), problem: problem.to_owned() };
        let (Ok(file), Ok(length)) = (document.get_str("file"), document.get_i64("length")) else {
            return Err(corrupt("its document is not as it was written"));
        };
        let bytes = self.read_file(file, 0, length.unsigned_abs()).await?;
        let manifest = Manifest::decode(&bytes, &place)?;
        if manifest.id == id && manifest.topology == self.topology {
            return Ok(manifest);
        }
        Err(corrupt(&format!("it is checkpoint {} of topology `{}`", manifest.id, manifest.topology)))
    }

    /// The committed checkpoints, oldest first.
    async fn committed(&self) -> Result<Vec<(CheckpointId, Document)>, CheckpointError> {
        let found = self.checkpoints.find(self.committed_ones()).sort(doc! { "checkpoint": 1 });
        let mut cursor = self.call("reading", CHECKPOINTS, found).await?;
        let mut all = Vec::new();
        while let Some(document) = self.call("reading", CHECKPOINTS, cursor.try_next()).await? {
            if let Ok(id) = document.get_i64("checkpoint") {
                all.push((CheckpointId(id.unsigned_abs()), document));
            }
        }
        Ok(all)
    }

    fn unknown(&self, id: CheckpointId) -> CheckpointError {
        CheckpointError::Unknown { id, place: format!("{CHECKPOINTS} of topology `{}`", self.topology) }
    }

    fn committed_ones(&self) -> Document {
        doc! { "topology": &self.topology, "claim": { "$exists": false } }
    }

    fn of(&self, id: CheckpointId) -> Document {
        doc! { "topology": &self.topology, "checkpoint": id.0 as i64, "claim": { "$exists": false } }
    }
}

async fn in_time<T>(
    timeout: Duration,
    attempted: &'static str,
    place: &str,
    call: impl IntoFuture<Output = mongodb::error::Result<T>>,
) -> Result<T, CheckpointError> {
    match tokio::time::timeout(timeout, call.into_future()).await {
        Ok(done) => done.map_err(|error| failed(attempted, place, &error)),
        Err(_) => Err(CheckpointError::Unavailable {
            attempted,
            place: place.to_owned(),
            cause: format!("no answer in {} s", timeout.as_secs_f32()),
        }),
    }
}

/// The number at the start of a file's name.
fn number(file: &str) -> Option<CheckpointId> {
    file.get(..20)?.parse().ok().map(CheckpointId)
}

#[async_trait]
impl CheckpointStore for MongoCheckpoints {
    async fn claim(&self, restored: Option<CheckpointId>) -> Result<(), CheckpointError> {
        self.claim_after(restored.map_or(0, |id| id.0 as i64)).await
    }

    async fn begin(&self) -> Result<CheckpointId, CheckpointError> {
        let newest = self.newest().await?;
        let committed =
            newest.as_ref().map_or(0, |newest| newest.claim_of().unwrap_or(newest.number)).unsigned_abs();
        let head = newest.as_ref().map_or(Head::Checkpoint(0), Newest::head);
        {
            let mut own = self.head.lock();
            match &newest {
                Some(newest) if !newest.own && own.is_some_and(|own| own != head) => {
                    return Err(self.conflict(newest.number));
                }
                // A commit whose answer was lost is its own, too.
                _ => *own = Some(head),
            }
        }
        let last = self
            .chunks
            .find_one(doc! { "topology": &self.topology })
            .sort(doc! { "file": -1 })
            .projection(doc! { "file": 1 });
        let last = self.call("reading", CHUNKS, last).await?;
        let last = last.and_then(|found| found.get_str("file").ok().and_then(number));
        let mut begun = self.begun.lock();
        let id = CheckpointId(last.max(*begun).map_or(committed, |last| last.0.max(committed)) + 1);
        *begun = Some(id);
        Ok(id)
    }

    async fn put(&self, checkpoint: CheckpointId, mut part: Part) -> Result<StoredPart, CheckpointError> {
        self.check_begun(checkpoint)?;
        let bytes = std::mem::take(&mut part.bytes);
        if bytes.is_empty() {
            return Ok(StoredPart::new(checkpoint, part, None));
        }
        let file = format!("{}.{}", blocks_name(checkpoint, &part.component, part.task), self.writer);
        self.put_file(checkpoint, &file, &bytes).await?;
        Ok(StoredPart::new(checkpoint, part, Some(file.into())))
    }

    async fn commit(&self, manifest: &Manifest) -> Result<(), CheckpointError> {
        let id = manifest.id;
        self.check_begun(id)?;
        let bytes = manifest.encode().map_err(|problem| CheckpointError::Incomplete { id, problem })?;
        let file = format!("{:020}.manifest.{}", id.0, self.writer);
        self.put_file(id, &file, &bytes).await?;
        let head = (*self.head.lock()).unwrap_or(Head::Checkpoint(0));
        let (Head::Claim { follows, .. } | Head::Checkpoint(follows)) = head;
        let document = doc! {
            "topology": &self.topology,
            "checkpoint": id.0 as i64,
            "follows": follows,
            "writer": &self.writer,
            "file": file,
            "length": bytes.len() as i64,
            "files": manifest.files().iter().map(|file| file.to_string()).collect::<Vec<_>>(),
            "taken_at": bson::DateTime::from_millis(manifest.taken_at),
            "bytes": manifest.bytes() as i64,
        };
        let committed = match head {
            Head::Claim { document: claim, .. } => {
                let of = doc! { "_id": claim, "writer": &self.writer, "claim": true };
                let replaced = self.checkpoints.replace_one(of, document);
                self.call(COMMITTING, CHECKPOINTS, replaced).await?.matched_count == 1
            }
            Head::Checkpoint(_) => self.insert(COMMITTING, &self.checkpoints, document).await?,
        };
        // One that was begun before many of another process, whose oldest are gone, does not collide with them.
        let newest = self.newest().await?;
        if !committed || newest.as_ref().map(|newest| newest.number) != Some(id.0 as i64) {
            let other = newest.map(|newest| newest.claim_of().unwrap_or(newest.number));
            return Err(self.conflict(other.unwrap_or_default()));
        }
        *self.head.lock() = Some(Head::Checkpoint(id.0 as i64));
        *self.begun.lock() = None;
        Ok(())
    }

    async fn latest(&self) -> Result<Option<Manifest>, CheckpointError> {
        let newest = self.checkpoints.find_one(self.committed_ones()).sort(doc! { "checkpoint": -1 });
        let Some(document) = self.call("reading", CHECKPOINTS, newest).await? else { return Ok(None) };
        let id = document.get_i64("checkpoint").unwrap_or_default().unsigned_abs();
        self.decode(CheckpointId(id), &document).await.map(Some)
    }

    async fn load(&self, id: CheckpointId) -> Result<Manifest, CheckpointError> {
        let found = self.call("reading", CHECKPOINTS, self.checkpoints.find_one(self.of(id))).await?;
        self.decode(id, &found.ok_or_else(|| self.unknown(id))?).await
    }

    async fn list(&self) -> Result<Vec<CheckpointEntry>, CheckpointError> {
        let mut entries = Vec::new();
        for (id, document) in self.committed().await? {
            entries.push(CheckpointEntry { id, manifest: self.decode(id, &document).await });
        }
        Ok(entries)
    }

    async fn read(&self, file: &str, offset: u64, length: u64) -> Result<Vec<u8>, CheckpointError> {
        self.read_file(file, offset, length).await
    }

    async fn delete(&self, id: CheckpointId) -> Result<(), CheckpointError> {
        let deleted =
            self.call("deleting from", CHECKPOINTS, self.checkpoints.delete_one(self.of(id))).await?;
        if deleted.deleted_count == 0 {
            return Err(self.unknown(id));
        }
        let claims = doc! { "topology": &self.topology, "follows": id.0 as i64, "claim": true };
        self.call("deleting from", CHECKPOINTS, self.checkpoints.delete_many(claims)).await?;
        let mut head = self.head.lock();
        if *head == Some(Head::Checkpoint(id.0 as i64)) {
            *head = None;
        }
        Ok(())
    }

    async fn collect(&self, keep: NonZeroUsize) -> Result<Collected, CheckpointError> {
        let committed = self.committed().await?;
        let (old, kept) = committed.split_at(committed.len().saturating_sub(keep.get()));
        let mut used: BTreeSet<Arc<str>> = BTreeSet::new();
        for (id, document) in kept {
            used.extend(self.decode(*id, document).await?.files());
            used.extend(document.get_str("file").ok().map(Arc::from));
        }
        for (id, _) in old {
            self.call("deleting from", CHECKPOINTS, self.checkpoints.delete_one(self.of(*id))).await?;
        }
        // Later ones may be on their way, also from another process.
        let newest = committed.last().map(|(id, _)| *id);
        let names = self.chunks.distinct("file", doc! { "topology": &self.topology });
        let names = self.call("reading", CHUNKS, names).await?;
        let orphans: Vec<&str> = names
            .iter()
            .filter_map(|name| name.as_str())
            .filter(|name| !used.contains(*name) && number(name).is_some_and(|id| Some(id) <= newest))
            .collect();
        for file in &orphans {
            let wanted = doc! { "topology": &self.topology, "file": *file };
            self.call("deleting from", CHUNKS, self.chunks.delete_many(wanted)).await?;
        }
        Ok(Collected { checkpoints: old.iter().map(|(id, _)| *id).collect(), files: orphans.len() })
    }
}
