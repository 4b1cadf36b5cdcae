//! What was imported of meters' intervals: what counters made of intervals go on from.

use async_trait::async_trait;
use galerna_model::AccountId;

use crate::Result;

/// A part of what is known of a meter's intervals. What it holds is its owner's affair.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImportChunk {
    /// The account of the meter.
    pub account: AccountId,
    /// The meter.
    pub meter: String,
    /// Which part: a span of time, counted from 1970.
    pub number: i64,
    /// How often it was kept; 0 for one that is new.
    pub revision: u64,
    /// What it holds, up to some megabytes.
    pub data: Vec<u8>,
}

/// Store of what was imported.
#[async_trait]
pub trait Imports: Send + Sync + 'static {
    /// All parts of a meter, in the order of their numbers.
    async fn chunks(&self, account: &AccountId, meter: &str) -> Result<Vec<ImportChunk>>;

    /// Keeps parts, durable when it returns: each replaces the one of its number when that has its `revision`, and gets the
    /// next. Answers with whether all were kept; else others wrote some of them in between, and those are left as they are.
    async fn keep(&self, chunks: &[ImportChunk]) -> Result<bool>;

    /// Reserves so many sequence numbers for an account's readings and answers with the first. No two calls get the same;
    /// the first of all is 1.
    async fn reserve_sequence(&self, account: &AccountId, count: u64) -> Result<u64>;
}
