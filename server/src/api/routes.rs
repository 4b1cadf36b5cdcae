//! What the process that holds the broker offers beside the dispatcher's API: dead letters, publishing, metrics. An embedded
//! broker belongs to one process, so this is how all others reach it.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /dead` | | `{"queues":[{"queue":…,"dead":…}]}` |
//! | `GET /queue/<id>/dead` | `?offset=&limit=&bodies=` | `{"dead":[{…}]}` |
//! | `POST /queue/<id>/dead/replay` | `{"all":true}` or `{"ids":[…]}`, and `"reason"` for the audit log | `{"replayed":n}` |
//! | `POST /queue/<id>/dead/discard` | as replay | `{"discarded":n}` |
//! | `GET /workers` | | `{"workers":[{…}]}`: of each topology what its components have done and what they wait for |
//! | `GET /trace/<id>` | | `{"message":…,"steps":[{"at":…,"where":…,"what":…,"message":…}]}`: the history of a message or a call |
//! | `POST /tasks/<name>/run` | `?force=` | with `galerna up`: what the maintainer's task did, as on a maintainer of its own |
//! | `POST /publish/meters` | NDJSON: a line is the intervals of a meter | what was published, once counters go on from what was before |
//! | `POST /publish` | NDJSON: a line is a reading, an array or a post with `account` or `source` | what was published |
//!
//! What operators ask for, here and of the dispatcher, is written to the audit log with header `x-actor` and the body's `reason`: see
//! `api/audit.rs`.

use std::sync::Arc;

use axum::extract::rejection::{BytesRejection, QueryRejection};
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use galerna_broker::{Broker, BrokerError, DeadLetter, DeadLetterSelection};
use galerna_dispatcher::Dispatcher;
use galerna_model::QueueName;
use galerna_model::Validator;
use galerna_storage::Store;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::OpenApi;

use super::{audit, message_history};
use crate::intervals::{WorkerCheck, publish_values, read_lines, rehearse_values};
use crate::modules::Workers;
use crate::publish::{Directory, Outgoing, Owner, Target, publish_lines};

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
    validator: Validator,
) -> Router {
    Router::new()
        .route("/dead", get(counts))
        .route("/queue/{id}/dead", get(list))
        .route("/queue/{id}/dead/replay", post(replay))
        .route("/queue/{id}/dead/discard", post(discard))
        .route("/workers", get(engine))
        .route("/publish", post(publish).layer(DefaultBodyLimit::max(PUBLISH_LIMIT)))
        .route("/publish/meters", post(publish_meters).layer(DefaultBodyLimit::max(PUBLISH_LIMIT)))
        .with_state(ApiState { broker, store, dispatcher, workers, makes_accounts, validator })
        .merge(message_history::routes())
}

/// What a worker of its own tells of its topologies, and of the history of messages.
pub(crate) fn workers(workers: Workers) -> Router {
    let told = move || async move { Json(json!({ "workers": workers.metrics() })) };
    Router::new().route("/workers", get(told)).merge(message_history::routes())
}

#[derive(Clone)]
struct ApiState {
    broker: Arc<dyn Broker>,
    store: Store,
    dispatcher: Dispatcher,
    workers: Workers,
    makes_accounts: bool,
    /// Judges readings as the workers do.
    validator: Validator,
}

/// An error in the form of the API.
pub(crate) struct Refusal(pub(crate) StatusCode, pub(crate) &'static str, pub(crate) String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        (self.0, Json(json!({"error": {"code": self.1, "message": self.2}}))).into_response()
    }
}

/// An error of the broker in the words of those who operate the queues, and do not declare them.
pub fn describe_broker_error(error: &BrokerError) -> String {
    match error {
        BrokerError::UnknownQueue(queue) => {
            format!(
                "queue `{queue}` does not exist; `galerna queues list` (GET /queue/status) shows those that do"
            )
        }
        other => other.to_string(),
    }
}

/// Where no dead letter was found there may be no queue either, such as for a name that is misspelt; a broker that keeps dead
/// letters in a queue of their own does not say so by itself.
///
/// # Errors
/// [`BrokerError::UnknownQueue`], or that the broker is away.
pub async fn check_exists(broker: &dyn Broker, queue: &QueueName) -> Result<(), BrokerError> {
    broker.depth(queue).await.map(drop)
}

impl From<BrokerError> for Refusal {
    fn from(e: BrokerError) -> Self {
        match e {
            BrokerError::UnknownQueue(_) => {
                Self(StatusCode::NOT_FOUND, "unknown_queue", describe_broker_error(&e))
            }
            _ => Self(StatusCode::SERVICE_UNAVAILABLE, "unavailable", describe_broker_error(&e)),
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

#[derive(OpenApi)]
#[openapi(paths(counts, list, replay, discard, engine, publish, publish_meters, message_history::history))]
struct Document;

/// Longest description of an API.
const DOCUMENT_LIMIT: usize = 4 << 20;

/// Adds to the dispatcher's `/openapi.json` what is audited, and, when they are `served` with the dispatcher's, these routes.
pub(crate) async fn describe(State(served): State<bool>, request: Request, next: Next) -> Response {
    let asked = request.method() == Method::GET && request.uri().path() == "/openapi.json";
    let answer = next.run(request).await;
    if !asked || answer.status() != StatusCode::OK {
        return answer;
    }
    let dispatchers = axum::body::to_bytes(answer.into_body(), DOCUMENT_LIMIT).await;
    let merged = dispatchers.map_err(|e| e.to_string()).and_then(|text| {
        let mut document: Value = serde_json::from_slice(&text).map_err(|e| e.to_string())?;
        if served {
            let ours = serde_json::to_value(Document::openapi()).map_err(|e| e.to_string())?;
            if let (Some(all), Value::Object(ours)) = (document["paths"].as_object_mut(), &ours["paths"]) {
                all.extend(ours.clone());
            }
        }
        audit::describe(&mut document);
        Ok(document)
    });
    match merged {
        Ok(document) => Json(document).into_response(),
        Err(e) => Refusal(StatusCode::INTERNAL_SERVER_ERROR, "no_document", e).into_response(),
    }
}

type Answer = Result<Json<Value>, Refusal>;

fn queue_name(text: &str) -> Result<QueueName, Refusal> {
    QueueName::new(text).map_err(|e| Refusal(StatusCode::BAD_REQUEST, "invalid_path", e.to_string()))
}

/// What the components of each worker of this process have done and wait for.
#[utoipa::path(get, path = "/workers",
    responses(
        (status = 200, description = "the workers", body = Object, example = json!({"workers": []})),
        (status = 401, description = "`unauthorized`: a token is demanded and was not sent", body = ref("#/components/schemas/ErrorBody"))))]
async fn engine(State(state): State<ApiState>) -> Json<Value> {
    Json(json!({ "workers": state.workers.metrics() }))
}

/// How many dead letters each queue has.
#[utoipa::path(get, path = "/dead",
    responses(
        (status = 200, description = "queues that have dead letters", body = Object, example = json!({"queues": [{"queue": "D0000591", "dead": 2}]})),
        (status = 401, description = "`unauthorized`: a token is demanded and was not sent", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the broker is away", body = ref("#/components/schemas/ErrorBody"))))]
async fn counts(State(state): State<ApiState>) -> Answer {
    let counts = state.broker.dead_letter_counts().await?;
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
pub fn shown(letter: &DeadLetter, bodies: bool) -> Value {
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

/// The dead letters of a queue, oldest first.
#[utoipa::path(get, path = "/queue/{id}/dead",
    params(
        ("id" = String, Path, description = "the queue"),
        ("offset" = Option<usize>, Query, description = "skip so many"),
        ("limit" = Option<usize>, Query, description = "at most so many; 50 when absent, never more than 1000"),
        ("bodies" = Option<bool>, Query, description = "with their bodies")),
    responses(
        (status = 200, description = "the dead letters", body = Object, example = json!({"dead": [{
            "id": "1", "reason": "unknown parameter 999", "component": "validate", "at": "2017-01-01T00:00:00.000Z",
            "deliveries": 1, "content_type": "application/json", "bytes": 120}]})),
        (status = 400, description = "`invalid_path`: it is no name of a queue", body = ref("#/components/schemas/ErrorBody")),
        (status = 401, description = "`unauthorized`: a token is demanded and was not sent", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_queue`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`invalid_query`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the broker is away", body = ref("#/components/schemas/ErrorBody"))))]
async fn list(
    State(state): State<ApiState>,
    Path(queue): Path<String>,
    page: Result<Query<Page>, QueryRejection>,
) -> Answer {
    let (queue, Query(page)) = (queue_name(&queue)?, page?);
    let limit = page.limit.unwrap_or(50).min(MOST);
    let letters = state.broker.dead_letters(&queue, page.offset, limit).await?;
    if letters.is_empty() {
        check_exists(&*state.broker, &queue).await?;
    }
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
    /// For the audit log, which reads it itself.
    #[serde(default, rename = "reason")]
    _reason: Option<String>,
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

/// Puts dead letters back into their queue.
#[utoipa::path(post, path = "/queue/{id}/dead/replay",
    params(("id" = String, Path, description = "the queue")),
    request_body(content = Object, description = "which: all of them, or those with these ids; `reason` is for the audit log", example = json!({"ids": ["1"], "reason": "mended"})),
    responses(
        (status = 200, description = "how many are back; ids that are not there are not counted", body = Object, example = json!({"replayed": 1})),
        (status = 400, description = "`invalid_path` or `malformed_json`", body = ref("#/components/schemas/ErrorBody")),
        (status = 401, description = "`unauthorized`: a token is demanded and was not sent", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_queue`", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`: the body has other fields than these", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the broker is away", body = ref("#/components/schemas/ErrorBody"))))]
async fn replay(
    State(state): State<ApiState>,
    Path(queue): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let (queue, which) = (queue_name(&queue)?, Which::read(&body?)?);
    let replayed = state.broker.replay(&queue, which.selection()?).await?;
    if replayed == 0 {
        check_exists(&*state.broker, &queue).await?;
    }
    tracing::info!(%queue, replayed, "dead letters replayed");
    Ok(Json(json!({ "replayed": replayed })))
}

/// Deletes dead letters.
#[utoipa::path(post, path = "/queue/{id}/dead/discard",
    params(("id" = String, Path, description = "the queue")),
    request_body(content = Object, description = "which: all of them, or those with these ids; `reason` is for the audit log", example = json!({"ids": ["1"], "reason": "mended"})),
    responses(
        (status = 200, description = "how many are gone; ids that are not there are not counted", body = Object, example = json!({"discarded": 1})),
        (status = 400, description = "`invalid_path` or `malformed_json`", body = ref("#/components/schemas/ErrorBody")),
        (status = 401, description = "`unauthorized`: a token is demanded and was not sent", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_queue`", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`: the body has other fields than these", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the broker is away", body = ref("#/components/schemas/ErrorBody"))))]
async fn discard(
    State(state): State<ApiState>,
    Path(queue): Path<String>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let (queue, which) = (queue_name(&queue)?, Which::read(&body?)?);
    let discarded = state.broker.discard(&queue, which.selection()?).await?;
    if discarded == 0 {
        check_exists(&*state.broker, &queue).await?;
    }
    tracing::info!(%queue, discarded, "dead letters discarded");
    Ok(Json(json!({ "discarded": discarded })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishForm {
    #[serde(default)]
    plain_json: bool,
}

/// Publishes readings to the queues of their accounts.
#[utoipa::path(post, path = "/publish",
    params(("plain_json" = Option<bool>, Query, description = "as plain JSON messages instead of envelopes")),
    request_body(content = String, content_type = "application/x-ndjson",
        description = "each line a reading, an array of readings, or a post with `account` or `source`; at most 16 MiB"),
    responses(
        (status = 200, description = "what was published, and what was wrong with the rest", body = Object, example = json!({
            "accounts": {"A": {"queue": "A", "messages": 1, "readings": 200}}, "refused": 0, "problems": [], "without_value": 0})),
        (status = 401, description = "`unauthorized`: a token is demanded and was not sent", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`invalid_query`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the broker or the store is away; what was published before is said in the message", body = ref("#/components/schemas/ErrorBody"))))]
async fn publish(
    State(state): State<ApiState>,
    form: Result<Query<PublishForm>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let (Query(form), body) = (form?, body?);
    let unavailable = |e: String| Refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable", e);
    let directory =
        Directory::read(&state.store, state.makes_accounts).await.map_err(|e| unavailable(e.to_string()))?;
    let outgoing = Outgoing::new(&*state.broker, directory, Owner::default(), form.plain_json, "api");
    let (summary, ended) = publish_lines(&body, outgoing).await;
    state.dispatcher.hint(&summary.queues());
    ended.map_err(|e| {
        unavailable(format!("{e:#}; {} readings of this call were published", summary.readings()))
    })?;
    serde_json::to_value(&summary).map(Json).map_err(|e| unavailable(e.to_string()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PublishMetersForm {
    #[serde(default)]
    plain_json: bool,
    #[serde(default)]
    dry_run: bool,
}

/// Publishes readings made of meters' intervals; their counters go on from what was imported and stored before.
#[utoipa::path(post, path = "/publish/meters",
    params(
        ("plain_json" = Option<bool>, Query, description = "as plain JSON messages instead of envelopes"),
        ("dry_run" = Option<bool>, Query, description = "publish nothing, answer with what would be")),
    request_body(content = String, content_type = "application/x-ndjson",
        description = "each line the values of one meter: `account`, `meter`, perhaps `source`, and `values`, each with `line`, `ts`, \
            `amount` (such as {\"net\": [\"active_energy\", \"0.5\"]}, in kWh) and perhaps `length_ms`; at most 16 MiB"),
    responses(
        (status = 200, description = "what was published, and what was wrong with the rest", body = Object, example = json!({
            "accounts": {"A": {"queue": "A", "messages": 1, "readings": 48}}, "refused": 0, "problems": [], "without_value": 0,
            "known": 0, "stored": 0, "revised": 0, "corrected": 0, "corrections": []})),
        (status = 400, description = "`malformed_json`: a line is not the values of a meter", body = ref("#/components/schemas/ErrorBody")),
        (status = 401, description = "`unauthorized`: a token is demanded and was not sent", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`invalid_query`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the broker or the store is away; publishing the same again is harmless", body = ref("#/components/schemas/ErrorBody"))))]
async fn publish_meters(
    State(state): State<ApiState>,
    form: Result<Query<PublishMetersForm>, QueryRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Answer {
    let (Query(form), body) = (form?, body?);
    let unavailable = |e: String| Refusal(StatusCode::SERVICE_UNAVAILABLE, "unavailable", e);
    let meters = read_lines(&body).map_err(|e| {
        Refusal(
            StatusCode::BAD_REQUEST,
            "malformed_json",
            format!("{e:#}; send the values of a meter a line"),
        )
    })?;
    let check = WorkerCheck::new(state.validator.clone());
    let summary = if form.dry_run {
        rehearse_values(&meters, &state.store, &check).await.map_err(|e| unavailable(format!("{e:#}")))?
    } else {
        let directory = Directory::read(&state.store, state.makes_accounts)
            .await
            .map_err(|e| unavailable(e.to_string()))?;
        let mut outgoing = Outgoing::new(&*state.broker, directory, Owner::default(), form.plain_json, "api");
        let ended = publish_values(&meters, &state.store, &check, &mut outgoing).await;
        let summary = std::mem::take(outgoing.summary());
        state.dispatcher.hint(&summary.queues());
        ended.map_err(|e| {
            unavailable(format!("{e:#}; {} readings of this call were published", summary.readings()))
        })?;
        summary
    };
    serde_json::to_value(&summary).map(Json).map_err(|e| unavailable(e.to_string()))
}
