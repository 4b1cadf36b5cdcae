//! The deliveries of the outbox: their rows, what they wait for, and which are due.
//!
//! A delivery is kept whole, as BSON (which, unlike JSON, gives every number back as it was), beside the columns that are
//! searched.

use std::collections::HashMap;

use galerna_model::AlertEvent;
use rusqlite::types::{ToSql, Type};
use rusqlite::{Connection, OptionalExtension, Row, params, params_from_iter};

use super::columns::{from_variant, int, json, rows, uint};
use crate::{Claim, Delivery, DeliveryFilter, DeliveryPage, DeliveryStatus, Enqueued, alert_key};

pub(super) fn delivery(row: &Row<'_>) -> rusqlite::Result<Delivery> {
    bson::deserialize_from_slice(row.get_ref(0)?.as_blob()?)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, e.into()))
}

pub(super) fn load(conn: &Connection, id: &str) -> rusqlite::Result<Option<Delivery>> {
    conn.prepare_cached("SELECT record FROM deliveries WHERE id = ?1")?.query_row([id], delivery).optional()
}

/// Writes the row of a delivery, and what it waits for.
pub(super) fn save(conn: &Connection, delivery: &Delivery) -> rusqlite::Result<()> {
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

pub(super) fn enqueue(conn: &Connection, mut new: Delivery) -> rusqlite::Result<Enqueued> {
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

pub(super) fn claim(conn: &Connection, claim: &Claim) -> rusqlite::Result<Vec<Delivery>> {
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

pub(super) fn update(conn: &Connection, mut delivery: Delivery) -> rusqlite::Result<bool> {
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

pub(super) fn page(
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
