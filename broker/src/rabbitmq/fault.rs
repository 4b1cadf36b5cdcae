//! What can go wrong in an AMQP call.

use std::time::Duration;

use lapin::ErrorKind;
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};

use crate::BrokerError;
use galerna_model::QueueName;

/// A failed AMQP call.
#[derive(Debug)]
pub(super) enum Fault {
    /// No answer within this time.
    Late(Duration),
    /// What lapin or the server said.
    Amqp(lapin::Error),
}

impl Fault {
    fn soft(&self) -> Option<AMQPSoftError> {
        match self {
            Self::Amqp(e) => match e.kind() {
                ErrorKind::ProtocolError(e) => match e.kind() {
                    AMQPErrorKind::Soft(soft) => Some(soft.clone()),
                    AMQPErrorKind::Hard(_) => None,
                },
                _ => None,
            },
            Self::Late(_) => None,
        }
    }

    /// The queue or exchange is not there.
    pub(super) fn not_found(&self) -> bool {
        self.soft() == Some(AMQPSoftError::NOTFOUND)
    }

    /// The channel or its connection was lost, rather than the call refused.
    pub(super) fn is_lost(&self) -> bool {
        matches!(self, Self::Amqp(_)) && self.soft().is_none()
    }

    /// It is there, made with other arguments.
    pub(super) fn made_otherwise(&self) -> bool {
        self.soft() == Some(AMQPSoftError::PRECONDITIONFAILED)
    }

    pub(super) fn into_error(self, attempted: &str, queue: Option<&QueueName>) -> BrokerError {
        match (queue, self) {
            (Some(queue), fault) if fault.not_found() => BrokerError::UnknownQueue(queue.clone()),
            (_, Self::Late(limit)) => BrokerError::Timeout {
                attempted: attempted.to_owned(),
                millis: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
            },
            (_, Self::Amqp(e)) => {
                BrokerError::Unavailable { attempted: attempted.to_owned(), cause: e.to_string() }
            }
        }
    }
}

/// An AMQP call that ends in time.
pub(super) async fn within<T>(
    limit: Duration,
    call: impl Future<Output = lapin::Result<T>>,
) -> Result<T, Fault> {
    match tokio::time::timeout(limit, call).await {
        Ok(answer) => answer.map_err(Fault::Amqp),
        Err(_) => Err(Fault::Late(limit)),
    }
}
