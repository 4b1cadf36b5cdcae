//! Pulse in a process: stores, schedule, topology and page.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use galerna_control::{ControlOptions, Topologies, serve};
use galerna_engine::EngineOptions;
use galerna_fan_in::{FanInStore, sqlite::SqliteFanIns};
use galerna_model::{Clock as _, SystemClock};
use galerna_schedules::api::SchedulesApi;
use galerna_schedules::sqlite::SqliteSchedules;
use galerna_schedules::{
    Definition, Overlap, Policy, Record, Retry, ScheduleError, ScheduleId, ScheduleStore, Schedules, Timing,
};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::topology::Parts;
use crate::{Mastodon, Objects, Round, page};

/// The schedule's name.
const SCHEDULE: &str = "pulse/rounds";
/// How often what is old is removed.
const TIDY_EVERY: Duration = Duration::from_secs(3_600);
/// So long has what is on its way to end when the process is to stop; what has not goes on at the next start.
const DRAIN: Duration = Duration::from_secs(5);

/// What pulse does, and with what.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// The folder for its stores, and for charts unless `--objects` says otherwise
    #[arg(long, default_value = "pulse-data", env = "PULSE_FOLDER")]
    pub folder: PathBuf,
    /// The server whose accounts are fetched: the address of a Mastodon server, or of what has its API
    #[arg(long, default_value = "https://mastodon.social/", env = "PULSE_SERVER")]
    pub server: reqwest::Url,
    /// The accounts, by their names on the server, separated by commas
    #[arg(long, value_delimiter = ',', required = true, env = "PULSE_ACCOUNTS")]
    pub accounts: Vec<String>,
    /// Where posts and charts are kept: a folder, or a bucket as in `s3://charts` (with `AWS_REGION`, `AWS_ENDPOINT`,
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`)
    #[arg(long, env = "PULSE_OBJECTS")]
    pub objects: Option<String>,
    /// How often there is a round: 10s unless the schedule was edited
    #[arg(long, value_parser = humantime::parse_duration)]
    pub every: Option<Duration>,
    /// What becomes of a round whose time comes while an earlier one is open: `skip` (the default), `buffer_one`, `buffer_all`,
    /// `cancel_other` or `allow_all`
    #[arg(long)]
    pub overlap: Option<Overlap>,
    /// So long after its beginning a round waits for accounts
    #[arg(long, default_value = "8s", value_parser = humantime::parse_duration)]
    pub deadline: Duration,
    /// Posts of each account
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1_000))]
    pub posts: u16,
    /// Accounts that are fetched at once
    #[arg(long, default_value_t = 50)]
    pub at_once: usize,
    /// Accounts that are begun to be fetched each second, at most
    #[arg(long, default_value_t = 200.0)]
    pub per_second: f64,
    /// The page's address
    #[arg(long, default_value = "127.0.0.1:8483", env = "PULSE_LISTEN")]
    pub listen: SocketAddr,
    /// What the page and the API ask for; needed when other machines can reach them
    #[arg(long, env = "PULSE_TOKEN", hide_env_values = true)]
    pub token: Option<String>,
    /// So long after a process was lost, another goes on with what it had
    #[arg(long, default_value = "30s", value_parser = humantime::parse_duration)]
    pub lease: Duration,
    /// What is known of a round, and its posts, are kept so long; charts for ever
    #[arg(long, default_value = "7d", value_parser = humantime::parse_duration)]
    pub keep: Duration,
    /// Rounds, and then no more
    #[arg(skip)]
    pub rounds: Option<u64>,
}

/// Pulse that runs.
pub struct Pulse {
    /// What becomes of its rounds.
    pub schedules: Schedules,
    /// What it has uploaded.
    pub objects: Objects,
    /// Where its page is.
    pub address: SocketAddr,
    id: ScheduleId,
    topologies: Topologies,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Pulse {
    /// Opens the stores, sees to the schedule, and starts.
    ///
    /// # Errors
    /// What cannot be opened, with the reason.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let folder = &options.folder;
        std::fs::create_dir_all(folder)
            .with_context(|| format!("the folder {} cannot be made", folder.display()))?;
        let schedule_store: Arc<dyn ScheduleStore> =
            Arc::new(SqliteSchedules::open(&folder.join("schedules.sqlite"))?);
        let fan_ins: Arc<dyn FanInStore> = Arc::new(SqliteFanIns::open(&folder.join("fan-ins.sqlite"))?);
        let address = match &options.objects {
            Some(address) => address.clone(),
            None => folder.join("objects").to_string_lossy().into_owned(),
        };
        let objects = Objects::open(&address)?;
        let schedules = Schedules::new(Arc::clone(&schedule_store), Arc::new(SystemClock));
        let id = ScheduleId::new(SCHEDULE)?;
        see_to(&schedules, &id, &options).await?;
        let mut accounts = options.accounts.clone();
        accounts.sort_unstable();
        accounts.dedup();
        let parts = Parts {
            schedules: schedule_store.clone(),
            fan_ins: fan_ins.clone(),
            objects: objects.clone(),
            network: Mastodon::new(options.server.clone())?,
            accounts: accounts.into(),
            posts: usize::from(options.posts),
            deadline: options.deadline,
            at_once: options.at_once,
            per_second: options.per_second,
            lease: options.lease,
        };
        let listener = TcpListener::bind(options.listen).await.with_context(|| {
            format!("{} cannot be listened on; name another with --listen", options.listen)
        })?;
        let address = listener.local_addr()?;
        let topologies = Topologies::new();
        topologies.submit("pulse", parts.topology()?, EngineOptions::default()).await?;
        let stop = CancellationToken::new();
        let own = page::router(schedules.clone(), id.clone(), objects.clone());
        let control = ControlOptions {
            token: options.token.clone(),
            shutdown: stop.clone(),
            beside: own
                .merge(galerna_schedules::router(SchedulesApi::from(schedules.clone()).beside(page::menu())))
                .merge(axum::Router::from(galerna_telemetry::api::routes()))
                .into(),
            menu: Some(page::menu()),
            registry: None,
        };
        let shown = topologies.clone();
        let page = tokio::spawn(async move {
            if let Err(error) = serve(listener, shown, control).await {
                tracing::error!(%error, "the page is not served");
            }
        });
        let keep = i64::try_from(options.keep.as_millis()).unwrap_or(i64::MAX);
        let (tidied, stopped) = (objects.clone(), stop.clone());
        let tidy = tokio::spawn(async move {
            let mut hours = tokio::time::interval(TIDY_EVERY);
            loop {
                tokio::select! {
                    () = stopped.cancelled() => return,
                    _ = hours.tick() => {}
                }
                if let Err(error) = tidy(&*schedule_store, &*fan_ins, &tidied, keep).await {
                    tracing::warn!(%error, "what is old is not removed and is tried again in an hour");
                }
            }
        });
        Ok(Self { schedules, objects, address, id, topologies, stop, tasks: vec![page, tidy] })
    }

    /// The schedule's record.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn record(&self) -> Result<Record, ScheduleError> {
        self.schedules.get(&self.id).await
    }

    /// The schedule's name.
    pub fn schedule(&self) -> &ScheduleId {
        &self.id
    }

    /// Ends in order: no round begins, those under way have 5 s; what is not done then goes on at the next start.
    pub async fn stop(self) {
        for (_, report) in self.topologies.drain(DRAIN).await {
            if !report.drained {
                tracing::warn!(unfinished = report.unfinished, "rounds go on at the next start");
            }
        }
        self.stop.cancel();
        for task in self.tasks {
            drop(task.await);
        }
    }
}

/// Adds the schedule, or edits what the options say otherwise.
async fn see_to(schedules: &Schedules, id: &ScheduleId, options: &Options) -> anyhow::Result<()> {
    let every = options.every.unwrap_or(Duration::from_secs(10));
    let retry = Retry { attempts: 100, first: Duration::from_secs(1), longest: Duration::from_secs(10) };
    let policy = Policy { overlap: options.overlap.unwrap_or_default(), retry, ..Policy::default() };
    let mut definition = Definition::every(every).policy(policy);
    definition.remaining = options.rounds;
    let known = match schedules.add(id.clone(), definition).await {
        Ok(_) => return Ok(()),
        Err(ScheduleError::Exists(_)) => schedules.get(id).await?,
        Err(error) => return Err(error.into()),
    };
    let mut edited = known.definition.clone();
    if let (Some(interval), Timing::Every(timing)) = (options.every, &mut edited.timing) {
        timing.interval = interval;
    }
    if let Some(overlap) = options.overlap {
        edited.policy.overlap = overlap;
    }
    if edited != known.definition {
        schedules.edit(id, edited, Some(known.revision)).await?;
    }
    Ok(())
}

/// Forgets what was settled long ago.
async fn tidy(
    schedules: &dyn ScheduleStore,
    fan_ins: &dyn FanInStore,
    objects: &Objects,
    keep_ms: i64,
) -> anyhow::Result<()> {
    let before = SystemClock.now().plus_millis(-keep_ms);
    schedules.forget(before).await?;
    fan_ins.forget(before).await?;
    let oldest = before.to_string().replace(':', "-");
    for name in objects.list("posts").await? {
        // Rounds are named by their times, and so are in the order of these.
        let round = name.strip_prefix("posts/").and_then(|rest| rest.split('/').next());
        if round.is_some_and(|round| Round::named(round) < Round::named(&oldest)) {
            objects.remove(&name).await?;
        }
    }
    Ok(())
}
