//! The connection that a writer writes with.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension};

use crate::Job;
use crate::marker::{Mark, Marker};

/// What jobs write with, beside the connection: caches, counters, the store's own statements.
pub trait Session: Send + Sized + 'static {
    /// A transaction was rolled back: what was learnt from its rows is to be forgotten.
    fn rolled_back(&mut self) {}

    /// How long until there is something to do that nobody asks for; `None` when nothing is. Asked only by
    /// [`Host::Thread`](crate::Host::Thread).
    fn next_due(&mut self, _connection: &Connection) -> Option<Duration> {
        None
    }

    /// What to do when that time has come.
    fn due(&mut self) -> Option<Box<dyn Job<Self>>> {
        None
    }
}

/// A session that is nothing but the connection.
#[derive(Debug, Clone, Copy, Default)]
pub struct Plain;

impl Session for Plain {}

/// A connection with its session and the marker of its file.
#[derive(Debug)]
pub struct Stored<S> {
    connection: Connection,
    /// With what it says, and whether other processes use the file. None in memory.
    marker: Option<(Marker, Mark, bool)>,
    session: S,
}

impl<S> Stored<S> {
    pub(crate) fn new(connection: Connection, marker: Option<(Marker, Mark, bool)>, session: S) -> Self {
        Self { connection, marker, session }
    }

    /// A database that ends with its session, which `bring_up` makes when it has created the tables.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn in_memory(bring_up: impl FnOnce(&Connection) -> rusqlite::Result<S>) -> rusqlite::Result<Self> {
        let connection = Connection::open_in_memory()?;
        connection.set_prepared_statement_cache_capacity(64);
        let session = bring_up(&connection)?;
        Ok(Self::new(connection, None, session))
    }

    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The connection and the session apart, to be borrowed at the same time.
    pub fn parts(&mut self) -> (&Connection, &mut S) {
        (&self.connection, &mut self.session)
    }

    fn execute(&self, sql: &str) -> rusqlite::Result<()> {
        self.connection().prepare_cached(sql)?.execute([]).map(drop)
    }
}

impl<S: Session> Stored<S> {
    pub(crate) fn next_due(&mut self) -> Option<Duration> {
        self.session.next_due(&self.connection)
    }

    pub(crate) fn due(&mut self) -> Option<Box<dyn Job<S>>> {
        self.session.due()
    }

    /// Runs `work` in a transaction of its own; when it fails, nothing is changed.
    pub(crate) fn transact(
        &mut self,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        if !self.connection().is_autocommit() {
            // Something panicked in the transaction before.
            self.roll_back();
        }
        let done = self.try_transaction(work);
        if done.is_err() {
            self.roll_back();
        }
        done
    }

    fn try_transaction(
        &mut self,
        work: impl FnOnce(&mut Self) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        self.execute("BEGIN IMMEDIATE")?;
        let before = self.connection().total_changes();
        work(self)?;
        if self.connection().is_autocommit() {
            // Some errors (a full disk, an I/O error) make SQLite roll back by itself.
            return Err(rusqlite::Error::SqliteFailure(
                rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_ABORT),
                Some("the transaction was rolled back because a write of it failed".to_owned()),
            ));
        }
        let commits = match &self.marker {
            Some(_) if self.connection().total_changes() != before => self
                .connection()
                .prepare_cached("UPDATE galerna_store SET commits = commits + 1 RETURNING commits")?
                .query_row([], |row| row.get::<_, i64>(0))
                .optional()?,
            _ => None,
        };
        self.execute("COMMIT")?;
        if let (Some((marker, mark, _)), Some(commits)) = (&mut self.marker, commits) {
            mark.commits = commits.unsigned_abs();
            if let Err(error) = marker.write(*mark) {
                // Makes the check at the next start weaker; what was committed is safe.
                tracing::warn!(%error, "the lock file of a store was not written");
            }
        }
        Ok(())
    }

    fn roll_back(&mut self) {
        self.session.rolled_back();
        // Some errors, a full disk among them, have rolled back already.
        if !self.connection().is_autocommit()
            && let Err(error) = self.execute("ROLLBACK")
        {
            tracing::error!(%error, "a transaction could not be rolled back");
        }
    }
}

impl<S> Drop for Stored<S> {
    /// Folds the log back into the file, so that a copy of the file alone is whole.
    fn drop(&mut self) {
        let Some((marker, mark, shared)) = &mut self.marker else { return };
        if *shared {
            return;
        }
        // The first column is 1 when a reader was in the way.
        match self.connection.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0)) {
            Ok(0) => {
                mark.closed = true;
                if let Err(error) = marker.write(*mark) {
                    tracing::warn!(%error, "the lock file of a store was not written");
                }
            }
            Ok(_) => tracing::debug!("a reader kept the log of a store from being folded back"),
            Err(error) => {
                tracing::warn!(%error, "the log of a store was not folded back; the next start does it");
            }
        }
    }
}
