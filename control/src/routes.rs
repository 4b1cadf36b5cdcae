//! The API, after Storm's UI API where that fits.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use galerna_engine::{CheckpointFailure, RebalanceError};
use galerna_http::{ApiError, JsonBody};
use galerna_state::DeclaredState;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::autoscale::Autoscale;
use crate::error::ControlError;
use crate::topologies::Topologies;
use crate::upgrade::Upgrade;

/// The longest time to wait at a kill: a day.
const LONGEST_WAIT: u64 = 86_400;

/// The routes under `/api/v1/topologies`, to be served beside others.
pub fn rest(topologies: Topologies) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list))
        .routes(routes!(show))
        .routes(routes!(activate))
        .routes(routes!(deactivate))
        .routes(routes!(rebalance))
        .routes(routes!(checkpoint))
        .routes(routes!(upgrade))
        .routes(routes!(autoscale))
        .routes(routes!(kill))
        .routes(routes!(kill_within))
        .with_state(topologies)
}

impl From<ControlError> for ApiError {
    fn from(error: ControlError) -> Self {
        let (status, code) = match &error {
            ControlError::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_topology"),
            ControlError::Taken(_) => (StatusCode::CONFLICT, "name_taken"),
            ControlError::Name { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_name"),
            ControlError::Ending { .. } => (StatusCode::CONFLICT, "ending"),
            ControlError::Rebalance { cause, .. } => match cause {
                RebalanceError::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_component"),
                RebalanceError::Fixed { .. } => (StatusCode::CONFLICT, "fixed"),
                _ => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_executors"),
            },
            ControlError::Checkpoint { cause, .. } => match cause {
                CheckpointFailure::Off | CheckpointFailure::None => (StatusCode::CONFLICT, "no_checkpoints"),
                CheckpointFailure::Ended => (StatusCode::CONFLICT, "ending"),
                _ => (StatusCode::SERVICE_UNAVAILABLE, "no_checkpoint"),
            },
            ControlError::Upgrade { .. } => (StatusCode::CONFLICT, "would_not_start"),
            ControlError::Autoscale { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_bounds"),
            ControlError::Start { .. } => (StatusCode::UNPROCESSABLE_ENTITY, "not_started"),
        };
        Self::new(status, code, error.to_string())
    }
}

/// A body that may say why.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Why {
    /// For the audit log, which reads it itself where there is one.
    #[serde(default, rename = "reason")]
    _reason: Option<String>,
}

/// How long to wait for what is pending.
fn waiting(seconds: u64) -> Result<Duration, ApiError> {
    Some(seconds).filter(|seconds| *seconds <= LONGEST_WAIT).map(Duration::from_secs).ok_or_else(|| {
        let message = format!("the time to wait is in whole seconds, from 0 to {LONGEST_WAIT}");
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_wait", message)
    })
}

type Answer = Result<Json<Value>, ApiError>;

fn body_of(value: &impl Serialize) -> Answer {
    serde_json::to_value(value)
        .map(Json)
        .map_err(|e| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", e.to_string()))
}

fn text(path: Result<Path<String>, axum::extract::rejection::PathRejection>) -> Result<String, ApiError> {
    path.map(|Path(name)| name)
        .map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, "invalid_path", e.body_text()))
}

type Name = Result<Path<String>, axum::extract::rejection::PathRejection>;

/// The topologies that run here, and those that have ended in the last minutes.
#[utoipa::path(get, path = "/api/v1/topologies",
    responses((status = 200, description = "a line for each", body = Object, example = json!({"topologies": [{
        "name": "words", "topology": "words", "status": "active", "uptime_ms": 61_000, "components": 3, "executors": 4, "tasks": 4,
        "emitted": 1_200, "acked": 1_190, "failed": 0, "pending": 10, "rate": 20.0,
        "why_slow": "Nothing holds it up: the busiest is `count`, its executor is 3 % busy."}]}))))]
async fn list(State(topologies): State<Topologies>) -> Answer {
    body_of(&json!({ "topologies": topologies.list() }))
}

/// One topology: its components with what they did and wait for, and why it is not faster.
#[utoipa::path(get, path = "/api/v1/topologies/{name}",
    params(("name" = String, Path, description = "the name under which it was submitted")),
    responses(
        (status = 200, description = "the topology", body = Object),
        (status = 404, description = "`unknown_topology`", body = ref("#/components/schemas/ErrorBody"))))]
async fn show(State(topologies): State<Topologies>, name: Name) -> Answer {
    body_of(&topologies.get(&text(name)?)?)
}

fn done(topologies: &Topologies, name: &str) -> Answer {
    let status = topologies.get(name)?.summary.status;
    body_of(&json!({ "name": name, "status": status }))
}

/// Lets the spouts emit.
#[utoipa::path(post, path = "/api/v1/topologies/{name}/activate",
    params(("name" = String, Path, description = "the topology")),
    request_body(content = Object, description = "nothing, or an object with a `reason` for the audit log"),
    responses(
        (status = 200, description = "they may", body = Object, example = json!({"name": "words", "status": "active"})),
        (status = 404, description = "`unknown_topology`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`ending`: it ends or has ended", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`: the body has other fields", body = ref("#/components/schemas/ErrorBody"))))]
async fn activate(State(topologies): State<Topologies>, name: Name, _: JsonBody<Why>) -> Answer {
    let name = text(name)?;
    topologies.activate(&name)?;
    done(&topologies, &name)
}

/// Has the spouts stop emitting; what is on its way goes on.
#[utoipa::path(post, path = "/api/v1/topologies/{name}/deactivate",
    params(("name" = String, Path, description = "the topology")),
    request_body(content = Object, description = "nothing, or an object with a `reason` for the audit log"),
    responses(
        (status = 200, description = "they may not", body = Object, example = json!({"name": "words", "status": "inactive"})),
        (status = 404, description = "`unknown_topology`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`ending`: it ends or has ended", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`: the body has other fields", body = ref("#/components/schemas/ErrorBody"))))]
async fn deactivate(State(topologies): State<Topologies>, name: Name, _: JsonBody<Why>) -> Answer {
    let name = text(name)?;
    topologies.deactivate(&name)?;
    done(&topologies, &name)
}

/// What a rebalance is to change.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rebalance {
    component: String,
    executors: usize,
    #[serde(default, rename = "reason")]
    _reason: Option<String>,
}

/// Changes how many tasks of a component execute at the same time, while it runs. Each key stays with its task.
#[utoipa::path(post, path = "/api/v1/topologies/{name}/rebalance",
    params(("name" = String, Path, description = "the topology")),
    request_body(content = Object, description = "the component, and its executors: 1 to as many as it has tasks", example = json!({"component": "count", "executors": 4})),
    responses(
        (status = 200, description = "they are changed; `pause_ms` is how long it took until no more tasks executed than that", body = Object,
            example = json!({"name": "words", "component": "count", "fused": [], "from": 1, "to": 4, "pause_ms": 0.02})),
        (status = 400, description = "`malformed_json`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_topology`, `unknown_component`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`ending`: it ends or has ended; `fixed`: the executors of such a component cannot be changed", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`invalid_executors`; `wrong_shape`: the body has other fields than these", body = ref("#/components/schemas/ErrorBody"))))]
async fn rebalance(
    State(topologies): State<Topologies>,
    name: Name,
    JsonBody(to): JsonBody<Rebalance>,
) -> Answer {
    let name = text(name)?;
    let done = topologies.rebalance(&name, &to.component, to.executors).await?;
    let fused: Vec<&str> = done.fused.iter().map(|component| &**component).collect();
    let pause_ms = done.pause.as_secs_f64() * 1e3;
    body_of(
        &json!({ "name": name, "component": &*done.component, "fused": fused, "from": done.from, "to": done.to, "pause_ms": pause_ms }),
    )
}

/// Takes a checkpoint now, and answers when it is committed.
#[utoipa::path(post, path = "/api/v1/topologies/{name}/checkpoint",
    params(("name" = String, Path, description = "the topology")),
    request_body(content = Object, description = "nothing, or an object with a `reason` for the audit log"),
    responses(
        (status = 200, description = "it is committed", body = Object,
            example = json!({"name": "words", "id": 7, "took_ms": 12.5, "written_bytes": 4_096, "state_bytes": 65_536})),
        (status = 404, description = "`unknown_topology`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`no_checkpoints`: it takes none; `ending`: it ends or has ended", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`: the body has other fields", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`no_checkpoint`: it came to nothing, for the reason that is told", body = ref("#/components/schemas/ErrorBody"))))]
async fn checkpoint(State(topologies): State<Topologies>, name: Name, _: JsonBody<Why>) -> Answer {
    let name = text(name)?;
    let taken = topologies.checkpoint(&name).await?;
    let took_ms = taken.took.as_secs_f64() * 1e3;
    body_of(
        &json!({ "name": name, "id": taken.id, "took_ms": took_ms, "written_bytes": taken.written_bytes, "state_bytes": taken.state_bytes }),
    )
}

/// What an upgrade is to do.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UpgradeBody {
    /// Only say what would become of each state.
    #[serde(default)]
    dry_run: bool,
    /// The states that the new program declares; without them those of the one that runs.
    declares: Option<Vec<DeclaredState>>,
    /// The new program drops the state of components that it does not have.
    #[serde(default)]
    drop_orphaned: bool,
    /// How long to wait for what is pending.
    wait_seconds: Option<u64>,
    #[serde(default, rename = "reason")]
    _reason: Option<String>,
}

/// Takes a checkpoint and ends the topology, so that another program goes on from it; or, as a dry run, says what that would make of it.
#[utoipa::path(post, path = "/api/v1/topologies/{name}/upgrade",
    params(("name" = String, Path, description = "the topology")),
    request_body(content = Object, description = "`dry_run`; `declares`: the states of the new program, as `Engine::declared_states` gives them, without \
        which nothing is compared; `drop_orphaned`: it may lose the state of components that it does not have; `wait_seconds`: for what is pending, 86400 at most",
        example = json!({"dry_run": true, "declares": [{"component": "count", "state": "count", "kind": "value", "version": 2, "migrates_from": [1]}]})),
    responses(
        (status = 200, description = "of a dry run: what becomes of each state, of the last checkpoint", body = Object, example = json!({"name": "words", "checkpoint": 12,
            "starts": true, "orphaned_components": [], "states": [{"component": "count", "state": "count", "fate": "migrated", "versions": [1, 2], "bytes": 4096, "reason": null}],
            "advice": ["It starts from this checkpoint."]})),
        (status = 202, description = "a checkpoint is taken, and the topology ends; ask for it to see when it has", body = Object,
            example = json!({"name": "words", "status": "ending", "checkpoint": 12, "plan": null})),
        (status = 404, description = "`unknown_topology`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`no_checkpoints`; `would_not_start`: from that checkpoint, so that the topology runs on; `ending`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`; `invalid_wait`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`no_checkpoint`: none could be taken, so that the topology runs on", body = ref("#/components/schemas/ErrorBody"))))]
async fn upgrade(
    State(topologies): State<Topologies>,
    name: Name,
    JsonBody(body): JsonBody<UpgradeBody>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let name = text(name)?;
    if body.dry_run {
        let declares = match body.declares {
            Some(declares) => declares,
            None => topologies.get(&name)?.states,
        };
        let plan = topologies.plan_upgrade(&name, &declares).await?;
        return Ok((StatusCode::OK, body_of(&plan)?));
    }
    let wait = body.wait_seconds.map(waiting).transpose()?;
    let begun = topologies
        .upgrade(&name, Upgrade { declares: body.declares, drop_orphaned: body.drop_orphaned, wait })
        .await?;
    let status = topologies.get(&name)?.summary.status;
    let answer =
        json!({ "name": name, "status": status, "checkpoint": begun.checkpoint.id.0, "plan": begun.plan });
    Ok((StatusCode::ACCEPTED, Json(answer)))
}

/// Between which bounds executors are to follow a component's load.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AutoscaleBody {
    component: String,
    /// The fewest and the most; without both they stay as they are from now on.
    min: Option<usize>,
    max: Option<usize>,
    grow_at: Option<f64>,
    shrink_at: Option<f64>,
    hold_seconds: Option<u64>,
    #[serde(default, rename = "reason")]
    _reason: Option<String>,
}

/// Has the executors of a component follow its load, between bounds, or not any more.
#[utoipa::path(post, path = "/api/v1/topologies/{name}/autoscale",
    params(("name" = String, Path, description = "the topology")),
    request_body(content = Object, description = "the component with the fewest and the most executors, and perhaps the busy shares at which there are to be more or \
        fewer and for how long; without `min` and `max` they stay as they are from now on",
        example = json!({"component": "count", "min": 1, "max": 4, "grow_at": 0.8, "shrink_at": 0.3, "hold_seconds": 10})),
    responses(
        (status = 200, description = "all components of the topology whose executors follow their load", body = Object,
            example = json!({"name": "words", "autoscaled": [{"component": "count", "min": 1, "max": 4, "grow_at": 0.8, "shrink_at": 0.3, "hold_ms": 10_000}]})),
        (status = 404, description = "`unknown_topology`, `unknown_component`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`fixed`: its executors are; `ending`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`; `invalid_bounds`, `invalid_executors`: between which nothing can be scaled", body = ref("#/components/schemas/ErrorBody"))))]
async fn autoscale(
    State(topologies): State<Topologies>,
    name: Name,
    JsonBody(body): JsonBody<AutoscaleBody>,
) -> Answer {
    let name = text(name)?;
    let invalid =
        |message: &str| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_bounds", message.to_owned());
    match (body.min, body.max) {
        (None, None) => topologies.stop_autoscale(&name, &body.component)?,
        (Some(min), Some(max)) => {
            let mut options = Autoscale::between(min..=max);
            options.grow_at = body.grow_at.unwrap_or(options.grow_at);
            options.shrink_at = body.shrink_at.unwrap_or(options.shrink_at);
            if let Some(seconds) = body.hold_seconds {
                options.hold = Some(seconds)
                    .filter(|seconds| *seconds <= LONGEST_WAIT)
                    .map(Duration::from_secs)
                    .ok_or_else(|| invalid("`hold_seconds` is a day at most: 86400"))?;
            }
            topologies.autoscale(&name, &body.component, options).await?;
        }
        _ => {
            return Err(invalid(
                "give both `min` and `max`, or neither to have the executors stay as they are",
            ));
        }
    }
    body_of(&json!({ "name": name, "autoscaled": topologies.get(&name)?.autoscaled }))
}

/// Ends the topology: nothing is emitted any more, and what is pending is waited for, for as long as the longest message timeout.
#[utoipa::path(post, path = "/api/v1/topologies/{name}/kill",
    params(("name" = String, Path, description = "the topology")),
    request_body(content = Object, description = "nothing, or an object with a `reason` for the audit log"),
    responses(
        (status = 202, description = "it ends; ask for it to see when it has", body = Object, example = json!({"name": "words", "status": "ending"})),
        (status = 404, description = "`unknown_topology`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`ending`: it ends or has ended", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`: the body has other fields", body = ref("#/components/schemas/ErrorBody"))))]
async fn kill(
    State(topologies): State<Topologies>,
    name: Name,
    _: JsonBody<Why>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let name = text(name)?;
    topologies.begin_kill(&name, None)?;
    Ok((StatusCode::ACCEPTED, done(&topologies, &name)?))
}

/// As `kill`, waiting for so many seconds at most.
#[utoipa::path(post, path = "/api/v1/topologies/{name}/kill/{seconds}",
    params(("name" = String, Path, description = "the topology"),
        ("seconds" = u64, Path, description = "how long to wait for what is pending; 86400 at most", maximum = 86_400)),
    request_body(content = Object, description = "nothing, or an object with a `reason` for the audit log"),
    responses(
        (status = 202, description = "it ends; ask for it to see when it has", body = Object, example = json!({"name": "words", "status": "ending"})),
        (status = 404, description = "`unknown_topology`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`ending`: it ends or has ended", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`: the body has other fields; `invalid_wait`: the time is too long", body = ref("#/components/schemas/ErrorBody"))))]
async fn kill_within(
    State(topologies): State<Topologies>,
    path: Result<Path<(String, String)>, axum::extract::rejection::PathRejection>,
    _: JsonBody<Why>,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let Path((name, seconds)) =
        path.map_err(|e| ApiError::new(StatusCode::BAD_REQUEST, "invalid_path", e.body_text()))?;
    let wait = waiting(seconds.parse::<u64>().unwrap_or(u64::MAX))?;
    topologies.begin_kill(&name, Some(wait))?;
    Ok((StatusCode::ACCEPTED, done(&topologies, &name)?))
}
