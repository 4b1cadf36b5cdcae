//! Deliveries: what endpoints were told, each attempt, and sending again.

use async_trait::async_trait;
use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use galerna_model::{AccountId, AlertEventKind, Timestamp};
use galerna_storage::{Delivery, DeliveryFilter, DeliveryPage, DeliveryStatus, Resent};
use maud::{Markup, html};

use super::access::Visitor;
use super::act::{ActOn, ById, Done};
use super::cells::Tone;
use super::layout::{Query, pager};
use super::observer::within_timeout;
use super::problem::Problem;
use super::table::{Column, list as cards};
use super::{Page, Params, format, layout, page_number, param};

/// Deliveries on a page.
const LIMIT: usize = 50;

fn tone(status: DeliveryStatus) -> Tone {
    match status {
        DeliveryStatus::Pending => Tone::Warn,
        DeliveryStatus::Delivered => Tone::Good,
        DeliveryStatus::Dead => Tone::Bad,
        DeliveryStatus::Suppressed => Tone::Plain,
    }
}

/// `GET /deliveries`
pub(super) async fn list(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let mut notices = Vec::new();
    let text = |name: &str| Some(param(&params, name).to_owned()).filter(|t| !t.is_empty());
    let status = DeliveryStatus::ALL.into_iter().find(|s| s.as_str() == param(&params, "status"));
    let account =
        text("account").and_then(|a| AccountId::new(a).map_err(|e| notices.push(e.to_string())).ok());
    let filter = DeliveryFilter { status, endpoint: text("endpoint"), account, text: text("text") };
    let number = page_number(&params);
    let found = page.parts.store.notifications.deliveries(&filter, (number - 1) * LIMIT, LIMIT);
    let found = within_timeout("the store", found).await.map_err(|e| notices.push(e)).ok();
    let query = Query(vec![
        ("status", status.map_or(String::new(), |s| s.as_str().to_owned())),
        ("endpoint", text("endpoint").unwrap_or_default()),
        ("account", text("account").unwrap_or_default()),
        ("text", text("text").unwrap_or_default()),
        ("page", if number == 1 { String::new() } else { number.to_string() }),
    ]);
    let value = |key: &str| param(&params, key);
    let content = html! {
        div.title { h1 { "Deliveries" } p.dim { "what endpoints were told of alerts" } }
        div.filters {
            @if let Some(found) = &found { (chips(found, status, &query)) }
            form.search method="get" action="/deliveries" role="search" {
                (query.hidden(&["endpoint", "account", "text", "page"]))
                label.inline { span.sr { "Endpoint" } input type="search" name="endpoint" value=(value("endpoint")) placeholder="Endpoint id" maxlength="120"; }
                label.inline { span.sr { "Account" } input type="search" name="account" value=(value("account")) placeholder="Account" maxlength="120"; }
                label.inline { span.sr { "Text" } input type="search" name="text" value=(value("text")) placeholder="Rule, device or message" maxlength="200"; }
                button type="submit" { "Search" }
            }
        }
        section #rows data-refresh="5" {
            @if let Some(found) = &found {
                @if found.deliveries.is_empty() { (layout::nothing("No delivery matches.")) }
                @else {
                    (table(&visitor, &found.deliveries, &query.link("/deliveries"), page.now()))
                    (pager("/deliveries", &query, number, LIMIT, total(found, status)))
                }
            }
        }
    };
    page.frame(&visitor, "/deliveries", "Deliveries", &params, notices, &content).await
}

fn total(found: &DeliveryPage, status: Option<DeliveryStatus>) -> usize {
    let counted = found.counts.iter().filter(|(s, _)| status.is_none_or(|only| only == *s));
    usize::try_from(counted.map(|(_, n)| n).sum::<u64>()).unwrap_or(usize::MAX)
}

fn chips(found: &DeliveryPage, status: Option<DeliveryStatus>, query: &Query<'_>) -> Markup {
    let chip = |of: Option<DeliveryStatus>, n: u64| {
        let name = of.map_or("all", DeliveryStatus::as_str);
        let link =
            query.with("status", of.map_or("", DeliveryStatus::as_str)).with("page", "").link("/deliveries");
        html! { a.chip href=(link) aria-current=[(status == of).then_some("true")] { (name) " " b { (format::count(n)) } } }
    };
    html! {
        nav.chips #chips data-refresh="5" aria-label="By status" {
            (chip(None, found.counts.iter().map(|(_, n)| n).sum()))
            @for (status, n) in found.counts { (chip(Some(status), n)) }
        }
    }
}

fn table(visitor: &Visitor, deliveries: &[Delivery], back: &str, now: Timestamp) -> Markup {
    let columns = [
        Column::name("Endpoint"),
        Column::text("Made"),
        Column::wrapped("Status"),
        Column::wrapped("Events"),
        Column::wrapped("Attempts"),
        Column::text("Next try"),
        Column::actions(),
    ];
    let rows = deliveries.iter().map(|d| {
        [
            html! { (d.endpoint) @if d.test { " " span.pill data-tone="plain" { "test" } } },
            layout::when(d.created, now),
            html! { span.pill data-tone=(tone(d.status).as_str()) { (d.status.as_str()) } @if let Some(reason) = &d.reason { " " span.dim { (format::shortened(reason, 200)) } } },
            events(d),
            attempts(d, now),
            html! { @if d.status == DeliveryStatus::Pending { (layout::when(d.next_try, now)) } @else { span.dim { "–" } } },
            layout::asking_button(visitor, "/deliveries/resend", &[("id", &d.id)], "Resend", "small", back),
        ]
    });
    cards("Deliveries", &columns, rows)
}

fn events(d: &Delivery) -> Markup {
    html! {
        @for e in d.events.iter().take(3) {
            div { (match e.kind { AlertEventKind::Raised => "raised", AlertEventKind::Resolved => "resolved" }) ": " b { (e.rule_name) } " " (e.device) " " span.dim { (format::shortened(&e.message, 120)) } }
        }
        @if d.events.len() > 3 { div.dim { "and " (d.events.len() - 3) " more" } }
    }
}

fn attempts(d: &Delivery, now: Timestamp) -> Markup {
    html! {
        @if d.attempts.is_empty() { span.dim { "none" } }
        @else {
            details {
                summary { (d.attempts.len()) @if let Some(last) = d.attempts.last() { ", last " (layout::when(last.at, now)) } }
                ol.lines { @for a in &d.attempts {
                    li { (format::time(a.at)) " · " (a.status.map_or("no answer".to_owned(), |s| s.to_string())) " · " (format::millis(a.took_ms as f64))
                        @if let Some(error) = &a.error { " · " (format::shortened(error, 300)) } }
                } }
            }
        }
    }
}

/// Sends a delivery again.
pub(super) struct Resend;

#[async_trait]
impl ActOn for Resend {
    const NAME: &'static str = "delivery.resend";
    type Request = ById;

    fn back(_: &ById) -> String {
        "/deliveries".to_owned()
    }

    async fn run(request: &ById, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        match page.parts.store.notifications.resend(&request.id, page.now()).await? {
            Resent::Yes(delivery) => Ok(Done::new(format!("endpoint {} is told again", delivery.endpoint))),
            Resent::InProgress => Err(Problem::Conflict(
                "a notifier is at this delivery now; wait until it has ended".to_owned(),
            )),
            Resent::Unknown => Err(Problem::Unknown(format!("there is no delivery `{}`", request.id))),
        }
    }
}
