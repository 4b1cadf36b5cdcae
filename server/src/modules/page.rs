//! The web page.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use axum::Router;
use axum::routing::get;
use galerna_broker::Broker;
use galerna_console::{
    Access, DispatcherAdmin, MessageHistory, Setting, SourceChanges, TopologiesView, WorkersView,
};
use galerna_http::{ServeOptions, serve_until};
use galerna_model::SystemClock;
use galerna_schedules::api::SchedulesApi;
use galerna_settings::Settings;
use galerna_storage::{StatisticsStore, Store};
use prometheus::Registry;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::module::{Module, Task};
use crate::topology;

/// How long those who look at the page may take to hang up at the end.
const HANG_UP: Duration = Duration::from_secs(3);
/// A page that is open is sent updates on one connection.
const LIFETIME: Duration = Duration::from_secs(3600);
/// One in so many of the files that the process may open are connections of the page.
const SHARE_OF_FILES: usize = 16;

/// Checks the settings of the page.
pub(super) fn check(settings: &Settings) -> anyhow::Result<()> {
    for url in &settings.page.workers {
        let right =
            reqwest::Url::parse(url).is_ok_and(|u| matches!(u.scheme(), "http" | "https") && u.has_host());
        anyhow::ensure!(right, "`page.workers` has `{url}`; write addresses such as http://worker-1:8092");
    }
    Ok(())
}

/// What the page shows and acts on.
pub(crate) struct PageParts {
    pub(crate) dispatcher: Arc<dyn DispatcherAdmin>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) store: Store,
    pub(crate) statistics: Arc<dyn StatisticsStore>,
    pub(crate) sources: Option<Arc<dyn SourceChanges>>,
    pub(crate) workers: Arc<dyn WorkersView>,
    pub(crate) topologies: Arc<dyn TopologiesView>,
    pub(crate) traces: Arc<dyn MessageHistory>,
    pub(crate) schedules: SchedulesApi,
    pub(crate) registry: Registry,
}

/// The page at its listener.
pub(crate) struct PageServer {
    settings: Settings,
    parts: Option<(TcpListener, PageParts)>,
    task: Task,
}

impl PageServer {
    pub(crate) fn new(settings: &Settings, listener: TcpListener, parts: PageParts) -> Self {
        Self { settings: settings.clone(), parts: Some((listener, parts)), task: Task::default() }
    }
}

#[async_trait]
impl Module for PageServer {
    fn name(&self) -> &'static str {
        "page"
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        if let Some((listener, parts)) = self.parts.take() {
            let page = routes(&self.settings, parts, self.task.stopped())?;
            self.task.spawn(serve(listener, page, self.task.stopped()));
        }
        Ok(())
    }

    fn ready(&self) -> bool {
        self.task.runs()
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        self.task.end().await
    }
}

/// The routes of the page, whose charts are kept from now on until `stop`.
fn routes(settings: &Settings, parts: PageParts, stop: CancellationToken) -> anyhow::Result<Router> {
    let PageParts {
        dispatcher,
        broker,
        store,
        statistics,
        sources,
        workers,
        topologies,
        traces,
        schedules,
        registry,
    } = parts;
    let topology = serde_json::from_str(&topology::shown(settings)?.json())?;
    let shown = settings.shown().map(|setting| Setting {
        key: setting.name.to_owned(),
        value: setting.value,
        origin: setting.origin.to_string(),
    });
    let parts = galerna_console::Parts {
        dispatcher,
        broker,
        store,
        statistics: Some(statistics),
        consumption: super::worker::calendar(settings)?,
        sources,
        workers,
        topologies,
        topology,
        parameters: Arc::new(super::worker::parameters(settings)?),
        config: shown.collect(),
        version: env!("CARGO_PKG_VERSION"),
        traces: Some(traces),
        schedules: Some(schedules),
        depths: Arc::default(),
        clock: Arc::new(SystemClock),
        registry,
        stop: stop.clone(),
    };
    drop(galerna_console::spawn_samples(parts.clone(), stop));
    let galerna_settings::Page { viewer_token, operator_token, .. } = &settings.page;
    let access = Access {
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

async fn serve(listener: TcpListener, page: Router, stopped: CancellationToken) -> anyhow::Result<()> {
    // For whoever watches the process: no token, and nothing told but that it answers.
    let page = page.route("/healthz", get(|| async { "ok" })).route("/readyz", get(|| async { "ready\n" }));
    let options = ServeOptions { lifetime: LIFETIME, drain: HANG_UP, ..ServeOptions::new("page") };
    let options = options.within_files(SHARE_OF_FILES);
    Ok(serve_until(listener, page, options, stopped.cancelled()).await?)
}
