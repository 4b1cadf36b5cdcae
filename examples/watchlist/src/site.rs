//! A local site with recorded posts, for the demo and for tests: HTML pages and an API, with a `robots.txt` and validators.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use galerna_lock::Mutex;
use recorded_posts::RecordedPost;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};

/// Posts of a page.
const PAGE: usize = 20;

#[derive(Debug, Default)]
struct Inner {
    /// By group, the oldest first.
    groups: BTreeMap<String, Vec<RecordedPost>>,
    /// How many of each group's posts are there yet.
    visible: BTreeMap<String, usize>,
    whole: u64,
    not_modified: u64,
    disallowed: u64,
}

/// A site that shows groups' posts, the latest first, as HTML under `/groups/GROUP` and as a feed under `/api/GROUP`. Nobody is to crawl
/// `/private/`.
#[derive(Debug)]
pub struct Site {
    inner: Mutex<Inner>,
    delay: Duration,
}

#[derive(Deserialize)]
struct Number {
    #[serde(default = "first")]
    page: usize,
}

fn first() -> usize {
    1
}

impl Site {
    /// The groups of these posts, all of them visible.
    pub fn new(posts: Vec<RecordedPost>) -> Self {
        let mut inner = Inner::default();
        for post in posts {
            inner.groups.entry(post.account.clone()).or_default().push(post);
        }
        inner.visible = inner.groups.iter().map(|(group, posts)| (group.clone(), posts.len())).collect();
        Self { inner: Mutex::new(inner), delay: Duration::ZERO }
    }

    /// The same with each answer so much later.
    #[must_use]
    pub fn delay(mut self, delay: Duration) -> Self {
        self.delay = delay;
        self
    }

    /// Hides the last posts of a group, as if they were not posted yet.
    pub fn hide_last(&self, group: &str, posts: usize) {
        let mut inner = self.inner.lock();
        let all = inner.groups.get(group).map_or(0, Vec::len);
        inner.visible.insert(group.to_owned(), all.saturating_sub(posts));
    }

    /// Adds words to a visible post of each group: its authors have edited it.
    pub fn edit(&self, number: usize, words: &str) {
        for posts in self.inner.lock().groups.values_mut() {
            if let Some(post) = posts.get_mut(number) {
                let _ = write!(post.text, " {words}");
            }
        }
    }

    /// The posts that are visible now.
    pub fn posts(&self) -> Vec<RecordedPost> {
        let inner = self.inner.lock();
        let visible = |group: &str| inner.visible.get(group).copied().unwrap_or(0);
        inner.groups.iter().flat_map(|(group, posts)| posts[..visible(group)].iter().cloned()).collect()
    }

    /// Pages that were sent whole, requests that were answered `304`, and requests of what nobody is to crawl.
    pub fn requests(&self) -> (u64, u64, u64) {
        let inner = self.inner.lock();
        (inner.whole, inner.not_modified, inner.disallowed)
    }

    /// The site's routes.
    pub fn router(self: Arc<Self>) -> Router {
        Router::new()
            .route("/robots.txt", get(|| async { "User-agent: *\nDisallow: /private/\n" }))
            .route("/groups/{group}", get(html))
            .route("/api/{group}", get(feed))
            .fallback(other)
            .with_state(self)
    }

    /// A page of a group, the latest first, and whether there is another; none when there is no such group.
    fn page(&self, group: &str, number: usize) -> Option<(Vec<RecordedPost>, bool)> {
        let inner = self.inner.lock();
        let visible = inner.visible.get(group).copied().unwrap_or(0);
        let posts = &inner.groups.get(group)?[..visible];
        let before = number.saturating_sub(1).saturating_mul(PAGE);
        let page: Vec<_> = posts.iter().rev().skip(before).take(PAGE).cloned().collect();
        Some((page, posts.len() > before.saturating_add(PAGE)))
    }

    /// Sends a page, unless the caller has it.
    async fn answer(&self, headers: &HeaderMap, kind: &'static str, text: String) -> Response {
        tokio::time::sleep(self.delay).await;
        let digest = Sha256::digest(text.as_bytes());
        let etag = digest.iter().take(8).fold(String::from("\""), |mut etag, byte| {
            let _ = write!(etag, "{byte:02x}");
            etag
        }) + "\"";
        let known =
            headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes());
        let mut inner = self.inner.lock();
        if known {
            inner.not_modified += 1;
            return (StatusCode::NOT_MODIFIED, [(header::ETAG, etag)]).into_response();
        }
        inner.whole += 1;
        ([(header::ETAG, etag), (header::CONTENT_TYPE, kind.to_owned())], text).into_response()
    }
}

async fn other(State(site): State<Arc<Site>>, uri: Uri) -> StatusCode {
    if uri.path().starts_with("/private/") {
        site.inner.lock().disallowed += 1;
    }
    StatusCode::NOT_FOUND
}

async fn html(
    State(site): State<Arc<Site>>,
    Path(group): Path<String>,
    Query(Number { page: number }): Query<Number>,
    headers: HeaderMap,
) -> Response {
    let Some((posts, more)) = site.page(&group, number) else { return StatusCode::NOT_FOUND.into_response() };
    let page = maud::html! {
        (maud::DOCTYPE)
        html {
            head { title { "Posts of " (group) } }
            body {
                h1 { (group) }
                @for post in &posts {
                    article id=(post.version) {
                        h2 { (post.version) }
                        time datetime=(post.at) { (post.at) }
                        p.author { (post.author) }
                        p.text { (post.text) }
                    }
                }
                @if more { a rel="next" href={ "?page=" (number + 1) } { "older" } }
            }
        }
    };
    site.answer(&headers, "text/html; charset=utf-8", page.into_string()).await
}

async fn feed(
    State(site): State<Arc<Site>>,
    Path(group): Path<String>,
    Query(Number { page: number }): Query<Number>,
    headers: HeaderMap,
) -> Response {
    let Some((posts, more)) = site.page(&group, number) else { return StatusCode::NOT_FOUND.into_response() };
    let items: Vec<_> = posts
        .iter()
        .map(|post| {
            json!({
                "id": post.version, "date_published": post.at, "content_text": post.text,
                "authors": [{ "name": post.author }],
            })
        })
        .collect();
    let next = more.then(|| format!("?page={}", number + 1));
    let text = json!({ "version": "https://jsonfeed.org/version/1.1", "title": group, "items": items, "next_url": next });
    site.answer(&headers, "application/feed+json", text.to_string()).await
}
