//! Events in.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use galerna_http::{ApiError, ErrorBody, JsonBody};
use galerna_spouts::IntakeError;
use serde::{Deserialize, Serialize};
use tokio::time::timeout;
use utoipa::ToSchema;

use super::{Api, refused};
use crate::event::{Event, PostedEvent};
use crate::store::Recorded;
use crate::topology::Arrival;

/// Most events of one call.
const MOST: usize = 1_000;
/// So long a caller waits for its events to be stored.
const PATIENCE: Duration = Duration::from_secs(30);

/// Events to keep, in the order in which they happened.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct PostedEvents {
    /// 1 to 1,000 of them.
    #[schema(min_items = 1, max_items = 1000)]
    events: Vec<PostedEvent>,
}

/// What became of the events of a call.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Kept {
    /// So many are new and stored.
    new: usize,
    /// So many were known before, or say nothing new, as most heartbeats.
    known: usize,
    /// The positions, from 0, of those that say the opposite of another event of their line and time, which stays. They are not
    /// stored.
    conflicting: Vec<usize>,
}

/// Keeps events of lines. When this answers 2xx, they are stored, with the downtimes and notices that come of them; when it does not
/// answer, or answers 503, post the same again: an event is known by its line and time.
#[utoipa::path(post, path = "/api/v1/events", request_body = PostedEvents, responses(
    (status = 200, description = "all were known before", body = Kept),
    (status = 201, description = "they are stored", body = Kept),
    (status = 400, description = "`malformed_json`", body = ErrorBody),
    (status = 409, description = "`conflicting`: some say the opposite of a stored event; all others are stored. The body has the fields of `Kept` too", body = ErrorBody),
    (status = 413, description = "`body_too_large`", body = ErrorBody),
    (status = 422, description = "`invalid`, `wrong_shape`: one is wrong, and none was stored", body = ErrorBody),
    (status = 503, description = "`unavailable`: it is not known whether they are stored; post them again", body = ErrorBody),
))]
pub(super) async fn post_events(
    State(api): State<Api>,
    JsonBody(posted): JsonBody<PostedEvents>,
) -> Result<(StatusCode, Json<Kept>), ApiError> {
    if posted.events.is_empty() || posted.events.len() > MOST {
        return Err(refused("events", format!("{} events; send 1 to {MOST}", posted.events.len())));
    }
    let now = api.clock.now();
    let check = |(index, event): (usize, PostedEvent)| {
        event.check(now).map_err(|bad| refused(&format!("events[{index}].{}", bad.field), bad.reason))
    };
    let events: Vec<Event> = posted.events.into_iter().enumerate().map(check).collect::<Result<_, _>>()?;
    let arrivals: Vec<Arrival> = events.into_iter().map(Arrival::new).collect();
    let outcomes: Vec<_> = arrivals.iter().map(|arrival| arrival.outcome.clone()).collect();
    match timeout(PATIENCE, api.intake.submit(arrivals)).await {
        Ok(Ok(())) => {}
        Ok(Err(IntakeError::Full)) => {
            return Err(unavailable("too many events wait to be stored; post them again later"));
        }
        Ok(Err(cause)) => {
            tracing::warn!(%cause, "events could not be stored");
            return Err(unavailable("it is not known whether the events are stored; post them again"));
        }
        Err(_) => {
            return Err(unavailable("the events were not stored in time, and may be still; post them again"));
        }
    }
    let mut kept = Kept { new: 0, known: 0, conflicting: Vec::new() };
    for (index, outcome) in outcomes.iter().enumerate() {
        match outcome.get() {
            Some(Recorded::New) => kept.new += 1,
            Some(Recorded::Known) | None => kept.known += 1,
            Some(Recorded::Conflict) => kept.conflicting.push(index),
        }
    }
    if !kept.conflicting.is_empty() {
        let message = "some events say the opposite of another one of their line and time; that one stays";
        return Err(ApiError::new(StatusCode::CONFLICT, "conflicting", message)
            .with("new", kept.new.into())
            .with("known", kept.known.into())
            .with("conflicting", kept.conflicting.into()));
    }
    Ok((if kept.new > 0 { StatusCode::CREATED } else { StatusCode::OK }, Json(kept)))
}

fn unavailable(message: &str) -> ApiError {
    ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message).retry_after(Duration::from_secs(1))
}
