//! The messages that wait in a queue, looked at without taking them.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use maud::html;

use super::access::Visitor;
use super::observer::within_timeout;
use super::problem::Problem;
use super::queues::name_of;
use super::table::{Column, list as cards};
use super::{Page, Params, format, layout, message_text, param, shown};

/// Messages shown.
const LIMITS: [usize; 3] = [20, 50, 200];

/// `GET /queues/<queue>/messages`
pub(super) async fn show(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    Path(queue): Path<String>,
    axum::extract::Query(params): Params,
) -> Response {
    let shown_page = async {
        let name = name_of(&queue)?;
        let limit = param(&params, "limit").parse().ok().filter(|l| LIMITS.contains(l)).unwrap_or(LIMITS[0]);
        let mut notices = Vec::new();
        let looked = tokio::join!(
            within_timeout("the broker", page.parts.broker.peek(&name, limit)),
            within_timeout("the broker", page.parts.broker.depth(&name)),
        );
        let (waiting, depth) = match looked {
            (_, Err(problem)) => return Err(Problem::Unknown(problem)),
            (Ok(waiting), Ok(depth)) => (waiting, depth),
            (Err(problem), Ok(depth)) => {
                notices.push(problem);
                (Vec::new(), depth)
            }
        };
        let path = format!("/queues/{}/messages", layout::encoded(&queue));
        let columns = [
            Column::number("Place"),
            Column::name("Message"),
            Column::text("Source"),
            Column::number("Delivered"),
            Column::number("Replayed"),
            Column::actions(),
        ];
        let rows = waiting.iter().enumerate().map(|(place, w)| {
            let message = &w.message;
            [
                html! { (format::count(place as u64 + 1)) },
                message_text::folded(&message.body, &message.content_type, &message.id),
                message_text::source_link(message_text::source(message).as_ref()),
                html! { @if w.deliveries > 0 { (w.deliveries) "×" } @else { span.dim { "never" } } },
                html! { @if w.replays > 0 { (w.replays) "×" } @else { span.dim { "never" } } },
                html! { a.button.small href={ "/trace/" (layout::encoded(&message.id)) } { "Trace" } },
            ]
        });
        let content = html! {
            p.crumbs { a href="/queues" { "Queues" } " / " a href={ "/queues/" (layout::encoded(&queue)) } { (queue) } " / messages" }
            div.title { h1 { "What waits in " (queue) }
                p.dim { (format::count(depth.ready)) " ready, " (format::count(depth.unacked)) " in flight" } }
            p.hint { "The next to be delivered comes first. Nothing is taken: what is shown stays where it is."
                @if page.parts.broker.kind() == "rabbitmq" { " RabbitMQ counts each look as a delivery, and while the queue is consumed it cannot be looked at: pause it first." } }
            nav.chips aria-label="How many" {
                @for choice in LIMITS {
                    a.chip href={ (path) "?limit=" (choice) } aria-current=[(choice == limit).then_some("true")] { "first " (choice) }
                }
            }
            @if !waiting.is_empty() { (cards("Waiting messages", &columns, rows)) }
            @else if notices.is_empty() { (layout::nothing("Nothing waits in it.")) }
        };
        let title = format!("What waits in {queue}");
        Ok(page.frame(&visitor, "/queues", &title, &params, notices, &content).await)
    };
    shown(shown_page.await)
}
