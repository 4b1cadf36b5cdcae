//! What can go wrong at the boundary of the crate.

use galerna_broker::BrokerError;
use galerna_storage::StorageError;

/// Why a call of the notifier failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NotifierError {
    /// An option is wrong.
    #[error("notifier's option {0}")]
    Option(String),
    /// An endpoint or a silence is wrong.
    #[error(transparent)]
    Field(#[from] FieldError),
    /// There is no such endpoint, rule or delivery.
    #[error("there is no {what} `{id}`")]
    Unknown {
        /// What was looked for.
        what: &'static str,
        /// By this id.
        id: String,
    },
    /// The broker could not be reached, or refused.
    #[error(transparent)]
    Broker(#[from] BrokerError),
    /// The store could not be reached, or refused.
    #[error(transparent)]
    Store(#[from] StorageError),
}

/// A field of an endpoint or a silence that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct FieldError {
    /// The field, as it is called in JSON; with an index or key where it has several values.
    pub field: String,
    /// What is wrong with it, and what to write.
    pub problem: String,
}

impl FieldError {
    pub(crate) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self { field: field.into(), problem: problem.into() }
    }
}
