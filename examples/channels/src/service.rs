//! Channels as they run: a task for each that is on, one topology behind all of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use galerna_control::Topologies;
use galerna_delay::{DelayStore, Parked};
use galerna_engine::EngineOptions;
use galerna_lock::Mutex;
use galerna_model::Clock;
use galerna_schedules::sqlite::SqliteSchedules;
use galerna_schedules::{Definition, Record, ScheduleError, ScheduleId, Schedules};
use serde::Serialize;
use tokio_util::task::AbortOnDropHandle;

use crate::accounts::{AccountView, Accounts};
use crate::bolts::{PostOptions, ScheduledPost, topology};
use crate::channel::{Account, BadDefinition, Channel};
use crate::context::Context;
use crate::follow::{Asking, Follower};
use crate::network::Network;
use crate::pages::{PageSender, PageSpout};
use crate::progress::{Phase, Progress, ProgressView};
use crate::store::{Store, StoreError};

/// How channels run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Where the files are: `channels.db`, `posts.db`, `schedules.db`.
    pub folder: PathBuf,
    /// When channels ask.
    pub asking: Asking,
    /// How posts are sent.
    pub posts: PostOptions,
    /// How long the log is kept; much longer than channels look back.
    pub keep: Duration,
}

/// How often the log is looked through for what is too old.
const FORGET: Duration = Duration::from_secs(3_600);

impl Options {
    /// In this folder; the log is kept for 90 days.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        let keep = Duration::from_secs(90 * 86_400);
        Self { folder: folder.into(), asking: Asking::default(), posts: PostOptions::default(), keep }
    }
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelsError {
    /// What was written makes no sense.
    #[error(transparent)]
    Bad(#[from] BadDefinition),
    /// There is none of this name.
    #[error("there is no {what} `{name}`")]
    NotFound {
        /// What was looked for.
        what: &'static str,
        /// By which name.
        name: String,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A schedule was not changed.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The store of posts on their way failed.
    #[error(transparent)]
    Posts(#[from] galerna_delay::DelayError),
}

/// A channel for people: what it is told to be, and how it does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ChannelView {
    /// What it is told to be.
    #[serde(flatten)]
    pub channel: Channel,
    /// Whether it is on.
    pub on: bool,
    /// How it does.
    pub progress: ProgressView,
}

struct Entry {
    channel: Channel,
    on: bool,
    progress: Arc<Progress>,
    task: Option<AbortOnDropHandle<()>>,
}

/// All channels of this process.
pub struct Channels {
    context: Arc<Context>,
    asking: Asking,
    pages: PageSender,
    entries: Mutex<BTreeMap<String, Entry>>,
    /// Held while channels are changed, so that changes come one after the other.
    changing: tokio::sync::Mutex<()>,
    schedules: Schedules,
    topologies: Topologies,
    _forgetting: AbortOnDropHandle<()>,
}

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Channels").field("topologies", &self.topologies).finish_non_exhaustive()
    }
}

impl Channels {
    /// Opens the files, starts the topology, and follows the channels that are on.
    ///
    /// # Errors
    /// When a file cannot be opened, or the topology does not start.
    pub async fn start(
        options: Options,
        network: Arc<dyn Network>,
        clock: Arc<dyn Clock>,
    ) -> anyhow::Result<Arc<Self>> {
        let Options { folder, asking, posts, keep } = options;
        let posts_file = folder.join("posts.db");
        let (path, at, delay, time) = (folder.clone(), posts_file.clone(), posts.delay(), Arc::clone(&clock));
        let opened = tokio::task::spawn_blocking(move || -> anyhow::Result<_> {
            let store = Store::open(&path.join("channels.db"))?;
            let posts = DelayStore::open(&at, time, delay)?;
            let schedules = SqliteSchedules::open(&path.join("schedules.db"))?;
            Ok((store, posts, schedules))
        });
        let (store, delayed, schedules) = opened.await??;
        let schedules = Arc::new(schedules);
        let accounts = Accounts::new(store.accounts().await?);
        let context =
            Arc::new(Context { store, network, accounts, clock: Arc::clone(&clock), posts: delayed });
        // What was kept and not handed on before a crash; what was handed on is there already.
        context.send(context.store.open_posts().await?).await?;

        let (pages, make_pages) = PageSpout::channel(1_024);
        let topology = topology(&context, make_pages, schedules.clone(), &posts_file, &posts)?;
        let topologies = Topologies::new();
        topologies.submit("channels", topology, EngineOptions::default()).await?;
        let forgetting = AbortOnDropHandle::new(tokio::spawn(forget(Arc::clone(&context), keep)));
        let channels = Arc::new(Self {
            _forgetting: forgetting,
            context,
            asking,
            pages,
            entries: Mutex::default(),
            changing: tokio::sync::Mutex::default(),
            schedules: Schedules::new(schedules, clock),
            topologies,
        });
        for stored in channels.context.store.channels().await? {
            channels.enter(stored.channel, stored.on);
        }
        Ok(channels)
    }

    /// What the parts share.
    pub fn context(&self) -> &Arc<Context> {
        &self.context
    }

    /// The schedules of posts.
    pub fn schedules(&self) -> &Schedules {
        &self.schedules
    }

    /// The topology behind them, by the name `channels`.
    pub fn topologies(&self) -> &Topologies {
        &self.topologies
    }

    /// Has an entry follow, or not.
    fn enter(&self, channel: Channel, on: bool) {
        let mut entries = self.entries.lock();
        let progress = match entries.remove(&channel.name) {
            // Its task is dropped, and with it what it was waiting for.
            Some(before) => before.progress,
            None => Arc::default(),
        };
        let task = if on {
            let follower = Follower::new(
                Arc::clone(&self.context),
                channel.clone(),
                Arc::clone(&progress),
                self.pages.clone(),
                self.asking,
            );
            Some(AbortOnDropHandle::new(tokio::spawn(supervise(follower, Arc::clone(&self.context)))))
        } else {
            progress.enter(Phase::Off, self.context.now());
            None
        };
        entries.insert(channel.name.clone(), Entry { channel, on, progress, task });
    }

    /// Adds a channel, or edits it; one that is on goes on with the new definition.
    ///
    /// # Errors
    /// When the definition makes no sense, or names an account that there is not.
    pub async fn put(&self, channel: Channel) -> Result<(), ChannelsError> {
        channel.check()?;
        let accounts =
            std::iter::once(&channel.account).chain(channel.repost.iter().map(|repost| &repost.account));
        for account in accounts {
            if self.context.accounts.get(account).is_none() {
                return Err(ChannelsError::NotFound { what: "account", name: account.clone() });
            }
        }
        let _changing = self.changing.lock().await;
        let stored = self.context.store.put_channel(channel).await?;
        self.enter(stored.channel, stored.on);
        Ok(())
    }

    /// Switches a channel on or off. One that is on, and has ended, is tried again.
    ///
    /// # Errors
    /// When there is none of this name.
    pub async fn switch(&self, name: &str, on: bool) -> Result<(), ChannelsError> {
        let _changing = self.changing.lock().await;
        let stored = self.context.store.switch(name, on).await?;
        let stored = stored.ok_or_else(|| not_found("channel", name))?;
        self.enter(stored.channel, stored.on);
        Ok(())
    }

    /// Removes a channel.
    ///
    /// # Errors
    /// When there is none of this name.
    pub async fn remove(&self, name: &str) -> Result<(), ChannelsError> {
        let _changing = self.changing.lock().await;
        if !self.context.store.remove_channel(name).await? {
            return Err(not_found("channel", name));
        }
        self.entries.lock().remove(name);
        Ok(())
    }

    /// Adds an account, or gives it another token: what waits for one goes on.
    ///
    /// # Errors
    /// When what was written makes no sense.
    pub async fn put_account(&self, account: Account) -> Result<(), ChannelsError> {
        account.check()?;
        self.context.store.put_account(account.clone()).await?;
        self.context.accounts.put(account);
        Ok(())
    }

    /// All channels, by their names.
    pub fn view(&self) -> Vec<ChannelView> {
        let entries = self.entries.lock();
        let view = |entry: &Entry| {
            let mut progress = entry.progress.view();
            if entry.task.as_ref().is_some_and(|task| task.is_finished())
                && !matches!(progress.phase, Phase::Failed { .. })
            {
                progress.phase = Phase::Failed { reason: "its task has ended".to_owned() };
            }
            ChannelView { channel: entry.channel.clone(), on: entry.on, progress }
        };
        entries.values().map(view).collect()
    }

    /// All accounts, by their names.
    pub fn accounts(&self) -> Vec<AccountView> {
        self.context.accounts.view()
    }

    /// Adds a schedule of posts, or edits it; with `revision`, only if it is still at that.
    ///
    /// # Errors
    /// When the definition makes no sense, or somebody else has edited it since.
    pub async fn put_schedule(
        &self,
        id: ScheduleId,
        definition: Definition,
        revision: Option<u64>,
    ) -> Result<Record, ChannelsError> {
        ScheduledPost::of(&definition.payload)
            .map_err(|reason| BadDefinition { field: "payload", reason })?;
        match self.schedules.edit(&id, definition.clone(), revision).await {
            Err(ScheduleError::NotFound(_)) if revision.is_none() => {
                Ok(self.schedules.add(id, definition).await?)
            }
            edited => Ok(edited?),
        }
    }

    /// Has a post that was refused sent again.
    ///
    /// # Errors
    /// When there is none that was refused.
    pub async fn retry_post(&self, key: &str) -> Result<(), ChannelsError> {
        let account = self.context.store.reopen_post(key).await?;
        let account = account.ok_or_else(|| not_found("refused post", key))?;
        Ok(self.context.send(vec![(key.to_owned(), account)]).await?)
    }

    /// Gives up a post that was not sent.
    ///
    /// # Errors
    /// When there is none.
    pub async fn drop_post(&self, key: &str) -> Result<(), ChannelsError> {
        if self.context.store.drop_post(key, self.context.now()).await? {
            // If it is parked, those behind it go on.
            self.context.posts.discard(key).await?;
            return Ok(());
        }
        Err(not_found("post that is open or refused", key))
    }

    /// Posts on their way, and those among them that are tried no more.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn posts_under_way(&self) -> Result<(u64, Vec<Parked>), ChannelsError> {
        Ok((self.context.posts.len().await?, self.context.posts.parked(100).await?))
    }

    /// Stops following, lets what is on its way end for so long, and stops.
    pub async fn stop(&self, patience: Duration) {
        self.entries.lock().clear();
        for (name, report) in self.topologies.drain(patience).await {
            tracing::info!(%name, drained = report.drained, unfinished = report.unfinished, "the topology has ended");
        }
    }
}

fn not_found(what: &'static str, name: &str) -> ChannelsError {
    ChannelsError::NotFound { what, name: name.to_owned() }
}

/// Forgets what was logged too long ago, every hour.
async fn forget(context: Arc<Context>, keep: Duration) {
    let keep = i64::try_from(keep.as_millis()).unwrap_or(i64::MAX);
    loop {
        tokio::time::sleep(FORGET).await;
        if let Err(error) = context.store.forget(context.now().plus_millis(keep.saturating_neg())).await {
            tracing::warn!(%error, "old statuses are still there");
        }
    }
}

/// Runs a follower; one that panics is told.
async fn supervise(follower: Follower, context: Arc<Context>) {
    let name = follower.name().to_owned();
    if let Err(error) = AbortOnDropHandle::new(tokio::spawn(follower.run())).await
        && error.is_panic()
    {
        context.notify(&name, "the channel's task has panicked; start it again".to_owned()).await;
    }
}
