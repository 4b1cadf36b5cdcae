//! The broker and the store that the configuration names.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, bail};
use galerna_broker::embedded::{EmbeddedBroker, EmbeddedOptions};
use galerna_broker::rabbitmq::{QueueType, RabbitMqBroker, RabbitMqOptions};
use galerna_broker::{Broker, RetryPolicy};
use galerna_settings::{Settings, without_password};
use galerna_storage::Store;

/// How long the management API may take to answer at its usual port.
const PROBE: std::time::Duration = std::time::Duration::from_secs(2);

/// Refuses what one process alone can have to a command that shares it with others.
///
/// # Errors
/// Says which settings to change.
pub fn must_be_shared(settings: &Settings, command: &str, broker: bool) -> anyhow::Result<()> {
    let mut wanted = Vec::new();
    if broker && settings.broker.is_embedded() {
        wanted.push("--broker amqp://… (RabbitMQ)");
    }
    if settings.store.is_embedded() {
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
pub fn data_file(settings: &Settings, name: &str) -> PathBuf {
    settings.data.join(name)
}

/// Opens the broker.
pub async fn broker(settings: &Settings) -> anyhow::Result<Arc<dyn Broker>> {
    let delay = settings.broker.retry_delay;
    let retry = RetryPolicy {
        max_deliveries: settings.broker.max_deliveries,
        delays: [1, 5, 30, 120].map(|times| delay * times).to_vec(),
        ..RetryPolicy::default()
    };
    if settings.broker.is_embedded() {
        let file = data_file(settings, "queues.db");
        // Opening reads the whole store; other tasks go on meanwhile.
        let broker = tokio::task::spawn_blocking(move || {
            EmbeddedBroker::open_with(&file, EmbeddedOptions { retry, ..EmbeddedOptions::default() })
        })
        .await??;
        return Ok(Arc::new(broker));
    }
    let url = &settings.broker.url;
    let mut options = RabbitMqOptions::new(url);
    options.retry = retry;
    options.queue_type = match settings.broker.queue_type {
        galerna_settings::QueueType::Classic => QueueType::Classic,
        galerna_settings::QueueType::Quorum => QueueType::Quorum,
    };
    options.management_uri = match &settings.broker.management_url {
        Some(management) => Some(management.clone()),
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
    galerna_tls::install_default_provider();
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
pub async fn store(settings: &Settings) -> anyhow::Result<Store> {
    let url = &settings.store.url;
    let address = if settings.store.is_embedded() {
        format!("embedded:{}", data_file(settings, "store.db").display())
    } else {
        url.clone()
    };
    galerna_storage::open(&address)
        .await
        .with_context(|| format!("cannot open the store {}", without_password(&address)))
}
