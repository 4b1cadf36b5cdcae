//! What programs read: the same as the pages show, as JSON. Viewers may; secrets are told to nobody.

use std::error::Error as _;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::routing::any;
use axum::{Extension, Json};
use galerna_model::AccountId;
use galerna_storage::{DeliveryFilter, DeliveryStatus, Endpoint};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::IntoParams;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::access::Visitor;
use super::observer::{MAX_FIRING, within_timeout};
use super::problem::Problem;
use super::{Page, consumption, notices};

/// Entries of a page when the call does not say, and the most that it may ask for.
const LIMIT: usize = 50;
const MAX_LIMIT: usize = 500;
const MAX_PAGE: usize = 1_000_000;

/// The routes, with their description.
pub(super) fn routes() -> OpenApiRouter<Page> {
    OpenApiRouter::new()
        .routes(routes!(status))
        .routes(routes!(rules))
        .routes(routes!(endpoints))
        .routes(routes!(silences))
        .routes(routes!(deliveries))
        .routes(routes!(alerts))
        .routes(routes!(audit))
        .routes(routes!(consumed))
        .route("/api/{*rest}", any(unknown))
}

async fn unknown() -> Answer {
    Answer(Err(Problem::Unknown("the API has no such call".to_owned())))
}

/// An answer, or what was wrong, as JSON.
struct Answer(Result<Value, Problem>);

impl axum::response::IntoResponse for Answer {
    fn into_response(self) -> axum::response::Response {
        match self.0 {
            Ok(value) => Json(value).into_response(),
            Err(problem) => problem.answer(true),
        }
    }
}

type Asked<T> = Result<Query<T>, QueryRejection>;

fn read<T>(asked: Asked<T>) -> Result<T, Problem> {
    asked.map(|Query(query)| query).map_err(|e| {
        // What is beneath says which parameter; around it stands only that it is a query.
        let said = e.source().map_or_else(|| e.body_text(), ToString::to_string);
        Problem::Invalid(format!("the query is not understood: {said}"))
    })
}

/// The offset and length of a page.
struct Cut {
    page: usize,
    offset: usize,
    limit: usize,
}

fn cut(page: Option<usize>, limit: Option<usize>) -> Result<Cut, Problem> {
    let within = |name: &str, value: usize, most: usize| {
        if (1..=most).contains(&value) {
            Ok(value)
        } else {
            Err(Problem::Invalid(format!("`{name}` is {value}; use a number from 1 to {most}")))
        }
    };
    let page = within("page", page.unwrap_or(1), MAX_PAGE)?;
    let limit = within("limit", limit.unwrap_or(LIMIT), MAX_LIMIT)?;
    Ok(Cut { page, offset: (page - 1) * limit, limit })
}

fn given(text: Option<String>) -> Option<String> {
    text.map(|t| t.trim().to_owned()).filter(|t| !t.is_empty())
}

fn account(text: Option<String>) -> Result<Option<AccountId>, Problem> {
    let parsed = given(text).map(AccountId::new).transpose();
    parsed.map_err(|e| Problem::Invalid(format!("`account`: {e}")))
}

async fn stored<T>(
    call: impl Future<Output = Result<T, galerna_storage::StorageError>>,
) -> Result<T, Problem> {
    within_timeout("the store", call).await.map_err(Problem::Unavailable)
}

/// Keeps the one that was asked for by its id.
fn chosen<T>(
    all: Vec<T>,
    id: Option<&str>,
    what: &str,
    is: impl Fn(&T, &str) -> bool,
) -> Result<Vec<T>, Problem> {
    let Some(id) = id else { return Ok(all) };
    let found: Vec<T> = all.into_iter().filter(|one| is(one, id)).collect();
    if found.is_empty() { Err(Problem::Unknown(format!("there is no {what} `{id}`"))) } else { Ok(found) }
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct One {
    id: Option<String>,
}

/// The alert rules, or one.
#[utoipa::path(get, path = "/api/rules", tag = "reads",
    params(One),
    responses(
        (status = 404, description = "`unknown`: there is no such thing", body = ref("#/components/schemas/ErrorBody")),
        (status = 200, description = "`rules`", body = Object)))]
async fn rules(State(page): State<Page>, asked: Asked<One>) -> Answer {
    let found = async {
        let id = given(read(asked)?.id);
        let all = stored(page.parts.store.rules.list()).await?;
        let rules = chosen(all, id.as_deref(), "rule", |rule, id| rule.id == id)?;
        Ok(json!({ "rules": rules }))
    };
    Answer(found.await)
}

/// What the counters of a source say was used, by hour, day or month.
#[utoipa::path(get, path = "/api/consumption", tag = "reads",
    params(consumption::Asked),
    responses(
        (status = 404, description = "`unknown`: there is no such source", body = ref("#/components/schemas/ErrorBody")),
        (status = 409, description = "`conflict`: it is not kept here", body = ref("#/components/schemas/ErrorBody")),
        (status = 200, description = "`counters`, each with its `bars`", body = Object)))]
async fn consumed(State(page): State<Page>, asked: Asked<consumption::Asked>) -> Answer {
    let found = async { consumption::answer(&page, read(asked)?).await };
    Answer(found.await)
}

/// The endpoints, or one; secrets are `***`.
#[utoipa::path(get, path = "/api/endpoints", tag = "reads",
    params(One),
    responses(
        (status = 404, description = "`unknown`: there is no such thing", body = ref("#/components/schemas/ErrorBody")),
        (status = 200, description = "`endpoints`", body = Object)))]
async fn endpoints(State(page): State<Page>, asked: Asked<One>) -> Answer {
    let found = async {
        let id = given(read(asked)?.id);
        let all = stored(page.parts.store.notifications.endpoints()).await?;
        let endpoints = chosen(all, id.as_deref(), "endpoint", |endpoint, id| endpoint.id == id)?;
        let endpoints: Vec<Endpoint> = endpoints.iter().map(Endpoint::redacted).collect();
        Ok(json!({ "endpoints": endpoints }))
    };
    Answer(found.await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// The silences, those that end last first.
#[utoipa::path(get, path = "/api/silences", tag = "reads",
    responses(
        (status = 200, description = "`silences`, each with `in_force`", body = Object)))]
async fn silences(State(page): State<Page>, asked: Asked<Nothing>) -> Answer {
    let found = async {
        read(asked)?;
        let mut all = stored(page.parts.store.notifications.silences()).await?;
        all.sort_by_key(|s| std::cmp::Reverse(s.until));
        let now = page.now();
        let silences: Vec<Value> = all
            .iter()
            .map(|silence| {
                let mut value = json!(silence);
                value["in_force"] = json!(silence.until > now);
                value
            })
            .collect();
        Ok(json!({ "silences": silences }))
    };
    Answer(found.await)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct WhichDeliveries {
    id: Option<String>,
    /// Only those that stand so.
    #[param(value_type = Option<String>)]
    status: Option<DeliveryStatus>,
    endpoint: Option<String>,
    account: Option<String>,
    search: Option<String>,
    /// Which page, from 1.
    #[param(minimum = 1, maximum = 1_000_000)]
    page: Option<usize>,
    /// How many a page; 50 when absent.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
}

/// What endpoints were told, newest first.
#[utoipa::path(get, path = "/api/deliveries", tag = "reads",
    params(WhichDeliveries),
    responses(
        (status = 404, description = "`unknown`: there is no such thing", body = ref("#/components/schemas/ErrorBody")),
        (status = 200, description = "`deliveries`, `counts` by status, `total`, `page`, `limit`", body = Object)))]
async fn deliveries(State(page): State<Page>, asked: Asked<WhichDeliveries>) -> Answer {
    let found = async {
        let asked = read(asked)?;
        let notifications = &page.parts.store.notifications;
        if let Some(id) = given(asked.id) {
            let delivery = stored(notifications.delivery(&id)).await?;
            let delivery =
                delivery.ok_or_else(|| Problem::Unknown(format!("there is no delivery `{id}`")))?;
            return Ok(json!({ "deliveries": [delivery] }));
        }
        let cut = cut(asked.page, asked.limit)?;
        let filter = DeliveryFilter {
            status: asked.status,
            endpoint: given(asked.endpoint),
            account: account(asked.account)?,
            text: given(asked.search),
        };
        let found = stored(notifications.deliveries(&filter, cut.offset, cut.limit)).await?;
        let counted = found.counts.iter().filter(|(status, _)| filter.status.is_none_or(|s| s == *status));
        let total: u64 = counted.map(|(_, n)| n).sum();
        let counts: Map<String, Value> =
            found.counts.iter().map(|(status, n)| (status.as_str().to_owned(), json!(n))).collect();
        Ok(
            json!({ "deliveries": found.deliveries, "counts": counts, "total": total, "page": cut.page, "limit": cut.limit }),
        )
    };
    Answer(found.await)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct WhichAlerts {
    firing: Option<bool>,
    account: Option<String>,
    /// Which page, from 1.
    #[param(minimum = 1, maximum = 1_000_000)]
    page: Option<usize>,
    /// How many a page; 50 when absent.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
}

/// What was raised and resolved, newest first; with `firing=true` what fires.
#[utoipa::path(get, path = "/api/alerts", tag = "reads",
    params(WhichAlerts),
    responses(
        (status = 200, description = "`events`, or `firing` with `total` and whether there are `more`; `page`, `limit`", body = Object)))]
async fn alerts(State(page): State<Page>, asked: Asked<WhichAlerts>) -> Answer {
    let found = async {
        let asked = read(asked)?;
        let cut = cut(asked.page, asked.limit)?;
        let only = account(asked.account)?;
        let store = &page.parts.store;
        if asked.firing != Some(true) {
            let events = stored(store.alert_states.events(only.as_ref(), cut.offset, cut.limit)).await?;
            return Ok(json!({ "events": events, "page": cut.page, "limit": cut.limit }));
        }
        let rules = stored(store.rules.list()).await?;
        let firing = stored(store.alert_states.firing(MAX_FIRING)).await?;
        let all: Vec<_> =
            firing.iter().filter(|state| only.as_ref().is_none_or(|a| *a == state.account)).collect();
        let shown: Vec<Value> = all
            .iter()
            .skip(cut.offset)
            .take(cut.limit)
            .map(|state| {
                let rule = rules.iter().find(|rule| rule.id == state.rule);
                let mut value = json!(state);
                value["rule_name"] = json!(rule.map(|rule| &rule.name));
                value["severity"] = json!(rule.map(|rule| rule.severity));
                value
            })
            .collect();
        Ok(json!({ "firing": shown, "total": all.len(), "more": firing.len() >= MAX_FIRING,
            "page": cut.page, "limit": cut.limit }))
    };
    Answer(found.await)
}

#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct WhichEntries {
    search: Option<String>,
    /// Which page, from 1.
    #[param(minimum = 1, maximum = 1_000_000)]
    page: Option<usize>,
    /// How many a page; 50 when absent.
    #[param(minimum = 1, maximum = 500)]
    limit: Option<usize>,
}

/// What operators did, newest first.
#[utoipa::path(get, path = "/api/audit", tag = "reads",
    params(WhichEntries),
    responses(
        (status = 200, description = "`entries`, `page`, `limit`", body = Object)))]
async fn audit(State(page): State<Page>, asked: Asked<WhichEntries>) -> Answer {
    let found = async {
        let asked = read(asked)?;
        let cut = cut(asked.page, asked.limit)?;
        let search = given(asked.search);
        let entries = stored(page.parts.store.audit.list(search.as_deref(), cut.offset, cut.limit)).await?;
        Ok(json!({ "entries": entries, "page": cut.page, "limit": cut.limit }))
    };
    Answer(found.await)
}

/// What the system does now.
#[utoipa::path(get, path = "/api/status", tag = "reads",
    responses(
        (status = 200, description = "the dispatcher, `queues` by state, messages, workers, dead letters, what fires; `away`: what does not answer", body = Object)))]
async fn status(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    asked: Asked<Nothing>,
) -> Answer {
    if let Err(problem) = read(asked) {
        return Answer(Err(problem));
    }
    let snapshot = page.snapshot().await;
    let dispatcher = snapshot.dispatcher.as_ref().ok();
    let (ready, unacked) = snapshot.backlog().unzip();
    Answer(Ok(json!({
        "at": snapshot.at,
        "version": page.parts.version,
        "role": visitor.role.as_str(),
        "dispatcher": dispatcher.map(|d| &d.dispatcher),
        "queues": dispatcher.map(|d| &d.counts),
        "ready": ready,
        "unacked": unacked,
        "workers": snapshot.workers,
        "dead_letters": snapshot.dead_total(),
        "firing": snapshot.firing.as_ref().ok().map(|firing| firing.len()),
        "rules": snapshot.rules.len(),
        "accepted_per_second": snapshot.accepted_rate,
        "away": notices(&snapshot),
    })))
}
