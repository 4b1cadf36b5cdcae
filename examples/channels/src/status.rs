//! Statuses as Mastodon's API gives them, and their ids.

use std::cmp::Ordering;
use std::fmt;
use std::time::Duration;

use galerna_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::html;

/// The id of a status. Later statuses of a server have greater ids: longer ones, or of one length those later by their letters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StatusId(String);

impl StatusId {
    /// Takes an id as a server gives it.
    pub fn new(id: impl Into<String>) -> Self {
        Self(id.into())
    }

    /// Before all statuses.
    pub fn zero() -> Self {
        Self("0".to_owned())
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The first id that a status of this time can have, where ids hold their time as Mastodon's do: milliseconds, then 16 bits.
    pub fn at(time: Timestamp) -> Self {
        Self((time.as_millis().max(0).unsigned_abs() << 16).to_string())
    }

    /// An id that is earlier by so much; the same when ids of this server do not hold their time.
    #[must_use]
    pub fn earlier(&self, by: Duration) -> Self {
        let Ok(number) = self.0.parse::<u64>() else { return self.clone() };
        let millis = u64::try_from(by.as_millis()).unwrap_or(u64::MAX >> 16);
        Self(((number >> 16).saturating_sub(millis) << 16 | (number & 0xffff)).to_string())
    }
}

impl fmt::Display for StatusId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Ord for StatusId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.len().cmp(&other.0.len()).then_with(|| self.0.cmp(&other.0))
    }
}

impl PartialOrd for StatusId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Who may see a status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    /// Everybody, and it is in public timelines.
    Public,
    /// Everybody, but it is not in public timelines.
    #[default]
    Unlisted,
    /// Followers.
    Private,
    /// Those who are named in it; also what this version does not know.
    #[serde(other)]
    Direct,
}

/// Who wrote a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Author {
    /// The account's id on the server that was asked.
    pub id: String,
    /// `name` on that server, `name@host` elsewhere.
    pub acct: String,
}

/// A hashtag of a status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tag {
    /// Without `#`.
    pub name: String,
}

/// A status, as far as channels look at it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Its id on the server that was asked.
    pub id: StatusId,
    /// When it was written.
    pub created_at: Timestamp,
    /// Who wrote or boosted it.
    pub account: Author,
    /// The text, as HTML.
    pub content: String,
    /// A warning before the text.
    #[serde(default)]
    pub spoiler_text: String,
    /// Who may see it.
    pub visibility: Visibility,
    /// Its page.
    #[serde(default)]
    pub url: Option<String>,
    /// Its identity among all servers.
    pub uri: String,
    /// What language it is in.
    #[serde(default)]
    pub language: Option<String>,
    /// Whether its pictures are hidden at first.
    #[serde(default)]
    pub sensitive: bool,
    /// The status that it answers.
    #[serde(default)]
    pub in_reply_to_id: Option<StatusId>,
    /// Hashtags in it.
    #[serde(default)]
    pub tags: Vec<Tag>,
    /// The status that it boosts.
    #[serde(default)]
    pub reblog: Option<Box<Status>>,
}

impl Status {
    /// The text without HTML.
    pub fn text(&self) -> String {
        html::plain_text(&self.content)
    }

    /// What is to be repeated: the status that this one boosts, or itself.
    pub fn original(&self) -> &Status {
        self.reblog.as_deref().unwrap_or(self)
    }

    /// Its page, or its identity where it has none.
    pub fn link(&self) -> &str {
        self.url.as_deref().unwrap_or(&self.uri)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_ordered_as_their_server_gave_them() {
        let ids = ["9", "10", "117020574694606796", "117020582721532745", "AbcdefghijklmnopQR12"];
        let mut sorted: Vec<StatusId> = ids.iter().rev().map(|id| StatusId::new(*id)).collect();
        sorted.sort();
        assert_eq!(sorted.iter().map(StatusId::as_str).collect::<Vec<_>>(), ids);
    }

    #[test]
    fn an_id_holds_its_time() {
        // Of the recorded statuses: written at 2026-08-01T13:51:05.238Z, by a server that makes the id a little before or after.
        let id = StatusId::new("117020574694606796");
        let time = Timestamp::parse("2026-08-01T13:51:05.238Z").unwrap();
        assert!(StatusId::at(time.plus_millis(-50)) <= id && id < StatusId::at(time.plus_millis(50)));
        assert_eq!(id.earlier(Duration::ZERO), id);
        assert!(id.earlier(Duration::from_secs(60)) < StatusId::at(time.plus_millis(-59_900)));
        assert_eq!(StatusId::new("AbC").earlier(Duration::from_secs(60)), StatusId::new("AbC"));
    }

    #[test]
    fn the_recorded_statuses_are_read() {
        let statuses: Vec<Status> = serde_json::from_str(include_str!("../data/statuses.json")).unwrap();
        assert_eq!(statuses.len(), 12);
        assert_eq!(statuses[5].text(), "@mastodonpy_test beep beep I'm a jeep");
        assert_eq!(statuses[10].tags, [Tag { name: "hoot".to_owned() }]);
        assert_eq!(statuses[3].in_reply_to_id.as_ref(), Some(&statuses[2].id));
    }
}
