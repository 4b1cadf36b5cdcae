//! `amqps://`: RabbitMQ behind a TLS endpoint whose certificate an own authority has signed.
//!
//! `tests/tls` holds the authority's certificate, and the server's with its key. They protect nothing.

use std::sync::Arc;
use std::time::Duration;

use galerna_broker::rabbitmq::{RabbitMqBroker, RabbitMqOptions, Timeouts};
use galerna_broker::{Broker, BrokerError};
use galerna_model::{Message, QueueName};
use galerna_test_servers::RabbitMq;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

const AUTHORITY: &str = include_str!("tls/ca.pem");

/// Takes TLS connections for the server at `behind`; returns its port.
async fn endpoint(behind: String) -> u16 {
    galerna_tls::install_default_provider();
    let certificate = CertificateDer::from_pem_slice(include_bytes!("tls/server.pem")).unwrap();
    let key = PrivateKeyDer::from_pem_slice(include_bytes!("tls/server.key")).unwrap();
    let config = rustls::ServerConfig::builder().with_no_client_auth();
    let acceptor = TlsAcceptor::from(Arc::new(config.with_single_cert(vec![certificate], key).unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (acceptor, behind) = (acceptor.clone(), behind.clone());
            tokio::spawn(async move {
                // A client that does not trust the certificate ends the connection here.
                if let Ok(mut client) = acceptor.accept(client).await {
                    let mut server = TcpStream::connect(behind).await.unwrap();
                    drop(tokio::io::copy_bidirectional(&mut client, &mut server).await);
                }
            });
        }
    });
    port
}

/// The shared server's address with TLS, in a virtual host of its own.
async fn address() -> String {
    let plain = RabbitMq::shared().await.vhost().await;
    let (login, rest) = plain.strip_prefix("amqp://").unwrap().split_once('@').unwrap();
    let (host, vhost) = rest.split_once('/').unwrap();
    let port = endpoint(host.to_owned()).await;
    format!("amqps://{login}@localhost:{port}/{vhost}")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_travel_over_tls() {
    let options = RabbitMqOptions {
        ca_certificates: Some(AUTHORITY.to_owned()),
        ..RabbitMqOptions::new(address().await)
    };
    let broker = RabbitMqBroker::connect(options).await.unwrap();
    let queue = QueueName::new("D0000591").unwrap();
    broker.declare(&queue).await.unwrap();
    let message = Message { body: "secret".into(), content_type: "text/plain".into(), id: "1".into() };
    broker.publish(vec![(queue.clone(), message.clone())]).await.unwrap();
    let mut consumer = broker.consume(&queue, 1).await.unwrap();
    assert_eq!(consumer.receive(1, Duration::from_secs(20)).await.unwrap()[0].message, message);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_certificate_is_not_trusted_is_refused() {
    let timeouts = Timeouts { reconnect: Duration::from_secs(3), ..Timeouts::default() };
    let options = RabbitMqOptions { timeouts, ..RabbitMqOptions::new(address().await) };
    let error = RabbitMqBroker::connect(options).await.unwrap_err();
    assert!(
        matches!(&error, BrokerError::Unavailable { cause, .. } if cause.contains("certificate")),
        "{error}"
    );
}
