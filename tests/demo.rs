//! The demo: everything that it publishes is accounted for.

mod system;

use std::path::Path;
use std::time::Duration;

use galerna_test_servers::{Mongo, RabbitMq};
use serde_json::Value;
use system::{command, end_of, errors};

/// Values in the two months of the extract, and posts that hold at least one of them.
const READINGS: u64 = 464_325;
const POSTS: u64 = 15_547;

/// What the largest demo may take, unoptimised, on a machine that is busy.
const LONGEST: Duration = Duration::from_secs(1_200);

fn demo(folder: &Path, args: &[&str]) -> Value {
    let mut all = vec!["demo", "--exit", "--report", "report.json"];
    all.extend_from_slice(args);
    let output = end_of(&mut command(folder, &all), LONGEST);
    let report = std::fs::read(folder.join("report.json"));
    let report = report.unwrap_or_else(|e| panic!("no report ({e}): {}", errors(&output)));
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert!(output.status.success(), "{}\n{report:#}", errors(&output));
    report
}

fn number(report: &Value, name: &str) -> u64 {
    report[name].as_u64().unwrap_or_else(|| panic!("{name} is {}", report[name]))
}

/// What must hold of every run into an empty store.
fn is_whole(report: &Value) {
    for name in ["lost", "outdated", "unexpected"] {
        assert_eq!(number(report, name), 0, "{name}: {report:#}");
    }
    let refused: u64 = report["rejected"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
    assert_eq!(number(report, "dead_lettered"), refused, "{report:#}");
    let accounted =
        ["stored", "replaced", "duplicates", "rejected_readings"].map(|name| number(report, name));
    // A busy machine may let a message time out: its second delivery is all duplicates.
    assert!(accounted.iter().sum::<u64>() >= number(report, "published"), "{report:#}");
    // Two accounts send the same faulty messages.
    for (reason, times) in [
        ("unknown_parameter", 2),
        ("not_a_number", 2),
        ("device", 2),
        ("bad_time", 2),
        ("malformed", 2),
        ("undecodable", 6),
    ] {
        assert_eq!(report["rejected"][reason], times, "{reason}: {report:#}");
    }
    assert!(
        report["seconds"].as_f64().unwrap() > 0.0 && report["readings_per_second"].as_f64().unwrap() > 0.0
    );
    for part in ["p50", "p99", "max"] {
        assert!(report["latency_ms"][part].is_u64(), "{report:#}");
    }
    assert!(number(report, "leases") > 0);
}

#[test]
fn the_whole_extract_is_stored_reading_by_reading_and_its_outages_raise_alerts() {
    let folder = tempfile::tempdir().unwrap();
    let report = demo(folder.path(), &[]);
    is_whole(&report);
    assert_eq!(number(&report, "accounts"), 11);
    assert_eq!(number(&report, "queues"), 11);
    // Beside the extract: one good reading in each of two faulty messages of two accounts.
    assert_eq!(number(&report, "stored"), READINGS + 4, "{report:#}");
    // One post in twenty comes as a message, some of these twice; and five faulty messages of two accounts.
    assert_eq!(number(&report, "messages"), POSTS / 20 + POSTS / (20 * 501) + 10, "{report:#}");
    // All else comes over HTTP, many posts a call.
    assert!(number(&report, "calls") > 100, "{report:#}");
    // Every one of the 85 Panther meters falls silent, and all 31 of Cockatoo; they come back.
    assert!(number(&report, "alerts_raised") >= 85 + 31, "{report:#}");
    let (raised, resolved) = (number(&report, "alerts_raised"), number(&report, "alerts_resolved"));
    assert!(resolved > 0 && resolved < raised, "one meter stays dead to the end: {report:#}");
    assert_eq!(number(&report, "alerts_delivered"), raised + resolved, "{report:#}");
}

#[test]
fn one_account_with_a_thousand_times_the_others_backlog_loses_nothing_either() {
    let folder = tempfile::tempdir().unwrap();
    for strategy in ["lru", "fair"] {
        let args = ["--readings", "12000", "--accounts", "60", "--workers", "2", "--strategy", strategy];
        let report = demo(folder.path(), &args);
        is_whole(&report);
        assert_eq!(number(&report, "accounts"), 60);
        assert_eq!(report["strategy"], strategy);
        let waits = &report["waits"];
        let (big, others) = (number(&waits["big"], "readings"), number(waits, "others_readings"));
        assert!(big >= 1_000 * others, "{report:#}");
        assert_eq!(number(&report, "stored"), big + 59 * others + 4, "{report:#}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_on_rabbitmq_and_mongodb_leaves_documents_for_any_client() {
    let (rabbit, mongo) = (RabbitMq::shared().await, Mongo::shared().await);
    let amqp = rabbit.vhost().await;
    let store = system::database(&mongo.uri(), &mongo.unique("demo"));
    let management = format!("broker.management_url={}", rabbit.management_uri());
    let folder = tempfile::tempdir().unwrap();
    let load = ["--readings", "12000", "--accounts", "12"];
    let servers = ["--broker", &amqp, "--store", &store, "--set", &management];
    let stored = async || galerna::storage::open(&store).await.unwrap().readings.count(None).await.unwrap();
    let report = demo(folder.path(), &[&load[..], &servers].concat());
    is_whole(&report);
    assert_eq!((&report["broker"], &report["store"]), (&"rabbitmq".into(), &"mongodb".into()));
    let first = stored().await;
    assert_eq!(first, number(&report, "stored"));

    // Again on the same servers: what is there is left, and only what this run did is counted.
    let report = demo(folder.path(), &[&load[..], &servers].concat());
    is_whole(&report);
    assert_eq!(number(&report, "stored"), first);
    assert_eq!(stored().await, 2 * first);

    // In the same folder with other servers and other accounts: nothing of the runs before is in the way.
    let (amqp, store) = (rabbit.vhost().await, system::database(&mongo.uri(), &mongo.unique("demo")));
    let load = ["--readings", "9000", "--accounts", "45"];
    let report = demo(
        folder.path(),
        &[&load[..], &["--broker", &amqp, "--store", &store, "--set", &management]].concat(),
    );
    is_whole(&report);
    assert_eq!(number(&report, "accounts"), 45);
    let left: Vec<_> = std::fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["report.json"], "the demo leaves nothing in the folder but what was asked for");
}
