//! Serving all of it at an address.
//!
//! # Cross-site calls
//! What a browser does for another site is refused: calls that change something must come from a page of the same origin, as
//! `Origin` and `Sec-Fetch-Site` tell. Without a token the service is for this machine only, and answers to its loopback names
//! only, so that no other name can be made to lead here.

use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use galerna_html::frame::Menu;
use galerna_http::browser::{is_loopback, same_site};
use galerna_http::openapi::{add_error, operations, served};
use galerna_http::{ApiError, Guard, ServeError, ServeOptions, check_exposure, readiness, serve_until};
use prometheus::Registry;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::topologies::Topologies;
use crate::{metrics, page, routes};

const SERVICE: &str = "topologies' page";
/// Paths that need no token.
const OPEN: &[&str] = &["/healthz", "/readyz"];
/// At the end: for calls under way.
const DRAIN: Duration = Duration::from_secs(3);

/// How to serve.
#[derive(Clone, Default)]
pub struct ControlOptions {
    /// Callers send it as `Authorization: Bearer <token>`; a browser asks for it as the password, with whatever name. None unless
    /// set: then it is served to this machine only.
    pub token: Option<String>,
    /// Ends the service when it is cancelled; never unless set.
    pub shutdown: CancellationToken,
    /// Routes to serve beside it, described with the others.
    pub beside: OpenApiRouter,
    /// The program's menu, for the page; `/topologies` is its own path there. A list of the topologies unless set.
    pub menu: Option<Menu>,
    /// Whose metrics are served, with those of the topologies; those of the process unless set.
    pub registry: Option<Registry>,
}

impl std::fmt::Debug for ControlOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ControlOptions")
            .field("asks_for_token", &self.token.is_some())
            .finish_non_exhaustive()
    }
}

/// Where to listen.
#[derive(Debug)]
pub enum Listen {
    /// At a listener that is open.
    Listener(TcpListener),
    /// At an address, such as `127.0.0.1:8099`.
    Address(String),
}

impl From<TcpListener> for Listen {
    fn from(listener: TcpListener) -> Self {
        Self::Listener(listener)
    }
}

impl From<&str> for Listen {
    fn from(address: &str) -> Self {
        Self::Address(address.to_owned())
    }
}

impl From<String> for Listen {
    fn from(address: String) -> Self {
        Self::Address(address)
    }
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address.to_string())
    }
}

/// Why nothing is served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeControlError {
    /// The address cannot be listened at.
    #[error("cannot listen at {address}: {cause}; choose another address, or end what listens there")]
    Listen {
        /// The address.
        address: String,
        /// What the system says.
        cause: std::io::Error,
    },
    /// It cannot be served.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The metrics cannot be registered: topologies are in this registry already.
    #[error("the metrics of topologies cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// Serves page, API, metrics and health of these topologies until [`ControlOptions::shutdown`].
///
/// # Errors
/// If the address cannot be listened at, or can be reached from other machines and there is no token.
pub async fn serve(
    at: impl Into<Listen>,
    topologies: Topologies,
    options: ControlOptions,
) -> Result<(), ServeControlError> {
    let listener = match at.into() {
        Listen::Listener(listener) => listener,
        Listen::Address(address) => {
            TcpListener::bind(&address).await.map_err(|cause| ServeControlError::Listen { address, cause })?
        }
    };
    let guard = Guard::new(options.token.as_deref());
    check_exposure(&listener, &guard, SERVICE)?;
    let router = router(topologies, &guard, &options)?;
    let shutdown = options.shutdown;
    let ended = async move {
        shutdown.cancelled().await;
    };
    let served = ServeOptions { drain: DRAIN, ..ServeOptions::new(SERVICE) };
    Ok(serve_until(listener, router, served, ended).await?)
}

fn router(
    topologies: Topologies,
    guard: &Guard,
    options: &ControlOptions,
) -> Result<Router, prometheus::Error> {
    let registry = match &options.registry {
        Some(registry) => registry.clone(),
        None => galerna_http::metrics::process_registry(env!("CARGO_PKG_VERSION"))?,
    };
    metrics::register(&registry, topologies.clone())?;
    let process =
        OpenApiRouter::new().routes(routes!(readyz)).routes(routes!(show_metrics)).with_state(registry);
    let described = process.merge(routes::rest(topologies.clone())).merge(options.beside.clone());
    let (api, _) = served(described, describe);
    let home = options.menu.as_ref().map_or("/topologies", Menu::home).to_owned();
    let pages = page::routes_beside(topologies, options.menu.clone())
        .route("/", get(move || async move { Redirect::to(&home) }));
    let all = guard.protect(api.merge(pages), OPEN);
    Ok(all
        .layer(middleware::from_fn(galerna_http::browser::headers))
        .layer(middleware::from_fn_with_state(guard.is_open(), browsers)))
}

/// Whether the topologies can be asked for.
#[utoipa::path(get, path = "/readyz", responses((status = 200, description = "they can", body = Object, example = json!({"ready": true}))))]
async fn readyz() -> Response {
    readiness(&json!({}), None)
}

/// Metrics of this process in Prometheus' text format.
#[utoipa::path(get, path = "/metrics", responses((status = 200, description = "metrics", body = String, content_type = "text/plain")))]
async fn show_metrics(State(registry): State<Registry>) -> Response {
    galerna_http::metrics::answer(&registry)
}

fn describe(description: &mut OpenApi) {
    "Galerna topologies".clone_into(&mut description.info.title);
    description.info.description = Some("The running topologies of a process.".to_owned());
    description.info.version = env!("CARGO_PKG_VERSION").to_owned();
    for (path, method, operation) in operations(description) {
        if !OPEN.contains(&path) {
            add_error(operation, "401", "`unauthorized`: a token is demanded and was not sent");
            add_error(operation, "403", "`other_site`: a browser sent this for another site");
            add_error(operation, "429", "`too_many_tries`: too many wrong tokens came from this address");
        }
        if path.contains('{') {
            add_error(operation, "400", "`invalid_path`: it is no text");
        }
        if method == "post" {
            add_error(operation, "413", "`body_too_large`: the body is longer than this call takes");
        }
    }
}

/// Takes a browser's password for the token, and refuses what it does for other sites.
async fn browsers(State(open): State<bool>, mut request: Request, next: Next) -> Response {
    let text = |request: &Request, name| {
        request.headers().get(name).and_then(|v: &HeaderValue| v.to_str().ok()).map(str::to_owned)
    };
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let host = text(&request, header::HOST);
    if (changes && !same_site(request.headers())) || (open && host.is_some_and(|host| !is_loopback(&host))) {
        let message = "a browser sent this for another site, or under a name that is not of this machine; open the page as \
                       http://127.0.0.1, or set a token";
        return ApiError::new(StatusCode::FORBIDDEN, "other_site", message).into_response();
    }
    if let Some(token) = text(&request, header::AUTHORIZATION).as_deref().and_then(password)
        && let Ok(bearer) = HeaderValue::try_from(format!("Bearer {token}"))
    {
        request.headers_mut().insert(header::AUTHORIZATION, bearer);
    }
    let is_page = request.method() == Method::GET
        && text(&request, header::ACCEPT).is_some_and(|kinds| kinds.contains("text/html"));
    let mut answer = next.run(request).await;
    if is_page && answer.status() == StatusCode::UNAUTHORIZED {
        answer.headers_mut().insert(
            header::WWW_AUTHENTICATE,
            HeaderValue::from_static("Basic realm=\"Galerna\", charset=\"UTF-8\""),
        );
    }
    answer
}

/// The password of `Basic` credentials (RFC 7617).
fn password(credentials: &str) -> Option<String> {
    let (scheme, encoded) = credentials.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded.trim()).ok()?).ok()?;
    Some(text.split_once(':')?.1.to_owned())
}
