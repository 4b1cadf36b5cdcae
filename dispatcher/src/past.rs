//! The last transitions of each queue, for operators: kept in memory by the dispatcher that wrote them.

use std::collections::VecDeque;

use galerna_model::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Kept of a queue.
const KEPT: usize = 8;
/// Kept of a queue where there are more queues than [`MANY`].
const KEPT_OF_MANY: usize = 2;
const MANY: usize = 20_000;

/// Something that happened to a queue.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct TransitionView {
    /// When, by the clock of this dispatcher.
    pub at: String,
    /// What: `lease`, `release`, `expire`, `pause`, …
    pub event: String,
    /// The state before.
    pub from: String,
    /// The state after.
    pub to: String,
    /// The epoch after.
    pub epoch: u64,
    /// Who did it: the holder of a lease, an operator, a task of the maintainer.
    pub actor: String,
    /// Why, when somebody said so.
    pub reason: Option<String>,
}

/// The last transitions of a queue that this dispatcher has written since it started; other dispatchers know of theirs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Transitions {
    /// The latest first, at most 8. Renewals of leases are not among them.
    pub transitions: Vec<TransitionView>,
}

/// The same, as it is kept.
#[derive(Debug, Clone)]
pub(crate) struct PastTransition {
    pub(crate) at: Timestamp,
    pub(crate) event: &'static str,
    pub(crate) from: &'static str,
    pub(crate) to: &'static str,
    pub(crate) epoch: u64,
    pub(crate) actor: Box<str>,
    pub(crate) reason: Option<Box<str>>,
}

/// The last ones of a queue.
#[derive(Debug, Default)]
pub(crate) struct Past(VecDeque<PastTransition>);

impl Past {
    /// Remembers one; `queues` is how many queues there are.
    pub(crate) fn push(&mut self, transition: PastTransition, queues: usize) {
        let kept = if queues > MANY { KEPT_OF_MANY } else { KEPT };
        while self.0.len() >= kept {
            self.0.pop_front();
        }
        self.0.push_back(transition);
    }

    /// The latest first.
    pub(crate) fn view(&self) -> Transitions {
        let shown = |t: &PastTransition| TransitionView {
            at: t.at.to_string(),
            event: t.event.to_owned(),
            from: t.from.to_owned(),
            to: t.to.to_owned(),
            epoch: t.epoch,
            actor: t.actor.to_string(),
            reason: t.reason.as_deref().map(str::to_owned),
        };
        Transitions { transitions: self.0.iter().rev().map(shown).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_come_first_and_fewer_are_kept_of_many_queues() {
        let transition = |epoch| PastTransition {
            at: Timestamp(0),
            event: "lease",
            from: "idle",
            to: "worker",
            epoch,
            actor: "w1".into(),
            reason: None,
        };
        let mut past = Past::default();
        let epochs = |past: &Past| past.view().transitions.iter().map(|t| t.epoch).collect::<Vec<_>>();
        (1..=10).for_each(|epoch| past.push(transition(epoch), 10));
        assert_eq!(epochs(&past), [10, 9, 8, 7, 6, 5, 4, 3]);
        past.push(transition(11), MANY + 1);
        assert_eq!(epochs(&past), [11, 10]);
    }
}
