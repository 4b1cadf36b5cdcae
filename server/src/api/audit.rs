//! What operators ask of the API of this process, in the audit log: who, what, to what, why, when and what came of it. The page
//! writes the same entries for the same actions, so the log reads alike whichever way somebody went.
//!
//! | call | action in the log |
//! |---|---|
//! | `POST /queue/<id>/pause`, `/unpause` | `queue.pause`, `queue.unpause` |
//! | `POST /stop`, `/start` | `dispatcher.stop`, `dispatcher.start` |
//! | `PUT /strategy` | `dispatcher.strategy` |
//! | `POST /queue/<id>/dead/replay`, `/dead/discard` | `dead_letters.replay`, `dead_letters.discard` |
//! | `POST /api/v1/topologies/<name>/activate`, `/deactivate`, `/rebalance`, `/checkpoint`, `/autoscale`, `/upgrade`, `/kill`, `/kill/<seconds>` | `topology.activate` … |
//! | `POST /sources`, `/sources/<id>/rotate`, `/sources/<id>/remove` | `source.add`, `source.rotate`, `source.remove` |
//! | `POST /schedules`, `PUT /schedules/<id>` | `schedule.add`, `schedule.edit` |
//! | `POST /schedules/<id>/pause`, `/resume`, `/trigger`, `/backfill`, `/remove` | `schedule.pause`, … |
//!
//! Each may bring header `x-actor`, the name of whoever asks (nobody checks it), and `"reason"` in its JSON body. `x-audited` says
//! that the caller keeps the log itself, as a page in another process does: then nothing is written here. Whoever has the token is
//! trusted with that. What is refused for want of the token is in no audit log.

use std::future::Future;
use std::sync::Arc;

use axum::RequestExt;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, MatchedPath, RawPathParams, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use galerna_audit::{ACTOR, Action, WRITE_TIMEOUT, entry, record};
use galerna_dispatcher::AUDITED;
use galerna_http::ApiError;
use galerna_http::openapi::operations;
use galerna_storage::AuditLog;
use serde_json::Value;
use tracing::Instrument;
use utoipa::openapi::path::{ParameterBuilder, ParameterIn};
use utoipa::openapi::{Object, OpenApi, RefOr, Required, Type};

/// Longest answer that is looked into.
const ANSWER: usize = 4 << 20;

/// All actions: how the API is asked for each.
const ROUTES: [(Method, &str, Action); 25] = [
    (Method::POST, "/queue/{id}/pause", Action::Pause),
    (Method::POST, "/queue/{id}/unpause", Action::Unpause),
    (Method::POST, "/stop", Action::Stop),
    (Method::POST, "/start", Action::Start),
    (Method::PUT, "/strategy", Action::Strategy),
    (Method::POST, "/queue/{id}/dead/replay", Action::Replay),
    (Method::POST, "/queue/{id}/dead/discard", Action::Discard),
    (Method::POST, "/sources", Action::AddSource),
    (Method::POST, "/sources/{source}/rotate", Action::RotateSource),
    (Method::POST, "/sources/{source}/remove", Action::RemoveSource),
    (Method::POST, "/schedules", Action::AddSchedule),
    (Method::PUT, "/schedules/{id}", Action::EditSchedule),
    (Method::POST, "/schedules/{id}/pause", Action::PauseSchedule),
    (Method::POST, "/schedules/{id}/resume", Action::ResumeSchedule),
    (Method::POST, "/schedules/{id}/trigger", Action::TriggerSchedule),
    (Method::POST, "/schedules/{id}/backfill", Action::BackfillSchedule),
    (Method::POST, "/schedules/{id}/remove", Action::RemoveSchedule),
    (Method::POST, "/api/v1/topologies/{name}/activate", Action::ActivateTopology),
    (Method::POST, "/api/v1/topologies/{name}/deactivate", Action::DeactivateTopology),
    (Method::POST, "/api/v1/topologies/{name}/rebalance", Action::RebalanceTopology),
    (Method::POST, "/api/v1/topologies/{name}/checkpoint", Action::CheckpointTopology),
    (Method::POST, "/api/v1/topologies/{name}/autoscale", Action::AutoscaleTopology),
    (Method::POST, "/api/v1/topologies/{name}/upgrade", Action::UpgradeTopology),
    (Method::POST, "/api/v1/topologies/{name}/kill", Action::KillTopology),
    (Method::POST, "/api/v1/topologies/{name}/kill/{seconds}", Action::KillTopology),
];

fn action_of(method: &Method, path: &str) -> Option<Action> {
    ROUTES.iter().find(|(its, route, _)| its == method && *route == path).map(|(_, _, action)| *action)
}

/// Writes an entry for each call that is an action, before it is answered. It stands behind the guard: whoever comes here may act.
pub(super) async fn audit(
    State(log): State<Arc<dyn AuditLog>>,
    mut request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let action = path.and_then(|path| action_of(request.method(), path.as_str()));
    let Some(action) = action.filter(|_| !request.headers().contains_key(AUDITED)) else {
        return next.run(request).await;
    };
    // A path that is no text is refused further in.
    let Ok(params) = request.extract_parts::<RawPathParams>().await else {
        return next.run(request).await;
    };
    // The queue, the source, the schedule or the topology.
    let on = params.iter().next().map_or_else(String::new, |(_, name)| name.to_owned());
    let (parts, body) = request.into_parts();
    let body = match Bytes::from_request(Request::new(body), &()).await {
        Ok(body) => body,
        Err(e) => {
            let code = if e.status() == StatusCode::PAYLOAD_TOO_LARGE {
                "body_too_large"
            } else {
                "unreadable_body"
            };
            return ApiError::new(e.status(), code, e.body_text()).closing().into_response();
        }
    };
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let who = parts.headers.get(ACTOR).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let request = Request::from_parts(parts, Body::from(body));
    let acting = async move {
        let (parts, body) = next.run(request).await.into_parts();
        let body = to_bytes(body, ANSWER).await.unwrap_or_default();
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let outcome = if parts.status.is_success() {
            Ok(action.outcome(&on, &answer))
        } else {
            let message = answer["error"]["message"].as_str();
            Err(message.map_or_else(|| parts.status.to_string(), str::to_owned))
        };
        let target = action.target(&on, &asked);
        let entry = entry(action, &who, target, reason_of(&asked), outcome);
        // Whoever asked is told what was done; that the audit log lacks it stands in the log.
        let _ = record(&*log, &entry, WRITE_TIMEOUT).await;
        Response::from_parts(parts, Body::from(body))
    };
    to_its_end(acting).await
}

/// Why, as the body says it; a note that stays with what was done says it too.
fn reason_of(asked: &Value) -> Option<&str> {
    asked["reason"].as_str().or_else(|| asked["note"].as_str())
}

/// Goes on when the caller hangs up: what was done is written down all the same.
async fn to_its_end(acting: impl Future<Output = Response> + Send + 'static) -> Response {
    match tokio::spawn(acting.in_current_span()).await {
        Ok(answer) => answer,
        Err(e) => {
            let message = format!("the call ended badly: {e}");
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", message).into_response()
        }
    }
}

/// Adds to a description of the API what all of these calls take.
pub(crate) fn describe(description: &mut OpenApi) {
    for (path, method, operation) in operations(description) {
        if ROUTES.iter().any(|(its, route, _)| *route == path && its.as_str().eq_ignore_ascii_case(method)) {
            let actor = ParameterBuilder::new()
                .name(ACTOR)
                .parameter_in(ParameterIn::Header)
                .required(Required::False)
                .description(Some("who asks, for the audit log"))
                .schema(Some(Object::with_type(Type::String)))
                .build();
            operation.parameters.get_or_insert_default().push(RefOr::T(actor));
        }
    }
}
