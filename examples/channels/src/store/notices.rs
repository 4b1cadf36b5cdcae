//! Notices: what people are told.

use galerna_model::Timestamp;
use rusqlite::{Row, params};
use serde::Serialize;

use super::{Store, StoreError, millis};

/// Most notices that are kept.
const KEPT: i64 = 10_000;

/// Something that people should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// Its number.
    pub number: i64,
    /// When.
    pub at: Timestamp,
    /// The channel, account or post that it is about.
    pub about: String,
    /// What it says.
    pub text: String,
    /// Whether somebody has read it.
    pub read: bool,
}

fn notice_of(row: &Row<'_>) -> rusqlite::Result<Notice> {
    Ok(Notice {
        number: row.get(0)?,
        at: Timestamp(row.get(1)?),
        about: row.get(2)?,
        text: row.get(3)?,
        read: row.get(4)?,
    })
}

impl Store {
    /// Keeps a notice, unless the last one about the same says the same and was not read.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn notify(&self, about: String, text: String, now: Timestamp) -> Result<(), StoreError> {
        self.run("keeping a notice", move |connection| {
            let sql = "INSERT INTO notices (at, about, text, is_read) SELECT ?1, ?2, ?3, 0 WHERE NOT EXISTS
                (SELECT 1 FROM notices WHERE seq = (SELECT max(seq) FROM notices WHERE about = ?2) AND text = ?3 AND is_read = 0)";
            connection.prepare_cached(sql)?.execute(params![millis(now), about, text])?;
            let sql = "DELETE FROM notices WHERE seq <= (SELECT max(seq) FROM notices) - ?1";
            connection.prepare_cached(sql)?.execute([KEPT]).map(drop)
        })
        .await
    }

    /// The last notices, the latest first, and how many were not read.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn notices(&self, limit: usize) -> Result<(Vec<Notice>, u64), StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.run("listing notices", move |connection| {
            let sql = "SELECT seq, at, about, text, is_read FROM notices ORDER BY seq DESC LIMIT ?1";
            let notices = connection
                .prepare_cached(sql)?
                .query_map([limit], notice_of)?
                .collect::<rusqlite::Result<_>>()?;
            let sql = "SELECT count(*) FROM notices WHERE is_read = 0";
            let unread: i64 = connection.prepare_cached(sql)?.query_row([], |row| row.get(0))?;
            Ok((notices, unread.unsigned_abs()))
        })
        .await
    }

    /// Marks notices up to this number as read.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn read_notices(&self, up_to: i64) -> Result<(), StoreError> {
        self.run("marking notices as read", move |connection| {
            connection
                .prepare_cached("UPDATE notices SET is_read = 1 WHERE seq <= ?1 AND is_read = 0")?
                .execute([up_to])
                .map(drop)
        })
        .await
    }
}
