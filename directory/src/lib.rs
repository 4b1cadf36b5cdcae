//! Where the lists of accounts and of sources come from: an [HTTP API](HttpDirectory), a [file](FileDirectory), or the
//! [store](StoreDirectory).
//!
//! ```
//! use galerna_directory::{AccountsSource, FileDirectory};
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("accounts.csv");
//! std::fs::write(&path, "id,name,queue\n591,Acme,D0000591\nodd id,,D2\n")?;
//! let list = FileDirectory::new(path)?.accounts().await?;
//! assert_eq!(list.entries[0].queue.as_str(), "D0000591");
//! assert_eq!(list.issues.len(), 1, "an id holds no space; the entry is told apart");
//! # Ok(())
//! # }
//! ```
//!
//! A list is either whole or an error. A source that cannot prove that it has read everything must not answer with
//! what it has: the maintainer would take the rest for gone. A single entry that is wrong does not spoil the list; it
//! is told apart as an [`Issue`], and what it names is left as it is.
//!
//! What is kept in the store is changed by a [`SourceRegistry`]; all else is only read. Tokens are known by their [hash](TokenHash).
//! The crate must not depend on a broker's implementation. With the feature `api` it has a small server of such lists,
//! `AccountsApi`, for trying and for tests.

#[cfg(feature = "api")]
mod api;
mod entry;
mod file;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod http;
mod registry;
mod store;
mod token;

use std::time::Duration;

use async_trait::async_trait;
use galerna_model::{Account, Source};
use serde::{Deserialize, Serialize};

#[cfg(feature = "api")]
pub use api::AccountsApi;
pub use file::FileDirectory;
pub use http::{HttpDirectory, HttpOptions};
pub use registry::{AddedSource, ListedSource, RegistryError, SourceRegistry};
pub use store::StoreDirectory;
pub use token::{TokenHash, TokenHashError};

/// Most entries taken from one list; a longer list is refused, since it would not fit in memory with what it causes.
pub const MAX_ENTRIES: usize = 1_000_000;

/// An entry of a list that cannot be taken as it stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Issue {
    /// The key as the entry has it, when it has one.
    pub id: Option<String>,
    /// The queue as the entry has it, when it has one.
    pub queue: Option<String>,
    /// What is wrong, for people.
    pub problem: String,
}

impl std::fmt::Display for Issue {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.id {
            // Ids that break their rule may be of any length.
            Some(id) => {
                write!(f, "`{}`: {}", id.chars().take(120).collect::<String>(), self.problem)
            }
            None => write!(f, "entry without an id: {}", self.problem),
        }
    }
}

/// A whole list, with the entries that could not be taken told apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing<T> {
    /// The entries that are right, in the order of the list.
    pub entries: Vec<T>,
    /// The entries that are wrong.
    pub issues: Vec<Issue>,
}

impl<T> Default for Listing<T> {
    fn default() -> Self {
        Self { entries: Vec::new(), issues: Vec::new() }
    }
}

impl<T> From<Vec<T>> for Listing<T> {
    fn from(entries: Vec<T>) -> Self {
        Self { entries, issues: Vec::new() }
    }
}

/// Why a list could not be read whole.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DirectoryError {
    /// The API cannot be reached, or broke off; it may be tried again.
    #[error("cannot read {from}: {cause}; check that the API runs and can be reached from here")]
    Unreachable {
        /// The address or file.
        from: String,
        /// What the transport said.
        cause: String,
    },
    /// The API did not answer in time; it may be tried again.
    #[error("{from} did not answer within {waited:?}; it is slow or hangs")]
    Timeout {
        /// The address.
        from: String,
        /// How long was waited.
        waited: Duration,
    },
    /// The API answered with a status that is not 200.
    #[error("{from} answered with status {status}: {body}")]
    Status {
        /// The address.
        from: String,
        /// The HTTP status.
        status: u16,
        /// The start of what it said.
        body: String,
    },
    /// An answer or file is larger than allowed.
    #[error("{from} is larger than {limit} {unit}; raise the limit or ask for smaller pages")]
    TooLarge {
        /// The address or file.
        from: String,
        /// The limit.
        limit: usize,
        /// Of what: bytes, entries or pages.
        unit: &'static str,
    },
    /// What was read is not in the documented form, or ends too early.
    #[error("cannot understand {from}: {cause}")]
    Malformed {
        /// The address or file.
        from: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The pages contradict each other or the total: something is missing, so nothing is taken.
    #[error("the pages of {from} contradict each other: {contradiction}; nothing of the list was taken")]
    Contradiction {
        /// The address.
        from: String,
        /// Which numbers do not fit.
        contradiction: String,
    },
    /// The store could not be read.
    #[error("cannot read the list from the store: {0}")]
    Store(#[from] galerna_storage::StorageError),
    /// A setting is wrong.
    #[error("{0}")]
    Invalid(String),
}

impl DirectoryError {
    /// Whether trying again may help.
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::Timeout { .. } | Self::Contradiction { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 425 | 429 | 500..=599),
            _ => false,
        }
    }
}

/// A source of the list of accounts.
#[async_trait]
pub trait AccountsSource: Send + Sync + 'static {
    /// What it reads, for logs: an address without secrets, a path.
    fn describe(&self) -> String;

    /// The whole list of accounts. Cancellation-safe: it changes nothing.
    ///
    /// # Errors
    /// [`DirectoryError`] whenever the list is not known to be whole.
    async fn accounts(&self) -> Result<Listing<Account>, DirectoryError>;
}

/// A source of the list of sources of readings.
#[async_trait]
pub trait SourcesSource: Send + Sync + 'static {
    /// What it reads, for logs: an address without secrets, a path.
    fn describe(&self) -> String;

    /// The whole list of sources. Cancellation-safe: it changes nothing.
    ///
    /// # Errors
    /// [`DirectoryError`] whenever the list is not known to be whole.
    async fn sources(&self) -> Result<Listing<Source>, DirectoryError>;
}
