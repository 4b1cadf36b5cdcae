//! One connection that is kept up.
//!
//! Lapin can recover a connection by itself, replaying channels and consumers onto it. That is not used: a delivery tag or a
//! confirm that outlives its channel is exactly what must not happen here, and it is easiest to see that it does not when a
//! lost channel stays lost. So a task connects, watches, and connects anew with growing, jittered pauses; whoever has a
//! channel of the old connection gets errors from it and asks for another.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use galerna_retry::Pauses;
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionBuilder, ConnectionProperties, Event};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout, timeout_at};

use super::Timeouts;
use super::fault::Fault;
use crate::{BrokerError, Result};

/// Between attempts to connect.
const PAUSES: Pauses = Pauses::new(Duration::from_millis(100), Duration::from_secs(10));

/// How often the connection's own state is looked at, should an event have been missed.
const LOOK: Duration = Duration::from_secs(1);

/// How often a channel that cannot be opened on a sound connection is asked for again, with pauses that begin with this one
/// and double: 0.5 s in all.
const CHANNEL_RETRIES: u32 = 8;
const CHANNEL_RETRY_PAUSE: Duration = Duration::from_millis(2);

#[derive(Debug, Clone)]
enum State {
    Up(Arc<Connection>),
    /// With the last error.
    Down(String),
}

/// How to reach the server.
#[derive(Debug, Clone)]
pub(super) struct Address {
    pub(super) uri: AMQPUri,
    pub(super) tls: OwnedTLSConfig,
    pub(super) name: String,
}

/// A connection, whichever is the current one.
#[derive(Debug)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    blocked: watch::Receiver<Option<String>>,
    timeouts: Timeouts,
    connecting: JoinHandle<()>,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.connecting.abort();
    }
}

impl Link {
    /// Starts to connect.
    pub(super) fn start(address: Address, timeouts: Timeouts) -> Self {
        let (state_to, state) = watch::channel(State::Down("not connected yet".to_owned()));
        let (blocked_to, blocked) = watch::channel(None);
        let connecting = tokio::spawn(keep_connected(address, timeouts.connect, state_to, blocked_to));
        Self { state, blocked, timeouts, connecting }
    }

    /// Why the server blocks publishing on this connection, when it does.
    pub(super) fn blocked(&self) -> watch::Receiver<Option<String>> {
        self.blocked.clone()
    }

    /// Why there is no connection, when there is none.
    pub(super) fn unavailable(&self) -> Option<String> {
        match &*self.state.borrow() {
            State::Up(connection) if connection.status().connected() => None,
            State::Up(_) => Some("the connection was lost".to_owned()),
            State::Down(cause) => Some(cause.clone()),
        }
    }

    /// A new channel; waits for a connection for as long as [`Timeouts::reconnect`].
    pub(super) async fn channel(&self, attempted: &str) -> Result<Channel> {
        let deadline = Instant::now() + self.timeouts.reconnect;
        let mut state = self.state.clone();
        let mut retries = 0;
        loop {
            let current = state.borrow_and_update().clone();
            let cause = match current {
                State::Up(connection) if connection.status().connected() => {
                    match timeout(self.timeouts.rpc, connection.create_channel()).await {
                        Ok(Ok(channel)) => return Ok(channel),
                        // The error of a channel that the server has just closed can meet those that are opened before the
                        // close is through.
                        Ok(Err(_)) if connection.status().connected() && retries < CHANNEL_RETRIES => {
                            tokio::time::sleep(CHANNEL_RETRY_PAUSE * (1 << retries)).await;
                            retries += 1;
                            continue;
                        }
                        Ok(Err(e)) if connection.status().connected() => {
                            return Err(Fault::Amqp(e).into_error(attempted, None));
                        }
                        Ok(Err(e)) => e.to_string(),
                        Err(_) => return Err(Fault::Late(self.timeouts.rpc).into_error(attempted, None)),
                    }
                }
                State::Up(_) => "the connection was lost".to_owned(),
                State::Down(cause) => cause,
            };
            if timeout_at(deadline, state.changed()).await.is_err() {
                return Err(BrokerError::Unavailable { attempted: attempted.to_owned(), cause });
            }
        }
    }
}

async fn keep_connected(
    address: Address,
    limit: Duration,
    state: watch::Sender<State>,
    blocked: watch::Sender<Option<String>>,
) {
    let mut backoff = PAUSES.begin();
    loop {
        let cause = match timeout(limit, connect(&address)).await {
            Ok(Ok(connection)) => {
                backoff.reset();
                tracing::debug!(connection = address.name, "connected to RabbitMQ");
                let connection = Arc::new(connection);
                state.send_replace(State::Up(Arc::clone(&connection)));
                let cause = watch_over(&connection, &blocked).await;
                blocked.send_replace(None);
                cause
            }
            Ok(Err(e)) => e.to_string(),
            Err(_) => format!("no answer within {limit:?}"),
        };
        tracing::warn!(connection = address.name, cause, "RabbitMQ is unavailable; connecting again");
        state.send_replace(State::Down(cause));
        tokio::time::sleep(backoff.pause()).await;
    }
}

async fn connect(address: &Address) -> lapin::Result<Connection> {
    let properties = ConnectionProperties::default().with_connection_name(address.name.clone().into());
    ConnectionBuilder::new()?
        .with_uri(address.uri.clone())
        .with_properties(properties)
        .with_tls_config(address.tls.clone())
        .connect()
        .await
}

/// Returns, with the reason, when the connection is gone.
async fn watch_over(connection: &Connection, blocked: &watch::Sender<Option<String>>) -> String {
    let mut events = connection.events_listener();
    let mut cause = "the connection was lost".to_owned();
    loop {
        // A failed wait only means that nothing happened for a while.
        if let Ok(event) = timeout(LOOK, events.next()).await {
            match event {
                Some(Event::ConnectionBlocked(reason)) => drop(blocked.send_replace(Some(reason))),
                Some(Event::ConnectionUnblocked) => drop(blocked.send_replace(None)),
                Some(Event::Error(e)) => cause = e.to_string(),
                Some(_) => {}
                None => return cause,
            }
        }
        if !connection.status().connected() {
            return cause;
        }
    }
}
