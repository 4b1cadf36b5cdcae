//! Posts, and what became of them.

use galerna_model::Timestamp;
use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;

use super::{Store, StoreError, from_sql_error, millis, to_sql_error};
use crate::channel::Draft;
use crate::status::StatusId;

/// What has become of a post.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum PostState {
    /// It is to be posted.
    Open,
    /// It was posted.
    Sent,
    /// The server refused it; it waits for somebody to say what becomes of it.
    Refused,
    /// It was given up.
    Dropped,
}

/// Something to post, or that was posted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Post {
    /// By which a second attempt is told.
    pub key: String,
    /// The account that posts it.
    pub account: String,
    /// What is posted.
    pub draft: Draft,
    /// When the first attempt was made.
    pub first_attempt: Option<Timestamp>,
    /// What has become of it.
    pub state: PostState,
    /// Its id on the server.
    pub remote_id: Option<StatusId>,
    /// Why it was refused.
    pub reason: Option<String>,
}

/// How an attempt to post ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PostEnd {
    /// The server has it, by this id.
    Sent(StatusId),
    /// The server refuses it, for this reason.
    Refused(String),
}

const COLUMNS: &str = "key, account, draft, first_attempt, state, remote_id, reason";

fn post_of(row: &Row<'_>) -> rusqlite::Result<Post> {
    let draft = row.get_ref(2)?.as_str()?;
    Ok(Post {
        key: row.get(0)?,
        account: row.get(1)?,
        draft: serde_json::from_str(draft).map_err(|error| from_sql_error(2, error))?,
        first_attempt: row.get::<_, Option<i64>>(3)?.map(Timestamp),
        state: match row.get_ref(4)?.as_str()? {
            "open" => PostState::Open,
            "sent" => PostState::Sent,
            "refused" => PostState::Refused,
            _ => PostState::Dropped,
        },
        remote_id: row.get::<_, Option<String>>(5)?.map(StatusId::new),
        reason: row.get(6)?,
    })
}

impl Store {
    /// Keeps a post; of two with one key the second is not kept. Whether it is still open.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn keep_post(
        &self,
        key: String,
        account: String,
        draft: Draft,
        now: Timestamp,
    ) -> Result<bool, StoreError> {
        self.run("keeping a post", move |connection| {
            let draft = serde_json::to_string(&draft).map_err(to_sql_error)?;
            let sql = "INSERT INTO posts (key, account, draft, kept, state) VALUES (?1, ?2, ?3, ?4, 'open') ON CONFLICT DO NOTHING";
            connection.prepare_cached(sql)?.execute(params![key, account, draft, millis(now)])?;
            connection.prepare_cached("SELECT 1 FROM posts WHERE key = ?1 AND state = 'open'")?.exists([&key])
        })
        .await
    }

    /// A post that is about to be sent: from now on it is known that an attempt may have reached the server. None if there is none.
    /// The post is as it was before.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn attempt(&self, key: &str, now: Timestamp) -> Result<Option<Post>, StoreError> {
        let key = key.to_owned();
        self.run("beginning to post", move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM posts WHERE key = ?1");
            let post = connection.prepare_cached(&sql)?.query_row([&key], post_of).optional()?;
            let sql = "UPDATE posts SET first_attempt = ?2 WHERE key = ?1 AND state = 'open' AND first_attempt IS NULL";
            connection.prepare_cached(sql)?.execute(params![key, millis(now)])?;
            Ok(post)
        })
        .await
    }

    /// Records how posts ended; what had ended before stays as it is.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn end_posts(&self, ended: Vec<(String, PostEnd)>, now: Timestamp) -> Result<(), StoreError> {
        self.run("recording what was posted", move |connection| {
            let sql = "UPDATE posts SET state = ?2, remote_id = ?3, reason = ?4, ended = ?5 WHERE key = ?1 AND state = 'open'";
            let mut update = connection.prepare_cached(sql)?;
            for (key, end) in &ended {
                let (state, id, reason) = match end {
                    PostEnd::Sent(id) => ("sent", Some(id.as_str()), None),
                    PostEnd::Refused(reason) => ("refused", None, Some(reason)),
                };
                update.execute(params![key, state, id, reason, millis(now)])?;
            }
            Ok(())
        })
        .await
    }

    /// Opens a refused post again; the account that posts it, or none if it is not refused.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn reopen_post(&self, key: &str) -> Result<Option<String>, StoreError> {
        let key = key.to_owned();
        self.run("opening a post again", move |connection| {
            let sql = "UPDATE posts SET state = 'open', reason = NULL, ended = NULL, first_attempt = NULL
                       WHERE key = ?1 AND state = 'refused' RETURNING account";
            connection.prepare_cached(sql)?.query_row([&key], |row| row.get(0)).optional()
        })
        .await
    }

    /// Gives up a post that is open or refused; whether there was one.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn drop_post(&self, key: &str, now: Timestamp) -> Result<bool, StoreError> {
        let key = key.to_owned();
        self.run("giving a post up", move |connection| {
            let sql = "UPDATE posts SET state = 'dropped', ended = ?2 WHERE key = ?1 AND state IN ('open', 'refused')";
            Ok(connection.prepare_cached(sql)?.execute(params![key, millis(now)])? == 1)
        })
        .await
    }

    /// Posts that were refused, the latest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn refused_posts(&self, limit: usize) -> Result<Vec<Post>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.run("listing refused posts", move |connection| {
            let sql =
                format!("SELECT {COLUMNS} FROM posts WHERE state = 'refused' ORDER BY ended DESC LIMIT ?1");
            connection.prepare_cached(&sql)?.query_map([limit], post_of)?.collect()
        })
        .await
    }

    /// Posts that are to be sent: key and account, in the order in which they were kept.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn open_posts(&self) -> Result<Vec<(String, String)>, StoreError> {
        self.run("listing posts", |connection| {
            let sql = "SELECT key, account FROM posts WHERE state = 'open' ORDER BY kept, length(key), key";
            connection.prepare_cached(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        })
        .await
    }

    /// The last posts, the latest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn posts(&self, limit: usize) -> Result<Vec<Post>, StoreError> {
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        self.run("listing posts", move |connection| {
            let sql = format!("SELECT {COLUMNS} FROM posts ORDER BY kept DESC, key DESC LIMIT ?1");
            connection.prepare_cached(&sql)?.query_map([limit], post_of)?.collect()
        })
        .await
    }
}
