//! The log of what came in, and searching it.

use galerna_model::Timestamp;
use rusqlite::{Row, params};
use serde::{Deserialize, Serialize};

use super::{Store, StoreError};
use crate::status::StatusId;

/// What is looked for. What is not named is not restricted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LogQuery {
    /// Of this channel.
    pub channel: Option<String>,
    /// `passed`, `blocked`, `sent`, or the reason of a block.
    pub outcome: Option<String>,
    /// Has all of these words, or parts of words, in its text, author, link or reason.
    pub text: Option<String>,
    /// Before this number, to read on.
    pub before: Option<i64>,
    /// So many at most; 50 unless said.
    pub limit: Option<usize>,
}

/// A status that came in, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LogEntry {
    /// Its number in the log.
    pub number: i64,
    /// The channel.
    pub channel: String,
    /// Its id.
    pub id: StatusId,
    /// When it was recorded.
    pub at: Timestamp,
    /// Who wrote it.
    pub author: String,
    /// Its page.
    pub link: String,
    /// Its text.
    pub text: String,
    /// Why it was blocked; none if it passed.
    pub reason: Option<String>,
    /// By which word or name it was blocked.
    pub by: String,
    /// The key of the post that it asked for.
    pub post: Option<String>,
    /// `open`, `sent` or `dropped`, if it asked for a post.
    pub state: Option<String>,
    /// The post on the server.
    pub remote_id: Option<StatusId>,
}

/// Most entries that are read at once.
const MOST: usize = 1_000;

fn entry_of(row: &Row<'_>) -> rusqlite::Result<LogEntry> {
    Ok(LogEntry {
        number: row.get(0)?,
        channel: row.get(1)?,
        id: StatusId::new(row.get::<_, String>(2)?),
        at: Timestamp(row.get(3)?),
        author: row.get(4)?,
        link: row.get(5)?,
        text: row.get(6)?,
        reason: row.get(7)?,
        by: row.get(8)?,
        post: row.get(9)?,
        state: row.get(10)?,
        remote_id: row.get::<_, Option<String>>(11)?.map(StatusId::new),
    })
}

impl Store {
    /// Entries of the log, the latest first.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn log(&self, query: LogQuery) -> Result<Vec<LogEntry>, StoreError> {
        let limit = i64::try_from(query.limit.unwrap_or(50).min(MOST)).unwrap_or(50);
        let words: Vec<String> = query
            .text
            .iter()
            .flat_map(|text| text.split_whitespace())
            .map(|word| {
                let escaped =
                    word.to_lowercase().replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
                format!("%{escaped}%")
            })
            .collect();
        self.run("searching the log", move |connection| {
            let mut sql = "SELECT s.seq, s.channel, s.id, s.at, s.author, s.link, s.text, s.reason, s.blocked_by, s.post, p.state, p.remote_id
                 FROM statuses AS s LEFT JOIN posts AS p ON p.key = s.post
                 WHERE s.seq < ?1 AND (?2 IS NULL OR s.channel = ?2)
                 AND (?3 IS NULL OR (?3 = 'passed' AND s.reason IS NULL) OR (?3 = 'blocked' AND s.reason IS NOT NULL)
                      OR p.state = ?3 OR s.reason = ?3)"
                .to_owned();
            let mut values: Vec<Box<dyn rusqlite::ToSql>> = vec![
                Box::new(query.before.unwrap_or(i64::MAX)),
                Box::new(query.channel.clone()),
                Box::new(query.outcome.clone()),
            ];
            for word in &words {
                values.push(Box::new(word.clone()));
                sql.push_str(&format!(" AND s.search LIKE ?{} ESCAPE '\\'", values.len()));
            }
            values.push(Box::new(limit));
            sql.push_str(&format!(" ORDER BY s.seq DESC LIMIT ?{}", values.len()));
            let values = rusqlite::params_from_iter(values.iter());
            connection.prepare(&sql)?.query_map(values, entry_of)?.collect()
        })
        .await
    }

    /// Forgets statuses that were recorded before a time, and the posts of that time that have ended. How many statuses.
    ///
    /// What is forgotten would be taken for new if it came again, so it must be older than any channel looks back.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget(&self, before: Timestamp) -> Result<usize, StoreError> {
        self.run("forgetting old statuses", move |connection| {
            connection.execute(
                "DELETE FROM posts WHERE state != 'open' AND ended < ?1",
                params![before.as_millis()],
            )?;
            connection.execute("DELETE FROM statuses WHERE at < ?1", params![before.as_millis()])
        })
        .await
    }
}
