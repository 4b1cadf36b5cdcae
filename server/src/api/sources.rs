//! Who may post readings, changed while the system runs.
//!
//! | call | body | answer |
//! |---|---|---|
//! | `GET /sources` | `?account=&search=&page=&limit=` | `{"sources":[{"source":…,"account":…,"queue":…,"active":…}],"total":n,…}` |
//! | `POST /sources` | `{"source":…,"account":…}`, and `"token"` unless a random one is wanted, and `"reason"` | the source, with its token when it was made here |
//! | `POST /sources/<id>/rotate` | `"token"` and `"reason"`, both optional | as `POST /sources` |
//! | `POST /sources/<id>/remove` | `"reason"`, optional | the source |
//!
//! The frontend of this process takes a change before the call is answered. Frontends elsewhere take it within
//! `frontend.sources_every`.

use std::sync::Arc;

use async_trait::async_trait;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use galerna_console::SourceChanges;
use galerna_directory::{AddedSource, RegistryError, SourceRegistry};
use galerna_frontend::Frontend;
use galerna_http::{ApiError, JsonBody, Params};
use galerna_maintainer::{Maintainer, Run, Task};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

/// Sources in one answer, unless the caller says how many.
const USUAL: usize = 50;
/// Most sources in one answer.
const MOST: usize = 1_000;

/// What the routes work on.
#[derive(Clone)]
pub(crate) struct SourcesApi {
    pub(crate) registry: SourceRegistry,
    /// Whether accounts and sources are read from the store: else what is changed there would have no effect.
    pub(crate) kept_in_store: bool,
    pub(crate) frontend: Frontend,
    pub(crate) maintainer: Maintainer,
}

/// The routes.
pub(crate) fn routes(api: SourcesApi) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list, add))
        .routes(routes!(rotate))
        .routes(routes!(remove))
        .with_state(api)
}

impl SourcesApi {
    fn check_kept(&self) -> Result<(), ApiError> {
        if self.kept_in_store {
            return Ok(());
        }
        let message = "sources are read from elsewhere (`maintainer.accounts` and `frontend.sources` are not `store`); change them there";
        Err(ApiError::new(StatusCode::CONFLICT, "sources_elsewhere", message))
    }

    /// For the page, unless what is changed would have no effect.
    pub(crate) fn changes(&self) -> Option<Arc<dyn SourceChanges>> {
        self.kept_in_store.then(|| Arc::new(self.clone()) as Arc<dyn SourceChanges>)
    }
}

/// What is stored is stored: that it takes effect later only is told in the log.
#[async_trait]
impl SourceChanges for SourcesApi {
    async fn take(&self, new_account: bool) {
        if new_account && let Err(failure) = self.maintainer.run_once(Task::Accounts, Run::default()).await {
            tracing::warn!(error = %failure.error, "the queue of a new account is made with the next run of the accounts task");
        }
        if let Err(error) = self.frontend.take_changed_sources().await {
            tracing::warn!(%error, "the frontend takes the changed sources with its next refresh");
        }
    }
}

type Answer = Result<Json<Value>, ApiError>;

fn refused(error: &RegistryError) -> ApiError {
    let status = match error {
        RegistryError::Name(_) | RegistryError::Token => StatusCode::UNPROCESSABLE_ENTITY,
        RegistryError::OtherAccount { .. } | RegistryError::InactiveAccount(_) => StatusCode::CONFLICT,
        RegistryError::UnknownSource(_) => StatusCode::NOT_FOUND,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    ApiError::new(status, error.code(), error.to_string())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    account: Option<String>,
    search: Option<String>,
    page: Option<usize>,
    limit: Option<usize>,
}

/// The sources, by id; those that were removed are not active.
#[utoipa::path(get, path = "/sources",
    params(
        ("account" = Option<String>, Query, description = "only of this account"),
        ("search" = Option<String>, Query, description = "only those whose id or account contains this, in whatever case"),
        ("page" = Option<usize>, Query, minimum = 1, description = "which page, from 1"),
        ("limit" = Option<usize>, Query, minimum = 1, maximum = 1000, description = "sources on a page; 50 when absent")),
    responses(
        (status = 200, description = "the sources of the page, and how many there are", body = Object, example = json!({
            "sources": [{"source": "s1", "account": "A", "queue": "A", "active": true}], "total": 1, "page": 1, "limit": 50})),
        (status = 422, description = "`invalid_query` or `invalid_name`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the store does not answer", body = ref("#/components/schemas/ErrorBody"))))]
async fn list(State(api): State<SourcesApi>, Params(wanted): Params<Wanted>) -> Answer {
    let invalid = |message| ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid_query", message);
    let (page, limit) = (wanted.page.unwrap_or(1), wanted.limit.unwrap_or(USUAL));
    if page == 0 {
        return Err(invalid("pages are counted from 1".to_owned()));
    }
    if !(1..=MOST).contains(&limit) {
        return Err(invalid(format!("`limit` is from 1 to {MOST}")));
    }
    let mut all = api.registry.list(wanted.account.as_deref()).await.map_err(|e| refused(&e))?;
    if let Some(search) = wanted.search.map(|text| text.to_lowercase()) {
        let contains = |text: &str| text.to_lowercase().contains(&search);
        all.retain(|s| contains(s.source.as_str()) || contains(s.account.as_str()));
    }
    let total = all.len();
    let shown: Vec<_> = all.into_iter().skip((page - 1).saturating_mul(limit)).take(limit).collect();
    Ok(Json(json!({ "sources": shown, "total": total, "page": page, "limit": limit })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewSource {
    source: String,
    account: String,
    token: Option<String>,
    /// For the audit log, which reads it itself.
    #[serde(default, rename = "reason")]
    _reason: Option<String>,
}

/// Lets a source post readings, and makes its account when it is new. A source that is there gets a new token.
#[utoipa::path(post, path = "/sources",
    request_body(content = Object, description = "the source, its account, `token` unless a random one is wanted, `reason` for the audit log",
        example = json!({"source": "s1", "account": "A", "reason": "new concentrator"})),
    responses(
        (status = 200, description = "what was added; `token` is told this once", body = Object, example = json!({
            "source": "s1", "account": "A", "queue": "A", "token": "0f…", "new_account": false, "replaced": false})),
        (status = 400, description = "`malformed_json`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`other_account`, `inactive_account` or `sources_elsewhere`", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`, `invalid_name` or `invalid_token`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the store does not answer", body = ref("#/components/schemas/ErrorBody"))))]
async fn add(State(api): State<SourcesApi>, JsonBody(new): JsonBody<NewSource>) -> Answer {
    api.check_kept()?;
    let added = api.registry.add(&new.source, &new.account, new.token.as_deref()).await;
    answer(&api, added.map_err(|e| refused(&e))?).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewToken {
    token: Option<String>,
    /// For the audit log, which reads it itself.
    #[serde(default, rename = "reason")]
    _reason: Option<String>,
}

/// Gives a source a new token; the one before is no longer taken.
#[utoipa::path(post, path = "/sources/{source}/rotate",
    params(("source" = String, Path, description = "the source")),
    request_body(content = Object, description = "`token` unless a random one is wanted, `reason` for the audit log", example = json!({"reason": "lost"})),
    responses(
        (status = 200, description = "the source; `token` is told this once", body = Object, example = json!({
            "source": "s1", "account": "A", "queue": "A", "token": "0f…", "new_account": false, "replaced": true})),
        (status = 400, description = "`malformed_json`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_source`: there is none, or it was removed", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`inactive_account` or `sources_elsewhere`", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape`, `invalid_name` or `invalid_token`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the store does not answer", body = ref("#/components/schemas/ErrorBody"))))]
async fn rotate(
    State(api): State<SourcesApi>,
    Path(source): Path<String>,
    JsonBody(new): JsonBody<NewToken>,
) -> Answer {
    api.check_kept()?;
    let rotated = api.registry.rotate(&source, new.token.as_deref()).await;
    answer(&api, rotated.map_err(|e| refused(&e))?).await
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {
    /// For the audit log, which reads it itself.
    #[serde(default, rename = "reason")]
    _reason: Option<String>,
}

/// Takes no more readings from a source; what it sent stays.
#[utoipa::path(post, path = "/sources/{source}/remove",
    params(("source" = String, Path, description = "the source")),
    request_body(content = Object, description = "`reason` is for the audit log", example = json!({"reason": "taken down"})),
    responses(
        (status = 200, description = "the source", body = Object, example = json!({"source": "s1", "account": "A", "queue": null, "active": false})),
        (status = 400, description = "`malformed_json`", body = ref("#/components/schemas/ErrorBody")),
        (status = 404, description = "`unknown_source`", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`sources_elsewhere`", body = ref("#/components/schemas/ErrorBody")),
        (status = 413, description = "`body_too_large`", body = ref("#/components/schemas/ErrorBody")),
        (status = 422, description = "`wrong_shape` or `invalid_name`", body = ref("#/components/schemas/ErrorBody")),
        (status = 503, description = "`unavailable`: the store does not answer", body = ref("#/components/schemas/ErrorBody"))))]
async fn remove(
    State(api): State<SourcesApi>,
    Path(source): Path<String>,
    JsonBody(Nothing { .. }): JsonBody<Nothing>,
) -> Answer {
    api.check_kept()?;
    let removed = api.registry.remove(&source).await.map_err(|e| refused(&e))?;
    api.take(false).await;
    Ok(Json(json!(removed)))
}

async fn answer(api: &SourcesApi, added: AddedSource) -> Answer {
    api.take(added.new_account).await;
    Ok(Json(json!(added)))
}
