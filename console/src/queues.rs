//! Queues: thousands of them, paged, searched, filtered and sorted by the dispatcher.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use galerna_dispatcher::{QueueView, StatusPage, StatusQuery, StrategyName};
use galerna_model::{QueueName, Timestamp};
use galerna_storage::QueueState;
use maud::{Markup, html};

use super::access::Visitor;
use super::cells::{self, state_tone, state_word};
use super::layout::{Query, asking_button, button, form_start, pager, when_text};
use super::observer::TIMEOUT;
use super::problem::Problem;
use super::table::{Column, list as cards};
use super::{Page, Params, format, layout, notices, page_number, param};

/// Queues on a page.
const LIMITS: [usize; 4] = [25, 50, 100, 500];
/// The form whose boxes stand in the list.
const BULK: &str = "bulk";

/// Calls the dispatcher with a timeout.
pub(super) async fn ask<T>(
    call: impl Future<Output = Result<T, galerna_dispatcher::AdminError>>,
) -> Result<T, Problem> {
    match tokio::time::timeout(TIMEOUT, call).await {
        Ok(answer) => answer.map_err(Problem::from),
        Err(_) => {
            Err(Problem::Unavailable(format!("the dispatcher did not answer within {} s", TIMEOUT.as_secs())))
        }
    }
}

pub(super) fn name_of(text: &str) -> Result<QueueName, Problem> {
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
    let cells = cells::of_snapshot(&snapshot);
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
                    (bulk(&visitor, status, &query))
                    (table(&visitor, status, &query, page.now()))
                }
                (pager("/queues", &query, number, limit, status.total))
            }
        }
    };
    page.frame(&visitor, "/queues", "Queues", &params, notices, &content).await
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

/// What is done to the queues that are ticked, or to all that match.
fn bulk(visitor: &Visitor, status: &StatusPage, query: &Query<'_>) -> Markup {
    let value = |key: &str| query.0.iter().find(|(k, _)| *k == key).map_or("", |(_, v)| v.as_str());
    let cannot = !visitor.may_act();
    let all = format!("all {}", format::count(status.total as u64));
    html! {
        form.buttons id=(BULK) method="post" action="/queues/pause" {
            (form_start(visitor, &query.link("/queues")))
            input type="hidden" name="matching.state" value=(value("state"));
            input type="hidden" name="matching.search" value=(value("search"));
            button.small type="submit" disabled[cannot] { "Pause selected" }
            button.small type="submit" formaction="/queues/unpause" disabled[cannot] { "Unpause selected" }
            button.small type="submit" name="all" value="true" disabled[cannot] { "Pause " (all) }
            button.small type="submit" formaction="/queues/unpause" name="all" value="true" disabled[cannot] { "Unpause " (all) }
        }
    }
}

fn table(visitor: &Visitor, status: &StatusPage, query: &Query<'_>, now: Timestamp) -> Markup {
    let sort = query.0.iter().find(|(k, _)| *k == "sort").map_or("", |(_, v)| v.as_str());
    let sort = if sort.is_empty() { "queue" } else { sort };
    let by = |column: Column, key: &str| column.sortable("/queues", query, sort, key);
    let back = query.link("/queues");
    let columns = [
        Column::choice("queues[]", Some(BULK)),
        by(Column::name("Queue"), "queue"),
        by(Column::text("Account"), "account"),
        by(Column::text("State"), "state"),
        by(Column::number("Ready"), "ready"),
        by(Column::number("In flight"), "unacked"),
        Column::text("Holder"),
        by(Column::number("Last leased"), "last_delivered"),
        by(Column::number("In this state since"), "since"),
        by(Column::number("Crashes"), "re_leases"),
        Column::wrapped("Reason"),
        Column::actions(),
    ];
    let rows = status.queues.iter().map(|q| {
        [
            html! { label { span.sr { "Select " (q.queue) } input type="checkbox" name="queues[]" value=(q.queue) form=(BULK); } },
            html! { a href={ "/queues/" (layout::encoded(&q.queue)) } { (q.queue) } },
            html! { (q.account) },
            html! { span.pill data-tone=(state_tone(&q.state).as_str()) { (state_word(&q.state)) } },
            html! { (format::count(q.ready)) },
            html! { (format::count(q.unacked)) },
            html! { (q.holder.as_deref().unwrap_or("–")) },
            when_text(q.last_delivered.as_deref(), now),
            when_text(Some(&q.since), now),
            html! { @if q.re_leases > 0 { b data-tone="warn" { (q.re_leases) } } @else { "0" } },
            html! { (q.reason.as_deref().unwrap_or("")) },
            pause_button(visitor, q, &back),
        ]
    });
    cards("Queues", &columns, rows)
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
