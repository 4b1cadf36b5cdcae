//! The audit log: who did what, to what, why and when.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use galerna_model::Timestamp;
use galerna_storage::AuditEntry;
use maud::{Markup, html};

use super::access::Visitor;
use super::layout::{Query, open_pager};
use super::observer::within_timeout;
use super::table::{Column, list as cards};
use super::{Page, Params, layout, page_number, param};

/// Entries on a page.
const LIMIT: usize = 50;

/// `GET /audit`
pub(super) async fn show(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let mut notices = Vec::new();
    let search = param(&params, "search");
    let number = page_number(&params);
    let wanted = Some(search).filter(|s| !s.is_empty());
    let listed = page.parts.store.audit.list(wanted, (number - 1) * LIMIT, LIMIT);
    let entries = within_timeout("the store", listed).await.unwrap_or_else(|e| {
        notices.push(e);
        Vec::new()
    });
    let query = Query(vec![("search", search.to_owned()), ("page", number.to_string())]);
    let now = page.now();
    let content = html! {
        div.title { h1 { "Audit log" } p.dim { "what operators did, by this page and its API" } }
        form.search method="get" action="/audit" role="search" {
            label.inline { span.sr { "Contains" } input type="search" name="search" value=(search) placeholder="Who, what, target or reason" maxlength="200"; }
            button type="submit" { "Search" }
        }
        @if entries.is_empty() && notices.is_empty() { (layout::nothing(if search.is_empty() { "Nobody has done anything yet." } else { "Nothing matches." })) }
        @else if !entries.is_empty() {
            (table(&entries, now))
            (open_pager("/audit", &query, number, LIMIT, entries.len()))
        }
    };
    page.frame(&visitor, "/audit", "Audit log", &params, notices, &content).await
}

fn table(entries: &[AuditEntry], now: Timestamp) -> Markup {
    let columns = [
        Column::text("When"),
        Column::text("Who"),
        Column::name("What"),
        Column::wrapped("Target"),
        Column::wrapped("Why"),
        Column::wrapped("Outcome"),
    ];
    let rows = entries.iter().map(|e| {
        [
            layout::when(e.at, now),
            html! { (if e.who.is_empty() { "–" } else { e.who.as_str() }) " " span.dim { (e.role) } },
            html! { code { (e.action) } },
            html! { (e.target) },
            html! { (e.why.as_deref().unwrap_or("")) },
            html! { @if e.done { (e.outcome) } @else { span.pill data-tone="bad" { "not done" } " " (e.outcome) } },
        ]
    });
    cards("Audit log", &columns, rows)
}
