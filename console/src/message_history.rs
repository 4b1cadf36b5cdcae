//! The history of a message: from the call that brought it to the store and the alerts.

use axum::Extension;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Redirect, Response};
use maud::{Markup, html};

use super::access::Visitor;
use super::backends::HistoryStep;
use super::observer::within_timeout;
use super::table::{Column, list as cards};
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
    page.frame(&visitor, "/trace", "Trace", &params, Vec::new(), &content).await
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
    let content = html! {
        p.crumbs { a href="/trace" { "Trace" } " / " (format::shortened(&message, 60)) }
        h1 { "Message " code { (format::shortened(&message, 80)) } }
        @if steps.is_empty() { (layout::nothing("Nothing is known of this message: it is unknown, too old, or still on its way.")) }
        @else {
            (summary(&steps))
            (waterfall(&steps))
        }
    };
    page.frame(&visitor, "/trace", "Trace", &params, notices, &content).await
}

/// How long it took in all, and where most of it went.
fn summary(steps: &[HistoryStep]) -> Markup {
    let (Some(first), Some(last)) = (steps.first(), steps.last()) else { return html! {} };
    let longest = steps.windows(2).max_by_key(|pair| pair[1].at.millis_since(pair[0].at));
    html! {
        p.dim { (steps.len()) " steps in " b { (format::millis(last.at.millis_since(first.at) as f64)) }
            @if let Some([before, after]) = longest {
                @let waited = after.at.millis_since(before.at);
                @if waited > 0 { ", " (format::millis(waited as f64)) " of them between " b { (before.place) } " and " b { (after.place) } }
            }
        }
    }
}

/// Each step with the time since the step before it as a bar on the time of the whole.
fn waterfall(steps: &[HistoryStep]) -> Markup {
    let columns = [
        Column::name("Where"),
        Column::number("At"),
        Column::number("Took"),
        Column::text("Course"),
        Column::wrapped("What"),
        Column::text("Time, UTC"),
    ];
    let start = steps.first().map_or(0, |step| step.at.as_millis());
    let whole = steps.iter().map(|step| step.at.as_millis() - start).max().unwrap_or(0).max(1);
    let mut before = start;
    let rows = steps.iter().map(|step| {
        let at = step.at.as_millis();
        // Clocks of several machines need not agree.
        let (from, took) = (before.min(at) - start, (at - before).max(0));
        before = before.max(at);
        let share = |ms: i64| (ms.max(0) as f64 / whole as f64 * 100.0).min(100.0);
        let (x, width) = (share(from), share(took).max(0.6));
        [
            html! { (step.place) },
            html! { "+" (format::millis((at - start).max(0) as f64)) },
            html! { (format::millis(took as f64)) },
            html! {
                svg.waterfall viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true" {
                    rect.track x="0" y="0" width="100" height="10" {}
                    rect.step x=(format!("{:.2}", x.min(100.0 - width))) y="1" width=(format!("{width:.2}")) height="8" {}
                }
            },
            html! { (step.what) },
            html! { time datetime=(step.at.to_string()) { (step.at.to_string()) } },
        ]
    });
    cards("The way of the message", &columns, rows)
}

#[cfg(test)]
mod tests {
    use galerna_model::Timestamp;

    use super::*;

    #[test]
    fn each_step_is_a_bar_from_the_step_before_to_it() {
        let step = |at: i64, place: &str| HistoryStep {
            at: Timestamp(at),
            place: place.to_owned(),
            what: "<b>".to_owned(),
        };
        let steps =
            [step(1_000, "frontend"), step(1_250, "broker"), step(2_000, "store"), step(1_900, "notifier")];
        let shown = waterfall(&steps).into_string();
        for bar in [r#"x="0.00" y="1" width="25.00""#, r#"x="25.00" y="1" width="75.00""#] {
            assert!(shown.contains(bar), "no {bar} in {shown}");
        }
        assert!(!shown.contains("<b>"), "{shown}");
        let told = summary(&steps[..3]).into_string();
        assert!(
            told.contains("3 steps in <b>1.0 s</b>") && told.contains("<b>broker</b> and <b>store</b>"),
            "{told}"
        );
    }
}
