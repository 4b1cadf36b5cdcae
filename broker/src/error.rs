//! Errors of the broker.

use galerna_model::QueueName;

/// Result of a broker call.
pub type Result<T, E = BrokerError> = std::result::Result<T, E>;

/// Why a broker call failed.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BrokerError {
    /// The queue does not exist.
    #[error("queue `{0}` does not exist; declare it first")]
    UnknownQueue(QueueName),
    /// The broker cannot be reached; the call may be tried again.
    #[error("broker is unavailable while {attempted}: {cause}")]
    Unavailable {
        /// What was tried.
        attempted: String,
        /// What the transport said.
        cause: String,
    },
    /// The broker did not answer in time; the outcome is not known, so publishing again may duplicate.
    #[error("broker did not answer within {millis} ms while {attempted}")]
    Timeout {
        /// What was tried.
        attempted: String,
        /// How long was waited.
        millis: u64,
    },
    /// The broker blocks publishers (an alarm: memory or disk).
    #[error("broker blocks publishing: {0}; free its memory or disk")]
    Blocked(String),
    /// Some messages of a window were not confirmed; only these are to be published again.
    #[error("{} of {total} messages were not confirmed: {cause}", unconfirmed.len())]
    Unconfirmed {
        /// Indexes, in the window, of the messages that are not known to be safe.
        unconfirmed: Vec<usize>,
        /// Length of the window.
        total: usize,
        /// What the broker said of the first.
        cause: String,
    },
    /// The connection or channel that a delivery came on is gone; the broker will deliver again.
    #[error("consumer of `{0}` lost its channel; its unsettled messages will be delivered again")]
    ConsumerLost(QueueName),
    /// The embedded store failed.
    #[error("embedded broker failed while {attempted}: {cause}")]
    Embedded {
        /// What was tried.
        attempted: String,
        /// What SQLite or the file system said.
        cause: String,
    },
    /// Its messages cannot be looked at without changing their order.
    #[error(
        "queue `{0}` is being consumed, so its messages cannot be looked at without changing their order; pause it first"
    )]
    Consumed(QueueName),
    /// Its messages were taken out and put back so often that more looks would soon count as crashes of their consumers.
    #[error(
        "messages of queue `{0}` were looked at and given back often; look again in ten minutes, or let them be consumed"
    )]
    LookedAtTooOften(QueueName),
    /// A setting or address is wrong.
    #[error("{0}")]
    Invalid(String),
}

#[cfg(any(feature = "rabbitmq", feature = "embedded"))]
/// Refuses names that the broker gives to the companions of queues.
pub(crate) fn check_not_reserved(queue: &QueueName) -> Result<()> {
    if queue.is_reserved() {
        return Err(BrokerError::Invalid(format!(
            "queue name `{queue}` is reserved; names may not end in `.dead` or begin with `galerna.` or `amq.`"
        )));
    }
    Ok(())
}
