//! MongoDB, for any number of processes at once.
//!
//! Every write is acknowledged by a majority and journaled (`{w: "majority", j: true}`) before a call returns. Each record
//! is one document, each change one guarded update of it: no transactions, so a standalone server serves as well as a
//! replica set.
//!
//! Times that depend on each other: an update that stamps a queue state lives at most four seconds (`WRITE_TIME`) on the
//! server, so that who reads the changes need look back only a little longer; both are shorter than the timeout of a call
//! ([`MongoOptions::timeout`]), so that the server's own answer comes first.

mod accounts;
mod alerts;
mod changes;
mod commands;
mod consumption;
mod documents;
mod imports;
mod indexes;
mod notifications;
mod operations;
mod queues;
mod reading_id;
mod reading_store;
mod readings;
mod registry;
mod rejected;
mod statistics;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use mongodb::options::{ClientOptions, ReadConcern};
use mongodb::{Client, Collection, Database};

use crate::{Result, StorageError, Store};

/// The database of an address that names none.
const DATABASE: &str = "galerna";

/// How to reach a MongoDB.
#[derive(Debug, Clone)]
pub struct MongoOptions {
    /// Connection string: `mongodb://…` or `mongodb+srv://…`, with credentials, TLS and the rest as MongoDB defines them.
    pub uri: String,
    /// The database; when `None` the one that the connection string names, else `galerna`.
    pub database: Option<String>,
    /// Longest time a call may take, unless it reads a great many records: then, longest time without progress.
    /// At least six seconds are meaningful.
    pub timeout: Duration,
}

impl MongoOptions {
    /// The database that this connection string names, with a timeout of ten seconds.
    pub fn new(uri: impl Into<String>) -> Self {
        Self { uri: uri.into(), database: None, timeout: Duration::from_secs(10) }
    }
}

/// An open database; it implements every trait of the crate.
struct Mongo {
    db: Database,
    timeout: Duration,
    /// A replica set or a sharded cluster, rather than a standalone server.
    replicated: bool,
    /// Whether readings were lately found to be stored already, so that it pays to look before inserting.
    look_first: AtomicBool,
    devices: registry::Devices,
    cursors: changes::Cursors,
}

/// Connects, and creates the collections and indexes that are missing; any number of processes may do so at once.
///
/// # Errors
/// [`StorageError::Invalid`] when the connection string is wrong; [`StorageError::Unavailable`] when no server answers;
/// [`StorageError::Failed`] when it refuses (credentials, rights).
pub async fn connect(options: MongoOptions) -> Result<Store> {
    open(options).await.map(Mongo::into_store)
}

async fn open(options: MongoOptions) -> Result<Mongo> {
    let mut client = ClientOptions::parse(&options.uri).await.map_err(|e| {
        StorageError::Invalid(format!(
            "MongoDB address is wrong: {}; write for instance mongodb://host:27017/galerna",
            e.kind
        ))
    })?;
    client.app_name.get_or_insert_with(|| "galerna".to_owned());
    client.connect_timeout.get_or_insert(Duration::from_secs(5));
    client.server_selection_timeout.get_or_insert(Duration::from_secs(5).min(options.timeout));
    client.max_pool_size.get_or_insert(64);
    let database =
        options.database.or_else(|| client.default_database.clone()).unwrap_or_else(|| DATABASE.into());
    let db = Client::with_options(client)
        .map_err(|e| commands::fault("connecting to MongoDB", &e))?
        .database(&database);
    let mut mongo = Mongo {
        db,
        timeout: options.timeout,
        replicated: false,
        look_first: AtomicBool::new(false),
        devices: registry::Devices::default(),
        cursors: changes::Cursors::new(),
    };
    let hello = mongo.command("connecting to MongoDB", bson::rawdoc! { "hello": 1 }).await?;
    mongo.replicated = hello.contains_key("setName") || hello.get_str("msg").is_ok_and(|m| m == "isdbgrid");
    mongo.create_indexes().await?;
    Ok(mongo)
}

/// The driver's connections end with the last clone of the store.
impl crate::Closing for Mongo {}

impl Mongo {
    fn into_store(self) -> Store {
        let store = Arc::new(self);
        Store {
            queues: store.clone(),
            readings: store.clone(),
            rejected: store.clone(),
            rules: store.clone(),
            alert_states: store.clone(),
            accounts: store.clone(),
            sources: store.clone(),
            settings: store.clone(),
            notifications: store.clone(),
            audit: store.clone(),
            history: store.clone(),
            imports: store.clone(),
            statistics: store.clone(),
            consumption: store.clone(),
            closing: store,
        }
    }

    fn collection<T: Send + Sync>(&self, name: &str) -> Collection<T> {
        self.db.collection(name)
    }

    /// Sees only what can no longer be rolled back.
    fn settled(&self) -> ReadConcern {
        if self.replicated { ReadConcern::majority() } else { ReadConcern::local() }
    }

    /// For a read of one document by its id: sees every write acknowledged before, even while another server believes it
    /// is the primary.
    fn linearizable(&self) -> ReadConcern {
        if self.replicated { ReadConcern::linearizable() } else { ReadConcern::local() }
    }
}
