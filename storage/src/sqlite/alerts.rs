//! Alert rules, states and events in SQLite.

use async_trait::async_trait;
use galerna_model::{AccountId, ParameterCode};
use rusqlite::{Row, params};

use super::Sqlite;
use super::columns::{
    from_json, from_variant, int, json, maybe_name, maybe_time, name, rows, time, uint, unreadable, variant,
};
use crate::{AlertStates, Result, Rules};
use galerna_model::{AlertEvent, AlertEventKind, AlertState, Condition, Rule};

fn rule(row: &Row<'_>) -> rusqlite::Result<Rule> {
    let condition = match row.get_ref(4)?.as_str()? {
        "threshold" => Condition::Threshold {
            parameter: ParameterCode(row.get(5)?),
            comparison: from_variant(row, 6)?,
            limit: row.get(7)?,
            clear: row.get(8)?,
            for_ms: uint(row, 9)?,
        },
        "silent" => Condition::Silent { after_ms: uint(row, 9)? },
        other => return Err(unreadable(4, format!("`{other}` is no kind of condition").into())),
    };
    Ok(Rule {
        id: row.get(0)?,
        name: row.get(1)?,
        account: maybe_name(row, 2)?,
        devices: row.get(3)?,
        condition,
        severity: from_variant(row, 10)?,
        endpoints: from_json(row, 11)?,
        cooldown_ms: uint(row, 12)?,
        enabled: row.get(13)?,
    })
}

#[async_trait]
impl Rules for Sqlite {
    async fn list(&self) -> Result<Vec<Rule>> {
        self.read("listing alert rules", |conn| {
            conn.prepare_cached(
                "SELECT id, name, account, devices, kind, parameter, comparison, bound, clear, for_ms, severity, \
                 endpoints, cooldown_ms, enabled FROM rules ORDER BY id",
            )?
            .query_map([], rule)?
            .collect()
        })
        .await
    }

    async fn put(&self, rule: &Rule) -> Result<()> {
        let rule = rule.clone();
        self.write("storing an alert rule", move |writer| {
            let (kind, parameter, comparison, bound, clear, for_ms) = match &rule.condition {
                Condition::Threshold { parameter, comparison, limit, clear, for_ms } => {
                    ("threshold", Some(parameter.0), Some(variant(comparison)?), Some(*limit), *clear, *for_ms)
                }
                Condition::Silent { after_ms } => ("silent", None, None, None, None, *after_ms),
            };
            writer.connection()
                .prepare_cached(
                    "INSERT OR REPLACE INTO rules (id, name, account, devices, kind, parameter, comparison, bound, \
                     clear, for_ms, severity, endpoints, cooldown_ms, enabled) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
                )?
                .execute(params![
                    rule.id,
                    rule.name,
                    rule.account.as_ref().map(AccountId::as_str),
                    rule.devices,
                    kind,
                    parameter,
                    comparison,
                    bound,
                    clear,
                    int(for_ms),
                    variant(&rule.severity)?,
                    json(&rule.endpoints)?,
                    int(rule.cooldown_ms),
                    rule.enabled,
                ])
                .map(|_| ())
        })
        .await
    }

    async fn delete(&self, id: &str) -> Result<bool> {
        let id = id.to_owned();
        self.write("deleting an alert rule", move |writer| {
            writer
                .connection()
                .prepare_cached("DELETE FROM alert_states WHERE rule = ?1 AND phase <> 'firing'")?
                .execute([&id])?;
            Ok(writer.connection().prepare_cached("DELETE FROM rules WHERE id = ?1")?.execute([&id])? == 1)
        })
        .await
    }
}

fn state(row: &Row<'_>) -> rusqlite::Result<AlertState> {
    Ok(AlertState {
        rule: row.get(0)?,
        source: name(row, 1)?,
        device: row.get(2)?,
        account: name(row, 3)?,
        phase: from_variant(row, 4)?,
        since: time(row, 5)?,
        last_seen: time(row, 6)?,
        last_value: row.get(7)?,
        not_before: maybe_time(row, 8)?,
        received: maybe_time(row, 9)?,
        heard_at: maybe_time(row, 10)?,
    })
}

fn event(row: &Row<'_>) -> rusqlite::Result<AlertEvent> {
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
}

#[async_trait]
impl AlertStates for Sqlite {
    async fn load(&self, account: &AccountId) -> Result<Vec<AlertState>> {
        let account = account.clone();
        self.read("loading alert states", move |conn| {
            conn.prepare_cached(
                "SELECT rule, source, device, account, phase, since, last_seen, last_value, not_before, received, heard_at \
                 FROM alert_states WHERE account = ?1 ORDER BY rule, source, device",
            )?
            .query_map([account.as_str()], state)?
            .collect()
        })
        .await
    }

    async fn firing(&self, limit: usize) -> Result<Vec<AlertState>> {
        self.read("listing what fires", move |conn| {
            conn.prepare_cached(
                "SELECT rule, source, device, account, phase, since, last_seen, last_value, not_before, received, heard_at \
                 FROM alert_states WHERE phase = 'firing' ORDER BY since DESC LIMIT ?1",
            )?
            .query_map([rows(limit)], state)?
            .collect()
        })
        .await
    }

    async fn accounts(&self) -> Result<Vec<AccountId>> {
        self.read("listing the accounts of alert states", |conn| {
            conn.prepare_cached("SELECT DISTINCT account FROM alert_states ORDER BY account")?
                .query_map([], |row| name(row, 0))?
                .collect()
        })
        .await
    }

    async fn clear(&self, rule: &str) -> Result<()> {
        let rule = rule.to_owned();
        self.write("deleting alert states", move |writer| {
            let mut delete =
                writer.connection().prepare_cached("DELETE FROM alert_states WHERE rule = ?1")?;
            delete.execute([&rule]).map(|_| ())
        })
        .await
    }

    async fn save(&self, states: &[AlertState]) -> Result<()> {
        if states.is_empty() {
            return Ok(());
        }
        let states = states.to_vec();
        self.write("saving alert states", move |writer| {
            let mut upsert = writer.connection().prepare_cached(
                "INSERT INTO alert_states (rule, source, device, account, phase, since, last_seen, last_value, not_before, \
                 received, heard_at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT (rule, source, device) DO UPDATE SET \
                 account = excluded.account, phase = excluded.phase, since = excluded.since, \
                 last_seen = excluded.last_seen, last_value = excluded.last_value, not_before = excluded.not_before, \
                 received = excluded.received, heard_at = excluded.heard_at \
                 WHERE excluded.last_seen >= alert_states.last_seen",
            )?;
            for s in &states {
                upsert.execute(params![
                    s.rule,
                    s.source.as_str(),
                    s.device,
                    s.account.as_str(),
                    variant(&s.phase)?,
                    s.since.0,
                    s.last_seen.0,
                    s.last_value,
                    s.not_before.map(|t| t.0),
                    s.received.map(|t| t.0),
                    s.heard_at.map(|t| t.0),
                ])?;
            }
            Ok(())
        })
        .await
    }

    async fn record(&self, events: &[AlertEvent]) -> Result<usize> {
        if events.is_empty() {
            return Ok(0);
        }
        let events = events.to_vec();
        self.write("recording alert events", move |writer| {
            let mut insert = writer.connection().prepare_cached(
                "INSERT INTO alert_events (id, kind, rule, rule_name, severity, account, source, device, value, ts, message, \
                 origin, at) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13) ON CONFLICT DO NOTHING",
            )?;
            let mut new = 0;
            for e in &events {
                new += insert.execute(params![
                    e.id,
                    variant(&e.kind)?,
                    e.rule,
                    e.rule_name,
                    variant(&e.severity)?,
                    e.account.as_str(),
                    e.source.as_str(),
                    e.device,
                    e.value,
                    e.ts.0,
                    e.message,
                    e.origin,
                    e.at.map(|at| at.0),
                ])?;
            }
            Ok(new)
        })
        .await
    }

    async fn events(
        &self,
        account: Option<&AccountId>,
        offset: usize,
        limit: usize,
    ) -> Result<Vec<AlertEvent>> {
        let account = account.cloned();
        self.read("listing alert events", move |conn| {
            let filter = if account.is_some() { "account = ?1" } else { "?1 IS NULL" };
            conn.prepare_cached(&format!(
                "SELECT id, kind, rule, rule_name, severity, account, source, device, value, ts, message, origin, at \
                 FROM alert_events WHERE {filter} ORDER BY ts DESC, id DESC LIMIT ?2 OFFSET ?3"
            ))?
            .query_map(params![account.as_ref().map(AccountId::as_str), rows(limit), rows(offset)], event)?
            .collect()
        })
        .await
    }

    async fn count(&self, kind: AlertEventKind) -> Result<u64> {
        self.read("counting alert events", move |conn| {
            conn.prepare_cached("SELECT count(*) FROM alert_events WHERE kind = ?1")?
                .query_row([variant(&kind)?], |row| uint(row, 0))
        })
        .await
    }
}
