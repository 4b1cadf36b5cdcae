//! The dispatcher and its API.

use async_trait::async_trait;
use galerna_dispatcher::{Dispatcher, DispatcherOptions, MaintainerLink};
use galerna_settings::Settings;
use galerna_storage::Store;
use galerna_telemetry::process_name;
use prometheus::Registry;
use tokio::net::TcpListener;
use utoipa_axum::router::OpenApiRouter;

use super::timing;
use crate::api;
use crate::module::{Module, Task, joined};

/// Opens a dispatcher, with its metrics in the registry of the process.
pub async fn open(
    settings: &Settings,
    store: &Store,
    maintainer: MaintainerLink,
    registry: Registry,
) -> anyhow::Result<Dispatcher> {
    let strategy = settings.dispatcher.strategy;
    let options = DispatcherOptions {
        name: process_name("dispatcher"),
        timing: timing(settings),
        strategy,
        maintainer,
        registry,
        ..DispatcherOptions::default()
    };
    let dispatcher = Dispatcher::open(store, options).await?;
    // The strategy last set is kept in the store; one that was asked for now goes before it.
    if settings.strategy_is_set() {
        dispatcher.set_strategy(strategy).await?;
    }
    Ok(dispatcher)
}

/// The API of the dispatcher of this process.
pub(crate) struct DispatcherApi {
    settings: Settings,
    dispatcher: Dispatcher,
    store: Store,
    /// What else the API has.
    beside: OpenApiRouter,
    listener: Option<TcpListener>,
    task: Task,
}

impl DispatcherApi {
    pub(crate) fn new(
        settings: &Settings,
        listener: TcpListener,
        dispatcher: Dispatcher,
        store: Store,
        beside: OpenApiRouter,
    ) -> Self {
        let (settings, listener, task) = (settings.clone(), Some(listener), Task::default());
        Self { settings, dispatcher, store, beside, listener, task }
    }
}

#[async_trait]
impl Module for DispatcherApi {
    fn name(&self) -> &'static str {
        "dispatcher"
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        if let Some(listener) = self.listener.take() {
            let (parts, beside) = ((self.dispatcher.clone(), &self.store), self.beside.clone());
            let serving = api::serve(&self.settings, listener, parts, beside, self.task.stopped())?;
            self.task.spawn(joined(serving));
        }
        Ok(())
    }

    fn ready(&self) -> bool {
        self.task.runs()
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        let ended = self.task.end().await;
        self.dispatcher.shutdown().await;
        ended
    }
}
