//! What telemetry fails with.

/// Why the log, the export of histories or the asking of others cannot begin.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TelemetryError {
    /// The filter of the log is none.
    #[error(
        "`log.level` is `{0}`; use a level (error, warn, info, debug, trace) or a list such as `info,galerna_engine=debug`"
    )]
    Filter(String),
    /// There is a log already.
    #[error("the log cannot be started: {0}")]
    Log(#[from] tracing_subscriber::util::TryInitError),
    /// No HTTP client can be made.
    #[error("cannot make an HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}
