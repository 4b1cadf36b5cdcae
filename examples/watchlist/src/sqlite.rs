//! The store in an SQLite file.

use std::collections::BTreeSet;
use std::path::Path;

use async_trait::async_trait;
use galerna_sqlite::{Format, Limits, OpenError, Plain, SqliteError, Writer};
use rusqlite::{Connection, OptionalExtension as _, Row, params};

use crate::store::{
    Alert, Counts, Mapped, Page, Saved, Store, StoreError, Target, Validators, Version, day_of, hash_of,
    name_of, record_of,
};

const FORMAT: Format = Format {
    what: "store of watched posts",
    application_id: 0x4761_6c57, // GalW
    version: 1,
    tables: &["posts", "versions", "unmapped", "pages", "matches", "targets", "alerts"],
    bring_up,
    lock_suffix: "-lock",
    companions: &[],
    shared: true,
};

fn bring_up(connection: &Connection, _found: i64) -> rusqlite::Result<()> {
    connection.execute_batch(
        "CREATE TABLE IF NOT EXISTS posts (id TEXT PRIMARY KEY, grp TEXT NOT NULL, day TEXT NOT NULL, at INTEGER NOT NULL,
             author TEXT NOT NULL, version INTEGER NOT NULL, hash TEXT NOT NULL) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS versions (post TEXT NOT NULL, version INTEGER NOT NULL, text TEXT NOT NULL,
             PRIMARY KEY (post, version)) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS unmapped (post TEXT NOT NULL, version INTEGER NOT NULL,
             PRIMARY KEY (post, version)) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS pages (url TEXT PRIMARY KEY, etag TEXT, modified TEXT, next TEXT) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS matches (post TEXT NOT NULL, keyword TEXT NOT NULL, grp TEXT NOT NULL, day TEXT NOT NULL,
             count INTEGER NOT NULL, PRIMARY KEY (post, keyword)) WITHOUT ROWID;
         CREATE INDEX IF NOT EXISTS matches_day ON matches (grp, day);
         CREATE TABLE IF NOT EXISTS targets (day TEXT NOT NULL, grp TEXT NOT NULL, keyword TEXT NOT NULL, count INTEGER NOT NULL,
             PRIMARY KEY (day, grp, keyword)) WITHOUT ROWID;
         CREATE TABLE IF NOT EXISTS alerts (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, record TEXT NOT NULL,
             delivered INTEGER NOT NULL);",
    )
}

/// An open store.
#[derive(Debug)]
pub struct SqliteStore {
    writer: Writer<Plain>,
}

impl SqliteStore {
    /// Opens the store in this file, which is created, with its folder, when missing. Several processes may have it open.
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
}

fn version_of(row: &Row<'_>) -> rusqlite::Result<Version> {
    Ok(Version {
        post: row.get(0)?,
        version: row.get(1)?,
        group: row.get(2)?,
        day: row.get(3)?,
        text: row.get(4)?,
    })
}

fn alert_of(row: &Row<'_>) -> rusqlite::Result<Alert> {
    serde_json::from_str(row.get_ref(0)?.as_str()?).map_err(|error| {
        rusqlite::Error::FromSqlConversionFailure(0, rusqlite::types::Type::Text, Box::new(error))
    })
}

fn count(connection: &Connection, sql: &str) -> rusqlite::Result<u64> {
    let found: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
    Ok(u64::try_from(found).unwrap_or(0))
}

#[async_trait]
impl Store for SqliteStore {
    async fn validators(&self, url: &str) -> Result<Validators, StoreError> {
        let url = url.to_owned();
        self.run("reading what is known of a page", move |connection| {
            let sql = "SELECT etag, modified, next FROM pages WHERE url = ?1";
            let found = connection.prepare_cached(sql)?.query_row([&url], |row| {
                Ok(Validators { etag: row.get(0)?, modified: row.get(1)?, next: row.get(2)? })
            });
            Ok(found.optional()?.unwrap_or_default())
        })
        .await
    }

    async fn save(&self, page: Page) -> Result<Saved, StoreError> {
        self.run("storing posts", move |connection| {
            let mut saved = Saved::default();
            for post in &page.posts {
                let (id, hash) = (name_of(&page.source, post), hash_of(post));
                let known: Option<(i64, String)> = connection
                    .prepare_cached("SELECT version, hash FROM posts WHERE id = ?1")?
                    .query_row([&id], |row| Ok((row.get(0)?, row.get(1)?)))
                    .optional()?;
                let version = match known {
                    Some((_, known)) if known == hash => continue,
                    Some((version, _)) => {
                        saved.edited += 1;
                        let sql = "UPDATE posts SET version = ?2, hash = ?3 WHERE id = ?1";
                        connection.prepare_cached(sql)?.execute(params![id, version + 1, hash])?;
                        version + 1
                    }
                    None => {
                        saved.new += 1;
                        let sql = "INSERT INTO posts VALUES (?1, ?2, ?3, ?4, ?5, 1, ?6)";
                        let (day, at) = (day_of(post.at), post.at.as_millis());
                        let values = params![id, page.group, day, at, post.author, hash];
                        connection.prepare_cached(sql)?.execute(values)?;
                        1
                    }
                };
                let sql = "INSERT INTO versions VALUES (?1, ?2, ?3)";
                connection.prepare_cached(sql)?.execute(params![id, version, post.text])?;
                connection
                    .prepare_cached("INSERT INTO unmapped VALUES (?1, ?2)")?
                    .execute(params![id, version])?;
            }
            let Validators { etag, modified, next } = &page.validators;
            connection
                .prepare_cached("INSERT OR REPLACE INTO pages VALUES (?1, ?2, ?3, ?4)")?
                .execute(params![page.url, etag, modified, next])?;
            Ok(saved)
        })
        .await
    }

    async fn unmapped(&self, most: u32) -> Result<Vec<Version>, StoreError> {
        self.run("reading new versions", move |connection| {
            let sql = "SELECT v.post, v.version, p.grp, p.day, v.text FROM unmapped u
                 JOIN versions v ON v.post = u.post AND v.version = u.version JOIN posts p ON p.id = u.post
                 ORDER BY u.post, u.version LIMIT ?1";
            connection.prepare_cached(sql)?.query_map([most], version_of)?.collect()
        })
        .await
    }

    async fn map(&self, mapped: Vec<Mapped>) -> Result<(), StoreError> {
        self.run("counting keywords", move |connection| {
            let mut touched = BTreeSet::new();
            for Mapped { version, counts } in &mapped {
                let key = params![version.post, version.version];
                let taken = connection
                    .prepare_cached("DELETE FROM unmapped WHERE post = ?1 AND version = ?2")?
                    .execute(key)?;
                let last: bool = connection
                    .prepare_cached("SELECT version = ?2 FROM posts WHERE id = ?1")?
                    .query_row(params![version.post, version.version], |row| row.get(0))?;
                // Another has counted it, or a later version is there, which will be counted instead.
                if taken == 0 || !last {
                    continue;
                }
                connection.prepare_cached("DELETE FROM matches WHERE post = ?1")?.execute([&version.post])?;
                for (keyword, count) in counts {
                    let count = i64::try_from(*count).unwrap_or(i64::MAX);
                    let values = params![version.post, keyword, version.group, version.day, count];
                    connection
                        .prepare_cached("INSERT INTO matches VALUES (?1, ?2, ?3, ?4, ?5)")?
                        .execute(values)?;
                }
                touched.insert((version.group.clone(), version.day.clone()));
            }
            for (group, day) in touched {
                let sql = "DELETE FROM targets WHERE grp = ?1 AND day = ?2";
                connection.prepare_cached(sql)?.execute([&group, &day])?;
                let sql = "INSERT INTO targets SELECT day, grp, keyword, sum(count) FROM matches
                     WHERE grp = ?1 AND day = ?2 GROUP BY keyword";
                connection.prepare_cached(sql)?.execute([&group, &day])?;
            }
            Ok(())
        })
        .await
    }

    async fn targets(&self, from: &str) -> Result<Vec<Target>, StoreError> {
        let from = from.to_owned();
        self.run("reading targets", move |connection| {
            let sql =
                "SELECT keyword, grp, day, count FROM targets WHERE day >= ?1 ORDER BY day, grp, keyword";
            let target = |row: &Row<'_>| {
                let count = u64::try_from(row.get::<_, i64>(3)?).unwrap_or(0);
                Ok(Target { keyword: row.get(0)?, group: row.get(1)?, day: row.get(2)?, count })
            };
            connection.prepare_cached(sql)?.query_map([&from], target)?.collect()
        })
        .await
    }

    async fn raise(&self, alerts: Vec<Alert>) -> Result<u64, StoreError> {
        let mut records = Vec::with_capacity(alerts.len());
        for alert in alerts {
            records.push((alert.id.clone(), record_of(&alert)?));
        }
        self.run("raising alerts", move |connection| {
            let mut raised = 0;
            for (id, record) in &records {
                let sql =
                    "INSERT INTO alerts (id, record, delivered) VALUES (?1, ?2, 0) ON CONFLICT DO NOTHING";
                raised += connection.prepare_cached(sql)?.execute([id, record])? as u64;
            }
            Ok(raised)
        })
        .await
    }

    async fn undelivered(&self, most: u32) -> Result<Vec<Alert>, StoreError> {
        self.run("reading alerts", move |connection| {
            let sql = "SELECT record FROM alerts WHERE delivered = 0 ORDER BY number LIMIT ?1";
            connection.prepare_cached(sql)?.query_map([most], alert_of)?.collect()
        })
        .await
    }

    async fn delivered(&self, id: &str) -> Result<(), StoreError> {
        let id = id.to_owned();
        self.run("marking an alert as delivered", move |connection| {
            connection
                .prepare_cached("UPDATE alerts SET delivered = 1 WHERE id = ?1")?
                .execute([&id])
                .map(drop)
        })
        .await
    }

    async fn alerts(&self, most: u32) -> Result<Vec<Alert>, StoreError> {
        self.run("reading alerts", move |connection| {
            let sql = "SELECT record FROM alerts ORDER BY number DESC LIMIT ?1";
            connection.prepare_cached(sql)?.query_map([most], alert_of)?.collect()
        })
        .await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        self.run("counting", |connection| {
            Ok(Counts {
                posts: count(connection, "SELECT count(*) FROM posts")?,
                versions: count(connection, "SELECT count(*) FROM versions")?,
                unmapped: count(connection, "SELECT count(*) FROM unmapped")?,
                alerts: count(connection, "SELECT count(*) FROM alerts")?,
                undelivered: count(connection, "SELECT count(*) FROM alerts WHERE delivered = 0")?,
            })
        })
        .await
    }

    async fn close(&self) {
        self.writer.close();
    }
}
