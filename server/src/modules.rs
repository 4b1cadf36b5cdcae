//! The modules of the system, made from the configuration: each command runs some of them.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, anyhow};
use async_trait::async_trait;
use galerna_bolts::{AlertOptions, ParameterRegistry, RuleSet, StoreOptions, ValidationLimits};
use galerna_broker::Broker;
use galerna_directory::{AccountsSource, FileDirectory, HttpDirectory, HttpOptions, StoreDirectory};
use galerna_dispatcher::{Dispatcher, DispatcherOptions, Leases, MaintainerLink, Ping, StrategyName, Timing};
use galerna_frontend::{Directory, Frontend, Limits, Parts, QueueHints, Rate};
use galerna_ingest::{Ingestion, KnownOwners};
use galerna_maintainer::{Maintainer, Options};
use galerna_model::{Rule, SystemClock};
use galerna_notifier::{AllowList, Notifier, Smtp};
use galerna_settings::Config;
use galerna_spouts::LeasedOptions;
use galerna_storage::StatisticsStore;
use galerna_storage::Store;
use galerna_telemetry::process_name;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::backends::{broker_is_embedded, data_file};
use crate::topology;

/// The timeouts of the lease protocol, the same in every module.
fn timing(config: &Config) -> Timing {
    Timing::with_lease(config.span("dispatcher.lease"))
}

/// Opens a dispatcher.
pub async fn dispatcher(
    config: &Config,
    store: &Store,
    maintainer: MaintainerLink,
) -> anyhow::Result<Dispatcher> {
    let strategy = config.text("dispatcher.strategy").parse::<StrategyName>()?;
    let options = DispatcherOptions {
        name: process_name("dispatcher"),
        timing: timing(config),
        strategy,
        maintainer,
        ..DispatcherOptions::default()
    };
    let dispatcher = Dispatcher::open(store, options).await?;
    // The strategy last set is kept in the store; one that was asked for now goes before it.
    if config.is_set("dispatcher.strategy") {
        dispatcher.set_strategy(strategy).await?;
    }
    Ok(dispatcher)
}

/// Where accounts and sources are read from.
fn directory(config: &Config, store: &Store, setting: &str) -> anyhow::Result<Directory> {
    Ok(match config.text(setting) {
        "store" => Directory::new(StoreDirectory::new(store.accounts.clone(), store.sources.clone())),
        url if url.starts_with("http://") || url.starts_with("https://") => {
            let token = config.optional("maintainer.accounts_token").map(str::to_owned);
            Directory::new(HttpDirectory::new(url, HttpOptions { token, ..HttpOptions::default() })?)
        }
        path => Directory::new(FileDirectory::new(Path::new(path)).with_context(|| {
            format!("`{setting}` is `{path}`; use `store`, an http(s) URL, or a .json or .csv file")
        })?),
    })
}

/// Where the maintainer reads accounts from.
pub fn accounts_source(config: &Config, store: &Store) -> anyhow::Result<Arc<dyn AccountsSource>> {
    Ok(directory(config, store, "maintainer.accounts")?.accounts)
}

/// Where the frontend reads accounts and sources from.
pub fn frontend_directory(config: &Config, store: &Store) -> anyhow::Result<Directory> {
    let both = directory(config, store, "maintainer.accounts")?;
    if config.text("frontend.sources").is_empty() {
        return Ok(both);
    }
    Ok(Directory { accounts: both.accounts, ..directory(config, store, "frontend.sources")? })
}

/// Opens a frontend on these lists. It hints to `hints` and counts in `statistics`.
pub async fn frontend(
    config: &Config,
    broker: &Arc<dyn Broker>,
    directory: Directory,
    hints: Arc<dyn QueueHints>,
    statistics: Arc<dyn StatisticsStore>,
) -> anyhow::Result<Frontend> {
    let rate = |name: &str| u32::try_from(config.count(name)).unwrap_or(u32::MAX);
    let (body_bytes, readings) = (config.count("frontend.max_body"), config.count("frontend.max_readings"));
    // The longest call that is allowed must be one that its source may ever send.
    let per_second = |name: &str, at_once: usize| {
        let at_once = u32::try_from(at_once).unwrap_or(u32::MAX);
        Rate::new(rate(name), rate(name).saturating_mul(2).max(at_once))
    };
    let bounds = Limits::default();
    let mut options = galerna_frontend::Options {
        limits: Limits {
            body_bytes,
            readings,
            // Whatever the settings allow must fit: the bounds of all calls together follow the longest call.
            bytes_in_flight: bounds.bytes_in_flight.max(2 * body_bytes),
            readings_in_flight: bounds.readings_in_flight.max(2 * readings),
            calls: per_second("frontend.calls_per_second", 1),
            source_readings: per_second("frontend.readings_per_second", readings),
            source_percent: config.count("frontend.source_percent"),
            ..bounds
        },
        operator_token: config.optional("api.token").map(str::to_owned),
        ..galerna_frontend::Options::default()
    };
    options.timeouts.notice = config.span("frontend.notice");
    options.sources.every = config.span("frontend.sources_every");
    let copy = match config.optional("frontend.sources_copy") {
        Some(path) => Path::new(path).to_owned(),
        None => data_file(config, "sources.json"),
    };
    options.sources.disk_copy = Some(copy);
    let clock = Arc::new(SystemClock);
    let parts = Parts {
        broker: broker.clone(),
        directory,
        hints: Some(hints),
        statistics,
        clock,
        registry: prometheus::Registry::new(),
    };
    Ok(Frontend::open(parts, options).await?)
}

/// Makes a maintainer; it does nothing yet.
pub fn maintainer(
    config: &Config,
    store: &Store,
    broker: &Arc<dyn Broker>,
    accounts: Arc<dyn AccountsSource>,
) -> anyhow::Result<Maintainer> {
    let mut options = Options { timing: timing(config), ..Options::default() };
    options.accounts.every = config.span("maintainer.accounts_every");
    options.empties.every = config.span("maintainer.empties_every");
    options.timeouts.every = config.span("maintainer.timeouts_every");
    options.deletions.every = config.span("maintainer.deletions_every");
    options.grace = config.span("maintainer.deletion_grace");
    if broker_is_embedded(config) {
        // The embedded broker counts exactly and at once.
        options.settle = Duration::ZERO;
    }
    Ok(Maintainer::new(store.queues.clone(), broker.clone(), accounts, options, Arc::new(SystemClock))?)
}

/// The maintainer of this process, as the dispatcher pings it.
pub struct LocalMaintainer(pub Maintainer);

#[async_trait]
impl Ping for LocalMaintainer {
    async fn ping(&self) -> Result<(), String> {
        if self.0.status().on_time { Ok(()) } else { Err("a task of the maintainer is late".to_owned()) }
    }
}

/// Looks at the settings whose values are more than one word, before anything starts.
///
/// # Errors
/// The first that is wrong, with its name.
pub fn check(config: &Config) -> anyhow::Result<()> {
    parameters(config)?;
    if let Some(path) = config.optional("ingest.rules") {
        right(&rules(config)?).with_context(|| format!("`ingest.rules` is `{path}`"))?;
    }
    allowed(config)?;
    if let Some(smtp) = smtp(config) {
        smtp.check().map_err(|e| anyhow!("`notifier.smtp_url`, `notifier.from`: {e}"))?;
    }
    for url in config.list("page.workers") {
        let right =
            reqwest::Url::parse(&url).is_ok_and(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
        anyhow::ensure!(right, "`page.workers` has `{url}`; write addresses such as http://worker-1:8092");
    }
    Ok(())
}

fn parameters(config: &Config) -> anyhow::Result<ParameterRegistry> {
    let mut parameters = ParameterRegistry::built_in();
    if let Some(path) = config.optional("ingest.parameters") {
        parameters
            .extend_from_file(Path::new(path))
            .with_context(|| format!("`ingest.parameters` is `{path}`"))?;
    }
    Ok(parameters)
}

fn allowed(config: &Config) -> anyhow::Result<AllowList> {
    let entries = config.text("notifier.allow").split(',').map(str::trim).filter(|entry| !entry.is_empty());
    AllowList::parse(entries).map_err(|e| anyhow!("`notifier.allow`: {e}"))
}

fn smtp(config: &Config) -> Option<Smtp> {
    let from = config.text("notifier.from").to_owned();
    config.optional("notifier.smtp_url").map(|url| Smtp { url: url.to_owned(), from })
}

/// What ingestion works with, under this name.
pub fn ingestion(
    config: &Config,
    name: &str,
    broker: Arc<dyn Broker>,
    leases: Arc<dyn Leases>,
    store: Store,
) -> anyhow::Result<Ingestion> {
    let owners = Arc::new(KnownOwners::new(leases, store.queues.clone()));
    let parameters = parameters(config)?;
    Ok(Ingestion {
        consumer: name.to_owned(),
        broker,
        account_of: owners.account_of(),
        leases: owners,
        store,
        parameters: Arc::new(parameters),
        limits: ValidationLimits {
            max_ahead: config.span("ingest.max_ahead"),
            ..ValidationLimits::default()
        },
        leasing: LeasedOptions {
            leases: config.count("worker.leases"),
            prefetch: u16::try_from(config.count("worker.prefetch")).unwrap_or(u16::MAX),
            messages_per_lease: config.count("worker.messages_per_lease"),
            ..LeasedOptions::default()
        },
        storing: StoreOptions { rows: config.count("ingest.batch"), ..StoreOptions::default() },
        alerting: AlertOptions::default(),
        parallelism: config.count("worker.parallelism"),
        max_pending: config.count("worker.max_pending"),
        message_timeout: config.span("worker.message_timeout"),
    })
}

/// Puts the alert rules of `ingest.rules` into the store.
pub async fn load_rules(config: &Config, store: &Store) -> anyhow::Result<()> {
    put_rules(store, rules(config)?).await
}

/// The alert rules of `ingest.rules`, as they are written.
fn rules(config: &Config) -> anyhow::Result<Vec<Rule>> {
    let Some(path) = config.optional("ingest.rules") else { return Ok(Vec::new()) };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("`ingest.rules` is `{path}`, which cannot be read"))?;
    serde_json::from_str(&text)
        .with_context(|| format!("`ingest.rules` is `{path}`, which is no list of rules"))
}

fn right(rules: &[Rule]) -> anyhow::Result<()> {
    let (_, wrong) = RuleSet::compile(rules.to_vec());
    match wrong.first() {
        Some(error) => Err(anyhow!("alert rule `{}` is wrong: {}", error.rule, error.problem)),
        None => Ok(()),
    }
}

/// Checks rules and puts them into the store.
pub async fn put_rules(store: &Store, rules: Vec<Rule>) -> anyhow::Result<()> {
    right(&rules)?;
    for rule in &rules {
        store.rules.put(rule).await?;
    }
    Ok(())
}

/// Listens, before anything else starts: an address that is taken is told at once.
pub async fn listen(address: SocketAddr, setting: &str) -> anyhow::Result<TcpListener> {
    TcpListener::bind(address).await.with_context(|| {
        format!("cannot listen on {address} (`{setting}`); choose another address, port 0 for any free one")
    })
}

/// Opens a notifier.
pub async fn notifier(config: &Config, broker: &Arc<dyn Broker>, store: &Store) -> anyhow::Result<Notifier> {
    let (allow, smtp) = (allowed(config)?, smtp(config));
    let options =
        galerna_notifier::Options { name: process_name("notifier"), allow, smtp, ..Default::default() };
    let parts = galerna_notifier::Parts {
        broker: broker.clone(),
        store: store.clone(),
        clock: Arc::new(SystemClock),
    };
    Ok(Notifier::open(parts, options).await?)
}

/// The routes of the page, whose charts are kept from now on until `stop`.
pub fn page(
    config: &Config,
    dispatcher: Arc<dyn galerna_console::Dispatching>,
    (broker, store): (Arc<dyn Broker>, Store),
    statistics: Arc<dyn StatisticsStore>,
    (workers, traces): (Arc<dyn galerna_console::WorkersView>, Arc<dyn galerna_console::Traces>),
    stop: CancellationToken,
) -> anyhow::Result<axum::Router> {
    let topology = serde_json::from_str(&topology::shown(config)?.json())?;
    let settings = config.shown().map(|(key, value, origin, _)| galerna_console::Setting {
        key: key.to_owned(),
        value,
        origin: origin.to_string(),
    });
    let parts = galerna_console::Parts {
        dispatcher,
        broker,
        store,
        statistics: Some(statistics),
        workers,
        topology,
        config: settings.collect(),
        version: env!("CARGO_PKG_VERSION"),
        traces: Some(traces),
        clock: Arc::new(SystemClock),
        stop: stop.clone(),
    };
    drop(galerna_console::spawn_history(parts.clone(), stop));
    let token = |name: &str| config.optional(name).map(str::to_owned);
    let access = galerna_console::Access {
        viewer_token: token("page.viewer_token"),
        operator_token: token("page.operator_token"),
        // That of all modules' metrics; where there is none, whoever may look may read them.
        metrics_token: token("api.token")
            .or_else(|| token("page.viewer_token"))
            .or_else(|| token("page.operator_token")),
    };
    Ok(galerna_console::router(parts, access)?)
}
