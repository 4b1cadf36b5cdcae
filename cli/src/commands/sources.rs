//! `galerna sources`: who may post readings, kept in the store.
//!
//! The frontend reads the list from the store when `maintainer.accounts` (or `frontend.sources`) is `store`, as it is by default.
//! While `galerna up` has an embedded store open, its API is asked (`dispatcher.url`), and a change is in force at once; frontends in
//! other processes notice a change within `frontend.sources_every`. The list holds hashes of tokens only: a token is shown once, when
//! it is made.

use anyhow::{Context, ensure};
use clap::{Args, Subcommand};
use galerna_audit::{self as audit, Action};
use galerna_directory::{AddedSource, ListedSource, RegistryError, SourceRegistry};
use galerna_model::QueueName;
use galerna_storage::{AuditLog, StorageError};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use std::sync::Arc;

use galerna_server::backends;
use galerna_settings::{Settings, TOKEN_VARIABLE};
use galerna_terminal::{Cell, List, Tone, eprint, print};

use crate::api_client::{Api, path_segment};
use crate::args::{Reason, Sure};
use crate::commands::consumption::{self, ConsumptionArgs};
use crate::form::Form;
use crate::page_client::actor;

/// Characters below which a token that somebody chose may be guessed.
const WEAK: usize = 16;
/// Sources asked for at once.
const PAGE: usize = 1_000;

#[derive(Debug, Clone, Args)]
pub(crate) struct SourcesArgs {
    #[command(flatten)]
    pub(crate) form: Form,
    #[command(subcommand)]
    command: SourcesCommand,
}

#[derive(Debug, Clone, Args)]
struct Token {
    /// Its token, which other users of the machine may see on the command line, and not in the variable [default: a random one,
    /// which is printed, this once]
    #[arg(long, env = TOKEN_VARIABLE, hide_env_values = true)]
    token: Option<String>,
}

impl SourcesArgs {
    /// Whether it changes nothing.
    pub(crate) fn reads(&self) -> bool {
        matches!(self.command, SourcesCommand::List { .. } | SourcesCommand::Consumption(_))
    }
}

#[derive(Debug, Clone, Subcommand)]
enum SourcesCommand {
    /// List sources and their accounts
    List {
        /// Only those of this account
        #[arg(long)]
        account: Option<String>,
    },
    /// Add a source, and its account when it is new; a source that is there gets a new token
    Add {
        /// The source
        source: String,
        /// The account that owns it; the queue of a new account has its name
        #[arg(long)]
        account: String,
        #[command(flatten)]
        token: Token,
        #[command(flatten)]
        reason: Reason,
    },
    /// Give a source a new token; the one before is no longer taken
    Rotate {
        /// The source
        source: String,
        #[command(flatten)]
        token: Token,
        #[command(flatten)]
        reason: Reason,
    },
    /// Show what the counters of a source say was used, by hour, day or month (`ingest.consumption_zone`; asks the page)
    Consumption(ConsumptionArgs),
    /// Count all stored readings of a source anew: those from before consumption was kept, or kept by another time zone (asks the page)
    Recount {
        /// The source
        source: String,
        #[command(flatten)]
        reason: Reason,
    },
    /// Take no more readings from a source; what it sent stays
    Remove {
        /// The source
        source: String,
        #[command(flatten)]
        reason: Reason,
        #[command(flatten)]
        sure: Sure,
    },
}

/// Runs the command.
///
/// # Errors
/// When neither the store can be opened nor the process that has it open answers, or what is asked for contradicts what is there.
pub(crate) async fn run(args: &SourcesArgs, settings: &Settings) -> anyhow::Result<()> {
    match &args.command {
        SourcesCommand::Consumption(asked) => return consumption::show(asked, &args.form, settings).await,
        SourcesCommand::Recount { source, reason } => {
            return consumption::recount(source, reason, &args.form, settings).await;
        }
        _ => {}
    }
    let (name, value) = match &settings.frontend.sources {
        Some(sources) => ("frontend.sources", sources),
        None => ("maintainer.accounts", &settings.maintainer.accounts),
    };
    if !value.is_empty() && value != "store" {
        eprint(format_args!(
            "note: `{name}` is `{value}`: frontends with this setting take sources from there, not from the store"
        ));
    }
    let form = &args.form;
    match &args.command {
        SourcesCommand::List { account } => {
            let listed = Sources::reach(settings, false).await?.list(account.as_deref()).await?;
            show(&listed, form)
        }
        SourcesCommand::Add { source, account, token: Token { token }, reason } => {
            warn_of_weak(token.as_deref());
            let sources = Sources::reach(settings, true).await?;
            let added = sources.add(source, account, token.as_deref(), reason).await?;
            form.one(&json!(added), added.source.as_str(), || print_added(&added))
        }
        SourcesCommand::Rotate { source, token: Token { token }, reason } => {
            warn_of_weak(token.as_deref());
            let rotated =
                Sources::reach(settings, false).await?.rotate(source, token.as_deref(), reason).await?;
            form.one(&json!(rotated), rotated.source.as_str(), || print_added(&rotated))
        }
        SourcesCommand::Remove { source, reason, sure } => {
            let question = format!("Remove source {source}? Its readings are refused from then on.");
            ensure!(sure.is_said(&question)?, "{source} is not removed");
            let removed = Sources::reach(settings, false).await?.remove(source, reason).await?;
            let said =
                format!("{} of {} may post no more; what it sent stays", removed.source, removed.account);
            form.done(&json!(removed), &said)
        }
        // Done above.
        SourcesCommand::Consumption(_) | SourcesCommand::Recount { .. } => Ok(()),
    }
}

fn warn_of_weak(token: Option<&str>) {
    if token.is_some_and(|token| token.len() < WEAK) {
        eprint(format_args!("note: a token of fewer than {WEAK} characters may be guessed"));
    }
}

/// The way to the sources.
enum Sources {
    /// The store is open in another process.
    Api(Api),
    /// The store is opened here, and the audit log with it.
    Store(SourceRegistry, Arc<dyn AuditLog>),
}

impl Sources {
    async fn reach(settings: &Settings, makes: bool) -> anyhow::Result<Self> {
        if settings.store.is_embedded() {
            let file = backends::data_file(settings, "store.db");
            ensure!(
                makes || file.exists(),
                "there is no store in the folder {}; name another with --data, or MongoDB with --store",
                settings.data.display()
            );
        }
        let opened = backends::store(settings).await;
        match opened {
            Ok(store) => Ok(Self::Store(
                SourceRegistry::new(store.accounts.clone(), store.sources.clone()),
                store.audit,
            )),
            Err(e) if matches!(e.downcast_ref(), Some(StorageError::InUse { .. })) => {
                let api = Api::new(&settings.dispatcher.url, settings.api.token.as_deref())?;
                // Who has it open is `galerna up`, unless its API is elsewhere or another command runs.
                match api.get("/sources", &[("limit", "1".to_owned())]).await {
                    Ok(_) => Ok(Self::Api(api)),
                    Err(no_answer) => Err(e.context(format!(
                        "the API of the process that has the store open cannot be asked: {no_answer:#}; name the address of its \
                         API with --dispatcher, or stop that `galerna up` first"
                    ))),
                }
            }
            Err(e) => Err(e),
        }
    }

    async fn list(&self, account: Option<&str>) -> anyhow::Result<Vec<ListedSource>> {
        let api = match self {
            Self::Store(registry, _) => return Ok(registry.list(account).await?),
            Self::Api(api) => api,
        };
        let mut all = Vec::new();
        loop {
            let page = all.len() / PAGE + 1;
            let mut query = vec![("page", page.to_string()), ("limit", PAGE.to_string())];
            query.extend(account.map(|account| ("account", account.to_owned())));
            let answer = api.get("/sources", &query).await?;
            let found: Vec<ListedSource> = understood(answer["sources"].clone())?;
            let ended = found.len() < PAGE;
            all.extend(found);
            if ended {
                return Ok(all);
            }
        }
    }

    async fn add(
        &self,
        source: &str,
        account: &str,
        token: Option<&str>,
        why: &Reason,
    ) -> anyhow::Result<AddedSource> {
        match self {
            Self::Store(registry, log) => {
                let added = registry.add(source, account, token).await;
                recorded(&**log, Action::AddSource, source, why, added).await
            }
            Self::Api(api) => {
                let body =
                    body([("source", Some(source)), ("account", Some(account)), ("token", token)], why);
                understood(api.post("/sources", &body).await?)
            }
        }
    }

    async fn rotate(&self, source: &str, token: Option<&str>, why: &Reason) -> anyhow::Result<AddedSource> {
        match self {
            Self::Store(registry, log) => {
                let rotated = registry.rotate(source, token).await;
                recorded(&**log, Action::RotateSource, source, why, rotated).await
            }
            Self::Api(api) => {
                let path = format!("/sources/{}/rotate", path_segment(source));
                understood(api.post(&path, &body([("token", token)], why)).await?)
            }
        }
    }

    async fn remove(&self, source: &str, why: &Reason) -> anyhow::Result<ListedSource> {
        match self {
            Self::Store(registry, log) => {
                let removed = registry.remove(source).await;
                recorded(&**log, Action::RemoveSource, source, why, removed).await
            }
            Self::Api(api) => {
                let path = format!("/sources/{}/remove", path_segment(source));
                understood(api.post(&path, &body([], why)).await?)
            }
        }
    }
}

fn body<const N: usize>(given: [(&str, Option<&str>); N], why: &Reason) -> Value {
    let given = given.into_iter().chain([("reason", why.reason.as_deref())]);
    given.filter_map(|(name, value)| Some((name.to_owned(), json!(value?)))).collect()
}

fn understood<T: DeserializeOwned>(answer: Value) -> anyhow::Result<T> {
    serde_json::from_value(answer).context("the answer is in no form that this version knows")
}

/// Writes what was done here, or was not, to the audit log.
async fn recorded<T: serde::Serialize>(
    log: &dyn AuditLog,
    action: Action,
    source: &str,
    why: &Reason,
    done: Result<T, RegistryError>,
) -> anyhow::Result<T> {
    let outcome = match &done {
        Ok(answer) => Ok(action.outcome(source, &json!(answer))),
        Err(e) => Err(e.to_string()),
    };
    let entry = audit::entry(action, &actor(), audit::short(source), why.reason.as_deref(), outcome);
    // That it is not in the audit log stands in the log, as at the API.
    let _ = audit::record(log, &entry, audit::WRITE_TIMEOUT).await;
    Ok(done?)
}

fn show(all: &[ListedSource], form: &Form) -> anyhow::Result<()> {
    let mut shown = List::new(&["source", "account", "queue", "may post"]);
    for s in all {
        let queue = s.queue.as_ref().map_or("", QueueName::as_str);
        let may = if s.active { Cell::text("yes") } else { Cell::text("no").toned(Tone::Warn) };
        shown.row(json!(s), [Cell::text(s.source.as_str()), s.account.as_str().into(), queue.into(), may]);
    }
    form.list(&json!(all), &shown.saying(format!("{} sources", all.len())))
}

fn print_added(added: &AddedSource) -> anyhow::Result<()> {
    let AddedSource { source, account, queue, .. } = added;
    let made = if added.new_account { ", a new account" } else { "" };
    print(format!("{source} may post for {account}{made} (queue {queue})"))?;
    if added.replaced {
        print("it was there: its token before is no longer taken")?;
    }
    match &added.token {
        Some(token) => print(format!("token: {token}\nThis is the only time that it is shown.")),
        None => Ok(()),
    }
}
