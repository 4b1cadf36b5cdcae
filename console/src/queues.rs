//! Queues: thousands of them, paged, searched, filtered and sorted by the dispatcher; and one of them.

use std::collections::HashMap;

use async_trait::async_trait;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use galerna_audit::Action;
use galerna_dispatcher::{QueueView, StatusPage, StatusQuery, StrategyName};
use galerna_model::QueueName;
use galerna_storage::QueueState;
use maud::{Markup, html};
use serde::Deserialize;

use super::access::Visitor;
use super::act::{Act, Done, Question};
use super::cells::{self, state_tone, state_word};
use super::layout::{Frame, Query, asking_button, button, form_start, pager, scrolling, sortable, when_text};
use super::observer::{TIMEOUT, within_timeout};
use super::problem::Problem;
use super::{Page, Params, format, layout, notices, page_number, param, shown};

/// Queues on a page.
const LIMITS: [usize; 4] = [25, 50, 100, 500];

/// Calls the dispatcher with patience.
async fn ask<T>(call: impl Future<Output = Result<T, galerna_dispatcher::AdminError>>) -> Result<T, Problem> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(answer) => answer.map_err(Problem::from),
        Err(_) => Err(Problem::Away(format!("the dispatcher did not answer within {} s", TIMEOUT.as_secs()))),
    }
}

fn name_of(text: &str) -> Result<QueueName, Problem> {
    QueueName::new(text).map_err(|e| Problem::Invalid(e.to_string()))
}

/// `GET /queues`
pub(super) async fn list(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let text = |name: &str| Some(param(&params, name).to_owned()).filter(|t| !t.is_empty());
    let number = page_number(&params);
    let limit = param(&params, "limit").parse().ok().filter(|l| LIMITS.contains(l)).unwrap_or(50);
    let wanted = StatusQuery {
        state: text("state"),
        search: text("search"),
        sort: text("sort"),
        page: Some(number),
        limit: Some(limit),
    };
    let snapshot = page.snapshot().await;
    let mut notices = notices(&snapshot);
    let status = match ask(page.parts.dispatcher.status(&wanted)).await {
        Ok(status) => Some(status),
        Err(problem) => {
            let text = problem.to_string();
            if !notices.contains(&text) {
                notices.push(text);
            }
            None
        }
    };
    let query = Query(vec![
        ("state", text("state").unwrap_or_default()),
        ("search", text("search").unwrap_or_default()),
        ("sort", text("sort").unwrap_or_default()),
        ("limit", if limit == 50 { String::new() } else { limit.to_string() }),
        ("page", if number == 1 { String::new() } else { number.to_string() }),
    ]);
    let cells = cells::of_look(&snapshot);
    let content = html! {
        div.title { h1 { "Queues" } p.dim { (cells.show("o-queues")) " queues, " (cells.show("o-ready")) " messages ready" } }
        (dispatching(&visitor, &snapshot.dispatcher, &query))
        @if let Some(status) = &status {
            (filters(status, &query, limit))
            section #rows data-refresh="5" {
                @if status.queues.is_empty() {
                    (layout::nothing(if status.counts.values().all(|n| *n == 0) {
                        "There is no queue yet. Each account gets one when the maintainer first sees it."
                    } else { "No queue matches." }))
                } @else {
                    (scrolling("Queues", &table(&visitor, status, &query, page.now())))
                }
                (pager("/queues", &query, number, limit, status.total))
            }
        }
    };
    page.frame(&visitor, "/queues", "Queues", &params, notices, &content)
}

fn dispatching(visitor: &Visitor, seen: &Result<StatusPage, String>, query: &Query<'_>) -> Markup {
    let Ok(status) = seen else { return html! {} };
    let view = &status.dispatcher;
    let back = query.link("/queues");
    html! {
        section.card.bar aria-label="Dispatching" {
            div {
                span.pill data-tone=(if view.running { "good" } else { "warn" }) data-cell="o-running" { (if view.running { "running" } else { "stopped" }) }
                " by strategy " b data-cell="o-strategy" { (view.strategy.as_str()) }
                p.dim data-cell="o-why" { (cells::why_strategy(view)) }
            }
            div.buttons {
                form.inline method="post" action="/dispatcher/strategy" {
                    (form_start(visitor, &back))
                    label.inline { "Strategy "
                        select name="strategy" disabled[!visitor.may_act()] {
                            @for strategy in StrategyName::ALL {
                                option value=(strategy.as_str()) selected[strategy == view.configured] { (strategy.as_str()) }
                            }
                        }
                    }
                    input type="text" name="reason" size="16" maxlength="200" placeholder="Reason, optional" aria-label="Reason, optional";
                    button type="submit" disabled[!visitor.may_act()] { "Set" }
                }
                @if view.running { (button(visitor, "/dispatcher/stop", &[], "Stop dispatching", "danger", &back)) }
                @else { (button(visitor, "/dispatcher/start", &[], "Start dispatching", "primary", &back)) }
            }
        }
    }
}

fn filters(status: &StatusPage, query: &Query<'_>, limit: usize) -> Markup {
    let value = |key: &str| query.0.iter().find(|(k, _)| *k == key).map_or("", |(_, v)| v.as_str());
    let chip = |state: &str, name: &str, n: usize| {
        let link = query.with("state", state).with("page", "").link("/queues");
        html! { a.chip href=(link) aria-current=[(value("state") == state).then_some("true")] { (name) " " b { (format::count(n as u64)) } } }
    };
    html! {
        div.filters {
            nav.chips #chips data-refresh="5" aria-label="By state" {
                (chip("", "all", status.counts.values().sum()))
                @for state in QueueState::ALL.map(QueueState::as_str) {
                    (chip(state, state_word(state), status.counts.get(state).copied().unwrap_or(0)))
                }
            }
            form.search method="get" action="/queues" role="search" {
                (query.hidden(&["search", "page", "limit"]))
                label.inline { span.sr { "Queue, account or holder contains" }
                    input type="search" name="search" value=(value("search")) placeholder="Queue, account or holder" maxlength="200"; }
                label.inline { span.sr { "Rows on a page" }
                    select name="limit" { @for l in LIMITS { option value=(l) selected[l == limit] { (l) } } } }
                button type="submit" { "Search" }
            }
        }
    }
}

fn table(visitor: &Visitor, status: &StatusPage, query: &Query<'_>, now: galerna_model::Timestamp) -> Markup {
    let sort = query.0.iter().find(|(k, _)| *k == "sort").map_or("", |(_, v)| v.as_str());
    let sort = if sort.is_empty() { "queue" } else { sort };
    let head = |key: &str, name: &str, numeric: bool| sortable("/queues", query, sort, key, name, numeric);
    let back = query.link("/queues");
    html! {
        table {
            thead { tr {
                (head("queue", "Queue", false)) (head("account", "Account", false)) (head("state", "State", false))
                (head("ready", "Ready", true)) (head("unacked", "In flight", true)) th scope="col" { "Holder" }
                (head("last_delivered", "Last leased", true)) (head("since", "In this state since", true))
                (head("re_leases", "Crashes", true)) th scope="col" { "Reason" } th scope="col" { span.sr { "Action" } }
            } }
            tbody {
                @for q in &status.queues {
                    tr {
                        th scope="row" { a href={ "/queues/" (layout::encoded(&q.queue)) } { (q.queue) } }
                        td { (q.account) }
                        td { span.pill data-tone=(state_tone(&q.state).as_str()) { (state_word(&q.state)) } }
                        td.num { (format::count(q.ready)) }
                        td.num { (format::count(q.unacked)) }
                        td.dim { (q.holder.as_deref().unwrap_or("–")) }
                        td.num { (when_text(q.last_delivered.as_deref(), now)) }
                        td.num { (when_text(Some(&q.since), now)) }
                        td.num { @if q.re_leases > 0 { b data-tone="warn" { (q.re_leases) } } @else { "0" } }
                        td.wrap { (q.reason.as_deref().unwrap_or("")) }
                        td.act { (pause_button(visitor, q, &back)) }
                    }
                }
            }
        }
    }
}

fn pause_button(visitor: &Visitor, q: &QueueView, back: &str) -> Markup {
    match q.state.as_str() {
        "pause" => {
            asking_button(visitor, "/queues/unpause", &[("queue", &q.queue)], "Unpause", "small", back)
        }
        "delete" => html! {},
        _ => asking_button(visitor, "/queues/pause", &[("queue", &q.queue)], "Pause", "small", back),
    }
}

/// `GET /queues/<queue>`
pub(super) async fn one(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    Path(queue): Path<String>,
    axum::extract::Query(params): Params,
) -> Response {
    shown(show_one(&page, &visitor, &queue, params).await)
}

async fn show_one(
    page: &Page,
    visitor: &Visitor,
    queue: &str,
    params: HashMap<String, String>,
) -> Result<Response, Problem> {
    let name = name_of(queue)?;
    let view = ask(page.parts.dispatcher.queue(&name)).await?;
    let snapshot = page.snapshot().await;
    let mut notices = notices(&snapshot);
    let depth = match within_timeout("the broker", page.parts.broker.depth(&name)).await {
        Ok(depth) => Some(depth),
        Err(e) => {
            notices.push(e);
            None
        }
    };
    let dead =
        snapshot.dead.as_ref().ok().map(|dead| dead.iter().find(|(q, _)| *q == name).map_or(0, |(_, n)| *n));
    let mut cells = cells::of_look(&snapshot);
    cells::of_queue(&mut cells, &view);
    let path = format!("/queues/{}", layout::encoded(queue));
    let now = page.now();
    let content = html! {
        p.crumbs { a href="/queues" { "Queues" } " / " (view.queue) }
        div.title { h1 { (view.queue) " " (cells.pill("q-state")) } p.dim { "account " (view.account) } }
        section.card aria-label="Pause or unpause" {
            @if view.state == "pause" {
                p { "Paused" @if let Some(reason) = &view.reason { ": " b { (reason) } } ". Nobody consumes it until it is unpaused." }
                form.row method="post" action="/queues/unpause" {
                    (form_start(visitor, &path))
                    input type="hidden" name="queue" value=(view.queue);
                    label.grow { "Reason " small { "optional" } input type="text" name="reason" maxlength="200" placeholder="Why it may be consumed again"; }
                    button.primary type="submit" disabled[!visitor.may_act()] { "Unpause" }
                }
            } @else if view.state == "delete" {
                p { "Its account is gone: it is deleted once it is empty, or after the grace time." @if let Some(reason) = &view.reason { " " (reason) } }
            } @else {
                form.row method="post" action="/queues/pause" {
                    (form_start(visitor, &path))
                    input type="hidden" name="queue" value=(view.queue);
                    label.grow { "Reason " small { "optional" } input type="text" name="reason" maxlength="200" placeholder="Why nobody is to consume it"; }
                    button type="submit" disabled[!visitor.may_act()] { "Pause" }
                }
            }
        }
        div.columns {
            section.card aria-labelledby="lease-title" {
                h2 #lease-title { "Lease" }
                dl.facts {
                    div { dt { "Holder" } dd { (cells.show("q-holder")) } }
                    div { dt { "Time left" } dd.num { (cells.show("q-left")) } }
                    div { dt { "Epoch" } dd.num { (cells.show("q-epoch")) } }
                    div { dt { "Holders that crashed in a row" } dd.num { (cells.show("q-re-leases")) } }
                    @if view.not_before.is_some() { div { dt { "Not leased before" } dd { (when_text(view.not_before.as_deref(), now)) } } }
                    div { dt { "Last leased" } dd { (when_text(view.last_delivered.as_deref(), now)) } }
                    div { dt { "In this state since" } dd { (when_text(Some(&view.since), now)) } }
                }
            }
            section.card aria-labelledby="messages-title" {
                h2 #messages-title { "Messages" }
                dl.facts {
                    div { dt { "Ready, last counted" } dd.num { (cells.show("q-ready")) } }
                    div { dt { "In flight, last counted" } dd.num { (cells.show("q-unacked")) } }
                    div { dt { "Counted" } dd { (when_text(view.counted_at.as_deref(), now)) } }
                    @if let Some(depth) = depth {
                        div { dt { "Broker says now" } dd.num { (format::count(depth.ready)) " ready, " (format::count(depth.unacked)) " in flight"
                            @if depth.delayed > 0 { ", " (format::count(depth.delayed)) " wait for redelivery" } } }
                    }
                    div { dt { "Dead letters" } dd.num {
                        a href={ "/dead-letters/" (layout::encoded(queue)) } { (dead.map_or("–".to_owned(), format::count)) } } }
                }
            }
        }
    };
    let title = format!("Queue {queue}");
    let flash = page.flash(&params);
    // Its numbers come with the stream of updates.
    let frame = Frame { visitor, here: "/queues", title: &title, flash, notices, queue: Some(queue) };
    Ok(frame.page(&content).into_response())
}

/// Blocks a queue.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Pause {
    queue: String,
    reason: Option<String>,
}

#[async_trait]
impl Act for Pause {
    const NAME: &'static str = Action::Pause.name();

    fn target(&self) -> String {
        self.queue.clone()
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn back(&self) -> String {
        format!("/queues/{}", layout::encoded(&self.queue))
    }

    async fn run(&self, page: &Page, visitor: &Visitor) -> Result<Done, Problem> {
        let queue = name_of(&self.queue)?;
        ask(page.parts.dispatcher.pause(&queue, self.reason.clone(), &visitor.name)).await?;
        Ok(Done::new(format!("queue {queue} is paused")))
    }
}

/// Unblocks a queue.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Unpause {
    queue: String,
    reason: Option<String>,
}

#[async_trait]
impl Act for Unpause {
    const NAME: &'static str = Action::Unpause.name();

    fn target(&self) -> String {
        self.queue.clone()
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn back(&self) -> String {
        format!("/queues/{}", layout::encoded(&self.queue))
    }

    async fn run(&self, page: &Page, visitor: &Visitor) -> Result<Done, Problem> {
        let queue = name_of(&self.queue)?;
        ask(page.parts.dispatcher.unpause(&queue, &visitor.name)).await?;
        Ok(Done::new(format!("queue {queue} is no longer paused")))
    }
}

/// No more leases.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Stop {
    reason: Option<String>,
}

#[async_trait]
impl Act for Stop {
    const NAME: &'static str = Action::Stop.name();

    fn target(&self) -> String {
        "dispatcher".to_owned()
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn question(&self) -> Option<Question> {
        Some(Question {
            title: "Stop dispatching?".to_owned(),
            text: "No queue is leased any more until somebody starts it again, after a restart too. Leases that are held can still be \
                   renewed and given back; messages wait in their queues."
                .to_owned(),
            verb: "Stop dispatching",
        })
    }

    fn back(&self) -> String {
        "/queues".to_owned()
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        ask(page.parts.dispatcher.set_running(false)).await?;
        Ok(Done::new("the dispatcher leases no more queues"))
    }
}

/// Leases again.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    reason: Option<String>,
}

#[async_trait]
impl Act for Start {
    const NAME: &'static str = Action::Start.name();

    fn target(&self) -> String {
        "dispatcher".to_owned()
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn back(&self) -> String {
        "/queues".to_owned()
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        ask(page.parts.dispatcher.set_running(true)).await?;
        Ok(Done::new("the dispatcher leases queues again"))
    }
}

/// Another strategy.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SetStrategy {
    strategy: StrategyName,
    reason: Option<String>,
}

#[async_trait]
impl Act for SetStrategy {
    const NAME: &'static str = Action::Strategy.name();

    fn target(&self) -> String {
        self.strategy.to_string()
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn back(&self) -> String {
        "/queues".to_owned()
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        ask(page.parts.dispatcher.set_strategy(self.strategy)).await?;
        Ok(Done::new(format!("the next queue is chosen by {}", self.strategy)))
    }
}
