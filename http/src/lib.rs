//! What all HTTP services of the product have in common, so that each is a list of routes and nothing else.
//!
//! - [`serve_until`] listens: bounds on connections in all and per address, time limits on heads and idle connections, all
//!   before any token is looked at; and an end that loses no call.
//! - [`Guard`] asks for a bearer token and slows down who guesses; [`ApiError`] is the one form of errors.
//! - [`JsonBody`] and [`Params`] read what is sent, with the same checks on every route.
//! - [`browser`] is for pages: what other sites may not have a browser do.
//! - [`readiness`] and [`metrics`] answer whoever watches the process.
//! - [`openapi`] serves the description of the routes, made from the same list as the router, and `/healthz`.
//!
//! ```no_run
//! use axum::http::StatusCode;
//! use galerna_http::{ApiError, Guard, ServeOptions, openapi, serve_until};
//! use utoipa_axum::router::OpenApiRouter;
//! use utoipa_axum::routes;
//!
//! /// What the weather is.
//! #[utoipa::path(get, path = "/weather", responses((status = 200, description = "it is known", body = String)))]
//! async fn weather() -> Result<String, ApiError> {
//!     Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", "the thermometer does not answer; try again"))
//! }
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let guard = Guard::new(Some("a long secret"));
//! let (router, _) = openapi::served(OpenApiRouter::new().routes(routes!(weather)), |_| {});
//! let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
//! let stop = async { drop(tokio::signal::ctrl_c().await) };
//! serve_until(listener, guard.protect(router, &["/healthz"]), ServeOptions::new("weather API"), stop).await?;
//! # Ok(())
//! # }
//! ```
//!
//! # Invariants and boundaries
//!
//! - Whatever is sent, a listener holds no more connections than it may; who sends no request gives way to who does.
//! - A token is compared in a time that tells nothing of it, and is in no log and no error.
//! - It knows no module of the product: it must not depend on queues, stores or brokers.

mod address;
mod api_error;
mod bearer;
mod body;
pub mod browser;
mod connections;
mod health;
pub mod metrics;
pub mod openapi;
#[cfg(target_os = "linux")]
mod process;
mod serve;
mod throttle;

pub use address::network;
pub use api_error::{ApiError, ErrorBody, ErrorDetail, method_not_allowed, no_route};
pub use bearer::{Exposed, Guard, Secret, bearer, check_exposure};
pub use body::{JsonBody, Params, parse_json};
pub use health::{Unready, readiness};
pub use process::ProcessUsage;
pub use serve::{ServeError, ServeOptions, serve_until};
pub use throttle::Throttle;
