//! Dead letters: what failed too often, with its reason; replayed or discarded, one, some or all.

use std::collections::HashMap;

use async_trait::async_trait;
use axum::Extension;
use axum::extract::{Path, State};
use axum::response::Response;
use galerna_audit::{Action, letters};
use galerna_broker::{DeadLetter, DeadLetterSelection};
use galerna_model::QueueName;
use maud::{Markup, html};
use serde::Deserialize;
use serde_json::{Value, json};

use super::access::Visitor;
use super::act::{Act, Done, Question};
use super::fields::Fields;
use super::layout::{Query, form_start, open_pager, pager, scrolling};
use super::observer::within_timeout;
use super::problem::Problem;
use super::{Page, Params, format, layout, notices, page_number, param, shown};

/// Rows on a page.
const LIMIT: usize = 50;
/// Of a body, at most so much is shown.
const BODY_SHOWN: usize = 4_000;

fn name_of(text: &str) -> Result<QueueName, Problem> {
    QueueName::new(text).map_err(|e| Problem::Invalid(e.to_string()))
}

/// `GET /dead-letters`
pub(super) async fn queues(
    State(page): State<Page>,
    Extension(visitor): Extension<Visitor>,
    axum::extract::Query(params): Params,
) -> Response {
    let snapshot = page.snapshot().await;
    let search = param(&params, "search").to_lowercase();
    let number = page_number(&params);
    let all = snapshot.dead.as_deref().map_or(&[][..], |dead| dead.as_slice());
    let matching: Vec<_> = all.iter().filter(|(q, _)| q.as_str().to_lowercase().contains(&search)).collect();
    let total = matching.len();
    let query = Query(vec![("search", search.clone()), ("page", number.to_string())]);
    let content = html! {
        div.title { h1 { "Dead letters" } p.dim { (format::count(snapshot.dead_total().unwrap_or(0))) " in " (format::count(all.len() as u64)) " " (format::plural(all.len() as u64, "queue", "queues")) } }
        p.hint { "Messages that failed too often, or hold a reading that can never be stored. They are kept until they are replayed or discarded." }
        form.search method="get" action="/dead-letters" role="search" {
            label.inline { span.sr { "Queue contains" } input type="search" name="search" value=(search) placeholder="Queue" maxlength="200"; }
            button type="submit" { "Search" }
        }
        section #rows data-refresh="5" {
            @if total == 0 { (layout::nothing(if all.is_empty() { "There are no dead letters." } else { "No queue matches." })) }
            @else {
                @let table = html! {
                    table {
                        thead { tr { th scope="col" { "Queue" } th.num scope="col" { "Dead letters" } } }
                        tbody {
                            @for (queue, n) in matching.into_iter().skip((number - 1) * LIMIT).take(LIMIT) {
                                tr {
                                    th scope="row" { a href={ "/dead-letters/" (layout::encoded(queue.as_str())) } { (queue) } }
                                    td.num { (format::count(*n)) }
                                }
                            }
                        }
                    }
                };
                (scrolling("Queues with dead letters", &table))
                (pager("/dead-letters", &query, number, LIMIT, total))
            }
        }
    };
    page.frame(&visitor, "/dead-letters", "Dead letters", &params, notices(&snapshot), &content)
}

/// `GET /dead-letters/<queue>`
pub(super) async fn list(
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
                div.buttons {
                    button.primary type="submit" disabled[!visitor.may_act()] { "Replay selected" }
                    button type="submit" name="all" value="true" disabled[!visitor.may_act()] { "Replay all" }
                    button.danger type="submit" formaction="/dead-letters/discard" disabled[!visitor.may_act()] { "Discard selected" }
                    button.danger type="submit" formaction="/dead-letters/discard" name="all" value="true" disabled[!visitor.may_act()] { "Discard all" }
                }
                (scrolling("Dead letters", &table(&letters, page.now())))
                (open_pager(&path, &query, number, LIMIT, letters.len()))
            }
        }
    };
    let title = format!("Dead letters of {queue}");
    Ok(page.frame(visitor, "/dead-letters", &title, params, notices, &content))
}

fn table(letters: &[DeadLetter], now: galerna_model::Timestamp) -> Markup {
    html! {
        table.tall {
            thead { tr {
                th scope="col" { label { span.sr { "Select all on this page" } input type="checkbox" data-select-all="ids[]"; } }
                th scope="col" { "Died" } th scope="col" { "Why" } th scope="col" { "Where" } th.num scope="col" { "Deliveries" } th scope="col" { "Message" }
            } }
            tbody {
                @for letter in letters {
                    tr {
                        td { label { span.sr { "Select " (letter.id) } input type="checkbox" name="ids[]" value=(letter.id); } }
                        td { (layout::when(letter.at, now)) }
                        td.wrap { (format::shortened(&letter.failure.reason, 400)) }
                        td { (letter.failure.component) }
                        td.num { (letter.deliveries) }
                        td.wrap {
                            details {
                                summary { (format::count(letter.body.len() as u64)) " bytes " span.dim { (letter.content_type) } }
                                pre { (body_text(letter)) }
                                p.dim { "id " code { (letter.id) } }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A body as text: MessagePack and JSON are written out.
fn body_text(letter: &DeadLetter) -> String {
    let parsed: Option<Value> =
        serde_json::from_slice(&letter.body).ok().or_else(|| rmp_serde::from_slice(&letter.body).ok());
    let text = parsed
        .filter(|v| v.is_object() || v.is_array())
        .and_then(|v| serde_json::to_string_pretty(&v).ok())
        .unwrap_or_else(|| String::from_utf8_lossy(&letter.body).into_owned());
    format::shortened(&text, BODY_SHOWN)
}

/// Which letters: all, or those with these ids.
fn selection(all: bool, ids: &[String]) -> Result<DeadLetterSelection, Problem> {
    match (all, ids) {
        (true, []) => Ok(DeadLetterSelection::All),
        (false, ids) if !ids.is_empty() => Ok(DeadLetterSelection::Ids(ids.to_vec())),
        (false, _) => {
            Err(Problem::Invalid("no dead letter is selected; tick some, or choose all".to_owned()))
        }
        (true, _) => Err(Problem::Invalid("say either `all` or `ids`".to_owned())),
    }
}

/// The selection of a form: the button for all goes before ticked boxes.
fn of_form(fields: &Fields) -> (String, bool, Vec<String>, Option<String>) {
    let all = fields.is_on("all");
    let ids = if all { Vec::new() } else { fields.all("ids[]") };
    (fields.text("queue").to_owned(), all, ids, fields.given("reason").map(str::to_owned))
}

fn told(n: usize, verb: &str, queue: &str) -> String {
    format!(
        "{} of {queue} {verb}",
        if n == 1 { "1 dead letter".to_owned() } else { format!("{} dead letters", format::count(n as u64)) }
    )
}

/// Puts dead letters back into their queue.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Replay {
    queue: String,
    #[serde(default)]
    all: bool,
    #[serde(default)]
    ids: Vec<String>,
    reason: Option<String>,
}

#[async_trait]
impl Act for Replay {
    const NAME: &'static str = Action::Replay.name();

    fn from_form(fields: &Fields) -> Result<Self, Problem> {
        let (queue, all, ids, reason) = of_form(fields);
        selection(all, &ids)?;
        Ok(Self { queue, all, ids, reason })
    }

    fn target(&self) -> String {
        letters(&self.queue, self.all, &self.ids)
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn back(&self) -> String {
        format!("/dead-letters/{}", layout::encoded(&self.queue))
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let n = page.parts.broker.replay(&name_of(&self.queue)?, selection(self.all, &self.ids)?).await?;
        Ok(Done::with(told(n, "replayed", &self.queue), json!({ "replayed": n })))
    }
}

/// Deletes dead letters.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Discard {
    queue: String,
    #[serde(default)]
    all: bool,
    #[serde(default)]
    ids: Vec<String>,
    reason: Option<String>,
}

#[async_trait]
impl Act for Discard {
    const NAME: &'static str = Action::Discard.name();

    fn from_form(fields: &Fields) -> Result<Self, Problem> {
        let (queue, all, ids, reason) = of_form(fields);
        selection(all, &ids)?;
        Ok(Self { queue, all, ids, reason })
    }

    fn target(&self) -> String {
        letters(&self.queue, self.all, &self.ids)
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn question(&self) -> Option<Question> {
        let what = match (self.all, self.ids.len()) {
            (true, _) => "all dead letters".to_owned(),
            (false, 1) => "1 dead letter".to_owned(),
            (false, n) => format!("{n} dead letters"),
        };
        Some(Question {
            title: format!("Discard {what} of {}?", self.queue),
            text: "Their messages are deleted. They cannot be brought back.".to_owned(),
            verb: "Discard",
        })
    }

    fn back(&self) -> String {
        format!("/dead-letters/{}", layout::encoded(&self.queue))
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        let n = page.parts.broker.discard(&name_of(&self.queue)?, selection(self.all, &self.ids)?).await?;
        Ok(Done::with(told(n, "discarded", &self.queue), json!({ "discarded": n })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_selection_is_all_or_some_but_never_nothing() {
        let one = vec!["a".to_owned()];
        assert_eq!(selection(true, &[]).unwrap(), DeadLetterSelection::All);
        assert_eq!(selection(false, &one).unwrap(), DeadLetterSelection::Ids(one.clone()));
        assert!(selection(false, &[]).is_err() && selection(true, &one).is_err());
        let fields = Fields::parse(b"queue=D1&ids%5B%5D=a&ids%5B%5D=b&all=true");
        assert_eq!(of_form(&fields), ("D1".to_owned(), true, Vec::new(), None));
        let fields = Fields::parse(b"queue=D1&ids%5B%5D=a&ids%5B%5D=b");
        assert_eq!(of_form(&fields).2, ["a", "b"]);
    }
}
