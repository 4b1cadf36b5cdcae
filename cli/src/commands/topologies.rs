//! `galerna topology list`, `show` and the rest: see and change topologies that run, through the API of the process that runs them.

use anyhow::ensure;
use clap::Subcommand;
use galerna_control::{ComponentView, Details, Status, Summary, UpgradeView};
use galerna_settings::Settings;
use galerna_terminal::{Cell, List, Tone, duration, print, table, thousands};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::time::Duration;

use crate::api_client::{Api, path_segment};
use crate::args::{Reason, Sure};
use crate::commands::queues::because;
use crate::form::Form;

const ALL: &str = "/api/v1/topologies";

/// What can be done with topologies that run.
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum TopologiesCommand {
    /// List the topologies that run in a process, and those that ended in the last minutes
    List,
    /// Show one: its components, what they did and wait for, and why it is not faster
    Show {
        /// The topology
        name: String,
    },
    /// Let the spouts of one emit
    Activate {
        /// The topology
        name: String,
        #[command(flatten)]
        reason: Reason,
    },
    /// Have the spouts of one stop emitting; what is on its way goes on
    Deactivate {
        /// The topology
        name: String,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        sure: Sure,
    },
    /// Change how many tasks of a component execute at the same time
    Rebalance {
        /// The topology
        name: String,
        /// The component
        component: String,
        /// From 1 to as many as it has tasks
        executors: usize,
        #[command(flatten)]
        reason: Reason,
    },
    /// Have the executors of a component follow its load between bounds, or with --stop stay as they are
    Autoscale {
        /// The topology
        name: String,
        /// The component
        component: String,
        /// The fewest executors
        #[arg(long, required_unless_present = "stop")]
        min: Option<usize>,
        /// The most executors
        #[arg(long, required_unless_present = "stop")]
        max: Option<usize>,
        /// From this busy share on there are to be more [default: 0.8]
        #[arg(long)]
        grow_at: Option<f64>,
        /// Up to this busy share there are to be fewer [default: 0.3]
        #[arg(long)]
        shrink_at: Option<f64>,
        /// For so many seconds the share must have been so [default: 10]
        #[arg(long, value_name = "SECONDS")]
        hold: Option<u64>,
        /// The executors stay as they are from now on
        #[arg(long, conflicts_with_all = ["min", "max", "grow_at", "shrink_at", "hold"])]
        stop: bool,
        #[command(flatten)]
        reason: Reason,
    },
    /// Take a checkpoint and end one, so that a new program goes on from there; --dry-run says what that would make of the state
    Upgrade {
        /// The topology
        name: String,
        /// Change nothing: say of each state whether it would be claimed, migrated, orphaned or refused
        #[arg(long)]
        dry_run: bool,
        /// What the new program declares: the JSON of `Engine::declared_states`, in this file or with `-` from standard input
        #[arg(long, value_name = "FILE")]
        declares: Option<std::path::PathBuf>,
        /// The new program drops the state of components that it does not have
        #[arg(long)]
        drop_orphaned: bool,
        /// Wait for so many seconds at most for what is pending [default: its message timeout]
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=86_400))]
        wait: Option<u64>,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        sure: Sure,
    },
    /// Take a checkpoint now, and wait until it is committed
    Checkpoint {
        /// The topology
        name: String,
        #[command(flatten)]
        reason: Reason,
    },
    /// End one: nothing is emitted any more, and what is pending is waited for
    Kill {
        /// The topology
        name: String,
        /// Wait for so many seconds at most [default: its message timeout]
        #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=86_400))]
        wait: Option<u64>,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        sure: Sure,
    },
}

impl TopologiesCommand {
    /// Whether it changes nothing.
    pub(crate) fn reads(&self) -> bool {
        matches!(self, Self::List | Self::Show { .. } | Self::Upgrade { dry_run: true, .. })
    }
}

fn path(name: &str, rest: &str) -> String {
    format!("{ALL}/{}{rest}", path_segment(name))
}

/// Runs the command.
///
/// # Errors
/// If no process answers, or it refuses.
pub(crate) async fn run(command: &TopologiesCommand, form: &Form, settings: &Settings) -> anyhow::Result<()> {
    let api = Api::new(&settings.dispatcher.url, settings.api.token.as_deref())?;
    match command {
        TopologiesCommand::List => {
            let answer = api.get(ALL, &[]).await?;
            let all: Vec<Summary> = understood(answer["topologies"].clone())?;
            form.list(&answer, &listed(&all))
        }
        TopologiesCommand::Show { name } => {
            let answer = api.get(&path(name, ""), &[]).await?;
            let details: Details = understood(answer.clone())?;
            form.one(&answer, name, || print_details(&details))
        }
        TopologiesCommand::Activate { name, reason } => {
            let answer = api.post(&path(name, "/activate"), &said(json!({}), reason)).await?;
            form.done(&answer, &format!("{name} is active"))
        }
        TopologiesCommand::Deactivate { name, reason, sure } => {
            let question = format!("Deactivate {name}? Its spouts emit nothing until it is activated again.");
            ensure!(sure.is_said(&question)?, "nothing is changed");
            let answer = api.post(&path(name, "/deactivate"), &said(json!({}), reason)).await?;
            form.done(&answer, &format!("{name} is inactive"))
        }
        TopologiesCommand::Rebalance { name, component, executors, reason } => {
            let body = said(json!({ "component": component, "executors": executors }), reason);
            let answer = api.post(&path(name, "/rebalance"), &body).await?;
            let (from, pause) = (&answer["from"], answer["pause_ms"].as_f64().unwrap_or_default());
            let told = format!(
                "{component} of {name} has {executors} executors, it had {from}; that took {pause:.1} ms"
            );
            form.done(&answer, &told)
        }
        TopologiesCommand::Autoscale {
            name,
            component,
            min,
            max,
            grow_at,
            shrink_at,
            hold,
            stop,
            reason,
        } => {
            let body = match stop {
                true => json!({ "component": component }),
                false => json!({
                    "component": component, "min": min, "max": max, "grow_at": grow_at, "shrink_at": shrink_at, "hold_seconds": hold,
                }),
            };
            let answer = api.post(&path(name, "/autoscale"), &said(body, reason)).await?;
            let told = match (stop, min, max) {
                (false, Some(min), Some(max)) => {
                    format!("{component} of {name} follows its load with {min} to {max} executors")
                }
                _ => format!("{component} of {name} keeps the executors that it has"),
            };
            form.done(&answer, &told)
        }
        TopologiesCommand::Upgrade { name, dry_run: true, declares, .. } => {
            let declares = declares.as_deref().map(declared).transpose()?;
            let body = json!({ "dry_run": true, "declares": declares });
            let answer = api.post(&path(name, "/upgrade"), &body).await?;
            let plan: UpgradeView = understood(answer.clone())?;
            form.one(&answer, name, || print_plan(&plan))
        }
        TopologiesCommand::Upgrade { name, declares, drop_orphaned, wait, reason, sure, .. } => {
            let declares = declares.as_deref().map(declared).transpose()?;
            let question =
                format!("Upgrade {name}? It ends after a checkpoint, until the new program is started.");
            ensure!(sure.is_said(&question)?, "nothing is changed");
            let body = json!({ "declares": declares, "drop_orphaned": drop_orphaned, "wait_seconds": wait });
            let answer = api.post(&path(name, "/upgrade"), &said(body, reason)).await?;
            let checkpoint = &answer["checkpoint"];
            form.done(
                &answer,
                &format!(
                    "checkpoint {checkpoint} of {name} is committed, and it ends; when `galerna topology show {name}` says so, start the new program"
                ),
            )
        }
        TopologiesCommand::Checkpoint { name, reason } => {
            let answer = api.post(&path(name, "/checkpoint"), &said(json!({}), reason)).await?;
            let (id, took) = (&answer["id"], answer["took_ms"].as_f64().unwrap_or_default());
            form.done(&answer, &format!("checkpoint {id} of {name} is committed; it took {took:.0} ms"))
        }
        TopologiesCommand::Kill { name, wait, reason, sure } => {
            let question = format!("Kill {name}? It is gone from its process until that is started again.");
            ensure!(sure.is_said(&question)?, "nothing is changed");
            let rest = wait.map_or_else(|| "/kill".to_owned(), |seconds| format!("/kill/{seconds}"));
            let answer = api.post(&path(name, &rest), &said(json!({}), reason)).await?;
            form.done(&answer, &format!("{name} ends; `galerna topology show {name}` tells when it has"))
        }
    }
}

/// What a program has said that it declares.
fn declared(file: &std::path::Path) -> anyhow::Result<Value> {
    use anyhow::Context;
    let text = match file.to_str() {
        Some("-") => std::io::read_to_string(std::io::stdin()),
        _ => std::fs::read_to_string(file),
    };
    let text = text.with_context(|| format!("{} cannot be read", file.display()))?;
    serde_json::from_str(&text).with_context(|| {
        format!("{} is not the JSON that `Engine::declared_states` gives of a topology", file.display())
    })
}

fn print_plan(plan: &UpgradeView) -> anyhow::Result<()> {
    print(format!("checkpoint {} of {}", plan.checkpoint, plan.name))?;
    let mut rows = table(&["component", "state", "would be", "versions", "bytes", "why"]);
    for state in &plan.states {
        let versions: Vec<String> = state.versions.iter().map(u32::to_string).collect();
        rows.add_row([
            state.component.clone(),
            state.state.clone(),
            state.fate.clone(),
            versions.join(" -> "),
            thousands(state.bytes),
            state.reason.clone().unwrap_or_default(),
        ]);
    }
    print(rows)?;
    plan.advice.iter().try_for_each(print)
}

fn said(body: Value, reason: &Reason) -> Value {
    because(body, reason.reason.clone())
}

fn understood<T: DeserializeOwned>(answer: Value) -> anyhow::Result<T> {
    use anyhow::Context;
    serde_json::from_value(answer).context("the answer is in no form that this version knows")
}

fn tone(status: Status) -> Option<Tone> {
    match status {
        Status::Active => Some(Tone::Good),
        Status::Inactive | Status::Ending => Some(Tone::Warn),
        _ => None,
    }
}

fn listed(all: &[Summary]) -> List {
    let columns = [
        "topology",
        "status",
        "rate/s",
        "done",
        "failed",
        "pending",
        "executors",
        "#~runs for",
        "why not faster",
    ];
    let mut list = List::new(&columns);
    for t in all {
        let status = Cell::text(t.status.as_str());
        let cells = [
            Cell::text(t.name.as_str()),
            match tone(t.status) {
                Some(tone) => status.toned(tone),
                None => status,
            },
            Cell::text(t.rate.map_or_else(String::new, |rate| format!("{rate:.1}"))),
            Cell::number(t.acked),
            Cell::number(t.failed),
            Cell::number(t.pending),
            Cell::number(t.executors as u64),
            Cell::milliseconds(t.uptime_ms),
            Cell::text(t.why_slow.as_str()),
        ];
        list.row(json!(t), cells);
    }
    list.saying(format!("{} topologies", all.len()))
}

fn print_details(details: &Details) -> anyhow::Result<()> {
    let of = &details.summary;
    let uptime = duration(Duration::from_millis(of.uptime_ms));
    print(format!("{}: {}, runs for {uptime}", of.name, of.status.as_str()))?;
    print(&of.why_slow)?;
    let headings = [
        "component",
        "kind",
        "executors",
        "rate/s",
        "in all",
        "acked",
        "failed",
        "waiting",
        "busy",
        "p50 ms",
        "p99 ms",
        "state",
    ];
    let mut rows = table(&headings);
    for c in &details.component_metrics {
        rows.add_row(row(c));
    }
    print(rows)?;
    if let Some(ended) = &details.ended {
        print(match ended.drained {
            true => "all that was pending ended before it did".to_owned(),
            false => format!("{} roots were pending when it ended", ended.unfinished),
        })?;
    }
    Ok(())
}

fn row(c: &ComponentView) -> [String; 12] {
    let mut state = c.states.clone();
    state.sort_unstable();
    state.dedup();
    if let Some(holder) = c.watermark.as_ref().and_then(|watermark| watermark.held_by.as_ref()) {
        state.push(format!("watermark held by {holder}"));
    }
    [
        c.id.clone(),
        c.kind.clone(),
        if c.executors == c.tasks {
            c.executors.to_string()
        } else {
            format!("{} of {}", c.executors, c.tasks)
        },
        c.rate.map_or_else(String::new, |rate| format!("{rate:.1}")),
        thousands(if c.is_spout() { c.emitted } else { c.executed }),
        thousands(c.acked),
        thousands(c.failures()),
        thousands(if c.is_spout() { c.pending } else { c.queued as u64 }),
        c.capacity.map_or_else(String::new, |busy| format!("{:.0} %", busy * 100.0)),
        format!("{:.2}", c.latency().p50_ms),
        format!("{:.2}", c.latency().p99_ms),
        state.join(", "),
    ]
}
