//! What was imported of meters' intervals, in SQLite.

use async_trait::async_trait;
use galerna_model::AccountId;
use rusqlite::params;

use super::Sqlite;
use super::columns::uint;
use crate::{ImportChunk, Imports, Result};

/// Created when missing, in files of any version.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS import_chunks (
    account TEXT NOT NULL, meter TEXT NOT NULL, number INTEGER NOT NULL, revision INTEGER NOT NULL, data BLOB NOT NULL,
    UNIQUE (account, meter, number)
);
CREATE TABLE IF NOT EXISTS import_sequences (account TEXT PRIMARY KEY, last INTEGER NOT NULL) WITHOUT ROWID;
";

#[async_trait]
impl Imports for Sqlite {
    async fn chunks(&self, account: &AccountId, meter: &str) -> Result<Vec<ImportChunk>> {
        let (account, meter) = (account.clone(), meter.to_owned());
        self.read("reading what was imported", move |conn| {
            conn.prepare_cached(
                "SELECT number, revision, data FROM import_chunks WHERE account = ?1 AND meter = ?2 ORDER BY number",
            )?
            .query_map(params![account.as_str(), meter], |row| {
                Ok(ImportChunk {
                    account: account.clone(),
                    meter: meter.clone(),
                    number: row.get(0)?,
                    revision: uint(row, 1)?,
                    data: row.get(2)?,
                })
            })?
            .collect()
        })
        .await
    }

    async fn keep(&self, chunks: &[ImportChunk]) -> Result<bool> {
        let chunks = chunks.to_vec();
        self.write("keeping what was imported", move |writer| {
            let mut put = writer.connection().prepare_cached(
                "INSERT INTO import_chunks (account, meter, number, revision, data) VALUES (?1, ?2, ?3, ?4 + 1, ?5) \
                 ON CONFLICT DO UPDATE SET revision = excluded.revision, data = excluded.data WHERE revision = ?4",
            )?;
            let mut kept = true;
            for chunk in &chunks {
                let revision = i64::try_from(chunk.revision).unwrap_or(i64::MAX - 1);
                let at = params![chunk.account.as_str(), chunk.meter, chunk.number, revision, chunk.data];
                kept &= put.execute(at)? == 1;
            }
            Ok(kept)
        })
        .await
    }

    async fn reserve_sequence(&self, account: &AccountId, count: u64) -> Result<u64> {
        let account = account.clone();
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.write("reserving sequence numbers", move |writer| {
            let last = writer
                .connection()
                .prepare_cached(
                    "INSERT INTO import_sequences (account, last) VALUES (?1, ?2) \
                     ON CONFLICT DO UPDATE SET last = last + excluded.last RETURNING last",
                )?
                .query_row(params![account.as_str(), count], |row| uint(row, 0))?;
            Ok(last.saturating_sub(count.unsigned_abs()) + 1)
        })
        .await
    }
}
