//! What is kept: posts with their versions, counts, and alerts.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use async_trait::async_trait;
use galerna_model::Timestamp;
use galerna_topology::prelude::Fault;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A post as a source has it now.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Post {
    /// Its id at its source.
    pub id: String,
    /// When it was posted.
    pub at: Timestamp,
    /// Who posted it.
    pub author: String,
    /// What it says.
    pub text: String,
}

/// What a server said to tell by whether a page has changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Validators {
    /// `ETag`.
    pub etag: Option<String>,
    /// `Last-Modified`.
    pub modified: Option<String>,
    /// Where the page led to.
    pub next: Option<String>,
}

/// A page that was fetched.
#[derive(Debug, Clone)]
pub struct Page {
    /// The source's name.
    pub source: String,
    /// Whose posts they are.
    pub group: String,
    /// The page's address.
    pub url: String,
    /// What to ask with the next time.
    pub validators: Validators,
    /// What it lists.
    pub posts: Vec<Post>,
}

/// What a page had that was not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Saved {
    /// Posts seen for the first time.
    pub new: u64,
    /// Posts that say something else than before.
    pub edited: u64,
}

/// A version of a post whose keywords have not been counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Version {
    /// The post: source and id.
    pub post: String,
    /// 1, and one more with each edit.
    pub version: i64,
    /// Whose it is.
    pub group: String,
    /// When it was posted: the day, in UTC.
    pub day: String,
    /// What it says.
    pub text: String,
}

/// A version whose keywords have been counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapped {
    /// The version.
    pub version: Version,
    /// How often each group of words is in it.
    pub counts: BTreeMap<String, u64>,
}

/// How often a group of words was in the posts of a group on a day: in the last version of each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Target {
    /// The group of words.
    pub keyword: String,
    /// Whose posts.
    pub group: String,
    /// The day, in UTC: `2026-05-01`.
    pub day: String,
    /// How often.
    pub count: u64,
}

/// Something that who watches is told, once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alert {
    /// Rule, group and day: by it a receiver can tell that it has had the alert.
    pub id: String,
    /// The rule.
    pub rule: String,
    /// Whose posts.
    pub group: String,
    /// The day.
    pub day: String,
    /// In words.
    pub text: String,
}

/// How much there is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Posts.
    pub posts: u64,
    /// Versions of posts.
    pub versions: u64,
    /// Versions whose keywords have not been counted.
    pub unmapped: u64,
    /// Alerts.
    pub alerts: u64,
    /// Alerts that were not delivered.
    pub undelivered: u64,
}

/// An operation on the store that failed.
#[derive(Debug, thiserror::Error)]
#[error("{attempted}: {cause}")]
pub struct StoreError {
    /// What was tried.
    pub attempted: &'static str,
    /// Whether the same may succeed later.
    pub passes: bool,
    /// What the database said.
    pub cause: String,
}

impl StoreError {
    /// As a bolt fails with it: what passes, the tuple has no part in.
    pub(crate) fn fault(&self) -> Fault {
        let text = self.to_string();
        if self.passes { Fault::unavailable(text) } else { Fault::transient(text) }
    }
}

/// The name of a post among those of all sources.
pub(crate) fn name_of(source: &str, post: &Post) -> String {
    format!("{source}/{}", post.id)
}

/// The day of a time, in UTC.
pub(crate) fn day_of(at: Timestamp) -> String {
    at.to_string().chars().take_while(|c| *c != 'T').collect()
}

/// An alert as it is stored.
pub(crate) fn record_of(alert: &Alert) -> Result<String, StoreError> {
    serde_json::to_string(alert).map_err(|error| StoreError {
        attempted: "raising an alert",
        passes: false,
        cause: error.to_string(),
    })
}

/// What tells versions apart.
pub(crate) fn hash_of(post: &Post) -> String {
    Sha256::digest(post.text.as_bytes()).iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Where it is kept. Each call is one transaction.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// What was said of a page the last time.
    async fn validators(&self, url: &str) -> Result<Validators, StoreError>;
    /// Keeps what a page lists: a post once, an edit as another version.
    async fn save(&self, page: Page) -> Result<Saved, StoreError>;
    /// Versions whose keywords have not been counted, `most` at most.
    async fn unmapped(&self, most: u32) -> Result<Vec<Version>, StoreError>;
    /// Keeps counts, and makes the targets of their groups and days anew.
    async fn map(&self, mapped: Vec<Mapped>) -> Result<(), StoreError>;
    /// Targets from a day on, by day, group and keyword.
    async fn targets(&self, from: &str) -> Result<Vec<Target>, StoreError>;
    /// Keeps alerts that are not there yet. How many.
    async fn raise(&self, alerts: Vec<Alert>) -> Result<u64, StoreError>;
    /// Alerts that were not delivered, `most` at most.
    async fn undelivered(&self, most: u32) -> Result<Vec<Alert>, StoreError>;
    /// An alert was delivered.
    async fn delivered(&self, id: &str) -> Result<(), StoreError>;
    /// The latest alerts, `most` at most.
    async fn alerts(&self, most: u32) -> Result<Vec<Alert>, StoreError>;
    /// How much there is.
    async fn counts(&self) -> Result<Counts, StoreError>;
    /// Lets go of everything; later calls fail.
    async fn close(&self);
}
