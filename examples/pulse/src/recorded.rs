//! A local server with Mastodon's API that serves recorded posts, for the demo and for tests.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use recorded_posts::RecordedPost;
use serde::Deserialize;
use serde_json::{Value, json};

/// Recorded posts by account, as a Mastodon server has them. The counts of reactions are 0: none were recorded.
#[derive(Debug)]
pub struct Recorded {
    accounts: BTreeMap<String, Vec<RecordedPost>>,
    silent: BTreeSet<String>,
    delay: Duration,
    requests: AtomicU64,
}

#[derive(Deserialize)]
struct Lookup {
    acct: String,
}

#[derive(Deserialize)]
struct Statuses {
    #[serde(default = "twenty")]
    limit: usize,
    max_id: Option<u64>,
}

fn twenty() -> usize {
    20
}

impl Recorded {
    /// The accounts of these posts.
    pub fn new(posts: Vec<RecordedPost>) -> Self {
        let mut accounts: BTreeMap<String, Vec<RecordedPost>> = BTreeMap::new();
        for post in posts {
            accounts.entry(post.account.clone()).or_default().push(post);
        }
        Self { accounts, silent: BTreeSet::new(), delay: Duration::ZERO, requests: AtomicU64::new(0) }
    }

    /// The same with an account about which no call is ever answered.
    #[must_use]
    pub fn silent(mut self, account: &str) -> Self {
        self.silent.insert(account.to_owned());
        self.accounts.entry(account.to_owned()).or_default();
        self
    }

    /// The same with each answer so much later.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// How many calls there were.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }

    /// The server's routes.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/api/v1/accounts/lookup", get(lookup))
            .route("/api/v1/accounts/{id}/statuses", get(statuses))
            .with_state(self)
    }

    async fn account(&self, name: &str) -> Result<&[RecordedPost], (StatusCode, Json<Value>)> {
        self.requests.fetch_add(1, Ordering::Relaxed);
        tokio::time::sleep(self.delay).await;
        if self.silent.contains(name) {
            std::future::pending::<()>().await;
        }
        let not_found = (StatusCode::NOT_FOUND, Json(json!({ "error": "Record not found" })));
        self.accounts.get(name).map(Vec::as_slice).ok_or(not_found)
    }
}

type Answer = Result<Json<Value>, (StatusCode, Json<Value>)>;

async fn lookup(State(server): State<Arc<Recorded>>, Query(query): Query<Lookup>) -> Answer {
    server.account(&query.acct).await?;
    // Names are good ids: unlike one another, and they stay.
    Ok(Json(json!({ "id": query.acct, "username": query.acct, "acct": query.acct })))
}

async fn statuses(
    State(server): State<Arc<Recorded>>,
    Path(id): Path<String>,
    Query(query): Query<Statuses>,
) -> Answer {
    let posts = server.account(&id).await?;
    let numbered = posts.iter().enumerate().map(|(number, post)| (status_id(post, number), post));
    let before = query.max_id.unwrap_or(u64::MAX);
    let page: Vec<Value> = numbered
        .rev()
        .filter(|(id, _)| *id < before)
        .take(query.limit.min(40))
        .map(|(id, post)| {
            json!({
                "id": id.to_string(), "created_at": post.at, "content": format!("<p>{}</p>", escaped(&post.text)),
                "replies_count": 0, "reblogs_count": 0, "favourites_count": 0,
            })
        })
        .collect();
    Ok(Json(Value::Array(page)))
}

/// As Mastodon makes ids: the time, and a number that keeps them apart; later posts have higher ones.
pub(crate) fn status_id(post: &RecordedPost, number: usize) -> u64 {
    let millis = u64::try_from(post.at.as_millis()).unwrap_or(0);
    (millis << 16) | (number as u64 & 0xffff)
}

fn escaped(text: &str) -> String {
    text.chars().fold(String::new(), |mut html, c| {
        match c {
            '<' | '>' | '&' | '"' => drop(write!(html, "&#{};", u32::from(c))),
            c => html.push(c),
        }
        html
    })
}
