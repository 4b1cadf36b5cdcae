//! Each module in a process of its own, until asked to stop.

use std::sync::Arc;

use anyhow::Context;
use galerna_console::RemoteWorkers;
use galerna_console::auth::authorise;
use galerna_dispatcher::{ClientOptions, DispatcherClient, MaintainerLink};
use galerna_settings::Config;
use galerna_telemetry::{Asking, process_name};
use tokio_util::sync::CancellationToken;

use crate::backends::{broker, must_be_shared, store};
use crate::workers::Workers;
use crate::{admin, metrics, modules, service, side, trace};

/// A frontend of its own.
pub async fn frontend(config: &Config, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(config, "frontend", true)?;
    let listener = modules::listen(config.address("frontend.listen"), "frontend.listen").await?;
    let (broker, store) = (broker(config).await?, store(config).await?);
    let directory = modules::frontend_directory(config, &store)?;
    let hints = Arc::new(dispatcher_client(config)?);
    let statistics = store.statistics.clone();
    let frontend = modules::frontend(config, &broker, directory, hints, statistics).await?;
    let ways = ways_beside(config, &listener)?;
    frontend.serve_with(ways, listener, async move { stop.cancelled().await }).await?;
    tracing::info!("stopped");
    Ok(())
}

/// The ways of messages, for a frontend whose listener is open to its callers: with the token of the modules, and without one
/// for this machine alone.
fn ways_beside(config: &Config, listener: &tokio::net::TcpListener) -> anyhow::Result<axum::Router> {
    let token: Option<Arc<str>> = config.optional("api.token").map(Arc::from);
    if token.is_none() && !listener.local_addr()?.ip().is_loopback() {
        tracing::warn!("without `api.token` the ways of messages are not told to other machines");
        return Ok(axum::Router::new());
    }
    let guard = axum::middleware::from_fn_with_state(token, authorise);
    Ok(trace::routes().layer(guard))
}

/// A notifier of its own.
pub async fn notifier(config: &Config, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(config, "notifier", true)?;
    let listener = modules::listen(config.address("notifier.listen"), "notifier.listen").await?;
    let (broker, store) = (broker(config).await?, store(config).await?);
    let notifier = modules::notifier(config, &broker, &store).await?;
    let metrics: side::MetricsText = Arc::new({
        let notifier = notifier.clone();
        move || Ok(metrics::text(&Workers::default(), broker.counts())? + &notifier.metrics_text())
    });
    let ended = CancellationToken::new();
    tracing::info!(address = %listener.local_addr()?, "the notifier works");
    // It has no workers to tell of, but it can be named in `page.workers` like them, and is asked for ways.
    let routes = admin::workers(Workers::default());
    let side = side::serve(config, listener, metrics, routes, stop.clone(), ended.clone());
    notifier.run(stop).await;
    ended.cancel();
    drop(side.await);
    tracing::info!("stopped");
    Ok(())
}

/// The page of a system whose modules are elsewhere.
pub async fn page(config: &Config, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(config, "page", true)?;
    let listener = modules::listen(config.address("page.listen"), "page.listen").await?;
    let (broker, store) = (broker(config).await?, store(config).await?);
    let others: Vec<String> = config.list("page.workers").collect();
    let token = config.optional("api.token").map(str::to_owned);
    let traces = Arc::new(Asking::new(others.clone(), token.clone())?);
    let workers = Arc::new(RemoteWorkers::new(others, token)?);
    // The page writes what is done on it to the audit log.
    let options = ClientOptions { audited: true, ..dispatcher_options(config) };
    let dispatcher = Arc::new(DispatcherClient::new(config.text("dispatcher.url"), options)?);
    let statistics = store.statistics.clone();
    let routes =
        modules::page(config, dispatcher, (broker, store), statistics, (workers, traces), stop.clone())?;
    tracing::info!(address = %listener.local_addr()?, "the page is served");
    drop(service::serve_page(config, listener, routes, stop).await);
    tracing::info!("stopped");
    Ok(())
}

fn dispatcher_client(config: &Config) -> anyhow::Result<DispatcherClient> {
    Ok(DispatcherClient::new(config.text("dispatcher.url"), dispatcher_options(config))?)
}

fn dispatcher_options(config: &Config) -> ClientOptions {
    ClientOptions { token: config.optional("api.token").map(str::to_owned), ..ClientOptions::default() }
}

/// A dispatcher of its own.
pub async fn dispatcher(config: &Config, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(config, "dispatcher", false)?;
    let listener = modules::listen(config.address("api.listen"), "api.listen").await?;
    let store = store(config).await?;
    let link = MaintainerLink::Url(config.text("maintainer.url").to_owned());
    let link = if config.text("maintainer.url").is_empty() { MaintainerLink::None } else { link };
    let dispatcher = modules::dispatcher(config, &store, link).await?;
    let api = service::serve(config, listener, (dispatcher, &store), axum::Router::new(), stop)?;
    api.await.context("the API ended")?;
    tracing::info!("stopped");
    Ok(())
}

/// A maintainer of its own.
pub async fn maintainer(config: &Config, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(config, "maintainer", true)?;
    let listener = modules::listen(config.address("maintainer.listen"), "maintainer.listen").await?;
    let (broker, store) = (broker(config).await?, store(config).await?);
    let accounts = modules::accounts_source(config, &store)?;
    let maintainer = modules::maintainer(config, &store, &broker, accounts)?;
    let keeping = maintainer.spawn(stop.clone());
    tracing::info!(address = %listener.local_addr()?, "the maintainer works");
    let token = config.optional("api.token");
    let serving = maintainer.serve(listener, token, async move { stop.cancelled().await }).await;
    keeping.await.context("the maintainer ended")?;
    serving.context("the maintainer cannot answer pings")?;
    tracing::info!("stopped");
    Ok(())
}

/// A worker of its own.
pub async fn worker(config: &Config, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(config, "worker", true)?;
    let listener = modules::listen(config.address("worker.listen"), "worker.listen").await?;
    let address = listener.local_addr()?;
    let (broker, store) = (broker(config).await?, store(config).await?);
    modules::load_rules(config, &store).await?;
    let leases = Arc::new(dispatcher_client(config)?);
    let name = worker_name(config);
    let ingestion = modules::ingestion(config, &name, broker.clone(), leases, store)?;
    let workers = Workers::default();
    let metrics: side::MetricsText = Arc::new({
        let workers = workers.clone();
        move || metrics::text(&workers, broker.counts())
    });
    let ended = CancellationToken::new();
    let routes = admin::workers(workers.clone());
    let side = side::serve(config, listener, metrics, routes, stop.clone(), ended.clone());
    workers.start(&ingestion).await?;
    tracing::info!(worker = name, %address, dispatcher = config.text("dispatcher.url"), "the worker works");
    stop.cancelled().await;
    workers.drain(config.span("worker.drain")).await;
    ended.cancel();
    drop(side.await);
    tracing::info!("stopped");
    Ok(())
}

pub(crate) fn worker_name(config: &Config) -> String {
    config.optional("worker.name").map_or_else(|| process_name("worker"), str::to_owned)
}
