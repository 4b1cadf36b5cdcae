//! Watches what the nodes of a server have left.

use std::sync::Arc;
use std::time::Duration;

use galerna_lock::Mutex;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::management::Management;
use crate::limits::{Limit, Nearness, Resource};
use crate::{BrokerError, Result};

/// How often the nodes are looked at.
const EVERY: Duration = Duration::from_secs(10);
/// A look that is no older answers for how it is now.
const FRESH: Duration = Duration::from_secs(2);
/// Longest time that a question for the health waits for a look.
const WAIT: Duration = Duration::from_secs(2);

/// What was observed, and the task that looks.
#[derive(Debug)]
pub(super) struct Watch {
    observed: Arc<Observed>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct Observed {
    management: Management,
    last: Mutex<Option<(Instant, Vec<Limit>)>>,
    refreshing: tokio::sync::Mutex<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    pub(super) fn start(management: Management) -> Self {
        let observed = Arc::new(Observed {
            management,
            last: Mutex::default(),
            refreshing: tokio::sync::Mutex::default(),
        });
        let task = tokio::spawn({
            let observed = Arc::clone(&observed);
            async move {
                let mut failed = false;
                loop {
                    match observed.refresh().await {
                        Ok(()) => failed = false,
                        Err(error) if !failed => {
                            failed = true;
                            tracing::warn!(%error, "RabbitMQ's limits are not known; trying again");
                        }
                        Err(_) => {}
                    }
                    tokio::time::sleep(EVERY).await;
                }
            }
        });
        Self { observed, task }
    }

    /// The limits as they are now, or were a moment ago.
    pub(super) async fn limits(&self) -> Result<Vec<Limit>> {
        self.observed.fresh().await?;
        Ok(self.observed.last.lock().as_ref().map(|(_, limits)| limits.clone()).unwrap_or_default())
    }

    /// Why the server blocks publishers, as far as its nodes say; nothing when they cannot be asked in time.
    pub(super) async fn alarm(&self) -> Option<String> {
        // Without an answer the last one stands.
        drop(tokio::time::timeout(WAIT, self.observed.fresh()).await);
        let last = self.observed.last.lock();
        let (_, limits) = last.as_ref()?;
        let blocks = |limit: &&Limit| {
            limit.nearness == Nearness::Reached && matches!(limit.resource, Resource::Memory | Resource::Disk)
        };
        limits.iter().find(blocks).map(Limit::to_string)
    }

    /// Adds to an error that the server did not answer which limit explains it.
    pub(super) fn explain(&self, error: BrokerError) -> BrokerError {
        let limit = {
            let last = self.observed.last.lock();
            let limits = last.as_ref().map(|(_, limits)| limits.as_slice()).unwrap_or_default();
            limits
                .iter()
                .max_by_key(|l| l.nearness)
                .filter(|l| l.nearness > Nearness::Far)
                .map(Limit::to_string)
        };
        match (error, limit) {
            (BrokerError::Timeout { attempted, millis }, Some(limit)) => {
                BrokerError::Timeout { attempted: format!("{attempted} ({limit})"), millis }
            }
            (BrokerError::Unavailable { attempted, cause }, Some(limit)) => {
                BrokerError::Unavailable { attempted, cause: format!("{cause} ({limit})") }
            }
            (error, _) => error,
        }
    }
}

impl Observed {
    async fn fresh(&self) -> Result<()> {
        let is_fresh = || self.last.lock().as_ref().is_some_and(|(at, _)| at.elapsed() < FRESH);
        if is_fresh() {
            return Ok(());
        }
        let _one = self.refreshing.lock().await;
        if is_fresh() { Ok(()) } else { self.refresh_now().await }
    }

    async fn refresh(&self) -> Result<()> {
        let _one = self.refreshing.lock().await;
        self.refresh_now().await
    }

    async fn refresh_now(&self) -> Result<()> {
        let limits = self.management.limits().await?;
        let before = self.last.lock().replace((Instant::now(), limits.clone()));
        let before = before.map(|(_, limits)| limits).unwrap_or_default();
        for limit in &limits {
            let same = |b: &&Limit| b.node == limit.node && b.resource == limit.resource;
            let was = before.iter().find(same).map_or(Nearness::Far, |b| b.nearness);
            match limit.nearness {
                now if now == was => {}
                Nearness::Far => tracing::info!(%limit, "RabbitMQ is no longer near a limit"),
                Nearness::Near => tracing::warn!(%limit, "RabbitMQ is near a limit"),
                Nearness::Reached => tracing::error!(%limit, "RabbitMQ has reached a limit"),
            }
        }
        Ok(())
    }
}
