//! The calls.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use galerna_http::{ApiError, JsonBody, Params};
use galerna_model::Timestamp;
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::SchedulesApi;
use crate::calendar::tzdata_version;
use crate::{Definition, Overlap, SHOWN, ScheduleError, ScheduleId, ScheduleView, StoreError};

/// Schedules or ends in one answer, unless the caller says how many.
const USUAL: usize = 50;
/// The most in one answer.
const MOST: usize = 1_000;

/// The routes, to be merged with those of the program.
pub fn routes(api: impl Into<SchedulesApi>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(show, edit))
        .routes(routes!(history))
        .routes(routes!(pause))
        .routes(routes!(resume))
        .routes(routes!(trigger))
        .routes(routes!(backfill))
        .routes(routes!(remove))
        .routes(routes!(upcoming))
        .with_state(api.into())
}

type Answer = Result<Json<Value>, ApiError>;

fn store_error(error: &StoreError) -> ApiError {
    match error {
        StoreError::Unavailable { .. } => {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", error.to_string())
        }
        StoreError::Failed { .. } => {
            ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "failed", error.to_string())
        }
    }
}

fn refused(error: &ScheduleError) -> ApiError {
    let (status, code) = match error {
        ScheduleError::Store(error) => return store_error(error),
        ScheduleError::Bad(_) => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_schedule"),
        ScheduleError::Exists(_) => (StatusCode::CONFLICT, "schedule_exists"),
        ScheduleError::NotFound(_) => (StatusCode::NOT_FOUND, "unknown_schedule"),
        ScheduleError::Edited { .. } => (StatusCode::CONFLICT, "schedule_edited"),
        ScheduleError::Busy(_) => (StatusCode::SERVICE_UNAVAILABLE, "busy"),
    };
    ApiError::new(status, code, error.to_string())
}

fn named(id: String) -> Result<ScheduleId, ApiError> {
    ScheduleId::new(id)
        .map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, "invalid_path", error.to_string()))
}

fn within(limit: Option<usize>) -> Result<usize, ApiError> {
    let limit = limit.unwrap_or(USUAL);
    if (1..=MOST).contains(&limit) {
        return Ok(limit);
    }
    let message = format!("`limit` is from 1 to {MOST}");
    Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", message))
}

fn shown(view: Result<ScheduleView, ScheduleError>) -> Answer {
    view.map(|view| Json(json!(view))).map_err(|error| refused(&error))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    after: Option<String>,
    limit: Option<usize>,
}

/// The schedules by name, each with its next occurrence, counts by outcome and reason, and what runs.
#[utoipa::path(get, path = "/schedules", tag = "schedules",
    params(
        ("after" = Option<String>, Query, description = "only those whose names come after this: `next` of the answer before"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "at most so many; 50 when absent")),
    responses(
        (status = 200, description = "the schedules; `next` is null with the last of them", body = Object, example = json!({
            "schedules": [{"id": "reports/daily", "occurs": "30 6 * * * in Europe/Berlin", "upcoming": [
                {"at": "2026-03-29T04:30:00Z", "local": "2026-03-29T06:30:00+02:00[Europe/Berlin]"}]}], "next": null, "tzdata": "2026a"})),
        (status = 422, description = "`invalid_query`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the store does not answer", body = ref("#/components/schemas/ErrorBody"))))]
async fn list(State(api): State<SchedulesApi>, Params(wanted): Params<Listed>) -> Answer {
    let limit = within(wanted.limit)?;
    let after = wanted.after.filter(|after| !after.is_empty()).map(ScheduleId::new).transpose();
    let after = after.map_err(|error| {
        ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", format!("`after`: {error}"))
    })?;
    // One more tells whether there are more.
    let mut found = api.list(after.as_ref(), limit + 1).await.map_err(|error| store_error(&error))?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| last.id.clone());
    Ok(Json(json!({ "schedules": found, "next": next, "tzdata": tzdata_version() })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Added {
    id: ScheduleId,
    definition: Definition,
    /// For whoever logs calls.
    #[serde(default, rename = "reason")]
    _reason: Option<String>,
}

/// Adds a schedule; its first occurrence is after now.
#[utoipa::path(post, path = "/schedules", tag = "schedules",
    request_body(content = Object, description = "its name and its definition; `reason` is for the audit log", example = json!({
        "id": "reports/daily", "definition": {"timing": {"cron": {"expression": "30 6 * * *", "timezone": "Europe/Berlin"}},
        "payload": {"queue": "reports", "body": {"report": "usage"}}}})),
    responses(
        (status = 200, description = "the schedule, with its next ten occurrences", body = Object),
        (status = 400, description = "`malformed_json`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`schedule_exists`", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`, or `invalid_schedule` with the field that is wrong", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the store does not answer", body = ref("#/components/schemas/ErrorBody"))))]
async fn add(State(api): State<SchedulesApi>, JsonBody(new): JsonBody<Added>) -> Answer {
    shown(api.add(new.id, new.definition).await)
}

/// A schedule: its definition, the next ten occurrences, the last ten ends, and counts by outcome and reason.
#[utoipa::path(get, path = "/schedules/{id}", tag = "schedules",
    params(("id" = String, Path, description = "the schedule, `/` written as `%2F`")),
    responses(
        (status = 200, description = "the schedule", body = Object),
        (status = 400, description = "`invalid_path`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_schedule`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the store does not answer", body = ref("#/components/schemas/ErrorBody"))))]
async fn show(State(api): State<SchedulesApi>, Path(id): Path<String>) -> Answer {
    shown(api.show(&named(id)?).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Edited {
    definition: Definition,
    revision: Option<u64>,
    #[serde(default, rename = "reason")]
    _reason: Option<String>,
}

/// Replaces the definition of a schedule; what is open goes on, new occurrences are after now.
#[utoipa::path(put, path = "/schedules/{id}", tag = "schedules",
    params(("id" = String, Path, description = "the schedule, `/` written as `%2F`")),
    request_body(content = Object, description = "the definition, and the revision that it was made from; `reason` is for the audit log",
        example = json!({"definition": {"timing": {"every": {"interval": "10m"}}, "payload": {"queue": "reports"}}})),
    responses(
        (status = 200, description = "the schedule, with its next ten occurrences", body = Object),
        (status = 400, description = "`invalid_path` or `malformed_json`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_schedule`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`schedule_edited`: it is at another revision", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`, or `invalid_schedule` with the field that is wrong", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable` or `busy`", body = ref("#/components/schemas/ErrorBody"))))]
async fn edit(
    State(api): State<SchedulesApi>,
    Path(id): Path<String>,
    JsonBody(new): JsonBody<Edited>,
) -> Answer {
    shown(api.edit(&named(id)?, new.definition, new.revision).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Earlier {
    before: Option<Timestamp>,
    limit: Option<usize>,
}

/// What ended of a schedule, the latest nominal time first; that of one that was removed is there, too.
#[utoipa::path(get, path = "/schedules/{id}/history", tag = "schedules",
    params(
        ("id" = String, Path, description = "the schedule, `/` written as `%2F`"),
        ("before" = Option<String>, Query, format = DateTime, description = "only nominal times before this: RFC 3339 with an offset"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "at most so many; 50 when absent")),
    responses(
        (status = 200, description = "what ended", body = Object, example = json!({"ended": [{"schedule": "reports/daily",
            "nominal": "2026-03-28T05:30:00Z", "origin": "planned", "outcome": "skipped", "reason": "overlap",
            "at": "2026-03-28T05:30:00.4Z", "attempts": 0}]})),
        (status = 400, description = "`invalid_path`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`invalid_query`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the store does not answer", body = ref("#/components/schemas/ErrorBody"))))]
async fn history(
    State(api): State<SchedulesApi>,
    Path(id): Path<String>,
    Params(wanted): Params<Earlier>,
) -> Answer {
    let (id, limit) = (named(id)?, within(wanted.limit)?);
    let ended = api.history(&id, wanted.before, limit).await.map_err(|error| store_error(&error))?;
    Ok(Json(json!({ "ended": ended })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Noted {
    #[serde(default)]
    note: String,
    #[serde(default, rename = "reason")]
    _reason: Option<String>,
}

/// Pauses a schedule: its occurrences are recorded as skipped until it is resumed. What is open goes on, and it can be triggered.
#[utoipa::path(post, path = "/schedules/{id}/pause", tag = "schedules",
    params(("id" = String, Path, description = "the schedule, `/` written as `%2F`")),
    request_body(content = Object, description = "`note` says why to whoever looks at it; `reason` is for the audit log", example = json!({"note": "moving house"})),
    responses(
        (status = 200, description = "the schedule", body = Object),
        (status = 400, description = "`invalid_path` or `malformed_json`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_schedule`", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable` or `busy`", body = ref("#/components/schemas/ErrorBody"))))]
async fn pause(
    State(api): State<SchedulesApi>,
    Path(id): Path<String>,
    JsonBody(asked): JsonBody<Noted>,
) -> Answer {
    shown(api.pause(&named(id)?, &asked.note).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {
    #[serde(default, rename = "reason")]
    _reason: Option<String>,
}

/// Ends a pause.
#[utoipa::path(post, path = "/schedules/{id}/resume", tag = "schedules",
    params(("id" = String, Path, description = "the schedule, `/` written as `%2F`")),
    request_body(content = Object, description = "`reason` is for the audit log", example = json!({"reason": "moved"})),
    responses(
        (status = 200, description = "the schedule", body = Object),
        (status = 400, description = "`invalid_path` or `malformed_json`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_schedule`", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable` or `busy`", body = ref("#/components/schemas/ErrorBody"))))]
async fn resume(
    State(api): State<SchedulesApi>,
    Path(id): Path<String>,
    JsonBody(Nothing { .. }): JsonBody<Nothing>,
) -> Answer {
    shown(api.resume(&named(id)?).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Triggered {
    overlap: Option<Overlap>,
    #[serde(default, rename = "reason")]
    _reason: Option<String>,
}

/// Fires a schedule now, by its overlap policy or another.
#[utoipa::path(post, path = "/schedules/{id}/trigger", tag = "schedules",
    params(("id" = String, Path, description = "the schedule, `/` written as `%2F`")),
    request_body(content = Object, description = "`overlap` in place of the schedule's; `reason` is for the audit log", example = json!({"overlap": "allow_all"})),
    responses(
        (status = 200, description = "the firing; `outcome` when it was not let wait", body = Object,
            example = json!({"firing": "reports/daily@2026-03-28T12:00:00Z#triggered-1", "outcome": null})),
        (status = 400, description = "`invalid_path` or `malformed_json`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_schedule`", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable` or `busy`", body = ref("#/components/schemas/ErrorBody"))))]
async fn trigger(
    State(api): State<SchedulesApi>,
    Path(id): Path<String>,
    JsonBody(asked): JsonBody<Triggered>,
) -> Answer {
    let (firing, outcome) = api.trigger(&named(id)?, asked.overlap).await.map_err(|error| refused(&error))?;
    let outcome = outcome.map(|outcome| outcome.to_string());
    Ok(Json(json!({ "firing": firing.to_string(), "outcome": outcome })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Range {
    from: Timestamp,
    to: Timestamp,
    overlap: Option<Overlap>,
    #[serde(default, rename = "reason")]
    _reason: Option<String>,
}

/// Fires the occurrences of a time that is past, whether they were fired or not; one after the other unless `overlap` says otherwise.
#[utoipa::path(post, path = "/schedules/{id}/backfill", tag = "schedules",
    params(("id" = String, Path, description = "the schedule, `/` written as `%2F`")),
    request_body(content = Object, description = "from the one time on and before the other; `reason` is for the audit log",
        example = json!({"from": "2026-03-01T00:00:00Z", "to": "2026-03-08T00:00:00Z"})),
    responses(
        (status = 200, description = "how many firings were let wait", body = Object, example = json!({"admitted": 7})),
        (status = 400, description = "`invalid_path` or `malformed_json`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_schedule`", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`, or `invalid_schedule`: more than may be open at once", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable` or `busy`", body = ref("#/components/schemas/ErrorBody"))))]
async fn backfill(
    State(api): State<SchedulesApi>,
    Path(id): Path<String>,
    JsonBody(asked): JsonBody<Range>,
) -> Answer {
    let admitted = api.backfill(&named(id)?, asked.from, asked.to, asked.overlap).await;
    Ok(Json(json!({ "admitted": admitted.map_err(|error| refused(&error))? })))
}

/// Removes a schedule; what is open is cancelled, what ended stays.
#[utoipa::path(post, path = "/schedules/{id}/remove", tag = "schedules",
    params(("id" = String, Path, description = "the schedule, `/` written as `%2F`")),
    request_body(content = Object, description = "`reason` is for the audit log", example = json!({"reason": "not needed any more"})),
    responses(
        (status = 200, description = "it is gone", body = Object, example = json!({"id": "reports/daily"})),
        (status = 400, description = "`invalid_path` or `malformed_json`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_schedule`", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable` or `busy`", body = ref("#/components/schemas/ErrorBody"))))]
async fn remove(
    State(api): State<SchedulesApi>,
    Path(id): Path<String>,
    JsonBody(Nothing { .. }): JsonBody<Nothing>,
) -> Answer {
    let id = named(id)?;
    api.remove(&id).await.map_err(|error| refused(&error))?;
    Ok(Json(json!({ "id": id })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Previewed {
    definition: Definition,
}

/// When a definition would occur, ten times from now on; nothing is kept.
#[utoipa::path(post, path = "/upcoming", tag = "schedules",
    request_body(content = Object, description = "the definition", example = json!({
        "definition": {"timing": {"cron": {"expression": "30 2 * * *", "timezone": "Europe/Berlin"}}}})),
    responses(
        (status = 200, description = "the next ten occurrences, and the version of the time zone rules", body = Object),
        (status = 400, description = "`malformed_json`", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`, or `invalid_schedule` with the field that is wrong", body = ref("#/components/schemas/ErrorBody"))))]
async fn upcoming(State(api): State<SchedulesApi>, JsonBody(asked): JsonBody<Previewed>) -> Answer {
    let upcoming = api.upcoming(&asked.definition);
    let upcoming = upcoming.map_err(|bad| refused(&bad.into()))?;
    debug_assert!(upcoming.len() <= SHOWN);
    Ok(Json(json!({ "upcoming": upcoming, "tzdata": tzdata_version() })))
}
