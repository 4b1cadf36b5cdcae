//! `galerna queues`: see and steer the queues through the API of a dispatcher.

use std::time::Duration;

use anyhow::ensure;
use galerna_model::QueueName;
use serde_json::{Value, json};

use crate::api_client::{Api, path_segment};
use crate::args::{PauseSelection, QueuesArgs, QueuesCommand};
use crate::commands::dead_letters;
use crate::form::{Form, all_pages};
use galerna_settings::Settings;
use galerna_terminal::{Cell, List, Tone, print, table, thousands};

/// Queues asked for at once.
const MOST: usize = 1_000;
/// Queues that a question names.
const NAMED: usize = 5;

/// Runs the command.
pub(crate) async fn run(args: QueuesArgs, settings: &Settings) -> anyhow::Result<()> {
    let api = Api::new(&settings.dispatcher.url, settings.api.token.as_deref())?;
    let form = args.form;
    match args.command {
        QueuesCommand::List { state, search, sort, page, limit, all } => {
            let mut query = Vec::new();
            for (name, value) in [("state", state), ("search", search), ("sort", sort)] {
                query.extend(value.map(|value| (name, value)));
            }
            let (api, query) = (&api, &query);
            let fetch = |page: usize, limit: usize| async move {
                let cut = [("page", page.to_string()), ("limit", limit.to_string())];
                api.get("/queue/status", &[&query[..], &cut].concat()).await
            };
            let status = match all {
                true => all_pages("queues", MOST, |page| fetch(page, MOST)).await?,
                false => fetch(page, limit).await?,
            };
            form.list(&status, &queues(&status))
        }
        QueuesCommand::Show { queue } => {
            let shown = api.get(&path(&queue, "")?, &[]).await?;
            form.one(&shown, &queue, || print_fields(&shown))
        }
        QueuesCommand::Pause { which, reason } => {
            let reason = because(json!({}), reason);
            steer(&api, &form, &which, &Steering { verb: "pause", done: "is paused", body: reason }).await
        }
        QueuesCommand::Unpause { which, reason } => {
            let reason = because(json!({}), reason.reason);
            steer(&api, &form, &which, &Steering { verb: "unpause", done: "can be leased", body: reason })
                .await
        }
        QueuesCommand::Start { reason } => {
            let answer = api.post("/start", &because(json!({}), reason.reason)).await?;
            form.done(&answer, "leases are given")
        }
        QueuesCommand::Stop { reason, sure } => {
            let question = "Stop giving leases? No queue is leased any more until somebody starts it again, after a restart too.";
            ensure!(sure.is_said(question)?, "nothing is stopped");
            let answer = api.post("/stop", &because(json!({}), reason.reason)).await?;
            form.done(&answer, "no more leases are given; those given go on")
        }
        QueuesCommand::Strategy { name, reason } => {
            let answer = match name {
                Some(name) => {
                    let body = because(json!({ "strategy": name.as_str() }), reason);
                    api.put("/strategy", &body).await?
                }
                None => api.get("/strategy", &[]).await?,
            };
            form.one(&answer, &cell(&answer["configured"]), || print_fields(&answer))
        }
        QueuesCommand::Dead(command) => dead_letters::run(command, api, &form, settings).await,
    }
}

/// A body with the reason that was given, for the audit log.
pub(super) fn because(mut body: Value, reason: Option<String>) -> Value {
    if let Some(reason) = reason {
        body["reason"] = json!(reason);
    }
    body
}

pub(super) fn path(queue: &str, rest: &str) -> anyhow::Result<String> {
    let name = QueueName::new(queue)?;
    Ok(format!("/queue/{}{rest}", path_segment(name.as_str())))
}

/// What is done to queues.
struct Steering {
    verb: &'static str,
    /// What holds of a queue then.
    done: &'static str,
    body: Value,
}

/// Pauses or unpauses one queue, or several after one question. One that refuses does not keep the others from it.
async fn steer(api: &Api, form: &Form, which: &PauseSelection, what: &Steering) -> anyhow::Result<()> {
    let Steering { verb, done, body } = what;
    if let ([queue], None, false) = (which.queues.as_slice(), &which.search, which.all) {
        let answer = api.post(&path(queue, &format!("/{verb}"))?, body).await?;
        return form.done(&answer, &format!("{queue} {done}"));
    }
    let queues = selected(api, which).await?;
    ensure!(!queues.is_empty(), "no queue matches; nothing is changed");
    let question = format!("{}{} {}?", verb[..1].to_uppercase(), &verb[1..], named(&queues, "queue"));
    ensure!(which.sure.is_said(&question)?, "nothing is changed");
    let mut results = List::new(&["queue", "done", "why not"]);
    let mut failed = 0;
    for queue in &queues {
        let answer = match path(queue, &format!("/{verb}")) {
            Ok(path) => api.post(&path, body).await,
            Err(e) => Err(e),
        };
        failed += usize::from(answer.is_err());
        match answer {
            Ok(answer) => {
                let item = json!({ "queue": queue, "done": true, "answer": answer });
                results.row(item, [Cell::text(queue.as_str()), "yes".into(), "".into()]);
            }
            Err(e) => {
                let item = json!({ "queue": queue, "done": false, "error": format!("{e:#}") });
                let no = Cell::text("no").toned(Tone::Bad);
                results.row(item, [Cell::text(queue.as_str()), no, Cell::text(format!("{e:#}"))]);
            }
        }
    }
    let results = results.saying(format!("{} of {} {done}", queues.len() - failed, named(&queues, "queue")));
    form.list(&results.json(), &results)?;
    ensure!(failed == 0, "{failed} of {} queues could not be changed", queues.len());
    Ok(())
}

/// The queues that are meant, by name.
async fn selected(api: &Api, which: &PauseSelection) -> anyhow::Result<Vec<String>> {
    if !which.queues.is_empty() {
        return Ok(which.queues.clone());
    }
    let search: Vec<(&str, String)> = which.search.iter().map(|text| ("search", text.clone())).collect();
    let search = &search;
    let status = all_pages("queues", MOST, |page| async move {
        let cut = [("page", page.to_string()), ("limit", MOST.to_string())];
        api.get("/queue/status", &[&search[..], &cut].concat()).await
    })
    .await?;
    let queues = status["queues"].as_array().into_iter().flatten();
    Ok(queues.filter_map(|queue| queue["queue"].as_str().map(str::to_owned)).collect())
}

/// So many things, the first by name.
pub(super) fn named(names: &[String], one: &str) -> String {
    match names {
        [name] => format!("{one} {name}"),
        _ => {
            let first = names.iter().take(NAMED).map(String::as_str).collect::<Vec<_>>().join(", ");
            let more = if names.len() > NAMED { ", …" } else { "" };
            format!("{} {one}s ({first}{more})", thousands(names.len() as u64))
        }
    }
}

/// A JSON value as a cell.
pub(super) fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Number(n) => n.as_u64().map_or_else(|| n.to_string(), thousands),
        other => other.to_string(),
    }
}

/// A JSON value as a cell of a list.
pub(super) fn list_cell(value: &Value) -> Cell {
    match value.as_u64() {
        Some(n) => Cell::number(n),
        None => Cell::text(cell(value)),
    }
}

fn state(value: &Value) -> Cell {
    let tone = match value.as_str() {
        Some("worker") => Tone::Good,
        Some("pause") => Tone::Warn,
        Some("delete") => Tone::Bad,
        _ => Tone::Plain,
    };
    list_cell(value).toned(tone)
}

fn queues(status: &Value) -> List {
    let dispatcher = &status["dispatcher"];
    let running = if dispatcher["running"] == json!(true) { "running" } else { "stopped" };
    let strategy = match (&dispatcher["strategy"], &dispatcher["configured"]) {
        (now, chosen) if now == chosen => cell(now),
        (now, chosen) => {
            format!("{} ({} is chosen, and returns with the maintainer)", cell(now), cell(chosen))
        }
    };
    let mut shown = List::new(&[
        "queue",
        "account",
        "state",
        "#ready",
        "#unacked",
        "#epoch",
        "holder",
        "#~lease ends in",
        "last delivered",
    ]);
    let queues = status["queues"].as_array().map(Vec::as_slice).unwrap_or_default();
    for q in queues {
        let left = q["expires_in_ms"].as_u64().map_or_else(|| Cell::text(""), Cell::milliseconds);
        shown.row(
            q.clone(),
            [
                list_cell(&q["queue"]),
                list_cell(&q["account"]),
                state(&q["state"]),
                list_cell(&q["ready"]),
                list_cell(&q["unacked"]),
                list_cell(&q["epoch"]),
                list_cell(&q["holder"]),
                left,
                list_cell(&q["last_delivered"]),
            ],
        );
    }
    let shown = shown.of(status["total"].as_u64()).saying(format!(
        "dispatcher {running}, strategy {strategy}, maintainer {}",
        cell(&dispatcher["maintainer"])
    ));
    let counts = status["counts"].as_object().into_iter().flatten();
    let counts: Vec<String> = counts.map(|(state, n)| format!("{state} {}", cell(n))).collect();
    shown.saying(counts.join(", ")).saying(format!("{} of {} queues", queues.len(), cell(&status["total"])))
}

/// One thing, field by field; times that are left as people write them.
pub(super) fn print_fields(value: &Value) -> anyhow::Result<()> {
    let mut shown = table(&["field", "value"]);
    if let Value::Object(fields) = value {
        for (name, value) in fields {
            let value = match value.as_u64() {
                Some(millis) if name.ends_with("_ms") => {
                    galerna_terminal::duration(Duration::from_millis(millis))
                }
                _ => cell(value),
            };
            shown.add_row([name.clone(), value]);
        }
    }
    print(shown)
}
