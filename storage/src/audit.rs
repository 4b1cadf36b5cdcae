//! What operators did: who, what, to what, why and when.

use async_trait::async_trait;
use galerna_model::Timestamp;
use serde::{Deserialize, Serialize};

use crate::Result;

/// One thing that somebody did, or tried to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    /// Key: no two are alike, so that any number of processes may write. Entries of one time are listed in its order.
    pub id: String,
    /// When.
    pub at: Timestamp,
    /// The role that allowed it, for instance `operator`.
    pub role: String,
    /// The name that whoever did it gave, possibly empty. Nobody checked it.
    pub who: String,
    /// What was done, for instance `queue.pause`.
    pub action: String,
    /// To what: a queue, a rule, an endpoint, ….
    pub target: String,
    /// Why, if a reason was given.
    pub why: Option<String>,
    /// What came of it, for people.
    pub outcome: String,
    /// Whether it was done.
    pub done: bool,
}

/// Store of what operators did. Nothing is ever changed or removed.
#[async_trait]
pub trait AuditLog: Send + Sync + 'static {
    /// Adds an entry, durable; one whose id is known is left.
    async fn record(&self, entry: &AuditEntry) -> Result<()>;

    /// Entries, newest first; with `search` only those that hold this text, in either case, in who, action, target, why or
    /// outcome.
    async fn list(&self, search: Option<&str>, offset: usize, limit: usize) -> Result<Vec<AuditEntry>>;
}

impl AuditEntry {
    /// What [`AuditLog::list`] searches, in lower case.
    pub(crate) fn searched(&self) -> String {
        let why = self.why.as_deref().unwrap_or_default();
        [&self.role, &self.who, &self.action, &self.target, why, &self.outcome].join("\n").to_lowercase()
    }
}
