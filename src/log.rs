//! The log: text for people, JSON for machines, always to standard error, so that standard output stays for answers.

use std::io::IsTerminal;

use anyhow::anyhow;
use tracing_subscriber::EnvFilter;

use crate::config::Config;

/// Starts the log.
///
/// # Errors
/// When the filter is wrong, naming it.
pub(crate) fn start(config: &Config) -> anyhow::Result<()> {
    let level = config.text("log.level");
    // The filter's own words repeat each other, and the help says more than they do.
    let filter = EnvFilter::try_new(level).map_err(|_| {
        anyhow!("`log.level` is `{level}`; use a level (error, warn, info, debug, trace) or a list such as `info,galerna_engine=debug`")
    })?;
    // The AMQP library logs every refusal of the server as an error, also those that are asked for, such as whether a queue
    // exists. What matters of them comes back as errors of Galerna's own.
    let filter = if level.contains("lapin") { filter } else { filter.add_directive("lapin=off".parse()?) };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A log that nobody reads any more (`2>&1 | head`) must not end who writes it: complaining of it there would.
        .log_internal_errors(false);
    let started = match config.text("log.format") {
        "json" => builder.json().with_current_span(false).try_init(),
        _ => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    started.map_err(|e| anyhow!("the log cannot be started: {e}"))
}
