//! A broker by its address.

use std::sync::Arc;

use galerna_model::names_host;

#[cfg(feature = "embedded")]
use crate::embedded::{EmbeddedBroker, EmbeddedOptions};
#[cfg(feature = "rabbitmq")]
use crate::rabbitmq::{RabbitMqBroker, RabbitMqOptions};
use crate::{Broker, BrokerError, Result};

/// Opens the broker that an address names, with default options.
///
/// | address | broker |
/// |---|---|
/// | `embedded:/var/lib/galerna/queues.db` | [`EmbeddedBroker::open`] on that file |
/// | `embedded::memory:` | queues that end with the process |
/// | `amqp://user:password@host:5672/vhost`, `amqps://…` | [`RabbitMqBroker::connect`], without the management API |
///
/// # Errors
/// [`BrokerError::Invalid`] for an address of no such form; otherwise those of the function named.
pub async fn open(address: &str) -> Result<Arc<dyn Broker>> {
    if let Some(path) = address.strip_prefix("embedded:") {
        if path.is_empty() {
            return Err(wrong(address, "names no file"));
        }
        return embedded(address, path).await;
    }
    if let Some(rest) = address.strip_prefix("amqp://").or_else(|| address.strip_prefix("amqps://")) {
        if !names_host(rest) {
            return Err(wrong(address, "names no host"));
        }
        return rabbitmq(address).await;
    }
    Err(wrong(address, "has no known scheme"))
}

#[cfg(feature = "embedded")]
async fn embedded(address: &str, path: &str) -> Result<Arc<dyn Broker>> {
    let path = path.to_owned();
    // Opening reads the counts of what is stored, which may take a while.
    let opened = tokio::task::spawn_blocking(move || match path.as_str() {
        ":memory:" => EmbeddedBroker::in_memory(EmbeddedOptions::default()),
        path => EmbeddedBroker::open(path),
    });
    let opened = opened.await.map_err(|e| BrokerError::Embedded {
        attempted: format!("opening {address}"),
        cause: e.to_string(),
    })?;
    Ok(Arc::new(opened?))
}

#[cfg(not(feature = "embedded"))]
async fn embedded(address: &str, _path: &str) -> Result<Arc<dyn Broker>> {
    Err(wrong(
        address,
        "needs the feature `embedded` of galerna-broker, which this program was built without",
    ))
}

#[cfg(feature = "rabbitmq")]
async fn rabbitmq(address: &str) -> Result<Arc<dyn Broker>> {
    Ok(Arc::new(RabbitMqBroker::connect(RabbitMqOptions::new(address)).await?))
}

#[cfg(not(feature = "rabbitmq"))]
async fn rabbitmq(address: &str) -> Result<Arc<dyn Broker>> {
    Err(wrong(
        address,
        "needs the feature `rabbitmq` of galerna-broker, which this program was built without",
    ))
}

fn wrong(address: &str, problem: &str) -> BrokerError {
    // Whatever it is, it may hold a password.
    let scheme: String = address.chars().take_while(|c| *c != ':').take(20).collect();
    BrokerError::Invalid(format!(
        "broker address `{scheme}:…` {problem}; write embedded:/path/to/file, amqp://user:password@host:5672/vhost or amqps://…"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_wrong_address_says_what_is_allowed_and_shows_no_password() {
        for address in [
            "",
            "/path",
            "embedded:",
            "http://user:secret@host",
            "redis://x",
            "amqp://user:secret@host:port/x",
            "amqp://",
            "amqps://user:secret@:5671/x",
        ] {
            match open(address).await {
                Err(BrokerError::Invalid(text)) => {
                    assert!(text.contains("amqp://"), "{address}: {text}");
                    let hostless = matches!(address, "amqp://" | "amqps://user:secret@:5671/x");
                    assert_eq!(text.contains("names no host"), hostless, "{address}: {text}");
                    assert!(!text.contains("secret"), "{address}: {text}");
                }
                Err(other) => panic!("{address}: {other}"),
                Ok(broker) => panic!("{address} opened {}", broker.kind()),
            }
        }
    }

    #[tokio::test]
    async fn an_embedded_address_opens_its_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("new/queues.db");
        let broker = open(&format!("embedded:{}", path.display())).await.unwrap();
        assert_eq!(broker.kind(), "embedded");
        assert!(path.exists());
        assert_eq!(open("embedded::memory:").await.unwrap().kind(), "embedded");
    }
}
