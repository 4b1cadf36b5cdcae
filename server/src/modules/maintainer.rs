//! The maintainer.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
use galerna_broker::Broker;
use galerna_directory::AccountsSource;
use galerna_dispatcher::{Ping, PingError};
use galerna_maintainer::{Guard, Maintainer, Options};
use galerna_model::SystemClock;
use galerna_settings::Settings;
use galerna_storage::Store;
use prometheus::Registry;
use tokio::net::TcpListener;

use super::frontend::accounts_directory;
use super::timing;
use crate::module::{Module, Task, joined};

/// Where the maintainer reads accounts from.
pub fn accounts_source(settings: &Settings, store: &Store) -> anyhow::Result<Arc<dyn AccountsSource>> {
    Ok(accounts_directory(settings, store)?.accounts)
}

/// Makes a maintainer, with its metrics in the registry of the process; it does nothing yet.
pub fn open(
    settings: &Settings,
    store: &Store,
    broker: &Arc<dyn Broker>,
    accounts: Arc<dyn AccountsSource>,
    registry: Registry,
) -> anyhow::Result<Maintainer> {
    let mut options = Options { timing: timing(settings), ..Options::default() };
    options.accounts.every = settings.maintainer.accounts_every;
    options.empties.every = settings.maintainer.empties_every;
    options.timeouts.every = settings.maintainer.timeouts_every;
    options.deletions.every = settings.maintainer.deletions_every;
    options.grace = settings.maintainer.deletion_grace;
    options.linger = settings.maintainer.deletion_linger;
    options.guard = Guard {
        may_lose: settings.maintainer.guard_may_lose,
        keep_ratio: settings.maintainer.guard_keep_percent as f64 / 100.0,
    };
    if settings.broker.is_embedded() {
        // The embedded broker counts exactly and at once.
        options.settle = Duration::ZERO;
    }
    let (queues, broker, clock) = (store.queues.clone(), broker.clone(), Arc::new(SystemClock));
    Ok(Maintainer::in_registry(registry, queues, broker, accounts, options, clock)?)
}

/// The maintainer of this process, as the dispatcher pings it.
pub(crate) struct LocalMaintainer(pub(crate) Maintainer);

#[async_trait]
impl Ping for LocalMaintainer {
    async fn ping(&self) -> Result<(), PingError> {
        self.0.check_on_time().map_err(|late| PingError::NotWorking(late.to_string()))
    }
}

/// The tasks of a maintainer, and where it answers pings when it is in a process of its own.
pub(crate) struct MaintainerTasks {
    maintainer: Maintainer,
    listener: Option<(TcpListener, Option<String>)>,
    tasks: Task,
    serving: Option<Task>,
}

impl MaintainerTasks {
    pub(crate) fn new(maintainer: Maintainer) -> Self {
        Self { maintainer, listener: None, tasks: Task::default(), serving: None }
    }

    /// Answers pings at this listener, to who has the token if there is one.
    pub(crate) fn answering(self, listener: TcpListener, token: Option<String>) -> Self {
        Self { listener: Some((listener, token)), ..self }
    }
}

#[async_trait]
impl Module for MaintainerTasks {
    fn name(&self) -> &'static str {
        "maintainer"
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        self.tasks.spawn(joined(self.maintainer.spawn(self.tasks.stopped())));
        if let Some((listener, token)) = self.listener.take() {
            let serving = self.serving.insert(Task::default());
            let (maintainer, stopped) = (self.maintainer.clone(), serving.stopped());
            serving.spawn(async move {
                let shutdown = async move { stopped.cancelled().await };
                let ended = maintainer.serve(listener, token.as_deref(), shutdown).await;
                ended.context("the maintainer cannot answer pings")
            });
        }
        Ok(())
    }

    fn ready(&self) -> bool {
        self.tasks.runs() && self.serving.as_ref().is_none_or(Task::runs)
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        let served = match &mut self.serving {
            Some(serving) => serving.end().await,
            None => Ok(()),
        };
        self.tasks.end().await.and(served)
    }
}
