//! What the parts of a running program share.

use std::sync::Arc;

use galerna_delay::{DelayError, DelayStore, Item};
use galerna_model::{Clock, Timestamp};
use serde_json::Value;

use crate::accounts::Accounts;
use crate::network::Network;
use crate::store::Store;

/// What the parts of a running program share.
pub struct Context {
    /// What is kept.
    pub store: Store,
    /// The social network.
    pub network: Arc<dyn Network>,
    /// The accounts.
    pub accounts: Accounts,
    /// The time of day.
    pub clock: Arc<dyn Clock>,
    /// Posts on their way, in the order of each account.
    pub posts: DelayStore,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").finish_non_exhaustive()
    }
}

impl Context {
    /// The time now.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Has posts sent, as soon as those before them of their accounts are: key and account of each. Those that are on their way already
    /// stay as they are.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn send(&self, posts: Vec<(String, String)>) -> Result<(), DelayError> {
        let now = self.now();
        let item = |(key, account)| Item::new(key, now, Value::Null).key(account);
        self.posts.put(posts.into_iter().map(item).collect()).await.map(drop)
    }

    /// Tells people something; if that cannot be kept it is only logged.
    pub async fn notify(&self, about: &str, text: String) {
        tracing::warn!(about, "{text}");
        if let Err(error) = self.store.notify(about.to_owned(), text, self.now()).await {
            tracing::error!(%error, "a notice was not kept");
        }
    }
}
