//! Each module in a process of its own, until asked to stop.

use std::sync::Arc;

use anyhow::Context;
use galerna_console::RemoteWorkers;
use galerna_console::auth::authorise;
use galerna_dispatcher::{ClientOptions, DispatcherClient, MaintainerLink};
use galerna_settings::Settings;
use galerna_telemetry::{Asking, process_name};
use tokio_util::sync::CancellationToken;

use crate::backends::{broker, must_be_shared, store};
use crate::workers::Workers;
use crate::{admin, metrics, modules, service, side, trace};

/// A frontend of its own.
pub async fn frontend(settings: &Settings, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(settings, "frontend", true)?;
    let listener = modules::listen(settings.frontend.listen, "frontend.listen").await?;
    let (broker, store) = (broker(settings).await?, store(settings).await?);
    let directory = modules::frontend_directory(settings, &store)?;
    let hints = Arc::new(dispatcher_client(settings)?);
    let statistics = statistics(settings).await?;
    let frontend = modules::frontend(settings, &broker, directory, hints, statistics).await?;
    let ways = ways_beside(settings, &listener)?;
    frontend.serve_with(ways, listener, async move { stop.cancelled().await }).await?;
    tracing::info!("stopped");
    Ok(())
}

/// The ways of messages, for a frontend whose listener is open to its callers: with the token of the modules, and without one
/// for this machine alone.
fn ways_beside(settings: &Settings, listener: &tokio::net::TcpListener) -> anyhow::Result<axum::Router> {
    let token: Option<Arc<str>> = settings.api.token.as_deref().map(Arc::from);
    if token.is_none() && !listener.local_addr()?.ip().is_loopback() {
        tracing::warn!("without `api.token` the ways of messages are not told to other machines");
        return Ok(axum::Router::new());
    }
    let guard = axum::middleware::from_fn_with_state(token, authorise);
    Ok(trace::routes().layer(guard))
}

/// A notifier of its own.
pub async fn notifier(settings: &Settings, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(settings, "notifier", true)?;
    let listener = modules::listen(settings.notifier.listen, "notifier.listen").await?;
    let (broker, store) = (broker(settings).await?, store(settings).await?);
    let notifier = modules::notifier(settings, &broker, &store).await?;
    let metrics: side::MetricsText = Arc::new({
        let notifier = notifier.clone();
        move || Ok(metrics::text(&Workers::default(), broker.counts())? + &notifier.metrics_text())
    });
    let ended = CancellationToken::new();
    tracing::info!(address = %listener.local_addr()?, "the notifier works");
    // It has no workers to tell of, but it can be named in `page.workers` like them, and is asked for ways.
    let routes = admin::workers(Workers::default());
    let side = side::serve(settings, listener, metrics, routes, stop.clone(), ended.clone());
    notifier.run(stop).await;
    ended.cancel();
    drop(side.await);
    tracing::info!("stopped");
    Ok(())
}

/// The page of a system whose modules are elsewhere.
pub async fn page(settings: &Settings, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(settings, "page", true)?;
    let listener = modules::listen(settings.page.listen, "page.listen").await?;
    let (broker, store) = (broker(settings).await?, store(settings).await?);
    let others: Vec<String> = settings.page.workers.clone();
    let token = settings.api.token.clone();
    let traces = Arc::new(Asking::new(others.clone(), token.clone())?);
    let workers = Arc::new(RemoteWorkers::new(others, token)?);
    // The page writes what is done on it to the audit log.
    let options = ClientOptions { audited: true, ..dispatcher_options(settings) };
    let dispatcher = Arc::new(DispatcherClient::new(&settings.dispatcher.url, options)?);
    let statistics = statistics(settings).await?;
    let routes =
        modules::page(settings, dispatcher, (broker, store), statistics, (workers, traces), stop.clone())?;
    tracing::info!(address = %listener.local_addr()?, "the page is served");
    drop(service::serve_page(settings, listener, routes, stop).await);
    tracing::info!("stopped");
    Ok(())
}

fn dispatcher_client(settings: &Settings) -> anyhow::Result<DispatcherClient> {
    Ok(DispatcherClient::new(&settings.dispatcher.url, dispatcher_options(settings))?)
}

fn dispatcher_options(settings: &Settings) -> ClientOptions {
    ClientOptions { token: settings.api.token.clone(), ..ClientOptions::default() }
}

/// A dispatcher of its own.
pub async fn dispatcher(settings: &Settings, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(settings, "dispatcher", false)?;
    let listener = modules::listen(settings.api.listen, "api.listen").await?;
    let store = store(settings).await?;
    let link = settings.maintainer.url.clone().map_or(MaintainerLink::None, MaintainerLink::Url);
    let dispatcher = modules::dispatcher(settings, &store, link).await?;
    let api = service::serve(settings, listener, (dispatcher, &store), axum::Router::new(), stop)?;
    api.await.context("the API ended")?;
    tracing::info!("stopped");
    Ok(())
}

/// A maintainer of its own.
pub async fn maintainer(settings: &Settings, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(settings, "maintainer", true)?;
    let listener = modules::listen(settings.maintainer.listen, "maintainer.listen").await?;
    let (broker, store) = (broker(settings).await?, store(settings).await?);
    let accounts = modules::accounts_source(settings, &store)?;
    let maintainer = modules::maintainer(settings, &store, &broker, accounts)?;
    let keeping = maintainer.spawn(stop.clone());
    tracing::info!(address = %listener.local_addr()?, "the maintainer works");
    let token = settings.api.token.as_deref();
    let serving = maintainer.serve(listener, token, async move { stop.cancelled().await }).await;
    keeping.await.context("the maintainer ended")?;
    serving.context("the maintainer cannot answer pings")?;
    tracing::info!("stopped");
    Ok(())
}

/// A worker of its own.
pub async fn worker(settings: &Settings, stop: CancellationToken) -> anyhow::Result<()> {
    must_be_shared(settings, "worker", true)?;
    let listener = modules::listen(settings.worker.listen, "worker.listen").await?;
    let address = listener.local_addr()?;
    let (broker, store) = (broker(settings).await?, store(settings).await?);
    modules::load_rules(settings, &store).await?;
    let leases = Arc::new(dispatcher_client(settings)?);
    let name = worker_name(settings);
    let ingestion = modules::ingestion(settings, &name, broker.clone(), leases, store)?;
    let workers = Workers::default();
    let metrics: side::MetricsText = Arc::new({
        let workers = workers.clone();
        move || metrics::text(&workers, broker.counts())
    });
    let ended = CancellationToken::new();
    let routes = admin::workers(workers.clone());
    let side = side::serve(settings, listener, metrics, routes, stop.clone(), ended.clone());
    workers.start(&ingestion).await?;
    tracing::info!(worker = name, %address, dispatcher = settings.dispatcher.url, "the worker works");
    stop.cancelled().await;
    workers.drain(settings.worker.drain).await;
    ended.cancel();
    drop(side.await);
    tracing::info!("stopped");
    Ok(())
}

pub(crate) fn worker_name(settings: &Settings) -> String {
    settings.worker.name.clone().unwrap_or_else(|| process_name("worker"))
}
