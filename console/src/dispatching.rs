//! The dispatcher as a whole: stopped, started, and how it chooses the next queue.

use async_trait::async_trait;
use galerna_audit::Action;
use galerna_dispatcher::StrategyName;
use serde::Deserialize;
use utoipa::ToSchema;

use super::Page;
use super::access::Visitor;
use super::act::{Act, Done, Question};
use super::problem::Problem;
use super::queues::ask;

/// No more leases.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Stop {
    reason: Option<String>,
}

#[async_trait]
impl Act for Stop {
    const NAME: &'static str = Action::Stop.name();

    fn target(&self) -> String {
        "dispatcher".to_owned()
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn question(&self) -> Option<Question> {
        Some(Question {
            title: "Stop dispatching?".to_owned(),
            text: "No queue is leased any more until somebody starts it again, after a restart too. Leases that are held can still be \
                   renewed and given back; messages wait in their queues."
                .to_owned(),
            verb: "Stop dispatching",
        })
    }

    fn back(&self) -> String {
        "/queues".to_owned()
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        ask(page.parts.dispatcher.set_running(false)).await?;
        Ok(Done::new("the dispatcher leases no more queues"))
    }
}

/// Leases again.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Start {
    reason: Option<String>,
}

#[async_trait]
impl Act for Start {
    const NAME: &'static str = Action::Start.name();

    fn target(&self) -> String {
        "dispatcher".to_owned()
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn back(&self) -> String {
        "/queues".to_owned()
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        ask(page.parts.dispatcher.set_running(true)).await?;
        Ok(Done::new("the dispatcher leases queues again"))
    }
}

/// Another strategy.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SetStrategy {
    strategy: StrategyName,
    reason: Option<String>,
}

#[async_trait]
impl Act for SetStrategy {
    const NAME: &'static str = Action::Strategy.name();

    fn target(&self) -> String {
        self.strategy.to_string()
    }

    fn why(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    fn back(&self) -> String {
        "/queues".to_owned()
    }

    async fn run(&self, page: &Page, _: &Visitor) -> Result<Done, Problem> {
        ask(page.parts.dispatcher.set_strategy(self.strategy)).await?;
        Ok(Done::new(format!("the next queue is chosen by {}", self.strategy)))
    }
}
