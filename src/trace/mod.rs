//! The way of a message, by its id: from the call that brought it to the store, and of its alerts to their endpoints.
//!
//! *How.* A frontend gives each call an id (its answer's `x-request-id`), and each message that it makes of the call the id
//! `<call>.<n>`. The broker carries it, the tuples of the topology carry it, and an alert event carries the id of the message
//! whose reading decided ([`AlertEvent::origin`](galerna_model::AlertEvent)). Every module tells what it does with a message
//! as a `tracing` event of level `TRACE` under the target `galerna::trace::<place>`; a layer of the subscriber ([`layer`])
//! takes these down, whatever the filter of the log is.
//!
//! *What is kept where, and for how long.* Each process keeps the ways of the last `trace.messages` calls in its memory
//! ([`ring`]); they end with the process. What must last is elsewhere, with the id in it: dead letters on the broker, and
//! rejected readings, alert events and deliveries in the store. Whoever wants the ways for longer sends them to a collector
//! (`trace.otlp`, [`otlp`]).
//!
//! *Who tells it.* `GET /trace/<id>` on the API of `up` and `demo`, and on the services of a worker, a notifier and a frontend of
//! their own; a frontend that can be reached from other machines only when there is an `api.token`.
//! `galerna trace` and the page of a process of its own ask those that they know of ([`Asking`]).

mod layer;
mod otlp;
mod ring;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_trait::async_trait;
use axum::extract::Path;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use galerna_model::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tracing::Subscriber;
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use crate::config::Config;
use crate::page;
use crate::page::backends::TraceStep;
use crate::page::peers::Peers;
pub(crate) use otlp::Exporter;
use ring::Ring;

/// What modules tell of messages stands under these targets; the rest of the target is the place.
const TARGET: &str = "galerna::trace::";
/// How long another process may take to tell a way.
const PATIENCE: Duration = Duration::from_secs(5);

/// The ways that this process knows. There is one subscriber in a process, so there is one of these.
static RING: OnceLock<Arc<Ring>> = OnceLock::new();

/// A step of a message's way, as it is told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Step {
    /// When, to the millisecond, by the clock of the machine where it happened.
    pub(crate) at: Timestamp,
    /// Where: the frontend, a component of the topology, the notifier.
    #[serde(rename = "where")]
    pub(crate) place: String,
    /// What happened there.
    pub(crate) what: String,
    /// The message; of a step of the whole call, the call.
    pub(crate) message: String,
}

/// The layer that takes down the ways of messages, and what sends them on; nothing when both are turned off.
pub(crate) fn recording<S>(config: &Config) -> (Option<impl Layer<S> + use<S>>, Option<Exporter>)
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let kept = config.count("trace.messages");
    let ring = (kept > 0).then(|| RING.get_or_init(|| Arc::new(Ring::new(kept))).clone());
    let (export, exporter) = config.optional("trace.otlp").map(Exporter::new).unzip();
    let layer = (ring.is_some() || export.is_some()).then(|| layer::recorder(ring, export));
    (layer, exporter)
}

/// The way of a message or of a call as this process knows it; empty when it knows nothing of it.
pub(crate) fn known(id: &str) -> Vec<Step> {
    RING.get().map(|ring| ring.way(id)).unwrap_or_default()
}

/// `GET /trace/<id>` of this process.
pub(crate) fn routes() -> Router {
    Router::new().route("/trace/{message}", get(way))
}

/// The way of a message, or of all messages of a call, as far as this process knows it.
#[utoipa::path(get, path = "/trace/{message}",
    params(("message" = String, Path, description = "id of a message, or of a call (`x-request-id`)")),
    responses(
        (status = 200, description = "what happened, in order", body = Object, example = json!({
            "message": "015f3b2f4c00a1b2c3d4e5f60718.0",
            "steps": [{"at": "2017-01-01T00:00:00.000Z", "where": "store", "what": "100 readings stored",
                "message": "015f3b2f4c00a1b2c3d4e5f60718.0"}]})),
        (status = 401, description = "`unauthorized`: a token is demanded and was not sent", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_message`: it is unknown or too old", body = ref("#/components/schemas/ErrorBody"))))]
pub(crate) async fn way(Path(message): Path<String>) -> Response {
    let steps = known(&message);
    if steps.is_empty() {
        let why = "nothing is known here of this message: it is unknown, too old, or still on its way";
        let error = json!({"error": {"code": "unknown_message", "message": why}});
        return (StatusCode::NOT_FOUND, Json(error)).into_response();
    }
    Json(json!({ "message": message, "steps": steps })).into_response()
}

/// The first step of a call that a frontend elsewhere took.
const AS_THE_MESSAGE_SAYS: &str = "call received, as the message says";

/// In order of time, without what was told twice.
fn in_order(mut steps: Vec<Step>) -> Vec<Step> {
    // What a message says of its call is worth nothing beside what the frontend itself tells.
    if steps.iter().any(|step| step.place == "frontend" && step.what != AS_THE_MESSAGE_SAYS) {
        steps.retain(|step| step.what != AS_THE_MESSAGE_SAYS);
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
pub(crate) struct Asking {
    peers: Peers,
}

#[derive(Deserialize)]
struct Told {
    steps: Vec<Step>,
}

impl Asking {
    /// Those at these base URLs, which may each stand for several and take this token.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub(crate) fn new(urls: Vec<String>, token: Option<String>) -> anyhow::Result<Self> {
        Ok(Self { peers: Peers::new(urls, token, PATIENCE, Duration::ZERO)? })
    }

    /// Who is asked.
    pub(crate) fn urls(&self) -> &[String] {
        self.peers.urls()
    }

    /// What all of them know, and why some do not answer.
    pub(crate) async fn ask(&self, id: &str) -> (Vec<Step>, Vec<String>) {
        let id: String =
            form_urlencoded::byte_serialize(id.as_bytes()).collect::<String>().replace('+', "%20");
        let (mut steps, mut problems) = (Vec::new(), Vec::new());
        for answer in self.peers.get::<Told>(&format!("trace/{id}")).await {
            match answer {
                Ok(told) => steps.extend(told.into_iter().flat_map(|told| told.steps)),
                Err(problem) => problems.push(problem),
            }
        }
        (in_order(steps), problems)
    }
}

/// The ways that this process knows, for its page.
pub(crate) struct Here;

fn for_the_page(steps: Vec<Step>, whole: &str) -> Vec<TraceStep> {
    let shown = steps.into_iter().map(|Step { at, place, what, message }| {
        // Asked for a call, the page tells its messages apart.
        let of = message.strip_prefix(whole).filter(|rest| !rest.is_empty());
        let what = of.map_or_else(|| what.clone(), |rest| format!("{what} ({rest})"));
        TraceStep { at, place, what }
    });
    shown.collect()
}

#[async_trait]
impl page::Traces for Here {
    async fn trace(&self, message: &str) -> Result<Vec<TraceStep>, String> {
        if RING.get().is_none() {
            return Err("the ways of messages are not kept: `trace.messages` is 0".to_owned());
        }
        Ok(for_the_page(known(message), message))
    }
}

#[async_trait]
impl page::Traces for Asking {
    async fn trace(&self, message: &str) -> Result<Vec<TraceStep>, String> {
        if self.urls().is_empty() {
            let why =
                "nobody is known who could tell: name workers, notifiers and frontends in `page.workers`";
            return Err(why.to_owned());
        }
        let (steps, problems) = self.ask(message).await;
        if steps.is_empty() && !problems.is_empty() {
            return Err(problems.join("; "));
        }
        Ok(for_the_page(steps, message))
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
        let said = of_frontend(1, AS_THE_MESSAGE_SAYS);
        assert_eq!(in_order(vec![step(2, "b"), said.clone()]), [said.clone(), step(2, "b")]);
        let received = of_frontend(2, "call received from S1: 2 readings");
        assert_eq!(in_order(vec![said, received.clone()]), [received]);
    }
}
