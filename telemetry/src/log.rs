//! The log: text for people, JSON for machines, always to standard error, so that standard output stays for answers.

use std::io::IsTerminal;

use galerna_settings::{LogFormat, Settings};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

use crate::{Exporter, TelemetryError};

/// Starts the log, and beside it, with a filter of its own, what records the history of messages. Returns what exports it,
/// if that is wanted.
///
/// # Errors
/// When the filter is wrong, naming it.
pub fn start(settings: &Settings) -> Result<Option<Exporter>, TelemetryError> {
    let level = &settings.log.level;
    // The filter's own words repeat each other, and the help says more than they do.
    let filter = EnvFilter::try_new(level).map_err(|_| TelemetryError::Filter(level.clone()))?;
    // The AMQP library logs every refusal of the server as an error, also those that are asked for, such as whether a queue
    // exists. What matters of them comes back as errors of Galerna's own.
    let filter = match "lapin=off".parse() {
        Ok(off) if !level.contains("lapin") => filter.add_directive(off),
        _ => filter,
    };
    let log = fmt::layer()
        .with_writer(std::io::stderr)
        // A log that nobody reads any more (`2>&1 | head`) must not end who writes it: complaining of it there would.
        .log_internal_errors(false);
    let log: Box<dyn Layer<Registry> + Send + Sync> = match settings.log.format {
        LogFormat::Json => log.json().with_current_span(false).with_filter(filter).boxed(),
        LogFormat::Text => log.with_ansi(std::io::stderr().is_terminal()).with_filter(filter).boxed(),
    };
    let (histories, exporter) =
        crate::history_layer(settings.trace.messages, settings.trace.otlp.as_deref(), "galerna");
    tracing_subscriber::registry().with(log).with(histories).try_init()?;
    Ok(exporter)
}
