//! What counters have counted, in SQLite.

use async_trait::async_trait;
use galerna_model::{ParameterCode, SourceId};
use rusqlite::{OptionalExtension, Row, params};

use super::Sqlite;
use super::columns::{from_json, int, json, time, uint};
use crate::{ConsumptionDay, ConsumptionDays, ConsumptionKey, ConsumptionQuery, Result};

/// Created when missing, in files of any version. `counts`: JSON.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS consumption (
    source TEXT NOT NULL, zone TEXT NOT NULL, device TEXT NOT NULL, parameter INTEGER NOT NULL, day INTEGER NOT NULL,
    revision INTEGER NOT NULL, counts TEXT NOT NULL, PRIMARY KEY (source, zone, device, parameter, day)
) WITHOUT ROWID;
";

const COLUMNS: &str = "device, parameter, day, revision, counts";

fn day(row: &Row<'_>, source: &SourceId, zone: &str) -> rusqlite::Result<ConsumptionDay> {
    Ok(ConsumptionDay {
        key: ConsumptionKey {
            source: source.clone(),
            device: row.get(0)?,
            parameter: ParameterCode(row.get(1)?),
            zone: zone.to_owned(),
            day: time(row, 2)?,
        },
        revision: uint(row, 3)?,
        counts: from_json(row, 4)?,
    })
}

#[async_trait]
impl ConsumptionDays for Sqlite {
    async fn get(&self, keys: &[ConsumptionKey]) -> Result<Vec<Option<ConsumptionDay>>> {
        let keys = keys.to_vec();
        self.read("reading consumption", move |conn| {
            let mut select = conn.prepare_cached(&format!(
                "SELECT {COLUMNS} FROM consumption \
                 WHERE source = ?1 AND zone = ?2 AND device = ?3 AND parameter = ?4 AND day = ?5"
            ))?;
            let mut found = Vec::with_capacity(keys.len());
            for key in &keys {
                let at = params![key.source.as_str(), key.zone, key.device, key.parameter.0, key.day.0];
                found.push(select.query_row(at, |row| day(row, &key.source, &key.zone)).optional()?);
            }
            Ok(found)
        })
        .await
    }

    async fn keep(&self, days: &[ConsumptionDay]) -> Result<Vec<bool>> {
        let days = days.to_vec();
        self.write("keeping consumption", move |writer| {
            // A day that is not there has no revision to be compared: one that is not new is not inserted.
            let mut put = writer.connection().prepare_cached(
                "INSERT INTO consumption (source, zone, device, parameter, day, revision, counts) \
                 SELECT ?1, ?2, ?3, ?4, ?5, ?6 + 1, ?7 WHERE ?6 = 0 OR EXISTS (SELECT 1 FROM consumption WHERE \
                     source = ?1 AND zone = ?2 AND device = ?3 AND parameter = ?4 AND day = ?5) \
                 ON CONFLICT DO UPDATE SET revision = excluded.revision, counts = excluded.counts WHERE revision = ?6",
            )?;
            let mut kept = Vec::with_capacity(days.len());
            for ConsumptionDay { key, revision, counts } in &days {
                let (revision, counts) = (int(*revision).min(i64::MAX - 1), json(counts)?);
                let at = params![
                    key.source.as_str(),
                    key.zone,
                    key.device,
                    key.parameter.0,
                    key.day.0,
                    revision,
                    counts
                ];
                kept.push(put.execute(at)? == 1);
            }
            Ok(kept)
        })
        .await
    }

    async fn find(&self, query: &ConsumptionQuery) -> Result<Vec<ConsumptionDay>> {
        let query = query.clone();
        self.read("finding consumption", move |conn| {
            let (source, zone) = (query.source.as_str(), &query.zone);
            let counters: Vec<(String, u32)> = conn
                .prepare_cached(
                    "SELECT DISTINCT device, parameter FROM consumption \
                     WHERE source = ?1 AND zone = ?2 AND (?3 IS NULL OR device = ?3) ORDER BY device, parameter",
                )?
                .query_map(params![source, zone, query.device], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<rusqlite::Result<_>>()?;
            let of_counter = "FROM consumption WHERE source = ?1 AND zone = ?2 AND device = ?3 AND parameter = ?4";
            let mut select = conn.prepare_cached(&format!(
                "SELECT {COLUMNS} {of_counter} \
                 AND day >= ifnull((SELECT max(day) {of_counter} AND day < ?5), ?5) \
                 AND day <= ifnull((SELECT min(day) {of_counter} AND day >= ?6), ?6) ORDER BY day"
            ))?;
            let mut found = Vec::new();
            for (device, parameter) in counters {
                let at = params![source, zone, device, parameter, query.from.0, query.until.0];
                for of_counter in select.query_map(at, |row| day(row, &query.source, &query.zone))? {
                    found.push(of_counter?);
                }
            }
            Ok(found)
        })
        .await
    }
}
