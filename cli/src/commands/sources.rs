//! `galerna sources`: who may post readings, kept in the store.
//!
//! The frontend reads the list from the store when `maintainer.accounts` (or `frontend.sources`) is `store`, as it is by default,
//! and notices a change within `frontend.sources_every`. The list holds hashes of tokens only: a token is shown once, when it is
//! made.

use anyhow::{Context, bail, ensure};
use clap::{Args, Subcommand};
use galerna_frontend::TokenHash;
use galerna_model::{Account, AccountId, QueueName, Source, SourceId};
use galerna_storage::Store;
use serde::Serialize;

use galerna_server::backends;
use galerna_settings::{Settings, TOKEN_VARIABLE};
use galerna_terminal::{eprint, print, print_json, table};

/// Random bytes of a token.
const TOKEN_BYTES: usize = 32;
/// Characters below which a token that somebody chose may be guessed.
const WEAK: usize = 16;

#[derive(Debug, Args)]
pub(crate) struct SourcesArgs {
    /// Print JSON
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    command: SourcesCommand,
}

#[derive(Debug, Subcommand)]
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
        /// Its token, which other users of the machine may see on the command line, and not in the variable [default: a random
        /// one, which is printed, this once]
        #[arg(long, env = TOKEN_VARIABLE, hide_env_values = true)]
        token: Option<String>,
    },
    /// Take no more readings from a source; what it sent stays
    Remove {
        /// The source
        source: String,
    },
}

/// Runs the command.
///
/// # Errors
/// When the store is open in another process, or what is asked for contradicts what is there.
pub(crate) async fn run(args: &SourcesArgs, settings: &Settings) -> anyhow::Result<()> {
    let (name, value) = match &settings.frontend.sources {
        Some(sources) => ("frontend.sources", sources),
        None => ("maintainer.accounts", &settings.maintainer.accounts),
    };
    if !value.is_empty() && value != "store" {
        eprint(format_args!(
            "note: `{name}` is `{value}`: frontends with this setting take sources from there, not from the store"
        ));
    }
    let store = open(args, settings).await?;
    match &args.command {
        SourcesCommand::List { account } => {
            let account = account.as_deref().map(AccountId::new).transpose()?;
            show(list_of(&store, account.as_ref()).await?, args.json)
        }
        SourcesCommand::Add { source, account, token } => {
            let added =
                add(&store, SourceId::new(source)?, AccountId::for_customer(account)?, token.as_deref())
                    .await?;
            if args.json { print_json(&added) } else { added.print() }
        }
        SourcesCommand::Remove { source } => {
            let removed = remove(&store, &SourceId::new(source)?).await?;
            if args.json {
                return print_json(&removed);
            }
            print(format!("{} of {} may post no more; what it sent stays", removed.source, removed.account))
        }
    }
}

async fn open(args: &SourcesArgs, settings: &Settings) -> anyhow::Result<Store> {
    if !settings.store.is_embedded() {
        return backends::store(settings).await;
    }
    let file = backends::data_file(settings, "store.db");
    let makes = matches!(args.command, SourcesCommand::Add { .. });
    ensure!(
        makes || file.exists(),
        "there is no store in the folder {}; name another with --data, or MongoDB with --store",
        settings.data.display()
    );
    backends::store(settings).await.context(
        "an embedded store is changed while nothing else has it open: stop `galerna up` for it, or use MongoDB",
    )
}

/// A source as it is shown.
#[derive(Debug, Serialize)]
struct Shown {
    source: SourceId,
    account: AccountId,
    /// `None` when the account is not in the store.
    queue: Option<QueueName>,
    /// Whether its readings are taken.
    active: bool,
}

async fn list_of(store: &Store, account: Option<&AccountId>) -> anyhow::Result<Vec<Shown>> {
    let accounts = store.accounts.list().await?;
    let sources = store.sources.list().await?;
    let wanted = sources.into_iter().filter(|s| account.is_none_or(|account| s.account == *account));
    Ok(wanted
        .map(|source| {
            // Both lists are in the order of their ids.
            let found = accounts.binary_search_by(|a| a.id.as_str().cmp(source.account.as_str())).ok();
            let account = found.map(|at| &accounts[at]);
            Shown {
                source: source.id,
                queue: account.map(|a| a.queue.clone()),
                active: source.active && account.is_some_and(|a| a.active),
                account: source.account,
            }
        })
        .collect())
}

fn show(all: Vec<Shown>, json: bool) -> anyhow::Result<()> {
    if json {
        return print_json(&all);
    }
    let mut shown = table(&["source", "account", "queue", "may post"]);
    for s in &all {
        let queue = s.queue.as_ref().map_or("", QueueName::as_str);
        shown.add_row([s.source.as_str(), s.account.as_str(), queue, if s.active { "yes" } else { "no" }]);
    }
    print(shown)?;
    print(format!("{} sources", all.len()))
}

/// What `add` did.
#[derive(Debug, Serialize)]
struct Added {
    source: SourceId,
    account: AccountId,
    queue: QueueName,
    /// The token, when it was made here. It is kept nowhere.
    token: Option<String>,
    /// Whether the account was made too.
    new_account: bool,
    /// Whether the source was there, with another token.
    replaced: bool,
}

impl Added {
    fn print(&self) -> anyhow::Result<()> {
        let Self { source, account, queue, .. } = self;
        let made = if self.new_account { ", a new account" } else { "" };
        print(format!("{source} may post for {account}{made} (queue {queue})"))?;
        if self.replaced {
            print("it was there: its token before is no longer taken")?;
        }
        match &self.token {
            Some(token) => print(format!("token: {token}\nThis is the only time that it is shown.")),
            None => Ok(()),
        }
    }
}

async fn add(
    store: &Store,
    source: SourceId,
    account: AccountId,
    token: Option<&str>,
) -> anyhow::Result<Added> {
    if let Some(token) = token {
        ensure!(
            !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic()),
            "the token (--token or {TOKEN_VARIABLE}) must be visible ASCII characters without spaces; leave it out for a random one"
        );
        if token.len() < WEAK {
            eprint(format_args!("note: a token of fewer than {WEAK} characters may be guessed"));
        }
    }
    let before = store.sources.list().await?.into_iter().find(|s| s.id == source);
    if let Some(other) = before.as_ref().filter(|s| s.active && s.account != account) {
        bail!(
            "source `{source}` posts for account `{}`; `galerna sources remove {source}` first to give it to `{account}`",
            other.account
        );
    }
    let known = store.accounts.list().await?.into_iter().find(|a| a.id == account);
    let new_account = known.is_none();
    let queue = match known {
        Some(known) => {
            ensure!(
                known.active,
                "account `{account}` is not active; its sources may not post until it is activated where it is kept"
            );
            known.queue
        }
        None => {
            let queue = QueueName::new(account.as_str())?;
            let new = Account {
                id: account.clone(),
                name: account.to_string(),
                queue: queue.clone(),
                active: true,
            };
            store.accounts.put(&[new]).await.context("cannot make the account")?;
            queue
        }
    };
    let made = if token.is_none() { Some(random_token()?) } else { None };
    let hash = TokenHash::of(made.as_deref().or(token).unwrap_or_default()).to_string();
    let record = Source { id: source.clone(), account: account.clone(), token_hash: hash, active: true };
    store.sources.put(&[record]).await.context("cannot add the source")?;
    let replaced = before.is_some_and(|s| s.active);
    Ok(Added { source, account, queue, token: made, new_account, replaced })
}

fn random_token() -> anyhow::Result<String> {
    let mut bytes = [0; TOKEN_BYTES];
    getrandom::fill(&mut bytes).context("the system gives no random bytes; name a token with --token")?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Readings and counts name their source, so its record stays, without a token.
async fn remove(store: &Store, source: &SourceId) -> anyhow::Result<Shown> {
    let found = store.sources.list().await?.into_iter().find(|s| s.id == *source);
    let Some(found) = found else {
        bail!("there is no source `{source}`; `galerna sources list` shows those that there are");
    };
    let gone = Source { token_hash: String::new(), active: false, ..found };
    store.sources.put(std::slice::from_ref(&gone)).await.context("cannot remove the source")?;
    Ok(Shown { source: gone.id, account: gone.account, queue: None, active: false })
}
