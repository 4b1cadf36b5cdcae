//! RabbitMQ's management API, for what AMQP does not tell.

use std::time::Duration;

use reqwest::{Client, Url};
use serde::Deserialize;

use crate::{BrokerError, Depth, Result};

/// Queues of one page.
const PAGE: usize = 500;

/// The API of one virtual host.
#[derive(Debug)]
pub(super) struct Management {
    client: Client,
    queues: Url,
    user: String,
    password: String,
}

/// What is asked of a queue.
#[derive(Debug, Deserialize)]
pub(super) struct QueueTotals {
    pub(super) name: String,
    #[serde(default)]
    messages_ready: u64,
    #[serde(default)]
    messages_unacknowledged: u64,
}

impl QueueTotals {
    pub(super) fn depth(&self) -> Depth {
        Depth { ready: self.messages_ready, unacked: self.messages_unacknowledged, delayed: 0 }
    }
}

#[derive(Deserialize)]
struct Page {
    items: Vec<QueueTotals>,
    #[serde(default)]
    page_count: usize,
}

impl Management {
    /// `login` is used when the address has none.
    pub(super) fn new(uri: &str, vhost: &str, login: (&str, &str), timeout: Duration) -> Result<Self> {
        let wrong =
            |why: String| BrokerError::Invalid(format!("management address of RabbitMQ is wrong: {why}"));
        let mut queues = Url::parse(uri).map_err(|e| wrong(e.to_string()))?;
        let (user, password) = match queues.username() {
            "" => (login.0.to_owned(), login.1.to_owned()),
            user => (user.to_owned(), queues.password().unwrap_or_default().to_owned()),
        };
        // Only addresses that cannot be a base refuse these.
        let cleared = queues.set_username("").and_then(|()| queues.set_password(None));
        cleared.map_err(|()| wrong("it must be http:// or https://".to_owned()))?;
        queues
            .path_segments_mut()
            .map_err(|()| wrong("it must be http:// or https://".to_owned()))?
            .pop_if_empty()
            .extend(["api", "queues", vhost]);
        crate::tls::install_default_provider();
        let client = Client::builder().timeout(timeout).build().map_err(|e| wrong(e.to_string()))?;
        Ok(Self { client, queues, user, password })
    }

    /// Every queue of the virtual host.
    pub(super) async fn all(&self) -> Result<Vec<QueueTotals>> {
        self.filtered(&[]).await
    }

    /// One queue; none when it is not there.
    pub(super) async fn one(&self, name: &str) -> Result<Option<QueueTotals>> {
        // Asked by its address, a quorum queue comes without totals; the list can be narrowed to names that contain this one.
        let found = self.filtered(&[("name", name), ("use_regex", "false")]).await?;
        Ok(found.into_iter().find(|totals| totals.name == name))
    }

    async fn filtered(&self, filter: &[(&str, &str)]) -> Result<Vec<QueueTotals>> {
        let mut all = Vec::new();
        for page in 1.. {
            let found = self.page(page, filter).await?;
            all.extend(found.items);
            if page >= found.page_count {
                break;
            }
        }
        Ok(all)
    }

    async fn page(&self, page: usize, filter: &[(&str, &str)]) -> Result<Page> {
        let failed = |cause: String| BrokerError::Unavailable {
            attempted: "asking RabbitMQ's management API for queue depths".to_owned(),
            cause,
        };
        let answer = self
            .client
            .get(self.queues.clone())
            .basic_auth(&self.user, Some(&self.password))
            // The rates are what makes the API slow; the totals are all that is wanted.
            .query(&[("disable_stats", "true"), ("enable_queue_totals", "true")])
            .query(&[("page", page), ("page_size", PAGE)])
            .query(filter)
            .send()
            .await
            .map_err(|e| failed(e.without_url().to_string()))?;
        match answer.status() {
            status if status.is_success() => {
                answer.json().await.map_err(|e| failed(e.without_url().to_string()))
            }
            status => Err(failed(format!("it answered {status}"))),
        }
    }
}
