//! What a kind of file holds, and how one is opened.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OptionalExtension, Transaction, TransactionBehavior};

use crate::files::{beside, create_folder, open_private, restrict};
use crate::marker::{Mark, Marker};
use crate::session::{Session, Stored};
use crate::{OpenError, SqliteError};

/// How the first bytes of every file of SQLite read.
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

/// A file that is larger and was closed in good order is not read through when it is opened: that would take seconds a
/// gigabyte.
const CHECKED_BYTES: u64 = 4 << 30;

/// How long another process that writes is waited for.
const BUSY: Duration = Duration::from_secs(10);

/// A kind of file.
#[derive(Debug, Clone, Copy)]
pub struct Format {
    /// What it is, for people: `queue store`.
    pub what: &'static str,
    /// SQLite's `application_id` of such files.
    pub application_id: i32,
    /// The latest version of the tables, in `user_version`; at least 1.
    pub version: i64,
    /// Tables that files of all versions have.
    pub tables: &'static [&'static str],
    /// Creates what a file of the given version lacks (0: all); runs in a transaction, after which the version is
    /// [`Self::version`].
    pub bring_up: fn(&Connection, i64) -> rusqlite::Result<()>,
    /// Of the file that is locked while the store is open: `-lock`.
    pub lock_suffix: &'static str,
    /// Of other files that belong to the store, beside SQLite's own.
    pub companions: &'static [&'static str],
    /// Whether several processes may have it open.
    pub shared: bool,
}

/// How a connection is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tuning {
    /// Bytes of a page of a new file.
    pub page_bytes: u32,
    /// Pages of log before it is folded back: many, so that folding is rare beside commits.
    pub log_pages: u32,
    /// Cache of pages, in KiB.
    pub cache_kib: u32,
    /// Largest size of the file, without its log.
    pub max_bytes: Option<u64>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self { page_bytes: 4096, log_pages: 8192, cache_kib: 32_768, max_bytes: None }
    }
}

impl Tuning {
    fn apply(&self, connection: &Connection) -> rusqlite::Result<()> {
        connection.set_prepared_statement_cache_capacity(64);
        connection.pragma_update(None, "page_size", self.page_bytes)?;
        write_ahead(connection)?;
        connection.pragma_update(None, "synchronous", "FULL")?;
        connection.pragma_update(None, "wal_autocheckpoint", self.log_pages)?;
        connection.pragma_update(None, "cache_size", -i64::from(self.cache_kib))?;
        connection.pragma_update(None, "temp_store", "MEMORY")?;
        self.limit(connection)
    }

    /// Applies [`Self::max_bytes`] alone, for a database in memory.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn limit(&self, connection: &Connection) -> rusqlite::Result<()> {
        let Some(bytes) = self.max_bytes else { return Ok(()) };
        let page: i64 = connection.query_row("PRAGMA page_size", [], |row| row.get(0))?;
        let pages = i64::try_from(bytes).unwrap_or(i64::MAX) / page.max(512);
        connection.query_row(&format!("PRAGMA max_page_count = {}", pages.max(32)), [], |_| Ok(()))
    }
}

/// A file that was opened and is what it should be.
#[derive(Debug)]
pub struct Opened {
    connection: Connection,
    marker: Marker,
    mark: Mark,
    shared: bool,
}

impl Opened {
    /// The connection.
    pub fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The store's own id, which its companions can carry.
    pub fn store_id(&self) -> u64 {
        self.mark.store
    }

    /// To write with.
    pub fn into_session<S: Session>(self, session: S) -> Stored<S> {
        Stored::new(self.connection, Some((self.marker, self.mark, self.shared)), session)
    }
}

/// What a file says of itself.
struct Found {
    application_id: i32,
    version: i64,
    tables: Vec<String>,
    /// The id and the count of transactions.
    store: Option<(u64, u64)>,
}

impl Format {
    /// Opens the file at `path`, or creates it with its folder. Blocks: a file is read through when it was not closed in
    /// good order or is smaller than 4 GiB.
    ///
    /// # Errors
    /// See [`OpenError`]. The file and its log stay as they were.
    pub fn open(&self, path: &Path, tuning: &Tuning) -> Result<Opened, OpenError> {
        let io_error = |file: &Path| {
            let file = file.to_owned();
            move |cause| OpenError::Io { file, cause }
        };
        if path.is_dir() {
            return Err(OpenError::Folder(path.to_owned()));
        }
        if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
            create_folder(folder).map_err(io_error(folder))?;
        }
        let lock = self.lock_of(path);
        let marker = Marker::lock(&lock, self.shared)
            .map_err(io_error(&lock))?
            .ok_or_else(|| OpenError::InUse(path.to_owned()))?;
        let mark = marker.read().map_err(|cause| match cause.kind() {
            io::ErrorKind::InvalidData => OpenError::Damaged {
                file: lock.clone(),
                problem: cause.to_string(),
                remedy: format!("if {} is the right file, remove this one and start again", path.display()),
            },
            _ => OpenError::Io { file: lock.clone(), cause },
        })?;
        self.look_at_bytes(path, mark)?;
        drop(open_private(path).map_err(io_error(path))?);
        for suffix in ["-wal", "-shm"] {
            let file = beside(path, suffix);
            restrict(&file).map_err(io_error(&file))?;
        }
        let failed = |error: rusqlite::Error| self.unreadable(path, &error);
        let connection = Connection::open(path).map_err(failed)?;
        // Until it is known to be whole, nothing is to be changed: not even by folding back what is left of a log.
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true).map_err(failed)?;
        connection.busy_timeout(BUSY).map_err(failed)?;
        let found = look(&connection).map_err(failed)?;
        self.classify(path, mark, &found)?;
        self.read_through(path, mark, &connection)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false).map_err(failed)?;
        tuning.apply(&connection).map_err(failed)?;
        let (store, commits) = self.bring_up_to_date(&connection).map_err(failed)?;
        let mark = Mark { store, commits, closed: false };
        marker.write(mark).and_then(|()| marker.sync()).map_err(io_error(&lock))?;
        Ok(Opened { connection, marker, mark, shared: self.shared })
    }

    fn lock_of(&self, path: &Path) -> PathBuf {
        beside(path, self.lock_suffix)
    }

    /// Looks at the file before SQLite does, which takes an empty one for a new one.
    fn look_at_bytes(&self, path: &Path, mark: Option<Mark>) -> Result<(), OpenError> {
        let log = beside(path, "-wal");
        let bytes = |file: &Path| std::fs::metadata(file).map_or(0, |metadata| metadata.len());
        if bytes(path) == 0 {
            let problem = match mark {
                Some(mark) => format!(
                    "it is missing or empty, but {} says that a {} with {} transactions was here",
                    self.lock_of(path).display(),
                    self.what,
                    mark.commits
                ),
                None if bytes(&log) > 0 => format!("it is missing or empty, but {} is here", log.display()),
                None => return Ok(()),
            };
            return Err(OpenError::Damaged {
                file: path.to_owned(),
                problem,
                remedy: self.restore_or_begin(path),
            });
        }
        let mut head = [0; MAGIC.len()];
        let read = std::fs::File::open(path).and_then(|mut file| io::Read::read_exact(&mut file, &mut head));
        match read {
            Ok(()) if head == *MAGIC => Ok(()),
            Ok(()) => Err(self.garbage(path, mark)),
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => Err(self.garbage(path, mark)),
            Err(cause) => Err(OpenError::Io { file: path.to_owned(), cause }),
        }
    }

    fn garbage(&self, path: &Path, mark: Option<Mark>) -> OpenError {
        match mark {
            Some(_) => OpenError::Damaged {
                file: path.to_owned(),
                problem: "it is not a database any more: its first bytes were overwritten".to_owned(),
                remedy: self.restore_or_begin(path),
            },
            None => OpenError::Foreign {
                file: path.to_owned(),
                wanted: self.what,
                found: "it is not a database".to_owned(),
            },
        }
    }

    /// An error when it is not what it should be, or new.
    fn classify(&self, path: &Path, mark: Option<Mark>, found: &Found) -> Result<(), OpenError> {
        let damaged = |file: PathBuf, problem: String| {
            Err(OpenError::Damaged { file, problem, remedy: self.restore_or_begin(path) })
        };
        let foreign =
            |found: String| Err(OpenError::Foreign { file: path.to_owned(), wanted: self.what, found });
        let log = beside(path, "-wal");
        match (found.application_id, found.store, mark) {
            (id, _, _) if id != 0 && id != self.application_id => {
                return foreign(format!("its application id is {id:#x}, not {:#x}", self.application_id));
            }
            (_, Some((store, _)), Some(mark)) if store != mark.store => {
                return damaged(
                    self.lock_of(path),
                    format!("it belongs to another store than {}", path.display()),
                );
            }
            (_, store, Some(mark)) if store.map_or(0, |(_, commits)| commits) < mark.commits => {
                let commits = store.map_or(0, |(_, commits)| commits);
                return damaged(
                    log,
                    format!(
                        "it is missing or cut short: {} transactions were acknowledged, and {} are left in it and {}",
                        mark.commits,
                        commits,
                        path.display()
                    ),
                );
            }
            _ => {}
        }
        if found.version > self.version {
            return Err(OpenError::Newer {
                file: path.to_owned(),
                found: found.version,
                known: self.version,
            });
        }
        let is_there = |table: &&&str| found.tables.iter().any(|name| name == **table);
        match self.tables.iter().find(|table| !is_there(table)) {
            None => Ok(()),
            // It was created, and the program ended before its tables were.
            Some(_) if found.tables.is_empty() && found.version == 0 => Ok(()),
            Some(_) if found.store.is_none() && !self.tables.iter().any(|table| is_there(&table)) => {
                foreign(format!("it has the tables {}", found.tables.join(", ")))
            }
            Some(table) => damaged(path.to_owned(), format!("its table {table} is missing")),
        }
    }

    fn read_through(
        &self,
        path: &Path,
        mark: Option<Mark>,
        connection: &Connection,
    ) -> Result<(), OpenError> {
        let large = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > CHECKED_BYTES);
        if large && mark.is_some_and(|mark| mark.closed) {
            return Ok(());
        }
        let said: String = connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(|error| self.unreadable(path, &error))?;
        if said == "ok" {
            return Ok(());
        }
        Err(OpenError::Damaged {
            file: path.to_owned(),
            problem: format!("its pages do not fit together ({})", said.replace('\n', " ")),
            remedy: self.restore_or_begin(path),
        })
    }

    /// In one transaction; answers with the store's id and count.
    fn bring_up_to_date(&self, connection: &Connection) -> rusqlite::Result<(u64, u64)> {
        // One that begins by reading fails at once when another process writes meanwhile, however long it may wait.
        let transaction = Transaction::new_unchecked(connection, TransactionBehavior::Immediate)?;
        // As it is now: another process may have brought it up since it was looked at.
        let found = connection.query_row("PRAGMA user_version", [], |row| row.get(0))?;
        (self.bring_up)(connection, found)?;
        connection.execute_batch(
            "CREATE TABLE IF NOT EXISTS galerna_store (id INTEGER NOT NULL, commits INTEGER NOT NULL)",
        )?;
        let id = fastrand::u64(1..);
        connection.execute(
            "INSERT INTO galerna_store (id, commits) SELECT ?1, 0 WHERE NOT EXISTS (SELECT 1 FROM galerna_store)",
            [id.cast_signed()],
        )?;
        // Counted here too, so that there is a log from now on.
        let (id, commits): (i64, i64) = connection.query_row(
            "UPDATE galerna_store SET commits = commits + 1 RETURNING id, commits",
            [],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        connection.pragma_update(None, "application_id", self.application_id)?;
        connection.pragma_update(None, "user_version", self.version)?;
        transaction.commit()?;
        Ok((id.cast_unsigned(), commits.unsigned_abs()))
    }

    fn unreadable(&self, path: &Path, error: &rusqlite::Error) -> OpenError {
        match error.sqlite_error_code() {
            Some(ErrorCode::NotADatabase | ErrorCode::DatabaseCorrupt) => OpenError::Damaged {
                file: path.to_owned(),
                problem: error.to_string(),
                remedy: self.restore_or_begin(path),
            },
            _ => OpenError::Sqlite { file: path.to_owned(), cause: SqliteError::from(error) },
        }
    }

    fn restore_or_begin(&self, path: &Path) -> String {
        let suffixes = ["-wal", "-shm", self.lock_suffix];
        let files: Vec<String> =
            suffixes.iter().chain(self.companions).map(|suffix| format!("`{suffix}`")).collect();
        format!(
            "put back {} with its companions ({}) as they were, or from a backup; to go on with what is left, remove `{}` \
             alone; to begin anew, and lose what was stored, move all of them away",
            path.display(),
            files.join(", "),
            self.lock_suffix
        )
    }
}

/// Switches to a write-ahead log. For that SQLite does not wait when another process has the file, so this does.
#[expect(clippy::disallowed_methods, reason = "opening a file blocks, as its documentation says")]
fn write_ahead(connection: &Connection) -> rusqlite::Result<()> {
    let begun = Instant::now();
    loop {
        match connection.pragma_update(None, "journal_mode", "WAL") {
            Err(error)
                if error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy) && begun.elapsed() < BUSY =>
            {
                std::thread::sleep(Duration::from_millis(5));
            }
            done => return done,
        }
    }
}

fn look(connection: &Connection) -> rusqlite::Result<Found> {
    let snapshot = connection.unchecked_transaction()?;
    let tables: Vec<String> = connection
        .prepare(
            "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite%' ORDER BY name",
        )?
        .query_map([], |row| row.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let store = match tables.iter().any(|table| table == "galerna_store") {
        false => None,
        true => connection
            .query_row("SELECT id, commits FROM galerna_store", [], |row| {
                Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.unsigned_abs()))
            })
            .optional()?,
    };
    let found = Found {
        application_id: connection.query_row("PRAGMA application_id", [], |row| row.get(0))?,
        version: connection.query_row("PRAGMA user_version", [], |row| row.get(0))?,
        tables,
        store,
    };
    snapshot.finish()?;
    Ok(found)
}
