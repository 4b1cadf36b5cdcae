//! The dispatcher's REST API.

mod body;
mod error;
mod openapi;
mod routes;

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::serve::ListenerExt;
use tokio::net::TcpListener;

pub(crate) use self::body::{
    HintBody, LeasesBody, NextBody, PauseBody, ReleaseBody, RenewBody, StrategyBody,
};
use self::error::ApiError;
pub(crate) use self::error::ErrorBody;
pub(crate) use self::routes::{HintAnswer, Running, StrategyAnswer};
use crate::dispatcher::Dispatcher;

/// The longest body: some ten thousand names in a hint.
const BODY_LIMIT: usize = 1024 * 1024;

/// How the API is served.
#[derive(Debug, Clone, Default)]
pub struct ServiceOptions {
    /// Demand `Authorization: Bearer <token>` of every call but `/healthz` and `/readyz`. Needed when the listener is
    /// not on loopback.
    pub token: Option<String>,
}

/// Serving that cannot start or that failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The listener is open to others and there is no token.
    #[error("dispatcher API on {0} needs a token; set one or listen on loopback")]
    TokenNeeded(SocketAddr),
    /// The listener failed.
    #[error("dispatcher API cannot be served: {0}")]
    Io(#[from] std::io::Error),
}

/// All routes of the API, for a listener or to be nested in another service.
pub fn router(dispatcher: Dispatcher, options: &ServiceOptions) -> Router {
    let mut router = Router::new();
    for route in routes::all() {
        router = router.route(route.path, route.handler);
    }
    let token: Option<Arc<str>> = options.token.as_deref().map(Arc::from);
    router
        .method_not_allowed_fallback(error::method_not_allowed)
        .fallback(error::no_route)
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .layer(middleware::from_fn_with_state(token, authorise))
        .with_state(dispatcher)
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
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() && options.token.as_deref().is_none_or(str::is_empty) {
        return Err(ServeError::TokenNeeded(address));
    }
    tracing::info!(%address, "dispatcher API listens");
    let app = router(dispatcher.clone(), &options);
    // Answers are small and waited for: none is to wait for a delayed acknowledgement.
    let listener = listener.tap_io(|stream| {
        if let Err(cause) = stream.set_nodelay(true) {
            tracing::debug!(%cause, "TCP_NODELAY cannot be set");
        }
    });
    let (ending, ended) = tokio::sync::oneshot::channel::<()>();
    let draining = dispatcher.clone();
    let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
        shutdown.await;
        // Those who wait for a queue are sent home, so that they do not hold up the end.
        draining.shutdown().await;
        drop(ending);
    });
    let patience = dispatcher.timing().request_timeout;
    tokio::select! {
        served = async { serving.await } => served?,
        () = async {
            drop(ended.await);
            tokio::time::sleep(patience).await;
        } => tracing::warn!("some callers did not hang up in time"),
    }
    Ok(())
}

async fn authorise(State(token): State<Option<Arc<str>>>, request: Request, next: Next) -> Response {
    if let Some(token) = token
        && !matches!(request.uri().path(), "/healthz" | "/readyz")
    {
        let given = request
            .headers()
            .get(header::AUTHORIZATION)
            .and_then(|v| v.to_str().ok())
            .and_then(bearer)
            .unwrap_or_default();
        if !same(given.as_bytes(), token.as_bytes()) {
            let message = "send `Authorization: Bearer <token>` with the dispatcher's token";
            let mut answer = ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", message).into_response();
            answer.headers_mut().insert(header::WWW_AUTHENTICATE, header::HeaderValue::from_static("Bearer"));
            return answer;
        }
    }
    next.run(request).await
}

/// The token of credentials whose scheme is `Bearer`, in whatever case (RFC 9110, section 11.1).
fn bearer(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

/// Compares in a time that depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> bool {
    a.len() == b.len() && a.iter().zip(b).fold(0, |difference, (x, y)| difference | (x ^ y)) == 0
}
