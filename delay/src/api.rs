//! Routes and a page for what is parked, for programs to embed:
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # fn example() -> Result<axum::Router, galerna_delay::DelayError> {
//! use std::sync::Arc;
//!
//! use galerna_delay::api::ParkedApi;
//! use galerna_delay::{DelayOptions, DelayStore};
//! use galerna_model::SystemClock;
//!
//! let store = Arc::new(DelayStore::in_memory(Arc::new(SystemClock), DelayOptions::default())?);
//! let app = axum::Router::new().merge(ParkedApi::new(store).router());
//! # Ok(app)
//! # }
//! ```
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /parked` | | the page |
//! | `GET /api/parked` | `?limit=` | `{"parked":[{"id","key","attempts","reason","waiting"}],"items":n}` |
//! | `POST /api/parked/resume` | `{"id":…}` or `{"all":true}` | `{"resumed":n}`; 404 when the item is not parked |
//! | `POST /api/parked/discard` | `{"id":…}` or `{"all":true}` | `{"discarded":n}`; 404 when the item is not parked |
//!
//! Whoever may reach them may act: put the program's own access control around them. A form or call that a browser sends from another site
//! is refused.

use std::sync::Arc;

use axum::extract::{Form, Query, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use galerna_html::format::{self, shortened};
use galerna_html::frame::{self, Menu};
use galerna_html::query::nothing;
use galerna_html::table::{Column, list};
use galerna_http::{ApiError, JsonBody, Params, browser};
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{DelayError, DelayStore};

/// Items on the page, and in an answer unless the caller says how many.
const SHOWN: usize = 100;
/// Items that one call resumes or discards, and the most in an answer.
const MOST: usize = 10_000;

/// What routes and page work on.
#[derive(Clone)]
pub struct ParkedApi {
    store: Arc<DelayStore>,
    menu: Arc<Menu>,
    noun: &'static str,
}

impl std::fmt::Debug for ParkedApi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ParkedApi").field("noun", &self.noun).finish_non_exhaustive()
    }
}

impl ParkedApi {
    /// For what is parked in this store.
    pub fn new(store: Arc<DelayStore>) -> Self {
        let menu = Arc::new(Menu::new("Galerna").entry("Parked", "/parked"));
        Self { store, menu, noun: "Item" }
    }

    /// The same, whose page has the program's menu; its own path there is `/parked`.
    #[must_use]
    pub fn beside(mut self, menu: Menu) -> Self {
        self.menu = Arc::new(menu);
        self
    }

    /// The same, whose page calls an item by this word, such as `Post`.
    #[must_use]
    pub fn of(mut self, noun: &'static str) -> Self {
        self.noun = noun;
        self
    }

    /// Page and routes, to be merged with those of the program.
    pub fn router(self) -> Router {
        Router::new()
            .route("/parked", get(page).post(act))
            .route("/api/parked", get(parked))
            .route("/api/parked/resume", post(resume))
            .route("/api/parked/discard", post(discard))
            .with_state(self)
            .layer(middleware::from_fn(guarded))
            .layer(middleware::from_fn(browser::headers))
    }

    /// Resumes or discards one item, or all that are parked. How many.
    async fn change(&self, change: Change, wanted: Wanted) -> Result<usize, Refused> {
        let ids = match (wanted.id, wanted.all) {
            (Some(id), false) => vec![id],
            (None, true) => self.store.parked(MOST).await?.into_iter().map(|parked| parked.id).collect(),
            _ => return Err(Refused::Unclear),
        };
        let mut changed = 0;
        for id in &ids {
            let done = match change {
                Change::Resume => self.store.resume(id).await?,
                Change::Discard => self.store.discard(id).await?,
            };
            changed += usize::from(done);
        }
        match (wanted.all, changed, ids.first()) {
            (false, 0, Some(id)) => Err(Refused::NotParked(id.clone())),
            _ => Ok(changed),
        }
    }
}

/// Refuses what a browser sends for another site.
async fn guarded(request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    if !reads && !browser::same_site(request.headers()) {
        let message = "this call comes from another site; send it from the program's own pages";
        return ApiError::new(StatusCode::FORBIDDEN, "forbidden", message).into_response();
    }
    next.run(request).await
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Change {
    Resume,
    Discard,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    id: Option<String>,
    #[serde(default)]
    all: bool,
}

#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("write either `id` or `all`: true")]
    Unclear,
    #[error("`{0}` is not parked: somebody has resumed or discarded it, or it never was")]
    NotParked(String),
    #[error(transparent)]
    Store(#[from] DelayError),
}

impl From<Refused> for ApiError {
    fn from(refused: Refused) -> Self {
        let (status, code) = match &refused {
            Refused::Unclear => (StatusCode::UNPROCESSABLE_ENTITY, "wrong_shape"),
            Refused::NotParked(_) => (StatusCode::NOT_FOUND, "not_parked"),
            Refused::Store(_) => (StatusCode::SERVICE_UNAVAILABLE, "unavailable"),
        };
        Self::new(status, code, refused.to_string())
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    limit: Option<usize>,
}

async fn parked(
    State(api): State<ParkedApi>,
    Params(wanted): Params<Listed>,
) -> Result<Json<Value>, ApiError> {
    let limit = wanted.limit.unwrap_or(SHOWN).min(MOST);
    let found = api.store.parked(limit).await.map_err(Refused::from)?;
    let items = api.store.len().await.map_err(Refused::from)?;
    let found: Vec<Value> = found
        .into_iter()
        .map(|parked| {
            json!({ "id": parked.id, "key": parked.key, "attempts": parked.attempts, "reason": parked.reason,
                "waiting": parked.waiting })
        })
        .collect();
    Ok(Json(json!({ "parked": found, "items": items })))
}

async fn resume(
    State(api): State<ParkedApi>,
    JsonBody(wanted): JsonBody<Wanted>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "resumed": api.change(Change::Resume, wanted).await? })))
}

async fn discard(
    State(api): State<ParkedApi>,
    JsonBody(wanted): JsonBody<Wanted>,
) -> Result<Json<Value>, ApiError> {
    Ok(Json(json!({ "discarded": api.change(Change::Discard, wanted).await? })))
}

fn framed(api: &ParkedApi, status: StatusCode, content: &Markup) -> Response {
    (status, frame::document("Parked", None, &api.menu.body("/parked", content))).into_response()
}

fn refused(api: &ParkedApi, refused: Refused) -> Response {
    let error = ApiError::from(refused);
    let content = html! {
        h1 { "Not done" }
        div.notice data-tone="bad" role="alert" { (error.message()) }
        p { a.button href="/parked" { "Parked" } }
    };
    framed(api, error.status(), &content)
}

#[derive(Debug, Deserialize)]
struct Done {
    done: Option<String>,
}

async fn page(State(api): State<ParkedApi>, Query(Done { done }): Query<Done>) -> Response {
    let found = async { Ok::<_, DelayError>((api.store.parked(SHOWN).await?, api.store.len().await?)) };
    let (found, items) = match found.await {
        Ok(found) => found,
        Err(error) => return refused(&api, error.into()),
    };
    let button = |id: &str, what: &str, verb: &str| {
        html! {
            form method="post" action="/parked" {
                input type="hidden" name="id" value=(id);
                button.small type="submit" name="what" value=(what) { (verb) }
            }
        }
    };
    let columns = [
        Column::name(api.noun),
        Column::wrapped("Why"),
        Column::number("Attempts"),
        Column::number("Behind it"),
        Column::actions(),
    ];
    let rows = found.iter().map(|parked| {
        [
            html! { (shortened(&parked.id, 120)) @if let Some(key) = &parked.key { " " small.dim { (key) } } },
            html! { (shortened(&parked.reason, 400)) },
            html! { (format::count(u64::from(parked.attempts))) },
            html! { (format::count(parked.waiting)) },
            html! { (button(&parked.id, "resume", "Try again")) (button(&parked.id, "discard", "Discard")) },
        ]
    });
    let notice = match done.as_deref() {
        Some("resume") => Some("It is tried again, as if for the first time."),
        Some("discard") => Some("It is discarded; what waited behind it goes on."),
        _ => None,
    };
    let content = html! {
        div.title { h1 { "Parked" } p.dim { (format::count(items)) " in all, waiting or parked" } }
        @if let Some(notice) = notice { div.notice data-tone="good" role="status" { (notice) } }
        p { "What is tried no more until somebody says so, with the reason. Those of its key wait behind it." }
        section #parked data-refresh="5" {
            @if found.is_empty() { (nothing("Nothing is parked.")) } @else { (list("Parked", &columns, rows)) }
        }
        @if !found.is_empty() {
            form method="post" action="/parked" {
                input type="hidden" name="all" value="true";
                button.primary type="submit" name="what" value="resume" { "Try all again" }
            }
        }
    };
    framed(&api, StatusCode::OK, &content)
}

#[derive(Debug, Deserialize)]
struct Sent {
    id: Option<String>,
    #[serde(default)]
    all: bool,
    what: String,
}

async fn act(State(api): State<ParkedApi>, Form(sent): Form<Sent>) -> Response {
    let (change, done) = match sent.what.as_str() {
        "resume" => (Change::Resume, "resume"),
        "discard" => (Change::Discard, "discard"),
        _ => return refused(&api, Refused::Unclear),
    };
    match api.change(change, Wanted { id: sent.id, all: sent.all }).await {
        Ok(_) => Redirect::to(&format!("/parked?done={done}")).into_response(),
        Err(error) => refused(&api, error),
    }
}
