//! Readings in SQLite.
//!
//! A reading's key is (series, time); a series is the number of a (source, device). Which series an account or a source
//! has stands in small tables, so that every query is a few seeks in the one large table.

use std::collections::HashMap;

use async_trait::async_trait;
use galerna_model::{AccountId, Measurement, ParameterCode, SourceId, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, ToSql, params};

use super::columns::{from_json, json, name, rows, time, uint, unreadable};
use super::{Caches, Open, Sqlite};
use crate::union::{United, sequence};
use crate::{
    Difference, ReadingKey, ReadingOutcome, Readings, ReadingsQuery, Result, SharedReadings, StoreOutcome,
    StoredReading,
};

/// Series remembered; when there are more, all are forgotten and looked up again.
const SERIES_KEPT: usize = 500_000;

/// Ids of the series and accounts met by the writer.
#[derive(Default)]
pub(super) struct SeriesCache {
    sources: HashMap<SourceId, HashMap<String, Series>>,
    accounts: HashMap<AccountId, i64>,
    kept: usize,
}

#[derive(Clone, Copy)]
struct Series {
    id: i64,
    /// The account last known to be noted in `series_accounts`.
    account: i64,
}

impl SeriesCache {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    fn account(&mut self, conn: &Connection, account: &AccountId) -> rusqlite::Result<i64> {
        if let Some(id) = self.accounts.get(account) {
            return Ok(*id);
        }
        conn.prepare_cached("INSERT OR IGNORE INTO reading_accounts (account) VALUES (?1)")?
            .execute([account.as_str()])?;
        let id = conn
            .prepare_cached("SELECT id FROM reading_accounts WHERE account = ?1")?
            .query_row([account.as_str()], |row| row.get(0))?;
        self.accounts.insert(account.clone(), id);
        Ok(id)
    }

    fn series(
        &mut self,
        conn: &Connection,
        account: i64,
        source: &SourceId,
        device: &str,
    ) -> rusqlite::Result<i64> {
        let known = self.sources.get(source).and_then(|devices| devices.get(device)).copied();
        if let Some(Series { id, account: noted }) = known
            && noted == account
        {
            return Ok(id);
        }
        let id = match known {
            Some(series) => series.id,
            None => {
                conn.prepare_cached("INSERT OR IGNORE INTO series (source, device) VALUES (?1, ?2)")?
                    .execute([source.as_str(), device])?;
                conn.prepare_cached("SELECT id FROM series WHERE source = ?1 AND device = ?2")?
                    .query_row([source.as_str(), device], |row| row.get(0))?
            }
        };
        conn.prepare_cached("INSERT OR IGNORE INTO series_accounts (account, series) VALUES (?1, ?2)")?
            .execute([account, id])?;
        if self.kept >= SERIES_KEPT {
            self.clear();
        }
        self.kept += usize::from(known.is_none());
        self.sources.entry(source.clone()).or_default().insert(device.to_owned(), Series { id, account });
        Ok(id)
    }
}

const INSERT: &str = "INSERT INTO readings (series, ts, account, sqn, vals, flags, received) \
     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7) ON CONFLICT DO NOTHING";

const REPLACE: &str = "UPDATE readings SET account = ?3, sqn = ?4, vals = ?5, flags = ?6, received = ?7, sqns = ?8 \
     WHERE series = ?1 AND ts = ?2";

const STORED: &str = "SELECT r.sqn, r.vals, r.flags, r.received, a.account, r.sqns \
     FROM readings r JOIN reading_accounts a ON a.id = r.account WHERE r.series = ?1 AND r.ts = ?2";

/// `vals`, as [`values`] reads it.
fn encode(values: &[Measurement], into: &mut Vec<u8>) {
    into.clear();
    for value in values {
        into.extend_from_slice(&value.p.0.to_le_bytes());
        into.extend_from_slice(&value.v.to_le_bytes());
    }
}

fn flags_text(flags: &[String]) -> rusqlite::Result<Option<String>> {
    if flags.is_empty() { Ok(None) } else { json(&flags).map(Some) }
}

fn store(open: &mut Open, messages: &[SharedReadings]) -> rusqlite::Result<StoreOutcome> {
    let (conn, Caches { series: cache, .. }) = open.parts();
    let mut insert = conn.prepare_cached(INSERT)?;
    let mut values = Vec::new();
    let mut outcome = StoreOutcome::default();
    for reading in messages.iter().flat_map(|readings| readings.iter()) {
        let account = cache.account(conn, &reading.account)?;
        let series = cache.series(conn, account, &reading.source, &reading.device)?;
        encode(&reading.values, &mut values);
        let flags = flags_text(&reading.flags)?;
        let row =
            params![series, reading.ts.0, account, sequence(reading.sqn), values, flags, reading.received.0];
        let at = outcome.readings.len();
        let done = if insert.execute(row)? == 1 {
            ReadingOutcome::Inserted
        } else {
            unite(conn, cache, series, reading, |difference| outcome.not_taken.push((at, difference)))?
        };
        outcome.readings.push(done);
    }
    Ok(outcome)
}

/// Unites a reading with the one of its identity that is there.
fn unite(
    conn: &Connection,
    cache: &mut SeriesCache,
    series: i64,
    reading: &StoredReading,
    differs: impl FnMut(Difference),
) -> rusqlite::Result<ReadingOutcome> {
    let mut united = conn.prepare_cached(STORED)?.query_row(params![series, reading.ts.0], |row| {
        let (sqn, values) = (row.get(0)?, values(row, 1)?);
        Ok(United {
            account: name(row, 4)?,
            sqn,
            sqns: sqns(row, 5)?.unwrap_or_else(|| vec![sqn; values.len()]),
            values,
            flags: flags(row, 2)?,
            received: time(row, 3)?,
        })
    })?;
    let outcome = united.unite(reading, differs);
    if outcome != ReadingOutcome::Duplicate {
        let mut values = Vec::new();
        encode(&united.values, &mut values);
        let own: Option<Vec<u8>> =
            united.own_sqns().map(|sqns| sqns.iter().flat_map(|sqn| sqn.to_le_bytes()).collect());
        conn.prepare_cached(REPLACE)?.execute(params![
            series,
            reading.ts.0,
            cache.account(conn, &united.account)?,
            united.sqn,
            values,
            flags_text(&united.flags)?,
            united.received.0,
            own,
        ])?;
    }
    Ok(outcome)
}

fn flags(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<String>> {
    match row.get_ref(column)? {
        rusqlite::types::ValueRef::Null => Ok(Vec::new()),
        _ => from_json(row, column),
    }
}

/// The sequence number of each value; `None` when all have that of the reading.
fn sqns(row: &Row<'_>, column: usize) -> rusqlite::Result<Option<Vec<i64>>> {
    let Some(bytes) = row.get_ref(column)?.as_blob_or_null()? else { return Ok(None) };
    let (numbers, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() {
        return Err(unreadable(column, "the sequence numbers of a reading are cut short".into()));
    }
    Ok(Some(numbers.iter().map(|number| i64::from_le_bytes(*number)).collect()))
}

fn values(row: &Row<'_>, column: usize) -> rusqlite::Result<Vec<Measurement>> {
    let (pairs, rest) = row.get_ref(column)?.as_blob()?.as_chunks::<12>();
    if !rest.is_empty() {
        return Err(unreadable(column, "the values of a reading are cut short".into()));
    }
    let pair = |b: &[u8; 12]| Measurement {
        p: ParameterCode(u32::from_le_bytes([b[0], b[1], b[2], b[3]])),
        v: f64::from_le_bytes([b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11]]),
    };
    Ok(pairs.iter().map(pair).collect())
}

/// A series that a query looks at.
struct Wanted {
    id: i64,
    source: SourceId,
    device: String,
}

/// The series of an account, a source, a device, or all, in the order of (source, device).
fn wanted(
    conn: &Connection,
    account: Option<i64>,
    source: Option<&SourceId>,
    device: Option<&str>,
) -> rusqlite::Result<Vec<Wanted>> {
    let source = source.map(SourceId::as_str);
    let mut sql = "SELECT s.id, s.source, s.device FROM series s WHERE TRUE".to_owned();
    let mut given: Vec<&dyn ToSql> = Vec::new();
    if account.is_some() {
        sql.push_str(" AND s.id IN (SELECT series FROM series_accounts WHERE account = ?)");
        given.push(&account);
    }
    if source.is_some() {
        sql.push_str(" AND s.source = ?");
        given.push(&source);
    }
    if device.is_some() {
        sql.push_str(" AND s.device = ?");
        given.push(&device);
    }
    sql.push_str(" ORDER BY s.source, s.device");
    conn.prepare_cached(&sql)?
        .query_map(given.as_slice(), |row| {
            Ok(Wanted { id: row.get(0)?, source: name(row, 1)?, device: row.get(2)? })
        })?
        .collect()
}

fn account_id(conn: &Connection, account: &AccountId) -> rusqlite::Result<Option<i64>> {
    conn.prepare_cached("SELECT id FROM reading_accounts WHERE account = ?1")?
        .query_row([account.as_str()], |row| row.get(0))
        .optional()
}

/// The newest readings of one series in [from, until), newest first.
const NEWEST: &str = "SELECT r.ts, r.sqn, r.vals, r.flags, r.received, a.account \
     FROM readings r JOIN reading_accounts a ON a.id = r.account \
     WHERE r.series = ?1 AND r.ts >= ?2 AND r.ts <= ?3 AND (?4 IS NULL OR r.account = ?4) \
     ORDER BY r.ts DESC LIMIT ?5";

fn reading(row: &Row<'_>, series: &Wanted) -> rusqlite::Result<StoredReading> {
    Ok(StoredReading {
        account: name(row, 5)?,
        source: series.source.clone(),
        device: series.device.clone(),
        ts: time(row, 0)?,
        sqn: uint(row, 1)?,
        values: values(row, 2)?,
        flags: flags(row, 3)?,
        received: time(row, 4)?,
    })
}

fn find(conn: &Connection, query: &ReadingsQuery) -> rusqlite::Result<Vec<StoredReading>> {
    let account = match &query.account {
        None => None,
        Some(account) => match account_id(conn, account)? {
            None => return Ok(Vec::new()),
            id => id,
        },
    };
    let until = match query.until {
        None => i64::MAX,
        Some(Timestamp(i64::MIN)) => return Ok(Vec::new()),
        Some(Timestamp(until)) => until - 1,
    };
    let mut from = query.from.map_or(i64::MIN, |t| t.0);
    let mut newest: Vec<StoredReading> = Vec::new();
    let mut select = conn.prepare_cached(NEWEST)?;
    for series in wanted(conn, account, query.source.as_ref(), query.device.as_deref())? {
        let found = select.query_map(params![series.id, from, until, account, rows(query.limit)], |row| {
            reading(row, &series)
        })?;
        for found in found {
            newest.push(found?);
        }
        if newest.len() >= query.limit.saturating_mul(2) {
            newest.sort_by_key(|r| std::cmp::Reverse(r.ts));
            newest.truncate(query.limit);
            // Only later ones can still get in.
            if let Some(Timestamp(worst)) = newest.last().map(|r| r.ts) {
                from = from.max(worst.saturating_add(1));
            }
        }
    }
    newest.sort_by_key(|r| std::cmp::Reverse(r.ts));
    newest.truncate(query.limit);
    Ok(newest)
}

fn keys(
    conn: &Connection,
    account: &AccountId,
    after: Option<&ReadingKey>,
    limit: usize,
) -> rusqlite::Result<Vec<ReadingKey>> {
    let Some(account) = account_id(conn, account)? else { return Ok(Vec::new()) };
    let mut keys = Vec::new();
    let mut select = conn.prepare_cached(
        "SELECT ts, sqn FROM readings WHERE series = ?1 AND ts > ?2 AND account = ?3 ORDER BY ts LIMIT ?4",
    )?;
    // The least time there is may be a reading's too, so "after none" is asked apart.
    let mut select_all = conn.prepare_cached(
        "SELECT ts, sqn FROM readings WHERE series = ?1 AND account = ?3 ORDER BY ts LIMIT ?4",
    )?;
    for series in wanted(conn, Some(account), None, None)? {
        let place =
            after.map(|a| (&series.source, series.device.as_str()).cmp(&(&a.source, a.device.as_str())));
        let (statement, ts) = match (place, after) {
            (Some(std::cmp::Ordering::Less), _) => continue,
            (Some(std::cmp::Ordering::Equal), Some(after)) => (&mut select, Some(after.ts.0)),
            _ => (&mut select_all, None),
        };
        let found = statement
            .query_map(params![series.id, ts, account, rows(limit - keys.len())], |row| {
                Ok((time(row, 0)?, uint(row, 1)?))
            })?;
        for found in found {
            let (ts, sqn) = found?;
            keys.push(ReadingKey { source: series.source.clone(), device: series.device.clone(), ts, sqn });
        }
        if keys.len() >= limit {
            break;
        }
    }
    Ok(keys)
}

#[async_trait]
impl Readings for Sqlite {
    async fn store_shared(&self, messages: &[SharedReadings]) -> Result<StoreOutcome> {
        if messages.iter().all(|readings| readings.is_empty()) {
            return Ok(StoreOutcome::default());
        }
        let messages = messages.to_vec();
        self.write("storing readings", move |open| store(open, &messages)).await
    }

    async fn find(&self, query: &ReadingsQuery) -> Result<Vec<StoredReading>> {
        let query = query.clone();
        self.read("finding readings", move |conn| find(conn, &query)).await
    }

    async fn count(&self, account: Option<&AccountId>) -> Result<u64> {
        let account = account.cloned();
        self.read("counting readings", move |conn| match &account {
            None => conn.query_row("SELECT count(*) FROM readings", [], |row| uint(row, 0)),
            Some(account) => conn
                .prepare_cached(
                    "SELECT count(*) FROM reading_accounts a JOIN series_accounts s ON s.account = a.id \
                     JOIN readings r ON r.series = s.series AND r.account = a.id WHERE a.account = ?1",
                )?
                .query_row([account.as_str()], |row| uint(row, 0)),
        })
        .await
    }

    async fn keys(
        &self,
        account: &AccountId,
        after: Option<&ReadingKey>,
        limit: usize,
    ) -> Result<Vec<ReadingKey>> {
        let (account, after) = (account.clone(), after.cloned());
        self.read("reading identities of readings", move |conn| keys(conn, &account, after.as_ref(), limit))
            .await
    }

    async fn latest(&self, source: &SourceId) -> Result<Vec<StoredReading>> {
        let source = source.clone();
        self.read("reading the latest readings", move |conn| {
            let mut latest = Vec::new();
            let mut select = conn.prepare_cached(NEWEST)?;
            for series in wanted(conn, None, Some(&source), None)? {
                let found = select.query_row(params![series.id, i64::MIN, i64::MAX, None::<i64>, 1], |row| {
                    reading(row, &series)
                });
                latest.extend(found.optional()?);
            }
            Ok(latest)
        })
        .await
    }
}
