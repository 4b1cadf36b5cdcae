//! All modules in one process, as `galerna up` and `galerna demo` run them.
//!
//! They stop in the order of the readings' way: first the frontend, which takes no more calls and finishes those under way, then
//! the workers, which settle what is in flight and give their leases back, then all else. The address `worker.listen` has the
//! metrics of the workers, the maintainer and the notifier together.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use galerna_broker::Broker;
use galerna_console::LocalTraces;
use galerna_dispatcher::{Dispatcher, MaintainerLink};
use galerna_frontend::Directory;
use galerna_maintainer::{Maintainer, Run, Task};
use galerna_settings::Settings;
use galerna_storage::Store;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::workers::Workers;
use crate::{admin, backends, metrics, modules, service, side, standalone};

/// Where they listen; opened before anything else, so that a port that is taken stops the start before it does anything.
pub struct Listeners {
    api: TcpListener,
    frontend: TcpListener,
    page: TcpListener,
    side: TcpListener,
}

impl Listeners {
    /// Opens those that the configuration names.
    pub async fn open(settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self {
            api: modules::listen(settings.api.listen, "api.listen").await?,
            frontend: modules::listen(settings.frontend.listen, "frontend.listen").await?,
            page: modules::listen(settings.page.listen, "page.listen").await?,
            side: modules::listen(settings.worker.listen, "worker.listen").await?,
        })
    }
}

/// The modules, running.
pub struct Together {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// The store.
    pub store: Store,
    /// The dispatcher.
    pub dispatcher: Dispatcher,
    /// The topologies.
    pub workers: Workers,
    /// Where the API is.
    pub api_address: SocketAddr,
    /// Where readings are posted.
    pub frontend_address: SocketAddr,
    /// Where the page is.
    pub page_address: SocketAddr,
    /// What the accounts task did before anything was leased.
    pub accounts: Option<galerna_maintainer::Report>,
    /// Ends the frontend.
    closing: CancellationToken,
    posting: JoinHandle<Result<(), galerna_frontend::ServeError>>,
    /// Ends the rest.
    services: CancellationToken,
    keeping: JoinHandle<()>,
    api: JoinHandle<()>,
    notifying: JoinHandle<()>,
    page: JoinHandle<()>,
    side: JoinHandle<()>,
}

impl Together {
    /// Starts all but the workers, with accounts and sources from `directory`.
    pub async fn start(
        settings: &Settings,
        listeners: Listeners,
        broker: Arc<dyn Broker>,
        store: Store,
        directory: Directory,
        makes_accounts: bool,
    ) -> anyhow::Result<Self> {
        let statistics: Arc<dyn StatisticsStore> = backends::statistics(settings).await?;
        let accounts = directory.accounts.clone();
        let maintainer: Maintainer = modules::maintainer(settings, &store, &broker, accounts)?;
        let created = match maintainer.run_once(Task::Accounts, Run::default()).await {
            Ok(report) => Some(report),
            Err(e) => {
                tracing::error!(error = %e, "the accounts cannot be read now; what is known is served");
                None
            }
        };
        let link = MaintainerLink::Local(Arc::new(modules::LocalMaintainer(maintainer.clone())));
        let dispatcher = modules::dispatcher(settings, &store, link).await?;

        let services = CancellationToken::new();
        let keeping = maintainer.spawn(services.clone());
        let workers = Workers::default();
        let (api_address, frontend_address) = (listeners.api.local_addr()?, listeners.frontend.local_addr()?);
        let routes =
            admin::router(broker.clone(), store.clone(), dispatcher.clone(), workers.clone(), makes_accounts)
                .merge(maintainer.task_routes());
        let api =
            service::serve(settings, listeners.api, (dispatcher.clone(), &store), routes, services.clone())?;
        let notifier = modules::notifier(settings, &broker, &store).await?;
        let notifying = notifier.spawn(services.clone());
        let page_address = listeners.page.local_addr()?;
        let shown = modules::page(
            settings,
            Arc::new(dispatcher.clone()),
            (broker.clone(), store.clone()),
            statistics.clone(),
            (Arc::new(workers.clone()), Arc::new(LocalTraces)),
            services.clone(),
        )?;
        let page = service::serve_page(settings, listeners.page, shown, services.clone());
        let metrics: side::MetricsText = Arc::new({
            let (workers, maintainer, notifier) = (workers.clone(), maintainer.clone(), notifier.clone());
            let broker = broker.clone();
            move || {
                Ok(metrics::text(&workers, broker.counts())?
                    + &maintainer.metrics_text()?
                    + &notifier.metrics_text())
            }
        });
        let closing = CancellationToken::new();
        let (draining, ending) = (closing.clone(), services.clone());
        let side = side::serve(settings, listeners.side, metrics, Router::new(), draining, ending);
        let hints = Arc::new(dispatcher.clone());
        let frontend = modules::frontend(settings, &broker, directory, hints, statistics).await?;
        let posting = tokio::spawn({
            let closing = closing.clone();
            async move { frontend.serve(listeners.frontend, async move { closing.cancelled().await }).await }
        });
        Ok(Self {
            broker,
            store,
            dispatcher,
            workers,
            api_address,
            frontend_address,
            page_address,
            accounts: created,
            closing,
            posting,
            services,
            keeping,
            api,
            notifying,
            page,
            side,
        })
    }

    /// Stops all, in order.
    pub async fn stop(self, settings: &Settings) {
        self.closing.cancel();
        match self.posting.await {
            Ok(Ok(())) => {}
            Ok(Err(e)) => tracing::error!(error = %e, "the frontend ended badly"),
            Err(e) => tracing::error!(error = %e, "the frontend ended badly"),
        }
        self.workers.drain(settings.worker.drain).await;
        self.services.cancel();
        drop(tokio::join!(self.keeping, self.notifying, self.page, self.side, self.api));
        self.dispatcher.shutdown().await;
    }
}

/// Runs all modules with so many workers, until asked to stop.
pub async fn up(workers: u16, settings: &Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let listeners = Listeners::open(settings).await?;
    let (broker, store) = (backends::broker(settings).await?, backends::store(settings).await?);
    modules::load_rules(settings, &store).await?;
    let directory = modules::frontend_directory(settings, &store)?;
    let makes_accounts = settings.maintainer.accounts_are_stored();
    let all = Together::start(settings, listeners, broker, store, directory, makes_accounts).await?;
    for number in 1..=workers {
        let name = format!("{}-{number}", standalone::worker_name(settings));
        let leases = Arc::new(all.dispatcher.clone());
        let ingestion = modules::ingestion(settings, &name, all.broker.clone(), leases, all.store.clone())?;
        all.workers.start(&ingestion).await?;
    }
    tracing::info!(
        address = %all.api_address,
        frontend = %all.frontend_address,
        workers,
        "all modules are up"
    );

    stop.cancelled().await;
    all.stop(settings).await;
    tracing::info!("stopped");
    Ok(())
}
