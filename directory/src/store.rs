//! Lists kept in the store.

use std::sync::Arc;

use async_trait::async_trait;
use galerna_model::{Account, Source};
use galerna_storage::{Accounts, Sources};

use crate::{AccountsSource, DirectoryError, Listing, SourcesSource};

/// The lists that the store holds.
#[derive(Clone)]
pub struct StoreDirectory {
    accounts: Arc<dyn Accounts>,
    sources: Arc<dyn Sources>,
}

impl StoreDirectory {
    /// Reads from these.
    pub fn new(accounts: Arc<dyn Accounts>, sources: Arc<dyn Sources>) -> Self {
        Self { accounts, sources }
    }
}

#[async_trait]
impl AccountsSource for StoreDirectory {
    fn describe(&self) -> String {
        "accounts of the store".to_owned()
    }

    async fn accounts(&self) -> Result<Listing<Account>, DirectoryError> {
        Ok(self.accounts.list().await?.into())
    }
}

#[async_trait]
impl SourcesSource for StoreDirectory {
    fn describe(&self) -> String {
        "sources of the store".to_owned()
    }

    async fn sources(&self) -> Result<Listing<Source>, DirectoryError> {
        Ok(self.sources.list().await?.into())
    }
}
