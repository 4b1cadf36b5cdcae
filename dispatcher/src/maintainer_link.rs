//! The way to the maintainer, which is pinged: who counts messages must be alive for `lru` and `fair` to mean anything.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;

use crate::dispatcher::OpenError;

/// Something that answers a ping.
#[async_trait]
pub trait Ping: Send + Sync + 'static {
    /// Answers when it works.
    ///
    /// # Errors
    /// A sentence that says why not.
    async fn ping(&self) -> Result<(), String>;
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
    pub(crate) fn ready(self, patience: Duration) -> Result<(Option<Arc<dyn Ping>>, bool), OpenError> {
        Ok(match self {
            Self::None => (None, false),
            Self::Local(ping) => (Some(ping), true),
            Self::Url(base) => {
                galerna_broker::tls::install_default_provider();
                let url = format!("{}/ping", base.trim_end_matches('/'));
                let client = reqwest::Client::builder()
                    .timeout(patience)
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
    async fn ping(&self) -> Result<(), String> {
        let answer = self.client.get(&self.url).send().await.map_err(|e| e.to_string())?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("it answers {}", answer.status())) }
    }
}
