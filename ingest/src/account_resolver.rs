//! Whose queue it is.

use std::collections::HashMap;
use std::sync::Arc;

use async_trait::async_trait;
use futures_util::future::join_all;
use galerna_lease::{GrantedLease, LeaseError, Leases, NextRequest, Release, Renewed};
use galerna_lock::RwLock;
use galerna_model::{AccountId, QueueName};
use galerna_storage::QueueStates;

use crate::AccountOf;

/// Looks up the account of a queue when it is leased for the first time, so that it is known before the first message is.
///
/// A queue belongs to one account for as long as it exists.
pub struct AccountResolver {
    leases: Arc<dyn Leases>,
    queues: Arc<dyn QueueStates>,
    accounts: Arc<RwLock<HashMap<QueueName, AccountId>>>,
}

impl AccountResolver {
    /// On these leases; accounts are looked up in the queues' states.
    pub fn new(leases: Arc<dyn Leases>, queues: Arc<dyn QueueStates>) -> Self {
        Self { leases, queues, accounts: Arc::default() }
    }

    /// The account of a queue that was leased.
    pub fn account_of(&self) -> AccountOf {
        let accounts = Arc::clone(&self.accounts);
        Arc::new(move |queue| accounts.read().get(queue).cloned())
    }

    /// The lease, when whose queue it is can be told; else it is given back.
    async fn known(&self, lease: GrantedLease) -> Option<GrantedLease> {
        if self.accounts.read().contains_key(&lease.queue) {
            return Some(lease);
        }
        match self.queues.get(&lease.queue).await {
            Ok(Some(record)) => {
                self.accounts.write().insert(lease.queue.clone(), record.account);
            }
            Ok(None) => tracing::warn!(queue = %lease.queue, "a leased queue has no record any more"),
            Err(e) => {
                // Unknown owners must not be guessed. The lease goes back, and is asked for again.
                tracing::warn!(queue = %lease.queue, error = %e, "the owner of a queue cannot be told");
                let release = Release { queue: lease.queue, epoch: lease.epoch, empty: false };
                drop(self.leases.release(&release).await);
                return None;
            }
        }
        Some(lease)
    }
}

#[async_trait]
impl Leases for AccountResolver {
    async fn next(&self, request: NextRequest) -> Result<Vec<GrantedLease>, LeaseError> {
        let granted = self.leases.next(request).await?;
        // Each look-up waits for a majority of the store: those of one answer wait together.
        let known = join_all(granted.into_iter().map(|lease| self.known(lease))).await;
        Ok(known.into_iter().flatten().collect())
    }

    async fn renew(&self, queue: &QueueName, epoch: u64) -> Result<Renewed, LeaseError> {
        self.leases.renew(queue, epoch).await
    }

    async fn release(&self, release: &Release) -> Result<(), LeaseError> {
        self.leases.release(release).await
    }
}
