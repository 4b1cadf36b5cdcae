//! The embedded store: one SQLite file in WAL mode, for one process.
//!
//! Writes go through one connection with group commit and are on disk (`synchronous=FULL`) when they
//! return. Reads run on connections of their own on the blocking pool and see everything that was committed before.
//! A lock file beside the database keeps a second process out, since each process keeps state of its own (the numbers
//! of changes, the ids of series) that another writer would break.

mod accounts;
mod alerts;
mod columns;
mod group_commit;
mod notifications;
mod operations;
mod queues;
mod readings;
mod rejected;
mod schema;

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use tokio::sync::Semaphore;

use crate::{Result, StorageError, Store};
use group_commit::{GroupCommit, Writer};

/// Connections that read at once.
const READERS: usize = 4;

/// An open embedded store; it implements every trait of the crate.
struct Sqlite {
    group: Arc<GroupCommit>,
    /// `None` for a store in memory, whose one connection reads too.
    readers: Option<Readers>,
}

struct Readers {
    path: PathBuf,
    idle: Mutex<Vec<Connection>>,
    permits: Semaphore,
}

/// Opens the store in this file, which is created, with its folder, when missing.
///
/// The file is locked as long as any clone of the [`Store`] lives.
///
/// # Errors
/// [`StorageError::Invalid`] when the path is a folder or another process has the store open; otherwise what SQLite or the
/// file system said.
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
    let conn = Connection::open_in_memory().map_err(|e| failure(attempted, &e))?;
    let writer = writer(conn, None).map_err(|e| failure(attempted, &e))?;
    Ok(Sqlite { group: Arc::new(GroupCommit::new(writer)), readers: None }.into_store())
}

fn open_file(path: &Path) -> Result<Sqlite> {
    let attempted = format!("opening the embedded store {}", path.display());
    let io = |e: std::io::Error| StorageError::Failed { attempted: attempted.clone(), cause: e.to_string() };
    if path.is_dir() {
        return Err(StorageError::Invalid(format!(
            "{} is a folder; name the file of the embedded store, such as {}",
            path.display(),
            path.join("galerna.db").display()
        )));
    }
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        std::fs::create_dir_all(folder).map_err(io)?;
    }
    let lock = lock(path).map_err(io)?.ok_or_else(|| {
        StorageError::Invalid(format!(
            "the embedded store {} is open already; stop the process that has it, choose another file, or use MongoDB to \
             share one store between processes",
            path.display()
        ))
    })?;
    let connect = || {
        let conn = Connection::open(path)?;
        conn.pragma_update(None, "journal_mode", "WAL")?;
        conn.pragma_update(None, "synchronous", "FULL")?;
        // A checkpoint per 32 MiB of log rather than per 4: fewer, larger, more sequential.
        conn.pragma_update(None, "wal_autocheckpoint", 8192)?;
        writer(conn, Some(lock))
    };
    let writer = connect().map_err(|e| failure(&attempted, &e))?;
    Ok(Sqlite {
        group: Arc::new(GroupCommit::new(writer)),
        readers: Some(Readers {
            path: path.to_owned(),
            idle: Mutex::default(),
            permits: Semaphore::new(READERS),
        }),
    })
}

/// Locks `<path>.lock`; `None` when somebody else has it. Not the database itself: SQLite's own locks on it would go with
/// the first descriptor that this process closes.
fn lock(path: &Path) -> std::io::Result<Option<File>> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = File::options().create(true).truncate(false).write(true).open(name)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(e)) => Err(e),
    }
}

/// Settings of every connection.
fn prepare(conn: &Connection) -> rusqlite::Result<()> {
    conn.busy_timeout(std::time::Duration::from_secs(10))?;
    conn.set_prepared_statement_cache_capacity(64);
    conn.pragma_update(None, "cache_size", -32_768)?;
    conn.pragma_update(None, "temp_store", "MEMORY")
}

fn writer(conn: Connection, lock: Option<File>) -> rusqlite::Result<Writer> {
    prepare(&conn)?;
    schema::bring_up(&conn)?;
    let last_change = queues::last_change(&conn)?;
    Ok(Writer { conn, last_change, series: readings::SeriesCache::default(), _lock: lock })
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
            history: store,
        }
    }

    async fn write<T: Send + 'static>(
        &self,
        attempted: &'static str,
        work: impl FnOnce(&mut Writer) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.group.write(attempted, work).await
    }

    /// Runs a query on a snapshot of what is committed.
    async fn read<T: Send + 'static>(
        &self,
        attempted: &'static str,
        query: impl FnOnce(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T> {
        let Some(readers) = &self.readers else {
            return self.group.write(attempted, |writer| query(&writer.conn)).await;
        };
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
        let (conn, found) = read.map_err(|e: rusqlite::Error| failure(attempted, &e))?;
        readers.idle.lock().push(conn);
        Ok(found)
    }
}

fn reader(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let conn = Connection::open_with_flags(path, flags)?;
    prepare(&conn)?;
    Ok(conn)
}

/// What went wrong, as callers tell it apart: a full disk and a busy file may pass, the rest does not.
fn failure(attempted: &str, error: &rusqlite::Error) -> StorageError {
    let attempted = attempted.to_owned();
    let mut cause = error.to_string();
    let passing = match error.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => {
            cause.push_str("; free some space");
            true
        }
        Some(
            ErrorCode::DatabaseBusy
            | ErrorCode::DatabaseLocked
            | ErrorCode::SystemIoFailure
            | ErrorCode::OutOfMemory
            | ErrorCode::OperationAborted,
        ) => true,
        _ => false,
    };
    if passing {
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
