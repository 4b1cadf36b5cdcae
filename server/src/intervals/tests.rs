//! However values are cut into calls, side by side, ended midway and made again: one store comes of them.

use std::sync::Arc;

use galerna_broker::Broker;
use galerna_model::envelope::decode;
use galerna_model::{ParameterRegistry, QueueName, ValidationLimits, Validator};
use galerna_storage::StoredReading;
use serde_json::json;
use tokio::time::timeout;

use super::*;
use crate::publish::{Directory, Owner};

const HOURS: i64 = 60;

struct World {
    store: Store,
    broker: Arc<dyn Broker>,
    queue: QueueName,
}

impl World {
    async fn open() -> Arc<Self> {
        let store = galerna_storage::sqlite::in_memory().unwrap();
        let broker: Arc<dyn Broker> = galerna_broker::open("embedded::memory:").await.unwrap();
        let queue = QueueName::new("A").unwrap();
        let world = Arc::new(Self { store, broker, queue });
        // The account and its queue, so that calls that run side by side find them.
        world.publish(&[]).await;
        world
    }

    async fn publish(&self, meters: &[MeterValues]) -> Summary {
        let directory = Directory::read(&self.store, true).await.unwrap();
        let mut queues = Outgoing::new(&*self.broker, directory, Owner::default(), false, "test");
        queues.accepts(&AccountId::new("A").unwrap()).await.unwrap().unwrap();
        let registry = Arc::new(ParameterRegistry::built_in());
        let check = WorkerCheck::new(Validator::new(registry, ValidationLimits::default()));
        publish_values(meters, &self.store, &check, &mut queues).await.unwrap();
        std::mem::take(queues.summary())
    }

    /// Stores what waits on the queue, in any order, as workers do; what was stored before changes nothing.
    async fn work(&self) {
        let waiting = self.broker.peek(&self.queue, 100_000).await.unwrap();
        let mut readings = Vec::new();
        for waiting in waiting {
            let decoded = decode(&waiting.message).unwrap();
            for (_, reading) in decoded.readings {
                readings.push(StoredReading {
                    account: decoded.account.clone().unwrap(),
                    source: decoded.source.clone().unwrap(),
                    device: reading.did,
                    ts: reading.ts,
                    sqn: reading.sqn,
                    values: reading.values,
                    flags: Vec::new(),
                    received: decoded.received.unwrap(),
                });
            }
        }
        fastrand::shuffle(&mut readings);
        for batch in readings.chunks(7) {
            self.store.readings.store(batch).await.unwrap();
        }
    }

    /// What is stored in the end: device, hour, parameter and value.
    async fn stored(&self) -> Vec<(String, i64, u32, String)> {
        self.work().await;
        let found = self
            .store
            .readings
            .find(&ReadingsQuery { limit: 100_000, ..ReadingsQuery::default() })
            .await
            .unwrap();
        let mut all: Vec<_> = found
            .iter()
            .flat_map(|reading| {
                let hour = reading.ts.as_millis() / 3_600_000;
                reading.values.iter().map(move |m| (reading.device.clone(), hour, m.p.0, m.v.to_string()))
            })
            .collect();
        all.sort();
        all
    }
}

/// Hours of one meter, of which each used as many tenths of a kWh as its number says.
fn hours(meter: &str, utility: &str, hours: impl IntoIterator<Item = i64>) -> MeterValues {
    let values: Vec<_> = hours
        .into_iter()
        .map(|hour| {
            let (ts, amount) = (Timestamp((420_000 + hour) * 3_600_000), format!("{}", 1 + hour % 7));
            json!({
                "line": hour + 2, "ts": ts, "amount": { "net": ["active_energy", amount] }, "length_ms": 3_600_000, "utility": utility,
            })
        })
        .collect();
    serde_json::from_value(json!({ "account": "A", "meter": meter, "values": values })).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_side_by_side_and_ended_midway_make_the_store_of_one_call() {
    let one = World::open().await;
    one.publish(&[hours("m", "electricity", 0..HOURS)]).await;
    let expected = one.stored().await;
    assert_eq!(expected.iter().filter(|(_, _, parameter, _)| *parameter == 402).count(), HOURS as usize);
    for seed in 0..12 {
        let mut random = fastrand::Rng::with_seed(seed);
        let world = World::open().await;
        let mut parts: Vec<Vec<i64>> = vec![Vec::new(); random.usize(2..6)];
        for hour in 0..HOURS {
            // Some hours are in two files.
            for _ in 0..random.usize(1..3) {
                let part = random.choice(&mut parts).unwrap();
                if !part.contains(&hour) {
                    part.push(hour);
                }
            }
        }
        let calls: Vec<_> = parts
            .into_iter()
            .map(|part| {
                let (world, mut random) = (Arc::clone(&world), random.fork());
                tokio::spawn(async move {
                    let part = [hours("m", "electricity", part)];
                    // Ended at moments that nobody chose, and made again.
                    for _ in 0..random.usize(0..4) {
                        let moment = Duration::from_micros(random.u64(0..4_000));
                        drop(timeout(moment, world.publish(&part)).await);
                    }
                    world.publish(&part).await;
                })
            })
            .collect();
        while !calls.iter().all(tokio::task::JoinHandle::is_finished) {
            world.work().await;
        }
        for call in calls {
            call.await.unwrap();
        }
        assert_eq!(world.stored().await, expected, "seed {seed}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_utilities_of_one_meter_id_both_stay() {
    let together = World::open().await;
    together.publish(&[hours("m", "electricity", 0..5), hours("m", "solar", 0..5)]).await;
    let expected = together.stored().await;
    let devices: BTreeSet<&str> = expected.iter().map(|(device, ..)| device.as_str()).collect();
    assert_eq!(devices.into_iter().collect::<Vec<_>>(), ["m", "m:solar"]);
    let counters = |device: &str| -> Vec<String> {
        let of = expected.iter().filter(|(known, _, parameter, _)| known == device && *parameter == 402);
        of.map(|(.., value)| value.clone()).collect()
    };
    assert_eq!(counters("m"), ["1", "3", "6", "10", "15"]);
    assert_eq!(counters("m:solar"), counters("m"));
    // In calls of their own, and again: the same.
    let apart = World::open().await;
    apart.publish(&[hours("m", "electricity", 0..5)]).await;
    apart.publish(&[hours("m", "solar", 3..5)]).await;
    apart.publish(&[hours("m", "solar", 0..4)]).await;
    let again = apart.publish(&[hours("m", "electricity", 0..5)]).await;
    assert_eq!((again.imported.known, again.imported.corrected), (5, 0));
    assert_eq!(apart.stored().await, expected);
}
