//! Topologies on Storm, on a cluster within one JVM, come to the same results as here. `tests/storm-cluster` runs the ingestion of these on
//! a whole cluster.

mod system;

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use galerna::ingest::prelude::*;
use galerna::model::{Account, Rule};
use galerna_test_servers::{Mongo, RabbitMq, storm_class_path};
use serde_json::{Value, json};
use system::{Service, end_of, until};
use tempfile::TempDir;

/// The longest that Storm may take, far beyond what it does on a busy machine.
const DEADLINE: Duration = Duration::from_secs(300);

/// A program that submits Flux files to a cluster which runs already, and then waits: `tests/storm-cluster` names one.
fn submit() -> Option<OsString> {
    std::env::var_os("GALERNA_STORM_SUBMIT")
}

/// A cluster that runs Flux files, in a JVM that ends when this is dropped.
struct Storm {
    jvm: Child,
    log: PathBuf,
}

impl Storm {
    fn run(folder: &Path, files: &[PathBuf]) -> Self {
        let log = folder.join("storm.log");
        let output = File::create(&log).unwrap();
        let mut command = submit().map_or_else(
            || {
                let mut java = Command::new("java");
                java.args(["-XX:TieredStopAtLevel=1", "-Xmx1g", "-cp", &storm_class_path()]);
                java.arg("galerna.storm.LocalRun");
                java
            },
            Command::new,
        );
        let jvm = command
            .args(files)
            .current_dir(folder)
            .env("RESULTS", folder)
            .stdin(Stdio::piped())
            .stdout(output.try_clone().unwrap())
            .stderr(output)
            .spawn()
            .unwrap_or_else(|error| panic!("java does not start, run scripts/servers: {error}"));
        Self { jvm, log }
    }

    /// Waits until a condition holds. A child that dies may take the whole JVM with it.
    async fn until<F: Future<Output = bool>>(&mut self, what: &str, mut holds: impl FnMut() -> F) {
        let begun = Instant::now();
        while !holds().await {
            let ended = self.jvm.try_wait().unwrap();
            assert!(ended.is_none(), "{what}: Storm ended ({ended:?})");
            assert!(begun.elapsed() < DEADLINE, "{what}: not within {DEADLINE:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for Storm {
    fn drop(&mut self) {
        // Its children end when it does, as their input does.
        drop(self.jvm.kill());
        drop(self.jvm.wait());
        if std::thread::panicking() {
            let log = std::fs::read_to_string(&self.log).unwrap_or_default();
            let told = log.lines().filter(|line| !line.contains(" INFO ")).collect::<Vec<_>>();
            eprintln!("--- Storm said at last:\n{}", told[told.len().saturating_sub(60)..].join("\n"));
        }
    }
}

/// The example whose topologies run here and there. Cargo builds examples beside the tests.
fn program() -> String {
    let test = std::env::current_exe().unwrap();
    test.ancestors().nth(2).unwrap().join("examples/on_storm").display().to_string()
}

/// Runs the example to its end, and returns what it printed.
fn example(results: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new(program());
    let output = end_of(command.args(arguments).env("RESULTS", results), DEADLINE);
    assert!(output.status.success(), "{arguments:?}: {}", system::errors(&output));
    String::from_utf8(output.stdout).unwrap()
}

fn lines(folder: &Path, name: &str) -> Vec<String> {
    let text = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

/// The highest count of each word.
fn counts(folder: &Path) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for line in lines(folder, "counts") {
        let Some((word, count)) = line.split_once(' ') else { continue };
        let count = count.parse().unwrap_or(0);
        let known = counts.entry(word.to_owned()).or_insert(count);
        *known = count.max(*known);
    }
    counts
}

fn distinct(folder: &Path, name: &str) -> BTreeSet<String> {
    lines(folder, name).into_iter().collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn words_are_counted_and_windows_fire_on_storm_as_here() {
    let (here, there) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (here, there) = (here.path(), there.path());
    example(here, &["run", "words"]);
    example(here, &["run", "quarters"]);

    let flux = |name: &str, more: &[&str]| {
        let program = program();
        let arguments = ["topology", "flux", "--topology", name, "--command", &program];
        let file = there.join(format!("{name}.yaml"));
        std::fs::write(&file, example(there, &[&arguments, more].concat())).unwrap();
        file
    };
    let files = [flux("words", &["--message-pack"]), flux("quarters", &["--stretch", "quarters.."])];
    let mut storm = Storm::run(there, &files);
    // Each distinct line of these is a result, and there are none but these.
    for name in ["words", "quarters"] {
        let expected = distinct(here, name);
        assert!(!expected.is_empty());
        storm.until(name, || async { distinct(there, name).len() >= expected.len() }).await;
        assert_eq!(distinct(there, name), expected, "{name}");
    }
    let expected = counts(here);
    storm
        .until("the counts", || async { counts(there).values().sum::<u64>() >= expected.values().sum() })
        .await;
    // Storm may deliver a tuple twice, and does not unless something goes wrong.
    assert_eq!(counts(there), expected);
}

/// Readings in a message.
const BATCH: u64 = 5;
const ACCOUNTS: u64 = 3;
const MESSAGES: u64 = 40;

/// The servers of one ingestion, with a broker and a database of its own.
struct Plant {
    folder: TempDir,
    settings: Vec<String>,
    broker: std::sync::Arc<dyn Broker>,
    store: Store,
    _services: [Service; 2],
}

fn queue(n: u64) -> QueueName {
    QueueName::new(format!("Q{n}")).unwrap()
}

fn account(n: u64) -> AccountId {
    AccountId::new(format!("A{n}")).unwrap()
}

fn value(number: u64, device: u64) -> f64 {
    match number {
        _ if (number + device).is_multiple_of(10) => 5_000.0,
        _ if number % 17 == 16 => -1e300,
        _ => 100.0,
    }
}

/// A message, some of whose values are above the rule's limit and some of which are no readings.
fn envelope(n: u64, number: u64) -> Envelope {
    let start = Timestamp::parse("2017-01-01T00:00:00Z").unwrap();
    let reading = |device: u64| Reading {
        did: format!("meter-{device}"),
        values: vec![Measurement { p: ParameterCode(401), v: value(number, device) }],
        sqn: number + 1,
        ts: start.plus_millis(i64::try_from(number).unwrap() * 900_000),
    };
    Envelope {
        id: format!("A{n}-{number}"),
        account: account(n),
        source: SourceId::new(format!("A{n}")).unwrap(),
        received: start,
        readings: (0..BATCH).map(reading).collect(),
    }
}

/// How many readings there are among all that is published.
fn readings() -> u64 {
    let all = (0..MESSAGES).flat_map(|number| (0..BATCH).map(move |device| value(number, device)));
    ACCOUNTS * all.filter(|value| *value > 0.0).count() as u64
}

impl Plant {
    async fn new() -> Self {
        let (rabbit, mongo) = (RabbitMq::shared().await, Mongo::shared().await);
        let (amqp, folder) = (rabbit.vhost().await, tempfile::tempdir().unwrap());
        let url = system::database(&mongo.uri(), &mongo.unique("storm"));
        let store = galerna::storage::open(&url).await.unwrap();
        let accounts: Vec<Account> = (0..ACCOUNTS)
            .map(|n| Account { name: account(n).to_string(), queue: queue(n), id: account(n), active: true })
            .collect();
        store.accounts.put(&accounts).await.unwrap();
        let rule: Rule = serde_json::from_value(json!({
            "id": "heat", "name": "Too much", "account": null, "devices": "meter-*", "severity": "critical", "endpoints": [],
            "cooldown_ms": 0, "enabled": true,
            "condition": {"kind": "threshold", "parameter": 401, "comparison": "above", "limit": 4000.0, "clear": 3900.0, "for_ms": 0}
        }))
        .unwrap();
        store.rules.put(&rule).await.unwrap();
        let mut settings = vec!["--broker".to_owned(), amqp.clone(), "--store".to_owned(), url];
        let management = format!("broker.management_url={}", rabbit.management_uri());
        settings.extend(["--set".to_owned(), management]);
        let start = |more: &[&str]| {
            let arguments: Vec<&str> =
                settings.iter().map(String::as_str).chain(more.iter().copied()).collect();
            Service::start(folder.path(), &arguments)
        };
        let maintainer = start(&[
            "--set",
            "maintainer.listen=127.0.0.1:0",
            "--set",
            "maintainer.empties_every=1s",
            "maintainer",
        ]);
        let entry = maintainer.said("the maintainer works").await;
        let maintained = format!("maintainer.url=http://{}", entry["fields"]["address"].as_str().unwrap());
        let dispatcher = start(&["--set", &maintained, "--listen", "127.0.0.1:0", "dispatcher"]);
        let api = dispatcher.api().await;
        settings.extend(["--dispatcher".to_owned(), api]);
        until("the maintainer makes the queues", || async {
            store.queues.all().await.unwrap().len() == accounts.len()
        })
        .await;
        let broker = galerna::broker::open(&amqp).await.unwrap();
        for number in 0..MESSAGES {
            let window = (0..ACCOUNTS).map(|n| (queue(n), envelope(n, number).encode())).collect();
            broker.publish(window).await.unwrap();
        }
        Self { folder, settings, broker, store, _services: [maintainer, dispatcher] }
    }

    fn arguments<'a>(&'a self, more: &[&'a str]) -> Vec<&'a str> {
        self.settings.iter().map(String::as_str).chain(more.iter().copied()).collect()
    }

    /// Whether all that was published is acked.
    async fn is_done(&self) -> bool {
        for n in 0..ACCOUNTS {
            let depth = self.broker.depth(&queue(n)).await.unwrap();
            if depth.ready + depth.unacked > 0 {
                return false;
            }
        }
        true
    }

    /// What came of it: readings, refused values and alerts.
    async fn results(&self) -> BTreeSet<String> {
        let mut results = BTreeSet::new();
        for n in 0..ACCOUNTS {
            for key in self.store.readings.keys(&account(n), None, 1 << 20).await.unwrap() {
                assert!(
                    results.insert(format!("{} has {} of {}", account(n), key.device, key.ts)),
                    "{key:?} twice"
                );
            }
            for dead in self.broker.dead_letters(&queue(n), 0, 1_000).await.unwrap() {
                results.insert(format!("{} refused {}", account(n), dead.failure.reason));
            }
        }
        for event in self.store.alert_states.events(None, 0, 10_000).await.unwrap() {
            results.insert(format!("{} by {:?}", event.id, event.origin));
        }
        results
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_ingestion_stores_refuses_and_alerts_on_storm_as_in_a_worker() {
    let here = Plant::new().await;
    let mut worker = Service::start(here.folder.path(), &here.arguments(&["worker"]));
    let good = readings();
    until("all is stored", || async { here.store.readings.count(None).await.unwrap() >= good }).await;
    until("the worker is done", || here.is_done()).await;
    assert!(worker.stop().await.success(), "{}", worker.log());
    let expected = here.results().await;
    let told = |what: &str| expected.iter().filter(|line| line.contains(what)).count();
    assert_eq!(told(" has meter-") as u64, good);
    assert!(told("refused") > 0 && told("heat") > 0, "{expected:?}");

    let there = Plant::new().await;
    let command = there.arguments(&[]).join(" ");
    // On a cluster of its own machines the program comes with the topology.
    let program = if submit().is_some() { "sh galerna.sh" } else { env!("CARGO_BIN_EXE_galerna") };
    let command = format!("{program} {command}");
    let mut command_line =
        there.arguments(&["topology", "flux", "--message-pack", "--workers", "2", "--command"]);
    command_line.push(&command);
    let yaml = system::run_well(there.folder.path(), &command_line);
    let components: Value = serde_norway::from_str(&yaml).unwrap();
    assert_eq!(components["bolts"].as_array().map(Vec::len), Some(4), "{yaml}");
    let file = there.folder.path().join("ingest.yaml");
    std::fs::write(&file, yaml).unwrap();
    let mut storm = Storm::run(there.folder.path(), &[file]);
    storm.until("all results are there", || async { there.results().await.len() >= expected.len() }).await;
    storm.until("Storm is done", || there.is_done()).await;
    assert_eq!(there.results().await, expected);
}
