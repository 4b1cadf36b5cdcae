//! Serving the API of this process: the dispatcher's routes, and beside them what the process adds. What operators ask for is
//! written to the audit log ([`audit`]).

pub(crate) mod audit;
pub(crate) mod message_history;
pub(crate) mod routes;

use std::sync::Arc;

use axum::Router;
use axum::middleware;
use galerna_console::auth::authorise;
use galerna_dispatcher::{Dispatcher, ServiceOptions};
use galerna_settings::Settings;
use galerna_storage::Store;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Serves until `shutdown`; then the calls under way are answered and the handle ends.
///
/// # Errors
/// When the listener is open to other machines and there is no token.
pub fn serve(
    settings: &Settings,
    listener: TcpListener,
    (dispatcher, store): (Dispatcher, &Store),
    beside: Router,
    shutdown: CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    let address = listener.local_addr()?;
    let token = settings.api.token.clone();
    anyhow::ensure!(
        token.is_some() || address.ip().is_loopback(),
        "the API on {address} would be open to other machines; set `api.token`"
    );
    let auditor = audit::Auditor { log: Arc::clone(&store.audit), token: token.as_deref().map(Arc::from) };
    let beside = beside.layer(middleware::from_fn_with_state(auditor.token.clone(), authorise));
    let described = beside.has_routes();
    let app = galerna_dispatcher::router(dispatcher.clone(), &ServiceOptions { token })
        .merge(beside)
        .layer(middleware::from_fn_with_state(described, routes::describe))
        .layer(middleware::from_fn_with_state(auditor, audit::audit));
    let timeout = dispatcher.timing().request_timeout;
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
                tokio::time::sleep(timeout).await;
            } => tracing::warn!("some callers did not hang up in time"),
        }
    }))
}
