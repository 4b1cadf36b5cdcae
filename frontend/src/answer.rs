//! What a call that was taken is answered with.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The readings that are safe, and those that were refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Accepted {
    /// How many readings the broker has confirmed.
    pub accepted: usize,
    /// The others.
    pub rejected: Vec<Rejected>,
}

/// A reading that was refused: sending it again as it is cannot help.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rejected {
    /// Its index in the call.
    pub index: usize,
    /// What is wrong with it, naming the field.
    pub reason: String,
}
