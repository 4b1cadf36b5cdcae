//! The audit log and the samples of charts in SQLite.

use async_trait::async_trait;
use galerna_model::Timestamp;
use rusqlite::params;

use super::Sqlite;
use super::columns::{rows, time, unreadable};
use crate::{AuditEntry, AuditLog, History, Result, Sample};

/// Created when missing, in files of any version.
pub(super) const TABLES: &str = "
CREATE TABLE IF NOT EXISTS audit (
    id TEXT PRIMARY KEY, at INTEGER NOT NULL, role TEXT NOT NULL, who TEXT NOT NULL, action TEXT NOT NULL,
    target TEXT NOT NULL, why TEXT, outcome TEXT NOT NULL, done INTEGER NOT NULL, searched TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS audit_at ON audit (at, id);
CREATE TABLE IF NOT EXISTS history (at INTEGER NOT NULL, name TEXT NOT NULL, value REAL NOT NULL, PRIMARY KEY (at, name))
    WITHOUT ROWID;
-- Few of many states fire.
CREATE INDEX IF NOT EXISTS alert_states_firing ON alert_states (since) WHERE phase = 'firing';
";

#[async_trait]
impl AuditLog for Sqlite {
    async fn record(&self, entry: &AuditEntry) -> Result<()> {
        let e = entry.clone();
        self.write("recording what an operator did", move |writer| {
            writer
                .connection()
                .prepare_cached(
                    "INSERT INTO audit (id, at, role, who, action, target, why, outcome, done, searched) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
                )?
                .execute(params![
                    e.id,
                    e.at.0,
                    e.role,
                    e.who,
                    e.action,
                    e.target,
                    e.why,
                    e.outcome,
                    e.done,
                    e.searched()
                ])
                .map(|_| ())
        })
        .await
    }

    async fn list(&self, search: Option<&str>, offset: usize, limit: usize) -> Result<Vec<AuditEntry>> {
        let search = search.map(str::to_lowercase);
        self.read("listing what operators did", move |conn| {
            conn.prepare_cached(
                "SELECT id, at, role, who, action, target, why, outcome, done FROM audit \
                 WHERE ?1 IS NULL OR instr(searched, ?1) > 0 ORDER BY at DESC, id DESC LIMIT ?2 OFFSET ?3",
            )?
            .query_map(params![search, rows(limit), rows(offset)], |row| {
                Ok(AuditEntry {
                    id: row.get(0)?,
                    at: time(row, 1)?,
                    role: row.get(2)?,
                    who: row.get(3)?,
                    action: row.get(4)?,
                    target: row.get(5)?,
                    why: row.get(6)?,
                    outcome: row.get(7)?,
                    done: row.get(8)?,
                })
            })?
            .collect()
        })
        .await
    }
}

#[async_trait]
impl History for Sqlite {
    async fn put(&self, sample: &Sample) -> Result<()> {
        let sample = sample.clone();
        self.write("storing a sample", move |writer| {
            writer
                .connection()
                .prepare_cached("DELETE FROM history WHERE at = ?1")?
                .execute([sample.at.0])?;
            let mut put = writer
                .connection()
                .prepare_cached("INSERT INTO history (at, name, value) VALUES (?1, ?2, ?3)")?;
            // A row without a name is what keeps a sample that has no numbers.
            put.execute(params![sample.at.0, "", 0.0])?;
            for (name, value) in
                sample.values.iter().filter(|(name, value)| !name.is_empty() && value.is_finite())
            {
                put.execute(params![sample.at.0, name, value])?;
            }
            Ok(())
        })
        .await
    }

    async fn since(&self, from: Timestamp) -> Result<Vec<Sample>> {
        self.sparse(from, 1).await
    }

    async fn sparse(&self, from: Timestamp, step_ms: i64) -> Result<Vec<Sample>> {
        self.read("reading samples", move |conn| {
            let mut samples: Vec<Sample> = Vec::new();
            let mut found = conn.prepare_cached(
                "SELECT at, name, value FROM history WHERE at >= ?1 AND at % ?2 = 0 ORDER BY at, name",
            )?;
            let mut found = found.query([from.0, step_ms.max(1)])?;
            while let Some(row) = found.next()? {
                let at = time(row, 0)?;
                if samples.last().is_none_or(|last| last.at != at) {
                    samples.push(Sample { at, ..Sample::default() });
                }
                let name: String = row.get(1)?;
                let sample = samples.last_mut().ok_or_else(|| unreadable(0, "a sample".into()))?;
                if !name.is_empty() {
                    sample.values.insert(name, row.get(2)?);
                }
            }
            Ok(samples)
        })
        .await
    }

    async fn thin(&self, before: Timestamp, step_ms: i64) -> Result<u64> {
        self.write("thinning samples out", move |writer| {
            let which = [before.0, step_ms.max(1)];
            let count = writer
                .connection()
                .prepare_cached("SELECT count(DISTINCT at) FROM history WHERE at < ?1 AND at % ?2 <> 0")?
                .query_row(which, |row| super::columns::uint(row, 0))?;
            writer
                .connection()
                .prepare_cached("DELETE FROM history WHERE at < ?1 AND at % ?2 <> 0")?
                .execute(which)?;
            Ok(count)
        })
        .await
    }

    async fn prune(&self, before: Timestamp) -> Result<u64> {
        self.write("forgetting samples", move |writer| {
            let count = writer
                .connection()
                .prepare_cached("SELECT count(DISTINCT at) FROM history WHERE at < ?1")?
                .query_row([before.0], |row| super::columns::uint(row, 0))?;
            writer.connection().prepare_cached("DELETE FROM history WHERE at < ?1")?.execute([before.0])?;
            Ok(count)
        })
        .await
    }
}
