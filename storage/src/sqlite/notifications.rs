//! Endpoints, silences and the outbox in SQLite.
//!
//! A delivery is kept whole, as BSON (which, unlike JSON, gives every number back as it was), beside the columns that are
//! searched. Every write is one transaction, so nothing here is ever left half done.

use std::collections::HashMap;

use async_trait::async_trait;
use galerna_model::Timestamp;
use rusqlite::types::{ToSql, Type};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::Sqlite;
use super::columns::{from_json, from_variant, int, json, maybe_time, name, rows, time, uint};
use crate::notifications::FORGOTTEN;
use crate::{
    Claim, Delivery, DeliveryFilter, DeliveryPage, DeliveryStatus, Endpoint, Enqueued, Notifications, Resent,
    Result, Silence, alert_key,
};
use galerna_model::AlertEvent;

/// Created when missing, whatever the version of the file: programs that do not know them are not disturbed by them.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS endpoints (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS silences (id TEXT PRIMARY KEY, record TEXT NOT NULL) WITHOUT ROWID;
-- `waits`: how many deliveries it waits for. `record`: the whole delivery as BSON.
CREATE TABLE IF NOT EXISTS deliveries (
    id TEXT PRIMARY KEY, endpoint TEXT NOT NULL, status TEXT NOT NULL, next_try INTEGER NOT NULL,
    created INTEGER NOT NULL, waits INTEGER NOT NULL, claimed_until INTEGER, version INTEGER NOT NULL,
    searched TEXT NOT NULL, record BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS deliveries_due ON deliveries (status, waits, next_try, id);
CREATE INDEX IF NOT EXISTS deliveries_created ON deliveries (created, id);
CREATE INDEX IF NOT EXISTS deliveries_status_created ON deliveries (status, created, id);
CREATE INDEX IF NOT EXISTS deliveries_endpoint ON deliveries (endpoint, status, created, id);
CREATE TABLE IF NOT EXISTS delivery_events (
    endpoint TEXT NOT NULL, event TEXT NOT NULL, alert TEXT NOT NULL, account TEXT NOT NULL, delivery TEXT NOT NULL,
    PRIMARY KEY (endpoint, event)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS delivery_events_event ON delivery_events (event);
CREATE INDEX IF NOT EXISTS delivery_events_alert ON delivery_events (endpoint, alert);
CREATE INDEX IF NOT EXISTS delivery_events_delivery ON delivery_events (delivery);
CREATE INDEX IF NOT EXISTS delivery_events_account ON delivery_events (account, delivery);
CREATE TABLE IF NOT EXISTS delivery_waits (
    after TEXT NOT NULL, delivery TEXT NOT NULL, PRIMARY KEY (after, delivery)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS taken_events (id TEXT PRIMARY KEY, at INTEGER NOT NULL) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS alert_events_alert ON alert_events (rule, source, device, kind, ts);
";

fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    bson::deserialize_from_slice(row.get_ref(0)?.as_blob()?)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, e.into()))
}

fn load(conn: &Connection, id: &str) -> rusqlite::Result<Option<Delivery>> {
    conn.prepare_cached("SELECT record FROM deliveries WHERE id = ?1")?.query_row([id], delivery).optional()
}

/// Writes the row of a delivery, and what it waits for.
fn save(conn: &Connection, delivery: &Delivery) -> rusqlite::Result<()> {
    let record =
        bson::serialize_to_vec(delivery).map_err(|e| rusqlite::Error::ToSqlConversionFailure(e.into()))?;
    conn.prepare_cached(
        "INSERT INTO deliveries (id, endpoint, status, next_try, created, waits, claimed_until, version, searched, record) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT (id) DO UPDATE SET endpoint = excluded.endpoint, \
         status = excluded.status, next_try = excluded.next_try, created = excluded.created, waits = excluded.waits, \
         claimed_until = excluded.claimed_until, version = excluded.version, searched = excluded.searched, \
         record = excluded.record",
    )?
    .execute(params![
        delivery.id,
        delivery.endpoint,
        delivery.status.as_str(),
        delivery.next_try.0,
        delivery.created.0,
        rows(delivery.after.len()),
        delivery.claimed_until.map(|t| t.0),
        int(delivery.version),
        delivery.searched(),
        record,
    ])?;
    conn.prepare_cached("DELETE FROM delivery_waits WHERE delivery = ?1")?.execute([&delivery.id])?;
    let mut wait =
        conn.prepare_cached("INSERT OR IGNORE INTO delivery_waits (after, delivery) VALUES (?1, ?2)")?;
    for after in &delivery.after {
        wait.execute([after, &delivery.id])?;
    }
    Ok(())
}

fn add_events(
    conn: &Connection,
    delivery: &str,
    endpoint: &str,
    events: &[AlertEvent],
) -> rusqlite::Result<()> {
    let mut insert = conn.prepare_cached(
        "INSERT INTO delivery_events (endpoint, event, alert, account, delivery) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT DO NOTHING",
    )?;
    for event in events {
        insert.execute([endpoint, &event.id, &alert_key(event), event.account.as_str(), delivery])?;
    }
    Ok(())
}

fn enqueue(conn: &Connection, mut new: Delivery) -> rusqlite::Result<Enqueued> {
    let known: Option<String> = match new.events.first() {
        Some(first) => conn
            .prepare_cached("SELECT delivery FROM delivery_events WHERE endpoint = ?1 AND event = ?2")?
            .query_row([&new.endpoint, &first.id], |row| row.get(0))
            .optional()?,
        None => None,
    };
    if let Some(known) = known {
        return Ok(Enqueued::Known(known));
    }
    // What ended before this was written will not free it any more.
    let mut pending = conn.prepare_cached("SELECT 1 FROM deliveries WHERE id = ?1 AND status = 'pending'")?;
    let mut after = Vec::with_capacity(new.after.len());
    for id in std::mem::take(&mut new.after) {
        if pending.exists([&id])? {
            after.push(id);
        }
    }
    new.after = after;
    if new.status == DeliveryStatus::Pending && new.open_until.is_some() {
        let open: Vec<Delivery> = conn
            .prepare_cached(
                "SELECT record FROM deliveries WHERE endpoint = ?1 AND status = 'pending' \
                 ORDER BY created DESC, id DESC LIMIT 20",
            )?
            .query_map([&new.endpoint], delivery)?
            .collect::<rusqlite::Result<_>>()?;
        if let Some(mut open) = open.into_iter().find(|open| open.takes(&new)) {
            add_events(conn, &open.id, &open.endpoint, &new.events)?;
            open.events.append(&mut new.events);
            open.version += 1;
            save(conn, &open)?;
            return Ok(Enqueued::Joined(open.id));
        }
    }
    add_events(conn, &new.id, &new.endpoint, &new.events)?;
    save(conn, &new)?;
    Ok(Enqueued::New)
}

fn claim(conn: &Connection, claim: &Claim) -> rusqlite::Result<Vec<Delivery>> {
    let mut of_endpoint: HashMap<String, usize> = HashMap::new();
    let mut ids: Vec<String> = Vec::new();
    {
        let mut due = conn.prepare_cached(
            "SELECT id, endpoint FROM deliveries WHERE status = 'pending' AND waits = 0 AND next_try <= ?1 \
             AND (claimed_until IS NULL OR claimed_until <= ?1) \
             AND endpoint NOT IN (SELECT value FROM json_each(?2)) ORDER BY next_try, id",
        )?;
        let mut due = due.query(params![claim.now.0, json(&claim.except)?])?;
        while ids.len() < claim.limit
            && let Some(row) = due.next()?
        {
            let taken = of_endpoint.entry(row.get(1)?).or_default();
            if *taken < claim.per_endpoint {
                *taken += 1;
                ids.push(row.get(0)?);
            }
        }
    }
    let mut claimed = Vec::with_capacity(ids.len());
    for id in ids {
        if let Some(mut delivery) = load(conn, &id)? {
            delivery.claimed_by = Some(claim.notifier.clone());
            delivery.claimed_until = Some(claim.now.plus_millis(int(claim.lease_ms)));
            delivery.version += 1;
            save(conn, &delivery)?;
            claimed.push(delivery);
        }
    }
    Ok(claimed)
}

fn update(conn: &Connection, mut delivery: Delivery) -> rusqlite::Result<bool> {
    let current = conn
        .prepare_cached("SELECT version FROM deliveries WHERE id = ?1")?
        .query_row([&delivery.id], |row| uint(row, 0))
        .optional()?;
    if current != Some(delivery.version) {
        return Ok(false);
    }
    delivery.version += 1;
    save(conn, &delivery)?;
    if delivery.status != DeliveryStatus::Pending {
        let waiting: Vec<String> = conn
            .prepare_cached("SELECT delivery FROM delivery_waits WHERE after = ?1")?
            .query_map([&delivery.id], |row| row.get(0))?
            .collect::<rusqlite::Result<_>>()?;
        for waiting in waiting {
            if let Some(mut waiting) = load(conn, &waiting)? {
                waiting.after.retain(|id| *id != delivery.id);
                waiting.version += 1;
                save(conn, &waiting)?;
            }
        }
    }
    Ok(true)
}

/// The condition of a filter and its values, with or without the status.
fn condition(filter: &DeliveryFilter, with_status: bool) -> (String, Vec<Box<dyn ToSql>>) {
    let mut terms = vec!["true".to_owned()];
    let mut values: Vec<Box<dyn ToSql>> = Vec::new();
    let mut term = |sql: &str, value: Box<dyn ToSql>| {
        values.push(value);
        terms.push(sql.replace('?', &format!("?{}", values.len())));
    };
    if let Some(status) = filter.status.filter(|_| with_status) {
        term("status = ?", Box::new(status.as_str()));
    }
    if let Some(endpoint) = &filter.endpoint {
        term("endpoint = ?", Box::new(endpoint.clone()));
    }
    if let Some(account) = &filter.account {
        term(
            "id IN (SELECT delivery FROM delivery_events WHERE account = ?)",
            Box::new(account.as_str().to_owned()),
        );
    }
    if let Some(text) = &filter.text {
        term("instr(searched, ?) > 0", Box::new(text.to_lowercase()));
    }
    (terms.join(" AND "), values)
}

fn page(
    conn: &Connection,
    filter: &DeliveryFilter,
    offset: usize,
    limit: usize,
) -> rusqlite::Result<DeliveryPage> {
    let (terms, values) = condition(filter, false);
    let mut counts = DeliveryStatus::ALL.map(|status| (status, 0));
    let found: Vec<(DeliveryStatus, u64)> = conn
        .prepare_cached(&format!("SELECT status, count(*) FROM deliveries WHERE {terms} GROUP BY status"))?
        .query_map(params_from_iter(values), |row| Ok((from_variant(row, 0)?, uint(row, 1)?)))?
        .collect::<rusqlite::Result<_>>()?;
    for (status, count) in &mut counts {
        *count = found.iter().find(|(s, _)| s == status).map_or(0, |(_, n)| *n);
    }
    let (terms, mut values) = condition(filter, true);
    values.push(Box::new(rows(limit)));
    values.push(Box::new(rows(offset)));
    let last = values.len();
    let deliveries = conn
        .prepare_cached(&format!(
            "SELECT record FROM deliveries WHERE {terms} ORDER BY created DESC, id DESC LIMIT ?{} OFFSET ?{last}",
            last - 1
        ))?
        .query_map(params_from_iter(values), delivery)?
        .collect::<rusqlite::Result<_>>()?;
    Ok(DeliveryPage { counts, deliveries })
}

#[async_trait]
impl Notifications for Sqlite {
    async fn endpoints(&self) -> Result<Vec<Endpoint>> {
        self.read("listing endpoints", |conn| {
            conn.prepare_cached("SELECT record FROM endpoints ORDER BY id")?
                .query_map([], |row| from_json(row, 0))?
                .collect()
        })
        .await
    }

    async fn endpoint(&self, id: &str) -> Result<Option<Endpoint>> {
        let id = id.to_owned();
        self.read("reading an endpoint", move |conn| {
            conn.prepare_cached("SELECT record FROM endpoints WHERE id = ?1")?
                .query_row([&id], |row| from_json(row, 0))
                .optional()
        })
        .await
    }

    async fn put_endpoint(&self, endpoint: &Endpoint) -> Result<()> {
        let endpoint = endpoint.clone();
        self.write("storing an endpoint", move |writer| {
            writer
                .connection()
                .prepare_cached("INSERT OR REPLACE INTO endpoints (id, record) VALUES (?1, ?2)")?
                .execute([&endpoint.id, &json(&endpoint)?])
                .map(|_| ())
        })
        .await
    }

    async fn delete_endpoint(&self, id: &str) -> Result<bool> {
        let id = id.to_owned();
        self.write("deleting an endpoint", move |writer| {
            Ok(writer.connection().prepare_cached("DELETE FROM endpoints WHERE id = ?1")?.execute([&id])?
                == 1)
        })
        .await
    }

    async fn disable_endpoint(&self, seen: &Endpoint, reason: &str) -> Result<bool> {
        let (seen, reason) = (seen.clone(), reason.to_owned());
        self.write("disabling an endpoint", move |writer| {
            let stored: Option<Endpoint> = writer
                .connection()
                .prepare_cached("SELECT record FROM endpoints WHERE id = ?1")?
                .query_row([&seen.id], |row| from_json(row, 0))
                .optional()?;
            let Some(stored) = stored.filter(|stored| stored.enabled && stored.kind == seen.kind) else {
                return Ok(false);
            };
            let disabled = Endpoint { enabled: false, disabled_reason: Some(reason.clone()), ..stored };
            writer
                .connection()
                .prepare_cached("UPDATE endpoints SET record = ?2 WHERE id = ?1")?
                .execute([&disabled.id, &json(&disabled)?])?;
            Ok(true)
        })
        .await
    }

    async fn silences(&self) -> Result<Vec<Silence>> {
        self.read("listing silences", |conn| {
            conn.prepare_cached("SELECT record FROM silences ORDER BY id")?
                .query_map([], |row| from_json(row, 0))?
                .collect()
        })
        .await
    }

    async fn put_silence(&self, silence: &Silence) -> Result<()> {
        let silence = silence.clone();
        self.write("storing a silence", move |writer| {
            writer
                .connection()
                .prepare_cached("INSERT OR REPLACE INTO silences (id, record) VALUES (?1, ?2)")?
                .execute([&silence.id, &json(&silence)?])
                .map(|_| ())
        })
        .await
    }

    async fn delete_silence(&self, id: &str) -> Result<bool> {
        let id = id.to_owned();
        self.write("deleting a silence", move |writer| {
            Ok(writer.connection().prepare_cached("DELETE FROM silences WHERE id = ?1")?.execute([&id])? == 1)
        })
        .await
    }

    async fn enqueue(&self, delivery: &Delivery) -> Result<Enqueued> {
        let new = delivery.clone();
        self.write("enqueuing a delivery", move |writer| enqueue(writer.connection(), new.clone())).await
    }

    async fn claim(&self, request: &Claim) -> Result<Vec<Delivery>> {
        let request = request.clone();
        // Nothing is due most of the time: seeing that needs no write.
        let (now, attempted) = (request.now.0, "claiming deliveries");
        let due = self
            .read(attempted, move |conn| {
                conn.prepare_cached(
                    "SELECT 1 FROM deliveries WHERE status = 'pending' AND waits = 0 AND next_try <= ?1 \
                     AND (claimed_until IS NULL OR claimed_until <= ?1) LIMIT 1",
                )?
                .exists([now])
            })
            .await?;
        if !due {
            return Ok(Vec::new());
        }
        self.write(attempted, move |writer| claim(writer.connection(), &request)).await
    }

    async fn update(&self, delivery: &Delivery) -> Result<bool> {
        let delivery = delivery.clone();
        self.write("updating a delivery", move |writer| update(writer.connection(), delivery.clone())).await
    }

    async fn unblock(&self) -> Result<usize> {
        Ok(0)
    }

    async fn deliveries(&self, filter: &DeliveryFilter, offset: usize, limit: usize) -> Result<DeliveryPage> {
        let filter = filter.clone();
        self.read("listing deliveries", move |conn| page(conn, &filter, offset, limit)).await
    }

    async fn delivery(&self, id: &str) -> Result<Option<Delivery>> {
        let id = id.to_owned();
        self.read("reading a delivery", move |conn| load(conn, &id)).await
    }

    async fn resend(&self, id: &str, now: Timestamp) -> Result<Resent> {
        let id = id.to_owned();
        self.write("sending a delivery again", move |writer| {
            let Some(stored) = load(writer.connection(), &id)? else { return Ok(Resent::Unknown) };
            if stored.is_claimed(now) {
                return Ok(Resent::InProgress);
            }
            let renewed = stored.renewed(now);
            save(writer.connection(), &renewed)?;
            Ok(Resent::Yes(Box::new(renewed)))
        })
        .await
    }

    async fn forget(&self, before: Timestamp) -> Result<usize> {
        self.write("forgetting deliveries", move |writer| {
            let ids: Vec<String> = writer.connection()
                .prepare_cached(
                    "SELECT id FROM deliveries WHERE status <> 'pending' AND created < ?1 ORDER BY created, id LIMIT ?2",
                )?
                .query_map(params![before.0, rows(FORGOTTEN)], |row| row.get(0))?
                .collect::<rusqlite::Result<_>>()?;
            for id in &ids {
                writer.connection().prepare_cached("DELETE FROM delivery_events WHERE delivery = ?1")?.execute([id])?;
                writer.connection().prepare_cached("DELETE FROM deliveries WHERE id = ?1")?.execute([id])?;
            }
            Ok(ids.len())
        })
        .await
    }

    async fn deliveries_of_event(&self, event: &str) -> Result<Vec<Delivery>> {
        let event = event.to_owned();
        self.read("reading the deliveries of an event", move |conn| {
            conn.prepare_cached(
                "SELECT record FROM deliveries WHERE id IN (SELECT delivery FROM delivery_events WHERE event = ?1) \
                 ORDER BY created DESC, id DESC",
            )?
            .query_map([&event], delivery)?
            .collect()
        })
        .await
    }

    async fn deliveries_of_alert(&self, endpoint: &str, key: &str, limit: usize) -> Result<Vec<Delivery>> {
        let (endpoint, key) = (endpoint.to_owned(), key.to_owned());
        self.read("reading the deliveries of an alert", move |conn| {
            conn.prepare_cached(
                "SELECT record FROM deliveries WHERE id IN \
                 (SELECT delivery FROM delivery_events WHERE endpoint = ?1 AND alert = ?2) \
                 ORDER BY created DESC, id DESC LIMIT ?3",
            )?
            .query_map(params![endpoint, key, rows(limit)], delivery)?
            .collect()
        })
        .await
    }

    async fn alert_ended_by(&self, recovery: &AlertEvent) -> Result<Option<AlertEvent>> {
        let recovery = recovery.clone();
        self.read("reading the alert of a recovery", move |conn| {
            conn.prepare_cached(
                "SELECT id, kind, rule, rule_name, severity, account, source, device, value, ts, message, origin, at \
                 FROM alert_events WHERE rule = ?1 AND source = ?2 AND device = ?3 AND kind = 'raised' AND ts <= ?4 \
                 ORDER BY ts DESC LIMIT 1",
            )?
            .query_row(
                params![recovery.rule, recovery.source.as_str(), recovery.device, recovery.ts.0],
                |row| {
                    Ok(AlertEvent {
                        id: row.get(0)?,
                        kind: from_variant(row, 1)?,
                        rule: row.get(2)?,
                        rule_name: row.get(3)?,
                        severity: from_variant(row, 4)?,
                        account: name(row, 5)?,
                        source: name(row, 6)?,
                        device: row.get(7)?,
                        value: row.get(8)?,
                        ts: time(row, 9)?,
                        message: row.get(10)?,
                        origin: row.get(11)?,
                        at: maybe_time(row, 12)?,
                    })
                },
            )
            .optional()
        })
        .await
    }

    async fn is_taken(&self, event: &str) -> Result<bool> {
        let event = event.to_owned();
        self.read("looking for an event", move |conn| {
            conn.prepare_cached("SELECT 1 FROM taken_events WHERE id = ?1")?.exists([&event])
        })
        .await
    }

    async fn mark_taken(&self, event: &str, at: Timestamp) -> Result<()> {
        let event = event.to_owned();
        self.write("marking an event as taken", move |writer| {
            writer
                .connection()
                .prepare_cached("INSERT OR IGNORE INTO taken_events (id, at) VALUES (?1, ?2)")?
                .execute(params![event, at.0])
                .map(|_| ())
        })
        .await
    }
}
