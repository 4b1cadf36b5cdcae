//! All modules in one process, as `galerna up` and `galerna demo` run them.
//!
//! They are drained in the order in which readings pass: first the frontend, which takes no more calls and answers those under way,
//! then the workers, which settle what is in flight and give their leases back, then all else. `/metrics` at each of the addresses has
//! the metrics of all modules: one of them is to be scraped.

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use galerna_broker::Broker;
use galerna_console::LocalHistory;
use galerna_directory::SourceRegistry;
use galerna_dispatcher::{Dispatcher, MaintainerLink};
use galerna_frontend::Directory;
use galerna_http::metrics::process_registry;
use galerna_maintainer::{Run, Task};
use galerna_schedules::ScheduleStore;
use galerna_settings::Settings;
use galerna_storage::Store;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use utoipa_axum::router::OpenApiRouter;

use crate::api::routes;
use crate::api::sources::{self, SourcesApi};
use crate::module::{Module, Readiness, Supervisor};
use crate::modules::{
    self, AdminServer, DispatcherApi, FrontendServer, LocalMaintainer, MaintainerTasks, NotifierTasks,
    PageParts, PageServer, ScheduleRunner, WorkerTopologies, Workers, listen,
};
use crate::{backends, metrics, separate};

/// Where the modules listen; opened before anything else, so that a port that is taken stops the start before it does anything.
pub struct Listeners {
    api: TcpListener,
    frontend: TcpListener,
    page: TcpListener,
    admin: TcpListener,
}

impl Listeners {
    /// Opens those that the settings name.
    ///
    /// # Errors
    /// The first that cannot be opened, with its setting.
    pub async fn open(settings: &Settings) -> anyhow::Result<Self> {
        Ok(Self {
            api: listen(settings.api.listen, "api.listen").await?,
            frontend: listen(settings.frontend.listen, "frontend.listen").await?,
            page: listen(settings.page.listen, "page.listen").await?,
            admin: listen(settings.worker.listen, "worker.listen").await?,
        })
    }
}

/// What the modules work on.
pub struct Parts {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// The store.
    pub store: Store,
    /// The store of schedules.
    pub schedules: Arc<dyn ScheduleStore>,
    /// Where accounts and sources come from.
    pub directory: Directory,
    /// Whether an account that is published to and not known is made.
    pub makes_accounts: bool,
    /// Workers to start.
    pub workers: u16,
}

/// All modules, running.
pub struct Standalone {
    /// The broker.
    pub broker: Arc<dyn Broker>,
    /// The store.
    pub store: Store,
    /// The dispatcher.
    pub dispatcher: Dispatcher,
    /// The workers' topologies; more can be started.
    pub workers: Workers,
    /// Where the API is.
    pub api_address: SocketAddr,
    /// Where readings are posted.
    pub frontend_address: SocketAddr,
    /// Where the page is.
    pub page_address: SocketAddr,
    /// What the accounts task did before anything was leased.
    pub accounts: Option<galerna_maintainer::Report>,
    supervisor: Supervisor,
}

impl Standalone {
    /// Opens and starts all modules.
    ///
    /// # Errors
    /// Why one cannot be opened or started; those that were started are ended.
    pub async fn start(settings: &Settings, listeners: Listeners, parts: Parts) -> anyhow::Result<Self> {
        let Parts { broker, store, schedules, directory, makes_accounts, workers: wanted } = parts;
        let statistics = store.statistics.clone();
        let registry = process_registry(env!("CARGO_PKG_VERSION"))?;
        let accounts = directory.accounts.clone();
        let maintainer = modules::maintainer(settings, &store, &broker, accounts, registry.clone())?;
        let accounts = match maintainer.run_once(Task::Accounts, Run::default()).await {
            Ok(report) => Some(report),
            Err(e) => {
                tracing::error!(error = %e, "the accounts cannot be read now; what is known is served");
                None
            }
        };
        let link = MaintainerLink::Local(Arc::new(LocalMaintainer(maintainer.clone())));
        let dispatcher = modules::dispatcher(settings, &store, link, registry.clone()).await?;
        let notifier = modules::notifier(settings, &broker, &store, registry.clone()).await?;
        let hints = Arc::new(dispatcher.clone());
        let (counted, metrics_in) = (statistics.clone(), registry.clone());
        let frontend = modules::frontend(settings, &broker, directory, hints, counted, metrics_in).await?;
        let workers = Workers::default();
        let mut ingestions = Vec::new();
        for number in 1..=wanted {
            let name = format!("{}-{number}", separate::worker_name(settings));
            let leases = Arc::new(dispatcher.clone());
            ingestions.push(modules::ingestion(settings, &name, broker.clone(), leases, store.clone())?);
        }
        metrics::register(&registry, &workers, broker.clone())?;
        let changed = SourcesApi {
            registry: SourceRegistry::new(store.accounts.clone(), store.sources.clone()),
            kept_in_store: makes_accounts && settings.frontend.sources_are_stored(),
            frontend: frontend.clone(),
            maintainer: maintainer.clone(),
        };
        let schedules_api = modules::schedules::api(schedules.clone(), Some(broker.clone()));
        let routes = routes::router(
            broker.clone(),
            store.clone(),
            dispatcher.clone(),
            workers.clone(),
            makes_accounts,
            modules::validator(settings)?,
        )
        .merge(maintainer.task_routes())
        .merge(galerna_control::routes::rest(workers.topologies().clone()))
        .merge(sources::routes(changed.clone()))
        .merge(galerna_schedules::api::routes(schedules_api.clone()));
        let page = PageParts {
            dispatcher: Arc::new(dispatcher.clone()),
            broker: broker.clone(),
            store: store.clone(),
            statistics,
            sources: changed.changes(),
            workers: Arc::new(workers.clone()),
            topologies: Arc::new(workers.topologies().clone()),
            traces: Arc::new(LocalHistory),
            schedules: schedules_api,
            registry: registry.clone(),
        };
        let readiness = Readiness::default();
        let (api_address, page_address) = (listeners.api.local_addr()?, listeners.page.local_addr()?);
        let frontend_address = listeners.frontend.local_addr()?;
        // What feeds others stands after them: it is started after them, and drained before.
        let modules: Vec<Box<dyn Module>> = vec![
            Box::new(MaintainerTasks::new(maintainer)),
            Box::new(DispatcherApi::new(settings, listeners.api, dispatcher.clone(), store.clone(), routes)),
            Box::new(NotifierTasks::new(notifier)),
            Box::new(PageServer::new(settings, listeners.page, page)),
            Box::new(AdminServer::new(
                settings,
                listeners.admin,
                registry,
                OpenApiRouter::new(),
                readiness.clone(),
            )),
            Box::new(WorkerTopologies::new(workers.clone(), ingestions, settings.worker.drain)),
            Box::new(ScheduleRunner::new(settings, schedules, broker.clone())),
            Box::new(FrontendServer::new(frontend, listeners.frontend, Router::new())),
        ];
        let supervisor = Supervisor::start(modules, readiness).await?;
        Ok(Self {
            broker,
            store,
            dispatcher,
            workers,
            api_address,
            frontend_address,
            page_address,
            accounts,
            supervisor,
        })
    }

    /// Waits until `stop`, or until a module ends by itself.
    pub async fn until(&self, stop: &CancellationToken) {
        self.supervisor.until(stop).await;
    }

    /// Ends all, in order, and closes the broker and the store: what is embedded is folded into its files, so that a copy of
    /// a file alone is whole.
    ///
    /// # Errors
    /// What the first module that ended badly says.
    pub async fn stop(self) -> anyhow::Result<()> {
        let stopped = self.supervisor.stop().await;
        if let Err(error) = self.broker.close().await {
            tracing::error!(%error, "the broker was not closed in good order");
        }
        if let Err(error) = self.store.close().await {
            tracing::error!(%error, "the store was not closed in good order");
        }
        stopped
    }
}

/// Runs all modules with so many workers, until asked to stop.
///
/// # Errors
/// Why a module could not start, or ended.
pub async fn up(workers: u16, settings: &Settings, stop: CancellationToken) -> anyhow::Result<()> {
    let listeners = Listeners::open(settings).await?;
    let (broker, store) = (backends::broker(settings).await?, backends::store(settings).await?);
    modules::load_rules(settings, &store).await?;
    let schedules = modules::schedules::open(settings).await?;
    let directory = modules::directory(settings, &store)?;
    let makes_accounts = settings.maintainer.accounts_are_stored();
    let parts = Parts { broker, store, schedules, directory, makes_accounts, workers };
    let all = Standalone::start(settings, listeners, parts).await?;
    tracing::info!(
        address = %all.api_address,
        frontend = %all.frontend_address,
        workers,
        "all modules are up"
    );
    all.until(&stop).await;
    all.stop().await?;
    anyhow::ensure!(stop.is_cancelled(), "a module has ended; see the log");
    tracing::info!("stopped");
    Ok(())
}
