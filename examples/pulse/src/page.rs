//! Pulse's own page: the last charts, and what became of each round.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use galerna_html::format;
use galerna_html::frame::{Menu, document};
use galerna_html::query::nothing;
use galerna_html::table::{Column, list};
use galerna_schedules::{ScheduleId, Schedules};
use maud::html;

use crate::{Objects, Round};

/// Rounds that are shown.
const SHOWN: usize = 50;

struct Shown {
    schedules: Schedules,
    id: ScheduleId,
    objects: Objects,
}

/// The menu of all pages.
pub(crate) fn menu() -> Menu {
    Menu::new("Pulse")
        .entry("Pulse", "/pulse")
        .entry("Schedules", "/schedules")
        .entry("Topology", "/topologies")
}

/// The page, and the files that it shows.
pub(crate) fn router(schedules: Schedules, id: ScheduleId, objects: Objects) -> Router {
    Router::new()
        .route("/pulse", get(page))
        .route("/pulse/charts/{file}", get(chart))
        .with_state(Arc::new(Shown { schedules, id, objects }))
}

/// A failure, as whoever looks at the page sees it.
fn failed(error: impl std::fmt::Display) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, format!("the page cannot be made: {error}")).into_response()
}

async fn page(State(shown): State<Arc<Shown>>) -> Response {
    let ended = match shown.schedules.history(&shown.id, None, SHOWN).await {
        Ok(ended) => ended,
        Err(error) => return failed(error),
    };
    let record = match shown.schedules.get(&shown.id).await {
        Ok(record) => record,
        Err(error) => return failed(error),
    };
    let latest = ended.iter().find(|ended| ended.outcome.name() == "done").map(|ended| Round::of(&ended.id));
    let columns = [
        Column::name("Round"),
        Column::text("Outcome"),
        Column::number("Attempts"),
        Column::wrapped("Why"),
        Column::actions(),
    ];
    let open = record.open.iter().map(|firing| {
        [
            html! { (firing.nominal) },
            html! { "open" },
            html! { (firing.attempts) },
            html! { (firing.fault.as_deref().unwrap_or("")) },
            html! {},
        ]
    });
    let over = ended.iter().map(|ended| {
        let (round, done) = (Round::of(&ended.id), ended.outcome.name() == "done");
        [
            html! { (ended.id.nominal) },
            html! { (ended.outcome) },
            html! { (ended.attempts) },
            html! { (ended.fault.as_deref().unwrap_or("")) },
            html! { @if done { @for form in ["svg", "png", "csv"] {
                a href={ "/pulse/charts/" (round) "." (form) } { (form) span.sr { " of " (ended.id.nominal) } } " "
            } } },
        ]
    });
    let content = html! {
        div.title { h1 { "Pulse" } }
        section #rounds data-refresh="5" {
            @match latest {
                Some(latest) => a href={ "/pulse/charts/" (latest) ".svg" } {
                    img.chart src={ "/pulse/charts/" (latest) ".svg" } alt={ "The accounts compared in round " (latest) };
                }
                None => (nothing("There is no chart yet: the first round has not ended.")),
            }
            h2 { "Rounds" }
            dl.facts {
                div { dt { "open" } dd { b.num { (format::count(record.open.len() as u64)) } } }
                @for (outcome, count) in &record.counts { div { dt { (outcome) } dd { b.num { (format::count(*count)) } } } }
            }
            (list("Rounds", &columns, open.chain(over)))
        }
    };
    document("Pulse", None, &menu().body("/pulse", &content)).into_response()
}

async fn chart(State(shown): State<Arc<Shown>>, Path(file): Path<String>) -> Response {
    let kinds = [("svg", "image/svg+xml"), ("png", "image/png"), ("csv", "text/csv; charset=utf-8")];
    let found = file.rsplit_once('.').and_then(|(round, form)| {
        let kind = kinds.iter().find(|(known, _)| *known == form)?.1;
        Some((Round::named(round).chart(form), kind))
    });
    let Some((path, kind)) = found else {
        return (StatusCode::NOT_FOUND, "there are svg, png and csv").into_response();
    };
    match shown.objects.read(&path).await {
        Ok(Some(bytes)) => ([(header::CONTENT_TYPE, kind)], bytes).into_response(),
        Ok(None) => (StatusCode::NOT_FOUND, "there is no such round").into_response(),
        Err(error) => failed(error),
    }
}
