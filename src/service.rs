//! Serving the API of this process: the dispatcher's routes, and beside them what the process adds. What operators ask for is
//! written to the audit log (`service/audit.rs`).

pub(crate) mod audit;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use galerna_dispatcher::{Dispatcher, ServiceOptions};
use galerna_storage::Store;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::config::Config;

/// How long those who look at the page may take to hang up at the end.
const PAGE_PATIENCE: Duration = Duration::from_secs(3);

/// Serves until `shutdown`; then the calls under way are answered and the handle ends.
///
/// # Errors
/// When the listener is open to other machines and there is no token.
pub(crate) fn serve(
    config: &Config,
    listener: TcpListener,
    (dispatcher, store): (Dispatcher, &Store),
    beside: Router,
    shutdown: CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    let address = listener.local_addr()?;
    let token = config.optional("api.token").map(str::to_owned);
    anyhow::ensure!(
        token.is_some() || address.ip().is_loopback(),
        "the API on {address} would be open to other machines; set `api.token`"
    );
    let auditor = audit::Auditor { log: Arc::clone(&store.audit), token: token.as_deref().map(Arc::from) };
    let beside = beside.layer(middleware::from_fn_with_state(auditor.token.clone(), authorise));
    let described = beside.has_routes();
    let app = galerna_dispatcher::router(dispatcher.clone(), &ServiceOptions { token })
        .merge(beside)
        .layer(middleware::from_fn_with_state(described, admin::describe))
        .layer(middleware::from_fn_with_state(auditor, audit::audit));
    let patience = dispatcher.timing().request_timeout;
    tracing::info!(%address, "the API listens");
    Ok(tokio::spawn(async move {
        let ending = shutdown.clone();
        let draining = dispatcher.clone();
        let serving = axum::serve(listener, app).with_graceful_shutdown(async move {
            ending.cancelled().await;
            // Those who wait for a queue are sent home, so that they do not hold up the end.
            draining.shutdown().await;
        });
        tokio::select! {
            ended = async { serving.await } => {
                if let Err(e) = ended {
                    tracing::error!(error = %e, "the API ended");
                }
            }
            () = async {
                shutdown.cancelled().await;
                tokio::time::sleep(patience).await;
            } => tracing::warn!("some callers did not hang up in time"),
        }
    }))
}

/// Serves the page until `shutdown`.
pub(crate) fn serve_page(
    config: &Config,
    listener: TcpListener,
    page: Router,
    shutdown: CancellationToken,
) -> JoinHandle<()> {
    let beyond =
        config.text("page.operator_token").is_empty() && !config.address("page.listen").ip().is_loopback();
    debug_assert!(!beyond, "the configuration refuses this");
    // For whoever watches the process: no token, and nothing told but that it answers.
    let page = page.route("/healthz", get(|| async { "ok\n" })).route("/readyz", get(|| async { "ready\n" }));
    let app = page.into_make_service_with_connect_info::<SocketAddr>();
    if let Ok(address) = listener.local_addr() {
        tracing::info!(%address, "the page listens");
    }
    tokio::spawn(async move {
        let ending = shutdown.clone();
        let serving =
            axum::serve(listener, app).with_graceful_shutdown(async move { ending.cancelled().await });
        tokio::select! {
            ended = async { serving.await } => {
                if let Err(e) = ended {
                    tracing::error!(error = %e, "the page ended");
                }
            }
            () = async {
                shutdown.cancelled().await;
                tokio::time::sleep(PAGE_PATIENCE).await;
            } => {}
        }
    })
}

pub(crate) async fn authorise(
    State(token): State<Option<Arc<str>>>,
    request: Request,
    next: Next,
) -> Response {
    let Some(token) = token else { return next.run(request).await };
    let given = request.headers().get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    let given = given.and_then(bearer).unwrap_or_default();
    if same(token.as_bytes(), given.as_bytes()) {
        return next.run(request).await;
    }
    let message = "send `Authorization: Bearer <token>` with the token of this service";
    (StatusCode::UNAUTHORIZED, Json(json!({"error": {"code": "unauthorized", "message": message}})))
        .into_response()
}

/// The token of credentials whose scheme is `Bearer`, in whatever case (RFC 9110, section 11.1).
pub(crate) fn bearer(credentials: &str) -> Option<&str> {
    let (scheme, token) = credentials.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim_start_matches(' '))
}

/// Whether two byte strings are the same, in a time that does not tell where they differ.
pub(crate) fn same(right: &[u8], given: &[u8]) -> bool {
    let differing = right.iter().zip(given).fold(0, |all, (a, b)| all | (a ^ b));
    std::hint::black_box(differing) == 0 && right.len() == given.len()
}

/// 32 random bytes in hexadecimal.
pub(crate) fn random() -> String {
    let mut bytes = [0_u8; 32];
    // A system without randomness cannot serve a session to anybody.
    getrandom::fill(&mut bytes).unwrap_or_else(|e| panic!("the system gives no random bytes: {e}"));
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
