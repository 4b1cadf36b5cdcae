//! Lines, downtimes, deliveries.

use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use galerna_http::{ApiError, ErrorBody, Params};
use galerna_model::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Api, failed, not_found, refused};
use crate::event::{Cause, LineState};
use crate::line::{Downtime, Line, NoticeKind};
use crate::store::{Delivery, DeliveryStatus, DowntimeQuery, Recipient};

/// Most entries of one answer.
const MOST: usize = 1_000;

/// A line as it is shown.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct LineBody {
    /// Its name.
    name: String,
    /// Whether it produces.
    state: LineState,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// If it is down, how that is known.
    cause: Option<Cause>,
    /// When it was last heard of.
    #[schema(value_type = String, format = DateTime)]
    last_heard: Timestamp,
    /// The state that was last told to the lists.
    told: LineState,
    /// Changes that did not last, of which nobody was told.
    held: i64,
}

impl From<Line> for LineBody {
    fn from(line: Line) -> Self {
        let Line { name, state, since, cause, heard, told, held, .. } = line;
        let cause = (state == LineState::Down).then_some(cause);
        Self { name, state, since, cause, last_heard: heard, told, held }
    }
}

/// All lines, by name.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Lines {
    /// The lines.
    lines: Vec<LineBody>,
}

/// All lines.
#[utoipa::path(get, path = "/api/v1/lines", responses((status = 200, description = "the lines", body = Lines)))]
pub(super) async fn get_lines(State(api): State<Api>) -> Result<Json<Lines>, ApiError> {
    let lines = api.store.lines().await.map_err(failed)?;
    Ok(Json(Lines { lines: lines.into_iter().map(Into::into).collect() }))
}

/// One line.
#[utoipa::path(get, path = "/api/v1/lines/{line}", params(("line" = String, Path)), responses(
    (status = 200, description = "the line", body = LineBody),
    (status = 404, description = "`not_found`: nothing was heard of it", body = ErrorBody),
))]
pub(super) async fn get_line(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Json<LineBody>, ApiError> {
    let line = api.store.line(&name).await.map_err(failed)?;
    line.map(|line| Json(line.into())).ok_or_else(|| not_found("line", &name))
}

/// Which downtimes.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct DowntimeParams {
    /// Of this line; of all unless given.
    line: Option<String>,
    /// Those that had not ended by then, RFC 3339.
    #[param(value_type = Option<String>, format = DateTime)]
    from: Option<String>,
    /// Those that began before, RFC 3339.
    #[param(value_type = Option<String>, format = DateTime)]
    to: Option<String>,
    /// Those after this one: `next` of the answer before.
    after: Option<String>,
    /// So many at most: 1 to 1,000, 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// A downtime as it is shown.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DowntimeBody {
    #[serde(flatten)]
    downtime: Downtime,
    /// How long it lasted, in milliseconds; `null` while it lasts.
    duration_ms: Option<i64>,
}

/// Some downtimes, in the order of their starts.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Downtimes {
    /// The downtimes.
    downtimes: Vec<DowntimeBody>,
    /// What to ask with as `after` for more; `null` when these were the last.
    next: Option<String>,
}

fn time(field: &str, text: Option<String>) -> Result<Option<Timestamp>, ApiError> {
    text.map(|text| Timestamp::parse(&text).map_err(|why| refused(field, why))).transpose()
}

fn limit(limit: Option<usize>) -> Result<usize, ApiError> {
    match limit.unwrap_or(100) {
        limit if (1..=MOST).contains(&limit) => Ok(limit),
        other => Err(refused("limit", format!("{other} is not between 1 and {MOST}"))),
    }
}

/// Downtimes by line and time.
#[utoipa::path(get, path = "/api/v1/downtimes", params(DowntimeParams), responses(
    (status = 200, description = "the downtimes", body = Downtimes),
    (status = 422, description = "`invalid`, `invalid_query`", body = ErrorBody),
))]
pub(super) async fn get_downtimes(
    State(api): State<Api>,
    Params(params): Params<DowntimeParams>,
) -> Result<Json<Downtimes>, ApiError> {
    let limit = limit(params.limit)?;
    let after = params.after.map(|after| {
        let (at, line) = after.split_once('/')?;
        Some((Timestamp(at.parse().ok()?), line.to_owned()))
    });
    let after = match after {
        Some(None) => return Err(refused("after", "write what `next` of an answer said")),
        Some(Some(after)) => Some(after),
        None => None,
    };
    let (from, to) = (time("from", params.from)?, time("to", params.to)?);
    // One more tells whether there are more.
    let query = DowntimeQuery { line: params.line, from, to, after, limit: limit + 1 };
    let mut found = api.store.downtimes(&query).await.map_err(failed)?;
    let more = found.len() > limit;
    found.truncate(limit);
    let next = found.last().filter(|_| more).map(|last| format!("{}/{}", last.start.as_millis(), last.line));
    let body = |downtime: Downtime| {
        let duration_ms = downtime.end.map(|end| end.millis_since(downtime.start));
        DowntimeBody { downtime, duration_ms }
    };
    Ok(Json(Downtimes { downtimes: found.into_iter().map(body).collect(), next }))
}

/// Which deliveries.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub(super) struct DeliveryParams {
    /// With this status; all unless given.
    status: Option<DeliveryStatus>,
    /// So many at most: 1 to 1,000, 100 unless given.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
}

/// A delivery as it is shown.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeliveryBody {
    /// The same over all attempts: what its receiver knows it by.
    id: String,
    /// The line.
    line: String,
    /// What is told.
    kind: NoticeKind,
    /// When it went down or was restored.
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
    /// To whom.
    to: Recipient,
    /// Where it stands.
    status: DeliveryStatus,
    /// Why it is dead.
    reason: Option<String>,
}

/// Deliveries, the newest notices first.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Deliveries {
    /// The deliveries.
    deliveries: Vec<DeliveryBody>,
}

/// What was told to whom, and what could not be (`?status=dead`).
#[utoipa::path(get, path = "/api/v1/deliveries", params(DeliveryParams), responses(
    (status = 200, description = "the deliveries", body = Deliveries),
    (status = 422, description = "`invalid`, `invalid_query`", body = ErrorBody),
))]
pub(super) async fn get_deliveries(
    State(api): State<Api>,
    Params(params): Params<DeliveryParams>,
) -> Result<Json<Deliveries>, ApiError> {
    let found = api.store.deliveries(params.status, limit(params.limit)?).await.map_err(failed)?;
    let body = |Delivery { id, what, recipient, status, reason }: Delivery| DeliveryBody {
        id,
        line: what.line,
        kind: what.kind,
        at: what.at,
        to: recipient,
        status,
        reason,
    };
    Ok(Json(Deliveries { deliveries: found.into_iter().map(body).collect() }))
}

/// Sends a dead delivery again, under its id.
#[utoipa::path(post, path = "/api/v1/deliveries/{id}/resend", params(("id" = String, Path)), responses(
    (status = 202, description = "it is to be sent"),
    (status = 404, description = "`not_found`: there is none with this id that is dead", body = ErrorBody),
))]
pub(super) async fn resend_delivery(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    match api.store.resend(&id).await.map_err(failed)? {
        true => Ok(StatusCode::ACCEPTED),
        false => Err(not_found("dead delivery", &id)),
    }
}
