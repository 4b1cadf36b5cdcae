//! Each module in a process of its own, until asked to stop.

use std::sync::Arc;

use axum::Router;
use galerna_console::{RemoteTopologies, RemoteWorkers, SourceChanges, TakenElsewhere};
use galerna_dispatcher::{ClientOptions, DispatcherClient, MaintainerLink};
use galerna_http::Guard;
use galerna_settings::Settings;
use galerna_telemetry::{RemoteHistory, process_name};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::api::routes;
use crate::backends::{broker, must_be_shared, store};
use crate::metrics;
use crate::module::{Readiness, run};
use crate::modules::{
    self, AdminServer, DispatcherApi, FrontendServer, MaintainerTasks, NotifierTasks, PageParts, PageServer,
    ScheduleRunner, WorkerTopologies, Workers, listen,
};

/// A frontend of its own.
///
/// # Errors
/// Why it could not start, or ended.
pub async fn frontend(settings: &Settings, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(settings, "frontend", true)?;
    let listener = listen(settings.frontend.listen, "frontend.listen").await?;
    let (broker, store) = (broker(settings).await?, store(settings).await?);
    let directory = modules::directory(settings, &store)?;
    let hints = Arc::new(dispatcher_client(settings)?);
    let statistics = store.statistics.clone();
    let frontend = modules::frontend(settings, &broker, directory, hints, statistics, registry()?).await?;
    let history = history_beside(settings, &listener)?;
    let server = FrontendServer::new(frontend, listener, history);
    run(vec![Box::new(server)], Readiness::default(), &stop).await
}

/// The history of messages, for a frontend whose listener is open to its callers: with the token of the modules, and without one
/// for this machine alone.
fn history_beside(settings: &Settings, listener: &TcpListener) -> anyhow::Result<Router> {
    let guard = Guard::new(settings.api.token.as_deref());
    if guard.is_open() && !listener.local_addr()?.ip().is_loopback() {
        tracing::warn!("without `api.token` the history of messages is not told to other machines");
        return Ok(Router::new());
    }
    Ok(guard.protect(galerna_telemetry::api::routes().into(), &[]))
}

/// The registry of metrics of this process.
fn registry() -> Result<Registry, prometheus::Error> {
    galerna_http::metrics::process_registry(env!("CARGO_PKG_VERSION"))
}

/// A notifier of its own.
///
/// # Errors
/// Why it could not start, or ended.
pub async fn notifier(settings: &Settings, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(settings, "notifier", true)?;
    let listener = listen(settings.notifier.listen, "notifier.listen").await?;
    let (broker, store) = (broker(settings).await?, store(settings).await?);
    let registry = registry()?;
    let notifier = modules::notifier(settings, &broker, &store, registry.clone()).await?;
    metrics::register(&registry, &Workers::default(), broker)?;
    tracing::info!(address = %listener.local_addr()?, "the notifier works");
    // It has no workers to tell of, but it can be named in `page.workers` like them, and is asked for the history of messages.
    let routes = routes::workers(Workers::default());
    let readiness = Readiness::default();
    let admin = AdminServer::new(settings, listener, registry, routes, readiness.clone());
    run(vec![Box::new(admin), Box::new(NotifierTasks::new(notifier))], readiness, &stop).await
}

/// The page of a system whose modules are elsewhere.
///
/// # Errors
/// Why it could not start, or ended.
pub async fn page(settings: &Settings, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(settings, "page", true)?;
    let listener = listen(settings.page.listen, "page.listen").await?;
    let (broker, store) = (broker(settings).await?, store(settings).await?);
    let (others, token) = (settings.page.workers.clone(), settings.api.token.clone());
    // The page writes what is done on it to the audit log.
    let options = ClientOptions { audited: true, ..dispatcher_options(settings) };
    let schedules = modules::schedules::api(modules::schedules::open(settings).await?, Some(broker.clone()));
    let stored = settings.maintainer.accounts_are_stored() && settings.frontend.sources_are_stored();
    let parts = PageParts {
        dispatcher: Arc::new(DispatcherClient::new(&settings.dispatcher.url, options)?),
        broker,
        statistics: store.statistics.clone(),
        sources: stored.then(|| Arc::new(TakenElsewhere) as Arc<dyn SourceChanges>),
        store,
        traces: Arc::new(RemoteHistory::new(others.clone(), token.clone())?),
        topologies: Arc::new(RemoteTopologies::new(others.clone(), token.clone())?),
        workers: Arc::new(RemoteWorkers::new(others, token)?),
        schedules,
        registry: registry()?,
    };
    tracing::info!(address = %listener.local_addr()?, "the page is served");
    let server = PageServer::new(settings, listener, parts);
    run(vec![Box::new(server)], Readiness::default(), &stop).await
}

pub(crate) fn dispatcher_client(settings: &Settings) -> anyhow::Result<DispatcherClient> {
    Ok(DispatcherClient::new(&settings.dispatcher.url, dispatcher_options(settings))?)
}

fn dispatcher_options(settings: &Settings) -> ClientOptions {
    // Two attempts fit into what is left of a lease when it is renewed.
    let timeout = modules::timing(settings).request_timeout;
    ClientOptions { token: settings.api.token.clone(), timeout, ..ClientOptions::default() }
}

/// A dispatcher of its own.
///
/// # Errors
/// Why it could not start, or ended.
pub async fn dispatcher(settings: &Settings, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(settings, "dispatcher", false)?;
    let listener = listen(settings.api.listen, "api.listen").await?;
    let store = store(settings).await?;
    let link = settings.maintainer.url.clone().map_or(MaintainerLink::None, MaintainerLink::Url);
    let dispatcher = modules::dispatcher(settings, &store, link, registry()?).await?;
    let schedules = modules::schedules::api(modules::schedules::open(settings).await?, None);
    let routes = galerna_schedules::api::routes(schedules);
    let api = DispatcherApi::new(settings, listener, dispatcher, store, routes);
    run(vec![Box::new(api)], Readiness::default(), &stop).await
}

/// A maintainer of its own; it fires schedules, too.
///
/// # Errors
/// Why it could not start, or ended.
pub async fn maintainer(settings: &Settings, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(settings, "maintainer", true)?;
    let listener = listen(settings.maintainer.listen, "maintainer.listen").await?;
    let (broker, store) = (broker(settings).await?, store(settings).await?);
    let accounts = modules::accounts_source(settings, &store)?;
    let maintainer = modules::maintainer(settings, &store, &broker, accounts, registry()?)?;
    let schedules = ScheduleRunner::new(settings, modules::schedules::open(settings).await?, broker);
    tracing::info!(address = %listener.local_addr()?, "the maintainer works");
    let tasks = MaintainerTasks::new(maintainer).answering(listener, settings.api.token.clone());
    run(vec![Box::new(tasks), Box::new(schedules)], Readiness::default(), &stop).await
}

/// A worker of its own.
///
/// # Errors
/// Why it could not start, or ended.
pub async fn worker(settings: &Settings, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(settings, "worker", true)?;
    let listener = listen(settings.worker.listen, "worker.listen").await?;
    let address = listener.local_addr()?;
    let (broker, store) = (broker(settings).await?, store(settings).await?);
    modules::load_rules(settings, &store).await?;
    let leases = Arc::new(dispatcher_client(settings)?);
    let name = worker_name(settings);
    let ingestion = modules::ingestion(settings, &name, broker.clone(), leases, store)?;
    let workers = Workers::default();
    let registry = registry()?;
    metrics::register(&registry, &workers, broker)?;
    let readiness = Readiness::default();
    let routes =
        routes::workers(workers.clone()).merge(galerna_control::routes::rest(workers.topologies().clone()));
    let admin = AdminServer::new(settings, listener, registry, routes, readiness.clone());
    let topologies = WorkerTopologies::new(workers, vec![ingestion], settings.worker.drain);
    tracing::info!(worker = name, %address, dispatcher = settings.dispatcher.url, "the worker works");
    run(vec![Box::new(admin), Box::new(topologies)], readiness, &stop).await
}

pub(crate) fn worker_name(settings: &Settings) -> String {
    settings.worker.name.clone().unwrap_or_else(|| process_name("worker"))
}
