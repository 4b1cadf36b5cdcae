//! The topologies that run in this process.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use galerna_console::{WorkerReports, WorkersView};
use galerna_engine::{Engine, EngineOptions, Metrics, Running};
use galerna_ingest::Ingestion;
use parking_lot::Mutex;

/// A handle on them; clones share them.
#[derive(Clone, Default)]
pub struct Workers(Arc<Mutex<Vec<Running>>>);

impl Workers {
    /// Starts one more.
    pub async fn start(&self, ingestion: &Ingestion) -> anyhow::Result<()> {
        let running = Engine::submit(galerna_ingest::topology(ingestion)?, EngineOptions::default()).await?;
        self.0.lock().push(running);
        Ok(())
    }

    /// What each has done and waits for.
    pub fn metrics(&self) -> Vec<Metrics> {
        self.0.lock().iter().map(Running::metrics).collect()
    }

    /// Stops all: nothing more is consumed, what is in flight is settled, leases are given back.
    pub async fn drain(&self, patience: Duration) {
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

#[async_trait]
impl WorkersView for Workers {
    async fn reports(&self) -> WorkerReports {
        match serde_json::to_value(self.metrics()).and_then(serde_json::from_value) {
            Ok(reports) => WorkerReports { reports, ..WorkerReports::default() },
            Err(e) => WorkerReports { silent: vec![e.to_string()], ..WorkerReports::default() },
        }
    }
}
