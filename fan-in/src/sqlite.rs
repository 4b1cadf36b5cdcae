//! Fan-ins in an SQLite file, for the processes of one machine.

use std::path::Path;

use async_trait::async_trait;
use galerna_model::Timestamp;
use galerna_sqlite::{Format, Limits, OpenError, Plain, SqliteError, Writer};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::{FanInError, FanInStore, Record};

/// Files of this store.
const FORMAT: Format = Format {
    what: "store of fan-ins",
    application_id: 0x4761_6c46, // GalF
    version: 1,
    tables: &["fan_ins"],
    bring_up,
    lock_suffix: "-lock",
    companions: &[],
    shared: true,
};

fn bring_up(connection: &Connection, _found: i64) -> rusqlite::Result<()> {
    // `due`: the deadline until it has ended, then the end until it was acted on. `settled`: the end, from then on.
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS fan_ins (
             id TEXT PRIMARY KEY, version INTEGER NOT NULL, due INTEGER, settled INTEGER, record TEXT NOT NULL
         ) WITHOUT ROWID;
         CREATE INDEX IF NOT EXISTS fan_ins_due ON fan_ins (due) WHERE due IS NOT NULL;
         CREATE INDEX IF NOT EXISTS fan_ins_settled ON fan_ins (settled) WHERE settled IS NOT NULL;",
    )
}

/// An open store.
#[derive(Debug)]
pub struct SqliteFanIns {
    writer: Writer<Plain>,
}

impl SqliteFanIns {
    /// Opens the store in this file, which is created, with its folder, when missing. Several processes may have it open.
    /// Blocks for as long as that takes.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self { writer: Writer::open(&FORMAT, path, Limits::default())? })
    }

    /// A store that is gone when it is dropped: for trying and for tests.
    ///
    /// # Errors
    /// When SQLite has no memory.
    pub fn in_memory() -> Result<Self, FanInError> {
        let writer = Writer::in_memory(&FORMAT, Limits::default())
            .map_err(|error| failure("opening a store in memory", &error.into()))?;
        Ok(Self { writer })
    }

    async fn run<T: Send + 'static>(
        &self,
        attempted: &'static str,
        mut work: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, FanInError> {
        self.writer
            .write(move |stored| work(stored.connection()))
            .await
            .map_err(|error| failure(attempted, &error))
    }
}

fn failure(attempted: &str, error: &SqliteError) -> FanInError {
    let (attempted, cause) = (attempted.to_owned(), error.cause.clone());
    if error.is_transient() {
        FanInError::Unavailable { attempted, cause }
    } else {
        FanInError::Failed { attempted, cause }
    }
}

/// A row of `version, record`.
fn record_of(row: &Row<'_>) -> rusqlite::Result<Record> {
    let mut record: Record = serde_json::from_str(row.get_ref(1)?.as_str()?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(1, rusqlite::types::Type::Text, Box::new(error))
    })?;
    record.version = row.get(0)?;
    Ok(record)
}

/// What a row has beside its id: version, due, settled, record.
fn columns_of(
    attempted: &str,
    record: &Record,
) -> Result<(i64, Option<i64>, Option<i64>, String), FanInError> {
    let text = serde_json::to_string(record).map_err(|error| FanInError::Failed {
        attempted: attempted.to_owned(),
        cause: format!("a value cannot be stored: {error}"),
    })?;
    let ended = record.end.map(|(_, at)| at.as_millis());
    let due = if record.settled { None } else { Some(ended.unwrap_or(record.deadline.as_millis())) };
    Ok((record.version, due, ended.filter(|_| record.settled), text))
}

#[async_trait]
impl FanInStore for SqliteFanIns {
    async fn insert(&self, record: &Record) -> Result<bool, FanInError> {
        let attempted = "beginning a fan-in";
        let id = record.id.clone();
        let (version, due, settled, text) = columns_of(attempted, record)?;
        self.run(attempted, move |connection| {
            let sql = "INSERT INTO fan_ins VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
            Ok(connection.prepare_cached(sql)?.execute(params![id, version, due, settled, text])? == 1)
        })
        .await
    }

    async fn get(&self, id: &str) -> Result<Option<Record>, FanInError> {
        let id = id.to_owned();
        self.run("reading a fan-in", move |connection| {
            let sql = "SELECT version, record FROM fan_ins WHERE id = ?1";
            connection.prepare_cached(sql)?.query_row([&id], record_of).optional()
        })
        .await
    }

    async fn swap(&self, record: &Record, expected: i64) -> Result<bool, FanInError> {
        let attempted = "changing a fan-in";
        let id = record.id.clone();
        let (version, due, settled, text) = columns_of(attempted, record)?;
        self.run(attempted, move |connection| {
            let sql = "UPDATE fan_ins SET version = ?2, due = ?3, settled = ?4, record = ?5 WHERE id = ?1 AND version = ?6";
            let values = params![id, version, due, settled, text, expected];
            Ok(connection.prepare_cached(sql)?.execute(values)? == 1)
        })
        .await
    }

    async fn pending(&self, now: Timestamp, limit: usize) -> Result<Vec<Record>, FanInError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.run("looking for fan-ins to end", move |connection| {
            let sql = "SELECT version, record FROM fan_ins WHERE due <= ?1 ORDER BY due LIMIT ?2";
            connection.prepare_cached(sql)?.query_map(params![now.as_millis(), limit], record_of)?.collect()
        })
        .await
    }

    async fn forget(&self, before: Timestamp) -> Result<u64, FanInError> {
        self.run("forgetting fan-ins", move |connection| {
            let sql = "DELETE FROM fan_ins WHERE settled < ?1";
            let gone = connection.prepare_cached(sql)?.execute([before.as_millis()])?;
            Ok(u64::try_from(gone).unwrap_or(u64::MAX))
        })
        .await
    }
}
