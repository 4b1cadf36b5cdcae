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
use galerna_settings::{Settings, Strategy};
use galerna_spouts::LeasedOptions;
use galerna_storage::StatisticsStore;
use galerna_storage::Store;
use galerna_telemetry::process_name;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::backends::data_file;
use crate::topology;

/// The timeouts of the lease protocol, the same in every module.
fn timing(settings: &Settings) -> Timing {
    Timing::with_lease(settings.dispatcher.lease)
}

fn strategy(settings: &Settings) -> StrategyName {
    match settings.dispatcher.strategy {
        Strategy::Fifo => StrategyName::Fifo,
        Strategy::Lru => StrategyName::Lru,
        Strategy::Fair => StrategyName::Fair,
    }
}

/// Opens a dispatcher.
pub async fn dispatcher(
    settings: &Settings,
    store: &Store,
    maintainer: MaintainerLink,
) -> anyhow::Result<Dispatcher> {
    let strategy = strategy(settings);
    let options = DispatcherOptions {
        name: process_name("dispatcher"),
        timing: timing(settings),
        strategy,
        maintainer,
        ..DispatcherOptions::default()
    };
    let dispatcher = Dispatcher::open(store, options).await?;
    // The strategy last set is kept in the store; one that was asked for now goes before it.
    if settings.strategy_is_set() {
        dispatcher.set_strategy(strategy).await?;
    }
    Ok(dispatcher)
}

/// Where accounts and sources are read from.
fn directory(settings: &Settings, store: &Store, setting: &str, value: &str) -> anyhow::Result<Directory> {
    Ok(match value {
        "store" => Directory::new(StoreDirectory::new(store.accounts.clone(), store.sources.clone())),
        url if url.starts_with("http://") || url.starts_with("https://") => {
            let token = settings.maintainer.accounts_token.clone();
            Directory::new(HttpDirectory::new(url, HttpOptions { token, ..HttpOptions::default() })?)
        }
        path => Directory::new(FileDirectory::new(Path::new(path)).with_context(|| {
            format!("`{setting}` is `{path}`; use `store`, an http(s) URL, or a .json or .csv file")
        })?),
    })
}

fn accounts_directory(settings: &Settings, store: &Store) -> anyhow::Result<Directory> {
    directory(settings, store, "maintainer.accounts", &settings.maintainer.accounts)
}

/// Where the maintainer reads accounts from.
pub fn accounts_source(settings: &Settings, store: &Store) -> anyhow::Result<Arc<dyn AccountsSource>> {
    Ok(accounts_directory(settings, store)?.accounts)
}

/// Where the frontend reads accounts and sources from.
pub fn frontend_directory(settings: &Settings, store: &Store) -> anyhow::Result<Directory> {
    let both = accounts_directory(settings, store)?;
    let Some(sources) = &settings.frontend.sources else { return Ok(both) };
    Ok(Directory { accounts: both.accounts, ..directory(settings, store, "frontend.sources", sources)? })
}

/// Opens a frontend on these lists. It hints to `hints` and counts in `statistics`.
pub async fn frontend(
    settings: &Settings,
    broker: &Arc<dyn Broker>,
    directory: Directory,
    hints: Arc<dyn QueueHints>,
    statistics: Arc<dyn StatisticsStore>,
) -> anyhow::Result<Frontend> {
    let (body_bytes, readings) = (settings.frontend.max_body, settings.frontend.max_readings);
    // The longest call that is allowed must be one that its source may ever send.
    let per_second = |rate: u32, at_once: usize| {
        let at_once = u32::try_from(at_once).unwrap_or(u32::MAX);
        Rate::new(rate, rate.saturating_mul(2).max(at_once))
    };
    let bounds = Limits::default();
    let mut options = galerna_frontend::Options {
        limits: Limits {
            body_bytes,
            readings,
            // Whatever the settings allow must fit: the bounds of all calls together follow the longest call.
            bytes_in_flight: bounds.bytes_in_flight.max(2 * body_bytes),
            readings_in_flight: bounds.readings_in_flight.max(2 * readings),
            calls: per_second(settings.frontend.calls_per_second, 1),
            source_readings: per_second(settings.frontend.readings_per_second, readings),
            source_percent: settings.frontend.source_percent,
            ..bounds
        },
        operator_token: settings.api.token.clone(),
        ..galerna_frontend::Options::default()
    };
    options.timeouts.notice = settings.frontend.notice;
    options.sources.every = settings.frontend.sources_every;
    let copy = settings.frontend.sources_copy.clone();
    let copy = copy.unwrap_or_else(|| data_file(settings, "sources.json"));
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
    settings: &Settings,
    store: &Store,
    broker: &Arc<dyn Broker>,
    accounts: Arc<dyn AccountsSource>,
) -> anyhow::Result<Maintainer> {
    let mut options = Options { timing: timing(settings), ..Options::default() };
    options.accounts.every = settings.maintainer.accounts_every;
    options.empties.every = settings.maintainer.empties_every;
    options.timeouts.every = settings.maintainer.timeouts_every;
    options.deletions.every = settings.maintainer.deletions_every;
    options.grace = settings.maintainer.deletion_grace;
    if settings.broker.is_embedded() {
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
pub fn check(settings: &Settings) -> anyhow::Result<()> {
    parameters(settings)?;
    if let Some(path) = &settings.ingest.rules {
        right(&rules(settings)?).with_context(|| format!("`ingest.rules` is `{}`", path.display()))?;
    }
    allowed(settings)?;
    if let Some(smtp) = smtp(settings) {
        smtp.check().map_err(|e| anyhow!("`notifier.smtp_url`, `notifier.from`: {e}"))?;
    }
    for url in &settings.page.workers {
        let right =
            reqwest::Url::parse(url).is_ok_and(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
        anyhow::ensure!(right, "`page.workers` has `{url}`; write addresses such as http://worker-1:8092");
    }
    Ok(())
}

fn parameters(settings: &Settings) -> anyhow::Result<ParameterRegistry> {
    let mut parameters = ParameterRegistry::built_in();
    if let Some(path) = &settings.ingest.parameters {
        parameters
            .extend_from_file(path)
            .with_context(|| format!("`ingest.parameters` is `{}`", path.display()))?;
    }
    Ok(parameters)
}

fn allowed(settings: &Settings) -> anyhow::Result<AllowList> {
    let entries = settings.notifier.allow.iter().map(String::as_str);
    AllowList::parse(entries).map_err(|e| anyhow!("`notifier.allow`: {e}"))
}

fn smtp(settings: &Settings) -> Option<Smtp> {
    let from = settings.notifier.from.clone();
    settings.notifier.smtp_url.clone().map(|url| Smtp { url, from })
}

/// What ingestion works with, under this name.
pub fn ingestion(
    settings: &Settings,
    name: &str,
    broker: Arc<dyn Broker>,
    leases: Arc<dyn Leases>,
    store: Store,
) -> anyhow::Result<Ingestion> {
    let owners = Arc::new(KnownOwners::new(leases, store.queues.clone()));
    let parameters = parameters(settings)?;
    Ok(Ingestion {
        consumer: name.to_owned(),
        broker,
        account_of: owners.account_of(),
        leases: owners,
        store,
        parameters: Arc::new(parameters),
        limits: ValidationLimits { max_ahead: settings.ingest.max_ahead, ..ValidationLimits::default() },
        leasing: LeasedOptions {
            leases: settings.worker.leases,
            prefetch: settings.worker.prefetch,
            messages_per_lease: settings.worker.messages_per_lease,
            ..LeasedOptions::default()
        },
        storing: StoreOptions { rows: settings.ingest.batch, ..StoreOptions::default() },
        alerting: AlertOptions::default(),
        parallelism: settings.worker.parallelism,
        max_pending: settings.worker.max_pending,
        message_timeout: settings.worker.message_timeout,
    })
}

/// Puts the alert rules of `ingest.rules` into the store.
pub async fn load_rules(settings: &Settings, store: &Store) -> anyhow::Result<()> {
    put_rules(store, rules(settings)?).await
}

/// The alert rules of `ingest.rules`, as they are written.
fn rules(settings: &Settings) -> anyhow::Result<Vec<Rule>> {
    let Some(path) = &settings.ingest.rules else { return Ok(Vec::new()) };
    let shown = path.display();
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("`ingest.rules` is `{shown}`, which cannot be read"))?;
    serde_json::from_str(&text)
        .with_context(|| format!("`ingest.rules` is `{shown}`, which is no list of rules"))
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
pub async fn notifier(
    settings: &Settings,
    broker: &Arc<dyn Broker>,
    store: &Store,
) -> anyhow::Result<Notifier> {
    let (allow, smtp) = (allowed(settings)?, smtp(settings));
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
    settings: &Settings,
    dispatcher: Arc<dyn galerna_console::Dispatching>,
    (broker, store): (Arc<dyn Broker>, Store),
    statistics: Arc<dyn StatisticsStore>,
    (workers, traces): (Arc<dyn galerna_console::WorkersView>, Arc<dyn galerna_console::Traces>),
    stop: CancellationToken,
) -> anyhow::Result<axum::Router> {
    let topology = serde_json::from_str(&topology::shown(settings)?.json())?;
    let shown = settings.shown().map(|setting| galerna_console::Setting {
        key: setting.name.to_owned(),
        value: setting.value,
        origin: setting.origin.to_string(),
    });
    let parts = galerna_console::Parts {
        dispatcher,
        broker,
        store,
        statistics: Some(statistics),
        workers,
        topology,
        config: shown.collect(),
        version: env!("CARGO_PKG_VERSION"),
        traces: Some(traces),
        clock: Arc::new(SystemClock),
        stop: stop.clone(),
    };
    drop(galerna_console::spawn_history(parts.clone(), stop));
    let galerna_settings::Page { viewer_token, operator_token, .. } = &settings.page;
    let access = galerna_console::Access {
        viewer_token: viewer_token.clone(),
        operator_token: operator_token.clone(),
        // That of all modules' metrics; where there is none, whoever may look may read them.
        metrics_token: settings
            .api
            .token
            .as_ref()
            .or(viewer_token.as_ref())
            .or(operator_token.as_ref())
            .cloned(),
    };
    Ok(galerna_console::router(parts, access)?)
}
