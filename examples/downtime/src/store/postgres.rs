//! In PostgreSQL, for any number of processes.
//!
//! What concerns one line is serialised by its row in `lines`, which every transaction that changes it locks first, in the order of the
//! names: so no two processes derive from different states, and none waits for another in a circle.

use async_trait::async_trait;
use galerna_model::Timestamp;
use galerna_postgres::{Step as Migration, is_transient};
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{PgConnection, Row};

use super::{
    Claim, Delivery, DeliveryStatus, DowntimeQuery, DowntimeStore, Notice, Recipient, Recorded, Step,
    StoreError, after_late, cause_of, delivery_id, kind_of, recipient_of, recipient_text, state_of,
    status_of, step,
};
use crate::event::Event;
use crate::line::{Downtime, Effects, Line, NewNotice, Observation};

/// The migrations, by their versions. What was published is not changed; what is new is appended.
const MIGRATIONS: &[Migration] =
    &[Migration { version: 1, name: "downtimes", sql: include_str!("../../migrations/0001_downtimes.sql") }];

/// An open store.
#[derive(Debug, Clone)]
pub struct PostgresDowntimes {
    pool: PgPool,
}

fn failed(attempted: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| StoreError { attempted, passes: is_transient(&error), cause: error.to_string() }
}

fn decoded<T>(found: Result<T, String>) -> Result<T, sqlx::Error> {
    found.map_err(|error| sqlx::Error::Decode(error.into()))
}

fn time(row: &PgRow, column: &str) -> Result<Timestamp, sqlx::Error> {
    row.try_get(column).map(Timestamp)
}

fn line_of(row: &PgRow) -> Result<Line, sqlx::Error> {
    Ok(Line {
        name: row.try_get("name")?,
        state: decoded(state_of(row.try_get("state")?))?,
        since: time(row, "since")?,
        cause: decoded(cause_of(row.try_get("cause")?))?,
        began_before: row.try_get("began_before")?,
        seen: time(row, "seen")?,
        heard: time(row, "heard")?,
        beats: row.try_get("beats")?,
        told: decoded(state_of(row.try_get("told")?))?,
        told_since: time(row, "told_since")?,
        held: row.try_get("held")?,
    })
}

fn what_of(row: &PgRow) -> Result<NewNotice, sqlx::Error> {
    Ok(NewNotice {
        line: row.try_get("line")?,
        kind: decoded(kind_of(row.try_get("kind")?))?,
        at: time(row, "at")?,
        down_since: time(row, "down_since")?,
        began_before: row.try_get("began_before")?,
    })
}

fn delivery_of(row: &PgRow) -> Result<Delivery, sqlx::Error> {
    Ok(Delivery {
        id: row.try_get("id")?,
        what: what_of(row)?,
        recipient: decoded(recipient_of(row.try_get("recipient")?))?,
        status: decoded(status_of(row.try_get("status")?))?,
        reason: row.try_get("reason")?,
    })
}

async fn put_line(connection: &mut PgConnection, line: &Line) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO lines (name, state, since, cause, began_before, seen, heard, beats, told, told_since, held)
               VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
               ON CONFLICT (name) DO UPDATE SET state = $2, since = $3, cause = $4, began_before = $5, seen = $6, heard = $7,
                   beats = $8, told = $9, told_since = $10, held = $11";
    sqlx::query(sql)
        .bind(&line.name)
        .bind(line.state.as_str())
        .bind(line.since.0)
        .bind(line.cause.as_str())
        .bind(line.began_before)
        .bind(line.seen.0)
        .bind(line.heard.0)
        .bind(line.beats)
        .bind(line.told.as_str())
        .bind(line.told_since.0)
        .bind(line.held)
        .execute(connection)
        .await
        .map(drop)
}

async fn put_event(
    connection: &mut PgConnection,
    line: &str,
    event: &Observation,
) -> Result<Recorded, sqlx::Error> {
    let sql = "INSERT INTO events (line, at, state, cause) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING";
    let (state, cause) = (event.state.as_str(), event.cause.as_str());
    let done = sqlx::query(sql)
        .bind(line)
        .bind(event.at.0)
        .bind(state)
        .bind(cause)
        .execute(&mut *connection)
        .await?;
    if done.rows_affected() == 1 {
        return Ok(Recorded::New);
    }
    let sql = "SELECT state FROM events WHERE line = $1 AND at = $2";
    let there: String = sqlx::query_scalar(sql).bind(line).bind(event.at.0).fetch_one(connection).await?;
    Ok(if there == state { Recorded::Known } else { Recorded::Conflict })
}

async fn put_downtime(connection: &mut PgConnection, downtime: &Downtime) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO downtimes (line, start, ended, cause, began_before) VALUES ($1, $2, $3, $4, $5)";
    sqlx::query(sql)
        .bind(&downtime.line)
        .bind(downtime.start.0)
        .bind(downtime.end.map(|end| end.0))
        .bind(downtime.cause.as_str())
        .bind(downtime.began_before)
        .execute(connection)
        .await
        .map(drop)
}

async fn put_notice(connection: &mut PgConnection, what: &NewNotice) -> Result<(), sqlx::Error> {
    let sql = "INSERT INTO notices (line, kind, at, down_since, began_before) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING";
    sqlx::query(sql)
        .bind(&what.line)
        .bind(what.kind.as_str())
        .bind(what.at.0)
        .bind(what.down_since.0)
        .bind(what.began_before)
        .execute(connection)
        .await
        .map(drop)
}

async fn write_effects(
    connection: &mut PgConnection,
    line: &Line,
    effects: &Effects,
) -> Result<(), sqlx::Error> {
    put_line(connection, line).await?;
    if let Some((start, end)) = effects.closed {
        let sql = "UPDATE downtimes SET ended = $3 WHERE line = $1 AND start = $2";
        sqlx::query(sql).bind(&line.name).bind(start.0).bind(end.0).execute(&mut *connection).await?;
    }
    if let Some(opened) = &effects.opened {
        put_downtime(connection, opened).await?;
    }
    for what in &effects.notices {
        put_notice(connection, what).await?;
    }
    Ok(())
}

/// A late event was written: what follows from it.
async fn rederive(connection: &mut PgConnection, line: Line, at: Timestamp) -> Result<(), sqlx::Error> {
    let sql = "SELECT max(at) FROM events WHERE line = $1 AND at < $2 AND state = 'up'";
    let from: Option<i64> =
        sqlx::query_scalar(sql).bind(&line.name).bind(at.0).fetch_one(&mut *connection).await?;
    let sql = "SELECT at, state, cause FROM events WHERE line = $1 AND ($2::bigint IS NULL OR at >= $2) ORDER BY at";
    let rows = sqlx::query(sql).bind(&line.name).bind(from).fetch_all(&mut *connection).await?;
    let events: Vec<Observation> = rows
        .iter()
        .map(|row| {
            let state = decoded(state_of(row.try_get("state")?))?;
            Ok(Observation { at: time(row, "at")?, state, cause: decoded(cause_of(row.try_get("cause")?))? })
        })
        .collect::<Result<_, sqlx::Error>>()?;
    let (line, downtimes) = after_late(line, &events, from.is_none(), at);
    let sql = "DELETE FROM downtimes WHERE line = $1 AND ($2::bigint IS NULL OR start > $2)";
    sqlx::query(sql).bind(&line.name).bind(from).execute(&mut *connection).await?;
    for downtime in &downtimes {
        put_downtime(connection, downtime).await?;
    }
    put_line(connection, &line).await
}

async fn record_one(
    connection: &mut PgConnection,
    event: &Event,
    hold_ms: i64,
) -> Result<Recorded, sqlx::Error> {
    // A line that nobody knows has no row to lock; its name is locked instead.
    let lock = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
    sqlx::query(lock).bind(&event.line).execute(&mut *connection).await?;
    let row = sqlx::query("SELECT * FROM lines WHERE name = $1 FOR UPDATE").bind(&event.line);
    let known = row.fetch_optional(&mut *connection).await?.as_ref().map(line_of).transpose()?;
    match step(known.as_ref(), event, hold_ms) {
        Step::Nothing => Ok(Recorded::Known),
        Step::Heard(line) => {
            put_line(connection, &line).await?;
            Ok(Recorded::Known)
        }
        Step::InOrder(observation, line, effects) => {
            let recorded = put_event(connection, &event.line, &observation).await?;
            if recorded == Recorded::New {
                write_effects(connection, &line, &effects).await?;
            }
            Ok(recorded)
        }
        Step::Late(observation, line) => {
            let recorded = put_event(connection, &event.line, &observation).await?;
            if recorded == Recorded::New {
                rederive(connection, line, event.at).await?;
            }
            Ok(recorded)
        }
    }
}

impl PostgresDowntimes {
    /// Connects by a URL such as `postgres://user:password@host/database`, and brings the tables up to date.
    ///
    /// # Errors
    /// When the server does not answer or refuses, or the database is of a newer version of this program.
    pub async fn open(url: &str) -> Result<Self, StoreError> {
        let pool = galerna_postgres::open(url, MIGRATIONS).await.map_err(|error| StoreError {
            attempted: "opening PostgreSQL",
            passes: error.is_transient(),
            cause: error.to_string(),
        })?;
        Ok(Self { pool })
    }
}

#[async_trait]
impl DowntimeStore for PostgresDowntimes {
    async fn record(&self, events: &[Event], hold_ms: i64) -> Result<Vec<Recorded>, StoreError> {
        let failed = failed("recording events");
        // The order of a line's events stays.
        let mut order: Vec<usize> = (0..events.len()).collect();
        order.sort_by(|a, b| events[*a].line.cmp(&events[*b].line));
        let mut recorded = vec![Recorded::Known; events.len()];
        let mut transaction = self.pool.begin().await.map_err(&failed)?;
        for index in order {
            recorded[index] = record_one(&mut transaction, &events[index], hold_ms).await.map_err(&failed)?;
        }
        transaction.commit().await.map_err(&failed)?;
        Ok(recorded)
    }

    async fn settle(&self, now: Timestamp, hold_ms: i64) -> Result<usize, StoreError> {
        let failed = failed("looking for states that have lasted");
        let mut transaction = self.pool.begin().await.map_err(&failed)?;
        // Whoever changes a line now settles it, or this is done again soon.
        let sql =
            "SELECT * FROM lines WHERE told <> state AND since <= $1 ORDER BY name FOR UPDATE SKIP LOCKED";
        let rows = sqlx::query(sql).bind(now.plus_millis(-hold_ms).0).fetch_all(&mut *transaction).await;
        let mut made = 0;
        for row in &rows.map_err(&failed)? {
            let mut line = line_of(row).map_err(&failed)?;
            if let Some(what) = line.settle(now, hold_ms) {
                put_line(&mut transaction, &line).await.map_err(&failed)?;
                put_notice(&mut transaction, &what).await.map_err(&failed)?;
                made += 1;
            }
        }
        transaction.commit().await.map_err(&failed)?;
        Ok(made)
    }

    async fn silent(&self, before: Timestamp) -> Result<Vec<(String, Timestamp)>, StoreError> {
        let sql = "SELECT name, heard FROM lines WHERE beats AND state = 'up' AND heard <= $1";
        let rows: Vec<(String, i64)> = sqlx::query_as(sql)
            .bind(before.0)
            .fetch_all(&self.pool)
            .await
            .map_err(failed("looking for silent lines"))?;
        Ok(rows.into_iter().map(|(name, heard)| (name, Timestamp(heard))).collect())
    }

    async fn lines(&self) -> Result<Vec<Line>, StoreError> {
        let failed = failed("reading lines");
        let rows =
            sqlx::query("SELECT * FROM lines ORDER BY name").fetch_all(&self.pool).await.map_err(&failed)?;
        rows.iter().map(line_of).collect::<Result<_, _>>().map_err(&failed)
    }

    async fn line(&self, name: &str) -> Result<Option<Line>, StoreError> {
        let failed = failed("reading a line");
        let row =
            sqlx::query("SELECT * FROM lines WHERE name = $1").bind(name).fetch_optional(&self.pool).await;
        row.and_then(|row| row.as_ref().map(line_of).transpose()).map_err(&failed)
    }

    async fn downtimes(&self, query: &DowntimeQuery) -> Result<Vec<Downtime>, StoreError> {
        let failed = failed("reading downtimes");
        let sql = "SELECT line, start, ended, cause, began_before FROM downtimes
                   WHERE ($1::text IS NULL OR line = $1) AND ($2::bigint IS NULL OR ended IS NULL OR ended > $2)
                     AND ($3::bigint IS NULL OR start < $3) AND ($4::bigint IS NULL OR (start, line) > ($4, $5))
                   ORDER BY start, line LIMIT $6";
        let (after, after_line) = query.after.as_ref().map(|(at, line)| (at.0, line.as_str())).unzip();
        let rows = sqlx::query(sql)
            .bind(&query.line)
            .bind(query.from.map(|t| t.0))
            .bind(query.to.map(|t| t.0))
            .bind(after)
            .bind(after_line)
            .bind(i64::try_from(query.limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await
            .map_err(&failed)?;
        let downtime = |row: &PgRow| {
            Ok(Downtime {
                line: row.try_get("line")?,
                start: time(row, "start")?,
                end: row.try_get::<Option<i64>, _>("ended")?.map(Timestamp),
                cause: decoded(cause_of(row.try_get("cause")?))?,
                began_before: row.try_get("began_before")?,
            })
        };
        rows.iter().map(downtime).collect::<Result<_, sqlx::Error>>().map_err(&failed)
    }

    async fn claim(&self, claim: &Claim) -> Result<Vec<Notice>, StoreError> {
        let failed = failed("taking notices to tell");
        let sql = "UPDATE notices SET until = $1 + $2, tries = tries + 1, holder = $3 WHERE seq IN (
                       SELECT seq FROM notices AS mine WHERE NOT told AND due <= $1 AND until <= $1 AND NOT EXISTS (
                           SELECT 1 FROM notices AS earlier
                           WHERE NOT earlier.told AND earlier.line = mine.line AND earlier.seq < mine.seq)
                       ORDER BY seq LIMIT $4 FOR UPDATE SKIP LOCKED)
                   RETURNING *";
        let rows = sqlx::query(sql)
            .bind(claim.now.0)
            .bind(claim.lease_ms)
            .bind(&claim.holder)
            .bind(i64::try_from(claim.limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await
            .map_err(&failed)?;
        let notice = |row: &PgRow| {
            let tries: i64 = row.try_get("tries")?;
            Ok(Notice {
                seq: row.try_get("seq")?,
                what: what_of(row)?,
                tries: u32::try_from(tries).unwrap_or(u32::MAX),
            })
        };
        let mut taken: Vec<Notice> =
            rows.iter().map(notice).collect::<Result<_, sqlx::Error>>().map_err(&failed)?;
        taken.sort_by_key(|notice| notice.seq);
        Ok(taken)
    }

    async fn plan(&self, notice: &Notice, recipients: &[Recipient]) -> Result<Vec<Delivery>, StoreError> {
        let failed = failed("writing down whom to tell");
        let mut transaction = self.pool.begin().await.map_err(&failed)?;
        // Of two that plan the same, the second finds what the first has written.
        let lock = "SELECT seq FROM notices WHERE seq = $1 FOR UPDATE";
        sqlx::query(lock).bind(notice.seq).execute(&mut *transaction).await.map_err(&failed)?;
        let planned: bool = sqlx::query_scalar("SELECT EXISTS (SELECT 1 FROM deliveries WHERE notice = $1)")
            .bind(notice.seq)
            .fetch_one(&mut *transaction)
            .await
            .map_err(&failed)?;
        if !planned {
            let sql = "INSERT INTO deliveries (id, notice, recipient, status) VALUES ($1, $2, $3, 'pending') ON CONFLICT DO NOTHING";
            for recipient in recipients {
                let id = delivery_id(&notice.what, recipient);
                let insert = sqlx::query(sql).bind(id).bind(notice.seq).bind(recipient_text(recipient));
                insert.execute(&mut *transaction).await.map_err(&failed)?;
            }
        }
        let sql =
            "SELECT * FROM deliveries JOIN notices ON seq = notice WHERE notice = $1 AND status = 'pending'";
        let rows = sqlx::query(sql).bind(notice.seq).fetch_all(&mut *transaction).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        rows.iter().map(delivery_of).collect::<Result<_, _>>().map_err(&failed)
    }

    async fn ended(&self, id: &str, status: DeliveryStatus, reason: Option<&str>) -> Result<(), StoreError> {
        let sql = "UPDATE deliveries SET status = $2, reason = $3 WHERE id = $1";
        let update = sqlx::query(sql).bind(id).bind(status.as_str()).bind(reason);
        update.execute(&self.pool).await.map(drop).map_err(failed("writing down how a delivery ended"))
    }

    async fn told(&self, seq: i64) -> Result<(), StoreError> {
        let update = sqlx::query("UPDATE notices SET told = true WHERE seq = $1").bind(seq);
        update.execute(&self.pool).await.map(drop).map_err(failed("writing down that a notice was told"))
    }

    async fn again(&self, seq: i64, from: Timestamp) -> Result<(), StoreError> {
        let update =
            sqlx::query("UPDATE notices SET due = $2, until = 0 WHERE seq = $1").bind(seq).bind(from.0);
        update.execute(&self.pool).await.map(drop).map_err(failed("putting off a notice"))
    }

    async fn untold(&self) -> Result<usize, StoreError> {
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM notices WHERE NOT told")
            .fetch_one(&self.pool)
            .await
            .map_err(failed("counting notices"))?;
        Ok(usize::try_from(count).unwrap_or(0))
    }

    async fn deliveries(
        &self,
        status: Option<DeliveryStatus>,
        limit: usize,
    ) -> Result<Vec<Delivery>, StoreError> {
        let failed = failed("reading deliveries");
        let sql =
            "SELECT * FROM deliveries JOIN notices ON seq = notice WHERE $1::text IS NULL OR status = $1
                   ORDER BY seq DESC, id LIMIT $2";
        let rows = sqlx::query(sql)
            .bind(status.map(DeliveryStatus::as_str))
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all(&self.pool)
            .await
            .map_err(&failed)?;
        rows.iter().map(delivery_of).collect::<Result<_, _>>().map_err(&failed)
    }

    async fn resend(&self, id: &str) -> Result<bool, StoreError> {
        let sql = "WITH again AS (
                       UPDATE deliveries SET status = 'pending', reason = NULL WHERE id = $1 AND status = 'dead' RETURNING notice)
                   UPDATE notices SET told = false, due = 0, until = 0, tries = 0 FROM again WHERE seq = again.notice";
        let done = sqlx::query(sql)
            .bind(id)
            .execute(&self.pool)
            .await
            .map_err(failed("sending a delivery again"))?;
        Ok(done.rows_affected() == 1)
    }

    async fn events(&self) -> Result<u64, StoreError> {
        let count = sqlx::query_scalar::<_, i64>("SELECT count(*) FROM events").fetch_one(&self.pool).await;
        count.map(i64::unsigned_abs).map_err(failed("counting events"))
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
