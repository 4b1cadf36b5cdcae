//! The lease protocol as consumers see it, in process or over HTTP.

use std::time::Duration;

use async_trait::async_trait;
use galerna_model::QueueName;
use serde::{Deserialize, Serialize};

/// Gives a queue back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// The queue.
    pub queue: QueueName,
    /// Epoch of the lease.
    pub epoch: u64,
    /// Whether the consumer found it without messages.
    #[serde(default)]
    pub empty: bool,
}

/// Asks for leases.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NextRequest {
    /// Who asks; shown to operators.
    pub consumer: String,
    /// How long to wait for a queue when there is none to lease.
    pub wait: Duration,
    /// At most so many leases; at least 1.
    pub count: usize,
    /// Leases to give back first, in the same round trip.
    pub release: Vec<Release>,
    /// What the consumer knows this request by: a text of its own for each. When the answer is lost, the consumer asks
    /// again with the same one, and is given what it holds already.
    pub request: Option<String>,
    /// Whether this request was made before, with the same [`request`](Self::request).
    pub retry: bool,
}

/// A lease granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedLease {
    /// The queue.
    pub queue: QueueName,
    /// Epoch: renew and release with it.
    pub epoch: u64,
    /// How long it lasts, counted by the holder from *before* its request, by a monotonic clock.
    pub expires_in_ms: u64,
    /// The strategy that chose it.
    pub strategy: String,
}

/// Answer to a renewal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Renewed {
    /// How long it lasts from *before* the renewal's request.
    pub expires_in_ms: u64,
    /// The queue was paused or is to be deleted: stop consuming and release.
    pub revoked: bool,
}

/// Why a lease call failed.
#[derive(Debug, thiserror::Error)]
pub enum LeaseError {
    /// An operator stopped the dispatcher.
    #[error("dispatcher is stopped; start it to lease queues")]
    Stopped,
    /// The lease is no longer the holder's: another epoch is in force, or it expired.
    #[error("epoch {epoch} of queue `{queue}` is stale; stop consuming it")]
    StaleEpoch {
        /// The queue.
        queue: QueueName,
        /// The epoch presented.
        epoch: u64,
    },
    /// There is no such queue.
    #[error("queue `{0}` is unknown to the dispatcher")]
    UnknownQueue(QueueName),
    /// The dispatcher or its store cannot be reached; try again.
    #[error("dispatcher is unavailable: {0}")]
    Unavailable(String),
    /// The request was refused as wrong.
    #[error("dispatcher refused the request: {0}")]
    Refused(String),
}

/// Where consumers get their leases: the dispatcher in this process, or a client of one elsewhere.
#[async_trait]
pub trait Leases: Send + Sync + 'static {
    /// Leases up to `count` queues; empty when none came within `wait`.
    ///
    /// A release in the request that is stale is ignored. When the answer is lost, the consumer may ask again with the same
    /// [`request`](NextRequest::request): leases that were granted to it and live are renewed and given again. Else they
    /// expire by themselves.
    async fn next(&self, request: NextRequest) -> Result<Vec<GrantedLease>, LeaseError>;

    /// Extends a lease.
    async fn renew(&self, queue: &QueueName, epoch: u64) -> Result<Renewed, LeaseError>;

    /// Gives a lease back.
    async fn release(&self, release: &Release) -> Result<(), LeaseError>;
}
