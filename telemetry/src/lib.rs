//! Logs, and the history of each message by its id: from the call that brought it to the store, and of its alerts to their endpoints.
//!
//! *How.* A frontend gives each call an id (its answer's `x-request-id`), and each message that it makes of the call the id
//! `<call>.<n>`. The broker carries it, the tuples of the topology carry it, and an alert event carries the id of the message
//! whose reading decided ([`AlertEvent::origin`](galerna_model::AlertEvent)). Every module tells what it does with a message
//! as a `tracing` event of level `TRACE` under the target `galerna::trace::<place>`, with the field `failed = true` if it went wrong; a layer of the subscriber (`layer.rs`)
//! takes these down, whatever the filter of the log is.
//!
//! *What is kept where, and for how long.* Each process keeps the history of the last `trace.messages` calls in its memory
//! (`ring.rs`); they end with the process. What must last is elsewhere, with the id in it: dead letters on the broker, and
//! rejected readings, alert events and deliveries in the store. Who wants it for longer sends it to a collector
//! (`trace.otlp`, `otlp.rs`).
//!
//! Schedules, delayed work and `map_async` tell theirs in the same way: a firing and an item of delayed work have histories by their ids, to
//! which each component that calls something for them adds its step. A program of its own records them with [`ProgramTelemetry`].
//!
//! *Who tells it.* `GET /trace/<id>` on the API of `up` and `demo`, and on the services of a worker, a notifier and a frontend of
//! their own; a frontend that can be reached from other machines only when there is an `api.token`.
//! `galerna trace` and the page of a process of its own ask those that they know of ([`RemoteHistory`]).

#[cfg(feature = "api")]
pub mod api;
mod error;
mod layer;
mod log;
mod otlp;
mod peers;
mod program;
mod ring;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use galerna_model::Timestamp;
use serde::{Deserialize, Serialize};
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

pub use error::TelemetryError;
pub use log::start;
pub use otlp::{Exporter, RunningExporter};
pub use peers::{PeerError, Peers};
pub use program::ProgramTelemetry;
use ring::Ring;

/// What modules tell of messages stands under these targets; the rest of the target is the place.
const TARGET: &str = "galerna::trace::";
/// How long another process may take to answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What this process has recorded. There is one subscriber in a process, so there is one of these.
static RING: OnceLock<Arc<Ring>> = OnceLock::new();

/// A step in the history of a message.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// When, to the millisecond, by the clock of the machine where it happened.
    pub at: Timestamp,
    /// Where: the frontend, a component of the topology, the notifier.
    #[serde(rename = "where")]
    pub place: String,
    /// What happened there.
    pub what: String,
    /// The message; of a step of the whole call, the call.
    pub message: String,
}

/// Whether this process keeps the history of messages at all.
pub fn is_recording() -> bool {
    RING.get().is_some()
}

/// Host and process: tells workers and dispatchers apart.
pub fn process_name(kind: &str) -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname")
        .or_else(|_| std::env::var("HOSTNAME"))
        .unwrap_or_else(|_| "host".to_owned());
    format!("{kind}-{}-{}", host.trim(), std::process::id())
}

/// The layer that records the history of messages, and what exports it; nothing when both are turned off.
fn history_layer<S>(
    kept: usize,
    otlp: Option<&str>,
    service: &'static str,
) -> (Option<impl Layer<S> + use<S>>, Option<Exporter>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let ring = (kept > 0).then(|| RING.get_or_init(|| Arc::new(Ring::new(kept))).clone());
    let (export, exporter) = otlp.map(|url| Exporter::new(url, service)).unzip();
    let layer = (ring.is_some() || export.is_some()).then(|| layer::recorder(ring, export));
    (layer, exporter)
}

/// The history of a message or of a call as this process knows it; empty when it knows nothing of it.
pub fn history(id: &str) -> Vec<Step> {
    RING.get().map(|ring| ring.history(id)).unwrap_or_default()
}

/// The first step of a call that a frontend elsewhere took.
const AS_STATED_BY_THE_MESSAGE: &str = "call received, as the message says";

/// In order of time, without what was told twice.
fn in_order(mut steps: Vec<Step>) -> Vec<Step> {
    // What a message says of its call is worth nothing beside what the frontend itself tells.
    if steps.iter().any(|step| step.place == "frontend" && step.what != AS_STATED_BY_THE_MESSAGE) {
        steps.retain(|step| step.what != AS_STATED_BY_THE_MESSAGE);
    }
    steps.sort_by_key(|step| step.at);
    let mut told: Vec<Step> = Vec::with_capacity(steps.len());
    for step in steps {
        // What is the same was told in the same millisecond.
        if !told.iter().rev().take_while(|before| before.at == step.at).any(|before| *before == step) {
            told.push(step);
        }
    }
    told
}

/// Asks other processes.
pub struct RemoteHistory {
    peers: Peers,
}

#[derive(Deserialize)]
struct Answer {
    steps: Vec<Step>,
}

impl RemoteHistory {
    /// Those at these base URLs, which may each stand for several and take this token.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(urls: Vec<String>, token: Option<String>) -> Result<Self, TelemetryError> {
        Ok(Self { peers: Peers::new(urls, token, TIMEOUT, Duration::ZERO)? })
    }

    /// Who is asked.
    pub fn urls(&self) -> &[String] {
        self.peers.urls()
    }

    /// What all of them know, and why some do not answer.
    pub async fn ask(&self, id: &str) -> (Vec<Step>, Vec<String>) {
        let id: String =
            form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>().replace('+', "%20");
        let (mut steps, mut problems) = (Vec::new(), Vec::new());
        for answer in self.peers.get::<Answer>(&format!("trace/{id}")).await {
            match answer {
                Ok(told) => steps.extend(told.into_iter().flat_map(|told| told.steps)),
                Err(problem) => problems.push(problem.to_string()),
            }
        }
        (in_order(steps), problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_tell_is_put_in_order_and_told_once() {
        let step = |at, what: &str| Step {
            at: Timestamp(at),
            place: "store".into(),
            what: what.into(),
            message: "m".into(),
        };
        let told = vec![step(2, "b"), step(2, "c"), step(1, "a"), step(2, "b"), step(3, "b")];
        assert_eq!(in_order(told), [step(1, "a"), step(2, "b"), step(2, "c"), step(3, "b")]);

        let of_frontend = |at, what: &str| Step { place: "frontend".into(), ..step(at, what) };
        let said = of_frontend(1, AS_STATED_BY_THE_MESSAGE);
        assert_eq!(in_order(vec![step(2, "b"), said.clone()]), [said.clone(), step(2, "b")]);
        let received = of_frontend(2, "call received from S1: 2 readings");
        assert_eq!(in_order(vec![said, received.clone()]), [received]);
    }
}
