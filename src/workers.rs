//! The topologies that run in this process.

use std::sync::Arc;
use std::time::Duration;

use galerna::ingest::{self, Ingestion};
use galerna_engine::{Engine, EngineOptions, Metrics, Running};
use parking_lot::Mutex;

/// A handle on them; clones share them.
#[derive(Clone, Default)]
pub(crate) struct Workers(Arc<Mutex<Vec<Running>>>);

impl Workers {
    /// Starts one more.
    pub(crate) async fn start(&self, ingestion: &Ingestion) -> anyhow::Result<()> {
        let running = Engine::submit(ingest::topology(ingestion)?, EngineOptions::default()).await?;
        self.0.lock().push(running);
        Ok(())
    }

    /// What each has done and waits for.
    pub(crate) fn metrics(&self) -> Vec<Metrics> {
        self.0.lock().iter().map(Running::metrics).collect()
    }

    /// Stops all: nothing more is consumed, what is in flight is settled, leases are given back.
    pub(crate) async fn drain(&self, patience: Duration) {
        let all = std::mem::take(&mut *self.0.lock());
        for running in all {
            let report = running.drain(patience).await;
            if !report.drained {
                tracing::warn!(
                    unfinished = report.unfinished,
                    "messages were still in flight after {patience:?}; they will be delivered again"
                );
            }
        }
    }
}
