//! One queue: its lease, its messages, how much waited lately, and what happened to it.

use std::collections::HashMap;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use galerna_dispatcher::TransitionView;
use galerna_model::Timestamp;
use maud::{Markup, html};

use super::access::Visitor;
use super::cells::{self, state_tone, state_word};
use super::chart::{Chart, Line, Range};
use super::layout::{Frame, form_start, when_text};
use super::observer::within_timeout;
use super::problem::Problem;
use super::queues::{ask, name_of};
use super::table::{Column, list as cards};
use super::{Page, Params, depths, format, layout, notices, shown};

const CHART: Chart = Chart {
    title: "Messages",
    unit: "waiting and in flight",
    lines: &[
        Line { key: "ready", name: "ready", tone: 1 },
        Line { key: "unacked", name: "in flight", tone: 2 },
    ],
};

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
    let (snapshot, transitions) =
        tokio::join!(page.snapshot(), ask(page.parts.dispatcher.transitions(&name)));
    let mut notices = notices(&snapshot);
    let depth = match within_timeout("the broker", page.parts.broker.depth(&name)).await {
        Ok(depth) => Some(depth),
        Err(e) => {
            notices.push(e);
            None
        }
    };
    let transitions = match transitions {
        Ok(found) => found.transitions,
        Err(e) => {
            notices.push(e.to_string());
            Vec::new()
        }
    };
    let range = Range::of(&params);
    let lately = page.parts.depths.of(queue, range.from(page.now()));
    let dead =
        snapshot.dead.as_ref().ok().map(|dead| dead.iter().find(|(q, _)| *q == name).map_or(0, |(_, n)| *n));
    let mut cells = cells::of_snapshot(&snapshot);
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
                p.buttons {
                    a.button.small href={ (path) "/messages" } { "Look at what waits" }
                    a.button.small href=(layout::Query(vec![("search", view.account.clone())]).link("/sources")) { "Sources of the account" }
                    a.button.small href=(layout::Query(vec![("account", view.account.clone())]).link("/alerts")) { "Its alerts" }
                    a.button.small href=(layout::Query(vec![("search", view.queue.clone())]).link("/audit")) { "What operators did" }
                }
            }
        }
        section aria-labelledby="chart-title" {
            h2 #chart-title { "Lately" }
            (range.choice(&path, &layout::Query::default(), depths::KEPT_MS))
            div.charts #charts data-refresh="10" { (CHART.draw(&lately, page.now(), range)) }
            p.hint { "As the maintainer counts them, every 10 s, kept by this page since it started and for six hours." }
        }
        section #transitions data-refresh="5" aria-labelledby="transitions-title" {
            h2 #transitions-title { "Last transitions" }
            @if transitions.is_empty() { (layout::nothing("This dispatcher has written none since it started.")) }
            @else { (past(&transitions, now)) }
        }
    };
    let title = format!("Queue {queue}");
    let flash = page.flash(&params);
    // Its numbers come with the stream of updates.
    let look = Some(snapshot);
    let frame = Frame {
        visitor,
        here: "/queues",
        title: &title,
        flash,
        notices,
        queue: Some(queue),
        look,
        searched: "",
    };
    Ok(frame.page(&content).into_response())
}

fn past(transitions: &[TransitionView], now: Timestamp) -> Markup {
    let columns = [
        Column::text("When"),
        Column::name("What"),
        Column::text("State"),
        Column::number("Epoch"),
        Column::wrapped("Who"),
        Column::wrapped("Why"),
    ];
    let state =
        |state: &str| html! { span.pill data-tone=(state_tone(state).as_str()) { (state_word(state)) } };
    let rows = transitions.iter().map(|t| {
        [
            when_text(Some(&t.at), now),
            html! { (t.event.replace('_', " ")) },
            html! { (state(&t.from)) " → " (state(&t.to)) },
            html! { (format::count(t.epoch)) },
            html! { (t.actor) },
            html! { (t.reason.as_deref().unwrap_or("")) },
        ]
    });
    cards("Last transitions", &columns, rows)
}
