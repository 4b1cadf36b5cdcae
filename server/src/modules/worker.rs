//! The worker: the ingestion topologies of this process.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use galerna_bolts::{AlertOptions, StoreOptions};
use galerna_broker::Broker;
use galerna_console::{WorkerReports, WorkersView};
use galerna_consumption::{Calendar, CountedReadings};
use galerna_control::Topologies;
use galerna_engine::{EngineOptions, Metrics};
use galerna_http::ProcessUsage;
use galerna_ingest::{AccountResolver, Ingestion};
use galerna_lease::Leases;
use galerna_model::Validator;
use galerna_model::{ParameterRegistry, ValidationLimits};
use galerna_settings::Settings;
use galerna_spouts::LeasedOptions;
use galerna_storage::Store;
use serde_json::{Value, json};

use crate::module::Module;

fn limits(settings: &Settings) -> ValidationLimits {
    ValidationLimits {
        max_ahead: settings.ingest.max_ahead,
        not_before: settings.ingest.not_before,
        ..ValidationLimits::default()
    }
}

/// Validates readings as the workers of these settings do.
///
/// # Errors
/// When the parameters cannot be read.
pub fn validator(settings: &Settings) -> anyhow::Result<Validator> {
    Ok(Validator::new(Arc::new(parameters(settings)?), limits(settings)))
}

/// The parameters that readings may have.
pub(super) fn parameters(settings: &Settings) -> anyhow::Result<ParameterRegistry> {
    let mut parameters = ParameterRegistry::built_in();
    if let Some(path) = &settings.ingest.parameters {
        parameters
            .extend_from_file(path)
            .with_context(|| format!("`ingest.parameters` is `{}`", path.display()))?;
    }
    Ok(parameters)
}

/// By the days of which time zone consumption is kept, if it is.
///
/// # Errors
/// When there is no such time zone.
pub(super) fn calendar(settings: &Settings) -> anyhow::Result<Option<Calendar>> {
    let zone = settings.ingest.consumption_zone.as_deref().filter(|zone| !zone.is_empty());
    zone.map(Calendar::of).transpose().context("`ingest.consumption_zone`")
}

/// What ingestion works with, under this name.
pub fn ingestion(
    settings: &Settings,
    name: &str,
    broker: Arc<dyn Broker>,
    leases: Arc<dyn Leases>,
    store: Store,
) -> anyhow::Result<Ingestion> {
    let resolver = Arc::new(AccountResolver::new(leases, store.queues.clone()));
    let parameters = Arc::new(parameters(settings)?);
    let mut store = store;
    if let Some(calendar) = calendar(settings)? {
        // Beside the readings it is kept what their counters say.
        let (readings, days) = (store.readings.clone(), store.consumption.clone());
        store.readings = Arc::new(CountedReadings::new(readings, days, parameters.clone(), calendar));
    }
    Ok(Ingestion {
        consumer: name.to_owned(),
        broker,
        account_of: resolver.account_of(),
        leases: resolver,
        store,
        parameters,
        limits: limits(settings),
        leasing: LeasedOptions {
            leases: settings.worker.leases,
            linger: settings.worker.linger,
            prefetch: settings.worker.prefetch,
            messages_per_lease: settings.worker.messages_per_lease,
            ..LeasedOptions::default()
        },
        storing: StoreOptions { rows: settings.ingest.batch, ..StoreOptions::default() },
        alerting: AlertOptions { lateness: settings.ingest.alert_lateness, ..AlertOptions::default() },
        parallelism: settings.worker.parallelism,
        max_pending: settings.worker.max_pending,
        message_timeout: settings.worker.message_timeout,
    })
}

/// The topologies that run in this process, each under the name by which it consumes; clones share them.
#[derive(Clone, Default)]
pub struct Workers(Topologies);

impl Workers {
    /// Starts one more.
    ///
    /// # Errors
    /// If it cannot be declared or started.
    pub async fn start(&self, ingestion: &Ingestion) -> anyhow::Result<()> {
        let topology = galerna_ingest::topology(ingestion)?;
        Ok(self.0.submit(ingestion.consumer.as_str(), topology, EngineOptions::default()).await?)
    }

    /// All topologies of this process.
    pub fn topologies(&self) -> &Topologies {
        &self.0
    }

    /// What each has done and waits for.
    pub fn metrics(&self) -> Vec<Metrics> {
        self.0.metrics().into_iter().map(|(_, metrics)| metrics).collect()
    }

    /// The same with who consumes, and what the process takes of its machine.
    ///
    /// # Errors
    /// When a number has no JSON form, which does not happen.
    pub(crate) fn report(&self) -> serde_json::Result<Value> {
        let workers = self.0.metrics().into_iter().map(|(consumer, metrics)| {
            let mut told = serde_json::to_value(metrics)?;
            told["consumer"] = json!(&*consumer);
            Ok(told)
        });
        let workers: Vec<Value> = workers.collect::<serde_json::Result<_>>()?;
        let usage = ProcessUsage::read();
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let process = json!({
            "host": host.trim(),
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "memory_bytes": usage.resident_bytes,
            "cpu_seconds": usage.cpu_seconds,
            "threads": usage.threads,
            "open_files": usage.open_files,
            "most_files": usage.most_files,
            "started_seconds": usage.started_seconds,
        });
        Ok(json!({ "workers": workers, "process": process }))
    }

    /// Stops all: nothing more is consumed, what is in flight is settled, leases are given back.
    pub async fn drain(&self, timeout: Duration) {
        for (_, report) in self.0.drain(timeout).await {
            if !report.drained {
                tracing::warn!(
                    unfinished = report.unfinished,
                    "messages were still in flight after {timeout:?}; they will be delivered again"
                );
            }
        }
    }
}

#[async_trait]
impl WorkersView for Workers {
    async fn reports(&self) -> WorkerReports {
        match self.report().and_then(WorkerReports::of_one) {
            Ok(reports) => reports,
            Err(e) => WorkerReports { unresponsive: vec![e.to_string()], ..WorkerReports::default() },
        }
    }
}

/// Topologies, as a module of the process.
pub(crate) struct WorkerTopologies {
    workers: Workers,
    /// Those to start.
    ingestions: Vec<Ingestion>,
    /// How long the end waits for what is in flight.
    drain: Duration,
}

impl WorkerTopologies {
    pub(crate) fn new(workers: Workers, ingestions: Vec<Ingestion>, drain: Duration) -> Self {
        Self { workers, ingestions, drain }
    }
}

#[async_trait]
impl Module for WorkerTopologies {
    fn name(&self) -> &'static str {
        "worker"
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        for ingestion in self.ingestions.drain(..) {
            self.workers.start(&ingestion).await?;
        }
        Ok(())
    }

    fn ready(&self) -> bool {
        true
    }

    /// Settles what is in flight, and gives the leases back.
    async fn drain(&mut self) {
        self.workers.drain(self.drain).await;
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        Ok(())
    }
}
