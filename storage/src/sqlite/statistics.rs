//! What sources have sent, in SQLite.
//!
//! Earlier versions kept it in a file of its own, `statistics.db` beside the store. What such a file holds is taken over when
//! the store is opened, once; the file is then called `statistics.db.merged` and can be removed.

use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use galerna_model::{SourceId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};

use super::Sqlite;
use super::columns::{int, uint};
use crate::statistics::FORGET_EVERY;
use crate::{Batch, LAST_MESSAGES, LastMessage, Period, Result, Scope, StatisticsStore, Tally};

/// Created when missing, in files of any version.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS statistics (
    scope TEXT NOT NULL, id TEXT NOT NULL, period TEXT NOT NULL, start INTEGER NOT NULL,
    messages INTEGER NOT NULL, readings INTEGER NOT NULL, \"values\" INTEGER NOT NULL,
    PRIMARY KEY (scope, id, period, start)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS statistics_messages (
    number INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, id TEXT NOT NULL, received INTEGER NOT NULL,
    readings INTEGER NOT NULL, rejected INTEGER NOT NULL, text TEXT NOT NULL, cut INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS statistics_messages_of ON statistics_messages (source, received, number);
CREATE TABLE IF NOT EXISTS statistics_writers (writer TEXT PRIMARY KEY, number INTEGER NOT NULL, at INTEGER NOT NULL);
";

/// A writer that has not written for so long has ended.
const WRITER_KEPT_MS: i64 = 7 * 24 * 3_600_000;

/// [`LAST_MESSAGES`] in SQLite's only integer type.
const KEPT: i64 = LAST_MESSAGES as i64;

/// The file of earlier versions, in the folder of the store.
const EARLIER: &str = "statistics.db";

/// Takes over what an earlier version kept in a file of its own.
pub(super) fn take_over(conn: &Connection, store: &Path) -> rusqlite::Result<()> {
    let earlier = store.with_file_name(EARLIER);
    if earlier == store || !earlier.is_file() {
        return Ok(());
    }
    let taken: i64 =
        conn.query_row("SELECT EXISTS (SELECT 1 FROM statistics_writers)", [], |row| row.get(0))?;
    if taken == 0 {
        conn.execute("ATTACH ?1 AS earlier", [earlier.to_string_lossy()])?;
        let copied = conn.execute_batch(
            "BEGIN IMMEDIATE;
             INSERT INTO statistics SELECT scope, id, period, start, messages, readings, \"values\" FROM earlier.tallies;
             INSERT INTO statistics_messages (source, id, received, readings, rejected, text, cut)
                 SELECT source, id, received, readings, rejected, text, cut FROM earlier.last_messages ORDER BY number;
             INSERT INTO statistics_writers SELECT writer, number, at FROM earlier.writers;
             COMMIT;",
        );
        if !conn.is_autocommit() {
            conn.execute_batch("ROLLBACK")?;
        }
        conn.execute_batch("DETACH earlier")?;
        if let Err(error) = copied {
            // What sources have sent lately is not worth a store that does not start.
            tracing::warn!(file = %earlier.display(), %error, "the statistics of an earlier version were not taken over");
            return Ok(());
        }
    }
    let merged = store.with_file_name(format!("{EARLIER}.merged"));
    match std::fs::rename(&earlier, &merged) {
        Ok(()) => {
            tracing::info!(file = %merged.display(), "the statistics of an earlier version are in the store now")
        }
        Err(error) => tracing::warn!(file = %earlier.display(), %error, "the file was not renamed"),
    }
    Ok(())
}

fn number_of(connection: &Connection, writer: &str) -> rusqlite::Result<u64> {
    let number = connection
        .prepare_cached("SELECT number FROM statistics_writers WHERE writer = ?1")?
        .query_row([writer], |row| uint(row, 0))
        .optional()?;
    Ok(number.unwrap_or(0))
}

fn add(conn: &Connection, batch: &Batch) -> rusqlite::Result<()> {
    if number_of(conn, &batch.writer)? >= batch.number {
        return Ok(());
    }
    {
        let mut tally = conn.prepare_cached(
            "INSERT INTO statistics (scope, id, period, start, messages, readings, \"values\") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
             ON CONFLICT DO UPDATE SET messages = messages + excluded.messages, readings = readings + excluded.readings,
                 \"values\" = \"values\" + excluded.\"values\"",
        )?;
        for (scope, period, start, t) in &batch.tallies {
            let (kind, id) = scope.key();
            let (messages, readings, values) = (int(t.messages), int(t.readings), int(t.values));
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
        let mut message = conn.prepare_cached(
            "INSERT INTO statistics_messages (source, id, received, readings, rejected, text, cut) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?;
        let mut trim = conn.prepare_cached(
            "DELETE FROM statistics_messages WHERE source = ?1 AND number NOT IN
                 (SELECT number FROM statistics_messages WHERE source = ?1 ORDER BY received DESC, number DESC LIMIT ?2)",
        )?;
        let mut trimmed: Option<&SourceId> = None;
        for (source, m) in &batch.messages {
            if let Some(before) = trimmed.filter(|before| *before != source) {
                trim.execute(params![before.as_str(), KEPT])?;
            }
            trimmed = Some(source);
            let (readings, rejected) = (int(m.readings), int(m.rejected));
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
    conn.execute(
        "INSERT INTO statistics_writers (writer, number, at) VALUES (?1, ?2, ?3)
         ON CONFLICT DO UPDATE SET number = excluded.number, at = excluded.at",
        params![batch.writer, int(batch.number), batch.at.as_millis()],
    )?;
    if batch.number % FORGET_EVERY == 1 {
        for period in Period::ALL {
            let oldest = batch.at.plus_millis(-period.kept_ms()).as_millis();
            conn.execute(
                "DELETE FROM statistics WHERE period = ?1 AND start < ?2",
                params![period.as_str(), oldest],
            )?;
        }
        let oldest = batch.at.plus_millis(-WRITER_KEPT_MS).as_millis();
        conn.execute("DELETE FROM statistics_writers WHERE at < ?1", [oldest])?;
    }
    Ok(())
}

#[async_trait]
impl StatisticsStore for Sqlite {
    async fn add(&self, batch: Arc<Batch>) -> Result<()> {
        self.write("adding counts", move |open| add(open.connection(), &batch)).await
    }

    async fn tallies(
        &self,
        scopes: &[Scope],
        periods: &[(Period, Timestamp)],
        writer: &str,
    ) -> Result<(Vec<Vec<Tally>>, u64)> {
        let (scopes, periods, writer) = (scopes.to_vec(), periods.to_vec(), writer.to_owned());
        self.read("reading counts", move |conn| {
            let number = number_of(conn, &writer)?;
            let mut one = conn.prepare_cached(
                "SELECT messages, readings, \"values\" FROM statistics WHERE scope = ?1 AND id = ?2 AND period = ?3 AND start = ?4",
            )?;
            let mut found = Vec::with_capacity(scopes.len());
            for scope in &scopes {
                let (kind, id) = scope.key();
                let mut tallies = Vec::with_capacity(periods.len());
                for (period, start) in &periods {
                    let tally = one
                        .query_row(params![kind, id, period.as_str(), start.as_millis()], |row| {
                            Ok(Tally { messages: uint(row, 0)?, readings: uint(row, 1)?, values: uint(row, 2)? })
                        })
                        .optional()?;
                    tallies.push(tally.unwrap_or_default());
                }
                found.push(tallies);
            }
            Ok((found, number))
        })
        .await
    }

    async fn last_messages(&self, source: &SourceId, writer: &str) -> Result<(Vec<LastMessage>, u64)> {
        let (source, writer) = (source.clone(), writer.to_owned());
        self.read("reading last messages", move |conn| {
            let number = number_of(conn, &writer)?;
            let messages = conn
                .prepare_cached(
                    "SELECT id, received, readings, rejected, text, cut FROM statistics_messages WHERE source = ?1
                     ORDER BY received DESC, number DESC LIMIT ?2",
                )?
                .query_map(params![source.as_str(), KEPT], |row| {
                    Ok(LastMessage {
                        id: row.get(0)?,
                        received: Timestamp(row.get(1)?),
                        readings: uint(row, 2)?,
                        rejected: uint(row, 3)?,
                        text: row.get(4)?,
                        cut: row.get(5)?,
                    })
                })?
                .collect::<rusqlite::Result<Vec<_>>>()?;
            Ok((messages, number))
        })
        .await
    }
}
