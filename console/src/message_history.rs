//! The history of a message: from the call that brought it to the store and the alerts.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use maud::html;

use super::access::Visitor;
use super::layout::scrolling;
use super::observer::within_timeout;
use super::{Page, Params, format, layout, param};

/// `GET /trace`
pub(super) async fn ask(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let id = param(&params, "id");
    if !id.is_empty() {
        return Redirect::to(&format!("/trace/{}", layout::encoded(id))).into_response();
    }
    let content = html! {
        h1 { "Trace" }
        p.hint { "The way of a message, with times. Its id stands in the answer of the frontend, beside the last messages of a source, and in the log." }
        form.search method="get" action="/trace" role="search" {
            label.inline { span.sr { "Id of the message" } input type="search" name="id" placeholder="Id of a message" maxlength="200" required; }
            button type="submit" { "Follow" }
        }
    };
    page.frame(&visitor, "/trace", "Trace", &params, Vec::new(), &content)
}

/// `GET /trace/<message>`
pub(super) async fn show(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    Path(message): Path<String>,
    axum::extract::Query(params): Params,
) -> Response {
    let mut notices = Vec::new();
    let steps = match &page.parts.traces {
        None => {
            notices.push("the history of messages is not kept here".to_owned());
            Vec::new()
        }
        Some(traces) => {
            within_timeout("the store of traces", traces.trace(&message)).await.unwrap_or_else(|e| {
                notices.push(e);
                Vec::new()
            })
        }
    };
    let first = steps.first().map(|step| step.at);
    let content = html! {
        p.crumbs { a href="/trace" { "Trace" } " / " (format::shortened(&message, 60)) }
        h1 { "Message " code { (format::shortened(&message, 80)) } }
        @if steps.is_empty() { (layout::nothing("Nothing is known of this message: it is unknown, too old, or still on its way.")) }
        @else {
            @let table = html! {
                table.tall {
                    thead { tr { th scope="col" { "Time, UTC" } th.num scope="col" { "After" } th scope="col" { "Where" } th scope="col" { "What" } } }
                    tbody {
                        @for step in &steps {
                            tr {
                                td { time datetime=(step.at.to_string()) { (step.at.to_string()) } }
                                td.num { (first.map_or(String::new(), |f| format::span(step.at.millis_since(f)))) }
                                th scope="row" { (step.place) }
                                td.wrap { (step.what) }
                            }
                        }
                    }
                }
            };
            (scrolling("The way of the message", &table))
        }
    };
    page.frame(&visitor, "/trace", "Trace", &params, notices, &content)
}
