//! The page: a list of topologies, and each with its graph, its components and what can be done with it.
//!
//! [`list`] and [`one`] are contents for whoever has a frame of its own; [`routes`] is the page by itself.

use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use axum::routing::get;
use galerna_html::cells::{Cells, Tone, capacity_tone};
use galerna_html::format::{self, plural, shortened};
use galerna_html::frame::Menu;
use galerna_html::graph::NodeState;
use galerna_html::query::{encoded, nothing, scrolling};
use galerna_html::table::{Column, Row, list as cards};
use galerna_html::{assets, frame};
use galerna_http::ApiError;
use maud::{Markup, html};

use crate::autoscale::Autoscale;
use crate::error::ControlError;
use crate::topologies::{Status, Topologies};
use crate::upgrade::Upgrade;
use crate::view::{ComponentView, Details, Summary};

/// What can be done with a topology from a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Let its spouts emit.
    Activate,
    /// Have its spouts stop emitting.
    Deactivate,
    /// Take a checkpoint.
    Checkpoint,
    /// Take a checkpoint, and end it so that another program goes on from there.
    Upgrade,
    /// End it.
    Kill,
}

impl Action {
    /// What can be done with it now.
    pub fn on(details: &Details) -> impl Iterator<Item = Self> {
        let actions: &[Self] = match details.summary.status {
            Status::Active => &[Self::Deactivate, Self::Checkpoint, Self::Upgrade, Self::Kill],
            Status::Inactive => &[Self::Activate, Self::Checkpoint, Self::Upgrade, Self::Kill],
            Status::Ending | Status::Finished | Status::Killed => &[],
        };
        let takes = details.checkpoints.is_some();
        actions
            .iter()
            .copied()
            .filter(move |action| takes || !matches!(action, Self::Checkpoint | Self::Upgrade))
    }

    /// Its name in paths.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Activate => "activate",
            Self::Deactivate => "deactivate",
            Self::Checkpoint => "checkpoint",
            Self::Upgrade => "upgrade",
            Self::Kill => "kill",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Activate, Self::Deactivate, Self::Checkpoint, Self::Upgrade, Self::Kill]
            .into_iter()
            .find(|action| action.as_str() == text)
    }

    /// On a button.
    pub fn verb(self) -> &'static str {
        match self {
            Self::Activate => "Activate",
            Self::Deactivate => "Deactivate",
            Self::Checkpoint => "Take a checkpoint",
            Self::Upgrade => "End for an upgrade",
            Self::Kill => "Kill",
        }
    }

    /// The class of its button.
    pub fn class(self) -> &'static str {
        match self {
            Self::Activate => "primary",
            Self::Deactivate | Self::Checkpoint | Self::Upgrade => "plain",
            Self::Kill => "danger",
        }
    }

    /// What it will do, to be asked first.
    pub fn question(self, name: &str) -> String {
        match self {
            Self::Activate => format!("The spouts of `{name}` emit again."),
            Self::Deactivate => {
                format!(
                    "The spouts of `{name}` emit nothing until it is activated again. What is on its way goes on."
                )
            }
            Self::Checkpoint => {
                format!("What `{name}` has done so far is written, and acked to its sources.")
            }
            Self::Upgrade => format!(
                "A checkpoint is taken, and `{name}` ends, so that a new program goes on from there. What that would make of the state is \
                 told by `galerna topology upgrade {name} --dry-run --declares FILE`."
            ),
            Self::Kill => format!(
                "`{name}` emits nothing any more; what is pending is waited for, for its message timeout at most, and then it \
                 is gone from this process."
            ),
        }
    }
}

/// The tone of what a topology does.
pub fn tone(status: Status) -> Tone {
    match status {
        Status::Active => Tone::Good,
        Status::Inactive | Status::Ending => Tone::Warn,
        Status::Finished | Status::Killed => Tone::Plain,
    }
}

fn pill(status: Status) -> Markup {
    html! { span.pill data-tone=(tone(status).as_str()) { (status.as_str()) } }
}

fn uptime(ms: u64) -> String {
    format::span(i64::try_from(ms).unwrap_or(i64::MAX))
}

fn rate(rate: Option<f64>) -> String {
    rate.map_or_else(|| "–".to_owned(), format::rate)
}

/// A list of topologies, each with a link.
pub fn list(topologies: &[Summary], link: impl Fn(&Summary) -> String) -> Markup {
    let columns = [
        Column::name("Topology"),
        Column::text("Status"),
        Column::number("Rate").explained("roots/s"),
        Column::number("Done"),
        Column::number("Failed"),
        Column::number("Pending"),
        Column::number("Executors"),
        Column::number("Runs for"),
        Column::wrapped("Why not faster"),
    ];
    let rows = topologies.iter().map(|t| {
        [
            html! { a href=(link(t)) { (t.name) } @if t.name != t.topology { " " span.dim { (t.topology) } } },
            pill(t.status),
            html! { (rate(t.rate)) },
            html! { (format::count(t.acked)) },
            html! { b data-tone=(if t.failed > 0 { "warn" } else { "plain" }) { (format::count(t.failed)) } },
            html! { (format::count(t.pending)) },
            html! { (format::count(t.executors as u64)) },
            html! { (uptime(t.uptime_ms)) },
            html! { (t.why_slow) },
        ]
    });
    html! {
        @if topologies.is_empty() { (nothing("No topology runs here.")) }
        @else { (cards("Topologies", &columns, rows)) }
    }
}

/// The numbers of a topology's components, as its drawing has them.
fn cells(details: &Details) -> Cells {
    let mut cells = Cells::default();
    for c in &details.component_metrics {
        let id = |what: &str| format!("c-{}-{what}", c.id);
        cells.plain(id("rate"), format!("{}/s", rate(c.rate)));
        let capacity = c.capacity.map_or_else(|| "–".to_owned(), |busy| format!("{:.0} %", busy * 100.0));
        cells.set(id("capacity"), capacity, capacity_tone(c.capacity));
        cells.plain(id("p50"), format::millis(c.latency().p50_ms));
        cells.plain(id("p99"), format::millis(c.latency().p99_ms));
        let failing = c.failed_rate.is_some_and(|rate| rate > 0.0);
        let failed_tone = match c.failures() {
            0 => Tone::Plain,
            _ if failing => Tone::Bad,
            _ => Tone::Warn,
        };
        cells.set(id("failed"), format::count(c.failures()), failed_tone);
        cells.plain(id("queued"), format::count(c.queued as u64));
        cells.plain(id("pending"), format::count(c.pending));
        if c.is_spout() {
            let emits = c.states.iter().any(|state| state == "emitting");
            let mut states = c.states.clone();
            states.sort_unstable();
            states.dedup();
            let tone = if emits { Tone::Good } else { Tone::Plain };
            cells.set(id("state"), shortened(&states.join(", "), 18), tone);
        }
    }
    cells
}

fn node(c: &ComponentView) -> NodeState {
    NodeState::new(c.executors, c.rate, c.failed_rate, c.capacity)
}

/// One topology, with what can be done with it.
pub fn one(details: &Details, buttons: &Markup) -> Markup {
    let of = &details.summary;
    let cells = cells(details);
    let graph = details.graph().draw(&cells, |id| details.component(id).map(node));
    html! {
        div.title {
            h1 { "Topology " (of.name) " " (pill(of.status)) }
            p.dim {
                @if of.name != of.topology { (of.topology) " · " }
                "runs for " (uptime(of.uptime_ms))
                @if let Some(ms) = details.message_timeout_ms { " · message timeout " (uptime(ms)) }
                @if details.queued_bytes > 0 { " · " (format::bytes(details.queued_bytes as f64)) " queued" }
            }
        }
        div.buttons { (buttons) }
        section.card aria-labelledby="why-title" {
            h2 #why-title { "Why is it not faster?" }
            p { (of.why_slow) }
            @if let Some(ended) = &details.ended {
                p {
                    @if ended.drained { "All that was pending ended before it did." }
                    @else { (format::count(ended.unfinished as u64)) " " (plural(ended.unfinished as u64, "root was", "roots were")) " pending when it ended." }
                    @if !ended.aborted.is_empty() { " Aborted: " (ended.aborted.join(", ")) "." }
                }
            }
        }
        div.graph-frame { (scrolling("The graph of the topology", &graph)) }
        p.narrow.hint { "The graph is shown on a wider screen; the components below say the same." }
        h2 { "Components" }
        (components(details))
        @if !details.states.is_empty() {
            h2 { "State" }
            (states(details))
        }
        h2 { "Failures" }
        (failures(details))
    }
}

fn components(details: &Details) -> Markup {
    let columns = [
        Column::name("Component"),
        Column::text("Kind"),
        Column::number("Executors"),
        Column::number("Rate").explained("/s"),
        Column::number("In all"),
        Column::number("Acked"),
        Column::number("Failed"),
        Column::number("Waiting"),
        Column::number("Busy"),
        Column::number("p50"),
        Column::number("p99"),
        Column::number("Restarts"),
        Column::wrapped("State"),
    ];
    let rows = details.component_metrics.iter().map(|c| {
        let busy = c.capacity.map_or_else(|| "–".to_owned(), |busy| format!("{:.0} %", busy * 100.0));
        let executors = if c.executors == c.tasks {
            format::count(c.executors as u64)
        } else {
            format!("{} of {} tasks", c.executors, c.tasks)
        };
        let bounds = details.autoscaled.iter().find(|of| of.component == c.id);
        let shown = [
            html! { (c.id) },
            html! { (c.kind) @if let Some(with) = &c.fused_with { span.dim { " in the task of " (with) } } },
            html! { (executors) @if let Some(of) = bounds { span.dim { ", follow the load from " (of.min) " to " (of.max) } } },
            html! { (rate(c.rate)) },
            html! { (format::count(if c.is_spout() { c.emitted } else { c.executed })) },
            html! { (format::count(c.acked)) },
            html! { (format::count(c.failures())) },
            html! { (format::count(if c.is_spout() { c.pending } else { c.queued as u64 })) },
            html! { b data-tone=(capacity_tone(c.capacity).as_str()) { (busy) } },
            html! { (format::millis(c.latency().p50_ms)) },
            html! { (format::millis(c.latency().p99_ms)) },
            html! { (format::count(c.restarts)) },
            state(c),
        ];
        Row::with_id(format!("component-{}", c.id), shown)
    });
    cards("Components", &columns, rows)
}

/// What a spout waits for, and where a component is in event time.
fn state(c: &ComponentView) -> Markup {
    let mut states = c.states.clone();
    states.sort_unstable();
    states.dedup();
    html! {
        (states.join(", "))
        @if let Some(watermark) = &c.watermark {
            @match &watermark.held_by {
                Some(holder) if watermark.behind_ms > 0 => { "watermark " (uptime(watermark.behind_ms)) " behind, held by " (holder) }
                _ => { "watermark up to date" }
            }
        }
    }
}

/// What its components keep, and the checkpoints of that.
fn states(details: &Details) -> Markup {
    let columns = [
        Column::name("Component"),
        Column::text("State"),
        Column::text("Kind"),
        Column::number("Version"),
        Column::text("Migrates from"),
    ];
    let rows = details.states.iter().map(|of| {
        let from: Vec<String> = of.migrates_from.iter().map(u32::to_string).collect();
        [
            html! { (of.component) },
            html! { (of.state) },
            html! { (of.kind) },
            html! { (of.version) },
            html! { (if from.is_empty() { "–".to_owned() } else { from.join(", ") }) },
        ]
    });
    html! {
        @match &details.checkpoints {
            None => { p { "It takes no checkpoints: its state is lost when the process ends." } }
            Some(of) => {
                p {
                    @match of.last {
                        Some(last) => { "Checkpoint " (last) ", " (format::bytes(of.state_bytes as f64)) ", " (uptime(of.age_ms)) " ago." }
                        None => { "No checkpoint yet." }
                    }
                    @if let Some(error) = &of.last_error { " " b data-tone="bad" { "The last one came to nothing: " (shortened(error, 400)) } }
                }
                @if !of.at_least_once.is_empty() {
                    p data-tone="warn" { "At least once: " (of.at_least_once.join(", ")) " gave messages without stable ids, so what is delivered again after a crash counts again." }
                }
            }
        }
        (cards("State", &columns, rows))
    }
}

fn failures(details: &Details) -> Markup {
    let failing: Vec<_> =
        details.component_metrics.iter().filter(|c| c.failures() > 0 || c.last_error.is_some()).collect();
    let columns = [
        Column::name("Where"),
        Column::wrapped("How many, by reason"),
        Column::wrapped("Last error"),
        Column::text("When"),
    ];
    let rows = failing.iter().map(|c| {
        [
            html! { (c.id) },
            html! { @for (kind, n) in c.failed.iter().filter(|(_, n)| **n > 0) { span.pair { (kind) " " b.num { (format::count(*n)) } } " " } },
            html! { @if let Some(error) = &c.last_error { (shortened(&error.reason, 400)) } @else { span.dim { "–" } } },
            html! { @if let Some(error) = &c.last_error { (uptime(error.ago_ms)) " ago" } },
        ]
    });
    html! {
        @if failing.is_empty() { (nothing("Nothing has failed.")) } @else { (cards("Failures", &columns, rows)) }
    }
}

/// The page by itself: `/topologies`, `/topologies/{name}`, what can be done there, and its assets.
pub fn routes(topologies: Topologies) -> Router {
    routes_beside(topologies, None)
}

/// The same with the menu of a program.
pub(crate) fn routes_beside(topologies: Topologies, menu: Option<Menu>) -> Router {
    Router::new()
        .route("/topologies", get(show_list))
        .route("/topologies/{name}", get(show_one))
        .route("/topologies/{name}/rebalance", get(ask_rebalance).post(rebalance))
        .route("/topologies/{name}/autoscale", get(ask_autoscale).post(autoscale))
        .route("/topologies/{name}/{action}", get(ask).post(act))
        .route("/assets/{file}", get(asset))
        .with_state(Shown { topologies, menu })
}

async fn asset(Path(file): Path<String>) -> Response {
    match assets::file(&file) {
        Some((kind, text)) => ([(header::CONTENT_TYPE, kind)], text).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// What the page is made of.
#[derive(Clone)]
struct Shown {
    topologies: Topologies,
    menu: Option<Menu>,
}

/// A page with the program's menu, or with the topologies in its menu.
fn framed(shown: &Shown, title: &str, here: Option<&str>, content: &Markup) -> Response {
    if let Some(menu) = &shown.menu {
        return frame::document(title, None, &menu.body("/topologies", content)).into_response();
    }
    let all = shown.topologies.list();
    let body = html! {
        a.skip href="#content" { "Skip to the content" }
        header.top {
            a.brand href="/topologies" { (assets::mark()) span { "Galerna" } }
            (frame::menu_button())
        }
        nav.pages aria-label="Topologies" {
            ul {
                li { a href="/topologies" aria-current=[here.is_none().then_some("page")] { "All topologies" } }
                @for t in &all {
                    li { a href={ "/topologies/" (encoded(&t.name)) } aria-current=[(here == Some(t.name.as_str())).then_some("page")] {
                        (t.name) span.live data-tone=(tone(t.status).as_str()) { (t.status.as_str()) } } }
                }
            }
        }
        main #content tabindex="-1" { (content) }
    };
    frame::document(title, None, &body).into_response()
}

async fn show_list(State(shown): State<Shown>) -> Response {
    let all = shown.topologies.list();
    let content = html! {
        div.title { h1 { "Topologies" } p.dim { (format::count(all.len() as u64)) " in this process" } }
        section #topologies data-refresh="2" { (list(&all, |t| format!("/topologies/{}", encoded(&t.name)))) }
    };
    framed(&shown, "Topologies", None, &content)
}

/// The fields of a form that changes executors, and its button.
pub fn rebalance_fields(details: &Details, may: bool) -> Markup {
    html! {
        label.inline { "Executors of " select name="component" {
            @for c in details.rebalanced() { option value=(c.id) { (c.id) " (" (c.executors) " of " (c.tasks) ")" } }
        } }
        label { span.sr { "How many" } input type="number" name="executors" min="1" max=(details.rebalanced().iter().map(|c| c.tasks).max().unwrap_or(1)) value="1" required; }
        button type="submit" disabled[!may] { "Rebalance" }
    }
}

/// What a rebalance is to change.
#[derive(serde::Deserialize)]
struct Wanted {
    component: String,
    executors: usize,
}

async fn ask_rebalance(
    State(shown): State<Shown>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Response {
    let back = format!("/topologies/{}", encoded(&name));
    let Wanted { component, executors } = wanted;
    let content = html! {
        div.card.confirm {
            h1 { "Rebalance: " (name) }
            p { "From now on " (executors) " " (plural(executors as u64, "task", "tasks")) " of `" (component) "` may execute at the same time. Keys stay where they are." }
            form.stack method="post" action={ (back) "/rebalance?component=" (encoded(&component)) "&executors=" (executors) } {
                div.buttons {
                    button.primary type="submit" { "Rebalance" }
                    a.button href=(back) { "Cancel" }
                }
            }
        }
    };
    framed(&shown, "Rebalance", Some(&name), &content)
}

async fn rebalance(
    State(shown): State<Shown>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Response {
    match shown.topologies.rebalance(&name, &wanted.component, wanted.executors).await {
        Ok(_) => Redirect::to(&format!("/topologies/{}", encoded(&name))).into_response(),
        Err(error) => missing(&shown, error),
    }
}

/// The fields of a form that has executors follow the load, and its button.
pub fn autoscale_fields(details: &Details, may: bool) -> Markup {
    let most = details.rebalanced().iter().map(|c| c.tasks).max().unwrap_or(1);
    html! {
        label.inline { "Follow the load of " select name="component" {
            @for c in details.rebalanced() { option value=(c.id) { (c.id) " (" (c.tasks) " tasks)" } }
        } }
        label { span.sr { "The fewest executors" } input type="number" name="min" min="1" max=(most) value="1" required; }
        label { span.sr { "The most executors" } input type="number" name="max" min="1" max=(most) value=(most) required; }
        button type="submit" disabled[!may] { "Autoscale" }
        @if !details.autoscaled.is_empty() { button type="submit" name="stop" value="true" disabled[!may] { "Stop autoscaling" } }
    }
}

/// Between which bounds executors are to follow the load, or that they are not to any more.
#[derive(serde::Deserialize)]
struct Bounds {
    component: String,
    min: usize,
    max: usize,
    #[serde(default)]
    stop: bool,
}

async fn ask_autoscale(
    State(shown): State<Shown>,
    Path(name): Path<String>,
    Query(bounds): Query<Bounds>,
) -> Response {
    let back = format!("/topologies/{}", encoded(&name));
    let Bounds { component, min, max, stop } = bounds;
    let action =
        format!("{back}/autoscale?component={}&min={min}&max={max}&stop={stop}", encoded(&component));
    let content = html! {
        div.card.confirm {
            h1 { "Autoscale: " (name) }
            @if stop { p { "The executors of `" (component) "` stay as they are from now on." } }
            @else { p { "From now on `" (component) "` has " (min) " to " (max) " executors: more while they are busy, fewer while they are not." } }
            form.stack method="post" action=(action) {
                div.buttons {
                    button.primary type="submit" { (if stop { "Stop autoscaling" } else { "Autoscale" }) }
                    a.button href=(back) { "Cancel" }
                }
            }
        }
    };
    framed(&shown, "Autoscale", Some(&name), &content)
}

async fn autoscale(
    State(shown): State<Shown>,
    Path(name): Path<String>,
    Query(bounds): Query<Bounds>,
) -> Response {
    let done = match bounds.stop {
        true => shown.topologies.stop_autoscale(&name, &bounds.component),
        false => {
            let options = Autoscale::between(bounds.min..=bounds.max);
            shown.topologies.autoscale(&name, &bounds.component, options).await
        }
    };
    match done {
        Ok(()) => Redirect::to(&format!("/topologies/{}", encoded(&name))).into_response(),
        Err(error) => missing(&shown, error),
    }
}

/// What is not there, as a page.
fn missing(shown: &Shown, error: ControlError) -> Response {
    let text = error.to_string();
    let status = ApiError::from(error).status();
    let content = html! {
        h1 { "That cannot be done" }
        div.notice data-tone="bad" role="alert" { (text) }
        p { a href="/topologies" { "All topologies" } }
    };
    (status, framed(shown, "Not done", None, &content)).into_response()
}

async fn show_one(State(shown): State<Shown>, Path(name): Path<String>) -> Response {
    let details = match shown.topologies.get(&name) {
        Ok(details) => details,
        Err(error) => return missing(&shown, error),
    };
    let buttons = html! {
        @for action in Action::on(&details) {
            a.button.(action.class()) href={ "/topologies/" (encoded(&name)) "/" (action.as_str()) } { (action.verb()) }
        }
        @if !details.rebalanced().is_empty() && !details.summary.status.is_over() {
            form.inline method="get" action={ "/topologies/" (encoded(&name)) "/rebalance" } { (rebalance_fields(&details, true)) }
            form.inline method="get" action={ "/topologies/" (encoded(&name)) "/autoscale" } { (autoscale_fields(&details, true)) }
        }
    };
    let content = html! { section #topology data-refresh="2" { (one(&details, &buttons)) } };
    framed(&shown, &name, Some(&name), &content)
}

async fn ask(State(shown): State<Shown>, Path((name, action)): Path<(String, String)>) -> Response {
    let (action, back) = (Action::parse(&action), format!("/topologies/{}", encoded(&name)));
    let (Some(action), Ok(_)) = (action, shown.topologies.get(&name)) else {
        return Redirect::to(&back).into_response();
    };
    let content = html! {
        div.card.confirm {
            h1 { (action.verb()) ": " (name) }
            p { (action.question(&name)) }
            form.stack method="post" action={ (back) "/" (action.as_str()) } {
                div.buttons {
                    button.(action.class()) type="submit" { (action.verb()) }
                    a.button href=(back) { "Cancel" }
                }
            }
        }
    };
    framed(&shown, action.verb(), Some(&name), &content)
}

async fn act(State(shown): State<Shown>, Path((name, action)): Path<(String, String)>) -> Response {
    let done = match Action::parse(&action) {
        Some(Action::Activate) => shown.topologies.activate(&name),
        Some(Action::Deactivate) => shown.topologies.deactivate(&name),
        Some(Action::Checkpoint) => shown.topologies.checkpoint(&name).await.map(drop),
        Some(Action::Upgrade) => shown.topologies.upgrade(&name, Upgrade::default()).await.map(drop),
        Some(Action::Kill) => shown.topologies.begin_kill(&name, None),
        None => Err(ControlError::Unknown(name.as_str().into())),
    };
    match done {
        Ok(()) => Redirect::to(&format!("/topologies/{}", encoded(&name))).into_response(),
        Err(error) => missing(&shown, error),
    }
}
