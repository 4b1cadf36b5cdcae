//! The HTTP service.

mod routes;

use std::future::Future;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use galerna_http::openapi::{add_error, operations};
use galerna_http::{ApiError, ServeError, ServeOptions, metrics, no_route, serve_until};
use tokio::net::TcpListener;
use tokio::time::Instant;
use utoipa::openapi::OpenApi;

use crate::frontend::Frontend;
use crate::options::{Limits, Options};

/// One in so many of the files that the process may open are connections of senders: the others are for the broker, the stores
/// and what is kept on disk.
const SHARE_OF_FILES: usize = 2;

/// A request's id: in the answer as `x-request-id`, in the log, and the beginning of the ids of its envelopes.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

/// How the frontend listens and ends, with no more connections than files allow.
pub(crate) fn serve_options(options: &Options) -> ServeOptions {
    let (limits, timeouts) = (&options.limits, &options.timeouts);
    let Limits { connections, .. } = *limits;
    let listen = ServeOptions {
        connections,
        connections_of_one: limits.share_of_one(connections).max(1),
        first_byte: timeouts.first_byte,
        head: timeouts.head,
        notice: timeouts.notice,
        drain: timeouts.drain,
        ..ServeOptions::new("frontend")
    };
    listen.within_files(SHARE_OF_FILES)
}

impl Frontend {
    /// The routes, for a listener of one's own. [`Frontend::serve`] adds bounds on connections and slow heads.
    pub fn router(&self) -> Router {
        let (router, _) = galerna_http::openapi::served(routes::all(), describe);
        let router = router.fallback(unknown_path);
        router.layer(middleware::from_fn_with_state(self.clone(), observe)).with_state(self.clone())
    }

    /// Serves until `shutdown` completes. Then `/readyz` says 503, after [`notice`](crate::Timeouts::notice) no more connections
    /// are taken, calls under way are finished, and statistics are written.
    ///
    /// # Errors
    /// [`ServeError`] when the listener has no address.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        self.serve_with(Router::new(), listener, shutdown).await
    }

    /// As [`serve`](Self::serve), with routes of the process `beside` the frontend's own. They are neither counted nor guarded
    /// here, and must have no path of the frontend's and no fallback.
    ///
    /// # Errors
    /// [`ServeError`] when the listener has no address.
    ///
    /// # Panics
    /// When a path of `beside` is one of the frontend's, or it has a fallback.
    pub async fn serve_with(
        &self,
        beside: Router,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        let core = self.core();
        let options = ServeOptions { open: Some(core.metrics.connections.clone()), ..core.listen.clone() };
        let ended = async {
            shutdown.await;
            self.begin_drain();
        };
        serve_until(listener, self.router().merge(beside), options, ended).await?;
        self.finish_drain().await;
        Ok(())
    }
}

/// Senders have always been told `not_found`, which is `no_route` elsewhere.
async fn unknown_path(method: Method, uri: Uri) -> ApiError {
    let message = no_route(method, uri).await.message().to_owned();
    ApiError::new(StatusCode::NOT_FOUND, "not_found", message)
}

/// What is said of all routes.
fn describe(description: &mut OpenApi) {
    "Galerna frontend".clone_into(&mut description.info.title);
    description.info.description = Some("Takes readings of concentrators.".to_owned());
    description.info.version = env!("CARGO_PKG_VERSION").to_owned();
    for (path, _, operation) in operations(description) {
        if matches!(path, "/metrics" | "/statistics" | "/sources/refresh") {
            add_error(operation, "401", "operators only: send `Authorization: Bearer <operator token>`");
            add_error(operation, "429", "`too_many_tries`: too many wrong tokens came from this address");
        }
    }
}

/// What every request gets: an id, counting, and a line in the log that has no query.
async fn observe(State(frontend): State<Frontend>, mut request: Request, next: Next) -> Response {
    let core = frontend.core();
    let traceparent = request.headers().get("traceparent").and_then(|value| value.to_str().ok());
    let id = core.new_id(traceparent);
    request.extensions_mut().insert(RequestId(id.clone()));
    let route = metrics::route(&request);
    let method = request.method().clone();
    let began = Instant::now();
    let mut answer = next.run(request).await;
    let took = began.elapsed();
    let status = answer.status();
    core.metrics.requests.with_label_values(&[route.as_str(), status.as_str()]).inc();
    core.metrics.request_seconds.with_label_values(&[route.as_str()]).observe(took.as_secs_f64());
    tracing::debug!(request = id, %method, route, status = status.as_u16(), took_ms = took.as_millis() as u64, "answered");
    let headers = answer.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
