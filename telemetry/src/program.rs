//! Log, histories and their export of a program that is built on Galerna and has no settings file.

use std::io::IsTerminal as _;

use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, fmt};

use crate::{RunningExporter, TelemetryError};

/// Histories that are kept in memory.
const HISTORIES: usize = 10_000;
/// Where OpenTelemetry's specification has programs look for their collector.
const COLLECTOR: &str = "OTEL_EXPORTER_OTLP_ENDPOINT";

/// What a program tells of itself, until [`Self::finish`].
///
/// ```no_run
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), galerna_telemetry::TelemetryError> {
/// let telemetry = galerna_telemetry::ProgramTelemetry::start("shop", "warn")?;
/// // … run …
/// telemetry.finish().await;
/// # Ok(())
/// # }
/// ```
#[must_use = "what was not exported yet is exported by `finish`"]
pub struct ProgramTelemetry(Option<RunningExporter>);

impl std::fmt::Debug for ProgramTelemetry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("ProgramTelemetry").field(&self.0.is_some()).finish()
    }
}

impl ProgramTelemetry {
    /// Starts the log, to standard error and by `RUST_LOG` (else from `level` on), and what records histories. If
    /// `OTEL_EXPORTER_OTLP_ENDPOINT` is set, they are sent to that collector as spans of the service `program`. In a runtime.
    ///
    /// # Errors
    /// When a filter is wrong, or there is a log already.
    pub fn start(program: &'static str, level: &str) -> Result<Self, TelemetryError> {
        let level = std::env::var("RUST_LOG")
            .ok()
            .filter(|level| !level.is_empty())
            .unwrap_or_else(|| level.to_owned());
        let filter = EnvFilter::try_new(&level).map_err(|_| TelemetryError::Filter(level))?;
        let log = fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal())
            .log_internal_errors(false)
            .with_filter(filter);
        let collector = std::env::var(COLLECTOR).ok().filter(|url| !url.is_empty());
        let (histories, exporter) = crate::history_layer(HISTORIES, collector.as_deref(), program);
        tracing_subscriber::registry().with(log).with(histories).try_init()?;
        Ok(Self(exporter.map(crate::Exporter::start).transpose()?))
    }

    /// Sends what there is, as long as the collector does not take too long.
    pub async fn finish(self) {
        if let Some(exporter) = self.0 {
            exporter.finish().await;
        }
    }
}
