//! What operators do, as the audit log has it: who, what, to what, why, when and what came of it. The page, the API and the commands
//! write the same entries for the same actions, so the log reads alike whichever way somebody went.

use std::time::Duration;

use galerna_model::{Clock, SystemClock};
use galerna_storage::{AuditEntry, AuditLog, StorageError};
use serde_json::Value;
use uuid::Uuid;

/// Who asks, by their own word.
pub const ACTOR: &str = "x-actor";
/// The role of whoever has the token.
const ROLE: &str = "operator";
/// Longest reason that is kept, in characters.
const REASON: usize = 1_000;
/// How long the store may take to keep an entry of a call or a command.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

/// What operators do to queues, to the dispatcher, to sources, schedules and topologies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Block a queue.
    Pause,
    /// Unblock a queue.
    Unpause,
    /// Give no more leases.
    Stop,
    /// Give leases again.
    Start,
    /// Choose how the next queue is chosen.
    Strategy,
    /// Put dead letters back.
    Replay,
    /// Delete dead letters.
    Discard,
    /// Let a source post.
    AddSource,
    /// Give a source another token.
    RotateSource,
    /// Let a source post no more.
    RemoveSource,
    /// Keep a new schedule.
    AddSchedule,
    /// Give a schedule another definition.
    EditSchedule,
    /// Skip a schedule's occurrences for a while.
    PauseSchedule,
    /// End that.
    ResumeSchedule,
    /// Fire a schedule now.
    TriggerSchedule,
    /// Fire what a schedule had in a time that is past.
    BackfillSchedule,
    /// Keep a schedule no more.
    RemoveSchedule,
    /// Let a topology's spouts emit.
    ActivateTopology,
    /// Have them stop.
    DeactivateTopology,
    /// Change the executors of a component.
    RebalanceTopology,
    /// Take a checkpoint.
    CheckpointTopology,
    /// Have the executors of a component follow its load, or not any more.
    AutoscaleTopology,
    /// End a topology so that another program goes on from its checkpoint.
    UpgradeTopology,
    /// End a topology.
    KillTopology,
}

impl Action {
    /// Its name in the audit log.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Pause => "queue.pause",
            Self::Unpause => "queue.unpause",
            Self::Stop => "dispatcher.stop",
            Self::Start => "dispatcher.start",
            Self::Strategy => "dispatcher.strategy",
            Self::Replay => "dead_letters.replay",
            Self::Discard => "dead_letters.discard",
            Self::AddSource => "source.add",
            Self::RotateSource => "source.rotate",
            Self::RemoveSource => "source.remove",
            Self::AddSchedule => "schedule.add",
            Self::EditSchedule => "schedule.edit",
            Self::PauseSchedule => "schedule.pause",
            Self::ResumeSchedule => "schedule.resume",
            Self::TriggerSchedule => "schedule.trigger",
            Self::BackfillSchedule => "schedule.backfill",
            Self::RemoveSchedule => "schedule.remove",
            Self::ActivateTopology => "topology.activate",
            Self::DeactivateTopology => "topology.deactivate",
            Self::RebalanceTopology => "topology.rebalance",
            Self::CheckpointTopology => "topology.checkpoint",
            Self::AutoscaleTopology => "topology.autoscale",
            Self::UpgradeTopology => "topology.upgrade",
            Self::KillTopology => "topology.kill",
        }
    }

    /// What it is done to, as the page names it: `on` is the queue, source or schedule that the call names.
    pub fn target(self, on: &str, asked: &Value) -> String {
        let queue = on;
        match self {
            Self::Pause
            | Self::Unpause
            | Self::RotateSource
            | Self::RemoveSource
            | Self::ActivateTopology
            | Self::DeactivateTopology
            | Self::RebalanceTopology
            | Self::CheckpointTopology
            | Self::AutoscaleTopology
            | Self::UpgradeTopology
            | Self::KillTopology
            | Self::EditSchedule
            | Self::PauseSchedule
            | Self::ResumeSchedule
            | Self::TriggerSchedule
            | Self::BackfillSchedule
            | Self::RemoveSchedule => on.to_owned(),
            Self::AddSchedule => asked["id"].as_str().map_or_else(|| on.to_owned(), short),
            Self::AddSource => asked["source"].as_str().map_or_else(|| on.to_owned(), short),
            Self::Stop | Self::Start => "dispatcher".to_owned(),
            Self::Strategy => asked["strategy"].as_str().map_or_else(|| "dispatcher".to_owned(), short),
            Self::Replay | Self::Discard => match (asked["all"].as_bool(), asked["ids"].as_array()) {
                (Some(true), _) => letters::<&str>(queue, true, &[]),
                (_, Some(ids)) => {
                    let ids: Vec<&str> = ids.iter().filter_map(Value::as_str).collect();
                    letters(queue, false, &ids)
                }
                _ => queue.to_owned(),
            },
        }
    }

    /// What came of it when it was done.
    pub fn outcome(self, on: &str, answer: &Value) -> String {
        let queue = on;
        let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
        let count = |name: &str| answer[name].as_u64().unwrap_or_default();
        match self {
            Self::Pause => format!("queue {queue} is paused"),
            Self::Unpause => format!("queue {queue} is no longer paused"),
            Self::Stop => "the dispatcher leases no more queues".to_owned(),
            Self::Start => "the dispatcher leases queues again".to_owned(),
            Self::Strategy => {
                let name = answer["configured"].as_str().unwrap_or_default();
                format!("the next queue is chosen by {name}")
            }
            Self::Replay => format!("dead letters of {queue} replayed: {}", count("replayed")),
            Self::Discard => format!("dead letters of {queue} discarded: {}", count("discarded")),
            // The answer holds the token: it is not repeated.
            Self::AddSource => format!("source {} may post for account {}", text("source"), text("account")),
            Self::RotateSource => format!("source {on} has a new token"),
            Self::RemoveSource => format!("source {on} may post no more"),
            Self::AddSchedule => format!("schedule {} is added; {}", text("id"), next(answer)),
            Self::EditSchedule => format!("schedule {on} is edited; {}", next(answer)),
            Self::PauseSchedule => format!("schedule {on} is paused"),
            Self::ResumeSchedule => format!("schedule {on} is on again; {}", next(answer)),
            Self::TriggerSchedule => match answer["outcome"].as_str() {
                None => format!("{} is on its way", text("firing")),
                Some(outcome) => format!("{} was not fired: {outcome}", text("firing")),
            },
            Self::BackfillSchedule => format!("firings of schedule {on} on their way: {}", count("admitted")),
            Self::RemoveSchedule => format!("schedule {on} is removed"),
            Self::ActivateTopology => format!("topology {on} is active"),
            Self::DeactivateTopology => format!("topology {on} is inactive"),
            Self::RebalanceTopology => {
                format!("{} of topology {on} has {} executors", text("component"), count("to"))
            }
            Self::AutoscaleTopology => {
                let all = answer["autoscaled"].as_array().into_iter().flatten();
                let bounds = all.map(|of| {
                    let component = of["component"].as_str().unwrap_or_default();
                    format!("{component} {} to {}", of["min"], of["max"])
                });
                let bounds: Vec<String> = bounds.collect();
                format!(
                    "executors of topology {on} follow the load: {}",
                    if bounds.is_empty() { "none".to_owned() } else { bounds.join(", ") }
                )
            }
            Self::UpgradeTopology => match answer["status"].as_str() {
                None => format!("an upgrade of topology {on} was tried, and nothing changed"),
                Some(_) => {
                    format!("topology {on} ends for an upgrade, after checkpoint {}", count("checkpoint"))
                }
            },
            Self::CheckpointTopology => format!("checkpoint {} of topology {on} is committed", count("id")),
            Self::KillTopology => format!("topology {on} ends"),
        }
    }
}

/// When a schedule occurs next, in words.
fn next(schedule: &Value) -> String {
    match schedule["upcoming"][0]["at"].as_str() {
        Some(at) => format!("its next occurrence is at {at}"),
        None => "it does not occur any more".to_owned(),
    }
}

/// A name as it is kept: one short line.
pub fn short(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(60).collect::<String>().trim().to_owned()
}

/// Dead letters as the target of an action.
pub fn letters<Id: AsRef<str>>(queue: &str, all: bool, ids: &[Id]) -> String {
    match (all, ids) {
        (true, _) => format!("{queue}: all"),
        (false, [one]) => format!("{queue}: {}", one.as_ref()),
        (false, some) => format!("{queue}: {} letters", some.len()),
    }
}

/// An entry of now. The outcome is an error's message when it was not done.
pub fn entry(
    action: Action,
    who: &str,
    target: String,
    why: Option<&str>,
    outcome: Result<String, String>,
) -> AuditEntry {
    let done = outcome.is_ok();
    AuditEntry {
        id: entry_id(),
        at: SystemClock.now(),
        role: ROLE.to_owned(),
        who: short(who),
        action: action.name().to_owned(),
        target,
        why: why.map(|why| why.trim().chars().take(REASON).collect()).filter(|why: &String| !why.is_empty()),
        outcome: outcome.unwrap_or_else(|message| message),
        done,
    }
}

/// Why an entry could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AuditError {
    /// What the store says.
    #[error(transparent)]
    Store(#[from] StorageError),
    /// It did not answer in time.
    #[error("the store did not answer within {} s", .0.as_secs())]
    Timeout(Duration),
}

/// Writes an entry, giving the store so long. What was done is done: that it cannot be written is logged, and told to
/// the caller.
///
/// # Errors
/// [`AuditError`].
pub async fn record(log: &dyn AuditLog, entry: &AuditEntry, timeout: Duration) -> Result<(), AuditError> {
    tracing::info!(
        action = entry.action,
        target = entry.target,
        who = entry.who,
        role = entry.role,
        done = entry.done,
        outcome = entry.outcome,
        "an operator acted"
    );
    let problem = match tokio::time::timeout(timeout, log.record(entry)).await {
        Ok(Ok(())) => return Ok(()),
        Ok(Err(e)) => AuditError::Store(e),
        Err(_) => AuditError::Timeout(timeout),
    };
    tracing::error!(
        error = %problem,
        action = entry.action,
        target = entry.target,
        who = entry.who,
        "what an operator did could not be written to the audit log"
    );
    Err(problem)
}

/// The id of a new entry: of two entries made one after the other in one process, in the same millisecond too, the later one
/// has the greater id.
pub fn entry_id() -> String {
    Uuid::now_v7().simple().to_string()
}

/// 32 random bytes in hexadecimal.
///
/// # Panics
/// When the system has no randomness: it cannot serve a session to anybody.
pub fn random() -> String {
    let mut bytes = [0_u8; 32];
    getrandom::fill(&mut bytes).unwrap_or_else(|e| panic!("the system gives no random bytes: {e}"));
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn entries_of_one_millisecond_are_listed_in_their_order() {
        let ids: Vec<String> = (0..10_000).map(|_| entry_id()).collect();
        assert!(ids.is_sorted_by(|earlier, later| earlier < later));
    }

    #[test]
    fn what_was_acted_on_is_named_as_on_the_page() {
        let some = json!({"ids": ["7", "8"], "reason": "r"});
        for (action, asked, target) in [
            (Action::Pause, json!({"reason": "r"}), "Q"),
            (Action::Stop, Value::Null, "dispatcher"),
            (Action::Strategy, json!({"strategy": "fair"}), "fair"),
            (Action::Strategy, json!([]), "dispatcher"),
            (Action::Discard, json!({"all": true}), "Q: all"),
            (Action::Discard, json!({"ids": ["7"]}), "Q: 7"),
            (Action::Replay, some, "Q: 2 letters"),
            (Action::AddSource, json!({"source": "s1", "account": "A", "token": "secret"}), "s1"),
            (Action::RemoveSource, json!({"reason": "r"}), "Q"),
            (Action::Replay, json!("nonsense"), "Q"),
        ] {
            assert_eq!(action.target("Q", &asked), target, "{action:?} {asked}");
        }
    }

    #[test]
    fn reasons_are_kept_short_and_empty_ones_not_at_all() {
        let why = |why: &str| entry(Action::Stop, "", String::new(), Some(why), Ok(String::new())).why;
        assert_eq!((why(" "), why("works")), (None, Some("works".to_owned())));
        assert_eq!(why(&"é".repeat(5_000)).map(|why| why.chars().count()), Some(REASON));
    }
}
