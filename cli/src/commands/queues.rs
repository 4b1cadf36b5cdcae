//! `galerna queues`: see and steer the queues through the API of a dispatcher.

use std::collections::BTreeSet;
use std::sync::Arc;

use anyhow::{Context, anyhow, ensure};
use galerna_broker::{Broker, BrokerError, DeadLetterSelection};
use galerna_model::QueueName;
use galerna_storage::AuditLog;
use serde_json::{Value, json};

use crate::api_client::{Api, path_segment};
use crate::args::{DeadCommand, DeadSelection, QueuesArgs, QueuesCommand};
use crate::commands::alerts::Reason;
use crate::page_client::actor;
use galerna_audit::{self as audit, Action};
use galerna_server::backends;
use galerna_settings::Settings;
use galerna_terminal::{eprint, print, print_json, table, thousands};

/// Runs the command.
pub(crate) async fn run(args: QueuesArgs, settings: &Settings) -> anyhow::Result<()> {
    let api = Api::new(&settings.dispatcher.url, settings.api.token.as_deref())?;
    let json = args.json;
    match args.command {
        QueuesCommand::List { state, search, sort, page, limit } => {
            let mut query = vec![("page", page.to_string()), ("limit", limit.to_string())];
            for (name, value) in [("state", state), ("search", search), ("sort", sort)] {
                query.extend(value.map(|value| (name, value)));
            }
            let status = api.get("/queue/status", &query).await?;
            if json { print_json(&status) } else { print_status(&status) }
        }
        QueuesCommand::Show { queue } => {
            let shown = api.get(&path(&queue, "")?, &[]).await?;
            if json { print_json(&shown) } else { print_fields(&shown) }
        }
        QueuesCommand::Pause { queue, reason } => {
            let answer = api.post(&path(&queue, "/pause")?, &because(json!({}), reason)).await?;
            done(json, answer, &format!("{queue} is paused"))
        }
        QueuesCommand::Unpause { queue, reason } => {
            let answer = api.post(&path(&queue, "/unpause")?, &because(json!({}), reason.reason)).await?;
            done(json, answer, &format!("{queue} can be leased"))
        }
        QueuesCommand::Start { reason } => {
            let answer = api.post("/start", &because(json!({}), reason.reason)).await?;
            done(json, answer, "leases are given")
        }
        QueuesCommand::Stop { reason, sure } => {
            let question = "Stop giving leases? No queue is leased any more until somebody starts it again, after a restart too.";
            ensure!(sure.is_said(question)?, "nothing is stopped");
            let answer = api.post("/stop", &because(json!({}), reason.reason)).await?;
            done(json, answer, "no more leases are given; those given go on")
        }
        QueuesCommand::Strategy { name, reason } => {
            let answer = match name {
                Some(name) => {
                    let body = because(json!({ "strategy": name.as_str() }), reason);
                    api.put("/strategy", &body).await?
                }
                None => api.get("/strategy", &[]).await?,
            };
            if json { print_json(&answer) } else { print_fields(&answer) }
        }
        QueuesCommand::Dead(command) => {
            if let DeadCommand::Discard { which, sure, .. } = &command {
                let what = match which.ids.as_slice() {
                    _ if which.all => "all dead letters".to_owned(),
                    [id] => format!("dead letter {id}"),
                    ids => format!("{} dead letters", ids.len()),
                };
                let question =
                    format!("Discard {what} of {}? Their messages cannot be brought back.", which.queue);
                ensure!(sure.is_said(&question)?, "nothing is discarded");
            }
            let dead = DeadLetters::reach(api, settings, &command).await?;
            run_dead(command, &dead, json).await
        }
    }
}

/// A body with the reason that was given, for the audit log.
fn because(mut body: Value, reason: Option<String>) -> Value {
    if let Some(reason) = reason {
        body["reason"] = json!(reason);
    }
    body
}

fn path(queue: &str, rest: &str) -> anyhow::Result<String> {
    let name = QueueName::new(queue)?;
    Ok(format!("/queue/{}{rest}", path_segment(name.as_str())))
}

fn done(json: bool, answer: Value, said: &str) -> anyhow::Result<()> {
    if json { print_json(&answer) } else { print(said) }
}

/// A JSON value as a cell.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(n) => n.as_u64().map_or_else(|| n.to_string(), thousands),
        other => other.to_string(),
    }
}

fn print_status(status: &Value) -> anyhow::Result<()> {
    let dispatcher = &status["dispatcher"];
    let running = if dispatcher["running"] == json!(true) { "running" } else { "stopped" };
    let strategy = match (&dispatcher["strategy"], &dispatcher["configured"]) {
        (now, chosen) if now == chosen => cell(now),
        (now, chosen) => {
            format!("{} ({} is chosen, and returns with the maintainer)", cell(now), cell(chosen))
        }
    };
    print(format!(
        "dispatcher {running}, strategy {strategy}, maintainer {}",
        cell(&dispatcher["maintainer"])
    ))?;
    if let Value::Object(counts) = &status["counts"] {
        let counts: Vec<String> = counts.iter().map(|(state, n)| format!("{state} {}", cell(n))).collect();
        print(counts.join(", "))?;
    }
    let mut shown = table(&[
        "queue",
        "account",
        "state",
        "#ready",
        "#unacked",
        "#epoch",
        "holder",
        "#ms left",
        "last delivered",
    ]);
    let queues = status["queues"].as_array().map(Vec::as_slice).unwrap_or_default();
    for q in queues {
        let names = [
            "queue",
            "account",
            "state",
            "ready",
            "unacked",
            "epoch",
            "holder",
            "expires_in_ms",
            "last_delivered",
        ];
        shown.add_row(names.map(|name| cell(&q[name])));
    }
    print(shown)?;
    print(format!("{} of {} queues", queues.len(), cell(&status["total"])))
}

fn print_fields(value: &Value) -> anyhow::Result<()> {
    let mut shown = table(&["field", "value"]);
    if let Value::Object(fields) = value {
        for (name, value) in fields {
            shown.add_row([name.clone(), cell(value)]);
        }
    }
    print(shown)
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

    async fn replay(&self, which: &DeadSelection, reason: Reason) -> anyhow::Result<Value> {
        self.end(Action::Replay, which, reason).await
    }

    async fn discard(&self, which: &DeadSelection, reason: Reason) -> anyhow::Result<Value> {
        self.end(Action::Discard, which, reason).await
    }

    async fn end(&self, deed: Action, which: &DeadSelection, reason: Reason) -> anyhow::Result<Value> {
        match self {
            Self::Api(api) => {
                let verb = if deed == Action::Replay { "replay" } else { "discard" };
                let body = if which.all { json!({ "all": true }) } else { json!({ "ids": which.ids }) };
                let body = because(body, reason.reason);
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
                    let _ = audit::record(&**log, &entry, audit::PATIENCE).await;
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
    which: &DeadSelection,
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

async fn run_dead(command: DeadCommand, dead: &DeadLetters, json: bool) -> anyhow::Result<()> {
    match command {
        DeadCommand::List { queue: None, .. } => {
            let counts = dead.counts().await?;
            if json {
                return print_json(&counts);
            }
            let mut shown = table(&["queue", "#dead letters"]);
            for entry in counts["queues"].as_array().into_iter().flatten() {
                shown.add_row([cell(&entry["queue"]), cell(&entry["dead"])]);
            }
            print(shown)
        }
        DeadCommand::List { queue: Some(queue), offset, limit, bodies } => {
            let letters = dead.list(&queue, offset, limit, bodies).await?;
            if json {
                return print_json(&letters);
            }
            let mut shown = table(&["id", "at", "component", "#deliveries", "#bytes", "reason"]);
            for letter in letters["dead"].as_array().into_iter().flatten() {
                let names = ["id", "at", "component", "deliveries", "bytes", "reason"];
                shown.add_row(names.map(|name| cell(&letter[name])));
                if bodies {
                    let body: String = cell(&letter["body"]).chars().take(200).collect();
                    shown.add_row(["", "", "", "", "", &body]);
                }
            }
            print(shown)
        }
        DeadCommand::Replay { which, reason } => {
            let answer = dead.replay(&which, reason).await.context("cannot replay")?;
            let found = answer["replayed"].clone();
            let said = format!("{} messages are back in {}", cell(&found), which.queue);
            done(json, answer, &said)?;
            all_found(&which, &found)
        }
        DeadCommand::Discard { which, reason, .. } => {
            let answer = dead.discard(&which, reason).await.context("cannot discard")?;
            let found = answer["discarded"].clone();
            let said = format!("{} dead letters of {} are gone", cell(&found), which.queue);
            done(json, answer, &said)?;
            all_found(&which, &found)
        }
    }
}

/// Tells how many of the ids that were named are there.
///
/// # Errors
/// When none is.
fn all_found(which: &DeadSelection, found: &Value) -> anyhow::Result<()> {
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
