//! The tables of the embedded broker.
//!
//! A message's row id is its queue's number and its sequence number within the queue in one integer, so that a queue's
//! messages lie together in order without any index, and a run of acks is one range delete.

use galerna_sqlite::Format;
use rusqlite::types::{ToSqlOutput, Value, ValueRef};
use rusqlite::{Connection, Row, params};

use crate::{DeadLetter, DeadLetterSelection, Failure, NewDeadLetter};
use galerna_model::{Message, QueueName, Timestamp, envelope};

/// Bits of a row id that hold the sequence number: a trillion messages a queue, eight million queues.
const SEQ_BITS: u32 = 40;
const MAX_SEQ: u64 = (1 << SEQ_BITS) - 1;

/// Files of this broker.
pub(super) const FORMAT: Format = Format {
    what: "queue store",
    application_id: 0x4761_6c51, // GalQ
    version: 2,
    tables: &["queues", "messages", "delayed", "dead"],
    bring_up: |connection, found| match found {
        0 => create(connection),
        1 => connection.execute_batch(SINCE_VERSION_1),
        _ => Ok(()),
    },
    lock_suffix: "-lock",
    companions: &["-marks"],
    shared: false,
};

/// Creates the tables of a new file.
pub(super) fn create(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch(TABLES)
}

const TABLES: &str = "
    CREATE TABLE queues (qid INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE);
    CREATE TABLE messages (
        id INTEGER PRIMARY KEY, failures INTEGER NOT NULL, returns INTEGER NOT NULL,
        type NOT NULL, mid TEXT NOT NULL, body BLOB NOT NULL, replays INTEGER NOT NULL DEFAULT 0);
    CREATE TABLE delayed (
        id INTEGER PRIMARY KEY AUTOINCREMENT, qid INTEGER NOT NULL, due INTEGER NOT NULL,
        failures INTEGER NOT NULL, returns INTEGER NOT NULL, type NOT NULL, mid TEXT NOT NULL, body BLOB NOT NULL,
        replays INTEGER NOT NULL DEFAULT 0);
    CREATE INDEX delayed_due ON delayed (due);
    CREATE INDEX delayed_queue ON delayed (qid);
    CREATE TABLE dead (
        id INTEGER PRIMARY KEY AUTOINCREMENT, qid INTEGER NOT NULL, at INTEGER NOT NULL, reason TEXT NOT NULL,
        component TEXT NOT NULL, deliveries INTEGER NOT NULL, type NOT NULL, mid TEXT NOT NULL, body BLOB NOT NULL,
        replays INTEGER NOT NULL DEFAULT 0);
    CREATE INDEX dead_queue ON dead (qid, id);
";

/// How often a message was replayed from the dead letters was not counted before.
const SINCE_VERSION_1: &str = "
    ALTER TABLE messages ADD COLUMN replays INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE delayed ADD COLUMN replays INTEGER NOT NULL DEFAULT 0;
    ALTER TABLE dead ADD COLUMN replays INTEGER NOT NULL DEFAULT 0;
";

/// A message with its counts.
#[derive(Debug)]
pub(super) struct StoredMessage {
    pub(super) seq: u64,
    pub(super) failures: u32,
    pub(super) returns: u32,
    /// How often it was put back from the dead letters.
    pub(super) replays: u32,
    pub(super) message: Message,
}

impl StoredMessage {
    /// Which delivery the next one is.
    pub(super) fn deliveries(&self) -> u32 {
        self.failures.saturating_add(self.returns).saturating_add(1)
    }
}

/// A delayed message whose time has come.
#[derive(Debug)]
pub(super) struct Due {
    pub(super) id: i64,
    pub(super) qid: i64,
    pub(super) stored: StoredMessage,
}

/// What the store holds of a queue when it is opened.
#[derive(Debug)]
pub(super) struct Contents {
    pub(super) qid: i64,
    pub(super) name: QueueName,
    pub(super) messages: u64,
    pub(super) last_seq: u64,
    pub(super) delayed: u64,
    pub(super) dead: u64,
}

/// The tables, by a connection to them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tables<'a>(pub(super) &'a Connection);

type Result<T> = rusqlite::Result<T>;

impl Tables<'_> {
    pub(super) fn contents(&self) -> Result<Vec<Contents>> {
        let mut queues = self.0.prepare("SELECT qid, name FROM queues")?;
        let mut messages =
            self.0.prepare("SELECT count(*), max(id) FROM messages WHERE id BETWEEN ? AND ?")?;
        let mut delayed = self.0.prepare("SELECT count(*) FROM delayed WHERE qid = ?")?;
        let mut dead = self.0.prepare("SELECT count(*) FROM dead WHERE qid = ?")?;
        let mut found = Vec::new();
        let mut rows = queues.query([])?;
        while let Some(row) = rows.next()? {
            let (qid, name): (i64, String) = (row.get(0)?, row.get(1)?);
            let (count, last): (i64, Option<i64>) =
                messages.query_row(params![first_id(qid), last_id(qid)], |r| Ok((r.get(0)?, r.get(1)?)))?;
            found.push(Contents {
                qid,
                name: QueueName::new(name).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?,
                messages: count.unsigned_abs(),
                last_seq: last.map_or(0, seq_of),
                delayed: delayed.query_row([qid], count_of)?,
                dead: dead.query_row([qid], count_of)?,
            });
        }
        Ok(found)
    }

    pub(super) fn add_queue(&self, name: &QueueName) -> Result<i64> {
        self.0.prepare_cached("INSERT INTO queues (name) VALUES (?)")?.insert([name.as_str()])
    }

    pub(super) fn delete_queue(&self, qid: i64) -> Result<()> {
        self.0
            .prepare_cached("DELETE FROM messages WHERE id BETWEEN ? AND ?")?
            .execute(params![first_id(qid), last_id(qid)])?;
        for table in ["delayed", "dead", "queues"] {
            self.0.prepare_cached(&format!("DELETE FROM {table} WHERE qid = ?"))?.execute([qid])?;
        }
        Ok(())
    }

    /// Whether a queue holds anything, ready, unacked or delayed.
    pub(super) fn holds_messages(&self, qid: i64) -> Result<bool> {
        self.0
            .prepare_cached(
                "SELECT EXISTS (SELECT 1 FROM messages WHERE id BETWEEN ?1 AND ?2)
                     OR EXISTS (SELECT 1 FROM delayed WHERE qid = ?3)",
            )?
            .query_row(params![first_id(qid), last_id(qid), qid], |r| r.get(0))
    }

    pub(super) fn insert(
        &self,
        qid: i64,
        seq: u64,
        failures: u32,
        returns: u32,
        message: &Message,
    ) -> Result<()> {
        self.0
            .prepare_cached(
                "INSERT INTO messages (id, failures, returns, type, mid, body) VALUES (?, ?, ?, ?, ?, ?)",
            )?
            .execute(params![
                id_of(qid, seq),
                failures,
                returns,
                ContentType(&message.content_type),
                message.id,
                &message.body[..]
            ])
            .map(drop)
    }

    /// Removes settled messages; neighbours go in one range.
    pub(super) fn remove(&self, qid: i64, seqs: &[u64]) -> Result<()> {
        debug_assert!(seqs.is_sorted());
        let mut delete = self.0.prepare_cached("DELETE FROM messages WHERE id BETWEEN ? AND ?")?;
        for run in seqs.chunk_by(|a, b| a + 1 == *b) {
            if let (Some(first), Some(last)) = (run.first(), run.last()) {
                delete.execute(params![id_of(qid, *first), id_of(qid, *last)])?;
            }
        }
        Ok(())
    }

    /// The next messages in order within `seqs`, at most `limit` and about `bytes`. Those up to
    /// `mark` have been handed out once more than is written.
    pub(super) fn read(
        &self,
        qid: i64,
        seqs: std::ops::RangeInclusive<u64>,
        mark: u64,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<StoredMessage>> {
        let mut select = self.0.prepare_cached(
            "SELECT id, failures, returns, type, mid, body, replays FROM messages WHERE id BETWEEN ? AND ? ORDER BY id",
        )?;
        let mut rows = select.query(params![id_of(qid, *seqs.start()), id_of(qid, *seqs.end())])?;
        let (mut found, mut size) = (Vec::new(), 0);
        while found.len() < limit && size < bytes {
            let Some(row) = rows.next()? else { break };
            let seq = seq_of(row.get(0)?);
            let returns = row.get::<_, i64>(2)? + i64::from(seq <= mark);
            let stored = StoredMessage {
                seq,
                failures: row.get(1)?,
                returns: u32::try_from(returns).unwrap_or(0),
                replays: row.get(6)?,
                message: message(row, 3)?,
            };
            size += stored.message.body.len();
            found.push(stored);
        }
        Ok(found)
    }

    /// Writes how often a message has been returned; -1 for one that has been delivered and put back uncounted.
    pub(super) fn set_returns(&self, qid: i64, seq: u64, returns: i64) -> Result<()> {
        self.0
            .prepare_cached("UPDATE messages SET returns = ? WHERE id = ?")?
            .execute(params![returns, id_of(qid, seq)])
            .map(drop)
    }

    /// Writes how often a message was replayed.
    pub(super) fn set_replays(&self, qid: i64, seq: u64, replays: u32) -> Result<()> {
        self.0
            .prepare_cached("UPDATE messages SET replays = ? WHERE id = ?")?
            .execute(params![replays, id_of(qid, seq)])
            .map(drop)
    }

    pub(super) fn delay(&self, qid: i64, seq: u64, due: i64, failures: u32, returns: u32) -> Result<()> {
        self.0
            .prepare_cached(
                "INSERT INTO delayed (qid, due, failures, returns, type, mid, body, replays)
                 SELECT ?, ?, ?, ?, type, mid, body, replays FROM messages WHERE id = ?",
            )?
            .execute(params![qid, due, failures, returns, id_of(qid, seq)])?;
        self.remove(qid, &[seq])
    }

    pub(super) fn next_due(&self) -> Result<Option<i64>> {
        self.0.prepare_cached("SELECT min(due) FROM delayed")?.query_row([], |r| r.get(0))
    }

    /// Delayed messages whose time has come, at most `limit`.
    pub(super) fn due(&self, now: i64, limit: usize) -> Result<Vec<Due>> {
        let mut select = self.0.prepare_cached(
            "SELECT id, qid, failures, returns, type, mid, body, replays FROM delayed WHERE due <= ? ORDER BY due, id LIMIT ?",
        )?;
        let rows = select.query_map(params![now, i64::try_from(limit).unwrap_or(i64::MAX)], |row| {
            Ok(Due {
                id: row.get(0)?,
                qid: row.get(1)?,
                stored: StoredMessage {
                    seq: 0,
                    failures: row.get(2)?,
                    returns: row.get(3)?,
                    replays: row.get(7)?,
                    message: message(row, 4)?,
                },
            })
        })?;
        rows.collect()
    }

    pub(super) fn remove_delayed(&self, id: i64) -> Result<()> {
        self.0.prepare_cached("DELETE FROM delayed WHERE id = ?")?.execute([id]).map(drop)
    }

    /// Moves a message to the dead letters.
    pub(super) fn move_to_dead(
        &self,
        qid: i64,
        seq: u64,
        at: Timestamp,
        deliveries: u32,
        why: &Failure,
    ) -> Result<()> {
        self.0
            .prepare_cached(
                "INSERT INTO dead (qid, at, reason, component, deliveries, type, mid, body, replays)
                 SELECT ?, ?, ?, ?, ?, type, mid, body, replays FROM messages WHERE id = ?",
            )?
            .execute(params![qid, at.as_millis(), why.reason, why.component, deliveries, id_of(qid, seq)])?;
        self.remove(qid, &[seq])
    }

    pub(super) fn add_dead(&self, qid: i64, at: Timestamp, letter: &NewDeadLetter) -> Result<()> {
        let NewDeadLetter { message, failure: why, replays } = letter;
        self.0
            .prepare_cached(
                "INSERT INTO dead (qid, at, reason, component, deliveries, type, mid, body, replays)
                 VALUES (?, ?, ?, ?, 1, ?, ?, ?, ?)",
            )?
            .execute(params![
                qid,
                at.as_millis(),
                why.reason,
                why.component,
                ContentType(&message.content_type),
                message.id,
                &message.body[..],
                replays
            ])
            .map(drop)
    }

    pub(super) fn dead(&self, qid: i64, offset: usize, limit: usize) -> Result<Vec<DeadLetter>> {
        let mut select = self.0.prepare_cached(
            "SELECT id, at, reason, component, deliveries, type, mid, body, replays FROM dead WHERE qid = ? ORDER BY id LIMIT ? OFFSET ?",
        )?;
        let bounded = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        let rows = select.query_map(params![qid, bounded(limit), bounded(offset)], |row| {
            let message = message(row, 5)?;
            Ok(DeadLetter {
                id: row.get::<_, i64>(0)?.to_string(),
                failure: Failure { reason: row.get(2)?, component: row.get(3)? },
                at: Timestamp(row.get(1)?),
                deliveries: row.get(4)?,
                replays: row.get(8)?,
                content_type: message.content_type,
                body: message.body,
            })
        })?;
        rows.collect()
    }

    /// The ids among the dead letters of a queue that are selected, oldest first.
    pub(super) fn select_dead(&self, qid: i64, which: &DeadLetterSelection) -> Result<Vec<i64>> {
        match which {
            DeadLetterSelection::All => {
                let mut select = self.0.prepare_cached("SELECT id FROM dead WHERE qid = ? ORDER BY id")?;
                let rows = select.query_map([qid], |r| r.get(0))?;
                rows.collect()
            }
            DeadLetterSelection::Ids(ids) => {
                let mut exists =
                    self.0.prepare_cached("SELECT EXISTS (SELECT 1 FROM dead WHERE id = ? AND qid = ?)")?;
                // An id that is no number is simply not among them.
                let mut wanted: Vec<i64> = ids.iter().filter_map(|id| id.parse().ok()).collect();
                wanted.sort_unstable();
                wanted.dedup();
                let mut found = Vec::new();
                for id in wanted {
                    if exists.query_row([id, qid], |r| r.get(0))? {
                        found.push(id);
                    }
                }
                Ok(found)
            }
        }
    }

    /// Puts a dead letter back into its queue as new.
    pub(super) fn replay_dead(&self, id: i64, qid: i64, seq: u64) -> Result<()> {
        self.0
            .prepare_cached(
                "INSERT INTO messages (id, failures, returns, type, mid, body, replays)
                 SELECT ?, 0, 0, type, mid, body, replays + 1 FROM dead WHERE id = ?",
            )?
            .execute([id_of(qid, seq), id])?;
        self.delete_dead(id)
    }

    /// Deletes a dead letter.
    pub(super) fn delete_dead(&self, id: i64) -> Result<()> {
        self.0.prepare_cached("DELETE FROM dead WHERE id = ?")?.execute([id]).map(drop)
    }
}

fn id_of(qid: i64, seq: u64) -> i64 {
    (qid << SEQ_BITS) | i64::try_from(seq.min(MAX_SEQ)).unwrap_or(0)
}

fn seq_of(id: i64) -> u64 {
    id.unsigned_abs() & MAX_SEQ
}

fn first_id(qid: i64) -> i64 {
    id_of(qid, 0)
}

fn last_id(qid: i64) -> i64 {
    id_of(qid, MAX_SEQ)
}

fn count_of(row: &Row<'_>) -> Result<u64> {
    row.get::<_, i64>(0).map(i64::unsigned_abs)
}

fn message(row: &Row<'_>, at: usize) -> Result<Message> {
    let content_type = match row.get_ref(at)? {
        ValueRef::Integer(1) => envelope::CONTENT_TYPE.to_owned(),
        ValueRef::Integer(_) => envelope::JSON_CONTENT_TYPE.to_owned(),
        other => other.as_str()?.to_owned(),
    };
    let body = row.get_ref(at + 2)?.as_blob()?;
    Ok(Message { body: bytes::Bytes::copy_from_slice(body), content_type, id: row.get(at + 1)? })
}

/// A content type; the two that nearly all messages have take a byte.
struct ContentType<'a>(&'a str);

impl rusqlite::ToSql for ContentType<'_> {
    fn to_sql(&self) -> Result<ToSqlOutput<'_>> {
        Ok(match self.0 {
            envelope::CONTENT_TYPE => ToSqlOutput::Owned(Value::Integer(1)),
            envelope::JSON_CONTENT_TYPE => ToSqlOutput::Owned(Value::Integer(2)),
            other => ToSqlOutput::Borrowed(ValueRef::Text(other.as_bytes())),
        })
    }
}

/// So many bytes are written and removed to see whether the disk takes anything.
const PROBE_BYTES: i64 = 64 << 10;

impl Tables<'_> {
    /// Writes what a publish of some size would; [`Self::clear_probe`] removes it.
    pub(super) fn probe(&self) -> Result<()> {
        self.0.execute_batch("CREATE TABLE IF NOT EXISTS probe (filler BLOB NOT NULL)")?;
        self.0.prepare_cached("INSERT INTO probe VALUES (zeroblob(?))")?.execute([PROBE_BYTES]).map(drop)
    }

    pub(super) fn clear_probe(&self) -> Result<()> {
        self.0.prepare_cached("DELETE FROM probe")?.execute([]).map(drop)
    }
}
