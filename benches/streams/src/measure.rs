//! Running one query over so many events, and what comes of it.

mod outcome;
mod query;
mod tally;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use galerna_engine::{CheckpointOptions, Engine, EngineOptions};
use galerna_state::FolderCheckpoints;
use galerna_topology::prelude::*;
use serde::Serialize;

pub use outcome::Outcome;
pub use query::{Query, UnknownQuery};
pub use tally::Tally;

use crate::replayable::Progress;

/// How large a run is.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// How many events.
    pub events: u64,
    /// Of how many sensors, where there are sensors.
    pub sensors: u64,
    /// How many tasks the source and each step by key have.
    pub tasks: usize,
    /// How many events a second, at the time they say of themselves; as fast as they are taken unless set.
    pub rate: Option<u64>,
}

/// What came of a run, in a form that the Flink side prints too.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Measured {
    /// Which system.
    pub system: &'static str,
    /// Which query.
    pub query: &'static str,
    /// How many events it read.
    pub events: u64,
    /// How many of them a second, without the first quarter.
    pub events_per_second: f64,
    /// How many results there were.
    pub results: u64,
    /// The sum of the results' [checksums](Outcome::checksum).
    pub checksum: u64,
    /// From the end of a window to its results, in milliseconds: half of them were as quick. Only at a fixed rate.
    pub p50_ms: Option<f64>,
    /// The same of 99 in 100.
    pub p99_ms: Option<f64>,
    /// The most memory that the process had, in MiB.
    pub memory_mib: u64,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// It cannot be declared.
    #[error("the topology cannot be built: {0}")]
    Build(#[from] BuildError),
    /// A time zone is not known.
    #[error("the time zone is not known: {0}")]
    Zone(#[from] jiff::Error),
    /// It does not start.
    #[error("the topology does not start: {0}")]
    Start(#[from] galerna_engine::EngineError),
    /// There is no place for checkpoints.
    #[error("there is no folder for checkpoints: {0}")]
    Folder(#[from] std::io::Error),
    /// That place cannot be used.
    #[error("the folder for checkpoints cannot be used: {0}")]
    Checkpoints(#[from] galerna_state::CheckpointError),
    /// Something failed, so that the result is none.
    #[error("{failed} roots failed: {reason}")]
    Failed {
        /// How many.
        failed: u64,
        /// Why the last one did.
        reason: String,
    },
    /// There were too few events for a figure.
    #[error("{0} events are too few to measure anything: ask for more")]
    TooFew(u64),
}

/// What a topology of a query has, to be measured.
pub struct Declared {
    /// The topology.
    pub topology: TopologyBuilder,
    /// How far its source is.
    pub progress: Arc<Progress>,
    /// What its results add up to.
    pub tally: Tally,
}

/// The time since 1970.
#[expect(clippy::disallowed_methods, reason = "what is measured is how late results are by the clock")]
pub(crate) fn wall_clock() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// Runs a query once, from the first event to the last result, with checkpoints each second where it keeps state.
///
/// # Errors
/// If it cannot run, or a root failed.
pub async fn measure(query: Query, size: Size) -> Result<Measured, MeasureError> {
    let Declared { topology, progress, tally } = query.declare(size)?;
    let folder = tempfile::tempdir()?;
    let mut options = EngineOptions::default();
    options.state.budget_bytes = 4 << 30;
    if query.keeps_state() {
        let store = FolderCheckpoints::open(folder.path(), query.name()).await?;
        options.checkpoints = Some(CheckpointOptions::new(store));
    }
    let running = Engine::submit(topology.build()?, options).await?;
    running.finished().await;
    let ended = Instant::now();
    let report = running.drain(Duration::from_secs(60)).await;
    if progress.failed() > 0 {
        let errors = report.metrics.components.iter().filter_map(|component| component.last_error.as_ref());
        let reason = errors.map(|error| format!("{error:?}")).next_back().unwrap_or_default();
        return Err(MeasureError::Failed { failed: progress.failed(), reason });
    }
    let (warm, before) = progress.warm().ok_or(MeasureError::TooFew(size.events))?;
    let seconds = ended.saturating_duration_since(warm).as_secs_f64();
    let total = tally.total();
    Ok(Measured {
        system: "galerna",
        query: query.name(),
        events: size.events,
        events_per_second: (size.events - before) as f64 / seconds,
        results: total.results,
        checksum: total.checksum,
        p50_ms: total.latency(0.5),
        p99_ms: total.latency(0.99),
        memory_mib: peak_memory(),
    })
}

/// The most memory that the process had, in MiB; 0 where that is not known.
fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
    kib.unwrap_or(0) / 1_024
}
