//! `galerna topology`.

use std::sync::Arc;

use async_trait::async_trait;
use galerna::ingest;
use galerna_broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use galerna_dispatcher::{GrantedLease, LeaseError, Leases, NextRequest, Release, Renewed};
use galerna_model::QueueName;
use galerna_topology::Topology;

use crate::args::{TopologyArgs, TopologyForm};
use crate::config::Config;
use crate::modules;
use crate::table::print;

/// Prints the ingestion topology as the configuration makes it. Nothing is started and no server is asked.
pub(crate) fn run(args: &TopologyArgs, config: &Config) -> anyhow::Result<()> {
    let topology = shown(config)?;
    match args.format {
        TopologyForm::Table => print(topology.table()),
        TopologyForm::Dot => print(topology.dot()),
        TopologyForm::Mermaid => print(topology.mermaid()),
        TopologyForm::Json => print(topology.json()),
    }
}

/// The ingestion topology, to be looked at and not to be run.
pub(crate) fn shown(config: &Config) -> anyhow::Result<Topology> {
    let broker = Arc::new(EmbeddedBroker::in_memory(EmbeddedOptions::default())?);
    let store = galerna_storage::sqlite::in_memory()?;
    let ingestion = modules::ingestion(config, "shown", broker, Arc::new(NoLeases), store)?;
    Ok(ingest::topology(&ingestion)?)
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
