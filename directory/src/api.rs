//! A small server of accounts and sources, for trying the system without one's own.
//!
//! It speaks what [`HttpDirectory`](crate::HttpDirectory) reads: `GET /accounts` and `GET /sources` with `page` (from
//! 1) and `limit` (1 to 1,000, 500 when left out). `GET /healthz` answers 200.

use std::future::Future;
use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use galerna_http::{ApiError, Guard, ServeError, ServeOptions, check_exposure, serve_until};
use galerna_lock::RwLock;
use galerna_model::{Account, Source};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;

use crate::{AccountsSource, DirectoryError, SourcesSource};

const DEFAULT_LIMIT: usize = 500;
/// One in so many of the process's open files are left to its connections.
const SHARE_OF_FILES: usize = 16;
const LARGEST_LIMIT: usize = 1_000;

/// The server's lists; clones share them.
#[derive(Clone)]
pub struct AccountsApi {
    lists: Arc<RwLock<Lists>>,
    guard: Guard,
}

struct Lists {
    accounts: Vec<Account>,
    sources: Vec<Source>,
    /// Told on every page, so that a reader notices that the list changed between two pages, or another process
    /// with another list took over.
    version: u64,
}

#[derive(Deserialize)]
struct PageQuery {
    page: Option<usize>,
    limit: Option<usize>,
}

impl AccountsApi {
    /// Serves these lists.
    pub fn new(accounts: Vec<Account>, sources: Vec<Source>) -> Self {
        let version = u64::from(fastrand::u32(..));
        Self { lists: Arc::new(RwLock::new(Lists { accounts, sources, version })), guard: Guard::new(None) }
    }

    /// Serves what these hold now, for instance two files.
    ///
    /// # Errors
    /// [`DirectoryError`] when one cannot be read whole, or has a wrong entry.
    pub async fn load(
        accounts: &dyn AccountsSource,
        sources: &dyn SourcesSource,
    ) -> Result<Self, DirectoryError> {
        let (accounts_list, sources_list) = (accounts.accounts().await?, sources.sources().await?);
        let wrong = accounts_list.issues.first().map(|issue| (issue, accounts.describe()));
        let wrong = wrong.or_else(|| sources_list.issues.first().map(|issue| (issue, sources.describe())));
        if let Some((issue, from)) = wrong {
            return Err(DirectoryError::Malformed { from, cause: issue.to_string() });
        }
        Ok(Self::new(accounts_list.entries, sources_list.entries))
    }

    /// Asks callers for this bearer token.
    #[must_use]
    pub fn with_token(mut self, token: Option<&str>) -> Self {
        self.guard = Guard::new(token);
        self
    }

    /// Replaces the accounts.
    pub fn set_accounts(&self, accounts: Vec<Account>) {
        let mut lists = self.lists.write();
        lists.accounts = accounts;
        lists.version += 1;
    }

    /// Replaces the sources.
    pub fn set_sources(&self, sources: Vec<Source>) {
        let mut lists = self.lists.write();
        lists.sources = sources;
        lists.version += 1;
    }

    /// The routes, to be served alone or nested under a path.
    pub fn router(&self) -> Router {
        let routes = Router::new()
            .route("/accounts", get(accounts))
            .route("/sources", get(sources))
            .route("/healthz", get(|| async { "ok" }))
            .with_state(Arc::clone(&self.lists));
        self.guard.protect(routes, &["/healthz"])
    }

    /// Serves until `shutdown` ends, then lets open requests finish.
    ///
    /// # Errors
    /// When the listener fails, or it can be reached from other machines and no token was set.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> Result<(), ServeError> {
        const SERVICE: &str = "accounts API";
        check_exposure(&listener, &self.guard, SERVICE)?;
        let options = ServeOptions::new(SERVICE).within_files(SHARE_OF_FILES);
        serve_until(listener, self.router(), options, shutdown).await
    }
}

async fn accounts(
    State(lists): State<Arc<RwLock<Lists>>>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let lists = lists.read();
    page("accounts", &lists.accounts, lists.version, query)
}

async fn sources(
    State(lists): State<Arc<RwLock<Lists>>>,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let lists = lists.read();
    page("sources", &lists.sources, lists.version, query)
}

fn page<T: Serialize>(
    name: &str,
    list: &[T],
    version: u64,
    query: Result<Query<PageQuery>, QueryRejection>,
) -> Result<Response, ApiError> {
    let bad_query = |message: String| ApiError::new(StatusCode::BAD_REQUEST, "bad_query", message);
    let Query(query) = query.map_err(|e| bad_query(e.body_text()))?;
    let (page, limit) = (query.page.unwrap_or(1), query.limit.unwrap_or(DEFAULT_LIMIT));
    if page == 0 || !(1..=LARGEST_LIMIT).contains(&limit) {
        let message =
            format!("page {page}, limit {limit}: pages count from 1, limit is 1 to {LARGEST_LIMIT}");
        return Err(bad_query(message));
    }
    let from = page.saturating_sub(1).saturating_mul(limit).min(list.len());
    let to = from.saturating_add(limit).min(list.len());
    let body = json!({
        (name): &list[from..to],
        "page": page,
        "pages": list.len().div_ceil(limit),
        "total": list.len(),
        "version": version,
    });
    Ok(Json(body).into_response())
}
