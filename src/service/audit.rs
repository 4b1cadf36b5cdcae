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
use std::time::Duration;

use axum::RequestExt;
use axum::body::{Body, to_bytes};
use axum::extract::{FromRequest, MatchedPath, RawPathParams, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use galerna_dispatcher::AUDITED;
use galerna_model::{Clock, SystemClock};
use galerna_storage::{AuditEntry, AuditLog};
use serde_json::{Value, json};
use tracing::Instrument;

use super::{bearer, random, same};
use crate::admin::Refusal;

/// Who asks, by their own word.
pub(crate) const ACTOR: &str = "x-actor";
/// The role of whoever has the token.
const ROLE: &str = "operator";
/// Longest reason that is kept, in characters.
const REASON: usize = 1_000;
/// Longest answer that is looked into.
const ANSWER: usize = 4 << 20;
/// How long the store may take to keep an entry of a call or a command.
pub(crate) const PATIENCE: Duration = Duration::from_secs(5);

/// What operators do to queues and to the dispatcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Deed {
    Pause,
    Unpause,
    Stop,
    Start,
    Strategy,
    Replay,
    Discard,
}

/// All of them: how the API is asked for each.
const ROUTES: [(Method, &str, Deed); 7] = [
    (Method::POST, "/queue/{id}/pause", Deed::Pause),
    (Method::POST, "/queue/{id}/unpause", Deed::Unpause),
    (Method::POST, "/stop", Deed::Stop),
    (Method::POST, "/start", Deed::Start),
    (Method::PUT, "/strategy", Deed::Strategy),
    (Method::POST, "/queue/{id}/dead/replay", Deed::Replay),
    (Method::POST, "/queue/{id}/dead/discard", Deed::Discard),
];

impl Deed {
    /// Its name in the audit log.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pause => "queue.pause",
            Self::Unpause => "queue.unpause",
            Self::Stop => "dispatcher.stop",
            Self::Start => "dispatcher.start",
            Self::Strategy => "dispatcher.strategy",
            Self::Replay => "dead_letters.replay",
            Self::Discard => "dead_letters.discard",
        }
    }

    fn of(method: &Method, path: &str) -> Option<Self> {
        ROUTES.iter().find(|(its, route, _)| its == method && *route == path).map(|(_, _, deed)| *deed)
    }

    /// What it is done to, as the page names it.
    fn target(self, queue: &str, asked: &Value) -> String {
        match self {
            Self::Pause | Self::Unpause => queue.to_owned(),
            Self::Stop | Self::Start => "dispatcher".to_owned(),
            Self::Strategy => asked["strategy"].as_str().map_or_else(|| "dispatcher".to_owned(), short),
            Self::Replay | Self::Discard => match (asked["all"].as_bool(), asked["ids"].as_array()) {
                (Some(true), _) => letters::<&str>(queue, true, &[]),
                (_, Some(ids)) => {
                    let ids: Vec<&str> = ids.iter().filter_map(Value::as_str).collect();
                    letters(queue, false, &ids)
                }
                _ => queue.to_owned(),
            },
        }
    }

    /// What came of it when it was done.
    pub(crate) fn outcome(self, queue: &str, answer: &Value) -> String {
        let count = |name: &str| answer[name].as_u64().unwrap_or_default();
        match self {
            Self::Pause => format!("queue {queue} is paused"),
            Self::Unpause => format!("queue {queue} is no longer paused"),
            Self::Stop => "the dispatcher leases no more queues".to_owned(),
            Self::Start => "the dispatcher leases queues again".to_owned(),
            Self::Strategy => {
                let name = answer["configured"].as_str().unwrap_or_default();
                format!("the next queue is chosen by {name}")
            }
            Self::Replay => format!("dead letters of {queue} replayed: {}", count("replayed")),
            Self::Discard => format!("dead letters of {queue} discarded: {}", count("discarded")),
        }
    }
}

/// A name as it is kept: one short line.
pub(crate) fn short(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(60).collect::<String>().trim().to_owned()
}

/// Dead letters as the target of an action.
pub(crate) fn letters<Id: AsRef<str>>(queue: &str, all: bool, ids: &[Id]) -> String {
    match (all, ids) {
        (true, _) => format!("{queue}: all"),
        (false, [one]) => format!("{queue}: {}", one.as_ref()),
        (false, some) => format!("{queue}: {} letters", some.len()),
    }
}

/// An entry of now. The outcome is an error's message when it was not done.
pub(crate) fn entry(
    deed: Deed,
    who: &str,
    target: String,
    why: Option<&str>,
    outcome: Result<String, String>,
) -> AuditEntry {
    let done = outcome.is_ok();
    AuditEntry {
        id: random(),
        at: SystemClock.now(),
        role: ROLE.to_owned(),
        who: short(who),
        action: deed.name().to_owned(),
        target,
        why: why.map(|why| why.trim().chars().take(REASON).collect()).filter(|why: &String| !why.is_empty()),
        outcome: outcome.unwrap_or_else(|message| message),
        done,
    }
}

/// Writes an entry, with so much patience for the store. What was done is done: that it cannot be written is logged, and told to
/// the caller.
///
/// # Errors
/// Why it could not be written.
pub(crate) async fn record(log: &dyn AuditLog, entry: &AuditEntry, patience: Duration) -> Result<(), String> {
    tracing::info!(
        action = entry.action,
        target = entry.target,
        who = entry.who,
        role = entry.role,
        done = entry.done,
        outcome = entry.outcome,
        "an operator acted"
    );
    let problem = match tokio::time::timeout(patience, log.record(entry)).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(e)) => e.to_string(),
        Err(_) => format!("the store did not answer within {} s", patience.as_secs()),
    };
    tracing::error!(
        error = problem,
        action = entry.action,
        target = entry.target,
        who = entry.who,
        "what an operator did could not be written to the audit log"
    );
    Err(problem)
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
    let deed = path.and_then(|path| Deed::of(request.method(), path.as_str()));
    let Some(deed) = deed.filter(|_| auditor.minds(request.headers())) else {
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
            Ok(deed.outcome(&queue, &answer))
        } else {
            let message = answer["error"]["message"].as_str();
            Err(message.map_or_else(|| parts.status.to_string(), str::to_owned))
        };
        let target = deed.target(&queue, &asked);
        let entry = entry(deed, &who, target, asked["reason"].as_str(), outcome);
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
    for (method, path, deed) in &ROUTES {
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
        if matches!(deed, Deed::Unpause | Deed::Stop | Deed::Start) {
            call["requestBody"] = json!({
                "required": false, "description": "why, for the audit log",
                "content": {"application/json": {"schema": {"$ref": "#/components/schemas/PauseBody"}}},
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_acted_on_is_named_as_on_the_page() {
        let some = json!({"ids": ["7", "8"], "reason": "r"});
        for (deed, asked, target) in [
            (Deed::Pause, json!({"reason": "r"}), "Q"),
            (Deed::Stop, Value::Null, "dispatcher"),
            (Deed::Strategy, json!({"strategy": "fair"}), "fair"),
            (Deed::Strategy, json!([]), "dispatcher"),
            (Deed::Discard, json!({"all": true}), "Q: all"),
            (Deed::Discard, json!({"ids": ["7"]}), "Q: 7"),
            (Deed::Replay, some, "Q: 2 letters"),
            (Deed::Replay, json!("nonsense"), "Q"),
        ] {
            assert_eq!(deed.target("Q", &asked), target, "{deed:?} {asked}");
        }
    }

    #[test]
    fn reasons_are_kept_short_and_empty_ones_not_at_all() {
        let why = |why: &str| entry(Deed::Stop, "", String::new(), Some(why), Ok(String::new())).why;
        assert_eq!((why(" "), why("works")), (None, Some("works".to_owned())));
        assert_eq!(why(&"é".repeat(5_000)).map(|why| why.chars().count()), Some(REASON));
    }
}
