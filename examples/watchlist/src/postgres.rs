//! The store in PostgreSQL, for processes on any number of machines.
//!
//! What must not happen at once is serialised by advisory locks, which are taken before any row is: two crawls of one source, two counts,
//! two runs that raise alerts.

use std::borrow::Cow;
use std::collections::BTreeSet;

use async_trait::async_trait;
use galerna_postgres::{OpenError, Step, is_transient};
use sqlx::postgres::{PgPool, PgRow};
use sqlx::{PgConnection, Row as _};

use crate::store::{
    Alert, Counts, Mapped, Page, Saved, Store, StoreError, Target, Validators, Version, day_of, hash_of,
    name_of, record_of,
};

/// What brings the tables up to date. What was published is not changed; what is new is appended.
const STEPS: &[Step] =
    &[Step { version: 1, name: "posts", sql: include_str!("../migrations/0001_posts.sql") }];

/// Locks of transactions, beside those of sources, which are hashes of their names; the numbers mean nothing.
const COUNT_LOCK: i64 = 7_305_802;
const ALERT_LOCK: i64 = 7_305_803;

/// An open store.
#[derive(Debug, Clone)]
pub struct PostgresStore {
    pool: PgPool,
}

fn failed(attempted: &'static str) -> impl Fn(sqlx::Error) -> StoreError {
    move |error| StoreError { attempted, passes: is_transient(&error), cause: error.to_string() }
}

/// PostgreSQL's texts have no NUL.
fn storable(text: &str) -> Cow<'_, str> {
    if text.contains('\0') { text.replace('\0', "\u{fffd}").into() } else { text.into() }
}

fn alert_of(row: &PgRow) -> Result<Alert, sqlx::Error> {
    let record: String = row.try_get("record")?;
    serde_json::from_str(&record).map_err(|error| sqlx::Error::Decode(error.into()))
}

async fn lock(connection: &mut PgConnection, number: i64) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(number).execute(connection).await.map(drop)
}

impl PostgresStore {
    /// Connects by a URL such as `postgres://user:password@host/database`, and brings the tables up to date.
    ///
    /// # Errors
    /// When the server does not answer or refuses, or the database is of a newer version of this program.
    pub async fn open(url: &str) -> Result<Self, OpenError> {
        Ok(Self { pool: galerna_postgres::open(url, STEPS).await? })
    }

    async fn alerts_of(&self, sql: &'static str, most: u32) -> Result<Vec<Alert>, StoreError> {
        let reading = failed("reading alerts");
        let rows = sqlx::query(sql).bind(i64::from(most)).fetch_all(&self.pool).await.map_err(&reading)?;
        rows.iter().map(alert_of).collect::<Result<_, _>>().map_err(reading)
    }
}

async fn save(connection: &mut PgConnection, page: &Page) -> Result<Saved, sqlx::Error> {
    // Two crawls of one source do not judge the same post at once.
    let sql = "SELECT pg_advisory_xact_lock(hashtextextended($1, 0))";
    sqlx::query(sql).bind(&page.source).execute(&mut *connection).await?;
    let mut posts: Vec<_> = page.posts.iter().map(|post| (name_of(&page.source, post), post)).collect();
    // As those who count lock them: nobody waits in a circle. A post that is there twice keeps its order.
    posts.sort_by(|(a, _), (b, _)| a.cmp(b));
    let mut saved = Saved::default();
    for (id, post) in posts {
        let (id, hash) = (storable(&id).into_owned(), hash_of(post));
        let sql = "SELECT version, hash FROM posts WHERE id = $1";
        let known: Option<(i64, String)> =
            sqlx::query_as(sql).bind(&id).fetch_optional(&mut *connection).await?;
        let version = match known {
            Some((_, known)) if known == hash => continue,
            Some((version, _)) => {
                saved.edited += 1;
                let sql = "UPDATE posts SET version = $2, hash = $3 WHERE id = $1";
                sqlx::query(sql).bind(&id).bind(version + 1).bind(&hash).execute(&mut *connection).await?;
                version + 1
            }
            None => {
                saved.new += 1;
                let sql = "INSERT INTO posts (id, grp, day, at, author, version, hash) VALUES ($1, $2, $3, $4, $5, 1, $6)";
                let insert = sqlx::query(sql).bind(&id).bind(storable(&page.group)).bind(day_of(post.at));
                let insert = insert.bind(post.at.as_millis()).bind(storable(&post.author)).bind(&hash);
                insert.execute(&mut *connection).await?;
                1
            }
        };
        let sql = "INSERT INTO versions (post, version, text) VALUES ($1, $2, $3)";
        let insert = sqlx::query(sql).bind(&id).bind(version).bind(storable(&post.text));
        insert.execute(&mut *connection).await?;
        let sql = "INSERT INTO unmapped (post, version) VALUES ($1, $2)";
        sqlx::query(sql).bind(&id).bind(version).execute(&mut *connection).await?;
    }
    let Validators { etag, modified, next } = &page.validators;
    let sql = "INSERT INTO pages (url, etag, modified, next) VALUES ($1, $2, $3, $4)
         ON CONFLICT (url) DO UPDATE SET etag = $2, modified = $3, next = $4";
    let put = sqlx::query(sql).bind(&page.url).bind(etag).bind(modified).bind(next);
    put.execute(&mut *connection).await?;
    Ok(saved)
}

async fn map(connection: &mut PgConnection, mapped: &mut [Mapped]) -> Result<(), sqlx::Error> {
    lock(connection, COUNT_LOCK).await?;
    mapped.sort_by(|a, b| (&a.version.post, a.version.version).cmp(&(&b.version.post, b.version.version)));
    let mut touched = BTreeSet::new();
    for Mapped { version, counts } in &*mapped {
        let sql = "DELETE FROM unmapped WHERE post = $1 AND version = $2";
        let taken =
            sqlx::query(sql).bind(&version.post).bind(version.version).execute(&mut *connection).await?;
        let sql = "SELECT version FROM posts WHERE id = $1 FOR UPDATE";
        let last: i64 = sqlx::query_scalar(sql).bind(&version.post).fetch_one(&mut *connection).await?;
        // Another has counted it, or a later version is there, which will be counted instead.
        if taken.rows_affected() == 0 || last != version.version {
            continue;
        }
        let sql = "DELETE FROM matches WHERE post = $1";
        sqlx::query(sql).bind(&version.post).execute(&mut *connection).await?;
        let insert_match = "INSERT INTO matches (post, keyword, grp, day, count) VALUES ($1, $2, $3, $4, $5)";
        for (keyword, count) in counts {
            let insert = sqlx::query(insert_match).bind(&version.post);
            let insert = insert.bind(keyword).bind(&version.group).bind(&version.day);
            let count = i64::try_from(*count).unwrap_or(i64::MAX);
            insert.bind(count).execute(&mut *connection).await?;
        }
        touched.insert((&version.group, &version.day));
    }
    for (group, day) in touched {
        let sql = "DELETE FROM targets WHERE grp = $1 AND day = $2";
        sqlx::query(sql).bind(group).bind(day).execute(&mut *connection).await?;
        let sql = "INSERT INTO targets (day, grp, keyword, count) SELECT day, grp, keyword, sum(count)::bigint FROM matches
             WHERE grp = $1 AND day = $2 GROUP BY day, grp, keyword";
        sqlx::query(sql).bind(group).bind(day).execute(&mut *connection).await?;
    }
    Ok(())
}

#[async_trait]
impl Store for PostgresStore {
    async fn validators(&self, url: &str) -> Result<Validators, StoreError> {
        let sql = "SELECT etag, modified, next FROM pages WHERE url = $1";
        let found: Option<(Option<String>, Option<String>, Option<String>)> = sqlx::query_as(sql)
            .bind(url)
            .fetch_optional(&self.pool)
            .await
            .map_err(failed("reading what is known of a page"))?;
        Ok(found.map_or_else(Validators::default, |(etag, modified, next)| Validators {
            etag,
            modified,
            next,
        }))
    }

    async fn save(&self, page: Page) -> Result<Saved, StoreError> {
        let failed = failed("storing posts");
        let mut transaction = self.pool.begin().await.map_err(&failed)?;
        let saved = save(&mut transaction, &page).await.map_err(&failed)?;
        transaction.commit().await.map_err(&failed)?;
        Ok(saved)
    }

    async fn unmapped(&self, most: u32) -> Result<Vec<Version>, StoreError> {
        let sql = "SELECT v.post, v.version, p.grp, p.day, v.text FROM unmapped u
             JOIN versions v ON v.post = u.post AND v.version = u.version JOIN posts p ON p.id = u.post
             ORDER BY u.post, u.version LIMIT $1";
        let rows: Vec<(String, i64, String, String, String)> = sqlx::query_as(sql)
            .bind(i64::from(most))
            .fetch_all(&self.pool)
            .await
            .map_err(failed("reading new versions"))?;
        let version = |(post, version, group, day, text)| Version { post, version, group, day, text };
        Ok(rows.into_iter().map(version).collect())
    }

    async fn map(&self, mut mapped: Vec<Mapped>) -> Result<(), StoreError> {
        let failed = failed("counting keywords");
        let mut transaction = self.pool.begin().await.map_err(&failed)?;
        map(&mut transaction, &mut mapped).await.map_err(&failed)?;
        transaction.commit().await.map_err(failed)
    }

    async fn targets(&self, from: &str) -> Result<Vec<Target>, StoreError> {
        let sql = "SELECT keyword, grp, day, count FROM targets WHERE day >= $1 ORDER BY day, grp, keyword";
        let rows: Vec<(String, String, String, i64)> =
            sqlx::query_as(sql).bind(from).fetch_all(&self.pool).await.map_err(failed("reading targets"))?;
        let target = |(keyword, group, day, count)| Target {
            keyword,
            group,
            day,
            count: u64::try_from(count).unwrap_or(0),
        };
        Ok(rows.into_iter().map(target).collect())
    }

    async fn raise(&self, alerts: Vec<Alert>) -> Result<u64, StoreError> {
        let raising = failed("raising alerts");
        let mut transaction = self.pool.begin().await.map_err(&raising)?;
        lock(&mut transaction, ALERT_LOCK).await.map_err(&raising)?;
        let mut raised = 0;
        for alert in &alerts {
            let record = record_of(alert)?;
            let sql = "INSERT INTO alerts (id, record) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            let insert = sqlx::query(sql).bind(storable(&alert.id)).bind(record);
            raised += insert.execute(&mut *transaction).await.map_err(&raising)?.rows_affected();
        }
        transaction.commit().await.map_err(raising)?;
        Ok(raised)
    }

    async fn undelivered(&self, most: u32) -> Result<Vec<Alert>, StoreError> {
        self.alerts_of("SELECT record FROM alerts WHERE NOT delivered ORDER BY number LIMIT $1", most).await
    }

    async fn delivered(&self, id: &str) -> Result<(), StoreError> {
        let update = sqlx::query("UPDATE alerts SET delivered = true WHERE id = $1").bind(storable(id));
        update.execute(&self.pool).await.map(drop).map_err(failed("marking an alert as delivered"))
    }

    async fn alerts(&self, most: u32) -> Result<Vec<Alert>, StoreError> {
        self.alerts_of("SELECT record FROM alerts ORDER BY number DESC LIMIT $1", most).await
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        let sql = "SELECT (SELECT count(*) FROM posts), (SELECT count(*) FROM versions), (SELECT count(*) FROM unmapped),
             (SELECT count(*) FROM alerts), (SELECT count(*) FROM alerts WHERE NOT delivered)";
        let (posts, versions, unmapped, alerts, undelivered): (i64, i64, i64, i64, i64) =
            sqlx::query_as(sql).fetch_one(&self.pool).await.map_err(failed("counting"))?;
        let count = |count: i64| u64::try_from(count).unwrap_or(0);
        Ok(Counts {
            posts: count(posts),
            versions: count(versions),
            unmapped: count(unmapped),
            alerts: count(alerts),
            undelivered: count(undelivered),
        })
    }

    async fn close(&self) {
        self.pool.close().await;
    }
}
