//! The API, and the page that uses it.

use std::sync::Arc;

use axum::extract::{Path, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post, put};
use axum::{Json, Router};
use galerna_delay::Parked;
use galerna_http::{ApiError, Guard, JsonBody, Params};
use galerna_schedules::{Definition, Record, ScheduleError, ScheduleId};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::accounts::AccountView;
use crate::bolts::ScheduledPost;
use crate::channel::{Account, Channel};
use crate::service::{ChannelView, Channels, ChannelsError};
use crate::store::{LogEntry, LogQuery, Notice, Post};

type Shared = State<Arc<Channels>>;

impl From<ChannelsError> for ApiError {
    fn from(error: ChannelsError) -> Self {
        let message = error.to_string();
        let (status, code) = match &error {
            ChannelsError::Bad(_) | ChannelsError::Schedule(ScheduleError::Bad(_)) => {
                (StatusCode::UNPROCESSABLE_ENTITY, "bad_definition")
            }
            ChannelsError::NotFound { .. } | ChannelsError::Schedule(ScheduleError::NotFound(_)) => {
                (StatusCode::NOT_FOUND, "not_found")
            }
            ChannelsError::Schedule(ScheduleError::Edited { .. } | ScheduleError::Exists(_)) => {
                (StatusCode::CONFLICT, "edited")
            }
            _ => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        Self::new(status, code, message)
    }
}

/// The routes. With a token, all but the page itself ask for it; without, only this machine's own pages are answered.
pub fn router(channels: Arc<Channels>, token: Option<&str>) -> Router {
    let guard = Guard::new(token);
    let open = guard.is_open();
    let router = Router::new()
        .route("/", get(page))
        .route("/api/channels", get(list))
        .route("/api/channels/{name}", put(put_channel).delete(remove))
        .route("/api/channels/{name}/start", post(start))
        .route("/api/channels/{name}/stop", post(stop))
        .route("/api/accounts", get(accounts))
        .route("/api/accounts/{name}", put(put_account))
        .route("/api/log", get(log))
        .route("/api/posts", get(posts))
        .route("/api/posts/retry", post(retry_post))
        .route("/api/posts/drop", post(drop_post))
        .route("/api/posts/resume", post(resume_post))
        .route("/api/schedules", get(schedules))
        .route("/api/schedules/{*id}", put(put_schedule).delete(remove_schedule))
        .route("/api/notices", get(notices))
        .route("/api/notices/read", post(read_notices))
        .with_state(channels);
    guard
        .protect(router, &["/"])
        .layer(middleware::from_fn(move |request, next| own_pages(open, request, next)))
}

/// Answers no call that a page of another site has a browser make.
async fn own_pages(open: bool, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let changes = request.method() != Method::GET && request.method() != Method::HEAD;
    let host = text(headers, header::HOST);
    let origin = text(headers, header::ORIGIN).map(|origin| origin.split("://").nth(1).unwrap_or(origin));
    // Without a token the name by which it is called must be this machine's, so that no other name can be made to lead here.
    let foreign_name = open && host.is_some_and(|host| !is_this_machine(host));
    let foreign_page = changes && origin.is_some_and(|origin| host != Some(origin));
    if foreign_name || foreign_page {
        let message = "calls must come from this service's own page or from a program";
        return ApiError::new(StatusCode::FORBIDDEN, "other_origin", message).into_response();
    }
    next.run(request).await
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> Option<&str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

fn is_this_machine(host: &str) -> bool {
    let name =
        host.rsplit_once(':').map_or(host, |(name, port)| if port.contains(']') { host } else { name });
    matches!(name, "localhost" | "127.0.0.1" | "[::1]")
}

async fn page() -> impl IntoResponse {
    let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; img-src data:; \
                  frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
    let headers = [("content-security-policy", policy), ("x-content-type-options", "nosniff")];
    (headers, Html(include_str!("page.html")))
}

#[derive(Debug, Serialize)]
struct ChannelList {
    channels: Vec<ChannelView>,
    /// All that there are, whatever was asked for.
    total: usize,
    /// How many of those that match are in each phase.
    phases: std::collections::BTreeMap<&'static str, usize>,
    /// Of all channels, in the last minute.
    received_per_minute: u64,
    posted_per_minute: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ListQuery {
    /// In the name or the source.
    text: String,
    phase: Option<String>,
    offset: usize,
    limit: Option<usize>,
}

async fn list(State(channels): Shared, Params(query): Params<ListQuery>) -> Json<ChannelList> {
    let all = channels.view();
    let total = all.len();
    let received_per_minute = all.iter().map(|channel| channel.progress.per_minute).sum();
    let posted_per_minute = channels.accounts().iter().map(|account| account.per_minute).sum();
    let wanted = query.text.to_lowercase();
    let mut matching: Vec<ChannelView> = all
        .into_iter()
        .filter(|view| {
            view.channel.name.to_lowercase().contains(&wanted)
                || view.channel.source.to_string().to_lowercase().contains(&wanted)
        })
        .collect();
    let mut phases = std::collections::BTreeMap::new();
    for view in &matching {
        *phases.entry(view.progress.phase.name()).or_insert(0) += 1;
    }
    if let Some(phase) = query.phase.as_deref().filter(|phase| !phase.is_empty()) {
        matching.retain(|view| view.progress.phase.name() == phase);
    }
    let limit = query.limit.unwrap_or(100).min(10_000);
    let shown = matching.into_iter().skip(query.offset).take(limit).collect();
    Json(ChannelList { channels: shown, total, phases, received_per_minute, posted_per_minute })
}

#[derive(Debug, Deserialize)]
struct Ignored {}

async fn put_channel(
    State(channels): Shared,
    Path(name): Path<String>,
    JsonBody(mut body): JsonBody<Value>,
) -> Result<Json<Value>, ApiError> {
    let channel: Channel = named(&mut body, &name)?;
    channels.put(channel).await?;
    Ok(Json(json!({})))
}

/// Reads a definition whose name is in the path.
fn named<T: serde::de::DeserializeOwned>(body: &mut Value, name: &str) -> Result<T, ApiError> {
    let bad = |message: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_definition", message);
    let object = body.as_object_mut().ok_or_else(|| bad("the body is no object".to_owned()))?;
    object.insert("name".to_owned(), name.into());
    serde_json::from_value(body.take()).map_err(|error| bad(error.to_string()))
}

async fn remove(State(channels): Shared, Path(name): Path<String>) -> Result<Json<Value>, ApiError> {
    channels.remove(&name).await?;
    Ok(Json(json!({})))
}

async fn start(
    State(channels): Shared,
    Path(name): Path<String>,
    JsonBody(Ignored {}): JsonBody<Ignored>,
) -> Result<Json<Value>, ApiError> {
    channels.switch(&name, true).await?;
    Ok(Json(json!({})))
}

async fn stop(
    State(channels): Shared,
    Path(name): Path<String>,
    JsonBody(Ignored {}): JsonBody<Ignored>,
) -> Result<Json<Value>, ApiError> {
    channels.switch(&name, false).await?;
    Ok(Json(json!({})))
}

async fn accounts(State(channels): Shared) -> Json<Vec<AccountView>> {
    Json(channels.accounts())
}

async fn put_account(
    State(channels): Shared,
    Path(name): Path<String>,
    JsonBody(mut body): JsonBody<Value>,
) -> Result<Json<Value>, ApiError> {
    let account: Account = named(&mut body, &name)?;
    channels.put_account(account).await?;
    Ok(Json(json!({})))
}

async fn log(
    State(channels): Shared,
    Params(query): Params<LogQuery>,
) -> Result<Json<Vec<LogEntry>>, ApiError> {
    Ok(Json(channels.context().store.log(query).await.map_err(ChannelsError::from)?))
}

#[derive(Debug, Serialize)]
struct PostList {
    /// On their way.
    waiting: u64,
    /// Refused by their servers.
    refused: Vec<Post>,
    /// Tried no more, because whoever sent them was lost again and again.
    parked: Vec<ParkedView>,
    latest: Vec<Post>,
}

#[derive(Debug, Serialize)]
struct ParkedView {
    key: String,
    account: Option<String>,
    reason: String,
    waiting_behind: u64,
}

impl From<Parked> for ParkedView {
    fn from(parked: Parked) -> Self {
        Self { key: parked.id, account: parked.key, reason: parked.reason, waiting_behind: parked.waiting }
    }
}

async fn posts(State(channels): Shared) -> Result<Json<PostList>, ApiError> {
    let (waiting, parked) = channels.posts_under_way().await?;
    let store = &channels.context().store;
    let refused = store.refused_posts(100).await.map_err(ChannelsError::from)?;
    let latest = store.posts(50).await.map_err(ChannelsError::from)?;
    let parked = parked.into_iter().map(ParkedView::from).collect();
    Ok(Json(PostList { waiting, refused, parked, latest }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Key {
    key: String,
}

async fn retry_post(State(channels): Shared, JsonBody(body): JsonBody<Key>) -> Result<Json<Value>, ApiError> {
    channels.retry_post(&body.key).await?;
    Ok(Json(json!({})))
}

async fn drop_post(State(channels): Shared, JsonBody(body): JsonBody<Key>) -> Result<Json<Value>, ApiError> {
    channels.drop_post(&body.key).await?;
    Ok(Json(json!({})))
}

async fn resume_post(
    State(channels): Shared,
    JsonBody(body): JsonBody<Key>,
) -> Result<Json<Value>, ApiError> {
    let resumed = channels.context().posts.resume(&body.key).await.map_err(ChannelsError::from)?;
    if !resumed {
        return Err(ChannelsError::NotFound { what: "parked post", name: body.key }.into());
    }
    Ok(Json(json!({})))
}

#[derive(Debug, Serialize)]
struct ScheduleView {
    #[serde(flatten)]
    record: Record,
    upcoming: Vec<galerna_model::Timestamp>,
    ended: Vec<galerna_schedules::Ended>,
}

async fn schedules(State(channels): Shared) -> Result<Json<Vec<ScheduleView>>, ApiError> {
    let schedules = channels.schedules();
    let mut views = Vec::new();
    for record in schedules.list(None, 200).await.map_err(|e| ChannelsError::from(ScheduleError::from(e)))? {
        let upcoming = schedules.upcoming(&record.id, 10).await.map_err(ChannelsError::from)?;
        let ended = schedules.history(&record.id, None, 10).await;
        let ended = ended.map_err(|e| ChannelsError::from(ScheduleError::from(e)))?;
        views.push(ScheduleView { record, upcoming, ended });
    }
    Ok(Json(views))
}

/// A schedule of posts, as it is written.
struct NewSchedule {
    /// When, and how it behaves; its payload is the post.
    definition: Definition,
    /// Only if it is still at this revision.
    revision: Option<u64>,
}

fn schedule_id(id: String) -> Result<ScheduleId, ApiError> {
    ScheduleId::new(id)
        .map_err(|error| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_definition", error.to_string()))
}

async fn put_schedule(
    State(channels): Shared,
    Path(id): Path<String>,
    JsonBody(body): JsonBody<Value>,
) -> Result<Json<Record>, ApiError> {
    let new: NewSchedule = parse_schedule(body)?;
    let post = ScheduledPost::of(&new.definition.payload)
        .map_err(|message| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_definition", message))?;
    if channels.context().accounts.get(&post.account).is_none() {
        return Err(ChannelsError::NotFound { what: "account", name: post.account }.into());
    }
    Ok(Json(channels.put_schedule(schedule_id(id)?, new.definition, new.revision).await?))
}

fn parse_schedule(mut body: Value) -> Result<NewSchedule, ApiError> {
    let bad = |message: String| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "bad_definition", message);
    let object = body.as_object_mut().ok_or_else(|| bad("the body is no object".to_owned()))?;
    let revision = object.remove("revision").map(serde_json::from_value).transpose();
    let revision = revision.map_err(|error| bad(format!("revision: {error}")))?;
    let definition = serde_json::from_value(body).map_err(|error| bad(error.to_string()))?;
    Ok(NewSchedule { definition, revision })
}

async fn remove_schedule(State(channels): Shared, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    channels.schedules().remove(&schedule_id(id)?).await.map_err(ChannelsError::from)?;
    Ok(Json(json!({})))
}

#[derive(Debug, Serialize)]
struct NoticeList {
    unread: u64,
    notices: Vec<Notice>,
}

async fn notices(State(channels): Shared) -> Result<Json<NoticeList>, ApiError> {
    let (notices, unread) = channels.context().store.notices(100).await.map_err(ChannelsError::from)?;
    Ok(Json(NoticeList { unread, notices }))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct UpTo {
    up_to: i64,
}

async fn read_notices(
    State(channels): Shared,
    JsonBody(body): JsonBody<UpTo>,
) -> Result<Json<Value>, ApiError> {
    channels.context().store.read_notices(body.up_to).await.map_err(ChannelsError::from)?;
    Ok(Json(json!({})))
}
