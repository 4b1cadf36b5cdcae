//! Items with due times.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use galerna_model::{Clock, Timestamp};
use galerna_retry::Pauses;
use galerna_sqlite::{OpenError, Plain, Writer};
use galerna_topology::{Fault, FaultKind};
use rusqlite::{Connection, OptionalExtension, params};
use serde_json::Value;
use tokio::time::Instant;

use crate::{DelayError, schema};

/// Something to do at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its name: of two with one name, the second is not kept.
    pub id: String,
    /// Items of one key are done in the order in which they were put.
    pub key: Option<String>,
    /// Not before.
    pub due: Timestamp,
    /// What it is about.
    pub payload: Value,
}

impl Item {
    /// One that waits for no other.
    pub fn new(id: impl Into<String>, due: Timestamp, payload: Value) -> Self {
        Self { id: id.into(), key: None, due, payload }
    }

    /// The same, after those of its key that were put before.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }
}

/// How often, and after which pauses, an item that failed is tried again. A permanent fault is not; an unavailable one is, and does not
/// count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all.
    pub attempts: u32,
    /// The pauses between them; up to a half of each is random.
    pub pauses: Pauses,
}

/// How a process takes part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayOptions {
    /// Its name, unlike that of any other process now or before; a random one by default.
    pub holder: String,
    /// So long after a process was last heard of, others take its items over.
    pub lease: Duration,
    /// When an item fails.
    pub retry: Retry,
}

impl Default for DelayOptions {
    /// A lease of 30 s; 5 attempts with pauses of 1 s to 10 min.
    fn default() -> Self {
        let pauses = Pauses::new(Duration::from_secs(1), Duration::from_secs(600));
        Self {
            holder: format!("{}-{:016x}", std::process::id(), fastrand::u64(..)),
            lease: Duration::from_secs(30),
            retry: Retry { attempts: 5, pauses },
        }
    }
}

/// An item that this process has claimed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// The item.
    pub item: Item,
    /// Attempts, this one included.
    pub attempt: u32,
    /// Grows with each claim of the item.
    pub epoch: u64,
}

/// An item that is tried no more until somebody says so; those of its key wait behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parked {
    /// Its name.
    pub id: String,
    /// Its key.
    pub key: Option<String>,
    /// Attempts that were begun.
    pub attempts: u32,
    /// Why.
    pub reason: String,
    /// How many of its key wait behind it.
    pub waiting: u64,
}

/// What [`DelayStore::settle`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settled {
    /// It is done and gone.
    Done,
    /// It is tried again at this time.
    Again(Timestamp),
    /// It is parked.
    Parked,
    /// The claim was lost: another process has it, or had it.
    Gone,
}

/// Items with due times in an SQLite file, for the processes of one machine; one value for each process or worker.
pub struct DelayStore {
    writer: Writer<Plain>,
    clock: Arc<dyn Clock>,
    options: DelayOptions,
    /// Claims of this process that were handed out: number, epoch.
    held: HashMap<(i64, i64), Held>,
    /// Since when another's claim has been seen unchanged.
    watched: HashMap<(i64, i64, i64), Instant>,
}

impl std::fmt::Debug for DelayStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DelayStore")
            .field("options", &self.options)
            .field("held", &self.held.len())
            .finish_non_exhaustive()
    }
}

/// A claim of this process.
struct Held {
    id: String,
    /// When it, or its last renewal, was asked for.
    since: Instant,
}

/// A claim as it is stored.
struct Claimed {
    seq: i64,
    epoch: i64,
    renewal: i64,
    lease_ms: i64,
    holder: String,
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl DelayStore {
    /// Opens the file, which is created, with its folder, when missing. Several processes may have it open. Blocks for as long as that
    /// takes.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path, clock: Arc<dyn Clock>, options: DelayOptions) -> Result<Self, OpenError> {
        Ok(Self::with(schema::open(path)?, clock, options))
    }

    /// A store that is gone when it is dropped: for trying and for tests.
    ///
    /// # Errors
    /// When SQLite has no memory.
    pub fn in_memory(clock: Arc<dyn Clock>, options: DelayOptions) -> Result<Self, DelayError> {
        Ok(Self::with(schema::in_memory()?, clock, options))
    }

    fn with(writer: Writer<Plain>, clock: Arc<dyn Clock>, options: DelayOptions) -> Self {
        Self { writer, clock, options, held: HashMap::new(), watched: HashMap::new() }
    }

    async fn run<T: Send + 'static>(
        &self,
        attempted: &'static str,
        mut work: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, DelayError> {
        let done = self.writer.write(move |stored| work(stored.connection())).await;
        done.map_err(|error| DelayError::of(attempted, error))
    }

    /// Keeps items, all or none; they are on disk when this returns. How many were new.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn put(&self, items: Vec<Item>) -> Result<usize, DelayError> {
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

    /// Claims up to `room` items that are due, the longest due first; renews the claims that this process has, and takes over those of
    /// processes that were lost. To be called about once a second, and at least three times a lease.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn claim(&mut self, room: usize) -> Result<Vec<Taken>, DelayError> {
        let claimed = self.claimed().await?;
        // What is not among them was lost.
        let current: HashSet<(i64, i64)> = claimed.iter().map(|claim| (claim.seq, claim.epoch)).collect();
        self.held.retain(|key, _| current.contains(key));
        let now = Instant::now();
        let (mut renew, mut expire, mut unknown) = (Vec::new(), Vec::new(), Vec::new());
        let mut seen = HashSet::new();
        for claim in claimed {
            let key = (claim.seq, claim.epoch);
            if claim.holder == self.options.holder {
                match self.held.get(&key) {
                    Some(held) if now.saturating_duration_since(held.since) >= self.options.lease / 3 => {
                        renew.push(key)
                    }
                    Some(_) => {}
                    // A write that was not known to be done: what it claimed was never begun.
                    None => unknown.push(key),
                }
                continue;
            }
            let watched = (claim.seq, claim.epoch, claim.renewal);
            seen.insert(watched);
            let since = *self.watched.entry(watched).or_insert(now);
            let lease = Duration::from_millis(claim.lease_ms.unsigned_abs());
            if now.saturating_duration_since(since) >= lease + lease / 30 {
                expire.push(watched);
            }
        }
        self.watched.retain(|key, _| seen.contains(key));
        let (holder, lease) = (self.options.holder.clone(), millis(self.options.lease));
        let (attempts, at) = (self.options.retry.attempts, self.clock.now().as_millis());
        let renewed = renew.clone();
        let room = i64::try_from(room).unwrap_or(i64::MAX);
        let taken = self
            .run("claiming delayed work", move |connection| {
                let mut keep = connection
                    .prepare_cached("UPDATE items SET renewal = renewal + 1 WHERE seq = ?1 AND epoch = ?2 AND holder IS NOT NULL")?;
                for (seq, epoch) in &renew {
                    keep.execute([seq, epoch])?;
                }
                let mut give_back = connection.prepare_cached(
                    "UPDATE items SET holder = NULL, due = ?3, attempts = max(attempts - 1, 0) WHERE seq = ?1 AND epoch = ?2",
                )?;
                for (seq, epoch) in &unknown {
                    give_back.execute([*seq, *epoch, at])?;
                }
                let mut take_over = connection.prepare_cached(
                    "UPDATE items SET holder = NULL, due = iif(attempts >= ?4, NULL, ?5),
                         parked = iif(attempts >= ?4, 'the process of the last attempt was lost', NULL)
                     WHERE seq = ?1 AND epoch = ?2 AND renewal = ?3 AND holder IS NOT NULL",
                )?;
                for (seq, epoch, renewal) in &expire {
                    take_over.execute(params![seq, epoch, renewal, attempts, at])?;
                }
                take(connection, &holder, lease, at, room)
            })
            .await?;
        for key in renewed {
            if let Some(held) = self.held.get_mut(&key) {
                held.since = now;
            }
        }
        for (seq, taken) in &taken {
            let held = Held { id: taken.item.id.clone(), since: now };
            self.held.insert((*seq, taken.epoch.cast_signed()), held);
        }
        Ok(taken.into_iter().map(|(_, taken)| taken).collect())
    }

    async fn claimed(&self) -> Result<Vec<Claimed>, DelayError> {
        self.run("looking at claims", |connection| {
            let sql = "SELECT seq, epoch, renewal, lease, holder FROM items WHERE holder IS NOT NULL";
            let claim = |row: &rusqlite::Row<'_>| {
                Ok(Claimed {
                    seq: row.get(0)?,
                    epoch: row.get(1)?,
                    renewal: row.get(2)?,
                    lease_ms: row.get(3)?,
                    holder: row.get(4)?,
                })
            };
            connection.prepare_cached(sql)?.query_map([], claim)?.collect()
        })
        .await
    }

    /// Records how an attempt ended. After an error the same call may be made again.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn settle(&mut self, taken: &Taken, result: &Result<(), Fault>) -> Result<Settled, DelayError> {
        let settled = self.settle_all(&[(taken.clone(), result.clone())]).await?;
        Ok(settled.first().copied().unwrap_or(Settled::Gone))
    }

    /// As [`Self::settle`], for many attempts in one transaction: what became of each, in their order.
    ///
    /// # Errors
    /// When the store fails; nothing is recorded then.
    pub async fn settle_all(
        &mut self,
        ended: &[(Taken, Result<(), Fault>)],
    ) -> Result<Vec<Settled>, DelayError> {
        let now = self.clock.now();
        let ends: Vec<End> =
            ended.iter().map(|(taken, result)| End::of(taken, result, &self.options.retry, now)).collect();
        let found = self
            .run("settling delayed work", move |connection| {
                ends.iter()
                    .map(|end| Ok(end.record(connection)?.then_some(end.outcome)))
                    .collect::<rusqlite::Result<Vec<_>>>()
            })
            .await?;
        let gone: HashSet<(&str, i64)> =
            ended.iter().map(|(taken, _)| (taken.item.id.as_str(), taken.epoch.cast_signed())).collect();
        self.held.retain(|(_, epoch), claim| !gone.contains(&(claim.id.as_str(), *epoch)));
        Ok(found.into_iter().map(|outcome| outcome.unwrap_or(Settled::Gone)).collect())
    }

    /// Items that are tried no more until [`Self::resume`] or [`Self::discard`], in the order in which they were put.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn parked(&self, limit: usize) -> Result<Vec<Parked>, DelayError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.run("listing what is parked", move |connection| {
            let sql = "SELECT id, key, attempts, parked, (SELECT count(*) FROM items AS b WHERE b.key = a.key AND b.seq > a.seq)
                       FROM items AS a WHERE parked IS NOT NULL ORDER BY seq LIMIT ?1";
            let parked = |row: &rusqlite::Row<'_>| {
                Ok(Parked {
                    id: row.get(0)?,
                    key: row.get(1)?,
                    attempts: row.get(2)?,
                    reason: row.get(3)?,
                    waiting: row.get::<_, i64>(4)?.unsigned_abs(),
                })
            };
            connection.prepare_cached(sql)?.query_map([limit], parked)?.collect()
        })
        .await
    }

    /// Tries a parked item again, as if for the first time. False when it is not parked.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn resume(&self, id: &str) -> Result<bool, DelayError> {
        let (id, at) = (id.to_owned(), self.clock.now().as_millis());
        self.run("resuming what is parked", move |connection| {
            let sql =
                "UPDATE items SET parked = NULL, attempts = 0, due = ?2 WHERE id = ?1 AND parked IS NOT NULL";
            Ok(connection.prepare_cached(sql)?.execute(params![id, at])? == 1)
        })
        .await
    }

    /// Drops a parked item, so that those of its key go on. False when it is not parked.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn discard(&self, id: &str) -> Result<bool, DelayError> {
        let id = id.to_owned();
        self.run("discarding what is parked", move |connection| {
            let sql = "SELECT seq, key FROM items WHERE id = ?1 AND parked IS NOT NULL";
            let found = connection
                .prepare_cached(sql)?
                .query_row([&id], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?)))
                .optional()?;
            let Some((seq, key)) = found else { return Ok(false) };
            remove(connection, seq, key.as_deref())?;
            Ok(true)
        })
        .await
    }

    /// How many items there are.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn len(&self) -> Result<u64, DelayError> {
        self.run("counting delayed work", |connection| {
            let count: i64 = connection.query_row("SELECT count(*) FROM items", [], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
        .await
    }

    /// Whether there is none.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn is_empty(&self) -> Result<bool, DelayError> {
        Ok(self.len().await? == 0)
    }
}

/// How an attempt ended, as it is recorded.
struct End {
    id: String,
    epoch: i64,
    outcome: Settled,
    /// Why it failed, and whether the attempt does not count.
    fault: Option<(String, bool)>,
}

impl End {
    fn of(taken: &Taken, result: &Result<(), Fault>, retry: &Retry, now: Timestamp) -> Self {
        let outcome = match result {
            Ok(()) => Settled::Done,
            Err(fault) if fault.kind() == FaultKind::Permanent => Settled::Parked,
            Err(fault) if fault.kind() == FaultKind::Transient && taken.attempt >= retry.attempts => {
                Settled::Parked
            }
            Err(_) => {
                let mut backoff = retry.pauses.begin();
                let pause = (1..taken.attempt.min(64)).fold(backoff.pause(), |_, _| backoff.pause());
                Settled::Again(now.plus_millis(millis(pause)))
            }
        };
        let fault = result.as_ref().err();
        let fault = fault.map(|fault| (fault.reason().to_owned(), fault.kind() == FaultKind::Unavailable));
        Self { id: taken.item.id.clone(), epoch: taken.epoch.cast_signed(), outcome, fault }
    }

    /// False when the claim is not there any more.
    fn record(&self, connection: &Connection) -> rusqlite::Result<bool> {
        let sql = "SELECT seq, key FROM items WHERE id = ?1 AND epoch = ?2 AND holder IS NOT NULL";
        let found = connection
            .prepare_cached(sql)?
            .query_row(params![self.id, self.epoch], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Option<String>>(1)?))
            })
            .optional()?;
        let Some((seq, key)) = found else { return Ok(false) };
        match self.outcome {
            Settled::Done => remove(connection, seq, key.as_deref())?,
            Settled::Again(_) | Settled::Parked | Settled::Gone => {
                let due = if let Settled::Again(due) = self.outcome { Some(due.as_millis()) } else { None };
                let (reason, uncounted) = self.fault.clone().unwrap_or_default();
                let parked = (self.outcome == Settled::Parked).then_some(&reason);
                let sql = "UPDATE items SET holder = NULL, due = ?2, parked = ?3, fault = ?4, attempts = attempts - ?5
                           WHERE seq = ?1";
                connection.prepare_cached(sql)?.execute(params![seq, due, parked, reason, uncounted])?;
            }
        }
        Ok(true)
    }
}

/// Claims what is due.
fn take(
    connection: &Connection,
    holder: &str,
    lease: i64,
    at: i64,
    room: i64,
) -> rusqlite::Result<Vec<(i64, Taken)>> {
    let sql = "SELECT seq, id, key, due, attempts, epoch, payload FROM items
               WHERE first = 1 AND due <= ?1 ORDER BY due, seq LIMIT ?2";
    let found = |row: &rusqlite::Row<'_>| {
        let text = row.get_ref(6)?.as_str()?;
        let payload = serde_json::from_str(text).map_err(|error| {
            rusqlite::Error::FromSqlConversionFailure(6, rusqlite::types::Type::Text, Box::new(error))
        })?;
        let item = Item { id: row.get(1)?, key: row.get(2)?, due: Timestamp(row.get(3)?), payload };
        let (attempts, epoch): (u32, i64) = (row.get(4)?, row.get(5)?);
        Ok((row.get(0)?, Taken { item, attempt: attempts + 1, epoch: epoch.unsigned_abs() + 1 }))
    };
    let taken: Vec<(i64, Taken)> =
        connection.prepare_cached(sql)?.query_map([at, room], found)?.collect::<rusqlite::Result<_>>()?;
    let mut claim = connection.prepare_cached(
        "UPDATE items SET due = NULL, holder = ?2, epoch = epoch + 1, renewal = 0, lease = ?3, attempts = attempts + 1
         WHERE seq = ?1",
    )?;
    for (seq, _) in &taken {
        claim.execute(params![seq, holder, lease])?;
    }
    Ok(taken)
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
