//! The ingestion topology, to be looked at.

use std::sync::Arc;

use async_trait::async_trait;
use galerna_broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use galerna_dispatcher::{GrantedLease, LeaseError, Leases, NextRequest, Release, Renewed};
use galerna_model::QueueName;
use galerna_settings::Settings;
use galerna_telemetry::process_name;
use galerna_topology::Topology;

use crate::backends::{self, must_be_shared};
use crate::{modules, separate};

/// The ingestion topology, to be looked at and not to be run.
pub fn shown(settings: &Settings) -> anyhow::Result<Topology> {
    let broker = Arc::new(EmbeddedBroker::in_memory(EmbeddedOptions::default())?);
    let store = galerna_storage::sqlite::in_memory()?;
    let ingestion = modules::ingestion(settings, "shown", broker, Arc::new(NoLeases), store)?;
    Ok(galerna_ingest::topology(&ingestion)?)
}

/// The ingestion topology of a process that runs a part of it for somebody else, on the broker, the store and the dispatcher of the
/// settings.
///
/// # Errors
/// What cannot be reached, or may not be shared.
pub async fn to_serve(settings: &Settings) -> anyhow::Result<Topology> {
    must_be_shared(settings, "multilang", true)?;
    let (broker, store) = (backends::broker(settings).await?, backends::store(settings).await?);
    modules::load_rules(settings, &store).await?;
    let leases = Arc::new(separate::dispatcher_client(settings)?);
    // There may be many such processes, and each has leases of its own.
    let name = process_name(settings.worker.name.as_deref().unwrap_or("worker"));
    let ingestion = modules::ingestion(settings, &name, broker, leases, store)?;
    Ok(galerna_ingest::topology(&ingestion)?)
}

/// A topology that is only shown leases nothing.
struct NoLeases;

#[async_trait]
impl Leases for NoLeases {
    async fn next(&self, _: NextRequest) -> Result<Vec<GrantedLease>, LeaseError> {
        Ok(Vec::new())
    }

    async fn renew(&self, queue: &QueueName, _: u64) -> Result<Renewed, LeaseError> {
        Err(LeaseError::UnknownQueue(queue.clone()))
    }

    async fn release(&self, release: &Release) -> Result<(), LeaseError> {
        Err(LeaseError::UnknownQueue(release.queue.clone()))
    }
}
