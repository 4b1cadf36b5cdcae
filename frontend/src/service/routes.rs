//! Every route, once: the router and the OpenAPI document are built from this list.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use axum::Json;
use axum::extract::{ConnectInfo, Extension, Request, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use galerna_http::{ApiError, ErrorDetail, Params};
use galerna_model::{AccountId, SourceId};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::RequestId;
use crate::answer::Accepted;
use crate::body::{self, BufferedBody};
use crate::budget::Client;
use crate::call_error::{CallError, ErrorBody};
use crate::frontend::{Frontend, Readiness, UNAUTHENTICATED_BODY};
use crate::options::Limits;
use crate::statistics::Traffic;
use crate::{legacy_form, parse};
use galerna_storage::{LastMessage, Scope};

pub(super) fn all() -> OpenApiRouter<Frontend> {
    OpenApiRouter::new()
        .routes(routes!(readings))
        .routes(routes!(insert_json))
        .routes(routes!(readyz))
        .routes(routes!(metrics))
        .routes(routes!(statistics))
        .routes(routes!(refresh))
}

const KEY: &str = "source_key";
const TOKEN: &str = "x-dexcell-source-token";
/// Bodies longer than this are read on a thread of their own, so that they hold up nobody.
const LONG_BODY: usize = 128 << 10;

/// Who a call says that it is from.
#[derive(Default)]
struct Credentials<'a> {
    key: Option<Cow<'a, str>>,
    token: Option<Cow<'a, str>>,
}

impl<'a> Credentials<'a> {
    /// From the query and the header. What is given twice must be the same.
    fn of(uri: &'a Uri, headers: &'a HeaderMap) -> Result<Self, CallError> {
        fn once<'a>(place: &mut Option<Cow<'a, str>>, value: Cow<'a, str>) -> Result<(), CallError> {
            match place {
                Some(other) if *other != value => Err(CallError::Unauthorized),
                _ => {
                    *place = Some(value);
                    Ok(())
                }
            }
        }
        let mut credentials = Self::default();
        for (name, value) in form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes()) {
            match &*name {
                KEY => once(&mut credentials.key, value)?,
                TOKEN => once(&mut credentials.token, value)?,
                _ => {}
            }
        }
        for value in headers.get_all(TOKEN) {
            let value = value.to_str().map_err(|_| CallError::Unauthorized)?;
            once(&mut credentials.token, value.into())?;
        }
        Ok(credentials)
    }
}

/// Takes one reading or an array of readings.
#[utoipa::path(post, path = "/readings",
    params(
        ("source_key" = String, Query, description = "the source"),
        ("x-dexcell-source-token" = Option<String>, Query, description = "its token, unless it is in the header of the same name")),
    request_body(content = Object, description = "one reading or an array of readings; Content-Encoding gzip, zstd or none",
        example = json!({"did": "12a", "values": [{"p": 401, "v": 4900.0}], "sqn": 2152, "ts": "2015-04-21T23:15:00+00:00"})),
    responses(
        (status = 202, description = "the accepted readings are safe", body = Accepted),
        (status = 400, description = "malformed, empty, cut off, or no reading can be taken", body = ErrorBody),
        (status = 401, description = "wrong token or unknown source", body = ErrorBody),
        (status = 408, description = "the body came too slowly", body = ErrorBody),
        (status = 413, description = "too long or too many readings", body = ErrorBody),
        (status = 415, description = "encoding not taken", body = ErrorBody),
        (status = 429, description = "the source sends too much; see Retry-After", body = ErrorBody),
        (status = 503, description = "not safe, send again; see Retry-After", body = ErrorBody)))]
async fn readings(
    State(frontend): State<Frontend>,
    Extension(RequestId(id)): Extension<RequestId>,
    request: Request,
) -> Response {
    accept_readings(&frontend, id, request).await.map(accepted).into_response()
}

fn accepted(answer: Accepted) -> Response {
    (StatusCode::ACCEPTED, Json(answer)).into_response()
}

async fn accept_readings(frontend: &Frontend, id: String, request: Request) -> Result<Accepted, CallError> {
    let core = frontend.core();
    let (head, body) = request.into_parts();
    let admit = || {
        let credentials = Credentials::of(&head.uri, &head.headers)?;
        let source = core.sources.authenticate(credentials.key.as_deref(), credentials.token.as_deref())?;
        core.admission.call(&source.id)?;
        let share = core.budget.call(Client::Source(source.id.clone()))?;
        Ok((source, share))
    };
    let (source, share) = match admit() {
        Ok(source) => source,
        Err(error) => {
            body::discard(body).await;
            return Err(error);
        }
    };
    let (limits, timeouts) = (&core.options.limits, &core.options.timeouts);
    let held = body::read(body, &head.headers, limits, timeouts, share).await?;
    let read = read_with(held, limits, parse::readings).await;
    let (held, parsed) = read.inspect_err(|error| core.metrics.refused(error))?;
    let excerpt = core.statistics.excerpt(&held.bytes);
    core.accept(source, id, parsed, excerpt, held.into_share()).await
}

/// Runs a parser, for long bodies on a thread of its own.
async fn read_with<T: Send + 'static>(
    held: BufferedBody,
    limits: &Limits,
    parser: impl FnOnce(&[u8], &Limits) -> Result<T, CallError> + Send + 'static,
) -> Result<(BufferedBody, T), CallError> {
    if held.bytes.len() <= LONG_BODY {
        let parsed = parser(&held.bytes, limits)?;
        return Ok((held, parsed));
    }
    let limits = limits.clone();
    let parsing = tokio::task::spawn_blocking(move || {
        let parsed = parser(&held.bytes, &limits)?;
        Ok((held, parsed))
    });
    parsing.await.unwrap_or_else(|e| {
        tracing::error!(error = %e, "a body could not be read");
        Err(CallError::Malformed("the body cannot be read".to_owned()))
    })
}

/// Takes the form of old concentrators. Without `source_key` the body's `gatewayId` says who sends, and the body may have
/// 512 KiB at most.
#[utoipa::path(post, path = "/insert-json.htm",
    params(
        ("source_key" = Option<String>, Query, description = "the source; the body's `gatewayId` when it is left out"),
        ("x-dexcell-source-token" = Option<String>, Query, description = "its token, unless it is in the header of the same name")),
    request_body(content = String, content_type = "application/x-www-form-urlencoded",
        description = "a form whose field `data` holds {\"gatewayId\", \"service\": [{\"nodeNetworkId\", \"serviceNetworkId\", \"value\", \"seqNum\", \"timeStamp\"}]}"),
    responses(
        (status = 202, description = "the accepted services are safe", body = Accepted),
        (status = "default", description = "as for /readings", body = ErrorBody)))]
async fn insert_json(
    State(frontend): State<Frontend>,
    Extension(RequestId(id)): Extension<RequestId>,
    request: Request,
) -> Response {
    accept_services(&frontend, id, request).await.map(accepted).into_response()
}

async fn accept_services(frontend: &Frontend, id: String, request: Request) -> Result<Accepted, CallError> {
    let core = frontend.core();
    let (head, body) = request.into_parts();
    let admit = || {
        let credentials = Credentials::of(&head.uri, &head.headers)?;
        let (key, token) = (credentials.key.as_deref(), credentials.token.as_deref());
        // Without `source_key` the body will say who sends; but nobody without a token has a body read.
        let known = match key {
            None if token.is_some_and(|token| !token.is_empty()) => None,
            key => Some(core.sources.authenticate(key, token)?),
        };
        let share = match &known {
            Some(known) => {
                core.admission.call(&known.id)?;
                core.budget.call(Client::Source(known.id.clone()))?
            }
            None => {
                let peer = head.extensions.get::<ConnectInfo<SocketAddr>>().map(|peer| peer.0.ip());
                core.unauthenticated_budget.call(Client::address(peer))?
            }
        };
        Ok((known, credentials.token, share))
    };
    let (known, token, share) = match admit() {
        Ok(admit) => admit,
        Err(error) => {
            body::discard(body).await;
            return Err(error);
        }
    };
    let timeouts = &core.options.timeouts;
    let mut limits = core.options.limits.clone();
    if known.is_none() {
        limits.body_bytes = limits.body_bytes.min(UNAUTHENTICATED_BODY);
    }
    let held = body::read(body, &head.headers, &limits, timeouts, share).await?;
    let (mut held, read) = read_with(held, &limits, legacy_form::services).await?;
    let source = match known {
        Some(known) => {
            if read.gateway.as_deref().is_some_and(|gateway| gateway != known.id.as_str()) {
                let message = "`gatewayId` in the body is not the source that `source_key` names";
                return Err(CallError::Malformed(message.to_owned()));
            }
            known
        }
        None => {
            let known = core.sources.authenticate(read.gateway.as_deref(), token.as_deref())?;
            core.admission.call(&known.id)?;
            held.charge_to(core.budget.call(Client::Source(known.id.clone()))?)?;
            known
        }
    };
    let parsed = read.parsed.with_anything().inspect_err(|error| core.metrics.refused(error))?;
    let excerpt = core.statistics.excerpt(&held.bytes);
    core.accept(source, id, parsed, excerpt, held.into_share()).await
}

/// Details of a frontend that is not ready, with the reason in the form of errors.
#[derive(Serialize, ToSchema)]
struct Unreadiness {
    error: ErrorDetail,
    #[serde(flatten)]
    readiness: Readiness,
}

/// Whether it is worth sending calls here.
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, description = "it is; details may still tell of a refresh that was not taken", body = Readiness),
    (status = 503, description = "it is not, and why: `draining`, `broker_blocked`, `broker_away` or `sources_unknown`", body = Unreadiness)))]
async fn readyz(State(frontend): State<Frontend>) -> Response {
    let (readiness, unready) = frontend.core().readiness();
    galerna_http::readiness(&readiness, unready)
}

/// Prometheus text.
#[utoipa::path(get, path = "/metrics", responses(
    (status = 200, description = "text exposition format 0.0.4", body = String, content_type = "text/plain")))]
async fn metrics(State(frontend): State<Frontend>, from: From, headers: HeaderMap) -> Response {
    let allowed = frontend.core().operators.check(&headers, address(from));
    allowed.map(|()| galerna_http::metrics::answer(frontend.registry())).into_response()
}

/// Where a call came from, if the listener tells.
type From = Option<Extension<ConnectInfo<SocketAddr>>>;

fn address(from: From) -> Option<IpAddr> {
    from.map(|Extension(from)| from.0.ip())
}

/// What somebody has sent.
#[derive(Debug, Serialize, ToSchema)]
struct StatisticsAnswer {
    /// Messages, readings and values by hour, day, week and month.
    traffic: Traffic,
    /// For one source: its last messages, newest first.
    #[serde(skip_serializing_if = "Option::is_none")]
    last_messages: Option<Vec<LastMessage>>,
}

/// Traffic of all, of an account or of a source.
#[utoipa::path(get, path = "/statistics",
    params(StatisticsQuery),
    responses(
        (status = 200, description = "counts of the current period, the last and the last but one", body = StatisticsAnswer),
        (status = 400, description = "no such name can be", body = ErrorBody),
        (status = 422, description = "`invalid_query`", body = ErrorBody),
        (status = 404, description = "there is no operator token, so this is not served", body = ErrorBody),
        (status = 503, description = "the store is unavailable", body = ErrorBody)))]
async fn statistics(
    State(frontend): State<Frontend>,
    from: From,
    headers: HeaderMap,
    Params(query): Params<StatisticsQuery>,
) -> Result<Json<StatisticsAnswer>, ApiError> {
    require_operator(&frontend, from, &headers)?;
    Ok(Json(read_statistics(&frontend, query).await?))
}

/// Whose statistics.
#[derive(Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct StatisticsQuery {
    /// Of this account.
    #[param(
        min_length = 1,
        max_length = 120,
        pattern = "^(?!\\.{1,2}$)[^\\s/\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\u2800\\u3164\\ue000-\\uf8ff\\ufdd0-\\ufdef\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff9-\\uffff\u{13430}-\u{1343f}\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}\u{f0000}-\u{10ffff}]+$"
    )]
    account: Option<String>,
    /// Of this source, with its last messages.
    #[param(
        min_length = 1,
        max_length = 120,
        pattern = "^(?!\\.{1,2}$)[^\\s/\\u0000-\\u001f\\u007f-\\u009f\\u00ad\\u034f\\u061c\\u115f\\u1160\\u17b4\\u17b5\\u180b-\\u180f\\u200b-\\u200f\\u202a-\\u202e\\u2060-\\u206f\\u2800\\u3164\\ue000-\\uf8ff\\ufdd0-\\ufdef\\ufe00-\\ufe0f\\ufeff\\uffa0\\ufff9-\\uffff\u{13430}-\u{1343f}\u{1bca0}-\u{1bca3}\u{1d173}-\u{1d17a}\u{e0000}-\u{e0fff}\u{f0000}-\u{10ffff}]+$"
    )]
    source: Option<String>,
}

/// Shows what customers sent, and changes what is believed: never without a token.
fn require_operator(frontend: &Frontend, from: From, headers: &HeaderMap) -> Result<(), ApiError> {
    let operators = &frontend.core().operators;
    if operators.is_open() {
        let message = "this is served only when an operator token is set";
        return Err(ApiError::new(StatusCode::NOT_FOUND, "not_found", message));
    }
    operators.check(headers, address(from))
}

async fn read_statistics(frontend: &Frontend, query: StatisticsQuery) -> Result<StatisticsAnswer, CallError> {
    let wrong = |e: galerna_model::NameError| CallError::Malformed(e.to_string());
    let scope = match (query.account, query.source) {
        (None, None) => Scope::All,
        (_, Some(source)) => Scope::Source(SourceId::new(source).map_err(wrong)?),
        (Some(account), None) => Scope::Account(AccountId::new(account).map_err(wrong)?),
    };
    let unavailable = |e: galerna_storage::StorageError| CallError::Statistics(e.to_string());
    let statistics = frontend.statistics();
    let last_messages = match &scope {
        Scope::Source(source) => Some(statistics.last_messages(source).await.map_err(unavailable)?),
        _ => None,
    };
    let traffic = statistics.traffic(&[scope]).await.map_err(unavailable)?;
    Ok(StatisticsAnswer { traffic: traffic.into_iter().next().unwrap_or_default(), last_messages })
}

/// What a refresh did.
#[derive(Debug, Serialize, ToSchema)]
struct RefreshAnswer {
    /// Sources known now.
    sources: usize,
    /// Entries that could not be used.
    issues: usize,
}

/// Reads the lists of accounts and sources now.
#[utoipa::path(post, path = "/sources/refresh",
    params(("force" = Option<bool>, Query, description = "believe a list that lost much")),
    responses(
        (status = 200, description = "the new list is in force", body = RefreshAnswer),
        (status = 422, description = "`invalid_query`", body = ErrorBody),
        (status = 404, description = "there is no operator token, so this is not served", body = ErrorBody),
        (status = 503, description = "the list was not taken, and why", body = ErrorBody)))]
async fn refresh(
    State(frontend): State<Frontend>,
    from: From,
    headers: HeaderMap,
    Params(query): Params<RefreshQuery>,
) -> Result<Json<RefreshAnswer>, ApiError> {
    require_operator(&frontend, from, &headers)?;
    let refreshed = frontend.refresh_sources(query.force).await;
    let r = refreshed.map_err(|e| CallError::Refresh(e.to_string()))?;
    Ok(Json(RefreshAnswer { sources: r.sources, issues: r.issues }))
}

/// How the lists are read.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RefreshQuery {
    #[serde(default)]
    force: bool,
}
