//! Schedules in an SQLite file, for the processes of one machine.

use std::path::Path;
use std::time::Duration;

use async_trait::async_trait;
use galerna_model::Timestamp;
use galerna_sqlite::{Format, Limits, OpenError, Plain, SqliteError, Writer};
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};

use crate::{Ended, Origin, Record, ScheduleId, ScheduleStore, StoreError};

/// Files of this store.
const FORMAT: Format = Format {
    what: "store of schedules",
    application_id: 0x4761_6c54, // GalT
    version: 1,
    tables: &["schedules", "schedule_firings"],
    bring_up,
    lock_suffix: "-lock",
    companions: &[],
    shared: true,
};

const TABLES: &str = "
CREATE TABLE IF NOT EXISTS schedules (
    id TEXT PRIMARY KEY, version INTEGER NOT NULL, wake INTEGER, running INTEGER NOT NULL, record TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS schedules_wake ON schedules (wake) WHERE wake IS NOT NULL;
CREATE INDEX IF NOT EXISTS schedules_running ON schedules (id) WHERE running > 0;
-- `origin` and `number`: planned 0, triggered 1, backfilled 2, the latter two numbered.
CREATE TABLE IF NOT EXISTS schedule_firings (
    schedule TEXT NOT NULL, nominal INTEGER NOT NULL, origin INTEGER NOT NULL, number INTEGER NOT NULL,
    at INTEGER NOT NULL, record TEXT NOT NULL, PRIMARY KEY (schedule, nominal, origin, number)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS schedule_firings_at ON schedule_firings (at);
";

fn bring_up(connection: &Connection, _found: i64) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)
}

const LIMITS: Limits = Limits {
    jobs: 64,
    weight: usize::MAX,
    time: Duration::from_millis(20),
    again: Duration::from_millis(200),
};

/// An open store.
#[derive(Debug)]
pub struct SqliteSchedules {
    writer: Writer<Plain>,
}

impl SqliteSchedules {
    /// Opens the store in this file, which is created, with its folder, when missing. Several processes may have it open.
    /// Blocks for as long as that takes.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self { writer: Writer::open(&FORMAT, path, LIMITS)? })
    }

    /// A store that is gone when it is dropped: for trying and for tests.
    ///
    /// # Errors
    /// When SQLite has no memory.
    pub fn in_memory() -> Result<Self, StoreError> {
        let writer = Writer::in_memory(&FORMAT, LIMITS)
            .map_err(|error| failure("opening a store in memory", &error.into()))?;
        Ok(Self { writer })
    }

    async fn run<T: Send + 'static>(
        &self,
        attempted: &'static str,
        mut work: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        self.writer
            .write(move |stored| work(stored.connection()))
            .await
            .map_err(|error| failure(attempted, &error))
    }
}

fn failure(attempted: &str, error: &SqliteError) -> StoreError {
    let (attempted, cause) = (attempted.to_owned(), error.cause.clone());
    if error.is_transient() {
        StoreError::Unavailable { attempted, cause }
    } else {
        StoreError::Failed { attempted, cause }
    }
}

/// What cannot be read as what it was written as.
fn unreadable(column: usize, error: serde_json::Error) -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(column, rusqlite::types::Type::Text, Box::new(error))
}

/// A number as SQLite has them.
fn integer(number: usize) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// A row of `version, record`.
fn record_of(row: &Row<'_>) -> rusqlite::Result<Record> {
    let mut record: Record =
        serde_json::from_str(row.get_ref(1)?.as_str()?).map_err(|error| unreadable(1, error))?;
    record.version = row.get(0)?;
    Ok(record)
}

/// Rows as records. One that cannot be read, of a newer version perhaps, keeps nobody from the others.
fn readable(rows: impl Iterator<Item = rusqlite::Result<Record>>) -> rusqlite::Result<Vec<Record>> {
    let mut records = Vec::new();
    for row in rows {
        match row {
            Err(error @ rusqlite::Error::FromSqlConversionFailure(..)) => {
                tracing::error!(%error, "a schedule cannot be read and does not run");
            }
            row => records.push(row?),
        }
    }
    Ok(records)
}

fn text_of<T: serde::Serialize>(attempted: &str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Failed {
        attempted: attempted.to_owned(),
        cause: format!("a value cannot be stored: {error}"),
    })
}

/// A row of what ended.
#[derive(Clone)]
struct EndedRow {
    schedule: String,
    nominal: i64,
    origin: i64,
    number: i64,
    at: i64,
    record: String,
}

fn rows_of(attempted: &str, ended: &[Ended]) -> Result<Vec<EndedRow>, StoreError> {
    let row = |ended: &Ended| {
        let (origin, number) = match ended.id.origin {
            Origin::Planned => (0, 0),
            Origin::Triggered(number) => (1, number),
            Origin::Backfilled(number) => (2, number),
        };
        Ok(EndedRow {
            schedule: ended.id.schedule.as_str().to_owned(),
            nominal: ended.id.nominal.as_millis(),
            origin,
            number: number.cast_signed(),
            at: ended.at.as_millis(),
            record: text_of(attempted, ended)?,
        })
    };
    ended.iter().map(row).collect()
}

fn keep(connection: &Connection, rows: &[EndedRow]) -> rusqlite::Result<()> {
    if rows.is_empty() {
        return Ok(());
    }
    let mut insert = connection
        .prepare_cached("INSERT OR REPLACE INTO schedule_firings VALUES (?1, ?2, ?3, ?4, ?5, ?6)")?;
    for row in rows {
        insert.execute(params![row.schedule, row.nominal, row.origin, row.number, row.at, row.record])?;
    }
    Ok(())
}

#[async_trait]
impl ScheduleStore for SqliteSchedules {
    async fn insert(&self, record: &Record) -> Result<bool, StoreError> {
        let attempted = "adding a schedule";
        let text = text_of(attempted, record)?;
        let (id, version) = (record.id.as_str().to_owned(), record.version);
        let (wake, running) = (record.wake().map(Timestamp::as_millis), integer(record.running()));
        self.run(attempted, move |connection| {
            let sql = "INSERT INTO schedules VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
            Ok(connection.prepare_cached(sql)?.execute(params![id, version, wake, running, text])? == 1)
        })
        .await
    }

    async fn get(&self, id: &ScheduleId) -> Result<Option<Record>, StoreError> {
        let id = id.as_str().to_owned();
        self.run("reading a schedule", move |connection| {
            let sql = "SELECT version, record FROM schedules WHERE id = ?1";
            connection.prepare_cached(sql)?.query_row([&id], record_of).optional()
        })
        .await
    }

    async fn list(&self, after: Option<&ScheduleId>, limit: usize) -> Result<Vec<Record>, StoreError> {
        let after = after.map_or(String::new(), |id| id.as_str().to_owned());
        self.run("listing schedules", move |connection| {
            let sql = "SELECT version, record FROM schedules WHERE id > ?1 ORDER BY id LIMIT ?2";
            readable(connection.prepare_cached(sql)?.query_map(params![after, integer(limit)], record_of)?)
        })
        .await
    }

    async fn pending(&self, now: Timestamp, limit: usize) -> Result<Vec<Record>, StoreError> {
        self.run("looking for schedules that are due", move |connection| {
            let sql = "SELECT version, record FROM schedules WHERE running > 0";
            let mut found = readable(connection.prepare_cached(sql)?.query_map([], record_of)?)?;
            let sql = "SELECT version, record FROM schedules WHERE wake <= ?1 AND running = 0 ORDER BY wake LIMIT ?2";
            let due = params![now.as_millis(), integer(limit)];
            found.extend(readable(connection.prepare_cached(sql)?.query_map(due, record_of)?)?);
            Ok(found)
        })
        .await
    }

    async fn next_wake(&self) -> Result<Option<Timestamp>, StoreError> {
        self.run("looking for the next due time", move |connection| {
            let sql = "SELECT min(wake) FROM schedules WHERE wake IS NOT NULL";
            connection
                .prepare_cached(sql)?
                .query_row([], |row| Ok(row.get::<_, Option<i64>>(0)?.map(Timestamp)))
        })
        .await
    }

    async fn swap(&self, record: &Record, expected: i64, ended: &[Ended]) -> Result<bool, StoreError> {
        let attempted = "changing a schedule";
        let text = text_of(attempted, record)?;
        let rows = rows_of(attempted, ended)?;
        let (id, version) = (record.id.as_str().to_owned(), record.version);
        let (wake, running) = (record.wake().map(Timestamp::as_millis), integer(record.running()));
        self.run(attempted, move |connection| {
            let sql =
                "UPDATE schedules SET version = :version, wake = :wake, running = :running, record = :record
                       WHERE id = :id AND version = :expected";
            let changed = connection.prepare_cached(sql)?.execute(named_params! {
                ":version": version, ":wake": wake, ":running": running, ":record": text, ":id": id,
                ":expected": expected,
            })?;
            if changed == 1 {
                keep(connection, &rows)?;
            }
            Ok(changed == 1)
        })
        .await
    }

    async fn remove(&self, id: &ScheduleId, expected: i64, ended: &[Ended]) -> Result<bool, StoreError> {
        let attempted = "removing a schedule";
        let rows = rows_of(attempted, ended)?;
        let id = id.as_str().to_owned();
        self.run(attempted, move |connection| {
            let sql = "DELETE FROM schedules WHERE id = ?1 AND version = ?2";
            let changed = connection.prepare_cached(sql)?.execute(params![id, expected])?;
            if changed == 1 {
                keep(connection, &rows)?;
            }
            Ok(changed == 1)
        })
        .await
    }

    async fn history(
        &self,
        id: &ScheduleId,
        before: Option<Timestamp>,
        limit: usize,
    ) -> Result<Vec<Ended>, StoreError> {
        let id = id.as_str().to_owned();
        let before = before.map_or(i64::MAX, Timestamp::as_millis);
        self.run("reading what ended", move |connection| {
            let sql = "SELECT record FROM schedule_firings WHERE schedule = ?1 AND nominal < ?2
                       ORDER BY nominal DESC, origin DESC, number DESC LIMIT ?3";
            let ended = |row: &Row<'_>| {
                serde_json::from_str(row.get_ref(0)?.as_str()?).map_err(|error| unreadable(0, error))
            };
            connection.prepare_cached(sql)?.query_map(params![id, before, integer(limit)], ended)?.collect()
        })
        .await
    }

    async fn forget(&self, before: Timestamp) -> Result<u64, StoreError> {
        self.run("forgetting what ended long ago", move |connection| {
            let sql = "DELETE FROM schedule_firings WHERE at < ?1";
            let gone = connection.prepare_cached(sql)?.execute([before.as_millis()])?;
            Ok(u64::try_from(gone).unwrap_or(u64::MAX))
        })
        .await
    }
}
