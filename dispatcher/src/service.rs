//! The dispatcher's REST API.

mod body;
mod error;
mod openapi;
mod routes;

use std::future::Future;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use galerna_http::{Guard, ServeError, ServeOptions, check_exposure, serve_until};
use tokio::net::TcpListener;
use utoipa_axum::router::OpenApiRouter;

pub(crate) use self::body::{
    HintBody, LeasesBody, NextBody, PauseBody, ReleaseBody, RenewBody, StrategyBody,
};
pub(crate) use self::routes::{HintAnswer, Running, StrategyAnswer};
use crate::dispatcher::Dispatcher;

/// The longest body: some ten thousand names in a hint.
const BODY_LIMIT: usize = 1024 * 1024;
/// Paths of the API that need no token.
pub const OPEN_PATHS: &[&str] = &["/healthz", "/readyz"];
/// What the API is called in the log.
const SERVICE: &str = "dispatcher API";
/// One in so many of the files that the process may open are connections of this API.
const SHARE_OF_FILES: usize = 8;

/// How the API is served.
#[derive(Debug, Clone, Default)]
pub struct ServiceOptions {
    /// Demand `Authorization: Bearer <token>` of every call but `/healthz` and `/readyz`. Needed when the listener is
    /// not on loopback.
    pub token: Option<String>,
}

/// All routes of the API with their descriptions, without a guard: for a process that serves them with others.
/// [`describe`] adds what they have in common to the description of the whole.
pub fn routes(dispatcher: Dispatcher) -> OpenApiRouter {
    routes::all().layer(DefaultBodyLimit::max(BODY_LIMIT)).with_state(dispatcher)
}

/// Adds the answers that all routes have in common, and what the API is called, to a description.
pub fn describe(description: &mut utoipa::openapi::OpenApi) {
    "Galerna dispatcher".clone_into(&mut description.info.title);
    description.info.description = Some("Leases queues to consumers.".to_owned());
    description.info.version = env!("CARGO_PKG_VERSION").to_owned();
    openapi::describe(description);
}

/// All routes of the API, for a listener or to be nested in another service.
pub fn router(dispatcher: Dispatcher, options: &ServiceOptions) -> Router {
    let (router, _) = galerna_http::openapi::served(routes(dispatcher), describe);
    Guard::new(options.token.as_deref()).protect(router, OPEN_PATHS)
}

/// How a listener of the API works and ends: those who wait for a queue are sent home by [`Dispatcher::shutdown`].
pub fn serve_options(dispatcher: &Dispatcher) -> ServeOptions {
    let drain = dispatcher.timing().request_timeout;
    ServeOptions { drain, ..ServeOptions::new(SERVICE) }.within_files(SHARE_OF_FILES)
}

/// Serves the API until `shutdown` completes; then answers the calls under way and returns.
///
/// # Errors
/// [`ServeError`] when the listener is not on loopback and there is no token, or when it fails.
pub async fn serve(
    listener: TcpListener,
    dispatcher: Dispatcher,
    options: ServiceOptions,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(), ServeError> {
    check_exposure(&listener, &Guard::new(options.token.as_deref()), SERVICE)?;
    let router = router(dispatcher.clone(), &options);
    let serve_options = serve_options(&dispatcher);
    let ended = async move {
        shutdown.await;
        // Those who wait for a queue are sent home, so that they do not hold up the end.
        dispatcher.shutdown().await;
    };
    serve_until(listener, router, serve_options, ended).await
}
