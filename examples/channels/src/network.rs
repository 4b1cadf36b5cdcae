//! What channels need of a social network.

use std::time::Duration;

use async_trait::async_trait;

use crate::channel::{Account, Source, Text};
use crate::length::LengthLimits;
use crate::status::{Author, Status, StatusId};

/// Why a call failed, by what is to be done about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// The token is not valid any more: nothing works until there is another.
    #[error("the server refuses the token ({0}); give the account another one")]
    Revoked(String),
    /// The server wants no call of this kind for so long.
    #[error("the server allows no further call for {} s", .0.as_secs())]
    Limited(Duration),
    /// What was asked for is not there.
    #[error("there is no {0}")]
    NotFound(String),
    /// The server refuses just this; the same would be refused again.
    #[error("the server refuses it ({status}): {message}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// What the server said.
        message: String,
    },
    /// The server does not answer, or not sensibly: the same may work later.
    #[error("the server is not to be had: {0}")]
    Unavailable(String),
}

/// Which statuses are asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The latest, as many as this.
    Latest(usize),
    /// The first ones after this, the oldest of them first.
    After(StatusId),
}

/// What a stream tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A new status.
    Status(Box<Status>),
    /// Anything else: that it is alive, edits, deletions.
    Other,
}

/// An open stream. Dropping it closes it.
#[async_trait]
pub trait EventStream: Send {
    /// The next event. Cancel-safe.
    ///
    /// # Errors
    /// When the stream was cut, or was silent for too long.
    async fn next(&mut self) -> Result<Event, NetworkError>;
}

/// A social network: Mastodon's API, or what tests put in its place.
#[async_trait]
pub trait Network: Send + Sync + 'static {
    /// Whose token it is.
    ///
    /// # Errors
    /// See [`NetworkError`].
    async fn whoami(&self, account: &Account) -> Result<Author, NetworkError>;

    /// How long statuses may be.
    ///
    /// # Errors
    /// See [`NetworkError`].
    async fn length_limits(&self, account: &Account) -> Result<LengthLimits, NetworkError>;

    /// A page of statuses, the oldest first. Empty when there are none.
    ///
    /// # Errors
    /// See [`NetworkError`].
    async fn page(&self, account: &Account, source: &Source, ask: Ask) -> Result<Vec<Status>, NetworkError>;

    /// Opens a stream; none if this source has none and is to be asked for pages.
    ///
    /// # Errors
    /// See [`NetworkError`].
    async fn stream(
        &self,
        account: &Account,
        source: &Source,
    ) -> Result<Option<Box<dyn EventStream>>, NetworkError>;

    /// Writes a status; a second call with the same key within an hour gives the same status.
    ///
    /// # Errors
    /// See [`NetworkError`].
    async fn post(
        &self,
        account: &Account,
        text: &Text,
        composed: &str,
        key: &str,
    ) -> Result<StatusId, NetworkError>;

    /// Boosts a status; boosting again changes nothing.
    ///
    /// # Errors
    /// See [`NetworkError`].
    async fn boost(&self, account: &Account, id: &StatusId) -> Result<StatusId, NetworkError>;

    /// The id on the account's server of a status of another, by its identity.
    ///
    /// # Errors
    /// See [`NetworkError`].
    async fn resolve(&self, account: &Account, uri: &str) -> Result<StatusId, NetworkError>;
}
