//! The API, and what serves it with the page.

mod metrics;

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::routing::{get, post, put};
use axum::{Json, Router};
use galerna_control::ControlOptions;
use galerna_delay::Parked;
use galerna_http::{ApiError, JsonBody, Params};
use galerna_schedules::api::{PayloadCheck, SchedulesApi};
use galerna_schedules::{BadSchedule, ScheduleError};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use crate::accounts::AccountView;
use crate::bolts::ScheduledPost;
use crate::channel::{Account, Channel};
use crate::page;
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

/// The routes of the API.
fn api(channels: Arc<Channels>) -> Router {
    Router::new()
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
        .route("/api/notices", get(notices))
        .route("/api/notices/read", post(read_notices))
        .with_state(channels)
}

/// Serves the page (`/channels`) and the API (`/api/…`), beside the schedules' and the topology's own pages, APIs and metrics, until `shutdown`. Without a
/// token only this machine is served.
///
/// # Errors
/// When the listener has no address, or other machines reach it and there is no token.
pub async fn serve(
    channels: &Arc<Channels>,
    listener: TcpListener,
    token: Option<String>,
    shutdown: CancellationToken,
) -> anyhow::Result<()> {
    let registry = galerna_http::metrics::process_registry(env!("CARGO_PKG_VERSION"))?;
    registry.register(Box::new(metrics::Counts::new(Arc::downgrade(channels))?))?;
    let schedules = SchedulesApi::from(channels.schedules().clone())
        .checking(Arc::new(PostCheck(Arc::clone(channels))))
        .beside(page::menu());
    let routes = api(Arc::clone(channels))
        .merge(page::routes(Arc::clone(channels)))
        .merge(galerna_schedules::router(schedules));
    let beside = OpenApiRouter::from(routes).merge(galerna_telemetry::api::routes());
    let menu = Some(page::menu());
    let options = ControlOptions { token, shutdown, beside, menu, registry: Some(registry) };
    Ok(galerna_control::serve(listener, channels.topologies().clone(), options).await?)
}

/// Channels that were looked for.
#[derive(Debug, Serialize)]
pub(crate) struct Found {
    /// Those that match.
    #[serde(rename = "channels")]
    pub(crate) matching: Vec<ChannelView>,
    /// All that there are.
    pub(crate) total: usize,
    /// How many of those by that name are in each phase.
    pub(crate) phases: BTreeMap<&'static str, usize>,
    /// Of all channels, in the last minute.
    pub(crate) received_per_minute: u64,
    /// Of all accounts, in the last minute.
    pub(crate) posted_per_minute: u64,
}

/// Channels by a part of their name or source, and by their phase.
pub(crate) fn find(channels: &Channels, text: &str, phase: Option<&str>) -> Found {
    let all = channels.view();
    let total = all.len();
    let received_per_minute = all.iter().map(|channel| channel.progress.per_minute).sum();
    let posted_per_minute = channels.accounts().iter().map(|account| account.per_minute).sum();
    let wanted = text.trim().to_lowercase();
    let is_wanted = |text: &str| text.to_lowercase().contains(&wanted);
    let mut matching = all;
    matching.retain(|view| is_wanted(&view.channel.name) || is_wanted(&view.channel.source.to_string()));
    let mut phases = BTreeMap::new();
    for view in &matching {
        *phases.entry(view.progress.phase.name()).or_insert(0) += 1;
    }
    if let Some(phase) = phase.filter(|phase| !phase.is_empty()) {
        matching.retain(|view| view.progress.phase.name() == phase);
    }
    Found { matching, total, phases, received_per_minute, posted_per_minute }
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

async fn list(State(channels): Shared, Params(query): Params<ListQuery>) -> Json<Found> {
    let mut found = find(&channels, &query.text, query.phase.as_deref());
    let limit = query.limit.unwrap_or(100).min(10_000);
    found.matching = found.matching.into_iter().skip(query.offset).take(limit).collect();
    Json(found)
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
pub(crate) struct PostList {
    /// On their way.
    pub(crate) waiting: u64,
    /// Refused by their servers.
    pub(crate) refused: Vec<Post>,
    /// Tried no more, because whoever sent them was lost again and again.
    pub(crate) parked: Vec<ParkedView>,
    pub(crate) latest: Vec<Post>,
}

#[derive(Debug, Serialize)]
pub(crate) struct ParkedView {
    pub(crate) key: String,
    pub(crate) account: Option<String>,
    pub(crate) reason: String,
    pub(crate) waiting_behind: u64,
}

impl From<Parked> for ParkedView {
    fn from(parked: Parked) -> Self {
        Self { key: parked.id, account: parked.key, reason: parked.reason, waiting_behind: parked.waiting }
    }
}

pub(crate) async fn posts(State(channels): Shared) -> Result<Json<PostList>, ApiError> {
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

/// Posts that cannot be sent are no schedules.
struct PostCheck(Arc<Channels>);

#[async_trait]
impl PayloadCheck for PostCheck {
    async fn check(&self, payload: &Value) -> Result<(), BadSchedule> {
        let post = ScheduledPost::of(payload).map_err(|reason| BadSchedule { field: "payload", reason })?;
        if self.0.context().accounts.get(&post.account).is_none() {
            let reason = format!("there is no account `{}`; add it first", post.account);
            return Err(BadSchedule { field: "payload.account", reason });
        }
        Ok(())
    }
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
