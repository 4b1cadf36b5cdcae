//! The floor for RabbitMQ to MongoDB: a loop that only consumes, inserts and acks.
//!
//! It uses the same client libraries as Galerna and nothing of Galerna but the shape of a message: no validation, no
//! identity, no leases, no alerts, no tracking. One task takes deliveries, gathers [`BATCH`] readings, and hands them to
//! one of [`IN_FLIGHT`] concurrent inserts; when an insert is acknowledged its deliveries are acked with `multiple`. Inserts have
//! MongoDB's default write concern, which on a standalone server does not wait for the journal, as Galerna does.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use mongodb::bson::{DateTime, Document, doc};
use serde::Deserialize;

/// Readings per insert.
pub(crate) const BATCH: usize = 1_000;
/// Inserts under way at once.
pub(crate) const IN_FLIGHT: usize = 4;

/// A reading as it stands in a message.
#[derive(Deserialize)]
struct Reading {
    did: String,
    values: Vec<Value>,
    sqn: i64,
    ts: Ts,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Ts {
    Millis(i64),
    Text(String),
}

#[derive(Deserialize)]
struct Value {
    p: i32,
    v: f64,
}

#[derive(Deserialize)]
struct Envelope {
    source: String,
    readings: Vec<Reading>,
}

fn documents(body: &[u8]) -> Vec<Document> {
    let (source, readings) = if body.first() == Some(&b'{') {
        (String::new(), vec![serde_json::from_slice::<Reading>(body).expect("a reading in JSON")])
    } else {
        let envelope: Envelope = rmp_serde::from_slice(&body[1..]).expect("an envelope");
        (envelope.source, envelope.readings)
    };
    readings
        .into_iter()
        .map(|r| {
            let ts = match r.ts {
                Ts::Millis(ms) => ms,
                Ts::Text(text) => text.parse::<jiff::Timestamp>().expect("a time").as_millisecond(),
            };
            let values: Vec<Document> = r.values.iter().map(|v| doc! { "p": v.p, "v": v.v }).collect();
            doc! { "source": &source, "device": r.did, "ts": DateTime::from_millis(ts), "sqn": r.sqn, "values": values }
        })
        .collect()
}

/// Moves `readings` readings from the queue into the collection and returns how long it took.
pub(crate) async fn run(
    amqp: &str,
    queue: &str,
    mongo: &mongodb::Collection<Document>,
    readings: usize,
) -> Duration {
    let connection = Connection::connect(amqp, ConnectionProperties::default()).await.expect("RabbitMQ");
    let channel = connection.create_channel().await.expect("a channel");
    let prefetch = 5_000;
    channel.basic_qos(prefetch, BasicQosOptions::default()).await.expect("prefetch");
    let mut consumer = channel
        .basic_consume(queue.into(), "bare".into(), BasicConsumeOptions::default(), FieldTable::default())
        .await
        .expect("a consumer");

    let started = Instant::now();
    let mut in_flight = futures_util::stream::FuturesOrdered::new();
    let (mut batch, mut last_tag, mut taken, mut stored) = (Vec::with_capacity(BATCH), 0, 0, 0);
    while stored < readings {
        while taken < readings && batch.len() < BATCH {
            let delivery = consumer.next().await.expect("a delivery").expect("a delivery");
            last_tag = delivery.delivery_tag;
            let documents = documents(&delivery.data);
            taken += documents.len();
            batch.extend(documents);
        }
        if !batch.is_empty() {
            let (documents, tag, collection) = (std::mem::take(&mut batch), last_tag, mongo.clone());
            in_flight.push_back(tokio::spawn(async move {
                let n = documents.len();
                collection.insert_many(documents).ordered(false).await.expect("an insert");
                (tag, n)
            }));
        }
        if in_flight.len() >= IN_FLIGHT || taken >= readings {
            let (tag, n) = in_flight.next().await.expect("an insert under way").expect("the insert's task");
            channel.basic_ack(tag, BasicAckOptions { multiple: true }).await.expect("an ack");
            stored += n;
        }
    }
    let took = started.elapsed();
    connection.close(200, "done".into()).await.expect("a clean end");
    took
}
