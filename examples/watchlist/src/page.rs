//! Watchlist's own page: workers and backlog, what is parked, the schedules, alerts and targets.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use galerna_delay::DelayStore;
use galerna_html::assets;
use galerna_html::frame::document;
use galerna_html::query::scrolling;
use galerna_model::{Clock as _, SystemClock};
use galerna_schedules::Schedules;
use maud::{Markup, html};

use crate::jobs::Load;
use crate::sqlite::day_of;
use crate::store::Store;

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
    match body(&shown).await {
        // What is shown changes all the time.
        Ok(body) => ([("refresh", "5")], document("Watchlist", None, &body)).into_response(),
        Err(error) => failed(error),
    }
}

async fn body(shown: &Shown) -> anyhow::Result<Markup> {
    let counts = shown.store.counts().await?;
    let schedules = shown.schedules.list(None, LINES).await?;
    let parked = shown.jobs.parked(LINES).await?;
    let alerts = shown.store.alerts(20).await?;
    let targets = shown.store.targets(&recent()).await?;
    let load = |value: &std::sync::atomic::AtomicUsize| value.load(Ordering::Relaxed);
    Ok(html! {
        header.top { a.brand href="/topologies" { (assets::mark()) span { "Galerna" } } }
        main #content {
            h1 { "Watchlist" }
            h2 { "Workers" }
            p {
                (load(&shown.load.busy)) " of " (load(&shown.load.workers)) " workers busy, "
                (load(&shown.load.backlog)) " pages to fetch; there have been " (load(&shown.load.most)) " workers at most."
            }
            p {
                (counts.posts) " posts in " (counts.versions) " versions, of which " (counts.unmapped)
                " are not counted yet; " (counts.alerts) " alerts, " (counts.undelivered) " not delivered."
            }
            h2 { "Parked pages" }
            @if parked.is_empty() { p { "None." } } @else {
                (scrolling("Parked pages", &html! { table {
                    thead { tr { th { "page" } th { "attempts" } th { "reason" } } }
                    tbody { @for page in &parked { tr { td { (page.id) } td { (page.attempts) } td { (page.reason) } } } }
                } }))
            }
            h2 { "Alerts" }
            @if alerts.is_empty() { p { "None." } } @else {
                ul { @for alert in &alerts { li { (alert.text) " (" (alert.rule) ")" } } }
            }
            h2 { "Schedules" }
            (scrolling("Schedules", &html! { table {
                thead { tr { th { "schedule" } th { "next" } th { "open" } th { "ended" } } }
                tbody {
                    @for record in &schedules {
                        tr {
                            td { (record.id.as_str()) }
                            td { @if let Some(next) = &record.next { (next.nominal) } @else { "–" } }
                            td { (record.open.len()) }
                            td { @for (outcome, count) in &record.counts { (count) " " (outcome) " " } }
                        }
                    }
                }
            } }))
            h2 { "Targets of the last four weeks" }
            @if targets.is_empty() { p { "None." } } @else {
                (scrolling("Targets", &html! { table {
                    thead { tr { th { "day" } th { "group" } th { "keyword" } th { "count" } } }
                    tbody {
                        @for target in targets.iter().rev().take(LINES) {
                            tr { td { (target.day) } td { (target.group) } td { (target.keyword) } td { (target.count) } }
                        }
                    }
                } }))
            }
        }
    })
}
