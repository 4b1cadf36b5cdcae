//! Refused readings in SQLite.

use async_trait::async_trait;
use galerna_model::AccountId;
use rusqlite::params;

use super::Sqlite;
use super::columns::{maybe_name, maybe_time, name, rows, time, uint};
use crate::{RejectedReading, RejectedReadings, Result};

#[async_trait]
impl RejectedReadings for Sqlite {
    async fn store(&self, batch: &[RejectedReading]) -> Result<()> {
        if batch.is_empty() {
            return Ok(());
        }
        let batch = batch.to_vec();
        self.write("storing rejected readings", move |writer| {
            let mut insert = writer.connection().prepare_cached(
                "INSERT INTO rejected (id, account, source, device, ts, code, reason, raw, at, field) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
            )?;
            for r in &batch {
                insert.execute(params![
                    r.id,
                    r.account.as_str(),
                    r.source.as_ref().map(|s| s.as_str()),
                    r.device,
                    r.ts.map(|t| t.0),
                    r.code,
                    r.reason,
                    r.raw,
                    r.at.0,
                    r.field
                ])?;
            }
            Ok(())
        })
        .await
    }

    async fn list(
        &self,
        account: Option<&AccountId>,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<RejectedReading>> {
        let account = account.cloned();
        self.read("listing rejected readings", move |conn| {
            let filter = if account.is_some() { "account = ?1" } else { "?1 IS NULL" };
            conn.prepare_cached(&format!(
                "SELECT id, account, source, device, ts, code, reason, raw, at, field FROM rejected WHERE {filter} \
                 ORDER BY at DESC, id DESC LIMIT ?2 OFFSET ?3"
            ))?
            .query_map(params![account.as_ref().map(AccountId::as_str), rows(limit), rows(offset)], |row| {
                Ok(RejectedReading {
                    id: row.get(0)?,
                    account: name(row, 1)?,
                    source: maybe_name(row, 2)?,
                    device: row.get(3)?,
                    ts: maybe_time(row, 4)?,
                    code: row.get(5)?,
                    reason: row.get(6)?,
                    raw: row.get(7)?,
                    at: time(row, 8)?,
                    field: row.get(9)?,
                })
            })?
            .collect()
        })
        .await
    }

    async fn counts(&self) -> Result<Vec<(String, u64)>> {
        self.read("counting rejected readings", |conn| {
            conn.prepare_cached("SELECT code, count(*) FROM rejected GROUP BY code ORDER BY code")?
                .query_map([], |row| Ok((row.get(0)?, uint(row, 1)?)))?
                .collect()
        })
        .await
    }
}
