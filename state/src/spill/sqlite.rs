//! Keys on disk, in one SQLite file a task.

use std::path::{Path, PathBuf};

use galerna_sqlite::{Format, OpenError, Plain, SqliteError, SqliteErrorKind, Stored, Tuning};
use rusqlite::{Connection, OptionalExtension, params};

use super::{Spill, SpillError, SpilledCell};
use crate::KeyGroup;

const FORMAT: Format = Format {
    what: "file of spilled keys",
    application_id: 0x6761_6c73,
    version: 1,
    tables: &["cells"],
    bring_up: |connection, _found| {
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS cells (
                 key_group INTEGER NOT NULL, state INTEGER NOT NULL, key BLOB NOT NULL, body BLOB NOT NULL,
                 expires INTEGER, PRIMARY KEY (key_group, state, key)) WITHOUT ROWID;
             CREATE INDEX IF NOT EXISTS cells_expires ON cells (expires) WHERE expires IS NOT NULL;",
        )
    },
    lock_suffix: "-lock",
    companions: &[],
    shared: false,
};

/// Keys in an SQLite file, which is emptied when it is opened and removed when it is dropped. Nothing in it is synced:
/// checkpoints hold the same.
pub struct SqliteSpill {
    stored: Option<Stored<Plain>>,
    path: PathBuf,
}

impl std::fmt::Debug for SqliteSpill {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteSpill").field("path", &self.path).finish_non_exhaustive()
    }
}

impl SqliteSpill {
    /// Opens the file at `path`, which is this task's alone, or creates it with its folder. Blocks.
    ///
    /// # Errors
    /// [`OpenError::InUse`] when another process or task has it; [`OpenError::Foreign`] when it is another kind of file;
    /// what the file system or SQLite said.
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Self::open_within(path, None)
    }

    /// The same, in a file of at most so many bytes, beyond which the disk counts as full.
    ///
    /// # Errors
    /// See [`SqliteSpill::open`].
    pub fn open_within(path: &Path, max_bytes: Option<u64>) -> Result<Self, OpenError> {
        // Reads of single keys: a small cache, which is not of the task's budget.
        let tuning = Tuning { cache_kib: 4096, max_bytes, ..Tuning::default() };
        let opened = match FORMAT.open(path, &tuning) {
            // What an earlier process left behind is of no use, whole or not.
            Err(OpenError::Damaged { .. } | OpenError::Newer { .. }) => {
                remove_files(path);
                FORMAT.open(path, &tuning)
            }
            opened => opened,
        }?;
        let stored = opened.into_session(Plain);
        let prepared = stored
            .connection()
            .pragma_update(None, "synchronous", "OFF")
            .and_then(|()| stored.connection().execute("DELETE FROM cells", []));
        prepared.map_err(|cause| OpenError::Sqlite { file: path.to_owned(), cause: cause.into() })?;
        Ok(Self { stored: Some(stored), path: path.to_owned() })
    }

    fn run<T>(&self, work: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T, SpillError> {
        let place = || self.path.display().to_string();
        let stored = self
            .stored
            .as_ref()
            .ok_or_else(|| SpillError::Failed { place: place(), cause: "it is closed".to_owned() })?;
        work(stored.connection()).map_err(|cause| {
            let SqliteError { kind, cause } = SqliteError::from(cause);
            match kind {
                SqliteErrorKind::DiskFull => SpillError::DiskFull { place: place(), cause },
                _ => SpillError::Failed { place: place(), cause },
            }
        })
    }
}

fn remove_files(path: &Path) {
    for suffix in ["", "-wal", "-shm", FORMAT.lock_suffix] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match std::fs::remove_file(&name) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                tracing::debug!(%error, file = %name.display(), "a file of spilled keys was not removed");
            }
            _ => {}
        }
    }
}

impl Drop for SqliteSpill {
    fn drop(&mut self) {
        drop(self.stored.take());
        remove_files(&self.path);
    }
}

impl Spill for SqliteSpill {
    fn put(&mut self, cells: &[SpilledCell<'_>]) -> Result<(), SpillError> {
        self.run(|connection| {
            let transaction = connection.unchecked_transaction()?;
            {
                let mut insert = transaction.prepare_cached(
                    "INSERT OR REPLACE INTO cells (key_group, state, key, body, expires) VALUES (?1, ?2, ?3, ?4, ?5)",
                )?;
                for cell in cells {
                    let expires = (cell.expires != i64::MAX).then_some(cell.expires);
                    insert.execute(params![
                        cell.group.number(),
                        cell.state,
                        cell.key,
                        cell.body,
                        expires
                    ])?;
                }
            }
            transaction.commit()
        })
    }

    fn get(&mut self, state: u16, group: KeyGroup, key: &[u8]) -> Result<Option<Vec<u8>>, SpillError> {
        self.run(|connection| {
            connection
                .prepare_cached("SELECT body FROM cells WHERE key_group = ?1 AND state = ?2 AND key = ?3")?
                .query_row(params![group.number(), state, key], |row| row.get(0))
                .optional()
        })
    }

    fn remove(&mut self, state: u16, group: KeyGroup, key: &[u8]) -> Result<(), SpillError> {
        self.run(|connection| {
            connection
                .prepare_cached("DELETE FROM cells WHERE key_group = ?1 AND state = ?2 AND key = ?3")?
                .execute(params![group.number(), state, key])
                .map(drop)
        })
    }

    fn visit(
        &mut self,
        state: u16,
        group: KeyGroup,
        visit: &mut dyn FnMut(&[u8], &[u8]),
    ) -> Result<(), SpillError> {
        self.run(|connection| {
            let mut select = connection
                .prepare_cached("SELECT key, body FROM cells WHERE key_group = ?1 AND state = ?2")?;
            let mut rows = select.query(params![group.number(), state])?;
            while let Some(row) = rows.next()? {
                visit(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?);
            }
            Ok(())
        })
    }

    fn remove_group(&mut self, group: KeyGroup) -> Result<(), SpillError> {
        self.run(|connection| {
            connection
                .prepare_cached("DELETE FROM cells WHERE key_group = ?1")?
                .execute([group.number()])
                .map(drop)
        })
    }

    fn remove_expired(&mut self, now: i64) -> Result<Vec<(u16, KeyGroup)>, SpillError> {
        let mut removed: Vec<(u16, u16)> = self.run(|connection| {
            connection
                .prepare_cached("DELETE FROM cells WHERE expires <= ?1 RETURNING state, key_group")?
                .query_map([now], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect()
        })?;
        removed.sort_unstable();
        removed.dedup();
        Ok(removed.into_iter().filter_map(|(state, group)| Some((state, KeyGroup::new(group)?))).collect())
    }
}
