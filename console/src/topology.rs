//! The topology: its graph with load, and what each component does and why it does not.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use galerna_html::graph::NodeState;
use maud::{Markup, html};

use super::access::Visitor;
use super::cells::{self, Cells};
use super::observer::{Component, Snapshot};
use super::table::{Column, Row, list as cards};
use super::{Page, Params, format, layout, none_configured, notices};

/// What each state of a spout means, and what helps.
const STATES: [(&str, &str); 7] = [
    ("emitting", "it takes messages from its queues and emits them"),
    (
        "no data",
        "the queues that it could lease hold no messages, or the dispatcher leases none: look at the queues",
    ),
    (
        "pending full",
        "as many messages are in flight as worker.max_pending allows: they are being worked on; look at p99 and at the busiest bolt",
    ),
    (
        "downstream full",
        "the queue of the named bolt is full: that bolt is the bottleneck; give it more executors, or see why it waits",
    ),
    ("paused", "the topology is not active"),
    ("draining", "the process stops: what is in flight is finished first"),
    ("done", "it will never have anything again"),
];

/// `GET /topology`
pub(super) async fn show(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let snapshot = page.snapshot().await;
    let cells = cells::of_snapshot(&snapshot);
    let graph = &page.topology;
    let table = table(&snapshot, &cells);
    let spouts: Vec<&Component> = snapshot.components.iter().filter(|c| c.is_spout()).collect();
    let content = html! {
        div.title {
            h1 { "Topology " span.dim { (graph.name) } }
            p.dim {
                (cells.show("o-workers")) " running"
                @if let Some(ms) = graph.message_timeout_ms { " · message timeout " (format::span(i64::try_from(ms).unwrap_or(i64::MAX))) }
                " · rates of the last seconds, latencies since the start" }
        }
        (none_configured(&snapshot))
        div.graph-frame { (layout::scrolling("The graph of the topology", &graph.draw(&cells, |id| snapshot.component(id).map(state_of)))) }
        p.narrow.hint { "The graph is shown on a wider screen; the components below say the same." }
        @if snapshot.components.is_empty() && snapshot.unresponsive.is_empty() && !snapshot.none_configured { (layout::nothing("No worker runs here. Start one with `galerna worker`, or `galerna up`.")) }
        section.card aria-labelledby="why-title" {
            h2 #why-title { "Why is a spout not emitting?" }
            @for spout in &spouts {
                p { b { (spout.id) } ": " (cells.pill(&format!("c-{}-state", spout.id))) }
            }
            dl.meanings {
                @for (state, meaning) in STATES { div { dt { (state) } dd { (meaning) } } }
            }
        }
        h2 { "Components" }
        (table)
        section #failures data-refresh="5" aria-labelledby="failures-title" {
            h2 #failures-title { "Failures" }
            (failures(&snapshot))
        }
    };
    page.frame(&visitor, "/topology", "Topology", &params, notices(&snapshot), &content).await
}

fn state_of(c: &Component) -> NodeState {
    NodeState::new(c.executors, c.rate, c.failed_rate, c.capacity)
}

fn table(snapshot: &Snapshot, cells: &Cells) -> Markup {
    let columns = [
        Column::name("Component"),
        Column::text("Kind"),
        Column::number("Rate"),
        Column::number("In all"),
        Column::number("Acked"),
        Column::number("Failed"),
        Column::number("Waiting"),
        Column::number("Busy"),
        Column::number("p50"),
        Column::number("p99"),
        Column::number("Longest"),
        Column::number("Errors"),
        Column::number("Restarts"),
    ];
    let rows = snapshot.components.iter().map(|c| {
        let cell = |what: &str| cells.show(&format!("c-{}-{what}", c.id));
        let shown = [
            html! { (c.id) },
            html! { (c.kind) " ×" (c.executors) @if let Some(with) = &c.fused_with { span.dim { " in the task of " (with) } } },
            cell("rate"),
            cell("done"),
            cell("acked"),
            cell("failed"),
            cell(if c.is_spout() { "pending" } else { "queued" }),
            html! { @if c.is_spout() { span.dim { "–" } } @else { (cell("capacity")) } },
            cell("p50"),
            cell("p99"),
            html! { span title={ "latency to " (c.latency_of) } { (format::millis(c.latency.max_ms)) } },
            html! { (format::count(c.errors)) },
            html! { (format::count(c.restarts)) },
        ];
        Row::with_id(format!("component-{}", c.id), shown)
    });
    cards("Components", &columns, rows)
}

fn failures(snapshot: &Snapshot) -> Markup {
    let failing: Vec<&Component> =
        snapshot.components.iter().filter(|c| c.failures() > 0 || c.last_error.is_some()).collect();
    let columns = [
        Column::name("Where"),
        Column::wrapped("How many, by reason"),
        Column::wrapped("Last error"),
        Column::text("When"),
    ];
    let rows = failing.iter().map(|c| {
        let last = c.last_error.as_ref();
        [
            html! { (c.id) },
            html! { @for (kind, n) in c.failed.iter().filter(|(_, n)| **n > 0) { span.pair { (kind) " " b.num { (format::count(*n)) } } " " } },
            html! { @if let Some((error, _)) = last { (format::shortened(&error.reason, 400)) } @else { span.dim { "–" } } },
            html! { @if let Some((_, at)) = last { (layout::when(*at, snapshot.at)) } },
        ]
    });
    html! {
        @if failing.is_empty() { (layout::nothing("Nothing has failed since the workers started.")) }
        @else { (cards("Failures", &columns, rows)) }
    }
}
