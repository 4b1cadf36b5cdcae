//! What operators ask of the API of this process, in the audit log: who, what, to what, why, when and what came of it. The page
//! writes the same entries for the same actions, so the log reads alike whichever way somebody went.
//!
//! | call | action in the log |
//! |---|---|
//! | `POST /queue/<id>/pause`, `/unpause` | `queue.pause`, `queue.unpause` |
//! | `POST /stop`, `/start` | `dispatcher.stop`, `dispatcher.start` |
//! | `PUT /strategy` | `dispatcher.strategy` |
//! | `POST /queue/<id>/dead/replay`, `/dead/discard` | `dead_letters.replay`, `dead_letters.discard` |
//!
//! Each may bring header `x-actor`, the name of whoever asks (nobody checks it), and `"reason"` in its JSON body. `x-audited` says
//! that the caller keeps the log itself, as a page in another process does: then nothing is written here. Whoever has the token is
//! trusted with that. What is refused for want of the token is in no audit log.

use std::future::Future;
use std::sync::Arc;

use axum::RequestExt;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, MatchedPath, RawPathParams, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use galerna_audit::{ACTOR, Action, PATIENCE, entry, record};
use galerna_console::auth::{bearer, same};
use galerna_dispatcher::AUDITED;
use galerna_storage::AuditLog;
use serde_json::{Value, json};
use tracing::Instrument;

use super::routes::Refusal;

/// Longest answer that is looked into.
const ANSWER: usize = 4 << 20;

/// All actions: how the API is asked for each.
const ROUTES: [(Method, &str, Action); 7] = [
    (Method::POST, "/queue/{id}/pause", Action::Pause),
    (Method::POST, "/queue/{id}/unpause", Action::Unpause),
    (Method::POST, "/stop", Action::Stop),
    (Method::POST, "/start", Action::Start),
    (Method::PUT, "/strategy", Action::Strategy),
    (Method::POST, "/queue/{id}/dead/replay", Action::Replay),
    (Method::POST, "/queue/{id}/dead/discard", Action::Discard),
];

fn action_of(method: &Method, path: &str) -> Option<Action> {
    ROUTES.iter().find(|(its, route, _)| its == method && *route == path).map(|(_, _, action)| *action)
}

/// Keeps the log of calls.
#[derive(Clone)]
pub(super) struct Auditor {
    pub(super) log: Arc<dyn AuditLog>,
    pub(super) token: Option<Arc<str>>,
}

impl Auditor {
    /// Whether the call will be taken, and is to be written here.
    fn minds(&self, headers: &HeaderMap) -> bool {
        let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok()).and_then(bearer);
        let allowed = self
            .token
            .as_ref()
            .is_none_or(|token| same(token.as_bytes(), given.unwrap_or_default().as_bytes()));
        allowed && !headers.contains_key(AUDITED)
    }
}

/// Writes an entry for each call that is an action, before it is answered.
pub(super) async fn audit(State(auditor): State<Auditor>, mut request: Request, next: Next) -> Response {
    let path = request.extensions().get::<MatchedPath>();
    let action = path.and_then(|path| action_of(request.method(), path.as_str()));
    let Some(action) = action.filter(|_| auditor.minds(request.headers())) else {
        return next.run(request).await;
    };
    // A path that is no text is refused further in.
    let Ok(params) = request.extract_parts::<RawPathParams>().await else {
        return next.run(request).await;
    };
    let queue = params.iter().next().map_or_else(String::new, |(_, queue)| queue.to_owned());
    let (parts, body) = request.into_parts();
    let body = match Bytes::from_request(Request::new(body), &()).await {
        Ok(body) => body,
        Err(e) => return Refusal::from(e).into_response(),
    };
    let asked: Value = serde_json::from_slice(&body).unwrap_or_default();
    let who = parts.headers.get(ACTOR).and_then(|v| v.to_str().ok()).unwrap_or_default().to_owned();
    let request = Request::from_parts(parts, Body::from(body));
    let acting = async move {
        let (parts, body) = next.run(request).await.into_parts();
        let body = to_bytes(body, ANSWER).await.unwrap_or_default();
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        let outcome = if parts.status.is_success() {
            Ok(action.outcome(&queue, &answer))
        } else {
            let message = answer["error"]["message"].as_str();
            Err(message.map_or_else(|| parts.status.to_string(), str::to_owned))
        };
        let target = action.target(&queue, &asked);
        let entry = entry(action, &who, target, asked["reason"].as_str(), outcome);
        // Whoever asked is told what was done; that the audit log lacks it stands in the log.
        let _ = record(&*auditor.log, &entry, PATIENCE).await;
        Response::from_parts(parts, Body::from(body))
    };
    to_its_end(acting).await
}

/// Goes on when the caller hangs up: what was done is written down all the same.
async fn to_its_end(acting: impl Future<Output = Response> + Send + 'static) -> Response {
    match tokio::spawn(acting.in_current_span()).await {
        Ok(answer) => answer,
        Err(e) => {
            let message = format!("the call ended badly: {e}");
            Refusal(StatusCode::INTERNAL_SERVER_ERROR, "failed", message).into_response()
        }
    }
}

/// Adds to a description of the API what all of these calls take.
pub(crate) fn describe(document: &mut Value) {
    for (method, path, action) in &ROUTES {
        let Some(call) = document.pointer_mut(&format!(
            "/paths/{}/{}",
            path.replace('/', "~1"),
            method.as_str().to_lowercase()
        )) else {
            continue;
        };
        let actor = json!({
            "name": ACTOR, "in": "header", "required": false, "schema": {"type": "string"},
            "description": "who asks, for the audit log",
        });
        match call["parameters"].as_array_mut() {
            Some(parameters) => parameters.push(actor),
            None => call["parameters"] = json!([actor]),
        }
        if matches!(action, Action::Unpause | Action::Stop | Action::Start) {
            call["requestBody"] = json!({
                "required": false, "description": "why, for the audit log",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PauseBody"}}},
            });
        }
    }
}
