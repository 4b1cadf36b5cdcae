//! What MongoDB's processor spends on a stored reading, and how long the queries of an account take: see
//! `benches/README.md`.
//!
//! ```text
//! cargo bench -p galerna-storage --bench cost -- --readings 200000 --rounds 3
//! ```
//!
//! Processor time rather than a rate, since it hardly depends on what else the machine does. It is the server's own, told
//! by Linux's `/proc`; zero elsewhere.

use std::time::{Duration, Instant};

use bson::{Document, doc};
use futures_util::stream::{self, StreamExt};
use galerna_model::{AccountId, Measurement, ParameterCode, SourceId, Timestamp};
use galerna_storage::mongo::{self, MongoOptions};
use galerna_storage::{ReadingsQuery, StoredReading};
use galerna_test_servers::{Mongo, unique};

const BATCH: usize = 1_000;
const AT_ONCE: usize = 4;

/// The n-th reading: `devices` devices of sources of 100 each, a minute apart.
fn reading(n: usize, devices: usize) -> StoredReading {
    let (device, minute) = (n % devices, n / devices);
    StoredReading {
        account: AccountId::new("bench").expect("valid"),
        source: SourceId::new(format!("source{}", device / 100)).expect("valid"),
        device: format!("meter_{:03}.elec", device % 100),
        ts: Timestamp(1_480_000_000_000 + minute as i64 * 60_000),
        sqn: minute as u64 + 1,
        values: [(402, 1_000.0 + minute as f64 * 0.25), (401, 15_000.0 + (n % 977) as f64)]
            .map(|(p, v)| Measurement { p: ParameterCode(p), v })
            .to_vec(),
        flags: Vec::new(),
        received: Timestamp(1_486_000_000_000),
    }
}

/// The least that stores such a reading: no identity, no account.
fn bare(r: &StoredReading) -> Document {
    let values: Vec<Document> = r.values.iter().map(|m| doc! { "p": i64::from(m.p.0), "v": m.v }).collect();
    doc! {
        "source": r.source.as_str(), "device": &r.device, "ts": bson::DateTime::from_millis(r.ts.0),
        "sqn": r.sqn as i64, "values": values,
    }
}

fn argument(name: &str, default: usize) -> usize {
    let mut arguments = std::env::args().skip_while(|a| a != name).skip(1);
    arguments.next().and_then(|value| value.parse().ok()).unwrap_or(default)
}

/// Processor seconds of a process.
fn processor(pid: i64) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let fields = stat.rsplit_once(") ").map_or("", |(_, fields)| fields);
    // Fields 14 and 15: ticks of a hundredth of a second in user and in system mode.
    fields.split(' ').skip(11).take(2).filter_map(|t| t.parse::<f64>().ok()).sum::<f64>() / 100.0
}

#[tokio::main]
async fn main() {
    let (readings, rounds) = (argument("--readings", 200_000), argument("--rounds", 3));
    let batch = argument("--batch", BATCH);
    let server = Mongo::shared().await;
    let client = mongodb::Client::with_uri_str(server.uri()).await.expect("a client");
    let status = client.database("admin").run_command(doc! { "serverStatus": 1 }).await.expect("its status");
    let pid = status.get_i64("pid").expect("its process");

    println!(
        "{readings} readings a round in batches of {batch}, {AT_ONCE} at once; processor time of MongoDB"
    );
    for round in 1..=rounds {
        let collection = client.database(&unique("bare")).collection::<Document>("readings");
        let batches: Vec<Vec<Document>> = (0..readings / batch)
            .map(|b| (b * batch..(b + 1) * batch).map(|n| bare(&reading(n, 100))).collect())
            .collect();
        let before = processor(pid);
        stream::iter(batches)
            .for_each_concurrent(AT_ONCE, |batch| async {
                collection.insert_many(batch).ordered(false).await.expect("inserted");
            })
            .await;
        let floor = (processor(pid) - before) / readings as f64 * 1e6;

        let options = MongoOptions { database: Some(unique("cost")), ..MongoOptions::new(server.uri()) };
        let store = mongo::connect(options).await.expect("MongoDB answers");
        let batches: Vec<Vec<StoredReading>> = (0..readings / batch)
            .map(|b| (b * batch..(b + 1) * batch).map(|n| reading(n, 100)).collect())
            .collect();
        let before = processor(pid);
        stream::iter(batches)
            .for_each_concurrent(AT_ONCE, |batch| {
                let store = &store;
                async move { drop(store.readings.store(&batch).await.expect("stored")) }
            })
            .await;
        let ours = (processor(pid) - before) / readings as f64 * 1e6;
        println!("round {round}: bare insert_many {floor:.1} us a reading, store {ours:.1} us");
    }

    for devices in [100, 5_000] {
        let options = MongoOptions { database: Some(unique("cost")), ..MongoOptions::new(server.uri()) };
        let store = mongo::connect(options).await.expect("MongoDB answers");
        for b in 0..readings / BATCH {
            let batch: Vec<StoredReading> =
                (b * BATCH..(b + 1) * BATCH).map(|n| reading(n, devices)).collect();
            store.readings.store(&batch).await.expect("stored");
        }
        let account = AccountId::new("bench").expect("valid");
        let took = |started: Instant| -> Duration { started.elapsed() };
        for limit in [1, 100, 1_000] {
            let query = ReadingsQuery { account: Some(account.clone()), limit, ..Default::default() };
            let started = Instant::now();
            let found = store.readings.find(&query).await.expect("found");
            println!("{devices} devices: the newest {} of the account {:.0?}", found.len(), took(started));
        }
        let started = Instant::now();
        let count = store.readings.count(Some(&account)).await.expect("counted");
        println!("{devices} devices: {count} readings of the account counted {:.0?}", took(started));
        let started = Instant::now();
        let keys = store.readings.keys(&account, None, 10_000).await.expect("listed");
        println!("{devices} devices: {} identities listed {:.0?}", keys.len(), took(started));
    }
}
