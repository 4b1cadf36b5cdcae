//! Pages on which people see and steer schedules, for any program to embed:
//!
//! ```
//! # #[cfg(feature = "embedded")]
//! # fn example() -> Result<axum::Router, galerna_schedules::StoreError> {
//! # use std::sync::Arc;
//! use galerna_model::SystemClock;
//! use galerna_schedules::{Schedules, sqlite::SqliteSchedules};
//!
//! let store = Arc::new(SqliteSchedules::in_memory()?);
//! let schedules = Schedules::new(store, Arc::new(SystemClock));
//! let app = axum::Router::new().merge(galerna_schedules::router(schedules));
//! # Ok(app)
//! # }
//! ```
//!
//! Pages are below `/schedules`, the routes of [`crate::api`] below `/api`, their description is `/schedules/openapi.json`. Whoever may
//! reach them may act: put the program's own access control around them. A form or call that a browser sends from another site is
//! refused. The pages work without script; with it they stay up to date.
//!
//! [`SchedulesApi::beside`] gives them the program's menu. A program with a frame of its own shows [`list`], [`one`] and [`edit`] in it, at the same paths.

mod form;
mod parts;

use axum::body::Bytes;
use axum::extract::{Path, RawQuery, Request, State};
use axum::http::{Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use galerna_html::{assets, frame};
use galerna_http::{ApiError, browser, openapi};
use maud::{Markup, html};
use utoipa_axum::router::OpenApiRouter;

pub use self::form::Fields;
pub use self::parts::{Forms, edit, list, one, path_of};
use crate::api::{self, SchedulesApi};
use crate::{BadSchedule, Occurrence, Outcome, Overlap, ScheduleError, ScheduleId};

/// Schedules on one page.
const ROWS: usize = 100;

/// Pages and routes, to be merged with those of the program.
pub fn router(api: impl Into<SchedulesApi>) -> Router {
    let api = api.into();
    let (calls, description) = OpenApiRouter::new().nest("/api", api::routes(api.clone())).split_for_parts();
    let description = Json(openapi::with_errors(description));
    let pages = Router::new()
        .route("/schedules", get(list_page))
        .route("/schedules/show", get(show_page))
        .route("/schedules/edit", get(edit_page))
        .route("/schedules/save", post(save))
        .route("/schedules/pause", post(pause))
        .route("/schedules/resume", post(resume))
        .route("/schedules/trigger", post(trigger))
        .route("/schedules/backfill", post(backfill))
        .route("/schedules/remove", post(remove))
        .route("/schedules/assets/{file}", get(asset))
        .route("/schedules/openapi.json", get(|| async { description }))
        .with_state(api);
    pages.merge(calls).layer(middleware::from_fn(guarded)).layer(middleware::from_fn(browser::headers))
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

async fn asset(Path(file): Path<String>) -> Response {
    match assets::file(&file) {
        Some((kind, text)) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn framed(api: &SchedulesApi, status: StatusCode, title: &str, content: &Markup) -> Response {
    let body = api.menu().body("/schedules", content);
    (status, frame::document_with_assets("/schedules/assets", title, None, &body)).into_response()
}

fn forms() -> Forms {
    Forms { hidden: Markup::default(), may_act: true }
}

/// What was done, as the page that follows tells it.
fn notice(done: &str) -> Option<(&'static str, &'static str)> {
    Some(match done {
        "saved" => ("good", "The schedule is saved."),
        "paused" => ("good", "The schedule is paused."),
        "resumed" => ("good", "The schedule is on again."),
        "triggered" => ("good", "A firing is on its way."),
        "overlap" => {
            ("warn", "Nothing was fired: an earlier firing has not ended, and the overlap policy is skip.")
        }
        "buffer_full" => ("warn", "Nothing was fired: as many wait as may."),
        "backfilled" => ("good", "The firings are on their way."),
        "removed" => ("good", "The schedule is removed."),
        _ => return None,
    })
}

fn told(fields: &Fields) -> Markup {
    html! { @if let Some((tone, text)) = notice(fields.text("done")) { div.notice data-tone=(tone) role="status" { (text) } } }
}

fn status_of(error: &ScheduleError) -> StatusCode {
    match error {
        ScheduleError::Bad(_) => StatusCode::UNPROCESSABLE_ENTITY,
        ScheduleError::NotFound(_) => StatusCode::NOT_FOUND,
        ScheduleError::Exists(_) | ScheduleError::Edited { .. } => StatusCode::CONFLICT,
        ScheduleError::Busy(_) | ScheduleError::Store(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn refused(api: &SchedulesApi, error: &ScheduleError) -> Response {
    let content = html! {
        h1 { "Not done" }
        div.notice data-tone="bad" role="alert" { (error) }
        p { a.button href="/schedules" { "Schedules" } }
    };
    framed(api, status_of(error), "Not done", &content)
}

fn named(fields: &Fields) -> Result<ScheduleId, ScheduleError> {
    Ok(ScheduleId::new(fields.text("id"))?)
}

fn query(RawQuery(query): RawQuery) -> Fields {
    Fields::parse(query.unwrap_or_default().as_bytes())
}

async fn list_page(State(api): State<SchedulesApi>, asked: RawQuery) -> Response {
    let fields = query(asked);
    let after = match fields.given("after").map(ScheduleId::new).transpose() {
        Ok(after) => after,
        Err(bad) => return refused(&api, &bad.into()),
    };
    match api.list(after.as_ref(), ROWS + 1).await {
        Err(error) => refused(&api, &error.into()),
        Ok(mut found) => {
            let more = found.len() > ROWS;
            found.truncate(ROWS);
            let next = found.last().filter(|_| more).map(|last| last.id.to_string());
            let content = html! { (told(&fields)) (list(&found, next.as_deref(), &forms())) };
            framed(&api, StatusCode::OK, "Schedules", &content)
        }
    }
}

async fn show_page(State(api): State<SchedulesApi>, asked: RawQuery) -> Response {
    let fields = query(asked);
    let view = match named(&fields) {
        Ok(id) => api.show(&id).await,
        Err(error) => Err(error),
    };
    match view {
        Err(error) => refused(&api, &error),
        Ok(view) => {
            let content = html! { (told(&fields)) (one(&view, &forms())) };
            framed(&api, StatusCode::OK, view.id.as_str(), &content)
        }
    }
}

/// What the form of a schedule shows: its fields, whether the schedule is there, what is wrong, and when it would occur.
pub struct Edited {
    /// The fields.
    pub held: Fields,
    /// The schedule is there.
    pub known: bool,
    /// Why it would not be taken.
    pub problem: Option<BadSchedule>,
    /// When it would occur.
    pub next: Vec<Occurrence>,
}

impl Edited {
    /// The form that a query asks for: that of a schedule, of a new one, or with `check` with the fields of the query.
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`].
    pub async fn asked(api: &SchedulesApi, fields: Fields) -> Result<Self, ScheduleError> {
        let known = fields.given("known").is_some();
        if fields.given("check").is_some() {
            return Ok(Self::of(api, fields, known));
        }
        match fields.given("id") {
            None => Ok(Self::of(api, Fields::of_new(), false)),
            Some(id) => {
                let view = api.show(&ScheduleId::new(id)?).await?;
                Ok(Self::of(api, Fields::of(&view), true))
            }
        }
    }

    fn of(api: &SchedulesApi, held: Fields, known: bool) -> Self {
        match held.definition().and_then(|definition| api.upcoming(&definition)) {
            Ok(next) => Self { held, known, problem: None, next },
            Err(problem) => Self { held, known, problem: Some(problem), next: Vec::new() },
        }
    }

    /// The page.
    pub fn page(&self, forms: &Forms) -> Markup {
        edit(&self.held, self.known, self.problem.as_ref(), &self.next, forms)
    }
}

async fn edit_page(State(api): State<SchedulesApi>, asked: RawQuery) -> Response {
    match Edited::asked(&api, query(asked)).await {
        Ok(edited) => framed(&api, StatusCode::OK, "Edit a schedule", &edited.page(&forms())),
        Err(error) => refused(&api, &error),
    }
}

/// Saves the schedule of a form.
///
/// # Errors
/// As [`SchedulesApi::add`] and [`SchedulesApi::edit`].
pub async fn saved(api: &SchedulesApi, fields: &Fields) -> Result<crate::ScheduleView, ScheduleError> {
    let (id, definition) = (named(fields)?, fields.definition()?);
    if fields.given("known").is_none() {
        return api.add(id, definition).await;
    }
    let revision = fields.given("revision").map(str::parse).transpose();
    let revision = revision.map_err(|_| BadSchedule::new("revision", "it is no number"))?;
    api.edit(&id, definition, revision).await
}

async fn save(State(api): State<SchedulesApi>, body: Bytes) -> Response {
    let fields = Fields::parse(&body);
    match saved(&api, &fields).await {
        Ok(view) => Redirect::to(&format!("{}&done=saved", path_of(view.id.as_str()))).into_response(),
        Err(ScheduleError::Bad(bad)) => {
            let known = fields.given("known").is_some();
            let edited = Edited { problem: Some(bad), ..Edited::of(&api, fields, known) };
            framed(&api, StatusCode::UNPROCESSABLE_ENTITY, "Edit a schedule", &edited.page(&forms()))
        }
        Err(error) => refused(&api, &error),
    }
}

fn done(api: &SchedulesApi, result: Result<&'static str, ScheduleError>, fields: &Fields) -> Response {
    match result {
        Ok("removed") => Redirect::to("/schedules?done=removed").into_response(),
        Ok(done) => Redirect::to(&format!("{}&done={done}", path_of(fields.text("id")))).into_response(),
        Err(error) => refused(api, &error),
    }
}

async fn pause(State(api): State<SchedulesApi>, body: Bytes) -> Response {
    let fields = Fields::parse(&body);
    let paused = async { api.pause(&named(&fields)?, fields.text("note")).await.map(|_| "paused") };
    done(&api, paused.await, &fields)
}

async fn resume(State(api): State<SchedulesApi>, body: Bytes) -> Response {
    let fields = Fields::parse(&body);
    let resumed = async { api.resume(&named(&fields)?).await.map(|_| "resumed") };
    done(&api, resumed.await, &fields)
}

fn overlap(fields: &Fields) -> Result<Option<Overlap>, ScheduleError> {
    Ok(fields.given("overlap").map(str::parse).transpose()?)
}

async fn trigger(State(api): State<SchedulesApi>, body: Bytes) -> Response {
    let fields = Fields::parse(&body);
    let triggered = async {
        let (_, outcome) = api.trigger(&named(&fields)?, overlap(&fields)?).await?;
        Ok(outcome.and_then(Outcome::reason).unwrap_or("triggered"))
    };
    done(&api, triggered.await, &fields)
}

/// The times of a form that backfills.
///
/// # Errors
/// [`ScheduleError::Bad`] names the field that is wrong.
pub async fn backfilled(api: &SchedulesApi, fields: &Fields) -> Result<usize, ScheduleError> {
    let needed = |name: &'static str| {
        let time = fields.time(name, name)?;
        time.ok_or_else(|| BadSchedule::new(name, "a time is needed, such as 2026-05-01T12:00:00+02:00"))
    };
    api.backfill(&named(fields)?, needed("from")?, needed("to")?, overlap(fields)?).await
}

async fn backfill(State(api): State<SchedulesApi>, body: Bytes) -> Response {
    let fields = Fields::parse(&body);
    done(&api, backfilled(&api, &fields).await.map(|_| "backfilled"), &fields)
}

async fn remove(State(api): State<SchedulesApi>, body: Bytes) -> Response {
    let fields = Fields::parse(&body);
    let removed = async { api.remove(&named(&fields)?).await.map(|()| "removed") };
    done(&api, removed.await, &fields)
}
