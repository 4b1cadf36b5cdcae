//! The quick search: queues, sources, rules, endpoints and pages by a part of their names, messages by their ids.

use axum::Extension;
use axum::extract::State;
use axum::response::{IntoResponse, Redirect, Response};
use galerna_dispatcher::StatusQuery;
use maud::html;

use super::access::Visitor;
use super::layout::{Frame, Query};
use super::observer::within_timeout;
use super::queues::ask;
use super::table::{Column, list as cards};
use super::{Page, Params, format, layout, menu, param};

/// Found of each kind.
const MOST: usize = 20;

/// Something found.
struct Hit {
    kind: &'static str,
    name: String,
    more: String,
    link: String,
}

/// `GET /search`
pub(super) async fn show(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let text = param(&params, "q");
    if text.is_empty() {
        return Redirect::to("/").into_response();
    }
    let mut notices = Vec::new();
    let hits = find(&page, text, &mut notices).await;
    if let ([only], true) = (hits.as_slice(), notices.is_empty()) {
        return Redirect::to(&only.link).into_response();
    }
    let columns = [Column::text("What"), Column::name("Name"), Column::wrapped("More")];
    let rows = hits
        .iter()
        .map(|hit| [html! { (hit.kind) }, html! { a href=(hit.link) { (hit.name) } }, html! { (hit.more) }]);
    let as_message = format!("/trace/{}", layout::encoded(text));
    let content = html! {
        div.title { h1 { "Found for " (format::shortened(text, 60)) } p.dim { (format::count(hits.len() as u64)) } }
        @if hits.is_empty() { (layout::nothing("No queue, source, rule, endpoint or page has this in its name.")) }
        @else { (cards("Found", &columns, rows)) }
        p { "Is it the id of a message? " a href=(as_message) { "Follow its way" } " · "
            a href=(Query(vec![("text", text.to_owned())]).link("/dead-letters")) { "search the dead letters" } }
    };
    let (look, title) = (page.look().await, format!("Search: {text}"));
    let frame = Frame {
        visitor: &visitor,
        here: "/search",
        title: &title,
        flash: None,
        notices,
        queue: None,
        look,
        searched: text,
    };
    frame.page(&content).into_response()
}

async fn find(page: &Page, text: &str, notices: &mut Vec<String>) -> Vec<Hit> {
    let wanted = text.to_lowercase();
    let has = |name: &str| name.to_lowercase().contains(&wanted);
    let query = StatusQuery { search: Some(text.to_owned()), limit: Some(MOST), ..StatusQuery::default() };
    let store = &page.parts.store;
    let (queues, sources, rules, endpoints) = tokio::join!(
        ask(page.parts.dispatcher.status(&query)),
        within_timeout("the store", store.sources.list()),
        within_timeout("the store", store.rules.list()),
        within_timeout("the store", store.notifications.endpoints()),
    );
    let mut note = |problem: String| {
        if !notices.contains(&problem) {
            notices.push(problem);
        }
    };
    let mut hits: Vec<Hit> = menu::pages()
        .filter(|(_, name)| has(name))
        .map(|(path, name)| Hit {
            kind: "page",
            name: name.to_owned(),
            more: String::new(),
            link: path.to_owned(),
        })
        .collect();
    match queues {
        Ok(found) => hits.extend(found.queues.into_iter().map(|q| Hit {
            kind: "queue",
            more: format!(
                "account {}, {}, {} ready",
                q.account,
                super::cells::state_word(&q.state),
                format::count(q.ready)
            ),
            link: format!("/queues/{}", layout::encoded(&q.queue)),
            name: q.queue,
        })),
        Err(e) => note(e.to_string()),
    }
    match sources {
        Ok(found) => hits.extend(found.into_iter().filter(|s| has(s.id.as_str())).take(MOST).map(|s| Hit {
            kind: "source",
            name: s.id.to_string(),
            more: format!("account {}", s.account),
            link: format!("/sources/{}", layout::encoded(s.id.as_str())),
        })),
        Err(e) => note(e),
    }
    match rules {
        Ok(found) => {
            hits.extend(found.into_iter().filter(|r| has(&r.id) || has(&r.name)).take(MOST).map(|r| Hit {
                kind: "rule",
                link: Query(vec![("id", r.id.clone())]).link("/rules/edit"),
                name: r.name,
                more: r.id,
            }))
        }
        Err(e) => note(e),
    }
    match endpoints {
        Ok(found) => {
            hits.extend(found.into_iter().filter(|e| has(&e.id) || has(&e.name)).take(MOST).map(|e| Hit {
                kind: "endpoint",
                link: Query(vec![("id", e.id.clone())]).link("/endpoints/edit"),
                name: e.name,
                more: e.id,
            }))
        }
        Err(e) => note(e),
    }
    hits
}
