//! Recording what came in.

use std::sync::Arc;

use galerna_model::Timestamp;
use rusqlite::{Connection, params};

use super::{Store, StoreError, millis, to_sql_error};
use crate::channel::Channel;
use crate::filter::Blocked;
use crate::status::{Status, StatusId};

/// Statuses that came in together, each with what the filters say.
#[derive(Debug, Clone)]
pub struct JudgedPage {
    /// The channel, as it was when they came.
    pub channel: Arc<Channel>,
    /// Those before were there before the channel was on.
    pub began: StatusId,
    /// The statuses, the oldest first; why it was blocked, if it was.
    pub statuses: Arc<Vec<(Status, Option<Blocked>)>>,
}

/// What was new of a page.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recorded {
    /// Those that passed.
    pub passed: u64,
    /// Those that did not.
    pub blocked: u64,
    /// Those that had been recorded before.
    pub duplicates: u64,
    /// The posts that they ask for: key and account.
    pub posts: Vec<(String, String)>,
}

/// The key of the post that a status asks for.
fn key_of(channel: &str, id: &StatusId) -> String {
    format!("{channel}/{id}")
}

impl Store {
    /// Logs statuses, keeps the posts that they ask for, and moves the cursors of their channels, all in one transaction. What was
    /// recorded before is not recorded again, and its posts, if they are still open, are told again.
    ///
    /// # Errors
    /// When the store fails; nothing is recorded then.
    pub async fn record(&self, pages: Vec<JudgedPage>, now: Timestamp) -> Result<Vec<Recorded>, StoreError> {
        self.run("recording statuses", move |connection| {
            pages.iter().map(|page| record_page(connection, page, now)).collect()
        })
        .await
    }
}

fn record_page(connection: &Connection, page: &JudgedPage, now: Timestamp) -> rusqlite::Result<Recorded> {
    let channel = &page.channel;
    let mut recorded = Recorded::default();
    let mut log = connection.prepare_cached(
        "INSERT INTO statuses (channel, id, at, author, link, text, reason, blocked_by, post, search)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10) ON CONFLICT DO NOTHING",
    )?;
    let mut keep = connection.prepare_cached(
        "INSERT INTO posts (key, account, draft, kept, state) VALUES (?1, ?2, ?3, ?4, 'open') ON CONFLICT DO NOTHING",
    )?;
    let mut open =
        connection.prepare_cached("SELECT account FROM posts WHERE key = ?1 AND state = 'open'")?;
    for (status, blocked) in page.statuses.iter() {
        if status.id <= page.began {
            continue;
        }
        let draft = if blocked.is_none() { channel.draft(status) } else { None };
        let key = draft.as_ref().map(|_| key_of(&channel.name, &status.id));
        let text = status.original().text();
        let reason = blocked.as_ref().map(Blocked::name);
        let by = blocked.as_ref().map_or("", Blocked::by);
        let author = &status.original().account.acct;
        let link = status.original().link();
        let search = format!("{author}\n{link}\n{text}\n{}\n{by}", reason.unwrap_or("passed")).to_lowercase();
        let new = log.execute(params![
            channel.name,
            status.id.as_str(),
            millis(now),
            author,
            link,
            text,
            reason,
            by,
            key,
            search
        ])? == 1;
        match (new, blocked) {
            (false, _) => recorded.duplicates += 1,
            (true, None) => recorded.passed += 1,
            (true, Some(_)) => recorded.blocked += 1,
        }
        let Some((key, (account, draft))) = key.zip(draft) else { continue };
        if new {
            let draft = serde_json::to_string(&draft).map_err(to_sql_error)?;
            keep.execute(params![key, account, draft, millis(now)])?;
            recorded.posts.push((key, account.to_owned()));
        } else if let Some(account) = open.query_map([&key], |row| row.get(0))?.next() {
            recorded.posts.push((key, account?));
        }
    }
    let last = page.statuses.iter().map(|(status, _)| &status.id).max();
    if let Some(last) = last {
        // A page of a channel that was removed, or told to follow something else, moves nothing.
        let sql = "UPDATE channels SET cursor = ?2 WHERE name = ?1 AND cursor IS NOT NULL
                   AND (length(?2), ?2) > (length(cursor), cursor)";
        connection.prepare_cached(sql)?.execute([channel.name.as_str(), last.as_str()])?;
    }
    Ok(recorded)
}
