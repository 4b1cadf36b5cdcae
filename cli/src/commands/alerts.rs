//! `galerna rules`, `endpoints`, `silences`, `deliveries`, `alerts` and `audit`: what operators do on the page, through its API.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use galerna_model::Rule;
use galerna_storage::Endpoint;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::commands::alert_tables as tables;
use crate::form::{Form, all_pages, duration};
use crate::page_client::PageApi;
use galerna_settings::Settings;
use galerna_terminal::List;

/// Things asked for at once.
const MOST: usize = 500;

/// The commands about alerts; all of them talk to the page (`page.url`).
#[derive(Debug, Clone, Subcommand)]
pub(crate) enum AlertingCommand {
    /// See, save, delete and test-fire alert rules
    Rules(KeptArgs),
    /// See, save, delete and test-fire endpoints: who is told of alerts
    Endpoints(KeptArgs),
    /// See, make and end silences: alerts that nobody is told of for a while
    Silences(SilencesArgs),
    /// See what endpoints were told, and tell them again
    Deliveries(DeliveriesArgs),
    /// See what fires, and what has
    Alerts(AlertsArgs),
    /// See what operators did
    Audit(AuditArgs),
}

impl AlertingCommand {
    /// How it prints.
    pub(crate) fn form(&self) -> &Form {
        match self {
            Self::Rules(args) | Self::Endpoints(args) => &args.form,
            Self::Silences(args) => &args.form,
            Self::Deliveries(args) => &args.form,
            Self::Alerts(args) => &args.form,
            Self::Audit(args) => &args.form,
        }
    }

    /// Whether it changes nothing.
    pub(crate) fn reads(&self) -> bool {
        match self {
            Self::Rules(args) | Self::Endpoints(args) => {
                matches!(args.command, KeptCommand::List | KeptCommand::Show { .. })
            }
            Self::Silences(args) => matches!(args.command, SilencesCommand::List),
            Self::Deliveries(args) => !matches!(args.command, DeliveriesCommand::Resend { .. }),
            Self::Alerts(args) => matches!(args.command, AlertsCommand::List { .. }),
            Self::Audit(_) => true,
        }
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct KeptArgs {
    #[command(flatten)]
    form: Form,
    #[command(subcommand)]
    command: KeptCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum KeptCommand {
    /// List them
    List,
    /// Show one; with --json in the form that `save` takes
    Show {
        /// Its id
        id: String,
    },
    /// Make or replace those in a file
    ///
    /// Rules are evaluated by the readings' times. A hole in the data counts as time breached for `for_ms` when the readings on both
    /// sides of it are breached. A reading that comes later than others of its device by more than `ingest.alert_lateness` is stored and
    /// not evaluated. What a rule names and is not there (an endpoint, a parameter) is told as a warning.
    Save {
        /// JSON: one, or a list of them; `-` for standard input. A secret that reads `***` stays as it is
        file: std::path::PathBuf,
        #[command(flatten)]
        reason: Reason,
    },
    /// Delete one
    Delete {
        /// Its id
        id: String,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        sure: Sure,
    },
    /// Send a test alert
    Test {
        /// Its id
        id: String,
        #[command(flatten)]
        reason: Reason,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct Reason {
    /// Why, for the audit log
    #[arg(long)]
    pub(crate) reason: Option<String>,
}

/// Whether to ask before something is destroyed.
#[derive(Debug, Clone, Args)]
pub(crate) struct Sure {
    /// Do not ask first (nor is asked where no terminal is)
    #[arg(long, short)]
    yes: bool,
}

impl Sure {
    /// Asks on a terminal; where there is none, whoever wrote the command is sure.
    ///
    /// # Errors
    /// When the terminal cannot be read.
    pub(crate) fn is_said(&self, question: &str) -> anyhow::Result<bool> {
        Ok(self.yes || is_sure(question)?)
    }
}

#[derive(Debug, Clone, Args)]
pub(crate) struct SilencesArgs {
    #[command(flatten)]
    form: Form,
    #[command(subcommand)]
    command: SilencesCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum SilencesCommand {
    /// List them, those that have ended too
    List,
    /// Make one; what is not named matches all
    #[command(group = clap::ArgGroup::new("end").required(true).args(["until", "lasting", "minutes"]))]
    Create {
        /// Only alerts of this account
        #[arg(long)]
        account: Option<String>,
        /// Only of devices that match this pattern, for instance `Panther_*`
        #[arg(long)]
        device: Option<String>,
        /// Only of the rule with this id
        #[arg(long)]
        rule: Option<String>,
        /// When it ends, for instance 2030-01-01T00:00:00Z
        #[arg(long, value_name = "TIME")]
        until: Option<String>,
        /// How long it lasts, for instance 90m or 3h
        #[arg(long = "for", value_name = "TIME", value_parser = duration)]
        lasting: Option<Duration>,
        /// How long it lasts, in minutes
        #[arg(long, value_name = "N")]
        minutes: Option<f64>,
        /// Why, for whoever misses the alerts
        #[arg(long)]
        reason: String,
    },
    /// End one
    End {
        /// Its id
        id: String,
        #[command(flatten)]
        reason: Reason,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct DeliveriesArgs {
    #[command(flatten)]
    form: Form,
    #[command(subcommand)]
    command: DeliveriesCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum DeliveriesCommand {
    /// List them, newest first
    List {
        /// Only those that stand so
        #[arg(long, value_enum)]
        status: Option<Status>,
        /// Only to this endpoint
        #[arg(long)]
        endpoint: Option<String>,
        /// Only of alerts of this account
        #[arg(long)]
        account: Option<String>,
        /// Only with this text in an id, a rule, a source, a device or a message
        #[arg(long)]
        search: Option<String>,
        #[command(flatten)]
        cut: Cut,
    },
    /// Show one with its attempts
    Show {
        /// Its id
        id: String,
    },
    /// Send one again
    Resend {
        /// Its id
        id: String,
        #[command(flatten)]
        reason: Reason,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Status {
    /// To be sent, or to be tried again
    Pending,
    /// Sent, and taken
    Delivered,
    /// Given up
    Dead,
    /// Not to be sent: silenced, in cooldown, or the endpoint is disabled
    Suppressed,
}

impl Status {
    fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Dead => "dead",
            Self::Suppressed => "suppressed",
        }
    }
}

#[derive(Debug, Clone, Args)]
struct Cut {
    /// Which page, from 1
    #[arg(long, default_value_t = 1)]
    page: usize,
    /// How many a page, up to 500
    #[arg(long, default_value_t = 50)]
    limit: usize,
    /// All pages
    #[arg(long, conflicts_with_all = ["page", "limit"])]
    all: bool,
}

#[derive(Debug, Clone, Args)]
pub(crate) struct AlertsArgs {
    #[command(flatten)]
    form: Form,
    #[command(subcommand)]
    command: AlertsCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum AlertsCommand {
    /// List what was raised and resolved, newest first
    List {
        /// List what fires now
        #[arg(long)]
        firing: bool,
        /// Only of this account
        #[arg(long)]
        account: Option<String>,
        #[command(flatten)]
        cut: Cut,
    },
    /// Close one that fires: it is resolved with the reason, and fires again only after its condition has cleared
    Close {
        /// The rule's id
        #[arg(long)]
        rule: String,
        /// The device's source
        #[arg(long)]
        source: String,
        /// The device
        #[arg(long)]
        device: String,
        /// Why, for whoever was told of it and for the audit log
        #[arg(long)]
        reason: String,
    },
}

#[derive(Debug, Clone, Args)]
pub(crate) struct AuditArgs {
    #[command(flatten)]
    form: Form,
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Clone, Subcommand)]
enum AuditCommand {
    /// List who did what, to what and why, newest first
    List {
        /// Only with this text in who, what, target, reason or outcome
        #[arg(long)]
        search: Option<String>,
        #[command(flatten)]
        cut: Cut,
    },
}

/// Runs the command.
///
/// # Errors
/// The page cannot be reached or refuses; a file that holds nothing to save.
pub(crate) async fn run(command: AlertingCommand, settings: &Settings) -> anyhow::Result<()> {
    let api = PageApi::new(settings)?;
    match command {
        AlertingCommand::Rules(args) => kept(&RULES, args, &api).await,
        AlertingCommand::Endpoints(args) => kept(&ENDPOINTS, args, &api).await,
        AlertingCommand::Silences(args) => silences(args, &api).await,
        AlertingCommand::Deliveries(args) => deliveries(args, &api).await,
        AlertingCommand::Alerts(AlertsArgs {
            form,
            command: AlertsCommand::List { firing, account, cut },
        }) => {
            let given = [("firing", firing.then(|| "true".to_owned())), ("account", account)];
            let list = if firing { "firing" } else { "events" };
            let found = pages(&api, "/api/alerts", list, given, &cut).await?;
            form.list(&found, &if firing { tables::firing(&found) } else { tables::events(&found) })
        }
        AlertingCommand::Alerts(AlertsArgs {
            form,
            command: AlertsCommand::Close { rule, source, device, reason },
        }) => {
            let body = json!({"rule": rule, "source": source, "device": device, "reason": reason});
            act(&api, "/api/alerts/close", &body, &form).await
        }
        AlertingCommand::Audit(AuditArgs { form, command: AuditCommand::List { search, cut } }) => {
            let found = pages(&api, "/api/audit", "entries", [("search", search)], &cut).await?;
            form.list(&found, &tables::audit(&found))
        }
    }
}

/// The page that is asked for, or all of them in one answer.
async fn pages<const N: usize>(
    api: &PageApi,
    path: &str,
    list: &str,
    given: [(&'static str, Option<String>); N],
    cut: &Cut,
) -> anyhow::Result<Value> {
    let given: Vec<_> = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    let given = &given;
    let fetch = |page: usize, limit: usize| async move {
        let cut = [("page", page.to_string()), ("limit", limit.to_string())];
        api.get(path, &[&given[..], &cut].concat()).await
    };
    if cut.all {
        all_pages(list, MOST, |page| fetch(page, MOST)).await
    } else {
        fetch(cut.page, cut.limit).await
    }
}

/// An action without its parameters that are not given.
fn body<const N: usize>(given: [(&str, Option<Value>); N]) -> Value {
    given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The body of an action on one thing.
fn on(id: &str, reason: Option<String>) -> Value {
    body([("id", Some(json!(id))), ("reason", reason.map(Value::from))])
}

async fn act(api: &PageApi, path: &str, body: &Value, form: &Form) -> anyhow::Result<()> {
    let answer = api.post(path, body).await?;
    form.done(&answer, &tables::text(&answer["done"]))
}

/// Rules or endpoints.
struct Kind {
    /// One of them.
    one: &'static str,
    /// All of them: their path, and their name in the answer.
    all: &'static str,
    /// What is gone with one.
    loss: &'static str,
    /// The first field of one that it has not.
    strange: fn(&Value) -> Option<String>,
    list: fn(&[Value]) -> List,
}

static RULES: Kind = Kind {
    one: "rule",
    all: "rules",
    loss: "What it knows of each device is deleted too; alerts of it that fire are resolved with that reason.",
    strange: strange::<Rule>,
    list: tables::rules,
};

static ENDPOINTS: Kind = Kind {
    one: "endpoint",
    all: "endpoints",
    loss: "Nobody is told there any more, by no rule that names it; its secret is gone.",
    strange: strange::<Endpoint>,
    list: tables::endpoints,
};

async fn kept(kind: &Kind, args: KeptArgs, api: &PageApi) -> anyhow::Result<()> {
    let (form, path) = (&args.form, format!("/api/{}", kind.all));
    match args.command {
        KeptCommand::List => {
            let found = api.get(&path, &[]).await?;
            form.list(&found[kind.all], &(kind.list)(tables::items(&found[kind.all])))
        }
        KeptCommand::Show { id } => {
            let found = api.get(&path, &[("id", id.clone())]).await?;
            let one = &found[kind.all][0];
            form.one(one, &id, || tables::fields(one))
        }
        KeptCommand::Save { file, reason } => {
            let mut all = to_save(kind, &file)?;
            for one in &mut all {
                if let Some(reason) = &reason.reason {
                    one["reason"] = json!(reason);
                }
            }
            let many = all.len() > 1;
            for one in all {
                let saved = act(api, &format!("{path}/save"), &one, form).await;
                // Of one in a list it must be said which it is; those before it are saved.
                if many {
                    saved.with_context(|| format!("{} {}", kind.one, tables::text(&one["id"])))?;
                } else {
                    saved?;
                }
            }
            Ok(())
        }
        KeptCommand::Delete { id, reason, sure } => {
            if !sure.is_said(&format!("Delete {} {id}? {}", kind.one, kind.loss))? {
                bail!("{} {id} is not deleted", kind.one);
            }
            act(api, &format!("{path}/delete"), &on(&id, reason.reason), form).await
        }
        KeptCommand::Test { id, reason } => {
            act(api, &format!("{path}/test"), &on(&id, reason.reason), form).await
        }
    }
}

fn is_sure(question: &str) -> anyhow::Result<bool> {
    let (input, output) = (std::io::stdin(), std::io::stderr());
    if !input.is_terminal() || !output.is_terminal() {
        return Ok(true);
    }
    write!(output.lock(), "{question} [y/N] ")?;
    output.lock().flush()?;
    let mut answer = String::new();
    input.read_line(&mut answer).context("cannot read the answer")?;
    Ok(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes"))
}

/// Reads one or a list of them; what only the page can validate, it validates.
fn to_save(kind: &Kind, file: &Path) -> anyhow::Result<Vec<Value>> {
    let name = if file == Path::new("-") { "standard input".into() } else { file.display().to_string() };
    let text = if file == Path::new("-") {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).map(|_| text)
    } else {
        std::fs::read_to_string(file)
    };
    let text = text.with_context(|| format!("cannot read {name}"))?;
    let value: Value = serde_json::from_str(&text).with_context(|| format!("{name} is not JSON"))?;
    let all = match value {
        Value::Array(all) => all,
        one => vec![one],
    };
    ensure!(!all.is_empty(), "{name} holds no {}", kind.one);
    for one in &all {
        ensure!(
            one.is_object(),
            "{name} holds neither a {0} nor a list of them: write JSON objects",
            kind.one
        );
        if let Some(field) = (kind.strange)(one) {
            bail!(
                "`{field}` in {name} is no field of such a {0}; see `galerna {1} show ID --json`",
                kind.one,
                kind.all
            );
        }
    }
    Ok(all)
}

/// The first field that a thing of this type has not: a field misspelt would else be left out without a word. Nothing for what is
/// no such thing at all: the page says what is wrong with it.
fn strange<T: DeserializeOwned + Serialize>(given: &Value) -> Option<String> {
    let understood = T::deserialize(given).ok()?;
    let understood = serde_json::to_value(understood).ok()?;
    fn missing(given: &Value, known: &Value, within: &str) -> Option<String> {
        given.as_object()?.iter().find_map(|(name, value)| {
            let path = format!("{within}{name}");
            match known.get(name) {
                None => (path != "reason").then_some(path),
                Some(known) => missing(value, known, &format!("{path}.")),
            }
        })
    }
    missing(given, &understood, "")
}

async fn silences(args: SilencesArgs, api: &PageApi) -> anyhow::Result<()> {
    match args.command {
        SilencesCommand::List => {
            let found = api.get("/api/silences", &[]).await?;
            let all = &found["silences"];
            args.form.list(all, &tables::silences(tables::items(all)))
        }
        SilencesCommand::Create { account, device, rule, until, lasting, minutes, reason } => {
            let minutes = minutes.or(lasting.map(|lasting| lasting.as_secs_f64() / 60.0));
            let body = body([
                ("account", account.map(Value::from)),
                ("device", device.map(Value::from)),
                ("rule", rule.map(Value::from)),
                ("until", until.map(Value::from)),
                ("minutes", minutes.map(Value::from)),
                ("reason", Some(reason.into())),
            ]);
            let answer = api.post("/api/silences/create", &body).await?;
            let (done, id) = (tables::text(&answer["done"]), tables::text(&answer["id"]));
            args.form.done(&answer, &format!("{done}; `galerna silences end {id}` ends it"))
        }
        SilencesCommand::End { id, reason } => {
            act(api, "/api/silences/end", &on(&id, reason.reason), &args.form).await
        }
    }
}

async fn deliveries(args: DeliveriesArgs, api: &PageApi) -> anyhow::Result<()> {
    match args.command {
        DeliveriesCommand::List { status, endpoint, account, search, cut } => {
            let status = status.map(|status| status.as_str().to_owned());
            let given =
                [("status", status), ("endpoint", endpoint), ("account", account), ("search", search)];
            let found = pages(api, "/api/deliveries", "deliveries", given, &cut).await?;
            args.form.list(&found, &tables::deliveries(&found))
        }
        DeliveriesCommand::Show { id } => {
            let found = api.get("/api/deliveries", &[("id", id.clone())]).await?;
            let one = &found["deliveries"][0];
            args.form.one(one, &id, || tables::delivery(one))
        }
        DeliveriesCommand::Resend { id, reason } => {
            act(api, "/api/deliveries/resend", &on(&id, reason.reason), &args.form).await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_field_is_found_and_what_the_store_has_is_taken() {
        let rule = json!({"id": "r", "name": "n", "account": null, "devices": "*", "severity": "info", "endpoints": [],
            "cooldown_ms": 0, "enabled": true, "condition": {"kind": "silent", "after_ms": 5000}, "reason": "why"});
        assert_eq!(strange::<Rule>(&rule), None);
        let endpoint = json!({"id": "e", "name": "e", "kind": "webhook", "url": "https://example.org", "headers": {"x": "1"}});
        assert_eq!(strange::<Endpoint>(&endpoint), None);
        let mut misspelt = rule.clone();
        misspelt["condition"]["for"] = json!(1);
        assert_eq!(strange::<Rule>(&misspelt).as_deref(), Some("condition.for"));
        let mut misspelt = endpoint.clone();
        misspelt["group"] = json!(1);
        assert_eq!(strange::<Endpoint>(&misspelt).as_deref(), Some("group"));
    }
}
