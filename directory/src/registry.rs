//! Sources kept in the store: who may post readings, changed while the system runs.

use std::sync::Arc;

use galerna_model::{Account, AccountId, NameError, QueueName, Source, SourceId};
use galerna_storage::{Accounts, Sources, StorageError};
use serde::{Deserialize, Serialize};

use crate::TokenHash;

/// Random bytes of a token that is made here.
const TOKEN_BYTES: usize = 32;

/// The sources of the store, and the accounts that own them.
///
/// Frontends read the list from the store when `maintainer.accounts` (or `frontend.sources`) is `store`. It holds hashes of tokens
/// only: a token that is made here is told once, by the call that makes it.
///
/// ```
/// use galerna_directory::SourceRegistry;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = tempfile::tempdir()?;
/// # let store = galerna_storage::open(&format!("embedded:{}", folder.path().join("store.db").display())).await?;
/// let registry = SourceRegistry::new(store.accounts.clone(), store.sources.clone());
/// let added = registry.add("meter-gateway-7", "Acme", None).await?;
/// assert!(added.token.is_some(), "it is told this once");
/// registry.remove("meter-gateway-7").await?;
/// assert!(!registry.list(None).await?[0].active);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SourceRegistry {
    accounts: Arc<dyn Accounts>,
    sources: Arc<dyn Sources>,
}

/// A source as it is shown: without its token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedSource {
    /// Its id.
    pub source: SourceId,
    /// The account that owns it.
    pub account: AccountId,
    /// The account's queue; none when the account is not in the store.
    pub queue: Option<QueueName>,
    /// Whether its readings are taken.
    pub active: bool,
}

/// A source that was added, or has a new token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AddedSource {
    /// Its id.
    pub source: SourceId,
    /// The account that owns it.
    pub account: AccountId,
    /// The account's queue.
    pub queue: QueueName,
    /// The token, when it was made here. It is kept nowhere.
    pub token: Option<String>,
    /// Whether the account was made too.
    pub new_account: bool,
    /// Whether the source was there, with another token, which is no longer taken.
    pub replaced: bool,
}

/// Why sources were not changed or read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// An id that no source or account can have.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A token that cannot be sent in a header.
    #[error(
        "the token must be visible ASCII characters without spaces, and not empty; leave it out for a random one"
    )]
    Token,
    /// The source posts for somebody else.
    #[error("source `{source_id}` posts for account `{owner}`; remove it first to give it to `{account}`")]
    OtherAccount {
        /// The source.
        source_id: SourceId,
        /// Whose it is.
        owner: AccountId,
        /// Who it was to be given to.
        account: AccountId,
    },
    /// The account is not active.
    #[error("account `{0}` is not active; its sources may not post until it is activated where it is kept")]
    InactiveAccount(AccountId),
    /// There is no such source.
    #[error("there is no source `{0}`; `galerna sources list` (GET /sources) shows those that there are")]
    UnknownSource(SourceId),
    /// The system has no randomness.
    #[error("the system gives no random bytes ({0}); name a token")]
    Random(String),
    /// The store could not be read or written.
    #[error("the sources cannot be read or changed: {0}")]
    Store(#[from] StorageError),
}

impl RegistryError {
    /// For programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Name(_) => "invalid_name",
            Self::Token => "invalid_token",
            Self::OtherAccount { .. } => "other_account",
            Self::InactiveAccount(_) => "inactive_account",
            Self::UnknownSource(_) => "unknown_source",
            Self::Random(_) => "no_randomness",
            Self::Store(_) => "unavailable",
        }
    }
}

impl SourceRegistry {
    /// The sources and accounts of these stores.
    pub fn new(accounts: Arc<dyn Accounts>, sources: Arc<dyn Sources>) -> Self {
        Self { accounts, sources }
    }

    /// All sources, those that were removed too, in the order of their ids; with an account only its own.
    ///
    /// # Errors
    /// [`RegistryError`] when the account's id cannot be one, or the store cannot be read.
    pub async fn list(&self, account: Option<&str>) -> Result<Vec<ListedSource>, RegistryError> {
        let account = account.map(AccountId::new).transpose()?;
        let accounts = self.accounts.list().await?;
        let sources = self.sources.list().await?;
        let wanted = sources.into_iter().filter(|s| account.as_ref().is_none_or(|a| s.account == *a));
        Ok(wanted
            .map(|source| {
                // Both lists are in the order of their ids.
                let found = accounts.binary_search_by(|a| a.id.as_str().cmp(source.account.as_str())).ok();
                let account = found.map(|at| &accounts[at]);
                ListedSource {
                    source: source.id,
                    queue: account.map(|a| a.queue.clone()),
                    active: source.active && account.is_some_and(|a| a.active),
                    account: source.account,
                }
            })
            .collect())
    }

    /// Adds a source, and its account when it is new; the queue of a new account has its name. A source that is there gets a
    /// new token. Without a token a random one is made.
    ///
    /// # Errors
    /// [`RegistryError`] when what is asked for contradicts what is there, or the store fails.
    pub async fn add(
        &self,
        source: &str,
        account: &str,
        token: Option<&str>,
    ) -> Result<AddedSource, RegistryError> {
        let (source, account) = (SourceId::for_customer(source)?, AccountId::for_customer(account)?);
        check_token(token)?;
        let before = self.find(&source).await?;
        if let Some(other) = before.as_ref().filter(|s| s.active && s.account != account) {
            return Err(RegistryError::OtherAccount {
                source_id: source,
                owner: other.account.clone(),
                account,
            });
        }
        let known = self.accounts.list().await?.into_iter().find(|a| a.id == account);
        let new_account = known.is_none();
        let queue = match known {
            Some(known) if !known.active => return Err(RegistryError::InactiveAccount(account)),
            Some(known) => known.queue,
            None => {
                let queue = QueueName::new(account.as_str())?;
                let name = account.to_string();
                let new = Account { id: account.clone(), name, queue: queue.clone(), active: true };
                self.accounts.put(&[new]).await?;
                queue
            }
        };
        let made = if token.is_none() { Some(random_token()?) } else { None };
        self.keep(&source, &account, made.as_deref().or(token).unwrap_or_default()).await?;
        let replaced = before.is_some_and(|s| s.active);
        Ok(AddedSource { source, account, queue, token: made, new_account, replaced })
    }

    /// Gives a source a new token; the one before is no longer taken. Without a token a random one is made.
    ///
    /// # Errors
    /// [`RegistryError`] when there is no such source that may post, or the store fails.
    pub async fn rotate(&self, source: &str, token: Option<&str>) -> Result<AddedSource, RegistryError> {
        let id = SourceId::new(source)?;
        let found = self.find(&id).await?.filter(|s| s.active);
        let Some(found) = found else { return Err(RegistryError::UnknownSource(id)) };
        self.add(source, found.account.as_str(), token).await
    }

    /// Takes no more readings from a source. Readings and counts name it, so its record stays, without a token.
    ///
    /// # Errors
    /// [`RegistryError`] when there is no such source, or the store fails.
    pub async fn remove(&self, source: &str) -> Result<ListedSource, RegistryError> {
        let id = SourceId::new(source)?;
        let Some(found) = self.find(&id).await? else { return Err(RegistryError::UnknownSource(id)) };
        let gone = Source { token_hash: String::new(), active: false, ..found };
        self.sources.put(std::slice::from_ref(&gone)).await?;
        Ok(ListedSource { source: gone.id, account: gone.account, queue: None, active: false })
    }

    async fn find(&self, source: &SourceId) -> Result<Option<Source>, RegistryError> {
        Ok(self.sources.list().await?.into_iter().find(|s| s.id == *source))
    }

    async fn keep(&self, source: &SourceId, account: &AccountId, token: &str) -> Result<(), RegistryError> {
        let token_hash = TokenHash::of(token).to_string();
        let record = Source { id: source.clone(), account: account.clone(), token_hash, active: true };
        Ok(self.sources.put(&[record]).await?)
    }
}

fn check_token(token: Option<&str>) -> Result<(), RegistryError> {
    let sendable = |token: &str| !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic());
    if token.is_none_or(sendable) { Ok(()) } else { Err(RegistryError::Token) }
}

fn random_token() -> Result<String, RegistryError> {
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).map_err(|e| RegistryError::Random(e.to_string()))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn sources_are_added_rotated_and_removed_and_only_hashes_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let address = format!("embedded:{}", folder.path().join("store.db").display());
        let store = galerna_storage::open(&address).await.unwrap();
        let registry = SourceRegistry::new(store.accounts.clone(), store.sources.clone());
        let hash = async || store.sources.list().await.unwrap()[0].token_hash.clone();

        let added = registry.add("s1", "Acme", Some("first-token-of-s1")).await.unwrap();
        assert!(added.new_account && !added.replaced && added.token.is_none());
        assert_eq!(hash().await, TokenHash::of("first-token-of-s1").to_string());

        let rotated = registry.rotate("s1", None).await.unwrap();
        let token = rotated.token.unwrap();
        assert!(rotated.replaced && !rotated.new_account && token.len() == 2 * TOKEN_BYTES);
        assert_eq!(hash().await, TokenHash::of(&token).to_string());

        assert_eq!(registry.add("s1", "Other", None).await.unwrap_err().code(), "other_account");
        assert_eq!(registry.list(Some("Acme")).await.unwrap().len(), 1);
        assert!(
            registry.list(Some("Other")).await.unwrap().is_empty(),
            "nothing is left of what was refused"
        );

        assert!(!registry.remove("s1").await.unwrap().active);
        assert_eq!(hash().await, "");
        assert!(!registry.list(None).await.unwrap()[0].active);
        for (refused, code) in [
            (registry.rotate("s1", None).await.unwrap_err(), "unknown_source"),
            (registry.remove("nobody").await.unwrap_err(), "unknown_source"),
            (registry.add("s2", "x.dead", None).await.unwrap_err(), "invalid_name"),
            (registry.add("s2", "X.DEAD", None).await.unwrap_err(), "invalid_name"),
            (registry.add("galerna.s2", "Acme", None).await.unwrap_err(), "invalid_name"),
            (registry.add("s2\u{202e}", "Acme", None).await.unwrap_err(), "invalid_name"),
            (registry.add("a b", "Acme", None).await.unwrap_err(), "invalid_name"),
            (registry.add("s2", "Acme", Some("a b")).await.unwrap_err(), "invalid_token"),
            (registry.add("s2", "Acme", Some("")).await.unwrap_err(), "invalid_token"),
        ] {
            assert_eq!(refused.code(), code, "{refused}");
        }
        // Who was removed may be given to somebody else.
        assert!(!registry.add("s1", "Other", None).await.unwrap().replaced);
    }
}
