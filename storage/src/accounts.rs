//! The stores of accounts and sources.

use async_trait::async_trait;
use galerna_model::{Account, Source};

use crate::Result;

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
