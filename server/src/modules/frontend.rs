//! The frontend.

use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use async_trait::async_trait;
use axum::Router;
use galerna_broker::Broker;
use galerna_directory::{FileDirectory, HttpDirectory, HttpOptions, StoreDirectory};
use galerna_frontend::{Directory, Frontend, Limits, Parts, QueueHints, Rate};
use galerna_model::SystemClock;
use galerna_settings::Settings;
use galerna_storage::{StatisticsStore, Store};
use prometheus::Registry;
use tokio::net::TcpListener;

use crate::backends::data_file;
use crate::module::{Module, Task};

/// Where accounts and sources are read from.
fn listed(settings: &Settings, store: &Store, setting: &str, value: &str) -> anyhow::Result<Directory> {
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

/// Where accounts are read from.
pub(super) fn accounts_directory(settings: &Settings, store: &Store) -> anyhow::Result<Directory> {
    listed(settings, store, "maintainer.accounts", &settings.maintainer.accounts)
}

/// Where the frontend reads accounts and sources from.
pub fn directory(settings: &Settings, store: &Store) -> anyhow::Result<Directory> {
    let both = accounts_directory(settings, store)?;
    let Some(sources) = &settings.frontend.sources else { return Ok(both) };
    Ok(Directory { accounts: both.accounts, ..listed(settings, store, "frontend.sources", sources)? })
}

/// Opens a frontend on these lists. It hints to `hints` and counts in `statistics`.
pub(crate) async fn open(
    settings: &Settings,
    broker: &Arc<dyn Broker>,
    directory: Directory,
    hints: Arc<dyn QueueHints>,
    statistics: Arc<dyn StatisticsStore>,
    registry: Registry,
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
    let parts = Parts { broker: broker.clone(), directory, hints: Some(hints), statistics, clock, registry };
    Ok(Frontend::open(parts, options).await?)
}

/// A frontend at its listener, with what the process serves beside it.
pub(crate) struct FrontendServer {
    frontend: Frontend,
    beside: Router,
    listener: Option<TcpListener>,
    task: Task,
    ended: anyhow::Result<()>,
}

impl FrontendServer {
    pub(crate) fn new(frontend: Frontend, listener: TcpListener, beside: Router) -> Self {
        Self { frontend, beside, listener: Some(listener), task: Task::default(), ended: Ok(()) }
    }
}

#[async_trait]
impl Module for FrontendServer {
    fn name(&self) -> &'static str {
        "frontend"
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        if let Some(listener) = self.listener.take() {
            let (frontend, beside, stopped) =
                (self.frontend.clone(), self.beside.clone(), self.task.stopped());
            self.task.spawn(async move {
                Ok(frontend.serve_with(beside, listener, async move { stopped.cancelled().await }).await?)
            });
        }
        Ok(())
    }

    fn ready(&self) -> bool {
        self.task.runs()
    }

    /// Takes no more calls, and answers those under way.
    async fn drain(&mut self) {
        self.ended = self.task.end().await;
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        std::mem::replace(&mut self.ended, Ok(()))
    }
}
