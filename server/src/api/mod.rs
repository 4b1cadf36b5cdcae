//! Serving the API of this process: the dispatcher's routes, and beside them what the process adds. What operators ask for is
//! written to the audit log ([`audit`]).

pub(crate) mod audit;
pub(crate) mod routes;
pub(crate) mod sources;

use axum::middleware;
use galerna_dispatcher::{Dispatcher, OPEN_PATHS, serve_options};
use galerna_http::{Guard, check_exposure, openapi, serve_until};
use galerna_settings::Settings;
use galerna_storage::Store;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

/// Serves until `shutdown`; then the calls under way are answered and the handle ends.
///
/// # Errors
/// When the listener is open to other machines and there is no token.
pub fn serve(
    settings: &Settings,
    listener: TcpListener,
    (dispatcher, store): (Dispatcher, &Store),
    beside: OpenApiRouter,
    shutdown: CancellationToken,
) -> anyhow::Result<JoinHandle<()>> {
    let guard = Guard::new(settings.api.token.as_deref());
    check_exposure(&listener, &guard, "dispatcher API")?;
    let routes = galerna_dispatcher::routes(dispatcher.clone()).merge(beside);
    let (router, _) = openapi::served(routes, |description| {
        galerna_dispatcher::describe(description);
        audit::describe(description);
    });
    let router = router.layer(middleware::from_fn_with_state(store.audit.clone(), audit::audit));
    let router = guard.protect(router, OPEN_PATHS);
    let options = serve_options(&dispatcher);
    Ok(tokio::spawn(async move {
        let ended = async {
            shutdown.cancelled().await;
            // Those who wait for a queue are sent home, so that they do not hold up the end.
            dispatcher.shutdown().await;
        };
        if let Err(e) = serve_until(listener, router, options, ended).await {
            tracing::error!(error = %e, "the API ended");
        }
    }))
}
