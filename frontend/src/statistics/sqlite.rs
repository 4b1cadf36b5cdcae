//! Statistics in a file of SQLite.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use galerna_model::{SourceId, Timestamp};
use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension, params};

use super::{
    Batch, FORGET_EVERY, LAST_MESSAGES, LastMessage, Period, Scope, StatisticsError, StatisticsStore, Tally,
};

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS tallies (
    scope TEXT NOT NULL, id TEXT NOT NULL, period TEXT NOT NULL, start INTEGER NOT NULL,
    messages INTEGER NOT NULL, readings INTEGER NOT NULL, \"values\" INTEGER NOT NULL,
    PRIMARY KEY (scope, id, period, start)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS last_messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, id TEXT NOT NULL, received INTEGER NOT NULL,
    readings INTEGER NOT NULL, rejected INTEGER NOT NULL, text TEXT NOT NULL, cut INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS last_messages_of ON last_messages (source, received, number);
CREATE TABLE IF NOT EXISTS writers (writer TEXT PRIMARY KEY, number INTEGER NOT NULL, at INTEGER NOT NULL);
";

/// How long another process that writes to the file is waited for.
const BUSY: Duration = Duration::from_secs(5);
/// A writer that has not written for so long has ended.
const WRITER_KEPT_MS: i64 = 7 * 24 * 3_600_000;

/// Statistics in a file of SQLite. Several processes of one machine may share the file.
#[derive(Debug, Clone)]
pub struct SqliteStatistics(Arc<Mutex<Connection>>);

/// [`LAST_MESSAGES`] in SQLite's only integer type.
const KEPT: i64 = LAST_MESSAGES as i64;

type Work<T> = Result<T, rusqlite::Error>;

impl SqliteStatistics {
    /// Opens the file, making it when it is missing. Blocks for as long as that takes.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, StatisticsError> {
        Self::with(Connection::open(path))
    }

    /// Statistics that end with the process.
    ///
    /// # Errors
    /// What SQLite said.
    pub fn in_memory() -> Result<Self, StatisticsError> {
        Self::with(Connection::open_in_memory())
    }

    fn with(connection: Work<Connection>) -> Result<Self, StatisticsError> {
        let set_up = |connection: Connection| {
            connection.busy_timeout(BUSY)?;
            connection.pragma_update(None, "journal_mode", "WAL")?;
            connection.pragma_update(None, "synchronous", "FULL")?;
            connection.execute_batch(SCHEMA)?;
            Ok(connection)
        };
        connection
            .and_then(set_up)
            .map(|connection| Self(Arc::new(Mutex::new(connection))))
            .map_err(|e| failed("opening the file", &e))
    }

    async fn run<T: Send + 'static>(
        &self,
        attempted: &'static str,
        work: impl FnOnce(&mut Connection) -> Work<T> + Send + 'static,
    ) -> Result<T, StatisticsError> {
        let connection = Arc::clone(&self.0);
        let worked = tokio::task::spawn_blocking(move || work(&mut connection.lock())).await;
        match worked {
            Ok(result) => result.map_err(|e| failed(attempted, &e)),
            Err(e) => Err(StatisticsError { attempted, cause: e.to_string() }),
        }
    }
}

fn failed(attempted: &'static str, error: &rusqlite::Error) -> StatisticsError {
    StatisticsError { attempted, cause: error.to_string() }
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn unsigned(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

fn number_of(connection: &Connection, writer: &str) -> Work<u64> {
    let number = connection
        .prepare_cached("SELECT number FROM writers WHERE writer = ?1")?
        .query_row([writer], |row| row.get(0))
        .optional()?;
    Ok(number.map_or(0, unsigned))
}

fn add(connection: &mut Connection, batch: &Batch) -> Work<()> {
    let transaction = connection.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
    if number_of(&transaction, &batch.writer)? >= batch.number {
        return Ok(());
    }
    {
        let mut tally = transaction.prepare_cached(
            "INSERT INTO tallies (scope, id, period, start, messages, readings, \"values\") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT DO UPDATE SET messages = messages + excluded.messages, readings = readings + excluded.readings,
                 \"values\" = \"values\" + excluded.\"values\"",
        )?;
        for (scope, period, start, t) in &batch.tallies {
            let (kind, id) = scope.key();
            let (messages, readings, values) = (signed(t.messages), signed(t.readings), signed(t.values));
            tally.execute(params![
                kind,
                id,
                period.as_str(),
                start.as_millis(),
                messages,
                readings,
                values
            ])?;
        }
        let mut message = transaction.prepare_cached(
            "INSERT INTO last_messages (source, id, received, readings, rejected, text, cut) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        let mut trim = transaction.prepare_cached(
            "DELETE FROM last_messages WHERE source = ?1 AND number NOT IN
                 (SELECT number FROM last_messages WHERE source = ?1 ORDER BY received DESC, number DESC LIMIT ?2)",
        )?;
        let mut trimmed: Option<&SourceId> = None;
        for (source, m) in &batch.messages {
            if let Some(before) = trimmed.filter(|before| *before != source) {
                trim.execute(params![before.as_str(), KEPT])?;
            }
            trimmed = Some(source);
            let (readings, rejected) = (signed(m.readings), signed(m.rejected));
            message.execute(params![
                source.as_str(),
                m.id,
                m.received.as_millis(),
                readings,
                rejected,
                m.text,
                m.cut
            ])?;
        }
        if let Some(last) = trimmed {
            trim.execute(params![last.as_str(), KEPT])?;
        }
    }
    transaction.execute(
        "INSERT INTO writers (writer, number, at) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET number = excluded.number, at = excluded.at",
        params![batch.writer, signed(batch.number), batch.at.as_millis()],
    )?;
    if batch.number % FORGET_EVERY == 1 {
        for period in Period::ALL {
            let oldest = batch.at.plus_millis(-period.kept_ms()).as_millis();
            transaction.execute(
                "DELETE FROM tallies WHERE period = ?1 AND start < ?2",
                params![period.as_str(), oldest],
            )?;
        }
        let oldest = batch.at.plus_millis(-WRITER_KEPT_MS).as_millis();
        transaction.execute("DELETE FROM writers WHERE at < ?1", [oldest])?;
    }
    transaction.commit()
}

#[async_trait]
impl StatisticsStore for SqliteStatistics {
    async fn add(&self, batch: Arc<Batch>) -> Result<(), StatisticsError> {
        self.run("adding counts", move |connection| add(connection, &batch)).await
    }

    async fn tallies(
        &self,
        scopes: &[Scope],
        periods: &[(Period, Timestamp)],
        writer: &str,
    ) -> Result<(Vec<Vec<Tally>>, u64), StatisticsError> {
        let (scopes, periods, writer) = (scopes.to_vec(), periods.to_vec(), writer.to_owned());
        self.run("reading counts", move |connection| {
            let snapshot = connection.transaction()?;
            let number = number_of(&snapshot, &writer)?;
            let mut found = Vec::with_capacity(scopes.len());
            {
                let mut one = snapshot.prepare_cached(
                    "SELECT messages, readings, \"values\" FROM tallies WHERE scope = ?1 AND id = ?2 AND period = ?3 AND start = ?4",
                )?;
                for scope in &scopes {
                    let (kind, id) = scope.key();
                    let mut tallies = Vec::with_capacity(periods.len());
                    for (period, start) in &periods {
                        let tally = one
                            .query_row(params![kind, id, period.as_str(), start.as_millis()], |row| {
                                Ok(Tally {
                                    messages: unsigned(row.get(0)?),
                                    readings: unsigned(row.get(1)?),
                                    values: unsigned(row.get(2)?),
                                })
                            })
                            .optional()?;
                        tallies.push(tally.unwrap_or_default());
                    }
                    found.push(tallies);
                }
            }
            Ok((found, number))
        })
        .await
    }

    async fn last_messages(
        &self,
        source: &SourceId,
        writer: &str,
    ) -> Result<(Vec<LastMessage>, u64), StatisticsError> {
        let (source, writer) = (source.clone(), writer.to_owned());
        self.run("reading last messages", move |connection| {
            let snapshot = connection.transaction()?;
            let number = number_of(&snapshot, &writer)?;
            let messages = snapshot
                .prepare_cached(
                    "SELECT id, received, readings, rejected, text, cut FROM last_messages WHERE source = ?1
                     ORDER BY received DESC, number DESC LIMIT ?2",
                )?
                .query_map(params![source.as_str(), KEPT], |row| {
                    Ok(LastMessage {
                        id: row.get(0)?,
                        received: Timestamp(row.get(1)?),
                        readings: unsigned(row.get(2)?),
                        rejected: unsigned(row.get(3)?),
                        text: row.get(4)?,
                        cut: row.get(5)?,
                    })
                })?
                .collect::<Work<Vec<_>>>()?;
            Ok((messages, number))
        })
        .await
    }
}
