//! The overview: what an SRE looks at first.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use galerna_storage::QueueState;
use maud::{Markup, html};

use super::access::Visitor;
use super::cells::{self, Cells, state_word};
use super::chart::{Chart, Line, Range};
use super::observer::{Snapshot, within_timeout};
use super::samples::COARSE_MS;
use super::{Page, Params, format, layout, none_configured, notices};

const CHARTS: [Chart; 6] = [
    Chart {
        title: "Readings accepted",
        unit: "a second",
        lines: &[Line { key: "accepted", name: "accepted", tone: 1 }],
    },
    Chart {
        title: "Messages",
        unit: "a second",
        lines: &[
            Line { key: "emitted", name: "taken", tone: 2 },
            Line { key: "done", name: "done", tone: 1 },
            Line { key: "failed", name: "failed", tone: 4 },
        ],
    },
    Chart {
        title: "Backlog",
        unit: "messages",
        lines: &[
            Line { key: "ready", name: "ready", tone: 1 },
            Line { key: "unacked", name: "in flight", tone: 2 },
        ],
    },
    Chart {
        title: "Message latency",
        unit: "ms, since the start",
        lines: &[Line { key: "p99", name: "p99", tone: 3 }, Line { key: "p50", name: "p50", tone: 1 }],
    },
    Chart { title: "Alerts", unit: "firing", lines: &[Line { key: "firing", name: "firing", tone: 4 }] },
    Chart { title: "Dead letters", unit: "messages", lines: &[Line { key: "dead", name: "dead", tone: 3 }] },
];

/// A sample younger than this tells what is now.
const RECENT_MS: i64 = 25_000;

/// `GET /`
pub(super) async fn show(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let range = Range::of(&params);
    let from = range.from(page.now());
    let history = async {
        let history = &page.parts.store.history;
        if range.is_coarse() { history.sparse(from, COARSE_MS).await } else { history.since(from).await }
    };
    // At once: a store that is unavailable is waited for once.
    let (snapshot, samples) = tokio::join!(page.snapshot(), within_timeout("the store", history));
    let mut cells = cells::of_snapshot(&snapshot);
    let mut notices = notices(&snapshot);
    let samples = match samples {
        Ok(samples) => samples,
        Err(e) => {
            notices.push(format!("the charts are empty: {e}"));
            Vec::new()
        }
    };
    if let Some(last) = samples.last().filter(|last| snapshot.at.millis_since(last.at) < RECENT_MS) {
        cells::rates_of(&mut cells, last);
    }
    let content = html! {
        div.title { h1 { "Overview" } p.dim { (cells.show("o-time")) " UTC" } }
        (none_configured(&snapshot))
        section.tiles aria-label="Now" {
            (tile("Readings accepted", &cells, "o-accepted", "a second", Some("/sources")))
            (tile("Messages taken", &cells, "o-emitted", "a second", Some("/topology")))
            (tile("Messages done", &cells, "o-done", "a second", Some("/topology")))
            (tile("Backlog", &cells, "o-ready", "messages ready", Some("/queues?sort=-ready")))
            (tile("In flight", &cells, "o-unacked", "messages", Some("/queues?sort=-unacked")))
            (tile("Alerts firing", &cells, "o-firing", "now", Some("/alerts")))
            (tile("Dead letters", &cells, "o-dead", "messages", Some("/dead-letters")))
            (tile("Longest wait", &cells, "o-oldest", "", None))
        }
        div.columns {
            section.card aria-labelledby="dispatcher-title" {
                h2 #dispatcher-title { "Dispatcher" }
                dl.facts {
                    div { dt { "Leasing" } dd { (cells.pill("o-running")) } }
                    div { dt { "Strategy" } dd { (cells.pill("o-strategy")) } }
                    div { dt { "Why" } dd { (cells.show("o-why")) } }
                    div { dt { "Leases given" } dd.num { (cells.show("o-leases")) } }
                    div { dt { "Workers" } dd.num { (cells.show("o-workers")) } }
                    div { dt { "Waits the longest" } dd { (cells.show("o-oldest-queue")) } }
                }
                p { a href="/queues" { "All queues" } " · " a href="/topology" { "Why is a spout not emitting?" } }
            }
            section.card aria-labelledby="states-title" {
                h2 #states-title { "Queues by state" }
                (states(&cells))
            }
            (firing(&snapshot))
        }
        section aria-labelledby="charts-title" {
            h2 #charts-title { "The last " (range.name()) }
            (range.choice("/", &layout::Query::default(), i64::MAX))
            div.charts #charts data-refresh="10" {
                @for chart in &CHARTS { (chart.draw(&samples, snapshot.at, range)) }
            }
        }
    };
    page.frame(&visitor, "/", "Overview", &params, notices, &content).await
}

fn tile(name: &str, cells: &Cells, id: &str, unit: &str, link: Option<&str>) -> Markup {
    let inner = html! {
        span.tile-name { (name) }
        span.tile-value { (cells.show(id)) }
        span.tile-unit { (unit) }
    };
    html! {
        @if let Some(link) = link { a.tile href=(link) { (inner) } }
        @else { div.tile { (inner) } }
    }
}

fn states(cells: &Cells) -> Markup {
    html! {
        table.compact {
            thead { tr { th scope="col" { "State" } th.num scope="col" { "Queues" } th.num scope="col" { "Ready" } th.num scope="col" { "In flight" } } }
            tbody {
                @for state in QueueState::ALL.map(QueueState::as_str) {
                    tr {
                        th scope="row" { a href={ "/queues?state=" (state) } { (state_word(state)) } }
                        td.num { (cells.show(&format!("o-queues-{state}"))) }
                        td.num { (cells.show(&format!("o-ready-{state}"))) }
                        td.num { (cells.show(&format!("o-unacked-{state}"))) }
                    }
                }
            }
            tfoot { tr { th scope="row" { "all" }
                td.num { (cells.show("o-queues")) } td.num { (cells.show("o-ready")) } td.num { (cells.show("o-unacked")) } } }
        }
    }
}

fn firing(snapshot: &Snapshot) -> Markup {
    const SHOWN: usize = 6;
    let firing = snapshot.firing.as_deref().map_or(&[][..], |f| f.as_slice());
    html! {
        section.card #firing data-refresh="5" aria-labelledby="firing-title" {
            h2 #firing-title { "Firing now" }
            @if firing.is_empty() {
                (layout::nothing(if snapshot.firing.is_ok() { "Nothing fires." } else { "Not known: the store does not answer." }))
            } @else {
                ul.lines {
                    @for state in firing.iter().take(SHOWN) {
                        @let rule = snapshot.rules.iter().find(|r| r.id == state.rule);
                        li {
                            span.dot data-tone="bad" {} " "
                            b { (rule.map_or(state.rule.as_str(), |r| r.name.as_str())) }
                            " " span.dim { (state.device) " of " (state.account) ", since " (format::time(state.since)) }
                        }
                    }
                }
                @if firing.len() > SHOWN { p { a href="/alerts" { "and " (firing.len() - SHOWN) " more" } } }
            }
        }
    }
}
