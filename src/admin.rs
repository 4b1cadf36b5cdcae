//! What the process that holds the broker offers beside the dispatcher's API: dead letters, publishing, metrics. An embedded
//! broker belongs to one process, so this is how all others reach it.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /dead` | | `{"queues":[{"queue":…,"dead":…}]}` |
//! | `GET /queue/<id>/dead` | `?offset=&limit=&bodies=` | `{"dead":[{…}]}` |
//! | `POST /queue/<id>/dead/replay` | `{"all":true}` or `{"ids":[…]}` | `{"replayed":n}` |
//! | `POST /queue/<id>/dead/discard` | as replay | `{"discarded":n}` |
//! | `GET /workers` | | `{"workers":[{…}]}`: of each topology what its components have done and what they wait for |
//! | `POST /publish` | NDJSON: a line is a reading, an array or a post with `account` or `source` | what was published |

use std::sync::Arc;

use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use galerna_broker::{Broker, BrokerError, DeadLetter, DeadLetterSelection, QueueName};
use galerna_dispatcher::Dispatcher;
use galerna_storage::Store;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::commands::publish::{Directory, Outgoing, Owner, publish_lines};
use crate::workers::Workers;

/// Longest body of `/publish`.
const PUBLISH_LIMIT: usize = 16 << 20;
/// Most dead letters in one answer.
const MOST: usize = 1_000;

/// The routes.
pub(crate) fn router(
    broker: Arc<dyn Broker>,
    store: Store,
    dispatcher: Dispatcher,
    workers: Workers,
    makes_accounts: bool,
) -> Router {
    Router::new()
        .route("/dead", get(counts))
        .route("/queue/{queue}/dead", get(list))
        .route("/queue/{queue}/dead/replay", post(replay))
        .route("/queue/{queue}/dead/discard", post(discard))
        .route("/workers", get(engine))
        .route("/publish", post(publish).layer(DefaultBodyLimit::max(PUBLISH_LIMIT)))
        .with_state(Held { broker, store, dispatcher, workers, makes_accounts })
}

#[derive(Clone)]
struct Held {
    broker: Arc<dyn Broker>,
    store: Store,
    dispatcher: Dispatcher,
    workers: Workers,
    makes_accounts: bool,
}

/// An error in the form of the API.
struct Refusal(StatusCode, &'static str, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": {"code": self.1, "message": self.2}}))).into_response()
    }
}

impl From<BrokerError> for Refusal {
    fn from(e: BrokerError) -> Self {
        match e {
            BrokerError::UnknownQueue(_) => Self(StatusCode::NOT_FOUND, "unknown_queue", e.to_string()),
            _ => Self(StatusCode::SERVICE_UNAVAILABLE, "unavailable", e.to_string()),
        }
    }
}

impl From<QueryRejection> for Refusal {
    fn from(e: QueryRejection) -> Self {
        Self(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", e.body_text())
    }
}

impl From<BytesRejection> for Refusal {
    fn from(e: BytesRejection) -> Self {
        Self(
            e.status(),
            if e.status() == StatusCode::PAYLOAD_TOO_LARGE { "body_too_large" } else { "unreadable_body" },
            e.body_text(),
        )
    }
}

type Answer = Result<Json<Value>, Refusal>;

fn queue_name(text: &str) -> Result<QueueName, Refusal> {
    QueueName::new(text).map_err(|e| Refusal(StatusCode::BAD_REQUEST, "invalid_path", e.to_string()))
}

async fn engine(State(held): State<Held>) -> Json<Value> {
    Json(json!({ "workers": held.workers.metrics() }))
}

async fn counts(State(held): State<Held>) -> Answer {
    let counts = held.broker.dead_letter_counts().await?;
    let queues: Vec<Value> =
        counts.into_iter().map(|(queue, dead)| json!({"queue": queue, "dead": dead})).collect();
    Ok(Json(json!({ "queues": queues })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    #[serde(default)]
    offset: usize,
    limit: Option<usize>,
    #[serde(default)]
    bodies: bool,
}

/// A dead letter as it is shown.
pub(crate) fn shown(letter: &DeadLetter, bodies: bool) -> Value {
    let mut value = json!({
        "id": letter.id,
        "reason": letter.failure.reason,
        "component": letter.failure.component,
        "at": letter.at,
        "deliveries": letter.deliveries,
        "content_type": letter.content_type,
        "bytes": letter.body.len(),
    });
    if bodies {
        value["body"] = json!(String::from_utf8_lossy(&letter.body));
    }
    value
}

async fn list(
    State(held): State<Held>,
    Path(queue): Path<String>,
    page: Result<Query<Page>, QueryRejection>,
) -> Answer {
    let (queue, Query(page)) = (queue_name(&queue)?, page?);
    let limit = page.limit.unwrap_or(50).min(MOST);
    let letters = held.broker.dead_letters(&queue, page.offset, limit).await?;
    let letters: Vec<Value> = letters.iter().map(|letter| shown(letter, page.bodies)).collect();
    Ok(Json(json!({ "dead": letters })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    #[serde(default)]
    all: bool,
    #[serde(default)]
    ids: Vec<String>,
}

impl Which {
    fn read(body: &[u8]) -> Result<Self, Refusal> {
        serde_json::from_slice(body).map_err(|e| match e.classify() {
            serde_json::error::Category::Data => Refusal(
                StatusCode::UNPROCESSABLE_ENTITY,
                "wrong_shape",
                format!("the body has a wrong shape: {e}"),
            ),
            _ => Refusal(StatusCode::BAD_REQUEST, "malformed_json", format!("the body is no JSON: {e}")),
        })
    }

    fn selection(self) -> Result<DeadLetterSelection, Refusal> {
        match (self.all, self.ids) {
            (true, ids) if ids.is_empty() => Ok(DeadLetterSelection::All),
            (false, ids) if !ids.is_empty() => Ok(DeadLetterSelection::Ids(ids)),
            _ => Err(Refusal(
                StatusCode::UNPROCESSABLE_ENTITY,
                "wrong_shape",
                "say either {\"all\":true} or {\"ids\":[…]}".to_owned(),
            )),
        }
    }
}

async fn replay(
    State(held): State<Held>,
    Path(queue): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let (queue, which) = (queue_name(&queue)?, Which::read(&body?)?);
    let replayed = held.broker.replay(&queue, which.selection()?).await?;
    tracing::info!(%queue, replayed, "dead letters replayed");
    Ok(Json(json!({ "replayed": replayed })))
}

async fn discard(
    State(held): State<Held>,
    Path(queue): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let (queue, which) = (queue_name(&queue)?, Which::read(&body?)?);
    let discarded = held.broker.discard(&queue, which.selection()?).await?;
    tracing::info!(%queue, discarded, "dead letters discarded");
    Ok(Json(json!({ "discarded": discarded })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishForm {
    #[serde(default)]
    plain_json: bool,
}

async fn publish(
    State(held): State<Held>,
    form: Result<Query<PublishForm>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let (Query(form), body) = (form?, body?);
    let away = |e: String| Refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable", e);
    let directory =
        Directory::read(&held.store, held.makes_accounts).await.map_err(|e| away(e.to_string()))?;
    let outgoing = Outgoing::new(&*held.broker, directory, Owner::default(), form.plain_json, "api");
    let summary = publish_lines(&body, outgoing).await.map_err(|e| away(format!("{e:#}")))?;
    held.dispatcher.hint(&summary.queues());
    serde_json::to_value(&summary).map(Json).map_err(|e| away(e.to_string()))
}
