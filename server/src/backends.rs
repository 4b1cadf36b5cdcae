//! The broker and the store that the configuration names.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use galerna_broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use galerna_broker::rabbitmq::{QueueType, RabbitMqBroker, RabbitMqOptions};
use galerna_broker::{Broker, RetryPolicy};
use galerna_settings::{Config, without_password};
use galerna_storage::Store;

/// The word for what lives in this process.
const EMBEDDED: &str = "embedded";

/// How long the management API may take to answer at its usual port.
const PROBE: std::time::Duration = std::time::Duration::from_secs(2);

/// Whether the broker lives in the process that uses it.
pub fn broker_is_embedded(config: &Config) -> bool {
    config.text("broker.url") == EMBEDDED
}

/// Whether the store lives in the process that uses it.
pub fn store_is_embedded(config: &Config) -> bool {
    config.text("store.url") == EMBEDDED
}

/// Refuses what one process alone can have to a command that shares it with others.
///
/// # Errors
/// Says which settings to change.
pub fn must_be_shared(config: &Config, command: &str, broker: bool) -> anyhow::Result<()> {
    let mut wanted = Vec::new();
    if broker && broker_is_embedded(config) {
        wanted.push("--broker amqp://… (RabbitMQ)");
    }
    if store_is_embedded(config) {
        wanted.push("--store mongodb://… (MongoDB)");
    }
    if wanted.is_empty() {
        return Ok(());
    }
    bail!(
        "`galerna {command}` is one process of several, and an embedded broker or store belongs to one process alone: give {}; \
         or run all modules in one process with `galerna up`",
        wanted.join(" and ")
    )
}

/// A file in the folder `data`.
pub fn data_file(config: &Config, name: &str) -> PathBuf {
    PathBuf::from(config.text("data")).join(name)
}

/// Opens the broker.
pub async fn broker(config: &Config) -> anyhow::Result<Arc<dyn Broker>> {
    let delay = config.span("broker.retry_delay");
    let retry = RetryPolicy {
        max_deliveries: u32::try_from(config.count("broker.max_deliveries")).unwrap_or(u32::MAX),
        delays: [1, 5, 30, 120].map(|times| delay * times).to_vec(),
        ..RetryPolicy::default()
    };
    if broker_is_embedded(config) {
        let file = data_file(config, "queues.db");
        // Opening reads the whole store; other tasks go on meanwhile.
        let broker = tokio::task::spawn_blocking(move || {
            EmbeddedBroker::open_with(&file, EmbeddedOptions { retry, ..EmbeddedOptions::default() })
        })
        .await??;
        return Ok(Arc::new(broker));
    }
    let url = config.text("broker.url");
    let mut options = RabbitMqOptions::new(url);
    options.retry = retry;
    options.queue_type = match config.text("broker.queue_type") {
        "classic" => QueueType::Classic,
        _ => QueueType::Quorum,
    };
    options.management_uri = match config.optional("broker.management_url") {
        Some(management) => Some(management.to_owned()),
        None => usual_management(url).await,
    };
    let broker = RabbitMqBroker::connect(options)
        .await
        .with_context(|| format!("cannot reach RabbitMQ at {}", without_password(url)))?;
    Ok(Arc::new(broker))
}

/// The management API at its usual port, when it answers there. Without it only this process's own queues can be counted.
async fn usual_management(amqp: &str) -> Option<String> {
    let (scheme, rest) = amqp.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let host_and_port = authority.rsplit('@').next()?;
    // An IPv6 address has colons of its own, inside brackets.
    let host = match host_and_port.rfind(':') {
        Some(colon) if !host_and_port[colon..].contains(']') => &host_and_port[..colon],
        _ => host_and_port,
    };
    let url =
        if scheme == "amqps" { format!("https://{host}:15671") } else { format!("http://{host}:15672") };
    galerna_broker::tls::install_default_provider();
    let client = reqwest::Client::builder().timeout(PROBE).build().ok()?;
    // Any answer will do: without a login it is 401.
    match client.get(format!("{url}/api/overview")).send().await {
        Ok(_) => Some(url),
        Err(_) => {
            tracing::warn!(
                url,
                "RabbitMQ's management API does not answer: messages are counted in the queues that this process uses only; \
                 set `broker.management_url`"
            );
            None
        }
    }
}

/// Opens the store.
pub async fn store(config: &Config) -> anyhow::Result<Store> {
    let url = config.text("store.url");
    let address = match url {
        EMBEDDED => format!("embedded:{}", data_file(config, "store.db").display()),
        url => url.to_owned(),
    };
    galerna_storage::open(&address)
        .await
        .with_context(|| format!("cannot open the store {}", without_password(&address)))
}
