//! One process per module on real servers, and what happens when they are killed, frozen and stopped: nothing is lost,
//! nothing is stored twice, and the leases come back.

mod system;

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use galerna::ingest::prelude::*;
use galerna::model::Account;
use galerna::model::{Envelope, Measurement, ParameterCode, Reading, Timestamp};
use galerna::storage::QueueState;
use galerna_test_servers::{Mongo, RabbitMq};
use system::{Service, call, until};
use tempfile::TempDir;

/// Length of a lease in these tests.
const LEASE: &str = "dispatcher.lease=3s";
/// Readings in a message.
const BATCH: u64 = 20;

/// The servers, and how the processes are told of them.
struct Plant {
    folder: TempDir,
    amqp: String,
    store_url: String,
    management: String,
    broker: std::sync::Arc<dyn Broker>,
    store: Store,
    api: Option<String>,
    maintainer: Option<String>,
}

impl Plant {
    /// Accounts `A0`, `A1`, … with a queue each, known to the store.
    async fn new(accounts: u64) -> Self {
        let (rabbit, mongo) = (RabbitMq::shared().await, Mongo::shared().await);
        let amqp = rabbit.vhost().await;
        let store_url = system::database(&mongo.uri(), &mongo.unique("faults"));
        let store = galerna::storage::open(&store_url).await.unwrap();
        let accounts: Vec<Account> = (0..accounts)
            .map(|n| {
                let id = AccountId::new(format!("A{n}")).unwrap();
                Account { name: id.to_string(), queue: queue(n), id, active: true }
            })
            .collect();
        store.accounts.put(&accounts).await.unwrap();
        Self {
            folder: tempfile::tempdir().unwrap(),
            broker: galerna::broker::open(&amqp).await.unwrap(),
            management: format!("broker.management_url={}", rabbit.management_uri()),
            amqp,
            store_url,
            store,
            api: None,
            maintainer: None,
        }
    }

    fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    fn start(&self, args: &[&str]) -> Service {
        let mut all = vec![
            "--broker",
            &self.amqp,
            "--store",
            &self.store_url,
            "--set",
            &self.management,
            "--set",
            LEASE,
        ];
        all.extend_from_slice(args);
        Service::start(Path::new(&self.folder()), &all)
    }

    /// A maintainer, and a dispatcher that pings it.
    async fn services(&mut self) -> (Service, Service) {
        let maintainer = self.start(&[
            "--set",
            "maintainer.listen=127.0.0.1:0",
            "--set",
            "maintainer.empties_every=1s",
            "maintainer",
        ]);
        let entry = maintainer.said("the maintainer works").await;
        self.maintainer =
            Some(format!("maintainer.url=http://{}", entry["fields"]["address"].as_str().unwrap()));
        let dispatcher = self.dispatcher("127.0.0.1:0").await;
        self.api = Some(dispatcher.api().await);
        let all = self.store.accounts.list().await.unwrap().len();
        until("the maintainer makes the queues", || async {
            self.store.queues.all().await.unwrap().len() == all
        })
        .await;
        (maintainer, dispatcher)
    }

    async fn dispatcher(&self, listen: &str) -> Service {
        let maintainer = self.maintainer.clone().unwrap();
        let dispatcher = self.start(&["--set", &maintainer, "--listen", listen, "dispatcher"]);
        dispatcher.api().await;
        dispatcher
    }

    async fn worker(&self, name: &str) -> Service {
        let name = format!("worker.name={name}");
        let api = self.api.as_deref().unwrap();
        // Few messages at a time, so that a worker has some in hand whenever it is hit.
        let few = [
            "--set",
            "worker.prefetch=5",
            "--set",
            "worker.leases=2",
            "--set",
            "worker.messages_per_lease=20",
        ];
        let mut args = vec!["--dispatcher", api, "--set", &name];
        args.extend_from_slice(&few);
        args.push("worker");
        let worker = self.start(&args);
        worker.said("the worker works").await;
        worker
    }

    /// Publishes messages `from..to` to every queue.
    async fn publish(&self, accounts: u64, from: u64, to: u64) {
        for number in from..to {
            let window = (0..accounts).map(|n| (queue(n), envelope(n, number).encode())).collect();
            self.broker.publish(window).await.unwrap();
        }
    }

    /// How many readings are stored.
    async fn stored(&self) -> u64 {
        self.store.readings.count(None).await.unwrap()
    }

    /// Every reading of the messages `0..messages` is stored, once, and no other.
    async fn is_whole(&self, accounts: u64, messages: u64) {
        until("all stored", || async { self.stored().await >= accounts * messages * BATCH }).await;
        for n in 0..accounts {
            let account = AccountId::new(format!("A{n}")).unwrap();
            let keys = self.store.readings.keys(&account, None, usize::MAX >> 33).await.unwrap();
            let found: HashSet<(String, Timestamp)> = keys.iter().map(|k| (k.device.clone(), k.ts)).collect();
            let wanted: HashSet<(String, Timestamp)> = (0..messages)
                .flat_map(|number| envelope(n, number).readings)
                .map(|reading| (reading.did, reading.ts))
                .collect();
            assert_eq!(keys.len(), found.len(), "{account}: something is stored twice");
            assert_eq!(found, wanted, "{account}");
        }
        until("the queues are empty", || async {
            for n in 0..accounts {
                let depth = self.broker.depth(&queue(n)).await.unwrap();
                if depth.ready + depth.unacked > 0 {
                    return false;
                }
            }
            true
        })
        .await;
        for n in 0..accounts {
            let dead = self.broker.dead_letters(&queue(n), 0, 10).await.unwrap();
            assert!(dead.is_empty(), "{dead:?}");
        }
    }

    /// No queue is leased any more.
    async fn all_leases_are_back(&self) {
        until("all leases are back", || async {
            let queues = self.store.queues.all().await.unwrap();
            queues.iter().all(|q| q.lease.is_none() && q.state != QueueState::Leased)
        })
        .await;
    }
}

fn queue(n: u64) -> QueueName {
    QueueName::new(format!("Q{n}")).unwrap()
}

fn envelope(n: u64, number: u64) -> Envelope {
    let start = Timestamp::parse("2017-01-01T00:00:00Z").unwrap();
    let ts = start.plus_millis(i64::try_from(number).unwrap() * 900_000);
    let reading = |device| Reading {
        did: format!("meter-{device}"),
        values: vec![Measurement { p: ParameterCode(401), v: 1.0 }],
        sqn: number + 1,
        ts,
    };
    Envelope {
        id: format!("A{n}-{number}"),
        account: AccountId::new(format!("A{n}")).unwrap(),
        source: SourceId::new(format!("A{n}")).unwrap(),
        received: SystemClock.now(),
        readings: (0..BATCH).map(reading).collect(),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_killed_in_mid_run_loses_nothing_and_its_leases_come_back() {
    let (accounts, messages) = (4, 60);
    let mut plant = Plant::new(accounts).await;
    let _services = plant.services().await;
    plant.publish(accounts, 0, messages).await;
    let mut killed = plant.worker("w1").await;
    let mut other = plant.worker("w2").await;
    until("some is stored", || async { plant.stored().await > 5 * BATCH }).await;
    killed.kill();
    let mut again = plant.worker("w1").await;
    plant.is_whole(accounts, messages).await;
    assert!(again.stop().await.success(), "{}", again.log());
    assert!(other.stop().await.success(), "{}", other.log());
    plant.all_leases_are_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_frozen_past_its_lease_and_continued_does_no_harm() {
    let (accounts, messages) = (3, 40);
    let mut plant = Plant::new(accounts).await;
    let _services = plant.services().await;
    plant.publish(accounts, 0, messages).await;
    let mut frozen = plant.worker("frozen").await;
    until("some is stored", || async { plant.stored().await > 3 * BATCH }).await;
    frozen.signal("STOP");
    // Another takes over what the frozen one held.
    let mut other = plant.worker("other").await;
    until("the frozen worker's leases are given to the other or returned", || async {
        let queues = plant.store.queues.all().await.unwrap();
        queues.iter().all(|q| q.lease.as_ref().is_none_or(|lease| lease.consumer != "frozen"))
    })
    .await;
    frozen.signal("CONT");
    plant.publish(accounts, messages, messages + 10).await;
    plant.is_whole(accounts, messages + 10).await;
    assert!(frozen.stop().await.success(), "{}", frozen.log());
    assert!(other.stop().await.success(), "{}", other.log());
    plant.all_leases_are_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_killed_and_restarted_keeps_what_was_leased_paused_and_counted() {
    let (accounts, messages) = (3, 40);
    let mut plant = Plant::new(accounts).await;
    let (_maintainer, mut dispatcher) = plant.services().await;
    let api = plant.api.clone().unwrap();
    let (status, _) = call("POST", &format!("{api}/queue/Q0/pause"), Some(r#"{"reason":"trying"}"#)).await;
    assert_eq!(status, 200);
    plant.publish(accounts, 0, messages).await;
    let mut worker = plant.worker("w1").await;
    until("some is stored", || async { plant.stored().await > 3 * BATCH }).await;
    let before = plant.store.queues.all().await.unwrap();
    dispatcher.kill();
    let mut dispatcher = plant.dispatcher(api.strip_prefix("http://").unwrap()).await;
    until("the queues that are not paused are stored", || async {
        plant.stored().await >= (accounts - 1) * messages * BATCH
    })
    .await;
    let (_, paused) = call("GET", &format!("{api}/queue/Q0"), None).await;
    assert_eq!((&paused["state"], &paused["reason"]), (&"pause".into(), &"trying".into()));
    for record in before {
        let now = plant.store.queues.get(&record.queue).await.unwrap().unwrap();
        assert!(
            now.epoch >= record.epoch,
            "{} went from epoch {} to {}",
            record.queue,
            record.epoch,
            now.epoch
        );
    }
    let (status, _) = call("POST", &format!("{api}/queue/Q0/unpause"), None).await;
    assert_eq!(status, 200);
    plant.is_whole(accounts, messages).await;
    assert!(worker.stop().await.success(), "{}", worker.log());
    assert!(dispatcher.stop().await.success(), "{}", dispatcher.log());
    plant.all_leases_are_back().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigterm_drains_a_worker_and_gives_its_leases_back_at_once() {
    let (accounts, messages) = (2, 60);
    let mut plant = Plant::new(accounts).await;
    let (mut maintainer, mut dispatcher) = plant.services().await;
    plant.publish(accounts, 0, messages).await;
    let mut worker = plant.worker("w1").await;
    until("some is stored", || async { plant.stored().await > 3 * BATCH }).await;
    assert!(worker.stop().await.success(), "{}", worker.log());
    // Not by waiting for the lease to expire: they are back when the process has ended.
    let queues = plant.store.queues.all().await.unwrap();
    assert!(queues.iter().all(|q| q.lease.is_none() && q.crashes == 0), "{queues:?}");
    let mut next = plant.worker("w2").await;
    plant.is_whole(accounts, messages).await;
    assert!(next.stop().await.success(), "{}", next.log());
    assert!(dispatcher.stop().await.success(), "{}", dispatcher.log());
    assert!(maintainer.stop().await.success(), "{}", maintainer.log());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_stops_at_once() {
    let accounts = 1;
    let mut plant = Plant::new(accounts).await;
    let (_maintainer, _dispatcher) = plant.services().await;
    let mut worker = plant.worker("w1").await;
    worker.signal("STOP");
    // Both are waiting when it goes on.
    worker.signal("INT");
    worker.signal("TERM");
    worker.signal("CONT");
    let status = tokio::time::timeout(Duration::from_secs(60), worker.end()).await.unwrap();
    assert!(matches!(status.code(), Some(0 | 130)), "{status}");
}
