//! The audit log: who did what, to what, why and when.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use maud::html;

use super::access::Visitor;
use super::layout::{Query, open_pager, scrolling};
use super::observer::within_timeout;
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
            @let table = html! {
                table {
                    thead { tr { th scope="col" { "When" } th scope="col" { "Who" } th scope="col" { "What" } th scope="col" { "Target" } th scope="col" { "Why" } th scope="col" { "Outcome" } } }
                    tbody {
                        @for e in &entries {
                            tr {
                                td { (layout::when(e.at, now)) }
                                td { (if e.who.is_empty() { "–" } else { e.who.as_str() }) " " span.dim { (e.role) } }
                                td { code { (e.action) } }
                                td.wrap { (e.target) }
                                td.wrap { (e.why.as_deref().unwrap_or("")) }
                                td.wrap { @if e.done { (e.outcome) } @else { span.pill data-tone="bad" { "not done" } " " (e.outcome) } }
                            }
                        }
                    }
                }
            };
            (scrolling("Audit log", &table))
            (open_pager("/audit", &query, number, LIMIT, entries.len()))
        }
    };
    page.frame(&visitor, "/audit", "Audit log", &params, notices, &content)
}
