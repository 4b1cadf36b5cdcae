//! Pulse's own page: the last charts, and what became of each round.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Path, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use galerna_html::assets;
use galerna_html::frame::document;
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
    let body = html! {
        header.top { a.brand href="/topologies" { (assets::mark()) span { "Galerna" } } }
        main #content {
                h1 { "Pulse" }
                @match latest {
                    Some(latest) => {
                        img src={ "/pulse/charts/" (latest) ".svg" } alt={ "The accounts compared in round " (latest) };
                    }
                    None => p { "There is no chart yet: the first round has not ended." }
                }
                h2 { "Rounds" }
                p {
                    @for (outcome, count) in &record.counts { (count) " " (outcome) ", " }
                    (record.open.len()) " open"
                }
                table {
                    thead { tr { th { "round" } th { "outcome" } th { "attempts" } th { "files" } } }
                    tbody {
                        @for firing in &record.open {
                            tr { td { (firing.nominal) } td { "open" } td { (firing.attempts) } td { (firing.fault.as_deref().unwrap_or("")) } }
                        }
                        @for ended in &ended {
                            @let round = Round::of(&ended.id);
                            tr {
                                td { (ended.id.nominal) }
                                td { (ended.outcome) }
                                td { (ended.attempts) }
                                td {
                                    @if ended.outcome.name() == "done" {
                                        @for form in ["svg", "png", "csv"] {
                                            a href={ "/pulse/charts/" (round) "." (form) } { (form) } " "
                                        }
                                    } @else { (ended.fault.as_deref().unwrap_or("")) }
                                }
                            }
                        }
                    }
                }
        }
    };
    // What is shown changes with each round.
    ([("refresh", "5")], document("Pulse", None, &body)).into_response()
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
