//! The embedded store: one SQLite file in WAL mode, for one process.
//!
//! Writes go through one connection with group commit ([`galerna_sqlite::Writer`]) and are on disk when they return. Reads run on connections of their own on the blocking pool and see everything that was committed before.
//! A lock file beside the database keeps a second process out, since each process keeps state of its own (the numbers
//! of changes, the ids of series) that another writer would break.

mod accounts;
mod alerts;
mod columns;
mod consumption;
mod imports;
mod notifications;
mod operations;
mod outbox;
mod queues;
mod readings;
mod rejected;
mod schema;
mod statistics;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use galerna_lock::Mutex;
use galerna_sqlite::{Host, Limits, OpenError, Session, SqliteError, Stored, Tuning, Writer};
use rusqlite::{Connection, OpenFlags};
use tokio::sync::Semaphore;

use self::schema::FORMAT;
use crate::{Result, StorageError, Store};

/// Connections that read at once.
const READERS: usize = 4;

/// Few jobs in one transaction: their callers wait for it.
const LIMITS: Limits = Limits {
    jobs: 64,
    weight: usize::MAX,
    time: std::time::Duration::from_millis(20),
    again: std::time::Duration::from_millis(200),
};

/// An open embedded store; it implements every trait of the crate.
struct Sqlite {
    writer: Arc<Writer<Caches>>,
    /// `None` for a store in memory, whose one connection reads too.
    readers: Option<Readers>,
}

struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

/// What the writer knows of what is stored.
struct Caches {
    /// The last number given to a change of the queue states.
    last_change: i64,
    /// Ids of series and accounts known to be committed or to be committed with this transaction.
    series: readings::SeriesCache,
}

impl Caches {
    fn new(connection: &Connection) -> rusqlite::Result<Self> {
        let last_change = queues::last_change(connection)?;
        Ok(Self { last_change, series: readings::SeriesCache::default() })
    }
}

impl Session for Caches {
    fn rolled_back(&mut self) {
        self.series.clear();
    }
}

/// What a write writes with.
type Open = Stored<Caches>;

/// Opens the store in this file, which is created, with its folder, when missing.
///
/// The file is locked as long as any clone of the [`Store`] lives, or until [`Store::close`].
///
/// # Errors
/// [`StorageError::Invalid`] when the path is a folder; [`StorageError::InUse`] when another process has the store open; [`StorageError::Failed`] when the
/// file is damaged or not a store of Galerna; otherwise what SQLite or the file system said.
pub async fn open(path: impl AsRef<Path>) -> Result<Store> {
    let path = path.as_ref().to_owned();
    tokio::task::spawn_blocking(move || open_file(&path))
        .await
        .map_err(|_| gone("opening the embedded store"))?
        .map(Sqlite::into_store)
}

/// A store that is gone when its last clone is dropped: for trying and for tests.
///
/// # Errors
/// When SQLite has no memory.
pub fn in_memory() -> Result<Store> {
    let attempted = "opening a store in memory";
    let stored = Stored::in_memory(|connection| {
        schema::bring_up(connection, 0)?;
        Caches::new(connection)
    });
    let stored = stored.map_err(|e| failure(attempted, &e.into()))?;
    Ok(Sqlite { writer: Arc::new(start(attempted, stored)?), readers: None }.into_store())
}

fn start(attempted: &str, stored: Open) -> Result<Writer<Caches>> {
    Writer::start(stored, LIMITS, Host::BlockingPool)
        .map_err(|e| StorageError::Unavailable { attempted: attempted.to_owned(), cause: e.to_string() })
}

fn open_file(path: &Path) -> Result<Sqlite> {
    let attempted = format!("opening the embedded store {}", path.display());
    let opened = FORMAT.open(path, &Tuning::default()).map_err(|error| match error {
        OpenError::Folder(path) => StorageError::Invalid(format!(
            "{} is a folder; name the file of the embedded store, such as {}",
            path.display(),
            path.join("galerna.db").display()
        )),
        OpenError::InUse(path) => StorageError::InUse { path: path.display().to_string() },
        error => StorageError::Failed { attempted: attempted.clone(), cause: error.to_string() },
    })?;
    statistics::take_over(opened.connection(), path).map_err(|e| failure(&attempted, &e.into()))?;
    let caches = Caches::new(opened.connection()).map_err(|e| failure(&attempted, &e.into()))?;
    Ok(Sqlite {
        writer: Arc::new(start(&attempted, opened.into_session(caches))?),
        readers: Some(Readers {
            path: path.to_owned(),
            idle: Mutex::default(),
            permits: Semaphore::new(READERS),
        }),
    })
}

/// Settings of a connection that reads.
fn prepare(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(std::time::Duration::from_secs(10))?;
    conn.set_prepared_statement_cache_capacity(64);
    conn.pragma_update(None, "cache_size", -32_768)?;
    conn.pragma_update(None, "temp_store", "MEMORY")
}

impl Sqlite {
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

    async fn write<T: Send + 'static>(
        &self,
        attempted: &'static str,
        work: impl FnMut(&mut Open) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.writer.write(work).await.map_err(|e| failure(attempted, &e))
    }

    /// Runs a query on a snapshot of what is committed.
    async fn read<T: Send + 'static>(
        &self,
        attempted: &'static str,
        mut query: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(readers) = &self.readers else {
            return self.write(attempted, move |open| query(open.connection())).await;
        };
        if self.writer.is_closed() {
            return Err(failure(attempted, &SqliteError::closed()));
        }
        let _permit = readers.permits.acquire().await.map_err(|_| gone(attempted))?;
        let (idle, path) = (readers.idle.lock().pop(), readers.path.clone());
        let read = move || {
            let conn = idle.map_or_else(|| reader(&path), Ok)?;
            // One transaction, so that a query of several statements sees one state.
            let snapshot = conn.unchecked_transaction()?;
            let found = query(&conn)?;
            snapshot.finish()?;
            Ok((conn, found))
        };
        let read = tokio::task::spawn_blocking(read).await.map_err(|_| gone(attempted))?;
        let (conn, found) = read.map_err(|e: rusqlite::Error| failure(attempted, &e.into()))?;
        readers.idle.lock().push(conn);
        Ok(found)
    }
}

#[async_trait::async_trait]
impl crate::Closing for Sqlite {
    async fn close(&self) -> Result<()> {
        // Connections that read would keep the log from being folded back.
        if let Some(readers) = &self.readers {
            readers.idle.lock().clear();
        }
        let writer = Arc::clone(&self.writer);
        tokio::task::spawn_blocking(move || writer.close())
            .await
            .map_err(|_| gone("closing the embedded store"))
    }
}

fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    prepare(&conn)?;
    Ok(conn)
}

/// What went wrong, as callers tell it apart: a full disk and a busy file may pass, the rest does not.
fn failure(attempted: &str, error: &SqliteError) -> StorageError {
    let (attempted, cause) = (attempted.to_owned(), error.cause.clone());
    if error.is_transient() {
        StorageError::Unavailable { attempted, cause }
    } else {
        StorageError::Failed { attempted, cause }
    }
}

/// The runtime that worked for this call is ending; whether a write was done is not known.
fn gone(attempted: &str) -> StorageError {
    StorageError::Unavailable {
        attempted: attempted.to_owned(),
        cause: "the store is shutting down".to_owned(),
    }
}
