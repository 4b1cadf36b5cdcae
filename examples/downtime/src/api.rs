//! The routes and the page.

mod events;
mod lines;
mod lists;
mod page;

use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use galerna_http::ApiError;
use galerna_model::Clock;
use galerna_spouts::Intake;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::lists::Lists;
use crate::store::{DowntimeStore, StoreError};
use crate::topology::Arrival;

/// What the routes answer from.
#[derive(Clone)]
pub struct Api {
    /// Lines, downtimes, deliveries.
    pub store: Arc<dyn DowntimeStore>,
    /// Notification lists.
    pub lists: Arc<dyn Lists>,
    /// Where events go.
    pub intake: Intake<Vec<Arrival>>,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
}

/// All routes, and the page.
pub fn routes(api: Api) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(events::post_events))
        .routes(routes!(lines::get_lines))
        .routes(routes!(lines::get_line))
        .routes(routes!(lines::get_downtimes))
        .routes(routes!(lines::get_deliveries))
        .routes(routes!(lines::resend_delivery))
        .routes(routes!(lists::get_lists, lists::post_list))
        .routes(routes!(lists::get_list, lists::delete_list))
        .routes(routes!(lists::get_contacts, lists::post_contact))
        .routes(routes!(lists::get_contact, lists::delete_contact))
        .merge(page::routes().into())
        .with_state(api)
}

/// How a store's error is answered; the log says more.
fn failed(error: StoreError) -> ApiError {
    tracing::error!(%error, "a call could not be answered");
    if error.passes {
        let message = "the store is not to be had now; try again";
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", message)
            .retry_after(Duration::from_secs(1))
    } else {
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "store_failed", "the store failed; the log says why")
    }
}

/// What a path names and is not there.
fn not_found(what: &str, name: &str) -> ApiError {
    let shown: String = name.chars().take(100).collect();
    ApiError::new(StatusCode::NOT_FOUND, "not_found", format!("there is no {what} `{shown}`"))
}

/// What cannot be taken as it is.
fn refused(field: &str, reason: impl std::fmt::Display) -> ApiError {
    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", format!("{field}: {reason}"))
        .with("field", field.into())
}
