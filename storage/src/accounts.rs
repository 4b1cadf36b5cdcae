//! Accounts and sources.

use async_trait::async_trait;
use galerna_broker::{AccountId, QueueName, SourceId};
use serde::{Deserialize, Serialize};

use crate::Result;

/// A customer account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Key.
    pub id: AccountId,
    /// For people.
    pub name: String,
    /// Its queue.
    pub queue: QueueName,
    /// Whether it is served.
    pub active: bool,
}

/// A source of readings: one concentrator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Key.
    pub id: SourceId,
    /// The account that owns it.
    pub account: AccountId,
    /// Hash of the token, never the token itself.
    pub token_hash: String,
    /// Whether its readings are taken.
    pub active: bool,
}

/// Store of accounts.
#[async_trait]
pub trait Accounts: Send + Sync + 'static {
    /// All accounts, by id.
    async fn list(&self) -> Result<Vec<Account>>;
    /// Creates or replaces accounts.
    async fn put(&self, accounts: &[Account]) -> Result<()>;
}

/// Store of sources.
#[async_trait]
pub trait Sources: Send + Sync + 'static {
    /// All sources, by id.
    async fn list(&self) -> Result<Vec<Source>>;
    /// Creates or replaces sources.
    async fn put(&self, sources: &[Source]) -> Result<()>;
}
