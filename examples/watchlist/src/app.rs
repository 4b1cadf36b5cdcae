//! Watchlist in a process: stores, schedules, topology and page.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use galerna_control::{ControlOptions, Topologies, serve};
use galerna_delay::api::ParkedApi;
use galerna_delay::{DelayStore, RateLimits};
use galerna_engine::EngineOptions;
use galerna_model::SystemClock;
use galerna_schedules::api::SchedulesApi;
use galerna_schedules::sqlite::SqliteSchedules;
use galerna_schedules::{Definition, Policy, Retry, ScheduleError, ScheduleId, ScheduleStore, Schedules};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::jobs::{Load, OpenJobs};
use crate::polite::Polite;
use crate::store::Store;
use crate::topology::{Parts, Task, job_options};
use crate::{Config, PostgresStore, SqliteStore, page};

/// So long has what is on its way to end when the process is to stop.
const DRAIN: Duration = Duration::from_secs(20);

/// Where watchlist keeps what it knows, and how it takes part.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The folder for its stores
    #[arg(long, default_value = "watchlist-data", env = "WATCHLIST_FOLDER")]
    pub folder: PathBuf,
    /// Keeps posts, counts and alerts in this PostgreSQL database, and not in the folder: `postgres://USER@HOST/DATABASE`
    #[arg(long, env = "WATCHLIST_POSTGRES", hide_env_values = true)]
    pub postgres: Option<String>,
    /// The page's address
    #[arg(long, default_value = "127.0.0.1:8484", env = "WATCHLIST_LISTEN")]
    pub listen: SocketAddr,
    /// What the page and the API ask for; needed when other machines can reach them
    #[arg(long, env = "WATCHLIST_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// So long after a process was lost, another goes on with what it had
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub lease: Duration,
    /// Alerts are raised of so many days, the last ones
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub look_back: u32,
    /// How often keywords are counted and alerts by count raised, as a cron expression in UTC
    #[arg(long, default_value = "5 * * * *")]
    pub hourly: String,
    /// How often alerts by the change of a week are raised
    #[arg(long, default_value = "20 0 * * *")]
    pub daily: String,
}

/// Watchlist that runs.
pub struct Watchlist {
    /// What becomes of crawls and counts.
    pub schedules: Schedules,
    /// What is known.
    pub store: Arc<dyn Store>,
    /// Where its page is.
    pub address: SocketAddr,
    jobs: Arc<DelayStore>,
    load: Arc<Load>,
    topologies: Topologies,
    stop: CancellationToken,
    page: JoinHandle<()>,
}

impl Watchlist {
    /// Opens the stores, sees to the schedules, and starts.
    ///
    /// # Errors
    /// What cannot be opened, with the reason.
    pub async fn start(options: Options, config: Config) -> anyhow::Result<Self> {
        let keywords = config.check()?;
        let folder = options.folder.clone();
        std::fs::create_dir_all(&folder)
            .with_context(|| format!("the folder {} cannot be made", folder.display()))?;
        let schedule_store: Arc<dyn ScheduleStore> =
            Arc::new(SqliteSchedules::open(&folder.join("schedules.sqlite"))?);
        let schedules = Schedules::new(Arc::clone(&schedule_store), Arc::new(SystemClock));
        see_to(&schedules, &options, &config).await?;
        let store: Arc<dyn Store> = match &options.postgres {
            Some(url) => Arc::new(PostgresStore::open(url).await.context("--postgres")?),
            None => Arc::new(SqliteStore::open(&folder.join("posts.sqlite"))?),
        };
        let (file, lease) = (folder.join("jobs.sqlite"), options.lease);
        let jobs: OpenJobs =
            Arc::new(move || DelayStore::open(&file, Arc::new(SystemClock), job_options(lease)));
        let enqueue = Arc::new(jobs()?);
        let limits = Arc::new(RateLimits::open(&folder.join("jobs.sqlite"), Arc::new(SystemClock))?);
        let polite = Polite::new(limits, config.per_minute)?;
        let load = Arc::new(Load::default());
        let sources: BTreeMap<_, _> =
            config.sources.iter().map(|source| (source.name.clone(), source.clone())).collect();
        let parts = Parts {
            schedules: schedule_store,
            store: Arc::clone(&store),
            jobs,
            enqueue: Arc::clone(&enqueue),
            polite,
            sources: Arc::new(sources),
            keywords: Arc::new(keywords),
            rules: config.alerts.clone().into(),
            webhook: config.webhook.clone(),
            http: reqwest::Client::builder().timeout(Duration::from_secs(10)).build()?,
            load: Arc::clone(&load),
            lease: options.lease,
            look_back: options.look_back,
        };
        let listener = TcpListener::bind(options.listen).await.with_context(|| {
            format!("{} cannot be listened on; name another with --listen", options.listen)
        })?;
        let address = listener.local_addr()?;
        let topologies = Topologies::new();
        topologies.submit("watchlist", parts.topology()?, EngineOptions::default()).await?;
        let stop = CancellationToken::new();
        let shown =
            page::Shown::new(schedules.clone(), Arc::clone(&store), Arc::clone(&enqueue), Arc::clone(&load));
        let control = ControlOptions {
            token: options.token.clone(),
            shutdown: stop.clone(),
            beside: page::router(shown)
                .merge(galerna_schedules::router(SchedulesApi::from(schedules.clone()).beside(page::menu())))
                .merge(ParkedApi::new(Arc::clone(&enqueue)).beside(page::menu()).of("Page").router())
                .merge(axum::Router::from(galerna_telemetry::api::routes()))
                .into(),
            menu: Some(page::menu()),
            registry: None,
        };
        let of_page = topologies.clone();
        let page = tokio::spawn(async move {
            if let Err(error) = serve(listener, of_page, control).await {
                tracing::error!(%error, "the page is not served");
            }
        });
        Ok(Self { schedules, store, address, jobs: enqueue, load, topologies, stop, page })
    }

    /// How many pages wait to be fetched or are being fetched, and how many are parked.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn backlog(&self) -> anyhow::Result<(u64, u64)> {
        let parked = self.jobs.parked(1_000_000).await?.len() as u64;
        Ok((self.jobs.len().await?.saturating_sub(parked), parked))
    }

    /// The most workers there have been.
    pub fn most_workers(&self) -> usize {
        self.load.most.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Ends in order: what is under way has 20 s; what is not done then goes on at the next start.
    pub async fn stop(self) {
        for (_, report) in self.topologies.drain(DRAIN).await {
            if !report.drained {
                tracing::warn!(unfinished = report.unfinished, "what is not done goes on at the next start");
            }
        }
        self.stop.cancel();
        drop(self.page.await);
        self.store.close().await;
    }
}

/// The name of a source's schedule.
pub(crate) fn crawl_schedule(source: &str) -> String {
    format!("watchlist/crawl/{source}")
}

/// Adds the schedules that are not there, edits those of which the settings say something else, and removes those of sources that are
/// gone.
async fn see_to(schedules: &Schedules, options: &Options, config: &Config) -> anyhow::Result<()> {
    let retry = Retry { attempts: 100, first: Duration::from_secs(1), longest: Duration::from_secs(60) };
    let policy = Policy { retry, ..Policy::default() };
    let mut wanted = vec![
        ("watchlist/hourly".to_owned(), Definition::cron(&options.hourly, "UTC"), Task::Hourly),
        ("watchlist/daily".to_owned(), Definition::cron(&options.daily, "UTC"), Task::Daily),
    ];
    for source in &config.sources {
        let crawl =
            (crawl_schedule(&source.name), Definition::every(source.every), Task::Crawl(source.name.clone()));
        wanted.push(crawl);
    }
    let mut names = Vec::new();
    for (name, definition, task) in wanted {
        let id = ScheduleId::new(name)?;
        let definition = definition.policy(policy.clone()).payload(serde_json::to_value(task)?);
        match schedules.add(id.clone(), definition.clone()).await {
            Ok(_) => {}
            Err(ScheduleError::Exists(_)) => {
                let known = schedules.get(&id).await?;
                if known.definition != definition {
                    schedules.edit(&id, definition, Some(known.revision)).await?;
                }
            }
            Err(error) => return Err(error.into()),
        }
        names.push(id);
    }
    for record in schedules.list(None, 100_000).await? {
        if !names.contains(&record.id) {
            tracing::info!(schedule = %record.id, "its source is gone, and so is it");
            schedules.remove(&record.id).await?;
        }
    }
    Ok(())
}
