//! Everything in one process: stores, topology, API.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use galerna_control::{ControlOptions, Menu, Topologies, serve};
use galerna_engine::EngineOptions;
use galerna_model::Clock;
use galerna_schedules::api::SchedulesApi;
use galerna_schedules::sqlite::SqliteSchedules;
use galerna_schedules::{Definition, Policy, Retry, ScheduleError, ScheduleId, ScheduleStore, Schedules};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use url::Url;

use crate::api::{Api, routes};
use crate::lists::Lists;
use crate::lists::embedded::EmbeddedLists;
use crate::lists::mongo::MongoLists;
use crate::store::DowntimeStore;
use crate::store::postgres::PostgresDowntimes;
use crate::store::sqlite::SqliteDowntimes;
use crate::topology::{Arrival, LookSettings, Parts, Senders, Smtp, Task, TellSettings, declare};

/// Requests that may wait for the topology.
const WAITING: usize = 4_096;
/// At the end: for what is on its way.
const DRAIN: Duration = Duration::from_secs(20);

/// What is to be run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// The folder of what is kept in SQLite; created when missing.
    pub data: PathBuf,
    /// Where lines and downtimes are kept: `postgres://…`, or in the folder.
    pub database: Option<String>,
    /// Where lists are kept: `mongodb://…`, or in the folder.
    pub lists: Option<String>,
    /// A status API to look at.
    pub poll: Option<Url>,
    /// How often.
    pub poll_every: Duration,
    /// A line that has sent heartbeats and was not heard of for so long counts as down.
    pub silence: Duration,
    /// A state is told when it has lasted for so long.
    pub hold: Duration,
    /// By which mail server.
    pub smtp: Option<Smtp>,
    /// To which webhook.
    pub webhook: Option<Url>,
    /// How long an attempt to tell may take.
    pub send_timeout: Duration,
    /// So long other processes leave alone what this one tells.
    pub lease: Duration,
    /// The bearer token of the API.
    pub token: Option<String>,
}

impl Options {
    /// What the command does unless it is told otherwise, with this folder.
    pub fn new(data: PathBuf) -> Self {
        Self {
            data,
            database: None,
            lists: None,
            poll: None,
            poll_every: Duration::from_secs(30),
            silence: Duration::from_secs(300),
            hold: Duration::from_secs(60),
            smtp: None,
            webhook: None,
            send_timeout: Duration::from_secs(10),
            lease: Duration::from_secs(120),
            token: None,
        }
    }
}

/// What runs.
pub struct App {
    api: Api,
    schedules: Schedules,
    topologies: Topologies,
    token: Option<String>,
}

impl App {
    /// Opens the stores and starts the topology. How long a state has lasted goes by `clock`, which is not the wall's in the demo: it
    /// plays recorded days.
    ///
    /// # Errors
    /// What could not be opened, and why.
    pub async fn start(
        options: &Options,
        clock: Arc<dyn Clock>,
        wall: Arc<dyn Clock>,
    ) -> anyhow::Result<Self> {
        let (store, lists, schedules) = open(options).await?;
        seed_schedules(options, schedules.clone(), wall.clone()).await?;
        let senders = Senders::new(options.smtp.as_ref(), options.webhook.clone(), options.send_timeout)?;
        let (intake, spout) = galerna_spouts::intake::<Vec<Arrival>>(WAITING);
        let topology = declare(Parts {
            store: store.clone(),
            lists: lists.clone(),
            schedules: schedules.clone(),
            clock: clock.clone(),
            wall: wall.clone(),
            intake: spout,
            look: LookSettings { timeout: Duration::from_secs(10), silence: options.silence },
            tell: TellSettings {
                holder: format!("{}-{}", std::process::id(), clock.now().as_millis()),
                hold: options.hold,
                lease: options.lease,
                every: Duration::from_millis(500),
                attempts: 30,
            },
            senders: Arc::new(senders),
        })?;
        let topologies = Topologies::new();
        topologies.submit("downtime", topology, EngineOptions::default()).await?;
        let schedules = Schedules::new(schedules, wall.clone());
        let token = options.token.clone();
        Ok(Self { api: Api { store, lists, intake, clock: wall }, schedules, topologies, token })
    }

    /// What is stored.
    pub fn store(&self) -> &Arc<dyn DowntimeStore> {
        &self.api.store
    }

    /// Whom is told.
    pub fn lists(&self) -> &Arc<dyn Lists> {
        &self.api.lists
    }

    /// Serves until told to stop, with the topology's page and the schedules'; then ends in order: calls under way are answered, what
    /// was taken is stored and told or left in the store, everything is closed. Whether all of it ended in time.
    ///
    /// # Errors
    /// When the listener cannot be served.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send,
    ) -> anyhow::Result<bool> {
        let shutdown = CancellationToken::new();
        let menu = Menu::new("Downtime")
            .entry("Lines", "/lines")
            .entry("Schedules", "/schedules")
            .entry("Topology", "/topologies");
        let schedules = SchedulesApi::from(self.schedules).beside(menu.clone());
        let control = ControlOptions {
            token: self.token,
            shutdown: shutdown.clone(),
            beside: routes(self.api.clone())
                .merge(galerna_schedules::router(schedules).into())
                .merge(galerna_telemetry::api::routes()),
            menu: Some(menu),
            registry: None,
        };
        let served = {
            let mut serving = std::pin::pin!(serve(listener, self.topologies.clone(), control));
            tokio::select! {
                served = &mut serving => served,
                () = stop => {
                    shutdown.cancel();
                    serving.await
                }
            }
        };
        let reports = self.topologies.drain(DRAIN).await;
        self.api.store.close().await;
        self.api.lists.close().await;
        served?;
        Ok(reports.iter().all(|(_, report)| report.drained))
    }
}

type Stores = (Arc<dyn DowntimeStore>, Arc<dyn Lists>, Arc<dyn ScheduleStore>);

async fn open(options: &Options) -> anyhow::Result<Stores> {
    let data = options.data.clone();
    let store: Arc<dyn DowntimeStore> = match &options.database {
        Some(url) => Arc::new(PostgresDowntimes::open(url).await?),
        None => {
            let path = data.join("downtimes.db");
            let store = tokio::task::spawn_blocking(move || SqliteDowntimes::open(&path)).await??;
            store.release_all().await?;
            Arc::new(store)
        }
    };
    let path = data.join("lists.db");
    let lists: Arc<dyn Lists> = match &options.lists {
        Some(url) => Arc::new(MongoLists::open(url).await?),
        None => Arc::new(tokio::task::spawn_blocking(move || EmbeddedLists::open(&path)).await??),
    };
    let path = data.join("schedules.db");
    let schedules = tokio::task::spawn_blocking(move || SqliteSchedules::open(&path)).await??;
    Ok((store, lists, Arc::new(schedules)))
}

/// Sees to it that the schedules are there that the options ask for. Others are left alone, and so is whether one is paused.
async fn seed_schedules(
    options: &Options,
    store: Arc<dyn ScheduleStore>,
    clock: Arc<dyn Clock>,
) -> anyhow::Result<()> {
    let schedules = Schedules::new(store, clock);
    // A line is found silent a quarter of that time too late at most.
    let often = (options.silence / 4).clamp(Duration::from_secs(1), Duration::from_secs(15));
    let mut wanted = vec![("look/silence", often, Task::Silence)];
    wanted.extend(
        options.poll.clone().map(|url| ("look/status", options.poll_every, Task::Status(url.into()))),
    );
    for (id, every, task) in wanted {
        let id = ScheduleId::new(id)?;
        // What failed is looked at again soon anyway.
        let policy = Policy { retry: Retry { attempts: 1, ..Retry::default() }, ..Policy::default() };
        let every = Duration::from_millis(u64::try_from(every.as_millis()).unwrap_or(u64::MAX));
        let definition = Definition::every(every).policy(policy).payload(serde_json::to_value(&task)?);
        match schedules.add(id.clone(), definition.clone()).await {
            Ok(_) => {}
            Err(ScheduleError::Exists(_)) => {
                if schedules.get(&id).await?.definition != definition {
                    schedules.edit(&id, definition, None).await?;
                }
            }
            Err(error) => return Err(error).with_context(|| format!("schedule {id}")),
        }
    }
    Ok(())
}
