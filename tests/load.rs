//! The load generator against a real frontend on the embedded broker: what it counts is what the queues hold.

mod system;

use std::path::Path;
use std::process::{Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use galerna::broker::Outcome;
use galerna::ingest::prelude::*;
use galerna::model::{Reading, decode};
use galerna_directory::FileDirectory;
use galerna_frontend::{Directory, Frontend, Limits, Options, Parts, Rate, TokenHash};
use serde_json::{Value, json};
use system::{DEADLINE, command, end_of, errors, output_of};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Sources of the world, all of account `A`; the token of source `s` is `token-s`.
const SOURCES: [&str; 3] = ["c1", "c2", "c3"];

struct World {
    url: String,
    broker: Arc<dyn Broker>,
    folder: tempfile::TempDir,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

fn queue() -> QueueName {
    QueueName::new("A").unwrap()
}

impl World {
    async fn start(options: Options) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let sources: Vec<Value> = SOURCES
            .iter()
            .map(|s| json!({"id": s, "account": "A", "token_hash": TokenHash::of(&format!("token-{s}")).to_string()}))
            .collect();
        let lists = json!({"accounts": [{"id": "A", "queue": "A"}], "sources": sources});
        std::fs::write(folder.path().join("lists.json"), lists.to_string()).unwrap();
        let broker = galerna::broker::open("embedded::memory:").await.unwrap();
        broker.declare(&queue()).await.unwrap();
        let parts = Parts {
            broker: broker.clone(),
            directory: Directory::new(FileDirectory::new(folder.path().join("lists.json")).unwrap()),
            hints: None,
            statistics: galerna_storage::sqlite::in_memory().unwrap().statistics,
            clock: Arc::new(SystemClock),
            registry: Default::default(),
        };
        let mut options = options;
        options.timeouts.notice = Duration::ZERO;
        let frontend = Frontend::open(parts, options).await.unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let stop = CancellationToken::new();
        let stopped = stop.clone().cancelled_owned();
        let serving = tokio::spawn(async move { frontend.serve(listener, stopped).await.unwrap() });
        Self { url, broker, folder, stop, serving }
    }

    /// Runs `galerna load` against it.
    async fn load(&self, args: &[&str]) -> Output {
        let mut all = vec!["load", "--url", &self.url];
        all.extend_from_slice(args);
        let mut command = command(self.folder.path(), &all);
        tokio::task::spawn_blocking(move || end_of(&mut command, DEADLINE)).await.unwrap()
    }

    /// Runs it, which must do, and returns its report.
    async fn report(&self, args: &[&str]) -> Value {
        let path = self.folder.path().join("report.json");
        let mut all = args.to_vec();
        all.extend(["--report", path.to_str().unwrap()]);
        let output = self.load(&all).await;
        assert!(output.status.success(), "{args:?}: {}", errors(&output));
        assert!(!output.stdout.is_empty(), "{args:?}");
        read(&path)
    }

    async fn depth(&self) -> u64 {
        self.broker.depth(&queue()).await.unwrap().ready
    }

    /// Takes what is in the queue out of it: source and reading.
    async fn take_all(&self) -> Vec<(SourceId, Reading)> {
        let mut consumer = self.broker.consume(&queue(), 10_000).await.unwrap();
        let mut readings = Vec::new();
        while self.depth().await > 0 {
            let mut settled = Vec::new();
            for delivery in consumer.receive(10_000, Duration::from_secs(5)).await.unwrap() {
                let decoded = decode(&delivery.message).unwrap();
                assert!(decoded.bad.is_empty(), "{:?}", decoded.bad);
                let source = decoded.source.unwrap();
                readings.extend(decoded.readings.into_iter().map(|(_, reading)| (source.clone(), reading)));
                settled.push((delivery.tag, Outcome::Ack));
            }
            consumer.settle(settled).await.unwrap();
        }
        consumer.close().await.unwrap();
        readings
    }

    async fn end(self) {
        self.stop.cancel();
        tokio::time::timeout(system::DEADLINE, self.serving).await.unwrap().unwrap();
    }
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()
}

fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("{name}: {report}"))
}

/// Nothing is refused for its rate.
fn generous() -> Options {
    let rate = Rate::new(1_000_000, 1_000_000_000);
    let limits = Limits { calls: rate, source_readings: rate, ..Limits::default() };
    Options { limits, ..Options::default() }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_loop_sends_what_it_was_asked_and_each_reading_is_new() {
    let world = World::start(generous()).await;
    let sources = "account,source,token\nA,c1,token-c1\nA,c2,token-c2\nA,c3,token-c3\n";
    std::fs::write(world.folder.path().join("sources.csv"), sources).unwrap();
    // Few enough for a busy machine; the seconds are the longest that it waits for late ones.
    let args = [
        "--sources",
        "sources.csv",
        "--rate",
        "20",
        "--seconds",
        "3",
        "--readings",
        "300",
        "--devices",
        "40",
        "--gzip",
    ];
    let report = world.report(&args).await;
    let (taken, not_sent) = (number(&report["statuses"], "202"), number(&report, "not_sent"));
    assert_eq!(taken + not_sent, 60, "{report}");
    assert_eq!((report["loop"].as_str(), report["asked_rate"].as_f64()), (Some("open"), Some(20.0)));
    assert_eq!(number(&report, "sources"), 3);
    assert_eq!(report["errors"], json!({}));
    assert_eq!(
        (number(&report, "accepted_readings"), number(&report, "rejected_readings")),
        (taken * 300, 0)
    );
    assert!(number(&report, "bytes") * 2 < number(&report, "bytes_unpacked"), "{report}");
    // From when a call was due is never less than from when it was sent.
    for at in ["mean", "p50", "p90", "p99", "p99.9", "max"] {
        let ms = |which: &str| report[which][at].as_f64().unwrap();
        assert!(ms("latency_ms") >= ms("from_sending_ms") && ms("from_sending_ms") > 0.0, "{at}: {report}");
    }

    // An envelope holds 250 readings at most.
    assert_eq!(world.depth().await, taken * 2);
    let readings = world.take_all().await;
    assert_eq!(readings.len() as u64, taken * 300);
    let mut identities: Vec<_> = readings.iter().map(|(s, r)| (s, &r.did, r.ts)).collect();
    identities.sort_unstable();
    identities.dedup();
    assert_eq!(identities.len(), readings.len(), "a reading came twice");
    let mut who: Vec<&str> = readings.iter().map(|(s, _)| s.as_str()).collect();
    who.sort_unstable();
    who.dedup();
    assert_eq!(who, SOURCES);
    assert!(readings.iter().all(|(_, r)| r.values.len() == 4), "several parameters");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_closed_loop_waits_as_it_is_told_and_repeats_itself_when_asked() {
    let rate = Rate::new(1, 3);
    let limits = Limits { calls: rate, ..Limits::default() };
    let world = World::start(Options { limits, ..Options::default() }).await;
    let args = [
        "--source",
        "c",
        "--sources-count",
        "2",
        "--token",
        "token-{source}",
        "--seconds",
        "6",
        "--readings",
        "10",
        "--devices",
        "10",
        "--connections",
        "4",
        "--repeat",
    ];
    let report = world.report(&args).await;
    let (taken, refused) = (number(&report["statuses"], "202"), number(&report["statuses"], "429"));
    assert!(taken >= 6, "the burst of both sources: {report}");
    assert!(refused >= 1 && number(&report, "waits") == refused, "{report}");
    assert_eq!(number(&report, "sent"), taken + refused);
    assert_eq!(report["loop"], "closed");
    assert!(report["first_problem"].as_str().unwrap().contains("429"), "{report}");
    assert_eq!(number(&report, "accepted_readings"), taken * 10);
    assert_eq!(world.depth().await, taken);
    let readings = world.take_all().await;
    let mut identities: Vec<_> = readings.iter().map(|(s, r)| (s, &r.did, r.ts)).collect();
    identities.sort_unstable();
    identities.dedup();
    assert_eq!(identities.len(), 2 * 10, "each source sends the same ten");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sweep_measures_each_size_on_its_own() {
    let world = World::start(generous()).await;
    let args = ["--source", "c1", "--token", "token-c1", "--sweep", "1,50,600", "--calls", "7"];
    let report = world.report(&args).await;
    let sizes: Vec<(u64, u64, u64)> = report["sizes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|s| {
            (number(s, "readings_per_call"), number(&s["statuses"], "202"), number(s, "accepted_readings"))
        })
        .collect();
    assert_eq!(sizes, [(1, 7, 7), (50, 7, 350), (600, 7, 4_200)]);
    // Before them one reading that makes the connection.
    assert_eq!(world.take_all().await.len(), 1 + 7 + 350 + 4_200);
    let output = world.load(&[&args[..], &["--json"]].concat()).await;
    let printed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(printed["sizes"].as_array().unwrap().len(), 3);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_of_which_nothing_is_taken_fails_and_says_why() {
    let world = World::start(generous()).await;
    let quick = ["--rate", "5", "--seconds", "1"];
    for more in [&quick[..], &["--sweep", "1,2"]] {
        let output = world.load(&[&["--source", "c1", "--token", "wrong"], more].concat()).await;
        assert_eq!(output.status.code(), Some(1), "{more:?}");
        assert!(errors(&output).contains("HTTP 401"), "{}", errors(&output));
    }
    assert_eq!(world.depth().await, 0);
    let folder = world.folder.path().to_owned();
    for (args, part) in [
        (&["load"][..], "--source"),
        (&["load", "--source", "s"], "--token"),
        (&["load", "--sources", "absent.csv"], "cannot open absent.csv"),
        (&["load", "--source", "s", "--token", "t", "--url", "nowhere"], "is no URL"),
        (
            &["load", "--source", "s", "--token", "t", "--set", "frontend.listen=127.0.0.1:0"],
            "name the frontend with --url",
        ),
        (
            &[
                "load",
                "--source",
                "s",
                "--token",
                "t",
                "--set",
                "frontend.listen=127.0.0.1:1",
                "--sweep",
                "1",
            ],
            "http://127.0.0.1:1 took no call",
        ),
        (&["load", "--source", "s", "--token", "t", "--rate", "0"], "0.001"),
        (&["load", "--source", "s", "--token", "t", "--sweep", "1", "--rate", "2"], "--rate"),
        (
            &["load", "--source", "s", "--token", "t", "--url", "http://127.0.0.1:1", "--sweep", "1"],
            "no connection",
        ),
    ] {
        let output = system::run(&folder, args);
        assert!(!output.status.success(), "{args:?}");
        assert!(errors(&output).contains(part), "{args:?}: {} lacks {part}", errors(&output));
    }
    world.end().await;
}

/// A frontend that takes everything, the first call only after a second.
async fn stalling() -> String {
    let first = Arc::new(AtomicBool::new(true));
    let readings = axum::routing::post(move || async move {
        if first.swap(false, Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        (StatusCode::ACCEPTED, axum::Json(json!({"accepted": 1, "rejected": []})))
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let app = axum::Router::new().route("/readings", readings);
    tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
    url
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_wait_behind_a_stall_count_from_when_they_were_due() {
    let folder = tempfile::tempdir().unwrap();
    let url = stalling().await;
    let steady = ["--rate", "10", "--seconds", "3", "--connections", "1", "--readings", "1", "--json"];
    let args = [&["load", "--url", &url, "--source", "s", "--token", "t"], &steady[..]].concat();
    let mut command = command(folder.path(), &args);
    let output = tokio::task::spawn_blocking(move || end_of(&mut command, DEADLINE)).await.unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // Of 30 calls nine are due during the stall and late by 0.9 s, 0.8 s and so on: 150 ms each, over all. A slow machine
    // makes it more.
    let mean = |which: &str| report[which]["mean"].as_f64().unwrap();
    assert!(mean("latency_ms") > mean("from_sending_ms") + 100.0, "{report}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_load_that_is_interrupted_tells_what_it_counted() {
    let world = World::start(generous()).await;
    let path = world.folder.path().join("report.json");
    let args =
        ["load", "--url", &world.url, "--source", "c1", "--token", "token-c1", "--rate", "20", "--seconds"];
    let mut command =
        command(world.folder.path(), &[&args[..], &["3600", "--report", path.to_str().unwrap()]].concat());
    let child = command.stdout(Stdio::null()).spawn().unwrap();
    // What is taken is not yet answered: the first of several is.
    system::until("some calls are taken", || async { world.depth().await >= 5 }).await;
    let signalled = std::process::Command::new("kill").args(["-INT", &child.id().to_string()]).status();
    assert!(signalled.unwrap().success());
    let output = tokio::task::spawn_blocking(move || output_of(child, "load", DEADLINE)).await.unwrap();
    assert!(output.status.success());
    let report = read(&path);
    assert!(number(&report["statuses"], "202") > 0, "{report}");
    // Of an hour's 72,000 only those that were due by then.
    assert!(number(&report, "sent") + number(&report, "not_sent") < 72_000, "{report}");
    world.end().await;
}
