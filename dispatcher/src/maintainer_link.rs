//! The way to the maintainer, which is pinged: who counts messages must be alive for `lru` and `fair` to mean anything.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, MissedTickBehavior, timeout};

use crate::dispatcher::Shared;
use crate::options::OpenError;

/// Pings that must go unanswered before the maintainer counts as silent.
const MISSED_PINGS: u32 = 2;

/// Something that answers a ping.
#[async_trait]
pub trait Ping: Send + Sync + 'static {
    /// Answers when it works.
    ///
    /// # Errors
    /// Why not.
    async fn ping(&self) -> Result<(), PingError>;
}

/// Why a ping was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PingError {
    /// Nobody could be asked.
    #[error("it cannot be reached: {0}")]
    Unreachable(String),
    /// It answered with this HTTP status.
    #[error("it answers {0}")]
    Status(u16),
    /// It says that it does not work as it should.
    #[error("{0}")]
    NotWorking(String),
}

/// The maintainer that a dispatcher pings.
#[derive(Clone, Default)]
pub enum MaintainerLink {
    /// There is none.
    #[default]
    None,
    /// At this base URL: `GET <url>/ping` is to answer 2xx.
    Url(String),
    /// In this process.
    Local(Arc<dyn Ping>),
}

impl MaintainerLink {
    /// The thing to ping, and whether there is one.
    pub(crate) fn ready(self, limit: Duration) -> Result<(Option<Arc<dyn Ping>>, bool), OpenError> {
        Ok(match self {
            Self::None => (None, false),
            Self::Local(ping) => (Some(ping), true),
            Self::Url(base) => {
                galerna_tls::install_default_provider();
                let url = format!("{}/ping", base.trim_end_matches('/'));
                let client = reqwest::Client::builder()
                    .timeout(limit)
                    .build()
                    .map_err(|e| OpenError::Ping(e.to_string()))?;
                url.parse::<reqwest::Url>()
                    .map_err(|e| OpenError::Ping(format!("`{base}` is no URL ({e})")))?;
                (Some(Arc::new(Remote { client, url })), true)
            }
        })
    }
}

struct Remote {
    client: reqwest::Client,
    url: String,
}

#[async_trait]
impl Ping for Remote {
    async fn ping(&self) -> Result<(), PingError> {
        let sent = self.client.get(&self.url).send().await;
        let status = sent.map_err(|e| PingError::Unreachable(e.to_string()))?.status();
        if status.is_success() { Ok(()) } else { Err(PingError::Status(status.as_u16())) }
    }
}

/// Pings once and puts the strategy in force that the answer calls for. Returns whether it answered.
pub(crate) async fn ping(shared: &Shared, link: Option<&dyn Ping>) -> bool {
    let answers = match link {
        None => false,
        Some(link) => match timeout(shared.timing.ping_timeout, link.ping()).await {
            Ok(Ok(())) => true,
            Ok(Err(cause)) => {
                tracing::debug!(%cause, "maintainer does not answer");
                false
            }
            Err(_) => false,
        },
    };
    if answers || !shared.planner.lock().maintained {
        set_maintained(shared, answers);
    }
    answers
}

fn set_maintained(shared: &Shared, maintained: bool) {
    {
        let mut planner = shared.planner.lock();
        planner.maintained = maintained;
        planner.choose_strategy(Instant::now());
    }
    shared.work.notify_one();
}

/// Pings the maintainer for ever.
pub(crate) async fn watch(shared: Arc<Shared>, link: Arc<dyn Ping>) {
    let mut tick = tokio::time::interval(shared.timing.ping_every);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut missed = 0;
    loop {
        tick.tick().await;
        missed = if ping(&shared, Some(link.as_ref())).await { 0 } else { missed + 1 };
        if missed == MISSED_PINGS {
            set_maintained(&shared, false);
        }
    }
}
