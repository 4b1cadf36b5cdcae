//! Items and limits in an SQLite file, for the processes of one machine.

use std::path::Path;

use async_trait::async_trait;
use galerna_model::Timestamp;
use galerna_sqlite::{Format, Limits, OpenError, Plain, Writer};
use rusqlite::{Connection, OptionalExtension, Row, params};

use crate::store::{Attempt, AttemptEnd, ItemStore, LimitStore, Round, Step, StoredClaim};
use crate::{DelayError, Item, Parked, Taken};

/// Files of this store.
const FORMAT: Format = Format {
    what: "store of delayed work",
    application_id: 0x4761_6c44, // GalD
    version: 1,
    tables: &["items", "limits"],
    bring_up,
    lock_suffix: "-lock",
    companions: &[],
    shared: true,
};

/// `first`: 1 of the item of a key that may be claimed, and of all without key. `due` is null while an item is claimed or parked, so
/// that the index has only what can start. `tat`: when a limit would be idle again, in microseconds.
const TABLES: &str = "
CREATE TABLE IF NOT EXISTS items (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, key TEXT, first INTEGER NOT NULL, due INTEGER,
    attempts INTEGER NOT NULL, holder TEXT, epoch INTEGER NOT NULL, renewal INTEGER NOT NULL, lease INTEGER NOT NULL,
    parked TEXT, fault TEXT, payload TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS items_due ON items (due, seq) WHERE first = 1 AND due IS NOT NULL;
CREATE INDEX IF NOT EXISTS items_key ON items (key, seq) WHERE key IS NOT NULL;
CREATE INDEX IF NOT EXISTS items_claimed ON items (seq) WHERE holder IS NOT NULL;
CREATE INDEX IF NOT EXISTS items_parked ON items (seq) WHERE parked IS NOT NULL;
CREATE TABLE IF NOT EXISTS limits (name TEXT NOT NULL, key TEXT NOT NULL, tat INTEGER NOT NULL, PRIMARY KEY (name, key)) WITHOUT ROWID;
";

fn bring_up(connection: &Connection, _found: i64) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)
}

fn open(path: &Path) -> Result<Writer<Plain>, OpenError> {
    Writer::open(&FORMAT, path, Limits::default())
}

fn in_memory() -> Result<Writer<Plain>, DelayError> {
    Writer::in_memory(&FORMAT, Limits::default())
        .map_err(|error| DelayError::of("opening a store in memory", error.into()))
}

/// Items in an SQLite file, for the processes of one machine.
#[derive(Debug)]
pub struct SqliteItems {
    writer: Writer<Plain>,
}

impl SqliteItems {
    /// Opens the file, which is created, with its folder, when missing. Blocks for as long as that takes.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self { writer: open(path)? })
    }

    /// Items that are gone when this is dropped.
    ///
    /// # Errors
    /// When SQLite has no memory.
    pub fn in_memory() -> Result<Self, DelayError> {
        Ok(Self { writer: in_memory()? })
    }

    async fn run<T: Send + 'static>(
        &self,
        attempted: &'static str,
        mut work: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DelayError> {
        let done = self.writer.write(move |stored| work(stored.connection())).await;
        done.map_err(|error| DelayError::of(attempted, error))
    }
}

/// A number as SQLite has them.
fn integer(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn at_most(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}

#[async_trait]
impl ItemStore for SqliteItems {
    async fn put(&self, items: &[Item]) -> Result<usize, DelayError> {
        let items = items.to_vec();
        self.run("keeping delayed work", move |connection| {
            let mut behind = connection.prepare_cached("SELECT 1 FROM items WHERE key = ?1 LIMIT 1")?;
            let mut insert = connection.prepare_cached(
                "INSERT INTO items (id, key, first, due, attempts, epoch, renewal, lease, payload)
                 VALUES (?1, ?2, ?3, ?4, 0, 0, 0, 0, ?5) ON CONFLICT DO NOTHING",
            )?;
            let mut new = 0;
            for item in &items {
                let first = match &item.key {
                    Some(key) => !behind.exists([key])?,
                    None => true,
                };
                let due = item.due.as_millis();
                new += insert.execute(params![item.id, item.key, first, due, item.payload.to_string()])?;
            }
            Ok(new)
        })
        .await
    }

    async fn claimed(&self) -> Result<Vec<StoredClaim>, DelayError> {
        self.run("looking at claims", |connection| {
            let sql = "SELECT id, epoch, renewal, lease, holder FROM items WHERE holder IS NOT NULL";
            let claim = |row: &Row<'_>| {
                Ok(StoredClaim {
                    id: row.get(0)?,
                    epoch: row.get::<_, i64>(1)?.unsigned_abs(),
                    renewal: row.get::<_, i64>(2)?.unsigned_abs(),
                    lease_ms: row.get::<_, i64>(3)?.unsigned_abs(),
                    holder: row.get(4)?,
                })
            };
            connection.prepare_cached(sql)?.query_map([], claim)?.collect()
        })
        .await
    }

    async fn claim(&self, round: &Round) -> Result<Vec<Taken>, DelayError> {
        let round = round.clone();
        self.run("claiming delayed work", move |connection| {
            let at = round.now.as_millis();
            let mut keep = connection.prepare_cached(
                "UPDATE items SET renewal = renewal + 1 WHERE id = ?1 AND epoch = ?2 AND holder = ?3",
            )?;
            for (id, epoch) in &round.renew {
                keep.execute(params![id, integer(*epoch), round.holder])?;
            }
            let mut give_back = connection.prepare_cached(
                "UPDATE items SET holder = NULL, due = ?4, attempts = max(attempts - 1, 0) WHERE id = ?1 AND epoch = ?2 AND holder = ?3",
            )?;
            for (id, epoch) in &round.give_back {
                give_back.execute(params![id, integer(*epoch), round.holder, at])?;
            }
            let mut take_over = connection.prepare_cached(
                "UPDATE items SET holder = NULL, due = iif(attempts >= ?5, NULL, ?6),
                     parked = iif(attempts >= ?5, 'the process of the last attempt was lost', NULL)
                 WHERE id = ?1 AND epoch = ?2 AND renewal = ?3 AND holder = ?4",
            )?;
            for claim in &round.take_over {
                let (epoch, renewal) = (integer(claim.epoch), integer(claim.renewal));
                take_over.execute(params![claim.id, epoch, renewal, claim.holder, round.attempts, at])?;
            }
            take(connection, &round)
        })
        .await
    }

    async fn settle(&self, holder: &str, attempts: &[Attempt]) -> Result<Vec<bool>, DelayError> {
        let (holder, attempts) = (holder.to_owned(), attempts.to_vec());
        self.run("settling delayed work", move |connection| {
            attempts.iter().map(|attempt| end(connection, &holder, attempt)).collect()
        })
        .await
    }

    async fn parked(&self, limit: usize) -> Result<Vec<Parked>, DelayError> {
        self.run("listing what is parked", move |connection| {
            let sql = "SELECT id, key, attempts, parked, (SELECT count(*) FROM items AS b WHERE b.key = a.key AND b.seq > a.seq)
                       FROM items AS a WHERE parked IS NOT NULL ORDER BY seq LIMIT ?1";
            let parked = |row: &Row<'_>| {
                Ok(Parked {
                    id: row.get(0)?,
                    key: row.get(1)?,
                    attempts: row.get(2)?,
                    reason: row.get(3)?,
                    waiting: row.get::<_, i64>(4)?.unsigned_abs(),
                })
            };
            connection.prepare_cached(sql)?.query_map([at_most(limit)], parked)?.collect()
        })
        .await
    }

    async fn resume(&self, id: &str, due: Timestamp) -> Result<bool, DelayError> {
        let id = id.to_owned();
        self.run("resuming what is parked", move |connection| {
            let sql =
                "UPDATE items SET parked = NULL, attempts = 0, due = ?2 WHERE id = ?1 AND parked IS NOT NULL";
            Ok(connection.prepare_cached(sql)?.execute(params![id, due.as_millis()])? == 1)
        })
        .await
    }

    async fn discard(&self, id: &str) -> Result<bool, DelayError> {
        let id = id.to_owned();
        self.run("discarding what is parked", move |connection| {
            let sql = "SELECT seq, key FROM items WHERE id = ?1 AND parked IS NOT NULL";
            let found = connection.prepare_cached(sql)?.query_row([&id], seq_and_key).optional()?;
            let Some((seq, key)) = found else { return Ok(false) };
            remove(connection, seq, key.as_deref())?;
            Ok(true)
        })
        .await
    }

    async fn count(&self) -> Result<u64, DelayError> {
        self.run("counting delayed work", |connection| {
            let count: i64 = connection.query_row("SELECT count(*) FROM items", [], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
        .await
    }
}

fn seq_and_key(row: &Row<'_>) -> rusqlite::Result<(i64, Option<String>)> {
    Ok((row.get(0)?, row.get(1)?))
}

/// Ends an attempt. False when its claim is not there any more.
fn end(connection: &Connection, holder: &str, attempt: &Attempt) -> rusqlite::Result<bool> {
    let sql = "SELECT seq, key FROM items WHERE id = ?1 AND epoch = ?2 AND holder = ?3";
    let claim = params![attempt.id, integer(attempt.epoch), holder];
    let found = connection.prepare_cached(sql)?.query_row(claim, seq_and_key).optional()?;
    let Some((seq, key)) = found else { return Ok(false) };
    let (due, parked, fault, uncounted) = match &attempt.end {
        AttemptEnd::Done => {
            remove(connection, seq, key.as_deref())?;
            return Ok(true);
        }
        AttemptEnd::Again { due, fault, counts } => (Some(due.as_millis()), None, fault, !counts),
        AttemptEnd::Parked { reason } => (None, Some(reason), reason, false),
    };
    let sql = "UPDATE items SET holder = NULL, due = ?2, parked = ?3, fault = ?4, attempts = attempts - ?5 WHERE seq = ?1";
    connection.prepare_cached(sql)?.execute(params![seq, due, parked, fault, uncounted])?;
    Ok(true)
}

/// Claims what is due.
fn take(connection: &Connection, round: &Round) -> rusqlite::Result<Vec<Taken>> {
    let sql = "SELECT seq, id, key, due, attempts, epoch, payload FROM items
               WHERE first = 1 AND due <= ?1 ORDER BY due, seq LIMIT ?2";
    let found = |row: &Row<'_>| {
        let text = row.get_ref(6)?.as_str()?;
        let payload = serde_json::from_str(text).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(6, rusqlite::types::Type::Text, Box::new(error))
        })?;
        let item = Item { id: row.get(1)?, key: row.get(2)?, due: Timestamp(row.get(3)?), payload };
        let (attempts, epoch): (u32, i64) = (row.get(4)?, row.get(5)?);
        Ok((row.get(0)?, Taken { item, attempt: attempts + 1, epoch: epoch.unsigned_abs() + 1 }))
    };
    let asked = params![round.now.as_millis(), at_most(round.room)];
    let taken: Vec<(i64, Taken)> =
        connection.prepare_cached(sql)?.query_map(asked, found)?.collect::<rusqlite::Result<_>>()?;
    let mut claim = connection.prepare_cached(
        "UPDATE items SET due = NULL, holder = ?2, epoch = epoch + 1, renewal = 0, lease = ?3, attempts = attempts + 1
         WHERE seq = ?1",
    )?;
    for (seq, _) in &taken {
        claim.execute(params![seq, round.holder, integer(round.lease_ms)])?;
    }
    Ok(taken.into_iter().map(|(_, taken)| taken).collect())
}

/// Removes an item, and lets the next of its key be the first.
fn remove(connection: &Connection, seq: i64, key: Option<&str>) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM items WHERE seq = ?1")?.execute([seq])?;
    if let Some(key) = key {
        let sql = "UPDATE items SET first = 1 WHERE seq = (SELECT min(seq) FROM items WHERE key = ?1)";
        connection.prepare_cached(sql)?.execute([key])?;
    }
    Ok(())
}

/// Limits in an SQLite file, for the processes of one machine.
#[derive(Debug)]
pub struct SqliteLimits {
    writer: Writer<Plain>,
}

impl SqliteLimits {
    /// Opens the file, which may be that of [`SqliteItems`]. Blocks for as long as that takes.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self { writer: open(path)? })
    }

    /// Limits that are gone when this is dropped.
    ///
    /// # Errors
    /// When SQLite has no memory.
    pub fn in_memory() -> Result<Self, DelayError> {
        Ok(Self { writer: in_memory()? })
    }
}

#[async_trait]
impl LimitStore for SqliteLimits {
    async fn ask(&self, steps: &[Step], now: i64) -> Result<u64, DelayError> {
        let steps = steps.to_vec();
        let asked = self.writer.write(move |stored| {
            let connection = stored.connection();
            let mut wait = 0;
            let mut moved = Vec::with_capacity(steps.len());
            for Step { name, key, interval, ahead } in &steps {
                let sql = "SELECT tat FROM limits WHERE name = ?1 AND key = ?2";
                let tat: Option<i64> =
                    connection.prepare_cached(sql)?.query_row([name, key], |row| row.get(0)).optional()?;
                let next = tat.unwrap_or(now).max(now).saturating_add(*interval);
                wait = wait.max(next.saturating_sub(*ahead).saturating_sub(now));
                moved.push((name, key, next));
            }
            if wait > 0 {
                return Ok(wait.unsigned_abs());
            }
            for (name, key, next) in moved {
                let sql = "INSERT INTO limits VALUES (?1, ?2, ?3) ON CONFLICT DO UPDATE SET tat = ?3";
                connection.prepare_cached(sql)?.execute(params![name, key, next])?;
            }
            Ok(0)
        });
        asked.await.map_err(|error| DelayError::of("asking for a permit", error))
    }

    async fn forget_idle(&self, now: i64) -> Result<u64, DelayError> {
        let gone = self
            .writer
            .write(move |stored| stored.connection().execute("DELETE FROM limits WHERE tat <= ?1", [now]))
            .await;
        let gone = gone.map_err(|error| DelayError::of("forgetting idle limits", error))?;
        Ok(u64::try_from(gone).unwrap_or(u64::MAX))
    }
}
