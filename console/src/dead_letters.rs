//! Dead letters: of all queues, grouped by reason and searched; and of one queue.

use std::collections::HashMap;

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use galerna_broker::DeadLetter;
use galerna_model::{QueueName, Timestamp};
use maud::{Markup, html};

use super::access::Visitor;
use super::layout::{Query, form_start, open_pager, pager};
use super::letters::{Filter, Group, Letter, groups};
use super::observer::within_timeout;
use super::problem::Problem;
use super::table::{Column, list as table};
use super::{Page, Params, format, layout, message_text, page_number, param, shown};

/// Rows on a page.
const LIMIT: usize = 50;

pub(super) fn name_of(text: &str) -> Result<QueueName, Problem> {
    QueueName::new(text).map_err(|e| Problem::Invalid(e.to_string()))
}

/// `GET /dead-letters`
pub(super) async fn all(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let look = page.letters.look(&*page.parts.broker).await;
    let text = |name: &str| param(&params, name).to_owned();
    let filter =
        Filter { queue: text("queue"), source: text("source"), text: text("text"), kind: text("kind") };
    let matching: Vec<&Letter> = look.letters.iter().filter(|letter| filter.matches(letter)).collect();
    let (total, number) = (matching.len(), page_number(&params));
    let query = filter.query().with("page", if number == 1 { String::new() } else { number.to_string() });
    let now = page.now();
    let content = html! {
        div.title { h1 { "Dead letters" } p.dim { (format::count(look.total)) " in all queues" } }
        p.hint { "Messages that failed too often, or hold a reading that can never be stored. They are kept until they are replayed or discarded." }
        @if look.is_partial() {
            div.notice data-tone="warn" { strong { "Not all are shown" } " " (format::count(look.letters.len() as u64)) " of " (format::count(look.total))
                ": the oldest of each queue. What is done to all that match is done to these; repeat it for the rest." }
        }
        (search(&filter))
        section #rows data-refresh="10" {
            @if total == 0 {
                (layout::nothing(if look.total == 0 { "There are no dead letters." } else { "No dead letter matches." }))
            } @else {
                @if filter.kind.is_empty() { (by_reason(&groups(&matching), &filter, now)) }
                @else { p { "Of one reason: " code { (filter.kind) } " · " a href=(Query(filter.query().with("kind", "").0).link("/dead-letters")) { "all reasons" } } }
                h2 { "Letters " span.count { (format::count(total as u64)) } }
                (letters(&visitor, &matching, number, &filter, &query, now))
                (pager("/dead-letters", &query, number, LIMIT, total))
            }
        }
    };
    page.frame(&visitor, "/dead-letters", "Dead letters", &params, look.problems.clone(), &content).await
}

fn search(filter: &Filter) -> Markup {
    html! {
        form.search method="get" action="/dead-letters" role="search" {
            @if !filter.kind.is_empty() { input type="hidden" name="kind" value=(filter.kind); }
            label.inline { span.sr { "Queue contains" } input type="search" name="queue" value=(filter.queue) placeholder="Queue" maxlength="200"; }
            label.inline { span.sr { "Source contains" } input type="search" name="source" value=(filter.source) placeholder="Source" maxlength="200"; }
            label.inline { span.sr { "Reason, id or message contains" } input type="search" name="text" value=(filter.text) placeholder="Reason, id or message" maxlength="200"; }
            button type="submit" { "Search" }
        }
    }
}

fn by_reason(groups: &[Group<'_>], filter: &Filter, now: Timestamp) -> Markup {
    let columns = [
        Column::name("Reason"),
        Column::text("Where"),
        Column::number("Letters"),
        Column::number("Queues"),
        Column::number("Replayed before"),
        Column::number("First"),
        Column::number("Last"),
    ];
    let rows = groups.iter().map(|group| {
        let link = filter.query().with("kind", group.kind).link("/dead-letters");
        [
            html! { a href=(link) { (format::shortened(group.example, 200)) } },
            html! { (group.component) },
            html! { (format::count(group.letters as u64)) },
            html! { (format::count(group.queues as u64)) },
            html! { (format::count(group.replayed as u64)) },
            layout::when(group.first, now),
            layout::when(group.last, now),
        ]
    });
    html! {
        h2 { "By reason " span.count { (format::count(groups.len() as u64)) } }
        (table("Dead letters by reason", &columns, rows))
    }
}

/// The buttons; `all` says what is done to those that are not ticked.
fn buttons(visitor: &Visitor, all: &str) -> Markup {
    let cannot = !visitor.may_act();
    html! {
        div.buttons {
            button.primary type="submit" disabled[cannot] { "Replay selected" }
            button type="submit" name="all" value="true" disabled[cannot] { "Replay " (all) }
            button.danger type="submit" formaction="/dead-letters/discard" disabled[cannot] { "Discard selected" }
            button.danger type="submit" formaction="/dead-letters/discard" name="all" value="true" disabled[cannot] { "Discard " (all) }
        }
    }
}

fn letters(
    visitor: &Visitor,
    matching: &[&Letter],
    number: usize,
    filter: &Filter,
    query: &Query<'_>,
    now: Timestamp,
) -> Markup {
    let columns = [
        Column::choice("letters[]", None),
        Column::text("Died"),
        Column::name("Queue"),
        Column::text("Source"),
        Column::wrapped("Why"),
        Column::text("Where"),
        Column::number("Replayed"),
        Column::wrapped("Message"),
    ];
    let rows = matching.iter().skip((number - 1) * LIMIT).take(LIMIT).map(|l| {
        let letter = &l.letter;
        [
            html! { label { span.sr { "Select " (l.queue) " " (letter.id) } input type="checkbox" name="letters[]" value={ (l.queue) "/" (letter.id) }; } },
            layout::when(letter.at, now),
            html! { a href={ "/dead-letters/" (layout::encoded(l.queue.as_str())) } { (l.queue) } },
            message_text::source_link(l.source.as_ref()),
            html! { (format::shortened(&letter.failure.reason, 400)) },
            html! { (letter.failure.component) },
            replays(letter.replays),
            message_text::folded(&letter.body, &letter.content_type, &letter.id),
        ]
    });
    let all = format!("all {} that match", format::count(matching.len() as u64));
    html! {
        form method="post" action="/dead-letters/replay" {
            (form_start(visitor, &query.link("/dead-letters")))
            input type="hidden" name="matching" value="true";
            @for (name, value) in &filter.query().0 { input type="hidden" name={ "matching." (name) } value=(value); }
            (buttons(visitor, &all))
            (table("Dead letters", &columns, rows))
        }
    }
}

fn replays(n: u32) -> Markup {
    html! { @if n > 0 { b data-tone="warn" { (n) "×" } } @else { span.dim { "never" } } }
}

/// `GET /dead-letters/<queue>`
pub(super) async fn of_queue(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    Path(queue): Path<String>,
    axum::extract::Query(params): Params,
) -> Response {
    shown(show(&page, &visitor, &queue, &params).await)
}

async fn show(
    page: &Page,
    visitor: &Visitor,
    queue: &str,
    params: &HashMap<String, String>,
) -> Result<Response, Problem> {
    let name = name_of(queue)?;
    let number = page_number(params);
    let letters =
        within_timeout("the broker", page.parts.broker.dead_letters(&name, (number - 1) * LIMIT, LIMIT))
            .await;
    let (letters, notices) = match letters {
        Ok(letters) => (letters, Vec::new()),
        Err(e) => (Vec::new(), vec![e]),
    };
    let path = format!("/dead-letters/{}", layout::encoded(queue));
    let query = Query(vec![("page", number.to_string())]);
    let content = html! {
        p.crumbs { a href="/dead-letters" { "Dead letters" } " / " (queue) }
        div.title { h1 { "Dead letters of " (queue) } p.dim { a href={ "/queues/" (layout::encoded(queue)) } { "the queue" } } }
        @if letters.is_empty() && notices.is_empty() { (layout::nothing("There are none (any more).")) }
        @else if !letters.is_empty() {
            form method="post" action="/dead-letters/replay" {
                (form_start(visitor, &path))
                input type="hidden" name="queue" value=(queue);
                (buttons(visitor, "all"))
                (of_one(&letters, page.now()))
                (open_pager(&path, &query, number, LIMIT, letters.len()))
            }
        }
    };
    let title = format!("Dead letters of {queue}");
    Ok(page.frame(visitor, "/dead-letters", &title, params, notices, &content).await)
}

fn of_one(letters: &[DeadLetter], now: Timestamp) -> Markup {
    let columns = [
        Column::choice("ids[]", None),
        Column::text("Died"),
        Column::wrapped("Why"),
        Column::text("Where"),
        Column::number("Deliveries"),
        Column::number("Replayed"),
        Column::wrapped("Message"),
    ];
    let rows = letters.iter().map(|letter| {
        [
            html! { label { span.sr { "Select " (letter.id) } input type="checkbox" name="ids[]" value=(letter.id); } },
            layout::when(letter.at, now),
            html! { (format::shortened(&letter.failure.reason, 400)) },
            html! { (letter.failure.component) },
            html! { (letter.deliveries) },
            replays(letter.replays),
            message_text::folded(&letter.body, &letter.content_type, &letter.id),
        ]
    });
    table("Dead letters", &columns, rows)
}
