//! What each source, each account and all together have sent: by hour, day, week and month, and the last messages.
//!
//! A *message* is an accepted call, a *reading* what one device measured at one time, a *value* one number of it; what was
//! refused is not counted. Who counts keeps the counts in memory and adds them in batches; a batch is added once, however
//! often it is tried. Any number of processes may add to one store.

mod period;

use std::ops::AddAssign;
use std::sync::Arc;

use async_trait::async_trait;
use galerna_model::{AccountId, SourceId, Timestamp};
use serde::Serialize;

pub use self::period::Period;
use crate::Result;

/// Last messages kept of each source.
pub const LAST_MESSAGES: usize = 10;

/// Batches of a writer between two looks for what can be forgotten.
pub(crate) const FORGET_EVERY: u64 = 720;

/// Counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Tally {
    /// Accepted calls.
    pub messages: u64,
    /// Readings accepted in them.
    pub readings: u64,
    /// Values of those readings.
    pub values: u64,
}

impl AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.messages += other.messages;
        self.readings += other.readings;
        self.values += other.values;
    }
}

/// Whose counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All sources.
    All,
    /// Those of an account.
    Account(AccountId),
    /// One source.
    Source(SourceId),
}

impl Scope {
    /// Its kind and its key, as stores write them.
    pub fn key(&self) -> (&'static str, &str) {
        match self {
            Self::All => ("all", ""),
            Self::Account(id) => ("account", id.as_str()),
            Self::Source(id) => ("source", id.as_str()),
        }
    }

    /// Whether what a source of an account sends counts here.
    pub fn covers(&self, source: &SourceId, account: &AccountId) -> bool {
        match self {
            Self::All => true,
            Self::Account(id) => id == account,
            Self::Source(id) => id == source,
        }
    }
}

/// An accepted call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LastMessage {
    /// Id of the request, which is the beginning of the ids of its envelopes.
    pub id: String,
    /// When it came.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub received: Timestamp,
    /// Readings accepted.
    pub readings: u64,
    /// Readings refused.
    pub rejected: u64,
    /// The beginning of its body. Whoever sent it chose what stands here: escape it where it is shown.
    pub text: String,
    /// Whether the body was longer.
    pub cut: bool,
}

/// What was counted between two flushes.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Batch {
    /// The process that counted.
    pub writer: String,
    /// Grows with every batch of a writer. A store that has this one or a later one already must add nothing.
    pub number: u64,
    /// To be added.
    pub tallies: Vec<(Scope, Period, Timestamp, Tally)>,
    /// To be kept, oldest first, [`LAST_MESSAGES`] a source.
    pub messages: Vec<(SourceId, LastMessage)>,
    /// When it was made.
    pub at: Timestamp,
}

/// Where statistics are kept.
///
/// Reads tell the number of the last batch of a writer that they saw, from the same snapshot, so that the writer can add what
/// it still holds without counting anything twice.
#[async_trait]
pub trait StatisticsStore: Send + Sync + 'static {
    /// Adds a batch once: adding it again changes nothing. After a failure or a cancellation it may be there in part, or
    /// still come: nothing of it shows to its writer until it is whole, and adding it again completes it.
    async fn add(&self, batch: Arc<Batch>) -> Result<()>;

    /// The counts of each scope, for each of these periods in order, and the number of `writer`'s last batch (0: none).
    async fn tallies(
        &self,
        scopes: &[Scope],
        periods: &[(Period, Timestamp)],
        writer: &str,
    ) -> Result<(Vec<Vec<Tally>>, u64)>;

    /// The last messages of a source, newest first, with those of `writer`'s batches up to the number in the answer; some of
    /// later ones may be there too.
    async fn last_messages(&self, source: &SourceId, writer: &str) -> Result<(Vec<LastMessage>, u64)>;
}
