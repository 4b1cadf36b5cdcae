//! Watchlist's own page: workers and backlog, what is parked, the schedules, alerts and targets.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use galerna_delay::DelayStore;
use galerna_html::format;
use galerna_html::frame::{Menu, document};
use galerna_html::query::nothing;
use galerna_html::table::{Column, list};
use galerna_model::{Clock as _, SystemClock};
use galerna_schedules::Schedules;
use maud::{Markup, html};

use crate::jobs::Load;
use crate::store::{Store, day_of};

/// Lines of each list.
const LINES: usize = 100;

/// What the page shows.
pub(crate) struct Shown {
    schedules: Schedules,
    store: Arc<dyn Store>,
    jobs: Arc<DelayStore>,
    load: Arc<Load>,
}

impl Shown {
    pub(crate) fn new(
        schedules: Schedules,
        store: Arc<dyn Store>,
        jobs: Arc<DelayStore>,
        load: Arc<Load>,
    ) -> Self {
        Self { schedules, store, jobs, load }
    }
}

/// The menu of all pages.
pub(crate) fn menu() -> Menu {
    Menu::new("Watchlist")
        .entry("Watchlist", "/watchlist")
        .entry("Parked", "/parked")
        .entry("Schedules", "/schedules")
        .entry("Topology", "/topologies")
}

/// The page, and targets and alerts as JSON.
pub(crate) fn router(shown: Shown) -> Router {
    Router::new()
        .route("/watchlist", get(page))
        .route("/watchlist/targets", get(targets))
        .route("/watchlist/alerts", get(alerts))
        .with_state(Arc::new(shown))
}

fn failed(error: impl std::fmt::Display) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("the page cannot be made: {error}")).into_response()
}

/// Four weeks ago.
fn recent() -> String {
    day_of(SystemClock.now().plus_millis(-28 * 86_400_000))
}

async fn targets(State(shown): State<Arc<Shown>>) -> Response {
    match shown.store.targets("").await {
        Ok(targets) => Json(targets).into_response(),
        Err(error) => failed(error),
    }
}

async fn alerts(State(shown): State<Arc<Shown>>) -> Response {
    match shown.store.alerts(10_000).await {
        Ok(alerts) => Json(alerts).into_response(),
        Err(error) => failed(error),
    }
}

async fn page(State(shown): State<Arc<Shown>>) -> Response {
    match content(&shown).await {
        Ok((parked, content)) => {
            let body = menu().counted("/parked", parked).body("/watchlist", &content);
            document("Watchlist", None, &body).into_response()
        }
        Err(error) => failed(error),
    }
}

/// How many pages are parked, and what is shown.
async fn content(shown: &Shown) -> anyhow::Result<(u64, Markup)> {
    let counts = shown.store.counts().await?;
    let schedules = shown.schedules.list(None, LINES).await?;
    let parked = shown.jobs.parked(1_000).await?.len() as u64;
    let alerts = shown.store.alerts(20).await?;
    let targets = shown.store.targets(&recent()).await?;
    let load = |value: &std::sync::atomic::AtomicUsize| format::count(value.load(Ordering::Relaxed) as u64);
    let facts = [
        ("workers busy", format!("{} of {}", load(&shown.load.busy), load(&shown.load.workers))),
        ("workers at most", load(&shown.load.most)),
        ("pages to fetch", load(&shown.load.backlog)),
        ("pages parked", format::count(parked)),
        ("posts", format::count(counts.posts)),
        ("versions", format::count(counts.versions)),
        ("not counted yet", format::count(counts.unmapped)),
        ("alerts", format::count(counts.alerts)),
        ("not delivered", format::count(counts.undelivered)),
    ];
    let alert_columns =
        [Column::name("Day"), Column::text("Group"), Column::wrapped("Alert"), Column::text("Rule")];
    let alert_rows = alerts.iter().map(|alert| {
        [html! { (alert.day) }, html! { (alert.group) }, html! { (alert.text) }, html! { (alert.rule) }]
    });
    let schedule_columns =
        [Column::name("Schedule"), Column::text("Next"), Column::number("Open"), Column::wrapped("Ended")];
    let schedule_rows = schedules.iter().map(|record| {
        let id = record.id.as_str();
        [
            html! { a href=(galerna_schedules::page::path_of(id)) { (id) } },
            html! { @if let Some(next) = &record.next { (next.nominal) } @else { "–" } },
            html! { (record.open.len()) },
            html! { @for (outcome, count) in &record.counts { span.pair { (outcome) " " b.num { (format::count(*count)) } } " " } },
        ]
    });
    let target_columns =
        [Column::name("Day"), Column::text("Group"), Column::text("Keyword"), Column::number("Count")];
    let target_rows = targets.iter().rev().take(LINES).map(|target| {
        [
            html! { (target.day) },
            html! { (target.group) },
            html! { (target.keyword) },
            html! { (format::count(target.count)) },
        ]
    });
    let content = html! {
        div.title { h1 { "Watchlist" } }
        section #watchlist data-refresh="5" {
            dl.facts { @for (name, value) in &facts { div { dt { (name) } dd { b.num { (value) } } } } }
            @if parked > 0 { p { a href="/parked" { "Pages that cannot be fetched" } " wait for somebody to look at them." } }
            h2 { "Alerts" }
            @if alerts.is_empty() { (nothing("No threshold has been reached.")) } @else { (list("Alerts", &alert_columns, alert_rows)) }
            h2 { "Schedules" }
            (list("Schedules", &schedule_columns, schedule_rows))
            h2 { "Targets of the last four weeks" }
            @if targets.is_empty() { (nothing("No keyword was counted.")) } @else { (list("Targets", &target_columns, target_rows)) }
        }
    };
    Ok((parked, content))
}
