//! `galerna rules`, `endpoints`, `silences`, `deliveries`, `alerts` and `audit`: what operators do on the page, through its API.

use std::io::{IsTerminal, Read, Write};
use std::path::Path;

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand, ValueEnum};
use galerna_model::Rule;
use galerna_storage::Endpoint;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::commands::alert_tables as tables;
use crate::page_client::PageApi;
use galerna_settings::Settings;
use galerna_terminal::{print, print_json};

/// The commands about alerts; all of them talk to the page (`page.url`).
#[derive(Debug, Subcommand)]
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

#[derive(Debug, Args)]
pub(crate) struct KeptArgs {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: KeptCommand,
}

#[derive(Debug, Subcommand)]
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

#[derive(Debug, Args)]
pub(crate) struct Reason {
    /// Why, for the audit log
    #[arg(long)]
    pub(crate) reason: Option<String>,
}

/// Whether to ask before something is destroyed.
#[derive(Debug, Args)]
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

#[derive(Debug, Args)]
pub(crate) struct SilencesArgs {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: SilencesCommand,
}

#[derive(Debug, Subcommand)]
enum SilencesCommand {
    /// List them, those that have ended too
    List,
    /// Make one; what is not named matches all
    #[command(group = clap::ArgGroup::new("end").required(true).args(["until", "minutes"]))]
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
        /// How long it lasts
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

#[derive(Debug, Args)]
pub(crate) struct DeliveriesArgs {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: DeliveriesCommand,
}

#[derive(Debug, Subcommand)]
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

#[derive(Debug, Args)]
struct Cut {
    /// Which page, from 1
    #[arg(long, default_value_t = 1)]
    page: usize,
    /// How many a page, up to 500
    #[arg(long, default_value_t = 50)]
    limit: usize,
}

#[derive(Debug, Args)]
pub(crate) struct AlertsArgs {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: AlertsCommand,
}

#[derive(Debug, Subcommand)]
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

#[derive(Debug, Args)]
pub(crate) struct AuditArgs {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: AuditCommand,
}

#[derive(Debug, Subcommand)]
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
            json,
            command: AlertsCommand::List { firing, account, cut },
        }) => {
            let firing = firing.then(|| "true".to_owned());
            let is_firing = firing.is_some();
            let query = query([("firing", firing), ("account", account)], &cut);
            let found = api.get("/api/alerts", &query).await?;
            match (json, is_firing) {
                (true, _) => print_json(&found),
                (false, true) => tables::firing(&found),
                (false, false) => tables::events(&found),
            }
        }
        AlertingCommand::Alerts(AlertsArgs {
            json,
            command: AlertsCommand::Close { rule, source, device, reason },
        }) => {
            let body = json!({"rule": rule, "source": source, "device": device, "reason": reason});
            act(&api, "/api/alerts/close", &body, json).await
        }
        AlertingCommand::Audit(AuditArgs { json, command: AuditCommand::List { search, cut } }) => {
            let found = api.get("/api/audit", &query([("search", search)], &cut)).await?;
            if json { print_json(&found) } else { tables::audit(&found) }
        }
    }
}

fn query<const N: usize>(
    given: [(&'static str, Option<String>); N],
    cut: &Cut,
) -> Vec<(&'static str, String)> {
    let mut query: Vec<_> = given.into_iter().filter_map(|(name, value)| Some((name, value?))).collect();
    query.extend([("page", cut.page.to_string()), ("limit", cut.limit.to_string())]);
    query
}

/// An action without its parameters that are not given.
fn body<const N: usize>(given: [(&str, Option<Value>); N]) -> Value {
    given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// The body of an action on one thing.
fn on(id: &str, reason: Option<String>) -> Value {
    body([("id", Some(json!(id))), ("reason", reason.map(Value::from))])
}

async fn act(api: &PageApi, path: &str, body: &Value, json: bool) -> anyhow::Result<()> {
    let answer = api.post(path, body).await?;
    if json { print_json(&answer) } else { print(tables::text(&answer["done"])) }
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
    list: fn(&[Value]) -> anyhow::Result<()>,
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
    let (json, path) = (args.json, format!("/api/{}", kind.all));
    match args.command {
        KeptCommand::List => {
            let found = api.get(&path, &[]).await?;
            if json { print_json(&found[kind.all]) } else { (kind.list)(tables::items(&found[kind.all])) }
        }
        KeptCommand::Show { id } => {
            let found = api.get(&path, &[("id", id)]).await?;
            let one = &found[kind.all][0];
            if json { print_json(one) } else { tables::fields(one) }
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
                let saved = act(api, &format!("{path}/save"), &one, json).await;
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
            act(api, &format!("{path}/delete"), &on(&id, reason.reason), json).await
        }
        KeptCommand::Test { id, reason } => {
            act(api, &format!("{path}/test"), &on(&id, reason.reason), json).await
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

/// Reads one or a list of them; what only the page can judge, it judges.
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
            if args.json { print_json(all) } else { tables::silences(tables::items(all)) }
        }
        SilencesCommand::Create { account, device, rule, until, minutes, reason } => {
            let body = body([
                ("account", account.map(Value::from)),
                ("device", device.map(Value::from)),
                ("rule", rule.map(Value::from)),
                ("until", until.map(Value::from)),
                ("minutes", minutes.map(Value::from)),
                ("reason", Some(reason.into())),
            ]);
            let answer = api.post("/api/silences/create", &body).await?;
            if args.json {
                return print_json(&answer);
            }
            let (done, id) = (tables::text(&answer["done"]), tables::text(&answer["id"]));
            print(format!("{done}; `galerna silences end {id}` ends it"))
        }
        SilencesCommand::End { id, reason } => {
            act(api, "/api/silences/end", &on(&id, reason.reason), args.json).await
        }
    }
}

async fn deliveries(args: DeliveriesArgs, api: &PageApi) -> anyhow::Result<()> {
    match args.command {
        DeliveriesCommand::List { status, endpoint, account, search, cut } => {
            let status = status.map(|status| status.as_str().to_owned());
            let given =
                [("status", status), ("endpoint", endpoint), ("account", account), ("search", search)];
            let found = api.get("/api/deliveries", &query(given, &cut)).await?;
            if args.json { print_json(&found) } else { tables::deliveries(&found) }
        }
        DeliveriesCommand::Show { id } => {
            let found = api.get("/api/deliveries", &[("id", id)]).await?;
            let one = &found["deliveries"][0];
            if args.json { print_json(one) } else { tables::delivery(one) }
        }
        DeliveriesCommand::Resend { id, reason } => {
            act(api, "/api/deliveries/resend", &on(&id, reason.reason), args.json).await
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
