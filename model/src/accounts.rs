//! Accounts and sources.

use serde::{Deserialize, Serialize};

use crate::{AccountId, QueueName, SourceId};

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
