//! What the process that holds the broker offers beside the dispatcher's API: dead letters, publishing, metrics. An embedded
//! broker belongs to one process, so this is how all others reach it.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /dead` | | `{"queues":[{"queue":…,"dead":…}]}` |
//! | `GET /queue/<id>/dead` | `?offset=&limit=&bodies=` | `{"dead":[{…}]}` |
//! | `POST /queue/<id>/dead/replay` | `{"all":true}` or `{"ids":[…]}`, and `"reason"` for the audit log | `{"replayed":n}` |
//! | `POST /queue/<id>/dead/discard` | as replay | `{"discarded":n}` |
//! | `GET /workers` | | `{"workers":[{…}],"process":{…}}`: of each topology what its components have done and what they wait for; the process's version, memory and load |
//! | `GET /trace/<id>` | | `{"message":…,"steps":[{"at":…,"where":…,"what":…,"message":…}]}`: the history of a message or a call |
//! | `POST /tasks/<name>/run` | `?force=` | with `galerna up`: what the maintainer's task did, as on a maintainer of its own |
//! | `GET /sources`, `POST /sources`, `POST /sources/<id>/rotate`, `/remove` | see `api/sources.rs` | who may post readings |
//! | `/schedules`, `/schedules/<id>`, …, `POST /upcoming` | see `galerna_schedules::api` | what fires by the clock; `api/mod.rs` serves it |
//! | `POST /publish/meters` | NDJSON: a line is the intervals of a meter | what was published, once counters go on from what was before |
//! | `POST /publish` | NDJSON: a line is a reading, an array or a post with `account` or `source` | what was published |
//!
//! What operators ask for, here and of the dispatcher, is written to the audit log with header `x-actor` and the body's `reason`: see
//! `api/audit.rs`.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::BytesRejection;
use axum::extract::{DefaultBodyLimit, Path, State};
use axum::http::StatusCode;
use bytes::Bytes;
use galerna_broker::{Broker, BrokerError, DeadLetter, DeadLetterSelection};
use galerna_dispatcher::Dispatcher;
use galerna_http::{ApiError, JsonBody, Params};
use galerna_model::QueueName;
use galerna_model::Validator;
use galerna_storage::Store;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

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
) -> OpenApiRouter {
    let publishing = OpenApiRouter::new().routes(routes!(publish)).routes(routes!(publish_meters));
    OpenApiRouter::new()
        .routes(routes!(counts))
        .routes(routes!(list))
        .routes(routes!(replay))
        .routes(routes!(discard))
        .merge(publishing.layer(DefaultBodyLimit::max(PUBLISH_LIMIT)))
        .with_state(ApiState { broker, store, dispatcher, makes_accounts, validator })
        .merge(self::workers(workers))
}

/// What a worker of its own tells of its topologies, and of the history of messages.
pub(crate) fn workers(workers: Workers) -> OpenApiRouter {
    OpenApiRouter::new().routes(routes!(engine)).with_state(workers).merge(galerna_telemetry::api::routes())
}

/// What the routes work on.
#[derive(Clone)]
struct ApiState {
    broker: Arc<dyn Broker>,
    store: Store,
    dispatcher: Dispatcher,
    makes_accounts: bool,
    /// Validates readings as the workers do.
    validator: Validator,
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
/// [`BrokerError::UnknownQueue`], or that the broker is unavailable.
pub async fn check_exists(broker: &dyn Broker, queue: &QueueName) -> Result<(), BrokerError> {
    broker.depth(queue).await.map(drop)
}

fn broker_error(e: &BrokerError) -> ApiError {
    let (status, code) = match e {
        BrokerError::UnknownQueue(_) | BrokerError::Invalid(_) => (StatusCode::NOT_FOUND, "unknown_queue"),
        _ => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
    };
    ApiError::new(status, code, describe_broker_error(e))
}

fn unavailable(cause: String) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", cause)
}

/// A body that is not JSON.
fn body(read: Result<Bytes, BytesRejection>) -> Result<Bytes, ApiError> {
    read.map_err(|e| {
        let code =
            if e.status() == StatusCode::PAYLOAD_TOO_LARGE { "body_too_large" } else { "unreadable_body" };
        ApiError::new(e.status(), code, e.body_text()).closing()
    })
}

type Answer = Result<Json<Value>, ApiError>;

fn queue_name(text: &str) -> Result<QueueName, ApiError> {
    QueueName::new(text).map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, "invalid_path", e.to_string()))
}

/// What the components of each worker of this process have done and wait for.
#[utoipa::path(get, path = "/workers",
    responses(
        (status = 200, description = "the workers", body = Object, example = json!({"workers": [], "process": {
            "host": "worker-1", "pid": 7, "version": "0.1.0", "memory_bytes": 50_000_000, "cpu_seconds": 12.5, "threads": 9,
            "open_files": 31, "most_files": 1024, "started_seconds": 1_483_228_800}}))))]
async fn engine(State(workers): State<Workers>) -> Answer {
    workers
        .report()
        .map(Json)
        .map_err(|e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", e.to_string()))
}

/// How many dead letters each queue has.
#[utoipa::path(get, path = "/dead",
    responses(
        (status = 200, description = "queues that have dead letters", body = Object, example = json!({"queues": [{"queue": "D0000591", "dead": 2}]})),
        (status = 503, description = "`unavailable`: the broker does not answer", body = ref("#/components/schemas/ErrorBody"))))]
async fn counts(State(state): State<ApiState>) -> Answer {
    let counts = state.broker.dead_letter_counts().await.map_err(|e| broker_error(&e))?;
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
        "replays": letter.replays,
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
            "deliveries": 1, "replays": 0, "content_type": "application/json", "bytes": 120}]})),
        (status = 400, description = "`invalid_path`: it is no name of a queue", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_queue`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`invalid_query`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the broker does not answer", body = ref("#/components/schemas/ErrorBody"))))]
async fn list(
    State(state): State<ApiState>,
    Path(queue): Path<String>,
    Params(page): Params<Page>,
) -> Answer {
    let queue = queue_name(&queue)?;
    let limit = page.limit.unwrap_or(50).min(MOST);
    let letters = state.broker.dead_letters(&queue, page.offset, limit).await;
    let letters = letters.map_err(|e| broker_error(&e))?;
    if letters.is_empty() {
        check_exists(&*state.broker, &queue).await.map_err(|e| broker_error(&e))?;
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
    fn selection(self) -> Result<DeadLetterSelection, ApiError> {
        match (self.all, self.ids) {
            (true, ids) if ids.is_empty() => Ok(DeadLetterSelection::All),
            (false, ids) if !ids.is_empty() => Ok(DeadLetterSelection::Ids(ids)),
            _ => Err(ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "wrong_shape",
                "say either {\"all\":true} or {\"ids\":[…]}",
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
        (status = 404, description = "`unknown_queue`", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`: the body has other fields than these", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the broker does not answer", body = ref("#/components/schemas/ErrorBody"))))]
async fn replay(
    State(state): State<ApiState>,
    Path(queue): Path<String>,
    JsonBody(which): JsonBody<Which>,
) -> Answer {
    let queue = queue_name(&queue)?;
    let replayed = state.broker.replay(&queue, which.selection()?).await.map_err(|e| broker_error(&e))?;
    if replayed == 0 {
        check_exists(&*state.broker, &queue).await.map_err(|e| broker_error(&e))?;
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
        (status = 404, description = "`unknown_queue`", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`: the body has other fields than these", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the broker does not answer", body = ref("#/components/schemas/ErrorBody"))))]
async fn discard(
    State(state): State<ApiState>,
    Path(queue): Path<String>,
    JsonBody(which): JsonBody<Which>,
) -> Answer {
    let queue = queue_name(&queue)?;
    let discarded = state.broker.discard(&queue, which.selection()?).await.map_err(|e| broker_error(&e))?;
    if discarded == 0 {
        check_exists(&*state.broker, &queue).await.map_err(|e| broker_error(&e))?;
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
    request_body(content((String = "application/x-ndjson"), (String = "text/plain")),
        description = "each line a reading, an array of readings, or a post with `account` or `source`; at most 16 MiB"),
    responses(
        (status = 200, description = "what was published, and what was wrong with the rest", body = Object, example = json!({
            "accounts": {"A": {"queue": "A", "messages": 1, "readings": 200}}, "refused": 0, "problems": [], "without_value": 0})),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`invalid_query`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the broker or the store does not answer; what was published before is said in the message", body = ref("#/components/schemas/ErrorBody"))))]
async fn publish(
    State(state): State<ApiState>,
    Params(form): Params<PublishForm>,
    read: Result<Bytes, BytesRejection>,
) -> Answer {
    let body = body(read)?;
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
    request_body(content((String = "application/x-ndjson"), (String = "text/plain")),
        description = "each line the values of one meter: `account`, `meter`, perhaps `source`, and `values`, each with `line`, `ts`, \
            `amount` (such as {\"net\": [\"active_energy\", \"0.5\"]}, in kWh) and perhaps `length_ms`; at most 16 MiB"),
    responses(
        (status = 200, description = "what was published, and what was wrong with the rest", body = Object, example = json!({
            "accounts": {"A": {"queue": "A", "messages": 1, "readings": 48}}, "refused": 0, "problems": [], "without_value": 0,
            "known": 0, "stored": 0, "revised": 0, "corrected": 0, "corrections": []})),
        (status = 400, description = "`malformed_json`: a line is not the values of a meter", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`invalid_query`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the broker or the store does not answer; publishing the same again is harmless", body = ref("#/components/schemas/ErrorBody"))))]
async fn publish_meters(
    State(state): State<ApiState>,
    Params(form): Params<PublishMetersForm>,
    read: Result<Bytes, BytesRejection>,
) -> Answer {
    let body = body(read)?;
    let meters = read_lines(&body).map_err(|e| {
        let message = format!("{e:#}; send the values of a meter a line");
        ApiError::new(StatusCode::BAD_REQUEST, "malformed_json", message)
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
