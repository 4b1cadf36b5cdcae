//! The program itself: its version, and the configuration that it runs with.

use axum::Extension;
use axum::extract::State;
use axum::response::Response;
use maud::html;

use super::access::Visitor;
use super::table::{Column, list as cards};
use super::{Page, Params, access, format};

/// `GET /about`
pub(super) async fn show(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let uptime = i64::try_from(page.started.elapsed().as_millis()).unwrap_or(i64::MAX);
    let columns = [Column::name("Setting"), Column::wrapped("Value"), Column::text("From")];
    let rows = page.parts.config.iter().map(|setting| {
        [
            html! { code { (setting.key) } },
            html! { @if setting.value.is_empty() { span.dim { "unset" } } @else { (setting.value) } },
            html! { (setting.origin) },
        ]
    });
    let content = html! {
        h1 { "About" }
        dl.facts {
            div { dt { "Galerna" } dd { (page.parts.version) } }
            div { dt { "This page runs for" } dd { (format::span(uptime)) } }
            div { dt { "Broker" } dd { (page.parts.broker.kind()) } }
            div { dt { "Statistics of sources" } dd { (if page.parts.statistics.is_some() { "kept" } else { "not kept here" }) } }
            div { dt { "Access" } dd {
                @if page.access_control.is_open() { "no tokens: everybody who reaches this page on this machine is an operator" }
                @else { "viewer and operator tokens; sessions last " (access::SESSION_LENGTH.as_secs() / 3600) " h" }
            } }
        }
        h2 { "Configuration" }
        p.hint { "As this process runs with it. Secrets are hidden." }
        (cards("Configuration", &columns, rows))
    };
    page.frame(&visitor, "/about", "About", &params, Vec::new(), &content).await
}
