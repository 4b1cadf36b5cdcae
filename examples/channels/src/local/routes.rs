//! The routes of the server.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use futures_util::stream::{Stream, unfold};
use galerna_http::bearer;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;

use super::world::{Faults, Received, Replayed, Told, World, account_id};
use crate::status::StatusId;

/// Calls that an account may make in five minutes, as far as it is told; the server counts none.
const CALLS: &str = "300";

type Shared = State<Arc<World>>;

pub(super) fn router(world: Arc<World>) -> Router {
    Router::new()
        .route("/api/v2/instance", get(instance))
        .route("/api/v1/accounts/verify_credentials", get(whoami))
        .route("/api/v1/accounts/lookup", get(lookup))
        .route("/api/v1/accounts/{id}/statuses", get(of_account))
        .route("/api/v1/timelines/home", get(home))
        .route("/api/v1/timelines/public", get(home))
        .route("/api/v1/timelines/tag/{tag}", get(tag))
        .route("/api/v1/streaming/user", get(stream_all))
        .route("/api/v1/streaming/public", get(stream_all))
        .route("/api/v1/streaming/hashtag", get(stream_tag))
        .route("/api/v1/statuses", post(write))
        .route("/api/v1/statuses/{id}/reblog", post(boost))
        .route("/api/v2/search", get(search))
        .route("/local/faults", post(faults))
        .route("/local/replay", post(replay))
        .route("/local/received", get(received))
        .with_state(world)
}

/// What is answered in place of what was asked for.
struct Refused(StatusCode, &'static str, HeaderMap);

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        (self.0, self.2, Json(json!({ "error": self.1 }))).into_response()
    }
}

fn refused(status: StatusCode, message: &'static str) -> Refused {
    Refused(status, message, HeaderMap::new())
}

/// The account that calls, unless its call is to be refused.
fn admit(world: &World, headers: &HeaderMap, write: bool) -> Result<usize, Refused> {
    let account = bearer(headers).and_then(|token| world.account(token));
    let account = account.ok_or_else(|| refused(StatusCode::UNAUTHORIZED, "The access token is invalid"))?;
    if let Some(until) = world.limited(account, write) {
        let mut heads = limits("0");
        if let Ok(value) = HeaderValue::from_str(&until.to_string()) {
            heads.insert("x-ratelimit-reset", value);
        }
        return Err(Refused(StatusCode::TOO_MANY_REQUESTS, "Too many requests", heads));
    }
    if world.takes_failure() {
        return Err(refused(StatusCode::INTERNAL_SERVER_ERROR, "something went wrong"));
    }
    Ok(account)
}

fn limits(remaining: &'static str) -> HeaderMap {
    let mut heads = HeaderMap::new();
    heads.insert("x-ratelimit-limit", HeaderValue::from_static(CALLS));
    heads.insert("x-ratelimit-remaining", HeaderValue::from_static(remaining));
    heads
}

#[derive(Debug, Deserialize)]
struct PageQuery {
    min_id: Option<StatusId>,
    limit: Option<usize>,
}

impl PageQuery {
    fn limit(&self) -> usize {
        self.limit.unwrap_or(20).min(40)
    }
}

fn page_of(statuses: Vec<Arc<Replayed>>) -> Response {
    let texts: Vec<&str> = statuses.iter().map(|status| &*status.json).collect();
    let body = format!("[{}]", texts.join(","));
    (limits("299"), [("content-type", "application/json")], body).into_response()
}

async fn instance() -> Json<Value> {
    let statuses = json!({ "max_characters": 500, "characters_reserved_per_url": 23 });
    Json(json!({ "domain": "local", "configuration": { "statuses": statuses } }))
}

async fn whoami(State(world): Shared, headers: HeaderMap) -> Result<Json<Value>, Refused> {
    let account = admit(&world, &headers, false)?;
    Ok(Json(json!({ "id": account_id(account), "acct": format!("account-{account}") })))
}

#[derive(Debug, Deserialize)]
struct Lookup {
    acct: String,
}

async fn lookup(
    State(world): Shared,
    headers: HeaderMap,
    Query(lookup): Query<Lookup>,
) -> Result<Json<Value>, Refused> {
    admit(&world, &headers, false)?;
    let found =
        super::world::recorded_statuses().into_iter().find(|status| status.account.acct == lookup.acct);
    let found = found.ok_or_else(|| refused(StatusCode::NOT_FOUND, "Record not found"))?;
    Ok(Json(json!({ "id": found.account.id, "acct": found.account.acct })))
}

async fn of_account(
    State(world): Shared,
    headers: HeaderMap,
    Path(id): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Response, Refused> {
    let account = admit(&world, &headers, false)?;
    if id == account_id(account) {
        return Ok(Json(world.written(account, page.min_id.as_ref(), page.limit())).into_response());
    }
    Ok(page_of(world.page(page.min_id.as_ref(), page.limit(), |status| status.author == id)))
}

async fn home(
    State(world): Shared,
    headers: HeaderMap,
    Query(page): Query<PageQuery>,
) -> Result<Response, Refused> {
    admit(&world, &headers, false)?;
    Ok(page_of(world.page(page.min_id.as_ref(), page.limit(), |_| true)))
}

async fn tag(
    State(world): Shared,
    headers: HeaderMap,
    Path(tag): Path<String>,
    Query(page): Query<PageQuery>,
) -> Result<Response, Refused> {
    admit(&world, &headers, false)?;
    let tag = tag.to_lowercase();
    Ok(page_of(world.page(page.min_id.as_ref(), page.limit(), |status| status.tags.contains(&tag))))
}

/// What a stream tells of, until it is cut.
fn events(world: &Arc<World>, tag: Option<String>) -> impl Stream<Item = Result<Event, Infallible>> + use<> {
    let (told, open) = world.listen();
    unfold((told, open, tag), |(mut told, open, tag)| async move {
        loop {
            match told.recv().await {
                Ok(Told::Status(status)) if tag.as_ref().is_none_or(|tag| status.tags.contains(tag)) => {
                    let event = Event::default().event("update").data(&*status.json);
                    return Some((Ok(event), (told, open, tag)));
                }
                Ok(Told::Status(_)) => {}
                Ok(Told::Cut) | Err(RecvError::Lagged(_) | RecvError::Closed) => return None,
            }
        }
    })
}

fn alive() -> KeepAlive {
    KeepAlive::new().interval(Duration::from_secs(15)).text("thump")
}

async fn stream_all(State(world): Shared, headers: HeaderMap) -> Result<Response, Refused> {
    admit(&world, &headers, false)?;
    Ok(Sse::new(events(&world, None)).keep_alive(alive()).into_response())
}

#[derive(Debug, Deserialize)]
struct TagQuery {
    tag: String,
}

async fn stream_tag(
    State(world): Shared,
    headers: HeaderMap,
    Query(query): Query<TagQuery>,
) -> Result<Response, Refused> {
    admit(&world, &headers, false)?;
    Ok(Sse::new(events(&world, Some(query.tag.to_lowercase()))).keep_alive(alive()).into_response())
}

#[derive(Debug, Deserialize)]
struct NewStatus {
    status: String,
}

async fn write(
    State(world): Shared,
    headers: HeaderMap,
    Json(new): Json<NewStatus>,
) -> Result<Response, Refused> {
    let account = admit(&world, &headers, true)?;
    if new.status.trim().is_empty() {
        return Err(refused(StatusCode::UNPROCESSABLE_ENTITY, "Validation failed: Text can't be blank"));
    }
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
    let (status, lost) = world
        .write(account, &new.status, key)
        .map_err(|_| refused(StatusCode::UNPROCESSABLE_ENTITY, "Validation failed: the text is refused"))?;
    if lost {
        return Err(refused(StatusCode::BAD_GATEWAY, "the answer was lost"));
    }
    Ok((limits("299"), Json(status)).into_response())
}

async fn boost(
    State(world): Shared,
    headers: HeaderMap,
    Path(id): Path<String>,
) -> Result<Response, Refused> {
    let account = admit(&world, &headers, true)?;
    let status = world.boost(account, &StatusId::new(id));
    let status = status.ok_or_else(|| refused(StatusCode::NOT_FOUND, "Record not found"))?;
    Ok((limits("299"), Json(status)).into_response())
}

#[derive(Debug, Deserialize)]
struct Search {
    q: String,
}

async fn search(
    State(world): Shared,
    headers: HeaderMap,
    Query(search): Query<Search>,
) -> Result<Json<Value>, Refused> {
    admit(&world, &headers, false)?;
    let id = search.q.rsplit('/').next().unwrap_or_default().to_owned();
    let found =
        world.page(None, usize::MAX, |status| status.id.as_str() == id && search.q.contains(&status.acct));
    let statuses: Vec<Value> = found.iter().map(|status| json!({ "id": status.id })).collect();
    Ok(Json(json!({ "accounts": [], "statuses": statuses, "hashtags": [] })))
}

async fn faults(State(world): Shared, Json(faults): Json<Faults>) {
    world.break_down(faults);
}

#[derive(Debug, Deserialize)]
struct Replay {
    numbers: Vec<usize>,
}

async fn replay(State(world): Shared, Json(replay): Json<Replay>) -> Json<Vec<StatusId>> {
    Json(replay.numbers.into_iter().map(|number| world.replay(number)).collect())
}

async fn received(State(world): Shared) -> Json<Vec<Received>> {
    tracing::debug!(now = %world.now(), streams = world.streams(), "what was received is asked for");
    Json(world.received())
}
