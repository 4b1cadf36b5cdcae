//! Endpoints, silences and the outbox in SQLite. Every write is one transaction, so nothing here is ever left half done.

use async_trait::async_trait;
use galerna_model::Timestamp;
use rusqlite::{OptionalExtension, params};

use super::Sqlite;
use super::columns::{from_json, from_variant, json, maybe_time, name, rows, time};
use super::outbox::{claim, delivery, enqueue, load, page, save, update};
use crate::notifications::FORGOTTEN;
use crate::{
    Claim, Delivery, DeliveryFilter, DeliveryPage, Endpoint, Enqueued, Notifications, Resent, Result, Silence,
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
