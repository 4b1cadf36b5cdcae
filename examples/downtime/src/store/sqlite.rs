//! In an SQLite file, for one process.

use std::path::Path;

use async_trait::async_trait;
use galerna_model::Timestamp;
use galerna_sqlite::{Format, Limits, OpenError, Plain, SqliteError, Writer};
use rusqlite::types::{FromSql, FromSqlError, FromSqlResult, ValueRef};
use rusqlite::{Connection, OptionalExtension, Row, params};

use super::{
    Claim, Delivery, DeliveryStatus, DowntimeQuery, DowntimeStore, Notice, Recipient, Recorded, Step,
    StoreError, after_late, cause_of, delivery_id, kind_of, recipient_of, recipient_text, state_of,
    status_of, step,
};
use crate::event::{Cause, Event, LineState};
use crate::line::{Downtime, Effects, Line, NewNotice, NoticeKind, Observation};

/// Files of this store.
const FORMAT: Format = Format {
    what: "store of downtimes",
    application_id: 0x446f_776e, // Down
    version: 1,
    tables: &["events", "lines", "downtimes", "notices", "deliveries"],
    bring_up,
    lock_suffix: "-lock",
    companions: &[],
    shared: false,
};

/// Times are milliseconds since 1970, in UTC. `due`: not to be told before. `until`: somebody tells it until then.
const TABLES: &str = "
CREATE TABLE events (
    line TEXT NOT NULL, at INTEGER NOT NULL, state TEXT NOT NULL, cause TEXT NOT NULL, PRIMARY KEY (line, at)
) WITHOUT ROWID;
CREATE TABLE lines (
    name TEXT PRIMARY KEY, state TEXT NOT NULL, since INTEGER NOT NULL, cause TEXT NOT NULL, began_before INTEGER NOT NULL,
    seen INTEGER NOT NULL, heard INTEGER NOT NULL, beats INTEGER NOT NULL, told TEXT NOT NULL, told_since INTEGER NOT NULL,
    held INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX lines_untold ON lines (since) WHERE told <> state;
CREATE INDEX lines_beating ON lines (heard) WHERE beats = 1 AND state = 'up';
CREATE TABLE downtimes (
    line TEXT NOT NULL, start INTEGER NOT NULL, ended INTEGER, cause TEXT NOT NULL, began_before INTEGER NOT NULL,
    PRIMARY KEY (line, start)
) WITHOUT ROWID;
CREATE INDEX downtimes_start ON downtimes (start, line);
CREATE TABLE notices (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, line TEXT NOT NULL, kind TEXT NOT NULL, at INTEGER NOT NULL, down_since INTEGER NOT NULL,
    began_before INTEGER NOT NULL, told INTEGER NOT NULL DEFAULT 0, tries INTEGER NOT NULL DEFAULT 0, due INTEGER NOT NULL DEFAULT 0,
    until INTEGER NOT NULL DEFAULT 0, UNIQUE (line, kind, at)
);
CREATE INDEX notices_untold ON notices (line, seq) WHERE told = 0;
CREATE TABLE deliveries (
    id TEXT PRIMARY KEY, notice INTEGER NOT NULL, recipient TEXT NOT NULL, status TEXT NOT NULL, reason TEXT
) WITHOUT ROWID;
CREATE INDEX deliveries_notice ON deliveries (notice);
CREATE INDEX deliveries_not_delivered ON deliveries (notice) WHERE status <> 'delivered';
";

fn bring_up(connection: &Connection, found: i64) -> rusqlite::Result<()> {
    if found == 0 { connection.execute_batch(TABLES) } else { Ok(()) }
}

/// An open store.
pub struct SqliteDowntimes {
    writer: Writer<Plain>,
}

impl std::fmt::Debug for SqliteDowntimes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SqliteDowntimes").finish_non_exhaustive()
    }
}

/// A word of a column.
struct Word<T>(T);

macro_rules! word_column {
    ($($type:ty = $parse:ident,)*) => { $(
        impl FromSql for Word<$type> {
            fn column_result(value: ValueRef<'_>) -> FromSqlResult<Self> {
                $parse(value.as_str()?).map(Self).map_err(|e| FromSqlError::Other(e.into()))
            }
        }
    )* };
}

word_column! {
    LineState = state_of,
    Cause = cause_of,
    NoticeKind = kind_of,
    DeliveryStatus = status_of,
    Recipient = recipient_of,
}

/// A word of a column.
fn word<T>(row: &Row<'_>, column: &str) -> rusqlite::Result<T>
where
    Word<T>: FromSql,
{
    row.get::<_, Word<T>>(column).map(|word| word.0)
}

fn time(row: &Row<'_>, column: &str) -> rusqlite::Result<Timestamp> {
    row.get(column).map(Timestamp)
}

fn line_of(row: &Row<'_>) -> rusqlite::Result<Line> {
    Ok(Line {
        name: row.get("name")?,
        state: word(row, "state")?,
        since: time(row, "since")?,
        cause: word(row, "cause")?,
        began_before: row.get("began_before")?,
        seen: time(row, "seen")?,
        heard: time(row, "heard")?,
        beats: row.get("beats")?,
        told: word(row, "told")?,
        told_since: time(row, "told_since")?,
        held: row.get("held")?,
    })
}

fn what_of(row: &Row<'_>) -> rusqlite::Result<NewNotice> {
    Ok(NewNotice {
        line: row.get("line")?,
        kind: word(row, "kind")?,
        at: time(row, "at")?,
        down_since: time(row, "down_since")?,
        began_before: row.get("began_before")?,
    })
}

fn delivery_of(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    Ok(Delivery {
        id: row.get("id")?,
        what: what_of(row)?,
        recipient: word(row, "recipient")?,
        status: word(row, "status")?,
        reason: row.get("reason")?,
    })
}

fn find_line(connection: &Connection, name: &str) -> rusqlite::Result<Option<Line>> {
    connection.prepare_cached("SELECT * FROM lines WHERE name = ?1")?.query_row([name], line_of).optional()
}

fn put_line(connection: &Connection, line: &Line) -> rusqlite::Result<()> {
    let sql = "INSERT OR REPLACE INTO lines (name, state, since, cause, began_before, seen, heard, beats, told, told_since, held)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)";
    connection.prepare_cached(sql)?.execute(params![
        line.name,
        line.state.as_str(),
        line.since.0,
        line.cause.as_str(),
        line.began_before,
        line.seen.0,
        line.heard.0,
        line.beats,
        line.told.as_str(),
        line.told_since.0,
        line.held
    ])?;
    Ok(())
}

/// Whether it is new; if not, whether the one that is there says the same.
fn put_event(connection: &Connection, line: &str, event: &Observation) -> rusqlite::Result<Recorded> {
    let sql = "INSERT INTO events (line, at, state, cause) VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO NOTHING";
    let row = params![line, event.at.0, event.state.as_str(), event.cause.as_str()];
    if connection.prepare_cached(sql)?.execute(row)? == 1 {
        return Ok(Recorded::New);
    }
    let sql = "SELECT state FROM events WHERE line = ?1 AND at = ?2";
    let there: Word<LineState> =
        connection.prepare_cached(sql)?.query_row(params![line, event.at.0], |row| row.get(0))?;
    Ok(if there.0 == event.state { Recorded::Known } else { Recorded::Conflict })
}

fn put_downtime(connection: &Connection, downtime: &Downtime) -> rusqlite::Result<()> {
    let sql = "INSERT INTO downtimes (line, start, ended, cause, began_before) VALUES (?1, ?2, ?3, ?4, ?5)";
    let end = downtime.end.map(|end| end.0);
    let row = params![downtime.line, downtime.start.0, end, downtime.cause.as_str(), downtime.began_before];
    connection.prepare_cached(sql)?.execute(row).map(drop)
}

fn put_notice(connection: &Connection, what: &NewNotice) -> rusqlite::Result<()> {
    let sql = "INSERT INTO notices (line, kind, at, down_since, began_before) VALUES (?1, ?2, ?3, ?4, ?5) ON CONFLICT DO NOTHING";
    let row = params![what.line, what.kind.as_str(), what.at.0, what.down_since.0, what.began_before];
    connection.prepare_cached(sql)?.execute(row).map(drop)
}

fn write_effects(connection: &Connection, line: &Line, effects: &Effects) -> rusqlite::Result<()> {
    put_line(connection, line)?;
    if let Some((start, end)) = effects.closed {
        let sql = "UPDATE downtimes SET ended = ?3 WHERE line = ?1 AND start = ?2";
        connection.prepare_cached(sql)?.execute(params![line.name, start.0, end.0])?;
    }
    if let Some(opened) = &effects.opened {
        put_downtime(connection, opened)?;
    }
    effects.notices.iter().try_for_each(|what| put_notice(connection, what))
}

/// A late event was written: what follows from it.
fn rederive(connection: &Connection, line: Line, at: Timestamp) -> rusqlite::Result<()> {
    let sql = "SELECT max(at) FROM events WHERE line = ?1 AND at < ?2 AND state = 'up'";
    let from: Option<i64> =
        connection.prepare_cached(sql)?.query_row(params![line.name, at.0], |row| row.get(0))?;
    let sql = "SELECT at, state, cause FROM events WHERE line = ?1 AND (?2 IS NULL OR at >= ?2) ORDER BY at";
    let events: Vec<Observation> = connection
        .prepare_cached(sql)?
        .query_map(params![line.name, from], |row| {
            Ok(Observation { at: time(row, "at")?, state: word(row, "state")?, cause: word(row, "cause")? })
        })?
        .collect::<Result<_, _>>()?;
    let (line, downtimes) = after_late(line, &events, from.is_none(), at);
    let sql = "DELETE FROM downtimes WHERE line = ?1 AND (?2 IS NULL OR start > ?2)";
    connection.prepare_cached(sql)?.execute(params![line.name, from])?;
    downtimes.iter().try_for_each(|downtime| put_downtime(connection, downtime))?;
    put_line(connection, &line)
}

fn record_one(connection: &Connection, event: &Event, hold_ms: i64) -> rusqlite::Result<Recorded> {
    let known = find_line(connection, &event.line)?;
    match step(known.as_ref(), event, hold_ms) {
        Step::Nothing => Ok(Recorded::Known),
        Step::Heard(line) => {
            put_line(connection, &line)?;
            Ok(Recorded::Known)
        }
        Step::InOrder(observation, line, effects) => {
            let recorded = put_event(connection, &event.line, &observation)?;
            if recorded == Recorded::New {
                write_effects(connection, &line, &effects)?;
            }
            Ok(recorded)
        }
        Step::Late(observation, line) => {
            let recorded = put_event(connection, &event.line, &observation)?;
            if recorded == Recorded::New {
                rederive(connection, line, event.at)?;
            }
            Ok(recorded)
        }
    }
}

impl SqliteDowntimes {
    /// Opens the file, which is created, with its folder, when missing. Blocks for as long as that takes.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(path: &Path) -> Result<Self, OpenError> {
        Ok(Self { writer: Writer::open(&FORMAT, path, Limits::default())? })
    }

    async fn run<T: Send + 'static>(
        &self,
        attempted: &'static str,
        mut work: impl FnMut(&Connection) -> rusqlite::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let done = self.writer.write(move |stored| work(stored.connection())).await;
        done.map_err(|error: SqliteError| {
            let passes = error.is_transient();
            StoreError { attempted, passes, cause: error.cause }
        })
    }

    /// What an earlier process had taken to tell, nobody tells now.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn release_all(&self) -> Result<(), StoreError> {
        self.run("releasing notices", |connection| {
            connection.execute("UPDATE notices SET until = 0 WHERE told = 0", []).map(drop)
        })
        .await
    }
}

#[async_trait]
impl DowntimeStore for SqliteDowntimes {
    async fn record(&self, events: &[Event], hold_ms: i64) -> Result<Vec<Recorded>, StoreError> {
        let events = events.to_vec();
        self.run("recording events", move |connection| {
            events.iter().map(|event| record_one(connection, event, hold_ms)).collect()
        })
        .await
    }

    async fn settle(&self, now: Timestamp, hold_ms: i64) -> Result<usize, StoreError> {
        self.run("looking for states that have lasted", move |connection| {
            let sql = "SELECT * FROM lines WHERE told <> state AND since <= ?1";
            let lasted: Vec<Line> = connection
                .prepare_cached(sql)?
                .query_map([now.plus_millis(-hold_ms).0], line_of)?
                .collect::<Result<_, _>>()?;
            let mut made = 0;
            for mut line in lasted {
                if let Some(what) = line.settle(now, hold_ms) {
                    put_line(connection, &line)?;
                    put_notice(connection, &what)?;
                    made += 1;
                }
            }
            Ok(made)
        })
        .await
    }

    async fn silent(&self, before: Timestamp) -> Result<Vec<(String, Timestamp)>, StoreError> {
        self.run("looking for silent lines", move |connection| {
            let sql = "SELECT name, heard FROM lines WHERE beats = 1 AND state = 'up' AND heard <= ?1";
            let found = |row: &Row<'_>| Ok((row.get("name")?, time(row, "heard")?));
            connection.prepare_cached(sql)?.query_map([before.0], found)?.collect()
        })
        .await
    }

    async fn lines(&self) -> Result<Vec<Line>, StoreError> {
        self.run("reading lines", |connection| {
            connection.prepare_cached("SELECT * FROM lines ORDER BY name")?.query_map([], line_of)?.collect()
        })
        .await
    }

    async fn line(&self, name: &str) -> Result<Option<Line>, StoreError> {
        let name = name.to_owned();
        self.run("reading a line", move |connection| find_line(connection, &name)).await
    }

    async fn downtimes(&self, query: &DowntimeQuery) -> Result<Vec<Downtime>, StoreError> {
        let query = query.clone();
        self.run("reading downtimes", move |connection| {
            let sql = "SELECT line, start, ended, cause, began_before FROM downtimes
                       WHERE (?1 IS NULL OR line = ?1) AND (?2 IS NULL OR ended IS NULL OR ended > ?2) AND (?3 IS NULL OR start < ?3)
                         AND (?4 IS NULL OR (start, line) > (?4, ?5))
                       ORDER BY start, line LIMIT ?6";
            let (after, after_line) = query.after.as_ref().map(|(at, line)| (at.0, line.as_str())).unzip();
            let limit = i64::try_from(query.limit).unwrap_or(i64::MAX);
            let (from, to) = (query.from.map(|t| t.0), query.to.map(|t| t.0));
            let downtime = |row: &Row<'_>| {
                Ok(Downtime {
                    line: row.get("line")?,
                    start: time(row, "start")?,
                    end: row.get::<_, Option<i64>>("ended")?.map(Timestamp),
                    cause: word(row, "cause")?,
                    began_before: row.get("began_before")?,
                })
            };
            let mut statement = connection.prepare_cached(sql)?;
            statement.query_map(params![query.line, from, to, after, after_line, limit], downtime)?.collect()
        })
        .await
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<Notice>, StoreError> {
        let claim = claim.clone();
        self.run("taking notices to tell", move |connection| {
            let sql =
                "SELECT * FROM notices AS mine WHERE told = 0 AND due <= ?1 AND until <= ?1 AND NOT EXISTS (
                           SELECT 1 FROM notices AS earlier
                           WHERE earlier.told = 0 AND earlier.line = mine.line AND earlier.seq < mine.seq)
                       ORDER BY seq LIMIT ?2";
            let limit = i64::try_from(claim.limit).unwrap_or(i64::MAX);
            let taken: Vec<Notice> = connection
                .prepare_cached(sql)?
                .query_map([claim.now.0, limit], |row| {
                    Ok(Notice {
                        seq: row.get("seq")?,
                        what: what_of(row)?,
                        tries: row.get::<_, u32>("tries")?.saturating_add(1),
                    })
                })?
                .collect::<Result<_, _>>()?;
            let mut take =
                connection.prepare_cached("UPDATE notices SET until = ?2, tries = ?3 WHERE seq = ?1")?;
            for notice in &taken {
                take.execute(params![notice.seq, claim.now.plus_millis(claim.lease_ms).0, notice.tries])?;
            }
            Ok(taken)
        })
        .await
    }

    async fn plan(&self, notice: &Notice, recipients: &[Recipient]) -> Result<Vec<Delivery>, StoreError> {
        let (notice, recipients) = (notice.clone(), recipients.to_vec());
        self.run("writing down whom to tell", move |connection| {
            let planned = connection.prepare_cached("SELECT 1 FROM deliveries WHERE notice = ?1")?.exists([notice.seq])?;
            if !planned {
                let sql = "INSERT INTO deliveries (id, notice, recipient, status) VALUES (?1, ?2, ?3, 'pending') ON CONFLICT DO NOTHING";
                let mut insert = connection.prepare_cached(sql)?;
                for recipient in &recipients {
                    insert.execute(params![delivery_id(&notice.what, recipient), notice.seq, recipient_text(recipient)])?;
                }
            }
            let sql = "SELECT * FROM deliveries JOIN notices ON seq = notice WHERE notice = ?1 AND status = 'pending'";
            connection.prepare_cached(sql)?.query_map([notice.seq], delivery_of)?.collect()
        })
        .await
    }

    async fn ended(&self, id: &str, status: DeliveryStatus, reason: Option<&str>) -> Result<(), StoreError> {
        let (id, reason) = (id.to_owned(), reason.map(str::to_owned));
        self.run("writing down how a delivery ended", move |connection| {
            let sql = "UPDATE deliveries SET status = ?2, reason = ?3 WHERE id = ?1";
            connection.prepare_cached(sql)?.execute(params![id, status.as_str(), reason]).map(drop)
        })
        .await
    }

    async fn told(&self, seq: i64) -> Result<(), StoreError> {
        self.run("writing down that a notice was told", move |connection| {
            connection.prepare_cached("UPDATE notices SET told = 1 WHERE seq = ?1")?.execute([seq]).map(drop)
        })
        .await
    }

    async fn again(&self, seq: i64, from: Timestamp) -> Result<(), StoreError> {
        self.run("putting off a notice", move |connection| {
            let sql = "UPDATE notices SET due = ?2, until = 0 WHERE seq = ?1";
            connection.prepare_cached(sql)?.execute([seq, from.0]).map(drop)
        })
        .await
    }

    async fn untold(&self) -> Result<usize, StoreError> {
        self.run("counting notices", |connection| {
            let sql = "SELECT count(*) FROM notices WHERE told = 0";
            let count: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
            Ok(usize::try_from(count).unwrap_or(0))
        })
        .await
    }

    async fn deliveries(
        &self,
        status: Option<DeliveryStatus>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        self.run("reading deliveries", move |connection| {
            let sql = "SELECT * FROM deliveries JOIN notices ON seq = notice WHERE ?1 IS NULL OR status = ?1 ORDER BY seq DESC, id LIMIT ?2";
            let limit = i64::try_from(limit).unwrap_or(i64::MAX);
            connection
                .prepare_cached(sql)?
                .query_map(params![status.map(DeliveryStatus::as_str), limit], delivery_of)?
                .collect()
        })
        .await
    }

    async fn resend(&self, id: &str) -> Result<bool, StoreError> {
        let id = id.to_owned();
        self.run("sending a delivery again", move |connection| {
            let sql =
                "UPDATE deliveries SET status = 'pending', reason = NULL WHERE id = ?1 AND status = 'dead'";
            let dead = connection.prepare_cached(sql)?.execute([&id])? == 1;
            if dead {
                let sql = "UPDATE notices SET told = 0, due = 0, until = 0, tries = 0
                           WHERE seq = (SELECT notice FROM deliveries WHERE id = ?1)";
                connection.prepare_cached(sql)?.execute([&id])?;
            }
            Ok(dead)
        })
        .await
    }

    async fn events(&self) -> Result<u64, StoreError> {
        self.run("counting events", |connection| {
            let count: i64 =
                connection.prepare_cached("SELECT count(*) FROM events")?.query_row([], |row| row.get(0))?;
            Ok(count.unsigned_abs())
        })
        .await
    }

    async fn close(&self) {
        self.writer.close();
    }
}
