//! `galerna queues dead`: dead letters, through the API of a dispatcher or, on RabbitMQ, at the broker itself.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use galerna_audit::{self as audit, Action};
use galerna_broker::{Broker, BrokerError, DeadLetterSelection};
use galerna_model::QueueName;
use galerna_server::backends;
use galerna_settings::Settings;
use galerna_storage::AuditLog;
use galerna_terminal::{Cell, List, eprint};
use serde_json::{Value, json};

use super::queues::{because, cell, list_cell, named, path};
use crate::api_client::Api;
use crate::args::{DeadCommand, DeadSelection, Reason};
use crate::form::Form;
use crate::page_client::actor;

/// Dead letters asked for at once.
const MOST: usize = 1_000;

/// Runs the command.
pub(super) async fn run(
    command: DeadCommand,
    api: Api,
    form: &Form,
    settings: &Settings,
) -> anyhow::Result<()> {
    if let DeadCommand::Discard { which, sure, .. } = &command
        && let (Some(queue), None, false) = (&which.queue, &which.matching, which.all_queues)
    {
        let what = match which.ids.as_slice() {
            _ if which.all => "all dead letters".to_owned(),
            [id] => format!("dead letter {id}"),
            ids => format!("{} dead letters", ids.len()),
        };
        let question = format!("Discard {what} of {queue}? Their messages cannot be brought back.");
        ensure!(sure.is_said(&question)?, "nothing is discarded");
    }
    let dead = DeadLetters::reach(api, settings, &command).await?;
    match command {
        DeadCommand::List { queue: None, .. } => {
            let counts = dead.counts().await?;
            let mut shown = List::new(&["queue", "#dead letters"]);
            for entry in counts["queues"].as_array().into_iter().flatten() {
                shown.row(entry.clone(), [list_cell(&entry["queue"]), list_cell(&entry["dead"])]);
            }
            form.list(&counts, &shown)
        }
        DeadCommand::List { queue: Some(queue), offset, limit, bodies, all } => {
            let letters = match all {
                true => dead.whole(&queue, bodies).await?,
                false => dead.list(&queue, offset, limit, bodies).await?,
            };
            form.list(&letters, &shown(&letters, bodies))
        }
        DeadCommand::Replay { which, reason, sure } => {
            let question = |what: &str| format!("Replay {what}?");
            end_all(&dead, Action::Replay, &which, &reason, form, |what| sure.is_said(&question(what))).await
        }
        DeadCommand::Discard { which, reason, sure } => {
            let question = |what: &str| format!("Discard {what}? Their messages cannot be brought back.");
            end_all(&dead, Action::Discard, &which, &reason, form, |what| sure.is_said(&question(what))).await
        }
    }
}

fn shown(letters: &Value, bodies: bool) -> List {
    let mut headings = vec!["id", "at", "component", "#deliveries", "#bytes", "reason"];
    if bodies {
        headings.push("body");
    }
    let mut shown = List::new(&headings);
    for letter in letters["dead"].as_array().into_iter().flatten() {
        let names = ["id", "at", "component", "deliveries", "bytes", "reason"];
        let mut cells: Vec<Cell> = names.map(|name| list_cell(&letter[name])).into();
        // An id that is a number is one of a row, not a count.
        cells[0] = Cell::text(letter["id"].as_str().map_or_else(|| letter["id"].to_string(), str::to_owned));
        if bodies {
            let body = cell(&letter["body"]);
            cells.push(Cell::text(body.chars().take(200).collect::<String>()).plain(body));
        }
        shown.row(letter.clone(), cells);
    }
    shown
}

/// Replays or discards what is meant: of one queue at once; of several, or of those with a reason, after one question that says
/// how many they are.
async fn end_all(
    dead: &DeadLetters,
    deed: Action,
    which: &DeadSelection,
    reason: &Reason,
    form: &Form,
    is_sure: impl Fn(&str) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let (verb, ended) = match deed {
        Action::Replay => ("replay", "replayed"),
        _ => ("discard", "discarded"),
    };
    if let (Some(queue), None) = (&which.queue, &which.matching) {
        let letters = Letters { queue: queue.clone(), all: which.all, ids: which.ids.clone() };
        let answer = dead.end(deed, &letters, reason).await.with_context(|| format!("cannot {verb}"))?;
        let found = answer[ended].clone();
        let said = match deed {
            Action::Replay => format!("{} messages are back in {queue}", cell(&found)),
            _ => format!("{} dead letters of {queue} are gone", cell(&found)),
        };
        form.done(&answer, &said)?;
        return all_found(&letters, &found);
    }
    let mut targets = Vec::new();
    let mut total = 0;
    let queues = match &which.queue {
        Some(queue) => vec![queue.clone()],
        None => {
            let counts = dead.counts().await?;
            let counts = counts["queues"].as_array().into_iter().flatten();
            counts.filter_map(|entry| entry["queue"].as_str().map(str::to_owned)).collect()
        }
    };
    for queue in queues {
        let letters = dead.whole(&queue, false).await?;
        let letters = letters["dead"].as_array().into_iter().flatten();
        let wanted = which.matching.as_deref().map(str::to_lowercase);
        let matches = |letter: &&Value| {
            let reason = letter["reason"].as_str().unwrap_or_default().to_lowercase();
            wanted.as_ref().is_none_or(|wanted| reason.contains(wanted))
        };
        let ids: Vec<String> =
            letters.filter(matches).filter_map(|letter| letter["id"].as_str().map(str::to_owned)).collect();
        if !ids.is_empty() {
            total += ids.len();
            targets.push(Letters { queue, all: false, ids });
        }
    }
    ensure!(total > 0, "there is no such dead letter; nothing to {verb}");
    let names: Vec<String> = targets.iter().map(|letters| letters.queue.clone()).collect();
    let of = format!("{total} dead letters of {}", named(&names, "queue"));
    ensure!(is_sure(&of)?, "nothing is {ended}");
    let mut results = List::new(&["queue", "#asked", &format!("#{ended}"), "why not"]);
    let (mut done, mut failed) = (0, 0);
    for letters in &targets {
        let asked = letters.ids.len() as u64;
        let answer = dead.end(deed, letters, reason).await;
        let (found, problem) = match &answer {
            Ok(answer) => (answer[ended].as_u64().unwrap_or_default(), None),
            Err(e) => (0, Some(format!("{e:#}"))),
        };
        done += found;
        failed += usize::from(problem.is_some());
        let mut item = json!({ "queue": letters.queue, "asked": asked, (ended): found });
        if let Some(problem) = &problem {
            item["error"] = json!(problem);
        }
        let cells = [Cell::text(letters.queue.as_str()), Cell::number(asked), Cell::number(found)];
        results.row(item, cells.into_iter().chain([Cell::text(problem.unwrap_or_default())]));
    }
    let results = results.saying(format!("{done} of {of} {ended}"));
    form.list(&results.json(), &results)?;
    ensure!(failed == 0, "{failed} of {} queues could not be changed", targets.len());
    Ok(())
}

/// Dead letters of one queue: all, or those with these ids.
struct Letters {
    queue: String,
    all: bool,
    ids: Vec<String>,
}

/// The way to the dead letters.
enum DeadLetters {
    /// The broker, or the audit log, is in another process.
    Api(Api),
    /// The audit log, when it can be written, is written here.
    Broker(Arc<dyn Broker>, Option<Arc<dyn AuditLog>>),
}

impl DeadLetters {
    async fn reach(api: Api, settings: &Settings, command: &DeadCommand) -> anyhow::Result<Self> {
        if settings.broker.is_embedded() {
            return Ok(Self::Api(api));
        }
        let log = match command {
            DeadCommand::List { .. } => None,
            DeadCommand::Replay { .. } | DeadCommand::Discard { .. } => match backends::store(settings).await
            {
                Ok(store) => Some(store.audit),
                // The process that has it open keeps the log.
                Err(_) if settings.store.is_embedded() => return Ok(Self::Api(api)),
                Err(e) => {
                    tracing::error!(
                        error = format!("{e:#}"),
                        "the audit log cannot be written; what is done is not in it"
                    );
                    None
                }
            },
        };
        Ok(Self::Broker(backends::broker(settings).await?, log))
    }

    async fn counts(&self) -> anyhow::Result<Value> {
        match self {
            Self::Api(api) => api.get("/dead", &[]).await,
            Self::Broker(broker, _) => {
                let counts = broker.dead_letter_counts().await?;
                let counts: Vec<Value> =
                    counts.into_iter().map(|(queue, dead)| json!({ "queue": queue, "dead": dead })).collect();
                Ok(json!({ "queues": counts }))
            }
        }
    }

    async fn list(&self, queue: &str, offset: usize, limit: usize, bodies: bool) -> anyhow::Result<Value> {
        match self {
            Self::Api(api) => {
                let query = [
                    ("offset", offset.to_string()),
                    ("limit", limit.to_string()),
                    ("bodies", bodies.to_string()),
                ];
                api.get(&path(queue, "/dead")?, &query).await
            }
            Self::Broker(broker, _) => {
                let queue = QueueName::new(queue)?;
                let letters = broker.dead_letters(&queue, offset, limit).await.map_err(told)?;
                if letters.is_empty() {
                    galerna_server::check_exists(&**broker, &queue).await.map_err(told)?;
                }
                let letters: Vec<Value> =
                    letters.iter().map(|letter| galerna_server::dead_letter(letter, bodies)).collect();
                Ok(json!({ "dead": letters }))
            }
        }
    }

    /// All of a queue, page by page.
    async fn whole(&self, queue: &str, bodies: bool) -> anyhow::Result<Value> {
        let mut all = self.list(queue, 0, MOST, bodies).await?;
        let mut found = all["dead"].as_array().map_or(0, Vec::len);
        let mut offset = found;
        while found == MOST {
            let mut more = self.list(queue, offset, MOST, bodies).await?;
            let letters = more["dead"].as_array_mut().map(std::mem::take).unwrap_or_default();
            found = letters.len();
            offset += found;
            if let Some(known) = all["dead"].as_array_mut() {
                known.extend(letters);
            }
        }
        Ok(all)
    }

    /// Replays or discards letters of one queue.
    async fn end(&self, deed: Action, which: &Letters, reason: &Reason) -> anyhow::Result<Value> {
        match self {
            Self::Api(api) => {
                let verb = if deed == Action::Replay { "replay" } else { "discard" };
                let body = if which.all { json!({ "all": true }) } else { json!({ "ids": which.ids }) };
                let body = because(body, reason.reason.clone());
                api.post(&path(&which.queue, &format!("/dead/{verb}"))?, &body).await
            }
            Self::Broker(broker, log) => {
                let queue = QueueName::new(&which.queue)?;
                let ended = end(&**broker, deed, &queue, which).await;
                if let Some(log) = log {
                    let target = audit::letters(&which.queue, which.all, &which.ids);
                    let outcome = match &ended {
                        Ok(answer) => Ok(deed.outcome(&which.queue, answer)),
                        Err(e) => Err(galerna_server::describe_broker_error(e)),
                    };
                    let entry = audit::entry(deed, &actor(), target, reason.reason.as_deref(), outcome);
                    // That it is not in the audit log stands in the log, as at the API.
                    let _ = audit::record(&**log, &entry, audit::WRITE_TIMEOUT).await;
                }
                ended.map_err(told)
            }
        }
    }
}

/// Replays or discards at the broker; answers as the API does.
async fn end(
    broker: &dyn Broker,
    deed: Action,
    queue: &QueueName,
    which: &Letters,
) -> Result<Value, BrokerError> {
    let selection = match which.all {
        true => DeadLetterSelection::All,
        false => DeadLetterSelection::Ids(which.ids.clone()),
    };
    let (done, ended) = match deed {
        Action::Replay => ("replayed", broker.replay(queue, selection).await?),
        _ => ("discarded", broker.discard(queue, selection).await?),
    };
    if ended == 0 {
        galerna_server::check_exists(broker, queue).await?;
    }
    Ok(json!({ done: ended }))
}

/// Tells how many of the ids that were named are there.
///
/// # Errors
/// When none is.
fn all_found(which: &Letters, found: &Value) -> anyhow::Result<()> {
    let named = which.ids.iter().collect::<BTreeSet<_>>().len();
    let (found, queue) = (found.as_u64().unwrap_or_default(), &which.queue);
    if which.all || found >= named as u64 {
        return Ok(());
    }
    let help = format!("`galerna queues dead list {queue}` shows those that are there");
    ensure!(found > 0, "none of the {named} ids named is a dead letter of {queue}; {help}");
    eprint(format_args!("{found} of the {named} ids named were found; {help}"));
    Ok(())
}

fn told(error: BrokerError) -> anyhow::Error {
    anyhow!(galerna_server::describe_broker_error(&error))
}
