//! The HTTP service.

mod connections;
mod openapi;
mod routes;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;

pub use self::connections::ServeError;
pub(crate) use self::connections::affordable;
use crate::frontend::Frontend;
use crate::refusal::Refusal;

/// A request's id: in the answer as `x-request-id`, in the log, and the beginning of the ids of its envelopes.
#[derive(Debug, Clone)]
pub(crate) struct RequestId(pub(crate) String);

impl Frontend {
    /// The routes, for a listener of one's own. [`Frontend::serve`] adds bounds on connections and slow heads.
    pub fn router(&self) -> Router {
        let mut router = Router::new();
        for route in routes::all() {
            router = router.route(route.path, route.handler);
        }
        router
            .fallback(routes::no_route)
            .method_not_allowed_fallback(routes::method_not_allowed)
            .layer(middleware::from_fn_with_state(self.clone(), around))
            .with_state(self.clone())
    }
}

/// What every request gets: an id, counting, and a line in the log that has no query.
async fn around(State(frontend): State<Frontend>, mut request: Request, next: Next) -> Response {
    let core = frontend.core();
    let id = core.new_id();
    request.extensions_mut().insert(RequestId(id.clone()));
    let route = routes::label(request.uri().path());
    let method = request.method().clone();
    let began = Instant::now();
    let mut answer = next.run(request).await;
    let took = began.elapsed();
    let status = answer.status();
    core.metrics.requests.with_label_values(&[route, status.as_str()]).inc();
    core.metrics.request_seconds.with_label_values(&[route]).observe(took.as_secs_f64());
    tracing::debug!(request = id, %method, route, status = status.as_u16(), took_ms = took.as_millis() as u64, "answered");
    let headers = answer.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert("x-request-id", id);
    }
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Lets an operator pass.
pub(crate) fn operator(frontend: &Frontend, headers: &header::HeaderMap) -> Result<(), Refusal> {
    let Some(token) = &frontend.core().options.operator_token else { return Ok(()) };
    let given = headers.get(header::AUTHORIZATION).and_then(|v| v.to_str().ok());
    // Schemes are written in any case (RFC 9110, 11.1).
    let given =
        given.and_then(|v| v.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let given = given.map_or("", |(_, token)| token.trim_start_matches(' '));
    // By their hashes, so that the time taken tells nothing of the token.
    if crate::token::TokenHash::of(token).matches(given) { Ok(()) } else { Err(Refusal::OperatorNeeded) }
}

pub(crate) fn answered<T: IntoResponse>(result: Result<T, Refusal>) -> Response {
    match result {
        Ok(answer) => answer.into_response(),
        Err(refusal) => refusal.into_response(),
    }
}
