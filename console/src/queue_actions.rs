//! Pausing and unpausing queues: one, some, or all that a search finds.

use async_trait::async_trait;
use futures_util::stream::{self, StreamExt};
use galerna_audit::Action;
use galerna_dispatcher::{AdminError, StatusQuery};
use galerna_model::QueueName;
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::access::Visitor;
use super::act::{ActOn, Done, Question, Request, not_done};
use super::fields::Fields;
use super::problem::Problem;
use super::queues::{ask, name_of};
use super::{Page, format, layout};

/// Calls of the dispatcher at once.
const AT_ONCE: usize = 16;
/// Queues of one answer of the dispatcher.
const PAGE: usize = 1_000;
/// Names in a question.
const NAMED: usize = 10;

/// What of the list of queues is meant.
#[derive(Debug, Clone, Default, Deserialize, ToSchema, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Matching {
    state: String,
    search: String,
}

/// Which queues are meant: one of the three ways.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Asked {
    queue: String,
    queues: Vec<String>,
    matching: Option<Matching>,
    reason: Option<String>,
}

impl Request for Asked {
    fn from_form(fields: &Fields) -> Result<Self, Problem> {
        let matching = fields.is_on("all").then(|| Matching {
            state: fields.text("matching.state").to_owned(),
            search: fields.text("matching.search").to_owned(),
        });
        let queues = if matching.is_some() { Vec::new() } else { fields.all("queues[]") };
        let reason = fields.given("reason").map(str::to_owned);
        let asked = Self { queue: fields.text("queue").to_owned(), queues, matching, reason };
        asked.check()?;
        Ok(asked)
    }

    fn target(&self) -> String {
        match (&self.matching, self.queues.as_slice()) {
            (Some(matching), _) => {
                let state = if matching.state.is_empty() { "any state" } else { &matching.state };
                let search = if matching.search.is_empty() { "" } else { " and contain " };
                format!("all queues in {state}{search}{}", matching.search)
            }
            (None, []) => self.queue.clone(),
            (None, some) if some.len() <= NAMED => some.join(", "),
            (None, some) => format!("{} and {} more", some[..NAMED].join(", "), some.len() - NAMED),
        }
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }
}

impl Asked {
    fn check(&self) -> Result<(), Problem> {
        let ways = [!self.queue.is_empty(), !self.queues.is_empty(), self.matching.is_some()];
        match ways.into_iter().filter(|way| *way).count() {
            1 => Ok(()),
            0 => Err(Problem::Invalid("no queue is selected; tick some, or name one as `queue`".to_owned())),
            _ => Err(Problem::Invalid("say one of `queue`, `queues` and `matching`".to_owned())),
        }
    }

    fn is_bulk(&self) -> bool {
        self.matching.is_some() || self.queues.len() > 1
    }

    fn question(&self, verb: &'static str, text: &str) -> Option<Question> {
        self.is_bulk().then(|| {
            let n = self.queues.len();
            let what = if self.matching.is_some() { self.target() } else { format!("{n} queues") };
            let named = if self.matching.is_some() { String::new() } else { format!("{}. ", self.target()) };
            Question { title: format!("{verb} {what}?"), text: format!("{named}{text}"), verb }
        })
    }

    fn back(&self) -> String {
        match self.queue.as_str() {
            "" => "/queues".to_owned(),
            queue => format!("/queues/{}", layout::encoded(queue)),
        }
    }

    /// The queues that are meant now.
    async fn queues(&self, page: &Page) -> Result<Vec<QueueName>, Problem> {
        self.check()?;
        let Some(matching) = &self.matching else {
            let names = if self.queues.is_empty() { std::slice::from_ref(&self.queue) } else { &self.queues };
            return names.iter().map(|name| name_of(name)).collect();
        };
        let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let mut found = Vec::new();
        for number in 1.. {
            let query = StatusQuery {
                state: given(&matching.state),
                search: given(&matching.search),
                sort: None,
                page: Some(number),
                limit: Some(PAGE),
            };
            let status = ask(page.parts.dispatcher.status(&query)).await?;
            for queue in &status.queues {
                found.push(name_of(&queue.queue)?);
            }
            if status.queues.len() < PAGE {
                break;
            }
        }
        Ok(found)
    }

    /// Does it to each; what fails for one does not keep it from the others.
    async fn each<F: Future<Output = Result<(), AdminError>>>(
        &self,
        page: &Page,
        verb: &'static str,
        one: &str,
        act: impl Fn(QueueName) -> F,
    ) -> Result<Done, Problem> {
        let queues = self.queues(page).await?;
        if let ([queue], false) = (queues.as_slice(), self.is_bulk()) {
            ask(act(queue.clone())).await?;
            return Ok(Done::new(format!("queue {queue} {one}")));
        }
        let total = queues.len();
        let mut answers = stream::iter(queues)
            .map(|queue| {
                let call = ask(act(queue.clone()));
                async move { (queue, call.await) }
            })
            .buffer_unordered(AT_ONCE);
        let mut failed: Vec<String> = Vec::new();
        while let Some((queue, answer)) = answers.next().await {
            if let Err(problem) = answer {
                failed.push(format!("{queue}: {problem}"));
            }
        }
        let done = total - failed.len();
        if done == 0
            && let Some(first) = failed.first()
        {
            return Err(Problem::Conflict(format!("none of {total} queues {verb}: {first}")));
        }
        let mut message = format!(
            "{} {} {verb}",
            format::count(done as u64),
            format::plural(done as u64, "queue", "queues")
        );
        failed.sort();
        message.push_str(&not_done(&failed));
        Ok(Done::with(message, json!({ "queues": done, "failed": failed })))
    }
}

/// Blocks queues.
pub(super) struct Pause;

#[async_trait]
impl ActOn for Pause {
    const NAME: &'static str = Action::Pause.name();
    type Request = Asked;

    fn question(asked: &Asked) -> Option<Question> {
        asked.question("Pause", "Nobody consumes them until they are unpaused; messages wait in them.")
    }

    fn back(asked: &Asked) -> String {
        asked.back()
    }

    async fn run(asked: &Asked, page: &Page, visitor: &Visitor) -> Result<Done, Problem> {
        let (dispatcher, reason, who) = (&page.parts.dispatcher, &asked.reason, &visitor.name);
        let pause = |queue: QueueName| async move { dispatcher.pause(&queue, reason.clone(), who).await };
        asked.each(page, "paused", "is paused", pause).await
    }
}

/// Unblocks queues.
pub(super) struct Unpause;

#[async_trait]
impl ActOn for Unpause {
    const NAME: &'static str = Action::Unpause.name();
    type Request = Asked;

    fn question(asked: &Asked) -> Option<Question> {
        asked.question("Unpause", "They may be leased again. Those that are not paused stay as they are.")
    }

    fn back(asked: &Asked) -> String {
        asked.back()
    }

    async fn run(asked: &Asked, page: &Page, visitor: &Visitor) -> Result<Done, Problem> {
        let (dispatcher, who) = (&page.parts.dispatcher, &visitor.name);
        let unpause = |queue: QueueName| async move { dispatcher.unpause(&queue, who).await };
        asked.each(page, "unpaused", "is no longer paused", unpause).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_some_or_all_that_match_are_chosen_and_never_two_ways_at_once() {
        let form = |text: &str| Asked::from_form(&Fields::parse(text.as_bytes()));
        let one = form("queue=D1&reason=why").unwrap();
        assert_eq!((one.target().as_str(), one.is_bulk(), one.back().as_str()), ("D1", false, "/queues/D1"));
        assert!(one.question("Pause", "").is_none());
        let some = form("queues%5B%5D=D1&queues%5B%5D=D2").unwrap();
        assert_eq!((some.target().as_str(), some.is_bulk()), ("D1, D2", true));
        assert_eq!(some.question("Pause", "").unwrap().title, "Pause 2 queues?");
        let all = form("all=true&matching.state=idle&matching.search=D&queues%5B%5D=D1").unwrap();
        assert_eq!(all.target(), "all queues in idle and contain D");
        assert!(form("all=").is_err() && form("queue=D1&queues%5B%5D=D2").is_err());
    }
}
