//! The notifier.

use std::sync::Arc;

use anyhow::anyhow;
use async_trait::async_trait;
use galerna_broker::Broker;
use galerna_model::SystemClock;
use galerna_notifier::{AllowList, Notifier, Smtp};
use galerna_settings::Settings;
use galerna_storage::Store;
use galerna_telemetry::process_name;
use prometheus::Registry;

use crate::module::{Module, Task, joined};

/// Checks the settings of the notifier.
pub(super) fn check(settings: &Settings) -> anyhow::Result<()> {
    allowed(settings)?;
    match smtp(settings) {
        Some(smtp) => smtp.check().map_err(|e| anyhow!("`notifier.smtp_url`, `notifier.from`: {e}")),
        None => Ok(()),
    }
}

fn allowed(settings: &Settings) -> anyhow::Result<AllowList> {
    let entries = settings.notifier.allow.iter().map(String::as_str);
    AllowList::parse(entries).map_err(|e| anyhow!("`notifier.allow`: {e}"))
}

fn smtp(settings: &Settings) -> Option<Smtp> {
    let from = settings.notifier.from.clone();
    settings.notifier.smtp_url.clone().map(|url| Smtp { url, from })
}

/// Opens a notifier.
pub(crate) async fn open(
    settings: &Settings,
    broker: &Arc<dyn Broker>,
    store: &Store,
    registry: Registry,
) -> anyhow::Result<Notifier> {
    let (allow, smtp) = (allowed(settings)?, smtp(settings));
    let options =
        galerna_notifier::Options { name: process_name("notifier"), allow, smtp, ..Default::default() };
    let parts = galerna_notifier::Parts {
        broker: broker.clone(),
        store: store.clone(),
        clock: Arc::new(SystemClock),
        registry,
    };
    Ok(Notifier::open(parts, options).await?)
}

/// A notifier at work.
pub(crate) struct NotifierTasks {
    notifier: Notifier,
    task: Task,
    ended: anyhow::Result<()>,
}

impl NotifierTasks {
    pub(crate) fn new(notifier: Notifier) -> Self {
        Self { notifier, task: Task::default(), ended: Ok(()) }
    }
}

#[async_trait]
impl Module for NotifierTasks {
    fn name(&self) -> &'static str {
        "notifier"
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        self.task.spawn(joined(self.notifier.spawn(self.task.stopped())));
        Ok(())
    }

    fn ready(&self) -> bool {
        self.task.runs()
    }

    /// Takes no more events, and ends the deliveries under way.
    async fn drain(&mut self) {
        self.ended = self.task.end().await;
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        std::mem::replace(&mut self.ended, Ok(()))
    }
}
