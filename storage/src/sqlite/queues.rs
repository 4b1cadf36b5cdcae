//! Queue states in SQLite.
//!
//! Each change takes the next number of one counter, in the order of commits; a cursor is the last number seen, so nothing
//! is missed and nothing repeated.

use async_trait::async_trait;
use galerna_model::{QueueName, Timestamp};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::columns::{from_variant, int, maybe_time, name, time, uint};
use super::{Open, Sqlite};
use crate::queues::{COUNT_REFRESH_MS, check_swaps};
use crate::{Changes, Lease, QueueRecord, QueueStates, ReadyCount, Result, Swap, Swapped};

const COLUMNS: &str = "queue, account, version, state, epoch, lease_consumer, lease_granted_at, lease_expires_at, \
     lease_ms, lease_renewal, last_delivered, crashes, not_before, reason, since, ready, unacked, counted_at, lease_request, \
     deletion_claimed";

pub(super) fn last_change(conn: &Connection) -> rusqlite::Result<i64> {
    conn.query_row(
        "SELECT max(ifnull((SELECT max(changed) FROM queues), 0), \
                    ifnull((SELECT max(changed) FROM removed_queues), 0))",
        [],
        |row| row.get(0),
    )
}

fn record(row: &Row<'_>) -> rusqlite::Result<QueueRecord> {
    let lease = match row.get::<_, Option<String>>(5)? {
        None => None,
        Some(consumer) => Some(Lease {
            consumer,
            granted_at: time(row, 6)?,
            expires_at: time(row, 7)?,
            lease_ms: uint(row, 8)?,
            renewal: uint(row, 9)?,
            request: row.get(18)?,
        }),
    };
    Ok(QueueRecord {
        queue: name(row, 0)?,
        account: name(row, 1)?,
        version: uint(row, 2)?,
        state: from_variant(row, 3)?,
        epoch: uint(row, 4)?,
        lease,
        last_delivered: maybe_time(row, 10)?,
        crashes: row.get(11)?,
        not_before: maybe_time(row, 12)?,
        reason: row.get(13)?,
        deletion_claimed: row.get(19)?,
        since: time(row, 14)?,
        ready: uint(row, 15)?,
        unacked: uint(row, 16)?,
        counted_at: maybe_time(row, 17)?,
    })
}

fn one(conn: &Connection, queue: &QueueName) -> rusqlite::Result<Option<QueueRecord>> {
    conn.prepare_cached(&format!("SELECT {COLUMNS} FROM queues WHERE queue = ?1"))?
        .query_row([queue.as_str()], record)
        .optional()
}

fn several(conn: &Connection, since: i64) -> rusqlite::Result<Vec<QueueRecord>> {
    conn.prepare_cached(&format!("SELECT {COLUMNS} FROM queues WHERE changed > ?1"))?
        .query_map([since], record)?
        .collect()
}

/// Creates a record unless it exists; goes on from the epoch and version of a removed namesake.
fn create(open: &mut Open, record: &QueueRecord) -> rusqlite::Result<bool> {
    let (conn, caches) = open.parts();
    let queue = record.queue.as_str();
    let exists = conn
        .prepare_cached("SELECT 1 FROM queues WHERE queue = ?1")?
        .query_row([queue], |_| Ok(()))
        .optional()?
        .is_some();
    if exists {
        return Ok(false);
    }
    let removed: Option<(u64, u64)> = conn
        .prepare_cached("DELETE FROM removed_queues WHERE queue = ?1 RETURNING version, epoch")?
        .query_row([queue], |row| Ok((uint(row, 0)?, uint(row, 1)?)))
        .optional()?;
    let (version, epoch) = match removed {
        Some((version, epoch)) => (version + 1, record.epoch.max(epoch)),
        None => (record.version, record.epoch),
    };
    let lease = record.lease.as_ref();
    caches.last_change += 1;
    conn.prepare_cached(&format!(
        "INSERT INTO queues ({COLUMNS}, changed) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21)"
    ))?
    .execute(params![
        queue,
        record.account.as_str(),
        int(version),
        record.state.as_str(),
        int(epoch),
        lease.map(|l| l.consumer.as_str()),
        lease.map(|l| l.granted_at.0),
        lease.map(|l| l.expires_at.0),
        lease.map(|l| int(l.lease_ms)),
        lease.map(|l| int(l.renewal)),
        record.last_delivered.map(|t| t.0),
        record.crashes,
        record.not_before.map(|t| t.0),
        record.reason,
        record.since.0,
        int(record.ready),
        int(record.unacked),
        record.counted_at.map(|t| t.0),
        lease.and_then(|l| l.request.as_deref()),
        record.deletion_claimed,
        caches.last_change,
    ])?;
    Ok(true)
}

fn swap(open: &mut Open, swap: &Swap) -> rusqlite::Result<Swapped> {
    let (conn, caches) = open.parts();
    let record = &swap.record;
    let lease = record.lease.as_ref();
    caches.last_change += 1;
    let written = conn
        .prepare_cached(
            "UPDATE queues SET account = ?2, version = ?3, state = ?4, epoch = ?5, lease_consumer = ?6, \
             lease_granted_at = ?7, lease_expires_at = ?8, lease_ms = ?9, lease_renewal = ?10, \
             last_delivered = ?11, crashes = ?12, not_before = ?13, reason = ?14, since = ?15, changed = ?16, \
             lease_request = ?18, deletion_claimed = ?19 WHERE queue = ?1 AND version = ?17",
        )?
        .execute(params![
            record.queue.as_str(),
            record.account.as_str(),
            int(record.version),
            record.state.as_str(),
            int(record.epoch),
            lease.map(|l| l.consumer.as_str()),
            lease.map(|l| l.granted_at.0),
            lease.map(|l| l.expires_at.0),
            lease.map(|l| int(l.lease_ms)),
            lease.map(|l| int(l.renewal)),
            record.last_delivered.map(|t| t.0),
            record.crashes,
            record.not_before.map(|t| t.0),
            record.reason,
            record.since.0,
            caches.last_change,
            int(swap.expected),
            lease.and_then(|l| l.request.as_deref()),
            record.deletion_claimed,
        ])?;
    if written == 1 { Ok(Swapped::Done) } else { one(conn, &record.queue).map(Swapped::Conflict) }
}

#[async_trait]
impl QueueStates for Sqlite {
    async fn all(&self) -> Result<Vec<QueueRecord>> {
        self.read("reading all queue states", |conn| several(conn, i64::MIN)).await
    }

    async fn get(&self, queue: &QueueName) -> Result<Option<QueueRecord>> {
        let queue = queue.clone();
        self.read("reading a queue state", move |conn| one(conn, &queue)).await
    }

    async fn changes(&self, cursor: u64) -> Result<Changes> {
        self.read("reading the changes of queue states", move |conn| {
            let since = if cursor == 0 { i64::MIN } else { int(cursor) };
            let removed = conn
                .prepare_cached("SELECT queue FROM removed_queues WHERE changed > ?1 AND ?1 > 0")?
                .query_map([int(cursor)], |row| name(row, 0))?
                .collect::<rusqlite::Result<_>>()?;
            let reached = u64::try_from(last_change(conn)?).unwrap_or(0);
            Ok(Changes { records: several(conn, since)?, removed, cursor: cursor.max(reached) })
        })
        .await
    }

    async fn create(&self, records: &[QueueRecord]) -> Result<Vec<QueueName>> {
        let records = records.to_vec();
        self.write("creating queue states", move |writer| {
            let mut created = Vec::new();
            for record in &records {
                if create(writer, record)? {
                    created.push(record.queue.clone());
                }
            }
            Ok(created)
        })
        .await
    }

    async fn swap(&self, swaps: &[Swap]) -> Result<Vec<Swapped>> {
        check_swaps(swaps)?;
        let swaps = swaps.to_vec();
        self.write("swapping queue states", move |writer| swaps.iter().map(|s| swap(writer, s)).collect())
            .await
    }

    async fn remove(&self, queue: &QueueName, version: u64) -> Result<bool> {
        let queue = queue.clone();
        self.write("removing a queue state", move |open| {
            let (conn, caches) = open.parts();
            let epoch: Option<i64> = conn
                .prepare_cached("DELETE FROM queues WHERE queue = ?1 AND version = ?2 RETURNING epoch")?
                .query_row(params![queue.as_str(), int(version)], |row| row.get(0))
                .optional()?;
            let Some(epoch) = epoch else { return Ok(false) };
            caches.last_change += 1;
            conn
                .prepare_cached("INSERT OR REPLACE INTO removed_queues (queue, version, epoch, changed) VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![queue.as_str(), int(version), epoch, caches.last_change])?;
            Ok(true)
        })
        .await
    }

    async fn set_ready(&self, counts: &[ReadyCount], at: Timestamp) -> Result<()> {
        let counts = counts.to_vec();
        self.write("storing message counts", move |open| {
            let (conn, caches) = open.parts();
            let mut update = conn.prepare_cached(
                "UPDATE queues SET ready = ?2, unacked = ?3, counted_at = ?4, changed = ?5 WHERE queue = ?1 \
                 AND (counted_at IS NULL OR (counted_at <= ?4 \
                      AND (ready <> ?2 OR unacked <> ?3 OR counted_at < ?4 - ?6)))",
            )?;
            for count in &counts {
                caches.last_change += 1;
                update.execute(params![
                    count.queue.as_str(),
                    int(count.ready),
                    int(count.unacked),
                    at.0,
                    caches.last_change,
                    COUNT_REFRESH_MS,
                ])?;
            }
            Ok(())
        })
        .await
    }
}
