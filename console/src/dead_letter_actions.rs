//! Replaying and discarding dead letters: some or all of a queue, some of many queues, or all that a search finds.

use std::collections::BTreeMap;

use async_trait::async_trait;
use galerna_audit::{Action, letters as in_words};
use galerna_broker::DeadLetterSelection;
use galerna_model::QueueName;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::access::Visitor;
use super::act::{ActOn, Done, Question, Request, not_done};
use super::dead_letters::name_of;
use super::fields::Fields;
use super::letters::Filter;
use super::problem::Problem;
use super::{Page, format, layout};

/// A letter by its queue and id.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, ToSchema, Serialize)]
#[serde(deny_unknown_fields)]
struct LetterKey {
    queue: String,
    id: String,
}

/// Which letters are meant: one of the three ways.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Asked {
    /// With `ids` or `all`: letters of one queue.
    queue: String,
    all: bool,
    ids: Vec<String>,
    /// Letters of any queues.
    letters: Vec<LetterKey>,
    /// All that a search finds.
    matching: Option<Filter>,
    reason: Option<String>,
}

/// The same, checked.
#[derive(Debug, PartialEq, Eq)]
enum Which {
    OfQueue(QueueName, DeadLetterSelection),
    Letters(BTreeMap<QueueName, Vec<String>>),
    Matching(Filter),
}

impl Request for Asked {
    /// The selection of a form: the button for all goes before ticked boxes.
    fn from_form(fields: &Fields) -> Result<Self, Problem> {
        let all = fields.is_on("all");
        let reason = fields.given("reason").map(str::to_owned);
        let asked = if fields.is_on("matching") {
            let of = |name: &str| fields.text(&format!("matching.{name}")).to_owned();
            let filter =
                Filter { queue: of("queue"), source: of("source"), text: of("text"), kind: of("kind") };
            let key = |text: String| {
                let (queue, id) = text.split_once('/').unwrap_or((&text, ""));
                LetterKey { queue: queue.to_owned(), id: id.to_owned() }
            };
            let letters =
                if all { Vec::new() } else { fields.all("letters[]").into_iter().map(key).collect() };
            Self { letters, matching: all.then_some(filter), reason, ..Self::default() }
        } else {
            let ids = if all { Vec::new() } else { fields.all("ids[]") };
            Self { queue: fields.text("queue").to_owned(), all, ids, reason, ..Self::default() }
        };
        asked.which()?;
        Ok(asked)
    }

    fn target(&self) -> String {
        match (&self.matching, self.letters.len()) {
            (Some(filter), _) => format!("all that match: {}", filter.in_words()),
            (None, 0) => in_words(&self.queue, self.all, &self.ids),
            (None, n) => format!("{n} letters of several queues"),
        }
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

impl Asked {
    fn which(&self) -> Result<Which, Problem> {
        let nothing = "no dead letter is selected; tick some, or choose all";
        let of_queue = self.all || !self.ids.is_empty() || !self.queue.is_empty();
        match (of_queue, self.letters.is_empty(), &self.matching) {
            (false, true, Some(filter)) => Ok(Which::Matching(filter.clone())),
            (false, false, None) => {
                let mut by_queue: BTreeMap<QueueName, Vec<String>> = BTreeMap::new();
                for LetterKey { queue, id } in &self.letters {
                    by_queue.entry(name_of(queue)?).or_default().push(id.clone());
                }
                Ok(Which::Letters(by_queue))
            }
            (true, true, None) => {
                let selection = match (self.all, self.ids.is_empty()) {
                    (true, true) => DeadLetterSelection::All,
                    (false, false) => DeadLetterSelection::Ids(self.ids.clone()),
                    (false, true) => return Err(Problem::Invalid(nothing.to_owned())),
                    (true, false) => {
                        return Err(Problem::Invalid("say either `all` or `ids`".to_owned()));
                    }
                };
                Ok(Which::OfQueue(name_of(&self.queue)?, selection))
            }
            (false, true, None) => Err(Problem::Invalid(nothing.to_owned())),
            _ => Err(Problem::Invalid(
                "say one of `queue` with `ids` or `all`, `letters`, and `matching`".to_owned(),
            )),
        }
    }

    fn back(&self) -> String {
        match (&self.matching, self.queue.is_empty()) {
            (Some(filter), _) => filter.query().link("/dead-letters"),
            (None, true) => "/dead-letters".to_owned(),
            (None, false) => format!("/dead-letters/{}", layout::encoded(&self.queue)),
        }
    }

    /// What is meant, for a question.
    fn what(&self) -> String {
        let n_letters = |n: usize| match n {
            1 => "1 dead letter".to_owned(),
            n => format!("{n} dead letters"),
        };
        match (&self.matching, self.letters.len()) {
            (Some(filter), _) => format!("all dead letters that match {}", filter.in_words()),
            (None, 0) if self.all => format!("all dead letters of {}", self.queue),
            (None, 0) => format!("{} of {}", n_letters(self.ids.len()), self.queue),
            (None, n) => n_letters(n),
        }
    }

    /// Whether more than one queue may be meant.
    fn is_bulk(&self) -> bool {
        self.matching.is_some() || self.letters.len() > 1
    }

    async fn end(&self, page: &Page, verb: &'static str, replay: bool) -> Result<Done, Problem> {
        let broker = &page.parts.broker;
        let end = async |queue: &QueueName, which| {
            if replay { broker.replay(queue, which).await } else { broker.discard(queue, which).await }
        };
        let by_queue = match self.which()? {
            Which::OfQueue(queue, which) => {
                let n = end(&queue, which).await?;
                return Ok(Done::with(told(n, verb, &format!(" of {queue}")), json!({ verb: n })));
            }
            Which::Letters(by_queue) => by_queue,
            Which::Matching(filter) => {
                page.letters.forget().await;
                let look = page.letters.look(&**broker).await;
                if let Some(problem) = look.problems.first() {
                    return Err(Problem::Unavailable(problem.clone()));
                }
                let mut by_queue: BTreeMap<QueueName, Vec<String>> = BTreeMap::new();
                for letter in look.letters.iter().filter(|letter| filter.matches(letter)) {
                    by_queue.entry(letter.queue.clone()).or_default().push(letter.letter.id.clone());
                }
                by_queue
            }
        };
        let (mut n, mut failed) = (0, Vec::new());
        let queues = by_queue.len();
        for (queue, ids) in by_queue {
            match end(&queue, DeadLetterSelection::Ids(ids)).await {
                Ok(ended) => n += ended,
                Err(e) => failed.push(format!("{queue}: {e}")),
            }
        }
        if n == 0
            && let Some(first) = failed.first()
        {
            return Err(Problem::Unavailable(first.clone()));
        }
        let of = format!(" of {queues} {}", format::plural(queues as u64, "queue", "queues"));
        let mut message = told(n, verb, &of);
        message.push_str(&not_done(&failed));
        Ok(Done::with(message, json!({ verb: n, "failed": failed })))
    }
}

fn told(n: usize, verb: &str, of: &str) -> String {
    let letters =
        if n == 1 { "1 dead letter".to_owned() } else { format!("{} dead letters", format::count(n as u64)) };
    format!("{letters}{of} {verb}")
}

/// Puts dead letters back into their queues.
pub(super) struct Replay;

#[async_trait]
impl ActOn for Replay {
    const NAME: &'static str = Action::Replay.name();
    type Request = Asked;

    fn question(asked: &Asked) -> Option<Question> {
        asked.is_bulk().then(|| Question {
            title: format!("Replay {}?", asked.what()),
            text: "Their messages go back to their queues and are processed anew. What made them fail should be mended first; each \
                   replay is counted."
                .to_owned(),
            verb: "Replay",
        })
    }

    fn back(asked: &Asked) -> String {
        asked.back()
    }

    async fn run(asked: &Asked, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        asked.end(page, "replayed", true).await
    }
}

/// Deletes dead letters.
pub(super) struct Discard;

#[async_trait]
impl ActOn for Discard {
    const NAME: &'static str = Action::Discard.name();
    type Request = Asked;

    fn question(asked: &Asked) -> Option<Question> {
        Some(Question {
            title: format!("Discard {}?", asked.what()),
            text: "Their messages are deleted. They cannot be brought back.".to_owned(),
            verb: "Discard",
        })
    }

    fn back(asked: &Asked) -> String {
        asked.back()
    }

    async fn run(asked: &Asked, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        asked.end(page, "discarded", false).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(text: &str) -> Result<Which, Problem> {
        Asked::from_form(&Fields::parse(text.as_bytes())).and_then(|asked| asked.which())
    }

    fn queue(name: &str) -> QueueName {
        QueueName::new(name).unwrap()
    }

    #[test]
    fn a_selection_is_all_or_some_but_never_nothing() {
        let some = DeadLetterSelection::Ids(vec!["a".to_owned(), "b".to_owned()]);
        // The button for all goes before what is ticked.
        let all = form("queue=D1&ids%5B%5D=a&all=true").unwrap();
        assert_eq!(all, Which::OfQueue(queue("D1"), DeadLetterSelection::All));
        assert_eq!(form("queue=D1&ids%5B%5D=a&ids%5B%5D=b").unwrap(), Which::OfQueue(queue("D1"), some));
        assert!(form("queue=D1").is_err() && form("matching=true").is_err() && form("").is_err());
        for both in [
            json!({"queue": "D1", "all": true, "ids": ["a"]}),
            json!({"queue": "D1", "letters": [{"queue": "D1", "id": "a"}]}),
            json!({"matching": {}, "letters": [{"queue": "D1", "id": "a"}]}),
            json!({"all": true}),
        ] {
            assert!(serde_json::from_value::<Asked>(both.clone()).unwrap().which().is_err(), "{both}");
        }
    }

    #[test]
    fn letters_of_several_queues_are_chosen_one_by_one_or_by_a_search() {
        let chosen = form("matching=true&letters%5B%5D=D1/a&letters%5B%5D=D2/b&letters%5B%5D=D1/c").unwrap();
        let wanted = [(queue("D1"), vec!["a".into(), "c".into()]), (queue("D2"), vec!["b".into()])];
        assert_eq!(chosen, Which::Letters(wanted.into()));
        let found =
            form("matching=true&matching.queue=D&matching.kind=k&letters%5B%5D=D1/a&all=true").unwrap();
        let filter = Filter { queue: "D".into(), kind: "k".into(), ..Filter::default() };
        assert_eq!(found, Which::Matching(filter));
        let asked: Asked = serde_json::from_value(json!({"matching": {"source": "s"}})).unwrap();
        assert!(asked.is_bulk() && asked.target() == "all that match: source `s`");
    }
}
